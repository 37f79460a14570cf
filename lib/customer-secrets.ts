// A customer's secrets, made once. Until a cluster holds them as a Kubernetes Secret they are in a 0600 file of the site,
// outside Git.
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { type Drift, type Step, step } from './converge.ts'
import { Failure } from './failure.ts'
import { writeWhole } from './files.ts'
import { Secret } from './secret.ts'

const secretsSchema = z.strictObject({
  database_password: z.string().regex(/^[A-Za-z0-9_-]{32,}$/),
  jwt_secret: z.string().regex(/^[A-Za-z0-9_-]{43,}$/),
})

export type CustomerSecrets = { databasePassword: Secret; jwtSecret: Secret }

/** @param directory the site's folder on this machine */
export const secretsFile = (directory: string, customer: string) => join(directory, 'secrets', `${customer}.json`)

/**
 * @param text a file of secrets
 * @param source where it is from, for the message
 * @param next what helps where it is none
 */
export function parseSecrets(text: string, source: string, next?: string): CustomerSecrets {
  try {
    const { database_password, jwt_secret } = secretsSchema.parse(JSON.parse(text))
    return { databasePassword: new Secret(database_password), jwtSecret: new Secret(jwt_secret) }
  } catch {
    throw new Failure({
      found: `${source} is not a file of secrets as add-customer writes it`,
      expected: 'database_password and jwt_secret',
      ...(next ? { next } : {}),
    })
  }
}

/** @returns the customer's secrets; throws when they are not there or not readable as such */
export function readSecrets(directory: string, customer: string): CustomerSecrets {
  const file = secretsFile(directory, customer)
  if (!existsSync(file))
    throw new Failure({ found: `${file} is not there`, next: `./runbooks/add-customer.mts ${customer}`, notYet: true })
  const next = `mv ${file} ${file}.damaged, then ./runbooks/restore.mts ${customer} --until secrets`
  return parseSecrets(readFileSync(file, 'utf8'), file, next)
}

/**
 * @param options.isCustomer whether the customer is there already, and so has secrets, though not on this machine
 * @param options.renew makes new ones even then
 */
export const secretsStep = (
  directory: string,
  customer: string,
  options: { isCustomer: () => Promise<boolean>; renew: boolean },
): Step => {
  const file = secretsFile(directory, customer)
  return step<Drift>({
    title: `secrets of ${customer} are kept`,
    needs: [],
    check: async () => {
      if (!existsSync(file)) {
        if (!options.renew && (await options.isCustomer()))
          throw new Failure({
            found: `${customer} is there already, and its secrets are not on this machine`,
            expected: `${file}, as another machine or a backup has it`,
            next: `./runbooks/restore.mts ${customer} --until secrets; or with --new-secrets, which signs its users out`,
          })
        return { lines: [`make a database password and a JWT secret: ${file}`] }
      }
      readSecrets(directory, customer)
      const mode = statSync(file).mode & 0o777
      return mode === 0o600 ? undefined : { lines: [`chmod 600 ${file}, which is 0${mode.toString(8)}`] }
    },
    apply: async () => {
      if (existsSync(file)) return chmodSync(file, 0o600)
      const secrets: z.infer<typeof secretsSchema> = {
        database_password: randomBytes(24).toString('base64url'),
        jwt_secret: randomBytes(48).toString('base64url'),
      }
      for (const value of Object.values(secrets)) new Secret(value) // from here on masked everywhere
      writeWhole(file, `${JSON.stringify(secrets, null, 2)}\n`)
    },
  })
}
