// npm run rehearse: raises a whole LunarFront on this machine with the runbooks themselves, and says how to look at it.
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readSecrets, secretsFile } from '../lib/customer-secrets.ts'
import { namesOf } from '../lib/customers.ts'
import { EXIT, Failure, misuse, oneLine, tell } from '../lib/failure.ts'
import { writeWhole } from '../lib/files.ts'
import type { CloudAddresses } from './cloud/cloud.ts'
import { withoutCluster } from './extent.ts'
import { bumpTag, makeImage } from './release.ts'
import { isRunning, type ProcessIdentity, processStarted } from './servers/processes.ts'
import {
  endRehearsal,
  findCloud,
  findRehearsal,
  findRepository,
  kubeconfigOf,
  processesOf,
  type Rehearsal,
  serviceFileOf,
  siteDirectoryOf,
  startRehearsal,
} from './site.ts'
import { type ClusterTools, checkClusterPossible, installClusterTools } from './tools/cluster.ts'
import { isDebian } from './tools/debian.ts'
import { onPath, thisMachine } from './tools/machine.ts'
import { installTools, type Tools } from './tools.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const CUSTOMER = 'acme'
/** The first release of the reference application. */
const RELEASE = '1.0.0'

const USAGE = `npm run rehearse -- [up | down | status] [--full] [--directory DIR]

  up      raises a LunarFront on this machine: installs what is missing, starts a cloud on loopback, and runs
          ./runbooks/bootstrap.mts and ./runbooks/add-customer.mts ${CUSTOMER} against it. What is up stays up, and the
          runbooks are run again: they change nothing then. This is what it does unless told.
  down    ends all of it, and removes what it made
  status  says what is up

  --full           with a real Kubernetes cluster, whose pods run: on Linux, as root, and the first time some fifteen
                   minutes, to build it. Without it there is none, and the runbooks go as far as they do without.
  --directory DIR  where everything of it is kept; .rehearsal of this checkout unless told

No account is used, no credential of yours, and no address but loopback's.`

const show = (path: string) => relative(process.cwd(), path) || '.'
const USUAL_DIRECTORY = join(ROOT, '.rehearsal')
/** The words after a command that is about this rehearsal and no other. */
const elsewhere = (directory: string) => (directory === USUAL_DIRECTORY ? '' : ` --directory ${directory}`)
const seconds = (since: number) => `${((Date.now() - since) / 1000).toFixed(1)} s`
const say = (line = '') => console.log(line)

async function up(directory: string, full: boolean): Promise<void> {
  const started = Date.now()
  if (full) checkClusterPossible()
  const tools = await installTools(say)
  const cluster = full ? await installClusterTools(say) : undefined
  const { rehearsal, fresh } = await raise(directory, tools, cluster)
  const isFull = rehearsal.cloud.programs !== undefined
  if (full && !isFull)
    throw new Failure({
      found: 'a rehearsal without a cluster is up',
      expected: 'one with a cluster, or none',
      next: 'npm run rehearse -- down && npm run rehearse -- --full',
    })
  say(`cloud: ${fresh ? 'started' : 'already up'}, on loopback, in ${show(directory)}  ${seconds(started)}`)
  if (!fresh) await checkHistory(rehearsal, tools)
  const envFile = join(directory, 'env')
  writeWhole(envFile, shellLines(rehearsal))
  const extent = (name: string) => (isFull ? [] : withoutCluster(name))
  await runRunbook(rehearsal, 'bootstrap', ['--yes', ...extent('bootstrap')])
  if (isFull) await release(rehearsal)
  await runRunbook(rehearsal, 'add-customer', [CUSTOMER, '--yes', ...extent('add-customer')])
  // Behind a droplet the databases are closed to this machine.
  if (!rehearsal.cloud.droplet) await writeServices(rehearsal, tools)
  const repository = findRepository(rehearsal)
  writeWhole(envFile, shellLines({ ...rehearsal, env: { ...rehearsal.env, ...repository?.env } }))
  say()
  say(`A LunarFront is up, ${seconds(started)} after the start.`)
  say()
  for (const line of waysToLook(rehearsal, tools, envFile, repository?.url ?? '')) say(line)
}

/** What CI does: without a first release there is nothing that a customer's instance could run. */
async function release(rehearsal: Rehearsal): Promise<void> {
  const started = Date.now()
  await makeImage(rehearsal, RELEASE, { report: say })
  const commit = await bumpTag(rehearsal, RELEASE)
  if (commit)
    say(`release ${RELEASE} of the reference application: its image, and its tag in the chart  ${seconds(started)}`)
}

/** Starts a rehearsal that stays, unless one is up. */
async function raise(
  directory: string,
  tools: Tools,
  cluster: ClusterTools | undefined,
): Promise<{ rehearsal: Rehearsal; fresh: boolean }> {
  const found = await findRehearsal(directory, tools)
  if (found) return { rehearsal: found, fresh: false }
  const release = claim(directory)
  try {
    // What is left of one that was killed has lost its cloud, and with it everything that it was about.
    await endRehearsal(directory)
    return { rehearsal: await startRehearsal({ directory, tools, cluster, stays: true }), fresh: true }
  } finally {
    release()
  }
}

/** @returns what gives the claim up; throws a Failure when another process is starting a rehearsal there */
function claim(directory: string): () => void {
  const name = createHash('sha256').update(directory).digest('hex').slice(0, 16)
  const file = join(ROOT, 'node_modules', '.cache', 'lunarfront', `starting-${name}.json`)
  mkdirSync(dirname(file), { recursive: true })
  const other = readClaim(file)
  if (other && isRunning(other))
    throw new Failure({
      found: `process ${other.pid} is starting a rehearsal in ${show(directory)}`,
      expected: 'one start at a time',
      next: 'npm run rehearse -- status, when it is done',
    })
  rmSync(file, { force: true })
  writeFileSync(file, JSON.stringify({ pid: process.pid, started: processStarted(process.pid) }), { flag: 'wx' })
  return () => rmSync(file, { force: true })
}

function readClaim(file: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}

/**
 * The rehearsal's repository starts as this checkout's commits; the runbooks then commit to it. Commits made here since
 * cannot be pushed there, and bootstrap's advice for a real site would bring the rehearsal's commits into this checkout.
 */
async function checkHistory(rehearsal: Rehearsal, { git }: Tools): Promise<void> {
  const found = findRepository(rehearsal)
  const copy = mkdtempSync(join(tmpdir(), 'lunarfront-history-'))
  const env = { ...process.env, ...found?.env, GIT_ALTERNATE_OBJECT_DIRECTORIES: join(copy, 'objects') }
  const ask = (...args: string[]) =>
    new Promise<string | undefined>((resolve) => {
      execFile(git, args, { cwd: ROOT, env }, (error, stdout) => resolve(error ? undefined : stdout.trim()))
    })
  try {
    if (!found || (await ask('clone', '--quiet', '--bare', found.url, copy)) === undefined) return // nothing is there yet
    await compareHistories(ask, copy)
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

async function compareHistories(ask: (...args: string[]) => Promise<string | undefined>, copy: string): Promise<void> {
  const there = await ask(`--git-dir=${copy}`, 'rev-parse', '--verify', '--quiet', 'main')
  if (there === undefined) return
  const isAncestor = async (older: string, newer: string) =>
    (await ask('merge-base', '--is-ancestor', older, newer)) !== undefined
  if ((await isAncestor('HEAD', there)) || (await isAncestor(there, 'HEAD'))) return
  throw new Failure({
    found: 'this checkout has commits that the rehearsal which is up does not have, and cannot get any more',
    expected: 'a rehearsal of this checkout as it is',
    next: 'npm run rehearse -- down && npm run rehearse',
  })
}

/** Runs a runbook as a person would, but with the rehearsal's environment and nothing else. */
async function runRunbook({ env }: Rehearsal, name: string, args: string[]): Promise<void> {
  const command = [`./runbooks/${name}.mts`, ...args]
  say()
  say(`$ ${command.join(' ')}`)
  const child = spawn(join(ROOT, 'runbooks', `${name}.mts`), args, {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  process.off('SIGINT', interrupted) // it reaches the runbook, which tidies up and says where it stopped
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  process.on('SIGINT', interrupted)
  if (code === EXIT.converged) return
  throw new Failure({
    found: `${command.join(' ')} ended with ${code ?? 'a signal'}, see above; the rehearsal is still up`,
    expected: 'that it converges',
    next: 'npm run rehearse, which goes on, or npm run rehearse -- down',
    exit: code === EXIT.interrupted ? EXIT.interrupted : EXIT.failed,
  })
}

/** @returns lines that a POSIX shell can source */
function shellLines({ directory, env, cloud }: Rehearsal): string {
  const quote = (value: string) => `'${value.replaceAll("'", "'\\''")}'`
  const { PATH = '', HOME: _home, USER: _user, TERM: _term, LANG: _lang, ...own } = env
  const known = new Set((process.env.PATH ?? '').split(':'))
  const added = PATH.split(':').filter((folder) => !known.has(folder))
  return [
    '# Points a shell, and every runbook run from it, at the rehearsal that is up: . .rehearsal/env',
    'unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL PGSERVICE PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE',
    ...(added.length > 0 ? [`export PATH=${quote(added.join(':'))}:"$PATH"`] : []),
    ...(cloud.programs ? [`export KUBECONFIG=${quote(kubeconfigOf(directory))}`] : []),
    ...Object.entries(own).map(([name, value]) => `export ${name}=${quote(value)}`),
    '',
  ].join('\n')
}

type Postgres = { host: string; port: number; user: string; password: string; database: string; ca: string }

/** Tells psql where the databases are and with which passwords, so that none has to be given to it as an argument. */
async function writeServices({ directory, env }: Rehearsal, { terraform }: Tools): Promise<void> {
  const postgres = JSON.parse(await output(env, terraform, ['output', '-json', 'postgres'])) as Postgres
  const ca = join(directory, 'postgres-ca.pem')
  writeWhole(ca, postgres.ca)
  const service = (name: string, user: string, password: string, database: string) =>
    [
      `[${name}]`,
      `host=${postgres.host}`,
      `hostaddr=${env.PGHOSTADDR}`,
      `port=${postgres.port}`,
      `user=${user}`,
      `password=${password}`,
      `dbname=${database}`,
      'sslmode=verify-full',
      `sslrootcert=${ca}`,
      '',
    ].join('\n')
  const { database } = namesOf(CUSTOMER)
  const kept = siteDirectoryOf(directory)
  const services = [service('doadmin', postgres.user, postgres.password, postgres.database)]
  // What a cluster holds is not written down here: kubectl shows it.
  if (existsSync(secretsFile(kept, CUSTOMER)))
    services.push(service(CUSTOMER, database, readSecrets(kept, CUSTOMER).databasePassword.reveal(), database))
  writeWhole(serviceFileOf(directory), services.join('\n'))
}

function output(env: Record<string, string>, program: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['-chdir=terraform', ...args], { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const printed = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (chunk: string) => {
        printed[name] += chunk
      })
    child.once('error', reject)
    child.once('close', (code) =>
      code === 0
        ? resolve(printed.stdout)
        : reject(new Failure({ found: `terraform ${args.join(' ')} ended with ${code}: ${printed.stderr.trim()}` })),
    )
  })
}

function waysToLook(
  { directory, cloud }: Rehearsal,
  { terraform }: Tools,
  envFile: string,
  repository: string,
): string[] {
  const program = terraform.endsWith('tofu') ? 'tofu' : 'terraform'
  const machine = thisMachine()
  const getAws = isDebian(machine) ? 'apt-get install awscli' : 'install awscli'
  const aws = onPath('aws', machine) ? '' : `    (there is no aws on PATH: ${getAws})`
  return [
    `Point a shell at it, from the checkout:        . ${show(envFile)}`,
    'then, for example:',
    '  ./runbooks/list-customers.mts',
    `  ${program} -chdir=terraform output`,
    ...(cloud.droplet ? [] : ['  psql service=doadmin -c "\\l"', `  psql service=${CUSTOMER}`]),
    ...(cloud.programs ? ['  kubectl get pods --all-namespaces'] : []),
    `  aws --endpoint-url "$SPACES_ENDPOINT_URL" s3 ls${aws}`,
    `  git clone ${cloud.droplet ? repository : show(repository)}`,
    '  ./runbooks/add-customer.mts zenith',
    `Take it down:                                  npm run rehearse -- down${elsewhere(directory)}`,
    '',
    ...(cloud.programs
      ? []
      : [
          'Left out: the droplet, Gitea and Kubernetes are objects of the cloud’s API with nothing behind them, so no',
          'application runs. Kubernetes is real in npm run rehearse -- --full, on Linux and as root.',
        ]),
    'docs/rehearsal.md says what each stand-in does not prove.',
  ]
}

async function down(directory: string): Promise<void> {
  const started = Date.now()
  const before = processesOf(directory)
  const existed = existsSync(directory)
  await endRehearsal(directory)
  const left = before.filter(isRunning)
  if (left.length > 0)
    throw new Failure({
      found: `still running: ${left.map(({ name, pid }) => `${name} (process ${pid})`).join(', ')}`,
      expected: 'nothing',
      next: `kill -9 ${left.map(({ pid }) => pid).join(' ')}`,
    })
  say(
    existed
      ? `Down: ${before.length} processes ended, ${show(directory)} removed  ${seconds(started)}`
      : 'Nothing is up.',
  )
}

async function status(directory: string): Promise<void> {
  const cloud = await findCloud(directory)
  if (!cloud) {
    const left = processesOf(directory)
    say(
      left.length > 0 ? `Not up, but ${left.length} of its processes run: npm run rehearse -- down` : 'Nothing is up.',
    )
    return
  }
  say(`Up since ${cloud.started}, in ${show(directory)}`)
  say(`  DigitalOcean  ${cloud.digitalocean.url}`)
  say(`  Cloudflare    ${cloud.cloudflare.url}`)
  say(`  Spaces        ${cloud.spaces.url}`)
  say(`  Kubernetes    ${cloud.programs ? await clustersOf(cloud) : 'not real: npm run rehearse -- --full'}`)
  say(
    `  processes     ${processesOf(directory)
      .map(({ name, pid }) => `${name} ${pid}`)
      .join(', ')}`,
  )
}

/** @returns each cluster's state and address, in words */
async function clustersOf({ digitalocean: { url, token } }: CloudAddresses): Promise<string> {
  const answer = await fetch(`${url}/v2/kubernetes/clusters`, { headers: { authorization: `Bearer ${token}` } })
  const { kubernetes_clusters: clusters } = (await answer.json()) as {
    kubernetes_clusters: { name: string; endpoint: string; status: { state: string; message?: string } }[]
  }
  const words = clusters.map(({ name, endpoint, status: { state, message } }) =>
    [name, state, state === 'error' ? message : endpoint].filter(Boolean).join(' '),
  )
  return words.join(', ') || 'no cluster yet'
}

const interrupted = () => process.exit(EXIT.interrupted)

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        full: { type: 'boolean', default: false },
        directory: { type: 'string', default: USUAL_DIRECTORY },
        help: { type: 'boolean' },
      },
    })
  } catch (error) {
    throw misuse({ found: tell(error).found, next: 'npm run rehearse -- --help' })
  }
}

async function main(): Promise<void> {
  process.on('SIGINT', interrupted)
  const { values, positionals } = readArguments()
  if (values.help) return say(USAGE)
  const [word = 'up', ...more] = positionals
  const command = { up, down, status }[word]
  if (!command || more.length > 0)
    throw misuse({
      found: `npm run rehearse -- ${positionals.join(' ')}`,
      expected: 'up, down or status',
      next: 'npm run rehearse -- --help',
    })
  await command(resolve(values.directory), values.full)
}

main().catch((error) => {
  console.error(oneLine(tell(error)))
  process.exitCode = error instanceof Failure ? error.exit : EXIT.failed
})
