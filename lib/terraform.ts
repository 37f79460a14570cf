// Terraform, driven through its machine-readable output: a plan that is guarded, priced and kept, and the apply of that
// very plan.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { hostname, userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import * as z from 'zod'
import { type AnyStep, type Drift, type Step, step, type Work } from './converge.ts'
import type { Resource } from './cost.ts'
import type { Command, Output } from './exec.ts'
import { Failure, misuse } from './failure.ts'
import { isBusy, PID_FILE, type Run } from './run.ts'
import { Secret } from './secret.ts'
import { ROOT, type Site } from './site.ts'
import { readObject } from './spaces.ts'

export const STATE_KEY = 'terraform.tfstate'

/** The oldest version that locks its state in S3 by itself (use_lockfile). */
export const OLDEST_TERRAFORM = [1, 10] as const

// --- the command line ------------------------------------------------------------------

/** Terraform's or OpenTofu's arguments, in one place so that they can be read and tested. */
export const argv = {
  init: (bucket: string) => ['init', '-input=false', '-no-color', '-reconfigure', `-backend-config=bucket=${bucket}`],
  initWithoutState: () => ['init', '-input=false', '-no-color'],
  plan: (options: { variables: string; out: string; lock: boolean }) => [
    'plan',
    '-input=false',
    '-json',
    `-var-file=${options.variables}`,
    `-out=${options.out}`,
    ...(options.lock ? ['-lock-timeout=600s'] : ['-lock=false']),
  ],
  show: (file?: string) => ['show', '-json', '-no-color', ...(file ? [file] : [])],
  apply: (file: string) => ['apply', '-input=false', '-json', '-lock-timeout=600s', file],
  output: () => ['output', '-json', '-no-color'],
  untaint: (address: string) => ['untaint', '-no-color', '-lock-timeout=600s', address],
  forceUnlock: (id: string) => ['force-unlock', '-force', id],
}

/** Variables of Terraform itself that would make a run do something else than it was told. */
const MISLEADING = /^TF_(VAR_|CLI_ARGS|WORKSPACE$|DATA_DIR$|INPUT$|REGISTRY_)/

/** What a site says, as Terraform's variables. */
export const variablesOf = (site: Site, given: { appsDirectory: string; importStateBucket: boolean }) => ({
  ...site.terraform,
  name: site.name,
  domain: site.domain,
  region: site.region,
  cloudflare_zone_id: site.cloudflare_zone_id,
  buckets: site.buckets,
  operator_ssh_keys: site.operator_ssh_keys,
  apps_directory: given.appsDirectory,
  import_state_bucket: given.importStateBucket,
})

/** @returns the program to call: the first 'terraform' on PATH, or where there is none 'tofu' */
export function terraformProgram({ environment }: Run): string {
  const folders = (environment.PATH ?? '').split(delimiter)
  const program = ['terraform', 'tofu'].find((name) => folders.some((folder) => existsSync(join(folder, name))))
  if (program) return program
  throw misuse({
    found: 'neither terraform nor tofu is on PATH',
    expected: `one of them, ${OLDEST_TERRAFORM.join('.')} or newer`,
    next: 'install one',
  })
}

/** Throws a misuse when Terraform is missing or too old. */
export async function requireSupported(run: Run): Promise<void> {
  const program = terraformProgram(run)
  const { stdout } = await run.exec({ argv: [program, 'version', '-json'], env: { CHECKPOINT_DISABLE: '1' } })
  const { terraform_version } = versionSchema.parse(JSON.parse(stdout))
  const [major = 0, minor = 0] = terraform_version.split('.').map(Number)
  if (major < OLDEST_TERRAFORM[0] || (major === OLDEST_TERRAFORM[0] && minor < OLDEST_TERRAFORM[1]))
    throw misuse({
      found: `${program} is ${terraform_version}`,
      expected: `${OLDEST_TERRAFORM.join('.')} or newer, which locks its state in Spaces`,
      next: `update ${program}`,
    })
}

const versionSchema = z.object({ terraform_version: z.string() })

// --- one working directory -------------------------------------------------------------

export type Terraform = {
  run: Run
  /** 'terraform' or 'tofu' */
  program: string
  /** where the .tf files are */
  directory: string
  /** Terraform's own folder (TF_DATA_DIR) */
  data: string
  /** whether the state bucket is there; without it only a plan from nothing can be made */
  state: boolean
}

/**
 * Makes Terraform ready to plan. Under --plan it works on a copy in the run's scratch folder, since `init` may write a
 * lock file beside the configuration.
 *
 * @param state whether the state bucket exists
 */
export async function openTerraform(run: Run, state: boolean): Promise<Terraform> {
  const program = terraformProgram(run)
  if (!state && !run.plan) throw notThere(run)
  const configuration = join(ROOT, 'terraform')
  const kept = join(run.site.directory, 'terraform')
  const copy = join(run.scratch, 'terraform')
  if (run.plan) {
    await cp(configuration, copy, {
      recursive: true,
      filter: (path) => !path.includes(join('terraform', '.terraform/')),
    })
    // Nothing is there yet, so there is no state either.
    if (!state) writeFileSync(join(copy, 'backend_override.tf'), 'terraform {\n  backend "local" {}\n}\n')
  }
  const directory = run.plan ? copy : configuration
  const stamp = stampOf(directory, run, program)
  const ready = (data: string) =>
    existsSync(join(data, 'initialised')) && readFileSync(join(data, 'initialised'), 'utf8') === stamp
  const data = run.plan && !ready(kept) ? join(run.scratch, 'terraform-data') : kept
  const terraform: Terraform = { run, program, directory, data, state }
  if (!ready(data)) {
    mkdirSync(data, { recursive: true, mode: 0o700 })
    rmSync(join(data, 'initialised'), { force: true })
    await command(terraform, state ? argv.init(run.site.buckets.state) : argv.initWithoutState(), { timeout: 900 })
    writeFileSync(join(data, 'initialised'), stampOf(directory, run, program))
  }
  return terraform
}

/** Everything that `terraform init` depends on: while it is the same, what init made is too. */
function stampOf(directory: string, { site, credentials, environment }: Run, program: string): string {
  const hash = createHash('sha256').update(JSON.stringify([program, site.buckets.state, credentials.spaces.endpoint]))
  for (const name of ['TF_REATTACH_PROVIDERS', 'TF_CLI_CONFIG_FILE', 'TF_PLUGIN_CACHE_DIR'])
    hash.update(environment[name] ?? '')
  for (const file of readdirSync(directory).sort())
    if (/\.tf$|\.hcl$/.test(file)) hash.update(file).update(readFileSync(join(directory, file)))
  return hash.digest('hex')
}

function command(
  { run, program, directory, data }: Terraform,
  args: string[],
  options: Pick<Command, 'timeout' | 'codes' | 'onLine' | 'onStart' | 'outlives' | 'shown'> = {},
): Promise<Output> {
  const { credentials, environment } = run
  const settings = Object.entries(environment).filter(
    (entry): entry is [string, string] =>
      entry[1] !== undefined &&
      !MISLEADING.test(entry[0]) &&
      /^TF_|^(DIGITALOCEAN_API_URL|SPACES_ENDPOINT_URL|CLOUDFLARE_BASE_URL)$/.test(entry[0]),
  )
  const env = {
    ...Object.fromEntries(settings),
    TF_DATA_DIR: data,
    TF_IN_AUTOMATION: '1',
    CHECKPOINT_DISABLE: '1',
    DIGITALOCEAN_TOKEN: credentials.digitalocean.token.reveal(),
    CLOUDFLARE_API_TOKEN: credentials.cloudflare.token.reveal(),
    SPACES_ACCESS_KEY_ID: credentials.spaces.accessKeyId.reveal(),
    SPACES_SECRET_ACCESS_KEY: credentials.spaces.secretAccessKey.reveal(),
    // The state's backend speaks S3 and reads AWS's names.
    AWS_ACCESS_KEY_ID: credentials.spaces.accessKeyId.reveal(),
    AWS_SECRET_ACCESS_KEY: credentials.spaces.secretAccessKey.reveal(),
    AWS_ENDPOINT_URL_S3: credentials.spaces.endpoint,
  }
  return run.exec({ argv: [program, ...args], cwd: directory, env, ...options })
}

// --- what Terraform says ---------------------------------------------------------------

const message = z.looseObject({ type: z.string(), '@message': z.string().default('') })
const diagnosticMessage = z.object({
  diagnostic: z.object({
    severity: z.string(),
    summary: z.string(),
    detail: z.string().default(''),
    address: z.string().optional(),
    range: z.object({ filename: z.string(), start: z.object({ line: z.number() }) }).optional(),
  }),
})
const plannedChange = z.object({
  change: z.object({ resource: z.object({ addr: z.string() }), action: z.string() }),
})
const hook = z.object({
  hook: z.object({
    resource: z.object({ addr: z.string() }),
    action: z.string().optional(),
    elapsed_seconds: z.number().optional(),
  }),
})

type Diagnostic = z.infer<typeof diagnosticMessage>['diagnostic']

/** Runs a command that answers in JSON lines, and turns its errors into a Failure of one sentence each. */
async function inJson(
  terraform: Terraform,
  args: string[],
  take: (type: string, line: unknown) => void,
  timeout: number,
): Promise<void> {
  const errors: Diagnostic[] = []
  const plain: string[] = []
  const onLine = (line: string) => {
    let parsed: unknown
    try {
      parsed = JSON.parse(line)
    } catch {
      return void plain.push(line) // Terraform prints plain text where it cannot start
    }
    const told = message.safeParse(parsed)
    if (!told.success) return
    if (told.data.type === 'diagnostic') {
      const { diagnostic } = diagnosticMessage.parse(parsed)
      if (diagnostic.severity === 'error') errors.push(diagnostic)
      else terraform.run.emit({ event: 'warning', text: sentence(diagnostic) })
    } else take(told.data.type, parsed)
  }
  const { scratch } = terraform.run
  const { code } = await command(terraform, args, {
    timeout,
    codes: [0, 1],
    onLine,
    onStart: (pid) => writeFileSync(join(scratch, PID_FILE), String(pid)),
    outlives: join(scratch, `terraform-${args[0]}.log`),
  })
  if (code === 0) return
  if (terraform.run.signal.aborted) throw new Failure({ found: `\`${terraform.program} ${args[0]}\` was interrupted` })
  const told = errors.map(sentence).join('; ') || plain.slice(-20).join('\n').trim() || 'no reason was given'
  const bad =
    errors.length > 0 && errors.every(({ summary }) => /variable|Invalid value|Unsupported|syntax/i.test(summary))
  throw new Failure({
    found: `${terraform.program} ${args[0]}: ${told}`,
    next: bad
      ? 'correct the setting in the site file or in terraform/terraform.tfvars'
      : 'look at the provider’s own words above; then run it again, what is done is kept',
  })
}

const sentence = ({ summary, detail, address, range }: Diagnostic): string => {
  const words = detail
    .split(/\n\n|\n(?=\s*with )/)[0]!
    .replaceAll(/\s+/g, ' ')
    .trim()
  const where = address || (range ? `${range.filename} line ${range.start.line}` : '')
  return [where && `${where}:`, summary + (words ? ':' : ''), words].filter(Boolean).join(' ')
}

const resourceSchema: z.ZodType<Resource> = z.object({
  address: z.string(),
  type: z.string(),
  values: z.record(z.string(), z.unknown()).default({}), // a data source that is yet to be read has none
})
const planSchema = z.object({
  planned_values: z.object({ root_module: z.object({ resources: z.array(resourceSchema).default([]) }) }),
  prior_state: z
    .object({
      values: z.object({ root_module: z.object({ resources: z.array(resourceSchema).default([]) }) }).optional(),
    })
    .optional(),
  resource_changes: z
    .array(
      z.object({
        address: z.string(),
        change: z.object({
          actions: z.array(z.string()),
          before: z.unknown(),
          after: z.unknown(),
          after_unknown: z.unknown(),
          importing: z.unknown().optional(),
        }),
      }),
    )
    .default([]),
})

/** One resource that a plan would touch. */
export type Change = {
  address: string
  action: 'create' | 'update' | 'replace' | 'delete' | 'import'
  /** names of the attributes that would change, for an update or a replacement */
  attributes: string[]
}

export type PlanDrift = Drift & { file: string; changes: Change[] }

/** @returns what a plan (from `terraform show -json`) would touch; reading data and doing nothing is left out */
export function changesOf(plan: z.infer<typeof planSchema>): Change[] {
  return plan.resource_changes.flatMap(({ address, change }): Change[] => {
    const actions = change.actions.join('+')
    const action =
      actions === 'create+delete' || actions === 'delete+create'
        ? 'replace'
        : actions === 'create' || actions === 'update' || actions === 'delete'
          ? actions
          : change.importing
            ? 'import'
            : undefined
    if (!action) return []
    const before = (change.before ?? {}) as Record<string, unknown>
    const after = (change.after ?? {}) as Record<string, unknown>
    const unknown = (change.after_unknown ?? {}) as Record<string, unknown>
    const differs = (name: string) =>
      unknown[name] === true || JSON.stringify(before[name] ?? null) !== JSON.stringify(after[name] ?? null)
    const attributes =
      action === 'update' || action === 'replace'
        ? [...new Set([...Object.keys(before), ...Object.keys(after)])].filter(differs).sort()
        : []
    return [{ address, action, attributes }]
  })
}

export const changeLine = ({ action, address, attributes }: Change) =>
  `${action} ${address}${attributes.length > 0 ? ` (${attributes.join(', ')})` : ''}`

/** @returns the changes that a runbook may not make */
export const forbidden = (changes: readonly Change[], allowed: (change: Change) => boolean) =>
  changes.filter((change) => !allowed(change))

/** What bootstrap may do: make things and change them in place; never replace or remove one. */
export const onlyAddOrUpdate = ({ action }: Change) => action !== 'delete' && action !== 'replace'

// --- the step --------------------------------------------------------------------------

/**
 * @param options.open ready Terraform
 * @param options.appsDirectory gitops/apps as it is on the repository's main branch
 * @param options.allowed which changes the runbook may make; any other stops it with the list
 * @param options.price what the plan's outcome costs; lines for people, and a question when it costs more than before
 * @returns the step that applies terraform/, from a saved plan: what was shown is what is applied
 */
export function terraformStep(options: {
  title: string
  open: () => Promise<Terraform>
  /** called when something was applied: what was read of the outputs may be old */
  onApplied?: () => void
  appsDirectory: () => Promise<string>
  allowed: (change: Change) => boolean
  price?: (after: readonly Resource[], before: readonly Resource[]) => Promise<{ lines: string[]; confirm?: string }>
  needs?: readonly AnyStep[]
}): Step<PlanDrift> {
  const { title, open, allowed, price } = options
  return step<PlanDrift>({
    title,
    check: async (work) => {
      const [terraform, appsDirectory] = await Promise.all([open(), options.appsDirectory()])
      const { run } = terraform
      const file = join(run.scratch, 'terraform.plan')
      const variables = join(run.scratch, 'terraform.tfvars.json')
      const given = { appsDirectory, importStateBucket: terraform.state }
      writeFileSync(variables, JSON.stringify(variablesOf(run.site, given), null, 2), { mode: 0o600 })
      work.waitingFor(`${terraform.program} plan`)
      let touched = 0
      const lock = run.locked()
      if (lock) await clearStaleLock(terraform)
      await inJson(
        terraform,
        argv.plan({ variables, out: file, lock }),
        (type, line) => {
          if (type === 'planned_change' && plannedChange.parse(line).change.action !== 'read') touched++
        },
        900,
      )
      if (touched === 0) return undefined
      const plan = planSchema.parse(JSON.parse((await command(terraform, argv.show(file), { shown: false })).stdout))
      const changes = changesOf(plan)
      const refused = forbidden(changes, allowed)
      if (refused.length > 0)
        throw new Failure({
          found: `Terraform’s plan would touch what ${run.runbook} may not: ${refused.map(changeLine).join('; ')}`,
          expected: 'nothing but what this runbook is for',
          next: `./runbooks/bootstrap.mts --plan shows all that differs${refused.some(({ action }) => action === 'create') ? '; a customer whose record is missing is finished by ./runbooks/add-customer.mts with its name' : ''}`,
        })
      if (changes.length === 0) return undefined
      const priced = await price?.(
        plan.planned_values.root_module.resources,
        plan.prior_state?.values?.root_module.resources ?? [],
      )
      return {
        lines: [...changes.map(changeLine), ...(priced?.lines ?? [])],
        ...(priced?.confirm ? { confirm: priced.confirm } : {}),
        file,
        changes,
      }
    },
    apply: async ({ file, changes }, work) => {
      const terraform = await open()
      await inJson(terraform, argv.apply(file), progress(changes.length, work), 3600)
      rmSync(file, { force: true })
      options.onApplied?.()
    },
  })
}

type Unfinished = Drift & { addresses: string[] }

const stateSchema = z.object({
  values: z
    .object({
      root_module: z.object({
        resources: z.array(z.object({ address: z.string(), tainted: z.boolean().optional() })).default([]),
      }),
    })
    .optional(),
})

/**
 * A creation that was interrupted leaves its resource marked (tainted), and Terraform would replace it: with a database
 * that is refused, with a cluster it is dear. What was made is taken as it is; the plan then tells how it differs.
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
      const shown = await command(terraform, argv.show(), { shown: false })
      const { values } = stateSchema.parse(JSON.parse(shown.stdout))
      const addresses =
        values?.root_module.resources.filter(({ tainted }) => tainted).map(({ address }) => address) ?? []
      return addresses.length > 0
        ? { lines: addresses.map((address) => `take ${address} as it is`), addresses }
        : undefined
    },
    apply: async ({ addresses }) => {
      const terraform = await open()
      await clearStaleLock(terraform)
      for (const address of addresses) await command(terraform, argv.untaint(address))
    },
  })
}

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

const lockInfo = z.object({ ID: z.string(), Who: z.string(), Operation: z.string(), Created: z.string() })

/**
 * Terraform's own lock outlives a Terraform that was ended by force. We hold the site's lock here, so it is left over
 * when its holder ran on this machine and no Terraform of this site runs any more; anybody else's stands.
 */
async function clearStaleLock(terraform: Terraform): Promise<void> {
  const { run } = terraform
  const text = await readObject(await run.spaces(), run.site.buckets.state, `${STATE_KEY}.tflock`)
  if (!text) return
  const { ID, Who, Created, Operation } = lockInfo.parse(JSON.parse(text))
  if (Who !== `${userInfo().username}@${hostname()}` || isBusy(run.site.directory)) return
  run.emit({
    event: 'warning',
    text: `Terraform’s lock of ${Created} (${Operation}) was left by a run that is dead; removed`,
  })
  await command(terraform, argv.forceUnlock(ID))
}

// --- outputs ---------------------------------------------------------------------------

const outputsSchema = z.object({
  postgres: z.object({
    value: z.object({
      host: z.string(),
      port: z.number(),
      user: z.string(),
      password: z.string().transform((text) => new Secret(text)),
      database: z.string(),
      ca: z.string(),
    }),
  }),
  valkey_url: z.object({ value: z.string().transform((text) => new Secret(text)) }),
  gitea: z.object({ value: z.object({ ip: z.string(), private_ip: z.string() }) }),
})

export type Outputs = {
  postgres: z.infer<typeof outputsSchema>['postgres']['value']
  valkeyUrl: Secret
  gitea: { ip: string; private_ip: string }
}

const notThere = ({ site }: Run) =>
  new Failure({
    found: `the infrastructure of ${site.name} is not there, or only in part`,
    expected: 'all of it',
    next: './runbooks/bootstrap.mts',
    notYet: true,
  })

/** @returns what the runbooks need of the infrastructure; throws when it is not there yet */
export async function readOutputs(terraform: Terraform): Promise<Outputs> {
  if (!terraform.state) throw notThere(terraform.run)
  const { stdout } = await command(terraform, argv.output(), { shown: false })
  const outputs = outputsSchema.safeParse(JSON.parse(stdout))
  if (!outputs.success) throw notThere(terraform.run)
  const { postgres, valkey_url, gitea } = outputs.data
  return { postgres: postgres.value, valkeyUrl: valkey_url.value, gitea: gitea.value }
}
