// digitalocean_droplet
import { createHash } from 'node:crypto'
import { ApiError, unlessGone, waitFor } from '../rest.ts'
import {
  bool,
  computed,
  listBlocks,
  number,
  optional,
  optionalComputed,
  required,
  setOf,
  string,
  timeouts,
} from '../schema.ts'
import { type Client, changeTags, lowerCase, resource } from './client.ts'

type Droplet = {
  id: number
  name: string
  memory: number
  vcpus: number
  disk: number
  locked: boolean
  status: string
  created_at: string
  features: string[]
  image: { id: number; slug: string | null }
  volume_ids: string[]
  size: { slug: string; price_hourly: number; price_monthly: number }
  networks: { v4: { ip_address: string; type: string }[]; v6: { ip_address: string; type: string }[] }
  region: { slug: string }
  tags: string[]
  vpc_uuid: string
}

// The image is left alone: a slug comes to mean another image when a new one is published.
const row = ({ id, features, networks, size, region, ...droplet }: Droplet) => {
  const address = (family: 'v4' | 'v6', type: string) =>
    networks[family].find((network) => network.type === type)?.ip_address ?? ''
  const { name, memory, vcpus, disk, locked, status, created_at, vpc_uuid, tags, volume_ids } = droplet
  return {
    id: String(id),
    name,
    memory,
    vcpus,
    disk,
    locked,
    status,
    created_at,
    vpc_uuid,
    tags,
    volume_ids,
    urn: `do:droplet:${id}`,
    region: region.slug,
    size: size.slug,
    price_hourly: size.price_hourly,
    price_monthly: size.price_monthly,
    ipv4_address: address('v4', 'public'),
    ipv4_address_private: address('v4', 'private'),
    ipv6_address: address('v6', 'public').toLowerCase(),
    public_networking: address('v4', 'public') !== '',
    private_networking: features.includes('private_networking'),
    backups: features.includes('backups'),
    monitoring: features.includes('monitoring'),
    ipv6: features.includes('ipv6'),
  }
}

const fetchDroplet = async ({ api }: Client, id: string | null) =>
  (await api<{ droplet: Droplet }>('GET', `/droplets/${id}`)).droplet

async function act(client: Client, id: string | null, action: { type: string } & Record<string, unknown>) {
  const started = await client.api<{ action: { id: number } }>('POST', `/droplets/${id}/actions`, action)
  await waitFor(
    `the action ${action.type} on droplet ${id}`,
    () => client.api<{ action: { status: string } }>('GET', `/actions/${started.action.id}`),
    ({ action }) => action.status === 'completed',
    client.stopped,
  )
}

const changedOnly = <T>(before: T, wanted: T) => (before === wanted ? undefined : wanted)

export const droplet = resource({
  version: 1,
  fields: {
    id: optionalComputed(string),
    image: required(string, { replace: true }),
    name: required(string),
    region: optionalComputed(string, { replace: true, ...lowerCase }),
    size: required(string, lowerCase),
    graceful_shutdown: optional(bool, { fallback: false }),
    created_at: computed(string),
    urn: computed(string),
    disk: computed(number),
    vcpus: computed(number),
    memory: computed(number),
    price_hourly: computed(number),
    price_monthly: computed(number),
    resize_disk: optional(bool, { fallback: true }),
    status: computed(string),
    locked: computed(bool),
    backups: optional(bool, { fallback: false }),
    backup_policy: listBlocks(
      { plan: optional(string), weekday: optional(string), hour: optional(number) },
      { max: 1 },
    ),
    ipv6: optional(bool, { fallback: false }),
    ipv6_address: optionalComputed(string),
    private_networking: optionalComputed(bool, { deprecated: true }),
    public_networking: optionalComputed(bool, { replace: true }),
    ipv4_address: computed(string),
    ipv4_address_private: computed(string),
    ssh_keys: optional(setOf(string), { replace: true }),
    user_data: optional(string, {
      replace: true,
      store: (wanted) => createHash('sha1').update(wanted).digest('hex'),
    }),
    volume_ids: optionalComputed(setOf(string)),
    monitoring: optional(bool, { replace: true, fallback: false }),
    droplet_agent: optional(bool, { replace: true }),
    tags: optional(setOf(string)),
    vpc_uuid: optionalComputed(string, { replace: true }),
    gpu_partition_mode: optional(string, { replace: true }),
    timeouts: timeouts('create', 'update', 'delete'),
  },
  replaceWhen: (planned, prior) => (prior.ipv6 === true && planned.ipv6 === false ? [['ipv6']] : []),
  async create(planned, client, keep) {
    const { name, region, size, image, backups, ipv6, monitoring, user_data, vpc_uuid } = planned
    const { droplet } = await client.api<{ droplet: Droplet }>('POST', '/droplets', {
      name,
      region,
      size,
      image,
      backups,
      ipv6,
      monitoring,
      user_data,
      vpc_uuid,
      ssh_keys: planned.ssh_keys ?? [],
      tags: planned.tags ?? [],
      with_droplet_agent: planned.droplet_agent,
    })
    keep({ id: String(droplet.id) })
    const ready = await waitFor(
      `droplet ${name}`,
      () => fetchDroplet(client, String(droplet.id)),
      ({ status }) => status === 'active',
      client.stopped,
    )
    return row(ready)
  },
  read: ({ id }, client) => unlessGone(async () => row(await fetchDroplet(client, id))),
  async update(prior, planned, client) {
    const { id } = prior
    const size = changedOnly(prior.size, planned.size)
    if (size !== undefined) {
      await act(client, id, { type: 'power_off' }).catch((error: Error) => {
        if (!error.message.includes('already powered off')) throw error
      })
      await act(client, id, { type: 'resize', size, disk: planned.resize_disk })
      await act(client, id, { type: 'power_on' })
    }
    const name = changedOnly(prior.name, planned.name)
    if (name !== undefined) await act(client, id, { type: 'rename', name })
    const backups = changedOnly(prior.backups ?? false, planned.backups ?? false)
    if (backups !== undefined) await act(client, id, { type: backups ? 'enable_backups' : 'disable_backups' })
    if (changedOnly(prior.ipv6 ?? false, planned.ipv6 ?? false)) await act(client, id, { type: 'enable_ipv6' })
    await changeTags(client, 'droplet', id ?? '', prior.tags, planned.tags)
    return row(await fetchDroplet(client, id))
  },
  async remove({ id }, client) {
    await unlessGone(() => client.api('DELETE', `/droplets/${id}`))
    await waitFor(
      `the end of droplet ${id}`,
      () => unlessGone(() => fetchDroplet(client, id)),
      (found) => found === undefined,
      client.stopped,
    )
  },
  async adopt(id, client) {
    const { image } = await fetchDroplet(client, id).catch((error: Error) => {
      throw error instanceof ApiError && error.status === 404 ? new Error(`there is no droplet ${id}`) : error
    })
    return { id, image: image.slug ?? String(image.id), resize_disk: true }
  },
})
