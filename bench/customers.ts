// What the benches of backups run against: a rehearsal with customers whose databases are filled, and its S3 server by
// itself, without the front that makes Spaces of it.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parse } from 'yaml'
import { type Server, withPostgres } from '../lib/postgres.ts'
import { Secret } from '../lib/secret.ts'
import { ROOT } from '../lib/site.ts'
import { withoutCluster } from '../rehearsal/extent.ts'
import { freePort } from '../rehearsal/servers/ports.ts'
import { repositoryDirectory, siteDirectoryOf, startRehearsal } from '../rehearsal/site.ts'
import { installTools } from '../rehearsal/tools.ts'

/** Rows of some 170 bytes, of which 130 are random, for a database of one megabyte. */
const ROWS_PER_MEGABYTE = 5_500

export type Fleet = {
  directory: string
  env: Record<string, string>
  site: { buckets: { backups: string }; backups: { recipients: string[] } }
  server: Server
  /** their databases' names */
  databases: string[]
  down: () => Promise<void>
}

/** @param megabytes sizes of the databases, of the customers bench-1, bench-2 and so on */
export async function startFleet(megabytes: readonly number[]): Promise<Fleet> {
  const directory = mkdtempSync(join(tmpdir(), 'lunarfront-bench-'))
  const { env, siteFile, down } = await startRehearsal({ directory })
  process.env.PGHOSTADDR = env.PGHOSTADDR // the bench looks into its databases itself
  let s3: ChildProcess | undefined
  const end = async () => {
    s3?.kill()
    await down()
    rmSync(directory, { recursive: true, force: true })
  }
  try {
    const runbook = (name: string, ...args: string[]) =>
      execFileSync(join(ROOT, 'runbooks', `${name}.mts`), [...args, ...withoutCluster(name)], {
        cwd: ROOT,
        env,
        stdio: ['ignore', 'inherit', 'inherit'],
      })
    runbook('bootstrap', '--yes')
    s3 = await startS3(directory, env)
    const server = administrator(directory, env)
    const customers = megabytes.map((_, index) => `bench-${index + 1}`)
    const databases = customers.map((customer) => `customer_${customer.replaceAll('-', '_')}`)
    await fill(server, databases, megabytes)
    publish(directory, customers)
    runbook('list-customers') // Terraform has met the other address
    return { directory, env, site: parse(readFileSync(siteFile, 'utf8')), server, databases, down: end }
  } catch (error) {
    await end()
    throw error
  }
}

async function startS3(directory: string, env: Record<string, string>): Promise<ChildProcess> {
  const { versitygw } = await installTools(console.log)
  const home = join(directory, 'cloud', 'spaces')
  const port = await freePort()
  const child = spawn(
    versitygw,
    [
      ...['--port', `127.0.0.1:${port}`, '--region', 'us-east-1', '--quiet', '--health', '/healthz'],
      ...['posix', '--versioning-dir', join(home, 'versions'), join(home, 'buckets')],
    ],
    {
      env: { ROOT_ACCESS_KEY: env.SPACES_ACCESS_KEY_ID ?? '', ROOT_SECRET_KEY: env.SPACES_SECRET_ACCESS_KEY ?? '' },
      stdio: 'ignore',
    },
  )
  env.SPACES_ENDPOINT_URL = `http://127.0.0.1:${port}`
  const answers = () =>
    fetch(`${env.SPACES_ENDPOINT_URL}/healthz`).then(
      ({ ok }) => ok,
      () => false,
    )
  for (const end = Date.now() + 10_000; Date.now() < end; await sleep(50)) if (await answers()) return child
  child.kill()
  throw new Error('versitygw does not answer')
}

/** The customers' server, as Terraform tells it. */
function administrator(directory: string, env: Record<string, string>): Server {
  const text = execFileSync('terraform', ['-chdir=terraform', 'output', '-json', 'postgres'], {
    cwd: ROOT,
    env: {
      ...env,
      TF_DATA_DIR: join(siteDirectoryOf(directory), 'terraform'),
      AWS_ACCESS_KEY_ID: env.SPACES_ACCESS_KEY_ID ?? '',
      AWS_SECRET_ACCESS_KEY: env.SPACES_SECRET_ACCESS_KEY ?? '',
      AWS_ENDPOINT_URL_S3: env.SPACES_ENDPOINT_URL ?? '',
    },
    encoding: 'utf8',
  })
  const { password, ...server } = JSON.parse(text)
  return { ...server, password: new Secret(password) }
}

/** Random text and numbers. A database that is as big as the one before it is a copy of that. */
async function fill(server: Server, databases: readonly string[], megabytes: readonly number[]): Promise<void> {
  for (const [index, database] of databases.entries()) {
    const isCopy = megabytes[index] === megabytes[index - 1]
    await withPostgres(server, (client) =>
      client.query(`CREATE DATABASE ${database}${isCopy ? ` TEMPLATE ${databases[index - 1]}` : ''}`),
    )
    if (isCopy) continue
    await withPostgres({ ...server, database }, async (client) => {
      await client.query('SET statement_timeout = 0')
      await client.query('CREATE TABLE entries (id int, amount numeric, note text)')
      await client.query(
        `INSERT INTO entries SELECT g, random() * 1e9,
           md5(random()::text) || ' ' || md5(random()::text) || ' ' || md5(random()::text) FROM generate_series(1, $1::int) g`,
        [ROWS_PER_MEGABYTE * megabytes[index]!],
      )
      // Whoever reads first would otherwise write down for the others which rows are committed.
      await client.query('VACUUM')
      await client.query('CHECKPOINT').catch(() => {}) // only where the role may
    })
  }
}

/** A values file and secrets for each. */
function publish(directory: string, customers: readonly string[]): void {
  const clone = join(directory, 'clone')
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=bench', '-c', 'user.email=bench@example.org', ...args])
  git('clone', '--quiet', repositoryDirectory(directory), clone)
  const secrets = join(siteDirectoryOf(directory), 'secrets')
  mkdirSync(secrets, { recursive: true, mode: 0o700 })
  for (const customer of customers) {
    const slug = `customer-${customer}`
    const folder = join(clone, 'gitops', 'apps', slug)
    mkdirSync(folder, { recursive: true })
    const values = { customer, subdomain: customer, image: { repository: 'r/i' }, existingSecret: slug }
    writeFileSync(join(folder, 'values.yaml'), JSON.stringify(values))
    const secret = { database_password: 'x'.repeat(32), jwt_secret: 'x'.repeat(64) }
    writeFileSync(join(secrets, `${customer}.json`), JSON.stringify(secret), { mode: 0o600 })
  }
  git('-C', clone, 'add', '-A')
  git('-C', clone, 'commit', '--quiet', '-m', 'Customers of the bench')
  git('-C', clone, 'push', '--quiet')
}
