// What the tests of the runbooks share: a rehearsal in a temporary folder, runbooks started as a person starts them, and
// looks behind the cloud to see what is really there.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunEvent } from '../../lib/events.ts'
import { type Server, withPostgres } from '../../lib/postgres.ts'
import { recordedTerraforms } from '../../lib/run.ts'
import { Secret } from '../../lib/secret.ts'
import { ROOT } from '../../lib/site.ts'
import { openSpaces, type Spaces } from '../../lib/spaces.ts'
import type { Call } from '../../rehearsal/cloud/http.ts'
import { PRIVATE_SOURCE } from '../../rehearsal/cloud/private-network.ts'
import { withoutCluster } from '../../rehearsal/extent.ts'
import { startForward } from '../../rehearsal/servers/forward.ts'
import {
  findRepository,
  type Rehearsal,
  repositoryDirectory,
  siteDirectoryOf,
  startRehearsal,
} from '../../rehearsal/site.ts'

export type Operator = Rehearsal & {
  repository: string
  /** what the site keeps on this machine */
  kept: string
}

/** A rehearsal in which nothing exists yet. @param settings put over the site file's */
export async function startOperator(settings: Record<string, unknown> = {}): Promise<Operator> {
  const directory = mkdtempSync(join(tmpdir(), 'lunarfront-test-'))
  const rehearsal = await startRehearsal({ directory, settings })
  process.env.PGHOSTADDR = rehearsal.env.PGHOSTADDR // the tests look into its databases themselves
  return { ...rehearsal, repository: repositoryDirectory(directory), kept: siteDirectoryOf(directory) }
}

export type Result = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }

export type Started = { child: ChildProcess; ended: Promise<Result> }

/** Only a cluster's site has a certificate authority of its own. */
const hasCluster = ({ env }: Pick<Operator, 'env'>) => env.NODE_EXTRA_CA_CERTS !== undefined

/** @returns the runbook, started, as far as it can go there: `start(operator, 'add-customer', 'acme')` */
export function start(operator: Pick<Operator, 'env'>, runbook: string, ...args: string[]): Started {
  const extent =
    hasCluster(operator) || args.includes('--until') || args.includes('--help') ? [] : withoutCluster(runbook)
  const child = spawn(join(ROOT, 'runbooks', `${runbook}.mts`), [...args, ...extent], {
    cwd: ROOT,
    env: operator.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  const ended = new Promise<Result>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
  return { child, ended }
}

/** @returns how the runbook ended */
export const run = (operator: Pick<Operator, 'env'>, runbook: string, ...args: string[]): Promise<Result> =>
  start(operator, runbook, ...args).ended

/** Runs it and throws unless it exits 0. @returns what it printed */
export async function must(operator: Pick<Operator, 'env'>, runbook: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(operator, runbook, ...args)
  if (code !== 0) throw new Error(`${runbook} ${args.join(' ')} exited ${code}:\n${stdout}${stderr}`)
  return stdout
}

export type TimedEvent = RunEvent & { time: string }

/** @returns the events of a run with --json */
export const eventsOf = ({ stdout }: Pick<Result, 'stdout'>): TimedEvent[] =>
  stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as TimedEvent)

/** Calls back with each event of a run with --json, as it comes. */
export function watch({ child }: Started, take: (event: TimedEvent) => void): void {
  createInterface({ input: child.stdout! }).on('line', (line) => take(JSON.parse(line) as TimedEvent))
}

/** @returns the first event that fits, of a run with --json; throws where the run ends before it */
export function eventOf(started: Started, fits: (event: TimedEvent) => boolean): Promise<TimedEvent> {
  return new Promise((resolve, reject) => {
    watch(started, (event) => {
      if (fits(event)) resolve(event)
    })
    started.ended.then(
      ({ code, stdout, stderr }) =>
        reject(new Error(`it ended with ${code} before it came to that:\n${stdout}${stderr}`)),
      reject,
    )
  })
}

/** @returns the process id of the Terraform that a run of this site has started */
export const terraformOf = ({ kept }: Operator): number => recordedTerraforms(kept).at(-1)?.process.pid ?? 0

/** @returns the titles of the runbook's own steps, from the runbook itself */
export async function stepsOf(operator: Operator, runbook: string, ...args: string[]): Promise<string[]> {
  const events = eventsOf(await run(operator, runbook, ...args, '--plan', '--json'))
  return events.flatMap((event) => (event.event === 'steps' ? event.steps : []))
}

/** @returns how each step came out, by its title */
export const statusesOf = (result: Pick<Result, 'stdout'>): Record<string, string> =>
  Object.fromEntries(
    eventsOf(result).flatMap((event) => (event.event === 'step finished' ? [[event.step, event.status]] : [])),
  )

export type Objects = {
  digitalocean: Record<string, { name?: string; databases?: string[]; users?: string[]; size?: string; id?: string }[]>
  cloudflare: { dns_records: { name: string; type: string; content: string }[] }
  spaces: unknown
}

/** @returns all that exists in the cloud */
export const objects = async ({ cloud }: Pick<Rehearsal, 'cloud'>): Promise<Objects> =>
  (await (await fetch(`${cloud.control}/objects`)).json()) as Objects

/** Asks the cloud to fail: which requests, and what happens to them. */
export async function plant({ cloud }: Rehearsal, fault: object, consequence?: object): Promise<void> {
  const planted = consequence ? Object.assign({ ...fault }, Object.fromEntries([['then', consequence]])) : fault
  const answer = await fetch(`${cloud.control}/faults`, { method: 'POST', body: JSON.stringify(planted) })
  if (!answer.ok) throw new Error(await answer.text())
}

/** Waits until every fault that was planted for a number of requests has hit them. */
export async function faultsHit({ cloud }: Rehearsal): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(20)) {
    const { faults } = (await (await fetch(`${cloud.control}/faults`)).json()) as { faults: { times?: number }[] }
    if (faults.every(({ times }) => times === undefined)) return
  }
  throw new Error('the requests that were to be hit never came')
}

export async function clearFaults({ cloud }: Rehearsal): Promise<void> {
  await fetch(`${cloud.control}/faults`, { method: 'DELETE' })
}

/** DigitalOcean's API, as the account's owner. */
export async function digitalocean(
  { cloud }: Rehearsal,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const answer = await fetch(cloud.digitalocean.url + path, {
    method,
    headers: { authorization: `Bearer ${cloud.digitalocean.token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  if (!answer.ok) throw new Error(`${method} ${path}: ${text}`)
  return text ? JSON.parse(text) : undefined
}

/**
 * The shared Postgres, as its administrator. Where it is closed to all who are not in the private network, a test looks
 * into it from there through sql.
 */
export async function administrator(operator: Operator): Promise<Server> {
  const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as {
    databases: {
      id: string
      name: string
      connection: { host: string; port: number; user: string; password: string }
    }[]
  }
  const { id, connection } = databases.find(({ name }) => name === 'lunarfront-postgres')!
  const { ca } = (await digitalocean(operator, 'GET', `/v2/databases/${id}/ca`)) as { ca: { certificate: string } }
  return {
    ...connection,
    password: new Secret(connection.password),
    database: 'defaultdb',
    ca: Buffer.from(ca.certificate, 'base64').toString('utf8'),
  }
}

/** Statements as the administrator, in one connection. @returns the rows of the last of them */
export async function sql<T = Record<string, unknown>>(
  operator: Operator,
  database: string,
  ...statements: string[]
): Promise<T[]> {
  const server = { ...(await administrator(operator)), database }
  const within = { host: '127.0.0.1', port: server.port, localAddress: PRIVATE_SOURCE }
  const way = hasCluster(operator)
    ? await startForward({ listen: { host: '127.0.0.1', port: 0 }, connect: within })
    : undefined
  try {
    return await withPostgres({ ...server, ...(way ? { tunnel: way.port } : {}) }, async (client) => {
      let rows: T[] = []
      for (const statement of statements) rows = (await client.query(statement)).rows as T[]
      return rows
    })
  } finally {
    await way?.close()
  }
}

/** The Spaces of the rehearsal, with the account's own key. */
export function spacesOf({ cloud }: Pick<Rehearsal, 'cloud'>): Promise<Spaces> {
  const { url, access_key_id, secret_access_key } = cloud.spaces
  return openSpaces({
    endpoint: url,
    accessKeyId: new Secret(access_key_id),
    secretAccessKey: new Secret(secret_access_key),
  })
}

/** @returns the calls that any API got while the work went on, and those of them that may have written something */
export async function callsDuring(
  { cloud }: Pick<Rehearsal, 'cloud'>,
  work: () => Promise<unknown>,
): Promise<{ calls: Call[]; writes: string[] }> {
  await fetch(`${cloud.control}/requests`, { method: 'DELETE' })
  await work()
  const calls = (await (await fetch(`${cloud.control}/requests`)).json()) as Call[]
  const writes = calls.filter(({ method }) => method !== 'GET' && method !== 'HEAD')
  return { calls, writes: writes.map(({ api, method, path }) => `${api} ${method} ${path}`) }
}

/** @returns all that a run may change: what exists in the cloud, the repository, this machine's files, the checkout's Terraform */
export const everything = async (operator: Operator) => ({
  objects: await objects(operator),
  refs: git(operator, 'for-each-ref'),
  files: readdirSync(operator.directory)
    .filter((name) => name !== 'cloud') // its own logs
    .flatMap((name) => filesBelow(join(operator.directory, name))),
  terraform: filesBelow(join(ROOT, 'terraform')),
})

/** Git in the site's repository, or in a copy of it, made anew, where Gitea has it. */
export function git(operator: Operator, ...args: string[]): string {
  const { repository } = operator
  const { url, env } = remoteOf(operator)
  if (url !== repository) {
    rmSync(repository, { recursive: true, force: true })
    execFileSync('git', ['clone', '--quiet', '--mirror', url, repository], { env, stdio: 'pipe' })
  }
  return execFileSync('git', ['--git-dir', repository, ...args], { encoding: 'utf8', maxBuffer: 256 * 2 ** 20 })
}

/** @returns where the site's repository is, and in which environment Git gets there */
function remoteOf(operator: Operator) {
  const found = findRepository(operator)
  if (!found) throw new Error('there is no repository yet')
  return { url: found.url, env: { ...process.env, ...found.env } }
}

/** Commits to the repository by hand, past all runbooks. @param change what is done in a clone. @returns how to undo it */
export function commitByHand(operator: Operator, change: (clone: string) => void): () => void {
  const clone = join(operator.directory, 'by-hand')
  rmSync(clone, { recursive: true, force: true })
  const { url, env } = remoteOf(operator)
  const inClone = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], { cwd: clone, env, stdio: 'pipe' })
  execFileSync('git', ['clone', '-q', url, clone], { env, stdio: 'pipe' })
  const head = inClone('rev-parse', 'HEAD').toString().trim()
  change(clone)
  inClone('add', '-A')
  inClone('commit', '-qm', 'by hand')
  inClone('push', '-q', 'origin', 'HEAD:main')
  return () => {
    inClone('push', '-q', '--force', 'origin', `${head}:main`)
  }
}

/** @returns a file or folder and every one below it, each with its mode and a digest; nothing where there is none */
export function filesBelow(path: string): string[] {
  if (!existsSync(path)) return []
  const below = statSync(path).isDirectory() ? (readdirSync(path, { recursive: true }) as string[]) : []
  return [path, ...below.sort().map((name) => join(path, name))].map((one) => {
    const here = statSync(one)
    const digest = here.isFile() ? createHash('sha256').update(readFileSync(one)).digest('hex').slice(0, 16) : ''
    return `${one} ${here.mode.toString(8)} ${digest}`
  })
}
