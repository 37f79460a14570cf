// A whole cloud on loopback: starts all of its parts, says where they are, and ends them again.
import { randomBytes, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { startCluster } from '../cluster/start.ts'
import { serveImages } from '../droplet/images.ts'
import { startDroplet } from '../droplet/start.ts'
import { CLOUD_ADDRESS } from '../machine/messages.ts'
import { removeMachines } from '../machine/start.ts'
import { serveProviders } from '../provider/providers.ts'
import { createAuthority, issueCertificate, LOOPBACK } from '../servers/certificates.ts'
import { startPebble } from '../servers/pebble.ts'
import { installedVersions, startPostgres } from '../servers/postgres.ts'
import {
  endAll,
  forgetProcess,
  isRunning,
  type ProcessIdentity,
  processStarted,
  recordProcess,
} from '../servers/processes.ts'
import { startValkey } from '../servers/valkey.ts'
import { SIGNING_REGION, startVersitygw } from '../servers/versitygw.ts'
import type { DropletTools } from '../tools/cluster.ts'
import { cloudflareApi } from './cloudflare/api.ts'
import { dnsRecordRoutes } from './cloudflare/dns-records.ts'
import { startNameServer } from './cloudflare/name-server.ts'
import type { Hosts } from './cloudflare/zone-answers.ts'
import { type CloudflareAccount, zoneRoutes } from './cloudflare/zones.ts'
import { serveControl } from './control.ts'
import type { Account } from './digitalocean/account.ts'
import { digitalOceanApi } from './digitalocean/api.ts'
import { stopDatabases } from './digitalocean/databases.ts'
import { stopMachines } from './digitalocean/droplet-machines.ts'
import { stopClusters } from './digitalocean/kubernetes-server.ts'
import { stopLoadBalancers } from './digitalocean/load-balancers.ts'
import { addressWithin } from './digitalocean/public-addresses.ts'
import { digitalOceanRoutes } from './digitalocean/routes.ts'
import { emptyState } from './digitalocean/state.ts'
import { serveApi, type Traffic } from './http.ts'
import { offer, PRIVATE_SOURCE, privateNetwork } from './private-network.ts'
import { serveSpaces } from './spaces/front.ts'

/** Where the programs are: a folder of Postgres' ones, and paths of the others. */
export type Tools = {
  postgres: string
  valkey: string
  versitygw: string
  openssl: string
  /** What real clusters run: a folder of programs, and OCI archives. Without it clusters are objects of the API only. */
  cluster?: { programs: string; images: string[] } | undefined
  /** What real droplets are made of. Without it droplets are objects of the API only. */
  droplet?: DropletTools | undefined
}

export type CloudOptions = {
  /** Everything the cloud keeps is under it, but for what Postgres needs a short path for: see the file runtime. */
  directory: string
  /** The name of the DNS zone. */
  domain: string
  tools: Tools
  /** The region that all buckets are in; nyc3 when left out. */
  region?: string | undefined
  /** Milliseconds from a request to the readiness of what it creates; 100 when left out. */
  readyAfter?: number | undefined
  /** Names in the zone that its name server answers with these addresses, whatever Cloudflare's records say; none. */
  hosts?: Hosts | undefined
}

/** How to reach a cloud, as cloud.json has it. */
export type CloudAddresses = {
  pid: number
  digitalocean: { url: string; token: string }
  cloudflare: { url: string; token: string; zone_id: string; domain: string }
  /** Where the zone's name server answers, over UDP and TCP. */
  dns: { host: string; port: number }
  /** The region is the one that signatures name. */
  spaces: { url: string; region: string; access_key_id: string; secret_access_key: string }
  /** Folder of the real clusters' programs, kubectl and helm among them; undefined where clusters are not real. */
  programs?: string | undefined
  /** What real droplets are told; undefined where droplets are not real. */
  droplet?: DropletServices | undefined
  /** The value of TF_REATTACH_PROVIDERS. */
  reattach: Record<string, unknown>
  control: string
  /** When it was ready, ISO 8601. */
  started: string
}

/** What a droplet finds in the rehearsal in place of the world's. */
export type DropletServices = {
  /** address of a mirror of Docker Hub, and the role's variables that name what is there */
  mirror: string
  images: Record<string, string>
  /** address of an ACME directory, and what all that it issues is signed with, as PEM */
  acme: string
  issuer: string
  /** what is signed with otherwise, as PEM: the ACME directory's own certificate, and those of the clusters' addresses */
  authority: string
}

export type Cloud = CloudAddresses & { stop: () => Promise<void> }

/** Of Spaces for pods, at spaces.DOMAIN; of what droplets find, at images.DOMAIN and acme.DOMAIN. */
const SPACES_PORT = 80
const IMAGES_PORT = 5000
const ACME_PORT = 14000

const addressFile = (directory: string) => join(directory, 'cloud.json')
const runtimeFile = (directory: string) => join(directory, 'runtime')

/**
 * Starts a cloud in which nothing exists yet.
 * @throws when the directory has a cloud that runs; what a killed one left there is removed
 */
export async function startCloud(options: CloudOptions): Promise<Cloud> {
  const directory = resolve(options.directory)
  const { domain, tools, region = 'nyc3', readyAfter = 100, hosts = new Map() } = options
  await checkFree(directory)
  await stopCloud(directory)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  recordProcess(directory, 'cloud', process.pid, 'SIGTERM')
  // Sockets need short paths, and Postgres' user has to get through every folder above its own.
  const runtime = await mkdtemp('/tmp/lunarfront-')
  await chmod(runtime, 0o711)
  await writeFile(runtimeFile(directory), runtime, { mode: 0o600 })

  /** In the order it was done. */
  const undo: (() => Promise<void>)[] = []
  const stop = async () => {
    await rm(addressFile(directory), { force: true })
    for (const step of undo.splice(0).reverse()) await step()
    await endAll(directory) // whatever was still starting
    await rm(runtime, { recursive: true, force: true })
    await rm(runtimeFile(directory), { force: true })
    forgetProcess(directory, 'cloud')
  }
  try {
    const addresses = await startParts({
      ...{ directory, runtime, domain, tools, region, readyAfter, hosts, undo },
    })
    const partial = `${addressFile(directory)}.${process.pid}`
    await writeFile(partial, JSON.stringify(addresses, null, 2), { mode: 0o600 })
    await rename(partial, addressFile(directory))
    return { ...addresses, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

type Parts = Required<Omit<CloudOptions, 'region' | 'readyAfter' | 'hosts'>> & {
  runtime: string
  region: string
  readyAfter: number
  hosts: Hosts
  undo: (() => Promise<void>)[]
}

async function startParts({
  directory,
  runtime,
  domain,
  tools,
  region,
  readyAfter,
  hosts,
  undo,
}: Parts): Promise<CloudAddresses> {
  const spaces = {
    access_key_id: `DO00${randomBytes(8).toString('hex').toUpperCase()}`,
    secret_access_key: randomBytes(32).toString('base64url'),
  }
  const virtualDomain = `${region}.spaces.test`
  const parts = [
    createAuthority(join(directory, 'tls'), tools.openssl),
    installedVersions(tools.postgres),
    startVersitygw({
      directory,
      runtime,
      binary: tools.versitygw,
      virtualDomain,
      accessKeyId: spaces.access_key_id,
      secretAccessKey: spaces.secret_access_key,
    }).then((s3) => {
      undo.push(s3.stop)
      return s3
    }),
  ] as const
  await Promise.allSettled(parts) // none is still at work when what was made is undone
  const [authority, versions, s3] = await Promise.all(parts)
  const certificate = await issueCertificate(authority, join(directory, 'tls'), {
    ...LOOPBACK,
    names: [...LOOPBACK.names, `*.db.${domain}`],
  })

  const traffic: Traffic = { faults: [], calls: [] }
  const keep = <T extends { close: () => Promise<void> }>(listener: T): T => {
    undo.push(listener.close)
    return listener
  }

  const network = privateNetwork(tools.cluster || tools.droplet ? CLOUD_ADDRESS : '127.0.0.1')
  for (const [name, addresses] of hosts) network.hosts.set(name, addresses)
  const records: CloudflareAccount['records'] = new Map()
  const state = emptyState(domain)
  const zone = { name: domain, records, hosts: network.hosts }
  const dns = keep(await startNameServer(zone))
  const within = keep(await startNameServer({ ...zone, seen: (address) => addressWithin(state, address) }))

  const { cluster, droplet } = tools
  const serveDroplets = async ({ programs, images }: DropletTools): Promise<DropletServices> => {
    const host = `acme.${domain}`
    const mirror = keep(await serveImages(images.folder))
    const binary = join(programs, 'pebble')
    const pebble = keep(
      await startPebble({ directory, binary, authority, host, nameServer: `${dns.host}:${dns.port}` }),
    )
    await offer(network, `images.${domain}`, IMAGES_PORT, mirror.port)
    await offer(network, host, ACME_PORT, pebble.port)
    return {
      ...{ mirror: `http://images.${domain}:${IMAGES_PORT}`, images: images.variables },
      ...{ acme: `https://${host}:${ACME_PORT}/dir`, issuer: pebble.root, authority: authority.pem },
    }
  }
  const services = droplet && (await serveDroplets(droplet))
  // Where there is somebody in the private network, nobody else is let in.
  const from = tools.cluster || tools.droplet ? PRIVATE_SOURCE : '127.0.0.1'
  let base = ''
  const account: Account = {
    token: `dop_v1_${randomBytes(32).toString('hex')}`,
    state,
    domain,
    readyAfter,
    base: () => base,
    servers: {
      postgresVersions: Object.keys(versions),
      authority: authority.pem,
      startPostgres: (name, version, memory, password) => {
        const binaries = versions[version] ?? tools.postgres
        return startPostgres({ directory, runtime, name, binaries, certificate, password, memory, from })
      },
      startValkey: (name, memory, password) =>
        startValkey({ directory, name, binary: tools.valkey, authority, certificate, password, memory }),
    },
    network,
    wildcard: await issueCertificate(authority, join(directory, 'tls'), {
      ...{ file: 'wildcard', names: [`*.app.${domain}`], addresses: [], subject: `/CN=*.app.${domain}` },
    }),
    startCluster:
      cluster &&
      ((name, images) =>
        startCluster({
          ...{ directory, runtime, name, programs: cluster.programs, authority, domain },
          ...{ images: [...cluster.images, ...images], nameServerPort: within.port },
        })),
    startDroplet:
      droplet &&
      ((id, wanted) =>
        startDroplet({
          ...{ ...wanted, root: droplet.root, pool: droplet.pool },
          ...{ directory, runtime, id, nameServerPort: within.port },
        })),
    images: [],
  }
  undo.push(
    () => stopMachines(account),
    () => stopDatabases(account.state),
    () => stopLoadBalancers(account.state),
    () => stopClusters(account),
  )
  const digitalocean = keep(await serveApi(digitalOceanApi(account, digitalOceanRoutes(account)), traffic))
  base = digitalocean.url

  const cloudflareAccount: CloudflareAccount = {
    token: randomBytes(30).toString('base64url'),
    tokenId: randomBytes(16).toString('hex'),
    zone: { id: randomUUID().replaceAll('-', ''), name: domain, created_on: new Date().toISOString() },
    records,
  }
  const cloudflareRoutes = [...zoneRoutes(cloudflareAccount), ...dnsRecordRoutes(cloudflareAccount)]
  const cloudflare = keep(await serveApi(cloudflareApi(cloudflareAccount, cloudflareRoutes), traffic))

  const signingKey = {
    accessKeyId: spaces.access_key_id,
    secretAccessKey: spaces.secret_access_key,
    region: SIGNING_REGION,
  }
  const buckets = {
    socket: s3.socket,
    region,
    virtualDomain,
    signingKey,
    settings: new Map(),
    creations: Promise.resolve(),
  }
  const front = keep(await serveSpaces(buckets, traffic))
  await offer(network, `spaces.${domain}`, SPACES_PORT, front.port)
  const addresses = {
    digitalocean: { url: digitalocean.url, token: account.token },
    cloudflare: {
      url: `${cloudflare.url}/client/v4`,
      token: cloudflareAccount.token,
      zone_id: cloudflareAccount.zone.id,
      domain,
    },
    dns: { host: dns.host, port: dns.port },
    spaces: { url: front.url, region: SIGNING_REGION, ...spaces },
  }
  const control = keep(
    await serveControl({
      traffic,
      digitalocean: account,
      cloudflare: cloudflareAccount,
      spaces: addresses.spaces,
    }),
  )
  const providers = keep(await serveProviders(addresses))
  return {
    pid: process.pid,
    ...addresses,
    programs: cluster?.programs,
    droplet: services,
    reattach: providers.reattach,
    control: control.url,
    started: new Date().toISOString(),
  }
}

async function checkFree(directory: string): Promise<void> {
  const noted = join(directory, 'pids', 'cloud')
  if (!existsSync(noted)) return
  const identity = JSON.parse(await readFile(noted, 'utf8')) as ProcessIdentity
  const isSelf = identity.pid === process.pid && identity.started === processStarted(process.pid)
  if (isRunning(identity) || isSelf)
    throw new Error(`a cloud runs in ${directory} already (process ${identity.pid}): stop it with kill ${identity.pid}`)
}

/** Ends every process of the directory's cloud, even of one that was killed, and removes what it can no longer use. */
export async function stopCloud(directory: string): Promise<void> {
  const home = resolve(directory)
  await endAll(home)
  await removeMachines(home)
  await rm(addressFile(home), { force: true })
  if (!existsSync(runtimeFile(home))) return
  const runtime = await readFile(runtimeFile(home), 'utf8')
  if (/^\/tmp\/lunarfront-\w+$/.test(runtime)) await rm(runtime, { recursive: true, force: true })
  await rm(runtimeFile(home), { force: true })
}
