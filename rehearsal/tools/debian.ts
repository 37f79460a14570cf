// Debian's packages: only the missing ones, and nothing of them left running.
import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../../lib/failure.ts'
import { type Machine, onPath } from './machine.ts'
import { run } from './run.ts'

const POSTGRES_SETTINGS = '/etc/postgresql-common/createcluster.d'

const install = (packages: string[]) => ['apt-get', 'install', '--no-install-recommends', '--yes', ...packages]

/**
 * @param packages by name
 * @returns when all of them are installed; throws a Failure where they cannot be, with the command that helps
 */
export async function installPackages(packages: string[], machine: Machine): Promise<void> {
  const byHand = `${machine.root ? '' : 'sudo '}${install(packages).join(' ')}`
  if (!machine.root)
    throw new Failure({
      found: `missing from this machine: ${packages.join(', ')}`,
      expected: 'them installed, or root to install them',
      next: byHand,
    })
  const environment = { ...machine.environment, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  const patient = ['-o', 'DPkg::Lock::Timeout=300', '-o', 'Dpkg::Use-Pty=0', '-q']
  const apt = (argv: string[]) => run([...argv, ...patient], { environment, next: byHand })
  const update = () => apt(['apt-get', 'update'])
  const restore = packages.includes('postgresql') ? withoutMainCluster() : () => {}
  try {
    const listed = readdirSync('/var/lib/apt/lists').some((name) => /_Packages/.test(name))
    if (!listed) await update()
    try {
      await apt(install(packages))
    } catch (error) {
      if (!listed) throw error
      await update() // old lists name packages that are gone
      await apt(install(packages))
    }
  } finally {
    restore()
  }
}

/** Debian's package would start a Postgres of its own; the rehearsal needs only the programs. */
function withoutMainCluster(): () => void {
  mkdirSync(POSTGRES_SETTINGS, { recursive: true })
  const file = join(POSTGRES_SETTINGS, 'lunarfront-rehearsal.conf')
  writeFileSync(file, 'create_main_cluster = off\n')
  return () => {
    rmSync(file, { force: true })
    try {
      rmdirSync(POSTGRES_SETTINGS)
    } catch {} // somebody's own settings are in it
  }
}

/** @returns whether this machine installs its programs with apt-get */
export const isDebian = (machine: Machine) => onPath('apt-get', machine) !== undefined
