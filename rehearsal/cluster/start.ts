// Starts a cluster: makes its certificates, gives it a network, a process tree and a file system view of its own, and
// connects it with the machine's loopback.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Authority, issueCertificate, issueKeyPair } from '../servers/certificates.ts'
import { type Forward, startForward } from '../servers/forward.ts'
import { forgetProcess, recordProcess } from '../servers/processes.ts'
import { makeCgroups, removeCgroups } from './cgroups.ts'
import { openChannel } from './channel.ts'
import { kubeconfig } from './kubeconfig.ts'
import { API_PORT, KUBERNETES_ADDRESS, NODE_ADDRESS, NODE_NAME, type NodeSettings, nodeSettings } from './messages.ts'

export type ClusterOptions = {
  /** of the cloud: what the cluster keeps and its process are noted down there */
  directory: string
  /** a short path, for sockets */
  runtime: string
  /** unique among the cloud's clusters */
  name: string
  /** folder of the programs that are built with Go */
  programs: string
  /** OCI archives of what runs from the start */
  images: readonly string[]
  authority: Authority
  domain: string
  /** of the machine's loopback, where the domain's name server answers */
  nameServerPort: number
}

export type Cluster = {
  /** address of its API on the machine's loopback */
  server: string
  /** of an administrator */
  token: string
  /** makes a port of the machine's loopback one of the node's address */
  publish: (port: number, loopbackPort: number) => Promise<void>
  /** @returns a socket that leads to a port of the node's address */
  expose: (port: number) => Promise<string>
  /** puts an OCI archive among the node's images */
  importImages: (archive: string) => Promise<void>
  /** resolves when it has ended, with why */
  ended: Promise<Error>
  stop: () => Promise<void>
}

/** Milliseconds that a cluster may take to start, and to end. */
const PATIENCE = 180_000
const FAREWELL = 10_000

const clustersOf = (directory: string) => join(directory, 'clusters')

/** Starts it; resolves when its node is ready. What it leaves behind when it fails is for removeClusters. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { directory, name, nameServerPort } = options
  const home = join(clustersOf(directory), name)
  const { settings, token } = await prepare(options, home)
  makeCgroups(settings.cgroup)
  const child = spawnNode(home)
  if (child.pid) recordProcess(directory, name, child.pid, 'SIGKILL')
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()).once('error', () => resolve()))
  const ended = exited.then(() => {
    const said = readFileSync(join(home, 'node.log'), 'utf8').trim().split('\n').slice(-10).join('\n')
    return new Error(`the cluster’s node ended${said ? `: ${said}` : ''}; its logs are in ${settings.directory}/logs`)
  })

  const { ask, ready } = openChannel(child, ended)
  const forwards: Forward[] = []
  let sockets = 0
  const socket = () => join(settings.runtime, `s${++sockets}`)
  const publish = async (port: number, loopbackPort: number) => {
    const path = socket()
    forwards.push(await startForward({ listen: { path }, connect: { host: '127.0.0.1', port: loopbackPort } }))
    await ask({ publish: port, socket: path })
  }
  const expose = async (port: number) => {
    const path = socket()
    await ask({ expose: port, socket: path })
    return path
  }
  /** The node's first process ends when its standard input does, and with it, before it is gone, all that it started. */
  const end = async () => {
    child.stdin?.end()
    const late = new AbortController()
    const kill = sleep(FAREWELL, undefined, { signal: late.signal }).then(() => child.kill('SIGKILL'))
    kill.catch(() => {})
    await exited
    late.abort()
    await Promise.all(forwards.map((forward) => forward.close()))
    forgetProcess(directory, name)
    await removeCgroups(settings.cgroup)
  }
  const failed = ended.then((error) => Promise.reject(error))
  failed.catch(() => {})
  const late = setTimeout(() => child.kill('SIGKILL'), PATIENCE)
  try {
    await Promise.race([publish(nameServerPort, nameServerPort), failed])
    await Promise.race([ready, failed])
    const listen = { host: '127.0.0.1', port: 0 }
    const api = await startForward({ listen, connect: { path: await expose(API_PORT) } })
    forwards.push(api)
    const importImages = (archive: string) => ask({ image: archive })
    const stop = async () => {
      await end()
      for (const folder of [home, settings.runtime]) rmSync(folder, { recursive: true, force: true })
    }
    return { server: `https://127.0.0.1:${api.port}`, token, publish, expose, importImages, ended, stop }
  } catch (error) {
    await end()
    throw error
  } finally {
    clearTimeout(late)
  }
}

/** Lays out what the node needs to start. */
async function prepare(options: ClusterOptions, home: string): Promise<{ settings: NodeSettings; token: string }> {
  const { name, programs, images, authority, domain, nameServerPort } = options
  const tls = join(home, 'tls')
  const runtime = join(options.runtime, name)
  rmSync(home, { recursive: true, force: true })
  for (const folder of [tls, runtime]) mkdirSync(folder, { recursive: true, mode: 0o700 })
  const token = randomBytes(32).toString('hex')
  const names = ['localhost', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc', NODE_NAME]
  const addresses = ['127.0.0.1', NODE_ADDRESS, KUBERNETES_ADDRESS]
  const administrator = { names: [], addresses: [], subject: '/O=system:masters/CN=admin' }
  await Promise.all([
    issueCertificate(authority, tls, { file: 'api', names, addresses }),
    issueCertificate(authority, tls, { file: 'admin', ...administrator }),
    issueKeyPair(authority, tls, 'sa'),
  ])
  const server = `https://${NODE_ADDRESS}:${API_PORT}`
  const files = {
    'ca.crt': authority.pem,
    'ca.key': readFileSync(authority.key, 'utf8'),
    'tokens.csv': `${token},admin,admin,"system:masters"\n`,
    kubeconfig: kubeconfig(name, { server, ca: authority.pem, token }),
  }
  for (const [file, text] of Object.entries(files)) writeFileSync(join(tls, file), text, { mode: 0o600 })
  const settings = {
    ...{ directory: join(home, 'node'), runtime, programs, tls, images: [...images], domain, nameServerPort },
    cgroup: `/lunarfront-${process.pid}-${name}`,
  }
  writeFileSync(settingsFile(home), JSON.stringify(settings))
  return { settings, token }
}

const settingsFile = (home: string) => join(home, 'node.json')

/** All of it ends when the first process does, and that one when this one does, however it ends. */
function spawnNode(home: string) {
  const log = openSync(join(home, 'node.log'), 'a', 0o600)
  const own = ['--net', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc']
  const main = fileURLToPath(new URL('main.mts', import.meta.url))
  const node = [process.execPath, '--import', 'tsx', main, settingsFile(home)]
  const child = spawn('setpriv', ['--pdeathsig=KILL', 'unshare', ...own, ...node], { stdio: ['pipe', 'pipe', log] })
  closeSync(log)
  return child
}

/** Removes what clusters have left behind that were killed with their cloud, or did not start. */
export async function removeClusters(directory: string): Promise<void> {
  const clusters = clustersOf(directory)
  if (!existsSync(clusters)) return
  for (const name of readdirSync(clusters)) {
    const file = settingsFile(join(clusters, name))
    if (existsSync(file)) await removeCgroups(nodeSettings.parse(JSON.parse(readFileSync(file, 'utf8'))).cgroup)
  }
  rmSync(clusters, { recursive: true, force: true })
}
