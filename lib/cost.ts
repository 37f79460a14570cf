// What the platform costs a month, worked out from Terraform's plan and the price file.
import * as z from 'zod'
import { Failure } from './failure.ts'
import { DATABASE_NODE, HA_CONTROL_PLANE, LOAD_BALANCER, PRICES_AS_OF, SPACES } from './prices.ts'

/** A resource as `terraform show -json` has it under planned_values or prior_state. */
export type Resource = { address: string; type: string; values: Record<string, unknown> }

/** US dollars a month for one thing on the bill. */
export type CostLine = { item: string; detail: string; usd: number }

const FREE = new Set([
  'cloudflare_dns_record',
  'digitalocean_database_ca',
  'digitalocean_database_db',
  'digitalocean_database_firewall',
  'digitalocean_database_user',
  'digitalocean_firewall',
  'digitalocean_kubernetes_versions',
  'digitalocean_reserved_ip', // while it is assigned, as this one is
  'digitalocean_reserved_ip_assignment',
  'digitalocean_ssh_key',
  'digitalocean_vpc',
])

/** An imported pool has not been told how many nodes it should have, only how many it has. */
const pool = z
  .object({ size: z.string(), node_count: z.number().nullish(), actual_node_count: z.number().nullish() })
  .transform(({ size, node_count, actual_node_count }) => ({ size, count: node_count ?? actual_node_count ?? 0 }))
const cluster = z.object({ ha: z.boolean(), node_pool: z.array(pool) })
const database = z.object({ engine: z.string(), size: z.string(), node_count: z.number() })
const droplet = z.object({ size: z.string() })

/**
 * @param resources all of the platform, as the plan leaves it
 * @param droplets US dollars a month by droplet size
 * @returns the bill line by line; throws for a size or a resource that has no price, since then the sum would be wrong
 */
export function monthlyCost(resources: readonly Resource[], droplets: Record<string, number>): CostLine[] {
  const lines = resources.flatMap(({ address, type, values }): CostLine[] => {
    const priced = (table: Record<string, number>, size: string): number => {
      const price = table[size]
      if (price === undefined)
        throw new Failure({
          found: `no price is known for the size ${size} of ${address}`,
          expected: `one of ${Object.keys(table).join(', ')}`,
          next: 'choose one of these, or add it to lib/prices.ts from the provider’s price page',
        })
      return price
    }
    if (type === 'digitalocean_kubernetes_cluster') {
      const { ha, node_pool } = cluster.parse(values)
      return [
        {
          item: address,
          detail: ha ? 'highly available control plane' : 'control plane',
          usd: ha ? HA_CONTROL_PLANE : 0,
        },
        ...node_pool.map(({ size, count }) => ({
          item: address,
          detail: `${count} nodes ${size}`,
          usd: count * priced(droplets, size),
        })),
        { item: 'load balancer', detail: 'made by the ingress, not by Terraform', usd: LOAD_BALANCER },
      ]
    }
    if (type === 'digitalocean_database_cluster') {
      const { engine, size, node_count } = database.parse(values)
      return [{ item: address, detail: `${engine} ${size}`, usd: node_count * priced(DATABASE_NODE, size) }]
    }
    if (type === 'digitalocean_droplet') {
      const { size } = droplet.parse(values)
      return [{ item: address, detail: size, usd: priced(droplets, size) }]
    }
    if (type === 'digitalocean_spaces_bucket' || FREE.has(type)) return []
    throw new Failure({
      found: `no price is known for ${address}`,
      expected: 'only resources whose price is known, so that the sum can be trusted',
      next: `add ${type} to lib/cost.ts`,
    })
  })
  const buckets = resources.filter(({ type }) => type === 'digitalocean_spaces_bucket').length
  if (buckets > 0) lines.push({ item: 'Spaces', detail: `${buckets} buckets, up to 250 GiB`, usd: SPACES })
  return lines
}

export const total = (lines: readonly CostLine[]) => lines.reduce((sum, { usd }) => sum + usd, 0)

/** @returns the bill as lines for people, its sum and the budget last */
export function billLines(lines: readonly CostLine[], budget: number): string[] {
  const width = Math.max(...lines.map(({ item }) => item.length), 0)
  const detailWidth = Math.max(...lines.map(({ detail }) => detail.length), 0)
  return [
    ...lines.map(({ item, detail, usd }) => `${item.padEnd(width)}  ${detail.padEnd(detailWidth)}  $${usd}`),
    `together $${total(lines)} a month (prices of ${PRICES_AS_OF}), budget $${budget}`,
  ]
}
