// Host keys that are known beforehand, as OpenSSH keeps them: whoever shows another one is not talked to.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Exec } from './exec.ts'
import type { Site } from './site.ts'

/** What the site knows of hosts, as OpenSSH keeps it. */
export const knownHostsFile = ({ directory }: Pick<Site, 'directory'>) => join(directory, 'known_hosts')

/**
 * @param key file of a private key, where no agent has it
 * @param more options, by their names in ssh_config
 * @returns arguments of ssh: only hosts are talked to whose keys the site knows, and nobody is asked anything
 */
export function sshArguments(
  site: Pick<Site, 'directory'>,
  key: string | undefined,
  more: Record<string, string> = {},
): string[] {
  const options = {
    BatchMode: 'yes',
    UserKnownHostsFile: `"${knownHostsFile(site)}"`,
    GlobalKnownHostsFile: '/dev/null',
    StrictHostKeyChecking: 'yes',
    ConnectTimeout: '10',
    ServerAliveInterval: '10',
    ...(key ? { IdentityFile: `"${key}"`, IdentitiesOnly: 'yes' } : {}),
    ...more,
  }
  return Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])
}

/** Where a host is found, and as whom. */
export type SshTarget = {
  host: string
  port: number
  user: string
}

export type HostKey = {
  /** 'ssh-ed25519' */
  type: string
  key: Buffer
}

/** As known_hosts names it. */
export const knownAs = ({ host, port }: Pick<SshTarget, 'host' | 'port'>) => (port === 22 ? host : `[${host}]:${port}`)

/** @returns 'SHA256:…', as ssh-keygen -l prints it */
export const fingerprint = (key: Buffer) =>
  `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`

/** @returns the keys that are known of the host, hashed names too; none where the file is not there */
export async function knownKeys(
  exec: Exec,
  file: string,
  target: Pick<SshTarget, 'host' | 'port'>,
): Promise<HostKey[]> {
  if (!existsSync(file)) return []
  const { stdout } = await exec({ argv: ['ssh-keygen', '-F', knownAs(target), '-f', file], codes: [0, 1] })
  return stdout
    .split('\n')
    .filter((line) => line && !line.startsWith('#') && !line.startsWith('@'))
    .map((line) => line.trim().split(/\s+/))
    .map(([, type = '', base64 = '']) => ({ type, key: Buffer.from(base64, 'base64') }))
}
