// npm test counts as passed only what passed: whatever else a file does is a failure.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const UVU = "import { test } from 'uvu'\nimport * as assert from 'uvu/assert'\n"

const test = suite<{ directory: string }>('npm test')

test.before.each((context) => {
  // Inside the checkout, so that the files find uvu.
  const cache = join(ROOT, 'node_modules', '.cache')
  mkdirSync(cache, { recursive: true })
  context.directory = mkdtempSync(join(cache, 'run-test-'))
})

test.after.each(({ directory }) => {
  rmSync(directory, { recursive: true })
})

/** Runs test files, given by name and source. */
function run(directory: string, files: Record<string, string>, ...args: string[]) {
  for (const [name, source] of Object.entries(files)) writeFileSync(join(directory, `${name}.test.ts`), source)
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', 'test/run.mts', '--in', directory, ...args],
    { cwd: ROOT, encoding: 'utf8' },
  )
  return { status, stdout, stderr, last: stdout.trimEnd().split('\n').at(-1) }
}

const PASSING = `${UVU}test('one', () => {})\ntest('two', () => {})\ntest.run()\n`

test('counts what passed, exits 0 and shows no output of it', ({ directory }) => {
  const { status, last, stdout } = run(directory, {
    a: `console.log('noise')\n${PASSING}`,
    b: `import { suite } from 'uvu'\nfor (const name of ['x', 'y']) {\n  const t = suite(name)\n  t('one', () => {})\n  t.run()\n}\n`,
  })
  assert.is(last, '4 passed, 0 failed')
  assert.is(status, 0)
  assert.not.match(stdout, 'noise')
})

test('a file that cannot be run on this machine is neither passed nor failed', ({ directory }) => {
  const { status, last, stdout } = run(directory, { a: PASSING, b: "console.log('NOT RUN: this is no Linux')\n" })
  assert.is(last, '2 passed, 0 failed, 1 not run')
  assert.is(status, 0)
  assert.match(stdout, /^NOT RUN .*b\.test\.ts +this is no Linux$/m)
  const alone = run(directory, { a: "console.log('NOT RUN: this is no Linux')\nprocess.exit(1)\n" })
  assert.is(alone.last, '0 passed, 1 failed, 1 not run')
})

const FAILURES: [string, string, string, RegExp][] = [
  [
    'a failing test',
    `${UVU}test('good', () => {})\ntest('bad', () => assert.is(1, 2))\ntest.run()\n`,
    '1 passed, 1 failed',
    /"bad"/,
  ],
  ['a file that throws', `console.log('before')\nthrow new Error('fell over')\n`, '0 passed, 1 failed', /fell over/],
  ['a file that does not parse', `const = 1\n`, '0 passed, 1 failed', /exited 1/],
  [
    'a crash after the tests passed',
    `${PASSING}setTimeout(() => { throw new Error('late') }, 50)\n`,
    '2 passed, 1 failed',
    /exited 1/,
  ],
  ['a file that a signal ended', `process.kill(process.pid, 'SIGKILL')\n`, '0 passed, 1 failed', /ended by SIGKILL/],
  ['a file without a test', `export {}\n`, '0 passed, 1 failed', /reported no test/],
  ['a suite that is never run', `${UVU}test('one', () => {})\n`, '0 passed, 1 failed', /reported no test/],
  [
    'an exit 0 in the middle of the tests',
    `${UVU}test('one', () => process.exit(0))\ntest.run()\n`,
    '0 passed, 1 failed',
    /exited 1/,
  ],
  [
    'a skipped test',
    `${UVU}test('one', () => {})\ntest.skip('two', () => {})\ntest.run()\n`,
    '1 passed, 1 failed',
    /1 skipped/,
  ],
  [
    'tests left out by an only',
    `${UVU}test('one', () => {})\ntest.only('two', () => {})\ntest.run()\n`,
    '1 passed, 1 failed',
    /1 skipped/,
  ],
]

for (const [name, source, counts, said] of FAILURES)
  test(`${name} is a failure`, ({ directory }) => {
    const { status, last, stdout } = run(directory, { a: source })
    assert.is(last, counts)
    assert.is(status, 1)
    assert.match(stdout, /^FAILED/m)
    assert.match(stdout, said)
  })

test('a file that hangs is ended with everything it started, and is a failure', ({ directory }) => {
  const note = join(directory, 'pid')
  const hanging = `
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
const child = spawn('sleep', ['600'], { stdio: 'inherit' })
writeFileSync(${JSON.stringify(note)}, String(child.pid))
setInterval(() => {}, 1000)
`
  const { status, last, stdout } = run(directory, { a: hanging, b: PASSING }, '--limit', '2')
  assert.is(last, '2 passed, 1 failed')
  assert.is(status, 1)
  assert.match(stdout, 'did not end within 2 s')
  assert.not(isAlive(Number(readFileSync(note, 'utf8'))), 'the child of the file is gone too')
})

test('a server that a passing file leaves behind neither holds the run up nor stays', ({ directory }) => {
  const note = join(directory, 'pid')
  const leaving = `${PASSING}
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
const child = spawn('sleep', ['600'], { stdio: 'inherit' })
child.unref()
writeFileSync(${JSON.stringify(note)}, String(child.pid))
`
  const { last } = run(directory, { a: leaving })
  assert.is(last, '2 passed, 0 failed')
  assert.not(isAlive(Number(readFileSync(note, 'utf8'))))
})

test('shows all that a failing file printed, and runs only the files asked for', ({ directory }) => {
  const ran = join(directory, 'ran')
  const { last, stdout } = run(
    directory,
    {
      chosen: `console.log('first words')\n${UVU}test('bad', () => assert.ok(false))\ntest.run()\n`,
      other: `import { writeFileSync } from 'node:fs'\nwriteFileSync(${JSON.stringify(ran)}, '')\n${PASSING}`,
    },
    'chosen',
  )
  assert.is(last, '0 passed, 1 failed')
  assert.match(stdout, 'first words')
  assert.not(existsSync(ran))
})

test('finding no file is no success', ({ directory }) => {
  const { status, last } = run(directory, { a: PASSING }, 'no-such-name')
  assert.is(last, '0 passed, 0 failed')
  assert.is(status, 1)
})

test('wrong use is told in one line, and runs nothing', ({ directory }) => {
  const { status, stdout, stderr } = run(directory, { a: PASSING }, '--jobs', 'many')
  assert.is(status, 1)
  assert.match(stderr, '--jobs must be a whole number from 1, not many')
  assert.is(stderr.trim().split('\n').length, 1)
  assert.not.match(stdout, 'ok ')
})

/** @returns whether a process runs: one that was ended and has yet to be waited for does not */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return process.platform !== 'linux' || !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

test.run()
