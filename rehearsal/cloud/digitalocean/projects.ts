// Projects: folders for an account's things. What is in none of its own is in the default one.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { given, type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { conflict, found, list, page, parseBody, preconditionFailed, text, unprocessable } from './api.ts'
import { defaultProject, now, type Project, type State } from './state.ts'

const fields = z.object({
  name: z.string().min(1).max(175),
  description: text,
  purpose: z.string().min(1),
  environment: text,
  is_default: z.boolean().nullish(),
})

/** @returns the resource names of everything that exists and can be in a project */
const resourceNames = (state: State): string[] => [
  ...[...state.droplets.keys()].map((id) => `do:droplet:${id}`),
  ...[...state.databases.keys()].map((id) => `do:dbaas:${id}`),
  ...[...state.clusters.keys()].map((id) => `do:kubernetes:${id}`),
  ...[...state.loadBalancers.keys()].map((id) => `do:loadbalancer:${id}`),
  ...[...state.reservedIps.keys()].map((ip) => `do:reservedip:${ip}`),
]

/** The Spaces front knows the buckets, so their names are taken at their word. */
const isBucket = (urn: string) => /^do:space:[a-z0-9.-]+$/.test(urn)

const resourcesOf = (state: State, project: Project) => {
  const fallback = defaultProject(state).id
  const assigned = [...state.assignments.keys()].filter(isBucket)
  return [...resourceNames(state), ...assigned].filter((urn) => (state.assignments.get(urn) ?? fallback) === project.id)
}

export function projectRoutes(account: Account): Route[] {
  const { state } = account
  const project = (id: string) => (id === 'default' ? defaultProject(state) : found(state.projects.get(id)))
  const body = (project: Project) => ({ ...project, owner_uuid: state.account.uuid, owner_id: 1_000_001 })
  const change = (target: Project, wanted: Partial<z.infer<typeof fields>>) => {
    const { is_default, ...rest } = wanted
    Object.assign(target, rest, { updated_at: now() })
    if (is_default) for (const other of state.projects.values()) other.is_default = other === target
    return { status: 200, body: { project: body(target) } }
  }
  const resource = (urn: string, status: string) => ({ urn, assigned_at: now(), links: { self: '' }, status })
  return [
    route('GET', '/v2/projects', (request) =>
      page('projects', [...state.projects.values()].map(body), request, account.base()),
    ),
    route('POST', '/v2/projects', (request) => {
      const { is_default: _ignored, ...wanted } = parseBody(fields, request)
      if ([...state.projects.values()].some((other) => other.name === wanted.name))
        throw conflict('name must be unique to the owner')
      const created = { id: randomUUID(), ...wanted, is_default: false, created_at: now(), updated_at: now() }
      state.projects.set(created.id, created)
      return { status: 201, body: { project: body(created) } }
    }),
    route('GET', '/v2/projects/:id', (_request, { id }) => ({ status: 200, body: { project: body(project(id)) } })),
    route('PUT', '/v2/projects/:id', (request, { id }) => change(project(id), parseBody(fields, request))),
    route('PATCH', '/v2/projects/:id', (request, { id }) =>
      change(project(id), given(parseBody(fields.partial(), request))),
    ),
    route('DELETE', '/v2/projects/:id', (_request, { id }) => {
      const gone = project(id)
      if (gone.is_default) throw preconditionFailed('cannot delete the default project')
      if (resourcesOf(state, gone).length > 0) throw preconditionFailed('cannot delete a project with resources')
      state.projects.delete(gone.id)
      return { status: 204 }
    }),
    route('GET', '/v2/projects/:id/resources', (request, { id }) => {
      const resources = resourcesOf(state, project(id)).map((urn) => resource(urn, 'ok'))
      return page('resources', resources, request, account.base())
    }),
    route('POST', '/v2/projects/:id/resources', (request, { id }) => {
      const { resources } = parseBody(z.object({ resources: list(z.string()) }), request)
      const target = project(id)
      const existing = new Set(resourceNames(state))
      for (const urn of resources)
        if (!existing.has(urn) && !isBucket(urn)) throw unprocessable(`resource ${urn} could not be found`)
      for (const urn of resources) state.assignments.set(urn, target.id)
      return {
        status: 200,
        body: {
          resources: resources.map((urn) => resource(urn, 'assigned')),
          links: {},
          meta: { total: resources.length },
        },
      }
    }),
  ]
}
