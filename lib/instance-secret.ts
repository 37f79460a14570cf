// A customer's Secret on the cluster: what its pods find in their environment, and from where its secrets are read again.
import { createHash } from 'node:crypto'
import * as z from 'zod'
import type { AnyStep, Step } from './converge.ts'
import {
  asSecrets,
  type CustomerSecrets,
  findAllSecrets,
  findKnownSecrets,
  findSecrets,
  parseSecrets,
} from './customer-secrets.ts'
import { CUSTOMER_LABEL, namesOf } from './customers.ts'
import { findObjects, type Kubernetes, type KubernetesObject, objectsStep } from './kubernetes.ts'
import type { Outputs } from './outputs.ts'
import type { Platform } from './platform.ts'
import { Secret } from './secret.ts'

/** The keys that are made here; all others of the Secret are people's. */
type OwnKey = 'CA_CERT' | 'DATABASE_URL' | 'JWT_SECRET' | 'REDIS_URL'

/** The Secret's content, in base64 by key: what the application finds in its environment. */
type SecretData = Record<OwnKey, string> & Record<string, string>

/** @returns what the customer's Secret is to hold */
export function secretData(
  customer: string,
  { databasePassword, jwtSecret, others }: CustomerSecrets,
  { postgres, valkeyUrl }: Outputs,
): SecretData {
  const { database } = namesOf(customer)
  const { host, port, ca } = postgres
  const url = `postgresql://${database}:${databasePassword.reveal()}@${host}:${port}/${database}?sslmode=verify-full`
  const encoded = (text: string) => Buffer.from(text).toString('base64')
  // In one order, for the checksum.
  const keys = Object.keys(others).sort()
  return {
    ...Object.fromEntries(keys.map((key) => [key, others[key]!.reveal()])),
    CA_CERT: encoded(ca),
    DATABASE_URL: encoded(new Secret(url).reveal()),
    JWT_SECRET: encoded(jwtSecret.reveal()),
    REDIS_URL: encoded(valkeyUrl.reveal()),
  }
}

/** @returns SHA-256 of what the Secret holds: for the values file, so that another Secret makes other pods */
export const checksumOf = (data: SecretData): string => createHash('sha256').update(JSON.stringify(data)).digest('hex')

const secretObject = (customer: string, data?: SecretData): KubernetesObject => {
  const { slug } = namesOf(customer)
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: slug, namespace: slug, labels: { [CUSTOMER_LABEL]: customer } },
    ...(data ? { data } : {}),
  }
}

/** The customer's secrets, where its pods find them; from here on this is their home. */
export const secretStep = (
  kubernetes: Kubernetes,
  customer: string,
  data: () => Promise<SecretData>,
  needs: readonly AnyStep[],
): Step =>
  objectsStep(kubernetes, {
    title: `Secret ${namesOf(customer).slug} is on the cluster`,
    needs,
    secret: true,
    objects: async () => [secretObject(customer, await data())],
  })

const dataSchema = z.object({ data: z.record(z.string(), z.string()).default({}) })

/** @returns what the customer's Secret on the cluster holds, in base64 by key; undefined where it has none */
export async function secretOnCluster(
  kubernetes: Kubernetes,
  customer: string,
): Promise<Record<string, string> | undefined> {
  const [found] = await findObjects(kubernetes, [secretObject(customer)], { shown: false })
  return found && dataSchema.parse(found).data
}

/** @returns what people have added to a Secret */
export function othersIn(data: Record<string, string>): CustomerSecrets['others'] {
  const { CA_CERT: _ca, DATABASE_URL: _database, JWT_SECRET: _jwt, REDIS_URL: _redis, ...others } = data
  return asSecrets(others)
}

/** @returns the customer's secrets; throws a Failure where one that is made here is missing in the Secret, or damaged */
export function secretsIn(customer: string, data: Record<string, string>): CustomerSecrets {
  const plain = (key: OwnKey) => Buffer.from(data[key] ?? '', 'base64').toString()
  const url = plain('DATABASE_URL')
  const database_password = URL.canParse(url) ? decodeURIComponent(new URL(url).password) : ''
  const text = JSON.stringify({ database_password, jwt_secret: plain('JWT_SECRET') })
  const next = `./runbooks/restore.mts ${customer} --until secrets, then ./runbooks/add-customer.mts ${customer}`
  return { ...parseSecrets(text, `Secret ${namesOf(customer).slug} of the cluster`, next), others: othersIn(data) }
}

/** What an instance is given, from wherever its secrets are. */
export function openSecrets({ secrets, outputs }: Platform, customer: string) {
  const home = secrets(customer)
  const dataOf = async (known: Promise<CustomerSecrets>) => secretData(customer, await known, await outputs())
  return {
    home,
    password: async () => (await findSecrets(home)).databasePassword,
    // All of them: what was set once and is not named again goes from the Secret.
    data: () => dataOf(findAllSecrets(home)),
    checksum: async () => checksumOf(await dataOf(findKnownSecrets(home))),
  }
}
