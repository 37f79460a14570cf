// SSH to a host whose key is known beforehand: commands, files as streams, and tunnels.
import { readFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { NodeSSH, type Config as SshConfig } from 'node-ssh'
import type { ClientChannel } from 'ssh2'
import SftpClient from 'ssh2-sftp-client'
import { eachLine, lastLines, posixQuote } from './exec.ts'
import { Failure, tell } from './failure.ts'
import { fingerprint, type HostKey, knownAs, knownKeys, type SshTarget } from './host-keys.ts'
import type { Run } from './run.ts'
import { redact } from './secret.ts'

export type RemoteCommand = {
  /** the program and its arguments; never a secret: other users of the host can read them */
  argv: readonly string[]
  /** standard input; the place for secrets */
  input?: string | Readable
  /** takes standard output as it comes, and is ended with it, or destroyed where the command fails; nothing of it is returned */
  output?: Writable
  /** seconds until the host ends it, and it fails; 600 unless told */
  timeout?: number
  /** called with each line of standard output as it comes */
  onLine?: (line: string) => void
  /** exit codes that are answers and not failures; [0] unless told */
  codes?: readonly number[]
  /** one command that helps when this one fails */
  next?: string
}

export type Tunnel = {
  /** of 127.0.0.1 */
  port: number
  close: () => Promise<void>
}

export type Ssh = {
  /** @returns exit code and output; throws a Failure with the last 20 lines when the command fails */
  run: (command: RemoteCommand) => Promise<{ code: number; stdout: string; stderr: string }>
  /**
   * Writes a file, whole or not at all. SFTP waits for an answer to each 64 KiB: what is large goes through a command.
   *
   * @param mode of the file, such as 0o600
   */
  upload: (source: Readable, path: string, mode: number) => Promise<void>
  /** Reads a file into a stream, which is ended when all of it is there, and destroyed where it is not. */
  download: (path: string, target: Writable) => Promise<void>
  /** @returns a port through which the host's network reaches another host: connections end with this one's */
  tunnel: (host: string, port: number) => Promise<Tunnel>
  close: () => Promise<void>
}

/** Milliseconds that a connection may take, and between two questions whether the host is still there; it is asked thrice. */
const CONNECT = 15_000
const ALIVE = 10_000

/** Whatever happens to a connection is told by what it is used for. */
const QUIET = { error: () => {}, end: () => {}, close: () => {} }

/** RSA keys sign in newer ways than the one that their type is named for. */
const SIGNATURES: Record<string, string[]> = { 'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'] }

/**
 * Connects with an agent's keys (SSH_AUTH_SOCK) or a private key's file.
 *
 * @param options.knownHosts a file as OpenSSH's, of which the host's keys are taken
 * @param options.identity file of a private key, where there is no agent; without a passphrase
 * @param options.learn one command that has the host's keys known, for who has none yet
 * @throws Failure where the host does not answer, lets nobody in, or shows a key that is not known
 */
export async function openSsh(
  run: Pick<Run, 'exec' | 'environment' | 'signal'>,
  target: SshTarget,
  options: { knownHosts: string; identity?: string | undefined; learn: string },
): Promise<Ssh> {
  const known = await knownKeys(run.exec, options.knownHosts, target)
  const configure = () => configOf(run, target, { ...options, known })
  const connected = async <T>(connect: (config: SshConfig) => Promise<T>): Promise<T> => {
    const { config, found } = configure()
    try {
      return await connect(config)
    } catch (error) {
      throw explain(error as Error, target, { ...options, known, found: found() })
    }
  }
  const client = new NodeSSH()
  await connected((config) => client.connect(config))
  client.connection?.on('error', () => {}) // told by what it was used for
  client.connection?.setNoDelay(true) // what goes through a tunnel waits for answers
  const open = new Set<() => Promise<unknown>>()
  const close = async () => {
    await Promise.all([...open].map((end) => end()))
    client.dispose()
  }
  /** @param work gets a signal that is aborted when the connection is gone, or the run is interrupted */
  const sftp = async (what: string, work: (files: SftpClient, gone: AbortSignal) => Promise<void>): Promise<void> => {
    const files = new SftpClient(`sftp ${target.host}`, QUIET)
    await connected((config) => files.connect(config as SftpClient.ConnectOptions))
    const gone = new AbortController()
    const abort = () => gone.abort()
    for (const event of ['end', 'close'] as const) files.on(event, abort)
    run.signal.addEventListener('abort', abort)
    try {
      await work(files, gone.signal)
    } catch (error) {
      if (!gone.signal.aborted) throw error
      const reason = run.signal.aborted ? 'was interrupted' : 'was cut off: the connection is gone'
      throw new Failure({ found: `${what} ${target.host} ${reason}` })
    } finally {
      run.signal.removeEventListener('abort', abort)
      await files.end().catch(() => {})
    }
  }
  return {
    run: (command) => runCommand(client, run.signal, target, command),
    upload: (source, path, mode) => {
      source.on('error', () => {}) // it may fail before anybody reads it, and is then told by the first who does
      return sftp(`${path} to`, (files, gone) => upload(files, source, path, { mode, signal: gone }))
    },
    download: (path, into) =>
      sftp(`${path} from`, (files, gone) => pipeline(files.createReadStream(path), into, { signal: gone })),
    tunnel: async (host, port) => {
      const tunnel = await openTunnel(client, host, port)
      open.add(tunnel.close)
      return tunnel
    },
    close,
  }
}

/** @returns how to connect, and of the key that the host has shown since, if it has */
function configOf(
  { environment }: Pick<Run, 'environment'>,
  { host, port, user }: SshTarget,
  { known, identity }: { known: readonly HostKey[]; identity?: string | undefined },
): { config: SshConfig; found: () => Buffer | undefined } {
  let shown: Buffer | undefined
  const types = [...new Set(known.map(({ type }) => type))].flatMap((type) => SIGNATURES[type] ?? [type])
  const agent = environment.SSH_AUTH_SOCK
  const config: SshConfig = {
    ...{ host, port, username: user, readyTimeout: CONNECT, keepaliveInterval: ALIVE, keepaliveCountMax: 3 },
    ...(identity ? { privateKey: readFileSync(identity, 'utf8') } : agent ? { agent } : {}),
    // Of several keys the host shows the one that it is asked for.
    ...(types.length > 0 ? { algorithms: { serverHostKey: types as never } } : {}),
    hostVerifier: (key: Buffer) => {
      shown = key
      return known.some((one) => one.key.equals(key))
    },
  }
  return { config, found: () => shown }
}

function explain(
  error: Error,
  target: SshTarget,
  {
    known,
    found,
    knownHosts,
    learn,
  }: { known: readonly HostKey[]; found: Buffer | undefined; knownHosts: string; learn: string },
): Failure {
  const at = `${target.user}@${knownAs(target)}`
  if (found && !known.some(({ key }) => key.equals(found)))
    return known.length === 0
      ? new Failure({
          found: `${knownAs(target)} shows the host key ${fingerprint(found)}, and none is known of it`,
          expected: `its key in ${knownHosts}, learnt over a way that nobody else can answer on`,
          next: learn,
        })
      : new Failure({
          found: `${knownAs(target)} shows the host key ${fingerprint(found)}`,
          expected: `${known.map(({ key }) => fingerprint(key)).join(' or ')}, as ${knownHosts} has it: somebody may be answering in its place`,
          next: `ask whoever made the host anew; where nobody has, do not connect. If it is right: ssh-keygen -R '${knownAs(target)}' -f ${knownHosts}, then ${learn}`,
        })
  if (/authentication methods failed/.test(error.message))
    return new Failure({
      found: `${at} lets none of the keys in`,
      expected: 'one of operator_ssh_keys of the site file, in the agent (SSH_AUTH_SOCK) or as a file',
      next: `ssh-add -l, then ssh -o UserKnownHostsFile=${knownHosts} -p ${target.port} ${target.user}@${target.host} true`,
    })
  return new Failure({
    found: `${at} cannot be reached: ${error.message}`,
    expected: 'SSH to answer',
    next: `ssh -v -o UserKnownHostsFile=${knownHosts} -p ${target.port} ${target.user}@${target.host} true`,
  })
}

/** Seconds between asking a command that takes too long to end, and ending it. */
const FAREWELL = 10

async function runCommand(
  client: NodeSSH,
  signal: AbortSignal,
  target: SshTarget,
  { argv, input, output, timeout = 600, onLine, codes = [0], next }: RemoteCommand,
) {
  const title = redact(argv.join(' '))
  // The host itself ends it in time, and says under which id it runs: sshd passes no signals on to what root runs.
  const limited = ['timeout', `--kill-after=${FAREWELL}`, String(timeout), ...argv]
  const { channel, closed } = await openChannel(client, `echo $$ >&2; exec ${limited.map(posixQuote).join(' ')}`)
  const printed: Buffer[] = []
  const said: Buffer[] = []
  const errors = () => Buffer.concat(said).toString()
  const interrupt = () => {
    const pid = /^(\d+)\n/.exec(errors())?.[1]
    if (pid) void client.execCommand(`kill -INT ${pid}`).catch(() => {}) // the connection is gone as well
  }
  channel.on('error', () => {}) // told by how it ended
  channel.stderr.on('data', (chunk: Buffer) => {
    said.push(chunk)
    if (signal.aborted) interrupt()
  })
  if (onLine) eachLine(channel, onLine)
  if (output) channel.pipe(output, { end: false })
  else channel.on('data', (chunk: Buffer) => printed.push(chunk))
  signal.addEventListener('abort', interrupt)
  let broken: unknown
  let code: number | null
  try {
    if (input instanceof Readable)
      await pipeline(input, channel).catch((error: unknown) => {
        broken = error
        interrupt()
      })
    else channel.end(input)
    code = await closed
  } finally {
    signal.removeEventListener('abort', interrupt)
  }
  const [stdout, stderr] = [Buffer.concat(printed).toString(), errors().replace(/^\d+\n/, '')]
  if (code !== null && codes.includes(code) && !broken) {
    output?.end()
    return { code, stdout, stderr }
  }
  const reason = signal.aborted
    ? 'was interrupted'
    : code === 124 || code === 137
      ? `did not end within ${timeout} s`
      : code === null
        ? 'was cut off: the connection is gone'
        : code !== 0
          ? `exited ${code}`
          : `was not given all of its input: ${tell(broken).found}`
  const failure = new Failure({
    found: `\`${title}\` on ${target.host} ${reason}${lastLines(stderr.trim() || stdout)}`,
    ...(next ? { next } : {}),
  })
  output?.destroy(failure)
  throw failure
}

type Channel = {
  channel: ClientChannel
  /** the exit code, when it has ended and all that it said was read; null where it was cut off, or ended by a signal */
  closed: Promise<number | null>
}

const openChannel = ({ connection }: NodeSSH, command: string) =>
  new Promise<Channel>((resolve, reject) => {
    if (!connection) return reject(new Failure({ found: 'the connection is closed', expected: 'an open one' }))
    connection.exec(command, (error, channel) => {
      if (error) return reject(error)
      // At once: the host may have told of its end in the very packet that told of its beginning.
      let code: number | null = null
      channel.once('exit', (status: number | null) => {
        code = status
      })
      resolve({ channel, closed: new Promise((end) => channel.once('close', () => end(code))) })
    })
  })

/** Beside its place first: a connection that is cut leaves what was there before. */
async function upload(
  files: SftpClient,
  source: Readable,
  path: string,
  { mode, signal }: { mode: number; signal: AbortSignal },
): Promise<void> {
  const partial = join(dirname(path), `.${basename(path)}.partial`)
  try {
    await pipeline(source, files.createWriteStream(partial, { mode }), { signal })
    await files.posixRename(partial, path)
  } catch (error) {
    if (!signal.aborted) await files.delete(partial, true).catch(() => {})
    throw error
  }
}

async function openTunnel(client: NodeSSH, host: string, port: number): Promise<Tunnel> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    client.forwardOut('127.0.0.1', socket.remotePort ?? 0, host, port).then(
      (channel) => {
        channel.on('error', () => socket.destroy())
        channel.once('close', () => socket.destroy())
        socket.once('close', () => channel.close())
        socket.pipe(channel).pipe(socket)
      },
      () => socket.destroy(),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  const close = () =>
    new Promise<void>((resolve) => {
      for (const socket of sockets) socket.destroy()
      server.close(() => resolve())
    })
  return { port: typeof address === 'object' && address ? address.port : 0, close }
}
