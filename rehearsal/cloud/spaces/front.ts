// Spaces: an S3 server, behind a front that adds what that server has not. Everything the server
// knows passes through as it came, so that signatures stay valid; objects are never held in memory.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { takeFault } from '../faults.ts'
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

type Target = { url: URL; bucket: string; key: string; subResource: SubResource | undefined }

/** @returns bucket and key of a request, whether the bucket is in the path or in the host name */
function targetOf({ virtualDomain }: Spaces, incoming: IncomingMessage): Target {
  // As a proxy the front is sent whole addresses.
  const url = new URL(incoming.url ?? '/', `http://${incoming.headers.host ?? '127.0.0.1'}`)
  const path = url.pathname.slice(1)
  const suffix = `.${virtualDomain}`
  const [bucket = '', ...rest] = url.hostname.endsWith(suffix)
    ? [url.hostname.slice(0, -suffix.length), path]
    : path.split('/')
  const key = rest.join('/')
  const subResource = (['lifecycle', 'logging'] as const).find((name) => key === '' && url.searchParams.has(name))
  return { url, bucket, key, subResource }
}

/** Serves Spaces until it is closed. */
export const serveSpaces = (spaces: Spaces, traffic: Traffic): Promise<Listener> =>
  listen(createServer((incoming, outgoing) => void serve(spaces, traffic, incoming, outgoing)))

async function serve(spaces: Spaces, traffic: Traffic, incoming: IncomingMessage, outgoing: ServerResponse) {
  const started = performance.now()
  const method = incoming.method ?? 'GET'
  const target = targetOf(spaces, incoming)
  const path = `/${[target.bucket, target.key].filter(Boolean).join('/')}${target.url.search}`
  const fault = takeFault(traffic.faults, 'spaces', method, path)
  outgoing.once('close', () =>
    logCall(traffic, { api: 'spaces', method, path, status: outgoing.headersSent ? outgoing.statusCode : 0, started }),
  )
  try {
    if (fault && 'drop' in fault && fault.drop === true) return void incoming.destroy()
    if (fault && 'delay_ms' in fault) await sleep(fault.delay_ms)
    if (fault && 'status' in fault) {
      incoming.resume()
      const code = fault.status === 403 ? 'AccessDenied' : fault.status < 500 ? 'TooManyRequests' : 'SlowDown'
      const retryAfter = fault.retry_after === undefined ? {} : { 'retry-after': String(fault.retry_after) }
      return sendError(outgoing, fault.status, code, 'Please reduce your request rate.', retryAfter)
    }
    if (target.subResource) return await serveSetting(spaces, target, target.subResource, incoming, outgoing)

    if (method === 'PUT' && target.key !== '' && incoming.headers['if-none-match'] === '*')
      return await createOnly(spaces, target, incoming, outgoing)

    const answer = await forward(spaces, incoming, target)
    if (fault && 'drop' in fault) {
      answer.resume()
      return void incoming.destroy()
    }
    if (method === 'DELETE' && target.key === '' && target.url.search === '' && answer.statusCode === 204)
      spaces.settings.delete(target.bucket)
    if (method === 'GET' && target.key === '' && target.url.searchParams.has('location') && answer.statusCode === 200) {
      answer.resume()
      return sendXml(outgoing, 200, `<LocationConstraint ${NAMESPACE}>${spaces.region}</LocationConstraint>`)
    }
    if (answer.statusCode === 400 && isPrivateAcl(incoming, target)) {
      const text = await readText(answer)
      if (text.includes('AccessControlListNotSupported'))
        return void outgoing.writeHead(200, { 'content-length': 0 }).end()
      return sendXml(outgoing, 400, text)
    }
    outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
    if (fault && 'truncate' in fault) return await sendHalf(answer, outgoing)
    await pipeline(answer, outgoing)
  } catch {
    // One of the two ends has gone: the other must not wait.
    incoming.destroy()
    outgoing.destroy()
  }
}

/** A bucket made without an ACL is private, but the S3 server then refuses to be told so again. */
const isPrivateAcl = ({ method, headers }: IncomingMessage, { key, url }: Target) =>
  method === 'PUT' && key === '' && url.searchParams.has('acl') && headers['x-amz-acl'] === 'private'

async function readText(answer: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of answer.setEncoding('utf8')) text += chunk
  return text
}

/** Sends the request on as it came; a body given here replaces the one that was read already. */
function forward(spaces: Spaces, incoming: IncomingMessage, target: Target, body?: Buffer): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const upstream = request(
      {
        socketPath: spaces.socket,
        method: incoming.method,
        path: target.url.pathname + target.url.search,
        headers: incoming.rawHeaders as unknown as Record<string, string>, // a flat list keeps order and case
        setHost: false,
      },
      resolve,
    )
    upstream.once('error', reject)
    if (body) upstream.end(body)
    else pipeline(incoming, upstream).catch(reject)
  })
}

/** Asks the S3 server in the front's own name. */
function ask(spaces: Spaces, method: string, url: URL, headers: Record<string, string>, body?: Buffer) {
  return new Promise<IncomingMessage>((resolve, reject) => {
    const signed = sign(spaces.signingKey, method, url, headers)
    request({ socketPath: spaces.socket, method, path: url.pathname + url.search, headers: signed }, resolve)
      .once('error', reject)
      .end(body)
  })
}

/**
 * Passes on a PUT that is to fail where there is an object. versitygw 1.8.0 takes a delete marker for an object
 * (Terraform could lock its state in a versioned bucket only once), so where it refuses a PUT of an object that
 * it cannot find either, the front puts it without the condition. A body too large to be held is passed on alone.
 */
async function createOnly(
  spaces: Spaces,
  target: Target,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  const pass = async (answer: IncomingMessage) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
    await pipeline(answer, outgoing)
  }
  const chained = String(incoming.headers['x-amz-content-sha256']).startsWith('STREAMING-AWS4')
  if (chained || !(Number(incoming.headers['content-length']) <= LARGEST_HELD))
    return await pass(await forward(spaces, incoming, target))

  const body = await readBuffer(incoming)
  const before = spaces.creations
  const done = (async () => {
    await before
    const answer = await forward(spaces, incoming, target, body)
    if (answer.statusCode !== 412) return await pass(answer)
    const found = await ask(spaces, 'HEAD', target.url, {})
    found.resume()
    if (found.statusCode !== 404) return await pass(answer)
    answer.resume()
    const { authorization: _signature, 'if-none-match': _condition, ...headers } = incoming.headers
    await pass(await ask(spaces, 'PUT', target.url, headers as Record<string, string>, body))
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
async function serveSetting(
  spaces: Spaces,
  target: Target,
  name: SubResource,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
): Promise<void> {
  if (Number(incoming.headers['content-length'] ?? 0) > LARGEST_HELD)
    return sendError(outgoing, 400, 'EntityTooLarge', 'The configuration is too large.')
  const body = await readBuffer(incoming)
  const answer = await forward(spaces, incoming, target, body)
  if (answer.statusCode !== 501) {
    outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
    return await pipeline(answer, outgoing)
  }
  answer.resume()
  // The server signs off on the hash that the client named, but has not read the body.
  const named = incoming.headers['x-amz-content-sha256']
  if (named !== 'UNSIGNED-PAYLOAD' && named !== createHash('sha256').update(body).digest('hex'))
    return sendError(outgoing, 400, 'XAmzContentSHA256Mismatch', 'The body does not match its hash.')

  const { root, absent } = SUB_RESOURCES[name]
  const kept = spaces.settings.get(target.bucket) ?? new Map<SubResource, string>()
  spaces.settings.set(target.bucket, kept)
  if (incoming.method === 'PUT') {
    const xml = body.toString('utf8')
    if (!new RegExp(`^\\s*(<\\?xml[^>]*>\\s*)?<${root}[\\s>/]`).test(xml))
      return sendError(outgoing, 400, 'MalformedXML', 'The XML you provided was not well-formed.')
    kept.set(name, xml)
    return void outgoing.writeHead(200, { 'content-length': 0 }).end()
  }
  if (incoming.method === 'DELETE') {
    kept.delete(name)
    return void outgoing.writeHead(204).end()
  }
  const xml = kept.get(name)
  if (xml !== undefined) return sendXml(outgoing, 200, xml)
  if (absent) return sendError(outgoing, ...absent)
  sendXml(outgoing, 200, `<${root} ${NAMESPACE}/>`)
}

/** Announces the whole answer, sends half of it and hangs up. */
async function sendHalf(answer: IncomingMessage, outgoing: ServerResponse): Promise<void> {
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

const NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

function sendXml(outgoing: ServerResponse, status: number, xml: string, headers: Record<string, string> = {}): void {
  const text = xml.startsWith('<?xml') ? xml : `<?xml version="1.0" encoding="UTF-8"?>\n${xml}`
  outgoing.writeHead(status, {
    'content-type': 'application/xml',
    'content-length': Buffer.byteLength(text),
    ...headers,
  })
  outgoing.end(text)
}

const sendError = (
  outgoing: ServerResponse,
  status: number,
  code: string,
  message: string,
  headers: Record<string, string> = {},
) => sendXml(outgoing, status, `<Error><Code>${code}</Code><Message>${message}</Message></Error>`, headers)
