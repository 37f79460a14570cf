// The monthly bill: each line, the sum that the user's table comes to, and the refusal of what has no price.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { billLines, monthlyCost, type Resource, total } from '../lib/cost.ts'

const droplets = { 's-1vcpu-1gb': 6, 's-2vcpu-4gb': 24 }
const cluster = (ha: boolean, node_count = 2): Resource => ({
  address: 'digitalocean_kubernetes_cluster.main',
  type: 'digitalocean_kubernetes_cluster',
  values: { ha, node_pool: [{ size: 's-2vcpu-4gb', node_count }] },
})
const database = (name: string, engine: string, size = 'db-s-1vcpu-1gb', node_count = 1): Resource => ({
  address: `digitalocean_database_cluster.${name}`,
  type: 'digitalocean_database_cluster',
  values: { engine, size, node_count },
})
const other = (type: string): Resource => ({ address: `${type}.x`, type, values: {} })
const platform = [
  cluster(false),
  database('postgres', 'pg'),
  database('valkey', 'valkey'),
  database('gitea', 'pg'),
  { address: 'digitalocean_droplet.gitea', type: 'digitalocean_droplet', values: { size: 's-1vcpu-1gb' } },
  other('digitalocean_spaces_bucket'),
  other('digitalocean_spaces_bucket'),
  other('digitalocean_spaces_bucket'),
  other('digitalocean_vpc'),
  other('cloudflare_dns_record'),
]

test('the whole platform: nodes 48, databases 3 × 15, droplet 6, Spaces 5 once, load balancer 12', () => {
  assert.is(total(monthlyCost(platform, droplets)), 48 + 45 + 6 + 5 + 12)
})

test('a highly available control plane, more nodes and standby nodes cost what they cost', () => {
  assert.is(total(monthlyCost([cluster(true, 3)], droplets)), 40 + 72 + 12)
  assert.is(total(monthlyCost([database('a', 'pg', 'db-s-2vcpu-4gb', 2)], droplets)), 120)
})

test('nothing costs nothing', () => assert.is(total(monthlyCost([], droplets)), 0))

test('a size or a resource without a price is refused by name', () => {
  assert.throws(
    () => monthlyCost([database('a', 'pg', 'db-s-99vcpu')], droplets),
    /no price is known for the size db-s-99vcpu of digitalocean_database_cluster.a/,
  )
  assert.throws(() => monthlyCost([cluster(false)], {}), /s-2vcpu-4gb/)
  assert.throws(
    () => monthlyCost([other('digitalocean_loadbalancer')], droplets),
    /no price is known for digitalocean_loadbalancer.x/,
  )
})

test('the bill ends with its sum, the date of the prices, and the budget', () => {
  assert.match(
    billLines(monthlyCost(platform, droplets), 130).at(-1)!,
    /^together \$116 a month \(prices of \d{4}-\d\d-\d\d\), budget \$130$/,
  )
})

test.run()
