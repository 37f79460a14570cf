// A customer's role and database: what they should be, what they are, and the SQL between the two.
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'
import pg from 'pg'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { Failure } from './failure.ts'
import { type Administrator, type Server, withPostgres } from './postgres.ts'
import type { Secret } from './secret.ts'

const quoteName = pg.escapeIdentifier
const quoteText = pg.escapeLiteral

// --- the role --------------------------------------------------------------------------

export type RoleFacts = {
  canLogin: boolean
  /** superuser, createdb, createrole, replication, bypassrls: those that it has */
  powers: string[]
  connectionLimit: number
  /** roles that it is a member of, and so can read as */
  memberOf: string[]
  /** roles that are a member of it, and so can read what it owns; the administrator and superusers apart */
  members: string[]
  /** whether the administrator may act for it: needed to make it a database's owner, and to dump that */
  administered: boolean
}

export async function roleFacts(client: pg.Client, role: string): Promise<RoleFacts | undefined> {
  const { rows } = await client.query<{ facts: RoleFacts }>(
    `SELECT json_build_object(
       'canLogin', rolcanlogin,
       'powers', array_remove(ARRAY[
         CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
         CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
         CASE WHEN rolbypassrls THEN 'BYPASSRLS' END], NULL),
       'connectionLimit', rolconnlimit,
       'memberOf', ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = pg_roles.oid ORDER BY 1),
       'members', ARRAY(SELECT DISTINCT other.oid::regrole::text
                        FROM pg_auth_members JOIN pg_roles AS other ON other.oid = member
                        WHERE roleid = pg_roles.oid AND other.rolname <> current_user AND NOT other.rolsuper ORDER BY 1),
       'administered', pg_has_role(current_user, oid, 'USAGE')
     ) AS facts FROM pg_roles WHERE rolname = $1`,
    [role],
  )
  return rows[0]?.facts
}

/** @returns whether the server has the role */
export const roleExists = async (administrator: Administrator, role: string): Promise<boolean> =>
  (await withPostgres(await administrator(), (client) => roleFacts(client, role))) !== undefined

/** @returns the statements that make the role what it should be; none when it is */
export function roleStatements(role: string, connectionLimit: number, facts: RoleFacts | undefined): string[] {
  const name = quoteName(role)
  if (!facts)
    return [
      `CREATE ROLE ${name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT ${connectionLimit}`,
      `GRANT ${name} TO CURRENT_USER`,
    ]
  const changes = [
    ...(facts.canLogin ? [] : ['LOGIN']),
    ...facts.powers.map((power) => `NO${power}`),
    ...(facts.connectionLimit === connectionLimit ? [] : [`CONNECTION LIMIT ${connectionLimit}`]),
  ]
  return [
    ...(changes.length > 0 ? [`ALTER ROLE ${name} ${changes.join(' ')}`] : []),
    ...facts.memberOf.map((other) => `REVOKE ${other} FROM ${name}`),
    ...facts.members.map((other) => `REVOKE ${name} FROM ${other}`),
    ...(facts.administered ? [] : [`GRANT ${name} TO CURRENT_USER`]),
  ]
}

/**
 * What Postgres itself would store for the password (RFC 5803), so that the password is in no statement and in no log
 * of the server.
 */
export function scramVerifier(password: string, salt = randomBytes(16), iterations = 4096): string {
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, iterations, 32, 'sha256')
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest()
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${hmac('Server Key').toString('base64')}`
}

/**
 * A code alone does not say whether the server had looked at the password by then, so its message decides where one
 * code is used before and after. Messages are in the server's language, which is English at DigitalOcean (lc_messages);
 * in any other one the answer is not known, and is never taken for a yes.
 *
 * @returns whether a login that was refused so had the right password; undefined where that was not told
 */
export function passwordWasRight(code: string | undefined, message: string): boolean | undefined {
  if (code === '28P01') return false // the role is missing, has another password, or has none
  if (code === '3D000' || code === '42501' || code === '55000') return true // only the database was the trouble
  if (code === '28000' && /is not permitted to log in/.test(message)) return true
  // 'sorry, too many clients already' has the same code, and comes first of all.
  if (code === '53300' && /^(too many connections for|remaining connection slots are reserved)/.test(message))
    return true
  return undefined
}

/** @returns whether the role's password is this one: the server is asked by logging in */
export async function acceptsPassword(
  server: Server,
  role: string,
  password: Secret,
  database: string,
): Promise<boolean> {
  try {
    await withPostgres({ ...server, user: role, password, database }, async () => {})
    return true
  } catch (error) {
    const { code, message } = error as pg.DatabaseError
    const right = passwordWasRight(code, message)
    if (right !== undefined) return right
    if (code === '28000' || code === '53300')
      throw new Failure({
        found: `Postgres at ${server.host}:${server.port} refused ${role} before it looked at the password: ${message}`,
        expected: 'a login, or a refusal of the password',
        next:
          code === '53300'
            ? 'run it again when fewer connections are open, or choose a bigger postgres_size'
            : 'run it where Postgres lets roles in: on the cluster or the Gitea droplet',
      })
    throw error
  }
}

// --- the database ----------------------------------------------------------------------

export type DatabaseFacts = {
  owner: string
  encoding: string
  connectable: boolean
  /** PUBLIC's rights: any of CONNECT, TEMPORARY */
  open: string[]
  /** roles that were given any right to it by name, its owner and the administrator apart */
  guests: string[]
}

export async function databaseFacts(client: pg.Client, database: string): Promise<DatabaseFacts | undefined> {
  const { rows } = await client.query<{ facts: DatabaseFacts }>(
    `SELECT json_build_object(
       'owner', datdba::regrole::text,
       'encoding', pg_encoding_to_char(encoding),
       'connectable', datallowconn,
       'open', ARRAY(SELECT privilege FROM unnest(ARRAY['CONNECT', 'TEMPORARY']) privilege
                     WHERE has_database_privilege('public', oid, privilege)),
       'guests', ARRAY(SELECT DISTINCT grantee::regrole::text FROM aclexplode(datacl)
                       WHERE grantee NOT IN (0, datdba, current_user::regrole) ORDER BY 1)
     ) AS facts FROM pg_database WHERE datname = $1`,
    [database],
  )
  return rows[0]?.facts
}

/** @returns the statements that make the database the owner's and nobody else's; none when it is */
export function databaseStatements(database: string, owner: string, facts: DatabaseFacts | undefined): string[] {
  const name = quoteName(database)
  if (!facts)
    // Nobody can connect until PUBLIC's right to is gone.
    return [
      `CREATE DATABASE ${name} OWNER ${quoteName(owner)} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false`,
      `REVOKE ALL ON DATABASE ${name} FROM PUBLIC`,
      `ALTER DATABASE ${name} ALLOW_CONNECTIONS true`,
    ]
  if (facts.encoding !== 'UTF8')
    throw new Failure({
      found: `the database ${database} has the encoding ${facts.encoding}`,
      expected: 'UTF8, which cannot be changed afterwards',
      next: `look what it holds: psql -d ${database}`,
    })
  return [
    ...(facts.owner === quoteIfNeeded(owner) ? [] : [`ALTER DATABASE ${name} OWNER TO ${quoteName(owner)}`]),
    ...(facts.open.length > 0 ? [`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`] : []),
    ...facts.guests.map((guest) => `REVOKE ALL ON DATABASE ${name} FROM ${guest}`),
    ...(facts.connectable ? [] : [`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`]),
  ]
}

/** regrole prints a name as SQL would need it, and ours need no quotes. */
const quoteIfNeeded = (name: string) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : quoteName(name))

/**
 * @param except the database that is somebody else's to look at
 * @returns databases into which every role can log in, other customers' among them, and which the administrator can
 *   close. What belongs to the provider (at DigitalOcean _dodb and template1) it cannot: a REVOKE there only warns.
 */
export async function openDatabases(client: pg.Client, except: string): Promise<string[]> {
  const { rows } = await client.query<{ datname: string }>(
    `SELECT datname FROM pg_database
     WHERE datallowconn AND datname <> $1 AND pg_has_role(current_user, datdba, 'USAGE')
       AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1`,
    [except],
  )
  return rows.map(({ datname }) => datname)
}

// --- the steps -------------------------------------------------------------------------

type SqlDrift = Drift & { statements: string[] }

const sqlDrift = (statements: string[]): SqlDrift | undefined =>
  statements.length > 0 ? { lines: statements, statements } : undefined

const sqlStep = (
  title: string,
  administrator: Administrator,
  statements: (client: pg.Client) => Promise<string[]>,
  needs: readonly AnyStep[] | undefined,
): Step<SqlDrift> =>
  step<SqlDrift>({
    title,
    ...(needs ? { needs } : {}),
    check: async () => sqlDrift(await withPostgres(await administrator(), statements)),
    apply: async (drift) =>
      withPostgres(await administrator(), async (client) => {
        for (const statement of drift.statements) await client.query(statement)
      }),
  })

type Needs = { needs?: readonly AnyStep[] }

export const roleStep = (administrator: Administrator, role: string, connectionLimit: number, { needs }: Needs = {}) =>
  sqlStep(
    `role ${role} exists`,
    administrator,
    async (client) => roleStatements(role, connectionLimit, await roleFacts(client, role)),
    needs,
  )

export const databaseStep = (administrator: Administrator, database: string, owner: string, { needs }: Needs = {}) =>
  sqlStep(
    `database ${database} exists, and only ${owner} may connect`,
    administrator,
    async (client) => databaseStatements(database, owner, await databaseFacts(client, database)),
    needs,
  )

/**
 * Customers' roles must find no other door on the server either. The customer's own database is left to databaseStep:
 * two REVOKEs of one thing at once fail.
 */
export const closedStep = (administrator: Administrator, database: string, { needs }: Needs = {}) =>
  sqlStep(
    'no other database of ours is open to every role',
    administrator,
    async (client) =>
      (await openDatabases(client, database)).map((name) => `REVOKE ALL ON DATABASE ${quoteName(name)} FROM PUBLIC`),
    needs,
  )

export const passwordStep = (
  administrator: Administrator,
  role: string,
  database: string,
  password: () => Promise<Secret>,
  { needs }: Needs = {},
): Step =>
  step({
    title: `role ${role} accepts its password`,
    ...(needs ? { needs } : {}),
    check: async () =>
      (await acceptsPassword(await administrator(), role, await password(), database))
        ? undefined
        : { lines: [`ALTER ROLE ${quoteName(role)} PASSWORD …`] },
    apply: async () =>
      withPostgres(await administrator(), async (client) => {
        await client.query(
          `ALTER ROLE ${quoteName(role)} PASSWORD ${quoteText(scramVerifier((await password()).reveal()))}`,
        )
      }),
  })
