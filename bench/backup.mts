// How long backup.mts takes against the usual recipe and the best shell pipeline, on the same databases, the same S3 server
// and the same processors, in turn: `npx tsx bench/backup.mts [large|small] [COUNT]`. `large`: 8 databases of 200 MB, held
// to 4.5 times the recipe's speed and 1.2 times the pipeline's. `small`: 1,000 of 1 MB, held to 5 times the recipe's.
// Nothing is kept; it needs aws (version 1 or 2) on PATH for the rivals.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parse } from 'yaml'
import { type Server, withPostgres } from '../lib/postgres.ts'
import { Secret } from '../lib/secret.ts'
import { ROOT } from '../lib/site.ts'
import { freePort } from '../rehearsal/servers/ports.ts'
import { repositoryDirectory, siteDirectoryOf, startRehearsal } from '../rehearsal/site.ts'
import { installTools } from '../rehearsal/tools.ts'

const kind = process.argv[2] ?? 'large'
const count = Number(process.argv[3] ?? (kind === 'large' ? 8 : 1000))
/** Rows of some 170 bytes, of which 130 are random: 200 MB and 1 MB. */
const rows = kind === 'large' ? 1_100_000 : 1_500

const directory = mkdtempSync(join(tmpdir(), 'lunarfront-bench-'))
const { env, siteFile, down } = await startRehearsal({ directory })
const site = parse(readFileSync(siteFile, 'utf8'))
const names = Array.from({ length: count }, (_, index) => `bench-${index + 1}`)
const databases = names.map((name) => `customer_${name.replaceAll('-', '_')}`)

const timed = (work: () => void): number => {
  const start = performance.now()
  work()
  return (performance.now() - start) / 1000
}
const runbook = (name: string, ...args: string[]) =>
  execFileSync(join(ROOT, 'runbooks', `${name}.mts`), args, { cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] })

/** The S3 server itself, on the buckets of the rehearsed Spaces, without the front that makes Spaces of it. */
let s3: ChildProcess | undefined
try {
  runbook('bootstrap', '--yes')
  s3 = await startS3()
  const server = administrator()
  await makeCustomers(server)
  const ca = join(directory, 'ca.pem')
  writeFileSync(ca, server.ca)
  const shell = {
    ...env,
    ...{ PGHOST: server.host, PGPORT: String(server.port), PGUSER: server.user, PGPASSWORD: server.password.reveal() },
    ...{ PGSSLMODE: 'verify-full', PGSSLROOTCERT: ca, AWS_EC2_METADATA_DISABLED: 'true' },
    ...{ AWS_ACCESS_KEY_ID: env.SPACES_ACCESS_KEY_ID ?? '', AWS_SECRET_ACCESS_KEY: env.SPACES_SECRET_ACCESS_KEY ?? '' },
    ...{ AWS_REGION: 'us-east-1', AWS_ENDPOINT_URL_S3: env.SPACES_ENDPOINT_URL ?? '' },
  }
  const bash = (script: string) => {
    const { status, stderr } = spawnSync('bash', ['-o', 'pipefail', '-ec', script], {
      env: shell,
      input: databases.join('\n'),
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`${script} exited ${status}: ${stderr}`)
  }
  const bucket = `s3://${site.buckets.backups}`
  const upload = `aws s3 cp --quiet - ${bucket}/rival/$1`
  const each = (processes: number, command: string) =>
    `xargs -P ${processes} -I{} bash -o pipefail -ec '${command}' _ {}`
  const compressed = `pg_dump -Fc -Z0 $1 | zstd -q -1 | age -r ${site.backups.recipients[0]}`

  runbook('list-customers') // Terraform has met the other address
  const ours = timed(() => runbook('backup', '--again'))
  const floor = timed(() => bash(each(2, 'pg_dump -Fc -Z0 $1 > /dev/null')))
  const sent = kind === 'large' ? timed(() => bash(each(2, `${compressed} > /dev/null`))) : undefined
  const pipeline = timed(() => bash(each(2, `${compressed} | ${upload}`)))
  const recipe = timed(() => bash(each(1, `pg_dump -Fc $1 | ${upload}`)))

  const line = (what: string, seconds: number, held?: number) => {
    const ratio = seconds / ours
    const verdict = held === undefined ? '' : ratio >= held ? `  at least ${held}` : `  below ${held}`
    console.log(`${what.padEnd(64)} ${seconds.toFixed(1).padStart(7)} s  ${ratio.toFixed(2).padStart(6)}${verdict}`)
    if (held !== undefined && ratio < held) process.exitCode = 1
  }
  console.log(`${count} databases, ${kind === 'large' ? '200' : '1'} MB each`)
  line('backup.mts, read again and counted', ours)
  line('pg_dump -Fc | aws s3 cp -, one after the other', recipe, kind === 'large' ? 4.5 : 5)
  line('pg_dump -Fc -Z0 | zstd -1 | age | aws s3 cp -, two at a time', pipeline, kind === 'large' ? 1.2 : undefined)
  if (sent !== undefined) line('the same without the upload', sent)
  line('pg_dump -Fc -Z0 > /dev/null, two at a time', floor)
} finally {
  s3?.kill()
  await down()
  rmSync(directory, { recursive: true, force: true })
}

async function startS3(): Promise<ChildProcess> {
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
  for (const end = Date.now() + 10_000; Date.now() < end; await sleep(50))
    if (
      await fetch(`${env.SPACES_ENDPOINT_URL}/healthz`).then(
        ({ ok }) => ok,
        () => false,
      )
    )
      return child
  throw new Error('versitygw does not answer')
}

/** The customers' server, as Terraform tells it. */
function administrator(): Server {
  const data = { ...env, TF_DATA_DIR: join(siteDirectoryOf(directory), 'terraform') }
  const secret = {
    ...data,
    AWS_ACCESS_KEY_ID: env.SPACES_ACCESS_KEY_ID ?? '',
    AWS_SECRET_ACCESS_KEY: env.SPACES_SECRET_ACCESS_KEY ?? '',
  }
  const text = execFileSync('terraform', ['-chdir=terraform', 'output', '-json', 'postgres'], {
    cwd: ROOT,
    env: { ...secret, AWS_ENDPOINT_URL_S3: env.SPACES_ENDPOINT_URL ?? '' },
    encoding: 'utf8',
  })
  const { password, ...server } = JSON.parse(text)
  return { ...server, password: new Secret(password) }
}

/** One database is filled, the others are copies of it; a values file and secrets for each. */
async function makeCustomers(server: Server): Promise<void> {
  const [first = '', ...others] = databases
  await withPostgres(server, (client) => client.query(`CREATE DATABASE ${first}`))
  await withPostgres({ ...server, database: first }, async (client) => {
    await client.query(`CREATE TABLE entries (id int, amount numeric, note text)`)
    await client.query(
      `INSERT INTO entries SELECT g, random() * 1e9,
         md5(random()::text) || ' ' || md5(random()::text) || ' ' || md5(random()::text) FROM generate_series(1, $1::int) g`,
      [rows],
    )
    // Whoever reads first would otherwise write down for the others which rows are committed.
    await client.query('VACUUM')
    await client.query('CHECKPOINT').catch(() => {}) // only where the role may
  })
  await withPostgres(server, async (client) => {
    for (const other of others) await client.query(`CREATE DATABASE ${other} TEMPLATE ${first}`)
  })
  const clone = join(directory, 'clone')
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=bench', '-c', 'user.email=bench@example.org', ...args])
  git('clone', '--quiet', repositoryDirectory(directory), clone)
  const secrets = join(siteDirectoryOf(directory), 'secrets')
  mkdirSync(secrets, { recursive: true, mode: 0o700 })
  for (const name of names) {
    const folder = join(clone, 'gitops', 'apps', `customer-${name}`)
    mkdirSync(folder, { recursive: true })
    const values = { customer: name, subdomain: name, image: { repository: 'r/i' }, existingSecret: `customer-${name}` }
    writeFileSync(join(folder, 'values.yaml'), JSON.stringify(values))
    const secret = { database_password: 'x'.repeat(32), jwt_secret: 'x'.repeat(64) }
    writeFileSync(join(secrets, `${name}.json`), JSON.stringify(secret), { mode: 0o600 })
  }
  git('-C', clone, 'add', '-A')
  git('-C', clone, 'commit', '--quiet', '-m', 'Customers of the bench')
  git('-C', clone, 'push', '--quiet')
}
