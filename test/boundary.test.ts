// Production code never knows that a rehearsal exists, and nothing but lib/exec.ts runs a process.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ROOT } from '../lib/site.ts'

const files = (...folders: string[]) =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '--', ...folders], {
    cwd: ROOT,
    encoding: 'utf8',
  })
    .split('\n')
    .filter((file) => file && !file.startsWith('terraform/tests/'))
    .map((file): [string, string] => [file, readFileSync(join(ROOT, file), 'utf8')])

const production = files('runbooks', 'lib', 'terraform', 'ansible', 'gitops', 'templates')

test('there is production code to look at', () => {
  for (const file of ['lib/converge.ts', 'runbooks/bootstrap.mts', 'terraform/main.tf', 'templates/values.yaml.hbs'])
    assert.ok(
      production.some(([name]) => name === file),
      file,
    )
})

test('it names no rehearsal and no stand-in', () => {
  for (const [file, text] of production) assert.not.match(text, /rehears|stand-?in\b|\bmock\b/i, file)
})

test('only what makes a tunnel, and what runs on the droplet, names loopback', () => {
  for (const [file, text] of production)
    if (!/^ansible\/|^lib\/(ssh|postgres|postgres-programs|gitea)\.ts$/.test(file))
      assert.not.match(text, /\bloopback|localhost|127\.0\.0\.1/i, file)
})

test('it imports nothing of the rehearsal or the tests', () => {
  for (const [file, text] of production)
    for (const [, from] of text.matchAll(/(?:from|import\()\s*'([^']+)'/g))
      assert.not.match(from!, /\/(rehearsal|test|bench)\//, `${file} imports ${from}`)
})

test('only lib/exec.ts and lib/pipe.ts start a process', () => {
  for (const [file, text] of production)
    if (!/^lib\/(exec|pipe)\.ts$/.test(file)) assert.not.match(text, /child_process|from 'zx/, file)
})

test('a runbook is short enough to be read as the procedure it is', () => {
  for (const [file, text] of files('runbooks'))
    assert.ok(text.split('\n').length <= 61, `${file} has ${text.split('\n').length} lines`)
})

test.run()
