// backup when the network, Spaces, Postgres or the run itself gives up: never a success that is none, nothing left that could
// be taken for a backup, the older ones still there, and the next run mends it.
import { spawnSync } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ROOT } from '../../lib/site.ts'
import { siteDirectoryOf } from '../../rehearsal/site.ts'
import {
  abortUploads,
  eventually,
  everyManifestIsTrue,
  failureOf,
  folders,
  keys,
  nothingIsLeft,
  programsOf,
  remove,
  siteWith,
  tablesOf,
  verified,
} from './bucket.ts'
import {
  administrator,
  clearFaults,
  faultsHit,
  must,
  type Operator,
  plant,
  type Result,
  run,
  type Started,
  sql,
  start,
  startOperator,
  statusesOf,
} from './operator.ts'

/** One rehearsal for all: acme has files that are sent in several parts, zenith nothing. */
const test = suite<{ operator: Operator }>('backup that fails')
test.before(async (context) => {
  const operator = await startOperator()
  context.operator = operator
  await must(operator, 'bootstrap', '--yes')
  for (const customer of ['acme', 'zenith']) await must(operator, 'add-customer', customer)
  await sql(operator, 'customer_acme', 'SET ROLE customer_acme', ...tablesOf(40))
})
test.before.each(async ({ operator }) => {
  await remove(operator)
  await abortUploads(operator)
})
test.after.each(({ operator }) => clearFaults(operator))
test.after(({ operator }) => operator.down())

const ACME = 'database customer_acme is backed up'
const AGREE = 'gitops/apps and the server agree on who is a customer'
const ALL = {
  'database/acme': 1,
  'database/zenith': 1,
  'secrets/acme': 1,
  'secrets/zenith': 1,
  'terraform/state': 1,
}

const FAULTS: [string, { method: string; path: string }, object][] = [
  ['a part is refused with 500', { method: 'PUT', path: 'database/acme/.*partNumber=2' }, { status: 500 }],
  ['a part is refused with 503', { method: 'PUT', path: 'database/acme/.*partNumber=' }, { status: 503 }],
  ['a part’s connection is cut', { method: 'PUT', path: 'database/acme/.*partNumber=2' }, { drop: true }],
  ['a part’s answer is cut', { method: 'PUT', path: 'database/acme/.*partNumber=2' }, { drop: 'after' }],
  ['the upload is not begun', { method: 'POST', path: 'database/acme/.*uploads' }, { status: 503 }],
  ['completion is refused with 500', { method: 'POST', path: 'database/acme/.*uploadId=' }, { status: 500 }],
  ['completion’s connection is cut', { method: 'POST', path: 'database/acme/.*uploadId=' }, { drop: true }],
  ['completion’s answer is cut', { method: 'POST', path: 'database/acme/.*uploadId=' }, { drop: 'after' }],
  ['completion’s answer is half', { method: 'POST', path: 'database/acme/.*uploadId=' }, { truncate: true }],
  ['the object cannot be read again: 500', { method: 'GET', path: 'database/acme/.*dump' }, { status: 500 }],
  ['the object cannot be read again: 503', { method: 'GET', path: 'database/acme/.*dump' }, { status: 503 }],
  ['the object cannot be read again: cut', { method: 'GET', path: 'database/acme/.*dump' }, { drop: true }],
  ['half of the object is read again', { method: 'GET', path: 'database/acme/.*dump' }, { truncate: true }],
  ['Spaces has no room left', { method: 'PUT', path: 'database/acme/.*partNumber=2' }, { status: 507 }],
  ['the manifest is refused with 500', { method: 'PUT', path: 'database/acme/.*manifest' }, { status: 500 }],
  ['the manifest’s connection is cut', { method: 'PUT', path: 'database/acme/.*manifest' }, { drop: true }],
]

for (const [name, request, consequence] of FAULTS)
  test(`${name}: the run fails by name, nothing of it is left, and what was there stays`, async ({ operator }) => {
    await must(operator, 'backup', '--customer', 'acme')
    const before = await folders(operator, 'database/acme')
    await plant(operator, { api: 'spaces', ...request }, consequence)
    const result = await run(operator, 'backup', '--again', '--json')
    await clearFaults(operator)
    assert.is(result.code, 1, result.stdout)
    const { [ACME]: status, [AGREE]: _, ...others } = statusesOf(result)
    assert.is(status, 'failed')
    assert.ok(failureOf(result, ACME), 'it says why')
    assert.equal([...new Set(Object.values(others))], ['changed'], 'the others are backed up')
    assert.equal(await folders(operator, 'database/acme'), before)
    await nothingIsLeft(operator, name)
    await everyManifestIsTrue(operator, name)
    assert.match(await must(operator, 'backup', '--again', '--customer', 'acme'), '2 changed')
    assert.is((await folders(operator, 'database/acme')).length, 2)
  })

test('what fails once is tried again: the backup is made, and whole', async ({ operator }) => {
  const once = { api: 'spaces', times: 1 }
  await plant(operator, { ...once, method: 'POST', path: 'database/acme/.*uploads' }, { status: 503 })
  await plant(operator, { ...once, method: 'PUT', path: 'database/acme/.*partNumber=1' }, { status: 500 })
  await plant(operator, { ...once, method: 'PUT', path: 'database/acme/.*partNumber=2' }, { status: 503 })
  await plant(operator, { ...once, method: 'PUT', path: 'database/acme/.*partNumber=3' }, { drop: true })
  await plant(operator, { ...once, method: 'POST', path: 'database/acme/.*uploadId=' }, { status: 500 })
  await plant(operator, { ...once, method: 'PUT', path: 'database/acme/.*manifest' }, { drop: 'after' })
  assert.match(await must(operator, 'backup'), '5 changed')
  assert.equal(await verified(operator), ALL)
  await everyManifestIsTrue(operator, 'after one failure each')
  await nothingIsLeft(operator, 'after one failure each')
})

/** Holds a table so that nobody else can read it. @returns how to say more in that transaction */
async function lockTable(
  operator: Operator,
  table: string,
): Promise<{ end: (...statements: string[]) => Promise<void> }> {
  const { host, port, user, password, ca } = await administrator(operator)
  const client = new pg.Client({
    ...{ host, port, user, database: 'customer_acme' },
    password: password.reveal(),
    ssl: { ca },
  })
  await client.connect()
  await client.query('BEGIN')
  await client.query(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`)
  return {
    end: async (...statements) => {
      for (const statement of statements) await client.query(statement)
      await client.end()
    },
  }
}

/** Waits until pg_dump waits for a lock in the database. */
const dumpWaits = (operator: Operator) =>
  eventually('pg_dump waits for a lock', async () => {
    const rows = await sql(
      operator,
      'defaultdb',
      `SELECT FROM pg_stat_activity
       WHERE datname = 'customer_acme' AND application_name = 'pg_dump' AND wait_event_type = 'Lock'`,
    )
    return rows.length > 0
  })

test('a table that is dropped during the dump', async ({ operator }) => {
  await must(operator, 'backup', '--customer', 'acme')
  const before = await folders(operator, 'database/acme')
  await sql(operator, 'customer_acme', 'SET ROLE customer_acme', 'CREATE TABLE doomed AS SELECT 1 AS one')
  const lock = await lockTable(operator, 'doomed')
  const started = start(operator, 'backup', '--again', '--json')
  await dumpWaits(operator)
  await lock.end('DROP TABLE doomed', 'COMMIT')
  const result = await started.ended
  assert.is(result.code, 1, result.stdout)
  assert.match(failureOf(result, ACME), 'doomed')
  assert.equal(await folders(operator, 'database/acme'), before)
  await nothingIsLeft(operator, 'dropped')
  assert.match(await must(operator, 'backup', '--customer', 'acme', '--again'), '2 changed')
})

/** Holds the upload at its first parts, so that the dump is in the middle. */
async function inTheMiddle(operator: Operator, ...args: string[]): Promise<Started> {
  await plant(
    operator,
    { api: 'spaces', method: 'PUT', path: 'database/acme/.*partNumber=1', times: 1 },
    { delay_ms: 3000 },
  )
  const started = start(operator, 'backup', '--again', '--json', ...args)
  await faultsHit(operator)
  return started
}

test('a database that is renamed during the dump', async ({ operator }) => {
  await must(operator, 'backup', '--customer', 'acme')
  const before = await folders(operator, 'database/acme')
  const started = await inTheMiddle(operator)
  await sql(
    operator,
    'defaultdb',
    'ALTER DATABASE customer_acme ALLOW_CONNECTIONS false',
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'customer_acme' AND usesysid IS NOT NULL`,
    'ALTER DATABASE customer_acme RENAME TO renamed',
  )
  try {
    const result = await started.ended
    assert.is(result.code, 1, result.stdout)
    assert.is(statusesOf(result)[ACME], 'failed')
    assert.equal(await folders(operator, 'database/acme'), before)
    await nothingIsLeft(operator, 'renamed')
    const next = await run(operator, 'backup', '--json')
    assert.is(next.code, 1)
    assert.match(failureOf(next, AGREE), 'acme is in gitops/apps, and customer_acme is not there')
  } finally {
    await sql(
      operator,
      'defaultdb',
      'ALTER DATABASE renamed RENAME TO customer_acme',
      'ALTER DATABASE customer_acme ALLOW_CONNECTIONS true',
    )
  }
})

test('pg_dump, or the connection that holds its snapshot, is ended in the middle', async ({ operator }) => {
  for (const name of ['pg_dump', 'lunarfront-runbook']) {
    const started = await inTheMiddle(operator)
    await sql(
      operator,
      'defaultdb',
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = 'customer_acme' AND application_name = '${name}'`,
    )
    const result = await started.ended
    assert.is(result.code, 1, `${name}: ${result.stdout}`)
    assert.is(statusesOf(result)[ACME], 'failed')
    assert.equal(await folders(operator, 'database/acme'), [], name)
    await nothingIsLeft(operator, name)
  }
})

test('a recipient that is none: nothing is dumped', async ({ operator }) => {
  const slip = 'age1ql3z8hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p'
  for (const recipients of [['age1nope'], [], ['AGE-SECRET-KEY-1QQQ'], ['ssh-ed25519 AAAA'], [slip]]) {
    const site = siteWith(operator, (it) => Object.assign(it.backups, { recipients }))
    const { code, stderr } = await run(operator, 'backup', ...site)
    assert.is(code, 64, stderr)
    assert.match(stderr, 'recipients')
  }
  assert.equal(await keys(operator), [])
})

test('a program that is missing is told before anything is written', async ({ operator }) => {
  const env = { ...operator.env, PATH: '/nowhere' }
  const node = process.execPath.replace(/\/node$/, '')
  const { code, stdout } = await run({ env: { ...env, PATH: `${node}:/nowhere` } }, 'backup')
  assert.is.not(code, 0, stdout)
  assert.equal(await keys(operator), [])
})

// --- the disk of whoever runs it is full -----------------------------------------------

/** Runs backup in a mount namespace of its own, after these commands. */
function backUpAfter(operator: Operator, ...prepare: string[]): Result {
  const script = [...prepare, `exec '${join(ROOT, 'runbooks', 'backup.mts')}'`].join(' && ')
  const argv = ['--user', '--map-root-user', '--mount', 'sh', '-c', script]
  const { status, signal, stdout, stderr } = spawnSync('unshare', argv, { env: operator.env, encoding: 'utf8' })
  return { code: status, signal, stdout, stderr }
}

test('no room for anything: what needs some fails in words, and nothing is half made', async ({ operator }) => {
  const site = siteDirectoryOf(operator.directory)
  const disk = mkdtempSync(join(operator.directory, 'disk-'))
  const { code, stdout, stderr } = backUpAfter(
    operator,
    `mount -t tmpfs -o size=16m,mode=700 none '${disk}'`,
    `cp -a '${site}/.' '${disk}/'`,
    `! cat /dev/zero > '${disk}/filled' 2>/dev/null`,
    `mount --bind '${disk}' '${site}'`,
  )
  const told = stdout + stderr
  assert.is(code, 1, told)
  assert.match(told, 'the disk is full')
  assert.match(told, 'next: df -h, and make room')
  assert.not.match(told, /ENOSPC|\n\s+at /)
  await everyManifestIsTrue(operator, 'a full disk')
  await nothingIsLeft(operator, 'a full disk')
  await must(operator, 'backup')
  assert.equal(await verified(operator), ALL)
})

test('no room for the log: that is said, and everything is backed up', async ({ operator }) => {
  const runs = join(siteDirectoryOf(operator.directory), 'runs')
  const { code, stdout, stderr } = backUpAfter(operator, `mount -t tmpfs -o size=4k none '${runs}'`)
  const told = stdout + stderr
  assert.is(code, 0, told)
  assert.match(told, 'the disk is full. Next: df -h, and make room. The run goes on, and its log ends here')
  assert.is(told.match(/the disk is full/g)?.length, 1)
  assert.equal(await verified(operator), ALL)
  await everyManifestIsTrue(operator, 'no log')
})

// --- the run itself is ended -----------------------------------------------------------

const KILLS: [string, object, string][] = [
  ['during the upload', { method: 'PUT', path: 'database/acme/.*partNumber=1' }, 'the parts'],
  ['when the upload is completed', { method: 'POST', path: 'database/acme/.*uploadId=' }, 'completion'],
  ['when the object is read again', { method: 'GET', path: 'database/acme/.*dump' }, 'verification'],
  ['when the manifest is written', { method: 'PUT', path: 'database/acme/.*manifest' }, 'the manifest'],
]

for (const [name, request] of KILLS)
  test(`kill -9 ${name}: the next run finishes`, async ({ operator }) => {
    await must(operator, 'backup', '--customer', 'acme')
    await plant(operator, { api: 'spaces', ...request, times: 1 }, { delay_ms: 1500 })
    const started = start(operator, 'backup', '--again')
    await faultsHit(operator)
    started.child.kill('SIGKILL')
    await started.ended
    await eventually('its programs have ended', async () => programsOf(operator).length === 0)
    await everyManifestIsTrue(operator, name)
    await must(operator, 'backup', '--again')
    assert.match(await must(operator, 'backup'), ' 0 changed')
    await everyManifestIsTrue(operator, name)
    const count = (await verified(operator))['database/acme'] ?? 0
    assert.ok(count === 2 || count === 3, `${count} backups`) // a manifest that was on its way may have come
  })

test('kill -9 during the dump: the next run finishes', async ({ operator }) => {
  const lock = await lockTable(operator, 'notes')
  const started = start(operator, 'backup')
  await dumpWaits(operator)
  started.child.kill('SIGKILL')
  await started.ended
  await lock.end('ROLLBACK')
  await eventually('pg_dump has ended', async () => programsOf(operator).length === 0)
  assert.is((await verified(operator))['database/acme'], undefined)
  await must(operator, 'backup')
  assert.match(await must(operator, 'backup'), ' 0 changed')
  assert.equal(await verified(operator), ALL)
})

for (const [name, request] of [
  ['while parts are sent', { method: 'PUT', path: 'database/acme/.*partNumber=1' }],
  ['while it is read again', { method: 'GET', path: 'database/acme/.*dump' }],
] as const)
  test(`SIGINT ${name}: it tidies up, and says that it was interrupted`, async ({ operator }) => {
    await must(operator, 'backup', '--customer', 'acme')
    const before = await folders(operator, 'database/acme')
    await plant(operator, { api: 'spaces', ...request, times: 1 }, { delay_ms: 1000 })
    const started = start(operator, 'backup', '--again', '--json')
    await faultsHit(operator)
    started.child.kill('SIGINT')
    const { code, stdout } = await started.ended
    assert.is(code, 130, stdout)
    await everyManifestIsTrue(operator, name)
    await nothingIsLeft(operator, name)
    const after = await folders(operator, 'database/acme')
    if (name === 'while parts are sent') assert.equal(after, before)
    for (const folder of before) assert.ok(after.includes(folder))
    await must(operator, 'backup', '--again', '--customer', 'acme')
  })

test.run()
