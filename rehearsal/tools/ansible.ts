// Ansible and what checks it, of PyPI: each with what it needs, in a virtual environment of its own in the cache.
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure } from '../../lib/failure.ts'
import type { Machine } from './machine.ts'
import { pythonWithPip } from './pypi.ts'
import { run } from './run.ts'

/** The newest that Debian 12's Python runs. */
const CORE = 'ansible-core==2.19.14'
const LINT = 'ansible-lint==26.10.1'

export type PythonTool = { packages: readonly string[]; program: string; otherwise: string }

export const ANSIBLE: PythonTool = {
  packages: [CORE],
  program: 'ansible-playbook',
  otherwise: 'install ansible-core',
}
export const ANSIBLE_LINT: PythonTool = {
  packages: [LINT, CORE],
  program: 'ansible-lint',
  otherwise: 'install ansible-lint',
}

const folderOf = ({ packages }: PythonTool, { cache }: Machine) =>
  join(cache, packages.map((name) => name.replace('==', '-')).join('-'))
/** Written last: paths are written into what is installed, so that it cannot be made beside and be renamed. */
const stampOf = (tool: PythonTool, machine: Machine) => join(folderOf(tool, machine), 'complete')

/** @returns the path of its program; undefined where it is not installed */
export const findPythonTool = (tool: PythonTool, machine: Machine): string | undefined =>
  existsSync(stampOf(tool, machine)) ? join(folderOf(tool, machine), 'bin', tool.program) : undefined

export async function installPythonTool(tool: PythonTool, machine: Machine): Promise<void> {
  const next = tool.otherwise
  const python = await pythonWithPip(machine)
  if (!python) throw new Failure({ found: 'there is no python3 with pip on PATH', next })
  const folder = folderOf(tool, machine)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(dirname(folder), { recursive: true })
  const environment = { ...machine.environment, PIP_ROOT_USER_ACTION: 'ignore', PIP_DISABLE_PIP_VERSION_CHECK: '1' }
  await run([python, '-m', 'venv', '--without-pip', folder], { environment, next })
  const into = ['--python', join(folder, 'bin', 'python')]
  await run([python, '-m', 'pip', ...into, 'install', '--quiet', ...tool.packages], { environment, next })
  writeFileSync(stampOf(tool, machine), '')
}
