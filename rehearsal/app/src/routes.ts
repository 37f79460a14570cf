// The API: what each request does. Every answer is JSON.
import { compare, hash, truncates } from 'bcryptjs'
import { eq, sql as expression } from 'drizzle-orm'
import type { BunSQLDatabase } from 'drizzle-orm/bun-sql'
import { z } from 'zod'
import { reason } from './failure.ts'
import { log } from './log.ts'
import { Refusal } from './refusal.ts'
import { users } from './schema.ts'
import { bearer, issueToken, LIFETIME } from './tokens.ts'
import type { Valkey } from './valkey.ts'
import { version } from './version.ts'

export type Services = {
  database: BunSQLDatabase
  valkey: Valkey
  jwtSecret: Uint8Array
  /** Goes before every key, since all customers share one Valkey. */
  keyPrefix: string
}

type Route = (services: Services, request: Request) => Promise<Response> | Response

/** Each doubling of the work is one more. */
const HASH_COST = 10
/** Milliseconds. */
const HEALTH_LIMIT = 3_000
/** A random password's, of the same cost: compared with where there is no such user, so that this takes as long. */
const NOBODY = '$2b$10$5BK2ezgYi12Mxmi8Up00deoJEh88QTmyerWiZ46zVBbQweNS9V83q'

const credentials = z.strictObject({
  email: z.email().max(254).toLowerCase(),
  password: z
    .string()
    .min(8)
    .refine((password) => !truncates(password), 'Too long: expected at most 72 bytes'),
})

async function readCredentials(request: Request): Promise<z.infer<typeof credentials>> {
  const body = await request.json().catch(() => {
    throw new Refusal(400, 'the body is not JSON')
  })
  const { data, error } = credentials.safeParse(body)
  if (!data) throw new Refusal(400, error.issues.map(({ path, message }) => [...path, message].join(': ')).join('; '))
  return data
}

/** A server that hangs, or a network that swallows everything, is as bad as a refusal. */
async function answers(name: string, question: PromiseLike<unknown>): Promise<'ok' | 'failing'> {
  const timeout = Bun.sleep(HEALTH_LIMIT).then(() => {
    throw new Error(`no answer within ${HEALTH_LIMIT} ms`)
  })
  try {
    await Promise.race([question, timeout])
    return 'ok'
  } catch (error) {
    log({ level: 'error', message: `${name} does not answer: ${reason(error)}` })
    return 'failing'
  }
}

const loginsKey = ({ keyPrefix }: Services, id: string) => `${keyPrefix}:logins:${id}`

/** By method and path. */
export const routes: Record<string, Route> = {
  'GET /v1/version': () => Response.json({ version }),

  'GET /v1/health': async (services) => {
    const [postgres, valkey] = await Promise.all([
      answers('Postgres', services.database.execute(expression`SELECT 1`)),
      answers('Valkey', services.valkey.ping()),
    ])
    const failing = [postgres, valkey].includes('failing')
    return Response.json({ postgres, valkey }, { status: failing ? 503 : 200 })
  },

  'POST /v1/users': async ({ database }, request) => {
    const { email, password } = await readCredentials(request)
    const [user] = await database
      .insert(users)
      .values({ email, passwordHash: await hash(password, HASH_COST) })
      .onConflictDoNothing()
      .returning({ id: users.id, email: users.email })
    if (!user) throw new Refusal(409, 'there is a user with this email')
    return Response.json(user, { status: 201 })
  },

  'POST /v1/sessions': async (services, request) => {
    const { email, password } = await readCredentials(request)
    const [user] = await services.database.select().from(users).where(eq(users.email, email))
    const matches = await compare(password, user?.passwordHash ?? NOBODY)
    if (!user || !matches) throw new Refusal(401, 'the email or the password is wrong')
    await services.valkey.incr(loginsKey(services, user.id))
    const token = await issueToken(user.id, services.jwtSecret)
    return Response.json({ token, expires_in: LIFETIME }, { status: 201 })
  },

  'GET /v1/me': async (services, request) => {
    const id = await bearer(request, services.jwtSecret)
    const [user] = await services.database.select().from(users).where(eq(users.id, id))
    if (!user) throw new Refusal(401, 'the token’s user is gone')
    const logins = Number(await services.valkey.get(loginsKey(services, id)))
    return Response.json({ id, email: user.email, created_at: user.createdAt, logins })
  },
}
