// What has to be so before a run may touch Postgres: the server, and the programs that write and read its backups. Apart
// from preflight.ts, since its driver takes a while to load and bootstrap does without.
import { existsSync } from 'node:fs'
import { namesOf } from './customers.ts'
import { Failure } from './failure.ts'
import type { Platform } from './platform.ts'
import { connectionFacts, serverVersion, withPostgres } from './postgres.ts'
import { postgresProgramVersion } from './postgres-programs.ts'
import type { Run } from './run.ts'
import type { Precondition } from './runbook.ts'

/** Bootstrap has been here, and the database has connections left for one more customer. */
export const infrastructurePrecondition = (run: Run, platform: Platform, customer: string): Precondition => ({
  title: 'the infrastructure is there',
  check: async () => {
    const { database } = namesOf(customer)
    const { limit, promised } = await withPostgres(await platform.postgres(), (client) =>
      connectionFacts(client, database),
    )
    const after = promised + run.site.connections_per_customer
    if (after > 0.8 * limit)
      run.emit({
        event: 'warning',
        text: `with ${customer} all customers together may hold ${after} connections, and Postgres has ${limit}: a bigger postgres_size is due`,
      })
  },
})

/** What writes a backup is there. */
export const programsPrecondition = (run: Run): Precondition => ({
  title: 'pg_dump, zstd and age are there',
  check: async () => {
    await writesBackups(run)
  },
})

/** @returns the version of pg_dump */
async function writesBackups(run: Run): Promise<string> {
  const [dump] = await Promise.all([
    postgresProgramVersion(run, 'pg_dump'),
    run.exec({ argv: ['zstd', '--version'], next: 'install zstd' }),
    run.exec({ argv: ['age', '--version'], next: 'install age' }),
  ])
  return dump
}

/** What writes a backup is there, and pg_dump is new enough for the server: an older one refuses it. */
export const dumpPrecondition = (run: Run, platform: Platform): Precondition => ({
  title: 'pg_dump, zstd and age are there',
  check: async () => {
    const [dump, server] = await Promise.all([
      writesBackups(run),
      withPostgres(await platform.postgres(), serverVersion),
    ])
    if (Number.parseInt(dump, 10) < Number.parseInt(server, 10))
      throw new Failure({
        found: `pg_dump is ${dump}, and the server ${server}`,
        expected: 'client programs that are not older than the server',
        next: `install PostgreSQL’s client programs ${Number.parseInt(server, 10)}`,
      })
  },
})

/** What reads a backup is there, the private key among it. */
export const restorePrecondition = (run: Run, identity: string): Precondition => ({
  title: 'pg_restore, zstd, age and the private key are there',
  check: async () => {
    if (!existsSync(identity))
      throw new Failure({
        found: `there is no ${identity}`,
        expected: 'the file of a private key that backups are encrypted for',
        next: 'check the path after --identity',
      })
    await Promise.all([
      postgresProgramVersion(run, 'pg_restore'),
      run.exec({ argv: ['zstd', '--version'], next: 'install zstd' }),
      run.exec({ argv: ['age', '--version'], next: 'install age' }),
    ])
  },
})
