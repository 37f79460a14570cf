// Serves a provider to any number of Terraforms at once, over loopback and without TLS (TF_REATTACH_PROVIDERS).
// Each Terraform has connections of its own, and each connection its own settings.
import { fileURLToPath } from 'node:url'
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { environmentOf } from './client-environment.ts'
import { conform, keepUnset, type Path, planFields, replacements } from './plan.ts'
import type { DataSource, Environment, Provider, Resource } from './resource.ts'
import { type Fields, type Row, wireSchema } from './schema.ts'
import { type DynamicValue, equal, pack, unpack, type Value, type Values } from './values.ts'

export type ProviderServer = { address: string; close: () => Promise<void> }

type Request = {
  type_name: string
  config: DynamicValue | null
  current_state: DynamicValue | null
  prior_state: DynamicValue | null
  planned_state: DynamicValue | null
  raw_state: { json: Uint8Array } | null
  private: Uint8Array
  prior_private: Uint8Array
  planned_private: Uint8Array
  id: string
}
type Response = Record<string, unknown>

const ERROR = 1
const diagnostics = (summaries: string[]) => summaries.map((summary) => ({ severity: ERROR, summary, detail: '' }))

const definitions = loadSync(
  ['tfplugin6.proto', 'plugin.proto'].map((file) => fileURLToPath(new URL(file, import.meta.url))),
  { keepCase: true, longs: Number, enums: Number, defaults: true, oneofs: true },
)
const service = (name: string) => definitions[name] as unknown as ServiceDefinition

/** Starts serving on a free port. */
export async function serveProvider<Client>(provider: Provider<Client>): Promise<ProviderServer> {
  const server = new Server({
    'grpc.max_receive_message_length': 64 * 2 ** 20,
    'grpc.max_send_message_length': 64 * 2 ** 20,
  })
  let port = 0
  server.addService(
    service('tfplugin6.Provider'),
    implementation(provider, (peer) => environmentOf(peer, port)),
  )
  // Terraform may not end a provider that it did not start, and what the provider prints is the cloud's to log.
  const shutdown: handleUnaryCall<object, object> = (_call, answer) => answer(null, {})
  server.addService(service('plugin.GRPCController'), { Shutdown: shutdown })
  server.addService(service('plugin.GRPCStdio'), { StreamStdio: () => {} })
  port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    )
  })
  return { address: `127.0.0.1:${port}`, close: async () => server.forceShutdown() }
}

/** What one connection of one Terraform has been configured with. */
type Session<Client> = { client: Client; stop: AbortController; gone: AbortController }

function implementation<Client>(
  provider: Provider<Client>,
  environmentFrom: (peer: string) => Promise<Environment | undefined>,
): UntypedServiceImplementation {
  const sessions = new Map<string, Session<Client>>()
  const session = (peer: string): Client => {
    const found = sessions.get(peer)
    if (!found) throw new Error('the provider has not been configured on this connection')
    return found.client
  }
  const resource = (name: string): Resource<Fields, Client> => {
    const found = provider.resources[name]
    if (!found) throw new Error(`the provider's stand-in has no resource ${name}`)
    return found
  }
  const dataSource = (name: string): DataSource<Fields, Client> => {
    const found = provider.dataSources[name]
    if (!found) throw new Error(`the provider's stand-in has no data source ${name}`)
    return found
  }
  const { legacy } = provider

  const methods: Record<string, (request: Request, peer: string) => Response | Promise<Response>> = {
    GetProviderSchema: () => schemas(provider),
    ValidateProviderConfig: () => ({}),
    ValidateResourceConfig: ({ type_name, config }) => ({
      diagnostics: diagnostics(resource(type_name).check?.(unpack(config) ?? {}) ?? []),
    }),
    ValidateDataResourceConfig: () => ({}),
    UpgradeResourceState: ({ type_name, raw_state }) => {
      const { fields } = resource(type_name)
      const stored = JSON.parse(Buffer.from(raw_state?.json ?? '{}').toString('utf8')) as Values
      return { upgraded_state: pack(conform(fields, stored)) }
    },
    ConfigureProvider: async ({ config }, peer) => {
      const [stop, gone] = [new AbortController(), new AbortController()]
      // Connections do not tell when they close; the oldest ones are long gone by then.
      if (sessions.size >= 1_000) sessions.delete(sessions.keys().next().value ?? '')
      sessions.delete(peer)
      sessions.set(peer, {
        client: provider.configure(unpack(config) ?? {}, await environmentFrom(peer), stop.signal, gone.signal),
        stop,
        gone,
      })
      return {}
    },
    ReadResource: async ({ type_name, current_state, private: kept }, peer) => {
      const { fields, read } = resource(type_name)
      const state = unpack(current_state) ?? {}
      const found = await read(state as Row<Fields>, session(peer))
      return { new_state: pack(found ? settled(legacy, fields, state, found as Values) : null), private: kept }
    },
    PlanResourceChange: ({ type_name, config, prior_state, prior_private }) => ({
      ...planChange(resource(type_name), unpack(config), unpack(prior_state)),
      planned_private: prior_private,
      legacy_type_system: legacy,
    }),
    ApplyResourceChange: async ({ type_name, prior_state, planned_state, planned_private }, peer) => ({
      ...(await applyChange(legacy, resource(type_name), unpack(prior_state), unpack(planned_state), session(peer))),
      private: planned_private,
      legacy_type_system: legacy,
    }),
    ImportResourceState: async ({ type_name, id }, peer) => {
      const { fields, adopt } = resource(type_name)
      const row = adopt ? await adopt(id, session(peer)) : { id }
      return { imported_resources: [{ type_name, state: pack(conform(fields, row as Values)) }] }
    },
    ReadDataSource: async ({ type_name, config }, peer) => {
      const { fields, read } = dataSource(type_name)
      const asked = unpack(config) ?? {}
      const found = await read(asked as Row<Fields>, session(peer))
      return { state: pack(conform(fields, { ...asked, ...(found as Values) })) }
    },
    StopProvider: (_request, peer) => {
      sessions.get(peer)?.stop.abort()
      return {}
    },
  }
  return Object.fromEntries(
    Object.entries(methods).map(([name, method]): [string, handleUnaryCall<Request, Response>] => [
      name,
      (call, answer) => {
        let answered = false // a call that has its answer is cancelled too, in the end
        call.on('cancelled', () => answered || sessions.get(call.getPeer())?.gone.abort())
        Promise.resolve()
          .then(() => method(call.request, call.getPeer()))
          .catch((error: Error) => ({ diagnostics: diagnostics([error.message]) }))
          .then((response) => {
            answered = true
            answer(null, response)
          })
      },
    ]),
  )
}

const schemas = <Client>({ fields, resources, dataSources }: Provider<Client>): Response => ({
  provider: wireSchema(fields),
  resource_schemas: Object.fromEntries(
    Object.entries(resources).map(([name, { fields, version }]) => [name, wireSchema(fields, version)]),
  ),
  data_source_schemas: Object.fromEntries(
    Object.entries(dataSources).map(([name, { fields }]) => [name, wireSchema(fields)]),
  ),
  server_capabilities: { plan_destroy: false },
})

const wirePath = (path: Path) => ({
  steps: path.map((step) => (typeof step === 'string' ? { attribute_name: step } : { element_key_int: step })),
})

function planChange<Client>(resource: Resource<Fields, Client>, config: Values | null, prior: Values | null): Response {
  if (!config) return { planned_state: pack(null) }
  const planned = resource.plan?.(config, prior) ?? planFields(resource.fields, config, prior)
  if (!prior) return { planned_state: pack(planned) }
  if (equal(planned, prior)) return { planned_state: pack(prior) }
  const replaced = [...replacements(resource.fields, planned, prior), ...(resource.replaceWhen?.(planned, prior) ?? [])]
  return { planned_state: pack(planned), requires_replace: replaced.map(wirePath) }
}

/** @returns the row in its final form: what was found, laid over what was known */
function settled(legacy: boolean, fields: Fields, known: Values, found: Values): Values {
  const row = conform(fields, { ...known, ...found })
  return legacy ? keepUnset(fields, row, known) : row
}

async function applyChange<Client>(
  legacy: boolean,
  { fields, create, update, remove }: Resource<Fields, Client>,
  prior: Values | null,
  planned: Values | null,
  client: Client,
): Promise<Response> {
  // What is known after a failure is what there was, or what has come to exist.
  let known: Value = prior
  try {
    if (!planned) {
      await remove(prior as Row<Fields>, client)
      return { new_state: pack(null) }
    }
    const wanted = conform(fields, planned)
    const keep = (row: Values) => {
      known = conform(fields, { ...wanted, ...row })
    }
    const made = prior
      ? await update?.(prior as Row<Fields>, wanted as Row<Fields>, client)
      : await create(wanted as Row<Fields>, client, keep as (row: object) => void)
    return { new_state: pack(settled(legacy, fields, planned, made as Values)) }
  } catch (error) {
    return { new_state: pack(known), diagnostics: diagnostics([(error as Error).message]) }
  }
}
