// The parts that a provider is made of.

import type { Path } from './plan.ts'
import type { Fields, Row } from './schema.ts'
import type { Values } from './values.ts'

/** Some of a row's values; the others stay what they were planned or known to be. */
export type Part<F extends Fields> = { [Name in keyof Row<F>]?: Row<F>[Name] | undefined }

/**
 * A type of resource: how its rows come about and change. Written as methods, so that resources with
 * different rows fit into one list.
 */
export type Resource<F extends Fields, Client> = {
  version: number
  fields: F
  /** @returns what is wrong with the configuration, one sentence each */
  check?(config: Values): string[]
  /** Plans in place of the common way. */
  plan?(config: Values, prior: Values | null): Values
  /** @returns where else a change needs a new resource */
  replaceWhen?(planned: Values, prior: Values): Path[]
  /** @param keep is told the row as soon as the thing exists, so that a failure after it does not lose it */
  create(planned: Row<F>, client: Client, keep: (row: Part<F>) => void): Promise<Part<F>>
  /** @returns undefined when it is gone */
  read(state: Row<F>, client: Client): Promise<Part<F> | undefined>
  /** Left out where every change makes a new resource. */
  update?(prior: Row<F>, planned: Row<F>, client: Client): Promise<Part<F>>
  remove(state: Row<F>, client: Client): Promise<void>
  /** @returns the row to read, from what follows the address in `terraform import`; without it the id alone */
  adopt?(id: string, client: Client): Promise<Part<F>>
}

export type DataSource<F extends Fields, Client> = {
  fields: F
  read(config: Row<F>, client: Client): Promise<Part<F>>
}

/** Keeps the types of fields and rows in step. */
export const resourceFor =
  <Client>() =>
  <F extends Fields>(resource: Resource<F, Client>): Resource<F, Client> =>
    resource

export const dataSourceFor =
  <Client>() =>
  <F extends Fields>(source: DataSource<F, Client>): DataSource<F, Client> =>
    source

export type Provider<Client> = {
  /** The last two parts of its address in a registry. */
  source: string
  fields: Fields
  /** On the older SDK, whose plans Terraform does not hold to the letter. */
  legacy: boolean
  resources: Record<string, Resource<Fields, Client>>
  dataSources: Record<string, DataSource<Fields, Client>>
  /**
   * @param environment of the Terraform that asks; undefined where it cannot be told
   * @param stopped aborts when Terraform is interrupted, and asks what is under way to end
   * @param gone aborts when Terraform no longer waits for an answer
   */
  configure(config: Values, environment: Environment | undefined, stopped: AbortSignal, gone: AbortSignal): Client
}

export type Environment = Record<string, string | undefined>
