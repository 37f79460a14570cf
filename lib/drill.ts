// The proof that backups restore: each customer's newest one is restored, compared, dropped again, and the evidence kept in
// the bucket as drills/SOURCE/TIME.json.
import { hostname, userInfo } from 'node:os'
import type pg from 'pg'
import * as z from 'zod'
import { type Backup, type DatabaseFacts, newestOf, readBackup } from './backups.ts'
import { type Drift, type Step, step } from './converge.ts'
import { Failure } from './failure.ts'
import { DUMP, GITEA } from './gitea-backup.ts'
import { restoreGiteaDatabase } from './gitea-restore.ts'
import { type Server, serverVersion, withPostgres } from './postgres.ts'
import { backupOf, dropDatabase, restoreInto, scratchName } from './restore.ts'
import type { Run } from './run.ts'
import { ITS_TURN } from './slots.ts'
import { readObject, writeObject } from './spaces.ts'

const evidenceSchema = z.object({
  format: z.literal(1),
  backup: z.string(),
  drilled_at: z.string(),
  who: z.string(),
  seconds: z.number(),
  server_version: z.string(),
  tables: z.number(),
  rows: z.number(),
  large_objects: z.number(),
})
export type Evidence = z.infer<typeof evidenceSchema>

const keyOf = ({ folder }: Backup) => `drills/${folder}.json`

/** @returns the evidence that this very backup has been restored; undefined when there is none */
export async function readEvidence(run: Run, backup: Backup): Promise<Evidence | undefined> {
  const text = await readObject(await run.spaces(), run.site.buckets.backups, keyOf(backup))
  try {
    return text === undefined ? undefined : evidenceSchema.parse(JSON.parse(text))
  } catch {
    return undefined // damaged, it proves nothing
  }
}

/** @returns names of the databases that drills of this customer have left that were killed */
export async function drillsLeft(client: pg.Client, customer: string): Promise<string[]> {
  const left = new RegExp(`^drill_${customer.replaceAll('-', '_')}_\\d{8}t\\d{6}z$`)
  const { rows } = await client.query<{ datname: string }>('SELECT datname FROM pg_database')
  return rows.map(({ datname }) => datname).filter((name) => left.test(name))
}

export const dropDrills = (server: Server, customer: string): Promise<void> =>
  withPostgres(server, async (client) => {
    for (const name of await drillsLeft(client, customer)) await dropDatabase(client, name)
  })

/**
 * @param backups of which the customer's newest is drilled; where there is none the step fails
 * @param turn lets so many drills run at once
 */
export function drilledStep(
  run: Run,
  administrator: () => Promise<Server>,
  customer: string,
  backups: readonly Backup[],
  options: { identity: string; turn: <T>(work: () => Promise<T>) => Promise<T> },
): Step {
  const backup = newestOf(backups, `database/${customer}`)
  if (!backup) return missingStep(backups, `database/${customer}`, customer)
  const scratch = scratchName(customer, backup, 'drill')
  return proofStep(run, backup, { ...options, what: customer, scratch }, async () => {
    const server = await administrator()
    await dropDrills(server, customer)
    const { database } = await restoreInto(run, administrator, backup, scratch, {
      customer,
      identity: options.identity,
    })
    await withPostgres(server, (client) => dropDatabase(client, scratch))
    return { server, database }
  })
}

/** Gitea's database goes into the customers' Postgres for that, where whoever drills is let in; its files are read and counted. */
export function giteaDrilledStep(
  run: Run,
  administrator: () => Promise<Server>,
  backups: readonly Backup[],
  options: { identity: string; turn: <T>(work: () => Promise<T>) => Promise<T> },
): Step {
  const backup = newestOf(backups, GITEA)
  if (!backup) return missingStep(backups, GITEA, 'Gitea')
  const scratch = scratchName('gitea', backup, 'drill')
  return proofStep(run, backup, { ...options, what: 'Gitea', scratch }, async () => {
    const server = await administrator()
    await dropDrills(server, 'gitea')
    const { identity } = options
    const manifest = await restoreGiteaDatabase(run, backup, { administrator: server, database: scratch, identity })
    await withPostgres(server, (client) => dropDatabase(client, scratch))
    const list = ['tar', '--list', '--ignore-zeros', `--exclude=${DUMP}`]
    const names = await readBackup(run, manifest, identity, [list])
    const files = names.split('\n').filter(Boolean).length
    if (files !== manifest.gitea?.files)
      throw new Failure({
        found: `${manifest.key} has ${files} files and folders`,
        expected: `${manifest.gitea?.files}, as its manifest says`,
        next: './runbooks/backup.mts --gitea --again',
      })
    return { server, database: manifest.database }
  })
}

/** It says that there is none. */
const missingStep = (backups: readonly Backup[], source: string, what: string): Step =>
  step<Drift>({
    title: `the backup of ${what} restores`,
    needs: [],
    check: async () => {
      backupOf(backups, source)
      return undefined
    },
    apply: async () => {},
  })

/** @param restore restores it, compares it and leaves nothing of it. @returns the step that keeps the evidence of that */
function proofStep(
  run: Run,
  backup: Backup,
  options: { what: string; scratch: string; turn: <T>(work: () => Promise<T>) => Promise<T> },
  restore: () => Promise<{ server: Server; database: DatabaseFacts | undefined }>,
): Step {
  const { what, scratch } = options
  return step<Drift>({
    title: `the backup of ${what} of ${backup.at.toISOString()} restores`,
    needs: [],
    check: async () =>
      (await readEvidence(run, backup)) ? undefined : { lines: [`restore it to ${scratch}, and compare`] },
    apply: async (_drift, work) => {
      work.waitingFor(ITS_TURN)
      await options.turn(async () => {
        work.signal.throwIfAborted()
        work.waitingFor(`Spaces, age, zstd and pg_restore: ${(backup.bytes / 2 ** 20).toFixed(1)} MiB`)
        const started = performance.now()
        const { server, database } = await restore()
        const evidence: Evidence = {
          format: 1,
          backup: backup.folder,
          drilled_at: new Date().toISOString(),
          who: `${userInfo().username}@${hostname()}`,
          seconds: Math.round(performance.now() - started) / 1000,
          server_version: await withPostgres(server, serverVersion),
          tables: Object.keys(database?.rows ?? {}).length,
          rows: Object.values(database?.rows ?? {}).reduce((sum, count) => sum + count, 0),
          large_objects: database?.large_objects ?? 0,
        }
        await writeObject(
          await run.spaces(),
          run.site.buckets.backups,
          keyOf(backup),
          JSON.stringify(evidence, null, 2),
        )
      })
    },
  })
}
