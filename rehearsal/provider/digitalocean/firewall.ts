// digitalocean_firewall
import { unlessGone } from '../rest.ts'
import {
  bool,
  computed,
  listOf,
  number,
  objectOf,
  optional,
  optionalComputed,
  type Row,
  required,
  setBlocks,
  setOf,
  string,
} from '../schema.ts'
import { type Client, resource } from './client.ts'

const inbound = {
  protocol: required(string),
  port_range: optional(string),
  source_addresses: optional(setOf(string)),
  source_droplet_ids: optional(setOf(number)),
  source_load_balancer_uids: optional(setOf(string)),
  source_kubernetes_ids: optional(setOf(string)),
  source_tags: optional(setOf(string)),
}
const outbound = {
  protocol: required(string),
  port_range: optional(string),
  destination_addresses: optional(setOf(string)),
  destination_droplet_ids: optional(setOf(number)),
  destination_load_balancer_uids: optional(setOf(string)),
  destination_kubernetes_ids: optional(setOf(string)),
  destination_tags: optional(setOf(string)),
}
const fields = {
  id: optionalComputed(string),
  name: required(string),
  droplet_ids: optional(setOf(number)),
  inbound_rule: setBlocks(inbound),
  outbound_rule: setBlocks(outbound),
  status: computed(string),
  created_at: computed(string),
  pending_changes: computed(listOf(objectOf({ droplet_id: number, removing: bool, status: string }))),
  tags: optional(setOf(string)),
}

type Peers = {
  addresses?: string[]
  droplet_ids?: number[]
  load_balancer_uids?: string[]
  kubernetes_ids?: string[]
  tags?: string[]
}
type Rule = { protocol: string; ports: string }
type Firewall = {
  id: string
  status: string
  created_at: string
  pending_changes: { droplet_id: number; removing: boolean; status: string }[]
  name: string
  inbound_rules: (Rule & { sources: Peers })[]
  outbound_rules: (Rule & { destinations: Peers })[]
  droplet_ids: number[]
  tags: string[]
}

const body = (planned: Row<typeof fields>) => ({
  name: planned.name,
  droplet_ids: planned.droplet_ids ?? [],
  tags: planned.tags ?? [],
  inbound_rules: planned.inbound_rule.map((rule) => ({
    protocol: rule.protocol,
    ports: rule.port_range ?? '',
    sources: {
      addresses: rule.source_addresses,
      droplet_ids: rule.source_droplet_ids,
      load_balancer_uids: rule.source_load_balancer_uids,
      kubernetes_ids: rule.source_kubernetes_ids,
      tags: rule.source_tags,
    },
  })),
  outbound_rules: planned.outbound_rule.map((rule) => ({
    protocol: rule.protocol,
    ports: rule.port_range ?? '',
    destinations: {
      addresses: rule.destination_addresses,
      droplet_ids: rule.destination_droplet_ids,
      load_balancer_uids: rule.destination_load_balancer_uids,
      kubernetes_ids: rule.destination_kubernetes_ids,
      tags: rule.destination_tags,
    },
  })),
})

/** The API says 0 for all ports, and for icmp, which has none. */
const portRange = ({ protocol, ports }: Rule) => (ports !== '0' ? ports : protocol === 'icmp' ? '' : 'all')

const row = (firewall: Firewall) => ({
  ...firewall,
  inbound_rule: firewall.inbound_rules.map(({ sources, ...rule }) => ({
    protocol: rule.protocol,
    port_range: portRange(rule),
    source_addresses: sources.addresses ?? [],
    source_droplet_ids: sources.droplet_ids ?? [],
    source_load_balancer_uids: sources.load_balancer_uids ?? [],
    source_kubernetes_ids: sources.kubernetes_ids ?? [],
    source_tags: sources.tags ?? [],
  })),
  outbound_rule: firewall.outbound_rules.map(({ destinations, ...rule }) => ({
    protocol: rule.protocol,
    port_range: portRange(rule),
    destination_addresses: destinations.addresses ?? [],
    destination_droplet_ids: destinations.droplet_ids ?? [],
    destination_load_balancer_uids: destinations.load_balancer_uids ?? [],
    destination_kubernetes_ids: destinations.kubernetes_ids ?? [],
    destination_tags: destinations.tags ?? [],
  })),
})

const ask = async ({ api }: Client, method: string, path: string, sent?: object) =>
  row((await api<{ firewall: Firewall }>(method, path, sent)).firewall)

export const firewall = resource({
  version: 0,
  fields,
  create: (planned, client) => ask(client, 'POST', '/firewalls', body(planned)),
  read: ({ id }, client) => unlessGone(() => ask(client, 'GET', `/firewalls/${id}`)),
  update: ({ id }, planned, client) => ask(client, 'PUT', `/firewalls/${id}`, body(planned)),
  async remove({ id }, { api }) {
    await unlessGone(() => api('DELETE', `/firewalls/${id}`))
  },
})
