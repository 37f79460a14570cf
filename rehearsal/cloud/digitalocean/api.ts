// DigitalOcean's API version 2: who may call it, how it says errors, how it pages.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { type Answer, type Api, Refusal, type Request, type Route } from '../http.ts'
import type { Account } from './account.ts'

const error = (status: number, id: string, message: string): Answer => ({
  status,
  body: { id, message, request_id: randomUUID() },
})

const refuse = (status: number, id: string, message: string) => new Refusal(error(status, id, message), message)

export const notFound = () => refuse(404, 'not_found', 'The resource you requested could not be found.')
export const conflict = (message: string) => refuse(409, 'conflict', message)
export const preconditionFailed = (message: string) => refuse(412, 'precondition_failed', message)
export const unprocessable = (message: string) => refuse(422, 'unprocessable_entity', message)
export const serverError = (message: string) => refuse(500, 'server_error', message)

/** @returns the value; refuses the request with 404 when there is none */
export function found<T>(value: T | undefined): T {
  if (value === undefined) throw notFound()
  return value
}

/** @returns the body in the wanted shape; refuses the request with 422, naming the first field that is wrong */
export function parseBody<T>(schema: z.ZodType<T>, request: Request): T {
  const parsed = schema.safeParse(request.body)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw unprocessable(`${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'invalid'}`)
}

/** Whatever Go leaves out or sends as null for an empty list. */
export const list = <T extends z.ZodType>(item: T) =>
  z
    .array(item)
    .nullish()
    .transform((items) => items ?? [])

/** Whatever Go sends for text that is not set. */
export const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '')

/** One page of a listing, as page and per_page ask for it. */
export function page(key: string, items: unknown[], { path, query }: Request, base: string): Answer {
  const number = (name: string, otherwise: number) => {
    const value = Number(query.get(name) ?? otherwise)
    return Number.isInteger(value) && value > 0 ? value : otherwise
  }
  const size = Math.min(number('per_page', 20), 200)
  const current = number('page', 1)
  const last = Math.max(1, Math.ceil(items.length / size))
  const link = (target: number) => {
    const parameters = new URLSearchParams(query)
    parameters.set('page', String(target))
    parameters.set('per_page', String(size))
    return `${base}${path}?${parameters}`
  }
  const pages = {
    ...(current > 1 ? { first: link(1), prev: link(current - 1) } : {}),
    ...(current < last ? { next: link(current + 1), last: link(last) } : {}),
  }
  return {
    status: 200,
    body: {
      [key]: items.slice((current - 1) * size, current * size),
      links: Object.keys(pages).length > 0 ? { pages } : {},
      meta: { total: items.length },
    },
  }
}

const FAILURES: Record<number, [id: string, message: string]> = {
  401: ['unauthorized', 'Unable to authenticate you'],
  403: ['forbidden', 'You are not authorized to perform this operation'],
  404: ['not_found', 'The resource you requested could not be found.'],
  429: ['too_many_requests', 'API rate limit exceeded.'],
  503: ['service_unavailable', 'Service is currently unavailable, please try again shortly.'],
}

/** The whole API: its routes, open to whoever has the token. */
export function digitalOceanApi(account: Account, routes: Route[]): Api {
  const fail = (status: number) => {
    const [id, message] = FAILURES[status] ?? ['server_error', 'Unexpected server-side error']
    return error(status, id, message)
  }
  const limit = 5_000
  let remaining = limit
  return {
    name: 'digitalocean',
    routes,
    refuse: ({ headers, body }) => {
      if (headers.authorization !== `Bearer ${account.token}`) return fail(401)
      if (body === undefined) return error(400, 'bad_request', 'The request body could not be parsed as JSON.')
      return undefined
    },
    explain: (problem) => {
      console.error(problem)
      return error(500, 'server_error', `The rehearsed cloud failed: ${(problem as Error).message}`)
    },
    fail,
    headers: () => ({
      'ratelimit-limit': String(limit),
      'ratelimit-remaining': String(remaining > 1 ? --remaining : remaining),
      'ratelimit-reset': String(Math.floor(Date.now() / 1000) + 3_600),
      'x-request-id': randomUUID(),
    }),
  }
}
