// Managed databases: behind each cluster stands a real server.
import { randomBytes, randomUUID } from 'node:crypto'
import { z } from 'zod'
import type { Postgres } from '../../servers/postgres.ts'
import type { Valkey } from '../../servers/valkey.ts'
import { type Request, type Route, route } from '../http.ts'
import { offer, withdraw } from '../private-network.ts'
import { type Account, readyAt } from './account.ts'
import { conflict, found, list, notFound, page, parseBody, serverError, text, unprocessable } from './api.ts'
import { DATABASE_SIZES, isRegion, REGIONS, VALKEY_VERSIONS } from './catalog.ts'
import { type DatabaseCluster, defaultProject, now, type State } from './state.ts'
import { joinedVpc } from './vpcs.ts'

/** Who starts the servers. Memory is in GiB. */
export type DatabaseServers = {
  /** Major versions of Postgres that are installed. */
  postgresVersions: string[]
  /** What the servers' certificates are signed with, in PEM. */
  authority: string
  startPostgres: (name: string, version: string, memory: number, password: string) => Promise<Postgres>
  startValkey: (name: string, memory: number, password: string) => Promise<Valkey>
}

const newCluster = z.object({
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/, 'must be 3 to 63 lower-case letters, digits and hyphens'),
  engine: z.string(),
  version: text,
  size: z.string(),
  region: z.string(),
  num_nodes: z.number().int(),
  private_network_uuid: text,
  tags: list(z.string()),
  project_id: text,
  storage_size_mib: z.number().nullish(),
})

const newPassword = () => `AVNS_${randomBytes(14).toString('base64url').replace(/[-_]/g, 'x')}`
const adminOf = ({ engine }: DatabaseCluster) => (engine === 'pg' ? 'doadmin' : 'default')

const engineVersions = ({ servers }: Account, engine: string): string[] | undefined =>
  ({ pg: servers.postgresVersions, valkey: VALKEY_VERSIONS })[engine]

function checkOffer(account: Account, engine: string, version: string, size: string, nodes: number): void {
  if (engine === 'redis') throw unprocessable('engine redis is no longer offered: use valkey')
  const versions = engineVersions(account, engine)
  if (!versions) throw unprocessable(`invalid cluster engine: ${engine}`)
  if (!versions.includes(version))
    throw unprocessable(
      `invalid version ${version || '(none)'} for engine ${engine}: choose one of ${versions.join(', ')}`,
    )
  if (!DATABASE_SIZES[size]) throw unprocessable(`invalid size: ${size}`)
  if (nodes < 1 || nodes > 3) throw unprocessable(`invalid number of nodes: ${nodes}`)
}

function createCluster(account: Account, request: Request): DatabaseCluster {
  const { state, servers } = account
  const { engine, ...wanted } = parseBody(newCluster, request)
  checkOffer(account, engine, wanted.version, wanted.size, wanted.num_nodes)
  if (!isRegion(wanted.region)) throw unprocessable(`invalid region: ${wanted.region}`)
  if ([...state.databases.values()].some(({ name }) => name === wanted.name))
    throw unprocessable('cluster name is not available')
  if (state.databases.size >= 10) throw unprocessable('you have reached your database cluster limit of 10')
  const vpc = joinedVpc(state, wanted.region, wanted.private_network_uuid)
  for (const tag of wanted.tags) state.tags.add(tag)

  const id = randomUUID()
  const { memory, disk } = DATABASE_SIZES[wanted.size] ?? { memory: 1, disk: 10 }
  const password = newPassword()
  const serverName = `${wanted.name.slice(0, 30)}-${id.slice(0, 8)}`
  const cluster: DatabaseCluster = {
    ...wanted,
    id,
    engine: engine === 'pg' ? 'pg' : 'valkey',
    private_network_uuid: vpc.id,
    project_id: wanted.project_id || defaultProject(state).id,
    storage_size_mib: wanted.storage_size_mib ?? (engine === 'pg' ? disk * 1024 : 0),
    maintenance_window: { day: 'tuesday', hour: '08:13:22' },
    eviction_policy: 'noeviction',
    config: {},
    created_at: now(),
    readyAt: readyAt(account, request),
    rules: [],
    passwords: { [engine === 'pg' ? 'doadmin' : 'default']: password },
    server: Promise.resolve(),
    postgres: undefined,
    valkey: undefined,
    failure: undefined,
  }
  cluster.server = (async () => {
    try {
      if (cluster.engine === 'pg') {
        const postgres = await servers.startPostgres(serverName, cluster.version, memory, password)
        await offer(account.network, privateName(account, cluster), postgres.port)
        cluster.postgres = postgres
      } else {
        const valkey = await servers.startValkey(serverName, memory, password)
        await offer(account.network, privateName(account, cluster), valkey.port)
        cluster.valkey = valkey
      }
    } catch (error) {
      cluster.failure = (error as Error).message
      console.error(error)
    }
  })()
  state.databases.set(id, cluster)
  return cluster
}

const isOnline = (cluster: DatabaseCluster) =>
  Date.now() >= cluster.readyAt && (cluster.postgres !== undefined || cluster.valkey !== undefined)

/** A name that the domain's name server knows, and the servers' certificates; a part of a name has 63 bytes at most. */
const privateName = ({ domain }: Account, { name }: DatabaseCluster) => `private-${name.slice(0, 55)}.db.${domain}`

/** The port is told once there is a server, and is the same in the public and the private network. */
function connectionBody(cluster: DatabaseCluster, host: string) {
  const port = (cluster.postgres ?? cluster.valkey)?.port ?? 0
  const user = adminOf(cluster)
  const password = cluster.passwords[user] ?? ''
  return cluster.engine === 'pg'
    ? {
        protocol: 'postgresql',
        database: 'defaultdb',
        host,
        port,
        user,
        password,
        ssl: true,
        uri: `postgresql://${user}:${password}@${host}:${port}/defaultdb?sslmode=require`,
      }
    : {
        protocol: 'rediss',
        database: '',
        host,
        port,
        user,
        password,
        ssl: true,
        uri: `rediss://${user}:${password}@${host}:${port}`,
      }
}

async function clusterBody(account: Account, cluster: DatabaseCluster) {
  if (cluster.failure) throw serverError(`the server behind ${cluster.name} did not start: ${cluster.failure}`)
  const online = isOnline(cluster)
  const { name, id, engine, version, num_nodes, size, region, tags, created_at, project_id } = cluster
  return {
    id,
    name,
    engine,
    version,
    semantic_version: version,
    num_nodes,
    size,
    region,
    tags,
    created_at,
    project_id,
    private_network_uuid: cluster.private_network_uuid,
    storage_size_mib: cluster.storage_size_mib,
    status: online ? 'online' : 'creating',
    connection: connectionBody(cluster, '127.0.0.1'),
    private_connection: connectionBody(cluster, privateName(account, cluster)),
    users: online ? await users(cluster) : null,
    db_names: online && cluster.postgres ? await cluster.postgres.databases() : null,
    maintenance_window: { ...cluster.maintenance_window, pending: false, description: [] },
    rules: cluster.rules.map((rule) => ruleBody(cluster, rule)),
    metrics_endpoints: [],
  }
}

const ruleBody = (cluster: DatabaseCluster, rule: DatabaseCluster['rules'][number]) => ({
  ...rule,
  cluster_uuid: cluster.id,
})

const userBody = (cluster: DatabaseCluster, name: string) => ({
  name,
  role: name === adminOf(cluster) ? 'primary' : 'normal',
  password: cluster.passwords[name] ?? '',
})

/** The server knows who there is; of those that were made in SQL the API has no password. */
const users = async (cluster: DatabaseCluster) =>
  (cluster.postgres ? await cluster.postgres.roles() : [adminOf(cluster)]).map((name) => userBody(cluster, name))

/** Postgres' own words, where it refuses something. */
const refusedBy = (error: unknown) => unprocessable((error as Error).message)

/** Stops every server, for the end of the cloud. */
export const stopDatabases = async ({ databases }: State): Promise<void> => {
  await Promise.all([...databases.values()].map(stopServer))
}

async function stopServer(cluster: DatabaseCluster): Promise<void> {
  await cluster.server
  await (cluster.postgres ?? cluster.valkey)?.stop()
}

const RULE_TYPES = ['ip_addr', 'droplet', 'k8s', 'tag', 'app'] as const
const rules = z.object({
  rules: list(z.object({ uuid: text, type: z.enum(RULE_TYPES), value: z.string().min(1) })),
})

function setRules(state: State, cluster: DatabaseCluster, request: Request): void {
  const wanted = parseBody(rules, request).rules
  for (const { type, value } of wanted) {
    if (type === 'droplet' && !state.droplets.has(Number(value)))
      throw unprocessable(`invalid firewall rule: droplet ${value} could not be found`)
    if (type === 'k8s' && !state.clusters.has(value))
      throw unprocessable(`invalid firewall rule: kubernetes cluster ${value} could not be found`)
  }
  cluster.rules = wanted.map(({ uuid, type, value }) => {
    const kept = cluster.rules.find((rule) => rule.uuid === uuid || (rule.type === type && rule.value === value))
    return kept && kept.type === type && kept.value === value
      ? kept
      : { uuid: randomUUID(), type, value, created_at: now() }
  })
}

const resize = z.object({ size: z.string(), num_nodes: z.number().int(), storage_size_mib: z.number().nullish() })

function resizeCluster(account: Account, cluster: DatabaseCluster, request: Request): void {
  const wanted = parseBody(resize, request)
  checkOffer(account, cluster.engine, cluster.version, wanted.size, wanted.num_nodes)
  const [before, after] = [DATABASE_SIZES[cluster.size], DATABASE_SIZES[wanted.size]]
  if (before && after && after.memory < before.memory)
    throw unprocessable('cannot downsize the cluster: the new plan is smaller than the current one')
  cluster.size = wanted.size
  cluster.num_nodes = wanted.num_nodes
  if (cluster.engine === 'pg')
    cluster.storage_size_mib = wanted.storage_size_mib ?? Math.max(cluster.storage_size_mib, (after?.disk ?? 0) * 1024)
  cluster.readyAt = readyAt(account, request)
}

const EVICTION_POLICIES = [
  ...['noeviction', 'allkeys_lru', 'allkeys_random', 'volatile_lru', 'volatile_random', 'volatile_ttl'],
] as const

const window = z.object({
  day: z.string().transform((day) => day.toLowerCase()),
  hour: z.string().regex(/^\d\d?:\d\d(:\d\d)?$/, 'must be a time such as 14:00'),
})

const options = (account: Account) => {
  const offer = (engine: string) => ({
    regions: REGIONS.map((region) => region.slug),
    versions: engineVersions(account, engine),
    layouts: [1, 2, 3].map((num_nodes) => ({ num_nodes, sizes: Object.keys(DATABASE_SIZES) })),
  })
  return { pg: offer('pg'), valkey: offer('valkey') }
}

/** The cluster itself. */
function clusterRoutes(account: Account): Route[] {
  const { state } = account
  const cluster = (id: string) => found(state.databases.get(id))
  return [
    route('GET', '/v2/databases', async (request) => {
      const tag = request.query.get('tag_name')
      const listed = [...state.databases.values()].filter(({ tags }) => tag === null || tags.includes(tag))
      return page(
        'databases',
        await Promise.all(listed.map((each) => clusterBody(account, each))),
        request,
        account.base(),
      )
    }),
    route('GET', '/v2/databases/options', () => ({ status: 200, body: { options: options(account) } })),
    route('POST', '/v2/databases', async (request) => ({
      status: 201,
      body: { database: await clusterBody(account, createCluster(account, request)) },
    })),
    route('GET', '/v2/databases/:id', async (_request, { id }) => ({
      status: 200,
      body: { database: await clusterBody(account, cluster(id)) },
    })),
    route('DELETE', '/v2/databases/:id', async (_request, { id }) => {
      const gone = cluster(id)
      state.databases.delete(id)
      withdraw(account.network, privateName(account, gone))
      await stopServer(gone)
      return { status: 204 }
    }),
    route('PUT', '/v2/databases/:id/resize', (request, { id }) => {
      resizeCluster(account, cluster(id), request)
      return { status: 202 }
    }),
    route('PUT', '/v2/databases/:id/upgrade', (request, { id }) => {
      const { version } = parseBody(z.object({ version: z.string() }), request)
      const { engine, version: before, size, num_nodes } = cluster(id)
      checkOffer(account, engine, version, size, num_nodes)
      if (engine === 'pg' && version !== before)
        throw unprocessable('the rehearsed cloud does not upgrade a Postgres to another major version')
      cluster(id).version = version
      return { status: 204 }
    }),
    route('PUT', '/v2/databases/:id/maintenance', (request, { id }) => {
      const { day, hour } = parseBody(window, request)
      cluster(id).maintenance_window = { day, hour: /:\d\d:/.test(hour) ? hour : `${hour}:00` }
      return { status: 204 }
    }),
    route('GET', '/v2/databases/:id/config', (_request, { id }) => ({
      status: 200,
      body: { config: cluster(id).config },
    })),
    route('PATCH', '/v2/databases/:id/config', (request, { id }) => {
      Object.assign(cluster(id).config, parseBody(z.object({ config: z.looseObject({}) }), request).config)
      return { status: 200 }
    }),
    route('GET', '/v2/databases/:id/ca', (_request, { id }) => {
      cluster(id)
      return { status: 200, body: { ca: { certificate: Buffer.from(account.servers.authority).toString('base64') } } }
    }),
    route('GET', '/v2/databases/:id/firewall', (_request, { id }) => ({
      status: 200,
      body: { rules: cluster(id).rules.map((rule) => ruleBody(cluster(id), rule)) },
    })),
    route('PUT', '/v2/databases/:id/firewall', (request, { id }) => {
      setRules(state, cluster(id), request)
      return { status: 204 }
    }),
    route('GET', '/v2/databases/:id/eviction_policy', (_request, { id }) => {
      if (cluster(id).engine !== 'valkey') throw notFound()
      return { status: 200, body: { eviction_policy: cluster(id).eviction_policy } }
    }),
    route('PUT', '/v2/databases/:id/eviction_policy', async (request, { id }) => {
      const target = cluster(id)
      if (!target.valkey) throw notFound()
      const { eviction_policy } = parseBody(z.object({ eviction_policy: z.enum(EVICTION_POLICIES) }), request)
      await target.valkey.setEvictionPolicy(eviction_policy.replace('_', '-'))
      target.eviction_policy = eviction_policy
      return { status: 204 }
    }),
  ]
}

const name = z.object({ name: z.string().regex(/^[a-zA-Z_][a-zA-Z0-9_-]{0,62}$/, 'is not a valid name') })

/** What is in a Postgres cluster: its users and databases are the server's own. */
function contentRoutes(account: Account): Route[] {
  const postgres = (id: string): [DatabaseCluster, Postgres] => {
    const cluster = found(account.state.databases.get(id))
    if (!cluster.postgres || !isOnline(cluster))
      throw unprocessable('cluster is not online, or its engine has no such thing')
    return [cluster, cluster.postgres]
  }
  const user = async (id: string, user: string): Promise<DatabaseCluster> => {
    const cluster = found(account.state.databases.get(id))
    if (!(await users(cluster)).some(({ name }) => name === user)) throw notFound()
    return cluster
  }
  return [
    route('GET', '/v2/databases/:id/users', async (request, { id }) =>
      page('users', await users(found(account.state.databases.get(id))), request, account.base()),
    ),
    route('POST', '/v2/databases/:id/users', async (request, { id }) => {
      const [cluster, server] = postgres(id)
      const { name: wanted } = parseBody(name, request)
      if ((await server.roles()).includes(wanted)) throw conflict('user already exists')
      const password = newPassword()
      await server.createRole(wanted, password).catch((error) => Promise.reject(refusedBy(error)))
      cluster.passwords[wanted] = password
      return { status: 201, body: { user: userBody(cluster, wanted) } }
    }),
    route('GET', '/v2/databases/:id/users/:user', async (_request, { id, user: wanted }) => ({
      status: 200,
      body: { user: userBody(await user(id, wanted), wanted) },
    })),
    route('DELETE', '/v2/databases/:id/users/:user', async (_request, { id, user: gone }) => {
      const cluster = await user(id, gone)
      if (gone === adminOf(cluster)) throw unprocessable('the primary user cannot be deleted')
      await postgres(id)[1]
        .dropRole(gone)
        .catch((error) => Promise.reject(refusedBy(error)))
      delete cluster.passwords[gone]
      return { status: 204 }
    }),
    route('POST', '/v2/databases/:id/users/:user/reset_auth', async (_request, { id, user: wanted }) => {
      const cluster = await user(id, wanted)
      const password = newPassword()
      await (cluster.valkey ? cluster.valkey.setPassword(password) : postgres(id)[1].setPassword(wanted, password))
      cluster.passwords[wanted] = password
      return { status: 200, body: { user: userBody(cluster, wanted) } }
    }),
    route('GET', '/v2/databases/:id/dbs', async (request, { id }) => {
      const names = await postgres(id)[1].databases()
      return page(
        'dbs',
        names.map((name) => ({ name })),
        request,
        account.base(),
      )
    }),
    route('POST', '/v2/databases/:id/dbs', async (request, { id }) => {
      const [, server] = postgres(id)
      const { name: wanted } = parseBody(name, request)
      if ((await server.databases()).includes(wanted)) throw conflict('database already exists')
      await server.createDatabase(wanted).catch((error) => Promise.reject(refusedBy(error)))
      return { status: 201, body: { db: { name: wanted } } }
    }),
    route('GET', '/v2/databases/:id/dbs/:name', async (_request, { id, name: wanted }) => {
      if (!(await postgres(id)[1].databases()).includes(wanted)) throw notFound()
      return { status: 200, body: { db: { name: wanted } } }
    }),
    route('DELETE', '/v2/databases/:id/dbs/:name', async (_request, { id, name: gone }) => {
      const [, server] = postgres(id)
      if (!(await server.databases()).includes(gone)) throw notFound()
      await server.dropDatabase(gone).catch((error) => Promise.reject(refusedBy(error)))
      return { status: 204 }
    }),
  ]
}

export const databaseRoutes = (account: Account): Route[] => [...clusterRoutes(account), ...contentRoutes(account)]
