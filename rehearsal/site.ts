// A rehearsal: a cloud of its own, a site that lives in it, and the environment in which the runbooks find both.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { homedir, userInfo } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import { Failure } from '../lib/failure.ts'
import { writeWhole } from '../lib/files.ts'
import { inventoryFile } from '../lib/inventory.ts'
import { giteaSsh } from '../lib/repository-address.ts'
import { type CloudAddresses, type DropletServices, stopCloud } from './cloud/cloud.ts'
import { argocdFile } from './cluster/programs.ts'
import { installedVersions } from './servers/postgres.ts'
import { isRunning, type ProcessIdentity, processStarted } from './servers/processes.ts'
import { ANSIBLE, findPythonTool } from './tools/ansible.ts'
import type { ClusterTools } from './tools/cluster.ts'
import { thisMachine } from './tools/machine.ts'
import { installTools, pathWith, type Tools } from './tools.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)

export const DOMAIN = 'lunarfront.test'
/** Seconds that a cloud may take to start. */
const PATIENCE = 60

export type Rehearsal = {
  directory: string
  /** everything that a runbook of this rehearsal gets as its environment, and nothing of this process's but its PATH */
  env: Record<string, string>
  siteFile: string
  cloud: CloudAddresses
  /** ends every process of it and removes its directory */
  down: () => Promise<void>
}

export type RehearsalOptions = {
  /** made for it, and removed by down */
  directory: string
  /** those of this machine unless told */
  tools?: Tools
  /** with them its Kubernetes clusters are real */
  cluster?: ClusterTools | undefined
  /** lives on when this process ends; without it the cloud ends too */
  stays?: boolean
  /** put over the site file's settings */
  settings?: Record<string, unknown>
}

/** The repository, where there is a droplet on which Gitea has it. */
const GIT_ADDRESS = `ssh://git@git-ssh.${DOMAIN}:2222/ryan/lunarfront-infra.git`

const DRILL_KEY = 'drill-key.txt'
const issuersOf = (directory: string) => join(directory, 'issuers.crt')
/** As pods know Spaces. */
const PODS_SPACES = `http://spaces.${DOMAIN}`

const cloudDirectory = (directory: string) => join(directory, 'cloud')
export const repositoryDirectory = (directory: string) => join(directory, 'git', 'lunarfront-infra.git')
const operatorKeyOf = (directory: string) => join(directory, 'operator')
export const siteFileOf = (directory: string) => join(directory, 'lunarfront.yaml')
export const backupKeyOf = (directory: string) => join(directory, 'backup-key.txt')
/** Where the runbooks keep how to reach the cluster. */
export const kubeconfigOf = (directory: string) => join(siteDirectoryOf(directory), 'kubeconfig')
export const serviceFileOf = (directory: string) => join(directory, 'pg_service.conf')
/** Where the runbooks keep what is the site's, as lib/site.ts has it. */
export const siteDirectoryOf = (directory: string) => join(directory, '.lunarfront', 'lunarfront')

/**
 * Starts a rehearsal in which nothing exists yet: a cloud, an empty Git repository, an SSH key, a site file.
 *
 * @returns how to use it and to end it; throws a Failure where it did not start, or where the directory is not empty
 */
export async function startRehearsal(options: RehearsalOptions): Promise<Rehearsal> {
  const directory = resolve(options.directory)
  const tools = options.tools ?? (await installTools(console.log))
  if (existsSync(directory) && readdirSync(directory).length > 0)
    throw new Failure({ found: `${directory} is not empty`, expected: 'an empty directory, or none' })
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  try {
    const [cloud, operator, backups, drill, versions] = await Promise.all([
      startCloudProcess(directory, tools, options),
      makeKey(directory, 'operator', tools),
      makeBackupKey(backupKeyOf(directory), tools),
      options.cluster && makeBackupKey(join(directory, DRILL_KEY), tools),
      installedVersions(tools.postgres),
      options.cluster ? undefined : makeRepository(directory, tools),
    ])
    const newest = Object.keys(versions).sort((one, other) => Number(other) - Number(one))[0] ?? ''
    const usual = siteSettings(directory, cloud, { operator, backups }, newest)
    const site = {
      ...usual,
      ...(options.cluster && drill ? scheduleSettings(usual.backups, drill, options.cluster) : {}),
      ...options.settings,
    }
    writeWhole(siteFileOf(directory), stringify(site))
    if (options.cluster) keepForCluster(directory, cloud, options.cluster)
    return openRehearsal(directory, tools, cloud)
  } catch (error) {
    await endRehearsal(directory)
    throw error
  }
}

/** @returns the rehearsal in that directory if it is up and answers; undefined otherwise */
export async function findRehearsal(directory: string, tools: Tools): Promise<Rehearsal | undefined> {
  const cloud = await findCloud(directory)
  return cloud && openRehearsal(resolve(directory), tools, cloud)
}

/** @returns how to reach the cloud of the rehearsal in that directory if it is up and answers; undefined otherwise */
export async function findCloud(directory: string): Promise<CloudAddresses | undefined> {
  const cloud = readCloud(directory)
  return cloud && existsSync(siteFileOf(directory)) && (await answers(cloud)) ? cloud : undefined
}

function openRehearsal(directory: string, tools: Tools, cloud: CloudAddresses): Rehearsal {
  const env = environmentOf(directory, tools, cloud)
  checkOwn(env, readFileSync(siteFileOf(directory), 'utf8'), directory)
  return { directory, env, siteFile: siteFileOf(directory), cloud, down: () => endRehearsal(directory) }
}

/** The site file of a rehearsal. */
function siteSettings(
  directory: string,
  { cloudflare, dns, programs, droplet }: CloudAddresses,
  publicKeys: { operator: string; backups: string },
  postgresVersion: string,
) {
  return {
    name: 'lunarfront',
    domain: DOMAIN,
    region: 'nyc3',
    cloudflare_zone_id: cloudflare.zone_id,
    buckets: { state: 'lunarfront-terraform-state', files: 'lunarfront-files', backups: 'lunarfront-backups' },
    operator_ssh_keys: { rehearsal: publicKeys.operator },
    repository: programs ? GIT_ADDRESS : repositoryDirectory(directory),
    ...(programs ? { dns_servers: [`${dns.host}:${dns.port}`] } : {}),
    image_repository: `registry.${DOMAIN}/ryan/lunarfront-app`,
    budget_usd_per_month: 150,
    connections_per_customer: 5,
    backups: { recipients: [publicKeys.backups], daily: 7, weekly: 5, monthly: 12, minimum: 3, max_age_hours: 26 },
    allow_uncommitted_changes: true,
    terraform: { postgres_version: postgresVersion },
    ...(droplet ? { ansible: dropletSettings(droplet) } : {}),
  }
}

/** Where its droplet finds what the world has; and it has no swap, which would be the whole machine's. */
const dropletSettings = ({ mirror, images, acme, authority }: DropletServices) => ({
  ...images,
  gitea_registry_mirror: mirror,
  gitea_acme_server: acme,
  gitea_authority: authority,
  gitea_swap: 0,
})

/** With a cluster it makes the backups itself, in two pods, and drills them with a key of its own. */
const scheduleSettings = (backups: { recipients: string[] }, drill: string, { runbooksImage }: ClusterTools) => ({
  runbooks_image: runbooksImage,
  backups: { ...backups, recipients: [...backups.recipients, drill], shards: 2, drill_key: DRILL_KEY },
})

/** Built from empty, so that no real credential gets in: not from this process, nor from a file of the person's. */
function environmentOf(directory: string, tools: Tools, cloud: CloudAddresses): Record<string, string> {
  const { digitalocean, cloudflare, spaces } = cloud
  return {
    PATH: [...(cloud.programs ? [cloud.programs] : []), ...ansibleFor(cloud), pathWith(tools)].join(delimiter),
    HOME: process.env.HOME ?? homedir(),
    USER: process.env.USER ?? userInfo().username,
    LANG: process.env.LANG ?? 'C.UTF-8',
    TERM: process.env.TERM ?? 'dumb',
    ...addressesFor(directory, { digitalocean, cloudflare, spaces }),
    TF_REATTACH_PROVIDERS: JSON.stringify(cloud.reattach),
    // Without a droplet there is no way into the private network, and none is needed.
    ...(cloud.programs ? clusterEnvironment(directory) : { PGHOSTADDR: '127.0.0.1' }),
  }
}

/** @returns the folder of Ansible's programs, where there is a droplet that they configure */
function ansibleFor({ droplet }: CloudAddresses): string[] {
  const ansible = droplet && findPythonTool(ANSIBLE, thisMachine())
  return ansible ? [dirname(ansible)] : []
}

const clusterEnvironment = (directory: string): Record<string, string> => ({
  // Who issues the certificates of the customers' addresses and of Gitea's.
  NODE_EXTRA_CA_CERTS: issuersOf(directory),
  LUNARFRONT_SSH_KEY: operatorKeyOf(directory),
  // By which pods reach Spaces.
  BACKUP_SPACES_ENDPOINT_URL: PODS_SPACES,
})

function addressesFor(
  directory: string,
  { digitalocean, cloudflare, spaces }: Pick<CloudAddresses, 'digitalocean' | 'cloudflare' | 'spaces'>,
): Record<string, string> {
  return {
    LUNARFRONT_SITE: siteFileOf(directory),
    LUNARFRONT_AGE_IDENTITY: backupKeyOf(directory),
    DIGITALOCEAN_TOKEN: digitalocean.token,
    DIGITALOCEAN_API_URL: digitalocean.url,
    CLOUDFLARE_API_TOKEN: cloudflare.token,
    CLOUDFLARE_BASE_URL: cloudflare.url,
    SPACES_ENDPOINT_URL: spaces.url,
    SPACES_ACCESS_KEY_ID: spaces.access_key_id,
    SPACES_SECRET_ACCESS_KEY: spaces.secret_access_key,
    AWS_ACCESS_KEY_ID: spaces.access_key_id,
    AWS_SECRET_ACCESS_KEY: spaces.secret_access_key,
    AWS_ENDPOINT_URL_S3: spaces.url,
    AWS_REGION: spaces.region,
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    AWS_EC2_METADATA_DISABLED: 'true',
    TF_CLI_CONFIG_FILE: '/dev/null',
    TF_DATA_DIR: join(siteDirectoryOf(directory), 'terraform'),
    CHECKPOINT_DISABLE: '1',
    PGSERVICEFILE: serviceFileOf(directory),
  }
}

/** @returns the public address of Gitea's droplet, as bootstrap has noted it down; undefined where it has not yet */
export function dropletAddress(directory: string): string | undefined {
  const file = inventoryFile({ directory: siteDirectoryOf(directory) })
  return existsSync(file) ? /\bansible_host=(\S+)/.exec(readFileSync(file, 'utf8'))?.[1] : undefined
}

/**
 * @returns where the rehearsal's repository is, and the environment in which anybody's Git gets there; undefined where its
 *   droplet has yet to be made
 */
export function findRepository({ directory, cloud }: Pick<Rehearsal, 'directory' | 'cloud'>) {
  if (!cloud.droplet) return { url: repositoryDirectory(directory), env: {} }
  const site = { domain: DOMAIN, directory: siteDirectoryOf(directory) }
  const address = dropletAddress(directory)
  if (!address) return undefined
  return { url: GIT_ADDRESS, env: { GIT_SSH_COMMAND: giteaSsh(site, address, operatorKeyOf(directory)) } }
}

/** Throws a Failure if any address that the runbooks would use is neither on loopback nor the rehearsal's own. */
export function checkOwn(env: Record<string, string>, siteText: string, directory: string): void {
  const everything = [...Object.entries(env), ['the site file', siteText] as const]
  for (const [name, text] of everything) {
    for (const [address] of text.matchAll(/\b[a-z][a-z0-9+.-]*:\/\/[^\s"',}]+/g)) {
      if (!isOwnName(new URL(address)) && !isLoopback(new URL(address).hostname))
        throw new Failure({
          found: `${name} of the rehearsal names ${new URL(address).hostname}`,
          expected: 'only addresses on loopback',
          next: 'npm run rehearse -- down',
        })
    }
  }
  const repository = /^repository: (.*)$/m.exec(siteText)?.[1]
  if (repository !== GIT_ADDRESS && repository !== repositoryDirectory(directory))
    throw new Failure({
      found: `the site file of the rehearsal names the repository ${repository}`,
      expected: repositoryDirectory(directory),
      next: 'npm run rehearse -- down',
    })
  for (const { Addr } of Object.values<{ Addr?: { String?: string } }>(JSON.parse(env.TF_REATTACH_PROVIDERS ?? '{}')))
    if (!isLoopback(new URL(`tcp://${Addr?.String}`).hostname))
      throw new Failure({ found: `a provider at ${Addr?.String}`, expected: 'one on loopback' })
}

/** Names that only its clusters and droplets ask for, at its own name server. */
const isOwnName = ({ hostname }: URL) => hostname.endsWith(`.${DOMAIN}`)
const isLoopback = (host: string) => /^(127(\.\d{1,3}){3}|localhost|\[::1\])$/.test(host)

/** Ends every process of the rehearsal in that directory, also of one that was killed, and removes the directory. */
export async function endRehearsal(directory: string): Promise<void> {
  if (existsSync(directory) && readdirSync(directory).length > 0 && !existsSync(cloudDirectory(directory)))
    throw new Failure({
      found: `${directory} holds something else than a rehearsal`,
      expected: 'a rehearsal, or nothing',
      next: 'choose another directory',
    })
  await stopCloud(cloudDirectory(directory))
  rmSync(directory, { recursive: true, force: true })
}

/** @returns the cloud's processes that run, by name */
export function processesOf(directory: string): (ProcessIdentity & { name: string })[] {
  const folder = join(cloudDirectory(directory), 'pids')
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .map((name) => ({ name, ...(JSON.parse(readFileSync(join(folder, name), 'utf8')) as ProcessIdentity) }))
    .filter(isRunning)
}

function readCloud(directory: string): CloudAddresses | undefined {
  try {
    return JSON.parse(readFileSync(join(cloudDirectory(directory), 'cloud.json'), 'utf8'))
  } catch {
    return undefined
  }
}

async function answers({ digitalocean, pid }: CloudAddresses): Promise<boolean> {
  if (processStarted(pid) === undefined) return false
  try {
    const { ok } = await fetch(`${digitalocean.url}/v2/account`, {
      headers: { authorization: `Bearer ${digitalocean.token}` },
      signal: AbortSignal.timeout(5_000),
    })
    return ok
  } catch {
    return false
  }
}

/** The clouds that end with this process. */
const ours = new Set<ChildProcess>()
process.once('exit', () => {
  for (const cloud of ours) cloud.kill('SIGTERM')
})

async function startCloudProcess(
  directory: string,
  tools: Tools,
  { stays = false, cluster }: RehearsalOptions,
): Promise<CloudAddresses> {
  const home = cloudDirectory(directory)
  mkdirSync(home, { recursive: true, mode: 0o700 })
  const logFile = join(home, 'cloud.log')
  const log = openSync(logFile, 'w', 0o600)
  const { postgres, valkey, versitygw, openssl } = tools
  const programs = cluster && { programs: cluster.programs, images: cluster.images }
  const child = spawn(
    process.execPath,
    [
      ...['--import', 'tsx', join(ROOT, 'rehearsal', 'cloud', 'main.mts'), '--directory', home, '--domain', DOMAIN],
      ...[
        '--tools',
        JSON.stringify({ postgres, valkey, versitygw, openssl, cluster: programs, droplet: cluster?.droplet }),
      ],
    ],
    {
      cwd: ROOT,
      env: { PATH: pathWith(tools), HOME: process.env.HOME ?? homedir(), LANG: 'C.UTF-8' },
      detached: stays,
      stdio: ['ignore', 'pipe', log],
    },
  )
  closeSync(log)
  ours.add(child)
  const gone = () => ours.delete(child)
  child.once('error', gone).once('exit', gone)
  const { stdout } = child
  if (!stdout) throw new Error('the cloud has no standard output')
  return new Promise((resolve, reject) => {
    const fail = (reason: string) => {
      clearTimeout(timer)
      const said = readFileSync(logFile, 'utf8').trim().split('\n').slice(-20).join('\n')
      reject(new Failure({ found: `the cloud ${reason}${said ? `:\n${said}` : ''}`, next: `less ${logFile}` }))
    }
    const timer = setTimeout(() => {
      child.kill('SIGTERM')
      fail(`was not ready within ${PATIENCE} s`)
    }, PATIENCE * 1000)
    child.once('error', ({ message }) => fail(`could not be started: ${message}`))
    const early = (code: number | null, signal: NodeJS.Signals | null) =>
      fail(`ended with ${code ?? signal} before it was ready`)
    child.once('exit', early)
    let printed = ''
    stdout.setEncoding('utf8').on('data', (chunk: string) => {
      printed += chunk
      if (!printed.includes('\n')) return
      clearTimeout(timer)
      child.off('exit', early)
      if (stays) gone()
      stdout.destroy()
      child.unref()
      resolve(JSON.parse(printed))
    })
  })
}

async function makeRepository(directory: string, { git }: Tools): Promise<void> {
  const repository = repositoryDirectory(directory)
  mkdirSync(repository, { recursive: true })
  await run(git, ['init', '--quiet', '--bare', '--initial-branch=main', repository])
}

/** @returns the public half */
async function makeBackupKey(file: string, { age }: Tools): Promise<string> {
  await run(`${age}-keygen`, ['-o', file])
  return (await run(`${age}-keygen`, ['-y', file])).stdout.trim()
}

/** @returns the public half of an SSH key */
async function makeKey(directory: string, name: string, { sshKeygen }: Tools): Promise<string> {
  const key = join(directory, name)
  await run(sshKeygen, ['-q', '-t', 'ed25519', '-N', '', '-C', 'rehearsal', '-f', key])
  return readFileSync(`${key}.pub`, 'utf8').trim()
}

/** What a person has who has been at this site before: Argo CD's manifest, fetched and checked, and whom to trust. */
function keepForCluster(directory: string, { droplet }: CloudAddresses, { programs }: ClusterTools): void {
  const authority = readFileSync(join(cloudDirectory(directory), 'tls', 'ca.crt'), 'utf8')
  writeWhole(issuersOf(directory), authority + (droplet?.issuer ?? ''))
  const kept = siteDirectoryOf(directory)
  mkdirSync(join(kept, 'upstream'), { recursive: true, mode: 0o700 })
  const manifest = argocdFile(programs, 'install.yaml')
  const sha256 = createHash('sha256').update(readFileSync(manifest)).digest('hex')
  copyFileSync(manifest, join(kept, 'upstream', `${sha256}.yaml`))
}
