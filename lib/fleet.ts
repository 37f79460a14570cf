// The fleet as a whole: what gitops/apps lists held against what the database server has.
import { namesOf } from './customers.ts'
import type { Platform } from './platform.ts'
import { databaseSummaries, withPostgres } from './postgres.ts'
import type { Site } from './site.ts'
import { tableLines } from './table.ts'

export type Member = {
  customer: string
  /** where it answers */
  url: string
  /** its pinned image tag; null: it follows the chart's */
  tag: string | null
  /** its database; null: there is none */
  database: { name: string; bytes: number; connections: number } | null
  /** false: a database without a values file, so a customer that is half removed or half added */
  listed: boolean
}

export async function fleet(platform: Platform, site: Site): Promise<Member[]> {
  const [customers, databases] = await Promise.all([
    platform.customers(),
    platform.postgres().then((server) => withPostgres(server, databaseSummaries)),
  ])
  const listed = customers.map(({ customer, subdomain, image }) => ({
    customer,
    url: `https://${subdomain}.app.${site.domain}`,
    tag: image.tag ?? null,
    database: databases.find(({ name }) => name === namesOf(customer).database) ?? null,
    listed: true,
  }))
  const unlisted = databases
    .filter(({ name }) => !customers.some(({ customer }) => namesOf(customer).database === name))
    .map((database) => ({
      customer: database.name.replace(/^customer_/, ''),
      url: '',
      tag: null,
      database,
      listed: false,
    }))
  return [...listed, ...unlisted].sort((a, b) => a.customer.localeCompare(b.customer))
}

/** @returns the fleet as a table for people */
export function fleetTable(members: readonly Member[]): string[] {
  if (members.length === 0) return ['There is no customer yet. Next: ./runbooks/add-customer.mts NAME']
  const rows = members.map(({ customer, url, tag, database, listed }) => [
    customer,
    listed ? url : 'not in gitops/apps',
    tag ?? 'chart’s',
    database ? database.name : 'missing',
    database ? `${(database.bytes / 2 ** 20).toFixed(1)} MiB` : '',
    database ? String(database.connections) : '',
  ])
  return [
    ...tableLines([['CUSTOMER', 'ADDRESS', 'IMAGE TAG', 'DATABASE', 'SIZE', 'CONNECTIONS'], ...rows]),
    `${members.length} customers`,
  ]
}
