// Passes TCP connections on, byte by byte, as a load balancer does that leaves TLS to what is behind it.
import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'

export type ForwardOptions = {
  /** A Unix socket, or a TCP port: 0 for a free one; one below 1024 is root's. */
  listen: { path: string } | { host: string; port: number }
  /** A Unix socket, which knows no reset, or a TCP port. */
  connect: { path: string } | { host: string; port: number }
}

/** The port is that of TCP, 0 for a socket. */
export type Forward = { port: number; close: () => Promise<void> }

/** Further ones are turned away: each takes two file descriptors, and up to some hundred KiB. */
const MOST_CONNECTIONS = 1_000

/** Milliseconds of silence until a peer is asked whether it is still there: how one is noticed that left unheard. */
const KEEP_ALIVE = 30_000

/**
 * Forwards until it is closed, which breaks the connections off that are open.
 * @returns where it listens; rejects where it cannot, with the system's error
 */
export async function startForward({ listen, connect }: ForwardOptions): Promise<Forward> {
  /** What breaks each connection off. */
  const open = new Set<() => void>()
  const settings = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE }
  const server = createServer(settings, (client) => {
    const target = createConnection({ ...connect, ...settings })
    const breakOff = join(client, target)
    open.add(breakOff)
    const closing = () => void (client.closed && target.closed && open.delete(breakOff))
    for (const socket of [client, target]) socket.once('close', closing)
  })
  server.maxConnections = MOST_CONNECTIONS
  server.listen(listen)
  await once(server, 'listening')
  server.on('error', console.error)
  const address = server.address() as AddressInfo | string
  const closed = new Promise<void>((resolve) => server.once('close', () => resolve()))
  const close = async () => {
    server.close()
    for (const breakOff of open) breakOff()
    await closed
  }
  return { port: typeof address === 'string' ? 0 : address.port, close }
}

/**
 * What one side sends goes to the other no faster than that one reads, and so does that it has no more to send. A side
 * that breaks off breaks the other off: an ordinary end would look as if all had been sent.
 * @returns what breaks both off
 */
function join(client: Socket, target: Socket): () => void {
  client.pipe(target)
  target.pipe(client)
  const breakOff = () => [client, target].forEach(reset)
  client.on('error', breakOff)
  target.on('error', breakOff)
  return breakOff
}

/** A Unix socket, and one that is not connected yet, cannot say more than that it ends. */
function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined) socket.destroy()
  else socket.resetAndDestroy()
}
