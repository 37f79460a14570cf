// The platform of one run: what several steps ask for, each asked once.
import { join } from 'node:path'
import { billLines, monthlyCost, type Resource, total } from './cost.ts'
import { type Customer, readCustomers } from './customers.ts'
import { Failure } from './failure.ts'
import { customersInState } from './infrastructure.ts'
import type { Server } from './postgres.ts'
import { dropletPrices } from './provider-api.ts'
import { openRepository, type Repository } from './repository.ts'
import { once, type Run } from './run.ts'
import { ROOT } from './site.ts'
import { bucketExists } from './spaces.ts'
import { type Outputs, openTerraform, readOutputs, type Terraform } from './terraform.ts'

export type Platform = {
  terraform: () => Promise<Terraform>
  /** what Terraform made; throws when it is not there */
  outputs: (() => Promise<Outputs>) & { forget: () => void }
  postgres: () => Promise<Server>
  repository: Repository
  /** gitops/apps as it is on the repository's main branch */
  appsDirectory: () => Promise<string>
  customers: () => Promise<Customer[]>
}

export function openPlatform(run: Run): Platform {
  const repository = openRepository(run)
  const terraform = once(() => openTerraform(run, async () => bucketExists(await run.spaces(), run.site.buckets.state)))
  const outputs = once(async () => readOutputs(await terraform()))
  const appsDirectory = async () => join(await repository.clone(), 'gitops', 'apps')
  return {
    terraform,
    outputs,
    postgres: async () => (await outputs()).postgres,
    repository,
    appsDirectory,
    customers: async () => readCustomers(await appsDirectory()),
  }
}

/**
 * The customers' folder for bootstrap: the repository may be empty at first, or not be reachable since its host is what
 * is to be made or mended. Then the customers stay as Terraform knows them.
 */
export function appsDirectoryAtFirst(run: Run, platform: Platform): () => Promise<string> {
  const lastKnown = once(async () => {
    run.emit({
      event: 'warning',
      text: `the repository ${run.site.repository} does not answer, so the customers’ records stay as they are`,
    })
    return customersInState(await platform.terraform())
  })
  return async () => {
    try {
      return await platform.appsDirectory()
    } catch (error) {
      const isEmpty = error instanceof Failure && error.notYet
      return isEmpty ? join(ROOT, 'gitops', 'apps') : lastKnown()
    }
  }
}

/** @returns the bill of a plan's outcome, and what to ask before it is applied; throws above the budget */
export async function pricePlan(run: Run, after: readonly Resource[], before: readonly Resource[]) {
  const droplets = await dropletPrices(run)
  const bill = monthlyCost(after, droplets)
  const budget = run.site.budget_usd_per_month
  const now = total(monthlyCost(before, droplets))
  const then = total(bill)
  const lines = billLines(bill, budget)
  if (then > budget)
    throw new Failure({
      found: `the platform would cost $${then} a month:\n${lines.join('\n')}`,
      expected: `at most the site’s budget of $${budget} a month`,
      next: 'choose smaller sizes under terraform in the site file, or raise budget_usd_per_month there',
    })
  return { lines, confirm: `This costs $${then} a month (now $${now}). Go on?` }
}
