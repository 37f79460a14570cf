// What one run of a runbook carries: the site, the credentials, and the only ways to touch the world.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Credentials } from './credentials.ts'
import type { Emit } from './events.ts'
import type { Exec } from './exec.ts'
import type { Pipe } from './pipe.ts'
import { identityOf, isRunning, type ProcessIdentity } from './process.ts'
import type { Site } from './site.ts'
import type { Spaces } from './spaces.ts'

export type Run = {
  /** name of the runbook: 'bootstrap' */
  runbook: string
  site: Site
  credentials: Credentials
  /** the process's environment variables */
  environment: Record<string, string | undefined>
  exec: Exec
  pipe: Pipe
  emit: Emit
  /** aborted when the run is interrupted */
  signal: AbortSignal
  /** only look, write nothing */
  plan: boolean
  /** a folder of this run alone, 0700, removed at its end */
  scratch: string
  /** Spaces, opened when it is first needed */
  spaces: () => Promise<Spaces>
  /** whether this run holds the site's lock */
  locked: () => boolean
}

/** @returns a function that does the work once and gives every caller the same answer; a failure is not kept */
export function once<T>(work: () => Promise<T>): (() => Promise<T>) & { forget: () => void } {
  let answer: Promise<T> | undefined
  const ask = () => {
    answer ??= work().catch((error: unknown) => {
      answer = undefined
      throw error
    })
    return answer
  }
  return Object.assign(ask, {
    forget: () => {
      answer = undefined
    },
  })
}

/** A Terraform that changes things goes on when its run has died, and then holds Terraform's own lock. */
type Survivor = {
  process: ProcessIdentity
  /** ISO time at which it was started */
  since: string
  /** the folder of its run, from which it reads */
  scratch: string
}

const survivorFile = (directory: string) => join(directory, 'terraform-process')

/** Notes it down. Only the run that holds the site's lock starts one, so there is one at the most. */
export function recordTerraform({ site, scratch }: Run, pid: number): void {
  const survivor: Survivor = { process: identityOf(pid), since: new Date().toISOString(), scratch }
  writeFileSync(survivorFile(site.directory), JSON.stringify(survivor), { mode: 0o600 })
}

export const forgetTerraform = ({ site }: Run): void => rmSync(survivorFile(site.directory), { force: true })

/** @returns the Terraform that this site's runs on this machine started last, if it did not end under their eyes */
export function recordedTerraform(directory: string): (Survivor & { isRunning: boolean }) | undefined {
  if (!existsSync(survivorFile(directory))) return undefined
  const survivor: Survivor = JSON.parse(readFileSync(survivorFile(directory), 'utf8'))
  return { ...survivor, isRunning: isRunning(survivor.process) }
}
