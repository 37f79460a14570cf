// One run at a time changes a site. The lock is an object in the state bucket that names its holder; it needs nothing
// of S3 but that a conditional write (If-None-Match: *) is refused when the key is taken.
//
// Every holder takes the next number: lock/7 after lock/6. The highest number is the lock, so two that both find lock/6
// free both write lock/7, and one is refused. The holder writes it again every few seconds; one that is no longer
// written (its machine died) or whose process is gone from this very machine is passed by taking the next number.
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { EXIT, Failure } from './failure.ts'
import { identityOf, isRunning } from './process.ts'
import { listKeys, readObject, removeObject, type Spaces, writeObject } from './spaces.ts'

/** Seconds between two writes of a holder. */
const BEAT = 5
/** Seconds after which a holder that wrote nothing is taken for dead: several beats, for a slow network. */
const LEASE = 45
/** Seconds after which a holder that cannot write stops by itself, well before somebody else takes over. */
const GRACE = 25

const holderSchema = z.object({
  who: z.string(),
  machine: z.string(),
  pid: z.number(),
  started: z.string(),
  id: z.string(),
  runbook: z.string(),
  since: z.string(),
  beat: z.number(),
  released: z.boolean(),
})
type Holder = z.infer<typeof holderSchema>

export type Lock = { release: () => Promise<void> }

/** Where a lock's numbers are. */
type Place = { spaces: Spaces; bucket: string; prefix: string }

/** @returns 'ryan@laptop, running bootstrap since 2026-11-24T02:13:05Z (process 4711)' */
const describe = ({ who, runbook, since, pid }: Holder) => `${who}, running ${runbook} since ${since} (process ${pid})`

/**
 * @param options.directory the site's folder on this machine, where the machine's own name for itself is kept
 * @param options.wait seconds to wait for another holder
 * @param options.onWaiting told whom it waits for, whenever that changes
 * @param options.onLost called with the reason when the lock is no longer this run's: it cannot be renewed, or another
 *   run has passed this one by because it seemed dead
 * @returns the lock; throws a Failure with exit 75 that names the holder when it is still held after the wait
 */
export async function takeLock(
  spaces: Spaces,
  bucket: string,
  options: {
    /** which lock: '' for the site's own */
    name?: string
    directory: string
    runbook: string
    wait: number
    signal: AbortSignal
    onWaiting: (holder: string) => void
    onLost: (reason: string) => void
    lease?: number
  },
): Promise<Lock> {
  const { name = '', directory, runbook, wait, signal, onWaiting, onLost, lease = LEASE } = options
  const place: Place = { spaces, bucket, prefix: name ? `lock-${name}/` : 'lock/' }
  const machine = machineId(directory)
  const me: Holder = {
    who: `${userInfo().username}@${hostname()}`,
    machine,
    ...identityOf(process.pid),
    id: randomUUID(),
    runbook,
    since: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
    beat: 0,
    released: false,
  }
  const deadline = performance.now() + wait * 1000
  let watched = { text: '', since: performance.now() }
  let told = ''
  for (;;) {
    const [number, text] = await newest(place)
    if (text !== watched.text) watched = { text, since: performance.now() }
    const holder = readHolder(text)
    // Our own write may have taken effect although its answer was lost.
    if (holder?.id === me.id) return hold(place, number, me, onLost)
    const free =
      text === '' ||
      holder?.released ||
      (holder?.machine === machine && !isRunning(holder)) ||
      performance.now() - watched.since > lease * 1000
    if (free) {
      if (await takeNumber(place, number + 1, me)) return hold(place, number + 1, me, onLost)
      continue
    }
    const description = holder ? describe(holder) : 'somebody whose note cannot be read'
    if (performance.now() > deadline)
      throw new Failure({
        found: `the site is locked by ${description}`,
        expected: 'one run at a time',
        next: `wait for it, or look what it does on that machine; if it is dead, its lock is passed by after ${lease} s of waiting: run again with --wait ${lease * 2}`,
        exit: EXIT.locked,
      })
    if (description !== told) onWaiting(description)
    told = description
    await sleep(Math.min(1000, Math.max(50, wait * 200)), undefined, { signal })
  }
}

function readHolder(text: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(text))
  } catch {
    return undefined // nobody, or a note of another version
  }
}

/** @returns the highest number in use (0 when there is none) and what is written there */
async function newest({ spaces, bucket, prefix }: Place): Promise<[number, string]> {
  const key = (await listKeys(spaces, bucket, prefix)).at(-1)
  return key ? [Number(key.slice(prefix.length)), (await readObject(spaces, bucket, key)) ?? ''] : [0, '']
}

/** Padded, so that the listing's order is the numbers' order. */
const keyOf = ({ prefix }: Place, number: number) => prefix + String(number).padStart(10, '0')

async function takeNumber(place: Place, number: number, me: Holder): Promise<boolean> {
  const { spaces, bucket, prefix } = place
  const body = JSON.stringify(me)
  if (!(await writeObject(spaces, bucket, keyOf(place, number), body, { onlyNew: true }))) return false
  if (await writeObject(spaces, bucket, keyOf(place, number), body, { onlyNew: true }))
    throw new Failure({
      found: `${spaces.endpoint} accepts a conditional write (If-None-Match: *) to an object that exists`,
      expected: 'that it answers 412: without that neither runbooks nor Terraform can lock',
      next: 'ask the provider of the object storage',
    })
  const keys = await listKeys(spaces, bucket, prefix)
  // One that looked long ago may take a number that has been cleaned away since: then a higher one is there.
  const mine = keys.at(-1) === keyOf(place, number)
  const old = mine ? keys.slice(0, -1) : [keyOf(place, number)]
  await Promise.all(old.map((key) => removeObject(spaces, bucket, key)))
  return mine
}

function hold(place: Place, number: number, me: Holder, onLost: (reason: string) => void): Lock {
  const { spaces, bucket } = place
  let holder = me
  let writing = Promise.resolve()
  let written = performance.now()
  const lose = (reason: string) => {
    clearInterval(timer)
    onLost(reason)
  }
  const beat = async () => {
    const began = performance.now()
    try {
      const [highest, text] = await newest(place)
      if (highest > number) {
        const other = readHolder(text)
        return lose(`the lock was taken over by ${other ? describe(other) : `lock ${highest}`}`)
      }
      holder = { ...holder, beat: holder.beat + 1 }
      await writeObject(spaces, bucket, keyOf(place, number), JSON.stringify(holder))
      written = began
    } catch {} // the next beat tries again
  }
  const timer = setInterval(() => {
    if (performance.now() - written > GRACE * 1000)
      return lose(`the lock could not be renewed for ${GRACE} s, after which another run may take it`)
    writing = writing.then(beat)
  }, BEAT * 1000)
  timer.unref()
  return {
    release: async () => {
      clearInterval(timer)
      await Promise.race([writing, sleep(BEAT * 1000, undefined, { ref: false })])
      await writeObject(spaces, bucket, keyOf(place, number), JSON.stringify({ ...holder, released: true }))
    },
  }
}

/** A random name, kept beside what the site keeps on this machine: two laptops may well have the same host name. */
function machineId(directory: string): string {
  const file = join(directory, 'machine-id')
  if (!existsSync(file)) {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    try {
      writeFileSync(file, randomUUID(), { flag: 'wx', mode: 0o600 })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
  return `${hostname()}/${readFileSync(file, 'utf8')}`
}
