// The Git repository over SSH, for those who know no path of this machine: Argo CD in the cluster. It stands where Gitea
// will; the protocol is real, and who may read is said by a public key.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import ssh2, { type Connection, type ParsedKey, type ServerChannel } from 'ssh2'

/** As Gitea's, of which the droplet publishes it. */
export const GIT_SSH_PORT = 2222

export type GitRepository = {
  /** path of Git */
  git: string
  /** file of the host's private key, in OpenSSH's form */
  hostKey: string
  directory: string
  /** by which it is asked for: '/ryan/lunarfront-infra.git' */
  path: string
  /** file with the public keys that may read, one a line; looked at anew at each connection, and it may not be there yet */
  readers: string
}

export type GitServer = { port: number; close: () => Promise<void> }

/** Serves on a free port of 127.0.0.1. */
export function startGitServer(repository: GitRepository): Promise<GitServer> {
  const open = new Set<Connection>()
  const server = new ssh2.Server({ hostKeys: [readFileSync(repository.hostKey)] }, (client) => {
    open.add(client)
    client.once('close', () => open.delete(client))
    client.on('error', () => {}) // whoever is gone needs no answer
    client.on('authentication', (attempt) => {
      if (attempt.method !== 'publickey') return attempt.reject(['publickey'])
      const key = readers(repository.readers).find(
        (one) => one.type === attempt.key.algo && one.getPublicSSH().equals(attempt.key.data),
      )
      const { blob, signature, hashAlgo } = attempt
      if (!key || attempt.username !== 'git') return attempt.reject(['publickey'])
      // Without a signature it is only asked whether the key would do.
      if (!signature || (blob && key.verify(blob, signature, hashAlgo) === true)) attempt.accept()
      else attempt.reject(['publickey'])
    })
    client.on('ready', () =>
      client.on('session', (accept) =>
        accept()
          .on('env', (acceptIt) => acceptIt?.())
          .on('exec', (acceptIt, _reject, { command }) => serve(acceptIt(), command, repository)),
      ),
    )
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () =>
      resolve({
        port: (server.address() as AddressInfo).port,
        close: async () => {
          for (const client of open) client.end()
          await new Promise<void>((done) => server.close(() => done()))
        },
      }),
    )
  })
}

function readers(file: string): ParsedKey[] {
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => ssh2.utils.parseKey(line))
      .filter((key): key is ParsedKey => !(key instanceof Error))
  } catch {
    return []
  }
}

/** Only reading: what a runbook pushes goes to the repository itself. */
function serve(channel: ServerChannel, command: string, { git, directory, path }: GitRepository): void {
  const [, asked] = /^git[- ]upload-pack '(.*)'$/.exec(command) ?? []
  if (asked !== path) {
    channel.stderr.write(`there is no ${command} here\n`)
    channel.exit(128)
    channel.end()
    return
  }
  const child = spawn(git, ['upload-pack', directory], { stdio: ['pipe', 'pipe', 'pipe'] })
  channel.pipe(child.stdin)
  child.stdin.on('error', () => {}) // it has had enough
  child.stdout.pipe(channel, { end: false })
  child.stderr.pipe(channel.stderr, { end: false })
  child.once('close', (code) => {
    channel.exit(code ?? 1)
    channel.end()
  })
  channel.once('close', () => child.kill())
}
