// DigitalOcean's API: who may call it, how it pages, what it refuses and in which words.
import { generateKeyPairSync } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Answer, cloudFor, control, digitalocean, until } from './cloud.ts'

const test = suite('DigitalOcean API')
const subject = cloudFor(test)
const api = (method: string, path: string, body?: unknown) => digitalocean(subject, method, path, body)

/** A new public key as OpenSSH writes it. */
function publicKey(): string {
  const { x = '' } = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
  const part = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes])
  const raw = Buffer.concat([part(Buffer.from('ssh-ed25519')), part(Buffer.from(x, 'base64url'))])
  return `ssh-ed25519 ${raw.toString('base64')} somebody`
}

const refused = ({ status, body }: Answer, expectedStatus: number, id: string, message: RegExp) => {
  assert.is(status, expectedStatus, JSON.stringify(body))
  assert.is(body.id, id)
  assert.match(body.message, message)
  assert.match(body.request_id, /^[0-9a-f-]{36}$/)
}

const droplet = (more = {}) => ({
  name: 'web',
  region: 'nyc3',
  size: 's-1vcpu-1gb',
  image: 'ubuntu-24-04-x64',
  ...more,
})
const cluster = (more = {}) => ({
  name: 'apps',
  region: 'nyc3',
  version: '1.34.6-do.0',
  ha: false,
  node_pools: [{ name: 'workers', size: 's-2vcpu-4gb', count: 2, tags: ['terraform:default-node-pool'] }],
  ...more,
})

const active = (id: number) =>
  until(
    () => api('GET', `/droplets/${id}`),
    ({ body }) => body.droplet.status === 'active',
  )

test('a wrong token, or none, is refused', async () => {
  for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: subject.cloud.digitalocean.token }]) {
    const response = await fetch(`${subject.cloud.digitalocean.url}/v2/account`, { headers })
    assert.is(response.status, 401)
    const body = (await response.json()) as { id: string; message: string }
    assert.is(body.id, 'unauthorized')
    assert.is(body.message, 'Unable to authenticate you')
  }
})

test('account, balance, and the rate limit in the headers', async () => {
  const { body, headers } = await api('GET', '/account')
  assert.is(body.account.status, 'active')
  assert.is(body.account.droplet_limit, 10)
  assert.is(headers.get('ratelimit-limit'), '5000')
  const left = Number(headers.get('ratelimit-remaining'))
  assert.is(Number((await api('GET', '/customers/my/balance')).headers.get('ratelimit-remaining')), left - 1)
  assert.is((await api('GET', '/customers/my/balance')).body.month_to_date_usage, '0.00')
})

test('sizes have prices and regions', async () => {
  const { body } = await api('GET', '/sizes?per_page=200')
  const prices = Object.fromEntries(
    body.sizes.map((size: { slug: string; price_monthly: number }) => [size.slug, size.price_monthly]),
  )
  assert.is(prices['s-1vcpu-1gb'], 6)
  assert.is(prices['s-1vcpu-2gb'], 12)
  assert.is(prices['s-2vcpu-2gb'], 18)
  assert.is(prices['s-2vcpu-4gb'], 24)
  assert.is(prices['s-4vcpu-8gb'], 48)
  assert.ok(body.sizes.every((size: { regions: string[] }) => size.regions.includes('nyc3')))
})

test('a listing comes in pages, and the last page says so', async () => {
  const first = (await api('GET', '/regions?per_page=5')).body
  assert.is(first.regions.length, 5)
  assert.ok(first.meta.total > 10)
  assert.not(first.links.pages.prev)
  const slugs: string[] = []
  let next: string | undefined = `${subject.cloud.digitalocean.url}/v2/regions?per_page=5`
  let last: { links: { pages: { last?: string; next?: string } } } | undefined
  while (next) {
    const response = await fetch(next, { headers: { authorization: `Bearer ${subject.cloud.digitalocean.token}` } })
    const page = (await response.json()) as { regions: { slug: string }[]; links: { pages: { next?: string } } }
    slugs.push(...page.regions.map(({ slug }) => slug))
    next = page.links.pages.next
    last = page
  }
  assert.is(new Set(slugs).size, first.meta.total)
  assert.not(last?.links.pages.last)
  assert.equal((await api('GET', '/regions?per_page=200')).body.links, {})
})

test('what does not exist is 404, what is no JSON is 400', async () => {
  const paths = ['/vpcs/x', '/droplets/1', '/firewalls/x', '/databases/x', '/kubernetes/clusters/x', '/projects/x']
  for (const path of [...paths, '/reserved_ips/1.2.3.4', '/account/keys/1', '/tags/x', '/actions/1', '/nothing'])
    refused(await api('GET', path), 404, 'not_found', /could not be found/)
  const response = await fetch(`${subject.cloud.digitalocean.url}/v2/vpcs`, {
    method: 'POST',
    headers: { authorization: `Bearer ${subject.cloud.digitalocean.token}` },
    body: '{',
  })
  assert.is(response.status, 400)
})

test('an SSH key once, found by id and by fingerprint', async () => {
  const public_key = publicKey()
  const created = await api('POST', '/account/keys', { name: 'ryan', public_key })
  assert.is(created.status, 201)
  const { id, fingerprint } = created.body.ssh_key
  assert.match(fingerprint, /^([0-9a-f]{2}:){15}[0-9a-f]{2}$/)
  refused(
    await api('POST', '/account/keys', { name: 'again', public_key }),
    422,
    'unprocessable_entity',
    /already in use/,
  )
  refused(
    await api('POST', '/account/keys', { name: 'x', public_key: 'ssh-rsa AAAA' }),
    422,
    'unprocessable_entity',
    /invalid/,
  )
  for (const key of [id, fingerprint]) assert.is((await api('GET', `/account/keys/${key}`)).body.ssh_key.name, 'ryan')
  await api('PUT', `/account/keys/${id}`, { name: 'ryan2' })
  assert.is((await api('GET', `/account/keys/${id}`)).body.ssh_key.name, 'ryan2')
  assert.is((await api('DELETE', `/account/keys/${id}`)).status, 204)
  assert.is((await api('GET', `/account/keys/${id}`)).status, 404)
})

test('a network: one name, no overlap, not deleted while something is in it', async () => {
  const wanted = { name: 'one', region: 'nyc3', ip_range: '10.120.0.0/20' }
  const { vpc } = (await api('POST', '/vpcs', wanted)).body
  assert.is(vpc.urn, `do:vpc:${vpc.id}`)
  refused(await api('POST', '/vpcs', { ...wanted, ip_range: '' }), 422, 'unprocessable_entity', /name already exists/)
  const overlapping = { ...wanted, name: 'two', ip_range: '10.120.8.0/24' }
  refused(await api('POST', '/vpcs', overlapping), 422, 'unprocessable_entity', /overlaps/)
  refused(
    await api('POST', '/vpcs', { ...wanted, name: 'three', ip_range: '10.1.0.0/8' }),
    422,
    'unprocessable_entity',
    /range/,
  )
  refused(
    await api('POST', '/vpcs', { ...wanted, name: 'four', region: 'mars1' }),
    422,
    'unprocessable_entity',
    /Region/,
  )
  refused(await api('POST', '/vpcs', { region: 'nyc3' }), 422, 'unprocessable_entity', /^name/)

  const { droplet: member } = (await api('POST', '/droplets', droplet({ vpc_uuid: vpc.id }))).body
  const members = (await api('GET', `/vpcs/${vpc.id}/members`)).body.members
  assert.equal(members, [{ urn: `do:droplet:${member.id}` }])
  refused(await api('DELETE', `/vpcs/${vpc.id}`), 409, 'conflict', /with members/)
  const address = member.networks.v4.find((network: { type: string }) => network.type === 'private').ip_address
  assert.match(address, /^10\.120\.(\d|1[0-5])\./)
  await api('DELETE', `/droplets/${member.id}`)
  assert.is((await api('DELETE', `/vpcs/${vpc.id}`)).status, 204)
})

test('a droplet is new, then active; unknown slugs are refused', async () => {
  const created = await api('POST', '/droplets', droplet({ tags: ['lunar'], monitoring: true }))
  assert.is(created.status, 202)
  const { id, status, features } = created.body.droplet
  assert.is(status, 'new')
  assert.ok(features.includes('monitoring'))
  await active(id)
  const action = created.body.links.actions[0].id
  assert.is((await api('GET', `/actions/${action}`)).body.action.status, 'completed')
  assert.is((await api('GET', '/droplets?tag_name=lunar')).body.meta.total, 1)
  assert.is((await api('GET', '/droplets?tag_name=other')).body.meta.total, 0)
  for (const [field, value] of Object.entries({
    size: 's-9',
    region: 'mars1',
    image: 'windows',
    name: 'a b',
    vpc_uuid: 'x',
  }))
    assert.is((await api('POST', '/droplets', droplet({ [field]: value }))).status, 422, field)
  refused(await api('POST', '/droplets', droplet({ ssh_keys: ['12:34'] })), 422, 'unprocessable_entity', /invalid key/)
  await api('DELETE', `/droplets/${id}`)
  assert.is((await api('GET', `/droplets/${id}`)).status, 404)
})

test('a droplet is resized only while it is off, and renamed', async () => {
  const { id } = (await api('POST', '/droplets', droplet())).body.droplet
  await active(id)
  const act = async (action: Record<string, unknown>) => {
    const started = await api('POST', `/droplets/${id}/actions`, action)
    if (started.status !== 201) return started
    return until(
      () => api('GET', `/actions/${started.body.action.id}`),
      ({ body }) => body.action.status === 'completed',
    )
  }
  refused(await act({ type: 'resize', size: 's-2vcpu-2gb' }), 422, 'unprocessable_entity', /powered off/)
  await act({ type: 'power_off' })
  assert.is((await api('GET', `/droplets/${id}`)).body.droplet.status, 'off')
  await act({ type: 'resize', size: 's-2vcpu-2gb' })
  await act({ type: 'power_on' })
  await act({ type: 'rename', name: 'renamed' })
  const { droplet: changed } = (await api('GET', `/droplets/${id}`)).body
  assert.equal([changed.status, changed.size_slug, changed.name], ['active', 's-2vcpu-2gb', 'renamed'])
  refused(await act({ type: 'dance' }), 422, 'unprocessable_entity', /not a valid action/)
  await api('DELETE', `/droplets/${id}`)
})

test('a reserved address is assigned, listed with its droplet, and survives it', async () => {
  const { id } = (await api('POST', '/droplets', droplet())).body.droplet
  await active(id)
  const created = await api('POST', '/reserved_ips', { region: 'nyc3' })
  assert.is(created.status, 202)
  const { ip } = created.body.reserved_ip
  refused(
    await api('POST', `/reserved_ips/${ip}/actions`, { type: 'unassign' }),
    422,
    'unprocessable_entity',
    /not assigned/,
  )
  const { action } = (await api('POST', `/reserved_ips/${ip}/actions`, { type: 'assign', droplet_id: id })).body
  assert.is(action.status, 'in-progress')
  await until(
    () => api('GET', `/reserved_ips/${ip}/actions/${action.id}`),
    ({ body }) => body.action.status === 'completed',
  )
  const [listed] = (await api('GET', '/reserved_ips')).body.reserved_ips
  assert.equal([listed.ip, listed.droplet.id], [ip, id])
  await api('DELETE', `/droplets/${id}`)
  assert.is((await api('GET', `/reserved_ips/${ip}`)).body.reserved_ip.droplet, null)
  assert.is((await api('DELETE', `/reserved_ips/${ip}`)).status, 204)
})

test('a firewall: at least one rule, ports as the API says them, one of a name', async () => {
  const wanted = {
    name: 'gitea',
    inbound_rules: [{ protocol: 'tcp', ports: '22', sources: { addresses: ['0.0.0.0/0'], droplet_ids: [] } }],
    outbound_rules: [
      { protocol: 'tcp', ports: 'all', destinations: { addresses: ['::/0'] } },
      { protocol: 'icmp', ports: '', destinations: { addresses: ['::/0'] } },
    ],
  }
  const created = await api('POST', '/firewalls', wanted)
  assert.is(created.status, 202)
  const { firewall } = created.body
  assert.equal(
    firewall.outbound_rules.map((rule: { ports: string }) => rule.ports),
    ['0', '0'],
  )
  assert.equal(firewall.inbound_rules[0].sources, { addresses: ['0.0.0.0/0'] })
  refused(await api('POST', '/firewalls', wanted), 409, 'conflict', /duplicate name/)
  refused(await api('POST', '/firewalls', { name: 'empty' }), 422, 'unprocessable_entity', /at least one rule/)
  const noPort = { ...wanted, name: 'x', inbound_rules: [{ protocol: 'tcp', ports: '', sources: {} }] }
  refused(await api('POST', '/firewalls', noPort), 422, 'unprocessable_entity', /port range/)
  const changed = await api('PUT', `/firewalls/${firewall.id}`, { ...wanted, outbound_rules: [] })
  assert.equal(changed.body.firewall.outbound_rules, [])
  assert.is((await api('DELETE', `/firewalls/${firewall.id}`)).status, 204)
})

test('a Kubernetes cluster: its nodes are droplets, and go with it', async () => {
  const created = await api('POST', '/kubernetes/clusters', cluster())
  assert.is(created.status, 201)
  const { id, status } = created.body.kubernetes_cluster
  assert.is(status.state, 'provisioning')
  refused(await api('POST', '/kubernetes/clusters', cluster()), 422, 'unprocessable_entity', /already exists/)
  const { body } = await until(
    () => api('GET', `/kubernetes/clusters/${id}`),
    ({ body }) => body.kubernetes_cluster.status.state === 'running',
  )
  const [pool] = body.kubernetes_cluster.node_pools
  assert.ok(pool.tags.includes('terraform:default-node-pool'))
  assert.is((await api('GET', `/droplets?tag_name=k8s:${id}`)).body.meta.total, 2)
  await api('PUT', `/kubernetes/clusters/${id}/node_pools/${pool.id}`, { name: 'workers', count: 3 })
  assert.is((await api('GET', `/droplets?tag_name=k8s:${id}`)).body.meta.total, 3)
  const credentials = (await api('GET', `/kubernetes/clusters/${id}/credentials`)).body
  assert.match(credentials.server, /^https:\/\/.*\.lunarfront\.test$/)
  assert.ok(Date.parse(credentials.expires_at) > Date.now())
  const path = `/kubernetes/clusters/${id}/destroy_with_associated_resources`
  assert.equal((await api('GET', path)).body, { load_balancers: [], volumes: [], volume_snapshots: [] })
  assert.is((await api('DELETE', `${path}/dangerous`)).status, 204)
  assert.is((await api('GET', '/droplets')).body.meta.total, 0)
})

test('high availability is on by itself from 1.36 on, and stays', async () => {
  const plain = (await api('POST', '/kubernetes/clusters', cluster({ name: 'old', ha: undefined }))).body
    .kubernetes_cluster
  assert.is(plain.ha, false)
  const wanted = cluster({ name: 'new', version: '1.36.3-do.0', ha: undefined })
  const costly = (await api('POST', '/kubernetes/clusters', wanted)).body.kubernetes_cluster
  assert.is(costly.ha, true)
  const path = `/kubernetes/clusters/${costly.id}`
  refused(await api('PUT', path, { name: 'new', ha: false }), 422, 'unprocessable_entity', /cannot be disabled/)
  for (const { id } of [plain, costly]) await api('DELETE', `/kubernetes/clusters/${id}`)
})

test('a Kubernetes cluster that cannot be leaves nothing', async () => {
  const [pool] = cluster().node_pools
  const wrong = [
    { version: '1.2.3' },
    { region: 'mars1' },
    { name: 'Bad_Name' },
    { node_pools: [] },
    { node_pools: [pool, { ...pool, size: 's-9' }] },
    { node_pools: [pool, { ...pool, count: 0 }] },
  ]
  const before = (await api('GET', '/droplets')).body.meta.total
  for (const more of wrong)
    assert.is((await api('POST', '/kubernetes/clusters', cluster(more))).status, 422, JSON.stringify(more))
  assert.is((await api('GET', '/droplets')).body.meta.total, before)
  assert.equal((await api('GET', '/kubernetes/clusters')).body.kubernetes_clusters, [])
})

test('the droplet limit counts nodes as well', async () => {
  await control(subject, 'POST', '/faults', { droplet_limit: 2 })
  assert.is((await api('GET', '/account')).body.account.droplet_limit, 2)
  const { id } = (await api('POST', '/droplets', droplet())).body.droplet
  refused(
    await api('POST', '/kubernetes/clusters', cluster()),
    422,
    'unprocessable_entity',
    /2 additional nodes but not enough available droplet limit/,
  )
  assert.is((await api('POST', '/droplets', droplet({ name: 'second' }))).status, 202)
  refused(await api('POST', '/droplets', droplet()), 422, 'unprocessable_entity', /exceed your droplet limit/)
  await control(subject, 'DELETE', '/faults')
  assert.is((await api('GET', '/account')).body.account.droplet_limit, 10)
  await api('DELETE', `/droplets/${id}`)
})

test('a project with something in it is not deleted; the default one never', async () => {
  const { id: dropletId } = (await api('POST', '/droplets', droplet())).body.droplet
  const urn = `do:droplet:${dropletId}`
  const before = (await api('GET', '/projects/default/resources?per_page=200')).body.resources
  assert.ok(before.some((resource: { urn: string }) => resource.urn === urn))
  const wanted = { name: 'Lunar', purpose: 'Web Application' }
  const { project } = (await api('POST', '/projects', wanted)).body
  refused(await api('POST', '/projects', wanted), 409, 'conflict', /unique/)
  await api('POST', `/projects/${project.id}/resources`, { resources: [urn] })
  refused(await api('DELETE', `/projects/${project.id}`), 412, 'precondition_failed', /with resources/)
  await api('POST', '/projects/default/resources', { resources: [urn] })
  assert.is((await api('DELETE', `/projects/${project.id}`)).status, 204)
  const { id } = (await api('GET', '/projects/default')).body.project
  refused(await api('DELETE', `/projects/${id}`), 412, 'precondition_failed', /default/)
})

test('tags come and go with what carries them', async () => {
  const { id } = (await api('POST', '/droplets', droplet({ tags: ['a'] }))).body.droplet
  const resources = [{ resource_id: String(id), resource_type: 'droplet' }]
  refused(await api('POST', '/tags/b/resources', { resources }), 404, 'not_found', /could not/)
  await api('POST', '/tags', { name: 'b' })
  assert.is((await api('POST', '/tags/b/resources', { resources })).status, 204)
  assert.equal((await api('GET', `/droplets/${id}`)).body.droplet.tags, ['a', 'b'])
  assert.is((await api('GET', '/tags/b')).body.tag.resources.count, 1)
  await api('DELETE', '/tags/a')
  assert.equal((await api('GET', `/droplets/${id}`)).body.droplet.tags, ['b'])
})

test('what a deleted cluster may leave behind can be looked for', async () => {
  for (const kind of ['load_balancers', 'volumes', 'snapshots'])
    assert.equal((await api('GET', `/${kind}`)).body, { [kind]: [], links: {}, meta: { total: 0 } })
})

test.run()
