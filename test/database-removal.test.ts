// What a database's comment says of its final backup, what a database that was set aside is called, and how a role is shut out.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { DatabaseFacts, RoleFacts } from '../lib/customer-database.ts'
import { finalBackupIn, finalComment } from '../lib/database-comments.ts'
import { isKeptOf, keptName, shutStatements } from '../lib/database-removal.ts'

const FOLDER = 'database/acme/2026-11-24T03-00-00.123Z'
const AT = new Date('2026-11-24T03:00:00.123Z')

test('a comment names the final backup of its own customer, and no other comment does', () => {
  assert.is(finalBackupIn('acme', finalComment('acme', FOLDER)), FOLDER)
  assert.is(finalBackupIn('acme-two', finalComment('acme', FOLDER)), undefined)
  assert.is(finalBackupIn('acme', finalComment('acme', FOLDER.replace('acme', 'acme-two'))), undefined)
  for (const comment of [null, '', `restored from ${FOLDER}, and in the customer’s place`, FOLDER])
    assert.is(finalBackupIn('acme', comment), undefined)
})

test('what is set aside has the customer’s name and a time, within what Postgres takes', () => {
  assert.is(keptName('acme-two', AT), 'removed_acme_two_20261124t030000z')
  assert.ok(keptName('a'.repeat(30), AT).length <= 63)
})

test('what was set aside for one customer is not taken for another’s', () => {
  assert.ok(isKeptOf('acme', keptName('acme', AT)))
  assert.not(isKeptOf('acme', keptName('acme-two', AT)))
  assert.not(isKeptOf('acme', keptName('acme-20261124t030000z', AT)))
  assert.ok(isKeptOf('acme-20261124t030000z', keptName('acme-20261124t030000z', AT)))
  assert.not(isKeptOf('acme', 'removed_acme'))
  assert.not(isKeptOf('acme', 'customer_acme'))
})

const role: RoleFacts = {
  canLogin: true,
  powers: [],
  connectionLimit: 5,
  memberOf: [],
  members: [],
  administered: true,
}
const database: DatabaseFacts = { owner: 'customer_acme', encoding: 'UTF8', connectable: true, open: [], guests: [] }
const END =
  "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'customer_acme' OR (datname = 'customer_acme' AND usename <> CURRENT_USER AND usesysid NOT IN (SELECT oid FROM pg_roles WHERE rolsuper))"
const shut = (facts: Partial<RoleFacts>, connections = 0, saved = false, its: Partial<DatabaseFacts> = {}) =>
  shutStatements('customer_acme', { ...role, ...facts }, { ...database, ...its }, { connections, saved })

test('a role is shut out before its connections end, and one that is shut out is left alone', () => {
  assert.equal(shut({}), ['ALTER ROLE "customer_acme" NOLOGIN', END])
  assert.equal(shut({ canLogin: false }, 2), [END])
  assert.equal(shut({ canLogin: false }), [])
  assert.equal(shut({ canLogin: false }, 0, true), [])
  assert.equal(shutStatements('customer_acme', undefined, database, { connections: 0, saved: false }), [])
})

test('a backup from before the role could log in again is no longer the final one', () => {
  assert.equal(shut({}, 0, true), [
    'COMMENT ON DATABASE "customer_acme" IS NULL',
    'ALTER ROLE "customer_acme" NOLOGIN',
    END,
  ])
})

test('a role that the administrator may not act for is made so first: nothing of it could be dumped', () => {
  assert.equal(shut({ administered: false })[0], 'GRANT "customer_acme" TO CURRENT_USER')
})

test('whom somebody let in by hand is shut out as well, and a closed database is opened for the administrator', () => {
  const its = { connectable: false, open: ['CONNECT'], guests: ['reader'], encoding: 'LATIN1' }
  assert.equal(shut({ canLogin: false, members: ['writer'] }, 0, false, its), [
    'REVOKE "customer_acme" FROM writer',
    'REVOKE ALL ON DATABASE "customer_acme" FROM PUBLIC',
    'REVOKE ALL ON DATABASE "customer_acme" FROM reader',
    'ALTER DATABASE "customer_acme" ALLOW_CONNECTIONS true',
  ])
})

test.run()
