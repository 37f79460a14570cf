// What will be, from what is and what the configuration wants, as providers on Terraform's older SDK plan it:
// there "not set" and a zero value are the same, and what the provider computes is unknown only at birth.
import type { Attribute, Blocks, Fields } from './schema.ts'
import { equal, isObject, isZero, UNKNOWN, Unknown, type Value, type Values } from './values.ts'

function planAttribute(attribute: Attribute, wanted: Value, prior: Value, isNew: boolean): Value {
  if (wanted instanceof Unknown) return UNKNOWN
  if (wanted === null && attribute.computed) return isNew ? UNKNOWN : prior
  const asked = wanted ?? ((attribute.fallback ?? null) as Value)
  const next = asked !== null && attribute.store ? (attribute.store(asked) as Value) : asked
  if (isNew) return next
  if (isZero(next) && isZero(prior)) return prior
  const unordered = attribute.type?.notation[0] === 'set'
  if (prior !== null && next !== null && (equal(prior, next, unordered) || attribute.same?.(prior, next))) return prior
  return next
}

const rows = (value: Value | undefined): Values[] => (Array.isArray(value) ? value.filter(isObject) : [])

function planBlocks(blocks: Blocks, wanted: Value, prior: Value, isNew: boolean): Value {
  if (wanted instanceof Unknown) return UNKNOWN
  const next = rows(wanted)
  const before = rows(prior)
  if (next.length === 0 && blocks.computed) return isNew ? UNKNOWN : prior
  if (blocks.nesting === 'list') return next.map((row, index) => planFields(blocks.fields, row, before[index] ?? null))
  // Rows of a set have no names: a row is one that was there if nothing in it would change.
  return next.map((row) => {
    const kept = before.find((old) => equal(planFields(blocks.fields, row, old), old))
    return kept ?? planFields(blocks.fields, row, null)
  })
}

/**
 * Plans one object.
 * @param prior null when it does not exist yet
 */
export function planFields(fields: Fields, wanted: Values, prior: Values | null): Values {
  const planned: Values = {}
  for (const [name, field] of Object.entries(fields)) {
    const [next, before] = [wanted[name] ?? null, prior?.[name] ?? null]
    if (field.kind === 'attribute') planned[name] = planAttribute(field, next, before, prior === null)
    else if (field.kind === 'blocks') planned[name] = planBlocks(field, next, before, prior === null)
    else planned[name] = next
  }
  return planned
}

/** The way to an attribute: names, and positions in lists. */
export type Path = (string | number)[]

/** @returns where a planned change needs a new resource */
export function replacements(fields: Fields, planned: Values, prior: Values): Path[] {
  return Object.entries(fields).flatMap(([name, field]): Path[] => {
    const [next, before] = [planned[name] ?? null, prior[name] ?? null]
    if (field.kind === 'attribute') {
      const unordered = field.type?.notation[0] === 'set'
      return field.replace && !equal(next, before, unordered) ? [[name]] : []
    }
    if (field.kind === 'timeouts' || field.nesting === 'set') return []
    const old = rows(before)
    return rows(next).flatMap((row, index) => {
      const was = old[index]
      return was ? replacements(field.fields, row, was).map((path) => [name, index, ...path]) : []
    })
  })
}

/** @returns exactly what the schema has: what is missing is null, or no block; what is unknown is null */
export function conform(fields: Fields, values: Values): Values {
  const shaped: Values = {}
  for (const [name, field] of Object.entries(fields)) {
    const value = values[name]
    if (field.kind === 'blocks') shaped[name] = rows(value).map((row) => conform(field.fields, row))
    else if (value === undefined || value instanceof Unknown) shaped[name] = null
    else if (field.kind === 'attribute' && field.nested && isObject(value)) shaped[name] = conform(field.nested, value)
    else shaped[name] = value
  }
  return shaped
}

/**
 * The older SDK keeps "not set" where the API says "none of it".
 * @param known what was planned, or what the state had: unknown is not the same as not set
 */
export function keepUnset(fields: Fields, values: Values, known: Values): Values {
  const kept = { ...values }
  for (const [name, field] of Object.entries(fields)) {
    const [value, before] = [values[name] ?? null, known[name] ?? null]
    if (field.kind === 'blocks') {
      if (field.nesting === 'list')
        kept[name] = rows(value).map((row, index) => keepUnset(field.fields, row, rows(before)[index] ?? {}))
    } else if (field.kind === 'attribute' && before === null && typeof value === 'object' && isZero(value))
      kept[name] = null
  }
  return kept
}
