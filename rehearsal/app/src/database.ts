// Postgres: the pool, and the migrations that the binary carries.
import { join } from 'node:path'
import { type ReservedSQL, SQL } from 'bun'
import { DrizzleQueryError } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/bun-sql'
import { migrate } from 'drizzle-orm/bun-sql/migrator'
import { connectionReason, Failure, reason } from './failure.ts'
import type { DatabaseSettings } from './settings.ts'

/**
 * Bun opens all of a pool with its first query, and sends several queries down one connection. Twice this, for two
 * instances, and one for a migration are the five connections of a customer's role.
 */
const POOL_SIZE = 2
/** Seconds; whoever replaces this server soon needs the connections that it does not. */
const IDLE = 20
/** Milliseconds to wait where the role has no connection left: an instance that is replaced gives its own back. */
const CONNECTION_PATIENCE = 30_000
/** Milliseconds that one query of a request may take. */
const QUERY_LIMIT = 10_000
/** Any number will do, as long as every version of the app has the same: each database has locks of its own. */
export const MIGRATION_LOCK = 727_001
/** In the executable `--asset` puts the folder beside the code, as it is here. */
const MIGRATIONS = join(import.meta.dir, 'migrations')

/** All of the address is given, or else PGDATABASE would go before the URL's database. */
const connect = ({ tls, ...address }: DatabaseSettings, options: SQL.Options): SQL =>
  new SQL({ adapter: 'postgres', ...address, tls, connectionTimeout: 10, ...options })

/** @returns what the attempt to connect gives; throws a Failure that says why there is no connection */
async function connected<T>(settings: DatabaseSettings, attempt: () => Promise<T>): Promise<T> {
  for (const end = Date.now() + CONNECTION_PATIENCE; ; await Bun.sleep(250)) {
    try {
      return await attempt()
    } catch (error) {
      const tooMany = error instanceof SQL.PostgresError && error.errno === '53300'
      if (tooMany && Date.now() < end) continue
      const { hostname, port, username, database } = settings
      const why = connectionReason(error)
      throw new Failure(`${username} cannot connect to ${database} of Postgres at ${hostname}:${port}: ${why}`)
    }
  }
}

/** @returns the pool, after one answer; throws a Failure that says why there is none */
export async function openDatabase(settings: DatabaseSettings): Promise<SQL> {
  const sql = connect(settings, {
    max: POOL_SIZE,
    idleTimeout: IDLE,
    connection: { statement_timeout: QUERY_LIMIT },
  })
  await connected(settings, () => sql`SELECT 1`)
  return sql
}

/**
 * Brings the database to what the binary carries, on one connection of its own. Whoever comes while another one does
 * this waits, and then finds nothing left to do. All of it is kept, or nothing.
 *
 * @param patience milliseconds to wait for the other one
 * @throws a Failure that says why it could not
 */
export async function migrateDatabase(settings: DatabaseSettings, patience: number): Promise<void> {
  const sql = connect(settings, { max: 1 })
  try {
    const connection = await connected(settings, () => sql.reserve())
    await lock(connection, patience)
    await migrate(drizzle({ client: connection }), { migrationsFolder: MIGRATIONS })
  } catch (error) {
    if (error instanceof Failure) throw error
    const statement =
      error instanceof DrizzleQueryError ? ` (${error.query.replace(/\s+/g, ' ').trim().slice(0, 100)})` : ''
    throw new Failure(
      `the migration of ${settings.database} failed, nothing of it is kept: ${reason(error)}${statement}`,
    )
  } finally {
    await sql.close({ timeout: 0 }) // and with it goes the lock
  }
}

async function lock(connection: ReservedSQL, patience: number): Promise<void> {
  await connection`SELECT set_config('lock_timeout', ${String(patience)}, false)`
  // Whoever is ended while it waits would else keep its connection, of the few there are, for as long.
  await connection`SET client_connection_check_interval = '1s'`
  try {
    await connection`SELECT pg_advisory_lock(${MIGRATION_LOCK})`
  } catch (error) {
    if (!(error instanceof SQL.PostgresError) || error.errno !== '55P03') throw error
    throw new Failure(`another migration has held the database for ${patience / 1000} s: see what it is waiting for`)
  }
  await connection`SET lock_timeout = 0`
}
