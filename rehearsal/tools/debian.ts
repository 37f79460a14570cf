// Debian's packages: only the missing ones, and nothing of them left running.
import { existsSync, lstatSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure } from '../../lib/failure.ts'
import { type Machine, onPath } from './machine.ts'
import { run } from './run.ts'

const install = (packages: string[]) => ['apt-get', 'install', '--no-install-recommends', '--yes', ...packages]

const byHand = (packages: string[], machine: Machine) =>
  [...(hasLists(machine) ? [] : [['apt-get', 'update']]), install(packages)]
    .map((argv) => `${machine.isRoot ? '' : 'sudo '}${argv.join(' ')}`)
    .join(' && ')

const hasLists = (machine: Machine) =>
  readdirSync(join(machine.files, 'var/lib/apt/lists')).some((name) => /_Packages/.test(name))

/** Throws a Failure, with the command that helps, unless packages may be installed here. */
export function checkMayInstall(packages: string[], machine: Machine): void {
  if (packages.length > 0 && !machine.isRoot)
    throw new Failure({
      found: `missing from this machine: ${packages.join(', ')}`,
      expected: 'them installed, or root to install them',
      next: byHand(packages, machine),
    })
}

/**
 * @param packages by name
 * @returns when all of them are installed; throws a Failure with apt-get's last lines where they cannot be
 */
export async function installPackages(packages: string[], machine: Machine): Promise<void> {
  const environment = { ...machine.environment, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  const patient = ['-o', 'DPkg::Lock::Timeout=300', '-o', 'Dpkg::Use-Pty=0', '-q']
  const apt = (argv: string[]) => run([...argv, ...patient], { environment, next: byHand(packages, machine) })
  const update = () => apt(['apt-get', 'update'])
  const restore = [
    packages.includes('postgresql') ? withoutMainCluster(machine) : () => {},
    withoutServices(packages, machine),
  ]
  try {
    const listed = hasLists(machine)
    if (!listed) await update()
    try {
      await apt(install(packages))
    } catch (error) {
      if (!listed) throw error
      await update() // old lists name packages that are gone
      await apt(install(packages))
    }
  } finally {
    for (const each of restore) each()
  }
}

/** Debian's package would start a Postgres of its own; the rehearsal needs only the programs. */
function withoutMainCluster(machine: Machine): () => void {
  const settings = join(machine.files, 'etc/postgresql-common/createcluster.d')
  mkdirSync(settings, { recursive: true })
  const file = join(settings, 'lunarfront-rehearsal.conf')
  writeFileSync(file, 'create_main_cluster = off\n')
  return () => {
    rmSync(file, { force: true })
    try {
      rmdirSync(settings)
    } catch {} // somebody's own settings are in it
  }
}

/** By package: the service that it would start, now and whenever the machine starts. */
const SERVICES: Record<string, string> = { containerd: 'containerd', 'openssh-server': 'ssh' }

/** Only their programs are needed: Debian's own way to say so, where nobody has said anything yet. */
function withoutServices(packages: string[], machine: Machine): () => void {
  const services = packages.flatMap((name) => SERVICES[name] ?? [])
  if (services.length === 0) return () => {}
  const enabled = services
    .map((name) => join(machine.files, 'etc/systemd/system/multi-user.target.wants', `${name}.service`))
    .filter((link) => lstatSync(link, { throwIfNoEntry: false }) === undefined)
  const policy = join(machine.files, 'usr/sbin/policy-rc.d')
  const isOurs = !existsSync(policy)
  mkdirSync(dirname(policy), { recursive: true })
  const named = services.flatMap((name) => [name, `${name}.service`]).join(' | ')
  if (isOurs) writeFileSync(policy, `#!/bin/sh\ncase $1 in ${named}) exit 101 ;; esac\n`, { mode: 0o755 })
  return () => {
    for (const link of enabled) rmSync(link, { force: true })
    if (isOurs) rmSync(policy, { force: true })
  }
}

/** @returns whether this machine installs its programs with apt-get */
export const isDebian = (machine: Machine) => onPath('apt-get', machine) !== undefined
