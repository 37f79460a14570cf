// restore and drill against a rehearsed cloud: what was backed up comes back equal, and whatever is damaged, missing or
// encrypted for somebody else is refused, leaving neither a database nor a word that it went well.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withPostgres } from '../../lib/postgres.ts'
import { dropDatabase } from '../../lib/restore.ts'
import { Secret } from '../../lib/secret.ts'
import {
  content,
  copyTo,
  dumpOf,
  eventually,
  failureOf,
  folders,
  HOUR,
  keys,
  listByHand,
  manifest,
  pidsOf,
  programsOf,
  put,
  remove,
  siteWith,
  tablesOf,
} from './bucket.ts'
import {
  administrator,
  clearFaults,
  faultsHit,
  must,
  type Operator,
  plant,
  run,
  sql,
  start,
  startOperator,
  statusesOf,
} from './operator.ts'

/**
 * One rehearsal for all: acme has everything, zenith a table that tests change and put back. Every test begins with the
 * same backups, one of each, and no database beside the customers'.
 */
const test = suite<{ operator: Operator; backups: Map<string, Buffer> }>('restore')
test.before(async (context) => {
  const operator = await startOperator()
  context.operator = operator
  await must(operator, 'bootstrap', '--yes')
  for (const customer of ['acme', 'zenith']) await must(operator, 'add-customer', customer)
  const everything = readFileSync(new URL('everything.sql', import.meta.url), 'utf8')
  await sql(operator, 'customer_acme', 'SET ROLE customer_acme', everything)
  await sql(
    operator,
    'customer_acme',
    'CREATE TABLE of_the_administrator AS SELECT 1 AS one',
    'CREATE TABLE big (bytes bytea)',
    'ALTER TABLE big ALTER bytes SET STORAGE EXTERNAL',
    'INSERT INTO big SELECT gen_random_bytes(1024) FROM generate_series(1, 16384)',
  )
  await sql(operator, 'customer_acme', ...SETTINGS)
  await fillZenith(operator)
  await must(operator, 'backup')
  context.backups = new Map()
  for (const key of await keys(operator)) context.backups.set(key, await content(operator, key))
})
test.before.each(async ({ operator, backups }) => {
  const there = await keys(operator)
  for (const key of there) if (!backups.has(key)) await remove(operator, key)
  for (const [key, body] of backups)
    if (!there.includes(key) || !(await content(operator, key)).equals(body)) await put(operator, key, body)
  const server = await administrator(operator)
  for (const name of await others(operator)) await withPostgres(server, (client) => dropDatabase(client, name))
})
test.after.each(({ operator }) => clearFaults(operator))
test.after(({ operator }) => operator.down())

/** No dump has these. A list, a value that holds '=', one of the customer's own, and one of its role alone. */
const SETTINGS = [
  `ALTER DATABASE customer_acme SET search_path = "$user", 'Odd Schema', public`,
  `ALTER DATABASE customer_acme SET timezone = 'Europe/Berlin'`,
  `ALTER DATABASE customer_acme SET application_name = 'a = b, c = "d"'`,
  `ALTER ROLE customer_acme IN DATABASE customer_acme SET statement_timeout = '7s'`,
]

const settingsIn = async (operator: Operator, database: string) =>
  (
    await sql<{ setting: string }>(
      operator,
      'defaultdb',
      `SELECT coalesce(setrole::regrole::text, '') || ' ' || unnest(setconfig) AS setting
       FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
       WHERE datname = '${database}' ORDER BY 1`,
    )
  ).map(({ setting }) => setting)

test('what was set for the database alone comes back with it', async ({ operator }) => {
  const set = await settingsIn(operator, 'customer_acme')
  assert.is(set.length, SETTINGS.length)
  await must(operator, 'restore', 'acme', '--into', 'with_settings')
  assert.equal(await settingsIn(operator, 'with_settings'), set)
})

/** Three rows, the same whatever was there. */
const fillZenith = (operator: Operator) =>
  sql(
    operator,
    'customer_zenith',
    'SET ROLE customer_zenith',
    'DROP TABLE IF EXISTS words',
    "CREATE TABLE words AS SELECT unnest(ARRAY['one', 'two', 'three']) AS word",
  )

/** @returns the databases that restores, drills and swaps have made */
const others = async (operator: Operator): Promise<string[]> => {
  const rows = await sql<{ datname: string }>(
    operator,
    'defaultdb',
    `SELECT datname FROM pg_database WHERE datname ~ '^(restored|drill|before|mine)_' ORDER BY 1`,
  )
  return rows.map(({ datname }) => datname)
}

const newest = async (operator: Operator, source: string): Promise<string> =>
  (await folders(operator, source)).at(-1) ?? ''

/** @returns the name that a restore of the newest backup gives its database */
async function scratchOf(operator: Operator, customer: string): Promise<string> {
  const stamp = (await newest(operator, `database/${customer}`)).split('/').at(-1) ?? ''
  return `restored_${customer}_${stamp.slice(0, 19).replaceAll('-', '').toLowerCase()}z`
}

const wordsIn = async (operator: Operator, database: string): Promise<string[]> =>
  (await sql<{ word: string }>(operator, database, 'SELECT word FROM words ORDER BY 1')).map(({ word }) => word)

/** Changes an object's content. */
const damage = async (operator: Operator, key: string, change: (body: Buffer) => Buffer) =>
  put(operator, key, change(await content(operator, key)))

const flipped = (where: (length: number) => number) => (body: Buffer) => {
  const changed = Buffer.from(body)
  const index = where(body.length)
  changed[index] = changed[index]! ^ 1
  return changed
}

// --- into a database of its own --------------------------------------------------------

test('a database with everything in it comes back equal, and a second run changes nothing', async ({ operator }) => {
  const first = await must(operator, 'restore', 'acme')
  assert.match(first, '2 steps: 1 ok, 1 changed')
  const scratch = await scratchOf(operator, 'acme')
  assert.match(first, `next: look at ${scratch}`)
  assert.equal(await others(operator), [scratch])
  const [before, after] = [await dumpOf(operator, 'customer_acme'), await dumpOf(operator, scratch)]
  assert.ok(before.length > 2 ** 20 && before.includes('a large one') && before.includes("'Other Words'") === false)
  assert.ok(before === after, firstDifference(before, after))
  assert.match(await must(operator, 'restore', 'acme'), '2 steps: 2 ok, 0 changed')
  assert.equal(await others(operator), [scratch])
})

function firstDifference(one: string, other: string): string {
  const [lines, others] = [one.split('\n'), other.split('\n')]
  const index = lines.findIndex((line, at) => line !== others[at])
  return `line ${index + 1}: ${lines[index]?.slice(0, 200)}\nbut: ${others[index]?.slice(0, 200)}`
}

test('what is restored is closed to everybody but its customer', async ({ operator }) => {
  await must(operator, 'restore', 'zenith')
  const scratch = await scratchOf(operator, 'zenith')
  const [row] = await sql(
    operator,
    'defaultdb',
    `SELECT has_database_privilege('public', oid, 'CONNECT') AS connect, has_database_privilege('public', oid, 'TEMP') AS temp,
       datdba::regrole::text AS owner FROM pg_database WHERE datname = '${scratch}'`,
  )
  assert.equal(row, { connect: false, temp: false, owner: 'customer_zenith' })
})

test('--plan restores nothing', async ({ operator }) => {
  const { code, stdout } = await run(operator, 'restore', 'zenith', '--swap', '--plan')
  assert.is(code, 2)
  assert.match(stdout, 'rename customer_zenith to before_zenith_')
  assert.equal(await others(operator), [])
})

test('--at takes the newest of that time or before', async ({ operator }) => {
  const recent = await newest(operator, 'database/zenith')
  await sql(operator, 'customer_zenith', "INSERT INTO words VALUES ('four')")
  await must(operator, 'backup', '--customer', 'zenith', '--again')
  await fillZenith(operator)
  const four = await newest(operator, 'database/zenith')
  assert.is.not(four, recent)
  await copyTo(operator, four, new Date('2025-06-02T12:00:00.000Z'))
  await copyTo(operator, recent, new Date('2025-06-01T12:00:00.000Z'))
  const cases: [string, string[]][] = [
    ['2025-06-01T12:00:00Z', ['one', 'three', 'two']],
    ['2025-06-02T11:59:59Z', ['one', 'three', 'two']],
    ['2025-06-02T12:00:00Z', ['four', 'one', 'three', 'two']],
    ['2025-06-01', ['one', 'three', 'two']],
    ['2025-06-02', ['four', 'one', 'three', 'two']],
    ['2025-06-02T14:00+02:00', ['four', 'one', 'three', 'two']],
  ]
  for (const [at, words] of cases) {
    await sql(operator, 'defaultdb', 'DROP DATABASE IF EXISTS mine_at')
    await must(operator, 'restore', 'zenith', '--at', at, '--into', 'mine_at')
    assert.equal(await wordsIn(operator, 'mine_at'), words, at)
  }
  const early = await run(operator, 'restore', 'zenith', '--at', '2025-05-31')
  assert.is(early.code, 1)
  assert.match(early.stderr, 'there is no verified backup of zenith from 2025-05-31')
})

test('a newer one that was never finished is not taken', async ({ operator }) => {
  const folder = `database/zenith/${new Date(Date.now() + HOUR).toISOString().replaceAll(':', '-')}`
  await put(operator, `${folder}/dump.zst.age`, 'half')
  const scratch = await scratchOf(operator, 'zenith')
  await must(operator, 'restore', 'zenith', '--into', 'mine_whole')
  assert.equal(await wordsIn(operator, 'mine_whole'), ['one', 'three', 'two'])
  assert.ok(scratch)
})

test('--into makes a new database, and never takes one that is there', async ({ operator }) => {
  await must(operator, 'restore', 'zenith', '--into', 'mine_own')
  assert.match(await must(operator, 'restore', 'zenith', '--into', 'mine_own'), ' 0 changed')
  await sql(operator, 'defaultdb', 'CREATE DATABASE mine_taken')
  await sql(operator, 'mine_taken', 'CREATE TABLE kept AS SELECT 1 AS one')
  const { code, stdout } = await run(operator, 'restore', 'zenith', '--into', 'mine_taken')
  assert.is(code, 1)
  assert.match(stdout, 'the database mine_taken is there already, and is not that backup')
  await sql(operator, 'defaultdb', 'ALTER DATABASE mine_taken ALLOW_CONNECTIONS false')
  assert.is((await run(operator, 'restore', 'zenith', '--into', 'mine_taken')).code, 1, 'nor one that is closed')
  await sql(operator, 'defaultdb', 'ALTER DATABASE mine_taken ALLOW_CONNECTIONS true')
  assert.is((await sql(operator, 'mine_taken', 'SELECT * FROM kept')).length, 1)
  for (const name of ['customer_zenith', 'defaultdb', 'gitea', 'template1', 'pg_x', 'Mine', 'a-b', 'a b', '"x', ''])
    assert.is((await run(operator, 'restore', 'zenith', '--into', name)).code, 64, name)
  // What another restore has put there is not written over either.
  const other = await run(operator, 'restore', 'acme', '--into', 'mine_own')
  assert.is(other.code, 1)
  assert.equal(await wordsIn(operator, 'mine_own'), ['one', 'three', 'two'])
})

test('secrets that are lost come back with it', async ({ operator }) => {
  const file = join(operator.kept, 'secrets', 'zenith.json')
  const before = readFileSync(file, 'utf8')
  rmSync(file)
  assert.match(await must(operator, 'restore', 'zenith'), '2 changed')
  assert.is(readFileSync(file, 'utf8'), before)
  assert.is(statSync(file).mode & 0o777, 0o600)
})

test('a customer whose role and database are lost: what it had comes back when it is added again', async ({
  operator,
}) => {
  await sql(
    operator,
    'defaultdb',
    'DROP DATABASE customer_zenith WITH (FORCE)',
    'REASSIGN OWNED BY customer_zenith TO CURRENT_USER',
    'DROP OWNED BY customer_zenith',
    'DROP ROLE customer_zenith',
  )
  // Without a role to own it, it can be looked at all the same.
  await must(operator, 'restore', 'zenith')
  const [orphan = ''] = await others(operator)
  assert.equal(await wordsIn(operator, orphan), ['one', 'three', 'two'])
  assert.match(await must(operator, 'restore', 'zenith'), ' 0 changed')
  const { code, stdout } = await run(operator, 'restore', 'zenith', '--swap', '--yes')
  assert.is(code, 1)
  assert.match(stdout, 'there is no role customer_zenith')
  assert.match(stdout, 'next: ./runbooks/add-customer.mts zenith, and then this again')
  await must(operator, 'add-customer', 'zenith')
  await must(operator, 'restore', 'zenith', '--swap', '--yes')
  assert.equal(await asZenith(operator), ['one', 'three', 'two'])
})

// --- what must be refused --------------------------------------------------------------

/** The restore fails, says why, and leaves no database. */
async function refused(operator: Operator, customer: string, why: RegExp | string, ...args: string[]): Promise<void> {
  const started = performance.now()
  const { code, stdout, stderr } = await run(operator, 'restore', customer, ...args)
  assert.is(code, 1, stdout)
  assert.match(stdout + stderr, why, stdout + stderr)
  assert.equal(await others(operator), [], 'a database was left')
  assert.equal(programsOf(operator), [])
  assert.ok(performance.now() - started < 15_000, 'it took too long to say so')
}

test('the wrong key: told so, and no database is left', async ({ operator }) => {
  const wrong = join(operator.directory, 'wrong-key.txt')
  rmSync(wrong, { force: true })
  execFileSync('age-keygen', ['-o', wrong], { stdio: 'pipe' })
  for (const customer of ['acme', 'zenith'])
    await refused(
      operator,
      customer,
      /is encrypted for age1\w+, and \S+wrong-key\.txt is the key of age1/,
      '--identity',
      wrong,
    )
  await refused(operator, 'zenith', 'there is no /nowhere/key', '--identity', '/nowhere/key')
  writeFileSync(wrong, 'not a key\n')
  await refused(operator, 'zenith', /age exited 1/, '--identity', wrong)
})

test('one of several recipients is enough', async ({ operator }) => {
  const second = join(operator.directory, 'second-key.txt')
  rmSync(second, { force: true })
  execFileSync('age-keygen', ['-o', second], { stdio: 'pipe' })
  const key = execFileSync('age-keygen', ['-y', second], { encoding: 'utf8' }).trim()
  const site = siteWith(operator, (it) =>
    Object.assign(it.backups, { recipients: [...(it.backups.recipients as string[]), key] }),
  )
  await must(operator, 'backup', '--customer', 'zenith', '--again', ...site)
  assert.is((await manifest(operator, await newest(operator, 'database/zenith'))).recipients.length, 2)
  await must(operator, 'restore', 'zenith', '--identity', second, '--into', 'mine_second')
  await must(operator, 'restore', 'zenith', '--into', 'mine_first')
  assert.equal(await wordsIn(operator, 'mine_second'), await wordsIn(operator, 'mine_first'))
})

test('a byte that was flipped, wherever it is: refused', async ({ operator }) => {
  for (const customer of ['acme', 'zenith']) {
    const key = `${await newest(operator, `database/${customer}`)}/dump.zst.age`
    const whole = await content(operator, key)
    for (const where of [() => 30, (length: number) => length >> 1, (length: number) => length - 1]) {
      await put(operator, key, flipped(where)(whole))
      await refused(operator, customer, /age exited 1|as its manifest says/)
    }
  }
})

test('an object that is cut off, or longer, or empty: refused', async ({ operator }) => {
  for (const customer of ['acme', 'zenith']) {
    const key = `${await newest(operator, `database/${customer}`)}/dump.zst.age`
    const whole = await content(operator, key)
    for (const part of [
      whole.subarray(0, whole.length >> 1),
      whole.subarray(0, whole.length - 1),
      Buffer.concat([whole, Buffer.from('x')]),
    ]) {
      await put(operator, key, part)
      await refused(operator, customer, /age exited 1|as its manifest says/)
    }
    await put(operator, key, '')
    await refused(operator, customer, 'there is no verified backup')
  }
})

test('another backup in its place, whole, for the same key, with as many rows: refused', async ({ operator }) => {
  const own = await newest(operator, 'database/zenith')
  await sql(operator, 'customer_zenith', "UPDATE words SET word = 'eins' WHERE word = 'one'")
  await must(operator, 'backup', '--customer', 'zenith', '--again')
  await fillZenith(operator)
  const other = await newest(operator, 'database/zenith')
  await put(operator, `${own}/dump.zst.age`, await content(operator, `${other}/dump.zst.age`))
  await remove(operator, `${other}/`)
  await refused(operator, 'zenith', 'as its manifest says: it was changed since')
})

test('a manifest that is missing, damaged or about something else: refused', async ({ operator }) => {
  const folder = await newest(operator, 'database/zenith')
  const key = `${folder}/manifest.json`
  const told = await manifest(operator, folder)
  await remove(operator, key)
  await refused(operator, 'zenith', 'there is no verified backup of zenith')
  const half = JSON.stringify(told).slice(0, 200)
  for (const text of ['', half, '{}', 'null', JSON.stringify({ ...told, format: 2 })]) {
    await put(operator, key, text)
    await refused(operator, 'zenith', `${key} is damaged`)
  }
  await put(operator, key, JSON.stringify({ ...told, source: 'database/acme' }))
  await refused(operator, 'zenith', `${key} is about another backup`)
  const acme = await manifest(operator, await newest(operator, 'database/acme'))
  await put(operator, key, JSON.stringify({ ...told, key: acme.key, sha256: acme.sha256, bytes: acme.bytes }))
  await refused(operator, 'zenith', `${key} is about another backup`)
})

test('rows that are not as many as the backup counted: refused, each table by name', async ({ operator }) => {
  const folder = await newest(operator, 'database/zenith')
  const told = await manifest(operator, folder)
  const claim = (database: object) =>
    put(operator, `${folder}/manifest.json`, JSON.stringify({ ...told, database: { ...told.database, ...database } }))
  await claim({ rows: { 'public.words': 4, 'public.gone': 1 } })
  await refused(
    operator,
    'zenith',
    'public.words has 3 rows and should have 4; public.gone has no rows and should have 1',
  )
  await claim({ rows: {} })
  await refused(operator, 'zenith', 'public.words has 3 rows and should have none')
  await claim({ large_objects: 1 })
  await refused(operator, 'zenith', '0 large objects, and should have 1')
})

for (const [name, consequence] of Object.entries({
  'answers 500': { status: 500 },
  'answers 503': { status: 503 },
  'hangs up': { drop: true },
  'breaks off in the middle': { truncate: true },
}))
  test(`Spaces ${name} while the object is read: refused, and the next run restores it`, async ({ operator }) => {
    await plant(operator, { api: 'spaces', method: 'GET', path: 'dump\\.zst' }, consequence)
    await refused(operator, 'acme', /./)
    await clearFaults(operator)
    await must(operator, 'restore', 'acme')
  })

/** Waits until pg_restore is at work. */
const restoring = (operator: Operator) =>
  eventually('pg_restore is at work', async () => {
    const rows = await sql(operator, 'defaultdb', "SELECT FROM pg_stat_activity WHERE application_name = 'pg_restore'")
    return rows.length > 0
  })

test('pg_restore that reads nothing for longer than a connection may be silent: the restore ends well', async ({
  operator,
}) => {
  // More than lies in pipes and sockets between the two.
  await sql(operator, 'customer_zenith', 'SET ROLE customer_zenith', ...tablesOf(80))
  await must(operator, 'backup', '--customer', 'zenith', '--again')
  await sql(operator, 'customer_zenith', 'DROP TABLE files, notes', 'DROP EXTENSION pgcrypto')
  const started = start(operator, 'restore', 'zenith')
  await restoring(operator) // it is connected, which has a limit of its own
  const pids = pidsOf(operator, 'pg_restore')
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  assert.ok(pids.length > 0)
  await sleep(40_000) // the very time that it is about
  for (const pid of pids) process.kill(pid, 'SIGCONT')
  const { code, stdout } = await started.ended
  assert.is(code, 0, stdout)
})

// --- in the customer’s place -----------------------------------------------------------

/** @returns what zenith's application reads, with its own role and password */
async function asZenith(operator: Operator): Promise<string[]> {
  const { database_password } = JSON.parse(readFileSync(join(operator.kept, 'secrets', 'zenith.json'), 'utf8'))
  const server = {
    ...(await administrator(operator)),
    user: 'customer_zenith',
    password: new Secret(database_password),
    database: 'customer_zenith',
  }
  return withPostgres(server, async (client) => {
    const { rows } = await client.query<{ word: string }>('SELECT word FROM words ORDER BY 1')
    await client.query("INSERT INTO words VALUES ('its own'); DELETE FROM words WHERE word = 'its own'")
    return rows.map(({ word }) => word)
  })
}

test('--swap puts it in the customer’s place, and keeps what was there', async ({ operator }) => {
  await sql(operator, 'customer_zenith', "DELETE FROM words WHERE word = 'one'", "INSERT INTO words VALUES ('late')")
  const asked = await run(operator, 'restore', 'zenith', '--swap', '--again')
  assert.is(asked.code, 64, 'nobody can be asked here')
  assert.match(asked.stdout + asked.stderr, 'zenith goes back to ')
  assert.equal(await wordsIn(operator, 'customer_zenith'), ['late', 'three', 'two'])

  await must(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  assert.equal(await wordsIn(operator, 'customer_zenith'), ['one', 'three', 'two'])
  assert.match(await must(operator, 'restore', 'zenith', '--swap', '--yes'), ' ok, 0 changed')
  const [kept = '', ...more] = await others(operator)
  assert.equal(more, [])
  assert.match(kept, /^before_zenith_\d{8}t\d{9}z$/)
  await sql(operator, 'defaultdb', `ALTER DATABASE ${kept} ALLOW_CONNECTIONS true`)
  assert.equal(await wordsIn(operator, kept), ['late', 'three', 'two'])
  const [row] = await sql(
    operator,
    'defaultdb',
    `SELECT has_database_privilege('public', oid, 'CONNECT') AS connect, datallowconn AS open,
       datdba::regrole::text AS owner FROM pg_database WHERE datname = 'customer_zenith'`,
  )
  assert.equal(row, { connect: false, open: true, owner: 'customer_zenith' })
  assert.equal(await asZenith(operator), ['one', 'three', 'two'])
  assert.match(
    await must(operator, 'add-customer', 'zenith'),
    '7 ok, 0 changed',
    'the platform finds it as it should be',
  )
  assert.match(await must(operator, 'bootstrap', '--yes'), ' 0 changed')
  assert.is((await run(operator, 'backup', '--customer', 'zenith', '--again')).code, 0)
})

test('a second --swap changes nothing, whatever was written since; --again goes back once more, and keeps that', async ({
  operator,
}) => {
  await must(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  await sql(operator, 'customer_zenith', "INSERT INTO words VALUES ('new')")
  assert.match(await must(operator, 'restore', 'zenith', '--swap', '--yes'), ' 0 changed')
  assert.ok((await wordsIn(operator, 'customer_zenith')).includes('new'))
  const before = await others(operator)
  assert.match(await must(operator, 'restore', 'zenith', '--swap', '--again', '--yes'), '2 changed')
  assert.equal(await wordsIn(operator, 'customer_zenith'), ['one', 'three', 'two'])
  const [kept = ''] = (await others(operator)).filter((name) => !before.includes(name))
  assert.ok((await wordsIn(operator, kept)).includes('new'), 'what was written since is kept')
})

test('somebody who writes all the time does not make a swap that came about a failure', async ({ operator }) => {
  let stopped = false
  const writing = (async () => {
    while (!stopped) await sql(operator, 'customer_zenith', "INSERT INTO words VALUES ('x')").catch(() => {})
  })()
  const { code, stdout } = await run(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  stopped = true
  await writing
  assert.is(code, 0, stdout)
})

/** Somebody who is connected, and does nothing. */
async function connected(operator: Operator, database: string): Promise<pg.Client> {
  const { host, port, user, password, ca } = await administrator(operator)
  const client = new pg.Client({ host, port, user, password: password.reveal(), ssl: { ca }, database })
  client.on('error', () => {}) // it is ended
  await client.connect()
  return client
}

test('connections to the customer’s database are ended for the swap', async ({ operator }) => {
  const client = await connected(operator, 'customer_zenith')
  await sql(operator, 'customer_zenith', 'DELETE FROM words')
  await must(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  assert.equal(await wordsIn(operator, 'customer_zenith'), ['one', 'three', 'two'])
  await client.end()
})

test('somebody who looks at the restored one does not keep the customer’s shut', async ({ operator }) => {
  await must(operator, 'restore', 'zenith')
  await sql(operator, 'customer_zenith', "INSERT INTO words VALUES ('since')")
  const client = await connected(operator, await scratchOf(operator, 'zenith'))
  const { code, stdout } = await run(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  await client.end()
  if (code !== 0) {
    assert.match(stdout, 'is being accessed by other users')
    assert.equal(await asZenith(operator), ['one', 'since', 'three', 'two'], 'the customer works on')
  }
  await must(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  assert.equal(await asZenith(operator), ['one', 'three', 'two'])
})

/** psql as the provider, who alone is a superuser: through the server's own socket. */
function psqlOf(operator: Operator, port: number, database: string): string[] {
  const runtime = readFileSync(join(operator.directory, 'cloud', 'runtime'), 'utf8')
  const files = readdirSync(runtime, { recursive: true, encoding: 'utf8' })
  const socket = files.find((name) => name.endsWith(`.s.PGSQL.${port}`)) ?? ''
  const psql = ['env', '-u', 'PGHOSTADDR', 'psql', '-XAtq'] // which would come before the socket
  return [...psql, '-h', join(runtime, dirname(socket)), '-p', String(port), '-U', 'postgres', '-d', database]
}

test('autovacuum at work hinders neither a swap, nor that a half-filled one is made anew, nor a drill', async ({
  operator,
}) => {
  const { port } = await administrator(operator)
  const [program = '', ...args] = psqlOf(operator, port, 'postgres')
  const superuser = (...statements: string[]) => {
    for (const statement of statements) execFileSync(program, [...args, '-c', statement], { stdio: 'pipe' })
  }
  const busy = (database: string) =>
    eventually(`autovacuum is at work in ${database}`, async () => {
      const worker = `SELECT FROM pg_stat_activity WHERE datname = '${database}' AND usesysid IS NULL`
      return (await sql(operator, 'defaultdb', worker)).length > 0
    })
  // It comes every second, and takes its time.
  superuser(
    "ALTER SYSTEM SET autovacuum_naptime = '1s'",
    "ALTER SYSTEM SET autovacuum_vacuum_cost_delay = '100ms'",
    'ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 1000',
    'SELECT pg_reload_conf()',
  )
  try {
    await must(operator, 'restore', 'acme')
    const scratch = await scratchOf(operator, 'acme')
    await busy(scratch)
    const folder = await newest(operator, 'database/acme')
    await sql(operator, 'defaultdb', `COMMENT ON DATABASE ${scratch} IS 'being restored from ${folder}'`)
    assert.match(await must(operator, 'restore', 'acme'), '1 changed')
    await busy(scratch)
    await must(operator, 'restore', 'acme', '--swap', '--yes')
    await busy('customer_acme')
    await sql(operator, 'customer_acme', "INSERT INTO people (email, name) VALUES ('since', 'since')")
    await must(operator, 'restore', 'acme', '--swap', '--again', '--yes')
    await must(operator, 'drill')
  } finally {
    for (const setting of ['naptime', 'vacuum_cost_delay', 'vacuum_cost_limit'])
      superuser(`ALTER SYSTEM RESET autovacuum_${setting}`)
    superuser('SELECT pg_reload_conf()')
  }
})

test('a swap that may not end a connection leaves the customer’s database open', async ({ operator }) => {
  const { port } = await administrator(operator)
  const [program = '', ...args] = psqlOf(operator, port, 'customer_zenith')
  const provider = spawn(program, [...args, '-c', 'SELECT pg_sleep(600)'], { stdio: 'ignore' })
  const ended = new Promise((resolve) => provider.once('exit', resolve))
  try {
    await eventually('the provider looks at it', async () => {
      const seen = "SELECT FROM pg_stat_activity WHERE datname = 'customer_zenith' AND usename = 'postgres'"
      return (await sql(operator, 'defaultdb', seen)).length > 0
    })
    assert.is((await run(operator, 'restore', 'zenith', '--swap', '--again', '--yes')).code, 1)
    assert.equal(await asZenith(operator), ['one', 'three', 'two'])
  } finally {
    provider.kill('SIGINT') // on which psql ends its statement too
    await ended
  }
})

// --- ended in the middle ---------------------------------------------------------------

test('kill -9 while it restores: the next run begins anew, and ends equal', async ({ operator }) => {
  const started = start(operator, 'restore', 'acme')
  await restoring(operator)
  started.child.kill('SIGKILL')
  await started.ended
  const scratch = await scratchOf(operator, 'acme')
  assert.equal(await others(operator), [scratch])
  assert.match(await must(operator, 'restore', 'acme'), '1 changed')
  const [before, after] = [await dumpOf(operator, 'customer_acme'), await dumpOf(operator, scratch)]
  assert.ok(before === after, firstDifference(before, after))
  assert.match(await must(operator, 'restore', 'acme'), ' 0 changed')
  assert.equal(programsOf(operator), [])
})

test('kill -9 before anything was read, and when the database was hardly made: the next run finishes', async ({
  operator,
}) => {
  await plant(operator, { api: 'spaces', method: 'GET', path: 'dump\\.zst', times: 1 }, { delay_ms: 1000 })
  const started = start(operator, 'restore', 'zenith', '--swap', '--again', '--yes')
  await faultsHit(operator)
  started.child.kill('SIGKILL')
  await started.ended
  await must(operator, 'restore', 'zenith')
  const scratch = await scratchOf(operator, 'zenith')
  await sql(
    operator,
    'defaultdb',
    `DROP DATABASE ${scratch}`,
    // As far as a run comes in its first statement.
    `CREATE DATABASE ${scratch} OWNER customer_zenith TEMPLATE template0 ENCODING 'UTF8'
       ALLOW_CONNECTIONS false CONNECTION LIMIT 0`,
  )
  await must(operator, 'restore', 'zenith')
  assert.equal(await wordsIn(operator, scratch), ['one', 'three', 'two'])
  assert.match(await must(operator, 'restore', 'zenith'), ' 0 changed')
})

test('kill -9 within the swap, the customer’s database closed: the next run finishes', async ({ operator }) => {
  // Twice: the second time the customer's database is itself one that was restored.
  for (const _ of [1, 2]) {
    await sql(
      operator,
      'defaultdb',
      'ALTER DATABASE customer_zenith ALLOW_CONNECTIONS false',
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'customer_zenith' AND usesysid IS NOT NULL",
    )
    await must(operator, 'restore', 'zenith', '--swap', '--yes')
    assert.equal(await asZenith(operator), ['one', 'three', 'two'])
  }
})

test('SIGINT while it restores: no database is left, and the next run restores', async ({ operator }) => {
  const started = start(operator, 'restore', 'acme', '--json')
  await restoring(operator)
  started.child.kill('SIGINT')
  const { code, stdout } = await started.ended
  assert.is(code, 130, stdout)
  assert.equal(await others(operator), [])
  assert.equal(programsOf(operator), [])
  await must(operator, 'restore', 'acme')
})

// --- drills ----------------------------------------------------------------------------

type Evidence = { backup: string; who: string; drilled_at: string; seconds: number; rows: number; tables: number }

const evidenceOf = async (operator: Operator, folder: string) =>
  JSON.parse((await content(operator, `drills/${folder}.json`)).toString()) as Evidence & Record<string, unknown>

test('a drill restores every customer’s newest backup, and keeps the evidence', async ({ operator }) => {
  const before = Date.now()
  assert.match(await must(operator, 'drill'), '3 steps: 1 ok, 2 changed')
  assert.equal(await others(operator), [], 'what it restored is gone again')
  const folder = await newest(operator, 'database/acme')
  const evidence = await evidenceOf(operator, folder)
  const rows = Object.values((await manifest(operator, folder)).database?.rows ?? {})
  assert.is(evidence.backup, folder)
  assert.is(
    evidence.rows,
    rows.reduce((sum, count) => sum + count, 0),
  )
  assert.ok(evidence.rows > 16_900)
  assert.is(evidence.tables, rows.length)
  assert.is(evidence.large_objects, 3)
  assert.match(evidence.who, /^.+@.+$/)
  assert.match(String(evidence.server_version), /^\d+/)
  assert.ok(evidence.seconds > 0 && Date.parse(evidence.drilled_at) >= before)

  assert.match(await must(operator, 'drill'), '3 steps: 3 ok, 0 changed')
  const day = evidence.drilled_at.slice(0, 10)
  assert.match((await run(operator, 'backups')).stdout, new RegExp(`^database/acme .* restored ${day}$`, 'm'))
  const { sources } = JSON.parse((await run(operator, 'backups', '--json')).stdout)
  assert.is(sources[0].drilled, evidence.drilled_at)
  // The evidence is of that very backup.
  await must(operator, 'backup', '--customer', 'zenith', '--again')
  assert.match(await must(operator, 'drill'), '3 steps: 2 ok, 1 changed')
})

test('a backup that is damaged, or missing, fails the drill by name, and the others are drilled', async ({
  operator,
}) => {
  const takeBack = listByHand(operator, 'ghost')
  try {
    const folder = await newest(operator, 'database/acme')
    await damage(
      operator,
      `${folder}/dump.zst.age`,
      flipped((length) => length >> 1),
    )
    const result = await run(operator, 'drill', '--json')
    assert.is(result.code, 1)
    const statuses = Object.entries(statusesOf(result))
    const statusOf = (customer: string) => statuses.find(([title]) => title.includes(` ${customer} `))?.[1]
    assert.is(statusOf('acme'), 'failed', result.stdout + result.stderr)
    assert.is(statusOf('ghost'), 'failed', result.stdout)
    assert.is(statusOf('zenith'), 'changed', result.stdout)
    const title = statuses.find(([title]) => title.includes(' ghost '))?.[0] ?? ''
    assert.match(failureOf(result, title), 'there is no verified backup of ghost')
    assert.not.ok((await keys(operator, 'drills/')).some((key) => key.includes('acme')))
    assert.equal(await others(operator), [])
    assert.match((await run(operator, 'backups')).stdout, /^database\/acme .* not yet$/m)
  } finally {
    takeBack()
  }
})

test('a drill with the wrong key proves nothing', async ({ operator }) => {
  const wrong = join(operator.directory, 'drill-key.txt')
  if (!existsSync(wrong)) execFileSync('age-keygen', ['-o', wrong], { stdio: 'pipe' })
  const { code } = await run(operator, 'drill', '--identity', wrong)
  assert.is(code, 1)
  assert.equal(await keys(operator, 'drills/'), [])
  assert.equal(await others(operator), [])
})

test('kill -9 within a drill: the next one finishes, and drops what was left', async ({ operator }) => {
  const started = start(operator, 'drill')
  await restoring(operator)
  started.child.kill('SIGKILL')
  await started.ended
  assert.is((await others(operator)).length > 0, true)
  // Of one of them there is a newer backup by then.
  await must(operator, 'backup', '--again')
  await must(operator, 'drill')
  assert.equal(await others(operator), [])
  assert.match(await must(operator, 'drill'), ' 0 changed')
})

test.run()
