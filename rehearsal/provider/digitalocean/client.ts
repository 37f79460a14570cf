// What DigitalOcean's resources work with: the API, Spaces, and the real provider's ways of writing things down.
import { randomBytes } from 'node:crypto'
import type { SpacesSettings } from '../../cloud/spaces/client.ts'
import { dataSourceFor, resourceFor } from '../resource.ts'
import { call, type RestOptions } from '../rest.ts'

export type Client = {
  /** The answer is taken to have the type that the caller names. */
  api: <T>(method: string, path: string, body?: unknown) => Promise<T>
  spaces: SpacesSettings
  stopped: AbortSignal
  /** For what the real provider goes on waiting for even when Terraform is interrupted. */
  gone: AbortSignal
}

export const clientFor = (rest: RestOptions, spaces: SpacesSettings, gone: AbortSignal): Client => ({
  api: async <T>(method: string, path: string, body?: unknown) => (await call(rest, method, `/v2${path}`, body)) as T,
  spaces,
  stopped: rest.stopped,
  gone,
})

export const resource = resourceFor<Client>()
export const dataSource = dataSourceFor<Client>()

/** @returns a time as Go prints it: 2026-11-24 02:46:00 +0000 UTC */
export const goTime = (iso: string) => `${iso.slice(0, 19).replace('T', ' ')} +0000 UTC`

/** @returns an id that the real provider makes up where the API has none */
export const uniqueId = (prefix = '') =>
  `${prefix}${new Date().toISOString().replace(/\D/g, '')}${randomBytes(4).toString('hex')}`

/** Slugs of regions and sizes are lower-case in the state, however the configuration writes them. */
export const lowerCase = { store: (wanted: string) => wanted.toLowerCase() }

/** Brings the tags of a resource from those before to those wanted. */
export async function changeTags(
  { api }: Client,
  resource_type: string,
  resource_id: string,
  before: string[] | null,
  wanted: string[] | null,
): Promise<void> {
  const resources = [{ resource_id, resource_type }]
  const [old, next] = [before ?? [], wanted ?? []]
  for (const tag of old.filter((tag) => !next.includes(tag)))
    await api('DELETE', `/tags/${encodeURIComponent(tag)}/resources`, { resources })
  for (const tag of next.filter((tag) => !old.includes(tag))) {
    await api('POST', '/tags', { name: tag })
    await api('POST', `/tags/${encodeURIComponent(tag)}/resources`, { resources })
  }
}

/** @returns the two halves of what follows the address in `terraform import` */
export function halves(id: string, form: string): [string, string] {
  const [one = '', two = '', ...rest] = id.split(',')
  if (!one || !two || rest.length > 0) throw new Error(`cannot import "${id}": the id has the form ${form}`)
  return [one, two]
}
