// Passes TCP connections on, byte by byte, as a load balancer does that leaves TLS to what is behind it.
import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'

export type ForwardOptions = {
  /** Port 0 for a free one; a port below 1024 is root's. */
  listen: { path: string } | { host: string; port: number }
  /** Asked anew for each connection where it is a function; where that knows none, the connection is broken off. */
  connect: Target | (() => Target | undefined)
}

/** A Unix socket, which knows no reset, or a TCP port; `localAddress`: from where it is reached. */
export type Target = { path: string } | { host: string; port: number; localAddress?: string }

/** @returns a port of this machine's loopback */
export const loopback = (port: number): Target => ({ host: '127.0.0.1', port })

/** Where it listens on TCP; port 0 for a Unix socket. */
export type Forward = { host: string; port: number; close: () => Promise<void> }

/** Further ones are turned away: each takes two file descriptors, and up to some hundred KiB. */
const MOST_CONNECTIONS = 1_000

/**
 * Milliseconds of silence after one side has said that it has no more to send: it may wait for an answer, or be gone, and
 * that only shows when something is sent to it.
 */
const HALF_OPEN = 300_000

/**
 * Forwards until it is closed, which breaks the connections off that are open.
 * @returns where it listens; rejects where it cannot, with the system's error
 */
export async function startForward({ listen, connect }: ForwardOptions): Promise<Forward> {
  const open = new Set<Socket>()
  const settings = { allowHalfOpen: true, noDelay: true }
  const server = createServer(settings, (client) => {
    const to = typeof connect === 'function' ? connect() : connect
    if (!to) return breakOff(client)
    const target = createConnection({ ...to, ...settings })
    for (const socket of [client, target]) {
      open.add(socket)
      socket.once('close', () => open.delete(socket))
    }
    join(client, target)
  })
  server.maxConnections = MOST_CONNECTIONS
  server.listen(listen)
  await once(server, 'listening')
  server.on('error', console.error)
  const bound = server.address() as AddressInfo | string
  const closed = new Promise<void>((resolve) => server.once('close', () => resolve()))
  const close = async () => {
    server.close()
    for (const socket of open) breakOff(socket)
    await closed
  }
  const { address, port } = typeof bound === 'string' ? { address: '', port: 0 } : bound
  return { host: address, port, close }
}

/**
 * What one side sends goes to the other no faster than that one reads, and so does that it has no more to send. A side
 * that breaks off breaks the other off: an ordinary end would look as if all had been sent.
 */
function join(client: Socket, target: Socket): void {
  client.pipe(target)
  target.pipe(client)
  for (const [socket, other] of [
    [client, target],
    [target, client],
  ] as const) {
    socket.once('end', () => {
      client.setTimeout(HALF_OPEN)
      target.setTimeout(HALF_OPEN)
    })
    socket.once('timeout', () => {
      breakOff(socket)
      breakOff(other)
    })
    socket.on('error', () => {
      if (isEnding(other)) other.once('finish', () => breakOff(other))
      else breakOff(other)
    })
  }
}

/** All that was to be sent is known, and is on its way. */
const isEnding = ({ writableEnded, writableFinished }: Socket) => writableEnded && !writableFinished

/** Node can reset no connection that is ending (its handle would be lost), nor one that is not TCP or not there yet. */
function breakOff(socket: Socket): void {
  if (isEnding(socket) || socket.remoteFamily === undefined) socket.destroy()
  else socket.resetAndDestroy()
}
