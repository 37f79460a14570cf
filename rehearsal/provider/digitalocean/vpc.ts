// digitalocean_vpc
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError, unlessGone } from '../rest.ts'
import { bool, computed, optional, optionalComputed, required, string, timeouts } from '../schema.ts'
import { type Client, goTime, resource } from './client.ts'

type Vpc = {
  id: string
  urn: string
  name: string
  description: string
  region: string
  ip_range: string
  default: boolean
  created_at: string
}

const row = ({ created_at, ...vpc }: Vpc) => ({ ...vpc, created_at: goTime(created_at) })
const fetchVpc = async ({ api }: Client, id: string) => row((await api<{ vpc: Vpc }>('GET', `/vpcs/${id}`)).vpc)

export const vpc = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    name: required(string),
    region: required(string, { replace: true }),
    description: optional(string),
    ip_range: optionalComputed(string, { replace: true }),
    urn: computed(string),
    default: computed(bool),
    created_at: computed(string),
    timeouts: timeouts('delete'),
  },
  async create({ name, region, description, ip_range }, client, keep) {
    const body = { name, region, description: description ?? '', ip_range: ip_range ?? '' }
    const { vpc } = await client.api<{ vpc: Vpc }>('POST', '/vpcs', body)
    keep({ id: vpc.id })
    return fetchVpc(client, vpc.id)
  },
  read: ({ id }, client) => unlessGone(() => fetchVpc(client, id ?? '')),
  async update({ id }, { name, description }, client) {
    await client.api('PUT', `/vpcs/${id}`, { name, description: description ?? '' })
    return fetchVpc(client, id ?? '')
  },
  async remove({ id }, { api, stopped }) {
    // What is in it goes at the same time: a refusal may be gone in a moment.
    for (const end = Date.now() + 120_000; ; await sleep(200, undefined, { signal: stopped })) {
      try {
        await api('DELETE', `/vpcs/${id}`)
        return
      } catch (error) {
        const busy = error instanceof ApiError && [403, 409].includes(error.status)
        if (!busy || Date.now() > end) throw error
      }
    }
  },
})
