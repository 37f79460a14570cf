// Everything that exists in the account, as plain data.
import { randomBytes, randomUUID } from 'node:crypto'
import type { Cluster } from '../../cluster/start.ts'
import type { BootedDroplet } from '../../droplet/start.ts'
import type { HeldAddress } from '../../servers/addresses.ts'
import type { Forward } from '../../servers/forward.ts'
import type { Postgres } from '../../servers/postgres.ts'
import type { Valkey } from '../../servers/valkey.ts'

/** Milliseconds since 1970 from which on a created thing is ready; Infinity for never. */
export type ReadyAt = number

export type SshKey = { id: number; name: string; public_key: string; fingerprint: string }

export type Vpc = {
  id: string
  name: string
  description: string
  region: string
  ip_range: string
  default: boolean
  created_at: string
}

export type Droplet = {
  id: number
  name: string
  size: string
  image: string
  region: string
  vpc_uuid: string
  tags: string[]
  features: string[]
  public_address: string
  private_address: string
  power: 'active' | 'off'
  created_at: string
  readyAt: ReadyAt
  machine: DropletMachine | undefined
}

/** The real machine behind a droplet. */
export type DropletMachine = {
  /** settles when it is up, or has failed */
  started: Promise<void>
  booted: BootedDroplet | undefined
  /** why it did not start, or no longer runs */
  failure: string | undefined
  /** that lead to it, by port */
  sockets: Map<number, string>
  /** gives its public address back */
  release: () => Promise<void>
}

export type Action = {
  id: number
  type: string
  started_at: string
  resource_id: number
  resource_type: string
  region: string
  readyAt: ReadyAt
  /** Has its effect when it completes. */
  complete: (() => void) | undefined
  /** Why it did not come to that. */
  failure: string | undefined
}

export type ReservedIp = {
  ip: string
  region: string
  dropletId: number | undefined
  project_id: string
  /** gives the address back, where it is a real one */
  release: (() => Promise<void>) | undefined
}

export type FirewallRule = Record<string, unknown> & { protocol: string; ports: string }
export type Firewall = {
  id: string
  name: string
  created_at: string
  inbound_rules: FirewallRule[]
  outbound_rules: FirewallRule[]
  droplet_ids: number[]
  tags: string[]
}

export type DatabaseRule = { uuid: string; type: string; value: string; created_at: string }
export type DatabaseCluster = {
  id: string
  name: string
  engine: 'pg' | 'valkey'
  version: string
  num_nodes: number
  size: string
  region: string
  private_network_uuid: string
  tags: string[]
  project_id: string
  storage_size_mib: number
  maintenance_window: { day: string; hour: string }
  eviction_policy: string
  config: Record<string, unknown>
  created_at: string
  readyAt: ReadyAt
  rules: DatabaseRule[]
  /** By user name. */
  passwords: Record<string, string>
  /** The server behind it; it settles when the server answers or has failed. */
  server: Promise<void>
  postgres: Postgres | undefined
  valkey: Valkey | undefined
  /** Why the server behind it did not start. */
  failure: string | undefined
}

export type NodePool = {
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
  nodes: { id: string; name: string; dropletId: number; created_at: string }[]
}
export type KubernetesCluster = {
  id: string
  name: string
  region: string
  version: string
  vpc_uuid: string
  cluster_subnet: string
  service_subnet: string
  ipv4: string
  tags: string[]
  ha: boolean
  auto_upgrade: boolean
  surge_upgrade: boolean
  maintenance_policy: { day: string; start_time: string }
  node_pools: NodePool[]
  token: string
  created_at: string
  updated_at: string
  readyAt: ReadyAt
  /** The real cluster behind it; it settles when that is ready or has failed. */
  server: Promise<void>
  real: Cluster | undefined
  /** Why there is no real cluster behind it, or no longer one. */
  failure: string | undefined
}

export type ForwardingRule = {
  entry_protocol: string
  entry_port: number
  target_protocol: string
  target_port: number
  certificate_id: string
  tls_passthrough: boolean
}
export type LoadBalancer = {
  id: string
  name: string
  /** An address of loopback that nobody else on this machine has. */
  ip: string
  /** at which the members of its network find it */
  private_address: string
  region: string
  vpc_uuid: string
  /** Nodes of it, each at the same price. */
  size_unit: number
  forwarding_rules: ForwardingRule[]
  droplet_ids: number[]
  /** Droplets with this tag are behind it, instead of those of droplet_ids. */
  tag: string
  /** Its own: those of a cluster's load balancer have k8s:CLUSTER among them. */
  tags: string[]
  /** What else the API is told of it, and tells again. */
  settings: Record<string, unknown>
  created_at: string
  readyAt: ReadyAt
  held: HeldAddress
  /** What listens at its address, and ends with it. */
  forwards: Forward[]
}

export type Project = {
  id: string
  name: string
  description: string
  purpose: string
  environment: string
  is_default: boolean
  created_at: string
  updated_at: string
}

export type State = {
  account: { uuid: string; email: string; droplet_limit: number }
  /** US dollars, but for what the load balancers that exist have cost. */
  monthToDateUsage: number
  keys: Map<number, SshKey>
  vpcs: Map<string, Vpc>
  droplets: Map<number, Droplet>
  actions: Map<number, Action>
  reservedIps: Map<string, ReservedIp>
  firewalls: Map<string, Firewall>
  databases: Map<string, DatabaseCluster>
  clusters: Map<string, KubernetesCluster>
  loadBalancers: Map<string, LoadBalancer>
  projects: Map<string, Project>
  /** Project ids by the resource names (do:droplet:1) of what was moved into them. */
  assignments: Map<string, string>
  tags: Set<string>
  /** Counts up: ids that are numbers, and the last parts of addresses. */
  sequence: number
}

export const now = () => new Date().toISOString().replace(/\.\d+Z$/, 'Z')

export function emptyState(domain: string): State {
  const project: Project = {
    id: randomUUID(),
    name: 'rehearsal',
    description: 'Update your project information under Settings',
    purpose: 'Just trying out DigitalOcean',
    environment: 'Development',
    is_default: true,
    created_at: now(),
    updated_at: now(),
  }
  return {
    account: { uuid: randomUUID(), email: `operator@${domain}`, droplet_limit: 10 },
    monthToDateUsage: 0,
    keys: new Map(),
    vpcs: new Map(),
    droplets: new Map(),
    actions: new Map(),
    reservedIps: new Map(),
    firewalls: new Map(),
    databases: new Map(),
    clusters: new Map(),
    loadBalancers: new Map(),
    projects: new Map([[project.id, project]]),
    assignments: new Map(),
    tags: new Set(),
    sequence: randomBytes(3).readUIntBE(0, 3) + 400_000_000,
  }
}

/** @returns the project that new things belong to */
export const defaultProject = (state: State): Project => {
  for (const project of state.projects.values()) if (project.is_default) return project
  throw new Error('the account has lost its default project')
}

/** @returns how many droplets there are, clusters' nodes among them, against the account's limit */
export const dropletsLeft = (state: State) => state.account.droplet_limit - state.droplets.size
