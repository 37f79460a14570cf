// Where a test or a person looks behind the cloud, and asks it to fail.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { z } from 'zod'
import type { CloudflareAccount } from './cloudflare/zones.ts'
import type { Account } from './digitalocean/account.ts'
import { addImages } from './digitalocean/kubernetes-server.ts'
import { faultSchema } from './faults.ts'
import { type Listener, listen, type Traffic } from './http.ts'
import { listObjects, type SpacesSettings } from './spaces/client.ts'

export type Control = {
  traffic: Traffic
  digitalocean: Account
  cloudflare: CloudflareAccount
  spaces: SpacesSettings
}

/**
 * Besides faults: how many droplets the account may have, how long a thing is made, in milliseconds, and how many dollars
 * the account has used since the month began.
 */
const planted = z.union([
  faultSchema,
  z.strictObject({ droplet_limit: z.number().int().min(0) }),
  z.strictObject({ ready_after_ms: z.number().min(0) }),
  z.strictObject({ month_to_date_usage: z.number().min(0) }),
])

/** An OCI archive, for the images of every cluster. */
const imageArchive = z.strictObject({ path: z.string().startsWith('/') })

type Settings = { droplet_limit: number; ready_after_ms: number; month_to_date_usage: number }

const settingsOf = ({ state, readyAfter }: Account): Settings => ({
  droplet_limit: state.account.droplet_limit,
  ready_after_ms: readyAfter,
  month_to_date_usage: state.monthToDateUsage,
})

function change(account: Account, { droplet_limit, ready_after_ms, month_to_date_usage }: Partial<Settings>): void {
  const { state } = account
  state.account.droplet_limit = droplet_limit ?? state.account.droplet_limit
  state.monthToDateUsage = month_to_date_usage ?? state.monthToDateUsage
  account.readyAfter = ready_after_ms ?? account.readyAfter
}

/**
 * Serves, without a password, to loopback only:
 * GET, POST, DELETE /faults; GET /objects; GET, DELETE /requests; POST /images.
 */
export function serveControl(control: Control): Promise<Listener> {
  const usual = settingsOf(control.digitalocean)
  return listen(
    createServer((incoming, outgoing) => {
      answer(control, usual, incoming).then(
        ([status, body]) => send(outgoing, status, body),
        (error: Error) => send(outgoing, 500, { message: error.message }),
      )
    }),
  )
}

function send(outgoing: ServerResponse, status: number, body: unknown): void {
  outgoing.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body, null, 2))
}

async function answer(control: Control, usual: Settings, incoming: IncomingMessage): Promise<[number, unknown]> {
  const { traffic, digitalocean } = control
  switch (`${incoming.method} ${incoming.url}`) {
    case 'GET /faults':
      return [200, { faults: traffic.faults, ...settingsOf(digitalocean) }]
    case 'POST /faults': {
      const parsed = planted.safeParse(await bodyOf(incoming))
      if (!parsed.success) return [422, { message: z.prettifyError(parsed.error) }]
      if ('api' in parsed.data) traffic.faults.push(parsed.data)
      else change(digitalocean, parsed.data)
      return [201, parsed.data]
    }
    case 'DELETE /faults':
      traffic.faults.length = 0
      change(digitalocean, usual)
      return [200, {}]
    case 'POST /images': {
      const parsed = imageArchive.safeParse(await bodyOf(incoming))
      if (!parsed.success) return [422, { message: z.prettifyError(parsed.error) }]
      await addImages(digitalocean, parsed.data.path)
      return [201, parsed.data]
    }
    case 'GET /objects':
      return [200, await objects(control)]
    case 'GET /requests':
      return [200, traffic.calls]
    case 'DELETE /requests':
      traffic.calls.length = 0
      return [200, {}]
    default:
      return [404, { message: `no ${incoming.method} ${incoming.url} here` }]
  }
}

/** @returns undefined for what is no JSON */
async function bodyOf(incoming: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    return undefined
  }
}

/** Everything that exists, in a form that stays the same while nothing changes. No passwords. */
async function objects({ digitalocean: { state }, cloudflare, spaces }: Control) {
  const databases = [...state.databases.values()].map(
    async ({ readyAt, passwords, server, postgres, valkey, failure, ...cluster }) => ({
      ...cluster,
      users: postgres ? await postgres.roles() : ['default'],
      databases: postgres ? await postgres.databases() : [],
    }),
  )
  return {
    digitalocean: {
      keys: [...state.keys.values()],
      vpcs: [...state.vpcs.values()],
      droplets: [...state.droplets.values()].map(({ readyAt, machine, ...droplet }) => droplet),
      reserved_ips: [...state.reservedIps.values()].map(({ release, ...reserved }) => reserved),
      firewalls: [...state.firewalls.values()],
      databases: await Promise.all(databases),
      kubernetes_clusters: [...state.clusters.values()].map(({ readyAt, token, server, real, ...cluster }) => cluster),
      load_balancers: [...state.loadBalancers.values()].map(({ readyAt, held, forwards, ...balancer }) => balancer),
      projects: [...state.projects.values()],
      project_resources: Object.fromEntries(state.assignments),
      tags: [...state.tags],
    },
    cloudflare: { dns_records: [...cloudflare.records.values()] },
    spaces: await listObjects(spaces),
  }
}
