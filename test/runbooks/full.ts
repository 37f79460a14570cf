// What the tests on a real cluster share: a full rehearsal in a temporary folder, and requests to customers' instances as
// their users make them.

import { execFileSync } from 'node:child_process'
import { Resolver } from 'node:dns/promises'
import { mkdtempSync, readFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bumpTag, makeImage } from '../../rehearsal/release.ts'
import { DOMAIN, siteDirectoryOf, startRehearsal } from '../../rehearsal/site.ts'
import { installClusterTools } from '../../rehearsal/tools/cluster.ts'
import { digitalocean, must, type Operator } from './operator.ts'

/** The first release of the application, which every customer runs. */
export const FIRST_RELEASE = '1.0.0'

/** A rehearsal with a cluster to come, in which nothing exists yet. */
export async function startEmptyFullOperator(): Promise<Operator> {
  const directory = mkdtempSync(join(tmpdir(), 'lunarfront-full-'))
  const cluster = await installClusterTools(console.log)
  const rehearsal = await startRehearsal({ directory, cluster })
  return { ...rehearsal, repository: join(directory, 'mirror.git'), kept: siteDirectoryOf(directory) }
}

/** What CI does before there is a customer; bootstrap has to have been run. */
export async function makeFirstRelease(operator: Operator): Promise<void> {
  await makeImage(operator, FIRST_RELEASE)
  await bumpTag(operator, FIRST_RELEASE)
}

/** A rehearsal with a cluster, bootstrapped and with a first release; half a minute to a minute. */
export async function startFullOperator(): Promise<Operator> {
  const operator = await startEmptyFullOperator()
  try {
    await must(operator, 'bootstrap', '--yes')
    await makeFirstRelease(operator)
    return operator
  } catch (error) {
    await operator.down()
    throw error
  }
}

/** kubectl on the site's cluster. @returns what it printed; throws where it fails */
export const kubectl = ({ env, kept }: Operator, ...args: string[]): string =>
  execFileSync('kubectl', [`--kubeconfig=${join(kept, 'kubeconfig')}`, ...args], {
    env,
    encoding: 'utf8',
    maxBuffer: 256 * 2 ** 20,
    stdio: ['ignore', 'pipe', 'pipe'],
  })

/** @returns the id of the site's cluster */
export async function clusterOf(operator: Operator): Promise<string> {
  const { kubernetes_clusters } = (await digitalocean(operator, 'GET', '/v2/kubernetes/clusters')) as {
    kubernetes_clusters: { id: string }[]
  }
  return kubernetes_clusters[0]?.id ?? ''
}

/** The cluster goes, with its load balancer and all that was only there. */
export const loseCluster = async (operator: Operator) =>
  digitalocean(
    operator,
    'DELETE',
    `/v2/kubernetes/clusters/${await clusterOf(operator)}/destroy_with_associated_resources/dangerous`,
  )

export type Answer = { status: number; body: Record<string, unknown> }

/** Asks a host of the domain as its users do: through DNS, and by its certificate. @returns its answer, as it came; rejects where there is none */
export async function askHost(
  { cloud, directory }: Operator,
  host: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string | Buffer } = {},
): Promise<{ status: number; body: string }> {
  const { method = 'GET', headers = {}, body } = options
  const resolver = new Resolver()
  resolver.setServers([`${cloud.dns.host}:${cloud.dns.port}`])
  const [address = ''] = await resolver.resolve4(host)
  return new Promise((resolve, reject) => {
    const asked = request({
      ...{ host: address, servername: host, path, method, timeout: 10_000, agent: false },
      ca: readFileSync(join(directory, 'issuers.crt')),
      headers: { host, ...headers },
    })
    asked.once('timeout', () => asked.destroy(new Error('no answer within 10 s')))
    asked.once('error', reject)
    asked.once('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.once('error', reject)
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
    })
    asked.end(body)
  })
}

/** Asks a customer's instance through DNS, load balancer and ingress. @returns its answer; rejects where there is none */
export async function ask(
  operator: Operator,
  customer: string,
  path: string,
  { body, token }: { body?: object; token?: string } = {},
): Promise<Answer> {
  const { status, body: text } = await askHost(operator, `${customer}.app.${DOMAIN}`, path, {
    method: body ? 'POST' : 'GET',
    headers: {
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    ...(body ? { body: JSON.stringify(body) } : {}),
  })
  try {
    return { status, body: JSON.parse(text) }
  } catch {
    return { status, body: { text } }
  }
}
