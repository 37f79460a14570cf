// Load balancers: objects of the API, an address and a listener each, and what becomes of them with their cluster.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { text } from 'node:stream/consumers'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Account } from '../../rehearsal/cloud/digitalocean/account.ts'
import { digitalOceanApi } from '../../rehearsal/cloud/digitalocean/api.ts'
import {
  addLoadBalancer,
  forwardPort,
  removeLoadBalancer,
  stopLoadBalancers,
} from '../../rehearsal/cloud/digitalocean/load-balancers.ts'
import { digitalOceanRoutes } from '../../rehearsal/cloud/digitalocean/routes.ts'
import { emptyState } from '../../rehearsal/cloud/digitalocean/state.ts'
import { usageOf } from '../../rehearsal/cloud/digitalocean/usage.ts'
import { type Listener, serveApi, type Traffic } from '../../rehearsal/cloud/http.ts'
import { privateNetwork } from '../../rehearsal/cloud/private-network.ts'
import { holdAddress } from '../../rehearsal/servers/addresses.ts'
import { type Answer, until } from './cloud.ts'

type Context = {
  account: Account
  listener: Listener
  api: (method: string, path: string, body?: unknown) => Promise<Answer>
}
const test = suite<Context>('load balancers')

test.before.each(async (context) => {
  const account: Account = {
    token: 'token',
    state: emptyState('lunar.test'),
    base: () => context.listener.url,
    domain: 'lunar.test',
    readyAfter: 50,
    servers: {} as Account['servers'], // no database is made here
    network: privateNetwork('127.0.0.1'),
    wildcard: { certificate: '', key: '' },
    startCluster: undefined,
    startDroplet: undefined,
    images: [],
  }
  const traffic: Traffic = { faults: [], calls: [] }
  context.account = account
  context.listener = await serveApi(digitalOceanApi(account, digitalOceanRoutes(account)), traffic)
  context.api = async (method, path, body) => {
    const response = await fetch(`${context.listener.url}/v2${path}`, {
      method,
      headers: { authorization: 'Bearer token' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const answered = await response.text()
    return { status: response.status, headers: response.headers, body: answered && JSON.parse(answered) }
  }
})
test.after.each(async ({ account, listener }) => {
  await stopLoadBalancers(account.state)
  await listener.close()
})

const tcp = (port: number) => ({ entry_protocol: 'tcp', entry_port: port, target_protocol: 'tcp', target_port: 30_443 })
const forwarding_rules = [{ ...tcp(443), certificate_id: '', tls_passthrough: false }]
const wanted = (more = {}) => ({ name: 'ingress', region: 'nyc3', forwarding_rules: [tcp(443)], ...more })

async function createCluster({ api }: Context): Promise<{ id: string; vpc_uuid: string }> {
  const pool = { name: 'workers', size: 's-2vcpu-4gb', count: 2 }
  const cluster = { name: 'apps', region: 'nyc3', version: '1.34.6-do.0', ha: false, node_pools: [pool] }
  return (await api('POST', '/kubernetes/clusters', cluster)).body.kubernetes_cluster
}

const used = async ({ api }: Context) => (await api('GET', '/customers/my/balance')).body.month_to_date_usage
const listed = async ({ api }: Context) => (await api('GET', '/load_balancers')).body.load_balancers

test('new, then active and with an address; changed, and gone', async (context) => {
  const { api } = context
  const created = await api('POST', '/load_balancers', wanted({ size_unit: 2, enable_proxy_protocol: true }))
  assert.is(created.status, 202)
  const { id, status, ip, vpc_uuid } = created.body.load_balancer
  assert.equal([status, ip], ['new', ''])
  const { body } = await until(
    () => api('GET', `/load_balancers/${id}`),
    ({ body }) => body.load_balancer.status === 'active',
  )
  const active = body.load_balancer
  assert.match(active.ip, /^127\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.\d+\.\d+$/)
  assert.equal(
    [active.name, active.region.slug, active.size_unit, active.algorithm],
    ['ingress', 'nyc3', 2, 'round_robin'],
  )
  assert.equal([active.enable_proxy_protocol, active.redirect_http_to_https], [true, false])
  assert.equal(active.forwarding_rules, forwarding_rules)
  assert.equal((await api('GET', `/vpcs/${vpc_uuid}/members`)).body.members, [{ urn: `do:loadbalancer:${id}` }])
  const inProject = (await api('GET', '/projects/default/resources')).body.resources
  assert.ok(inProject.some(({ urn }: { urn: string }) => urn === `do:loadbalancer:${id}`))

  const put = await api(
    'PUT',
    `/load_balancers/${id}`,
    wanted({ name: 'renamed', forwarding_rules: [tcp(80), tcp(443)] }),
  )
  const changed = put.body.load_balancer
  assert.equal([changed.id, changed.ip, changed.name, changed.size_unit], [id, active.ip, 'renamed', 1])
  assert.is(changed.forwarding_rules.length, 2)
  assert.equal(await listed(context), [changed])
  assert.is((await api('DELETE', `/load_balancers/${id}`)).status, 204)
  for (const method of ['GET', 'DELETE']) assert.is((await api(method, `/load_balancers/${id}`)).status, 404)
  assert.equal(await listed(context), [])
})

test('those that cannot be are refused, and leave nothing', async (context) => {
  for (const more of [
    { name: '-' },
    { region: 'mars1' },
    { vpc_uuid: 'none' },
    { forwarding_rules: [] },
    { forwarding_rules: [tcp(0)] },
    { forwarding_rules: [{ ...tcp(443), entry_protocol: 'sctp' }] },
    { droplet_ids: [1] },
    { size_unit: 0 },
  ]) {
    const { status, body } = await context.api('POST', '/load_balancers', wanted(more))
    assert.equal([status, body.id], [422, 'unprocessable_entity'], JSON.stringify(more))
  }
  assert.equal(await listed(context), [])
})

test('droplets are behind it by name or by tag, and leave it when they go', async ({ api }) => {
  const droplet = { name: 'web', region: 'nyc3', size: 's-1vcpu-1gb', image: 'debian-12-x64', tags: ['web'] }
  const ids = [await api('POST', '/droplets', droplet), await api('POST', '/droplets', droplet)].map(
    ({ body }) => body.droplet.id,
  )
  const both = await api('POST', '/load_balancers', wanted({ droplet_ids: ids, tag: 'web' }))
  assert.equal([both.status, both.body.message], [422, 'need to provide either a tag or a list of droplets'])
  const named = (await api('POST', '/load_balancers', wanted({ droplet_ids: ids }))).body.load_balancer
  const tagged = (await api('POST', '/load_balancers', wanted({ tag: 'web' }))).body.load_balancer
  assert.equal([named.droplet_ids, tagged.droplet_ids, tagged.tag], [ids, ids, 'web'])
  await api('DELETE', `/droplets/${ids[0]}`)
  for (const { id } of [named, tagged])
    assert.equal((await api('GET', `/load_balancers/${id}`)).body.load_balancer.droplet_ids, [ids[1]])
})

test('an account has ten', async ({ api }) => {
  const created = await Promise.all(Array.from({ length: 12 }, () => api('POST', '/load_balancers', wanted())))
  assert.is(created.filter(({ status }) => status === 202).length, 10)
  const refused = created.find(({ status }) => status === 422)
  assert.match(refused?.body.message, /exceed your load balancer limit of 10/)
  const addresses = (
    await until(
      () => api('GET', '/load_balancers'),
      ({ body }) => !JSON.stringify(body).includes('"new"'),
    )
  ).body
  assert.is(new Set(addresses.load_balancers.map(({ ip }: { ip: string }) => ip)).size, 10)
})

test('each costs its price by the hour, the begun one too, and a removed one no more than it has', async (context) => {
  assert.is(await used(context), '0.00')
  const { id } = (await context.api('POST', '/load_balancers', wanted({ size_unit: 10 }))).body.load_balancer
  assert.is(await used(context), '0.18')
  const balancer = context.account.state.loadBalancers.get(id)
  assert.ok(balancer)
  balancer.created_at = new Date(Date.now() - 1.5 * 3_600_000).toISOString()
  const began = new Date().getUTCDate() === 1 && new Date().getUTCHours() < 2 // the bill starts anew with the month
  if (!began) assert.is(await used(context), '0.36')
  const before = await used(context)
  await context.api('DELETE', `/load_balancers/${id}`)
  assert.is(await used(context), before)

  const one = { ...balancer, size_unit: 1, created_at: '2026-01-10T12:00:00Z' }
  const on = (time: string) => usageOf(one, Date.parse(time)).toFixed(2)
  assert.is(on('2026-01-11T11:30:00Z'), '0.43', '24 hours')
  assert.is(on('2026-02-01T00:30:00Z'), '0.02', 'the first hour of the next month')
  assert.is(on('2026-03-31T23:59:59Z'), '12.00', 'a whole month is no more than its price')
})

test('a cluster’s is where the cluster is, with its nodes behind it, and goes where all that it made goes', async (context) => {
  const { account, api } = context
  const { id, vpc_uuid } = await createCluster(context)
  await api('POST', '/load_balancers', wanted({ name: 'of somebody else'.replaceAll(' ', '-') }))
  const balancer = await addLoadBalancer(account, { name: 'ingress', clusterId: id, forwarding_rules })
  const [, told] = await listed(context)
  assert.equal([told.id, told.vpc_uuid, told.tags], [balancer.id, vpc_uuid, [`k8s:${id}`]])
  const nodes = (await api('GET', `/droplets?tag_name=k8s:${id}`)).body.droplets.map((node: { id: number }) => node.id)
  assert.equal([told.droplet_ids, nodes.length], [nodes, 2])
  const path = `/kubernetes/clusters/${id}/destroy_with_associated_resources`
  assert.equal((await api('GET', path)).body, {
    load_balancers: [{ id: balancer.id, name: 'ingress' }],
    volumes: [],
    volume_snapshots: [],
  })
  assert.is((await api('DELETE', `${path}/dangerous`)).status, 204)
  assert.equal(
    (await listed(context)).map(({ name }: { name: string }) => name),
    ['of-somebody-else'],
  )
})

test('a cluster that is deleted the plain way leaves it behind: billed, in the way of its network, and counted', async (context) => {
  const { account, api } = context
  const { vpc } = (await api('POST', '/vpcs', { name: 'apps', region: 'nyc3' })).body
  const pool = { name: 'workers', size: 's-2vcpu-4gb', count: 1 }
  const more = { vpc_uuid: vpc.id, node_pools: [pool], ha: false, version: '1.34.6-do.0' }
  const created = await api('POST', '/kubernetes/clusters', { name: 'apps', region: 'nyc3', ...more })
  const { id } = created.body.kubernetes_cluster
  const balancer = await addLoadBalancer(account, { name: 'ingress', clusterId: id, forwarding_rules })
  assert.is((await api('DELETE', `/kubernetes/clusters/${id}`)).status, 204)
  const [left] = await listed(context)
  assert.equal([left.id, left.droplet_ids], [balancer.id, []])
  assert.is(await used(context), '0.02')
  assert.is((await api('DELETE', `/vpcs/${vpc.id}`)).status, 409)
  assert.is((await api('DELETE', `/load_balancers/${balancer.id}`)).status, 204)
  assert.is((await api('DELETE', `/vpcs/${vpc.id}`)).status, 204)
  try {
    await addLoadBalancer(account, { name: 'ingress', clusterId: id, forwarding_rules })
    assert.unreachable('there is no such cluster')
  } catch (error) {
    assert.match((error as Error).message, /could not be found/)
  }
})

test('what comes to its address goes on, until it is removed', async (context) => {
  const { account, api } = context
  const node = createServer((socket) => socket.on('error', () => {}).end('a node')).listen(0, '127.0.0.1')
  await once(node, 'listening')
  const to = { host: '127.0.0.1', port: (node.address() as AddressInfo).port }
  const { id } = await createCluster(context)
  const [one, other] = [
    await addLoadBalancer(account, { name: 'one', clusterId: id, forwarding_rules }),
    await addLoadBalancer(account, { name: 'other', clusterId: id, forwarding_rules }),
  ]
  for (const balancer of [one, other]) assert.is((await forwardPort(account, balancer, 8_443, to)).host, balancer.ip)
  const ask = (host: string) => text(connect(8_443, host)).catch(({ code }) => code)
  assert.equal([await ask(one.ip), await ask(other.ip)], ['a node', 'a node'])
  await api('DELETE', `/load_balancers/${one.id}`)
  assert.equal([await ask(one.ip), await ask(other.ip)], ['ECONNREFUSED', 'a node'])
  const starting = forwardPort(account, other, 9_443, to)
  await removeLoadBalancer(account, other)
  await starting
  const late = connect(9_443, other.ip)
  const [error] = await once(late, 'error')
  assert.is(error.code, 'ECONNREFUSED')
  node.close()
})

test('an address is held by one alone, and free again afterwards', async () => {
  const held = await Promise.all(Array.from({ length: 20 }, holdAddress))
  assert.is(new Set(held.map(({ address }) => address)).size, 20)
  const [{ address, release }] = held as [(typeof held)[0]]
  const take = async () => {
    const socket = createSocket('udp4')
    socket.bind(20_443, address)
    try {
      await once(socket, 'listening')
      return 'taken'
    } catch (error) {
      return (error as NodeJS.ErrnoException).code
    } finally {
      socket.close()
    }
  }
  assert.is(await take(), 'EADDRINUSE')
  await release()
  assert.is(await take(), 'taken')
  for (const { release } of held.slice(1)) await release()
})

test.run()
