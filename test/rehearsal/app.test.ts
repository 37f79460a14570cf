// The reference application as it runs in a cluster: one executable, a real Postgres and a real Valkey, both with TLS.
import { spawnSync } from 'node:child_process'
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  APP,
  type AppFiles,
  buildApp,
  installAppModules,
  withCrash,
  withMigration,
} from '../../rehearsal/cluster/app-binary.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import {
  type AppServers,
  ask,
  type Environment,
  type Instance,
  startApp,
  startAppServers,
  stopApps,
} from './app-instance.ts'
import { until } from './cloud.ts'

const machine = thisMachine()
const USER = { email: 'someone@example.com', password: 'correct horse battery staple' }
const MIGRATIONS: number = JSON.parse(readFileSync(join(APP, 'src/migrations/meta/_journal.json'), 'utf8')).entries
  .length
/** rehearsal/app/src/database.ts says so. */
const LOCK = 'SELECT pg_advisory_lock(727001)'

const build = (version: string, files: AppFiles = {}) => buildApp({ version, files }, machine, () => {})

const test = suite('the reference application')
let servers: AppServers
let app: string
let customers = 0

test.before(async () => {
  servers = await startAppServers()
  app = await build('1.2.3')
})
test.after.each(stopApps)
test.after(() => servers?.stop())

/** @returns the name of a customer that has nothing yet, and the environment of its application */
async function newCustomer(): Promise<{ name: string; env: Environment }> {
  const name = `c${++customers}`
  return { name, env: await servers.addCustomer(name, `password-of-${name}`) }
}

const start = (args: string[], env: Environment, executable = app): Instance =>
  startApp(executable, args, env, servers.directory)

const logIn = async (url: string): Promise<string> => (await ask(url, 'POST', '/v1/sessions', USER)).body.token

const migrationRecords = async (customer: string) =>
  Number((await servers.query(customer, 'SELECT count(*) FROM drizzle.__drizzle_migrations'))[0]?.[0])

/** It did not start, and says why on one line. */
async function refused(instance: Instance, expected: RegExp): Promise<void> {
  const { code, stdout, stderr } = await instance.ended
  assert.is(code, 1, stderr)
  assert.match(stderr, expected)
  assert.match(stderr, /^app: .*\n$/)
  assert.is(stdout, '')
  assert.not.match(stderr, /password-of|of-valkey|not-to-be-told/)
}

test('the version is the one that was baked in, and the next one is another executable', async () => {
  const next = await build('1.2.4')
  assert.is.not(next, app)
  assert.is(await build('1.2.4'), next)
  const { env } = await newCustomer()
  for (const [executable, version] of [
    [app, '1.2.3'],
    [next, '1.2.4'],
  ] as const) {
    const url = await start(['serve'], env, executable).listening
    assert.equal(await ask(url, 'GET', '/v1/version'), { status: 200, body: { version } })
    assert.equal(await ask(url, 'GET', '/v1/health'), { status: 200, body: { postgres: 'ok', valkey: 'ok' } })
  }
})

test('three servers that start at once, all that a role has connections for, migrate once, and all answer', async () => {
  const { name, env } = await newCustomer()
  const release = await servers.hold(name, LOCK)
  const all = [start([], env), start([], env), start([], env)]
  const waiting = `SELECT count(*)::int FROM pg_locks JOIN pg_database d ON d.oid = database
    WHERE locktype = 'advisory' AND NOT granted AND datname = 'customer_${name}'`
  await until(
    () => servers.query(name, waiting),
    (rows) => rows[0]?.[0] === 3,
  )
  assert.equal(await servers.query(name, `SELECT to_regclass('users')`), [[null]])
  await release()
  const [one = '', ...others] = await Promise.all(all.map(({ listening }) => listening))
  assert.is(await migrationRecords(name), MIGRATIONS)
  assert.is((await ask(one, 'POST', '/v1/users', USER)).status, 201)
  for (const other of others) assert.is((await ask(other, 'POST', '/v1/users', USER)).status, 409)
})

test('where the role has no connection left, it waits for one', async () => {
  const { name, env } = await newCustomer()
  const release = await servers.occupy(env)
  const instance = start([], env)
  await until(
    async () => readFileSync(servers.postgresLog, 'utf8'),
    (log) => log.includes(`too many connections for role "customer_${name}"`),
  )
  await release()
  await instance.listening
})

test('migrate migrates and ends; twice is a no-op', async () => {
  const { name, env } = await newCustomer()
  const { REDIS_URL: _, JWT_SECRET: __, ...sufficient } = env
  for (const run of ['first', 'second']) {
    const { code, stderr } = await start(['migrate'], sufficient).ended
    assert.equal([code, stderr], [0, ''], run)
    assert.is(await migrationRecords(name), MIGRATIONS)
  }
})

test('a migration that fails is told on one line, and nothing of it is kept', async () => {
  const { name, env } = await newCustomer()
  const url = await start([], env).listening
  await ask(url, 'POST', '/v1/users', USER)
  const failing = await build(
    '1.3.0',
    withMigration(
      'failing',
      'CREATE TABLE half_done ();\n--> statement-breakpoint\nALTER TABLE nothing ADD COLUMN x text;',
    ),
  )
  await refused(start(['migrate'], env, failing), /migration of customer_\w+ failed.*relation "nothing" does not exist/)
  await refused(start([], env, failing), /relation "nothing" does not exist/)
  assert.equal(await servers.query(name, `SELECT to_regclass('half_done')`), [[null]])
  assert.is(await migrationRecords(name), MIGRATIONS)
  assert.ok(await logIn(url)) // the old version goes on
})

test('one that crashes has listened before', async () => {
  const { env } = await newCustomer()
  const instance = start([], env, await build('1.3.1', withCrash(50)))
  await instance.listening
  const { code, stderr } = await instance.ended
  assert.is(code, 1)
  assert.match(stderr, 'crashed')
})

test('what keeps it from starting is told on one line, without a secret', async () => {
  const { env } = await newCustomer()
  const change = (name: string, from: string | RegExp, to: string) => ({ ...env, [name]: env[name]!.replace(from, to) })
  const cases: [Environment, RegExp][] = [
    [change('DATABASE_URL', /password-of-\w+/, 'not-to-be-told'), /password authentication failed for user "customer_/],
    [change('DATABASE_URL', /customer_(\w+)\?/, 'customer_none?'), /database "customer_none" does not exist/],
    [change('DATABASE_URL', /sslmode=.*/, 'sslmode=disable'), /no encryption/],
    [change('DATABASE_URL', /:\d+\//, ':1/'), /of Postgres at 127\.0\.0\.1:1: Failed to connect/],
    [change('DATABASE_URL', 'postgresql', 'mysql'), /DATABASE_URL is not a URL of the form/],
    [{ ...env, CA_CERT: servers.foreignCa }, /Postgres at .* certificate; expected one of the authority in CA_CERT/],
    [change('REDIS_URL', 'of-valkey', 'not-to-be-told'), /Valkey at 127\.0\.0\.1:\d+ cannot be used: WRONGPASS/],
    [change('REDIS_URL', /:\d+$/, ':1'), /Valkey at 127\.0\.0\.1:1 cannot be used: .*ECONNREFUSED/],
    [change('JWT_SECRET', /.*/, 'not-to-be-told'), /JWT_SECRET is shorter/],
  ]
  for (const [environment, expected] of cases) await refused(start([], environment), expected)
  await refused(start(['migrate'], cases[0]![0]), cases[0]![1])
  await refused(start(['sing'], env), /expected one of the commands serve and migrate/)
  // Without an authority of its own the public ones are asked, who do not know this server.
  const { CA_CERT: _, ...withoutCa } = env
  await refused(start([], withoutCa), /Postgres at .* certificate/)
  const required = { ...withoutCa, DATABASE_URL: env.DATABASE_URL!.replace('verify-full', 'require') }
  await refused(start([], required), /Valkey at .* certificate/)
})

test('files where it is started are not read', async () => {
  const { env } = await newCustomer()
  const { JWT_SECRET, ...incomplete } = env
  writeFileSync(join(servers.directory, '.env'), `JWT_SECRET=${JWT_SECRET}\n`)
  await refused(start([], incomplete), /JWT_SECRET is not set/)
})

test('a user survives a restart, and a token is worth nothing under another secret', async () => {
  const { env } = await newCustomer()
  const first = start([], env)
  await ask(await first.listening, 'POST', '/v1/users', USER)
  const token = await logIn(await first.listening)
  await first.stop()
  const me = await ask(await start([], env).listening, 'GET', '/v1/me', undefined, token)
  assert.equal([me.status, me.body.email, me.body.logins], [200, USER.email, 1])
  const url = await start([], { ...env, JWT_SECRET: 'another-'.repeat(6) }).listening
  const answer = await ask(url, 'GET', '/v1/me', undefined, token)
  assert.equal(answer, { status: 401, body: { error: 'the token is not valid' } })
})

test('customers who share a Valkey do not count each other’s logins', async () => {
  const [one, other] = [await newCustomer(), await newCustomer()]
  const urls = [await start([], one.env).listening, await start([], other.env).listening] as const
  await ask(urls[0], 'POST', '/v1/users', USER)
  // The same user, with the same id.
  const [user] = await servers.query(one.name, 'SELECT id, email, password_hash FROM users')
  const values = user!.map((value) => `'${value}'`).join()
  await servers.query(other.name, `INSERT INTO users VALUES (${values})`)
  for (const url of [urls[0], urls[0], urls[1]]) await logIn(url)
  const logins = async (url: string) => (await ask(url, 'GET', '/v1/me', undefined, await logIn(url))).body.logins
  assert.equal([await logins(urls[0]), await logins(urls[1])], [3, 2])
})

test('told to end, it finishes what it does and exits 0; before it listens, it just ends', async () => {
  const { name, env } = await newCustomer()
  const instance = start([], env)
  const url = await instance.listening
  const begun = ask(url, 'POST', '/v1/users', USER)
  await ask(url, 'GET', '/v1/version') // by now the other one has come
  const { code, stdout, stderr } = await instance.stop()
  assert.equal([code, stderr], [0, ''])
  assert.is((await begun).status, 201)
  for (const line of stdout.trim().split('\n')) assert.type(JSON.parse(line).time, 'string')
  assert.not.match(stdout, /someone@|correct horse|eyJ/)

  const release = await servers.hold(name, LOCK)
  for (const command of ['serve', 'migrate']) {
    const waiting = start([command], env)
    const holders = `SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`
    await until(
      () => servers.query(name, holders),
      (rows) => rows[0]?.[0] === 1,
    )
    assert.is((await waiting.stop()).code, 143)
    await until(
      () => servers.query(name, holders),
      (rows) => rows[0]?.[0] === 0,
    )
  }
  await release()
})

test('its own lint and tests pass', async () => {
  const { env } = await newCustomer()
  const copy = join(servers.directory, 'app')
  cpSync(APP, copy, { recursive: true, filter: (path) => !/\/(node_modules|dist)$/.test(path) })
  symlinkSync(await installAppModules(machine, () => {}), join(copy, 'node_modules'))
  for (const script of ['lint', 'test']) {
    const { DATABASE_URL, REDIS_URL, CA_CERT } = env
    const { status, stdout, stderr } = spawnSync('npm', ['run', script], {
      cwd: copy,
      env: { ...process.env, DATABASE_URL, REDIS_URL, CA_CERT },
      encoding: 'utf8',
    })
    assert.is(status, 0, stdout + stderr)
  }
})

test.run()
