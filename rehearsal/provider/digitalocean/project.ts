// digitalocean_project and digitalocean_project_resources
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError, unlessGone } from '../rest.ts'
import { bool, computed, number, optional, optionalComputed, required, setOf, string, timeouts } from '../schema.ts'
import { type Client, resource } from './client.ts'

type Project = {
  id: string
  name: string
  description: string
  purpose: string
  environment: string
  is_default: boolean
  owner_uuid: string
  owner_id: number
  created_at: string
  updated_at: string
}

async function resourcesOf({ api }: Client, id: string | null): Promise<string[]> {
  const urns: string[] = []
  for (let page = 1; ; page++) {
    const { resources, links } = await api<{ resources: { urn: string }[]; links: { pages?: { next?: string } } }>(
      'GET',
      `/projects/${id}/resources?page=${page}&per_page=200`,
    )
    urns.push(...resources.map(({ urn }) => urn))
    if (!links.pages?.next) return urns
  }
}

const assign = ({ api }: Client, project: string, resources: string[]) =>
  resources.length === 0 ? undefined : api('POST', `/projects/${project}/resources`, { resources })

const fetchProject = async ({ api }: Client, id: string | null) =>
  (await api<{ project: Project }>('GET', `/projects/${id}`)).project

const row = async (client: Client, id: string | null) => {
  const project = await fetchProject(client, id)
  return { ...project, purpose: project.purpose.replace(/^Other: /, ''), resources: await resourcesOf(client, id) }
}

const without = (all: string[] | null, others: string[] | null) =>
  (all ?? []).filter((item) => !(others ?? []).includes(item))

export const project = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    name: required(string),
    description: optional(string, { fallback: '' }),
    purpose: optional(string, { fallback: 'Web Application' }),
    environment: optional(string, { same: (prior, wanted) => prior.toLowerCase() === wanted.toLowerCase() }),
    owner_uuid: computed(string),
    owner_id: computed(number),
    is_default: optional(bool, { fallback: false }),
    created_at: computed(string),
    updated_at: computed(string),
    resources: optionalComputed(setOf(string)),
    timeouts: timeouts('delete'),
  },
  async create(planned, client, keep) {
    const { name, purpose, description, environment, resources, is_default } = planned
    const body = { name, purpose, description, environment }
    const { id } = (await client.api<{ project: Project }>('POST', '/projects', body)).project
    keep({ id })
    await assign(client, id, resources ?? [])
    if (is_default) await client.api('PUT', `/projects/${id}`, { ...body, is_default })
    return row(client, id)
  },
  read: ({ id }, client) => unlessGone(() => row(client, id)),
  async update(prior, planned, client) {
    const { name, purpose, description, environment, is_default } = planned
    await client.api('PUT', `/projects/${prior.id}`, { name, purpose, description, environment, is_default })
    await assign(client, 'default', without(prior.resources, planned.resources))
    await assign(client, prior.id ?? '', without(planned.resources, prior.resources))
    return row(client, prior.id)
  },
  async remove({ id, resources }, client) {
    await assign(client, 'default', resources ?? [])
    for (const end = Date.now() + 180_000; ; await sleep(200, undefined, { signal: client.stopped })) {
      try {
        await client.api('DELETE', `/projects/${id}`)
        return
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 412) || Date.now() > end) throw error
      }
    }
  },
})

export const projectResources = resource({
  version: 0,
  fields: {
    id: optionalComputed(string),
    project: required(string, { replace: true }),
    resources: required(setOf(string)),
  },
  async create({ project, resources }, client) {
    await assign(client, project, resources)
    return { id: project }
  },
  read: ({ id, resources }, client) =>
    unlessGone(async () => {
      await fetchProject(client, id)
      const present = await resourcesOf(client, id)
      return { project: id ?? '', resources: resources.filter((urn) => present.includes(urn)) }
    }),
  async update(prior, planned, client) {
    await assign(client, 'default', without(prior.resources, planned.resources))
    await assign(client, planned.project, without(planned.resources, prior.resources))
    return planned
  },
  async remove({ resources }, client) {
    await assign(client, 'default', resources)
  },
})
