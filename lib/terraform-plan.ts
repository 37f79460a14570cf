// What a plan of Terraform's would touch, and which of that a runbook may.
import * as z from 'zod'
import type { Resource } from './cost.ts'

const resourceSchema: z.ZodType<Resource> = z.object({
  address: z.string(),
  type: z.string(),
  values: z.record(z.string(), z.unknown()).default({}), // a data source that is yet to be read has none
})
const moduleSchema = z.object({
  // A module of its own would be neither guarded nor priced.
  root_module: z.object({ resources: z.array(resourceSchema).default([]), child_modules: z.never().optional() }),
})
const attributes = z.record(z.string(), z.unknown()).nullish().default({})

export const planSchema = z.object({
  planned_values: moduleSchema,
  prior_state: z.object({ values: moduleSchema.optional() }).optional(),
  resource_changes: z
    .array(
      z.object({
        address: z.string(),
        previous_address: z.string().optional(),
        change: z.object({
          actions: z.array(z.string()),
          before: attributes,
          after: attributes,
          after_unknown: attributes,
          importing: z.unknown().optional(),
        }),
      }),
    )
    .default([]),
  output_changes: z.record(z.string(), z.object({ actions: z.array(z.string()) })).default({}),
  action_invocations: z.never().optional(),
})
export type Plan = z.infer<typeof planSchema>

/** One resource that a plan would touch. */
export type Change = {
  address: string
  action: 'create' | 'update' | 'replace' | 'delete' | 'import' | 'other'
  /** names of the attributes that would change, for anything that is there already */
  attributes: string[]
}

/** @returns what a plan (from `terraform show -json`) would touch; reading data and doing nothing is left out */
export function changesOf(plan: Pick<Plan, 'resource_changes'>): Change[] {
  return plan.resource_changes.flatMap(({ address, previous_address, change }): Change[] => {
    const action = actionOf(change.actions.join('+'), change.importing !== undefined, previous_address !== undefined)
    if (!action) return []
    const before = change.before ?? {}
    const after = change.after ?? {}
    const differs = (name: string) =>
      change.after_unknown?.[name] === true ||
      JSON.stringify(before[name] ?? null) !== JSON.stringify(after[name] ?? null)
    const names =
      action === 'create' || action === 'delete' ? [] : [...new Set([...Object.keys(before), ...Object.keys(after)])]
    return [{ address, action, attributes: names.filter(differs).sort() }]
  })
}

/** Whatever is not known here, such as that a resource is moved or forgotten, is 'other', which no runbook may do. */
function actionOf(actions: string, importing: boolean, moved: boolean): Change['action'] | undefined {
  if (moved) return 'other'
  if (actions === 'create+delete' || actions === 'delete+create') return 'replace'
  if (actions === 'create' || actions === 'delete') return actions
  if (actions !== 'no-op' && actions !== 'update' && actions !== 'read') return 'other'
  if (importing) return 'import'
  return actions === 'update' ? actions : undefined
}

export const changeLine = ({ action, address, attributes }: Change) =>
  `${action} ${address}${attributes.length > 0 ? ` (${attributes.join(', ')})` : ''}`

/** @returns the changes that a runbook may not make */
export const forbidden = (changes: readonly Change[], allowed: (change: Change) => boolean) =>
  changes.filter((change) => !allowed(change))

export const CUSTOMER_RECORD = /^cloudflare_dns_record\.customer\["(.+)"\]$/

/** What bootstrap may do: make things, take what was made, change it in place; never replace or remove anything. */
export const onlyAddOrUpdate = ({ action }: Change) => action === 'create' || action === 'import' || action === 'update'

/**
 * What add-customer may do: make a customer's record, or take it as it is where it was made before. Any customer's that is
 * in gitops/apps, since of two that were left half added neither could be finished otherwise.
 */
export const onlyMakesRecords = ({ address, action, attributes }: Change) =>
  CUSTOMER_RECORD.test(address) && (action === 'create' || (action === 'import' && attributes.length === 0))

/**
 * What remove-customer may do: remove that customer's record; and what add-customer may, since of two that were left half
 * added neither could be removed otherwise.
 */
export const removesRecordOf = (customer: string) => (change: Change) =>
  (change.action === 'delete' && CUSTOMER_RECORD.exec(change.address)?.[1] === customer) || onlyMakesRecords(change)
