// Load balancers: objects of the API with an address of loopback each, at which a cluster's controller lets them listen.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { holdAddress } from '../../servers/addresses.ts'
import { type Forward, type ForwardOptions, startForward } from '../../servers/forward.ts'
import { type Request, type Route, route } from '../http.ts'
import { offerAt } from '../private-network.ts'
import { type Account, readyAt } from './account.ts'
import { found, list, page, parseBody, text, unprocessable } from './api.ts'
import { isRegion, regionOf } from './catalog.ts'
import {
  defaultProject,
  type ForwardingRule,
  type KubernetesCluster,
  type LoadBalancer,
  now,
  type State,
} from './state.ts'
import { usageOf } from './usage.ts'
import { joinedVpc, privateAddress } from './vpcs.ts'

/** Today DigitalOcean adapts it to the account, and does not tell it; this is what it was when it was documented. */
const LIMIT = 10

const port = z.number().int().min(1).max(65_535)
const protocol = z.enum(['http', 'https', 'http2', 'http3', 'tcp', 'udp'])
const rule = z.object({
  entry_protocol: protocol,
  entry_port: port,
  target_protocol: protocol,
  target_port: port,
  certificate_id: text,
  tls_passthrough: z
    .boolean()
    .nullish()
    .transform((value) => value ?? false),
})
const fields = z.looseObject({
  name: z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9.-]{0,254}$/, 'must start with a letter or digit'),
  region: text,
  vpc_uuid: text,
  project_id: text,
  size_unit: z.number().int().min(1).max(200).nullish(),
  forwarding_rules: z.array(rule).min(1, 'must have at least one forwarding rule'),
  droplet_ids: list(z.number()),
  tag: text,
  tags: list(z.string()),
})

const DEFAULTS = {
  algorithm: 'round_robin',
  redirect_http_to_https: false,
  enable_proxy_protocol: false,
  enable_backend_keepalive: false,
}

const clusterTag = (id: string) => `k8s:${id}`
const urn = (id: string) => `do:loadbalancer:${id}`

/** @returns those that the cluster has made, whether it is still there or not */
export const loadBalancersOf = ({ loadBalancers }: State, { id }: Pick<KubernetesCluster, 'id'>): LoadBalancer[] =>
  [...loadBalancers.values()].filter(({ tags }) => tags.includes(clusterTag(id)))

/** Those of a cluster lead to its nodes, as its controller keeps them. */
function dropletsBehind({ droplets }: State, { tag, tags, droplet_ids }: LoadBalancer): number[] {
  const wanted = tag || tags.find((own) => own.startsWith(clusterTag('')))
  if (!wanted) return droplet_ids
  return [...droplets.values()].filter((droplet) => droplet.tags.includes(wanted)).map(({ id }) => id)
}

const isActive = ({ readyAt }: LoadBalancer) => Date.now() >= readyAt

/** @returns the load balancer as the API tells it: without an address until it is active */
function body(state: State, balancer: LoadBalancer) {
  const { ip, private_address, region, settings, held, forwards, readyAt, ...told } = balancer
  return {
    ...settings,
    ...told,
    ip: isActive(balancer) ? ip : '',
    status: isActive(balancer) ? 'active' : 'new',
    region: regionOf(region),
    droplet_ids: dropletsBehind(state, balancer),
    project_id: state.assignments.get(urn(balancer.id)) ?? defaultProject(state).id,
  }
}

type Wanted = Omit<LoadBalancer, 'id' | 'ip' | 'private_address' | 'created_at' | 'held' | 'forwards'>

async function create({ state }: Account, wanted: Wanted): Promise<LoadBalancer> {
  const held = await holdAddress()
  if (state.loadBalancers.size >= LIMIT) {
    await held.release()
    throw unprocessable(`creating this load balancer will exceed your load balancer limit of ${LIMIT}`)
  }
  const balancer = {
    ...{ id: randomUUID(), ...wanted, ip: held.address, created_at: now(), held, forwards: [] },
    private_address: privateAddress(state, found(state.vpcs.get(wanted.vpc_uuid))),
  }
  state.loadBalancers.set(balancer.id, balancer)
  return balancer
}

/**
 * Adds a load balancer of a cluster, in its region and network, as its controller does for a Service.
 * @returns it, with its address already; the API tells that once it is active, after account.readyAfter milliseconds
 * @throws Refusal when there is no such cluster, or the account has as many load balancers as it may have
 */
export async function addLoadBalancer(
  account: Account,
  { name, clusterId, forwarding_rules }: { name: string; clusterId: string; forwarding_rules: ForwardingRule[] },
): Promise<LoadBalancer> {
  const { region, vpc_uuid } = found(account.state.clusters.get(clusterId))
  return create(account, {
    name,
    region,
    vpc_uuid,
    size_unit: 1,
    forwarding_rules,
    droplet_ids: [],
    tag: '',
    tags: [clusterTag(clusterId)],
    settings: DEFAULTS,
    readyAt: readyAt(account, { neverReady: false }),
  })
}

/**
 * Lets what comes to a port of the load balancer's address go on to where one of its nodes listens, until either the
 * returned forward is closed or the load balancer is removed.
 * @throws when the port cannot be listened on: one below 1024 is root's
 */
export async function forwardPort(
  { state, network }: Account,
  balancer: LoadBalancer,
  port: number,
  connect: ForwardOptions['connect'],
): Promise<Forward> {
  const forward = await startForward({ listen: { host: balancer.ip, port }, connect })
  if (state.loadBalancers.has(balancer.id)) balancer.forwards.push(forward)
  else await forward.close() // it was removed meanwhile
  await offerAt(network, { address: balancer.private_address, port, to: { host: balancer.ip, port } })
  return forward
}

async function letGo({ forwards, held }: LoadBalancer): Promise<void> {
  await Promise.all(forwards.splice(0).map((forward) => forward.close()))
  await held.release()
}

/** Removes it, closes what listens at its address, and gives that back. What it has cost stays on the bill. */
export async function removeLoadBalancer({ state }: Account, balancer: LoadBalancer): Promise<void> {
  if (!state.loadBalancers.delete(balancer.id)) return
  state.monthToDateUsage += usageOf(balancer)
  await letGo(balancer)
}

/** Closes what listens for any of them, and gives their addresses back. */
export async function stopLoadBalancers({ loadBalancers }: State): Promise<void> {
  const all = [...loadBalancers.values()]
  loadBalancers.clear()
  await Promise.all(all.map(letGo))
}

function wantedOf(state: State, request: Request) {
  const { region, vpc_uuid, project_id, name, size_unit, forwarding_rules, droplet_ids, tag, tags, ...rest } =
    parseBody(fields, request)
  if (tag && droplet_ids.length > 0) throw unprocessable('need to provide either a tag or a list of droplets')
  for (const droplet of droplet_ids)
    if (!state.droplets.has(droplet)) throw unprocessable(`droplet ${droplet} could not be found`)
  return {
    place: { region, vpc_uuid, tags, project_id },
    changeable: {
      name,
      size_unit: size_unit ?? 1,
      forwarding_rules,
      droplet_ids,
      tag,
      settings: { ...DEFAULTS, ...rest },
    },
  }
}

async function createAsAsked(account: Account, request: Request): Promise<LoadBalancer> {
  const { state } = account
  const { place, changeable } = wantedOf(state, request)
  const { region, tags, project_id } = place
  if (!isRegion(region)) throw unprocessable('Region is not available')
  const vpc_uuid = joinedVpc(state, region, place.vpc_uuid).id
  const balancer = await create(account, { ...changeable, region, vpc_uuid, tags, readyAt: readyAt(account, request) })
  if (project_id) state.assignments.set(urn(balancer.id), project_id)
  return balancer
}

export function loadBalancerRoutes(account: Account): Route[] {
  const { state } = account
  const balancer = (id: string) => found(state.loadBalancers.get(id))
  return [
    route('GET', '/v2/load_balancers', (request) => {
      const all = [...state.loadBalancers.values()].map((each) => body(state, each))
      return page('load_balancers', all, request, account.base())
    }),
    route('POST', '/v2/load_balancers', async (request) => ({
      status: 202,
      body: { load_balancer: body(state, await createAsAsked(account, request)) },
    })),
    route('GET', '/v2/load_balancers/:id', (_request, { id }) => ({
      status: 200,
      body: { load_balancer: body(state, balancer(id)) },
    })),
    route('PUT', '/v2/load_balancers/:id', (request, { id }) => {
      const changed = Object.assign(balancer(id), wantedOf(state, request).changeable)
      return { status: 200, body: { load_balancer: body(state, changed) } }
    }),
    route('DELETE', '/v2/load_balancers/:id', async (_request, { id }) => {
      await removeLoadBalancer(account, balancer(id))
      return { status: 204 }
    }),
  ]
}
