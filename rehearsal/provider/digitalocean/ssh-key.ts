// digitalocean_ssh_key
import { unlessGone } from '../rest.ts'
import { computed, optionalComputed, required, string, timeouts } from '../schema.ts'
import { type Client, resource } from './client.ts'

type Key = { id: number; name: string; public_key: string; fingerprint: string }

const row = ({ id, ...key }: Key) => ({ ...key, id: String(id) })
const fetchKey = async ({ api }: Client, id: string | null) =>
  row((await api<{ ssh_key: Key }>('GET', `/account/keys/${id}`)).ssh_key)

export const sshKey = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    name: required(string),
    public_key: required(string, {
      replace: true,
      same: (prior, wanted) => prior.trim() === wanted.trim(),
    }),
    fingerprint: computed(string),
    timeouts: timeouts('create'),
  },
  async create({ name, public_key }, { api }) {
    return row((await api<{ ssh_key: Key }>('POST', '/account/keys', { name, public_key })).ssh_key)
  },
  read: ({ id }, client) => unlessGone(() => fetchKey(client, id)),
  async update({ id }, { name }, client) {
    await client.api('PUT', `/account/keys/${id}`, { name })
    return fetchKey(client, id)
  },
  async remove({ id }, { api }) {
    await api('DELETE', `/account/keys/${id}`)
  },
})
