// Starts a cluster: makes its certificates, and a machine that is its control plane and its one node.
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupOf, homeOf, type Machine, startMachine } from '../machine/start.ts'
import { type Authority, issueCertificate, issueKeyPair } from '../servers/certificates.ts'
import { loopback, startForward } from '../servers/forward.ts'
import { kubeconfig } from './kubeconfig.ts'
import { API_PORT, KUBERNETES_ADDRESS, NODE_ADDRESS, NODE_NAME, type NodeSettings } from './messages.ts'

export type ClusterOptions = {
  /** of the cloud */
  directory: string
  /** a short path, for sockets */
  runtime: string
  /** unique among the cloud's machines */
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

export type Cluster = Pick<Machine, 'publish' | 'expose' | 'ended' | 'stop'> & {
  /** address of its API on the machine's loopback */
  server: string
  /** of an administrator */
  token: string
  /** puts an OCI archive among the node's images */
  importImages: (archive: string) => Promise<void>
}

/** Milliseconds that a cluster may take to start. */
const PATIENCE = 180_000

/** Starts it; resolves when its node is ready. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { directory, name, nameServerPort } = options
  const { settings, token } = await prepare(options, homeOf(directory, name))
  const main = new URL('main.mts', import.meta.url)
  const machine = startMachine({ directory, name, what: 'the cluster’s node', main, settings })
  const { ask, publish, expose, ready, ended } = machine
  const late = setTimeout(() => void machine.end(), PATIENCE)
  try {
    await publish(nameServerPort, loopback(nameServerPort))
    await ready
    const listen = { host: '127.0.0.1', port: 0 }
    const api = await startForward({ listen, connect: { path: await expose(API_PORT) } })
    const importImages = (image: string) => ask({ image })
    const stop = async () => {
      await machine.stop()
      await api.close()
    }
    return { server: `https://127.0.0.1:${api.port}`, token, publish, expose, importImages, ended, stop }
  } catch (error) {
    await machine.end()
    throw error
  } finally {
    clearTimeout(late)
  }
}

/** Lays out what the node needs to start. */
async function prepare(options: ClusterOptions, home: string): Promise<{ settings: NodeSettings; token: string }> {
  const { name, programs, images, authority, domain, nameServerPort } = options
  const tls = join(home, 'tls')
  mkdirSync(tls, { recursive: true, mode: 0o700 })
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
    ...{ directory: join(home, 'node'), runtime: join(options.runtime, name), cgroup: cgroupOf(name) },
    ...{ programs, tls, images: [...images], domain, nameServerPort },
  }
  return { settings, token }
}
