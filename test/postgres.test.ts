// What a managed Postgres says of its connections.
import type pg from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { connectionFacts, type Server, withPostgres } from '../lib/postgres.ts'
import { Secret } from '../lib/secret.ts'
import { cloudFor, createDatabase, digitalocean, postgresVersion } from './rehearsal/cloud.ts'

const test = suite('postgres')
const subject = cloudFor(test)
let server: Server

test.before(async () => {
  const { id, connection } = await createDatabase(subject, {
    ...{ name: 'shared', engine: 'pg', version: await postgresVersion(subject) },
  })
  const { body } = await digitalocean(subject, 'GET', `/databases/${id}/ca`)
  const ca = Buffer.from(body.ca.certificate, 'base64').toString('utf8')
  server = { ...connection, password: new Secret(connection.password), ca }
})

/** As the administrator. @returns what the work returns, after the statements */
const after = <T>(statements: string[], work: (client: pg.Client) => Promise<T>): Promise<T> =>
  withPostgres(server, async (client) => {
    for (const statement of statements) await client.query(statement)
    return work(client)
  })

test('a role without a limit may take every connection', () =>
  after(['CREATE ROLE customer_bound CONNECTION LIMIT 2'], async (client) => {
    const { limit, promised } = await connectionFacts(client, 'customer_other')
    assert.is(limit, 22)
    await client.query('CREATE ROLE customer_boundless; CREATE ROLE customer_none CONNECTION LIMIT 0')
    assert.equal(await connectionFacts(client, 'customer_other'), { limit, promised: promised + limit })
    assert.equal(await connectionFacts(client, 'customer_boundless'), { limit, promised })
    assert.equal(await connectionFacts(client, 'customer_bound'), { limit, promised: promised + limit - 2 })
  }))

test('what Postgres 16 and later keep for others is not there for clients', () =>
  after(
    [
      // Older servers have no such setting, so this session gets a function that answers for it.
      'CREATE SCHEMA newer',
      `CREATE FUNCTION newer.current_setting(text, boolean) RETURNS text LANGUAGE sql
       AS $$ SELECT CASE $1 WHEN 'reserved_connections' THEN '4' END $$`,
      'SET search_path = newer, pg_catalog',
    ],
    async (client) => assert.is((await connectionFacts(client, 'customer_other')).limit, 18),
  ))

test.run()
