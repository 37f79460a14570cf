// Ansible of PyPI, with what it needs, in a virtual environment of its own in the cache.
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure } from '../../lib/failure.ts'
import type { Machine } from './machine.ts'
import { pythonWithPip } from './pypi.ts'
import { run } from './run.ts'

/** The newest that Debian 12's Python runs. */
export const ANSIBLE_CORE = '2.19.14'

const folderOf = ({ cache }: Machine) => join(cache, `ansible-core-${ANSIBLE_CORE}`)
/** Written last: paths are written into what is installed, so that it cannot be made beside and be renamed. */
const stampOf = (machine: Machine) => join(folderOf(machine), 'complete')

/** @returns the path of ansible-playbook; undefined where it is not installed */
export const findAnsible = (machine: Machine): string | undefined =>
  existsSync(stampOf(machine)) ? join(folderOf(machine), 'bin', 'ansible-playbook') : undefined

export async function installAnsible(machine: Machine): Promise<void> {
  const next = 'install ansible-core'
  const python = await pythonWithPip(machine)
  if (!python) throw new Failure({ found: 'there is no python3 with pip on PATH', next })
  const folder = folderOf(machine)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(dirname(folder), { recursive: true })
  const environment = { ...machine.environment, PIP_ROOT_USER_ACTION: 'ignore', PIP_DISABLE_PIP_VERSION_CHECK: '1' }
  await run([python, '-m', 'venv', '--without-pip', folder], { environment, next })
  const into = ['--python', join(folder, 'bin', 'python')]
  await run([python, '-m', 'pip', ...into, 'install', '--quiet', `ansible-core==${ANSIBLE_CORE}`], {
    environment,
    next,
  })
  writeFileSync(stampOf(machine), '')
}
