// A customer's secrets, made once. Until the cluster holds them as a Kubernetes Secret they are in a 0600 file of the site,
// outside Git.
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { Failure, oneLine, tell } from './failure.ts'
import { writeWhole } from './files.ts'
import { Secret } from './secret.ts'

const secretsSchema = z.strictObject({
  database_password: z.string().regex(/^[A-Za-z0-9_-]{32,}$/),
  jwt_secret: z.string().regex(/^[A-Za-z0-9_-]{43,}$/),
  others: z.record(z.string().regex(/^[-._A-Za-z0-9]{1,253}$/), z.base64()).default({}),
})

export type CustomerSecrets = {
  databasePassword: Secret
  jwtSecret: Secret
  /** what people have added to the customer's Secret, by key: in base64, as Kubernetes has it, since it need not be text */
  others: Record<string, Secret>
}

/** A shorter text, such as a port or `true`, is no secret, and to mask it would mask other words. */
const SHORTEST_SECRET = 8

/** @param others in base64, by key. @returns the same; what they say is masked from now on, also line by line, as logs have it */
export const asSecrets = (others: Record<string, string>): Record<string, Secret> =>
  Object.fromEntries(
    Object.entries(others).map(([key, value]) => {
      const text = Buffer.from(value, 'base64').toString()
      for (const part of [text, ...text.split('\n')]) if (part.length >= SHORTEST_SECRET) new Secret(part)
      return [key, new Secret(value)]
    }),
  )

/** @param directory the site's folder on this machine */
export const secretsFile = (directory: string, customer: string) => join(directory, 'secrets', `${customer}.json`)

/**
 * @param text a file of secrets
 * @param source where it is from, for the message
 * @param next what helps where it is none
 */
export function parseSecrets(text: string, source: string, next?: string): CustomerSecrets {
  try {
    const { database_password, jwt_secret, others } = secretsSchema.parse(JSON.parse(text))
    return {
      databasePassword: new Secret(database_password),
      jwtSecret: new Secret(jwt_secret),
      others: asSecrets(others),
    }
  } catch {
    throw new Failure({
      found: `${source} is not a file of secrets as add-customer writes it`,
      expected: 'database_password and jwt_secret, and others where people have added some',
      ...(next ? { next } : {}),
    })
  }
}

/** @returns the text of a file of secrets */
export function secretsText({ databasePassword, jwtSecret, others }: CustomerSecrets): string {
  const revealed = Object.entries(others).map(([key, value]) => [key, value.reveal()])
  const text = {
    database_password: databasePassword.reveal(),
    jwt_secret: jwtSecret.reveal(),
    ...(revealed.length > 0 ? { others: Object.fromEntries(revealed) } : {}),
  }
  return `${JSON.stringify(text, null, 2)}\n`
}

/** @returns the customer's secrets; throws when they are not there or not readable as such */
export function readSecrets(directory: string, customer: string): CustomerSecrets {
  const file = secretsFile(directory, customer)
  if (!existsSync(file))
    throw new Failure({ found: `${file} is not there`, next: `./runbooks/add-customer.mts ${customer}`, notYet: true })
  const next = `mv ${file} ${file}.damaged, then ./runbooks/restore.mts ${customer} --until secrets`
  return parseSecrets(readFileSync(file, 'utf8'), file, next)
}

/** Where a customer's secrets may be: in the site's folder until the cluster has them. */
export type SecretsHome = {
  directory: string
  customer: string
  /** what the cluster has; undefined where it has none; throws where it cannot be asked */
  onCluster: (() => Promise<CustomerSecrets | undefined>) & { forget: () => void }
  /** what people have added there, however damaged the rest; none where it has no Secret; throws where it cannot be asked */
  others: () => Promise<CustomerSecrets['others']>
}

/** @returns the customer's secrets, from wherever they are; throws when they are nowhere */
export async function findSecrets({ directory, customer, onCluster }: SecretsHome): Promise<CustomerSecrets> {
  if (existsSync(secretsFile(directory, customer))) return readSecrets(directory, customer)
  let because = ''
  const kept = await onCluster().catch((error: unknown) => {
    because = `, which could not be asked: ${oneLine(tell(error))}`
    return undefined
  })
  if (kept) return kept
  throw new Failure({
    found: `the secrets of ${customer} are neither on this machine nor on the cluster${because}`,
    expected: `${secretsFile(directory, customer)}, as another machine or a backup has it`,
    next: `./runbooks/restore.mts ${customer} --until secrets; or add-customer with --new-secrets, which signs its users out`,
    notYet: true,
  })
}

/**
 * A file on this machine does not hide what people have added to the cluster's Secret beside it.
 *
 * @returns all there is; throws where there are none, and where the cluster cannot be asked
 */
export async function findAllSecrets(home: SecretsHome): Promise<CustomerSecrets> {
  const others = await home.others()
  const found = await findSecrets(home)
  return { ...found, others: { ...found.others, ...others } }
}

/** @returns all that can be known from here: where the cluster cannot be asked, what the file on this machine has */
export const findKnownSecrets = (home: SecretsHome): Promise<CustomerSecrets> =>
  findAllSecrets(home).catch(() => findSecrets(home))

/**
 * @param options.isCustomer whether the customer is there already, and so has secrets
 * @param options.renew makes new ones even then
 */
export const secretsStep = (
  home: SecretsHome,
  options: { isCustomer: () => Promise<boolean>; renew: boolean },
): Step => {
  const { directory, customer } = home
  const file = secretsFile(directory, customer)
  return step<Drift>({
    title: `secrets of ${customer} are kept`,
    needs: [],
    check: async () => {
      if (!existsSync(file)) {
        if (!options.renew && (await options.isCustomer())) {
          await findSecrets(home)
          return undefined
        }
        return { lines: [`make a database password and a JWT secret: ${file}`] }
      }
      readSecrets(directory, customer)
      const mode = statSync(file).mode & 0o777
      return mode === 0o600 ? undefined : { lines: [`chmod 600 ${file}, which is 0${mode.toString(8)}`] }
    },
    apply: async () => {
      if (existsSync(file)) return chmodSync(file, 0o600)
      const databasePassword = new Secret(randomBytes(24).toString('base64url'))
      const jwtSecret = new Secret(randomBytes(48).toString('base64url'))
      writeWhole(file, secretsText({ databasePassword, jwtSecret, others: {} })) // the cluster's others stay beside it
    },
  })
}

/**
 * What is kept elsewhere need not lie about here as well.
 *
 * @param kept where it is: 'the cluster has them'
 */
export const fileGoneStep = (
  { directory, customer, onCluster }: SecretsHome,
  kept: string,
  needs: readonly AnyStep[],
): Step => {
  const file = secretsFile(directory, customer)
  return step<Drift>({
    title: `no copy of ${customer}’s secrets is on this machine`,
    needs,
    check: async () => (existsSync(file) ? { lines: [`remove ${file}: ${kept}`] } : undefined),
    apply: async () => {
      onCluster.forget()
      rmSync(file)
    },
  })
}
