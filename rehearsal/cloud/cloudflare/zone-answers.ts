// What the zone's records answer to a question: aliases followed, wildcards applied, and nothing told from no such name.
import { isIPv4 } from 'node:net'
import type { Answer } from 'dns-packet'
import type { DnsRecord } from './dns-records.ts'
import { NAME_SERVERS } from './zones.ts'

/** Addresses by name, in lower case and without a last dot. */
export type Hosts = ReadonlyMap<string, readonly string[]>

type ZoneRecord = Pick<DnsRecord, 'name' | 'type' | 'content' | 'ttl' | 'proxied'>

/** It is looked at anew for each question, so that a change is answered with at once. */
export type Zone = {
  name: string
  records: ReadonlyMap<string, ZoneRecord>
  /** Names in the zone that are answered with these addresses, whatever records there are. */
  hosts: Hosts
  /** what a record's address is to whoever asks; as the record says, unless told */
  seen?: (address: string) => string
}

export const RCODE = { noError: 0, formatError: 1, serverFailure: 2, noSuchName: 3, notImplemented: 4, refused: 5 }

export type Reply = { rcode: number; answers: Answer[]; authorities: Answer[] }

/** Seconds that an answer is valid for: of a record whose TTL is 1, "automatic", and of hosts. */
const AUTOMATIC_TTL = 300
const HOSTS_TTL = 60

/** Of Cloudflare's published ranges 104.16.0.0/13 and 2606:4700::/32: where its proxy would listen. */
const PROXY = { A: '104.16.0.1', AAAA: '2606:4700::6810:1' } as const

/** @returns whether the name is the zone's or below it */
export const isWithin = ({ name: zone }: Pick<Zone, 'name'>, name: string) =>
  `.${name.toLowerCase()}`.endsWith(`.${zone}`)

const addressAnswer = (name: string, address: string, ttl: number): Answer => ({
  name,
  type: isIPv4(address) ? 'A' : 'AAAA',
  ttl,
  data: address,
})

/** The times are Cloudflare's. Nobody copies the zone, so its serial only has to grow. */
const startOfAuthority = ({ name }: Zone): Answer => ({
  name,
  type: 'SOA',
  ttl: 1_800,
  data: {
    mname: NAME_SERVERS[0],
    rname: 'dns.cloudflare.test',
    serial: Math.floor(Date.now() / 1_000),
    refresh: 10_000,
    retry: 2_400,
    expire: 604_800,
    minimum: 1_800,
  },
})

/** @returns the character strings of a TXT record, each of at most 255 bytes; the content may be written in quotes */
function characterStrings(content: string): Buffer[] {
  const quoted = [...content.matchAll(/"((?:[^"\\]|\\.)*)"/gs)].map(([, text = '']) => text.replace(/\\(.)/gs, '$1'))
  const texts = content.startsWith('"') && quoted.length > 0 ? quoted : [content]
  return texts.flatMap((text) => {
    const bytes = Buffer.from(text)
    return Array.from({ length: Math.max(1, Math.ceil(bytes.length / 255)) }, (_, part) =>
      bytes.subarray(part * 255, (part + 1) * 255),
    )
  })
}

/** @returns what records of one name answer; nothing for the types that are only kept */
function answersOf(name: string, records: ZoneRecord[], { seen = (address) => address }: Zone): Answer[] {
  const proxied = records.some((record) => record.proxied)
  return [
    ...(proxied ? Object.values(PROXY).map((address) => addressAnswer(name, address, AUTOMATIC_TTL)) : []),
    ...records.flatMap(({ type, content, ttl: given, proxied }): Answer[] => {
      const ttl = given === 1 ? AUTOMATIC_TTL : given
      if (proxied) return []
      if (type === 'A' || type === 'AAAA') return [addressAnswer(name, seen(content), ttl)]
      if (type === 'CNAME') return [{ name, type, ttl, data: content }]
      if (type === 'TXT') return [{ name, type, ttl, data: characterStrings(content) }]
      return []
    }),
  ]
}

const parentOf = (name: string) => name.slice(name.indexOf('.') + 1)

/** @returns every name that exists: those with records, and all between them and the zone */
function existingNames({ name: zone, records, hosts }: Zone): Set<string> {
  const names = new Set([zone])
  for (const name of [...hosts.keys(), ...[...records.values()].map((record) => record.name)])
    for (let each = name; each.endsWith(`.${zone}`) && !names.has(each); each = parentOf(each)) names.add(each)
  return names
}

/**
 * @param name as it was asked for
 * @returns all that the name has; undefined when it does not exist, nor a wildcard in its place (RFC 4592)
 */
function recordsAt(zone: Zone, name: string): Answer[] | undefined {
  const wanted = name.toLowerCase()
  const named = (owner: string) => {
    const addresses = zone.hosts.get(owner)
    if (addresses) return addresses.map((address) => addressAnswer(name, address, HOSTS_TTL))
    const own = [...zone.records.values()].filter((record) => record.name === owner)
    return answersOf(name, own, zone)
  }
  if (wanted === zone.name) {
    const servers = NAME_SERVERS.map((server): Answer => ({ name, type: 'NS', ttl: 86_400, data: server }))
    return [startOfAuthority(zone), ...servers, ...named(wanted).filter(({ type }) => type !== 'CNAME')]
  }
  const names = existingNames(zone)
  if (names.has(wanted)) return named(wanted)
  let encloser = wanted
  while (!names.has(encloser)) encloser = parentOf(encloser)
  return names.has(`*.${encloser}`) ? named(`*.${encloser}`) : undefined
}

/** @returns the answer to a question about a name in the zone */
export function answerFrom(zone: Zone, { name, type }: { name: string; type: string }): Reply {
  const answers: Answer[] = []
  const followed = new Set<string>()
  for (let owner = name; isWithin(zone, owner) && !followed.has(owner.toLowerCase()); ) {
    followed.add(owner.toLowerCase())
    const records = recordsAt(zone, owner)
    if (!records) return { rcode: RCODE.noSuchName, answers, authorities: [startOfAuthority(zone)] }
    const alias = records.find((record) => record.type === 'CNAME')
    if (alias?.type !== 'CNAME' || type === 'CNAME' || type === 'ANY') {
      // As Cloudflare answers ANY (RFC 8482): nobody needs everything at once.
      const any: Answer = { name: owner, type: 'HINFO', ttl: 3_789, data: { cpu: 'RFC8482', os: '' } }
      const found = type === 'ANY' ? [any] : records.filter((record) => record.type === type)
      const authorities = found.length === 0 ? [startOfAuthority(zone)] : []
      return { rcode: RCODE.noError, answers: [...answers, ...found], authorities }
    }
    answers.push(alias)
    owner = alias.data
  }
  // The rest of the chain is another zone's to tell, or it has none.
  return { rcode: RCODE.noError, answers, authorities: [] }
}
