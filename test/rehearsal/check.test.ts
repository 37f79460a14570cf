// What decides whether a change is good: npm run check finds each kind of fault, and .ci/run counts all of it.
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const test = suite<{ directory: string; bin: string }>('check and CI')

test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'lunarfront-check-'))
  context.bin = join(context.directory, 'bin')
  mkdirSync(context.bin)
})

test.after.each(({ directory }) => {
  rmSync(directory, { recursive: true })
})

const program = (bin: string, name: string, script: string) =>
  writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })

/** The check itself, without the parts of this checkout that others may be working on. */
const PARTS = [
  ...['rehearsal/check.mts', 'rehearsal/tools.ts', 'rehearsal/tools', 'rehearsal/go.mod'],
  ...[
    'rehearsal/cluster',
    'rehearsal/droplet',
    'rehearsal/machine',
    'rehearsal/servers',
    'lib/bundle.mjs',
    'lib/failure.ts',
    'lib/files.ts',
    'lib/process.ts',
    'lib/secret.ts',
  ],
]

/** A checkout of which everything passes, with these files more. */
function check({ directory, bin }: { directory: string; bin: string }, files: Record<string, string>) {
  const checkout = join(directory, 'checkout')
  mkdirSync(checkout)
  for (const name of [...PARTS, 'tsconfig.json', 'biome.json', 'package.json'])
    cpSync(join(ROOT, name), join(checkout, name), { recursive: true })
  mkdirSync(join(checkout, 'terraform'))
  symlinkSync(join(ROOT, 'node_modules'), join(checkout, 'node_modules'))
  writeFileSync(join(checkout, '.gitignore'), 'node_modules\n')
  for (const [name, text] of Object.entries(files)) writeFileSync(join(checkout, name), text)
  execFileSync('git', ['init', '--quiet', checkout])
  // Which files it is given is what this is about; what it finds in them is its own affair.
  program(bin, 'shellcheck', 'for file in "$@"; do echo "checked $file"; case $file in bad*) exit 1;; esac; done')
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', join(checkout, 'rehearsal/check.mts')],
    {
      cwd: checkout,
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
      encoding: 'utf8',
    },
  )
  const results = Object.fromEntries(
    [...stdout.matchAll(/^(ok|FAILED) +(\D*?)(, \d+ files)? +[\d.]+ s$/gm)].map(([, result, name]) => [name, result]),
  )
  return { status, stdout: stdout + stderr, results, last: stdout.trimEnd().split('\n').at(-1) }
}

const FINE = { types: 'ok', 'lint and format': 'ok', 'format of terraform/': 'ok', shell: 'ok' }

test('a checkout without a fault passes, and nothing that passed is shown', (context) => {
  const { status, results, last, stdout } = check(context, {
    'good.sh': 'true\n',
    'good.ts': 'export const good = 1\n',
  })
  assert.equal(results, FINE, stdout)
  assert.is(last, '4 passed, 0 failed')
  assert.is(status, 0)
  assert.not.match(stdout, 'checked')
})

test('each kind of fault is found, shown and counted', (context) => {
  const { status, results, last, stdout } = check(context, {
    'rehearsal/faulty.ts': "export const faulty: number = 'text'\nexport const  spaced = 1;\n",
    'terraform/faulty.tf': 'locals {\nfaulty="x"\n}\n',
    // By its first line, without an ending in its name.
    bad: '#!/usr/bin/env bash\n',
    typescript: '#!/usr/bin/env -S sh -c \'exec node "$0"\'\n',
  })
  assert.equal(results, {
    types: 'FAILED',
    'lint and format': 'FAILED',
    'format of terraform/': 'FAILED',
    shell: 'FAILED',
  })
  assert.is(last, '0 passed, 4 failed')
  assert.is(status, 1)
  assert.match(stdout, /faulty\.ts.*TS2322/)
  assert.match(stdout, 'spaced')
  assert.match(stdout, 'faulty.tf')
  assert.match(stdout, 'checked bad')
  assert.not.match(stdout, 'checked typescript')
})

/** .ci/run, with what `npm run check` and `npm run test` print and how they end. */
function ci({ directory, bin }: { directory: string; bin: string }, scripts: { check: string; test: string }) {
  mkdirSync(join(directory, '.ci'))
  cpSync(join(ROOT, '.ci/run'), join(directory, '.ci/run'))
  program(bin, 'npm', `case "$*" in *check) ${scripts.check};; *test) ${scripts.test};; esac`)
  const { status, stdout } = spawnSync('bash', [join(directory, '.ci/run')], {
    cwd: '/',
    env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
  })
  return { status, last: stdout.trimEnd().split('\n').at(-1), stdout }
}

const CI: [string, { check: string; test: string }, string, number][] = [
  ['all good', { check: 'echo 4 passed, 0 failed', test: 'echo 30 passed, 0 failed' }, '34 passed, 0 failed', 0],
  [
    'a check fails',
    { check: 'echo 3 passed, 1 failed; exit 1', test: 'echo 30 passed, 0 failed' },
    '33 passed, 1 failed',
    1,
  ],
  [
    'a test fails',
    { check: 'echo 4 passed, 0 failed', test: 'echo 29 passed, 2 failed; exit 1' },
    '33 passed, 2 failed',
    1,
  ],
  [
    'the tests end before they count',
    { check: 'echo 4 passed, 0 failed', test: 'echo no disk; exit 1' },
    '4 passed, 1 failed',
    1,
  ],
  [
    'it fails though it counted no failure',
    { check: 'echo 4 passed, 0 failed; exit 1', test: 'echo 2 passed, 0 failed' },
    '6 passed, 1 failed',
    1,
  ],
  ['nothing is counted at all', { check: 'true', test: 'true' }, '0 passed, 0 failed', 1],
]

for (const [name, scripts, last, status] of CI)
  test(`.ci/run: ${name}`, (context) => {
    const result = ci(context, scripts)
    assert.is(result.last, last)
    assert.is(result.status, status)
  })

test.run()
