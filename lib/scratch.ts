// The folder of one run, for what it needs only while it runs.
import { mkdirSync, readdirSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { misuse } from './failure.ts'
import { identityOf, isRunning } from './process.ts'
import { recordedTerraforms } from './run.ts'

/** A folder of this run alone; those of runs that died, which may hold a plan with secrets, go. */
export function makeScratch(directory: string): string {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  if ((statSync(directory).mode & 0o077) !== 0)
    throw misuse({
      found: `${directory} may be read by others`,
      expected: 'a folder for its owner alone',
      next: `chmod 700 ${directory}`,
    })
  const survivors = recordedTerraforms(directory).filter((one) => one.isRunning)
  for (const name of readdirSync(directory)) {
    const [, pid, started] = /^scratch-(\d+)-(\d*)$/.exec(name) ?? []
    const folder = join(directory, name)
    if (pid === undefined || isRunning({ pid: Number(pid), started: started ?? '' })) continue
    if (survivors.some((one) => one.scratch === folder)) continue // it outlived its run, and reads from there
    try {
      rmSync(folder, { recursive: true, force: true })
    } catch {} // a git of that run is still at work there; the next run finds it done
  }
  const { pid, started } = identityOf(process.pid)
  const scratch = join(directory, `scratch-${pid}-${started}`)
  rmSync(scratch, { recursive: true, force: true })
  mkdirSync(scratch, { mode: 0o700 })
  return scratch
}

/** Another run may have put something into it meanwhile; then it stays. */
export function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder)
  } catch (error) {
    if (!/^(ENOTEMPTY|EEXIST|ENOENT)$/.test((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}
