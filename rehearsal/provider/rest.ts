// The way to an API, as the real providers go it: over HTTP, and again when the API is busy or broken.
import { setTimeout as sleep } from 'node:timers/promises'

/** An answer that is no success. */
export class ApiError extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export type RestOptions = {
  url: string
  token: string
  /** Says the API's error in words. */
  explain: (body: unknown) => string | undefined
  stopped: AbortSignal
}

const ATTEMPTS = 5

/** A 429, a 5xx or a broken connection is tried again, after the time the API asks for or a growing one. */
export async function call(
  { url, token, explain, stopped }: RestOptions,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  for (let attempt = 1; ; attempt++) {
    const last = attempt === ATTEMPTS
    let pause = 200 * 2 ** attempt
    try {
      const response = await fetch(url + path, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      const answer: unknown = text === '' ? {} : JSON.parse(text)
      if (response.ok) return answer
      const message = `${method} ${url}${path}: ${response.status} ${explain(answer) ?? response.statusText}`
      if (last || (response.status !== 429 && response.status < 500)) throw new ApiError(response.status, message)
      const retryAfter = response.headers.get('retry-after')
      if (retryAfter !== null) pause = Number(retryAfter) * 1000
    } catch (error) {
      if (error instanceof ApiError) throw error
      const { message, cause } = error as Error & { cause?: { message?: string } }
      if (last) throw new ApiError(0, `${method} ${url}${path}: ${cause?.message || message}`)
    }
    await sleep(pause, undefined, { signal: stopped })
  }
}

/** @returns undefined for what is gone */
export async function unlessGone<T>(look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look()
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined
    throw error
  }
}

/** Asks again and again until the answer is the wanted one. */
export async function waitFor<T>(
  what: string,
  look: () => Promise<T>,
  isReady: (found: T) => boolean,
  stopped: AbortSignal,
): Promise<T> {
  const minutes = 30
  for (const end = Date.now() + minutes * 60_000; Date.now() < end; ) {
    const found = await look()
    if (isReady(found)) return found
    try {
      await sleep(60, undefined, { signal: stopped })
    } catch {
      throw new Error(`interrupted while waiting for ${what}`)
    }
  }
  throw new Error(`${what} was not ready after ${minutes} minutes`)
}
