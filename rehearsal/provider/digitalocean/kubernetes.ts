// digitalocean_kubernetes_cluster, and the data source digitalocean_kubernetes_versions
import { unlessGone, waitFor } from '../rest.ts'
import {
  bool,
  computed,
  listBlocks,
  listOf,
  mapOf,
  number,
  objectOf,
  optional,
  optionalComputed,
  type Row,
  required,
  setBlocks,
  setOf,
  string,
  timeouts,
} from '../schema.ts'
import { type Client, dataSource, goTime, lowerCase, resource, uniqueId } from './client.ts'

type Pool = {
  id: string
  name: string
  size: string
  count: number
  tags: string[]
  labels: Record<string, string>
  taints: { key: string; value: string; effect: string }[]
  auto_scale: boolean
  min_nodes: number
  max_nodes: number
  nodes: {
    id: string
    name: string
    droplet_id: string
    created_at: string
    updated_at: string
    status: { state: string }
  }[]
}
type Cluster = {
  id: string
  name: string
  region: string
  version: string
  vpc_uuid: string
  cluster_subnet: string
  service_subnet: string
  ipv4: string
  endpoint: string
  tags: string[]
  status: { state: string; message?: string }
  maintenance_policy: { day: string; start_time: string; duration: string }
  ha: boolean
  auto_upgrade: boolean
  surge_upgrade: boolean
  created_at: string
  updated_at: string
  node_pools: Pool[]
}
type Credentials = { server: string; certificate_authority_data: string; token: string; expires_at: string }

/** By this tag the provider finds the pool that is the cluster's own block among a cluster's pools. */
const DEFAULT_POOL = 'terraform:default-node-pool'

/** What can be switched on and is left to the platform: always filled in by the API, or left out. */
const plugin = () => listBlocks({ enabled: required(bool) }, { max: 1, computed: true })

const fields = {
  id: optionalComputed(string),
  name: required(string),
  region: required(string, { replace: true, ...lowerCase }),
  surge_upgrade: optional(bool, { fallback: true }),
  ha: optionalComputed(bool),
  registry_integration: optional(bool, { fallback: false }),
  version: required(string),
  vpc_uuid: optionalComputed(string, { replace: true }),
  worker_subnet_uuid: optionalComputed(string, { replace: true }),
  cluster_subnet: optionalComputed(string, { replace: true }),
  service_subnet: optionalComputed(string, { replace: true }),
  ipv4_address: computed(string),
  endpoint: computed(string),
  tags: optional(setOf(string)),
  maintenance_policy: listBlocks(
    { day: optionalComputed(string), start_time: optionalComputed(string), duration: computed(string) },
    { max: 1, computed: true },
  ),
  node_pool: listBlocks(
    {
      id: computed(string),
      name: required(string),
      size: required(string, { replace: true }),
      actual_node_count: computed(number),
      node_count: optional(number),
      auto_scale: optional(bool, { fallback: false }),
      min_nodes: optional(number),
      max_nodes: optional(number),
      tags: optional(setOf(string)),
      labels: optional(mapOf(string)),
      nodes: computed(
        listOf(
          objectOf({
            id: string,
            name: string,
            status: string,
            droplet_id: string,
            created_at: string,
            updated_at: string,
          }),
        ),
      ),
      taint: setBlocks({ key: required(string), value: required(string), effect: required(string) }),
      gpu_partition_mode: optional(string, { replace: true }),
    },
    { min: 1, max: 1 },
  ),
  cluster_autoscaler_configuration: listBlocks({
    scale_down_utilization_threshold: optional(number),
    scale_down_unneeded_time: optional(string),
    expanders: optional(listOf(string)),
  }),
  sso: listBlocks(
    {
      enabled: required(bool),
      required: optional(bool),
      issuer_url: optional(string),
      client_id: optional(string),
    },
    { max: 1, computed: true },
  ),
  status: computed(string),
  created_at: computed(string),
  updated_at: computed(string),
  kube_config: computed(
    listOf(
      objectOf({
        raw_config: string,
        host: string,
        cluster_ca_certificate: string,
        client_key: string,
        client_certificate: string,
        token: string,
        expires_at: string,
      }),
    ),
    { sensitive: true },
  ),
  auto_upgrade: optional(bool),
  urn: computed(string),
  destroy_all_associated_resources: optional(bool, { fallback: false }),
  kubeconfig_expire_seconds: optional(number),
  control_plane_firewall: listBlocks(
    { enabled: required(bool), allowed_addresses: required(listOf(string)) },
    { max: 1, computed: true },
  ),
  routing_agent: plugin(),
  p2p_oci_registry_plugin: plugin(),
  amd_gpu_device_plugin: plugin(),
  amd_gpu_device_metrics_exporter_plugin: plugin(),
  nvidia_gpu_device_plugin: plugin(),
  nvidia_gpu_dra_driver: plugin(),
  amd_gpu_dra_driver: plugin(),
  rdma_shared_device_plugin: plugin(),
  coredns_autoscaler: plugin(),
  isolated_workers: optional(bool, { replace: true, fallback: false }),
  timeouts: timeouts('create'),
}

/** Tags that DigitalOcean or the provider put there themselves. */
const ownTags = (tags: string[]) => tags.filter((tag) => tag !== 'k8s' && !/^(k8s|terraform):/.test(tag))

const poolRow = (pool: Pool, isCounted: boolean) => ({
  id: pool.id,
  name: pool.name,
  size: pool.size,
  actual_node_count: pool.count,
  auto_scale: pool.auto_scale,
  min_nodes: pool.min_nodes,
  max_nodes: pool.max_nodes,
  labels: pool.labels,
  taint: pool.taints,
  tags: ownTags(pool.tags),
  gpu_partition_mode: '',
  node_count: isCounted ? pool.count : null,
  nodes: pool.nodes.map(({ status, created_at, updated_at, ...node }) => ({
    ...node,
    status: status.state,
    created_at: goTime(created_at),
    updated_at: goTime(updated_at),
  })),
})

const kubeconfig = (name: string, { certificate_authority_data, server, token }: Credentials) =>
  `apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: ${certificate_authority_data}
    server: ${server}
  name: ${name}
contexts:
- context:
    cluster: ${name}
    user: ${name}-admin
  name: ${name}
current-context: ${name}
users:
- name: ${name}-admin
  user:
    token: ${token}
`

async function fetchCredentials({ api }: Client, cluster: Cluster, seconds: number) {
  const credentials = await api<Credentials>(
    'GET',
    `/kubernetes/clusters/${cluster.id}/credentials?expiry_seconds=${seconds}`,
  )
  return {
    raw_config: kubeconfig(`do-${cluster.region}-${cluster.name}`, credentials),
    host: credentials.server,
    cluster_ca_certificate: credentials.certificate_authority_data,
    client_key: '',
    client_certificate: '',
    token: credentials.token,
    expires_at: credentials.expires_at,
  }
}

async function row(client: Client, cluster: Cluster, state: Row<typeof fields>) {
  const { id, name, region, version, vpc_uuid, cluster_subnet, service_subnet, endpoint, ha } = cluster
  const pool = cluster.node_pools.find(({ tags }) => tags.includes(DEFAULT_POOL))
  const [kept] = state.kube_config ?? []
  const isFresh = kept?.expires_at && Date.parse(kept.expires_at) > Date.now()
  return {
    id,
    name,
    region,
    version,
    vpc_uuid,
    cluster_subnet,
    service_subnet,
    endpoint,
    ha,
    ipv4_address: cluster.ipv4,
    worker_subnet_uuid: '',
    status: cluster.status.state,
    urn: `do:kubernetes:${id}`,
    created_at: goTime(cluster.created_at),
    updated_at: goTime(cluster.updated_at),
    isolated_workers: false,
    auto_upgrade: cluster.auto_upgrade,
    surge_upgrade: cluster.surge_upgrade,
    tags: ownTags(cluster.tags),
    maintenance_policy: [cluster.maintenance_policy],
    ...(pool ? { node_pool: [poolRow(pool, Boolean(state.node_pool[0]?.node_count))] } : {}),
    kube_config:
      isFresh && kept ? [kept] : [await fetchCredentials(client, cluster, state.kubeconfig_expire_seconds ?? 0)],
  }
}

const fetchCluster = async ({ api }: Client, id: string | null) =>
  (await api<{ kubernetes_cluster: Cluster }>('GET', `/kubernetes/clusters/${id}`)).kubernetes_cluster

const maintenance = ({ maintenance_policy: [policy] }: Row<typeof fields>) =>
  policy?.day ? { maintenance_policy: { day: policy.day.toLowerCase(), start_time: policy.start_time ?? '' } } : {}

type PoolRow = Row<typeof fields>['node_pool'][number]

const poolBody = (pool: PoolRow) => ({
  name: pool.name,
  size: pool.size,
  tags: [...(pool.tags ?? []), DEFAULT_POOL],
  labels: pool.labels ?? {},
  taints: pool.taint,
  auto_scale: pool.auto_scale ?? false,
  min_nodes: pool.min_nodes ?? 0,
  max_nodes: pool.max_nodes ?? 0,
  ...(pool.node_count ? { count: pool.node_count } : {}),
})

const isOlder = (planned: unknown, prior: unknown) =>
  String(planned).localeCompare(String(prior), undefined, { numeric: true }) < 0

export const kubernetesCluster = resource({
  version: 3,
  fields,
  check: ({ version }) => [
    ...(version === null ? ['The argument "version" is required, but no definition was found.'] : []),
    ...(version === '' ? ['version must not be empty'] : []),
  ],
  replaceWhen: (planned, prior) =>
    typeof planned.version === 'string' && isOlder(planned.version, prior.version) ? [['version']] : [],
  async create(planned, client, keep) {
    const { name, region, version, vpc_uuid, cluster_subnet, service_subnet, ha, surge_upgrade, auto_upgrade } = planned
    const created = await client.api<{ kubernetes_cluster: Cluster }>('POST', '/kubernetes/clusters', {
      name,
      region,
      version,
      vpc_uuid,
      cluster_subnet,
      service_subnet,
      surge_upgrade,
      auto_upgrade,
      ...(ha === null ? {} : { ha }),
      tags: planned.tags ?? [],
      ...maintenance(planned),
      node_pools: planned.node_pool.map(poolBody),
    })
    const { id } = created.kubernetes_cluster
    // Nothing is kept before: a cluster that it does not see running the real provider forgets.
    const ready = await waitFor(
      `Kubernetes cluster ${name}`,
      () => fetchCluster(client, id),
      ({ status }) => {
        if (status.state === 'error') throw new Error(`Kubernetes cluster ${name}: ${status.message}`)
        return status.state === 'running'
      },
      client.gone,
    )
    keep({ id })
    return row(client, ready, planned)
  },
  read: (state, client) => unlessGone(async () => row(client, await fetchCluster(client, state.id), state)),
  async update(prior, planned, client) {
    const path = `/kubernetes/clusters/${prior.id}`
    const { name, ha, surge_upgrade, auto_upgrade, tags, version } = planned
    await client.api('PUT', path, {
      name,
      ha,
      surge_upgrade,
      auto_upgrade: auto_upgrade ?? false,
      tags: tags ?? [],
      ...maintenance(planned),
    })
    const [before, pool] = [prior.node_pool[0], planned.node_pool[0]]
    if (before && pool && JSON.stringify(poolBody(before)) !== JSON.stringify(poolBody(pool)))
      await client.api('PUT', `${path}/node_pools/${before.id}`, poolBody(pool))
    if (version !== prior.version) await client.api('POST', `${path}/upgrade`, { version })
    return row(client, await fetchCluster(client, prior.id), planned)
  },
  async remove({ id, destroy_all_associated_resources }, { api }) {
    const path = `/kubernetes/clusters/${id}`
    await unlessGone(() =>
      api('DELETE', destroy_all_associated_resources ? `${path}/destroy_with_associated_resources/dangerous` : path),
    )
  },
  async adopt(id, client) {
    const cluster = await fetchCluster(client, id)
    const tagged = cluster.node_pools.filter(({ tags }) => tags.includes(DEFAULT_POOL))
    const [only] = cluster.node_pools
    if (tagged.length > 1 || (tagged.length === 0 && cluster.node_pools.length > 1))
      throw new Error(`exactly one node pool of cluster ${id} must have the tag ${DEFAULT_POOL}`)
    if (tagged.length === 0 && only)
      await client.api('PUT', `/kubernetes/clusters/${id}/node_pools/${only.id}`, {
        tags: [...only.tags, DEFAULT_POOL],
      })
    return { id }
  },
})

export const kubernetesVersions = dataSource({
  fields: {
    id: optionalComputed(string),
    version_prefix: optional(string),
    latest_version: computed(string),
    valid_versions: computed(listOf(string)),
  },
  async read({ version_prefix }, { api }) {
    const { options } = await api<{ options: { versions: { slug: string }[] } }>('GET', '/kubernetes/options')
    const valid_versions = options.versions
      .map(({ slug }) => slug)
      .filter((slug) => slug.startsWith(version_prefix ?? ''))
    return { id: uniqueId(), valid_versions, latest_version: valid_versions[0] ?? null }
  },
})
