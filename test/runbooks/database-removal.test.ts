// What remove-customer does with a customer's database, against a real Postgres and a real bucket: its steps alone, since
// the runbook comes to them only on a cluster.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { converge, type Step } from '../../lib/converge.ts'
import { dataGoneStep, finalBackupStep, setAsideStep, shutStep } from '../../lib/database-removal.ts'
import type { RunEvent } from '../../lib/events.ts'
import { createExec } from '../../lib/exec.ts'
import { createPipe } from '../../lib/pipe.ts'
import { withPostgres } from '../../lib/postgres.ts'
import { roleGoneStep } from '../../lib/role-removal.ts'
import type { Run } from '../../lib/run.ts'
import { Secret } from '../../lib/secret.ts'
import { loadSite } from '../../lib/site.ts'
import { dumpOf, folders, manifest, nothingIsLeft, put, remove } from './bucket.ts'
import {
  administrator,
  clearFaults,
  must,
  type Operator,
  plant,
  run,
  spacesOf,
  sql,
  startOperator,
} from './operator.ts'

/** One rehearsal for all, and every test has customers of its own. */
const test = suite<{ operator: Operator }>('removing a database')
test.before(async (context) => {
  context.operator = await startOperator()
  await must(context.operator, 'bootstrap', '--yes')
})
test.after(({ operator }) => operator.down())

type Removed = { exit: number; events: RunEvent[]; changed: string[]; told: string }

/**
 * Converges the steps about the database.
 *
 * @param until the last of them, by its place: 1 is the first
 * @param lost Postgres answers no more once the final backup is there
 */
async function removeData(
  operator: Operator,
  customer: string,
  { until = 5, deleteData = false, plan = false, lost = false } = {},
): Promise<Removed> {
  const scratch = mkdtempSync(join(tmpdir(), 'lunarfront-removal-'))
  const { signal } = new AbortController()
  const children = { environment: operator.env, signal }
  const itsRun = {
    ...{ runbook: 'remove-customer', site: loadSite(operator.siteFile, operator.env), environment: operator.env },
    ...{ scratch, signal, exec: createExec(children), pipe: createPipe(children), plan, emit: () => {} },
    ...{ spaces: () => spacesOf(operator), locked: () => !plan },
  } as unknown as Run
  const server = () => administrator(operator)
  const later = async () => ({ ...(await server()), ...(lost ? { port: 1 } : {}) })
  const steps: Step[] = [
    shutStep(server, customer),
    finalBackupStep(itsRun, server, customer),
    setAsideStep(itsRun, later, customer),
    roleGoneStep(later, customer),
    ...(deleteData ? [dataGoneStep(itsRun, server, customer)] : []),
  ]
  const events: RunEvent[] = []
  try {
    const { exit } = await converge(steps.slice(0, until), {
      ...{ plan, signal, lock: async () => {}, confirm: async () => false },
      emit: (event) => events.push(event),
    })
    const changed = events.flatMap((event) =>
      event.event === 'step finished' && event.status === 'changed' ? [event.step] : [],
    )
    const told = events
      .flatMap((event) => (event.event === 'step finished' ? [event.failure?.found ?? ''] : []))
      .join('\n')
    return { exit, events, changed, told }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** @returns names of the databases that are the customer's or were */
const databasesOf = async (operator: Operator, customer: string): Promise<string[]> => {
  const like = `SELECT datname FROM pg_database WHERE datname LIKE '%${customer}%' ORDER BY 1`
  return (await sql<{ datname: string }>(operator, 'defaultdb', like)).map(({ datname }) => datname)
}

const roleIsThere = async (operator: Operator, customer: string) =>
  (await sql(operator, 'defaultdb', `SELECT FROM pg_roles WHERE rolname = 'customer_${customer}'`)).length === 1

/** Statements as the customer's role would run them. */
const asCustomer = (operator: Operator, customer: string, ...statements: string[]) =>
  sql(operator, `customer_${customer}`, `SET ROLE customer_${customer}`, ...statements)

/** A customer with rows, whose number tells which state of it a backup is of. */
async function customerWithRows(operator: Operator, customer: string, rows: number): Promise<void> {
  await must(operator, 'add-customer', customer)
  await asCustomer(
    operator,
    customer,
    'CREATE TABLE notes (id int)',
    `INSERT INTO notes SELECT generate_series(1, ${rows})`,
  )
}

const rowsIn = async (operator: Operator, folder: string) =>
  (await manifest(operator, folder)).database?.rows['public.notes']

/** @returns the statements and rows of pg_dump, but for those that tell whose things are, and who may use them */
const contentOf = async (operator: Operator, database: string): Promise<string> =>
  (await dumpOf(operator, database))
    .split('\n')
    .filter((line) => !/^(--|$|ALTER .* OWNER TO |GRANT |REVOKE |ALTER DEFAULT PRIVILEGES )/.test(line))
    .join('\n')

test('a database is shut, saved, set aside as it was, and its role goes; a second run changes nothing', async ({
  operator,
}) => {
  await must(operator, 'add-customer', 'whole')
  await asCustomer(operator, 'whole', readFileSync(new URL('everything.sql', import.meta.url), 'utf8'))
  const before = await contentOf(operator, 'customer_whole')
  assert.match(before, 'COPY public.people')
  const { exit, changed, told } = await removeData(operator, 'whole')
  assert.is(exit, 0, told)
  assert.is(changed.length, 4)
  const [kept = '', ...others] = await databasesOf(operator, 'whole')
  assert.match(kept, /^removed_whole_\d{8}t\d{6}z$/)
  assert.equal(others, [])
  assert.is(await contentOf(operator, kept), before)
  assert.not.ok(await roleIsThere(operator, 'whole'))
  const owners = await sql(
    operator,
    kept,
    `SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace`,
  )
  assert.equal(owners, [{ owner: 'doadmin' }])
  const [{ comment, open } = { comment: '', open: true }] = await sql<{ comment: string; open: boolean }>(
    operator,
    'defaultdb',
    `SELECT shobj_description(oid, 'pg_database') AS comment, has_database_privilege('public', oid, 'CONNECT') AS open
     FROM pg_database WHERE datname = '${kept}'`,
  )
  assert.is(
    comment,
    `customer whole is removed; its final backup is ${(await folders(operator, 'database/whole')).at(-1)}`,
  )
  assert.not.ok(open)
  const again = await removeData(operator, 'whole')
  assert.equal([again.exit, again.changed], [0, []])
})

test('--plan tells all of it, and writes nothing', async ({ operator }) => {
  await customerWithRows(operator, 'planned', 3)
  const { exit, events } = await removeData(operator, 'planned', { plan: true, deleteData: true })
  assert.is(exit, 2)
  const lines = events.flatMap((event) => (event.event === 'step finished' ? (event.drift ?? []) : []))
  for (const line of [
    'ALTER ROLE "customer_planned" NOLOGIN',
    'back it up when nobody writes to it any more',
    'rename customer_planned to removed_planned_TIME, and end its connections',
    'DROP ROLE "customer_planned"',
    'DROP DATABASE customer_planned, when its final backup is verified and it is set aside',
  ])
    assert.ok(lines.includes(line), `${line} is not in ${lines.join('\n')}`)
  assert.equal(await databasesOf(operator, 'planned'), ['customer_planned'])
  assert.equal(await folders(operator, 'database/planned'), [])
})

test('whoever is connected is put out first, so nothing is written that the final backup lacks', async ({
  operator,
}) => {
  await customerWithRows(operator, 'busy', 3)
  const file = JSON.parse(readFileSync(join(operator.kept, 'secrets', 'busy.json'), 'utf8'))
  const password = new Secret(file.database_password as string)
  const role = { ...(await administrator(operator)), user: 'customer_busy', password, database: 'customer_busy' }
  await withPostgres(role, async (client) => {
    await client.query('INSERT INTO notes VALUES (4)')
    const { exit, told } = await removeData(operator, 'busy', { until: 2 })
    assert.is(exit, 0, told)
    const late = await client.query('INSERT INTO notes VALUES (5)').catch((error: Error) => error.message)
    assert.match(String(late), /terminat|connection error/)
  })
  const refused = await withPostgres(role, async () => 'it was let in').catch((error: Error) => error.message)
  assert.match(refused, 'is not permitted to log in')
  const [folder = ''] = await folders(operator, 'database/busy')
  assert.is(await rowsIn(operator, folder), 4)
  assert.equal(await sql(operator, 'customer_busy', 'SELECT count(*)::int AS rows FROM notes'), [{ rows: 4 }])
  assert.is((await removeData(operator, 'busy')).exit, 0)
})

test('where the final backup fails nothing is set aside, and the next run finishes', async ({ operator }) => {
  await customerWithRows(operator, 'unsaved', 3)
  await plant(operator, { api: 'spaces', method: 'PUT', path: '/database/unsaved/' }, { status: 403 })
  const { exit, told } = await removeData(operator, 'unsaved', { deleteData: true }).finally(() =>
    clearFaults(operator),
  )
  assert.is(exit, 1)
  assert.ok(told)
  assert.equal(await databasesOf(operator, 'unsaved'), ['customer_unsaved'])
  assert.ok(await roleIsThere(operator, 'unsaved'))
  await nothingIsLeft(operator, 'the final backup failed')
  assert.is((await removeData(operator, 'unsaved')).exit, 0)
  assert.equal((await databasesOf(operator, 'unsaved')).length, 1)
})

test('where Postgres goes away nothing is lost, and the next run finishes', async ({ operator }) => {
  await customerWithRows(operator, 'away', 3)
  const { exit, told } = await removeData(operator, 'away', { lost: true, deleteData: true })
  assert.is(exit, 1)
  assert.match(told, 'does not answer')
  assert.equal(await databasesOf(operator, 'away'), ['customer_away'])
  assert.is((await removeData(operator, 'away', { deleteData: true })).exit, 0)
  assert.equal(await databasesOf(operator, 'away'), [])
  assert.is((await folders(operator, 'database/away')).length, 1)
})

test('where what was sent cannot be read again nothing is set aside', async ({ operator }) => {
  await customerWithRows(operator, 'unread', 3)
  await plant(operator, { api: 'spaces', method: 'GET', path: '/database/unread/' }, { status: 403 })
  const { exit } = await removeData(operator, 'unread', { deleteData: true }).finally(() => clearFaults(operator))
  assert.is(exit, 1)
  assert.equal(await databasesOf(operator, 'unread'), ['customer_unread'])
})

test('data goes with its verified backup, and not without', async ({ operator }) => {
  await customerWithRows(operator, 'gone', 3)
  assert.is((await removeData(operator, 'gone')).exit, 0)
  const [kept = ''] = await databasesOf(operator, 'gone')
  const [folder = ''] = await folders(operator, 'database/gone')
  const text = await manifest(operator, folder)
  await remove(operator, `${folder}/manifest.json`)
  const refused = await removeData(operator, 'gone', { deleteData: true })
  assert.is(refused.exit, 1)
  assert.match(refused.told, `${folder}, the final backup of ${kept}, is not there`)
  assert.equal(await databasesOf(operator, 'gone'), [kept])
  await put(operator, `${folder}/manifest.json`, JSON.stringify({ ...text, bytes: text.bytes + 1 }))
  assert.is((await removeData(operator, 'gone', { deleteData: true })).exit, 1)
  await sql(operator, 'defaultdb', `COMMENT ON DATABASE ${kept} IS 'somebody needs it'`)
  await put(operator, `${folder}/manifest.json`, JSON.stringify(text))
  const unnamed = await removeData(operator, 'gone', { deleteData: true })
  assert.match(unnamed.told, `${kept} names no final backup`)
  assert.equal(await databasesOf(operator, 'gone'), [kept])
  await sql(
    operator,
    'defaultdb',
    `COMMENT ON DATABASE ${kept} IS 'customer gone is removed; its final backup is ${folder}'`,
  )
  assert.is((await removeData(operator, 'gone', { deleteData: true })).exit, 0)
  assert.equal(await databasesOf(operator, 'gone'), [])
  assert.equal((await removeData(operator, 'gone', { deleteData: true })).changed, [])
})

test('one that was set aside and has no backup any more does not keep the others', async ({ operator }) => {
  await customerWithRows(operator, 'twice', 1)
  assert.is((await removeData(operator, 'twice')).exit, 0)
  const [lost = ''] = await folders(operator, 'database/twice')
  await remove(operator, `${lost}/manifest.json`)
  await customerWithRows(operator, 'twice', 2)
  assert.is((await removeData(operator, 'twice')).exit, 0)
  const [first = '', second = ''] = await databasesOf(operator, 'twice')
  const plan = await removeData(operator, 'twice', { deleteData: true, plan: true })
  const lines = plan.events.flatMap((event) => (event.event === 'step finished' ? (event.drift ?? []) : []))
  assert.match(
    lines.join('\n'),
    new RegExp(`DROP DATABASE ${second}, whose backup is .*\n.*backup of ${first}, is not there: it stays`),
  )
  const { exit, told } = await removeData(operator, 'twice', { deleteData: true })
  assert.is(exit, 1)
  assert.match(told, `${lost}, the final backup of ${first}, is not there`)
  assert.equal(await databasesOf(operator, 'twice'), [first])
})

test('a removal that was begun and undone: what was written since is in another final backup', async ({ operator }) => {
  await customerWithRows(operator, 'undone', 3)
  assert.is((await removeData(operator, 'undone', { until: 2 })).exit, 0)
  await must(operator, 'add-customer', 'undone')
  await asCustomer(operator, 'undone', 'INSERT INTO notes VALUES (4)')
  assert.is((await removeData(operator, 'undone', { deleteData: true })).exit, 0)
  const [first = '', last = '', ...more] = await folders(operator, 'database/undone')
  assert.equal(more, [])
  assert.is(await rowsIn(operator, first), 3)
  assert.is(await rowsIn(operator, last), 4)
})

test('one that was ended while it set the database aside, or a restore that was, is gone on with', async ({
  operator,
}) => {
  await customerWithRows(operator, 'closed', 3)
  const close = 'ALTER DATABASE customer_closed ALLOW_CONNECTIONS false'
  /** What a backup says meanwhile. */
  const said = async () => (await run(operator, 'backup', '--customer', 'closed', '--again')).stdout
  await sql(operator, 'defaultdb', close)
  assert.match(await said(), 'next: ./runbooks/restore.mts closed --swap, which goes on')
  assert.is((await removeData(operator, 'closed', { until: 2 })).exit, 0)
  await sql(operator, 'defaultdb', close)
  assert.match(await said(), 'next: ./runbooks/remove-customer.mts closed, which goes on')
  const { exit, told } = await removeData(operator, 'closed')
  assert.is(exit, 0, told)
  const [kept = ''] = await databasesOf(operator, 'closed')
  assert.equal(await sql(operator, kept, 'SELECT count(*)::int AS rows FROM notes'), [{ rows: 3 }])
})

test('what earlier restores have kept, and what was granted elsewhere, does not hold the role', async ({
  operator,
}) => {
  await customerWithRows(operator, 'tied', 3)
  await must(operator, 'backup', '--customer', 'tied')
  await must(operator, 'restore', 'tied', '--swap', '--yes')
  await customerWithRows(operator, 'host', 1)
  await asCustomer(operator, 'host', 'GRANT SELECT ON notes TO customer_tied')
  await sql(operator, 'defaultdb', 'GRANT CONNECT ON DATABASE customer_host TO customer_tied')
  // A drill that was killed while its database was dropped; and one that somebody has shut.
  const [left, shut] = ['drill_tied_20260101t000000z', 'shut_tied']
  for (const name of [left, shut]) {
    await sql(operator, 'defaultdb', `CREATE DATABASE ${name} OWNER customer_tied`)
    await sql(operator, name, 'SET ROLE customer_tied', 'CREATE TABLE notes AS SELECT generate_series(1, 3) AS id')
    await sql(operator, 'defaultdb', `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`)
  }
  const { exit, told } = await removeData(operator, 'tied')
  assert.is(exit, 0, told)
  assert.not.ok(await roleIsThere(operator, 'tied'))
  const [before = '', kept = '', ...others] = await databasesOf(operator, 'tied')
  assert.equal(others, [shut])
  const isOpen = `SELECT datallowconn FROM pg_database WHERE datname = '${shut}'`
  assert.equal(await sql(operator, 'defaultdb', isOpen), [{ datallowconn: false }])
  await sql(operator, 'defaultdb', `ALTER DATABASE ${shut} ALLOW_CONNECTIONS true`)
  for (const name of [before, kept, shut])
    assert.equal(await sql(operator, name, 'SELECT count(*)::int AS rows FROM notes'), [{ rows: 3 }], name)
  assert.match(before, /^before_tied_/)
  assert.equal(await asCustomer(operator, 'host', 'SELECT count(*)::int AS rows FROM notes'), [{ rows: 1 }])
})

test('of one that was half added goes what there is', async ({ operator }) => {
  await must(operator, 'add-customer', 'early', '--until', 'role customer_early accepts')
  const { exit, changed } = await removeData(operator, 'early', { deleteData: true })
  assert.is(exit, 0)
  assert.equal(changed, ['nobody writes to customer_early', 'role customer_early is gone'])
  const never = await removeData(operator, 'never', { deleteData: true })
  assert.equal([never.exit, never.changed], [0, []])
})

test('whoever is added again comes up empty, and a restore brings what was back', async ({ operator }) => {
  await customerWithRows(operator, 'back', 3)
  assert.is((await removeData(operator, 'back')).exit, 0)
  const [kept = ''] = await databasesOf(operator, 'back')
  await must(operator, 'add-customer', 'back', '--new-secrets')
  assert.equal(await sql(operator, 'customer_back', "SELECT FROM pg_class WHERE relname = 'notes'"), [])
  await must(operator, 'restore', 'back', '--swap', '--yes')
  assert.equal(await asCustomer(operator, 'back', 'SELECT count(*)::int AS rows FROM notes'), [{ rows: 3 }])
  assert.ok((await databasesOf(operator, 'back')).includes(kept))
  assert.match(await must(operator, 'backup', '--customer', 'back'), /changed/)
})

test.run()
