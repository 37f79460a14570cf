// Terraform or OpenTofu as a program: found, made ready, called, its JSON read, its lock.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { hostname, userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import * as z from 'zod'
import type { Work } from './converge.ts'
import type { Command, Output } from './exec.ts'
import { Failure, misuse } from './failure.ts'
import { alone } from './files.ts'
import { forgetTerraform, type Run, recordedTerraforms, recordTerraform } from './run.ts'
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

/** Variables of Terraform itself that would make a run do something else than it was told, or its log hold secrets. */
const MISLEADING = /^TF_(VAR_|CLI_ARGS|WORKSPACE$|DATA_DIR$|INPUT$|LOG|REGISTRY_)/

/** What a site says, as Terraform's variables. */
export const variablesOf = (
  site: Site,
  given: { appsDirectory: string; importStateBucket: boolean; loadBalancerIp: string },
) => ({
  ...site.terraform,
  name: site.name,
  domain: site.domain,
  region: site.region,
  cloudflare_zone_id: site.cloudflare_zone_id,
  buckets: site.buckets,
  operator_ssh_keys: site.operator_ssh_keys,
  apps_directory: given.appsDirectory,
  import_state_bucket: given.importStateBucket,
  load_balancer_ip: given.loadBalancerIp,
})

/** What is told where nothing has been made yet. */
export const notThere = ({ site }: Run) =>
  new Failure({
    found: `the infrastructure of ${site.name} is not there, or only in part`,
    expected: 'all of it',
    next: './runbooks/bootstrap.mts',
    notYet: true,
  })

type Program = { name: string; path: string }

/** @returns the program to call: the first 'terraform' on PATH, or where there is none 'tofu' */
function findProgram({ environment }: Run): Program {
  const folders = (environment.PATH ?? '').split(delimiter)
  for (const name of ['terraform', 'tofu']) {
    const path = folders.map((folder) => join(folder, name)).find((file) => existsSync(file))
    if (path) return { name, path }
  }
  throw misuse({
    found: 'neither terraform nor tofu is on PATH',
    expected: `one of them, ${OLDEST_TERRAFORM.join('.')} or newer`,
    next: 'install one',
  })
}

/** Throws a misuse when Terraform is missing or too old. */
export async function requireSupported(run: Run): Promise<void> {
  const program = findProgram(run)
  if (isReady(keptData(run), stampOf(CONFIGURATION, run, program))) return // it was asked before it made that ready
  const { stdout } = await run.exec({ argv: [program.name, 'version', '-json'], env: { CHECKPOINT_DISABLE: '1' } })
  const { terraform_version } = versionSchema.parse(JSON.parse(stdout))
  const [major = 0, minor = 0] = terraform_version.split('.').map(Number)
  if (major < OLDEST_TERRAFORM[0] || (major === OLDEST_TERRAFORM[0] && minor < OLDEST_TERRAFORM[1]))
    throw misuse({
      found: `${program.name} is ${terraform_version}`,
      expected: `${OLDEST_TERRAFORM.join('.')} or newer, which locks its state in Spaces`,
      next: `update ${program.name}`,
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

const CONFIGURATION = join(ROOT, 'terraform')
const keptData = ({ site }: Run) => join(site.directory, 'terraform')
const copyOf = ({ scratch }: Run) => join(scratch, 'terraform')

const copyConfiguration = (run: Run) =>
  cp(CONFIGURATION, copyOf(run), {
    recursive: true,
    filter: (path) => !path.includes(join('terraform', '.terraform/')),
  })

/**
 * Makes Terraform ready to plan. Under --plan it works on a copy in the run's scratch folder, since `init` may write a
 * lock file beside the configuration.
 *
 * @param bucketExists whether the state bucket exists; asked only where that can make a difference
 */
export async function openTerraform(run: Run, bucketExists: () => Promise<boolean>): Promise<Terraform> {
  const program = findProgram(run)
  const kept = keptData(run)
  const isKept = isReady(kept, stampOf(CONFIGURATION, run, program))
  // What was made ready had its state then. Should the bucket have gone since, --plan has to tell, and a run makes it anew.
  const state = (isKept && !run.plan) || (await bucketExists())
  if (!state && !run.plan) throw notThere(run)
  const directory = run.plan ? copyOf(run) : CONFIGURATION
  if (run.plan) await copyConfiguration(run)
  // Nothing is there yet, so there is no state either.
  if (!state) writeFileSync(join(directory, 'backend_override.tf'), 'terraform {\n  backend "local" {}\n}\n')
  const ready = isKept && state
  const data = run.plan && !ready ? join(run.scratch, 'terraform-data') : kept
  const terraform: Terraform = { run, program: program.name, directory, data, state }
  if (ready) return terraform
  const init = async () => {
    if (isReady(data, stampOf(directory, run, program))) return // another run has just done it
    mkdirSync(data, { recursive: true, mode: 0o700 })
    rmSync(join(data, STAMP), { force: true })
    await command(terraform, state ? argv.init(run.site.buckets.state) : argv.initWithoutState(), { timeout: 900 })
    writeFileSync(join(data, STAMP), stampOf(directory, run, program))
  }
  await (run.plan ? init() : alone(join(run.site.directory, 'terraform-init'), init, run.signal))
  return terraform
}

/**
 * @param found ids by resource address
 * @returns the same, with a configuration that also takes these into the state
 */
export async function withImports(terraform: Terraform, found: ReadonlyMap<string, string>): Promise<Terraform> {
  const { run } = terraform
  const directory = copyOf(run)
  if (terraform.directory !== directory) await copyConfiguration(run)
  const blocks = [...found].map(([address, id]) => `import {\n  to = ${address}\n  id = ${JSON.stringify(id)}\n}\n`)
  writeFileSync(join(directory, 'already_made.tf'), blocks.join('\n'))
  return { ...terraform, directory }
}

const STAMP = 'initialised'

const isReady = (data: string, stamp: string) =>
  existsSync(join(data, STAMP)) && readFileSync(join(data, STAMP), 'utf8') === stamp

/** Everything that `terraform init` depends on: while it is the same, what init made is too. */
function stampOf(directory: string, { site, credentials, environment }: Run, { path }: Program): string {
  const { mtimeMs, size } = statSync(path)
  const hash = createHash('sha256').update(
    JSON.stringify([path, mtimeMs, size, site.buckets.state, credentials.spaces.endpoint]),
  )
  for (const name of ['TF_REATTACH_PROVIDERS', 'TF_CLI_CONFIG_FILE', 'TF_PLUGIN_CACHE_DIR'])
    hash.update(environment[name] ?? '')
  for (const file of readdirSync(directory).sort())
    if (/\.tf$|\.hcl$/.test(file)) hash.update(file).update(readFileSync(join(directory, file)))
  return hash.digest('hex')
}

export function command(
  { run, program, directory, data }: Terraform,
  args: string[],
  options: Pick<Command, 'timeout' | 'codes' | 'onLine' | 'outlives' | 'shown'> = {},
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
  const work = { argv: [program, ...args], cwd: directory, env, ...options }
  if (!args.some((arg) => arg.startsWith('-lock-timeout='))) return run.exec(work) // it takes no lock
  let started = 0
  const onStart = (pid: number) => {
    started = pid
    recordTerraform(run, pid)
  }
  return run.exec({ ...work, onStart }).finally(() => forgetTerraform(run.site.directory, started))
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
type Diagnostic = z.infer<typeof diagnosticMessage>['diagnostic']

/** Runs a command that answers in JSON lines, and turns its errors into a Failure of one sentence each. */
export async function inJson(
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

const lockInfo = z.object({ ID: z.string(), Who: z.string(), Operation: z.string(), Created: z.string() })

/**
 * Terraform's own lock outlives a Terraform that was ended by force. It goes where it can only be that of one that a run
 * of this site started and that has ended; anybody else's is waited for.
 */
export async function clearStaleLock(terraform: Terraform, work: Work): Promise<void> {
  const { run, program } = terraform
  const text = await readObject(await run.spaces(), run.site.buckets.state, `${STATE_KEY}.tflock`)
  const records = recordedTerraforms(run.site.directory)
  const forget = () => {
    for (const one of records) if (!one.isRunning) forgetTerraform(run.site.directory, one.process.pid)
  }
  if (!text) return forget()
  const { ID, Who, Created, Operation } = lockInfo.parse(JSON.parse(text))
  const ours = Who === `${userInfo().username}@${hostname()}` ? records.filter(({ since }) => since <= Created) : []
  if (ours.length === 0 || ours.some((one) => one.isRunning)) {
    const way = ours.length > 0 ? '' : `; if it is dead: ${program} -chdir=terraform force-unlock ${ID}`
    return work.waitingFor(`${Who}, whose Terraform holds the state since ${Created}${way}`)
  }
  run.emit({
    event: 'warning',
    text: `Terraform’s lock of ${Created} (${Operation}) was left by a run that is dead; removed`,
  })
  await command(terraform, argv.forceUnlock(ID))
  forget()
}
