// What is there although Terraform's state does not have it: made by a Terraform that was ended by force, that gave up
// waiting (DigitalOcean's provider then forgets the database or cluster it asked for), or by a person before.
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import type { Work } from './converge.ts'
import { Failure } from './failure.ts'
import { askCloudflare, askDigitalocean, type Providers, unlessMissing } from './provider-api.ts'
import type { Run } from './run.ts'
import { giteaDroplet } from './site.ts'
import { bucketExists } from './spaces.ts'

type Values = Record<string, unknown>
/** @returns the id by which Terraform imports what answers to these values; undefined when there is none */
type Finder = (run: Run, wanted: Values, work: Work) => Promise<string | undefined>

const PAGE = 200
/** Seconds between two looks at what DigitalOcean is still making, which takes it minutes. */
const PAUSE = 2
/** Seconds until it counts as stuck: a cluster takes six minutes at the most. */
const PATIENCE = 1200

const text = (values: Values, name: string): string => (typeof values[name] === 'string' ? values[name] : '')

const idSchema = z.union([z.string(), z.number()]).transform(String)

/** All pages of one of DigitalOcean's listings. */
async function list(providers: Providers, path: string, key: string): Promise<Values[]> {
  const page = z.object({ [key]: z.array(z.record(z.string(), z.unknown())).nullish() })
  const found: Values[] = []
  for (let number = 1; ; number++) {
    const answer = page.parse(await askDigitalocean(providers, `${path}?per_page=${PAGE}&page=${number}`))
    const entries = answer[key] ?? []
    found.push(...entries)
    if (entries.length < PAGE) return found
  }
}

/**
 * The one of that name that carries the tags it would be made with.
 *
 * @param isReady false while it is being made; then it is waited for, since what belongs to it cannot be made before
 */
function listed(path: string, key: string, isReady: (found: Values) => boolean = () => true): Finder {
  const tags = z.array(z.string()).catch([])
  return async (run, wanted, work) => {
    const look = async () =>
      (await list(run, path, key)).filter(
        ({ name, tags: carried }) =>
          name === wanted.name && tags.parse(wanted.tags).every((tag) => tags.parse(carried).includes(tag)),
      )
    let same = await look()
    const end = performance.now() + PATIENCE * 1000
    while (!run.plan && same.length === 1 && !isReady(same[0]!) && performance.now() < end) {
      work.waitingFor(`DigitalOcean, which is still making ${text(wanted, 'name')} for an earlier run`)
      await sleep(PAUSE * 1000, undefined, { signal: work.signal })
      same = await look()
    }
    if (same.length > 1)
      throw new Failure({
        found: `${same.length} of DigitalOcean’s ${key} are called ${text(wanted, 'name')}: ${same.map(({ id }) => id).join(', ')}`,
        expected: 'one at the most',
        next: 'remove all but the one to keep in DigitalOcean’s control panel',
      })
    return same[0] && idSchema.parse(same[0].id)
  }
}

/** An account holds a key once, whatever it is called; its comment cannot be changed afterwards. */
const sshKey: Finder = async (run, wanted) => {
  const body = (key: string) => key.split(' ').slice(0, 2).join(' ')
  const key = text(wanted, 'public_key').trim()
  const same = (await list(run, '/v2/account/keys', 'ssh_keys')).find(
    (one) => body(text(one, 'public_key')) === body(key),
  )
  if (!same) return undefined
  if (text(same, 'public_key').trim() !== key)
    throw new Failure({
      found: `DigitalOcean has the SSH key of ${text(wanted, 'name')} already, with another comment`,
      expected: 'the same line in the site file',
      next: `put it there under operator_ssh_keys: ${text(same, 'public_key').trim()}`,
    })
  return idSchema.parse(same.id)
}

/** A database or user of a managed cluster, once the cluster itself is known. */
const inCluster =
  (kind: 'dbs' | 'users'): Finder =>
  async (run, wanted) => {
    const [cluster, name] = [text(wanted, 'cluster_id'), text(wanted, 'name')]
    if (!cluster) return undefined
    const answer = await askDigitalocean(run, `/v2/databases/${cluster}/${kind}/${name}`).catch(unlessMissing)
    return answer === undefined ? undefined : `${cluster},${name}`
  }

const recordsSchema = z.object({
  result: z.array(z.object({ id: z.string(), type: z.string(), content: z.string() })),
})

async function addressRecords(run: Run, name: string) {
  const path = `/zones/${run.site.cloudflare_zone_id}/dns_records?name=${name}`
  const { result } = recordsSchema.parse(await askCloudflare(run, path))
  return result.filter(({ type }) => /^(A|AAAA|CNAME)$/.test(type))
}

const dnsRecord: Finder = async (run, wanted) => {
  const records = await addressRecords(run, text(wanted, 'name'))
  const same = records.find(({ type, content }) => type === wanted.type && content === wanted.content)
  return same && `${run.site.cloudflare_zone_id}/${same.id}`
}

const reservedSchema = z.looseObject({
  ip: z.string(),
  region: z.looseObject({ slug: z.string() }),
  droplet: z.looseObject({ name: z.string() }).nullish(),
})

/** Names that point to Gitea's droplet, as terraform/dns.tf has them. */
const GITEA_NAMES = ['git', 'git-ssh', 'registry']

/** It has no name. Ours is the one that the droplet has, or that DNS says is Gitea's. */
const reservedIp: Finder = async (run, wanted) => {
  const [listed, ...records] = await Promise.all([
    list(run, '/v2/reserved_ips', 'reserved_ips'),
    ...GITEA_NAMES.map((name) => addressRecords(run, `${name}.${run.site.domain}`)),
  ])
  const addresses = listed.map((one) => reservedSchema.parse(one))
  const named = records.flat().map(({ content }) => content)
  const found = addresses.find(({ ip, droplet }) => droplet?.name === giteaDroplet(run.site) || named.includes(ip))
  const idle = addresses.find(({ droplet, region }) => !droplet && region.slug === wanted.region)
  if (!found && idle)
    run.emit({
      event: 'warning',
      text: `the reserved IP ${idle.ip} in ${idle.region.slug} is assigned to nothing, and costs $5 a month: remove it if nobody needs it`,
    })
  return found?.ip
}

const reservedIpAssignment: Finder = async (run, wanted) => {
  const [ip, droplet] = [text(wanted, 'ip_address'), Number(wanted.droplet_id)]
  const assigned = z.object({ reserved_ip: z.object({ droplet: z.object({ id: z.number() }).nullish() }) })
  if (!ip || !droplet) return undefined
  const { reserved_ip } = assigned.parse(await askDigitalocean(run, `/v2/reserved_ips/${ip}`))
  return reserved_ip.droplet?.id === droplet ? `${ip},${droplet}` : undefined
}

const bucket: Finder = async (run, wanted) =>
  (await bucketExists(await run.spaces(), text(wanted, 'name')))
    ? `${text(wanted, 'region')},${text(wanted, 'name')}`
    : undefined

/** What can be found again, by its type. Of anything else, making it twice does no harm. */
const FINDERS: Record<string, Finder> = {
  cloudflare_dns_record: dnsRecord,
  digitalocean_database_cluster: listed('/v2/databases', 'databases', ({ status }) => status === 'online'),
  digitalocean_database_db: inCluster('dbs'),
  digitalocean_database_user: inCluster('users'),
  digitalocean_droplet: listed('/v2/droplets', 'droplets', ({ status }) => status === 'active'),
  digitalocean_firewall: listed('/v2/firewalls', 'firewalls'),
  digitalocean_kubernetes_cluster: listed(
    '/v2/kubernetes/clusters',
    'kubernetes_clusters',
    ({ status }) => z.object({ state: z.string() }).safeParse(status).data?.state === 'running',
  ),
  digitalocean_reserved_ip: reservedIp,
  digitalocean_reserved_ip_assignment: reservedIpAssignment,
  digitalocean_spaces_bucket: bucket,
  digitalocean_ssh_key: sshKey,
  digitalocean_vpc: listed('/v2/vpcs', 'vpcs'),
}

/** What a plan would create: the resource's address, and the values it would have. */
export type Creation = { address: string; wanted: Values }

const typeOf = ({ address }: Creation) => address.split('.')[0] ?? ''

/** Throws a Failure for a name that is in DNS already: what it says is somebody's, and not for a runbook to take. */
export async function requireFreeNames(run: Run, creations: readonly Creation[]): Promise<void> {
  const records = creations.filter((creation) => typeOf(creation) === 'cloudflare_dns_record')
  await Promise.all(
    records.map(async ({ wanted }) => {
      const [name, content] = [text(wanted, 'name'), text(wanted, 'content')]
      const [other] = await addressRecords(run, name)
      if (other)
        throw new Failure({
          found: `${name} is in DNS already, as ${other.type} ${other.content}`,
          expected: `no such record${content ? `, or ${text(wanted, 'type')} ${content}` : ''}`,
          next: 'remove it at Cloudflare, if nobody needs it',
        })
    }),
  )
}

/**
 * @returns those that are there already: the id for Terraform's import, by address
 */
export async function alreadyMade(run: Run, creations: readonly Creation[], work: Work): Promise<Map<string, string>> {
  const found = await Promise.all(
    creations.map(
      async (creation): Promise<[string, string | undefined]> => [
        creation.address,
        await FINDERS[typeOf(creation)]?.(run, creation.wanted, work),
      ],
    ),
  )
  return new Map(found.filter((entry): entry is [string, string] => entry[1] !== undefined))
}
