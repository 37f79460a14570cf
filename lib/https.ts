// Asks a host of the zone over HTTPS, at the address that the zone's own name servers give.
import { Resolver } from 'node:dns/promises'
import { request } from 'node:https'
import type { LookupFunction } from 'node:net'
import { nameServers } from './provider-api.ts'
import type { Run } from './run.ts'

/** Seconds that one request may take. */
const PATIENCE = 10
/** Characters of an answer: what is asked here is answered in a few lines. */
const LONGEST = 100_000

/**
 * The zone's own servers, unless the site names others: what was asked before a record was made is answered "there is no
 * such name" by all others for half an hour.
 */
export async function openResolver(run: Run): Promise<Resolver> {
  const resolver = new Resolver({ timeout: 3000, tries: 3 })
  if (run.site.dns_servers) {
    resolver.setServers(run.site.dns_servers)
    return resolver
  }
  const names = await nameServers(run, run.site.cloudflare_zone_id)
  const addresses = await Promise.all(names.map((name) => resolver.resolve4(name).catch(() => [])))
  resolver.setServers(addresses.flat())
  return resolver
}

export type Response = { status: number; body: string }

/**
 * @param address where the host is
 * @returns what it answers; rejects with the reason where it does not
 */
export function requestAt(
  address: string,
  wanted: {
    host: string
    path: string
    method?: string
    headers?: Record<string, string>
    body?: string | undefined
    signal: AbortSignal
  },
): Promise<Response> {
  const { body: given, ...options } = wanted
  const lookup: LookupFunction = (_name, { all }, callback) =>
    all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)
  return new Promise((resolve, reject) => {
    const asked = request({ ...options, lookup, timeout: PATIENCE * 1000, agent: false })
    asked.once('timeout', () => asked.destroy(new Error(`no answer within ${PATIENCE} s`)))
    asked.once('error', reject)
    asked.once('response', (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
        if (body.length > LONGEST) response.destroy(new Error('a long answer'))
      })
      response.once('error', reject)
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body }))
    })
    asked.end(given)
  })
}
