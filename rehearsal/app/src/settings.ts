// What the environment says: the addresses of the servers, what to trust, and how to serve.
import { X509Certificate } from 'node:crypto'
import { rootCertificates } from 'node:tls'
import { z } from 'zod'
import { Failure } from './failure.ts'

export type DatabaseSettings = {
  hostname: string
  port: number
  username: string
  password: string
  database: string
  /** false: without TLS */
  tls: { ca?: string[]; rejectUnauthorized: boolean } | false
}

export type ServerSettings = {
  database: DatabaseSettings
  valkey: { url: string; ca: string[] | undefined }
  jwtSecret: Uint8Array
  hostname: string
  port: number
}

type Environment = Record<string, string | undefined>

const url = (protocols: string[]) =>
  z.string('is not set').transform((text, context) => {
    const parsed = URL.parse(text)
    if (parsed && protocols.includes(parsed.protocol) && parsed.hostname && isEncoded(parsed)) return parsed
    const forms = protocols.map((protocol) => `${protocol}//…`).join(' or ')
    context.addIssue(`is not a URL of the form ${forms}`)
    return z.NEVER
  })

function isEncoded({ href }: URL): boolean {
  try {
    return decodeURIComponent(href) !== ''
  } catch {
    return false
  }
}

const databaseUrl = url(['postgresql:', 'postgres:']).transform((url, context) => {
  const address = {
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port || 5432),
    username: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.slice(1)),
  }
  const mode = url.searchParams.get('sslmode') ?? 'verify-full'
  if (!address.username) context.addIssue('names no role')
  if (!address.database) context.addIssue('names no database')
  if (!['disable', 'require', 'verify-full'].includes(mode))
    context.addIssue('has an sslmode other than disable, require and verify-full')
  return { address, mode }
})

/** Trusted beside the public certificate authorities, not instead of them. */
const authority = z
  .string()
  .optional()
  .transform((pem, context) => {
    if (!pem) return undefined
    try {
      return new X509Certificate(pem) && [...rootCertificates, pem]
    } catch {
      context.addIssue('is not a certificate as PEM text')
      return z.NEVER
    }
  })

const databaseSchema = z.object({ DATABASE_URL: databaseUrl, CA_CERT: authority })

const serverSchema = databaseSchema.extend({
  REDIS_URL: url(['rediss:', 'redis:']),
  JWT_SECRET: z.string('is not set').min(32, 'is shorter than 32 characters'),
  HOST: z.string().default('0.0.0.0'),
  PORT: z
    .string()
    .refine((text) => /^\d{1,5}$/.test(text) && Number(text) < 65_536, 'is not a port')
    .default('3000'),
})

function read<T>(schema: z.ZodType<T>, environment: Environment): T {
  const result = schema.safeParse(environment)
  if (result.success) return result.data
  throw new Failure(result.error.issues.map(({ path, message }) => `${path.join('.')} ${message}`).join('; '))
}

/** @returns how to reach Postgres; throws a Failure that says which variable is wrong, and never its value */
export const readDatabaseSettings = (environment: Environment): DatabaseSettings =>
  databaseSettings(read(databaseSchema, environment))

function databaseSettings({ DATABASE_URL, CA_CERT: ca }: z.infer<typeof databaseSchema>): DatabaseSettings {
  const { address, mode } = DATABASE_URL
  // As with libpq, `require` alone only encrypts: whoever names an authority has the certificate checked as well.
  const rejectUnauthorized = mode === 'verify-full' || ca !== undefined
  return { ...address, tls: mode !== 'disable' && { ...(ca && { ca }), rejectUnauthorized } }
}

/** @returns all that a server needs; throws like readDatabaseSettings */
export function readServerSettings(environment: Environment): ServerSettings {
  const data = read(serverSchema, environment)
  return {
    database: databaseSettings(data),
    valkey: { url: data.REDIS_URL.href, ca: data.CA_CERT },
    jwtSecret: new TextEncoder().encode(data.JWT_SECRET),
    hostname: data.HOST,
    port: Number(data.PORT),
  }
}
