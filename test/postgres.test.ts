// Facts about a role or a database, and the statements between them and what they should be.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  type DatabaseFacts,
  databaseStatements,
  type RoleFacts,
  roleStatements,
  scramVerifier,
} from '../lib/postgres.ts'

const role: RoleFacts = { canLogin: true, powers: [], connectionLimit: 5, memberOf: [], administered: true }
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

test.run()
