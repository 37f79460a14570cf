// What one run of a runbook carries: the site, the credentials, and the only ways to touch the world.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Credentials } from './credentials.ts'
import type { Emit } from './events.ts'
import type { Exec } from './exec.ts'
import { isRunning } from './process.ts'
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

/** In a run's scratch folder: the process that may go on when the run has died. */
export const PID_FILE = 'process-id'

/** @returns whether a process of a run that may be dead still uses the run's scratch folder */
export function isInUse(scratch: string): boolean {
  const file = join(scratch, PID_FILE)
  return existsSync(file) && isRunning(Number(readFileSync(file, 'utf8')))
}

/** @returns whether any run of the site, dead or alive, has a process that still works */
export const isBusy = (directory: string): boolean =>
  readdirSync(directory).some((name) => name.startsWith('scratch-') && isInUse(join(directory, name)))
