// Whether a customer's instance, or Gitea, answers at its own address: through DNS, whatever is in front of it and its
// certificate, as its users reach it.
import { Resolver } from 'node:dns/promises'
import { request } from 'node:https'
import type { LookupFunction } from 'node:net'
import * as z from 'zod'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { nameServers } from './provider-api.ts'
import { once, type Run } from './run.ts'

/** Seconds that one request may take. */
const PATIENCE = 10

/**
 * The zone's own servers, unless the site names others: what was asked before a record was made is answered "there is no
 * such name" by all others for half an hour.
 */
async function openResolver(run: Run): Promise<Resolver> {
  const resolver = new Resolver({ timeout: 3000, tries: 3 })
  if (run.site.dns_servers) {
    resolver.setServers(run.site.dns_servers)
    return resolver
  }
  const names = await nameServers(run, run.site.cloudflare_zone_id)
  const addresses = await Promise.all(names.map((name) => resolver.resolve4(name).catch(() => [])))
  resolver.setServers(addresses.flat())
  return resolver
}

const versionSchema = z.object({ version: z.string() })
const healthSchema = z.object({ status: z.literal('pass') })

/**
 * @param address where the host is, as DNS says
 * @returns what it answers; rejects with the reason where that is not 200
 */
function ask(host: string, path: string, address: string, signal: AbortSignal): Promise<unknown> {
  const lookup: LookupFunction = (_name, { all }, callback) =>
    all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4)
  return new Promise((resolve, reject) => {
    const asked = request({ host, path, lookup, signal, timeout: PATIENCE * 1000, agent: false })
    asked.once('timeout', () => asked.destroy(new Error(`no answer within ${PATIENCE} s`)))
    asked.once('error', reject)
    asked.once('response', (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
        if (body.length > 10_000) response.destroy(new Error('a long answer'))
      })
      response.once('error', reject)
      response.once('end', () => {
        if (response.statusCode !== 200) return reject(new Error(`it answers ${response.statusCode}`))
        resolve(parse(body))
      })
    })
    asked.end()
  })
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** @param onVersion told the version that answers */
export const answersStep = (
  run: Run,
  host: string,
  { needs, onVersion = () => {} }: { needs: readonly AnyStep[]; onVersion?: (version: string) => void },
): Step =>
  addressStep(run, host, {
    ...{ needs, path: '/v1/version' },
    problem: (answer) => {
      const told = versionSchema.safeParse(answer)
      if (!told.success) return 'it answers 200, and not {"version": …}'
      onVersion(told.data.version)
      return undefined
    },
  })

/** Gitea itself, its database and its cache: https://docs.gitea.com/administration/config-cheat-sheet */
export const giteaAnswersStep = (run: Run, needs: readonly AnyStep[]): Step =>
  addressStep(run, `git.${run.site.domain}`, {
    ...{ needs, path: '/api/healthz' },
    problem: (answer) => (healthSchema.safeParse(answer).success ? undefined : 'it answers 200, and not that it is well'),
  })

/** @param options.problem of what is answered; undefined where it is as it should be */
function addressStep(
  run: Run,
  host: string,
  options: { path: string; problem: (answer: unknown) => string | undefined; needs: readonly AnyStep[] },
): Step {
  const { path, needs } = options
  const resolver = once(() => openResolver(run))
  const problem = async (): Promise<string | undefined> => {
    let address: string | undefined
    try {
      address = (await (await resolver()).resolve4(host))[0]
    } catch (error) {
      return `${host} is not in DNS: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`
    }
    try {
      const wrong = options.problem(await ask(host, path, address ?? '', run.signal))
      return wrong && `https://${host}${path} at ${address}: ${wrong}`
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      return `https://${host}${path} at ${address}: ${message || code}`
    }
  }
  return step<Drift>({
    title: `https://${host} answers`,
    needs,
    within: 60,
    check: async () => {
      const found = await problem()
      return found ? { lines: [found] } : undefined
    },
    // Nothing is left to do: the load balancer and the ingress may still be on their way.
    apply: async () => {},
  })
}
