// The lock, on a real S3: one holder at a time, who waits is told for whom, and a dead holder is passed.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PutObjectCommand, type S3Client } from '@aws-sdk/client-s3'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { EXIT, Failure } from '../lib/failure.ts'
import { type Lock, takeLock } from '../lib/lock.ts'
import { Secret } from '../lib/secret.ts'
import { ROOT } from '../lib/site.ts'
import { bucketStep, listKeys, openSpaces, type Spaces } from '../lib/spaces.ts'
import { cloudFor } from './rehearsal/cloud.ts'

const test = suite<{ folder: string; bucket: string }>('lock')
const subject = cloudFor(test)
let spaces: Spaces
let buckets = 0
test.before(async () => {
  const { url, access_key_id, secret_access_key } = subject.cloud.spaces
  spaces = await openSpaces({
    endpoint: url,
    accessKeyId: new Secret(access_key_id),
    secretAccessKey: new Secret(secret_access_key),
  })
})
test.after(() => spaces.client.destroy())

test.before.each(async (context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'lock-'))
  context.bucket = `locks-${++buckets}`
  const work = { signal: new AbortController().signal, waitingFor: () => {} }
  await bucketStep(async () => spaces, context.bucket).apply({ lines: [] }, work)
})
test.after.each(({ folder }) => rmSync(folder, { recursive: true }))

type Options = Partial<Parameters<typeof takeLock>[2]>

/** @param machine each has a folder of its own, and with it a name of its own */
const take = (
  { folder, bucket }: { folder: string; bucket: string },
  machine: string,
  options: Options & { through?: Spaces } = {},
): Promise<Lock> =>
  takeLock(options.through ?? spaces, bucket, {
    directory: join(folder, machine),
    runbook: machine,
    wait: 60,
    signal: new AbortController().signal,
    onWaiting: () => {},
    onLost: () => {},
    ...options,
  })

/** @returns the refusal; throws when there was none */
async function refusal(attempt: Promise<Lock>): Promise<Failure> {
  const error = await attempt.then(
    () => assert.unreachable('it was given'),
    (reason: unknown) => reason,
  )
  assert.instance(error, Failure)
  assert.is((error as Failure).exit, EXIT.locked)
  return error as Failure
}

/** @returns a promise, and what resolves it */
function signal<T = void>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((take) => {
    resolve = take
  })
  return { promise, resolve }
}

/** A process on that machine takes the lock and dies with it. @returns its process id */
async function dieHolding({ folder, bucket }: { folder: string; bucket: string }, machine: string): Promise<number> {
  const script = join(folder, 'holder.mts')
  writeFileSync(
    script,
    `import { takeLock } from ${JSON.stringify(join(ROOT, 'lib', 'lock.ts'))}
import { Secret } from ${JSON.stringify(join(ROOT, 'lib', 'secret.ts'))}
import { openSpaces } from ${JSON.stringify(join(ROOT, 'lib', 'spaces.ts'))}
const { endpoint, id, key } = JSON.parse(process.env.SPACES ?? '')
const spaces = await openSpaces({ endpoint, accessKeyId: new Secret(id), secretAccessKey: new Secret(key) })
await takeLock(spaces, ${JSON.stringify(bucket)}, {
  directory: ${JSON.stringify(join(folder, machine))},
  runbook: 'the one that died',
  wait: 0,
  signal: new AbortController().signal,
  onWaiting: () => {},
  onLost: () => {},
})
console.log('held')
setInterval(() => {}, 1000)
`,
  )
  const { url, access_key_id, secret_access_key } = subject.cloud.spaces
  const child = spawn(process.execPath, ['--import', 'tsx', script], {
    cwd: ROOT,
    env: { ...process.env, SPACES: JSON.stringify({ endpoint: url, id: access_key_id, key: secret_access_key }) },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const ended = once(child, 'exit')
  const held = once(child.stdout, 'data')
  await Promise.race([held, ended.then(() => assert.unreachable('the holder could not take the lock'))])
  child.kill('SIGKILL')
  await ended
  return child.pid ?? 0
}

/** The same Spaces, but that each write first goes through this. */
function through(before: (command: PutObjectCommand) => Promise<void> | void): Spaces {
  const { client } = spaces
  const send = async (command: Parameters<S3Client['send']>[0]) => {
    if (command instanceof PutObjectCommand) await before(command)
    return client.send(command)
  }
  return { ...spaces, client: Object.assign(Object.create(client), { send }) as S3Client }
}

test('a second taker is told who holds it, waits, and has it when it is given back', async (context) => {
  const first = await take(context, 'first')
  const waiting = signal<string>()
  let given = false
  const second = take(context, 'second', { onWaiting: waiting.resolve }).then((lock) => {
    given = true
    return lock
  })
  assert.match(
    await waiting.promise,
    new RegExp(`^.+@.+, running first since \\d{4}-\\d\\d-\\d\\dT[\\d:]+Z \\(process ${process.pid}\\)$`),
  )
  assert.not.ok(given)
  await first.release()
  await (await second).release()
})

test('whom it waits for is told once for each holder, and no more', async (context) => {
  const first = await take(context, 'first')
  const told: string[] = []
  const heard = [signal(), signal()]
  const third = take(context, 'third', {
    wait: 3600,
    onWaiting: (holder) => {
      told.push(/running (\w+)/.exec(holder)?.[1] ?? '')
      heard[told.length - 1]?.resolve()
    },
  })
  await heard[0]?.promise
  // Passes the first as if that were dead, so that the third never finds the lock free in between.
  const second = await take(context, 'second', { lease: 0 })
  await heard[1]?.promise
  await first.release()
  await second.release()
  await (await third).release()
  assert.equal(told, ['first', 'second'])
})

test('who does not wait is refused with exit 75, the holder’s name and what to do', async (context) => {
  const lock = await take(context, 'first')
  const { message, next } = await refusal(take(context, 'second', { wait: 0 }))
  assert.match(message, /^the site is locked by .+@.+, running first since /)
  assert.match(next ?? '', '--wait 90')
  await lock.release()
  await (await take(context, 'second', { wait: 0 })).release()
})

test('who is interrupted while it waits, waits no longer', async (context) => {
  const lock = await take(context, 'first')
  const interruption = new AbortController()
  const second = take(context, 'second', {
    wait: 3600,
    signal: interruption.signal,
    onWaiting: () => interruption.abort(),
  })
  assert.is(
    await second.then(
      () => 'given',
      (error: Error) => error.name,
    ),
    'AbortError',
  )
  await lock.release()
})

test('a holder that died on this very machine is passed at once', async (context) => {
  await dieHolding(context, 'here')
  const told: string[] = []
  const lock = await take(context, 'here', { wait: 0, onWaiting: (holder) => told.push(holder) })
  assert.equal(told, [])
  await lock.release()
})

test('the same on another machine is not: its process id says nothing here', async (context) => {
  const pid = await dieHolding(context, 'there')
  const { message } = await refusal(take(context, 'here', { wait: 0 }))
  assert.match(message, `running the one that died since`)
  assert.match(message, `(process ${pid})`)
})

test('a holder that no longer writes is passed after the lease, and not before', async (context) => {
  await dieHolding(context, 'there')
  const started = performance.now()
  const lock = await take(context, 'here', { lease: 2 })
  assert.ok(performance.now() - started >= 2000)
  await lock.release()
})

test('a holder that goes on writing is not passed, however long it takes', async (context) => {
  const lock = await take(context, 'first')
  // Longer than the lease in all; the holder writes in between.
  await refusal(take(context, 'second', { lease: 8, wait: 10 }))
  await lock.release()
})

test('a holder that was passed is told by whom, and does not take the lock from it by giving its own back', async (context) => {
  const lost = signal<string>()
  const first = await take(context, 'first', { onLost: lost.resolve })
  const second = await take(context, 'second', { lease: 0 })
  assert.match(await lost.promise, 'running second since')
  await first.release()
  const { message } = await refusal(take(context, 'third', { wait: 0 }))
  assert.match(message, 'running second since')
  await second.release()
})

test('of those that race for the same number one wins', async (context) => {
  const racers = Array.from({ length: 6 }, (_, index) => `racer${index}`)
  const results = await Promise.allSettled(racers.map((name) => take(context, name, { wait: 0 })))
  const won = results.filter((result) => result.status === 'fulfilled')
  assert.is(won.length, 1)
  for (const result of results)
    if (result.status === 'rejected') assert.is((result.reason as Failure).exit, EXIT.locked, String(result.reason))
  await won[0]?.value.release()
})

test('those that wait for each other have it one at a time, all of them', async (context) => {
  let inside = 0
  const names = ['one', 'two', 'three', 'four']
  await Promise.all(
    names.map(async (name) => {
      const lock = await take(context, name)
      assert.is(++inside, 1)
      await listKeys(spaces, context.bucket, '') // as good as any work
      inside--
      await lock.release()
    }),
  )
  assert.ok((await listKeys(spaces, context.bucket, '')).length <= 2, 'old numbers are cleared away')
})

test('one that looked long ago does not win with a number that was cleared away since', async (context) => {
  await (await take(context, 'earlier')).release()
  const reached = signal()
  const goOn = signal()
  const slow = through(async () => {
    reached.resolve()
    await goOn.promise
  })
  // It has seen number 1 free, and is about to write number 2.
  const late = take(context, 'late', { wait: 0, through: slow })
  await reached.promise
  await (await take(context, 'second')).release() // number 2
  const third = await take(context, 'third') // number 3, and 2 is cleared away
  goOn.resolve()
  assert.match((await refusal(late)).message, 'running third since')
  await third.release()
  await (await take(context, 'fourth', { wait: 0 })).release()
})

test('a storage that overwrites although it was told not to is refused: nothing can be locked there', async (context) => {
  const careless = through(({ input }) => {
    delete input.IfNoneMatch
  })
  const error = await take(context, 'first', { through: careless }).catch((reason: unknown) => reason)
  assert.instance(error, Failure)
  assert.match((error as Failure).message, 'accepts a conditional write')
})

test.run()
