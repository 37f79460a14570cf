// What is backed up: each customer's database, each customer's secrets, Terraform's state, Gitea.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import type pg from 'pg'
import type { DatabaseFacts, Source } from './backups.ts'
import { findKnownSecrets, secretsFile, secretsText } from './customer-secrets.ts'
import { type Customer, namesOf, secretsElsewhere, surveyCustomers } from './customers.ts'
import { finalBackupIn } from './database-comments.ts'
import { Failure, misuse, oneLine, tell } from './failure.ts'
import { giteaSource } from './gitea-backup.ts'
import type { Platform } from './platform.ts'
import { type Server, withPostgres } from './postgres.ts'
import { connectionOf, countRows, postgresProgramVersion } from './postgres-programs.ts'
import { hostedRepository } from './repository-address.ts'
import { once, type Run } from './run.ts'
import { readObject } from './spaces.ts'
import { STATE_KEY } from './terraform.ts'

/** Milliseconds that a dump waits for somebody who is changing a table. */
const LOCK_WAIT = 120_000

/** @returns what was set for a database as a whole, or for a role in it */
async function settingsOf(client: pg.Client, database: string): Promise<DatabaseFacts['settings']> {
  const { rows } = await client.query<{ role: string | null; setting: string }>(
    `SELECT rolname AS role, unnest(setconfig) AS setting
     FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase LEFT JOIN pg_roles ON pg_roles.oid = setrole
     WHERE datname = $1 ORDER BY 1 NULLS FIRST, 2`,
    [database],
  )
  return rows.map(({ role, setting }) => {
    const end = setting.indexOf('=')
    return { role, name: setting.slice(0, end), value: setting.slice(end + 1) }
  })
}

/**
 * The rows are counted in the snapshot that pg_dump reads, so that they are what the dump holds.
 *
 * @param database of the customer, as the server has it
 */
export function databaseSource(run: Run, server: () => Promise<Server>, name: string, database: string): Source {
  const dumpVersion = once(() => postgresProgramVersion(run, 'pg_dump'))
  return {
    name: `database/${name}`,
    title: `database ${database} is backed up`,
    file: 'dump.zst.age',
    read: async (store) => {
      const there = { ...(await server()), database }
      return withPostgres(there, async (client) => {
        await client.query('SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0')
        await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
        const { rows } = await client.query<{ snapshot: string; version: string; bytes: string }>(
          `SELECT pg_export_snapshot() AS snapshot, current_setting('server_version') AS version,
             pg_database_size(current_database()) AS bytes`,
        )
        const { snapshot, version, bytes } = rows[0]!
        const dump = ['pg_dump', '--format=custom', '--compress=0', `--snapshot=${snapshot}`]
        const settings = await settingsOf(client, database)
        const env = connectionOf(run, there, database)
        const [counted, dump_version] = await Promise.all([
          countRows(client),
          dumpVersion(),
          store({
            commands: [[...dump, '--no-password', `--lock-wait-timeout=${LOCK_WAIT}`]],
            env,
          }),
        ])
        await client.query('COMMIT')
        return {
          database: {
            ...{ database, server_version: version, dump_version, database_bytes: Number(bytes) },
            ...counted,
            settings,
          },
        }
      })
    },
  }
}

/**
 * Of a customer whose database cannot be read: it fails, and so is told among those without a fresh backup.
 *
 * @param closed it is there with that comment, and takes no connections
 */
function missingSource(customer: string, closed?: { comment: string | null }): Source {
  const { database } = namesOf(customer)
  return {
    name: `database/${customer}`,
    title: `database ${database} is backed up`,
    file: 'dump.zst.age',
    read: async () => {
      if (closed)
        throw new Failure({
          found: `the database ${database} takes no connections`,
          ...(finalBackupIn(customer, closed.comment)
            ? {
                expected: 'an open one: a removal was ended between closing and renaming it',
                next: `./runbooks/remove-customer.mts ${customer}, which goes on`,
              }
            : {
                expected: 'an open one: a restore was ended between closing and renaming it',
                next: `./runbooks/restore.mts ${customer} --swap, which goes on`,
              }),
        })
      throw new Failure({
        found: `the database ${database} is not there`,
        expected: 'one, since gitops/apps has its customer',
        next: `./runbooks/add-customer.mts ${customer}, or ./runbooks/restore.mts ${customer} --swap`,
      })
    },
  }
}

/** From wherever they are: the site's folder, or the cluster. */
export function secretsSource(platform: Platform, customer: string): Source {
  return {
    name: `secrets/${customer}`,
    title: `secrets of ${customer} are backed up`,
    file: 'secrets.json.zst.age',
    read: async (store) => {
      // Read and written anew: what is damaged must not become the newest backup.
      await store({ input: Buffer.from(secretsText(await findKnownSecrets(platform.secrets(customer)))) })
      return {}
    },
  }
}

function stateSource(run: Run): Source {
  return {
    name: 'terraform/state',
    title: 'Terraform’s state is backed up',
    file: 'terraform.tfstate.zst.age',
    read: async (store) => {
      const text = await readObject(await run.spaces(), run.site.buckets.state, STATE_KEY)
      if (text === undefined)
        throw new Failure({
          found: `there is no ${STATE_KEY} in ${run.site.buckets.state}`,
          next: './runbooks/bootstrap.mts',
        })
      await store({ input: Buffer.from(text) })
      return {}
    },
  }
}

/**
 * What there is to back up; what is on one side only, in gitops/apps or on the server; and what is on the cluster alone, and
 * not among the sources.
 */
export type Fleet = { sources: Source[]; problems: string[]; unsaved: string[] }

/** The customers as gitops/apps lists them; where that cannot be read, what is wrong, and backups go on without it. */
export async function listedCustomers(
  platform: Platform,
): Promise<{ names: string[]; elsewhere: Customer[]; problems: string[]; known: boolean }> {
  try {
    const { customers, problems } = surveyCustomers(await platform.appsDirectory())
    return {
      names: customers.map(({ customer }) => customer),
      elsewhere: customers.filter(secretsElsewhere),
      problems: problems.map((one) => oneLine(tell(one))),
      known: problems.length === 0,
    }
  } catch (error) {
    return { names: [], elsewhere: [], problems: [oneLine(tell(error))], known: false }
  }
}

/**
 * @param only this customer alone
 * @returns every source of the platform; a customer that is on one side only is a problem, and what there is of it is a
 *   source all the same
 */
export async function discover(run: Run, platform: Platform, only?: string): Promise<Fleet> {
  const server = platform.postgres
  const [listed, databases] = await Promise.all([
    listedCustomers(platform),
    server().then((there) => withPostgres(there, customerDatabases)),
  ])
  const open = databases.filter(({ closed }) => !closed).map(({ datname }) => datname)
  const closed = databases.filter((one) => one.closed)
  const nameOf = (database: string) =>
    listed.names.find((customer) => namesOf(customer).database === database) ??
    database.replace(/^customer_/, '').replaceAll('_', '-') // as it was called, so that --customer and restore find it
  const there = databases.map(({ datname }) => nameOf(datname))
  const customers = [
    ...new Set([...listed.names, ...(listed.known ? [] : there.filter((name) => hasSecrets(run, name)))]),
  ]
  if (only && !customers.includes(only) && !there.includes(only))
    throw new Failure({
      found: `there is no customer ${only}`,
      expected: `one of ${customers.join(', ') || 'none'}`,
      next: './runbooks/list-customers.mts',
    })
  const wanted = (customer: string) => only === undefined || customer === only
  const missing = listed.names.filter((customer) => wanted(customer) && !there.includes(customer))
  const unlisted = listed.known ? there.filter((name) => wanted(name) && !listed.names.includes(name)) : []
  const shut = closed
    .map(({ datname, comment }) => ({ customer: nameOf(datname), comment }))
    .filter(({ customer }) => wanted(customer))
  return {
    sources: [
      ...open
        .map((database) => databaseSource(run, server, nameOf(database), database))
        .filter(({ name }) => wanted(name.replace('database/', ''))),
      ...missing.map((customer) => missingSource(customer)),
      ...shut.map(({ customer, comment }) => missingSource(customer, { comment })),
      ...customers
        .filter((name) => wanted(name) && !listed.elsewhere.some(({ customer }) => customer === name))
        .map((customer) => secretsSource(platform, customer)),
      ...(only === undefined ? [stateSource(run)] : []),
      ...(only === undefined && hostedRepository(run.site) ? [giteaSource(platform.gitea.droplet)] : []),
    ],
    problems: [
      ...listed.problems,
      ...missing.map((customer) => `${customer} is in gitops/apps, and ${namesOf(customer).database} is not there`),
      ...shut.map(({ customer }) => `${namesOf(customer).database} takes no connections`),
      ...unlisted.map((name) => `${namesOf(name).database} is a database, and no customer in gitops/apps has it`),
    ],
    // What is in the values file is where the repository is.
    unsaved: listed.elsewhere
      .filter(({ customer, existingSecret }) => wanted(customer) && existingSecret)
      .map((one) => `${one.customer} has its secrets from ${secretsElsewhere(one)}, which is not backed up`),
  }
}

const hasSecrets = ({ site }: Run, customer: string) => existsSync(secretsFile(site.directory, customer))

type CustomerDatabase = { datname: string; closed: boolean; comment: string | null }

async function customerDatabases(client: pg.Client): Promise<CustomerDatabase[]> {
  const { rows } = await client.query<CustomerDatabase>(
    `SELECT datname, NOT datallowconn AS closed, shobj_description(oid, 'pg_database') AS comment
     FROM pg_database WHERE datname LIKE 'customer\\_%' ORDER BY 1`,
  )
  return rows
}

/** A part of all sources: number `index` (from 1) of `count`. */
export type Shard = { index: number; count: number }

/** @param text 'I/N'. Throws a misuse when it is no such part */
export function parseShard(text: string): Shard {
  const [, index, count] = /^([1-9]\d{0,3})\/([1-9]\d{0,3})$/.exec(text) ?? []
  if (index === undefined || Number(index) > Number(count))
    throw misuse({
      found: `--shard ${JSON.stringify(text)}`,
      expected: 'I/N, such as 2/4',
      next: 'choose I from 1 to N',
    })
  return { index: Number(index), count: Number(count) }
}

/** @returns whether the source is the shard's. Each is exactly one's, whatever other sources there are at the time */
export const isInShard = (name: string, { index, count }: Shard): boolean =>
  createHash('sha256').update(name).digest().readUInt32BE(0) % count === index - 1
