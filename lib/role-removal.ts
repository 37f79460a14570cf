// A customer's role when the customer is removed: what it owns in databases that are kept becomes the administrator's.
import pg from 'pg'
import { type Drift, type Step, step } from './converge.ts'
import { roleFacts } from './customer-database.ts'
import { namesOf } from './customers.ts'
import { drillsLeft, dropDrills } from './drill.ts'
import { Failure } from './failure.ts'
import { type Administrator, type Server, withPostgres } from './postgres.ts'

const quoteName = pg.escapeIdentifier

/** @returns the databases in which something is the role's, or something is granted to it */
async function databasesWith(client: pg.Client, role: string): Promise<{ database: string; closed: boolean }[]> {
  const { rows } = await client.query<{ database: string; closed: boolean }>(
    `SELECT DISTINCT datname AS database, NOT datallowconn AS closed
     FROM pg_shdepend JOIN pg_database ON pg_database.oid = dbid
     WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1) ORDER BY 1`,
    [role],
  )
  return rows
}

/**
 * What it owns becomes the administrator's: in the database that is kept, and in those of earlier restores. What a drill has
 * left goes.
 */
export function roleGoneStep(administrator: Administrator, customer: string): Step {
  const { database: role } = namesOf(customer)
  const name = quoteName(role)
  return step<Drift>({
    title: `role ${role} is gone`,
    check: async () =>
      withPostgres(await administrator(), async (client) => {
        if (!(await roleFacts(client, role))) return undefined
        const drills = await drillsLeft(client, customer)
        const kept = (await databasesWith(client, role)).filter(({ database }) => !drills.includes(database))
        return {
          lines: [
            ...drills.map((database) => `DROP DATABASE ${database}, which a drill has left`),
            ...kept.map(({ database }) => `REASSIGN OWNED BY ${name} TO CURRENT_USER, in ${database}`),
            `DROP ROLE ${name}`,
          ],
        }
      }),
    apply: async (_drift, work) => {
      const server = await administrator()
      await dropDrills(server, customer)
      const databases = await withPostgres(server, (client) => databasesWith(client, role))
      for (const one of [...databases, { database: server.database, closed: false }]) {
        work.waitingFor(`what is ${role}’s in ${one.database}`)
        await opened(server, one, (client) => reassign(client, role))
      }
      await withPostgres(server, (client) => client.query(`DROP ROLE ${name}`))
    },
  })
}

/** Does something in a database, which for that may have to be opened; it is closed again. */
async function opened(
  server: Server,
  { database, closed }: { database: string; closed: boolean },
  work: (client: pg.Client) => Promise<void>,
): Promise<void> {
  const allow = (isOpen: boolean) =>
    withPostgres(server, (client) => client.query(`ALTER DATABASE ${quoteName(database)} ALLOW_CONNECTIONS ${isOpen}`))
  if (closed) await allow(true)
  try {
    await withPostgres({ ...server, database }, work)
  } finally {
    if (closed) await allow(false)
  }
}

/** In the database that the client is connected to, and of what belongs to no database. */
async function reassign(client: pg.Client, role: string): Promise<void> {
  await client.query('BEGIN')
  await client.query(`REASSIGN OWNED BY ${quoteName(role)} TO CURRENT_USER`)
  const { rows } = await client.query<{ count: number }>(
    `SELECT count(*)::int AS count FROM pg_shdepend
     WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)
       AND deptype = 'o' AND classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
       AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))`,
    [role],
  )
  // The next statement would drop what is still owned; it is only for what was granted or is about the role itself.
  if (rows[0]?.count !== 0)
    throw new Failure({
      found: `${rows[0]?.count} objects are still ${role}’s after REASSIGN OWNED`,
      expected: 'none',
      next: `psql -c '\\ddp' -c '\\dx', in the database that the log names`,
    })
  await client.query(`DROP OWNED BY ${quoteName(role)}`)
  await client.query('COMMIT')
}
