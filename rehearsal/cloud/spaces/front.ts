// Spaces: an S3 server, behind a front that adds what that server has not. Everything the server
// knows passes through as it came, so that signatures stay valid; objects are never held in memory.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Consequence, takeFault } from '../faults.ts'
import { type Listener, listen, logCall, type Traffic } from '../http.ts'
import { type SigningKey, sign } from './signature.ts'

export type Spaces = {
  /** Where the S3 server listens. */
  socket: string
  /** Slug of the region that every bucket is in. */
  region: string
  /** The S3 server's own host name: a bucket is a name under it. */
  virtualDomain: string
  /** What the front signs its own questions to the S3 server with. */
  signingKey: SigningKey
  /** By bucket, then by sub-resource: the XML that was put. */
  settings: Map<string, Map<SubResource, string>>
  /** Makes those wait for each other that create an object only if it is not there. */
  creations: Promise<unknown>
}

/** What Spaces keeps with a bucket and the S3 server answers with 501, after it has checked the signature. */
const SUB_RESOURCES = {
  lifecycle: {
    root: 'LifecycleConfiguration',
    absent: [404, 'NoSuchLifecycleConfiguration', 'The lifecycle configuration does not exist'],
  },
  logging: { root: 'BucketLoggingStatus', absent: undefined },
} as const
type SubResource = keyof typeof SUB_RESOURCES

/** Bytes; what is larger is an object, and streams. */
const LARGEST_HELD = 1024 * 1024

/** One request: both ends, and what it is about. */
type Exchange = {
  incoming: IncomingMessage
  outgoing: ServerResponse
  method: string
  /** Path and query as they came. */
  target: string
  query: URLSearchParams
  bucket: string
  key: string
  fault: Consequence | undefined
}

/** @returns path and query of a request; a client that takes the front for its proxy sends whole addresses */
const rawTarget = ({ url = '/' }: IncomingMessage) => url.replace(/^http:\/\/[^/?]*/, '').replace(/^(?!\/)/, '/')

/** @returns bucket and key, whether the bucket is in the path or in the host name */
function addressed({ virtualDomain }: Spaces, host: string, target: string): { bucket: string; key: string } {
  const path = target.replace(/\?.*$/s, '').slice(1)
  const name = host.replace(/:\d+$/, '')
  const [bucket = '', ...rest] = name.endsWith(`.${virtualDomain}`)
    ? [name.slice(0, -virtualDomain.length - 1), path]
    : path.split('/')
  return { bucket, key: rest.join('/') }
}

/** Serves Spaces until it is closed. */
export const serveSpaces = (spaces: Spaces, traffic: Traffic): Promise<Listener> =>
  listen(createServer((incoming, outgoing) => void serve(spaces, traffic, incoming, outgoing)))

async function serve(spaces: Spaces, traffic: Traffic, incoming: IncomingMessage, outgoing: ServerResponse) {
  const started = performance.now()
  const method = incoming.method ?? 'GET'
  const target = rawTarget(incoming)
  const { bucket, key } = addressed(spaces, incoming.headers.host ?? '', target)
  const query = new URL(target, 'http://spaces').searchParams
  // The same path whichever way the bucket was addressed, and no signature of an address that was signed.
  const path = `/${[bucket, key].filter(Boolean).join('/')}${query.has('X-Amz-Signature') ? '' : (/\?.*$/s.exec(target)?.[0] ?? '')}`
  const fault = takeFault(traffic.faults, 'spaces', method, path)
  outgoing.once('close', () =>
    logCall(traffic, { api: 'spaces', method, path, status: outgoing.headersSent ? outgoing.statusCode : 0, started }),
  )
  try {
    if (fault && 'delay_ms' in fault) await sleep(fault.delay_ms)
    if (fault && 'drop' in fault && fault.drop === true) incoming.socket.destroy()
    else if (fault && 'status' in fault) refuse({ incoming, outgoing }, fault.status, fault.retry_after)
    else await decide(spaces, { incoming, outgoing, method, target, query, bucket, key, fault })
  } catch (error) {
    console.error(`spaces: ${method} ${path}: ${(error as Error).message}`)
    // One of the two ends has gone: the other must not wait.
    incoming.socket.destroy()
    outgoing.destroy()
  }
}

function refuse({ incoming, outgoing }: Pick<Exchange, 'incoming' | 'outgoing'>, status: number, retryAfter?: number) {
  incoming.resume()
  const code = status === 403 ? 'AccessDenied' : status < 500 ? 'TooManyRequests' : 'SlowDown'
  const headers: Record<string, string> = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }
  sendError(outgoing, status, code, 'The rehearsed cloud was asked to fail.', headers)
}

/** Who answers: the front where the S3 server cannot, else that server. */
async function decide(spaces: Spaces, exchange: Exchange): Promise<void> {
  const { incoming, method, query, key } = exchange
  if (key !== '')
    return method === 'PUT' && incoming.headers['if-none-match'] === '*'
      ? await createOnly(spaces, exchange)
      : await send(exchange, await forward(spaces, exchange))

  const subResource = (['lifecycle', 'logging'] as const).find((name) => query.has(name))
  if (subResource) return await serveSetting(spaces, exchange, subResource)
  const answer = await forward(spaces, exchange)
  if (method === 'DELETE' && query.size === 0 && answer.statusCode === 204) spaces.settings.delete(exchange.bucket)
  if (method === 'GET' && query.has('location') && answer.statusCode === 200) {
    answer.resume()
    return sendXml(exchange.outgoing, 200, `<LocationConstraint ${NAMESPACE}>${spaces.region}</LocationConstraint>`)
  }
  // A bucket made without an ACL is private, but the S3 server then refuses to be told so again.
  if (
    method === 'PUT' &&
    query.has('acl') &&
    answer.statusCode === 400 &&
    incoming.headers['x-amz-acl'] === 'private'
  ) {
    const text = (await readBuffer(answer)).toString('utf8')
    if (text.includes('AccessControlListNotSupported'))
      return void exchange.outgoing.writeHead(200, { 'content-length': 0 }).end()
    return sendXml(exchange.outgoing, 400, text)
  }
  await send(exchange, answer)
}

/** What is between two ends of a connection and not between client and server; never signed. */
const HOP_BY_HOP = ['connection', 'keep-alive', 'proxy-connection']

/** The S3 server must not hang up after its answer: the end of a body that is already answered would find nobody. */
function onwardHeaders({ rawHeaders }: IncomingMessage): string[] {
  const kept: string[] = ['Connection', 'keep-alive']
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const [name = '', value = ''] = rawHeaders.slice(index, index + 2)
    if (!HOP_BY_HOP.includes(name.toLowerCase())) kept.push(name, value)
  }
  return kept
}

/** Sends the request on as it came; a body given here replaces the one that was read already. */
function forward(spaces: Spaces, { incoming, method, target }: Exchange, body?: Buffer): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = onwardHeaders(incoming) as unknown as Record<string, string> // a flat list keeps order and case
    const upstream = request(
      { socketPath: spaces.socket, agent: false, method, path: target, headers, setHost: false },
      resolve,
    )
    upstream.once('error', reject)
    if (body) upstream.end(body)
    else pipeline(incoming, upstream).catch(reject)
  })
}

/** Asks the S3 server in the front's own name. */
function ask(spaces: Spaces, { incoming, target }: Exchange, method: string, given: Headers = {}, body?: Buffer) {
  return new Promise<IncomingMessage>((resolve, reject) => {
    const headers = sign(spaces.signingKey, method, incoming.headers.host ?? '', target, given)
    const options = { socketPath: spaces.socket, agent: false, method, path: target }
    request({ ...options, headers: { ...headers, connection: 'keep-alive' } }, resolve)
      .once('error', reject)
      .end(body)
  })
}

type Headers = Record<string, string>

/** Hands the S3 server's answer to the client, or as much of it as a fault leaves. */
async function send({ fault, incoming, outgoing }: Exchange, answer: IncomingMessage): Promise<void> {
  if (fault && 'drop' in fault) {
    answer.resume()
    return void incoming.socket.destroy()
  }
  outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
  if (!(fault && 'truncate' in fault)) return await pipeline(answer, outgoing)
  const half = Number(answer.headers['content-length'] ?? 2) / 2
  let sent = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    const part = chunk.subarray(0, Math.max(0, half - sent))
    sent += part.length
    await new Promise((resolve) => outgoing.write(part, resolve))
    if (sent >= half) break
  }
  outgoing.destroy()
}

/**
 * Passes on a PUT that is to fail where there is an object. versitygw 1.8.0 takes a delete marker for an object
 * (Terraform could lock its state in a versioned bucket only once), so where it refuses a PUT of an object that
 * it cannot find either, the front puts it without the condition. A body too large to be held is passed on alone.
 */
async function createOnly(spaces: Spaces, exchange: Exchange): Promise<void> {
  const { headers } = exchange.incoming
  const isChained = String(headers['x-amz-content-sha256']).startsWith('STREAMING-AWS4')
  if (isChained || !(Number(headers['content-length']) <= LARGEST_HELD))
    return await send(exchange, await forward(spaces, exchange))

  const body = await readBuffer(exchange.incoming)
  const before = spaces.creations
  const done = (async () => {
    await before
    const answer = await forward(spaces, exchange, body)
    if (answer.statusCode !== 412) return await send(exchange, answer)
    const found = await ask(spaces, exchange, 'HEAD')
    found.resume()
    if (found.statusCode !== 404) return await send(exchange, answer)
    answer.resume()
    const { authorization: _signature, 'if-none-match': _condition, ...rest } = headers
    await send(exchange, await ask(spaces, exchange, 'PUT', rest as Headers, body))
  })()
  spaces.creations = done.catch(() => undefined)
  await done
}

async function readBuffer(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Answers for a sub-resource that the S3 server has not, once that server has let the request pass. */
async function serveSetting(spaces: Spaces, exchange: Exchange, name: SubResource): Promise<void> {
  const { incoming, outgoing, method, bucket } = exchange
  if (Number(incoming.headers['content-length'] ?? 0) > LARGEST_HELD)
    return sendError(outgoing, 400, 'EntityTooLarge', 'The configuration is too large.')
  const body = await readBuffer(incoming)
  const answer = await forward(spaces, exchange, body)
  if (answer.statusCode !== 501) return await send(exchange, answer)
  answer.resume()
  // The server signs off on the hash that the client named, but has not read the body.
  const named = incoming.headers['x-amz-content-sha256']
  if (named !== 'UNSIGNED-PAYLOAD' && named !== createHash('sha256').update(body).digest('hex'))
    return sendError(outgoing, 400, 'XAmzContentSHA256Mismatch', 'The body does not match its hash.')

  const { root, absent } = SUB_RESOURCES[name]
  const kept = spaces.settings.get(bucket) ?? new Map<SubResource, string>()
  spaces.settings.set(bucket, kept)
  if (method === 'PUT') {
    const xml = body.toString('utf8')
    if (!new RegExp(`^\\s*(<\\?xml[^>]*>\\s*)?<${root}[\\s>/]`).test(xml))
      return sendError(outgoing, 400, 'MalformedXML', 'The XML you provided was not well-formed.')
    kept.set(name, xml)
    return void outgoing.writeHead(200, { 'content-length': 0 }).end()
  }
  if (method === 'DELETE') {
    kept.delete(name)
    return void outgoing.writeHead(204).end()
  }
  const xml = kept.get(name)
  if (xml !== undefined) return sendXml(outgoing, 200, xml)
  if (absent) return sendError(outgoing, ...absent)
  sendXml(outgoing, 200, `<${root} ${NAMESPACE}/>`)
}

const NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

function sendXml(outgoing: ServerResponse, status: number, xml: string, headers: Headers = {}): void {
  const text = xml.startsWith('<?xml') ? xml : `<?xml version="1.0" encoding="UTF-8"?>\n${xml}`
  const length = Buffer.byteLength(text)
  outgoing.writeHead(status, { 'content-type': 'application/xml', 'content-length': length, ...headers }).end(text)
}

const sendError = (
  outgoing: ServerResponse,
  status: number,
  code: string,
  message: string,
  headers: Headers = {},
): void => sendXml(outgoing, status, `<Error><Code>${code}</Code><Message>${message}</Message></Error>`, headers)
