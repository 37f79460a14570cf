// Encryption by age (https://age-encryption.org): whoever writes a backup has the public keys only.
import * as z from 'zod'
import { misuse } from './failure.ts'
import type { Run } from './run.ts'

const LETTERS = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
const GENERATORS = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3]

/** The last six letters of Bech32 (BIP 173) are right only where no other is a slip. @param key 'age1…' */
function isWithoutSlip(key: string): boolean {
  const prefix = [...'age'].map((letter) => letter.charCodeAt(0))
  const values = [
    ...prefix.map((code) => code >> 5),
    0,
    ...prefix.map((code) => code & 31),
    ...[...key.slice('age1'.length)].map((letter) => LETTERS.indexOf(letter)),
  ]
  let sum = 1
  for (const value of values) {
    const top = sum >>> 25
    sum = ((sum & 0x1ffffff) << 5) ^ value
    for (const [bit, generator] of GENERATORS.entries()) if ((top >> bit) & 1) sum ^= generator
  }
  return sum === 1
}

/** A public key, as age-keygen prints it: Bech32 with the prefix age. */
export const recipientSchema = z
  .string()
  .regex(/^age1[02-9ac-hj-np-z]{58}$/, 'must be a public key of age, such as age-keygen -y FILE prints')
  .refine((key) => !key.startsWith('age1') || isWithoutSlip(key), 'has a slip in it: copy it again')

/** @param recipients each of whom can decrypt it alone */
export const encryptArgv = (recipients: readonly string[]) => [
  'age',
  '--encrypt',
  ...recipients.flatMap((recipient) => ['--recipient', recipient]),
]

/** @param identity path of a private key's file */
export const decryptArgv = (identity: string) => ['age', '--decrypt', '--identity', identity]

/** @returns the public keys of a private key's file; none where it is a kind of key of which age-keygen cannot tell */
export async function publicKeys({ exec }: Run, identity: string): Promise<string[]> {
  const { code, stdout } = await exec({ argv: ['age-keygen', '-y', identity], codes: [0, 1, 127] })
  return code === 0 ? stdout.split('\n').filter(Boolean) : []
}

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
