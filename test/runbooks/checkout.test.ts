// Nothing that a run does, or leaves at work when it fails, may reach the operator's checkout.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ROOT } from '../../lib/site.ts'
import { must, type Operator, run, startOperator } from './operator.ts'

const test = suite<{ operator: Operator }>('the operator’s checkout')
test.before(async (context) => {
  context.operator = await startOperator()
  await must(context.operator, 'bootstrap', '--yes')
})
test.after(({ operator }) => operator.down())

const git = (...args: string[]) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' })

const state = () => ({
  config: readFileSync(git('rev-parse', '--path-format=absolute', '--git-path', 'config').trim(), 'utf8'),
  status: git('status', '--porcelain'),
  files: git('ls-files', '-t')
    .split('\n')
    .filter((line) => line.startsWith('S')), // those that are not checked out
})

test('a run that fails at once, while Git still works for it, leaves the checkout as it was', async ({ operator }) => {
  const before = state()
  // Postgres refuses at once; the clone takes longer.
  const slow = join(operator.directory, 'slow')
  execFileSync('mkdir', [slow])
  const real = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8', env: operator.env }).trim()
  execFileSync('sh', [
    '-c',
    `printf '#!/bin/sh\\nsleep 0.2\\nexec %s "$@"\\n' '${real}' > '${slow}/git' && chmod +x '${slow}/git'`,
  ])
  const env = {
    ...operator.env,
    PATH: `${slow}:${operator.env.PATH}`,
    PGHOST: '',
    SPACES_ENDPOINT_URL: 'http://127.0.0.1:9',
  }
  for (const runbook of ['list-customers', 'backup', 'bootstrap', 'add-customer']) {
    const { code } = await run({ env }, runbook, ...(runbook === 'add-customer' ? ['acme'] : []))
    assert.is(code, 1, runbook)
    assert.equal(state(), before, runbook)
  }
})

test.run()
