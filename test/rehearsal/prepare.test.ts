// node_modules is made what package-lock.json says before anything else runs, and only when it is not.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

type Context = {
  checkout: string
  /** makes `npm` this shell script, which notes its arguments first */
  npm: (script: string) => void
  calls: () => string[]
  prepare: (...node: string[]) => { status: number | null; stdout: string; stderr: string }
}

const test = suite<Context>('prepare.mjs')

/** What npm ci does, as far as this can tell: empty node_modules, then fill it. */
const CI = 'rm -rf node_modules; mkdir node_modules'

test.before.each((context) => {
  const checkout = mkdtempSync(join(tmpdir(), 'lunarfront-prepare-'))
  const bin = join(checkout, 'bin')
  const log = join(checkout, 'calls')
  mkdirSync(bin)
  mkdirSync(join(checkout, 'rehearsal'))
  cpSync(join(ROOT, 'rehearsal/prepare.mjs'), join(checkout, 'rehearsal/prepare.mjs'))
  writeFileSync(join(checkout, 'package-lock.json'), '{ "lockfileVersion": 3 }')
  context.checkout = checkout
  context.npm = (script) =>
    writeFileSync(join(bin, 'npm'), `#!/bin/sh\nPATH=/usr/bin:/bin\necho "$*" >>'${log}'\n${script}\n`, { mode: 0o755 })
  context.calls = () => (existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : [])
  context.prepare = (...node) =>
    spawnSync(process.execPath, [...node, join(checkout, 'rehearsal/prepare.mjs')], {
      cwd: '/',
      env: { PATH: bin },
      stdio: ['ignore', 'pipe', 'pipe'],
      encoding: 'utf8',
    })
  context.npm(CI)
})

test.after.each(({ checkout }) => {
  rmSync(checkout, { recursive: true })
})

test('on a clean clone it runs npm ci and says so; after that it is silent and runs nothing', ({ prepare, calls }) => {
  const first = prepare()
  assert.is(first.status, 0)
  assert.match(first.stdout, /^npm ci: node_modules is not yet what package-lock\.json says\nnpm ci: done in \d+ s\n$/)
  assert.equal(calls(), ['ci --include=dev --no-audit --no-fund'])
  assert.equal((({ status, stdout, stderr }) => ({ status, stdout, stderr }))(prepare()), {
    status: 0,
    stdout: '',
    stderr: '',
  })
  assert.is(calls().length, 1)
})

test('it needs no package of its own: node_modules is not there when it starts', ({ checkout, prepare }) => {
  assert.not(existsSync(join(checkout, 'node_modules')))
  assert.is(prepare().status, 0)
})

test('another package-lock.json, or a node_modules that npm made anew, is prepared again', ({
  checkout,
  prepare,
  calls,
}) => {
  prepare()
  writeFileSync(join(checkout, 'package-lock.json'), '{ "lockfileVersion": 3, "packages": {} }')
  prepare()
  assert.is(calls().length, 2)
  rmSync(join(checkout, 'node_modules'), { recursive: true })
  mkdirSync(join(checkout, 'node_modules'))
  prepare()
  assert.is(calls().length, 3)
})

test('what npm says is kept back while it works and told when it fails, and the next run tries again', (context) => {
  const { npm, prepare, calls } = context
  npm(`${CI}; echo chatter; echo warning >&2`)
  assert.not.match(prepare().stdout, 'chatter')
  rmSync(join(context.checkout, 'node_modules'), { recursive: true })
  npm(`${CI}; echo 'npm error code E404' >&2; exit 1`)
  const failed = prepare()
  assert.is(failed.status, 1)
  assert.match(failed.stderr, 'npm error code E404')
  assert.match(failed.stderr, `Next: (cd '${context.checkout}' && npm ci)`)
  npm(CI)
  assert.is(prepare().status, 0)
  assert.is(calls().length, 3)
})

test('an npm ci that was killed counts as not done', ({ npm, prepare, calls }) => {
  npm(`${CI}; kill -9 $$`)
  const killed = prepare()
  assert.is(killed.status, 1)
  assert.match(killed.stderr, 'npm ci ended with SIGKILL')
  npm(CI)
  prepare()
  assert.is(calls().length, 2)
})

test('a machine without npm is told in one line', ({ checkout, prepare }) => {
  rmSync(join(checkout, 'bin/npm'))
  const { status, stderr } = prepare()
  assert.is(status, 1)
  assert.match(stderr, /^npm could not be started \(.*ENOENT\)\. Next: install npm, it comes with Node\n$/)
})

test('a Node that is too old is told in one line, before anything is touched', ({ checkout, prepare, calls }) => {
  const old = join(checkout, 'old.cjs')
  writeFileSync(old, "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.20.4' } })")
  const { status, stderr } = prepare('--require', old)
  assert.is(status, 1)
  assert.is(stderr, 'Node 20 or newer was expected, found 18.20.4. Next: install it, then run this again\n')
  assert.equal(calls(), [])
})

test.run()
