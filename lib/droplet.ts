// Gitea's droplet, and how it is reached: by SSH, and through it what only answers the private network.
import { GITEA_POSTGRES_FILE } from './credentials.ts'
import { posixQuote } from './exec.ts'
import { Failure } from './failure.ts'
import { knownHostsFile, type SshTarget, sshArguments } from './host-keys.ts'
import { type Outputs, readGiteaPostgresFile } from './outputs.ts'
import type { Server } from './postgres.ts'
import { once, type Run } from './run.ts'
import type { Ssh } from './ssh.ts'

/** Names a private key's file, where no agent holds the key (SSH_AUTH_SOCK). */
export const SSH_KEY = 'LUNARFRONT_SSH_KEY'

export type Droplet = {
  run: Run
  outputs: () => Promise<Outputs>
  /** a connection that lasts as long as the run, made when it is first asked for */
  ssh: () => Promise<Ssh>
  /** how a managed database is reached: it answers the droplet, and nobody who is not in the private network */
  wayTo: (server: Pick<Server, 'host' | 'port'>) => Promise<Pick<Server, 'tunnel'>>
  /** Gitea's own database, as Gitea's own user */
  giteaDatabase: () => Promise<Server>
  /** @returns the command by which a program of this machine runs another on the droplet */
  on: (argv: readonly string[]) => Promise<string[]>
}

export const targetOf = ({ gitea }: Pick<Outputs, 'gitea'>): SshTarget => ({ host: gitea.ip, port: 22, user: 'root' })

const LEARN = './runbooks/bootstrap.mts, which learns them over the private network'

export function openDroplet(run: Run, outputs: () => Promise<Outputs>): Droplet {
  const ssh = once(async () => {
    const options = { knownHosts: knownHostsFile(run.site), identity: run.environment[SSH_KEY], learn: LEARN }
    const { openSsh } = await import('./ssh.ts') // takes a while to load, and few runbooks need it
    const opened = await openSsh(run, targetOf(await outputs()), options)
    run.atEnd(opened.close)
    return opened
  })
  const file = run.environment[GITEA_POSTGRES_FILE]
  if (file) return openFromWithin(run, file)
  const tunnels = new Map<string, Promise<Pick<Server, 'tunnel'>>>()
  const openTunnel = async ({ host, port }: Pick<Server, 'host' | 'port'>) => ({
    tunnel: (await (await ssh()).tunnel(host, port)).port,
  })
  const wayTo: Droplet['wayTo'] = async (server) => {
    if (run.environment.PGHOSTADDR) return {} // said to be reached in another way
    const name = `${server.host}:${server.port}`
    const tunnel = tunnels.get(name) ?? openTunnel(server)
    tunnels.set(name, tunnel)
    tunnel.catch(() => tunnels.delete(name))
    return tunnel
  }
  return {
    run,
    outputs,
    ssh,
    wayTo,
    giteaDatabase: async () => {
      const { admin: _, ...server } = (await outputs()).giteaPostgres
      return { ...server, ...(await wayTo(server)) }
    },
    on: async (argv) => {
      const { host, user } = targetOf(await outputs())
      const known = sshArguments(run.site, run.environment[SSH_KEY])
      return ['ssh', ...known, `${user}@${host}`, argv.map(posixQuote).join(' ')]
    },
  }
}

/** What stands for the droplet in a container on it, which is given Gitea's Postgres in a file and has no other way. */
function openFromWithin(run: Run, file: string): Droplet {
  const elsewhere = async (): Promise<never> => {
    throw new Failure({
      found: `${GITEA_POSTGRES_FILE} is set, as on Gitea’s droplet`,
      expected: 'a machine that knows all of the platform',
      next: 'run it on yours',
    })
  }
  return {
    ...{ run, outputs: elsewhere, ssh: elsewhere, wayTo: async () => ({}) },
    giteaDatabase: async () => readGiteaPostgresFile(file),
    on: async (argv) => ['nsenter', '--target', '1', '--mount', '--uts', '--ipc', '--net', '--pid', '--', ...argv],
  }
}
