// The zone's DNS records, as the API keeps and tells them. The zone's name server answers with these very ones.
import { randomBytes } from 'node:crypto'
import { isIPv4, isIPv6 } from 'node:net'
import { z } from 'zod'
import { given, type Request, type Route, route } from '../http.ts'
import { page, parseBody, refuse, success } from './api.ts'
import { type CloudflareAccount, checkZone } from './zones.ts'

const fields = z.object({
  name: z.string().min(1),
  type: z.string().min(1),
  content: z.string().optional(),
  data: z.looseObject({}).optional(),
  priority: z.number().nullish(),
  proxied: z.boolean().optional(),
  ttl: z.number().int().optional(),
  comment: z.string().nullish(),
  tags: z.array(z.string()).optional(),
  settings: z.record(z.string(), z.boolean().nullish()).optional(),
  private_routing: z.boolean().optional(),
})

export type DnsRecord = z.infer<typeof fields> & {
  id: string
  content: string
  proxied: boolean
  proxiable: boolean
  ttl: number
  comment: string | null
  tags: string[]
  settings: Record<string, boolean | null | undefined>
  meta: Record<string, unknown>
  created_on: string
  modified_on: string
  comment_modified_on?: string
  tags_modified_on?: string
}

const PROXIABLE = ['A', 'AAAA', 'CNAME']
const micros = () => new Date().toISOString().replace(/(\.\d+)Z$/, '$1000Z')

/** The name as Cloudflare keeps it: whole, lower-case, without the last dot. */
function fullName(zone: string, name: string): string {
  const plain = name.toLowerCase().replace(/\.$/, '')
  if (plain === '@' || plain === zone) return zone
  return plain.endsWith(`.${zone}`) ? plain : `${plain}.${zone}`
}

const isHostName = (name: string) =>
  name.length <= 253 && /^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{1,63}$/i.test(name)

function check({ records }: CloudflareAccount, record: DnsRecord): void {
  if (!isHostName(record.name.replace(/^\*\./, ''))) throw refuse(400, 9000, 'DNS name is invalid.')
  if (record.type === 'A' && !isIPv4(record.content))
    throw refuse(400, 9005, 'Content for A record must be a valid IPv4 address.')
  if (record.type === 'AAAA' && (!isIPv6(record.content) || record.content.includes('%')))
    throw refuse(400, 9006, 'Content for AAAA record must be a valid IPv6 address.')
  if (record.type === 'CNAME' && !isHostName(record.content))
    throw refuse(400, 9007, 'Content for CNAME record is invalid.')
  if (record.type === 'CNAME' && record.content.toLowerCase() === record.name)
    throw refuse(400, 9039, 'CNAME content cannot reference itself.')
  if (record.ttl !== 1 && (record.ttl < 60 || record.ttl > 86_400))
    throw refuse(400, 9021, 'TTL must be between 60 and 86400 seconds, or 1 for Automatic.')
  if (record.proxied && !record.proxiable) throw refuse(400, 9004, `This record type cannot be proxied.`)
  const others = [...records.values()].filter((other) => other.id !== record.id && other.name === record.name)
  if (others.some((other) => other.type === record.type && other.content === record.content))
    throw refuse(400, 81058, 'An identical record already exists.')
  const address = (type: string) => type === 'A' || type === 'AAAA'
  if (others.some((other) => other.type === 'CNAME'))
    throw refuse(400, 81053, 'An A, AAAA, or CNAME record with that host already exists.')
  if (record.type === 'CNAME' && others.some((other) => address(other.type)))
    throw refuse(400, 81053, 'An A, AAAA, or CNAME record with that host already exists.')
}

/** @returns the record that a whole set of fields describes */
function recordOf(account: CloudflareAccount, wanted: z.infer<typeof fields>, before?: DnsRecord): DnsRecord {
  const type = wanted.type.toUpperCase()
  const proxied = wanted.proxied ?? false
  const comment = wanted.comment || null
  const tags = wanted.tags ?? []
  const time = micros()
  const record: DnsRecord = {
    ...wanted,
    id: before?.id ?? randomBytes(16).toString('hex'),
    type,
    name: fullName(account.zone.name, wanted.name),
    content: wanted.content ?? Object.values(wanted.data ?? {}).join(' '),
    proxied,
    proxiable: PROXIABLE.includes(type),
    ttl: proxied ? 1 : (wanted.ttl ?? 1),
    comment,
    tags,
    settings: wanted.settings ?? {},
    meta: {},
    created_on: before?.created_on ?? time,
    modified_on: time,
    ...(comment === null
      ? {}
      : { comment_modified_on: comment === before?.comment ? (before.comment_modified_on ?? time) : time }),
    ...(tags.length === 0
      ? {}
      : { tags_modified_on: tags.join() === before?.tags.join() ? (before.tags_modified_on ?? time) : time }),
  }
  if (record.content === '') throw refuse(400, 9101, 'content is a required field.')
  check(account, record)
  return record
}

/** The filters of a listing that runbooks and the provider use. */
function matches(record: DnsRecord, { query }: Request): boolean {
  const is = (parameter: string, value: string) => {
    const wanted = query.get(parameter)
    return wanted === null || wanted.toLowerCase() === value.toLowerCase()
  }
  const has = (parameter: string, value: string) =>
    value.toLowerCase().includes((query.get(parameter) ?? '').toLowerCase())
  return (
    is('type', record.type) &&
    is('name', record.name) &&
    is('name.exact', record.name) &&
    is('content', record.content) &&
    is('content.exact', record.content) &&
    has('name.contains', record.name) &&
    has('content.contains', record.content) &&
    is('proxied', String(record.proxied))
  )
}

export function dnsRecordRoutes(account: CloudflareAccount): Route[] {
  const { records } = account
  const record = (zone: string, id: string) => {
    checkZone(account, zone)
    const found = records.get(id)
    if (!found) throw refuse(404, 81044, 'Record does not exist.')
    return found
  }
  const keep = (changed: DnsRecord) => {
    records.set(changed.id, changed)
    return success(changed)
  }
  const all = '/client/v4/zones/:zone/dns_records'
  const one = '/client/v4/zones/:zone/dns_records/:id'
  return [
    route('GET', all, (request, { zone }) => {
      checkZone(account, zone)
      const listed = [...records.values()].filter((each) => matches(each, request))
      return page(listed, request, 5_000, 100)
    }),
    route('POST', all, (request, { zone }) => {
      checkZone(account, zone)
      return keep(recordOf(account, parseBody(fields, request)))
    }),
    route('GET', one, (_request, { zone, id }) => success(record(zone, id))),
    route('PUT', one, (request, { zone, id }) => keep(recordOf(account, parseBody(fields, request), record(zone, id)))),
    route('PATCH', one, (request, { zone, id }) => {
      const before = record(zone, id)
      return keep(recordOf(account, { ...before, ...given(parseBody(fields.partial(), request)) }, before))
    }),
    route('DELETE', one, (_request, { zone, id }) => {
      records.delete(record(zone, id).id)
      return success({ id })
    }),
  ]
}
