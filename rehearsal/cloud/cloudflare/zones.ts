// The account's one zone, and what its token may do.
import { type Route, route } from '../http.ts'
import { page, refuse, success } from './api.ts'
import type { DnsRecord } from './dns-records.ts'

export type CloudflareAccount = {
  token: string
  tokenId: string
  zone: { id: string; name: string; created_on: string }
  records: Map<string, DnsRecord>
}

/** Names that lead nowhere: what answers for the zone is found by its address. */
export const NAME_SERVERS = ['ada.ns.cloudflare.test', 'bob.ns.cloudflare.test'] as const

/** Refuses, as Cloudflare does, to tell a zone that does not exist from one that the token may not touch. */
export function checkZone({ zone }: CloudflareAccount, id: string): void {
  if (!/^[0-9a-f]{32}$/.test(id))
    throw refuse(404, 7003, `Could not route to /zones/${id}, perhaps your object identifier is invalid?`)
  if (id !== zone.id) throw refuse(403, 10000, 'Authentication error')
}

const body = ({ zone }: CloudflareAccount) => ({
  id: zone.id,
  name: zone.name,
  status: 'active',
  paused: false,
  type: 'full',
  development_mode: 0,
  name_servers: NAME_SERVERS,
  original_name_servers: null,
  original_registrar: null,
  original_dnshost: null,
  created_on: zone.created_on,
  modified_on: zone.created_on,
  activated_on: zone.created_on,
  account: { id: '0'.repeat(32), name: 'Rehearsal' },
  owner: { id: null, type: 'user', email: null },
  permissions: ['#dns_records:edit', '#dns_records:read', '#zone:read'],
  plan: { id: '0feeeeeeeeeeeeeeeeeeeeeeeeeeeeee', name: 'Free Website', price: 0, currency: 'USD' },
  meta: { step: 2, custom_certificate_quota: 0, page_rule_quota: 3, phishing_detected: false },
})

export const zoneRoutes = (account: CloudflareAccount): Route[] => [
  route('GET', '/client/v4/user/tokens/verify', () =>
    success(
      { id: account.tokenId, status: 'active' },
      {
        messages: [{ code: 10000, message: 'This API Token is valid and active', type: null }],
      },
    ),
  ),
  route('GET', '/client/v4/zones', (request) => {
    const name = request.query.get('name')
    return page(name === null || name === account.zone.name ? [body(account)] : [], request, 50, 20)
  }),
  route('GET', '/client/v4/zones/:zone', (_request, { zone }) => {
    if (/^[0-9a-f]{32}$/.test(zone) && zone !== account.zone.id)
      throw refuse(403, 9109, 'Unauthorized to access requested resource')
    checkZone(account, zone)
    return success(body(account))
  }),
]
