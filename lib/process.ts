// Whether another process of this machine is still there.

/** @returns whether a process with this id runs, whoever owns it */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
