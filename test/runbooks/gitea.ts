// What the tests of Gitea's droplet share: how an operator reaches it, and how Gitea's users do.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { DOMAIN, dropletAddress } from '../../rehearsal/site.ts'
import { askHost } from './full.ts'
import { until as untilWithin } from './instances.ts'
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
export const ask = (
  operator: Operator,
  path: string,
  { host = `git.${DOMAIN}`, ...options }: { host?: string } & Parameters<typeof askHost>[3] = {},
) => askHost(operator, host, path, options)

/** Waits, a minute at most, until it is true; what fails is not true yet. */
export const until = (isTrue: () => boolean | Promise<boolean>): Promise<void> =>
  untilWithin('it did not come true', 60, () => Promise.resolve(isTrue()).catch(() => false))

/** @returns the id of Gitea's droplet */
export async function dropletId(operator: Operator): Promise<number> {
  const { droplets } = (await digitalocean(operator, 'GET', '/v2/droplets')) as {
    droplets: { id: number; name: string }[]
  }
  return droplets.find(({ name }) => name.endsWith('-gitea'))?.id ?? 0
}
