// What goes wrong outside of a request, told on one line.

/** An error that is meant to be read as it is; anything else that is thrown is a defect. Never holds a secret. */
export class Failure extends Error {
  override name = 'Failure'
}

/**
 * Only the message of the innermost cause: the outer ones of drizzle hold the parameters of a query, and other fields of
 * an ioredis error hold the password.
 *
 * @returns why, on one line
 */
export function reason(error: unknown): string {
  let innermost = error
  while (innermost instanceof Error && innermost.cause !== undefined) innermost = innermost.cause
  return (innermost instanceof Error ? innermost.message : String(innermost)).replace(/\s+/g, ' ').trim()
}

/** @returns why a server cannot be used, with what helps where that is known */
export function connectionReason(error: unknown): string {
  const why = reason(error)
  return /certificate/i.test(why) ? `${why}; expected one of the authority in CA_CERT, for this very host` : why
}
