// Only a token of this customer's own secret, not expired, is one.
import { expect, test } from 'bun:test'
import { SignJWT, UnsecuredJWT } from 'jose'
import { bearer, issueToken } from '../src/tokens.ts'

const secret = crypto.getRandomValues(new Uint8Array(32))

const request = (authorization?: string) =>
  new Request('http://app.test/v1/me', authorization === undefined ? {} : { headers: { authorization } })
const sign = (expires: string, alg = 'HS256', key = secret) =>
  new SignJWT().setProtectedHeader({ alg }).setSubject('someone').setExpirationTime(expires).sign(key)

test('its user is known again', async () => {
  expect(await bearer(request(`Bearer ${await issueToken('someone', secret)}`), secret)).toBe('someone')
})

test.each<[string, () => Promise<string | undefined>, string]>([
  ['none', async () => undefined, 'a bearer token is needed'],
  ['another scheme', async () => 'Basic abc', 'a bearer token is needed'],
  ['something else', async () => 'Bearer abc', 'the token is not valid'],
  ['one that has expired', async () => `Bearer ${await sign('-1 s')}`, 'the token has expired'],
  [
    'one of another secret',
    async () => `Bearer ${await issueToken('someone', secret.toReversed())}`,
    'the token is not valid',
  ],
  [
    'one of another algorithm',
    async () => `Bearer ${await sign('1 h', 'HS512', new Uint8Array(64))}`,
    'the token is not valid',
  ],
  [
    'one that is not signed',
    async () => `Bearer ${new UnsecuredJWT().setSubject('someone').setExpirationTime('1 h').encode()}`,
    'the token is not valid',
  ],
  [
    'one that never expires',
    async () => `Bearer ${await new SignJWT().setProtectedHeader({ alg: 'HS256' }).setSubject('x').sign(secret)}`,
    'the token is not valid',
  ],
])('%s is refused', async (_, authorization, expected) => {
  await expect(bearer(request(await authorization()), secret)).rejects.toMatchObject({ status: 401, message: expected })
})
