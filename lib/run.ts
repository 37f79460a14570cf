// What one run of a runbook carries: the site, the credentials, and the only ways to touch the world.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Credentials } from './credentials.ts'
import type { Emit } from './events.ts'
import type { Exec } from './exec.ts'
import { writeWhole } from './files.ts'
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
  /** has this closed when the run ends, however it ends */
  atEnd: (close: () => Promise<void>) => void
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

/** A Terraform that holds its own lock. It goes on when its run has died, and its lock stays when it dies itself. */
type TerraformProcess = {
  process: ProcessIdentity
  /** ISO time at which it was started */
  since: string
  /** the folder of its run, from which it reads */
  scratch: string
}

const recordsOf = (directory: string) => join(directory, 'terraform-processes')
const recordOf = (directory: string, pid: number) => join(recordsOf(directory), String(pid))

/** Notes it down, so that another run knows whose lock it meets. */
export function recordTerraform({ site, scratch }: Run, pid: number): void {
  const record: TerraformProcess = { process: identityOf(pid), since: new Date().toISOString(), scratch }
  writeWhole(recordOf(site.directory, pid), JSON.stringify(record))
}

export const forgetTerraform = (directory: string, pid: number): void =>
  rmSync(recordOf(directory, pid), { force: true })

/** @returns those that this site's runs on this machine have started and not seen end, the oldest first */
export function recordedTerraforms(directory: string): (TerraformProcess & { isRunning: boolean })[] {
  if (!existsSync(recordsOf(directory))) return []
  return readdirSync(recordsOf(directory))
    .filter((name) => /^\d+$/.test(name))
    .map((name): TerraformProcess => JSON.parse(readFileSync(join(recordsOf(directory), name), 'utf8')))
    .map((record) => ({ ...record, isRunning: isRunning(record.process) }))
    .sort((a, b) => (a.since < b.since ? -1 : 1))
}
