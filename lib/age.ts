// Encryption by age (https://age-encryption.org): whoever writes a backup has the public keys only.
import * as z from 'zod'
import { misuse } from './failure.ts'

/** A public key, as age-keygen prints it: Bech32 with the prefix age. */
export const recipientSchema = z
  .string()
  .regex(/^age1[02-9ac-hj-np-z]{58}$/, 'must be a public key of age, such as age-keygen -y FILE prints')

/** @param recipients each of whom can decrypt it alone */
export const encryptArgv = (recipients: readonly string[]) => [
  'age',
  '--encrypt',
  ...recipients.flatMap((recipient) => ['--recipient', recipient]),
]

/** @param identity path of a private key's file */
export const decryptArgv = (identity: string) => ['age', '--decrypt', '--identity', identity]

/** @returns the path of the private key's file; throws a misuse where none is named */
export function identityFile(given: string | undefined, environment: Record<string, string | undefined>): string {
  const file = given ?? environment.LUNARFRONT_AGE_IDENTITY
  if (!file)
    throw misuse({
      found: 'no private key is named',
      expected: '--identity FILE, or LUNARFRONT_AGE_IDENTITY: one of the keys that backups are encrypted for',
      next: 'fetch it from where it is kept; it is on no server',
    })
  return file
}
