// The account and its SSH keys; and what every subject of the API works on.
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Cluster } from '../../cluster/start.ts'
import type { BootedDroplet, DropletOptions } from '../../droplet/start.ts'
import type { Certificate } from '../../servers/certificates.ts'
import { type Request, type Route, route } from '../http.ts'
import type { PrivateNetwork } from '../private-network.ts'
import { found, page, parseBody, unprocessable } from './api.ts'
import type { DatabaseServers } from './databases.ts'
import type { ReadyAt, State } from './state.ts'
import { monthToDateUsage } from './usage.ts'

export type Account = {
  token: string
  state: State
  /** The address of the API, for links to further pages. */
  base: () => string
  /** The domain under which made-up host names are. */
  domain: string
  /** Milliseconds from a request to the readiness of what it creates. */
  readyAfter: number
  servers: DatabaseServers
  /** for the customers' names; put into every real cluster, as whoever needs no ACME does */
  wildcard: Certificate
  network: PrivateNetwork
  /** Starts a real cluster, unique by name, with these OCI archives among its images; undefined where there are none. */
  startCluster: ((name: string, images: readonly string[]) => Promise<Cluster>) | undefined
  /** Starts a real machine, unique by id; undefined where droplets are objects of the API only. */
  startDroplet:
    | ((
        id: string,
        wanted: Pick<DropletOptions, 'name' | 'keys' | 'privateAddress' | 'memoryMegabytes'>,
      ) => Promise<BootedDroplet>)
    | undefined
  /** OCI archives that every cluster has among its images, as if it had pulled them. */
  images: string[]
}

/** @returns when what the request creates is ready */
export const readyAt = ({ readyAfter }: Account, { neverReady }: Pick<Request, 'neverReady'>): ReadyAt =>
  neverReady ? Number.POSITIVE_INFINITY : Date.now() + readyAfter

const newKey = z.object({ name: z.string().min(1), public_key: z.string() })

/** @returns the MD5 fingerprint that DigitalOcean identifies a key by; undefined for what is no public key */
function fingerprintOf(publicKey: string): string | undefined {
  const [kind = '', base64 = ''] = publicKey.trim().split(/\s+/)
  const raw = Buffer.from(base64, 'base64')
  if (!/^(ssh-|ecdsa-|sk-)/.test(kind) || raw.length < 32) return undefined
  if (raw.toString('latin1', 4, 4 + raw.readUInt32BE(0)) !== kind) return undefined
  return createHash('md5').update(raw).digest('hex').match(/../g)?.join(':')
}

export function accountRoutes(account: Account): Route[] {
  const { state } = account
  const key = (id: string) =>
    found([...state.keys.values()].find((candidate) => String(candidate.id) === id || candidate.fingerprint === id))
  return [
    route('GET', '/v2/account', () => ({
      status: 200,
      body: {
        account: {
          ...state.account,
          floating_ip_limit: 3,
          reserved_ip_limit: 3,
          volume_limit: 100,
          email_verified: true,
          status: 'active',
          status_message: '',
          team: { uuid: state.account.uuid, name: 'Rehearsal' },
        },
      },
    })),
    route('GET', '/v2/customers/my/balance', () => {
      const used = monthToDateUsage(state).toFixed(2)
      return {
        status: 200,
        body: {
          month_to_date_balance: used,
          account_balance: '0.00',
          month_to_date_usage: used,
          generated_at: new Date().toISOString(),
        },
      }
    }),
    route('GET', '/v2/account/keys', (request) => page('ssh_keys', [...state.keys.values()], request, account.base())),
    route('POST', '/v2/account/keys', (request) => {
      const { name, public_key } = parseBody(newKey, request)
      const fingerprint = fingerprintOf(public_key)
      if (!fingerprint) throw unprocessable('Key invalid, key should be of the format `ssh-rsa ...`')
      if ([...state.keys.values()].some((other) => other.fingerprint === fingerprint))
        throw unprocessable('SSH Key is already in use on your account')
      const id = ++state.sequence
      const created = { id, name, public_key, fingerprint }
      state.keys.set(id, created)
      return { status: 201, body: { ssh_key: created } }
    }),
    route('GET', '/v2/account/keys/:id', (_request, { id }) => ({ status: 200, body: { ssh_key: key(id) } })),
    route('PUT', '/v2/account/keys/:id', (request, { id }) => {
      const changed = key(id)
      changed.name = parseBody(z.object({ name: z.string().min(1) }), request).name
      return { status: 200, body: { ssh_key: changed } }
    }),
    route('DELETE', '/v2/account/keys/:id', (_request, { id }) => {
      state.keys.delete(key(id).id)
      return { status: 204 }
    }),
  ]
}
