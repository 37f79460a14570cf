// add-customer against a rehearsed cloud: what it makes, what stays closed, two at once, pushes in between, the guard.
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { type Server, withPostgres } from '../../lib/postgres.ts'
import { Secret } from '../../lib/secret.ts'
import {
  administrator,
  callsDuring,
  commitByHand,
  digitalocean,
  eventOf,
  everything,
  git,
  must,
  type Operator,
  objects,
  run,
  start,
  startOperator,
  statusesOf,
} from './operator.ts'

/** One rehearsal for all: bootstrapped once, and every test has customers of its own. */
const test = suite<{ operator: Operator }>('add-customer')
test.before(async (context) => {
  context.operator = await startOperator()
  await must(context.operator, 'bootstrap', '--yes')
})
test.after(({ operator }) => operator.down())

const secretsOf = (operator: Operator, customer: string) =>
  JSON.parse(readFileSync(join(operator.kept, 'secrets', `${customer}.json`), 'utf8')) as {
    database_password: string
    jwt_secret: string
  }

/** The server as a customer's role reaches it. */
async function asCustomer(operator: Operator, customer: string, database = `customer_${customer}`): Promise<Server> {
  const password = new Secret(secretsOf(operator, customer).database_password)
  return { ...(await administrator(operator)), user: `customer_${customer}`, password, database }
}

const refused = async (server: Server, sql: string | undefined, message: RegExp) => {
  try {
    await withPostgres(server, async (client) => {
      if (sql) await client.query(sql)
    })
  } catch (error) {
    return assert.match((error as Error).message, message, sql ?? server.database)
  }
  assert.unreachable(`${server.user} was let: ${sql ?? server.database}`)
}

test('everything of a customer is there, and a second run changes nothing', async ({ operator }) => {
  assert.match(await must(operator, 'add-customer', 'acme'), '7 steps: 7 changed')
  const { secretChecksum, ...values } = parse(git(operator, 'show', 'main:gitops/apps/customer-acme/values.yaml'))
  assert.match(secretChecksum, /^[0-9a-f]{64}$/)
  assert.equal(values, {
    customer: 'acme',
    subdomain: 'acme',
    image: { repository: 'registry.lunarfront.test/ryan/lunarfront-app' },
    existingSecret: 'customer-acme',
    env: { NODE_ENV: 'production' },
  })
  const record = (await objects(operator)).cloudflare.dns_records.find(
    ({ name }) => name === 'acme.app.lunarfront.test',
  )
  assert.is(`${record?.type} ${record?.content}`, 'CNAME lb.app.lunarfront.test')
  assert.is(statSync(join(operator.kept, 'secrets', 'acme.json')).mode & 0o777, 0o600)

  const before = {
    head: git(operator, 'rev-parse', 'main'),
    secrets: secretsOf(operator, 'acme'),
    objects: await objects(operator),
  }
  const again = await run(operator, 'add-customer', 'acme')
  assert.is(again.code, 0)
  assert.match(again.stdout, '7 steps: 7 ok, 0 changed')
  assert.equal(
    {
      head: git(operator, 'rev-parse', 'main'),
      secrets: secretsOf(operator, 'acme'),
      objects: await objects(operator),
    },
    before,
  )
  assert.is((await run(operator, 'add-customer', 'acme', '--plan')).code, 0)
})

test('the customer’s own role can do all that its application needs', async ({ operator }) => {
  await must(operator, 'add-customer', 'able')
  await withPostgres(await asCustomer(operator, 'able'), async (client) => {
    await client.query('CREATE TABLE notes (id serial PRIMARY KEY, text text)')
    await client.query("INSERT INTO notes (text) VALUES ('hello')")
    await client.query('CREATE SCHEMA extra; CREATE EXTENSION IF NOT EXISTS pgcrypto')
    const { rows } = await client.query('SELECT text FROM notes')
    assert.equal(rows, [{ text: 'hello' }])
  })
})

test('a customer’s role gets into no other database, and has no power', async ({ operator }) => {
  await must(operator, 'add-customer', 'alpha')
  await must(operator, 'add-customer', 'beta')
  await withPostgres(await asCustomer(operator, 'beta'), (client) =>
    client.query("CREATE TABLE private AS SELECT 'secret of beta' AS it"),
  )
  const denied = /permission denied for database|not currently accepting/
  const { rows } = await withPostgres(await administrator(operator), (client) =>
    client.query<{ datname: string }>(
      "SELECT datname FROM pg_database WHERE datname NOT IN ('customer_alpha', '_dodb', 'template1')",
    ),
  )
  const others = rows.map(({ datname }) => datname)
  for (const name of ['customer_beta', 'defaultdb', 'postgres']) assert.ok(others.includes(name), name)
  for (const name of others) await refused(await asCustomer(operator, 'alpha', name), undefined, denied)
  // These are the provider's: doadmin cannot close them, but nothing can be made there.
  for (const name of ['_dodb', 'template1'])
    await refused(await asCustomer(operator, 'alpha', name), 'CREATE TABLE t ()', /permission denied for schema public/)

  const own = await asCustomer(operator, 'alpha')
  // Within a session of the administrator's, for pg_terminate_backend to aim at.
  for (const [sql, message] of [
    ['CREATE DATABASE mine', /permission denied to create database/],
    ['CREATE ROLE mine', /permission denied to create role/],
    ['ALTER ROLE customer_alpha CREATEDB', /permission denied|must be/],
    ['ALTER ROLE customer_alpha CONNECTION LIMIT 100', /permission denied|must be/],
    ['SET ROLE customer_beta', /permission denied to set role/],
    ['SET ROLE doadmin', /permission denied to set role/],
    ['SET SESSION AUTHORIZATION customer_beta', /permission denied/],
    ['GRANT customer_beta TO customer_alpha', /must have admin option|permission denied/],
    ['DROP DATABASE customer_beta', /must be owner/],
    ['ALTER DATABASE customer_beta OWNER TO customer_alpha', /must be owner/],
    ['ALTER DATABASE customer_beta RENAME TO x', /must be owner/],
    ['GRANT CONNECT ON DATABASE customer_beta TO customer_alpha', /permission denied|no privileges were granted/],
    ['CREATE EXTENSION dblink', /permission denied to create extension|not available|could not open/],
    ['CREATE EXTENSION postgres_fdw', /permission denied to create extension|not available|could not open/],
    ['CREATE EXTENSION adminpack', /permission denied to create extension|not available|could not open/],
    ["COPY (SELECT 1) TO PROGRAM 'id'", /permission denied|must be superuser/],
    ["COPY (SELECT 1) TO '/tmp/lunarfront-test'", /permission denied|must be superuser/],
    ["SELECT pg_read_file('postgresql.conf')", /permission denied/],
    ["SELECT pg_ls_dir('.')", /permission denied/],
    ["SELECT lo_import('/etc/passwd')", /permission denied|must be superuser/],
    ['SELECT rolpassword FROM pg_authid', /permission denied/],
    ['SELECT passwd FROM pg_shadow', /permission denied/],
    ['SELECT * FROM pg_hba_file_rules', /permission denied/],
    [
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'doadmin'",
      /must be a (member|superuser)|permission denied/,
    ],
    ["CREATE SUBSCRIPTION s CONNECTION 'host=localhost' PUBLICATION p", /must be superuser|permission denied/],
    ["ALTER SYSTEM SET log_statement = 'all'", /permission denied|must be superuser/],
    ['CREATE FUNCTION f() RETURNS int LANGUAGE c AS $$x$$', /permission denied/],
    ['CREATE LANGUAGE plpython3u', /must be superuser|permission denied|not available|could not open/],
  ] as const)
    await withPostgres(await administrator(operator), () => refused(own, sql, message))
  const { rows: queries } = await withPostgres(own, (client) =>
    client.query<{ query: string }>(
      "SELECT query FROM pg_stat_activity WHERE usename <> 'customer_alpha' AND query <> '<insufficient privilege>' AND query <> ''",
    ),
  )
  assert.equal(queries, [], 'it sees what others ask')
})

test('the connection limit holds', async ({ operator }) => {
  await must(operator, 'add-customer', 'crowd')
  const server = await asCustomer(operator, 'crowd')
  const clients: pg.Client[] = []
  try {
    for (let count = 0; count < 5; count++) {
      const client = new pg.Client({ ...server, password: server.password.reveal(), ssl: { ca: server.ca } })
      await client.connect()
      clients.push(client)
    }
    await refused(server, undefined, /too many connections for role/)
    assert.match(await must(operator, 'add-customer', 'crowd'), '7 ok, 0 changed')
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
})

test('what somebody loosened by hand is tightened again', async ({ operator }) => {
  await must(operator, 'add-customer', 'loose')
  await must(operator, 'add-customer', 'guest')
  await withPostgres(await administrator(operator), async (client) => {
    await client.query('ALTER ROLE customer_loose CREATEDB CONNECTION LIMIT 20')
    await client.query('GRANT CONNECT ON DATABASE customer_loose TO PUBLIC')
    await client.query('GRANT customer_guest TO customer_loose')
    await client.query("ALTER ROLE customer_loose PASSWORD 'changed-by-hand'")
    await client.query('CREATE ROLE reader; GRANT customer_loose TO reader')
    await client.query('GRANT CONNECT ON DATABASE customer_guest TO PUBLIC')
    await client.query('CREATE DATABASE by_hand')
  })
  assert.match(await must(operator, 'add-customer', 'loose'), '3 ok, 4 changed')
  await withPostgres(await administrator(operator), async (client) => {
    const { rows } = await client.query("SELECT pg_has_role('reader', 'customer_loose', 'MEMBER') AS member")
    assert.equal(rows, [{ member: false }])
  })
  for (const name of ['customer_guest', 'by_hand'])
    await refused(await asCustomer(operator, 'loose', name), undefined, /permission denied for database/)
  await refused(await asCustomer(operator, 'guest', 'customer_loose'), undefined, /permission denied for database/)
  await refused(await asCustomer(operator, 'loose'), 'SET ROLE customer_guest', /permission denied/)
  await refused(await asCustomer(operator, 'loose'), 'CREATE DATABASE mine', /permission denied/)
})

test('a lost secrets file is made anew, and the role follows it', async ({ operator }) => {
  await must(operator, 'add-customer', 'lost')
  const before = secretsOf(operator, 'lost')
  rmSync(join(operator.kept, 'secrets', 'lost.json'))
  await must(operator, 'add-customer', 'lost', '--new-secrets')
  assert.is.not(secretsOf(operator, 'lost').database_password, before.database_password)
  await withPostgres(await asCustomer(operator, 'lost'), (client) => client.query('SELECT 1'))
})

test('a damaged secrets file is not overwritten', async ({ operator }) => {
  mkdirSync(join(operator.kept, 'secrets'), { recursive: true })
  writeFileSync(join(operator.kept, 'secrets', 'damaged.json'), '{"database_password": "')
  const { code, stdout } = await run(operator, 'add-customer', 'damaged')
  assert.is(code, 1)
  assert.match(stdout, 'is not a file of secrets')
  assert.is(readFileSync(join(operator.kept, 'secrets', 'damaged.json'), 'utf8'), '{"database_password": "')
})

/** Every push waits from now on. @returns how to let them go on */
function holdPushes(operator: Operator): () => void {
  const hook = join(operator.repository, 'hooks', 'pre-receive')
  writeFileSync(hook, '#!/bin/sh\nwhile [ -e hooks/pre-receive ]; do sleep 0.05; done\n')
  chmodSync(hook, 0o755)
  return () => rmSync(hook, { force: true })
}

/** Starts both, the second while the first has the lock. @returns how they ended, and whom the second waited for */
async function bothAtOnce(operator: Operator, first: string, second: string) {
  const release = holdPushes(operator)
  try {
    const one = start(operator, 'add-customer', first, '--json')
    await eventOf(one, ({ event }) => event === 'step drifted') // nothing is applied without the lock
    const two = start(operator, 'add-customer', second, '--json')
    const waiting = await eventOf(two, ({ event }) => event === 'lock waiting')
    release()
    return { waiting, results: await Promise.all([one.ended, two.ended]) }
  } finally {
    release()
  }
}

test('two at once for one name: one of everything, and the second finds it done', async ({ operator }) => {
  const { results } = await bothAtOnce(operator, 'twice', 'twice')
  for (const { code, stdout } of results) assert.is(code, 0, stdout)
  assert.equal(Object.values(statusesOf(results[1]!)), Array(7).fill('ok'))
  assert.is(git(operator, 'log', '--oneline', '--', 'gitops/apps/customer-twice').trim().split('\n').length, 1)
  const { dns_records } = (await objects(operator)).cloudflare
  assert.is(dns_records.filter(({ name }) => name === 'twice.app.lunarfront.test').length, 1)
  await withPostgres(await asCustomer(operator, 'twice'), (client) => client.query('SELECT 1'))
})

test('two at once for two names: nothing of either is lost, and the second says whom it waits for', async ({
  operator,
}) => {
  const { waiting, results } = await bothAtOnce(operator, 'left', 'right')
  for (const { code, stdout } of results) assert.is(code, 0, stdout)
  assert.match(
    waiting.event === 'lock waiting' ? waiting.holder : '',
    /^.*@.*, running add-customer left since .* \(process \d+\)$/,
  )
  for (const name of ['left', 'right']) {
    git(operator, 'show', `main:gitops/apps/customer-${name}/values.yaml`)
    assert.ok(
      (await objects(operator)).cloudflare.dns_records.some((record) => record.name === `${name}.app.lunarfront.test`),
    )
    await withPostgres(await asCustomer(operator, name), (client) => client.query('SELECT 1'))
  }
})

test('who does not want to wait is told who holds the lock, with exit 75', async ({ operator }) => {
  const release = holdPushes(operator)
  try {
    const one = start(operator, 'add-customer', 'one', '--json')
    await eventOf(one, ({ event }) => event === 'step drifted')
    const two = await run(operator, 'add-customer', 'two', '--wait', '0')
    assert.is(two.code, 75, two.stdout)
    assert.match(two.stderr, /^error: the site is locked by .*running add-customer one since/)
    assert.not.ok(existsSync(join(operator.kept, 'secrets', 'two.json')))
    release()
    assert.is((await one.ended).code, 0)
  } finally {
    release()
  }
  await must(operator, 'add-customer', 'two')
})

test('a push in between is taken in, not overwritten', async ({ operator }) => {
  // The hook commits something else to main while our push is under way, once.
  const hook = join(operator.repository, 'hooks', 'pre-receive')
  writeFileSync(
    hook,
    `#!/bin/sh
[ -e "$GIT_DIR/pushed-in-between" ] && exit 0
touch "$GIT_DIR/pushed-in-between"
unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
commit=$(git -c user.name=other -c user.email=other@example.org commit-tree "main^{tree}" -p main -m "somebody else's")
git update-ref refs/heads/main "$commit"
`,
  )
  chmodSync(hook, 0o755)
  try {
    await must(operator, 'add-customer', 'between')
  } finally {
    rmSync(hook)
  }
  assert.ok(existsSync(join(operator.repository, 'pushed-in-between')), 'the hook did not run')
  const log = git(operator, 'log', '--format=%s', '-3', 'main')
  assert.match(log, "somebody else's")
  assert.match(log, 'Add customer between')
})

test('a repository that refuses every push is told, with what it said', async ({ operator }) => {
  const hook = join(operator.repository, 'hooks', 'pre-receive')
  writeFileSync(hook, '#!/bin/sh\necho branch is protected >&2\nexit 1\n')
  chmodSync(hook, 0o755)
  try {
    const { code, stdout } = await run(operator, 'add-customer', 'closed')
    assert.is(code, 1)
    assert.match(stdout, 'the push of gitops/apps/customer-closed/values.yaml was refused 8 times: [remote rejected]')
  } finally {
    rmSync(hook)
  }
  await must(operator, 'add-customer', 'closed')
})

test('a drift that is not the customer’s is refused with the list, and left alone', async ({ operator }) => {
  const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as {
    databases: { id: string; name: string }[]
  }
  const { id } = databases.find(({ name }) => name === 'lunarfront-postgres')!
  const resize = (size: string) => digitalocean(operator, 'PUT', `/v2/databases/${id}/resize`, { size, num_nodes: 1 })
  await resize('db-s-1vcpu-2gb')
  const { code, stdout } = await run(operator, 'add-customer', 'guarded')
  assert.is(code, 1)
  assert.match(
    stdout,
    'Terraform’s plan would touch what add-customer may not: update digitalocean_database_cluster.postgres (size',
  )
  assert.not.match(stdout, 'create cloudflare_dns_record.customer["guarded"];')
  const { dns_records } = (await objects(operator)).cloudflare
  assert.not.ok(dns_records.some(({ name }) => name.startsWith('guarded.')))
  // A database cannot be made smaller again, so its owner takes the bigger one: the site file says so from now on.
  const site = readFileSync(operator.siteFile, 'utf8')
  writeFileSync(operator.siteFile, site.replace(/terraform:\n/, 'terraform:\n  postgres_size: db-s-1vcpu-2gb\n'))
  await must(operator, 'add-customer', 'guarded')
})

test('--plan shows what is missing, says what it cannot know, and writes nothing', async ({ operator }) => {
  const before = await everything(operator)
  const { calls, writes } = await callsDuring(operator, async () => {
    const { code, stdout } = await run(operator, 'add-customer', 'planned', '--plan')
    assert.is(code, 2, stdout)
    assert.match(stdout, 'CREATE ROLE "customer_planned"')
    assert.match(stdout, 'CREATE DATABASE "customer_planned"')
    assert.match(stdout, /unknown +planned\.app\.lunarfront\.test is in DNS +unknown until applied/)
  })
  assert.ok(calls.length > 0)
  assert.equal(writes, [])
  assert.equal(await everything(operator), before)
})

test('whose values file has its secrets from elsewhere is refused, also with --new-secrets: its password stays', async ({
  operator,
}) => {
  await must(operator, 'add-customer', 'moved')
  const kept = async () => ({
    head: git(operator, 'rev-parse', 'main'),
    secrets: existsSync(join(operator.kept, 'secrets', 'moved.json')),
    objects: await objects(operator),
  })
  const server = await asCustomer(operator, 'moved')
  rmSync(join(operator.kept, 'secrets', 'moved.json'))
  const before = await kept()
  for (const [line, told] of [
    ['', 'moved has its secrets from gitops/apps/customer-moved/values.yaml itself'],
    ['existingSecret: vault\n', 'moved has its secrets from the Secret vault'],
  ] as const) {
    const undo = commitByHand(operator, (clone) => {
      const file = join(clone, 'gitops', 'apps', 'customer-moved', 'values.yaml')
      writeFileSync(file, readFileSync(file, 'utf8').replace(/^(existingSecret|secretChecksum):.*\n/gm, '') + line)
    })
    for (const more of [[], ['--new-secrets']]) {
      const { code, stdout } = await run(operator, 'add-customer', 'moved', ...more)
      assert.is(code, 1, stdout)
      assert.match(stdout, told)
      assert.match(stdout, 'existingSecret: customer-moved, the one that add-customer makes')
    }
    undo()
  }
  assert.equal(await kept(), before)
  await withPostgres(server, (client) => client.query('SELECT 1'))
})

test('a pinned customer carries its tag; the fleet’s list shows every customer', async ({ operator }) => {
  await must(operator, 'add-customer', 'pinned', '--tag', 'abc123')
  assert.is(parse(git(operator, 'show', 'main:gitops/apps/customer-pinned/values.yaml')).image.tag, 'abc123')
  const other = await run(operator, 'add-customer', 'pinned', '--tag', 'other')
  assert.is(other.code, 64)
  assert.match(other.stdout, 'has the image tag abc123')
  const table = await must(operator, 'list-customers')
  assert.match(table, /^pinned +https:\/\/pinned\.app\.lunarfront\.test +abc123 +customer_pinned +[\d.]+ MiB +\d+$/m)
  const members = JSON.parse(await must(operator, 'list-customers', '--json')) as {
    customer: string
    tag: string | null
  }[]
  assert.equal(members.find(({ customer }) => customer === 'pinned')?.tag, 'abc123')
  assert.equal(
    members.map(({ customer }) => customer),
    [...members.map(({ customer }) => customer)].sort(),
  )
})

test('before bootstrap it says so, and touches nothing', async () => {
  const empty = await startOperator()
  try {
    const { code, stdout } = await run(empty, 'add-customer', 'acme')
    assert.is(code, 1)
    assert.match(stdout, 'the infrastructure of lunarfront is not there')
    assert.match(stdout, 'next: ./runbooks/bootstrap.mts')
    assert.not.ok(existsSync(join(empty.kept, 'secrets')))
  } finally {
    await empty.down()
  }
})

test.run()
