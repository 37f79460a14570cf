// npm run rehearse: raises a whole LunarFront on this machine with the runbooks themselves, and says how to look at it.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readSecrets } from '../lib/customer-secrets.ts'
import { namesOf } from '../lib/customers.ts'
import { EXIT, Failure, misuse, oneLine, tell } from '../lib/failure.ts'
import { writeWhole } from '../lib/files.ts'
import { isRunning, type ProcessIdentity, processStarted } from './servers/processes.ts'
import {
  endRehearsal,
  findRehearsal,
  processesOf,
  type Rehearsal,
  readCloud,
  repositoryDirectory,
  serviceFileOf,
  siteDirectoryOf,
  startRehearsal,
} from './site.ts'
import { onPath, thisMachine } from './tools/machine.ts'
import { findTools, installTools, type Tools } from './tools.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const DIRECTORY = join(ROOT, '.rehearsal')
const CUSTOMER = 'acme'

const USAGE = `npm run rehearse -- [up | down | status]

  up      raises a LunarFront on this machine: installs what is missing, starts a cloud on loopback, and runs
          ./runbooks/bootstrap.mts and ./runbooks/add-customer.mts ${CUSTOMER} against it. What is up stays up, and the
          runbooks are run again: they change nothing then. This is what it does unless told.
  down    ends all of it, and removes what it made
  status  says what is up

No account, no credentials and no network addresses but loopback's are used; everything is in .rehearsal.`

const show = (path: string) => relative(process.cwd(), path) || '.'
const seconds = (since: number) => `${((Date.now() - since) / 1000).toFixed(1)} s`
const say = (line = '') => console.log(line)

async function up(): Promise<void> {
  const started = Date.now()
  const tools = await installTools(say)
  const { rehearsal, fresh } = await raise(tools)
  say(`cloud: ${fresh ? 'started' : 'already up'}, on loopback, in ${show(DIRECTORY)}  ${seconds(started)}`)
  const envFile = join(DIRECTORY, 'env')
  writeWhole(envFile, shellLines(rehearsal))
  await runRunbook(rehearsal, 'bootstrap', ['--yes'])
  await runRunbook(rehearsal, 'add-customer', [CUSTOMER, '--yes'])
  await writeServices(rehearsal, tools)
  say()
  say(`A LunarFront is up, ${seconds(started)} after the start.`)
  say()
  for (const line of waysToLook(tools, envFile)) say(line)
}

/** Starts a rehearsal that stays, unless one is up. */
async function raise(tools: Tools): Promise<{ rehearsal: Rehearsal; fresh: boolean }> {
  const found = await findRehearsal(DIRECTORY, tools)
  if (found) return { rehearsal: found, fresh: false }
  const release = claim()
  try {
    // What is left of one that was killed has lost its cloud, and with it everything that it was about.
    await endRehearsal(DIRECTORY)
    return { rehearsal: await startRehearsal({ directory: DIRECTORY, tools, stays: true }), fresh: true }
  } finally {
    release()
  }
}

/** @returns what gives the claim up; throws a Failure when another process is starting a rehearsal here */
function claim(): () => void {
  const file = join(ROOT, 'node_modules', '.cache', 'lunarfront', 'rehearsal-starting.json')
  try {
    const other: ProcessIdentity = JSON.parse(readFileSync(file, 'utf8'))
    if (isRunning(other))
      throw new Failure({
        found: `process ${other.pid} is starting a rehearsal of this checkout`,
        expected: 'one start at a time',
        next: 'npm run rehearse -- status, when it is done',
      })
  } catch (error) {
    if (error instanceof Failure) throw error
  }
  mkdirSync(dirname(file), { recursive: true })
  writeWhole(file, JSON.stringify({ pid: process.pid, started: processStarted(process.pid) }))
  return () => rmSync(file, { force: true })
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
  // Ctrl-C reaches the runbook from the terminal; it says where it stopped, and so does this.
  const wait = () => {}
  process.on('SIGINT', wait)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  process.removeListener('SIGINT', wait)
  if (code === EXIT.converged) return
  throw new Failure({
    found: `${command.join(' ')} ended with ${code ?? 'a signal'}, see above; the rehearsal is still up`,
    expected: 'that it converges',
    next: 'npm run rehearse, which goes on, or npm run rehearse -- down',
    exit: code === EXIT.interrupted ? EXIT.interrupted : EXIT.failed,
  })
}

/** @returns lines that a POSIX shell can source */
function shellLines({ env }: Rehearsal): string {
  const quote = (value: string) => `'${value.replaceAll("'", "'\\''")}'`
  const { PATH = '', HOME: _home, USER: _user, TERM: _term, LANG: _lang, ...own } = env
  const known = new Set((process.env.PATH ?? '').split(':'))
  const added = PATH.split(':').filter((folder) => !known.has(folder))
  return [
    '# Points a shell, and every runbook run from it, at the rehearsal that is up: . .rehearsal/env',
    'unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL PGSERVICE PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE',
    ...(added.length > 0 ? [`export PATH=${quote(added.join(':'))}:"$PATH"`] : []),
    ...Object.entries(own).map(([name, value]) => `export ${name}=${quote(value)}`),
    '',
  ].join('\n')
}

type Postgres = { host: string; port: number; user: string; password: string; database: string; ca: string }

/** Tells psql where the databases are and with which passwords, so that none has to be given to it as an argument. */
async function writeServices({ env }: Rehearsal, { terraform }: Tools): Promise<void> {
  const postgres = JSON.parse(await output(env, terraform, ['output', '-json', 'postgres'])) as Postgres
  const ca = join(DIRECTORY, 'postgres-ca.pem')
  writeWhole(ca, postgres.ca)
  const service = (name: string, user: string, password: string, database: string) =>
    [
      `[${name}]`,
      `host=${postgres.host}`,
      `port=${postgres.port}`,
      `user=${user}`,
      `password=${password}`,
      `dbname=${database}`,
      'sslmode=verify-full',
      `sslrootcert=${ca}`,
      '',
    ].join('\n')
  const { database } = namesOf(CUSTOMER)
  const { databasePassword } = readSecrets(siteDirectoryOf(DIRECTORY), CUSTOMER)
  writeWhole(
    serviceFileOf(DIRECTORY),
    [
      service('doadmin', postgres.user, postgres.password, postgres.database),
      service(CUSTOMER, database, databasePassword.reveal(), database),
    ].join('\n'),
  )
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

function waysToLook({ terraform }: Tools, envFile: string): string[] {
  const program = terraform.endsWith('tofu') ? 'tofu' : 'terraform'
  const aws = onPath('aws', thisMachine()) ? '' : '    (there is no aws on PATH: pip install awscli)'
  return [
    `Point a shell at it, from the checkout:        . ${show(envFile)}`,
    'then, for example:',
    '  ./runbooks/list-customers.mts',
    `  ${program} -chdir=terraform output`,
    '  psql service=doadmin -c "\\l"',
    `  psql service=${CUSTOMER}`,
    `  aws --endpoint-url "$SPACES_ENDPOINT_URL" s3 ls${aws}`,
    `  git --git-dir=${show(repositoryDirectory(DIRECTORY))} log --oneline`,
    '  ./runbooks/add-customer.mts zenith',
    'Take it down:                                  npm run rehearse -- down',
    '',
    'Not rehearsed yet: the droplet, Kubernetes, Argo CD and Gitea are objects of the cloud’s API with nothing behind',
    'them, so no application runs. docs/rehearsal.md says what each stand-in does not prove.',
  ]
}

async function down(): Promise<void> {
  const started = Date.now()
  const before = processesOf(DIRECTORY)
  const existed = existsSync(DIRECTORY)
  await endRehearsal(DIRECTORY)
  const left = before.filter(isRunning)
  if (left.length > 0)
    throw new Failure({
      found: `still running: ${left.map(({ name, pid }) => `${name} (process ${pid})`).join(', ')}`,
      expected: 'nothing',
      next: `kill -9 ${left.map(({ pid }) => pid).join(' ')}`,
    })
  say(
    existed
      ? `Down: ${before.length} processes ended, ${show(DIRECTORY)} removed  ${seconds(started)}`
      : 'Nothing is up.',
  )
}

async function status(): Promise<void> {
  const cloud = readCloud(DIRECTORY)
  const rehearsal = await findRehearsal(DIRECTORY, (await findTools()) as Tools)
  if (!cloud || !rehearsal) {
    const left = processesOf(DIRECTORY)
    say(
      left.length > 0 ? `Not up, but ${left.length} of its processes run: npm run rehearse -- down` : 'Nothing is up.',
    )
    return
  }
  say(`Up since ${cloud.started}, in ${show(DIRECTORY)}`)
  say(`  DigitalOcean  ${cloud.digitalocean.url}`)
  say(`  Cloudflare    ${cloud.cloudflare.url}`)
  say(`  Spaces        ${cloud.spaces.url}`)
  say(
    `  processes     ${processesOf(DIRECTORY)
      .map(({ name, pid }) => `${name} ${pid}`)
      .join(', ')}`,
  )
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { help: { type: 'boolean' } } })
  if (values.help) return say(USAGE)
  const [word = 'up', ...more] = positionals
  const command = { up, down, status }[word]
  if (!command || more.length > 0)
    throw misuse({
      found: `npm run rehearse -- ${positionals.join(' ')}`,
      expected: 'up, down or status',
      next: 'npm run rehearse -- --help',
    })
  await command()
}

main().catch((error) => {
  console.error(oneLine(tell(error)))
  process.exitCode = error instanceof Failure ? error.exit : EXIT.failed
})
