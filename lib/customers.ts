// The customers: what one may be called, what belongs to one, and the only list of them, the folders in gitops/apps.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { Failure, misuse } from './failure.ts'
import { readYaml, validate } from './input.ts'

/** Names under app.DOMAIN that are the platform's, now or soon; a customer of that name would answer in its place. */
export const RESERVED: readonly string[] = [
  'admin', 'api', 'app', 'argocd', 'auth', 'dev', 'feature', 'git', 'gitea', 'grafana', 'lb', 'login', 'mail',
  'ns', 'platform', 'preview', 'registry', 'staging', 'status', 'test', 'www',
] // biome-ignore format: a list

/** On every object of the cluster that runbooks make for a customer. */
export const CUSTOMER_LABEL = 'lunarfront.tech/customer'

const isFree = (name: string) => !RESERVED.includes(name)
const RESERVED_RULE = `is reserved for the platform, like ${RESERVED.slice(0, 4).join(', ')}`

/**
 * Each rule with its reason. A name becomes a DNS label (NAME.app.DOMAIN), a folder and a Kubernetes namespace
 * (customer-NAME), and a Postgres role and database (customer_NAME, hyphens as underscores).
 */
const NAME_RULES: readonly { holds: (name: string) => boolean; rule: string }[] = [
  { holds: (name) => name !== '', rule: 'must not be empty' },
  { holds: (name) => !/[A-Z]/.test(name), rule: 'must be lower case: DNS and Kubernetes know no other' },
  {
    holds: (name) => /^[a-z0-9-]*$/.test(name),
    rule: 'may only have the letters a to z, digits and hyphens: it is a DNS label and a folder',
  },
  { holds: (name) => /^[a-z]/.test(name), rule: 'must start with a letter: Postgres and DNS both take that' },
  { holds: (name) => !name.endsWith('-'), rule: 'must not end with a hyphen: it is a DNS label' },
  {
    holds: (name) => !name.includes('--'),
    rule: 'must not have two hyphens in a row: xn-- and its like mean something to DNS',
  },
  { holds: (name) => name.length >= 2, rule: 'must have at least 2 characters' },
  {
    holds: (name) => name.length <= 30,
    rule: 'must have at most 30 characters: names made from it have to stay below 63',
  },
  { holds: (name) => !/^customer(-|$)/.test(name), rule: 'must not start with customer: that word is put before it' },
  { holds: isFree, rule: RESERVED_RULE },
]

/** @returns the rule that the name breaks; undefined when it is a customer's name */
export const brokenRule = (name: string): string | undefined => NAME_RULES.find(({ holds }) => !holds(name))?.rule

/** @returns the name; throws a misuse that says which rule it breaks */
export function customerName(name: string): string {
  const rule = brokenRule(name)
  if (rule)
    throw misuse({
      found: `the customer name ${JSON.stringify(name)} ${rule}`,
      next: 'choose another name, such as acme',
    })
  return name
}

/** Everything that is named after a customer. */
export const namesOf = (customer: string) => ({
  /** Kubernetes namespace, Argo CD application, Kubernetes Secret, folder in gitops/apps */
  slug: `customer-${customer}`,
  /** Postgres role and database; no two names give the same, since a name has no underscore */
  database: `customer_${customer.replaceAll('-', '_')}`,
})

const subdomain = z
  .string()
  .refine((name) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name), 'must be a DNS label')
  .refine(isFree, { error: ({ input }) => `${input} ${RESERVED_RULE}` })

/** A customer's values file: the seed's keys, secrets inline or in a Kubernetes Secret, and whatever the chart takes. */
export const valuesSchema = z.looseObject({
  customer: z.string().superRefine((name, context) => {
    const rule = brokenRule(name)
    if (rule) context.addIssue({ code: 'custom', message: rule, input: name })
  }),
  subdomain,
  image: z.looseObject({ repository: z.string().min(1), tag: z.string().min(1).optional() }),
  database: z.looseObject({ url: z.string() }).optional(),
  redis: z.looseObject({ url: z.string() }).optional(),
  existingSecret: z.string().optional(),
  secretChecksum: z.string().optional(),
  rollout: z.enum(['canary', 'rest']).optional(),
  env: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).default({}),
})

export type Customer = z.infer<typeof valuesSchema>

/**
 * @returns where its instance has its secrets from, where that is not the Secret that runbooks make and back up: another
 *   one, or the values file
 */
export function secretsElsewhere({ customer, existingSecret }: Customer): string | undefined {
  const { slug } = namesOf(customer)
  if (existingSecret === slug) return undefined
  return existingSecret ? `the Secret ${existingSecret}` : `gitops/apps/${slug}/values.yaml itself`
}

/**
 * @param directory gitops/apps
 * @returns the customers, by name; throws a misuse that names the file and what is wrong in it
 */
export function readCustomers(directory: string): Customer[] {
  const { customers, problems } = surveyCustomers(directory)
  if (problems[0]) throw problems[0]
  return customers
}

/** @returns the customers whose files are right, and what is wrong with the others: one bad file is not everybody's */
export function surveyCustomers(directory: string): { customers: Customer[]; problems: Failure[] } {
  if (!existsSync(directory)) return { customers: [], problems: [] }
  const folders = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  const problems: Failure[] = []
  const attempt = <T>(work: () => T): T[] => {
    try {
      return [work()]
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      problems.push(error)
      return []
    }
  }
  const customers = folders.flatMap(({ name }) => attempt(() => readCustomer(directory, name)))
  attempt(() => requireOwnSubdomains(customers))
  return { customers, problems }
}

/**
 * @param directory gitops/apps
 * @param name of the folder
 * @returns the customer; throws a misuse that names the file and what is wrong in it
 */
export function readCustomer(directory: string, name: string): Customer {
  const customer = name.replace(/^customer-/, '')
  const source = `gitops/apps/${name}/values.yaml`
  if (customer === name)
    throw misuse({
      found: `gitops/apps/${name} is no customer's folder`,
      expected: 'customer-NAME',
      next: `in a clone of the repository: git rm -r gitops/apps/${name}`,
    })
  const file = join(directory, name, 'values.yaml')
  if (!existsSync(file))
    throw misuse({
      found: `${source} is not there`,
      expected: 'one in every folder',
      next: `in a clone of the repository: git rm -r gitops/apps/${name}`,
    })
  return readValues(readFileSync(file, 'utf8'), source, customer)
}

function requireOwnSubdomains(customers: readonly Customer[]): void {
  const owners = new Map<string, string>()
  for (const { customer, subdomain } of customers) {
    const owner = owners.get(subdomain)
    if (owner)
      throw misuse({
        found: `the customers ${owner} and ${customer} both have the subdomain ${subdomain}`,
        next: `correct gitops/apps/${namesOf(customer).slug}/values.yaml`,
      })
    owners.set(subdomain, customer)
  }
}

/**
 * @param text a values file
 * @param source its path, for messages
 * @returns the customer; throws a misuse when it is not valid, or about somebody else
 */
export function readValues(text: string, source: string, customer: string): Customer {
  const values = validate(valuesSchema, readYaml(text, source), source)
  if (values.customer !== customer)
    throw misuse({
      found: `${source} is about customer ${values.customer}`,
      expected: `customer ${customer}, as its folder says; a customer is not renamed`,
      next: `correct ${source}`,
    })
  return values
}
