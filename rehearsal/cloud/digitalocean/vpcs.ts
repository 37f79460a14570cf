// Private networks.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { conflict, found, page, parseBody, text, unprocessable } from './api.ts'
import { isRegion } from './catalog.ts'
import { now, type State, type Vpc } from './state.ts'

const newVpc = z.object({ name: z.string().min(1), region: z.string(), description: text, ip_range: text })
const changedVpc = z.object({ name: z.string().min(1), description: text })

const body = (vpc: Vpc) => ({ ...vpc, urn: `do:vpc:${vpc.id}` })

/** @returns first and last address of an IPv4 network as numbers; undefined for anything else */
function range(cidr: string): [first: number, last: number] | undefined {
  const [address = '', length = ''] = cidr.split('/')
  const octets = address.split('.').map(Number)
  const bits = Number(length)
  const valid = octets.length === 4 && octets.every((octet) => Number.isInteger(octet) && octet >= 0 && octet < 256)
  if (!valid || length === '' || !Number.isInteger(bits) || bits < 16 || bits > 28) return undefined
  const size = 2 ** (32 - bits)
  const first = Math.floor(octets.reduce((sum, octet) => sum * 256 + octet, 0) / size) * size
  return [first, first + size - 1]
}

const overlaps = (one: string, other: string) => {
  const [a, b] = [range(one), range(other)]
  return a !== undefined && b !== undefined && a[0] <= b[1] && b[0] <= a[1]
}

/** @returns the resource names of all that is in the network */
const members = (state: State, id: string): string[] => [
  ...[...state.droplets.values()].filter((droplet) => droplet.vpc_uuid === id).map(({ id }) => `do:droplet:${id}`),
  ...[...state.clusters.values()].filter((cluster) => cluster.vpc_uuid === id).map(({ id }) => `do:kubernetes:${id}`),
  ...[...state.databases.values()]
    .filter((database) => database.private_network_uuid === id)
    .map(({ id }) => `do:dbaas:${id}`),
  ...[...state.loadBalancers.values()]
    .filter((balancer) => balancer.vpc_uuid === id)
    .map(({ id }) => `do:loadbalancer:${id}`),
]

function createVpc(state: State, wanted: z.infer<typeof newVpc>, isDefault: boolean): Vpc {
  if (!isRegion(wanted.region)) throw unprocessable('Region is not available')
  if ([...state.vpcs.values()].some((vpc) => vpc.name === wanted.name))
    throw unprocessable('A VPC with this name already exists in your account')
  if (wanted.ip_range && !range(wanted.ip_range))
    throw unprocessable('The IP range must be an IPv4 network of size /16 to /28')
  const taken = (candidate: string) => [...state.vpcs.values()].some((vpc) => overlaps(vpc.ip_range, candidate))
  if (wanted.ip_range && taken(wanted.ip_range))
    throw unprocessable('This range/size overlaps with another VPC network in your account')
  let ip_range = wanted.ip_range
  for (let third = 0; !ip_range; third += 16) {
    const candidate = `10.${100 + Math.floor(third / 256)}.${third % 256}.0/20`
    if (!taken(candidate)) ip_range = candidate
  }
  const vpc = { ...wanted, id: randomUUID(), ip_range, default: isDefault, created_at: now() }
  state.vpcs.set(vpc.id, vpc)
  return vpc
}

/** @returns the network that something joins: the one asked for, or the region's default one */
export function joinedVpc(state: State, region: string, wanted: string): Vpc {
  if (wanted) {
    const vpc = state.vpcs.get(wanted)
    if (!vpc) throw unprocessable('VPC could not be found')
    if (vpc.region !== region) throw unprocessable('VPC is not in the same region as the resource')
    return vpc
  }
  const existing = [...state.vpcs.values()].find((vpc) => vpc.region === region && vpc.default)
  return existing ?? createVpc(state, { name: `default-${region}`, region, description: '', ip_range: '' }, true)
}

/** @returns an address in the network that nothing has had before */
export function privateAddress(state: State, vpc: Vpc): string {
  const [first, last] = range(vpc.ip_range) ?? [0, 0]
  const address = first + 2 + (++state.sequence % (last - first - 3))
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')
}

export function vpcRoutes(account: Account): Route[] {
  const { state } = account
  return [
    route('GET', '/v2/vpcs', (request) => page('vpcs', [...state.vpcs.values()].map(body), request, account.base())),
    route('POST', '/v2/vpcs', (request) => ({
      status: 201,
      body: { vpc: body(createVpc(state, parseBody(newVpc, request), false)) },
    })),
    route('GET', '/v2/vpcs/:id', (_request, { id }) => ({
      status: 200,
      body: { vpc: body(found(state.vpcs.get(id))) },
    })),
    route('PUT', '/v2/vpcs/:id', (request, { id }) => {
      const vpc = Object.assign(found(state.vpcs.get(id)), parseBody(changedVpc, request))
      return { status: 200, body: { vpc: body(vpc) } }
    }),
    route('DELETE', '/v2/vpcs/:id', (_request, { id }) => {
      if (found(state.vpcs.get(id)).default) throw conflict('Can not delete default VPCs')
      if (members(state, id).length > 0) throw conflict('Can not delete VPC with members')
      state.vpcs.delete(id)
      return { status: 204 }
    }),
    route('GET', '/v2/vpcs/:id/members', (request, { id }) => {
      found(state.vpcs.get(id))
      return page(
        'members',
        members(state, id).map((urn) => ({ urn })),
        request,
        account.base(),
      )
    }),
  ]
}
