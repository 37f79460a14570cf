// Firewalls. Their rules are kept and told, but nothing is filtered.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { type Request, type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { conflict, found, list, page, parseBody, text, unprocessable } from './api.ts'
import { type Firewall, now, type State } from './state.ts'

const peers = z.looseObject({}).nullish()
const rule = z.object({ protocol: z.enum(['tcp', 'udp', 'icmp']), ports: text })
const newFirewall = z.object({
  name: z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9.-]*$/, 'must start with a letter or digit'),
  inbound_rules: list(rule.extend({ sources: peers })),
  outbound_rules: list(rule.extend({ destinations: peers })),
  droplet_ids: list(z.number()),
  tags: list(z.string()),
})

/** The API says 0 for all ports, and for icmp, which has none. */
const ports = (given: string) => (given === 'all' || given === '' ? '0' : given)

/** Empty lists are left out of what the API tells. */
const told = (sides: Record<string, unknown> | null | undefined) =>
  Object.fromEntries(Object.entries(sides ?? {}).filter(([, value]) => Array.isArray(value) && value.length > 0))

function wantedOf(state: State, request: Request, id?: string) {
  const wanted = parseBody(newFirewall, request)
  if (wanted.inbound_rules.length + wanted.outbound_rules.length === 0)
    throw unprocessable('must specify at least one rule')
  for (const { protocol, ports } of [...wanted.inbound_rules, ...wanted.outbound_rules])
    if (protocol !== 'icmp' && !/^(all|0|\d{1,5}(-\d{1,5})?)$/.test(ports))
      throw unprocessable(`invalid port range: ${ports || 'missing'}`)
  for (const droplet of wanted.droplet_ids)
    if (!state.droplets.has(droplet)) throw unprocessable(`droplet ${droplet} could not be found`)
  if ([...state.firewalls.values()].some((other) => other.name === wanted.name && other.id !== id))
    throw conflict('duplicate name')
  return {
    ...wanted,
    inbound_rules: wanted.inbound_rules.map(({ protocol, ports: given, sources }) => ({
      protocol,
      ports: ports(given),
      sources: told(sources),
    })),
    outbound_rules: wanted.outbound_rules.map(({ protocol, ports: given, destinations }) => ({
      protocol,
      ports: ports(given),
      destinations: told(destinations),
    })),
  }
}

const body = (firewall: Firewall) => ({ ...firewall, status: 'succeeded', pending_changes: [] })

export function firewallRoutes(account: Account): Route[] {
  const { state } = account
  return [
    route('GET', '/v2/firewalls', (request) =>
      page('firewalls', [...state.firewalls.values()].map(body), request, account.base()),
    ),
    route('POST', '/v2/firewalls', (request) => {
      const firewall = { id: randomUUID(), created_at: now(), ...wantedOf(state, request) }
      state.firewalls.set(firewall.id, firewall)
      return { status: 202, body: { firewall: body(firewall) } }
    }),
    route('GET', '/v2/firewalls/:id', (_request, { id }) => ({
      status: 200,
      body: { firewall: body(found(state.firewalls.get(id))) },
    })),
    route('PUT', '/v2/firewalls/:id', (request, { id }) => {
      const firewall = found(state.firewalls.get(id))
      Object.assign(firewall, wantedOf(state, request, id))
      return { status: 200, body: { firewall: body(firewall) } }
    }),
    route('DELETE', '/v2/firewalls/:id', (_request, { id }) => {
      state.firewalls.delete(found(state.firewalls.get(id)).id)
      return { status: 204 }
    }),
  ]
}
