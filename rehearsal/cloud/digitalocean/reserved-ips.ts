// Reserved addresses, and which droplet each leads to.
import { z } from 'zod'
import { type Route, route } from '../http.ts'
import type { Account } from './account.ts'
import { actionBody, settleActions, startAction } from './actions.ts'
import { found, page, parseBody, text, unprocessable } from './api.ts'
import { isRegion, regionOf } from './catalog.ts'
import { dropletBody } from './droplets.ts'
import { publicAddress } from './public-addresses.ts'
import { defaultProject, type ReservedIp, type State } from './state.ts'

const newReservedIp = z.object({
  region: text,
  project_id: text,
  droplet_id: z.number().nullish(),
})
const newAction = z.object({ type: z.enum(['assign', 'unassign']), droplet_id: z.number().nullish() })

const body = (state: State, { ip, region, dropletId, project_id }: ReservedIp) => {
  const droplet = dropletId === undefined ? undefined : state.droplets.get(dropletId)
  return { ip, region: regionOf(region), droplet: droplet ? dropletBody(droplet) : null, locked: false, project_id }
}

/** A free address of a network that is kept for documentation (RFC 5737): nobody answers there. */
function documentedAddress(state: State): string {
  for (let last = 2; last < 255; last++) {
    const candidate = `203.0.113.${last}`
    if (!state.reservedIps.has(candidate)) return candidate
  }
  throw unprocessable('You have reached the limit of reserved IPs')
}

export function reservedIpRoutes(account: Account): Route[] {
  const { state } = account
  const reserved = (ip: string) => {
    settleActions(account)
    return found(state.reservedIps.get(ip))
  }
  const machineAt = ({ dropletId }: ReservedIp) => state.droplets.get(dropletId ?? 0)?.machine
  return [
    route('GET', '/v2/reserved_ips', (request) => {
      settleActions(account)
      const all = [...state.reservedIps.values()].map((ip) => body(state, ip))
      return page('reserved_ips', all, request, account.base())
    }),
    route('POST', '/v2/reserved_ips', async (request) => {
      const wanted = parseBody(newReservedIp, request)
      const droplet = wanted.droplet_id ? state.droplets.get(wanted.droplet_id) : undefined
      const region = droplet?.region ?? wanted.region
      if (!isRegion(region)) throw unprocessable('Region is not available')
      const found = account.startDroplet && (await publicAddress(() => machineAt(created)))
      const created: ReservedIp = {
        ip: found?.address ?? documentedAddress(state),
        release: found?.release,
        region,
        dropletId: droplet?.id,
        project_id: wanted.project_id || defaultProject(state).id,
      }
      state.reservedIps.set(created.ip, created)
      return { status: 202, body: { reserved_ip: body(state, created), links: {} } }
    }),
    route('GET', '/v2/reserved_ips/:ip', (_request, { ip }) => ({
      status: 200,
      body: { reserved_ip: body(state, reserved(ip)) },
    })),
    route('DELETE', '/v2/reserved_ips/:ip', async (_request, { ip }) => {
      const gone = reserved(ip)
      state.reservedIps.delete(gone.ip)
      await gone.release?.()
      return { status: 204 }
    }),
    route('POST', '/v2/reserved_ips/:ip/actions', (request, { ip }) => {
      const target = reserved(ip)
      const { type, droplet_id } = parseBody(newAction, request)
      if (type === 'unassign' && target.dropletId === undefined)
        throw unprocessable('The reserved IP is not assigned to a Droplet.')
      const droplet = type === 'assign' ? state.droplets.get(droplet_id ?? 0) : undefined
      if (type === 'assign' && !droplet) throw unprocessable('Droplet could not be found.')
      if (droplet && droplet.region !== target.region)
        throw unprocessable('The reserved IP and the Droplet are not in the same region.')
      if (droplet && Date.now() < droplet.readyAt) throw unprocessable('Droplet already has a pending event.')
      const action = startAction(account, request, {
        type: `${type}_ip`,
        resource_id: 0,
        resource_type: 'reserved_ip',
        region: target.region,
        complete: () => {
          target.dropletId = droplet?.id
        },
      })
      return { status: 201, body: { action: actionBody(action) } }
    }),
    route('GET', '/v2/reserved_ips/:ip/actions/:id', (_request, { ip, id }) => {
      reserved(ip)
      return { status: 200, body: { action: actionBody(found(state.actions.get(Number(id)))) } }
    }),
  ]
}
