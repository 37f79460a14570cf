// A cluster's API for who runs beside it: single requests, and watching what there is of a kind.
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

/** @property ca in PEM */
export type Access = { server: string; ca: string; token: string }

export type Metadata = {
  name: string
  namespace: string
  uid: string
  annotations?: Record<string, string>
  deletionTimestamp?: string
}

export type Api = {
  /** @returns the answer's body; rejects with the server's own words unless it is a success */
  merge: (path: string, patch: object) => Promise<unknown>
  /** makes an object what is given, and leaves the rest of it */
  apply: (path: string, object: object) => Promise<unknown>
  /**
   * Calls back with all objects of a kind, at first and then whenever one of them changes, until it is closed. A
   * connection that ends is made again, and what was missed meanwhile is told.
   */
  watch: <T extends { metadata: Metadata }>(path: string, changed: (objects: T[]) => unknown) => void
  close: () => void
}

/** Milliseconds until a connection that ended is made again. */
const PAUSE = 500

type Event<T> = { type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'; object: T }
type List<T> = { metadata: { resourceVersion: string }; items: T[] }

export function openApi({ server, ca, token }: Access): Api {
  const agent = new Agent({ ca, keepAlive: true })
  const closing = new AbortController()
  const { signal } = closing

  async function ask(method: string, path: string, body?: object, kind = 'merge-patch+json'): Promise<IncomingMessage> {
    const type = body ? { 'content-type': `application/${kind}` } : {}
    const headers = { authorization: `Bearer ${token}`, accept: 'application/json', ...type }
    const asked = request(server + path, { method, agent, headers, signal }).end(body && JSON.stringify(body))
    const [answer] = (await once(asked, 'response')) as [IncomingMessage]
    asked.on('error', () => {}) // whoever reads the answer is told as well
    if ((answer.statusCode ?? 0) < 300) return answer
    const said = await text(answer)
    throw new Error(
      `${method} ${path}: ${answer.statusCode} ${/"message":"((?:[^"\\]|\\.)*)"/.exec(said)?.[1] ?? said}`,
    )
  }

  async function follow<T extends { metadata: Metadata }>(path: string, changed: (objects: T[]) => unknown) {
    const list = JSON.parse(await text(await ask('GET', path))) as List<T>
    const objects = new Map(list.items.map((object) => [object.metadata.uid, object]))
    changed([...objects.values()])
    const { resourceVersion } = list.metadata
    const events = await ask('GET', `${path}?watch=true&resourceVersion=${resourceVersion}`)
    for await (const line of createInterface({ input: events })) {
      const { type, object } = JSON.parse(line) as Event<T>
      if (type === 'ERROR') return // what it knew is too old
      if (type === 'DELETED') objects.delete(object.metadata.uid)
      else objects.set(object.metadata.uid, object)
      changed([...objects.values()])
    }
  }

  return {
    apply: async (path, object) =>
      JSON.parse(await text(await ask('PATCH', `${path}?fieldManager=cloud&force=true`, object, 'apply-patch+yaml'))),
    merge: async (path, patch) => JSON.parse(await text(await ask('PATCH', path, patch))),
    watch: async (path, changed) => {
      while (!signal.aborted) {
        await follow(path, changed).catch(() => {})
        await sleep(PAUSE, undefined, { signal }).catch(() => {})
      }
    },
    close: () => {
      closing.abort()
      agent.destroy()
    },
  }
}

async function text(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}
