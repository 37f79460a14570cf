// What a user shows after having logged in: a JWT, signed with this customer's secret.
import { errors, jwtVerify, SignJWT } from 'jose'
import { Refusal } from './refusal.ts'

/** Seconds. */
export const LIFETIME = 8 * 60 * 60

export const issueToken = (user: string, secret: Uint8Array): Promise<string> =>
  new SignJWT()
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(user)
    .setIssuedAt()
    .setExpirationTime(`${LIFETIME} s`)
    .sign(secret)

/** @returns whose token the request bears; throws a Refusal (401) where it bears none that is valid */
export async function bearer(request: Request, secret: Uint8Array): Promise<string> {
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get('authorization') ?? '') ?? []
  if (!token) throw new Refusal(401, 'a bearer token is needed')
  try {
    const { payload } = await jwtVerify(token, secret, { algorithms: ['HS256'], requiredClaims: ['sub', 'exp'] })
    return payload.sub!
  } catch (error) {
    if (!(error instanceof errors.JOSEError)) throw error
    throw new Refusal(401, error instanceof errors.JWTExpired ? 'the token has expired' : 'the token is not valid')
  }
}
