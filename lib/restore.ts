// Restoring a customer's database: into a database of its own, compared with what the backup counted, and only then, if
// asked, in the place of the customer's.
import { existsSync } from 'node:fs'
import pg from 'pg'
import { type Backup, type DatabaseFacts, type Manifest, newestOf, readBackup, readManifest } from './backups.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { roleFacts } from './customer-database.ts'
import { parseSecrets, readSecrets, type SecretsHome, secretsFile } from './customer-secrets.ts'
import { namesOf } from './customers.ts'
import { comments } from './database-comments.ts'
import { Failure, tell } from './failure.ts'
import { writeWhole } from './files.ts'
import { type Administrator, type Server, withPostgres } from './postgres.ts'
import { connectionOf, countRows } from './postgres-programs.ts'
import type { Run } from './run.ts'

const quoteName = pg.escapeIdentifier
const quoteText = pg.escapeLiteral

/** For names of databases. */
export const compact = (at: Date) => at.toISOString().replaceAll(/[-:.]/g, '').toLowerCase()
const toSeconds = (stamp: string) => stamp.replace(/\d{3}z$/, 'z')

/** Never customer_…: what is called so is a customer's. */
export const scratchName = (customer: string, { at }: Backup, purpose: 'restored' | 'drill') =>
  `${purpose}_${customer.replaceAll('-', '_')}_${toSeconds(compact(at))}`

/** @returns the newest verified backup of a source; throws a Failure where there is none */
export function backupOf(backups: readonly Backup[], source: string, at?: string): Backup {
  const found = newestOf(backups, source, at ? new Date(at) : undefined)
  if (found) return found
  const [, name = source] = source.split('/')
  throw new Failure({
    found: `there is no verified backup of ${name}${at ? ` from ${at} or before` : ''}`,
    expected: 'one',
    next: './runbooks/backups.mts',
  })
}

type Found = {
  comment: string | null
  /** nobody can connect to it */
  closed: boolean
  /** created by a restore that did not come to its next statement: nobody else makes one closed and without connections */
  bare: boolean
}

/** @returns what the server says of a database; undefined where there is none */
export async function findDatabase(client: pg.Client, database: string): Promise<Found | undefined> {
  const { rows } = await client.query<Found>(
    `SELECT comment, NOT datallowconn AS closed, NOT datallowconn AND datconnlimit = 0 AND comment IS NULL AS bare
     FROM pg_database, shobj_description(oid, 'pg_database') AS comment WHERE datname = $1`,
    [database],
  )
  return rows[0]
}

/**
 * Autovacuum has no user: only the server may end it, and does so when its database is dropped or renamed. Superusers are
 * the provider's own, and only they may end each other.
 */
export const endConnections = (client: pg.Client, database: string) =>
  client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = $1 AND usesysid NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)`,
    [database],
  )

/** Drops a database, where it is there, with whoever is connected. WITH (FORCE) is refused while autovacuum is at work. */
export async function dropDatabase(client: pg.Client, database: string): Promise<void> {
  if (!(await findDatabase(client, database))) return
  await client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS false`)
  await endConnections(client, database)
  await client.query(`DROP DATABASE ${quoteName(database)}`)
}

/**
 * Fills a new database from a backup and compares it. A database that an interrupted run has left half filled is made
 * anew.
 *
 * @param database name of the new one
 * @returns what was compared; throws a Failure, the database gone again, where anything differs
 */
export async function restoreInto(
  run: Run,
  administrator: Administrator,
  backup: Backup,
  database: string,
  options: { customer: string; identity: string },
): Promise<Manifest> {
  const manifest = await readManifest(run, backup)
  const server = await administrator()
  const role = namesOf(options.customer).database
  const drop = () => withPostgres(server, (client) => dropDatabase(client, database))
  await drop()
  const owned = await withPostgres(server, async (client) => {
    const hasRole = (await roleFacts(client, role)) !== undefined
    const owner = hasRole ? `OWNER ${quoteName(role)}` : ''
    await client.query(
      `CREATE DATABASE ${quoteName(database)} ${owner} TEMPLATE template0 ENCODING 'UTF8'
         ALLOW_CONNECTIONS false CONNECTION LIMIT 0`,
    )
    await client.query(`REVOKE ALL ON DATABASE ${quoteName(database)} FROM PUBLIC`)
    await client.query(`COMMENT ON DATABASE ${quoteName(database)} IS ${quoteText(comments.restoring(backup))}`)
    await client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS true CONNECTION LIMIT -1`)
    return hasRole
  })
  try {
    const restore = ['pg_restore', '--exit-on-error', '--no-password', `--dbname=${database}`]
    // A customer that is not there on this server yet has no role, and so nobody to own anything.
    const orphaned = owned ? [] : ['--no-owner', '--no-privileges']
    await readBackup(run, manifest, options.identity, [[...restore, ...orphaned]], connectionOf(run, server, database))
    await withPostgres({ ...server, database }, async (client) => {
      await client.query('SET statement_timeout = 0')
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
      compareRows(manifest, await countRows(client))
      await client.query('COMMIT')
    })
    await withPostgres(server, async (client) => {
      await applySettings(run, client, database, manifest.database?.settings ?? [])
      const done = owned ? comments.restored(backup) : comments.orphaned(backup)
      await client.query(`COMMENT ON DATABASE ${quoteName(database)} IS ${quoteText(done)}`)
    })
  } catch (error) {
    await drop().catch(() => {}) // its comment says that it is not finished
    throw error
  }
  return manifest
}

/** Of roles that are on this server: a customer's may not be there yet, and whoever else had settings may be gone. */
async function applySettings(
  run: Run,
  client: pg.Client,
  database: string,
  settings: DatabaseFacts['settings'],
): Promise<void> {
  for (const { role, name, value } of settings) {
    if (role !== null && !(await roleFacts(client, role))) continue
    const whose = `${role === null ? '' : `ROLE ${quoteName(role)} IN `}DATABASE ${quoteName(database)}`
    // FROM CURRENT, since the value may be a list, and would be one word when it is quoted.
    try {
      await client.query('BEGIN')
      await client.query('SELECT set_config($1, $2, true)', [name, value])
      await client.query(`ALTER ${whose} SET ${name.split('.').map(quoteName).join('.')} FROM CURRENT`)
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK')
      run.emit({ event: 'warning', text: `${name} = ${value} could not be set for ${whose}: ${tell(error).found}` })
    }
  }
}

/** Throws a Failure that names each table whose rows are not as many as the backup counted. */
export function compareRows({ key, database }: Manifest, found: Pick<DatabaseFacts, 'rows' | 'large_objects'>): void {
  const expected = database?.rows ?? {}
  const differences = [...new Set([...Object.keys(expected), ...Object.keys(found.rows)])]
    .filter((table) => expected[table] !== found.rows[table])
    .map((table) => `${table} has ${found.rows[table] ?? 'no'} rows and should have ${expected[table] ?? 'none'}`)
  if (found.large_objects !== (database?.large_objects ?? 0))
    differences.push(`${found.large_objects} large objects, and should have ${database?.large_objects ?? 0}`)
  if (differences.length > 0)
    throw new Failure({
      found: `what was restored from ${key} is not what was backed up: ${differences.join('; ')}`,
      expected: 'the same rows in every table',
      next: './runbooks/backups.mts --customer NAME, and restore an older one with --at',
    })
}

/** @returns whether the customer's database is what was restored from that backup, whatever was written to it since */
async function isPlaced(server: Server, database: string, backup: Backup): Promise<boolean> {
  const found = await withPostgres(server, (client) => findDatabase(client, database))
  return found?.comment === comments.placed(backup) && !found.closed
}

/**
 * @param options.swap where it may have taken the customer's place already, and so have another name
 * @param options.again restores it even then
 */
export function restoredStep(
  run: Run,
  administrator: Administrator,
  backup: Backup,
  database: string,
  options: { customer: string; identity: string; swap: boolean; again: boolean },
): Step {
  return step<Drift>({
    title: `database ${database} holds the backup of ${backup.at.toISOString()}`,
    needs: [],
    check: async () => {
      const server = await administrator()
      const { swap, again, customer } = options
      const role = namesOf(customer).database
      if (swap && !again && (await isPlaced(server, role, backup))) return undefined
      const [found, facts] = await withPostgres(server, async (client) => [
        await findDatabase(client, database),
        await roleFacts(client, role),
      ])
      if (swap && !facts)
        throw new Failure({
          found: `there is no role ${role} on this server, so nobody could own what is restored`,
          expected: 'the customer’s role before its database is put in place',
          next: `./runbooks/add-customer.mts ${customer}, and then this again`,
        })
      const half = found?.bare || found?.comment === comments.restoring(backup)
      const orphaned = found?.comment === comments.orphaned(backup)
      if (!found || half || (orphaned && facts)) return { lines: [`restore ${backup.folder}, and compare it`] }
      if (orphaned || found.comment === comments.restored(backup)) return undefined
      throw new Failure({
        found: `the database ${database} is there already, and is not that backup`,
        expected: 'a name that is free',
        next: 'choose another one with --into',
      })
    },
    apply: async (_drift, work) => {
      work.waitingFor(`Spaces, age, zstd and pg_restore: ${(backup.bytes / 2 ** 20).toFixed(1)} MiB`)
      await restoreInto(run, administrator, backup, database, options)
    },
  })
}

/** Secrets that are lost come back with the data, or every user of the customer would be signed out. */
export function secretsRestoredStep(
  run: Run,
  backups: readonly Backup[],
  { customer, onCluster }: SecretsHome,
  options: { at?: string; identity: string; needs?: readonly AnyStep[] },
): Step {
  const file = secretsFile(run.site.directory, customer)
  return step<Drift>({
    title: `secrets of ${customer} are kept`,
    needs: options.needs ?? [],
    check: async () => {
      if (existsSync(file)) {
        readSecrets(run.site.directory, customer)
        return undefined
      }
      // A cluster that cannot be asked may be the reason why this is run.
      if (await onCluster().catch(() => undefined)) return undefined
      const backup = newestOf(backups, `secrets/${customer}`, options.at ? new Date(options.at) : undefined)
      if (backup) return { lines: [`write ${file} from ${backup.folder}`] }
      throw new Failure({
        found: `neither ${file} nor a backup of it is there`,
        expected: 'one of them',
        next: `./runbooks/add-customer.mts ${customer}, which makes new ones`,
      })
    },
    apply: async () => {
      const backup = newestOf(backups, `secrets/${customer}`, options.at ? new Date(options.at) : undefined)!
      const text = await readBackup(run, await readManifest(run, backup), options.identity, [])
      parseSecrets(text, backup.folder)
      writeWhole(file, text)
    },
  })
}

/**
 * Puts a restored database in the customer's place, in one transaction, and keeps the customer's under another name.
 *
 * @param options.restored the step that fills it
 * @param options.again does so even where that was done before: what was written since is kept under yet another name
 */
export function swappedStep(
  administrator: Administrator,
  customer: string,
  backup: Backup,
  scratch: string,
  { restored, again }: { restored: Step; again: boolean },
): Step {
  const { database } = namesOf(customer)
  const kept = `before_${customer.replaceAll('-', '_')}_${compact(new Date())}`
  let done = false
  return step<Drift>({
    title: `${database} is that backup`,
    needs: [restored],
    check: async () => {
      const server = await administrator()
      if ((!again || done) && (await isPlaced(server, database, backup))) return undefined
      const exists = (await withPostgres(server, (client) => findDatabase(client, database))) !== undefined
      return {
        lines: [
          ...(exists ? [`rename ${database} to ${kept}, and end its connections`] : []),
          `rename ${scratch} to ${database}`,
        ],
        confirm: `${customer} goes back to ${backup.at.toISOString()}; what was written since stays in ${kept}. Go on?`,
      }
    },
    apply: async () => {
      const server = await administrator()
      await withPostgres(server, async (client) => {
        const there = (await findDatabase(client, database)) !== undefined
        try {
          if (there) {
            await client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS false`)
            await endConnections(client, database)
          }
          await client.query('BEGIN')
          if (there) {
            await client.query(`ALTER DATABASE ${quoteName(database)} RENAME TO ${quoteName(kept)}`)
            await client.query(`ALTER DATABASE ${quoteName(kept)} ALLOW_CONNECTIONS true`)
          }
          await client.query(`ALTER DATABASE ${quoteName(scratch)} RENAME TO ${quoteName(database)}`)
          await client.query(`COMMENT ON DATABASE ${quoteName(database)} IS ${quoteText(comments.placed(backup))}`)
          await client.query('COMMIT')
        } catch (error) {
          await client.query('ROLLBACK')
          if (there) await client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS true`)
          throw error
        }
      })
      done = true
    },
  })
}
