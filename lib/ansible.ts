// Ansible as a program: a playbook run over SSH with what the site knows of its hosts, its events read as it goes.
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as z from 'zod'
import type { Work } from './converge.ts'
import { lastLines } from './exec.ts'
import { Failure } from './failure.ts'
import type { Run } from './run.ts'
import { Secret } from './secret.ts'
import { ROOT } from './site.ts'

const ANSIBLE = join(ROOT, 'ansible')

const result = { host: z.string(), task: z.string(), msg: z.string().default(''), stderr: z.string().default('') }
const eventSchema = z.discriminatedUnion('event', [
  z.object({ event: z.literal('play'), name: z.string() }),
  z.object({ event: z.literal('task'), name: z.string() }),
  z.object({ event: z.literal('changed'), ...result, diff: z.string().default('') }),
  z.object({ event: z.literal('failed'), ...result, path: z.string().default('') }),
  z.object({ event: z.literal('unreachable'), ...result }),
  z.object({
    event: z.literal('recap'),
    hosts: z.record(
      z.string(),
      z.object({ ok: z.number(), changed: z.number(), failures: z.number(), unreachable: z.number() }),
    ),
  }),
])

export type PlaybookEvent = z.infer<typeof eventSchema>

export type TaskChange = { host: string; task: string; diff: string }

export type Playbook = {
  /** in ansible/: 'gitea.yml' */
  file: string
  inventory: string
  /** of OpenSSH: a host that is not in it is not talked to */
  knownHosts: string
  /** file of a private key, where there is no agent */
  identity?: string | undefined
  /** given in a file that nobody else can read */
  variables: Record<string, unknown>
}

/**
 * @param options.check only tells what would change
 * @returns what has changed, or would; throws a Failure with the failing task's own words
 */
export async function runPlaybook(
  run: Pick<Run, 'exec' | 'scratch' | 'site'>,
  playbook: Playbook,
  { check, timeout = 1800 }: { check: boolean; timeout?: number },
  work: Work,
): Promise<TaskChange[]> {
  const variables = join(run.scratch, `${basename(playbook.file)}.json`)
  writeFileSync(variables, JSON.stringify(playbook.variables, reveal), { mode: 0o600 })
  const changes: TaskChange[] = []
  const failures: Extract<PlaybookEvent, { event: 'failed' | 'unreachable' }>[] = []
  try {
    const { code, stdout, stderr } = await run.exec({
      argv: [
        ...['ansible-playbook', playbook.file, `--inventory=${playbook.inventory}`, `--extra-vars=@${variables}`],
        ...(check ? ['--check', '--diff'] : []),
        ...(playbook.identity ? [`--private-key=${playbook.identity}`] : []),
      ],
      cwd: ANSIBLE,
      env: environmentOf(run, playbook),
      timeout,
      codes: [0, 1, 2, 4],
      onLine: (line) => {
        const event = line.startsWith('{') ? eventSchema.parse(JSON.parse(line)) : undefined
        if (event?.event === 'task') work.waitingFor(event.name)
        if (event?.event === 'changed') changes.push(event)
        if (event?.event === 'failed' || event?.event === 'unreachable') failures.push(event)
      },
      next: 'install ansible-core, as docs/dependencies.md says',
    })
    if (code !== 0 && failures.length === 0)
      throw new Failure({
        found: `ansible-playbook ${playbook.file} exited ${code}${lastLines(stderr.trim() || stdout)}`,
        expected: 'a playbook that Ansible can read',
        next: `ansible-playbook --syntax-check ansible/${playbook.file}`,
      })
  } finally {
    rmSync(variables, { force: true })
    await endConnections(run)
  }
  const last = failures.at(-1) // those before it were rescued, which tells more of them
  if (last) throw failureOf(last, playbook)
  return changes
}

const socketsOf = ({ scratch }: Pick<Run, 'scratch'>) => join(scratch, 'ssh')

/** Connections that tasks share outlive the play, and would hide a host key that changes from who comes next. */
async function endConnections(run: Pick<Run, 'exec' | 'scratch'>): Promise<void> {
  const folder = socketsOf(run)
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const exit = ['ssh', '-o', `ControlPath=${join(folder, name)}`, '-O', 'exit', 'droplet']
    await run.exec({ argv: exit, timeout: 10 }).catch(() => {}) // it has ended, or the run was interrupted
  }
}

/** For JSON.stringify: secrets are only themselves in what is written for Ansible. */
export function reveal(this: Record<string, unknown>, key: string, value: unknown): unknown {
  const original = this[key]
  return original instanceof Secret ? original.reveal() : value
}

function environmentOf({ site, scratch }: Pick<Run, 'scratch' | 'site'>, { knownHosts }: Playbook) {
  const facts = join(site.directory, 'facts')
  const sockets = socketsOf({ scratch })
  for (const folder of [facts, sockets]) mkdirSync(folder, { recursive: true, mode: 0o700 })
  const ssh = {
    UserKnownHostsFile: knownHosts,
    GlobalKnownHostsFile: '/dev/null',
    StrictHostKeyChecking: 'yes',
    ControlMaster: 'auto',
    ControlPersist: '60s',
    ServerAliveInterval: '10',
  }
  return {
    ANSIBLE_CONFIG: join(ANSIBLE, 'ansible.cfg'),
    ANSIBLE_CACHE_PLUGIN_CONNECTION: facts,
    ANSIBLE_SSH_CONTROL_PATH_DIR: sockets,
    ANSIBLE_SSH_ARGS: Object.entries(ssh)
      .map(([name, value]) => `-o ${name}=${value}`)
      .join(' '),
    ANSIBLE_NOCOLOR: '1',
    LC_ALL: 'C.UTF-8',
  }
}

function failureOf(event: Extract<PlaybookEvent, { event: 'failed' | 'unreachable' }>, { file, knownHosts }: Playbook) {
  const { host, task, msg, stderr } = event
  const said = [msg, stderr].filter(Boolean).join('\n')
  if (event.event === 'unreachable')
    return new Failure({
      found: `${host} cannot be reached: ${said}`,
      expected: 'SSH to answer, with the host key that is known',
      next: `ssh -v -o UserKnownHostsFile=${knownHosts} ${host} true`,
    })
  return new Failure({
    found: `${host}: ${task}: ${said}`,
    expected: `every task of ansible/${file} to succeed`,
    ...(event.path ? { next: `less ${event.path.replace(/:(\d+)$/, ' +$1')}, then run this again` } : {}),
  })
}
