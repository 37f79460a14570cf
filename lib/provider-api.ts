// The few questions that runbooks ask DigitalOcean and Cloudflare themselves; everything else is Terraform's.
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod/mini'
import type { Credentials } from './credentials.ts'
import { Failure } from './failure.ts'
import type { Secret } from './secret.ts'

export type Providers = { credentials: Credentials; signal: AbortSignal }

/** An answer that is no success: what the provider said, for the caller to explain. */
export class ApiError extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const ATTEMPTS = 4

/** GET with a bearer token. A 429, a 5xx or a broken connection is tried again, after the time the provider asks for. */
async function get(
  url: string,
  token: Secret,
  signal: AbortSignal,
  read = (response: Response): Promise<unknown> => response.json(),
): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    let pause = 250 * 2 ** attempt
    try {
      const response = await fetch(url, {
        headers: { authorization: `Bearer ${token.reveal()}`, accept: 'application/json' },
        signal: AbortSignal.any([signal, AbortSignal.timeout(15_000)]),
      })
      if (response.ok) return await read(response) // or it broke off, or somebody else has answered
      const body: unknown = await response.json().catch(() => ({}))
      if (attempt === ATTEMPTS || (response.status !== 429 && response.status < 500))
        throw new ApiError(response.status, messageOf(body) ?? response.statusText)
      pause = Math.min(Number(response.headers.get('retry-after')) * 1000 || pause, 60_000)
    } catch (error) {
      if (error instanceof ApiError || signal.aborted) throw error
      if (attempt === ATTEMPTS)
        throw new Failure({
          found: `${new URL(url).host} could not be reached: ${reasonOf(error)}`,
          next: `curl -sS -o /dev/null -w '%{http_code}\\n' ${new URL(url).origin}`,
        })
    }
    await sleep(pause, undefined, { signal })
  }
}

const problem = z.union([
  z.object({ message: z.string() }),
  z.object({ errors: z.array(z.object({ message: z.string() })).check(z.minLength(1)) }),
])

const messageOf = (body: unknown): string | undefined => {
  const told = problem.safeParse(body)
  if (!told.success) return undefined
  return 'message' in told.data ? told.data.message : told.data.errors.map((error) => error.message).join('; ')
}

const reasonOf = (error: unknown): string => {
  const { cause, message } = error as Error & { cause?: { code?: string; message?: string } }
  return cause?.code ?? cause?.message ?? message
}

/** @param path '/v2/…'. @returns DigitalOcean's answer; throws an ApiError where that is no success */
export const askDigitalocean = ({ credentials, signal }: Providers, path: string) =>
  get(credentials.digitalocean.url + path, credentials.digitalocean.token, signal)

/**
 * @param cluster id of a Kubernetes cluster
 * @returns text of a kubeconfig whose token is valid for some days:
 *   https://docs.digitalocean.com/reference/api/digitalocean/#tag/Kubernetes/operation/kubernetes_get_kubeconfig
 */
export const kubeconfigOf = async ({ credentials: { digitalocean }, signal }: Providers, cluster: string) =>
  String(
    await get(`${digitalocean.url}/v2/kubernetes/clusters/${cluster}/kubeconfig`, digitalocean.token, signal, (it) =>
      it.text(),
    ),
  )

const balancersSchema = z.object({
  load_balancers: z.array(z.object({ name: z.string(), ip: z.optional(z.nullable(z.string())) })),
})

/** @returns the address of the load balancer of that name; undefined where there is none, or none yet */
export async function loadBalancerAddress(providers: Providers, name: string): Promise<string | undefined> {
  const answer = balancersSchema.parse(await askDigitalocean(providers, '/v2/load_balancers?per_page=200'))
  return answer.load_balancers.find((one) => one.name === name)?.ip || undefined
}

const recordsSchema = z.object({ result: z.array(z.object({ content: z.string() })) })

/** @returns the addresses that a name of the zone has */
export async function recordedAddresses(providers: Providers, zoneId: string, name: string): Promise<string[]> {
  const path = `/zones/${zoneId}/dns_records?type=A&name=${encodeURIComponent(name)}`
  return recordsSchema.parse(await askCloudflare(providers, path)).result.map(({ content }) => content)
}

/** @param path '/zones/…'. @returns Cloudflare's answer; throws an ApiError where that is no success */
export const askCloudflare = ({ credentials, signal }: Providers, path: string) =>
  get(credentials.cloudflare.url + path, credentials.cloudflare.token, signal)

/** For .catch(): what is not there is undefined. */
export function unlessMissing(error: unknown): undefined {
  if (error instanceof ApiError && error.status === 404) return undefined
  throw error
}

const accountSchema = z.object({
  account: z.object({
    email: z.string(),
    status: z.string(),
    status_message: z.optional(z.string()),
    droplet_limit: z.number(),
  }),
})

/** @returns the account behind the token, and how many droplets it may have */
export const account = async (providers: Providers) =>
  accountSchema.parse(await askDigitalocean(providers, '/v2/account')).account

const totalSchema = z.object({ meta: z.object({ total: z.number() }) })

/** @returns how many droplets the account has, clusters' nodes among them; with a tag only those that carry it */
export const dropletCount = async (providers: Providers, tag?: string) =>
  totalSchema.parse(await askDigitalocean(providers, `/v2/droplets?per_page=1${tag ? `&tag_name=${tag}` : ''}`)).meta
    .total

const balanceSchema = z.object({ month_to_date_usage: z.string() })

/** @returns US dollars that the account has used up since the month began */
export const monthToDateUsage = async (providers: Providers) =>
  Number(balanceSchema.parse(await askDigitalocean(providers, '/v2/customers/my/balance')).month_to_date_usage)

const sizesSchema = z.object({
  sizes: z.array(z.object({ slug: z.string(), price_monthly: z.number() })),
})

/** @returns US dollars a month by droplet size; a cluster's nodes cost the same */
export async function dropletPrices(providers: Providers): Promise<Record<string, number>> {
  const { sizes } = sizesSchema.parse(await askDigitalocean(providers, '/v2/sizes?per_page=200'))
  return Object.fromEntries(sizes.map((size) => [size.slug, size.price_monthly]))
}

const zoneSchema = z.object({ result: z.object({ name: z.string(), status: z.string() }) })

/** @returns the zone's name and status, as the Cloudflare token may see it */
export const zone = async (providers: Providers, id: string) =>
  zoneSchema.parse(await askCloudflare(providers, `/zones/${id}`)).result

const serversSchema = z.object({ result: z.object({ name_servers: z.array(z.string()) }) })

/** @returns names of the name servers that answer for the zone */
export const nameServers = async (providers: Providers, id: string) =>
  serversSchema.parse(await askCloudflare(providers, `/zones/${id}`)).result.name_servers
