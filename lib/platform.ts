// The platform of one run: what several steps ask for, each asked once.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { billLines, monthlyCost, type Resource, total } from './cost.ts'
import { POSTGRES_FILE } from './credentials.ts'
import type { SecretsHome } from './customer-secrets.ts'
import { type Customer, readCustomers } from './customers.ts'
import { openDroplet } from './droplet.ts'
import { Failure } from './failure.ts'
import { type Gitea, openGitea } from './gitea.ts'
import { balancerName, customersInState, terraformStep } from './infrastructure.ts'
import { othersIn, secretOnCluster, secretsIn } from './instance-secret.ts'
import { type Kubernetes, openKubernetes } from './kubernetes.ts'
import { type Outputs, readOutputs, readPostgresFile } from './outputs.ts'
import type { Server } from './postgres.ts'
import { dropletPrices, loadBalancerAddress, recordedAddresses } from './provider-api.ts'
import { openRepository, type Repository } from './repository.ts'
import { sshCommand } from './repository-address.ts'
import { once, type Run } from './run.ts'
import { ROOT } from './site.ts'
import { bucketExists } from './spaces.ts'
import { openTerraform, type Terraform } from './terraform.ts'
import { onlyAddOrUpdate, onlyMakesRecords } from './terraform-plan.ts'

export type Platform = {
  run: Run
  terraform: () => Promise<Terraform>
  /** what Terraform made; throws when it is not there */
  outputs: (() => Promise<Outputs>) & { forget: () => void }
  postgres: () => Promise<Server>
  repository: Repository
  /** gitops/apps as it is on the repository's main branch */
  appsDirectory: () => Promise<string>
  customers: () => Promise<Customer[]>
  kubernetes: Kubernetes
  gitea: Gitea
  /** where a customer's secrets may be */
  secrets: (customer: string) => SecretsHome
}

export function openPlatform(run: Run): Platform {
  const terraform = once(() => openTerraform(run, async () => bucketExists(await run.spaces(), run.site.buckets.state)))
  const outputs = once(async () => readOutputs(await terraform()))
  const repository = openRepository(run, () => sshCommand(run, outputs))
  const appsDirectory = async () => join(await repository.clone(), 'gitops', 'apps')
  const kubernetes = openKubernetes(run, outputs)
  const homes = new Map<string, SecretsHome>()
  const droplet = openDroplet(run, outputs)
  return {
    run,
    terraform,
    outputs,
    kubernetes,
    gitea: openGitea(droplet),
    secrets: (customer) => {
      const ask = () => secretOnCluster(kubernetes, customer)
      const [early, underLock] = [once(ask), once(ask)] // whoever had the lock before may have put them there
      const forget = () => [early, underLock].forEach((one) => void one.forget())
      const there = () => (run.locked() ? underLock() : early())
      const whole = async () => {
        const data = await there()
        return data && secretsIn(customer, data)
      }
      const onCluster = Object.assign(whole, { forget })
      const others = async () => othersIn((await there()) ?? {})
      const home = homes.get(customer) ?? { directory: run.site.directory, customer, onCluster, others }
      homes.set(customer, home)
      return home
    },
    postgres: async () => {
      const file = run.environment[POSTGRES_FILE]
      if (file) return readPostgresFile(file)
      const { postgres } = await outputs()
      return { ...postgres, ...(await droplet.wayTo(postgres)) }
    },
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
    const directory = await customersInState(await platform.terraform())
    if (readdirSync(directory).length > 0)
      run.emit({
        event: 'warning',
        text: `the repository ${run.site.repository} does not answer, so the customers’ records stay as they are`,
      })
    return directory
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

/** A customer's name is in DNS; nothing else of the infrastructure may be touched for that. */
export const recordStep = (platform: Platform, host: string, needs: readonly AnyStep[]) => {
  const { run, terraform: open, outputs, appsDirectory } = platform
  return terraformStep({
    run,
    title: `${host} is in DNS`,
    needs,
    open,
    outputs,
    appsDirectory,
    allowed: onlyMakesRecords,
  })
}

/** The name that customers' names lead to is that of the load balancer, which the cluster makes for its ingress. */
export function balancerStep(platform: Platform, needs: readonly AnyStep[]): Step {
  const { run, terraform: open, outputs, appsDirectory, kubernetes } = platform
  const { site } = run
  const title = `${balancerName(site)} leads to the load balancer`
  const record = terraformStep({ run, title, needs, open, outputs, appsDirectory, allowed: onlyAddOrUpdate })
  return step<Drift>({
    title,
    needs,
    check: async () => {
      const [address, recorded] = await Promise.all([
        loadBalancerAddress(run, site.name),
        recordedAddresses(run, site.cloudflare_zone_id, balancerName(site)),
      ])
      if (!address) return { lines: ['the load balancer is not there yet'] }
      return recorded.join() === address
        ? undefined
        : { lines: [`it is ${address}, and the name ${recorded[0] ?? 'is not there'}`] }
    },
    apply: async (_drift, work) => {
      work.waitingFor('DigitalOcean, which makes the load balancer')
      const address = ['service/traefik', '--namespace=traefik', '--for=jsonpath={.status.loadBalancer.ingress[0].ip}']
      await kubernetes.kubectl(['wait', ...address, '--timeout=600s'], {
        timeout: 630,
        next: 'kubectl -n traefik describe service traefik',
      })
      const drift = await record.check(work)
      if (drift) await record.apply(drift, work)
    },
  })
}
