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

/** @returns the customer's secrets; throws when they are not there or not readable as such */
export function readSecrets(directory: string, customer: string): CustomerSecrets {
  const file = secretsFile(directory, customer)
  const damaged = () =>
    new Failure({
      found: `${file} is not a file of secrets as add-customer writes it`,
      expected: 'database_password and jwt_secret',
      next: `look at it; if it cannot be mended: rm ${file}, and the next run makes new ones`,
    })
  if (!existsSync(file))
    throw new Failure({ found: `${file} is not there`, next: `./runbooks/add-customer.mts ${customer}`, notYet: true })
  let content: unknown
  try {
    content = JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    throw damaged()
  }
  const secrets = secretsSchema.safeParse(content)
  if (!secrets.success) throw damaged()
  return {
    databasePassword: new Secret(secrets.data.database_password),
    jwtSecret: new Secret(secrets.data.jwt_secret),
  }
}

/** @param isCustomer whether the customer is there already, and so has secrets, though not on this machine */
export const secretsStep = (directory: string, customer: string, isCustomer: () => Promise<boolean>): Step => {
  const file = secretsFile(directory, customer)
  return step<Drift>({
    title: `secrets of ${customer} are kept`,
    needs: [],
    check: async () => {
      if (!existsSync(file)) {
        const lines = [`make a database password and a JWT secret: ${file}`]
        const confirm = `${customer} is there already, but its secrets are not on this machine. New ones end its users’ sessions, and the copy on another machine will be wrong. Make new ones?`
        return (await isCustomer()) ? { lines, confirm } : { lines }
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
