// The HTTP side of an API: routes, faults and a log of calls. What it answers is for the subjects' files.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ApiName, type Consequence, type Fault, takeFault } from './faults.ts'

export type Call = { at: string; api: ApiName; method: string; path: string; status: number; ms: number }

/** What all APIs of one cloud share. */
export type Traffic = { faults: Fault[]; calls: Call[] }

export type Request = {
  method: string
  path: string
  query: URLSearchParams
  headers: IncomingMessage['headers']
  /** Parsed JSON; an empty object when there was none. */
  body: unknown
  /** A fault asks that what this request creates never becomes ready. */
  neverReady: boolean
}

/** A body of text is YAML, any other one is sent as JSON. */
export type Answer = { status: number; body?: unknown }

type ParametersOf<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? { [key in Name]: string } & ParametersOf<Rest>
  : Path extends `${string}:${infer Name}`
    ? { [key in Name]: string }
    : unknown

export type Route = {
  method: string
  pattern: RegExp
  handle: (request: Request, parameters: Record<string, string>) => Answer | Promise<Answer>
}

/**
 * Declares what answers a method and a path such as /v2/vpcs/:id.
 * Of two routes that match, the one declared first wins.
 */
export const route = <Path extends string>(
  method: string,
  path: Path,
  handle: (request: Request, parameters: ParametersOf<Path>) => Answer | Promise<Answer>,
): Route => ({
  method,
  pattern: new RegExp(`^${path.replace(/:(\w+)/g, '(?<$1>[^/]+)')}/?$`),
  handle: (request, parameters) => handle(request, parameters as ParametersOf<Path>),
})

export type Api = {
  name: ApiName
  routes: Route[]
  /** Answers a request that may not pass; undefined lets it pass. */
  refuse: (request: Request) => Answer | undefined
  /** Says an error in the API's own form. */
  explain: (error: unknown) => Answer
  /** Says a status that a fault asks for in the API's own form. */
  fail: (status: number) => Answer
  headers: () => Record<string, string>
}

/** Thrown by a handler to answer with that status and body. */
export class Refusal extends Error {
  readonly answer: Answer
  constructor(answer: Answer, message: string) {
    super(message)
    this.answer = answer
  }
}

/** @returns the fields that a request gives a value, for laying over what there was before */
export const given = <T extends object>(fields: T) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [Name in keyof T]?: Exclude<T[Name], undefined>
  }

export type Listener = { url: string; port: number; close: () => Promise<void> }

/** Listens on a free port of 127.0.0.1. */
export async function listen(server: Server): Promise<Listener> {
  // Longer than clients keep an idle connection: one that the server closes first can break their next request.
  server.keepAliveTimeout = 120_000
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  return { url: `http://127.0.0.1:${port}`, port, close }
}

/** Serves an API until it is closed. */
export const serveApi = (api: Api, traffic: Traffic): Promise<Listener> =>
  listen(createServer((incoming, outgoing) => void serveRequest(api, traffic, incoming, outgoing)))

async function serveRequest(api: Api, traffic: Traffic, incoming: IncomingMessage, outgoing: ServerResponse) {
  const started = performance.now()
  const method = incoming.method ?? 'GET'
  const url = new URL(incoming.url ?? '/', 'http://127.0.0.1')
  const fault = takeFault(traffic.faults, api.name, method, url.pathname + url.search)
  const log = (status: number) =>
    logCall(traffic, { api: api.name, method, path: url.pathname + url.search, status, started })

  const received = await readText(incoming).catch(() => undefined)
  if (received === undefined || (fault && 'drop' in fault && fault.drop === true)) {
    log(0)
    return void incoming.socket.destroy()
  }
  if (fault && 'delay_ms' in fault) await sleep(fault.delay_ms)

  const answer = await decide(api, fault, { method, url, headers: incoming.headers, text: received })
  const dropped = fault && 'drop' in fault
  log(dropped ? 0 : answer.status)
  if (dropped) return void incoming.socket.destroy()
  const { body } = answer
  const text = typeof body === 'string' ? body : body === undefined ? '' : JSON.stringify(body)
  outgoing.writeHead(answer.status, {
    'content-type': `application/${typeof body === 'string' ? 'yaml' : 'json'}; charset=utf-8`,
    'content-length': Buffer.byteLength(text),
    ...api.headers(),
    ...(fault && 'retry_after' in fault && fault.retry_after !== undefined
      ? { 'retry-after': String(fault.retry_after) }
      : {}),
  })
  if (fault && 'truncate' in fault) {
    outgoing.write(text.slice(0, text.length / 2), () => incoming.socket.destroy())
    return
  }
  outgoing.end(text)
}

type Received = { method: string; url: URL; headers: IncomingMessage['headers']; text: string }

async function decide(api: Api, fault: Consequence | undefined, received: Received): Promise<Answer> {
  if (fault && 'status' in fault) return api.fail(fault.status)
  const { method, url, headers, text } = received
  try {
    const request = {
      method,
      path: url.pathname,
      query: url.searchParams,
      headers,
      body: text === '' ? {} : parse(text),
      neverReady: fault !== undefined && 'never_ready' in fault,
    }
    const refused = api.refuse(request)
    if (refused) return refused
    for (const route of api.routes) {
      const match = route.method === method ? route.pattern.exec(url.pathname) : null
      if (match)
        return await route.handle(
          request,
          Object.fromEntries(
            Object.entries(match.groups ?? {}).map(([name, value]) => [name, decodeURIComponent(value)]),
          ),
        )
    }
    return api.fail(404)
  } catch (error) {
    return error instanceof Refusal ? error.answer : api.explain(error)
  }
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Adds to the log of calls, which keeps the last ones only. */
export function logCall(traffic: Traffic, call: Omit<Call, 'at' | 'ms'> & { started: number }): void {
  const { started, ...rest } = call
  traffic.calls.push({ at: new Date().toISOString(), ...rest, ms: Math.round(performance.now() - started) })
  if (traffic.calls.length > 20_000) traffic.calls.splice(0, 5_000)
}

async function readText(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
