// Starts a cluster: makes its certificates, gives it a network, a process tree and a file system view of its own, and
// connects it with the machine's loopback.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type Authority, issueCertificate, issueKeyPair } from '../servers/certificates.ts'
import { type Forward, startForward } from '../servers/forward.ts'
import { forgetProcess, recordProcess } from '../servers/processes.ts'
import { kubeconfig } from './kubeconfig.ts'
import { API_PORT, KUBERNETES_ADDRESS, type Message, NODE_ADDRESS, type NodeSettings } from './messages.ts'

export type ClusterOptions = {
  /** of the cloud: the process is noted down there */
  directory: string
  /** a short path, for sockets */
  runtime: string
  /** unique among the cloud's clusters */
  name: string
  programs: string
  images: string[]
  authority: Authority
  domain: string
  nameServerPort: number
}

export type Cluster = {
  /** address of its API */
  server: string
  token: string
  /** makes a port of the machine's loopback, or a socket, one of the node's address */
  publish: (port: number, to?: { path: string }) => Promise<void>
  /** @returns a socket that leads to a port of the node */
  expose: (port: number) => Promise<string>
  importImage: (archive: string) => Promise<void>
  stop: () => Promise<void>
}

/** Seconds that a cluster may take to start. */
const PATIENCE = 180

const cgroupsOf = (name: string) => {
  const root = '/sys/fs/cgroup'
  const controllers = existsSync(join(root, 'cgroup.controllers')) ? ['.'] : readdirSync(root)
  return controllers.map((controller) => join(root, controller, name))
}

/** The kubelet wants the group that its pods are under to be there already. */
function makeCgroups(name: string): void {
  for (const group of cgroupsOf(name)) {
    mkdirSync(group, { recursive: true })
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      const [own, parent] = [join(group, file), join(group, '..', file)]
      if (existsSync(own) && existsSync(parent) && readFileSync(own, 'utf8').trim() === '')
        writeFileSync(own, readFileSync(parent, 'utf8'))
    }
  }
}

/** Groups can only go from the innermost out, when nothing runs in them any more. */
export function removeCgroups(name: string): void {
  const remove = (group: string) => {
    for (const entry of readdirSync(group, { withFileTypes: true }))
      if (entry.isDirectory()) remove(join(group, entry.name))
    rmdirSync(group)
  }
  for (const group of cgroupsOf(name)) {
    try {
      if (existsSync(group)) remove(group)
    } catch {} // a process of it is still ending
  }
}

export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { directory, name, programs, authority, domain, nameServerPort } = options
  const home = join(directory, name)
  const tls = join(home, 'tls')
  const runtime = join(options.runtime, name)
  rmSync(home, { recursive: true, force: true })
  for (const folder of [tls, runtime]) mkdirSync(folder, { recursive: true, mode: 0o700 })
  const token = randomBytes(32).toString('hex')
  const names = ['localhost', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'workers-1']
  const addresses = ['127.0.0.1', NODE_ADDRESS, KUBERNETES_ADDRESS]
  await Promise.all([
    issueCertificate(authority, tls, { file: 'api', names, addresses }),
    issueCertificate(authority, tls, {
      file: 'admin',
      names: [],
      addresses: [],
      subject: '/O=system:masters/CN=admin',
    }),
    issueKeyPair(authority, tls, 'sa'),
  ])
  for (const [file, source] of Object.entries({ 'ca.crt': authority.certificate, 'ca.key': authority.key }))
    writeFileSync(join(tls, file), readFileSync(source), { mode: 0o600 })
  writeFileSync(join(tls, 'tokens.csv'), `${token},admin,admin,"system:masters"\n`, { mode: 0o600 })
  writeFileSync(
    join(tls, 'kubeconfig'),
    kubeconfig({ server: `https://${NODE_ADDRESS}:${API_PORT}`, ca: authority.pem, token }),
    { mode: 0o600 },
  )
  const settings: NodeSettings = {
    ...{ directory: join(home, 'node'), runtime, programs, tls, images: options.images, domain, nameServerPort },
    cgroup: `/lunarfront-${process.pid}-${name}`,
  }
  const file = join(home, 'node.json')
  writeFileSync(file, JSON.stringify(settings))
  makeCgroups(settings.cgroup)
  const log = openSync(join(home, 'node.log'), 'a', 0o600)
  const child = spawn(
    'setpriv',
    [
      ...['--pdeathsig=KILL', 'unshare', '--net', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc'],
      ...[process.execPath, '--import', 'tsx', fileURLToPath(new URL('main.mts', import.meta.url)), file],
    ],
    { stdio: ['pipe', 'pipe', log] },
  )
  closeSync(log)
  const { stdin, stdout } = child
  if (!stdin || !stdout) throw new Error('the cluster’s node has no standard input')
  if (child.pid) recordProcess(directory, name, child.pid, 'SIGKILL')
  const forwards: Forward[] = []
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()).once('error', () => resolve()))
  const stop = async () => {
    child.kill('SIGKILL')
    await exited
    await Promise.all(forwards.map((forward) => forward.close()))
    removeCgroups(settings.cgroup)
    forgetProcess(directory, name)
    rmSync(home, { recursive: true, force: true })
    rmSync(runtime, { recursive: true, force: true })
  }
  const waiting = new Map<string, { resolve: () => void; reject: (error: Error) => void }>()
  let ready = () => {}
  const isReady = new Promise<void>((resolve) => {
    ready = resolve
  })
  createInterface({ input: stdout }).on('line', (line) => {
    const told = JSON.parse(line)
    if (told.ready) return ready()
    const key = JSON.stringify(told.done ?? told.failed)
    if (told.failed) waiting.get(key)?.reject(new Error(`the cluster’s node: ${told.reason}`))
    else waiting.get(key)?.resolve()
    waiting.delete(key)
  })
  const ask = (message: Message) =>
    new Promise<void>((resolve, reject) => {
      waiting.set(JSON.stringify(message), { resolve, reject })
      stdin.write(`${JSON.stringify(message)}\n`)
    })
  const failed = exited.then(() => {
    const said = readFileSync(join(home, 'node.log'), 'utf8').trim().split('\n').slice(-10).join('\n')
    throw new Error(`the cluster’s node ended: ${said}`)
  })
  failed.catch(() => {})
  let sockets = 0
  const socket = () => join(runtime, `s${++sockets}`)
  const publish = async (port: number, to?: { path: string }) => {
    const path = to?.path ?? socket()
    if (!to) forwards.push(await startForward({ listen: { path }, connect: { host: '127.0.0.1', port } }))
    await ask({ publish: port, socket: path })
  }
  const expose = async (port: number) => {
    const path = socket()
    await ask({ expose: port, socket: path })
    return path
  }
  try {
    const late = setTimeout(() => child.kill('SIGKILL'), PATIENCE * 1000)
    await Promise.race([isReady, failed])
    clearTimeout(late)
    const api = await startForward({
      listen: { host: '127.0.0.1', port: 0 },
      connect: { path: await expose(API_PORT) },
    })
    forwards.push(api)
    return {
      server: `https://127.0.0.1:${api.port}`,
      token,
      publish,
      expose,
      importImage: (archive) => ask({ image: archive }),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}
