// Whether another process of this machine is still there.
import { readFileSync } from 'node:fs'

/** A process beyond doubt: an id alone is given again, an id with its start is not. */
export type ProcessIdentity = {
  pid: number
  /** when it started, in the system's own notation; '' where only another program could tell */
  started: string
}

export const identityOf = (pid: number): ProcessIdentity => ({ pid, started: statOf(pid)?.started ?? '' })

/** @returns whether that process runs, whoever owns it; one that has ended and is only not buried yet does not */
export function isRunning({ pid, started }: ProcessIdentity): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false // somebody else's; a missing one is ESRCH
  }
  if (process.platform !== 'linux') return true
  const stat = statOf(pid)
  return stat !== undefined && !/[ZX]/.test(stat.state) && (started === '' || stat.started === started)
}

/** From proc(5): state is the first field after the name in parentheses, the start, in ticks since boot, the twentieth. */
function statOf(pid: number): { state: string; started: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { state: fields[0] ?? '', started: fields[19] ?? '' }
  } catch {
    return undefined // none such, or a system without /proc
  }
}
