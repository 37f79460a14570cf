// Whether another process of this machine is still there.

import { readFileSync } from 'node:fs'

/** @returns whether a process with this id runs, whoever owns it; one that has ended and is only not buried yet does not */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return process.platform !== 'linux' || !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' // somebody else's; a missing one is ESRCH or ENOENT
  }
}
