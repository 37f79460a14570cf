// Running a process: arguments untouched, time limit, cancellation of the whole group, log without secrets.
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createExec } from '../lib/exec.ts'
import { Failure } from '../lib/failure.ts'
import { isRunning } from '../lib/process.ts'
import { Secret } from '../lib/secret.ts'

const environment = { ...process.env, DIGITALOCEAN_TOKEN: 'not for children' }
const exec = createExec({ environment })
const failing = async (promise: Promise<unknown>): Promise<Failure> => {
  try {
    await promise
  } catch (error) {
    assert.instance(error, Failure)
    return error as Failure
  }
  throw new Error('it did not fail')
}

test('arguments reach the program as they are, whatever they contain', async () => {
  const words = ['a b', "it's", '$HOME', '`id`', '"x"', '', 'ü\n2', '*', '--', '\\']
  const { stdout } = await exec({
    argv: ['node', '-e', 'console.log(JSON.stringify(process.argv.slice(1)))', '--', ...words],
  })
  assert.equal(JSON.parse(stdout), words)
})

test('a child gets PATH and HOME and what it is given, and nothing else of our environment', async () => {
  const { stdout } = await exec({ argv: ['env'], env: { GIVEN: 'yes' } })
  assert.match(stdout, /^PATH=/m)
  assert.match(stdout, /^GIVEN=yes$/m)
  assert.not.match(stdout, 'DIGITALOCEAN_TOKEN')
})

test('a failure tells the exit code, the last 20 lines and the next command', async () => {
  const failure = await failing(exec({ argv: ['sh', '-c', 'seq 1 30 >&2; exit 3'], next: 'try it' }))
  assert.match(failure.message, 'exited 3')
  assert.match(failure.message, /\n11\n12\n/)
  assert.not.match(failure.message, /\n10\n/)
  assert.is(failure.next, 'try it')
})

test('an exit code that is an answer is returned', async () => {
  assert.is((await exec({ argv: ['sh', '-c', 'exit 7'], codes: [0, 7] })).code, 7)
})

test('a program that is missing is told as such', async () => {
  assert.match((await failing(exec({ argv: ['no-such-program'] }))).message, 'no such program')
})

test('after its time it is ended, and what it started too', async () => {
  let child = 0
  const failure = await failing(
    exec({
      argv: ['sh', '-c', 'sleep 60 & echo $!; wait'],
      timeout: 0.5,
      onLine: (line) => {
        child = Number(line)
      },
    }),
  )
  assert.match(failure.message, 'did not end within 0.5 s')
  assert.ok(child > 0)
  assert.not.ok(isRunning({ pid: child, started: '' }), 'the grandchild still runs')
})

test('the first interruption asks it to finish, and it may', async () => {
  const interruption = new AbortController()
  const interruptible = createExec({ environment, signal: interruption.signal })
  const { stdout } = await interruptible({
    argv: ['sh', '-c', 'trap "echo tidied; exit 0" INT; echo ready; while :; do sleep 0.05; done'],
    onLine: (line) => line === 'ready' && interruption.abort(),
  })
  assert.match(stdout, 'tidied')
  assert.match((await failing(interruptible({ argv: ['true'] }))).message, 'was not started')
})

test('the second ends it at once, even if it would not', async () => {
  const kill = new AbortController()
  const stubborn = createExec({ environment, kill: kill.signal })
  const failure = await failing(
    stubborn({
      argv: ['sh', '-c', 'trap "" INT TERM; echo ready; while :; do sleep 0.05; done'],
      onLine: (line) => line === 'ready' && kill.abort(),
    }),
  )
  assert.match(failure.message, 'exited -1')
})

test('the log and the failure have every line, also the last without its end, and no secret', async () => {
  const lines: string[] = []
  const logged = createExec({ environment, log: (line) => lines.push(line) })
  const secret = new Secret('very-secret-value')
  const failure = await failing(
    logged({ argv: ['sh', '-c', 'echo $S; printf "end $S" >&2; exit 1'], env: { S: secret.reveal() } }),
  )
  assert.equal(lines.slice(1).sort(), ['[redacted]', 'end [redacted]'])
  assert.match(failure.message, 'end [redacted]')
})

test('a program that outlives us writes to a file, and is followed to its last line', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'exec-'))
  try {
    const lines: string[] = []
    const outlives = join(folder, 'output')
    await exec({ argv: ['sh', '-c', 'echo one; sleep 0.1; printf two'], outlives, onLine: (line) => lines.push(line) })
    assert.equal(lines, ['one', 'two'])
    assert.is(readFileSync(outlives, 'utf8'), 'one\ntwo')
    assert.is(statSync(outlives).mode & 0o777, 0o600)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('standard input is what it is given, and empty without', async () => {
  assert.is((await exec({ argv: ['cat'], input: 'hello' })).stdout, 'hello')
  assert.is((await exec({ argv: ['cat'] })).stdout, '')
})

test.run()
