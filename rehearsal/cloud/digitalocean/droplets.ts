// Droplets and what can be done to them. Of a cluster's nodes no machine runs: they are objects of the API only.
import { z } from 'zod'
import { type Request, type Route, route } from '../http.ts'
import { type Account, readyAt } from './account.ts'
import { actionBody, inProgress, settleActions, startAction } from './actions.ts'
import { found, list, page, parseBody, text, unprocessable } from './api.ts'
import { IMAGES, isRegion, regionOf, SIZES, sizeBody } from './catalog.ts'
import { isComing, perform, startMachine, stopMachine } from './droplet-machines.ts'
import { type Droplet, dropletsLeft, now, type State } from './state.ts'
import { joinedVpc, privateAddress } from './vpcs.ts'

const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false)
const newDroplet = z.object({
  name: z.string().regex(/^[a-zA-Z0-9.-]+$/, 'Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)'),
  region: z.string(),
  size: z.string(),
  image: z.union([z.string(), z.number()]),
  ssh_keys: list(z.union([z.string(), z.number()])),
  backups: flag,
  ipv6: flag,
  monitoring: flag,
  vpc_uuid: text,
  tags: list(z.string()),
})

const sizeOf = (slug: string) => SIZES.find((size) => size.slug === slug)
const imageOf = (wanted: string | number) =>
  IMAGES.find((image) => image.slug === wanted || String(image.id) === String(wanted))

/** @returns the droplet as the API tells it */
export function dropletBody(droplet: Droplet) {
  const size = sizeOf(droplet.size) ?? { memory: 0, vcpus: 0, disk: 0 }
  const address = (ip_address: string, netmask: string, type: string) => ({
    ip_address,
    netmask,
    type,
    gateway: ip_address.replace(/\d+$/, '1'),
  })
  return {
    id: droplet.id,
    name: droplet.name,
    memory: size.memory,
    vcpus: size.vcpus,
    disk: size.disk,
    locked: false,
    status: Date.now() < droplet.readyAt || isComing(droplet) ? 'new' : droplet.power,
    kernel: null,
    created_at: droplet.created_at,
    features: droplet.features,
    backup_ids: [],
    next_backup_window: null,
    snapshot_ids: [],
    image: imageOf(droplet.image),
    volume_ids: [],
    size: 'slug' in size ? sizeBody(size) : {},
    size_slug: droplet.size,
    networks: {
      v4: [
        address(droplet.public_address, '255.255.255.0', 'public'),
        address(droplet.private_address, '255.255.240.0', 'private'),
      ],
      v6: [],
    },
    region: regionOf(droplet.region),
    tags: droplet.tags,
    vpc_uuid: droplet.vpc_uuid,
  }
}

/** An address of a network that is kept for documentation (RFC 5737): nobody answers there. */
const publicAddress = (state: State) => `198.51.100.${(++state.sequence % 253) + 2}`

/** Adds a droplet; limits and names are for the caller to check. */
export function addDroplet(
  account: Account,
  request: Request,
  wanted: {
    name: string
    region: string
    size: string
    image: string
    vpc_uuid: string
    tags: string[]
    features: string[]
  },
): Droplet {
  const { state } = account
  const vpc = joinedVpc(state, wanted.region, wanted.vpc_uuid)
  for (const tag of wanted.tags) state.tags.add(tag)
  const droplet: Droplet = {
    id: ++state.sequence,
    ...wanted,
    vpc_uuid: vpc.id,
    power: 'active',
    created_at: now(),
    public_address: publicAddress(state),
    private_address: privateAddress(state, vpc),
    readyAt: readyAt(account, request),
    machine: undefined,
  }
  state.droplets.set(droplet.id, droplet)
  return droplet
}

async function createDroplet(account: Account, request: Request): Promise<Droplet> {
  const { state } = account
  const wanted = parseBody(newDroplet, request)
  if (!isRegion(wanted.region)) throw unprocessable('You specified an invalid region for Droplet creation.')
  if (!sizeOf(wanted.size)) throw unprocessable('You specified an invalid size for Droplet creation.')
  const image = imageOf(wanted.image)
  if (!image) throw unprocessable('You specified an invalid image for Droplet creation.')
  const keys = wanted.ssh_keys.map((key) => {
    const all = [...state.keys.values()]
    const known = all.find(({ id, fingerprint }) => String(id) === String(key) || fingerprint === key)
    if (!known) throw unprocessable(`${key} are invalid key identifiers for Droplet creation.`)
    return known.public_key
  })
  if (dropletsLeft(state) < 1) throw unprocessable('creating this/these droplet(s) will exceed your droplet limit')
  const features = [
    ...(wanted.backups ? ['backups'] : []),
    ...(wanted.ipv6 ? ['ipv6'] : []),
    ...(wanted.monitoring ? ['monitoring'] : []),
    ...['droplet_agent', 'private_networking'],
  ]
  const droplet = addDroplet(account, request, { ...wanted, image: image.slug, features })
  await startMachine(account, droplet, { keys, memoryMegabytes: sizeOf(droplet.size)?.memory ?? 0 })
  return droplet
}

const newAction = z.object({ type: z.string(), name: text, size: text })

/** @returns what the action does when it completes; refuses what cannot be done */
function effectOf(droplet: Droplet, { type, name, size }: z.infer<typeof newAction>): () => void {
  const feature = (wanted: string, on: boolean) => () => {
    droplet.features = droplet.features.filter((present) => present !== wanted)
    if (on) droplet.features.push(wanted)
  }
  switch (type) {
    case 'power_off':
    case 'shutdown':
      if (droplet.power === 'off' && type === 'power_off') throw unprocessable('Droplet is already powered off.')
      return () => {
        droplet.power = 'off'
      }
    case 'power_on':
      return () => {
        droplet.power = 'active'
      }
    case 'reboot':
    case 'power_cycle':
    case 'password_reset':
    case 'snapshot':
      return () => {}
    case 'rename':
      return () => {
        droplet.name = name
      }
    case 'resize': {
      const [before, after] = [sizeOf(droplet.size), sizeOf(size)]
      if (!after) throw unprocessable('Size is not available in this region.')
      if (droplet.power !== 'off') throw unprocessable('Droplet must be powered off to resize.')
      if (before && after.disk < before.disk)
        throw unprocessable('This size is not available because it has a smaller disk.')
      return () => {
        droplet.size = size
      }
    }
    case 'enable_backups':
      return feature('backups', true)
    case 'disable_backups':
      return feature('backups', false)
    case 'enable_ipv6':
      return feature('ipv6', true)
    case 'enable_private_networking':
      return feature('private_networking', true)
    default:
      throw unprocessable(`${type} is not a valid action type.`)
  }
}

/** Removes the droplet, and it from whatever names it. */
export function removeDroplet(state: State, id: number): void {
  state.droplets.delete(id)
  for (const reserved of state.reservedIps.values()) if (reserved.dropletId === id) reserved.dropletId = undefined
  for (const each of [...state.firewalls.values(), ...state.loadBalancers.values()])
    each.droplet_ids = each.droplet_ids.filter((member) => member !== id)
}

export function dropletRoutes(account: Account): Route[] {
  const { state } = account
  const droplet = (id: string) => found(state.droplets.get(Number(id)))
  return [
    route('GET', '/v2/droplets', (request) => {
      settleActions(account)
      const tag = request.query.get('tag_name')
      const name = request.query.get('name')
      const listed = [...state.droplets.values()].filter(
        (candidate) => (tag === null || candidate.tags.includes(tag)) && (name === null || candidate.name === name),
      )
      return page('droplets', listed.map(dropletBody), request, account.base())
    }),
    route('POST', '/v2/droplets', async (request) => {
      const created = await createDroplet(account, request)
      const action = startAction(account, request, {
        type: 'create',
        resource_id: created.id,
        resource_type: 'droplet',
        region: created.region,
      })
      const links = { actions: [{ id: action.id, rel: 'create', href: `${account.base()}/v2/actions/${action.id}` }] }
      return { status: 202, body: { droplet: dropletBody(created), links } }
    }),
    route('GET', '/v2/droplets/:id', (_request, { id }) => {
      settleActions(account)
      return { status: 200, body: { droplet: dropletBody(droplet(id)) } }
    }),
    route('DELETE', '/v2/droplets/:id', async (_request, { id }) => {
      const gone = droplet(id)
      removeDroplet(state, gone.id)
      await stopMachine(account, gone)
      return { status: 204 }
    }),
    route('GET', '/v2/droplets/:id/actions', (request, { id }) => {
      const { id: number } = droplet(id)
      const own = [...state.actions.values()].filter(
        (action) => action.resource_type === 'droplet' && action.resource_id === number,
      )
      return page('actions', own.map(actionBody), request, account.base())
    }),
    route('POST', '/v2/droplets/:id/actions', (request, { id }) => {
      settleActions(account)
      const target = droplet(id)
      const wanted = parseBody(newAction, request)
      const busy = [...state.actions.values()].some(
        (action) => action.resource_type === 'droplet' && action.resource_id === target.id && inProgress(action),
      )
      if (busy) throw unprocessable('Droplet already has a pending event.')
      const complete = effectOf(target, wanted)
      const action = startAction(account, request, {
        type: wanted.type,
        resource_id: target.id,
        resource_type: 'droplet',
        region: target.region,
        complete,
      })
      const done = perform(target, wanted.type)
      if (done) {
        const { readyAt } = action
        action.readyAt = Number.POSITIVE_INFINITY
        void done
          .catch(({ message }: Error) => {
            action.failure = message
            action.complete = undefined
          })
          .then(() => {
            action.readyAt = Math.max(readyAt, Date.now())
          })
      }
      return { status: 201, body: { action: actionBody(action) } }
    }),
    route('GET', '/v2/droplets/:id/actions/:action', (_request, { id, action }) => {
      droplet(id)
      settleActions(account)
      return { status: 200, body: { action: actionBody(found(state.actions.get(Number(action)))) } }
    }),
  ]
}
