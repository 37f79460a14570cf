// cloudflare_dns_record
import { resourceFor } from '../resource.ts'
import { call, type RestOptions, unlessGone } from '../rest.ts'
import {
  type Attribute,
  bool,
  computed,
  type Fields,
  number,
  optional,
  optionalComputed,
  type Row,
  required,
  setOf,
  string,
  type Type,
} from '../schema.ts'
import { equal, isObject, isZero, UNKNOWN, Unknown, type Value, type Values } from '../values.ts'

export type Client = RestOptions

/** An attribute that is an object with attributes of its own. */
const nested = (fields: Fields, computed: boolean): Attribute<Values, false> => ({
  kind: 'attribute',
  type: undefined,
  nested: fields,
  required: false,
  optional: true,
  computed,
})

const optionals = <T>(type: Type<T>, names: string): Fields =>
  Object.fromEntries(names.split(' ').map((name) => [name, optional(type)]))

const SETTINGS = ['ipv4_only', 'ipv6_only', 'flatten_cname']
const dynamic: Type<unknown> = { notation: 'dynamic' }

const fields = {
  id: computed(string),
  zone_id: required(string, { replace: true }),
  name: required(string),
  type: required(string, { replace: true }),
  ttl: required(number),
  content: optionalComputed(string),
  proxied: optionalComputed(bool),
  priority: optional(number),
  comment: optional(string),
  tags: optionalComputed(setOf(string)),
  private_routing: optional(bool),
  settings: nested(Object.fromEntries(SETTINGS.map((name) => [name, optionalComputed(bool)])), true),
  data: nested(
    {
      flags: optional(dynamic),
      ...optionals(
        number,
        'algorithm altitude digest_type key_tag lat_degrees lat_minutes lat_seconds long_degrees long_minutes ' +
          'long_seconds matching_type order port precision_horz precision_vert preference priority protocol ' +
          'selector size type usage weight',
      ),
      ...optionals(
        string,
        'certificate digest fingerprint lat_direction long_direction public_key regex replacement service tag ' +
          'target value',
      ),
    },
    false,
  ),
  created_on: computed(string),
  modified_on: computed(string),
  comment_modified_on: computed(string),
  tags_modified_on: computed(string),
  proxiable: computed(bool),
  meta: computed(string),
}

type DnsRecord = {
  id: string
  name: string
  type: string
  content: string
  ttl: number
  proxied: boolean
  proxiable: boolean
  priority?: number | null
  comment: string | null
  tags: string[]
  settings: Values
  meta: Values
  created_on: string
  modified_on: string
  comment_modified_on?: string
  tags_modified_on?: string
}

/** Settings are a CNAME's: there, what the API leaves out is off. */
function settingsOf(type: Value | undefined, settings: Value | undefined): Values {
  const unset = type === 'CNAME' ? false : null
  return Object.fromEntries(SETTINGS.map((name) => [name, (isObject(settings) ? settings[name] : null) ?? unset]))
}

/** The real provider keeps times to the second. */
const seconds = (time: string) => time.replace(/\.\d+/, '')

const row = (record: DnsRecord) => ({
  id: record.id,
  name: record.name,
  type: record.type,
  content: record.content,
  ttl: record.ttl,
  proxied: record.proxied,
  proxiable: record.proxiable,
  priority: record.priority ?? null,
  tags: record.tags,
  comment: record.comment,
  settings: settingsOf(record.type, record.settings),
  meta: JSON.stringify(record.meta),
  created_on: seconds(record.created_on),
  modified_on: seconds(record.modified_on),
  comment_modified_on: record.comment_modified_on ? seconds(record.comment_modified_on) : null,
  tags_modified_on: record.tags_modified_on ? seconds(record.tags_modified_on) : null,
})

const ask = async (client: Client, method: string, path: string, body?: unknown) =>
  row(((await call(client, method, path, body)) as { result: DnsRecord }).result)

/** A value of no fixed type travels with its type before it. */
const plainFlags = (data: Values) => (Array.isArray(data.flags) ? { ...data, flags: data.flags[1] ?? null } : data)

/** What is not set stays out of the body. */
const body = ({ name, type, content, ttl, proxied, priority, comment, tags, settings, data }: Row<typeof fields>) =>
  Object.fromEntries(
    Object.entries({
      name,
      type,
      content,
      ttl,
      proxied,
      priority,
      comment,
      tags,
      settings,
      data: data && plainFlags(data),
    }).filter(([, value]) => value !== null),
  )

const isName = (value: Value): value is string => typeof value === 'string'

/** A name within the zone and the whole name mean the same. */
const sameName = (wanted: Value, prior: Value) =>
  isName(wanted) && isName(prior) && `${prior}.`.startsWith(`${wanted.replace(/\.$/, '')}.`)

const sameContent = (type: Value, wanted: Value, prior: Value) =>
  equal(wanted, prior) ||
  (type === 'CNAME' && isName(wanted) && isName(prior) && wanted.toLowerCase() === prior.toLowerCase())

/** What the provider computes from what the configuration says, and keeps while that does not change. */
function planRecord(config: Values, prior: Values | null): Values {
  const wanted = (name: string): Value => config[name] ?? null
  const before = (name: string): Value => prior?.[name] ?? null
  const proxied = wanted('proxied') ?? false
  const content =
    prior && sameContent(wanted('type'), wanted('content'), before('content')) ? before('content') : wanted('content')
  const name = prior && sameName(wanted('name'), before('name')) ? before('name') : wanted('name')
  const tags = wanted('tags') ?? (prior ? before('tags') : UNKNOWN)
  const settings =
    wanted('type') === 'CNAME'
      ? settingsOf('CNAME', wanted('settings') ?? before('settings'))
      : (wanted('settings') ?? (prior ? before('settings') : UNKNOWN))
  const planned: Values = {
    ...Object.fromEntries(Object.keys(fields).map((field) => [field, wanted(field)])),
    name,
    content: content ?? (prior ? before('content') : UNKNOWN),
    proxied,
    tags,
    settings,
    ...Object.fromEntries(
      ['id', 'created_on', 'proxiable', 'meta'].map((field) => [field, prior ? before(field) : UNKNOWN]),
    ),
  }
  const changed = (field: string) =>
    !equal(planned[field], before(field)) && !(isZero(planned[field]) && isZero(before(field)))
  const said = ['name', 'type', 'content', 'ttl', 'proxied', 'priority', 'comment', 'tags', 'settings', 'data']
  const whenChanged = (field: string, because: boolean) => (prior && !because ? before(field) : UNKNOWN)
  planned.modified_on = whenChanged('modified_on', said.some(changed))
  planned.comment_modified_on = isZero(planned.comment) ? null : whenChanged('comment_modified_on', changed('comment'))
  planned.tags_modified_on =
    isZero(planned.tags) || planned.tags instanceof Unknown ? null : whenChanged('tags_modified_on', changed('tags'))
  return planned
}

export const dnsRecord = resourceFor<Client>()({
  version: 500,
  fields,
  check: ({ proxied, ttl }) =>
    proxied === true && typeof ttl === 'number' && ttl !== 1 ? ['ttl must be set to 1 when `proxied` is true'] : [],
  plan: planRecord,
  create: async (planned, client) => {
    const { name: _fullName, ...made } = await ask(
      client,
      'POST',
      `/zones/${planned.zone_id}/dns_records`,
      body(planned),
    )
    return made
  },
  read: ({ zone_id, id }, client) => unlessGone(() => ask(client, 'GET', `/zones/${zone_id}/dns_records/${id}`)),
  update: async ({ zone_id, id }, planned, client) => {
    const { name: _fullName, ...made } = await ask(client, 'PUT', `/zones/${zone_id}/dns_records/${id}`, body(planned))
    return made
  },
  async remove({ zone_id, id }, client) {
    await call(client, 'DELETE', `/zones/${zone_id}/dns_records/${id}`)
  },
  async adopt(id) {
    const [zone_id, record, ...rest] = id.split('/')
    if (!zone_id || !record || rest.length > 0)
      throw new Error(`cannot import "${id}": the id has the form zone_id/dns_record_id`)
    return { zone_id, id: record }
  },
})
