// The servers that the cloud starts: each leaves a file that says which process it is, so that
// whoever cleans up after a cloud that was killed can end exactly those.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { identityOf, isRunning as isThere, type ProcessIdentity } from '../../lib/process.ts'

export type { ProcessIdentity }

export type Server = {
  name: string
  /** Where its output goes. */
  log: string
  exited: Promise<void>
  stop: () => Promise<void>
}

export type ServerOptions = {
  /** The cloud's directory: pid files go to pids/, output to logs/. */
  directory: string
  name: string
  command: string[]
  env?: Record<string, string>
  /** Run as this user; only root can. */
  user?: string | undefined
  /** What asks the server to stop at once without losing anything it needs. */
  stopSignal?: NodeJS.Signals
}

/** @returns when the process started, in its system's own notation; undefined when there is none */
export function processStarted(pid: number): string | undefined {
  const identity = identityOf(pid)
  if (process.platform === 'linux') return isThere(identity) ? identity.started : undefined
  try {
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim() || undefined
  } catch {
    return undefined
  }
}

/** @returns whether that very process still runs */
export const isRunning = ({ pid, started }: ProcessIdentity) => processStarted(pid) === started

const pidFile = (directory: string, name: string) => join(directory, 'pids', name)

/** Notes down a process for endAll. */
export function recordProcess(directory: string, name: string, pid: number, stopSignal: NodeJS.Signals): void {
  const started = processStarted(pid)
  if (started === undefined) return
  mkdirSync(join(directory, 'pids'), { recursive: true, mode: 0o700 })
  writeFileSync(pidFile(directory, name), JSON.stringify({ pid, started, stopSignal }), { mode: 0o600 })
}

export const forgetProcess = (directory: string, name: string) => rmSync(pidFile(directory, name), { force: true })

const setpriv = () => ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path))

/** Linux ends the child when the cloud dies, however it dies; elsewhere the pid files have to do. */
function wrapped({ command, user, stopSignal = 'SIGTERM' }: ServerOptions): string[] {
  const wrapper = setpriv()
  if (wrapper)
    return [
      wrapper,
      `--pdeathsig=${stopSignal.slice(3)}`,
      ...(user ? [`--reuid=${user}`, `--regid=${user}`, '--init-groups'] : []),
      ...command,
    ]
  return user ? ['runuser', '-u', user, '--', ...command] : command
}

/** Starts a server; that it also answers is for the caller to wait for. */
export function startServer(options: ServerOptions): Server {
  const { directory, name, env = {}, stopSignal = 'SIGTERM' } = options
  mkdirSync(join(directory, 'logs'), { recursive: true, mode: 0o700 })
  const log = join(directory, 'logs', `${name}.log`)
  const output = openSync(log, 'a', 0o600)
  const [program = '', ...args] = wrapped(options)
  const child = spawn(program, args, {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C.UTF-8', ...env },
    stdio: ['ignore', output, output],
  })
  closeSync(output)
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  if (child.pid === undefined) return { name, log, exited, stop: async () => {} }
  recordProcess(directory, name, child.pid, stopSignal)
  void exited.then(() => forgetProcess(directory, name))
  return { name, log, exited, stop: () => stopChild(child, exited, stopSignal) }
}

async function stopChild(child: ChildProcess, exited: Promise<void>, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill(signal)
  const patience = new AbortController()
  const late = sleep(5_000, 'late', { signal: patience.signal }).catch(() => undefined)
  if ((await Promise.race([exited, late])) === 'late') child.kill('SIGKILL')
  patience.abort()
  await exited
}

/**
 * Waits until the server answers.
 * @param answers is asked again and again, every few milliseconds
 * @param within milliseconds
 */
export async function waitUntil(answers: () => Promise<boolean>, server: Server, within: number): Promise<void> {
  const end = Date.now() + within
  let gone = false
  void server.exited.then(() => {
    gone = true
  })
  const said = () => readFileSync(server.log, 'utf8').trim().split('\n').slice(-3).join(' ')
  while (!(await answers())) {
    if (gone) throw new Error(`${server.name} stopped while it was starting: ${said()} (more in ${server.log})`)
    if (Date.now() > end) throw new Error(`${server.name} did not answer within ${within} ms: see ${server.log}`)
    await sleep(15)
  }
}

type NotedProcess = ProcessIdentity & { stopSignal: NodeJS.Signals }

/** @returns undefined for a file that its process has just taken away */
function readNote(path: string): NotedProcess | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as NotedProcess
  } catch {
    return undefined
  }
}

/** Ends every process noted under the directory and waits until it is gone. */
export async function endAll(directory: string): Promise<void> {
  const folder = join(directory, 'pids')
  if (!existsSync(folder)) return
  await Promise.all(
    readdirSync(folder).map(async (name) => {
      const noted = readNote(join(folder, name))
      if (noted) await endProcess(noted, noted.stopSignal)
      forgetProcess(directory, name)
    }),
  )
}

/** Asks the process to stop, and after five seconds ends it. */
async function endProcess(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<void> {
  if (identity.pid === process.pid) return // a cloud inside this process ends by its own stop()
  for (const attempt of [signal, 'SIGKILL'] as const) {
    if (!isRunning(identity)) return
    try {
      process.kill(identity.pid, attempt)
    } catch {
      return
    }
    for (const end = Date.now() + 5_000; Date.now() < end && isRunning(identity); ) await sleep(15)
  }
}
