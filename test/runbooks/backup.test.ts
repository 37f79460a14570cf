// backup, backups and prune against a rehearsed cloud: what lies in the bucket, who is missed, and what is kept.
import { renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  abortUploads,
  content,
  copyTo,
  digestOf,
  everyManifestIsTrue,
  failureOf,
  folders,
  grow,
  HOUR,
  keys,
  listByHand,
  manifest,
  opened,
  put,
  remove,
  siteWith,
  stampOf,
  tablesOf,
  verified,
} from './bucket.ts'
import {
  administrator,
  callsDuring,
  clearFaults,
  commitByHand,
  eventOf,
  eventsOf,
  faultsHit,
  must,
  type Operator,
  plant,
  type Result,
  run,
  sql,
  start,
  startOperator,
  statusesOf,
  stepsOf,
} from './operator.ts'

/** One rehearsal for all: acme has files that are sent in several parts, acme-test a table, zenith nothing. */
const test = suite<{ operator: Operator }>('backup')
test.before(async (context) => {
  const operator = await startOperator()
  context.operator = operator
  await must(operator, 'bootstrap', '--yes')
  for (const customer of ['acme', 'acme-test', 'zenith']) await must(operator, 'add-customer', customer)
  await sql(operator, 'customer_acme', 'SET ROLE customer_acme', ...tablesOf(40))
  await sql(
    operator,
    'customer_acme_test',
    'SET ROLE customer_acme_test',
    "CREATE TABLE words AS SELECT 'words of acme-test' AS text",
  )
})
test.before.each(async ({ operator }) => {
  await remove(operator)
  await abortUploads(operator)
})
test.after.each(({ operator }) => clearFaults(operator))
test.after(({ operator }) => operator.down())

const SOURCES = [
  'database/acme',
  'database/acme-test',
  'database/zenith',
  'secrets/acme',
  'secrets/acme-test',
  'secrets/zenith',
  'terraform/state',
]
const AGREE = 'gitops/apps and the server agree on who is a customer'

const each = (count: number, sources = SOURCES) => Object.fromEntries(sources.map((name) => [name, count]))
const warningsOf = (result: Pick<Result, 'stdout'>) =>
  eventsOf(result).flatMap((event) => (event.event === 'warning' ? [event.text] : []))
// --- what a run does -------------------------------------------------------------------

test('the first run backs up everything, and the second nothing', async ({ operator }) => {
  assert.match(await must(operator, 'backup'), '8 steps: 1 ok, 7 changed')
  assert.equal(await verified(operator), each(1))
  const before = await keys(operator)
  assert.match(await must(operator, 'backup'), '8 steps: 8 ok, 0 changed')
  assert.equal(await keys(operator), before)
  assert.is((await run(operator, 'backup', '--plan')).code, 0)
  await must(operator, 'backup', '--again')
  assert.equal(await verified(operator), each(2), '--again makes another one of each')
})

test('--plan tells what is due, and writes nothing', async ({ operator }) => {
  const { code, stdout } = await run(operator, 'backup', '--plan')
  assert.is(code, 2)
  assert.match(stdout, 'there is no backup of it')
  assert.equal(await keys(operator), [])
})

test('a backup is due again when it is half as old as is an alarm', async ({ operator }) => {
  await must(operator, 'backup', '--customer', 'zenith')
  await grow(operator, 12.9)
  assert.match(await must(operator, 'backup', '--customer', 'zenith'), ' 0 changed')
  await grow(operator, 0.2)
  assert.match(await must(operator, 'backup', '--customer', 'zenith'), '2 changed')
  assert.is((await folders(operator, 'database/zenith')).length, 2, 'the older one is still there')
})

test('a manifest tells what the object is and what the dump holds', async ({ operator }) => {
  const before = Date.now()
  await must(operator, 'backup')
  const [folder = ''] = await folders(operator, 'database/acme')
  const told = await manifest(operator, folder)
  const object = await content(operator, told.key)
  assert.is(told.key, `${folder}/dump.zst.age`)
  assert.is(told.source, 'database/acme')
  assert.is(told.sha256, digestOf(object))
  assert.is(told.bytes, object.length)
  assert.ok(object.length > 40 * 2 ** 20, 'so it was sent in parts')
  assert.ok(folder.endsWith(stampOf(new Date(told.taken_at))))
  assert.ok(Date.parse(told.taken_at) >= before && Date.parse(told.verified_at) > Date.parse(told.taken_at))
  assert.ok(told.seconds > 0)
  assert.match(told.made_by, /^backup by ./)
  const [{ version, bytes } = { version: '', bytes: 0 }] = await sql<{ version: string; bytes: string }>(
    operator,
    'customer_acme',
    "SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes",
  )
  assert.equal(told.database?.rows, { 'public.files': 40 * 1024, 'public.notes': 1000 })
  assert.is(told.database?.large_objects, 0)
  assert.is(told.database?.database, 'customer_acme')
  assert.ok(version.startsWith(told.database?.server_version ?? 'none'))
  assert.match(told.database?.dump_version ?? '', /^\d+\.\d+/)
  assert.ok(Math.abs(Number(bytes) - (told.database?.database_bytes ?? 0)) < 2 ** 20)
  assert.equal(told.recipients.length, 1)
  const [other = ''] = await folders(operator, 'secrets/acme')
  assert.is((await manifest(operator, other)).database, undefined)
})

test('rows that come while the dump runs are neither in it nor in its counts', async ({ operator }) => {
  await plant(operator, { api: 'spaces', method: 'PUT', path: 'partNumber=1', times: 1 }, { delay_ms: 2000 })
  const started = start(operator, 'backup', '--customer', 'acme')
  await faultsHit(operator) // parts are on their way, so the dump has begun
  await sql(operator, 'customer_acme', "INSERT INTO notes (text) SELECT 'too late' FROM generate_series(1, 7)")
  try {
    assert.is((await started.ended).code, 0)
    const [folder = ''] = await folders(operator, 'database/acme')
    assert.is((await manifest(operator, folder)).database?.rows['public.notes'], 1000)
    const dump = await opened(operator, `${folder}/dump.zst.age`)
    assert.ok(dump.includes('plain words of a customer 1000'))
    assert.not.ok(dump.includes('too late'))
  } finally {
    await sql(operator, 'customer_acme', "DELETE FROM notes WHERE text = 'too late'")
  }
})

test('nothing in the bucket can be read without the key, and everything can with it', async ({ operator }) => {
  await must(operator, 'backup')
  const words = ['plain words of a customer', 'words of acme-test', 'jwt_secret', 'lunarfront-postgres']
  for (const key of await keys(operator)) {
    const object = await content(operator, key)
    if (!key.endsWith('/manifest.json')) assert.match(object.subarray(0, 21).toString(), 'age-encryption.org/v1')
    for (const word of words) assert.not.ok(object.includes(word), `${key} has the words ${word}`)
  }
  const inside = async (source: string, file: string) => {
    const [folder = ''] = await folders(operator, source)
    return opened(operator, `${folder}/${file}`)
  }
  assert.ok((await inside('database/acme', 'dump.zst.age')).includes(words[0]!))
  assert.ok((await inside('database/acme-test', 'dump.zst.age')).includes(words[1]!))
  assert.ok((await inside('secrets/zenith', 'secrets.json.zst.age')).includes(words[2]!))
  assert.ok((await inside('terraform/state', 'terraform.tfstate.zst.age')).includes(words[3]!))
})

test('--customer backs up that one alone', async ({ operator }) => {
  assert.match(await must(operator, 'backup', '--customer', 'acme-test'), '3 steps: 1 ok, 2 changed')
  assert.equal(await verified(operator), each(1, ['database/acme-test', 'secrets/acme-test']))
  const { code, stderr } = await run(operator, 'backup', '--customer', 'nobody')
  assert.is(code, 1)
  assert.match(stderr, 'there is no customer nobody')
})

test('every source is in exactly one shard, and a shard backs up its own alone', async ({ operator }) => {
  const all = (await stepsOf(operator, 'backup')).filter((title) => title !== AGREE)
  const shards: string[] = []
  for (const shard of ['1/3', '2/3', '3/3']) {
    const titles = (await stepsOf(operator, 'backup', '--shard', shard)).filter((title) => title !== AGREE)
    shards.push(...titles)
    const before = Object.keys(await verified(operator)).length
    await must(operator, 'backup', '--shard', shard)
    assert.is(Object.keys(await verified(operator)).length, before + titles.length, shard)
  }
  assert.equal(shards.sort(), all.sort())
  assert.equal(await verified(operator), each(1))
  for (const bad of ['0/3', '4/3', '1', '1/0', 'x/2'])
    assert.is((await run(operator, 'backup', '--shard', bad)).code, 64, bad)
})

test('two at once: one backs up, and the other waits and finds it done', async ({ operator }) => {
  await plant(operator, { api: 'spaces', method: 'PUT', path: 'manifest', times: 1 }, { delay_ms: 1500 })
  const first = start(operator, 'backup', '--json')
  await eventOf(first, ({ event }) => event === 'step waiting')
  const second = start(operator, 'backup', '--json')
  await eventOf(second, ({ event }) => event === 'lock waiting')
  const [one, other] = await Promise.all([first.ended, second.ended])
  assert.is(one.code, 0, one.stdout)
  assert.is(other.code, 0, other.stdout)
  assert.equal([...new Set(Object.values(statusesOf(other)))], ['ok'])
  assert.equal(await verified(operator), each(1))
})

// --- who is missed ---------------------------------------------------------------------

test('a customer without a database, and a database without a customer: told by name, the rest is backed up', async ({
  operator,
}) => {
  const takeBack = listByHand(operator, 'ghost')
  await sql(operator, 'defaultdb', 'CREATE DATABASE customer_stray_one')
  try {
    const result = await run(operator, 'backup', '--json')
    assert.is(result.code, 1)
    const told = failureOf(result, AGREE)
    assert.match(told, 'ghost is in gitops/apps, and customer_ghost is not there')
    assert.match(told, 'customer_stray_one is a database, and no customer in gitops/apps has it')
    const statuses = statusesOf(result)
    assert.is(statuses['database customer_acme is backed up'], 'changed')
    assert.is(statuses['database customer_stray_one is backed up'], 'changed', 'what there is of it is backed up too')
    assert.equal(await verified(operator), each(1, [...SOURCES, 'database/stray-one']))
    const warning = warningsOf(result).join()
    for (const name of ['database/ghost', 'secrets/ghost']) assert.match(warning, name)
    assert.not.match(warning, 'acme')

    const report = await run(operator, 'backups', '--json')
    assert.is(report.code, 1)
    const { problems, sources } = JSON.parse(report.stdout)
    assert.is(problems.length, 2)
    const ghost = sources.find(({ source }: { source: string }) => source === 'database/ghost')
    assert.is(ghost?.newest, null)

    // The others are not told of those two, nor fail for them.
    assert.is((await run(operator, 'backup', '--customer', 'acme')).code, 0)
    const stray = await run(operator, 'backup', '--customer', 'stray-one', '--again', '--json')
    assert.is(stray.code, 1)
    assert.match(failureOf(stray, AGREE), 'customer_stray_one')
    assert.is(statusesOf(stray)['database customer_stray_one is backed up'], 'changed')
  } finally {
    await sql(operator, 'defaultdb', 'DROP DATABASE customer_stray_one WITH (FORCE)')
    takeBack()
  }
  assert.is((await run(operator, 'backup')).code, 0)
})

test('whose secrets are not where runbooks put them is backed up without, and told where no repository has them', async ({
  operator,
}) => {
  const file = join(operator.kept, 'secrets', 'acme-test.json')
  renameSync(file, `${file}.away`)
  const withSecrets = (lines: string) =>
    commitByHand(operator, (clone) =>
      writeFileSync(
        join(clone, 'gitops', 'apps', 'customer-acme-test', 'values.yaml'),
        `customer: acme-test\nsubdomain: acme-test\nimage:\n  repository: registry.test/app\n${lines}\n`,
      ),
    )
  const INLINE = 'database:\n  url: postgresql://x\nredis:\n  url: rediss://x\nenv:\n  JWT_SECRET: "..."'
  const all = each(
    1,
    SOURCES.filter((source) => source !== 'secrets/acme-test'),
  )
  const sourcesOf = ({ stdout }: Pick<Result, 'stdout'>): string[] =>
    JSON.parse(stdout).sources.map(({ source }: { source: string }) => source)
  try {
    for (const [lines, told] of [
      [INLINE, []],
      ['existingSecret: vault', ['acme-test has its secrets from the Secret vault, which is not backed up']],
    ] as const) {
      const undo = withSecrets(lines)
      await remove(operator)
      const result = await run(operator, 'backup', '--json')
      const report = await run(operator, 'backups', '--json')
      undo()
      assert.is(result.code, 0, result.stdout)
      assert.equal(warningsOf(result), told)
      assert.equal(await verified(operator), all)
      assert.is(report.code, 0, report.stdout)
      assert.equal(sourcesOf(report).sort(), Object.keys(all).sort())
    }
    const { code, stdout } = await run(operator, 'backup', '--customer', 'acme-test', '--json')
    assert.is(code, 1)
    assert.match(stdout, 'the secrets of acme-test are neither on this machine nor on the cluster')
  } finally {
    renameSync(`${file}.away`, file)
  }
})

test('a failed run says who is without a fresh backup, and who only has this one failed', async ({ operator }) => {
  await must(operator, 'backup')
  await plant(operator, { api: 'spaces', method: 'PUT', path: 'database/' }, { status: 500 })
  const recent = await run(operator, 'backup', '--again', '--json')
  assert.is(recent.code, 1)
  assert.equal(warningsOf(recent), [], 'the one before is still fresh')
  await remove(operator, 'database/zenith/')
  const { code, stdout } = await run(operator, 'backup', '--again', '--json')
  assert.is(code, 1)
  assert.equal(warningsOf({ stdout }), ['without a fresh backup: database/zenith (none)'])
})

test('the heartbeat is sent when everything has a fresh backup, and only then', async ({ operator }) => {
  let beats = 0
  let status = 200
  const server = createServer((_, answer) => {
    beats++
    answer.writeHead(status).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const heartbeat = `http://127.0.0.1:${(server.address() as AddressInfo).port}/beat`
  const site = siteWith(operator, (it) => Object.assign(it.backups, { heartbeat }))
  const beatsOf = async (...args: string[]) => {
    beats = 0
    const result = await run(operator, 'backup', ...site, '--json', ...args)
    return { ...result, beats }
  }
  try {
    assert.is((await beatsOf('--plan')).beats, 0, '--plan')
    assert.is((await beatsOf('--customer', 'acme')).beats, 0, 'one customer is not all')
    assert.is((await beatsOf('--shard', '1/2')).beats, 0, 'a shard is not all')
    await plant(operator, { api: 'spaces', method: 'PUT', path: 'secrets/zenith' }, { status: 500 })
    const failed = await beatsOf()
    assert.is(failed.code, 1)
    assert.is(failed.beats, 0, 'it failed')
    await clearFaults(operator)
    assert.is((await beatsOf()).beats, 1, 'it succeeded')
    assert.is((await beatsOf()).beats, 1, 'it found everything fresh')
    const reported = async (...args: string[]) => {
      beats = 0
      await run(operator, 'backups', ...site, ...args)
      return beats
    }
    assert.is(await reported(), 0, 'nobody has asked for it')
    assert.is(await reported('--heartbeat'), 1, 'the report found everything fresh')
    const takeBack = listByHand(operator, 'ghost')
    const missing = await beatsOf()
    takeBack()
    assert.is(missing.code, 1)
    assert.is(missing.beats, 0, 'a customer has no database')
    await remove(operator, 'secrets/zenith/')
    assert.is(await reported('--heartbeat'), 0, 'the report misses a backup')
    await must(operator, 'backup')
    status = 500
    const unheard = await beatsOf()
    assert.is(unheard.code, 0, 'the backups are there all the same')
    assert.match(warningsOf(unheard).join(), 'the heartbeat could not be sent: it answers 500')
  } finally {
    server.close()
  }
})

test('a Spaces key for some buckets only, which may not list them, is enough', async ({ operator }) => {
  await plant(operator, { api: 'spaces', method: 'GET', path: '^/(\\?|$)' }, { status: 403 })
  await must(operator, 'backup')
  assert.is((await verified(operator))['database/acme'], 1)
})

test('where there is no Terraform a file says where Postgres is, and no provider’s token is needed', async ({
  operator,
}) => {
  const { password, ...server } = await administrator(operator)
  const file = join(operator.directory, 'postgres.json')
  const { DIGITALOCEAN_TOKEN, CLOUDFLARE_API_TOKEN, ...env } = operator.env
  const inPod = { env: { ...env, LUNARFRONT_POSTGRES: file } }
  writeFileSync(file, JSON.stringify({ ...server, password: password.reveal() }))
  const { calls } = await callsDuring(operator, () => must(inPod, 'backup'))
  assert.equal([...new Set(calls.map(({ api }) => api))], ['spaces'])
  assert.is((await verified(operator))['database/acme'], 1)
  assert.match(await must(inPod, 'backups'), 'database/acme')
  writeFileSync(file, '{"host": "somewhere"}')
  const damaged = await run(inPod, 'backup', '--again')
  assert.is(damaged.code, 1)
  assert.match(damaged.stdout + damaged.stderr, `${file} does not say where Postgres is`)
})

test('where it cannot be found out what to back up, it still says who is without a fresh backup', async ({
  operator,
}) => {
  await must(operator, 'backup')
  for (const source of ['database/acme', 'secrets/zenith']) {
    const [folder = ''] = await folders(operator, source)
    await copyTo(operator, folder, new Date(Date.now() - 48 * HOUR))
    await remove(operator, `${folder}/`)
  }
  const told = 'without a fresh backup: database/acme (the newest is 48 h old), secrets/zenith (the newest is 48 h old)'
  await plant(operator, { api: 'spaces', method: 'GET', path: 'terraform.tfstate' }, { status: 500 })
  const unknown = await run(operator, 'backup', '--json')
  assert.is(unknown.code, 1)
  assert.equal(warningsOf(unknown), [told])
  const report = await run(operator, 'backups')
  assert.is(report.code, 1)
  assert.match(report.stdout, /^database\/acme +48 h old .* TOO OLD$/m)
  assert.match(report.stdout, 'warning: who the customers are is not known')
})

test('a backup from the future, of a clock that was wrong, is not fresh', async ({ operator }) => {
  await must(operator, 'backup')
  const [folder = ''] = await folders(operator, 'database/zenith')
  await copyTo(operator, folder, new Date(Date.now() + 72 * HOUR))
  assert.is((await run(operator, 'backups')).code, 1)
  assert.match((await run(operator, 'backup', '--plan', '--customer', 'zenith')).stdout, '1 to change')
})

test('backups --customer shows every one, with what restore takes as --at', async ({ operator }) => {
  await must(operator, 'backup')
  await must(operator, 'backup', '--again', '--customer', 'acme')
  const { code, stdout } = await run(operator, 'backups', '--customer', 'acme')
  assert.is(code, 0)
  const all = [...stdout.matchAll(/^(database|secrets)\/acme +\d min old +(\S+Z) +\S+ MiB +yes$/gm)]
  assert.is(all.length, 4, stdout)
  const times = (await folders(operator, 'database/acme')).map((folder) => folder.split('/').at(-1))
  for (const [, kind, time = ''] of all)
    if (kind === 'database') assert.ok(times.includes(stampOf(new Date(time))), time)
  assert.is((await run(operator, 'backups', '--customer', 'nobody')).code, 1)
})

test('backups shows every source, and exits 1 when one is older than the site allows', async ({ operator }) => {
  const none = await run(operator, 'backups')
  assert.is(none.code, 1)
  assert.match(none.stdout, /^database\/acme +none +0 +not yet +TOO OLD$/m)
  await must(operator, 'backup')
  const good = await run(operator, 'backups')
  assert.is(good.code, 0, good.stdout)
  assert.match(good.stdout, /^database\/acme +\d min old +\S+Z +4\d\.\d MiB +1 +not yet$/m)
  assert.match(good.stdout, '\n7 sources\n')
  const site = siteWith(operator, (it) => Object.assign(it.backups, { max_age_hours: 1 }))
  assert.is((await run(operator, 'backups', ...site)).code, 0)

  const [folder = ''] = await folders(operator, 'database/acme-test')
  const old = await copyTo(operator, folder, new Date(Date.now() - 1.01 * HOUR))
  await remove(operator, `${folder}/`)
  const { code, stdout } = await run(operator, 'backups', ...site)
  assert.is(code, 1)
  assert.match(stdout, /^database\/acme-test +61 min old .* TOO OLD$/m)
  assert.is(stdout.match(/TOO OLD/g)?.length, 1)
  assert.match(stdout, '7 sources, 1 without a fresh backup')
  const asJson = await run(operator, 'backups', ...site, '--json')
  assert.is(asJson.code, 1)
  const { sources } = JSON.parse(asJson.stdout) as { sources: { source: string; fresh: boolean; newest: string }[] }
  assert.equal(
    sources.map(({ source }) => source),
    SOURCES,
  )
  const acmeTest = sources.find(({ source }) => source === 'database/acme-test')
  assert.is(acmeTest?.fresh, false)
  assert.ok(old.endsWith(stampOf(new Date(acmeTest?.newest ?? 0))))
  assert.is((await run(operator, 'backups')).code, 0, '26 hours is what the site allows')
})

test('a listing of more than a thousand objects is read to its end', async ({ operator }) => {
  await must(operator, 'backup')
  const filler = `database/aaa/${stampOf(new Date(Date.now() - 72 * HOUR))}` // comes before all others
  const numbers = Array.from({ length: 1001 }, (_, index) => index)
  for (let from = 0; from < numbers.length; from += 50)
    await Promise.all(numbers.slice(from, from + 50).map((number) => put(operator, `${filler}/${number}`, 'x')))
  assert.match(await must(operator, 'backup'), ' 0 changed')
  assert.is((await run(operator, 'backups')).code, 0)
  assert.match(await must(operator, 'prune'), '1 changed')
  assert.equal(await keys(operator, 'database/aaa/'), [], 'all of them were removed')
  assert.equal(await verified(operator), each(1))
})

// --- prune -----------------------------------------------------------------------------

const at = (day: string) => new Date(`${day}T03:00:00.000Z`)
const daysOf = (all: string[]) => all.map((folder) => folder.split('/').at(-1)?.slice(0, 10))

test('prune keeps what the site wants, never fewer than its minimum, and never looks at another customer', async ({
  operator,
}) => {
  await must(operator, 'backup', '--customer', 'zenith')
  await must(operator, 'backup', '--customer', 'acme-test')
  const [zenith = ''] = await folders(operator, 'database/zenith')
  const [acmeTest = ''] = await folders(operator, 'database/acme-test')
  const days = ['2025-01-10', '2025-02-20', '2025-03-03', '2025-03-04', '2025-03-05', '2025-03-06']
  for (const day of days) await copyTo(operator, zenith, at(day))
  await remove(operator, `${zenith}/`)
  // As old, and of another whose name begins alike: too few to go.
  await copyTo(operator, acmeTest, at('2020-01-01'))
  const site = siteWith(operator, (it) => Object.assign(it.backups, { daily: 2, weekly: 0, monthly: 2, minimum: 3 }))
  const before = await keys(operator)

  const plan = await run(operator, 'prune', ...site, '--plan')
  assert.is(plan.code, 2)
  for (const day of ['2025-01-10', '2025-03-03', '2025-03-03'])
    assert.match(plan.stdout, new RegExp(`remove database/zenith/${day}T03-00-00.000Z`))
  assert.match(plan.stdout, '4 stay')
  assert.equal(await keys(operator), before, '--plan removes nothing')

  assert.match(await must(operator, 'prune', ...site), '1 changed')
  assert.equal(daysOf(await folders(operator, 'database/zenith')), [
    '2025-02-20',
    '2025-03-04',
    '2025-03-05',
    '2025-03-06',
  ])
  assert.is((await folders(operator, 'database/acme-test')).length, 2)
  await everyManifestIsTrue(operator, 'what stayed')
  assert.match(await must(operator, 'prune', ...site), ' 0 changed')
})

test('prune of acme leaves acme-test alone, and the other way round', async ({ operator }) => {
  await must(operator, 'backup', '--customer', 'acme-test')
  const [model = ''] = await folders(operator, 'database/acme-test')
  const object = await content(operator, `${model}/dump.zst.age`)
  const told = await manifest(operator, model)
  await remove(operator)
  const make = async (source: string, day: string) => {
    const folder = `${source}/${stampOf(at(day))}`
    await put(operator, `${folder}/dump.zst.age`, object)
    await put(
      operator,
      `${folder}/manifest.json`,
      JSON.stringify({ ...told, source, key: `${folder}/dump.zst.age`, taken_at: at(day).toISOString() }),
    )
  }
  for (const day of ['2025-01-01', '2025-01-02', '2025-01-03']) await make('database/acme', day)
  for (const day of ['2025-02-01', '2025-02-02']) await make('database/acme-test', day)
  const site = siteWith(operator, (it) => Object.assign(it.backups, { daily: 0, weekly: 0, monthly: 0, minimum: 2 }))
  await must(operator, 'prune', ...site)
  assert.equal(daysOf(await folders(operator, 'database/acme')), ['2025-01-02', '2025-01-03'])
  assert.equal(daysOf(await folders(operator, 'database/acme-test')), ['2025-02-01', '2025-02-02'])
})

test('only what was verified counts, and what was never finished goes when it is two days old', async ({
  operator,
}) => {
  await must(operator, 'backup', '--customer', 'zenith')
  const [zenith = ''] = await folders(operator, 'database/zenith')
  const copies: string[] = []
  for (const day of ['2025-03-01', '2025-03-02', '2025-03-03']) copies.push(await copyTo(operator, zenith, at(day)))
  await remove(operator, `${zenith}/`)
  // Newer ones that do not count: an object without its manifest, and a manifest without its object.
  const unfinished = async (hours: number) => {
    const folder = `database/zenith/${stampOf(new Date(Date.now() - hours * HOUR))}`
    await put(operator, `${folder}/dump.zst.age`, 'half')
    return folder
  }
  const old = await unfinished(49)
  const recent = await unfinished(47)
  const bare = `database/zenith/${stampOf(new Date(Date.now() - HOUR))}`
  await put(operator, `${bare}/manifest.json`, JSON.stringify(await manifest(operator, copies[0]!)))

  const site = siteWith(operator, (it) => Object.assign(it.backups, { daily: 1, weekly: 0, monthly: 0, minimum: 3 }))
  await must(operator, 'prune', ...site)
  const left = await folders(operator, 'database/zenith')
  for (const copy of copies) assert.ok(left.includes(copy), `${copy} is one of the last three that count`)
  assert.not.ok(left.includes(old))
  assert.ok(left.includes(recent), 'another run may still be at it')
  const report = JSON.parse((await run(operator, 'backups', '--json')).stdout)
  const line = report.sources.find(({ source }: { source: string }) => source === 'database/zenith')
  assert.is(line.newest, at('2025-03-03').toISOString())
  assert.is(line.verified, 3)
  assert.match((await run(operator, 'restore', 'zenith', '--plan')).stdout, 'restored_zenith_20250303t030000z')
})

test('a prune that Spaces refuses has failed, and the next one finishes it', async ({ operator }) => {
  await must(operator, 'backup', '--customer', 'zenith')
  const [zenith = ''] = await folders(operator, 'database/zenith')
  for (const day of ['2025-03-01', '2025-03-02', '2025-03-03']) await copyTo(operator, zenith, at(day))
  const site = siteWith(operator, (it) => Object.assign(it.backups, { daily: 0, weekly: 0, monthly: 0, minimum: 1 }))
  await plant(operator, { api: 'spaces', method: 'POST', path: '\\?delete' }, { status: 500 })
  assert.is((await run(operator, 'prune', ...site)).code, 1)
  await clearFaults(operator)
  assert.is((await folders(operator, 'database/zenith')).length, 4)
  await must(operator, 'prune', ...site)
  assert.equal(await folders(operator, 'database/zenith'), [zenith])
})

test.run()
