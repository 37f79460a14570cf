// A customer's secrets as a file, a backup and the cluster's Secret have them, with the keys that people have added.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  asSecrets,
  findAllSecrets,
  findKnownSecrets,
  parseSecrets,
  type SecretsHome,
  secretsFile,
  secretsText,
} from '../lib/customer-secrets.ts'
import { Failure } from '../lib/failure.ts'
import { writeWhole } from '../lib/files.ts'
import { checksumOf, othersIn, secretData, secretsIn } from '../lib/instance-secret.ts'
import type { Outputs } from '../lib/outputs.ts'
import { redact, Secret } from '../lib/secret.ts'

const OWN = { database_password: 'p'.repeat(32), jwt_secret: 'j'.repeat(64) }
const base64 = (text: string) => Buffer.from(text).toString('base64')
const outputs = {
  postgres: { host: 'db.test', port: 25060, ca: 'CA' },
  valkeyUrl: new Secret('rediss://default:valkey-password@valkey.test:25061'),
} as unknown as Outputs

test('what people have added is kept byte for byte, text or not', () => {
  const others = {
    SMTP_PASSWORD: base64('correct horse battery'),
    'cert.p12': Buffer.from([0, 255, 128]).toString('base64'),
  }
  const text = JSON.stringify({ ...OWN, others })
  const secrets = parseSecrets(text, 'a test')
  assert.equal(JSON.parse(secretsText(secrets)), { ...OWN, others })
  const data = secretData('acme', secrets, outputs)
  assert.equal({ ...data, ...others }, data)
  assert.equal(
    Object.keys(data).sort(),
    ['CA_CERT', 'DATABASE_URL', 'JWT_SECRET', 'REDIS_URL', ...Object.keys(others)].sort(),
  )
  assert.match(
    Buffer.from(data.DATABASE_URL, 'base64').toString(),
    /^postgresql:\/\/customer_acme:p{32}@db.test:25060\/customer_acme/,
  )
})

test('a file from before there were others is as good, and stays as it was', () => {
  const text = `${JSON.stringify(OWN, null, 2)}\n`
  assert.is(secretsText(parseSecrets(text, 'a test')), text)
})

test('another value makes another checksum, and another order does not', () => {
  const sum = (others: Record<string, string>) =>
    checksumOf(secretData('acme', parseSecrets(JSON.stringify({ ...OWN, others }), 'a test'), outputs))
  const [A, B] = [base64('a value'), base64('another')]
  assert.is(sum({ A, B }), sum({ B, A }))
  for (const other of [{ A }, { A, B: A }, {}]) assert.is.not(sum({ A, B }), sum(other))
})

test('what people have added takes the place of none of ours', () => {
  const others = { JWT_SECRET: base64('theirs'), CA_CERT: base64('theirs') }
  const data = secretData('acme', parseSecrets(JSON.stringify({ ...OWN, others }), 'a test'), outputs)
  assert.equal([data.JWT_SECRET, data.CA_CERT], [base64(OWN.jwt_secret), base64('CA')])
})

test('what the cluster’s Secret holds comes back as it is, an empty value too', () => {
  const others = { EMPTY: '', 'cert.p12': Buffer.from([0, 255, 128]).toString('base64') }
  const data = secretData('acme', parseSecrets(JSON.stringify({ ...OWN, others }), 'a test'), outputs)
  const found = secretsIn('acme', data)
  assert.equal(JSON.parse(secretsText(found)), { ...OWN, others })
  assert.equal(JSON.parse(secretsText(parseSecrets(secretsText(found), 'a test'))), { ...OWN, others })
})

test('a Secret that is damaged is refused by name, and what people have added to it is found all the same', () => {
  const data = { JWT_SECRET: base64('short'), DATABASE_URL: base64('no address'), SMTP_PASSWORD: base64('hunter22') }
  assert.is(othersIn(data).SMTP_PASSWORD?.reveal(), base64('hunter22'))
  for (const damaged of [data, { SMTP_PASSWORD: data.SMTP_PASSWORD }])
    assert.throws(
      () => secretsIn('acme', damaged),
      (error: unknown) =>
        error instanceof Failure &&
        error.message.includes('Secret customer-acme of the cluster is not a file of secrets') &&
        error.next === './runbooks/restore.mts acme --until secrets, then ./runbooks/add-customer.mts acme' &&
        !/hunter22|no address/.test(JSON.stringify(error)),
    )
})

/** A customer with a file of secrets on this machine, beside what the cluster has. */
function beside(
  inFile: Record<string, string>,
  others: SecretsHome['others'],
  work: (home: SecretsHome) => Promise<void>,
) {
  const directory = mkdtempSync(join(tmpdir(), 'customer-secrets-'))
  const onCluster = Object.assign(async () => undefined, { forget: () => {} })
  writeWhole(secretsFile(directory, 'acme'), JSON.stringify({ ...OWN, others: inFile }))
  return work({ directory, customer: 'acme', onCluster, others }).finally(() => rmSync(directory, { recursive: true }))
}

test('a file on this machine hides nothing that people have added to the cluster’s Secret, and loses none of its own', () =>
  beside(
    { RESTORED: base64('from a backup'), BOTH: base64('older') },
    async () => asSecrets({ ADDED: base64('by hand'), BOTH: base64('newer') }),
    async (home) => {
      const others = { RESTORED: base64('from a backup'), BOTH: base64('newer'), ADDED: base64('by hand') }
      for (const find of [findAllSecrets, findKnownSecrets])
        assert.equal(JSON.parse(secretsText(await find(home))), { ...OWN, others })
    },
  ))

test('where the cluster cannot be asked all of them are not known, and the file’s are', () =>
  beside(
    { RESTORED: base64('from a backup') },
    async () => {
      throw new Failure({ found: 'kubectl get: the connection was refused' })
    },
    async (home) => {
      const all = await findAllSecrets(home).catch((error: Error) => error.message)
      assert.match(String(all), 'the connection was refused')
      assert.equal(Object.keys((await findKnownSecrets(home)).others), ['RESTORED'])
    },
  ))

test('a value of several lines is masked line by line too, as a log has it', () => {
  asSecrets({ KEY: base64('-----BEGIN KEY-----\nMIIEvQIBADANBg\nabc\n-----END KEY-----\n') })
  assert.is(redact('pod says: MIIEvQIBADANBg, abc'), 'pod says: [redacted], abc')
})

test('a long value is masked from then on, and a short one is no secret', () => {
  parseSecrets(
    JSON.stringify({ ...OWN, others: { PORT: base64('587'), TLS: base64('true'), KEY: base64('sk-live-0123') } }),
    'a test',
  )
  assert.is(redact('587 is true of sk-live-0123'), '587 is true of [redacted]')
})

test('what is no file of secrets is refused without a word of it', () => {
  for (const text of [
    '{',
    '{}',
    JSON.stringify({ ...OWN, more: 1 }),
    JSON.stringify({ ...OWN, others: { A: 'hunter2!' } }),
  ]) {
    try {
      parseSecrets(text, 'a test')
    } catch (error) {
      assert.match((error as Error).message, 'a test is not a file of secrets')
      assert.not.match((error as Error).message, 'hunter2')
      continue
    }
    assert.unreachable(text)
  }
})

test.run()
