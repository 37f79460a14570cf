// The shared Postgres: how it is reached, and what it says of itself and of its customers.
import { isIP } from 'node:net'
import pg from 'pg'
import { Failure } from './failure.ts'
import type { Secret } from './secret.ts'

export type Server = {
  host: string
  port: number
  user: string
  password: Secret
  database: string
  ca: string
  /** of 127.0.0.1: where a tunnel to it begins */
  tunnel?: number
}

/** Steps read and write through one connection of the administrator each, since they may run side by side. */
export type Administrator = () => Promise<Server>

/**
 * @param server where and as whom
 * @param work gets a connection, which is closed whatever happens; TLS, the server's certificate checked against its CA
 * @returns what the work returns; throws a Failure when the server cannot be reached
 */
export async function withPostgres<T>(server: Server, work: (client: pg.Client) => Promise<T>): Promise<T> {
  // As libpq has it: whom to connect to, where that is not what the name of the host says, as in a tunnel.
  const address = server.tunnel ? '127.0.0.1' : process.env.PGHOSTADDR
  const client = new pg.Client({
    host: address || server.host,
    port: server.tunnel ?? server.port,
    user: server.user,
    password: server.password.reveal(),
    database: server.database,
    ssl: { ca: server.ca, ...(address && !isIP(server.host) ? { servername: server.host } : {}) },
    application_name: 'lunarfront-runbook',
    connectionTimeoutMillis: 15_000,
    statement_timeout: 120_000,
  })
  // A server that goes away between two queries is told by the next query; without a listener it would end the process.
  client.on('error', () => {})
  try {
    await client.connect()
  } catch (error) {
    await client.end().catch(() => {})
    if ((error as { code?: string }).code?.match(/^(E[A-Z]+|57P03)$/) || /timeout/i.test((error as Error).message))
      throw new Failure({
        found: `Postgres at ${server.host}:${server.port} does not answer: ${(error as Error).message}`,
        expected: 'a connection: the database only answers to the cluster and the Gitea droplet',
        next: `pg_isready -h ${server.host} -p ${server.port}, on ${server.tunnel ? 'the droplet, through which it is reached' : 'the machine that this runbook runs on'}`,
      })
    throw error
  }
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

/** What the server says about customers' databases, for lists. */
export type DatabaseSummary = { name: string; bytes: number; connections: number }

export async function databaseSummaries(client: pg.Client): Promise<DatabaseSummary[]> {
  const { rows } = await client.query<{ name: string; bytes: string; connections: string }>(
    `SELECT datname AS name, pg_database_size(oid) AS bytes,
       (SELECT count(*) FROM pg_stat_activity WHERE datid = pg_database.oid) AS connections
     FROM pg_database WHERE datname LIKE 'customer\\_%' ORDER BY 1`,
  )
  return rows.map(({ name, bytes, connections }) => ({ name, bytes: Number(bytes), connections: Number(connections) }))
}

/**
 * @returns connections that the server has for clients, and how many all other customers' roles may hold together; a
 *   role without a limit may hold all of them
 */
export async function connectionFacts(client: pg.Client, except: string): Promise<{ limit: number; promised: number }> {
  const { rows } = await client.query<{ limit: number; promised: number }>(
    `WITH server AS (
       SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) AS "limit" -- from 16 on
     )
     SELECT "limit",
       (SELECT coalesce(sum(CASE WHEN rolconnlimit < 0 THEN "limit" ELSE rolconnlimit END), 0)::int FROM pg_roles
        WHERE rolname LIKE 'customer\\_%' AND rolname <> $1) AS promised
     FROM server`,
    [except],
  )
  return rows[0]!
}

/** @returns connections that are neither in use nor kept back for others than clients */
export async function freeConnections(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ free: number }>(
    `SELECT (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0)
       - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'))::int AS free`,
  )
  return rows[0]?.free ?? 0
}

export async function serverVersion(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ version: string }>("SELECT current_setting('server_version') AS version")
  return rows[0]?.version ?? ''
}
