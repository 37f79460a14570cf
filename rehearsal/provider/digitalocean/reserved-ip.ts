// digitalocean_reserved_ip and digitalocean_reserved_ip_assignment
import { unlessGone, waitFor } from '../rest.ts'
import { computed, number, optional, optionalComputed, required, string } from '../schema.ts'
import { type Client, halves, lowerCase, resource, uniqueId } from './client.ts'

type ReservedIp = { ip: string; region: { slug: string }; droplet: { id: number; region: { slug: string } } | null }

const fetchIp = async ({ api }: Client, ip: string | null) =>
  (await api<{ reserved_ip: ReservedIp }>('GET', `/reserved_ips/${ip}`)).reserved_ip

async function act(client: Client, ip: string | null, body: { type: 'assign' | 'unassign'; droplet_id?: number }) {
  // An address cannot be assigned while the droplet is busy with something else.
  if (body.droplet_id !== undefined)
    await waitFor(
      `droplet ${body.droplet_id}`,
      () => client.api<{ actions: { status: string }[] }>('GET', `/droplets/${body.droplet_id}/actions?per_page=50`),
      ({ actions }) => actions.every(({ status }) => status === 'completed'),
      client.stopped,
    )
  const { action } = await client.api<{ action: { id: number } }>('POST', `/reserved_ips/${ip}/actions`, body)
  await waitFor(
    `reserved IP ${ip}`,
    () => client.api<{ action: { status: string } }>('GET', `/reserved_ips/${ip}/actions/${action.id}`),
    ({ action }) => action.status === 'completed',
    client.stopped,
  )
}

/** The droplet is told only where the configuration names one. */
const row = ({ ip, region, droplet }: ReservedIp, withDroplet: boolean) => ({
  id: ip,
  ip_address: ip,
  urn: `do:reservedip:${ip}`,
  region: region.slug,
  ...(withDroplet && droplet ? { droplet_id: droplet.id } : {}),
})

export const reservedIp = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    region: required(string, { replace: true, ...lowerCase }),
    urn: computed(string),
    ip_address: optionalComputed(string),
    droplet_id: optional(number),
  },
  async create({ region, droplet_id }, client, keep) {
    const { reserved_ip } = await client.api<{ reserved_ip: ReservedIp }>('POST', '/reserved_ips', { region })
    keep({ id: reserved_ip.ip })
    if (droplet_id) await act(client, reserved_ip.ip, { type: 'assign', droplet_id })
    return row(await fetchIp(client, reserved_ip.ip), Boolean(droplet_id))
  },
  read: ({ id, droplet_id }, client) => unlessGone(async () => row(await fetchIp(client, id), Boolean(droplet_id))),
  async update(prior, { droplet_id }, client) {
    if (droplet_id && droplet_id !== prior.droplet_id) await act(client, prior.id, { type: 'assign', droplet_id })
    if (!droplet_id && prior.droplet_id) await act(client, prior.id, { type: 'unassign' })
    return row(await fetchIp(client, prior.id), Boolean(droplet_id))
  },
  async remove({ id, droplet_id }, client) {
    const { droplet } = await fetchIp(client, id)
    if (droplet_id && droplet) await act(client, id, { type: 'unassign' })
    await client.api('DELETE', `/reserved_ips/${id}`)
  },
  adopt: async (id, client) => row(await fetchIp(client, id), true),
})

export const reservedIpAssignment = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    ip_address: required(string, { replace: true }),
    droplet_id: required(number, { replace: true }),
  },
  async create({ ip_address, droplet_id }, client) {
    await act(client, ip_address, { type: 'assign', droplet_id })
    return { id: uniqueId(`${droplet_id}-${ip_address}-`) }
  },
  async read({ ip_address, droplet_id }, client) {
    const { droplet } = await fetchIp(client, ip_address)
    return droplet?.id === droplet_id ? {} : undefined
  },
  async remove({ ip_address, droplet_id }, client) {
    const { droplet } = await fetchIp(client, ip_address)
    if (droplet?.id === droplet_id) await act(client, ip_address, { type: 'unassign' })
  },
  async adopt(id) {
    const [ip_address, droplet] = halves(id, 'ip_address,droplet_id')
    return { id: uniqueId(`${droplet}-${ip_address}-`), ip_address, droplet_id: Number(droplet) }
  },
})
