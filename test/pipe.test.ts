// Programs that run one into the other: each one's failure is told, and what ended badly never looks whole.
import { readdirSync, readFileSync } from 'node:fs'
import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Failure } from '../lib/failure.ts'
import { createPipe, type Piped } from '../lib/pipe.ts'
import { Secret } from '../lib/secret.ts'

const environment = { ...process.env, DIGITALOCEAN_TOKEN: 'not for children' }
const pipe = createPipe({ environment })
const LIMIT = { timeout: 20 }
const sh = (script: string) => ['sh', '-c', script]

/** @returns what came out, and how it ended */
async function outcome({ output, ended }: Piped): Promise<{ out: string; failure: Failure }> {
  const out = await text(output)
  try {
    await ended
  } catch (error) {
    assert.instance(error, Failure)
    return { out, failure: error as Failure }
  }
  throw new Error(`it did not fail, and said ${out}`)
}

/** Waits until a condition holds. */
async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; Date.now() < end; await sleep(10)) if (holds()) return
  throw new Error(`it never came to this: ${what}`)
}

/** @returns whether a process runs that has the word among its arguments */
const runs = (word: string) =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && name !== String(process.pid))
    .some((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(word)
      } catch {
        return false // it has ended
      }
    })

test('what the first writes comes out of the last', async () => {
  const { output, ended } = pipe({ commands: [sh('printf "b\\na\\nc\\n"'), ['sort'], ['tr', 'a-c', 'A-C']], ...LIMIT })
  assert.is(await text(output), 'A\nB\nC\n')
  await ended
})

test('arguments reach each program as they are', async () => {
  const words = ['a b', "it's", '$HOME', '`id`', '"x"', '', '*', '\\', '|', ';']
  const show = ['node', '-e', 'console.log(JSON.stringify(process.argv.slice(1)))', '--', ...words]
  const { output, ended } = pipe({ commands: [show, ['cat']], ...LIMIT })
  assert.equal(JSON.parse(await text(output)), words)
  await ended
})

test('each gets the variables it is given, PATH and the like, and nothing else of ours', async () => {
  const { output, ended } = pipe({ commands: [['env'], ['cat']], env: { GIVEN: 'yes' }, ...LIMIT })
  const out = await text(output)
  await ended
  assert.match(out, /^GIVEN=yes$/m)
  assert.match(out, /^PATH=/m)
  assert.not.match(out, 'DIGITALOCEAN_TOKEN')
})

// --- failures --------------------------------------------------------------------------

for (const [place, commands] of Object.entries({
  first: [sh('echo part; exit 3'), ['cat'], ['cat']],
  middle: [['echo', 'part'], sh('cat; exit 3'), ['cat']],
  last: [['echo', 'part'], ['cat'], sh('cat; exit 3')],
}))
  test(`the ${place} fails: the output may look whole, and the end is a failure that names it`, async () => {
    const { out, failure } = await outcome(pipe({ commands, ...LIMIT }))
    assert.is(out, 'part\n')
    assert.match(failure.message, / failed: sh exited 3$/)
  })

test('two fail: both are named, and nobody else', async () => {
  const commands = [sh('exit 3'), ['cat'], ['false'], ['cat']]
  const { failure } = await outcome(pipe({ commands, ...LIMIT }))
  assert.match(failure.message, / failed: sh exited 3, false exited 1$/)
})

test('a program that is missing is named', async () => {
  for (const commands of [
    [['no-such-program'], ['cat']],
    [['echo', 'x'], ['no-such-program'], ['cat']],
    [['echo', 'x'], ['no-such-program']],
  ]) {
    const { failure } = await outcome(pipe({ commands, ...LIMIT }))
    assert.match(failure.message, 'no-such-program exited 127')
    assert.match(failure.message, /no-such-program.*not found/)
  }
})

test('one that is ended by a signal has failed', async () => {
  const { out, failure } = await outcome(pipe({ commands: [sh('echo part; kill -9 $$'), ['cat']], ...LIMIT }))
  assert.is(out, 'part\n')
  assert.match(failure.message, 'sh exited 137')
})

test('one that reads no further ends those before it, and that is a failure too', async () => {
  const { failure } = await outcome(pipe({ commands: [['yes'], ['head', '-c', '10']], ...LIMIT }))
  assert.match(failure.message, 'yes exited')
  assert.not.match(failure.message, 'head exited')
})

test('the last 20 lines of what they say are told, and all of it is logged', async () => {
  const lines: string[] = []
  const logged = createPipe({ environment, log: (line) => lines.push(line) })
  const { failure } = await outcome(logged({ commands: [sh('seq 1 30 >&2; exit 1'), ['cat']], ...LIMIT }))
  assert.match(failure.message, /\n11\n12\n/)
  assert.not.match(failure.message, /\n10\n/)
  assert.match(lines[0] ?? '', /^\$ sh -c .* \| cat$/)
  assert.equal(
    lines.slice(1),
    Array.from({ length: 30 }, (_, index) => String(index + 1)),
  )
})

test('no secret is in the failure or the log', async () => {
  const lines: string[] = []
  const logged = createPipe({ environment, log: (line) => lines.push(line) })
  const secret = new Secret('a-very-secret-value')
  const commands = [sh('echo "the word is $WORD" >&2; exit 1'), ['echo', secret.reveal()]]
  const { failure } = await outcome(logged({ commands, env: { WORD: secret.reveal() }, ...LIMIT }))
  for (const told of [failure.message, lines.join('\n')]) {
    assert.match(told, 'the word is [redacted]')
    assert.match(told, 'echo [redacted]')
    assert.not.match(told, 'a-very-secret-value')
  }
})

test('what a program writes to descriptor 3 is not taken for how it ended', async () => {
  const commands = [sh('sleep 0.2; echo "1 0" >&3 || true'), sh('exit 4')]
  const { failure } = await outcome(pipe({ commands, ...LIMIT }))
  assert.match(failure.message, / failed: sh exited 4/)
})

// --- input -----------------------------------------------------------------------------

test('standard input is a buffer, a stream, or empty', async () => {
  const commands = [['cat'], ['cat']]
  const through = async (input?: Buffer | Readable) => {
    const { output, ended } = pipe({ commands, ...LIMIT, ...(input ? { input } : {}) })
    const out = await text(output)
    await ended
    return out
  }
  assert.is(await through(Buffer.from('a buffer')), 'a buffer')
  assert.is(await through(Buffer.alloc(0)), '')
  assert.is(await through(Readable.from([Buffer.from('a '), Buffer.from('stream')])), 'a stream')
  assert.is(await through(), '')
})

test('an input that breaks off ends all of them, and what came is not taken for the whole', async () => {
  const input = new PassThrough()
  const piped = pipe({ commands: [['cat'], ['cat']], input, ...LIMIT })
  input.write('half')
  piped.output.once('data', () => input.destroy(new Error('the network is gone')))
  const { failure } = await outcome(piped)
  assert.match(failure.message, 'cat was ended')
})

test('one that does not read its input to the end: the program’s failure is told, not the pipe’s', async () => {
  const input = Readable.from(
    (function* () {
      for (let index = 0; index < 1000; index++) yield Buffer.alloc(65_536)
    })(),
  )
  const { failure } = await outcome(pipe({ commands: [sh('exit 5')], input, ...LIMIT }))
  assert.match(failure.message, 'sh exited 5')
})

// --- ended from outside ----------------------------------------------------------------

/** Each has a grandchild of its own that a signal to the program alone would leave. */
const STAYING = (word: string) => [sh(`sleep ${word}; true`), sh(`echo ready; sleep ${word}; true`), ['cat']]

test('interrupted: all of them are ended, and what they started', async () => {
  const interruption = new AbortController()
  const interruptible = createPipe({ environment, signal: interruption.signal })
  const word = '98.76501'
  const piped = interruptible({ commands: STAYING(word), ...LIMIT })
  piped.output.once('data', () => interruption.abort())
  const { failure } = await outcome(piped)
  assert.match(failure.message, 'was interrupted')
  await eventually('nothing of it runs', () => !runs(word))
  const late = await outcome(interruptible({ commands: STAYING(word), ...LIMIT }))
  assert.match(late.failure.message, 'was interrupted', 'begun after it')
  await eventually('nothing of it runs', () => !runs(word))
})

test('after their time all of them are ended, and what they started', async () => {
  const word = '98.76502'
  const { failure } = await outcome(pipe({ commands: STAYING(word), timeout: 0.3 }))
  assert.match(failure.message, 'did not end within 0.3 s')
  await eventually('nothing of it runs', () => !runs(word))
})

test('stopped: all of them are ended, which is a failure; after the end it is nothing', async () => {
  const word = '98.76503'
  const piped = pipe({ commands: STAYING(word), ...LIMIT })
  piped.output.once('data', () => piped.stop())
  const { failure } = await outcome(piped)
  assert.match(failure.message, 'was ended')
  await eventually('nothing of it runs', () => !runs(word))
  const done = pipe({ commands: [['true']], ...LIMIT })
  await text(done.output)
  await done.ended
  done.stop()
  await done.ended
})

test('when this process is killed, they end with the next word that they write', async () => {
  const word = '98.76504'
  const script = `import { createPipe } from './lib/pipe.ts'
    const { output } = createPipe({ environment: process.env })({ commands: [['sh', '-c', 'while echo x; do sleep 0.05; done', '${word}'], ['cat']], timeout: 60 })
    output.once('data', () => process.kill(process.pid, 'SIGKILL'))`
  const child = pipe({
    commands: [[process.execPath, '--import', 'tsx', '--input-type=module', '-e', script]],
    ...LIMIT,
  })
  child.output.resume()
  await child.ended.catch(() => {})
  await eventually('nothing of it runs', () => !runs(word))
})

// --- size ------------------------------------------------------------------------------

test('what flows is not held: neither what comes out, nor what goes in', async () => {
  const size = 512 * 2 ** 20
  const peakDuring = async (work: () => Promise<void>) => {
    const before = process.memoryUsage().rss
    let peak = before
    const timer = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage().rss)
    }, 10)
    await work()
    clearInterval(timer)
    return peak - before
  }
  const out = await peakDuring(async () => {
    const { output, ended } = pipe({ commands: [['head', '-c', String(size), '/dev/zero'], ['cat']], ...LIMIT })
    let bytes = 0
    for await (const chunk of output) bytes += (chunk as Buffer).length
    await ended
    assert.is(bytes, size)
  })
  const chunk = Buffer.alloc(2 ** 20)
  const into = await peakDuring(async () => {
    const input = Readable.from(
      (function* () {
        for (let sent = 0; sent < size; sent += chunk.length) yield chunk
      })(),
      { objectMode: false },
    )
    const { output, ended } = pipe({ commands: [['cat'], ['wc', '-c']], input, ...LIMIT })
    assert.is(Number(await text(output)), size)
    await ended
  })
  for (const peak of [out, into]) assert.ok(peak < 100 * 2 ** 20, `${Math.round(peak / 2 ** 20)} MiB of 512 were held`)
})

test('an output that nobody reads stops those who write it, and holds nothing', async () => {
  const { output, ended, stop } = pipe({ commands: [['yes'], ['cat']], ...LIMIT })
  await eventually('it is full', () => output.readableLength >= output.readableHighWaterMark)
  const full = output.readableLength
  assert.ok(full < 2 ** 20)
  stop()
  output.resume()
  await ended.catch(() => {})
})

test.run()
