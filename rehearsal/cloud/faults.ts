// What can be asked to go wrong, and which request it hits.
import { z } from 'zod'

export const API_NAMES = ['digitalocean', 'cloudflare', 'spaces'] as const
export type ApiName = (typeof API_NAMES)[number]

/** What happens to a request that a fault hits. Times are in milliseconds, but for retry_after: seconds. */
const consequence = z.union([
  z.strictObject({ status: z.number().int().min(400).max(599), retry_after: z.number().min(0).optional() }),
  /** The connection ends without an answer: true before the request had any effect, 'after' when it had. */
  z.strictObject({ drop: z.union([z.literal(true), z.literal('after')]) }),
  /** The request has its effect, but the answer breaks off in the middle. */
  z.strictObject({ truncate: z.literal(true) }),
  z.strictObject({ delay_ms: z.number().min(0).max(600_000) }),
  /** What the request creates stays in creation for ever. */
  z.strictObject({ never_ready: z.literal(true) }),
])

export const faultSchema = z.strictObject({
  api: z.enum(API_NAMES),
  method: z.string().optional(),
  /** A regular expression on the path and query; without it every path. */
  path: z
    .string()
    .refine((source) => {
      try {
        return Boolean(new RegExp(source))
      } catch {
        return false
      }
    }, 'must be a regular expression')
    .optional(),
  /** How many requests it hits; without it every one until the faults are deleted. */
  times: z.number().int().min(1).optional(),
  // biome-ignore lint/suspicious/noThenProperty: the word that reads best; a fault is never awaited
  then: consequence,
})

export type Consequence = z.infer<typeof consequence>
export type Fault = z.infer<typeof faultSchema>

/**
 * Finds the first fault for a request, and uses it up by one.
 * @param target path and query
 */
export function takeFault(faults: Fault[], api: ApiName, method: string, target: string): Consequence | undefined {
  const index = faults.findIndex(
    (fault) =>
      fault.api === api &&
      (fault.method ?? method).toUpperCase() === method &&
      new RegExp(fault.path ?? '').test(target),
  )
  const fault = faults[index]
  if (!fault) return undefined
  if (fault.times !== undefined && --fault.times === 0) faults.splice(index, 1)
  return fault.then
}
