// The TCP forwarder: all of it, both ways, half-closed, slow, broken off, and nothing left afterwards.
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Forward, type ForwardOptions, startForward } from '../../rehearsal/servers/forward.ts'
import { until } from './cloud.ts'

type Context = { directory: string; undo: (() => Promise<unknown>)[] }
const test = suite<Context>('forward')

test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'forward-test-'))
  context.undo = []
})
test.after.each(async ({ directory, undo }) => {
  for (const step of undo.reverse()) await step()
  rmSync(directory, { recursive: true, force: true })
})

const MIB = 2 ** 20
const FREE = { host: '127.0.0.1', port: 0 }

/** Listens, and lets go of who is connected at the end. */
async function serve({ undo }: Context, handle: (socket: Socket) => void, path?: string): Promise<Server> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket.on('error', () => {}))
    handle(socket)
  })
  server.listen(path ?? FREE)
  await once(server, 'listening')
  undo.push(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return server
}

/** A forwarder, and a server behind it. */
async function forwardTo(context: Context, handle: (socket: Socket) => void): Promise<Forward> {
  const { port } = (await serve(context, handle)).address() as AddressInfo
  return forward(context, { host: '127.0.0.1', port })
}

async function forward({ undo }: Context, target: ForwardOptions['connect']): Promise<Forward> {
  const started = await startForward({ listen: FREE, connect: target })
  undo.push(started.close)
  return started
}

async function client({ undo }: Context, { host, port }: Forward): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true })
  undo.push(async () => socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** @returns the code of the error that the socket ends with, 'end' when it ends without one */
const howItEnds = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    socket.once('error', ({ code = '' }: NodeJS.ErrnoException) => resolve(code))
    socket.once('close', () => resolve('end'))
    socket.resume()
  })

/** Random bytes, and what they add up to. */
function bytes(size: number) {
  const hash = createHash('sha256')
  const block = randomBytes(MIB)
  async function* blocks() {
    for (let left = size; left > 0; left -= MIB) {
      const part = block.subarray(0, Math.min(left, MIB))
      hash.update(part)
      yield part
    }
  }
  return { source: Readable.from(blocks()), sum: () => hash.digest('hex') }
}

/** Reads to the end, and leaves what the socket still writes alone, as `for await` would not. */
const readTo = (socket: Socket, take: (chunk: Buffer) => unknown): Promise<unknown> =>
  once(socket.on('data', take).resume(), 'end')

async function sumOf(socket: Socket): Promise<string> {
  const hash = createHash('sha256')
  await readTo(socket, (chunk) => hash.update(chunk))
  return hash.digest('hex')
}

async function textOf(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  await readTo(socket, (chunk) => chunks.push(chunk))
  return String(Buffer.concat(chunks))
}

const sendAll = (source: Readable, socket: Writable) => pipeline(source, socket)

for (const over of ['TCP', 'a Unix socket'])
  test(`100 MiB each way at once, to ${over}`, async (context) => {
    const answer = bytes(100 * MIB + 17)
    let received: Promise<string> | undefined
    const handle = (socket: Socket) => {
      received = sumOf(socket)
      void sendAll(answer.source, socket)
    }
    const path = join(context.directory, 'socket')
    const server = await serve(context, handle, over === 'TCP' ? undefined : path)
    const { port } = server.address() as AddressInfo
    const to = await forward(context, over === 'TCP' ? { host: '127.0.0.1', port } : { path })
    const socket = await client(context, to)
    const question = bytes(100 * MIB + 3)
    const [, answered] = await Promise.all([sendAll(question.source, socket), sumOf(socket)])
    assert.is(answered, answer.sum())
    assert.is(await received, question.sum())
  })

test('a side that has no more to send is still answered', async (context) => {
  const to = await forwardTo(context, (socket) => {
    void textOf(socket).then(async (all) => {
      await sleep(50)
      socket.end(`${all.length} bytes`)
    })
  })
  const asking = await client(context, to)
  asking.end(Buffer.alloc(3 * MIB))
  assert.is(await textOf(asking), `${3 * MIB} bytes`)

  let received: Promise<string> | undefined
  const greeting = await forwardTo(context, (socket) => {
    socket.end('bye')
    received = textOf(socket)
  })
  const greeted = await client(context, greeting)
  assert.is(await textOf(greeted), 'bye')
  greeted.end('not yet')
  assert.is(await received, 'not yet')
})

test('who does not read makes the sender wait, and loses nothing', async (context) => {
  let target: Socket | undefined
  const to = await forwardTo(context, (socket) => {
    target = socket.pause()
  })
  const socket = await client(context, to)
  const all = bytes(256 * MIB)
  const sent = sendAll(all.source, socket)
  const taken = () => socket.bytesWritten - socket.writableLength
  await until(
    async () => {
      const before = taken()
      await sleep(200)
      return taken() - before
    },
    (more) => more === 0,
  )
  assert.ok(taken() < 64 * MIB, `${taken()} bytes were taken that nobody reads`)
  assert.ok(process.memoryUsage().arrayBuffers < 64 * MIB)
  const [sum] = await Promise.all([sumOf(target as Socket), sent])
  assert.is(sum, all.sum())
})

test('nobody behind it: the client is broken off, and the next one can be served', async (context) => {
  const server = await serve(context, (socket) => socket.end('here'))
  const { port } = server.address() as AddressInfo
  const to = await forward(context, { host: '127.0.0.1', port })
  const absent = await forward(context, { path: join(context.directory, 'nobody') })
  assert.is(await howItEnds(await client(context, absent)), 'ECONNRESET')
  await new Promise((resolve) => server.close(resolve))
  assert.is(await howItEnds(await client(context, to)), 'ECONNRESET')
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  assert.is(await textOf(await client(context, to)), 'here')
})

test('a side that breaks off breaks the other off', async (context) => {
  const ends: Promise<string>[] = []
  const from = await forwardTo(context, (socket) => ends.push(howItEnds(socket)))
  const leaving = await client(context, from)
  leaving.write('half a quest')
  await until(
    async () => ends.length,
    (count) => count === 1,
  )
  leaving.resetAndDestroy()
  assert.is(await ends[0], 'ECONNRESET')

  const breaking = await forwardTo(context, (socket) => {
    socket.write('half an ans', () => setTimeout(() => socket.resetAndDestroy(), 20))
  })
  assert.is(await howItEnds(await client(context, breaking)), 'ECONNRESET')
})

const openSockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCPSocketWrap')).length

const isNone = (count: number) => count === 0

test('clients that vanish leave nothing behind', async (context) => {
  await until(async () => openSockets(), isNone)
  const to = await forwardTo(context, (socket) => socket.pipe(socket))
  const leave = async (n: number) => {
    const socket = connect(to.port, to.host).on('error', () => {})
    if (n % 4 > 0) await once(socket, 'connect')
    if (n % 4 > 1) socket.write(Buffer.alloc(MIB))
    if (n % 4 > 2) await once(socket, 'data')
    if (n % 8 > 3) socket.resetAndDestroy()
    else socket.destroy()
  }
  await Promise.all(Array.from({ length: 200 }, (_, n) => leave(n)))
  const send = `require('node:net').connect(${to.port}, '${to.host}').on('data', () => process.stdout.write('.')).write(Buffer.alloc(2 ** 26))`
  const child = spawn(process.execPath, ['-e', send])
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await until(async () => openSockets(), isNone)
  const socket = await client(context, to)
  socket.end('still there')
  assert.is(await textOf(socket), 'still there')
})

test('closed, it ends who is connected, and lets go of its port', async (context) => {
  const ends: Promise<string>[] = []
  const to = await forwardTo(context, (socket) => ends.push(howItEnds(socket)))
  const socket = await client(context, to)
  await until(
    async () => ends.length,
    (count) => count === 1,
  )
  const [ended] = await Promise.all([howItEnds(socket), to.close(), to.close()])
  assert.equal([ended, await ends[0]], ['ECONNRESET', 'ECONNRESET'])
  const again = await startForward({ listen: { host: to.host, port: to.port }, connect: { path: '/nowhere' } })
  try {
    await startForward({ listen: { host: to.host, port: to.port }, connect: { path: '/nowhere' } })
    assert.unreachable('the port is taken')
  } catch (error) {
    assert.is((error as NodeJS.ErrnoException).code, 'EADDRINUSE')
  }
  await again.close()
})

test.run()
