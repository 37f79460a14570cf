// A real OpenSSH server for one test file, on a free port of loopback, with keys of its own: whoever runs the tests may
// sign in as themselves.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findTools } from '../rehearsal/tools.ts'

export type Sshd = {
  directory: string
  port: number
  user: string
  /** file of a private key that may sign in */
  identity: string
  /** a line of known_hosts */
  knownHost: string
  /** processes of its connections that are open */
  connections: () => number[]
  stop: () => Promise<void>
}

const generate = (path: string) =>
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', path])

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

/** @param options.port where the server before was, for another one in its place */
export async function startSshd(options: { port?: number } = {}): Promise<Sshd> {
  const { sshd } = await findTools(['sshd'])
  if (!sshd) throw new Error('missing: sshd; npm test installs it')
  const directory = mkdtempSync(join(tmpdir(), 'sshd-test-'))
  const file = (name: string) => join(directory, name)
  const port = options.port ?? (await freePort())
  for (const name of ['host', 'identity']) generate(file(name))
  writeFileSync(file('authorized_keys'), readFileSync(`${file('identity')}.pub`))
  writeFileSync(
    file('config'),
    [
      `ListenAddress 127.0.0.1:${port}`,
      ...[`HostKey ${file('host')}`, `PidFile none`, `AuthorizedKeysFile ${file('authorized_keys')}`],
      ...['StrictModes no', 'UsePAM no', 'PasswordAuthentication no', 'KbdInteractiveAuthentication no'],
      ...['PermitRootLogin prohibit-password', 'Subsystem sftp internal-sftp', 'AllowTcpForwarding yes', ''],
    ].join('\n'),
  )
  if (userInfo().uid === 0 && !existsSync('/run/sshd')) mkdirSync('/run/sshd', { mode: 0o755 })
  const child = spawn(sshd, ['-D', '-e', '-f', file('config')], { stdio: ['ignore', 'ignore', 'ignore'] })
  await answers(port, child)
  const [type, key] = readFileSync(`${file('host')}.pub`, 'utf8').split(' ')
  return {
    ...{ directory, port, user: userInfo().username, identity: file('identity') },
    knownHost: `[127.0.0.1]:${port} ${type} ${key}\n`,
    connections: () => childrenOf(child.pid ?? 0),
    stop: async () => {
      for (const pid of childrenOf(child.pid ?? 0)) process.kill(pid, 'SIGKILL')
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function childrenOf(pid: number): number[] {
  try {
    const printed = execFileSync('pgrep', ['--parent', String(pid)], { encoding: 'utf8' })
    return printed.trim().split('\n').map(Number)
  } catch {
    return [] // it has none
  }
}

async function answers(port: number, child: ChildProcess): Promise<void> {
  for (const end = Date.now() + 10_000; Date.now() < end; await sleep(20)) {
    if (child.exitCode !== null) throw new Error(`sshd ended with ${child.exitCode}`)
    const socket = createConnection({ host: '127.0.0.1', port })
    const isThere = await Promise.race([
      once(socket, 'data').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false)
    socket.destroy()
    if (isThere) return
  }
  throw new Error('sshd did not answer within 10 s')
}
