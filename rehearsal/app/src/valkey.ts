// Valkey, which all customers share.
import Redis from 'ioredis'
import { connectionReason, Failure, reason } from './failure.ts'
import { log } from './log.ts'
import type { ServerSettings } from './settings.ts'

export type Valkey = Redis

/**
 * A connection that is made again whenever it is lost; a command that has to wait longer than a few seconds for that
 * fails.
 *
 * @returns it, after one answer; throws a Failure that says why there is none
 */
export async function openValkey({ url, ca }: ServerSettings['valkey']): Promise<Valkey> {
  const valkey = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 10_000,
    commandTimeout: 5_000,
    maxRetriesPerRequest: 1,
    ...(url.startsWith('rediss:') && ca && { tls: { ca } }),
  })
  // Why a connection failed is only told here.
  let last: Error | undefined
  const remember = (error: Error) => {
    last ??= error
  }
  valkey.on('error', remember)
  try {
    await valkey.connect()
    await valkey.ping()
  } catch (error) {
    valkey.disconnect()
    throw new Failure(`Valkey at ${new URL(url).host} cannot be used: ${connectionReason(last ?? error)}`)
  }
  valkey.off('error', remember)
  valkey.on('error', (error) => log({ level: 'error', message: `Valkey: ${reason(error)}` }))
  return valkey
}
