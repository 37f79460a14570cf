// The API, of a server in this process against the Postgres of DATABASE_URL and the Valkey of REDIS_URL.
import { afterAll, beforeAll, expect, spyOn, test } from 'bun:test'
import { type Server, startServer } from '../src/server.ts'
import { readServerSettings } from '../src/settings.ts'
import { issueToken } from '../src/tokens.ts'

const PASSWORD = 'correct horse battery staple'
const settings = readServerSettings({ JWT_SECRET: 'x'.repeat(43), ...process.env, HOST: '127.0.0.1', PORT: '0' })

let server: Server
let log: ReturnType<typeof spyOn>
beforeAll(async () => {
  log = spyOn(console, 'log').mockImplementation(() => {})
  server = await startServer(settings)
})
afterAll(() => server.stop())

async function ask(method: string, path: string, body?: unknown, token?: string) {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, {
    method,
    ...(token && { headers: { authorization: `Bearer ${token}` } }),
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes
  return { status: response.status, body: (await response.json()) as any }
}

const newEmail = () => `${crypto.randomUUID()}@example.com`

test('a version, and both servers answer', async () => {
  expect(await ask('GET', '/v1/version')).toEqual({ status: 200, body: { version: 'unbuilt' } })
  expect(await ask('GET', '/v1/health')).toEqual({ status: 200, body: { postgres: 'ok', valkey: 'ok' } })
})

test('a user registers, logs in twice, and is known', async () => {
  const email = newEmail()
  const created = await ask('POST', '/v1/users', { email: email.toUpperCase(), password: PASSWORD })
  expect(created).toMatchObject({ status: 201, body: { email } })
  await ask('POST', '/v1/sessions', { email, password: PASSWORD })
  const { status, body } = await ask('POST', '/v1/sessions', { email, password: PASSWORD })
  expect([status, body.expires_in]).toEqual([201, 8 * 60 * 60])
  const me = await ask('GET', '/v1/me', undefined, body.token)
  expect(me).toMatchObject({ status: 200, body: { id: created.body.id, email, logins: 2 } })
  expect(Date.parse(me.body.created_at)).toBeWithin(Date.now() - 60_000, Date.now() + 60_000)
})

test('an email has one user', async () => {
  const email = newEmail()
  await ask('POST', '/v1/users', { email, password: PASSWORD })
  const again = await ask('POST', '/v1/users', { email, password: 'another password' })
  expect(again).toEqual({ status: 409, body: { error: 'there is a user with this email' } })
  expect((await ask('POST', '/v1/sessions', { email, password: 'another password' })).status).toBe(401)
})

test('who the user is does not show in a refused login', async () => {
  const email = newEmail()
  await ask('POST', '/v1/users', { email, password: PASSWORD })
  const wrong = await ask('POST', '/v1/sessions', { email, password: 'wrong password' })
  expect(wrong).toEqual({ status: 401, body: { error: 'the email or the password is wrong' } })
  expect(await ask('POST', '/v1/sessions', { email: newEmail(), password: PASSWORD })).toEqual(wrong)
})

test.each([
  ['', 'the body is not JSON'],
  ['{"email', 'the body is not JSON'],
  [[], 'expected object'],
  [{ email: 'nobody', password: PASSWORD }, 'email: '],
  [{ email: 'a@example.com' }, 'password: '],
  [{ email: 'a@example.com', password: 'short' }, 'password: '],
  [{ email: 'a@example.com', password: 'ä'.repeat(37) }, 'password: Too long: expected at most 72 bytes'],
  [{ email: 'a@example.com', password: PASSWORD, role: 'admin' }, 'role'],
])('the body %j is refused', async (body, expected) => {
  const answer = await ask('POST', '/v1/users', body)
  expect(answer.status).toBe(400)
  expect(answer.body.error).toContain(expected)
})

test('what is not there', async () => {
  expect(await ask('GET', '/v1/users')).toEqual({ status: 404, body: { error: 'there is no GET /v1/users' } })
  expect((await ask('GET', '/constructor')).status).toBe(404)
})

test('a token is needed, and its user', async () => {
  expect(await ask('GET', '/v1/me')).toEqual({ status: 401, body: { error: 'a bearer token is needed' } })
  expect((await ask('GET', '/v1/me', undefined, 'abc')).body.error).toBe('the token is not valid')
  const gone = await issueToken(crypto.randomUUID(), settings.jwtSecret)
  expect((await ask('GET', '/v1/me', undefined, gone)).body.error).toBe('the token’s user is gone')
})

test('each request is one line of the log, without what was sent', async () => {
  log.mockClear()
  const email = newEmail()
  await ask('POST', '/v1/users?token=secret', { email, password: PASSWORD })
  expect(log).toHaveBeenCalledTimes(1)
  const [line] = log.mock.calls[0] as [string]
  expect(JSON.parse(line)).toMatchObject({ method: 'POST', path: '/v1/users', status: 201 })
  expect(line).not.toMatch(/secret|correct horse|example\.com/)
})

test('it stops when told, once what was begun is done', async () => {
  const another = await startServer(settings)
  const url = `http://127.0.0.1:${another.port}`
  const begun = fetch(`${url}/v1/sessions`, {
    method: 'POST',
    body: JSON.stringify({ email: newEmail(), password: PASSWORD }),
  })
  await fetch(`${url}/v1/version`) // by now the other one has come
  await another.stop()
  expect((await begun).status).toBe(401)
  await expect(fetch(`${url}/v1/version`)).rejects.toThrow()
})
