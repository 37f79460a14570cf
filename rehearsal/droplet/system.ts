// A droplet's system: Debian's systemd in a container of systemd-nspawn, on a disk that begins as the cached root.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { groupsOf, killCgroup, limitMemory } from '../machine/cgroups.ts'
import { CLOUD_ADDRESS } from '../machine/messages.ts'
import { type DropletSettings, type Power, PUBLIC_ADDRESS } from './messages.ts'
import { NETWORK_PATH } from './network.ts'
import { POOL } from './root.ts'

const run = promisify(execFile)

/** Milliseconds until SSH has to answer, and until what was asked to shut down is ended. */
const BOOT = 90_000
const SHUTDOWN = 60_000

/** With which systemd-nspawn ends when its system wants to be started anew, and whoever started it is to do so. */
const REBOOT = 133

/** Of the disk what Docker cannot have on an overlay: it makes overlays of its own there. */
const OWN_FOLDERS = ['/var/lib/docker', '/var/lib/containerd']

export type System = { power: (power: Power) => Promise<void> }

/** Makes the disk; nothing is started yet. */
export async function openSystem(settings: DropletSettings): Promise<System> {
  const root = await makeDisk(settings)
  limitMemory(settings.cgroup, settings.memoryMegabytes * 2 ** 20)
  let running: Promise<void> | undefined
  let child: ChildProcess | undefined
  let isWanted = false

  const boot = () => {
    child = spawnSystem(settings, root)
    const exited = new Promise<number | null>((resolve) => {
      child?.once('exit', resolve)
      child?.once('error', () => resolve(null))
    })
    running = exited.then((code) => {
      child = undefined
      running = undefined
      if (isWanted && code === REBOOT) boot() // it was asked to from within
    })
  }
  const on = async () => {
    isWanted = true
    if (!running) boot()
    await answers()
  }
  /** What is in the container does not end with systemd-nspawn where that is killed. */
  const off = async () => {
    isWanted = false
    await killCgroup(settings.cgroup)
    await running
  }
  const shutdown = async () => {
    isWanted = false
    child?.kill('SIGTERM')
    const late = new AbortController()
    await Promise.race([running, sleep(SHUTDOWN, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
    await off()
  }
  const powers: Record<Power, () => Promise<void>> = {
    on,
    off,
    shutdown,
    reboot: () => shutdown().then(on),
    cycle: () => off().then(on),
  }
  return { power: (power) => powers[power]() }
}

/** An overlay: what the droplet writes is its own, and what it starts with is everybody's. */
async function makeDisk({ directory, root, name, keys, privateAddress }: DropletSettings): Promise<string> {
  const folder = (path: string) => {
    const full = join(directory, path)
    mkdirSync(full, { recursive: true, mode: 0o755 })
    return full
  }
  const [upper, work, merged] = [folder('disk'), folder('work'), folder('root')]
  for (const path of OWN_FOLDERS) folder(path)
  await run('mount', [
    ...['-t', 'overlay', 'droplet'],
    ...['-o', `lowerdir=${root},upperdir=${upper},workdir=${work}`, merged],
  ])
  const write = (path: string, text: string, mode = 0o644) => {
    mkdirSync(join(merged, path, '..'), { recursive: true, mode: mode === 0o600 ? 0o700 : 0o755 })
    writeFileSync(join(merged, path), text, { mode })
  }
  write('/root/.ssh/authorized_keys', keys.map((key) => `${key.trim()}\n`).join(''), 0o600)
  write('/etc/hostname', `${name}\n`)
  write('/etc/hosts', `127.0.0.1 localhost\n127.0.1.1 ${name}\n::1 localhost\n${privateAddress} ${name}\n`)
  write('/etc/resolv.conf', `nameserver ${CLOUD_ADDRESS}\n`)
  return merged
}

function spawnSystem({ directory, pool, name, cgroup }: DropletSettings, root: string): ChildProcess {
  const log = openSync(join(directory, 'console.log'), 'a', 0o600)
  const nspawn = [
    ...['systemd-nspawn', `--directory=${root}`, '--machine=droplet', `--hostname=${name}`, '--boot'],
    ...['--register=no', '--keep-unit', `--network-namespace-path=${NETWORK_PATH}`, '--capability=all'],
    ...['--system-call-filter=add_key keyctl bpf perf_event_open', '--resolv-conf=off', '--timezone=off'],
    ...['--link-journal=no', '--console=pipe', `--bind-ro=${pool}:${POOL}`],
    ...OWN_FOLDERS.map((path) => `--bind=${join(directory, path)}:${path}`),
  ]
  // The container's own tree of control groups begins where its first process is.
  const joined = groupsOf(cgroup).map((group) => `echo $$ >'${group}/cgroup.procs'`)
  const child = spawn(
    'setpriv',
    ['--pdeathsig=KILL', 'sh', '-ec', [...joined, 'exec "$@"'].join('\n'), 'sh', ...nspawn],
    {
      env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin', SYSTEMD_NSPAWN_API_VFS_WRITABLE: 'network' },
      stdio: ['ignore', log, log],
    },
  )
  closeSync(log)
  return child
}

/** Resolves when SSH answers, with its own greeting. */
async function answers(): Promise<void> {
  for (const end = Date.now() + BOOT; Date.now() < end; await sleep(50)) if (await greets()) return
  throw new Error(`SSH did not answer within ${BOOT / 1000} s after it was switched on`)
}

const greets = () =>
  new Promise<boolean>((resolve) => {
    const socket = createConnection({ host: PUBLIC_ADDRESS, port: 22, timeout: 1000 })
    const end = (isThere: boolean) => {
      socket.destroy()
      resolve(isThere)
    }
    socket.once('data', (data) => end(data.toString().startsWith('SSH-')))
    socket.once('error', () => end(false))
    socket.once('timeout', () => end(false))
    socket.once('end', () => end(false))
  })
