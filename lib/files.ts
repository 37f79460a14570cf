// Files that are either there whole or not at all, and work that only one process of this machine does at a time.
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { identityOf, isRunning, type ProcessIdentity } from './process.ts'

/**
 * Writes beside the file and renames, so that a reader or a crash never meets half of it. Folders that are missing are
 * made for the owner alone.
 *
 * @param mode permissions; 0600 unless told
 */
export function writeWhole(file: string, text: string, mode = 0o600): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  const partial = `${file}.${randomBytes(6).toString('hex')}`
  try {
    const handle = openSync(partial, 'wx', mode)
    try {
      writeSync(handle, text)
      fsyncSync(handle)
    } finally {
      closeSync(handle)
    }
    renameSync(partial, file)
  } catch (error) {
    rmSync(partial, { force: true })
    throw error
  }
}

/**
 * Does the work while no other process that names the same file does its own; waits for one that does.
 *
 * @param file names the process that is at work; one that has died is passed by
 */
export async function alone<T>(file: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  const mine = `${file}.${randomBytes(6).toString('hex')}`
  writeFileSync(mine, JSON.stringify(identityOf(process.pid)), { mode: 0o600 })
  try {
    while (!claim(mine, file)) {
      if (!isRunning(readHolder(file))) rmSync(file, { force: true })
      else await sleep(100, undefined, { signal })
    }
  } finally {
    rmSync(mine, { force: true })
  }
  try {
    return await work()
  } finally {
    rmSync(file, { force: true })
  }
}

/** A link is made with its content at once, or not at all. */
function claim(mine: string, file: string): boolean {
  try {
    linkSync(mine, file)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

function readHolder(file: string): ProcessIdentity {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return identityOf(process.pid) // it has just ended: the next claim tells
  }
}
