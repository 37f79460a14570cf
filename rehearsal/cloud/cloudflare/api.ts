// Cloudflare's API version 4: who may call it, and how it says results and errors.
import type { z } from 'zod'
import { type Answer, type Api, Refusal, type Request, type Route } from '../http.ts'
import type { CloudflareAccount } from './zones.ts'

type Problem = { code: number; message: string; error_chain?: Problem[] }

export const failure = (status: number, ...errors: Problem[]): Answer => ({
  status,
  body: { success: false, errors, messages: [], result: null },
})

export const refuse = (status: number, code: number, message: string) =>
  new Refusal(failure(status, { code, message }), message)

export const success = (result: unknown, more: Record<string, unknown> = {}): Answer => ({
  status: 200,
  body: { success: true, errors: [], messages: [], result, ...more },
})

/** One page of a listing, as page and per_page ask for it. */
export function page(items: unknown[], { query }: Request, largest: number, usual: number): Answer {
  const number = (name: string, otherwise: number) => {
    const value = Number(query.get(name) ?? otherwise)
    return Number.isInteger(value) && value > 0 ? value : otherwise
  }
  const per_page = Math.min(number('per_page', usual), largest)
  const current = number('page', 1)
  const shown = items.slice((current - 1) * per_page, current * per_page)
  return success(shown, {
    result_info: {
      page: current,
      per_page,
      count: shown.length,
      total_count: items.length,
      total_pages: Math.max(1, Math.ceil(items.length / per_page)),
    },
  })
}

/** @returns the body in the wanted shape; refuses the request with Cloudflare's validation error */
export function parseBody<T>(schema: z.ZodType<T>, request: Request): T {
  const parsed = schema.safeParse(request.body)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw refuse(400, 9207, `Request body is invalid: ${issue?.path.join('.') || 'body'}: ${issue?.message ?? ''}`)
}

const FAILURES: Record<number, Problem> = {
  401: { code: 10000, message: 'Authentication error' },
  403: { code: 10000, message: 'Authentication error' },
  404: { code: 7003, message: 'Could not route to the requested path, perhaps your object identifier is invalid?' },
  429: { code: 971, message: 'Please wait and consider throttling your request speed' },
}

/** The whole API: its routes, open to whoever has the token. */
export function cloudflareApi({ token }: CloudflareAccount, routes: Route[]): Api {
  const fail = (status: number) =>
    failure(status, FAILURES[status] ?? { code: 10001, message: 'Unable to process your request at this time' })
  return {
    name: 'cloudflare',
    routes,
    refuse: ({ headers, body, path }) => {
      const [scheme, given = ''] = (headers.authorization ?? '').split(' ')
      if (scheme !== 'Bearer' || !/^[A-Za-z0-9_-]{20,}$/.test(given))
        return failure(400, {
          code: 6003,
          message: 'Invalid request headers',
          error_chain: [{ code: 6111, message: 'Invalid format for Authorization header' }],
        })
      if (given !== token)
        return path.endsWith('/user/tokens/verify')
          ? failure(401, { code: 1000, message: 'Invalid API Token' })
          : failure(403, { code: 9109, message: 'Invalid access token' })
      if (body === undefined) return failure(400, { code: 9207, message: 'Content-Type must be application/json' })
      return undefined
    },
    explain: (problem) => {
      console.error(problem)
      return failure(500, { code: 10001, message: `The rehearsed cloud failed: ${(problem as Error).message}` })
    },
    fail,
    headers: () => ({ 'cf-ray': 'rehearsal' }),
  }
}
