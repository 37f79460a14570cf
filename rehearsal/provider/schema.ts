// What a resource consists of, said once: Terraform's schema and the TypeScript type of a row both follow from it.

/** Terraform's notation of types: 'string', ['list', 'string'], ['object', { name: 'string' }]. */
export type Notation = string | [string, Notation | { [name: string]: Notation }]

/** A type, and the TypeScript type of its values. */
export type Type<T> = { notation: Notation; readonly of?: T }

export const string: Type<string> = { notation: 'string' }
export const number: Type<number> = { notation: 'number' }
export const bool: Type<boolean> = { notation: 'bool' }
export const listOf = <T>({ notation }: Type<T>): Type<T[]> => ({ notation: ['list', notation] })
export const setOf = <T>({ notation }: Type<T>): Type<T[]> => ({ notation: ['set', notation] })
export const mapOf = <T>({ notation }: Type<T>): Type<Record<string, T>> => ({ notation: ['map', notation] })
export const objectOf = <T extends Record<string, Type<unknown>>>(
  types: T,
): Type<{ [Name in keyof T]: (T[Name] extends Type<infer U> ? U : never) | null }> => ({
  notation: ['object', Object.fromEntries(Object.entries(types).map(([name, type]) => [name, type.notation]))],
})

export type AttributeOptions<T> = {
  sensitive?: boolean
  deprecated?: boolean
  /** A change makes a new resource. */
  replace?: boolean
  /** What it is when the configuration does not say. */
  fallback?: T
  /** @returns whether the configuration's value means what the state has; methods, so that rows of any type fit */
  same?(prior: T, wanted: T): boolean
  /** How the provider writes the configuration's value into the state. */
  store?(wanted: T): T
}

export type Attribute<T = unknown, Always extends boolean = boolean> = AttributeOptions<T> & {
  kind: 'attribute'
  type: Type<T> | undefined
  /** For an attribute that is an object with attributes of its own, in place of a type. */
  nested?: Fields
  required: Always
  optional: boolean
  computed: boolean
}

export type Blocks<F extends Fields = Fields> = {
  kind: 'blocks'
  nesting: 'list' | 'set'
  fields: F
  min: number
  max: number
  /** The provider fills it in when the configuration has none. */
  computed: boolean
}

/** How long the configuration lets the provider take. The stand-in does not go by it. */
export type Timeouts = { kind: 'timeouts'; names: string[] }

export type Field = Attribute | Blocks | Timeouts
export interface Fields {
  [name: string]: Field
}

type NullUnless<Always, T> = Always extends true ? T : T | null
type ValueOf<F> =
  F extends Blocks<infer Inner>
    ? Row<Inner>[]
    : F extends Attribute<infer T, infer Always>
      ? NullUnless<Always, T>
      : F extends Timeouts
        ? Record<string, string | null> | null
        : never
/** A resource's values: what is not required may be null, and so is what is not known yet. */
export type Row<F extends Fields> = { [Name in keyof F]: ValueOf<F[Name]> }

const attribute =
  <Always extends boolean>(required: Always, optional: boolean, computed: boolean) =>
  <T>(type: Type<T>, options: AttributeOptions<T> = {}): Attribute<T, Always> => ({
    kind: 'attribute',
    type,
    required,
    optional,
    computed,
    ...options,
  })

export const required = attribute(true, false, false)
export const optional = attribute(false, true, false)
export const computed = attribute(false, false, true)
/** The configuration may say it; else the provider does. */
export const optionalComputed = attribute(false, true, true)

const blocks =
  (nesting: 'list' | 'set') =>
  <F extends Fields>(fields: F, { min = 0, max = 0, computed = false } = {}): Blocks<F> => ({
    kind: 'blocks',
    nesting,
    fields,
    min,
    max,
    computed,
  })

export const listBlocks = blocks('list')
export const setBlocks = blocks('set')

export const timeouts = (...names: ('create' | 'update' | 'delete')[]): Timeouts => ({ kind: 'timeouts', names })

// --- as Terraform is told ------------------------------------------------------------------

const NESTING = { single: 1, list: 2, set: 3 }

function wireAttribute(name: string, field: Attribute): object {
  const { type, nested, required, optional, computed, sensitive = false, deprecated = false } = field
  return {
    name,
    required,
    optional,
    computed,
    sensitive,
    deprecated,
    ...(nested
      ? { nested_type: { attributes: wireAttributes(nested), nesting: NESTING.single } }
      : { type: Buffer.from(JSON.stringify(type?.notation)) }),
  }
}

const wireAttributes = (fields: Fields) =>
  Object.entries(fields).flatMap(([name, field]) => (field.kind === 'attribute' ? [wireAttribute(name, field)] : []))

function wireNested(type_name: string, field: Blocks | Timeouts): object {
  if (field.kind === 'blocks')
    return {
      type_name,
      block: wireBlock(field.fields),
      nesting: NESTING[field.nesting],
      min_items: field.min,
      max_items: field.max,
    }
  const times = Object.fromEntries(field.names.map((name) => [name, optional(string)]))
  return { type_name, block: wireBlock(times), nesting: NESTING.single }
}

const wireBlock = (fields: Fields): object => ({
  attributes: wireAttributes(fields),
  block_types: Object.entries(fields).flatMap(([name, field]) =>
    field.kind === 'attribute' ? [] : [wireNested(name, field)],
  ),
})

/** @returns the schema in the shape of the protocol's message */
export const wireSchema = (fields: Fields, version = 0) => ({ version, block: wireBlock(fields) })
