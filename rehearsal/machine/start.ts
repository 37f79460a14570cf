// A machine within this one: a first process with a network, a process tree, mounts and control groups of its own. All
// that runs on it ends with that process, and that one with the cloud, however it ends.
import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Forward, startForward, type Target } from '../servers/forward.ts'
import { forgetProcess, recordProcess } from '../servers/processes.ts'
import { makeCgroups, removeCgroups } from './cgroups.ts'
import { openChannel } from './channel.ts'
import { type MachineSettings, type Message, machineSettings } from './messages.ts'

export type MachineOptions<Settings extends MachineSettings> = {
  /** of the cloud: what the machine keeps and its process are noted down there */
  directory: string
  /** unique among the cloud's machines */
  name: string
  /** what it is called where something is wrong with it, such as 'the cluster’s node' */
  what: string
  /** the program of its first process, which is given the path of the settings' file */
  main: URL
  settings: Settings
}

export type Machine = {
  /** settles when the machine has done it */
  ask: (message: Message) => Promise<void>
  /** makes what is there a port of an address that the machine reaches: the one at which the cloud is found, unless told */
  publish: (port: number, to: Target, address?: string) => Promise<void>
  /** @returns a socket that leads to a port of the machine */
  expose: (port: number) => Promise<string>
  /** resolves when it is up; rejects when it ends before */
  ready: Promise<void>
  /** resolves when it has ended, with why */
  ended: Promise<Error>
  /** ends it, also after it has ended; what it has written stays, logs among it */
  end: () => Promise<void>
  /** ends it and leaves nothing of it */
  stop: () => Promise<void>
}

/** Milliseconds that it may take to end. */
const FAREWELL = 10_000

const machinesOf = (directory: string) => join(directory, 'machines')

/** @returns the folder of all that a machine keeps */
export const homeOf = (directory: string, name: string) => join(machinesOf(directory), name)
const settingsFile = (home: string) => join(home, 'settings.json')

/** Starts it. What it leaves behind when the cloud is killed is for removeMachines. */
export function startMachine<Settings extends MachineSettings>(options: MachineOptions<Settings>): Machine {
  const { directory, name, what, main, settings } = options
  const home = homeOf(directory, name)
  for (const folder of [home, settings.runtime]) mkdirSync(folder, { recursive: true, mode: 0o700 })
  writeFileSync(settingsFile(home), JSON.stringify(settings), { mode: 0o600 })
  makeCgroups(settings.cgroup)
  const log = join(home, 'machine.log')
  const child = spawnFirst(log, fileURLToPath(main), settingsFile(home))
  if (child.pid) recordProcess(directory, name, child.pid, 'SIGKILL')
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()).once('error', () => resolve()))
  const ended = exited.then(() => {
    const said = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').slice(-10).join('\n') : ''
    return new Error(`${what} ended${said ? `: ${said}` : ''}; its logs are in ${home}`)
  })
  const failed = ended.then((error) => Promise.reject(error))
  failed.catch(() => {})
  const channel = openChannel(child, what, ended)
  const ready = Promise.race([channel.ready, failed])
  ready.catch(() => {})

  const forwards: Forward[] = []
  let sockets = 0
  const socket = () => join(settings.runtime, `s${++sockets}`)
  const publish = async (port: number, to: Target, address?: string) => {
    const path = socket()
    forwards.push(await startForward({ listen: { path }, connect: to }))
    await channel.ask({ publish: port, socket: path, ...(address ? { address } : {}) })
  }
  const expose = async (port: number) => {
    const path = socket()
    await channel.ask({ expose: port, socket: path })
    return path
  }
  /** The first process ends when its standard input does, and with it, before it is gone, all that it started. */
  const end = async () => {
    child.stdin?.end()
    const late = new AbortController()
    const kill = sleep(FAREWELL, undefined, { signal: late.signal }).then(() => child.kill('SIGKILL'))
    kill.catch(() => {})
    await exited
    late.abort()
    await Promise.all(forwards.splice(0).map((forward) => forward.close()))
    forgetProcess(directory, name)
    await removeCgroups(settings.cgroup)
  }
  const stop = async () => {
    await end()
    for (const folder of [home, settings.runtime]) rmSync(folder, { recursive: true, force: true })
  }
  return { ask: channel.ask, publish, expose, ready, ended, end, stop }
}

/** All of it ends when the first process does, and that one when this one does, however it ends. */
function spawnFirst(logFile: string, main: string, settings: string) {
  const log = openSync(logFile, 'a', 0o600)
  const own = ['--net', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc']
  const first = [process.execPath, '--import', 'tsx', main, settings]
  const child = spawn('setpriv', ['--pdeathsig=KILL', 'unshare', ...own, ...first], { stdio: ['pipe', 'pipe', log] })
  closeSync(log)
  return child
}

/** @returns the control group of a machine, unlike any other's of this computer */
export const cgroupOf = (name: string) => `/lunarfront-${process.pid}-${name}`

/** Removes what machines have left behind that were killed with their cloud, or did not start. */
export async function removeMachines(directory: string): Promise<void> {
  const machines = machinesOf(directory)
  if (!existsSync(machines)) return
  for (const name of readdirSync(machines)) {
    const file = settingsFile(homeOf(directory, name))
    if (existsSync(file)) await removeCgroups(machineSettings.parse(JSON.parse(readFileSync(file, 'utf8'))).cgroup)
  }
  rmSync(machines, { recursive: true, force: true })
}
