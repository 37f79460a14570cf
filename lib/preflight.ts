// What has to be so before a run may start: credentials (each tried with a harmless call), limits, the checkout.

import { requireCleanCheckout, requireUpToDate } from './checkout.ts'
import { POSTGRES_FILE } from './credentials.ts'
import { namesOf, secretsElsewhere } from './customers.ts'
import { Failure } from './failure.ts'
import { readPostgresFile } from './outputs.ts'
import type { Platform } from './platform.ts'
import { ApiError, account, dropletCount, monthToDateUsage, zone } from './provider-api.ts'
import type { Run } from './run.ts'
import type { Precondition } from './runbook.ts'
import { bucketExists, isStatus, listBuckets } from './spaces.ts'
import { requireSupported } from './terraform.ts'

/** Droplets that bootstrap makes beside the cluster's nodes: Gitea's. */
const OWN_DROPLETS = 1

export const terraformPrecondition = (run: Run): Precondition => ({
  title: 'Terraform is there and new enough',
  check: () => requireSupported(run),
})

/** What says where Postgres is: Terraform's state, or in its place a file. */
export const postgresKnownPrecondition = (run: Run): Precondition => {
  const file = run.environment[POSTGRES_FILE]
  if (!file) return terraformPrecondition(run)
  return { title: `${file} says where Postgres is`, check: async () => void readPostgresFile(file) }
}

export const checkoutPrecondition = ({ repository }: Platform): Precondition => ({
  title: 'the checkout is clean and up to date',
  check: async () => {
    await requireCleanCheckout(repository)
    await requireUpToDate(repository)
  },
})

/** DigitalOcean's token, its account, and room for what will be made. */
const digitaloceanPrecondition = (run: Run): Precondition => ({
  title: 'the DigitalOcean account is open',
  check: async () => {
    const { status, email, status_message } = await explained(
      account(run),
      'DIGITALOCEAN_TOKEN',
      'make a token with full access in DigitalOcean’s control panel under API',
    )
    if (status !== 'active')
      throw new Failure({
        found: `the account ${email} is ${status}${status_message ? `: ${status_message}` : ''}`,
        expected: 'active',
        next: 'settle that in DigitalOcean’s control panel',
      })
  },
})

export const limitPrecondition = (run: Run): Precondition => ({
  title: 'the account’s droplet limit is enough',
  check: async () => {
    const needed = Number(run.site.terraform.node_count ?? 2) + OWN_DROPLETS
    const [{ droplet_limit }, used, ours] = await Promise.all([
      account(run),
      dropletCount(run),
      dropletCount(run, run.site.name),
    ]).catch(quietly)
    const more = Math.max(0, needed - ours)
    if (used + more > droplet_limit)
      throw new Failure({
        found: `${used} droplets are in use, ${more} more are to be made, and the account may have ${droplet_limit}`,
        expected: `room for ${more}`,
        next: 'ask for a higher limit in DigitalOcean’s control panel under Settings, or remove droplets',
      })
  },
})

export const budgetPrecondition = (run: Run): Precondition => ({
  title: 'this month’s bill is within the budget',
  check: async () => {
    const used = await monthToDateUsage(run).catch(quietly)
    const budget = run.site.budget_usd_per_month
    if (used > budget)
      throw new Failure({
        found: `this account has used $${used} since the month began`,
        expected: `at most the budget of $${budget}`,
        next: 'look at the bill in DigitalOcean’s control panel; raise budget_usd_per_month in the site file if it is right',
      })
  },
})

export const spacesPrecondition = (run: Run): Precondition => ({
  title: 'the Spaces key works',
  check: async () => {
    try {
      await listBuckets(await run.spaces())
    } catch (error) {
      if (isStatus(error, 403) || isStatus(error, 401)) {
        // A key for some buckets only may not list them all.
        if (await bucketExists(await run.spaces(), run.site.buckets.backups).catch(() => false)) return
        throw new Failure({
          found: `Spaces refuses the key: ${(error as Error).name}`,
          expected: 'SPACES_ACCESS_KEY_ID and SPACES_SECRET_ACCESS_KEY of a key with full access',
          next: 'make one in DigitalOcean’s control panel under Spaces, Access Keys',
        })
      }
      if (error instanceof Failure) throw error
      throw new Failure({
        found: `Spaces at ${run.credentials.spaces.endpoint} does not answer as it should: ${(error as Error).message || (error as Error).name}`,
        next: `curl -sS -o /dev/null -w '%{http_code}\\n' ${run.credentials.spaces.endpoint}`,
      })
    }
  },
})

const cloudflarePrecondition = (run: Run): Precondition => ({
  title: 'the Cloudflare token may use the zone',
  check: async () => {
    const { domain, cloudflare_zone_id } = run.site
    const { name, status } = await explained(
      zone(run, cloudflare_zone_id),
      'CLOUDFLARE_API_TOKEN, or cloudflare_zone_id in the site file,',
      'make a token with Zone:DNS:Edit and Zone:Zone:Read for this zone, and copy the zone’s id from its overview page',
    )
    if (domain !== name && !domain.endsWith(`.${name}`))
      throw new Failure({
        found: `the zone ${cloudflare_zone_id} is ${name}`,
        expected: `the zone of ${domain}`,
        next: 'correct cloudflare_zone_id or domain in the site file',
      })
    if (status !== 'active')
      throw new Failure({
        found: `the zone ${name} is ${status}`,
        expected: 'active',
        next: 'point the domain at Cloudflare’s name servers',
      })
  },
})

/** Whatever Terraform runs with: itself, and each provider's credential. */
export const providerPreconditions = (run: Run): Precondition[] => [
  terraformPrecondition(run),
  digitaloceanPrecondition(run),
  spacesPrecondition(run),
  cloudflarePrecondition(run),
]

/** Turns a refused credential into words of ours. */
async function explained<T>(answer: Promise<T>, variable: string, next: string): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    if (error.status !== 429 && error.status < 500)
      throw new Failure({
        found: `${variable} is refused (${error.status}): ${error.message}`,
        expected: 'a credential that is accepted',
        next,
      })
    throw new Failure({
      found: `the provider fails (${error.status}), whatever the credential: ${error.message}`,
      expected: 'an answer',
      next: 'look at its status page, and run it again',
    })
  }
}

/** What another precondition of the same credential already explains. */
function quietly(error: unknown): never {
  if (error instanceof ApiError) throw new Failure({ found: `not known: ${error.message}` })
  throw error
}

/** What is in gitops/apps can be trusted, and no other customer has this one's address. */
export const customersPrecondition = (platform: Platform, customer: string): Precondition => ({
  title: 'the customers’ files are valid',
  check: async () => {
    const customers = await platform.customers()
    const own = customers.find((one) => one.customer === customer)
    const elsewhere = own && secretsElsewhere(own)
    if (elsewhere)
      throw new Failure({
        found: `${customer} has its secrets from ${elsewhere}`,
        expected: `existingSecret: ${namesOf(customer).slug}, the one that add-customer makes`,
        next: `write that into its values file in their place, and ./runbooks/add-customer.mts ${customer} --new-secrets, which signs its users out`,
      })
    const other = customers.find((one) => one.subdomain === customer && one.customer !== customer)
    if (other)
      throw new Failure({
        found: `the customer ${other.customer} has the subdomain ${customer}`,
        expected: 'one that nobody has',
        next: 'choose another name, or another subdomain for that customer',
      })
  },
})
