// The site: one validated file that says where a LunarFront is and how large it may get. The schema is its manual;
// lunarfront.example.yaml explains the same settings to a person.
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'
import { recipientSchema } from './age.ts'
import { misuse } from './failure.ts'
import { readYaml, validate } from './input.ts'

/** The root of this checkout: the nearest folder above this code with a package.json. */
export const ROOT = rootAbove(dirname(fileURLToPath(import.meta.url)))

function rootAbove(folder: string): string {
  return existsSync(join(folder, 'package.json')) ? folder : rootAbove(dirname(folder))
}

const bucketName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/, 'must be 3 to 63 lower-case letters, digits and hyphens')

const domainName = z
  .string()
  .max(200, 'must be at most 200 characters, so that every name under it stays a valid one')
  .regex(
    /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$/,
    'must be a lower-case domain name such as lunarfront.tech',
  )

const sshPublicKey = z
  .string()
  .regex(
    /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]{60,}=*( [^\n]*)?$/,
    'must be a public SSH key on one line, such as "ssh-ed25519 AAAA… you@laptop"',
  )

const count = (least: number) =>
  z.number().int('must be a whole number').min(least, `must be at least ${least}`).max(10_000)

/** Settings of terraform/variables.tf that the runbooks give themselves, so that a site cannot say them twice. */
export const GIVEN_TO_TERRAFORM = [
  'name',
  'domain',
  'region',
  'cloudflare_zone_id',
  'buckets',
  'operator_ssh_keys',
  'import_state_bucket',
  'apps_directory',
  'load_balancer_ip',
] as const

/** Variables of ansible/roles/gitea that the runbooks give themselves. */
const GIVEN_TO_ANSIBLE = ['gitea_domain', 'gitea_operator_keys', 'gitea_database', 'gitea_fingerprint']

export const siteSchema = z.strictObject({
  name: z
    .string()
    .regex(
      /^[a-z][a-z0-9-]{1,22}[a-z0-9]$/,
      'must be 3 to 24 lower-case letters, digits and hyphens, starting with a letter and ending without a hyphen',
    ),
  domain: domainName,
  cloudflare_zone_id: z
    .string()
    .regex(/^[0-9a-f]{32}$/, 'must be 32 hexadecimal digits: see the zone’s overview page at Cloudflare'),
  region: z.string().regex(/^[a-z]{3}[0-9]$/, 'must be a DigitalOcean region such as nyc3'),
  buckets: z
    .strictObject({ state: bucketName, files: bucketName, backups: bucketName })
    .refine((names) => new Set(Object.values(names)).size === 3, 'must be three different names'),
  operator_ssh_keys: z
    .record(z.string().regex(/^[a-z][a-z0-9-]{0,30}$/, 'must be named by its holder, such as ryan'), sshPublicKey)
    .refine(
      (keys) => Object.keys(keys).length > 0,
      'must hold at least one key: without one nobody reaches the droplet',
    ),
  repository: z
    .string()
    .regex(
      /^(ssh:\/\/|https:\/\/|[\w.-]+@[\w.-]+:|\/)[^\s]+$/,
      'must be the address of a Git repository: ssh://…, https://…, user@host:path or an absolute path',
    )
    .refine(
      (address) => !/^(https?:\/\/[^/]*@|[a-z]+:\/\/[^/]*:[^/]*@)/.test(address),
      'must not contain a password or token: use an SSH key',
    ),
  image_repository: z
    .string()
    .regex(
      /^[a-z0-9.-]+(:[0-9]+)?(\/[a-z0-9._-]+)+$/,
      'must be an image without its tag, such as registry.lunarfront.tech/ryan/lunarfront-app',
    ),
  runbooks_image: z
    .string()
    .regex(
      /^[a-z0-9.-]+(:[0-9]+)?(\/[a-z0-9._-]+)+(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})$/,
      'must be an image with its tag or digest, such as registry.lunarfront.tech/ryan/lunarfront-infra:3f2a9c1',
    )
    .optional(),
  budget_usd_per_month: z.number().int('must be a whole number of dollars').min(1).max(1_000_000),
  connections_per_customer: z
    .number()
    .int('must be a whole number')
    .min(2, 'must be at least 2: one to serve, one to migrate')
    .max(500),
  backups: z.strictObject({
    recipients: z
      .array(recipientSchema)
      .min(1, 'must name at least one public key, whose private key is kept elsewhere')
      .refine((keys) => new Set(keys).size === keys.length, 'must not name a key twice'),
    daily: count(0),
    weekly: count(0),
    monthly: count(0),
    minimum: count(1),
    max_age_hours: count(1),
    shards: z.number().int('must be a whole number').min(1).max(64).optional(),
    drill_key: z.string().min(1).optional(),
    heartbeat: z.url({ protocol: /^https?$/, error: 'must be an http or https address' }).optional(),
  }),
  acme: z
    .strictObject({
      server: z.url({ protocol: /^https$/, error: 'must be the https address of an ACME directory' }),
      email: z.email('must be an e-mail address, which hears of certificates that are about to expire'),
    })
    .optional(),
  dns_servers: z
    .array(
      z
        .string()
        .regex(/^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\])(:\d{1,5})?$/, 'must be an IP address, with or without a port'),
    )
    .min(1)
    .optional(),
  allow_uncommitted_changes: z.boolean(),
  terraform: z
    .record(
      z.string().regex(/^[a-z_]+$/, 'must be a variable of terraform/variables.tf'),
      z.union([z.string(), z.number(), z.boolean(), z.array(z.string())]),
    )
    .refine((settings) => !GIVEN_TO_TERRAFORM.some((name) => name in settings), {
      error: `must not set ${GIVEN_TO_TERRAFORM.join(', ')}: the runbooks give those themselves`,
    })
    .refine((settings) => Object.keys(settings).every((name) => terraformVariables().includes(name)), {
      error: ({ input }) =>
        `has settings that terraform/variables.tf does not know: ${Object.keys(input as object)
          .filter((name) => !terraformVariables().includes(name))
          .join(', ')}`,
    })
    .default({}),
  ansible: z
    .record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.array(z.string())]))
    .refine((settings) => !GIVEN_TO_ANSIBLE.some((name) => name in settings), {
      error: `must not set ${GIVEN_TO_ANSIBLE.join(', ')}: the runbooks give those themselves`,
    })
    .refine((settings) => Object.keys(settings).every((name) => name in roleDefaults()), {
      error: ({ input }) =>
        `has settings that ansible/roles/gitea/defaults/main.yml does not know: ${Object.keys(input as object)
          .filter((name) => !(name in roleDefaults()))
          .join(', ')}`,
    })
    .default({}),
})

const roleDefaults = () => {
  const file = join(ROOT, 'ansible', 'roles', 'gitea', 'defaults', 'main.yml')
  return readYaml(readFileSync(file, 'utf8'), file) as Record<string, unknown>
}

/** Terraform itself would only warn of a name that it does not know, and go on with its default. */
const terraformVariables = () =>
  [...readFileSync(join(ROOT, 'terraform', 'variables.tf'), 'utf8').matchAll(/^variable "(\w+)"/gm)].map(
    ([, name]) => name,
  )

export type Site = z.infer<typeof siteSchema> & {
  /** absolute path of the site file */
  file: string
  /** absolute path of what the site keeps on this machine; all of it can be lost */
  directory: string
}

/** As terraform/gitea.tf names it. */
export const giteaDroplet = ({ name }: Pick<Site, 'name'>) => `${name}-gitea`

/**
 * @param file path of the site file; without it LUNARFRONT_SITE, else lunarfront.yaml in this checkout
 * @returns the site; throws a misuse that names every setting that is wrong
 */
export function loadSite(file: string | undefined, environment: Record<string, string | undefined>): Site {
  const path = resolve(file ?? (environment.LUNARFRONT_SITE || join(ROOT, 'lunarfront.yaml')))
  if (!existsSync(path) || !statSync(path).isFile())
    throw misuse({
      found: `there is no site file ${path}`,
      expected: 'one file that says where this LunarFront is',
      next: file
        ? 'check the path after --site'
        : `cp ${join(ROOT, 'lunarfront.example.yaml')} ${path}, and fill it in`,
    })
  const settings = validate(siteSchema, readYaml(readFileSync(path, 'utf8'), path), path)
  return { ...settings, file: path, directory: join(dirname(path), '.lunarfront', settings.name) }
}
