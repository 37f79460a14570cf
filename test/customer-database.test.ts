// Facts about a role or a database, and the statements between them and what they should be; then the facts themselves,
// of a managed Postgres.
import pg from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  acceptsPassword,
  type DatabaseFacts,
  databaseFacts,
  databaseStatements,
  openDatabases,
  passwordWasRight,
  type RoleFacts,
  roleFacts,
  roleStatements,
  scramVerifier,
} from '../lib/customer-database.ts'
import { type Server, withPostgres } from '../lib/postgres.ts'
import { Secret } from '../lib/secret.ts'
import { cloudFor, createDatabase, digitalocean, postgresVersion } from './rehearsal/cloud.ts'

const test = suite('a customer’s role and database')
const role: RoleFacts = {
  canLogin: true,
  powers: [],
  connectionLimit: 5,
  memberOf: [],
  members: [],
  administered: true,
}
const database: DatabaseFacts = { owner: 'customer_acme', encoding: 'UTF8', connectable: true, open: [], guests: [] }

test('a role that is right needs nothing; one that is missing is made without any power', () => {
  assert.equal(roleStatements('customer_acme', 5, role), [])
  assert.equal(roleStatements('customer_acme', 5, undefined), [
    'CREATE ROLE "customer_acme" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5',
    'GRANT "customer_acme" TO CURRENT_USER',
  ])
})

for (const [what, facts, statements] of [
  ['cannot log in', { canLogin: false }, ['ALTER ROLE "customer_acme" LOGIN']],
  ['has powers', { powers: ['CREATEDB', 'CREATEROLE'] }, ['ALTER ROLE "customer_acme" NOCREATEDB NOCREATEROLE']],
  ['has another limit', { connectionLimit: -1 }, ['ALTER ROLE "customer_acme" CONNECTION LIMIT 5']],
  [
    'is a member of another',
    { memberOf: ['customer_foo', '"odd name"'] },
    ['REVOKE customer_foo FROM "customer_acme"', 'REVOKE "odd name" FROM "customer_acme"'],
  ],
  [
    'others are a member of',
    { members: ['customer_foo', '"odd name"'] },
    ['REVOKE "customer_acme" FROM customer_foo', 'REVOKE "customer_acme" FROM "odd name"'],
  ],
  ['is not administered', { administered: false }, ['GRANT "customer_acme" TO CURRENT_USER']],
] as const)
  test(`a role that ${what} is brought back`, () => {
    assert.equal(
      roleStatements('customer_acme', 5, { ...role, ...facts } as RoleFacts),
      statements as unknown as string[],
    )
  })

test('a database is made so that nobody gets in before PUBLIC is shut out', () => {
  assert.equal(databaseStatements('customer_acme', 'customer_acme', database), [])
  assert.equal(databaseStatements('customer_acme', 'customer_acme', undefined), [
    `CREATE DATABASE "customer_acme" OWNER "customer_acme" TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false`,
    'REVOKE ALL ON DATABASE "customer_acme" FROM PUBLIC',
    'ALTER DATABASE "customer_acme" ALLOW_CONNECTIONS true',
  ])
})

for (const [what, facts, statements] of [
  ['has another owner', { owner: 'doadmin' }, ['ALTER DATABASE "customer_acme" OWNER TO "customer_acme"']],
  ['is open to all', { open: ['CONNECT', 'TEMPORARY'] }, ['REVOKE ALL ON DATABASE "customer_acme" FROM PUBLIC']],
  ['has a guest', { guests: ['customer_foo'] }, ['REVOKE ALL ON DATABASE "customer_acme" FROM customer_foo']],
  ['was left closed', { connectable: false }, ['ALTER DATABASE "customer_acme" ALLOW_CONNECTIONS true']],
  [
    'was left closed and open to all',
    { connectable: false, open: ['CONNECT'] },
    ['REVOKE ALL ON DATABASE "customer_acme" FROM PUBLIC', 'ALTER DATABASE "customer_acme" ALLOW_CONNECTIONS true'],
  ],
] as const)
  test(`a database that ${what} is brought back`, () => {
    const found = { ...database, ...facts } as DatabaseFacts
    assert.equal(databaseStatements('customer_acme', 'customer_acme', found), statements as unknown as string[])
  })

test('another encoding cannot be mended, and says so', () => {
  assert.throws(
    () => databaseStatements('customer_acme', 'customer_acme', { ...database, encoding: 'SQL_ASCII' }),
    /SQL_ASCII/,
  )
})

test('a password’s verifier is the one of RFC 7677', () => {
  // The example of RFC 7677 §3: user "user", password "pencil", this salt, 4096 rounds; its server signature follows
  // from this server key.
  const verifier = scramVerifier('pencil', Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'))
  assert.is(
    verifier,
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  )
})

for (const [right, code, message] of [
  [false, '28P01', 'password authentication failed for user "customer_acme"'],
  [true, '28000', 'role "customer_acme" is not permitted to log in'],
  [true, '3D000', 'database "customer_acme" does not exist'],
  [true, '42501', 'permission denied for database "customer_acme"'],
  [true, '55000', 'database "customer_acme" is not currently accepting connections'],
  [true, '53300', 'too many connections for role "customer_acme"'],
  [true, '53300', 'too many connections for database "customer_acme"'],
  [true, '53300', 'remaining connection slots are reserved for non-replication superuser connections'],
  [true, '53300', 'remaining connection slots are reserved for roles with the SUPERUSER attribute'],
  [undefined, '53300', 'sorry, too many clients already'],
  [undefined, '53300', 'tut mir leid, schon zu viele Verbindungen'],
  [undefined, '28000', 'no pg_hba.conf entry for host "192.0.2.1", user "customer_acme", database "x", SSL encryption'],
  [undefined, '28000', 'pg_hba.conf rejects connection for host "192.0.2.1", user "customer_acme", database "x"'],
  [undefined, '57P03', 'the database system is starting up'],
  [undefined, undefined, 'read ECONNRESET'],
] as const)
  test(`“${message}” says ${right ?? 'nothing'} of a password`, () => {
    assert.is(passwordWasRight(code, message), right)
  })

// --- a managed Postgres, asked as its administrator ------------------------------------

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

const made = (name: string) => [
  ...roleStatements(name, 2, undefined),
  `ALTER ROLE ${name} PASSWORD 'password of ${name}'`,
  ...databaseStatements(name, name, undefined),
]

test('what the statements make has nothing that is missing or too much', () =>
  after(made('customer_new'), async (client) => {
    assert.equal(roleStatements('customer_new', 2, await roleFacts(client, 'customer_new')), [])
    assert.equal(databaseStatements('customer_new', 'customer_new', await databaseFacts(client, 'customer_new')), [])
  }))

test('memberships are found both ways, the administrator’s own left out, and go', () =>
  after(
    [
      ...made('customer_one'),
      ...['customer_two', '"Odd one"', 'customer_three'].map((name) => `CREATE ROLE ${name}`),
      'GRANT customer_one TO customer_two, "Odd one"',
      'GRANT customer_three TO customer_one',
    ],
    async (client) => {
      const facts = await roleFacts(client, 'customer_one')
      assert.equal(facts?.members, ['"Odd one"', 'customer_two'])
      for (const statement of roleStatements('customer_one', 2, facts)) await client.query(statement)
      assert.equal(await roleFacts(client, 'customer_one'), { ...role, connectionLimit: 2 })
    },
  ))

test('whoever has any right to a database by name is its guest', () =>
  after([...made('customer_host'), 'CREATE ROLE visitor'], async (client) => {
    await client.query('GRANT TEMPORARY ON DATABASE customer_host TO visitor')
    await client.query('GRANT CONNECT ON DATABASE customer_host TO CURRENT_USER')
    const facts = await databaseFacts(client, 'customer_host')
    assert.equal(facts?.guests, ['visitor'])
    for (const statement of databaseStatements('customer_host', 'customer_host', facts)) await client.query(statement)
    assert.equal((await databaseFacts(client, 'customer_host'))?.guests, [])
  }))

test('of the databases that are open to all, those that can be closed are told, and can be closed', () =>
  after([...made('customer_open'), ...made('customer_own'), 'CREATE DATABASE by_hand'], async (client) => {
    for (const name of ['customer_open', 'customer_own'])
      await client.query(`GRANT CONNECT ON DATABASE ${name} TO PUBLIC`)
    const open = await openDatabases(client, 'customer_own')
    assert.equal(open, ['by_hand', 'customer_open', 'defaultdb'])
    for (const name of open) await client.query(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`)
    assert.equal(await openDatabases(client, 'customer_own'), [])
    // DigitalOcean's own stay as they are: a REVOKE is answered with a warning, and changes nothing.
    await client.query('REVOKE ALL ON DATABASE _dodb, template1 FROM PUBLIC')
    const { rows } = await client.query(
      "SELECT datname FROM pg_database WHERE datname ~ '^(_dodb|template1)$' AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1",
    )
    assert.equal(rows, [{ datname: '_dodb' }, { datname: 'template1' }])
  }))

test('a password is right or wrong also where the login fails for another reason, or the answer is not known', async () => {
  const name = 'customer_asked'
  await after(made(name), async () => {})
  const accepts = (password: string) => acceptsPassword(server, name, new Secret(password), name)
  const right = `password of ${name}`
  const answers = async () => [await accepts(right), await accepts('wrong')]
  assert.equal(await answers(), [true, false])
  assert.is(await acceptsPassword(server, 'customer_missing', new Secret(right), name), false)
  assert.is(await acceptsPassword(server, name, new Secret(right), 'missing'), true)
  assert.is(await acceptsPassword(server, name, new Secret(right), 'customer_new'), true)
  await after([`ALTER ROLE ${name} NOLOGIN`], async () => assert.equal(await answers(), [true, false]))
  await after([`ALTER ROLE ${name} LOGIN CONNECTION LIMIT 0`], async () => {
    assert.equal(await answers(), [true, false])
  })
  try {
    await acceptsPassword(server, 'postgres', new Secret(right), name)
    assert.unreachable('pg_hba.conf rejects postgres')
  } catch (error) {
    assert.match((error as Error).message, /refused postgres before it looked at the password: pg_hba.conf rejects/)
  }

  // Clients that never tell their password hold a slot each, until nobody gets as far as telling one.
  const { host, port, user, database, ca } = server
  const silent: pg.Client[] = []
  try {
    for (let found: boolean | string = false; found !== 'told'; ) {
      assert.is(found, false)
      assert.ok(silent.length < 200, 'the slots were never taken')
      const client = new pg.Client({ host, port, user, database, ssl: { ca }, password: () => new Promise(() => {}) })
      client.on('error', () => {})
      client.connect().catch(() => {}) // ends with the connection
      silent.push(client)
      found = await accepts('wrong').catch(({ message }: Error) => {
        assert.match(
          message,
          /refused customer_asked before it looked at the password: sorry, too many clients already/,
        )
        return 'told'
      })
    }
  } finally {
    await Promise.all(silent.map((client) => client.end()))
  }
})

test.run()
