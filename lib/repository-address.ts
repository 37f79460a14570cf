// Where the site's repository is: hosted by its own Gitea, or by somebody else.
import { POSTGRES_FILE } from './credentials.ts'
import { SSH_KEY } from './droplet.ts'
import { posixQuote } from './exec.ts'
import { Failure } from './failure.ts'
import { knownAs, sshArguments } from './host-keys.ts'
import type { Outputs } from './outputs.ts'
import { PLAIN_SSH } from './repository.ts'
import type { Run } from './run.ts'
import type { Site } from './site.ts'

/** As ansible/roles/gitea has it. */
const PORT = 2222

export const gitHost = ({ domain }: Pick<Site, 'domain'>) => ({ host: `git-ssh.${domain}`, port: PORT })

/** @returns whose it is and what it is called in Gitea; undefined where it is somewhere else */
export function hostedRepository(
  site: Pick<Site, 'domain' | 'repository'>,
): { owner: string; name: string } | undefined {
  const { host, port } = gitHost(site)
  const [before, path = ''] = site.repository.split(`ssh://git@${host}:${port}/`)
  const [, owner, name] = /^([\w.-]+)\/([\w.-]+)\.git$/.exec(path) ?? []
  return before === '' && owner && name ? { owner, name } : undefined
}

/**
 * @returns the repository as Argo CD has it: where Gitea hosts it under the host name of its pages, since only for those
 *   does a webhook count (argo-cd/util/webhook, GetWebURLRegex)
 */
export function argocdRepository(site: Pick<Site, 'domain' | 'repository'>): string {
  const hosted = hostedRepository(site)
  return hosted ? `ssh://git@git.${site.domain}:${PORT}/${hosted.owner}/${hosted.name}.git` : site.repository
}

/**
 * @returns the command by which Git reaches the repository's host. That of Gitea is found by its address, which needs no
 *   DNS, and known by its key; pods find it by its name, and what they know of it is where ssh looks by itself.
 */
export async function sshCommand(run: Run, outputs: () => Promise<Pick<Outputs, 'gitea'>>): Promise<string> {
  if (!hostedRepository(run.site) || run.environment[POSTGRES_FILE]) return PLAIN_SSH
  const { gitea } = await outputs()
  return giteaSsh(run.site, gitea.ip, run.environment[SSH_KEY])
}

/** @param key file of a private key, where no agent has it. @returns the command by which Git reaches Gitea at an address */
export function giteaSsh(site: Pick<Site, 'directory' | 'domain'>, address: string, key?: string): string {
  const place = { HostName: address, HostKeyAlias: knownAs(gitHost(site)) }
  return ['ssh', ...sshArguments(site, key, place).map(posixQuote)].join(' ')
}

/** @throws a Failure where Gitea does not host it */
export function requireHosted(site: Pick<Site, 'domain' | 'repository'>): { owner: string; name: string } {
  const found = hostedRepository(site)
  if (found) return found
  throw new Failure({ found: `the site’s repository is ${site.repository}`, expected: 'one that Gitea hosts' })
}
