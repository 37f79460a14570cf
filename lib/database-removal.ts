// A customer's database when the customer is removed: shut, backed up for the last time, set aside under another name, and
// dropped only where a verified backup has what was in it.
import pg from 'pg'
import { backupNamed, sendBackup, verifyBackup } from './backups.ts'
import { type Drift, type Step, step, type Work } from './converge.ts'
import {
  type DatabaseFacts,
  databaseFacts,
  databaseStatements,
  type RoleFacts,
  roleFacts,
} from './customer-database.ts'
import { namesOf } from './customers.ts'
import { finalBackupIn, finalComment } from './database-comments.ts'
import { Failure } from './failure.ts'
import { type Administrator, withPostgres } from './postgres.ts'
import { compact, dropDatabase, endConnections } from './restore.ts'
import type { Run } from './run.ts'
import { databaseSource } from './sources.ts'

const quoteName = pg.escapeIdentifier
const quoteText = pg.escapeLiteral

/** Never customer_…: what is called so is a customer's. */
export const keptName = (customer: string, at: Date) =>
  `removed_${customer.replaceAll('-', '_')}_${compact(at).replace(/\d{3}z$/, 'z')}`

/** @returns whether a database is one that was set aside for this customer, and not for one of a longer name */
export const isKeptOf = (customer: string, database: string) =>
  new RegExp(`^removed_${customer.replaceAll('-', '_')}_\\d{8}t\\d{6}z$`).test(database)

// --- facts -----------------------------------------------------------------------------

type Kept = { name: string; comment: string | null }

/** @returns the customer's database, and those that were set aside for it before */
async function databasesOf(client: pg.Client, customer: string): Promise<{ own?: Kept; kept: Kept[] }> {
  const { database } = namesOf(customer)
  const { rows } = await client.query<Kept>(
    `SELECT datname AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database
     WHERE datname = $1 OR datname LIKE 'removed\\_%' ORDER BY 1`,
    [database],
  )
  const own = rows.find(({ name }) => name === database)
  return { ...(own ? { own } : {}), kept: rows.filter(({ name }) => isKeptOf(customer, name)) }
}

/** Connections that may write to the customer's database, the administrator's apart; it has the role's name. */
const connectionsOf = (role: string) => {
  const name = quoteText(role)
  // The provider's own, which watch the server, nobody else may end.
  const others = 'usename <> CURRENT_USER AND usesysid NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)'
  return `FROM pg_stat_activity WHERE usename = ${name} OR (datname = ${name} AND ${others})`
}

/** @returns whether there is anything of the customer on the server */
export async function isOnServer(administrator: Administrator, customer: string): Promise<boolean> {
  return withPostgres(await administrator(), async (client) => {
    const { own, kept } = await databasesOf(client, customer)
    return own !== undefined || kept.length > 0 || (await roleFacts(client, namesOf(customer).database)) !== undefined
  })
}

// --- steps -----------------------------------------------------------------------------

/**
 * @param role of the customer, whose database has the same name
 * @param database undefined where there is none
 * @param options.saved whether its comment names a final backup
 * @param options.connections how many may write to it
 * @returns the statements after which nobody writes to the database; none where that is so
 */
export function shutStatements(
  role: string,
  facts: RoleFacts | undefined,
  database: DatabaseFacts | undefined,
  { connections, saved }: { connections: number; saved: boolean },
): string[] {
  if (!facts) return []
  const name = quoteName(role)
  return [
    ...(facts.administered ? [] : [`GRANT ${name} TO CURRENT_USER`]),
    // From a removal that was begun and then undone: whoever could log in may have written since.
    ...(facts.canLogin && saved ? [`COMMENT ON DATABASE ${name} IS NULL`] : []),
    ...(facts.canLogin ? [`ALTER ROLE ${name} NOLOGIN`] : []),
    ...facts.members.map((other) => `REVOKE ${name} FROM ${other}`),
    // Nobody but the role may connect, as add-customer has it, and the administrator may: to save it.
    ...(database ? databaseStatements(role, role, { ...database, encoding: 'UTF8' }) : []),
    ...(facts.canLogin || connections > 0 ? [`SELECT pg_terminate_backend(pid, 10000) ${connectionsOf(role)}`] : []),
  ]
}

/** From here on nothing of the customer's changes any more: the server itself sees to that. */
export function shutStep(administrator: Administrator, customer: string): Step {
  const { database } = namesOf(customer)
  const statements = async (client: pg.Client) => {
    const [role, facts] = [await roleFacts(client, database), await databaseFacts(client, database)]
    const { own } = await databasesOf(client, customer)
    const saved = own !== undefined && finalBackupIn(customer, own.comment) !== undefined
    const { rows } = await client.query<{ count: number }>(`SELECT count(*)::int ${connectionsOf(database)}`)
    return shutStatements(database, role, facts, { connections: rows[0]?.count ?? 0, saved })
  }
  return step<Drift>({
    title: `nobody writes to ${database}`,
    check: async () => {
      const lines = await withPostgres(await administrator(), statements)
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () =>
      withPostgres(await administrator(), async (client) => {
        for (const statement of await statements(client)) await client.query(statement)
      }),
  })
}

/** The database as it was left: dumped when nobody writes any more, and read again. */
export function finalBackupStep(run: Run, administrator: Administrator, customer: string): Step {
  const { database } = namesOf(customer)
  return step<Drift>({
    title: `database ${database} has its final backup`,
    check: async () => {
      const [{ own }, facts] = await withPostgres(await administrator(), async (client) => [
        await databasesOf(client, customer),
        await roleFacts(client, database),
      ])
      if (!own) return undefined
      const folder = finalBackupIn(customer, own.comment)
      if (!folder || facts?.canLogin) return { lines: ['back it up when nobody writes to it any more'] }
      return (await backupNamed(run, folder)) ? undefined : { lines: [`${folder} is not there: another one`] }
    },
    apply: async (_drift, work) => {
      work.waitingFor('pg_dump, zstd, age and Spaces')
      const sent = await sendBackup(run, databaseSource(run, administrator, customer, database))
      work.waitingFor('Spaces, to read it again')
      await verifyBackup(run, sent)
      const comment = finalComment(customer, sent.key.slice(0, sent.key.lastIndexOf('/')))
      await withPostgres(await administrator(), (client) =>
        client.query(`COMMENT ON DATABASE ${quoteName(database)} IS ${quoteText(comment)}`),
      )
    },
  })
}

/** @returns the verified final backup that a database's comment names; throws a Failure where there is none */
async function finalBackupOf(run: Run, customer: string, { name, comment }: Kept) {
  const folder = finalBackupIn(customer, comment)
  const backup = folder ? await backupNamed(run, folder) : undefined
  if (backup) return backup
  throw new Failure({
    found: folder ? `${folder}, the final backup of ${name}, is not there` : `${name} names no final backup`,
    expected: 'a verified backup of what is to be dropped',
    next: `pg_dump --format=custom ${name} > ${name}.dump by hand, and DROP DATABASE when that is safe`,
  })
}

/** What was a customer's database is kept under a name that is nobody's. */
export function setAsideStep(run: Run, administrator: Administrator, customer: string): Step {
  const { database } = namesOf(customer)
  return step<Drift>({
    title: `database ${database} is set aside`,
    check: async () => {
      const { own } = await withPostgres(await administrator(), (client) => databasesOf(client, customer))
      const kept = `removed_${customer.replaceAll('-', '_')}_TIME`
      return own ? { lines: [`rename ${database} to ${kept}, and end its connections`] } : undefined
    },
    apply: async () =>
      withPostgres(await administrator(), async (client) => {
        const { own } = await databasesOf(client, customer)
        if (!own) return
        const { at } = await finalBackupOf(run, customer, own)
        const kept = quoteName(keptName(customer, at))
        try {
          await client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS false`)
          await endConnections(client, database)
          await client.query('BEGIN')
          await client.query(`ALTER DATABASE ${quoteName(database)} RENAME TO ${kept}`)
          await client.query(`ALTER DATABASE ${kept} ALLOW_CONNECTIONS true`)
          await client.query('COMMIT')
        } catch (error) {
          await client.query('ROLLBACK')
          await client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS true`)
          throw error
        }
      }),
  })
}

/** What was set aside, now and in earlier removals, is dropped: only what a verified backup has. The rest stays, by name. */
export function dataGoneStep(run: Run, administrator: Administrator, customer: string): Step {
  const find = async () => withPostgres(await administrator(), (client) => databasesOf(client, customer))
  /** Of those that are set aside: each with its backup, and why others stay. */
  const sorted = async (kept: readonly Kept[]) => {
    const stay: Failure[] = []
    const saved: { name: string; folder: string }[] = []
    for (const one of kept)
      try {
        saved.push({ name: one.name, folder: (await finalBackupOf(run, customer, one)).folder })
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        stay.push(error)
      }
    return { saved, stay }
  }
  return step<Drift>({
    title: `no data of ${customer} is on the server`,
    check: async () => {
      const { own, kept } = await find()
      const { saved, stay } = await sorted(kept)
      const lines = saved.map(({ name, folder }) => `DROP DATABASE ${name}, whose backup is ${folder}`)
      if (own) lines.push(`DROP DATABASE ${own.name}, when its final backup is verified and it is set aside`)
      const [first] = stay
      if (lines.length > 0) return { lines: [...lines, ...stay.map(({ message }) => `${message}: it stays`)] }
      if (!first) return undefined
      throw new Failure({
        found: stay.map(({ message }) => message).join('\n'),
        ...(first.expected ? { expected: first.expected } : {}),
        ...(first.next ? { next: first.next } : {}),
      })
    },
    apply: async (_drift, work: Work) => {
      for (const { name } of (await sorted((await find()).kept)).saved) {
        work.waitingFor(`Postgres, which drops ${name}`)
        await withPostgres(await administrator(), (client) => dropDatabase(client, name))
      }
    },
  })
}
