// Tags, and what carries them.
import { z } from 'zod'
import { type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { found, list, notFound, page, parseBody } from './api.ts'

const tagName = z
  .string()
  .regex(/^[a-zA-Z0-9:\-_]{1,255}$/, 'may contain letters, numbers, colons, dashes, and underscores')
const targets = z.object({
  resources: list(z.object({ resource_id: z.string(), resource_type: z.string() })),
})

export function tagRoutes(account: Account): Route[] {
  const { state } = account
  const carrier = (type: string, id: string): { tags: string[] } | undefined => {
    if (type === 'droplet') return state.droplets.get(Number(id))
    if (type === 'database') return state.databases.get(id)
    if (type === 'kubernetes') return state.clusters.get(id)
    return undefined
  }
  const carriers = () => [...state.droplets.values(), ...state.databases.values(), ...state.clusters.values()]
  const body = (name: string) => ({
    name,
    resources: { count: carriers().filter(({ tags }) => tags.includes(name)).length },
  })
  const existing = (name: string) => {
    if (!state.tags.has(name)) throw notFound()
    return name
  }
  return [
    route('GET', '/v2/tags', (request) => page('tags', [...state.tags].map(body), request, account.base())),
    route('POST', '/v2/tags', (request) => {
      const { name } = parseBody(z.object({ name: tagName }), request)
      state.tags.add(name)
      return { status: 201, body: { tag: body(name) } }
    }),
    route('GET', '/v2/tags/:name', (_request, { name }) => ({ status: 200, body: { tag: body(existing(name)) } })),
    route('DELETE', '/v2/tags/:name', (_request, { name }) => {
      state.tags.delete(existing(name))
      for (const each of carriers()) each.tags = each.tags.filter((tag) => tag !== name)
      return { status: 204 }
    }),
    route('POST', '/v2/tags/:name/resources', (request, { name }) => {
      existing(name)
      for (const { resource_type, resource_id } of parseBody(targets, request).resources) {
        const target = found(carrier(resource_type, resource_id))
        if (!target.tags.includes(name)) target.tags.push(name)
      }
      return { status: 204 }
    }),
    route('DELETE', '/v2/tags/:name/resources', (request, { name }) => {
      existing(name)
      for (const { resource_type, resource_id } of parseBody(targets, request).resources) {
        const target = found(carrier(resource_type, resource_id))
        target.tags = target.tags.filter((tag) => tag !== name)
      }
      return { status: 204 }
    }),
  ]
}
