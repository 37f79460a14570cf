// A managed Postgres: a real server with TLS only, as DigitalOcean sets one up for a customer.
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { Client, escapeIdentifier, escapeLiteral } from 'pg'
import type { Certificate } from './certificates.ts'
import { freePort } from './ports.ts'
import { type Server, startServer, waitUntil } from './processes.ts'

const run = promisify(execFile)

export type PostgresOptions = {
  /** The cloud's directory, for the pid file and the log. */
  directory: string
  /** A short folder that the server's user can reach: its data and its socket (107 bytes at most) go there. */
  runtime: string
  name: string
  /** The folder of initdb and postgres. */
  binaries: string
  certificate: Certificate
  password: string
  /** Of the plan, in GiB: DigitalOcean allows 25 connections for each, 3 of them for itself. */
  memory: number
  /** the address from which clients are let in; superusers are not, but for those on the socket */
  from: string
}

export type Postgres = {
  server: Server
  port: number
  createRole: (name: string, password: string) => Promise<void>
  setPassword: (name: string, password: string) => Promise<void>
  dropRole: (name: string) => Promise<void>
  createDatabase: (name: string) => Promise<void>
  dropDatabase: (name: string) => Promise<void>
  /** @returns the roles that may log in, DigitalOcean's own left out */
  roles: () => Promise<string[]>
  /** @returns the databases, DigitalOcean's own left out */
  databases: () => Promise<string[]>
  stop: () => Promise<void>
}

/**
 * What a new managed cluster holds. Statements run one by one in single-user mode.
 * doadmin gets its password when the cluster is made, because this is made once and copied.
 */
const CONTENT = `
CREATE ROLE doadmin LOGIN CREATEDB CREATEROLE;
CREATE DATABASE _dodb;
REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;
CREATE DATABASE defaultdb OWNER doadmin;
`
const INITDB = ['--username=postgres', '--auth=reject', '--encoding=UTF8', '--locale=C.UTF-8', '--no-sync']

/** Postgres refuses to run as root. */
const serverUser = () => (process.getuid?.() === 0 ? 'postgres' : undefined)

const asServerUser = (command: string[]): [string, string[]] => {
  const user = serverUser()
  const [program = '', ...args] = user ? ['runuser', '-u', user, '--', ...command] : command
  return [program, args]
}

async function giveToServerUser(...paths: string[]): Promise<void> {
  const user = serverUser()
  if (user) await run('chown', ['-R', `${user}:`, ...paths])
}

/** @returns the folders of the Postgres binaries by major version: the one given, and its siblings as Debian installs them */
export async function installedVersions(binaries: string): Promise<Record<string, string>> {
  const siblings = /\/\d+\/bin\/?$/.test(binaries)
    ? (await readdir(dirname(dirname(binaries)))).map((version) => join(dirname(dirname(binaries)), version, 'bin'))
    : []
  const found: Record<string, string> = {}
  for (const folder of [...siblings.filter((folder) => existsSync(join(folder, 'postgres'))), binaries]) {
    const { stdout } = await run(join(folder, 'postgres'), ['--version'])
    const major = /\(PostgreSQL\) (\d+)/.exec(stdout)?.[1]
    if (major) found[major] = folder
  }
  return found
}

/**
 * The data directory that every cluster starts as a copy of. Made once and kept outside the checkout, under a
 * name that changes with whatever it is made from.
 * @returns its path
 */
async function template(binaries: string, runtime: string): Promise<string> {
  const { stdout: version } = await run(join(binaries, 'postgres'), ['--version'])
  const key = createHash('sha256')
    .update([version, CONTENT, ...INITDB, serverUser() ?? ''].join('\n'))
    .digest('hex')
    .slice(0, 16)
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lunarfront')
  const kept = join(cache, `postgres-${key}`)
  if (existsSync(kept)) return kept

  const made = join(runtime, `template-${randomBytes(4).toString('hex')}`)
  await mkdir(made, { mode: 0o700 })
  await giveToServerUser(made)
  await run(...asServerUser([join(binaries, 'initdb'), ...INITDB, '-D', made]))
  const single = execFile(...asServerUser([join(binaries, 'postgres'), '--single', '-j', '-D', made, 'postgres']))
  const finished = new Promise<number | null>((resolve) => single.once('exit', resolve))
  let output = ''
  single.stderr?.on('data', (chunk: string) => {
    output += chunk
  })
  // -j: a statement ends at a semicolon and an empty line.
  single.stdin?.end(CONTENT.trim().replaceAll(';\n', ';\n\n') + '\n')
  if ((await finished) !== 0 || /ERROR|FATAL/.test(output))
    throw new Error(`Postgres could not be prepared with ${binaries}: ${output.trim().split('\n').slice(-5).join(' ')}`)

  await mkdir(cache, { recursive: true, mode: 0o700 })
  const copy = `${kept}.${randomBytes(4).toString('hex')}`
  await run('cp', ['-a', made, copy])
  await rm(made, { recursive: true })
  await rename(copy, kept).catch(() => rm(copy, { recursive: true })) // another cloud was quicker
  return kept
}

/** Nothing here has to survive a power cut, so nothing waits for the disk. */
const settings = (port: number, socket: string, memory: number) => `
listen_addresses = '127.0.0.1'
port = ${port}
unix_socket_directories = '${socket}'
max_connections = ${Math.round(25 * memory)}
superuser_reserved_connections = 3
password_encryption = scram-sha-256
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_min_protocol_version = 'TLSv1.2'
shared_buffers = 32MB
fsync = off
synchronous_commit = off
full_page_writes = off
timezone = 'UTC'
`

/** The socket is in a folder that only the server's user and root can enter, hence trust. */
const access = (from: string) => `
local   all postgres           trust
hostssl all postgres all       reject
hostssl all all      ${from}/32 scram-sha-256
`

/** Starts a cluster on a free port; resolves when it accepts connections. */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const { directory, runtime, name, binaries, certificate, password, memory } = options
  const kept = await template(binaries, runtime)
  const home = join(runtime, name)
  await mkdir(home, { mode: 0o700 })
  const data = join(home, 'data')
  await run('cp', ['-a', kept, data])
  await copyFile(certificate.certificate, join(data, 'server.crt'))
  await copyFile(certificate.key, join(data, 'server.key'))
  await chmod(join(data, 'server.key'), 0o600)
  await writeFile(join(data, 'pg_hba.conf'), access(options.from))
  await giveToServerUser(home)

  // The port can be taken between asking for it and listening on it.
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    await writeFile(join(data, 'postgresql.auto.conf'), settings(port, home, memory))
    const server = startServer({
      directory,
      name,
      user: serverUser(),
      stopSignal: 'SIGINT',
      command: [join(binaries, 'postgres'), '-D', data],
    })
    try {
      await waitUntil(() => answers(home, port), server, 20_000)
      await sql(home, port, `ALTER ROLE doadmin PASSWORD ${escapeLiteral(password)}`)
      return control(server, home, port)
    } catch (error) {
      await server.stop()
      if (attempt === 3) throw error
    }
  }
}

async function sql(socket: string, port: number, text: string, database = 'postgres'): Promise<string[]> {
  const client = new Client({ host: socket, port, user: 'postgres', database })
  await client.connect()
  try {
    const { rows } = await client.query<{ name: string }>(text)
    return rows.map((row) => row.name)
  } finally {
    await client.end()
  }
}

const answers = (socket: string, port: number) =>
  sql(socket, port, 'SELECT 1').then(
    () => true,
    () => false,
  )

function control(server: Server, home: string, port: number): Postgres {
  const query = (text: string) => sql(home, port, text)
  const change = async (text: string) => void (await query(text))
  const role = escapeIdentifier
  return {
    server,
    port,
    createRole: (name, password) => change(`CREATE ROLE ${role(name)} LOGIN PASSWORD ${escapeLiteral(password)}`),
    setPassword: (name, password) => change(`ALTER ROLE ${role(name)} PASSWORD ${escapeLiteral(password)}`),
    dropRole: (name) => change(`DROP ROLE ${role(name)}`),
    createDatabase: (name) => change(`CREATE DATABASE ${role(name)} OWNER doadmin`),
    dropDatabase: (name) => change(`DROP DATABASE ${role(name)} WITH (FORCE)`),
    roles: () => query(`SELECT rolname AS name FROM pg_roles WHERE rolcanlogin AND rolname <> 'postgres' ORDER BY oid`),
    databases: () =>
      query(`SELECT datname AS name FROM pg_database
             WHERE NOT datistemplate AND datname NOT IN ('postgres', '_dodb') ORDER BY oid`),
    stop: async () => {
      await server.stop()
      await rm(home, { recursive: true, force: true })
    },
  }
}
