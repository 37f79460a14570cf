// For tests of the reference application: the servers that it needs, customers on them, and processes of its executable.
import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Client, type ClientConfig } from 'pg'
import { createAuthority, issueCertificate, LOOPBACK } from '../../rehearsal/servers/certificates.ts'
import { type Postgres, startPostgres } from '../../rehearsal/servers/postgres.ts'
import { startValkey, type Valkey } from '../../rehearsal/servers/valkey.ts'
import { allTools } from './cloud.ts'

export type Environment = Record<string, string>

/** Of a customer’s role, as lunarfront.example.yaml has it. */
const CONNECTIONS = 5

export type AppServers = {
  /** where the executables run; empty */
  directory: string
  /** a certificate authority that has nothing to do with these servers */
  foreignCa: string
  /** Makes a customer’s role and database, as add-customer does. @returns the environment of its application */
  addCustomer: (name: string, password: string) => Promise<Environment>
  /** @returns what a statement answers in a customer’s database */
  query: (customer: string, sql: string) => Promise<unknown[][]>
  /** Holds what a statement takes, such as a lock, in a customer’s database. @returns what lets it go */
  hold: (customer: string, sql: string) => Promise<() => Promise<void>>
  /** Takes every connection that the customer’s role may have. @returns what lets them go */
  occupy: (environment: Environment) => Promise<() => Promise<void>>
  postgresLog: string
  stop: () => Promise<void>
}

/** @returns a Postgres and a Valkey, both with TLS only */
export async function startAppServers(): Promise<AppServers> {
  const tools = await allTools()
  const directory = mkdtempSync(join(tmpdir(), 'app-test-'))
  const runtime = mkdtempSync('/tmp/lunarfront-') // sockets need short paths
  chmodSync(runtime, 0o711)
  const started: { stop: () => Promise<void> }[] = []
  const stop = async () => {
    for (const server of started) await server.stop()
    for (const folder of [runtime, directory]) rmSync(folder, { recursive: true, force: true })
  }
  try {
    const authority = await createAuthority(join(directory, 'ca'), tools.openssl)
    const foreign = await createAuthority(join(directory, 'foreign-ca'), tools.openssl)
    const certificate = await issueCertificate(authority, join(directory, 'tls'), LOOPBACK)
    const common = { directory, certificate, memory: 1 }
    const postgres: Postgres = await startPostgres({
      from: '127.0.0.1',
      ...common,
      ...{ name: 'postgres', runtime, binaries: tools.postgres, password: 'of-doadmin' },
    })
    started.push(postgres)
    const valkey: Valkey = await startValkey({
      ...common,
      ...{ name: 'valkey', binary: tools.valkey, authority, password: 'of-valkey' },
    })
    started.push(valkey)
    const work = join(directory, 'work')
    mkdirSync(work)

    const connect = async (config: ClientConfig) => {
      const doadmin = { host: '127.0.0.1', port: postgres.port, user: 'doadmin', password: 'of-doadmin' }
      const client = new Client({ ...doadmin, ssl: { ca: authority.pem }, ...config })
      client.on('error', () => {}) // a test that failed did not let go
      await client.connect()
      return client
    }
    const query = async (database: string, sql: string) => {
      const client = await connect({ database })
      try {
        return (await client.query({ text: sql, rowMode: 'array' })).rows as unknown[][]
      } finally {
        await client.end()
      }
    }
    const addCustomer = async (name: string, password: string): Promise<Environment> => {
      const id = `customer_${name}`
      for (const statement of [
        `CREATE ROLE ${id} LOGIN PASSWORD '${password}' NOCREATEDB NOCREATEROLE CONNECTION LIMIT ${CONNECTIONS}`,
        `GRANT ${id} TO doadmin`,
        `CREATE DATABASE ${id} OWNER ${id}`,
        `REVOKE CONNECT ON DATABASE ${id} FROM PUBLIC`,
      ])
        await query('defaultdb', statement)
      return {
        DATABASE_URL: `postgresql://${id}:${password}@127.0.0.1:${postgres.port}/${id}?sslmode=verify-full`,
        REDIS_URL: `rediss://default:of-valkey@127.0.0.1:${valkey.port}`,
        CA_CERT: authority.pem,
        JWT_SECRET: `${name}-`.repeat(40).slice(0, 43),
        NODE_ENV: 'production',
        HOST: '127.0.0.1',
        PORT: '0',
      }
    }
    const hold = async (customer: string, sql: string) => {
      const client = await connect({ database: `customer_${customer}` })
      await client.query(sql)
      return () => client.end()
    }
    const occupy = async ({ DATABASE_URL = '' }: Environment) => {
      const { username, password, pathname } = new URL(DATABASE_URL)
      const role = { user: username, password, database: pathname.slice(1) }
      const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => connect(role)))
      return async () => void (await Promise.all(clients.map((client) => client.end())))
    }
    return {
      directory: work,
      foreignCa: foreign.pem,
      addCustomer,
      query: (customer, sql) => query(`customer_${customer}`, sql),
      hold,
      occupy,
      postgresLog: postgres.server.log,
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

export type Ended = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }

export type Instance = {
  /** @returns the base address, once it listens; rejects with its output where it ends instead */
  listening: Promise<string>
  ended: Promise<Ended>
  /** Sends the signal. @returns how it ended */
  stop: (signal?: NodeJS.Signals) => Promise<Ended>
}

const running = new Set<Instance>()

/** Starts the executable with this environment and no other. */
export function startApp(executable: string, args: string[], env: Environment, cwd: string): Instance {
  const child = spawn(executable, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      running.delete(instance)
      resolve({ code, signal, ...output })
    })
  })
  const listening = new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      output.stdout += chunk
      const port = /"listening","port":(\d+)/.exec(output.stdout)?.[1]
      if (port) resolve(`http://127.0.0.1:${port}`)
    })
    ended.then(({ code, signal, stderr }) => reject(new Error(`it ended with ${code ?? signal}: ${stderr}`)), reject)
  })
  listening.catch(() => {}) // not everybody waits for it
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    output.stderr += chunk
  })
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal)
    return ended
  }
  const instance = { listening, ended, stop }
  running.add(instance)
  return instance
}

/** Ends all that a test left running. */
export async function stopApps(): Promise<void> {
  await Promise.all([...running].map((instance) => instance.stop('SIGKILL')))
}

/** An answer of the application. */
// biome-ignore lint/suspicious/noExplicitAny: a test reads answers of many shapes
export type Answer = { status: number; body: any }

export async function ask(url: string, method: string, path: string, body?: unknown, token?: string): Promise<Answer> {
  const response = await fetch(url + path, {
    method,
    ...(token ? { headers: { authorization: `Bearer ${token}` } } : {}),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return { status: response.status, body: await response.json() }
}
