// pg_dump and pg_restore: which server they talk to, and how what they have done is compared.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type pg from 'pg'
import type { DatabaseFacts } from './backups.ts'
import { writeWhole } from './files.ts'
import type { Server } from './postgres.ts'
import type { Run } from './run.ts'

/** The options of pg_dump and pg_restore that say which server; the password is in neither. */
export function connectionOf(run: Run, server: Server, database: string): Record<string, string> {
  const ca = join(run.scratch, 'postgres-ca.pem')
  const known = existsSync(ca) ? readFileSync(ca, 'utf8') : ''
  // Once for each server's authority, and whole: another pg_dump may be reading it.
  if (!known.includes(server.ca)) writeWhole(ca, known + server.ca)
  return {
    PGHOST: server.host, // for which its certificate is
    ...(server.tunnel ? { PGHOSTADDR: '127.0.0.1' } : {}),
    PGPORT: String(server.tunnel ?? server.port),
    PGUSER: server.user,
    PGPASSWORD: server.password.reveal(),
    PGDATABASE: database,
    PGSSLMODE: 'verify-full',
    PGSSLROOTCERT: ca,
    PGCONNECT_TIMEOUT: '15',
  }
}

/**
 * What a backup and a restore count, so that they can be compared: tables of the user's own that hold rows. Not
 * materialized views: a dump has their queries, and a restore what those say then.
 */
const TABLES = `
  SELECT format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%'
    AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND classid = 'pg_class'::regclass AND deptype = 'e')
  ORDER BY 1`

/** @param client in a transaction, so that all is counted at one moment */
export async function countRows(client: pg.Client): Promise<Pick<DatabaseFacts, 'rows' | 'large_objects'>> {
  const { rows: tables } = await client.query<{ name: string }>(TABLES)
  const rows: Record<string, number> = {}
  for (const { name } of tables) {
    const { rows: counted } = await client.query<{ count: string }>(`SELECT count(*) FROM ONLY ${name}`)
    rows[name] = Number(counted[0]?.count)
  }
  const { rows: objects } = await client.query<{ count: string }>('SELECT count(*) FROM pg_largeobject_metadata')
  return { rows, large_objects: Number(objects[0]?.count) }
}

/** @returns the client program's version, such as '15.18'; throws a Failure where it is missing */
export async function postgresProgramVersion(run: Run, program: 'pg_dump' | 'pg_restore'): Promise<string> {
  const { stdout } = await run.exec({ argv: [program, '--version'], next: 'install PostgreSQL’s client programs' })
  return /\(PostgreSQL\) ([\d.]+)/.exec(stdout)?.[1] ?? stdout.trim()
}
