// Backups as steps: each source has a fresh one, and only those are kept that the site wants.
import { availableParallelism } from 'node:os'
import {
  type Backup,
  listBackups,
  newestOf,
  openCatalogue,
  readManifest,
  type Sent,
  type Source,
  sendBackup,
  sourcesIn,
  verifyBackup,
} from './backups.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { Failure, oneLine, tell } from './failure.ts'
import type { Platform } from './platform.ts'
import { freeConnections, withPostgres } from './postgres.ts'
import { expired } from './retention.ts'
import { once, type Run } from './run.ts'
import { ITS_TURN, slots } from './slots.ts'
import { removeObjects } from './spaces.ts'

const HOUR = 3_600_000

/** Connections that one backup takes: the dump's, and that of its snapshot. */
const CONNECTIONS = 2
/** However many processors there are: what each takes of this one's memory adds up. */
const MOST_AT_ONCE = 4

/** @returns hours, in words: '3 h old' */
export const ageOf = ({ at }: Pick<Backup, 'at'>, now = Date.now()): string => {
  const minutes = Math.max(0, Math.round((now - at.getTime()) / 60_000))
  return minutes < 120 ? `${minutes} min old` : `${Math.round(minutes / 60)} h old`
}

/** @returns whether it is younger than so many milliseconds; not where a clock that was wrong put it into the future */
export function isYounger({ at }: Pick<Backup, 'at'>, than: number): boolean {
  const age = Date.now() - at.getTime()
  return age < than && age > -HOUR
}

/**
 * Half of what is an alarm: a nightly run then finds last night's backup due, however long either took.
 *
 * @returns milliseconds after which a backup is no longer fresh
 */
const freshFor = ({ site }: Run) => (site.backups.max_age_hours * HOUR) / 2

/**
 * @param options.again makes a backup even where there is a fresh one
 * @returns a step for each source, that it is backed up
 */
export function backupSteps(
  run: Run,
  platform: Platform,
  sources: readonly Source[],
  options: { again: boolean },
): Step[] {
  const catalogue = openCatalogue(run)
  const most = Math.min(availableParallelism(), MOST_AT_ONCE)
  const sending = once(async () => {
    if (!sources.some(({ name }) => name.startsWith('database/'))) return slots(most)
    const free = await withPostgres(await platform.postgres(), freeConnections)
    return slots(Math.max(1, Math.min(most, Math.floor(free / 2 / CONNECTIONS)))) // half is the customers'
  })
  const verifying = slots(most)
  return sources.map((source) => {
    let made: Sent | undefined
    return step<Drift>({
      title: source.title,
      needs: [],
      check: async () => {
        if (made) {
          await readManifest(run, { source: source.name, folder: folderOf(made.key), keys: [made.key] })
          return undefined
        }
        const newest = newestOf(await catalogue(), source.name)
        if (!newest) return { lines: ['there is no backup of it'] }
        if (options.again) return { lines: [`another one; the newest is ${ageOf(newest)}`] }
        return isYounger(newest, freshFor(run)) ? undefined : { lines: [`the newest is ${ageOf(newest)}`] }
      },
      apply: async (_drift, work) => {
        work.waitingFor(ITS_TURN)
        const sent = await (await sending())(async () => {
          work.signal.throwIfAborted()
          work.waitingFor('pg_dump, zstd, age and Spaces')
          return sendBackup(run, source)
        })
        work.waitingFor('Spaces, to read it again')
        await verifying(() => verifyBackup(run, sent))
        made = sent
      },
    })
  })
}

const folderOf = (key: string) => key.slice(0, key.lastIndexOf('/'))

/** Fails by name where a customer is on one side only; everything else is backed up all the same. */
export const discoveredStep = (problems: readonly string[]): Step =>
  step<Drift>({
    title: 'gitops/apps and the server agree on who is a customer',
    needs: [],
    check: async () => {
      if (problems.length === 0) return undefined
      throw new Failure({
        found: problems.join('; '),
        expected: 'every customer with a database, and every database with a customer',
        next: './runbooks/list-customers.mts; add-customer NAME finishes one that was half added, remove-customer half removed',
      })
    },
    apply: async () => {},
  })

/** Milliseconds after which what has no manifest was not finished, and never will be. */
const UNFINISHED = 48 * HOUR

type Expired = Drift & { keys: string[] }

/** @returns a step for each source that has backups: only those are kept that the site wants */
export async function retentionSteps(run: Run): Promise<AnyStep[]> {
  const sources = sourcesIn(await listBackups(run))
  const { backups: retention } = run.site
  return sources.map((source) =>
    step<Expired>({
      title: `${source} has the backups that are to be kept`,
      needs: [],
      check: async () => {
        const all = await listBackups(run, source)
        const verified = all.filter((one) => one.verified)
        const old = expired(verified, retention)
        const unfinished = all.filter((one) => !one.verified && Date.now() - one.at.getTime() > UNFINISHED)
        if (old.length + unfinished.length === 0) return undefined
        return {
          lines: [
            ...old.map((one) => `remove ${one.folder}, ${ageOf(one)}`),
            ...unfinished.map((one) => `remove ${one.folder}, which was never finished`),
            `${verified.length - old.length} stay`,
          ],
          keys: [...old, ...unfinished].flatMap(inOrderOfRemoval),
        }
      },
      apply: async ({ keys }) => removeObjects(await run.spaces(), run.site.buckets.backups, keys),
    }),
  )
}

/** The manifest first: what is removed halfway must not count. */
const inOrderOfRemoval = ({ keys }: Backup) =>
  [...keys].sort((a, b) => Number(b.endsWith('/manifest.json')) - Number(a.endsWith('/manifest.json')))

/**
 * What a run of backups tells at its end: who is without a fresh one; and the heartbeat, when nobody is.
 *
 * @param sources undefined where they could not be found out: then those that the bucket knows
 */
export async function raiseAlarms(
  run: Run,
  sources: readonly Source[] | undefined,
  exit: number,
  whole: boolean,
): Promise<void> {
  const backups = await listBackups(run)
  const names = sources?.map(({ name }) => name) ?? sourcesIn(backups)
  const without = names.flatMap((name) => {
    const newest = newestOf(backups, name)
    if (newest && isYounger(newest, run.site.backups.max_age_hours * HOUR)) return []
    return [`${name} (${newest ? `the newest is ${ageOf(newest)}` : 'none'})`]
  })
  if (without.length > 0) run.emit({ event: 'warning', text: `without a fresh backup: ${without.join(', ')}` })
  if (exit === 0 && without.length === 0 && whole) await sendHeartbeat(run)
}

/** Calls the address that the site names, if it names one; that it does not answer is a warning. */
export async function sendHeartbeat(run: Run): Promise<void> {
  const { heartbeat } = run.site.backups
  if (!heartbeat) return
  try {
    const answer = await fetch(heartbeat, { signal: AbortSignal.timeout(10_000) })
    if (!answer.ok) throw new Error(`it answers ${answer.status}`)
  } catch (error) {
    run.emit({ event: 'warning', text: `the heartbeat could not be sent: ${oneLine(tell(error))}` })
  }
}
