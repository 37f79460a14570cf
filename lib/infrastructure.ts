// The platform's infrastructure as steps: a plan that is guarded, priced and kept, and the apply of that very plan.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { stringify } from 'yaml'
import * as z from 'zod'
import { alreadyMade, requireFreeNames } from './adoption.ts'
import { type AnyStep, type Drift, type Step, step, type Work } from './converge.ts'
import type { Resource } from './cost.ts'
import { namesOf } from './customers.ts'
import { Failure } from './failure.ts'
import { readOutputs } from './outputs.ts'
import type { Platform } from './platform.ts'
import { loadBalancerAddress, recordedAddresses } from './provider-api.ts'
import type { Run } from './run.ts'
import type { Site } from './site.ts'
import { readObject } from './spaces.ts'
import {
  argv,
  clearStaleLock,
  command,
  inJson,
  STATE_KEY,
  type Terraform,
  variablesOf,
  withImports,
} from './terraform.ts'
import {
  type Change,
  CUSTOMER_RECORD,
  changeLine,
  changesOf,
  forbidden,
  type Plan,
  planSchema,
} from './terraform-plan.ts'

/** `file`: the saved plan; without one there is nothing to apply */
export type PlanDrift = Drift & { terraform: Terraform; file?: string; changes: Change[] }

const plannedChange = z.object({ change: z.object({ action: z.string() }) })
const plannedOutputs = z.object({ outputs: z.record(z.string(), z.object({ action: z.string().optional() })) })

/** How often a plan is made again because what it would create turns out to be there. */
const ROUNDS = 4

/**
 * Plans, and plans again with an import block for what the plan would create although it is there.
 *
 * @returns undefined when there is nothing to do
 */
async function makePlan(
  opened: Terraform,
  variables: string,
  work: Work,
): Promise<{ terraform: Terraform; file: string; plan: Plan } | undefined> {
  const { run } = opened
  const file = join(run.scratch, 'terraform.plan')
  const found = new Map<string, string>()
  for (let round = 1; ; round++) {
    const terraform = found.size > 0 ? await withImports(opened, found) : opened
    let touched = 0
    await inJson(
      terraform,
      argv.plan({ variables, out: file, lock: run.locked() }),
      (type, line) => {
        if (type === 'planned_change' && plannedChange.parse(line).change.action !== 'read') touched++
        if (type === 'outputs')
          for (const { action } of Object.values(plannedOutputs.parse(line).outputs)) if (action !== 'noop') touched++
      },
      900,
    )
    if (touched === 0 && found.size === 0) return undefined
    const plan = planSchema.parse(JSON.parse((await command(terraform, argv.show(file), { shown: false })).stdout))
    const creations = plan.resource_changes.flatMap(({ address, change }) =>
      change.actions.join() === 'create' ? [{ address, wanted: change.after ?? {} }] : [],
    )
    const more = await alreadyMade(run, creations, work)
    if (more.size === 0 || round === ROUNDS) {
      await requireFreeNames(run, creations)
      return { terraform, file, plan }
    }
    for (const [address, id] of more) found.set(address, id)
  }
}

/** The name that customers' names lead to. */
export const balancerName = ({ domain }: Pick<Site, 'domain'>) => `lb.app.${domain}`

/** @returns the load balancer's address; where there is none just now, the one that its name has; '' where it has none */
async function balancerIp(run: Run): Promise<string> {
  const { site } = run
  const [address, recorded] = await Promise.all([
    loadBalancerAddress(run, site.name),
    recordedAddresses(run, site.cloudflare_zone_id, balancerName(site)),
  ])
  return address ?? recorded[0] ?? ''
}

/**
 * @param options.open ready Terraform
 * @param options.appsDirectory gitops/apps as it is on the repository's main branch
 * @param options.allowed which changes the runbook may make; any other stops it with the list
 * @param options.price what the plan's outcome costs: lines for people, and what to ask them before it is applied
 * @returns the step that applies terraform/, from a saved plan: what was shown is what is applied
 */
export function terraformStep(options: {
  run: Run
  title: string
  open: () => Promise<Terraform>
  /** as all steps of the run have them: forgotten when they may have changed */
  outputs: Platform['outputs']
  appsDirectory: () => Promise<string>
  allowed: (change: Change) => boolean
  price?: (after: readonly Resource[], before: readonly Resource[]) => Promise<{ lines: string[]; confirm: string }>
  needs?: readonly AnyStep[]
}): Step<PlanDrift> {
  const { title, open, outputs, allowed, price } = options
  return step<PlanDrift>({
    title,
    first: true,
    check: async (work) => {
      const run = options.run
      const [opened, appsDirectory, loadBalancerIp] = await Promise.all([
        open(),
        options.appsDirectory(),
        balancerIp(run),
      ])
      const variables = join(run.scratch, 'terraform.tfvars.json')
      const given = { appsDirectory, importStateBucket: opened.state, loadBalancerIp }
      writeFileSync(variables, JSON.stringify(variablesOf(run.site, given), null, 2), { mode: 0o600 })
      work.waitingFor(`${opened.program} plan`)
      if (run.locked()) await clearStaleLock(opened, work)
      const planned = await makePlan(opened, variables, work)
      if (!planned) return changedMeanwhile(opened, outputs)
      const { terraform, file, plan } = planned
      const changes = changesOf(plan)
      const refused = forbidden(changes, allowed)
      if (refused.length > 0) throw refusal(run.runbook, refused)
      const written = Object.entries(plan.output_changes).filter(([, { actions }]) => actions.join() !== 'no-op')
      if (changes.length === 0)
        return written.length === 0
          ? changedMeanwhile(opened, outputs)
          : { lines: [`write the outputs ${written.map(([name]) => name).join(', ')}`], terraform, file, changes }
      const priced = await price?.(
        plan.planned_values.root_module.resources,
        plan.prior_state?.values?.root_module.resources ?? [],
      )
      return {
        lines: [...changes.map(changeLine), ...(priced?.lines ?? [])],
        ...(priced ? { confirm: priced.confirm } : {}),
        terraform,
        file,
        changes,
      }
    },
    apply: async ({ terraform, file, changes }, work) => {
      if (file) {
        await inJson(terraform, argv.apply(file), progress(changes.length, work), 3600)
        rmSync(file, { force: true })
      }
      outputs.forget()
    },
  })
}

/**
 * The Terraform of a run that was killed goes on, and may have ended only after the outputs were read.
 *
 * @returns what has steps look again that went by the outputs before; undefined where those are still true
 */
async function changedMeanwhile(terraform: Terraform, outputs: Platform['outputs']): Promise<PlanDrift | undefined> {
  if (!terraform.state) return undefined
  const [before, now] = await Promise.all([outputs().catch(() => undefined), readOutputs(terraform)])
  return isDeepStrictEqual(before, now)
    ? undefined
    : { lines: ['go on with what an earlier run has made meanwhile'], terraform, changes: [] }
}

function refusal(runbook: string, refused: readonly Change[]): Failure {
  const next = refused.flatMap(({ action, address }) => {
    const customer = CUSTOMER_RECORD.exec(address)?.[1]
    if (customer && action === 'delete')
      return [
        `put gitops/apps/customer-${customer} back: a customer is not removed by removing its folder, but by ./runbooks/remove-customer.mts ${customer}`,
      ]
    return []
  })
  return new Failure({
    found: `Terraform’s plan would touch what ${runbook} may not: ${refused.map(changeLine).join('; ')}`,
    expected: 'nothing but what this runbook is for',
    next: next[0] ?? './runbooks/bootstrap.mts --plan, which shows all that differs',
  })
}

const hook = z.object({
  hook: z.object({ resource: z.object({ addr: z.string() }), elapsed_seconds: z.number().optional() }),
})

/** Tells which resources are being worked on, and how many are done. */
function progress(all: number, work: Work): (type: string, line: unknown) => void {
  const running = new Map<string, number>()
  let done = 0
  return (type, line) => {
    if (!/^apply_(start|progress|complete|errored)$/.test(type)) return
    const { resource, elapsed_seconds = 0 } = hook.parse(line).hook
    if (type === 'apply_start' || type === 'apply_progress') running.set(resource.addr, elapsed_seconds)
    else running.delete(resource.addr)
    if (type === 'apply_complete') done++
    const names = [...running].map(([address, seconds]) => (seconds ? `${address} (${seconds} s)` : address))
    work.waitingFor(`${done} of ${all} done${names.length > 0 ? `; now ${names.join(', ')}` : ''}`)
  }
}

const stateSchema = z.object({
  values: z
    .object({
      root_module: z.object({
        resources: z
          .array(
            z.object({
              address: z.string(),
              tainted: z.boolean().optional(),
              values: z.looseObject({ name: z.string().optional() }).default({}),
            }),
          )
          .default([]),
      }),
    })
    .optional(),
})

async function stateOf(terraform: Terraform) {
  const { stdout } = await command(terraform, argv.show(), { shown: false })
  return stateSchema.parse(JSON.parse(stdout)).values?.root_module.resources ?? []
}

/** @returns a folder like gitops/apps with the customers whose records Terraform has made */
export async function customersInState(terraform: Terraform): Promise<string> {
  const directory = join(terraform.run.scratch, 'apps-in-state')
  mkdirSync(directory, { recursive: true })
  for (const { address, values } of terraform.state ? await stateOf(terraform) : []) {
    const customer = CUSTOMER_RECORD.exec(address)?.[1]
    if (!customer) continue
    const { slug } = namesOf(customer)
    const subdomain = values.name?.split('.')[0] ?? customer
    mkdirSync(join(directory, slug), { recursive: true })
    writeFileSync(join(directory, slug, 'values.yaml'), stringify({ customer, subdomain }))
  }
  return directory
}

type Unfinished = Drift & { addresses: string[] }

/**
 * A creation that was interrupted may leave its resource marked (tainted), and Terraform would replace it: with a
 * droplet that is refused. What was made is taken as it is; the plan then tells how it differs.
 */
export function finishedStep(
  open: () => Promise<Terraform>,
  { needs }: { needs?: readonly AnyStep[] } = {},
): Step<Unfinished> {
  return step<Unfinished>({
    title: 'no resource was left half made',
    ...(needs ? { needs } : {}),
    check: async () => {
      const terraform = await open()
      const { run, state } = terraform
      if (!state) return undefined
      // Asking Terraform takes much longer than looking whether there is anything to ask about.
      const text = await readObject(await run.spaces(), run.site.buckets.state, STATE_KEY)
      if (!text?.includes('"tainted"')) return undefined
      const addresses = (await stateOf(terraform)).filter(({ tainted }) => tainted).map(({ address }) => address)
      return addresses.length > 0
        ? { lines: addresses.map((address) => `take ${address} as it is`), addresses }
        : undefined
    },
    apply: async ({ addresses }, work) => {
      const terraform = await open()
      await clearStaleLock(terraform, work)
      for (const address of addresses) await command(terraform, argv.untaint(address))
    },
  })
}
