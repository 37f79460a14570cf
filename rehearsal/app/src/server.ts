// The server: listens once everything that it needs has answered, and stops without dropping a request.
import { drizzle } from 'drizzle-orm/bun-sql'
import { migrateDatabase, openDatabase } from './database.ts'
import { Failure, reason } from './failure.ts'
import { log } from './log.ts'
import { Refusal } from './refusal.ts'
import { routes, type Services } from './routes.ts'
import type { ServerSettings } from './settings.ts'
import { openValkey } from './valkey.ts'

/** Milliseconds that requests get to finish when the server is told to stop. */
const GRACE = 8_000
/** Seconds after which a silent connection is closed: more than a query may take. */
const IDLE = 30
/** Bytes of a request's body; more is refused by Bun itself. */
const BODY_LIMIT = 64 * 1024
/** Milliseconds to wait for another one's migration. */
const MIGRATION_PATIENCE = 60_000

export type Server = {
  port: number
  /** Takes no new requests, finishes those it has, and closes every connection; about nine seconds at most. */
  stop: () => Promise<void>
}

/** @returns the server, which answers; throws a Failure that says what kept it from that */
export async function startServer(settings: ServerSettings): Promise<Server> {
  await migrateDatabase(settings.database, MIGRATION_PATIENCE)
  const sql = await openDatabase(settings.database)
  const valkey = await openValkey(settings.valkey)
  const services: Services = {
    database: drizzle({ client: sql }),
    valkey,
    jwtSecret: settings.jwtSecret,
    keyPrefix: settings.database.database,
  }
  const http = listen(settings, services)
  return {
    port: http.port!,
    stop: async () => {
      const late = setTimeout(() => void http.stop(true), GRACE)
      await http.stop()
      clearTimeout(late)
      valkey.disconnect()
      await sql.close({ timeout: 1 })
    },
  }
}

function listen({ hostname, port }: ServerSettings, services: Services) {
  try {
    return Bun.serve({
      hostname,
      port,
      maxRequestBodySize: BODY_LIMIT,
      idleTimeout: IDLE,
      fetch: (request) => answer(services, request),
    })
  } catch (error) {
    throw new Failure(`cannot listen on port ${port} of ${hostname}: ${reason(error)}`)
  }
}

async function answer(services: Services, request: Request): Promise<Response> {
  const started = performance.now()
  const { method } = request
  const path = new URL(request.url).pathname
  const response = await route(services, method, path, request)
  log({ method, path, status: response.status, ms: Math.round(performance.now() - started) })
  return response
}

async function route(services: Services, method: string, path: string, request: Request): Promise<Response> {
  try {
    const handler = routes[`${method} ${path}`]
    if (!handler) throw new Refusal(404, `there is no ${method} ${path}`)
    return await handler(services, request)
  } catch (error) {
    if (error instanceof Refusal) return Response.json({ error: error.message }, { status: error.status })
    log({ level: 'error', message: `${method} ${path}: ${reason(error)}` })
    return Response.json({ error: 'this could not be done, and has been logged' }, { status: 500 })
  }
}
