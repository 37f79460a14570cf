// What there is of backups, source by source: the newest, its age and size, whether it was read again, whether it restores.
import { ageOf, isYounger } from './backup-steps.ts'
import { type Backup, listBackups, newestOf, sourcesIn } from './backups.ts'
import { readEvidence } from './drill.ts'
import { Failure, oneLine, tell } from './failure.ts'
import { GITEA } from './gitea-backup.ts'
import type { Platform } from './platform.ts'
import type { Run } from './run.ts'
import { discover } from './sources.ts'
import { tableLines } from './table.ts'

/** Whether a drill restores it. */
const isDrilled = (source: string) => source.startsWith('database/') || source === GITEA

export type Line = {
  source: string
  /** ISO time; null: there is no verified backup */
  newest: string | null
  bytes: number | null
  /** how many verified ones there are */
  verified: number
  /** ISO time at which the newest was restored in a drill; null: it was not */
  drilled: string | null
  /** not older than the site allows */
  fresh: boolean
}

export async function backupReport(run: Run, platform: Platform): Promise<{ lines: Line[]; problems: string[] }> {
  const backups = await listBackups(run)
  // Of a platform that is lost the bucket still tells what there is.
  const { sources, problems } = await discover(run, platform).catch((error: unknown) => ({
    sources: sourcesIn(backups).map((name) => ({ name })),
    problems: [`who the customers are is not known: ${oneLine(tell(error))}`],
  }))
  const maxAge = run.site.backups.max_age_hours * 3_600_000
  const lines = await Promise.all(
    sources.map(async ({ name }): Promise<Line> => {
      const newest: Backup | undefined = newestOf(backups, name)
      const evidence = newest && isDrilled(name) ? await readEvidence(run, newest) : undefined
      return {
        source: name,
        newest: newest?.at.toISOString() ?? null,
        bytes: newest?.bytes ?? null,
        verified: backups.filter(({ source, verified }) => source === name && verified).length,
        drilled: evidence?.drilled_at ?? null,
        fresh: newest !== undefined && isYounger(newest, maxAge),
      }
    }),
  )
  return { lines, problems }
}

/** @returns the report as a table for people */
export function backupTable(lines: readonly Line[], problems: readonly string[]): string[] {
  const rows = lines.map(({ source, newest, bytes, verified, drilled, fresh }) => [
    source,
    newest ? ageOf({ at: new Date(newest) }) : 'none',
    newest ?? '',
    bytes === null ? '' : `${(bytes / 2 ** 20).toFixed(1)} MiB`,
    String(verified),
    isDrilled(source) ? (drilled ? `restored ${drilled.slice(0, 10)}` : 'not yet') : '',
    fresh ? '' : 'TOO OLD',
  ])
  const old = lines.filter(({ fresh }) => !fresh).length
  return [
    ...tableLines([['SOURCE', 'NEWEST', 'TAKEN', 'SIZE', 'VERIFIED', 'DRILL', ''], ...rows]),
    `${lines.length} sources${old > 0 ? `, ${old} without a fresh backup` : ''}`,
    ...problems.map((problem) => `warning: ${problem}`),
  ]
}

/** @returns every backup of one customer, newest first, as the bucket alone tells; `taken` is what restore takes as --at */
export async function backupsOf(run: Run, customer: string) {
  const all = (await listBackups(run)).filter(({ source }) => source.endsWith(`/${customer}`)).reverse()
  if (all.length === 0)
    throw new Failure({
      found: `there is no backup of ${customer}`,
      next: './runbooks/backups.mts, which shows of whom',
    })
  const rows = all.map(({ source, at, bytes, verified }) => ({ source, taken: at.toISOString(), bytes, verified }))
  const lines = rows.map(({ source, taken, bytes, verified }) => [
    ...[source, ageOf({ at: new Date(taken) }), taken],
    ...[`${(bytes / 2 ** 20).toFixed(1)} MiB`, verified ? 'yes' : 'no, so it does not count'],
  ])
  return { lines: tableLines([['SOURCE', 'AGE', 'TAKEN', 'SIZE', 'VERIFIED'], ...lines]), value: { backups: rows } }
}
