// What the environment may say, and what is told where it says something else.
import { describe, expect, test } from 'bun:test'
import { rootCertificates } from 'node:tls'
import { Failure } from '../src/failure.ts'
import { readDatabaseSettings, readServerSettings } from '../src/settings.ts'

const SECRET = 'not-to-be-told-to-anyone'
const database = (query: string) => `postgresql://customer_acme:${SECRET}@db.test:25060/customer_acme${query}`
const complete = {
  DATABASE_URL: database(''),
  REDIS_URL: `rediss://default:${SECRET}@valkey.test:25061`,
  JWT_SECRET: 'x'.repeat(43),
}
const CA_CERT = rootCertificates[0]!

/** @returns why the environment is refused */
function refusal(read: () => unknown): string {
  try {
    read()
  } catch (error) {
    if (error instanceof Failure) return error.message
    throw error
  }
  throw new Error('it was accepted')
}

describe('the database', () => {
  test('is taken from the URL, decoded', () => {
    const url = 'postgres://a%40b:p%2Fw%25@[::1]/customer_acme?sslmode=disable'
    expect(readDatabaseSettings({ DATABASE_URL: url })).toEqual({
      hostname: '::1',
      port: 5432,
      username: 'a@b',
      password: 'p/w%',
      database: 'customer_acme',
      tls: false,
    })
  })

  test.each([
    ['', true],
    ['?sslmode=verify-full', true],
    ['?sslmode=require', false],
  ])('%p has the certificate checked: %p', (query, rejectUnauthorized) => {
    expect(readDatabaseSettings({ DATABASE_URL: database(query) }).tls).toEqual({ rejectUnauthorized })
  })

  test('with CA_CERT it is always checked, and the public authorities stay trusted', () => {
    const { tls } = readDatabaseSettings({ DATABASE_URL: database('?sslmode=require'), CA_CERT })
    expect(tls).toEqual({ rejectUnauthorized: true, ca: [...rootCertificates, CA_CERT] })
  })

  test('asks for nothing that a migration does not need', () => {
    expect(readDatabaseSettings({ DATABASE_URL: database('') }).database).toBe('customer_acme')
  })
})

describe('the server', () => {
  test('has a port, an address and a Valkey', () => {
    const { hostname, port, valkey } = readServerSettings(complete)
    expect({ hostname, port, valkey }).toEqual({
      hostname: '0.0.0.0',
      port: 3000,
      valkey: { url: complete.REDIS_URL, ca: undefined },
    })
    expect(readServerSettings({ ...complete, PORT: '0', HOST: '127.0.0.1' })).toMatchObject({
      hostname: '127.0.0.1',
      port: 0,
    })
  })

  test.each<[string, string | undefined, string]>([
    ['DATABASE_URL', undefined, 'DATABASE_URL is not set'],
    ['DATABASE_URL', `mysql://a:${SECRET}@h/b`, 'DATABASE_URL is not a URL of the form postgresql://… or postgres://…'],
    ['DATABASE_URL', `postgresql://a:${SECRET}%@h/b`, 'DATABASE_URL is not a URL of the form'],
    ['DATABASE_URL', `postgresql://:${SECRET}@h/b`, 'DATABASE_URL names no role'],
    ['DATABASE_URL', `postgresql://a:${SECRET}@h/`, 'DATABASE_URL names no database'],
    [
      'DATABASE_URL',
      database('?sslmode=prefer'),
      'DATABASE_URL has an sslmode other than disable, require and verify-full',
    ],
    ['REDIS_URL', undefined, 'REDIS_URL is not set'],
    ['REDIS_URL', `http://:${SECRET}@h`, 'REDIS_URL is not a URL of the form rediss://… or redis://…'],
    ['CA_CERT', SECRET, 'CA_CERT is not a certificate as PEM text'],
    ['JWT_SECRET', undefined, 'JWT_SECRET is not set'],
    ['JWT_SECRET', SECRET, 'JWT_SECRET is shorter than 32 characters'],
    ['PORT', '65536', 'PORT is not a port'],
    ['PORT', '80a', 'PORT is not a port'],
  ])('%s cannot be %p', (name, value, expected) => {
    const told = refusal(() => readServerSettings({ ...complete, [name]: value }))
    expect(told).toStartWith(expected)
    expect(told).not.toContain(SECRET)
  })

  test('everything that is wrong is told at once', () => {
    const told = refusal(() => readServerSettings({ PORT: 'x' }))
    for (const name of ['DATABASE_URL', 'REDIS_URL', 'JWT_SECRET', 'PORT']) expect(told).toContain(name)
  })
})
