// digitalocean_database_cluster
import { unlessGone, waitFor } from '../rest.ts'
import {
  bool,
  computed,
  listBlocks,
  listOf,
  number,
  optional,
  optionalComputed,
  type Row,
  required,
  setOf,
  string,
  timeouts,
} from '../schema.ts'
import { type Client, changeTags, lowerCase, resource } from './client.ts'

type Connection = { host: string; port: number; uri: string; database: string; user: string; password: string }
type Cluster = {
  id: string
  name: string
  engine: string
  version: string
  size: string
  region: string
  num_nodes: number
  storage_size_mib: number
  status: string
  tags: string[]
  private_network_uuid: string
  project_id: string
  maintenance_window: { day: string; hour: string }
  connection: Connection
  private_connection: Connection
}

const isCache = (engine: unknown) => engine === 'redis' || engine === 'valkey'
const hourAndMinute = (time: string) => time.split(':').slice(0, 2).join(':')

const fields = {
  id: optionalComputed(string),
  name: required(string, { replace: true }),
  engine: required(string, { replace: true, same: (prior, wanted) => isCache(prior) && isCache(wanted) }),
  version: optional(string),
  size: required(string),
  region: required(string, lowerCase),
  node_count: required(number),
  maintenance_window: listBlocks({
    day: required(string),
    hour: required(string, { same: (prior, wanted) => hourAndMinute(prior) === hourAndMinute(wanted) }),
  }),
  eviction_policy: optional(string),
  sql_mode: optional(string),
  private_network_uuid: optionalComputed(string, { replace: true }),
  project_id: optionalComputed(string, { replace: true }),
  host: computed(string),
  ui_host: computed(string),
  private_host: computed(string),
  port: computed(number),
  ui_port: computed(number),
  uri: computed(string, { sensitive: true }),
  ui_uri: computed(string, { sensitive: true }),
  private_uri: computed(string, { sensitive: true }),
  database: computed(string),
  ui_database: computed(string),
  user: computed(string),
  ui_user: computed(string),
  password: computed(string, { sensitive: true }),
  ui_password: computed(string, { sensitive: true }),
  urn: computed(string),
  tags: optional(setOf(string)),
  backup_restore: listBlocks({ database_name: required(string), backup_created_at: optional(string) }, { max: 1 }),
  storage_size_mib: optionalComputed(string),
  storage_autoscale: listBlocks(
    { enabled: required(bool), threshold_percent: optional(number), increment_gib: optional(number) },
    { max: 1 },
  ),
  metrics_endpoints: computed(listOf(string)),
  timeouts: timeouts('create'),
}

const row = ({ connection, private_connection, ...cluster }: Cluster, state: Row<typeof fields>) => {
  const { id, name, engine, version, size, region, tags, private_network_uuid, project_id } = cluster
  const { day, hour } = cluster.maintenance_window
  return {
    id,
    name,
    engine,
    version,
    size,
    region,
    tags,
    private_network_uuid,
    project_id,
    node_count: cluster.num_nodes,
    storage_size_mib: String(cluster.storage_size_mib),
    host: connection.host,
    port: connection.port,
    uri: connection.uri,
    database: connection.database,
    user: connection.user,
    password: connection.password,
    private_host: private_connection.host,
    private_uri: private_connection.uri,
    urn: `do:dbaas:${id}`,
    metrics_endpoints: [],
    // Told only where the configuration has one.
    ...(state.maintenance_window.length > 0 ? { maintenance_window: [{ day, hour }] } : {}),
  }
}

const fetchCluster = async ({ api }: Client, id: string | null) =>
  (await api<{ database: Cluster }>('GET', `/databases/${id}`)).database

const waitOnline = (client: Client, id: string) =>
  waitFor(
    `database cluster ${id}`,
    () => fetchCluster(client, id),
    ({ status }) => status === 'online',
    client.gone,
  )

async function setWindow({ api }: Client, id: string, { maintenance_window }: Row<typeof fields>): Promise<void> {
  const [window] = maintenance_window
  if (window) await api('PUT', `/databases/${id}/maintenance`, window)
}

const setEviction = ({ api }: Client, id: string, eviction_policy: string) =>
  api('PUT', `/databases/${id}/eviction_policy`, { eviction_policy })

async function readCluster(client: Client, id: string | null, state: Row<typeof fields>) {
  const found = row(await fetchCluster(client, id), state)
  if (!state.eviction_policy) return found
  const policy = await client.api<{ eviction_policy: string }>('GET', `/databases/${id}/eviction_policy`)
  return { ...found, eviction_policy: policy.eviction_policy }
}

export const databaseCluster = resource({
  version: 0,
  fields,
  check: ({ engine, version, eviction_policy, sql_mode }) => [
    ...(version === null ? ['The argument "version" is required, but no definition was found.'] : []),
    ...(sql_mode && engine !== 'mysql' ? ['sql_mode is only supported for MySQL Database Clusters'] : []),
    ...(typeof eviction_policy === 'string' && typeof engine === 'string' && !isCache(engine)
      ? ['eviction_policy is only supported for Redis or Valkey Database Clusters']
      : []),
  ],
  async create(planned, client, keep) {
    const { name, engine, version, size, region, node_count, private_network_uuid, project_id } = planned
    const { database } = await client.api<{ database: Cluster }>('POST', '/databases', {
      name,
      engine,
      version,
      size,
      region,
      num_nodes: node_count,
      private_network_uuid,
      project_id,
      tags: planned.tags ?? [],
      ...(planned.storage_size_mib ? { storage_size_mib: Number(planned.storage_size_mib) } : {}),
    })
    const { id } = database
    await waitOnline(client, id)
    keep({ id }) // a cluster that it does not see come online the real provider forgets
    await setWindow(client, id, planned)
    if (planned.eviction_policy) await setEviction(client, id, planned.eviction_policy)
    return readCluster(client, id, planned)
  },
  read: (state, client) => unlessGone(() => readCluster(client, state.id, state)),
  async update(prior, planned, client) {
    const id = prior.id ?? ''
    const { size, node_count } = planned
    const storage =
      planned.storage_size_mib && planned.storage_size_mib !== prior.storage_size_mib
        ? { storage_size_mib: Number(planned.storage_size_mib) }
        : {}
    if (size !== prior.size || node_count !== prior.node_count || 'storage_size_mib' in storage) {
      await client.api('PUT', `/databases/${id}/resize`, { size, num_nodes: node_count, ...storage })
      await waitOnline(client, id)
    }
    if (JSON.stringify(planned.maintenance_window) !== JSON.stringify(prior.maintenance_window))
      await setWindow(client, id, planned)
    if ((planned.eviction_policy ?? '') !== (prior.eviction_policy ?? ''))
      await setEviction(client, id, planned.eviction_policy || 'noeviction')
    if (planned.version !== prior.version)
      await client.api('PUT', `/databases/${id}/upgrade`, { version: planned.version })
    await changeTags(client, 'database', id, prior.tags, planned.tags)
    return readCluster(client, id, planned)
  },
  async remove({ id }, { api }) {
    await api('DELETE', `/databases/${id}`)
  },
})
