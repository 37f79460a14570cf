// A rehearsed cloud for one test file, and the ways tests ask it.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'uvu'
import { type Cloud, type Tools as CloudTools, startCloud } from '../../rehearsal/cloud/cloud.ts'
import { findTools, REHEARSAL_TOOLS, type Tools } from '../../rehearsal/tools.ts'

/** @returns the paths of all tools; throws where `npm test` has not installed them yet */
export async function allTools(): Promise<Tools> {
  const found = await findTools()
  const missing = REHEARSAL_TOOLS.filter((name) => found[name] === undefined)
  if (missing.length > 0) throw new Error(`missing: ${missing.join(', ')}; npm test installs them`)
  return found as Tools
}

export const cloudTools = ({ postgres, valkey, versitygw, openssl }: Tools): CloudTools => ({
  postgres,
  valkey,
  versitygw,
  openssl,
})

export const temporaryDirectory = () => mkdtempSync(join(tmpdir(), 'cloud-test-'))

export type Subject = { cloud: Cloud; directory: string; tools: Tools }

/**
 * Starts a cloud before the file's first test and stops it after the last one.
 * @returns an object that is filled in by then
 */
export function cloudFor<Context>(suite: Test<Context>, options: { readyAfter?: number } = {}): Subject {
  const subject = {} as Subject
  suite.before(async () => {
    subject.tools = await allTools()
    subject.directory = temporaryDirectory()
    subject.cloud = await startCloud({
      directory: subject.directory,
      domain: 'lunarfront.test',
      tools: cloudTools(subject.tools),
      readyAfter: 20,
      ...options,
    })
  })
  suite.after(async () => {
    await subject.cloud?.stop()
    rmSync(subject.directory, { recursive: true, force: true })
  })
  return subject
}

/** An answer of either API. The shape of its body is for the test to know. */
// biome-ignore lint/suspicious/noExplicitAny: a test reads answers of many shapes
export type Answer = { status: number; headers: Headers; body: any }

async function ask(url: string, token: string, method: string, body?: unknown): Promise<Answer> {
  const response = await fetch(url, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) }
}

/** @param path without /v2 */
export const digitalocean = ({ cloud }: Subject, method: string, path: string, body?: unknown) =>
  ask(`${cloud.digitalocean.url}/v2${path}`, cloud.digitalocean.token, method, body)

export const cloudflare = ({ cloud }: Subject, method: string, path: string, body?: unknown) =>
  ask(cloud.cloudflare.url + path, cloud.cloudflare.token, method, body)

export const control = ({ cloud }: Subject, method: string, path: string, body?: unknown) =>
  ask(cloud.control + path, '', method, body)

/** @returns a fault as POST /faults takes it */
// biome-ignore lint/suspicious/noThenProperty: the word that the control port uses
export const fault = (target: object, consequence: object) => ({ ...target, then: consequence })

/** Asks again, every few milliseconds, until the answer is the wanted one; gives up after 30 s. */
export async function until<T>(look: () => Promise<T>, isWanted: (found: T) => boolean): Promise<T> {
  for (const end = Date.now() + 30_000; ; await new Promise((resolve) => setTimeout(resolve, 10))) {
    const found = await look()
    if (isWanted(found)) return found
    if (Date.now() > end) throw new Error(`still not what was waited for: ${JSON.stringify(found)}`)
  }
}

/** Makes a database cluster and waits until it is online. */
export async function createDatabase(subject: Subject, wanted: Record<string, unknown>): Promise<Answer['body']> {
  const created = await digitalocean(subject, 'POST', '/databases', {
    ...{ size: 'db-s-1vcpu-1gb', region: 'nyc3', num_nodes: 1 },
    ...wanted,
  })
  if (created.status !== 201) throw new Error(JSON.stringify(created.body))
  const { body } = await until(
    () => digitalocean(subject, 'GET', `/databases/${created.body.database.id}`),
    ({ body }) => body.database.status === 'online',
  )
  return body.database
}

/** @returns the newest version of Postgres that the cloud offers */
export async function postgresVersion(subject: Subject): Promise<string> {
  const { body } = await digitalocean(subject, 'GET', '/databases/options')
  return body.options.pg.versions.at(-1)
}
