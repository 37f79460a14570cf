// What the tests of Gitea's droplet share: how an operator reaches it, and how Gitea's users do.
import { execFile } from 'node:child_process'
import { Resolver } from 'node:dns/promises'
import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { DOMAIN, dropletAddress } from '../../rehearsal/site.ts'
import { digitalocean, type Operator } from './operator.ts'

const exec = promisify(execFile)

export const knownHosts = ({ kept }: Operator) => join(kept, 'known_hosts')
export const address = ({ directory }: Operator) => dropletAddress(directory) ?? ''

/** @returns arguments of ssh, as an operator gives them */
export const ssh = (operator: Operator, ...options: string[]) => [
  ...['-i', join(operator.directory, 'operator'), '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes'],
  ...['-o', `UserKnownHostsFile=${knownHosts(operator)}`, '-o', 'StrictHostKeyChecking=yes', ...options],
  `root@${address(operator)}`,
]

/** @returns what the command prints on the droplet */
export const on = async (operator: Operator, command: string): Promise<string> =>
  (await exec('ssh', [...ssh(operator), command], { timeout: 60_000, maxBuffer: 64 * 2 ** 20 })).stdout.trim()

/** Asks Gitea, as its users do: at its name, by its certificate. */
export async function ask(
  { cloud, directory }: Operator,
  path: string,
  options: { host?: string; method?: string; headers?: Record<string, string>; body?: string | Buffer } = {},
): Promise<{ status: number; body: string; headers: Record<string, unknown> }> {
  const { host = `git.${DOMAIN}`, method = 'GET', headers = {}, body } = options
  const resolver = new Resolver()
  resolver.setServers([`${cloud.dns.host}:${cloud.dns.port}`])
  const [at = ''] = await resolver.resolve4(host)
  const ca = readFileSync(join(directory, 'issuers.crt'))
  return new Promise((resolve, reject) => {
    const asked = request({ host: at, servername: host, path, method, ca, agent: false, timeout: 20_000 })
    for (const [name, value] of Object.entries({ host, ...headers })) asked.setHeader(name, value)
    asked.once('timeout', () => asked.destroy(new Error('no answer within 20 s')))
    asked.once('error', reject)
    asked.once('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.once('error', reject)
      response.once('end', () => resolve({ status: response.statusCode ?? 0, body: text, headers: response.headers }))
    })
    asked.end(body)
  })
}

/** Waits, a minute at most, until it is true. */
export async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(250))
    if (await Promise.resolve(isTrue()).catch(() => false)) return
  throw new Error('it did not come true within a minute')
}

/** @returns the id of Gitea's droplet */
export async function dropletId(operator: Operator): Promise<number> {
  const { droplets } = (await digitalocean(operator, 'GET', '/v2/droplets')) as {
    droplets: { id: number; name: string }[]
  }
  return droplets.find(({ name }) => name.endsWith('-gitea'))?.id ?? 0
}
