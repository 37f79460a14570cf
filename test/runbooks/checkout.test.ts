// Nothing that a run does, or leaves at work when it fails, may reach the operator's checkout.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
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

/** A git that writes down for which repository each call in the run's own clone is, and takes its time. @returns its folder */
function watchedGit({ directory, env }: Operator): { folder: string; calls: () => string[] } {
  const [folder, log] = [join(directory, 'watched'), join(directory, 'git-calls')]
  const real = execFileSync('sh', ['-c', 'command -v git'], { encoding: 'utf8', env }).trim()
  mkdirSync(folder)
  writeFileSync(
    join(folder, 'git'),
    `#!/bin/sh
case $PWD in */clone) echo "$GIT_DIR|$*" >>'${log}'; sleep 1 ;; esac
exec '${real}' "$@"
`,
    { mode: 0o755 },
  )
  return { folder, calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []) }
}

/** @returns command lines of what runs in a folder of the site that is a run's own */
const leftAtWork = ({ kept }: Operator): string[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`).startsWith(join(kept, 'scratch-'))
      } catch {
        return false // it has ended
      }
    })

test('a run that fails while Git still works for it ends that first, and Git never looks further up', async ({
  operator,
}) => {
  const before = state()
  const { folder, calls } = watchedGit(operator)
  // Spaces is out of reach, which is known long before Git is done.
  const env = { ...operator.env, PATH: `${folder}:${operator.env.PATH}`, SPACES_ENDPOINT_URL: 'http://127.0.0.1:9' }
  for (const runbook of ['list-customers', 'backup', 'bootstrap', 'add-customer']) {
    const { code } = await run({ env }, runbook, ...(runbook === 'add-customer' ? ['acme'] : []))
    assert.is(code, 1, runbook)
    assert.equal(leftAtWork(operator), [], runbook)
    assert.equal(state(), before, runbook)
  }
  assert.ok(calls().length > 0)
  for (const call of calls())
    assert.match(call, /^\S+\/scratch-[\d-]+\/clone\/\.git\|/, 'Git was left to look for a repository')
})

test.run()
