// Keys: what a recipient may be, and how age is called, which never gets a private key as an argument.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decryptArgv, encryptArgv, identityFile, recipientSchema } from '../lib/age.ts'
import { EXIT, Failure } from '../lib/failure.ts'
import { installTools, pathWith } from '../rehearsal/tools.ts'

const KEY = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p'
const env = { ...process.env, PATH: pathWith(await installTools(() => {})) }

test('a recipient is a public key of age', () => {
  assert.is(recipientSchema.parse(KEY), KEY)
  for (const key of [
    '',
    'age1',
    KEY.slice(0, -1),
    `${KEY}q`,
    KEY.toUpperCase(),
    KEY.replace('ql3', 'qb3'),
    KEY.replace('ql3', 'q13'),
    ` ${KEY}`,
    `${KEY}\n`,
    'AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ',
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA',
    '--output=/etc/passwd',
  ])
    assert.not.ok(recipientSchema.safeParse(key).success, JSON.stringify(key))
})

test('a key with a slip in it is refused, before age has to', () => {
  assert.not.ok(recipientSchema.safeParse(KEY.replace('ql3z7', 'ql3z8')).success)
})

test('age is called with every recipient, and with the private key’s file', () => {
  assert.equal(encryptArgv(['age1a']), ['age', '--encrypt', '--recipient', 'age1a'])
  assert.equal(encryptArgv(['age1a', 'age1b']), ['age', '--encrypt', '--recipient', 'age1a', '--recipient', 'age1b'])
  assert.equal(decryptArgv('/keys/one'), ['age', '--decrypt', '--identity', '/keys/one'])
})

test('each of several recipients opens it alone, and nobody else', () => {
  const folder = mkdtempSync(join(tmpdir(), 'age-'))
  try {
    const files = ['one', 'two', 'other'].map((name) => join(folder, name))
    const [one, two] = files.map((file) => {
      execFileSync('age-keygen', ['-o', file], { env, stdio: 'pipe' })
      return execFileSync('age-keygen', ['-y', file], { env, encoding: 'utf8' }).trim()
    }) as [string, string, string]
    for (const key of [one, two]) assert.is(recipientSchema.parse(key), key)
    const [program = '', ...args] = encryptArgv([one, two])
    const sealed = execFileSync(program, args, { env, input: 'plain' })
    assert.not.ok(sealed.includes('plain'))
    const open = (file: string) => {
      const [program = '', ...args] = decryptArgv(file)
      return execFileSync(program, args, { env, input: sealed, encoding: 'utf8', stdio: 'pipe' })
    }
    assert.is(open(files[0]!), 'plain')
    assert.is(open(files[1]!), 'plain')
    assert.throws(() => open(files[2]!), /no identity matched/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('the private key’s file is the one named, else the environment’s, else it is asked for', () => {
  assert.is(identityFile('/given', { LUNARFRONT_AGE_IDENTITY: '/environment' }), '/given')
  assert.is(identityFile(undefined, { LUNARFRONT_AGE_IDENTITY: '/environment' }), '/environment')
  for (const environment of [{}, { LUNARFRONT_AGE_IDENTITY: '' }])
    try {
      identityFile(undefined, environment)
      assert.unreachable()
    } catch (error) {
      assert.instance(error, Failure)
      assert.is((error as Failure).exit, EXIT.usage)
      assert.match((error as Failure).expected ?? '', 'LUNARFRONT_AGE_IDENTITY')
    }
})

test.run()
