// Kubernetes clusters as objects of the API: node pools are droplets of the account. Behind one may be a real cluster.
import { randomBytes, randomUUID } from 'node:crypto'
import { z } from 'zod'
import { type Request, type Route, route } from '../http.ts'
import { type Account, readyAt } from './account.ts'
import { found, list, page, parseBody, text, unprocessable } from './api.ts'
import { isRegion, KUBERNETES_VERSIONS, REAL_KUBERNETES_VERSION, REGIONS, SIZES } from './catalog.ts'
import { addDroplet, removeDroplet } from './droplets.ts'
import { credentials, endpointOf, kubeconfigFor, startServer, statusOf, stopServer } from './kubernetes-server.ts'
import { loadBalancersOf, removeLoadBalancer } from './load-balancers.ts'
import { dropletsLeft, type KubernetesCluster, type NodePool, now } from './state.ts'
import { joinedVpc } from './vpcs.ts'

const count = z.number().int().nullish()
const flag = z.boolean().nullish()
const poolFields = z.object({
  name: z.string().min(1),
  size: z.string(),
  count,
  tags: list(z.string()),
  labels: z.record(z.string(), z.string()).nullish(),
  taints: list(z.object({ key: z.string(), value: z.string(), effect: z.string() })),
  auto_scale: flag,
  min_nodes: count,
  max_nodes: count,
})
const policy = z.object({ day: z.string(), start_time: z.string() }).nullish()
const newCluster = z.object({
  name: z.string().regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/, 'must consist of lower case letters, digits and hyphens'),
  region: z.string(),
  version: z.string(),
  vpc_uuid: text,
  cluster_subnet: text,
  service_subnet: text,
  tags: list(z.string()),
  ha: flag,
  auto_upgrade: flag,
  surge_upgrade: flag,
  maintenance_policy: policy,
  node_pools: z.array(poolFields).min(1, 'a cluster must have at least one node pool'),
})
const changedCluster = z.object({
  name: z.string().min(1),
  tags: list(z.string()),
  ha: flag,
  auto_upgrade: flag,
  surge_upgrade: flag,
  maintenance_policy: policy,
})

const ownTags = (id: string) => ['k8s', `k8s:${id}`]

const overLimit = (nodes: number) =>
  unprocessable(`validation error: ${nodes} additional nodes but not enough available droplet limit`)

/** Brings the pool's droplets to the wanted number. */
function scale(account: Account, request: Request, cluster: KubernetesCluster, pool: NodePool, wanted: number): void {
  if (wanted - pool.nodes.length > dropletsLeft(account.state)) throw overLimit(wanted - pool.nodes.length)
  while (pool.nodes.length > wanted) removeDroplet(account.state, pool.nodes.pop()?.dropletId ?? 0)
  while (pool.nodes.length < wanted) {
    const name = `${pool.name}-${randomBytes(3).toString('hex')}`
    const droplet = addDroplet(account, request, {
      name,
      region: cluster.region,
      size: pool.size,
      image: 'debian-12-x64',
      vpc_uuid: cluster.vpc_uuid,
      tags: [...ownTags(cluster.id), 'k8s:worker', ...pool.tags],
      features: ['private_networking'],
    })
    pool.nodes.push({ id: randomUUID(), name, dropletId: droplet.id, created_at: now() })
  }
  pool.count = wanted
}

type WantedPool = z.infer<typeof poolFields>

/** @returns how many nodes a pool starts with; refuses a pool that cannot be */
function nodesOf({ size, count, min_nodes }: WantedPool): number {
  if (!SIZES.some(({ slug }) => slug === size)) throw unprocessable(`validation error: invalid node size ${size}`)
  const nodes = count ?? min_nodes ?? 0
  if (nodes < 1) throw unprocessable('validation error: a node pool must have at least one node')
  return nodes
}

function addPool(account: Account, request: Request, cluster: KubernetesCluster, wanted: WantedPool): NodePool {
  const nodes = nodesOf(wanted)
  const pool: NodePool = {
    id: randomUUID(),
    name: wanted.name,
    size: wanted.size,
    count: 0,
    nodes: [],
    tags: [...ownTags(cluster.id), 'k8s:worker', ...wanted.tags],
    labels: wanted.labels ?? {},
    taints: wanted.taints,
    auto_scale: wanted.auto_scale ?? false,
    min_nodes: wanted.min_nodes ?? 0,
    max_nodes: wanted.max_nodes ?? 0,
  }
  scale(account, request, cluster, pool, nodes)
  cluster.node_pools.push(pool)
  return pool
}

/** Of a real cluster's version there are programs, of others not. */
const versionsOf = ({ startCluster }: Account) => (startCluster ? [REAL_KUBERNETES_VERSION] : KUBERNETES_VERSIONS)

/** From 1.36 on the control plane is highly available unless the request says no. */
const isAvailableByDefault = (version: string) => Number(version.split('.')[1]) >= 36

function createCluster(account: Account, request: Request): KubernetesCluster {
  const { state } = account
  const wanted = parseBody(newCluster, request)
  if (!isRegion(wanted.region)) throw unprocessable('validation error: invalid region')
  if (!versionsOf(account).includes(wanted.version))
    throw unprocessable(`validation error: invalid version slug ${wanted.version}`)
  if ([...state.clusters.values()].some((other) => other.name === wanted.name))
    throw unprocessable('a cluster with this name already exists')
  const nodes = wanted.node_pools.reduce((sum, pool) => sum + nodesOf(pool), 0)
  if (nodes > dropletsLeft(state)) throw overLimit(nodes)
  const id = randomUUID()
  const cluster: KubernetesCluster = {
    id,
    name: wanted.name,
    region: wanted.region,
    version: wanted.version,
    vpc_uuid: joinedVpc(state, wanted.region, wanted.vpc_uuid).id,
    cluster_subnet: wanted.cluster_subnet || '10.244.0.0/16',
    service_subnet: wanted.service_subnet || '10.245.0.0/16',
    ipv4: `192.0.2.${(++state.sequence % 253) + 2}`,
    tags: [...ownTags(id), ...wanted.tags],
    ha: wanted.ha ?? isAvailableByDefault(wanted.version),
    auto_upgrade: wanted.auto_upgrade ?? false,
    surge_upgrade: wanted.surge_upgrade ?? false,
    maintenance_policy: wanted.maintenance_policy ?? { day: 'any', start_time: '20:00' },
    node_pools: [],
    token: `dop_v1_${randomBytes(32).toString('hex')}`,
    created_at: now(),
    updated_at: now(),
    readyAt: readyAt(account, request),
    server: Promise.resolve(),
    real: undefined,
    failure: undefined,
  }
  for (const pool of wanted.node_pools) addPool(account, request, cluster, pool)
  state.clusters.set(id, cluster)
  startServer(account, cluster)
  return cluster
}

function changeCluster(cluster: KubernetesCluster, request: Request): void {
  const { tags, ha, maintenance_policy, ...rest } = parseBody(changedCluster, request)
  if (cluster.ha && ha === false) throw unprocessable('high availability cannot be disabled once it is enabled')
  Object.assign(cluster, Object.fromEntries(Object.entries(rest).filter(([, value]) => value != null)))
  cluster.tags = [...ownTags(cluster.id), ...tags]
  cluster.ha = ha ?? cluster.ha
  cluster.maintenance_policy = maintenance_policy ?? cluster.maintenance_policy
  cluster.updated_at = now()
}

const poolBody = (account: Account, { nodes, ...pool }: NodePool, cluster: KubernetesCluster) => ({
  ...pool,
  nodes: nodes.map(({ id, name, dropletId, created_at }) => ({
    id,
    name,
    droplet_id: String(dropletId),
    created_at,
    updated_at: created_at,
    status: { state: statusOf(account, cluster).state },
  })),
})

function clusterBody(account: Account, cluster: KubernetesCluster) {
  const { readyAt, token: _token, server: _server, real: _real, failure: _failure, ...told } = cluster
  const { node_pools, maintenance_policy } = cluster
  return {
    ...told,
    endpoint: endpointOf(account, cluster),
    status: statusOf(account, cluster),
    maintenance_policy: { ...maintenance_policy, duration: '4h0m0s' },
    registry_enabled: false,
    node_pools: node_pools.map((pool) => poolBody(account, pool, cluster)),
  }
}

const options = (account: Account) => ({
  versions: versionsOf(account).map((slug) => ({
    slug,
    kubernetes_version: slug.replace(/-do.*/, ''),
    supported_features: ['cluster-autoscaler', 'docr-integration', 'ha-control-plane', 'token-authentication'],
  })),
  regions: REGIONS,
  sizes: SIZES.map(({ slug }) => ({ name: slug, slug })),
})

/** What the cluster has made in the account, its load balancers, stays. */
async function removeCluster(account: Account, cluster: KubernetesCluster): Promise<void> {
  const { state } = account
  for (const pool of cluster.node_pools) for (const node of pool.nodes) removeDroplet(state, node.dropletId)
  state.clusters.delete(cluster.id)
  await stopServer(account, cluster)
}

export function kubernetesRoutes(account: Account): Route[] {
  const { state } = account
  const cluster = (id: string) => found(state.clusters.get(id))
  const pool = (id: string, poolId: string) =>
    found(cluster(id).node_pools.find((candidate) => candidate.id === poolId))
  return [
    route('GET', '/v2/kubernetes/options', () => ({ status: 200, body: { options: options(account) } })),
    route('GET', '/v2/kubernetes/clusters', (request) => {
      const all = [...state.clusters.values()].map((each) => clusterBody(account, each))
      return page('kubernetes_clusters', all, request, account.base())
    }),
    route('POST', '/v2/kubernetes/clusters', (request) => ({
      status: 201,
      body: { kubernetes_cluster: clusterBody(account, createCluster(account, request)) },
    })),
    route('GET', '/v2/kubernetes/clusters/:id', (_request, { id }) => ({
      status: 200,
      body: { kubernetes_cluster: clusterBody(account, cluster(id)) },
    })),
    route('PUT', '/v2/kubernetes/clusters/:id', (request, { id }) => {
      changeCluster(cluster(id), request)
      return { status: 202, body: { kubernetes_cluster: clusterBody(account, cluster(id)) } }
    }),
    route('DELETE', '/v2/kubernetes/clusters/:id', async (_request, { id }) => {
      await removeCluster(account, cluster(id))
      return { status: 204 }
    }),
    route('GET', '/v2/kubernetes/clusters/:id/destroy_with_associated_resources', (_request, { id }) => {
      const load_balancers = loadBalancersOf(state, cluster(id)).map(({ id, name }) => ({ id, name }))
      return { status: 200, body: { load_balancers, volumes: [], volume_snapshots: [] } }
    }),
    route(
      'DELETE',
      '/v2/kubernetes/clusters/:id/destroy_with_associated_resources/dangerous',
      async (_request, { id }) => {
        const gone = cluster(id)
        await removeCluster(account, gone)
        for (const balancer of loadBalancersOf(state, gone)) await removeLoadBalancer(account, balancer)
        return { status: 204 }
      },
    ),
    route('POST', '/v2/kubernetes/clusters/:id/upgrade', (request, { id }) => {
      const { version } = parseBody(z.object({ version: z.string() }), request)
      if (!versionsOf(account).includes(version))
        throw unprocessable(`validation error: invalid version slug ${version}`)
      cluster(id).version = version
      return { status: 202 }
    }),
    route('GET', '/v2/kubernetes/clusters/:id/credentials', (_request, { id }) => ({
      status: 200,
      body: credentials(account, cluster(id)),
    })),
    route('GET', '/v2/kubernetes/clusters/:id/kubeconfig', (_request, { id }) => ({
      status: 200,
      body: kubeconfigFor(account, cluster(id)),
    })),
    route('GET', '/v2/kubernetes/clusters/:id/node_pools', (request, { id }) => {
      const pools = cluster(id).node_pools.map((each) => poolBody(account, each, cluster(id)))
      return page('node_pools', pools, request, account.base())
    }),
    route('POST', '/v2/kubernetes/clusters/:id/node_pools', (request, { id }) => {
      const added = addPool(account, request, cluster(id), parseBody(poolFields, request))
      return { status: 201, body: { node_pool: poolBody(account, added, cluster(id)) } }
    }),
    route('GET', '/v2/kubernetes/clusters/:id/node_pools/:pool', (_request, { id, pool: poolId }) => ({
      status: 200,
      body: { node_pool: poolBody(account, pool(id, poolId), cluster(id)) },
    })),
    route('PUT', '/v2/kubernetes/clusters/:id/node_pools/:pool', (request, { id, pool: poolId }) => {
      const target = pool(id, poolId)
      const wanted = parseBody(poolFields.partial(), request)
      scale(account, request, cluster(id), target, wanted.count ?? target.count)
      target.name = wanted.name ?? target.name
      if (wanted.tags) target.tags = [...ownTags(id), 'k8s:worker', ...wanted.tags]
      target.labels = wanted.labels ?? target.labels
      target.taints = wanted.taints ?? target.taints
      target.auto_scale = wanted.auto_scale ?? target.auto_scale
      target.min_nodes = wanted.min_nodes ?? target.min_nodes
      target.max_nodes = wanted.max_nodes ?? target.max_nodes
      return { status: 202, body: { node_pool: poolBody(account, target, cluster(id)) } }
    }),
    route('DELETE', '/v2/kubernetes/clusters/:id/node_pools/:pool', (request, { id, pool: poolId }) => {
      const gone = pool(id, poolId)
      scale(account, request, cluster(id), gone, 0)
      cluster(id).node_pools = cluster(id).node_pools.filter((each) => each !== gone)
      return { status: 202 }
    }),
  ]
}
