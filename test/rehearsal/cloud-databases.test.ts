// Behind a managed database stands a real server that is as closed and as limited as DigitalOcean's.
import { Resolver } from 'node:dns/promises'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { connect, type TLSSocket } from 'node:tls'
import { Client, type ClientConfig } from 'pg'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { cloudFor, createDatabase, digitalocean, postgresVersion, until } from './cloud.ts'

const test = suite('managed databases')
const subject = cloudFor(test)
const api = (method: string, path: string, body?: unknown) => digitalocean(subject, method, path, body)

type Connection = { uri: string; host: string; port: number; user: string; password: string; database: string }
let cluster: { id: string; connection: Connection; private_connection: Connection }
let ca: string

test.before(async () => {
  cluster = await createDatabase(subject, { name: 'shared', engine: 'pg', version: await postgresVersion(subject) })
  const answer = await api('GET', `/databases/${cluster.id}/ca`)
  ca = Buffer.from(answer.body.ca.certificate, 'base64').toString('utf8')
})

/** Asks one question; as doadmin, on defaultdb, with the CA verified, unless told otherwise. */
async function query(sql: string, config: ClientConfig = {}): Promise<unknown[][]> {
  const { host, port, user, password, database } = cluster.connection
  const client = new Client({ host, port, user, password, database, ssl: { ca }, ...config })
  await client.connect()
  try {
    return (await client.query({ text: sql, rowMode: 'array' })).rows
  } finally {
    await client.end()
  }
}
const message = (attempt: Promise<unknown>) =>
  attempt.then(
    () => 'no error',
    (error: Error) => error.message,
  )

test('the certificate is the CA’s, and is for 127.0.0.1, for localhost and for the private name', async () => {
  assert.match((await query('SELECT version()'))[0]?.[0] as string, /^PostgreSQL/)
  assert.is((await query('SELECT 1', { host: 'localhost' }))[0]?.[0], 1)
  assert.match(await message(query('SELECT 1', { ssl: true })), /certificate/)
  const { connection, private_connection } = cluster
  const host = 'private-shared.db.lunarfront.test'
  assert.equal(private_connection, { ...connection, host, uri: connection.uri.replace('127.0.0.1', host) })
  assert.is((await query('SELECT 1', { ssl: { ca, servername: host } }))[0]?.[0], 1)
  assert.match(await message(query('SELECT 1', { ssl: { ca, servername: 'private.example.com' } })), /altnames/)
  const resolver = new Resolver()
  resolver.setServers([`${subject.cloud.dns.host}:${subject.cloud.dns.port}`])
  assert.equal(await resolver.resolve4(host), ['127.0.0.1'])
})

test('without TLS, with a wrong password, and as postgres nobody comes in', async () => {
  assert.match(await message(query('SELECT 1', { ssl: false })), /no pg_hba.conf entry|no encryption/)
  assert.match(await message(query('SELECT 1', { password: 'wrong' })), /password authentication failed/)
  assert.match(await message(query('SELECT 1', { user: 'postgres' })), /pg_hba.conf rejects/)
  assert.equal(await query('SHOW password_encryption'), [['scram-sha-256']])
})

test('doadmin may create databases and roles, but is no superuser', async () => {
  const sql =
    'SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user'
  assert.equal(await query(sql), [[false, true, true, false, false]])
  assert.match(await message(query("COPY (SELECT 1) TO PROGRAM 'true'")), /permission denied|must be superuser/)
  assert.match(await message(query('ALTER SYSTEM SET work_mem = 1')), /permission denied|must be superuser/)
})

test('defaultdb is doadmin’s; _dodb is open to all, and not doadmin’s to close', async () => {
  const owners = await query(
    'SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE NOT datistemplate ORDER BY 1',
  )
  assert.equal(owners, [
    ['_dodb', 'postgres'],
    ['defaultdb', 'doadmin'],
    ['postgres', 'postgres'],
  ])
  assert.equal(
    await query('SELECT datacl::text FROM pg_database WHERE datname = current_database()', { database: '_dodb' }),
    [[null]],
  )
  await query('REVOKE ALL ON DATABASE _dodb FROM PUBLIC') // answered with a warning
  assert.equal(await query('SELECT 1', { database: '_dodb' }), [[1]])
  assert.match(await message(query('CREATE TABLE t ()', { database: '_dodb' })), /permission denied for schema public/)
  assert.match(await message(query('SELECT 1', { database: 'postgres' })), /permission denied for database/)
})

test('the plan of 1 GB has 22 connections for clients', async () => {
  assert.equal(await query('SHOW max_connections'), [['25']])
  const { host, port, user, password, database } = cluster.connection
  const clients = Array.from({ length: 23 }, () => new Client({ host, port, user, password, database, ssl: { ca } }))
  // One that is refused says so to its connect() and, when the server hangs up, once more.
  for (const client of clients) client.on('error', () => {})
  const connected: Client[] = []
  try {
    let refusal = ''
    for (const client of clients)
      await client.connect().then(
        () => connected.push(client),
        (error: Error) => {
          refusal = error.message
        },
      )
    assert.is(connected.length, 22)
    assert.match(refusal, /remaining connection slots|too many clients/)
  } finally {
    await Promise.all(connected.map((client) => client.end()))
  }
})

test('a bigger plan has more', async () => {
  const bigger = await createDatabase(subject, {
    ...{ name: 'bigger', engine: 'pg', version: await postgresVersion(subject), size: 'db-s-1vcpu-2gb' },
  })
  const { host, port, user, password, database } = bigger.connection
  assert.equal(await query('SHOW max_connections', { host, port, user, password, database }), [['50']])
  assert.is((await api('DELETE', `/databases/${bigger.id}`)).status, 204)
})

test('users and databases of the API are the server’s own', async () => {
  const path = `/databases/${cluster.id}`
  const made = await api('POST', `${path}/users`, { name: 'gitea' })
  assert.equal([made.status, made.body.user.role], [201, 'normal'])
  const { password } = made.body.user
  assert.equal(await query('SELECT current_user', { user: 'gitea', password }), [['gitea']])
  assert.is((await api('POST', `${path}/users`, { name: 'gitea' })).status, 409)
  assert.is((await api('POST', `${path}/users`, { name: 'a"b' })).status, 422)

  assert.is((await api('POST', `${path}/dbs`, { name: 'gitea' })).status, 201)
  assert.is((await api('POST', `${path}/dbs`, { name: 'gitea' })).status, 409)
  assert.equal(await query('SELECT current_database()', { database: 'gitea' }), [['gitea']])
  await query('CREATE DATABASE by_hand')
  const { dbs } = (await api('GET', `${path}/dbs`)).body
  assert.equal(
    dbs.map(({ name }: { name: string }) => name),
    ['defaultdb', 'gitea', 'by_hand'],
  )
  assert.is((await api('GET', `${path}/dbs/by_hand`)).status, 200)
  await query("CREATE ROLE by_hand LOGIN PASSWORD 'x'")
  assert.is((await api('GET', `${path}/users/by_hand`)).body.user.password, '')

  const reset = await api('POST', `${path}/users/gitea/reset_auth`, {})
  assert.match(await message(query('SELECT 1', { user: 'gitea', password })), /password authentication failed/)
  await query('SELECT 1', { user: 'gitea', password: reset.body.user.password })

  assert.is((await api('DELETE', `${path}/dbs/gitea`)).status, 204)
  assert.is((await api('GET', `${path}/dbs/gitea`)).status, 404)
  assert.is((await api('DELETE', `${path}/users/gitea`)).status, 204)
  assert.is((await api('GET', `${path}/users/gitea`)).status, 404)
  assert.is((await api('DELETE', `${path}/users/doadmin`)).status, 422)
})

test('a role of the API cannot create in public, databases or roles', async () => {
  const { password } = (await api('POST', `/databases/${cluster.id}/users`, { name: 'plain' })).body.user
  const as = (sql: string) => message(query(sql, { user: 'plain', password }))
  assert.match(await as('CREATE TABLE t ()'), /permission denied for schema public/)
  assert.match(await as('CREATE DATABASE d'), /permission denied to create database/)
  assert.match(await as('CREATE ROLE r'), /permission denied to create role/)
})

test('what is not offered is refused: redis, unknown versions, sizes and regions, a taken name', async () => {
  const version = await postgresVersion(subject)
  const attempt = (more: Record<string, unknown>) =>
    api('POST', '/databases', {
      ...{ name: 'x-1', engine: 'pg', version, size: 'db-s-1vcpu-1gb', region: 'nyc3', num_nodes: 1 },
      ...more,
    })
  const wrong = [
    [{ engine: 'redis', version: '7' }, /valkey/],
    [{ engine: 'oracle' }, /engine/],
    [{ version: '9' }, /invalid version 9 for engine pg/],
    [{ version: undefined }, /invalid version/],
    [{ size: 'db-huge' }, /size/],
    [{ region: 'mars1' }, /region/],
    [{ name: 'shared' }, /not available/],
    [{ num_nodes: 9 }, /nodes/],
  ] as const
  for (const [more, expected] of wrong) {
    const { status, body } = await attempt(more)
    assert.is(status, 422, JSON.stringify(more))
    assert.match(body.message, expected)
  }
})

test('a cluster grows, never shrinks; its window, rules and settings are kept', async () => {
  const path = `/databases/${cluster.id}`
  assert.is((await api('PUT', `${path}/resize`, { size: 'db-s-1vcpu-2gb', num_nodes: 1 })).status, 202)
  const down = await api('PUT', `${path}/resize`, { size: 'db-s-1vcpu-1gb', num_nodes: 1 })
  assert.equal([down.status, /downsize/.test(down.body.message)], [422, true])
  await until(
    () => api('GET', path),
    ({ body }) => body.database.status === 'online',
  )
  await api('PUT', `${path}/maintenance`, { day: 'Sunday', hour: '03:00' })
  const { database } = (await api('GET', path)).body
  assert.equal([database.maintenance_window.day, database.maintenance_window.hour], ['sunday', '03:00:00'])
  assert.is((await api('PUT', `${path}/maintenance`, { day: 'sunday', hour: 'noon' })).status, 422)

  const rules = [{ type: 'ip_addr', value: '192.0.2.1' }]
  assert.is((await api('PUT', `${path}/firewall`, { rules })).status, 204)
  const [kept] = (await api('GET', `${path}/firewall`)).body.rules
  await api('PUT', `${path}/firewall`, { rules: [...rules, { type: 'tag', value: 'web' }] })
  assert.is((await api('GET', `${path}/firewall`)).body.rules[0].uuid, kept.uuid)
  assert.is((await api('PUT', `${path}/firewall`, { rules: [{ type: 'droplet', value: '1' }] })).status, 422)
  await api('PATCH', `${path}/config`, { config: { timezone: 'UTC' } })
  assert.equal((await api('GET', `${path}/config`)).body.config, { timezone: 'UTC' })
})

/** Speaks Valkey's protocol: sends words, gives the first line of the answer. */
const say = (socket: TLSSocket, ...words: string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    socket.once('data', (data) => resolve(String(data).split('\r\n')[0] ?? ''))
    socket.once('error', reject)
    socket.write(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`)
  })

const open = (port: number, options: object): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ...options }, () => resolve(socket))
    socket.once('error', reject)
  })

test('Valkey: TLS and a password, and no reconfiguring', async () => {
  const valkey = await createDatabase(subject, { name: 'queue', engine: 'valkey', version: '8' })
  const { port, user, password, protocol, uri } = valkey.connection
  assert.equal([user, protocol], ['default', 'rediss'])
  assert.is(uri, `rediss://default:${password}@127.0.0.1:${port}`)
  assert.match(await message(open(port, {})), /certificate/)
  const socket = await open(port, { ca })
  try {
    assert.match(await say(socket, 'PING'), /^-NOAUTH/)
    assert.match(await say(socket, 'AUTH', 'wrong'), /^-WRONGPASS/)
    assert.is(await say(socket, 'AUTH', password), '+OK')
    assert.is(await say(socket, 'SET', 'k', 'v'), '+OK')
    assert.match(await say(socket, 'CONFIG', 'SET', 'maxmemory', '1'), /^-NOPERM/)
    const path = `/databases/${valkey.id}/eviction_policy`
    assert.is((await api('PUT', path, { eviction_policy: 'allkeys_lru' })).status, 204)
    assert.is((await api('GET', path)).body.eviction_policy, 'allkeys_lru')
    assert.match(await info(socket, 'maxmemory_policy'), /allkeys-lru/)
    assert.is((await api('PUT', path, { eviction_policy: 'sometimes' })).status, 422)
  } finally {
    socket.destroy()
  }
  assert.is((await api('DELETE', `/databases/${valkey.id}`)).status, 204)
  assert.match(await message(open(port, { ca })), /ECONNREFUSED/)
})

/** @returns the line of INFO with that name */
const info = (socket: TLSSocket, name: string): Promise<string> =>
  new Promise((resolve) => {
    let text = ''
    const listen = (data: Buffer) => {
      text += String(data)
      const line = text.split('\r\n').find((candidate) => candidate.startsWith(`${name}:`))
      if (line === undefined) return
      socket.off('data', listen)
      resolve(line)
    }
    socket.on('data', listen)
    socket.write('*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n')
  })

function readCommandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return '' // it has ended
  }
}

test('no password stands in a command line', () => {
  const lines = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => readCommandLine(pid))
    .join('\n')
  assert.match(lines, 'postgres', 'no server was seen')
  assert.not.match(lines, new RegExp(cluster.connection.password))
  assert.not.match(lines, new RegExp(subject.cloud.spaces.secret_access_key))
})

test('a deleted cluster’s server is gone', async () => {
  assert.is((await api('DELETE', `/databases/${cluster.id}`)).status, 204)
  assert.match(await message(query('SELECT 1')), /ECONNREFUSED/)
  assert.is((await api('GET', `/databases/${cluster.id}`)).status, 404)
})

test('a server that cannot start is told, not waited for', async () => {
  rmSync(`${subject.directory}/tls/server.key`)
  const version = await postgresVersion(subject)
  const wanted = { name: 'broken', engine: 'pg', version, size: 'db-s-1vcpu-1gb', region: 'nyc3', num_nodes: 1 }
  const { body } = await api('POST', '/databases', wanted)
  const failed = await until(
    () => api('GET', `/databases/${body.database.id}`),
    ({ status }) => status === 500,
  )
  assert.match(failed.body.message, /the server behind broken did not start: .*server\.key/)
})

test.run()
