// Gitea's droplet: whose host keys are learnt once and kept, and that is what ansible/ says.
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { runPlaybook } from './ansible.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { Failure } from './failure.ts'
import { writeWhole } from './files.ts'
import { knownAs, knownHostsFile, knownKeys, type SshTarget } from './host-keys.ts'
import { inventoryFile } from './inventory.ts'
import type { Kubernetes, KubernetesObject } from './kubernetes.ts'
import type { Outputs } from './outputs.ts'
import { type Server, withPostgres } from './postgres.ts'
import { once, type Run } from './run.ts'
import { Secret } from './secret.ts'
import { ROOT, type Site } from './site.ts'
import type { Ssh } from './ssh.ts'
import { upstreamOf } from './upstream.ts'

/** Names a private key's file, where no agent holds the key (SSH_AUTH_SOCK). */
export const SSH_KEY = 'LUNARFRONT_SSH_KEY'

export type Droplet = {
  run: Run
  outputs: () => Promise<Outputs>
  /** a connection that lasts as long as the run, made when it is first asked for */
  ssh: () => Promise<Ssh>
  /** how a managed database is reached: it answers the droplet, and nobody who is not in the private network */
  wayTo: (server: Pick<Server, 'host' | 'port'>) => Promise<Pick<Server, 'tunnel'>>
}

const targetOf = ({ gitea }: Pick<Outputs, 'gitea'>): SshTarget => ({ host: gitea.ip, port: 22, user: 'root' })

const LEARN = './runbooks/bootstrap.mts, which learns them over the private network'

export function openDroplet(run: Run, outputs: () => Promise<Outputs>): Droplet {
  const ssh = once(async () => {
    const options = { knownHosts: knownHostsFile(run.site), identity: run.environment[SSH_KEY], learn: LEARN }
    const { openSsh } = await import('./ssh.ts') // takes a while to load, and few runbooks need it
    const opened = await openSsh(run, targetOf(await outputs()), options)
    run.atEnd(opened.close)
    return opened
  })
  const tunnels = new Map<string, Promise<Pick<Server, 'tunnel'>>>()
  const openTunnel = async ({ host, port }: Pick<Server, 'host' | 'port'>) => ({
    tunnel: (await (await ssh()).tunnel(host, port)).port,
  })
  return {
    run,
    outputs,
    ssh,
    wayTo: async (server) => {
      if (run.environment.PGHOSTADDR) return {} // said to be reached in another way
      const name = `${server.host}:${server.port}`
      const tunnel = tunnels.get(name) ?? openTunnel(server)
      tunnels.set(name, tunnel)
      tunnel.catch(() => tunnels.delete(name))
      return tunnel
    },
  }
}

/** Seconds that the droplet may take until it answers, from when it is there. */
const BOOT = 180

/**
 * In the pods' network only the droplet itself has its private address, so whoever answers there is it. Asked over the
 * internet, anybody on the way could.
 */
export function hostKeysStep(
  { run, outputs }: Droplet,
  kubernetes: Kubernetes,
  { needs }: { needs: readonly AnyStep[] },
): Step {
  const file = knownHostsFile(run.site)
  return step<Drift>({
    title: 'the droplet’s host keys are known',
    needs,
    check: async () => {
      const target = targetOf(await outputs())
      if ((await knownKeys(run.exec, file, target)).length > 0) return undefined
      return { lines: [`learn the host keys of ${target.host}, and keep them in ${file}`] }
    },
    apply: async (_drift, work) => {
      const { gitea } = await outputs()
      work.waitingFor('a pod of the cluster, which asks for them over the private network')
      const keys = await scanFromPod(kubernetes, gitea.private_ip)
      const name = knownAs(targetOf({ gitea }))
      const kept = existsSync(file) ? readFileSync(file, 'utf8') : ''
      writeWhole(file, kept + keys.map((key) => `${name} ${key}\n`).join(''))
    },
  })
}

/** @returns 'ssh-ed25519 AAAA…' of each of its keys */
async function scanFromPod({ kubectl }: Kubernetes, address: string): Promise<string[]> {
  const [name, namespace] = ['host-keys', 'default']
  // Argo CD's image has OpenSSH, and is on the nodes anyway.
  const image = `quay.io/argoproj/argocd:${upstreamOf('argocd').version}`
  const scan = `for attempt in $(seq ${BOOT}); do ssh-keyscan -T 5 -t ed25519,rsa ${address} 2>/dev/null | grep . && exit; sleep 1; done; exit 1`
  const pod: KubernetesObject = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace },
    spec: {
      restartPolicy: 'Never',
      activeDeadlineSeconds: BOOT + 120,
      automountServiceAccountToken: false,
      containers: [{ name, image, command: ['sh', '-c', scan] }],
    },
  }
  const at = `--namespace=${namespace}`
  const remove = () => kubectl(['delete', 'pod', name, at, '--ignore-not-found', '--now'], { timeout: 90 })
  await remove() // of a run that was killed
  try {
    await kubectl(['create', '-f', '-'], { input: JSON.stringify(pod) })
    const patience = BOOT + 130
    await kubectl(['wait', `pod/${name}`, at, '--for=jsonpath={.status.phase}=Succeeded', `--timeout=${patience}s`], {
      timeout: patience + 30,
      next: `kubectl -n ${namespace} describe pod ${name}`,
    })
    const { stdout } = await kubectl(['logs', name, at])
    const keys = [...stdout.matchAll(/^\S+ (\S+ [A-Za-z0-9+/=]+)$/gm)].map(([, key = '']) => key)
    if (keys.length === 0)
      throw new Failure({
        found: `a pod that asked ${address} for its host keys was told: ${stdout.trim() || 'nothing'}`,
        expected: 'an ed25519 key',
        next: './runbooks/bootstrap.mts',
      })
    return keys
  } finally {
    await remove()
  }
}

/**
 * Since Postgres 15 only a database's owner may make anything in its schema public, and what DigitalOcean's API makes is
 * its administrator's: https://www.postgresql.org/docs/15/release-15.html
 */
export function databaseStep({ outputs, wayTo }: Droplet, { needs }: { needs: readonly AnyStep[] }): Step {
  const asAdministrator = async <T>(work: (client: pg.Client, user: string) => Promise<T>): Promise<T> => {
    const { giteaPostgres: server } = await outputs()
    return withPostgres({ ...server, ...server.admin, ...(await wayTo(server)) }, (client) => work(client, server.user))
  }
  return step<Drift>({
    title: 'Gitea may make tables in its database',
    needs,
    check: () =>
      asAdministrator(async (client, user) => {
        const asked = "SELECT has_schema_privilege($1, 'public', 'CREATE') AS may"
        const { rows } = await client.query<{ may: boolean }>(asked, [user])
        return rows[0]?.may ? undefined : { lines: [`GRANT ALL ON SCHEMA public TO ${user}`] }
      }),
    apply: () =>
      asAdministrator(async (client, user) => {
        await client.query(`GRANT ALL ON SCHEMA public TO ${pg.escapeIdentifier(user)}`)
      }),
  })
}

/** What the role leaves on the droplet when all of it was done: of what it was made, and what it wrote. */
const LEFT = '/var/lib/lunarfront'

/** @returns SHA-256 of all that the droplet is made of */
function fingerprintOf(variables: Record<string, unknown>): string {
  const folder = join(ROOT, 'ansible')
  const hash = createHash('sha256')
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !/\.pyc$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
  for (const file of files.sort()) hash.update(`${file.slice(folder.length)}\n`).update(readFileSync(file))
  const reveal = (_key: string, value: unknown) => (value instanceof Secret ? value.reveal() : value)
  return hash.update(JSON.stringify(variables, reveal)).digest('hex')
}

/** What the role has to be given, and what the site says besides. */
function variablesOf(site: Site, { giteaPostgres }: Outputs): Record<string, unknown> {
  const { host, port, database, user, password, ca } = giteaPostgres
  return {
    ...(site.acme ? { gitea_acme_server: site.acme.server, gitea_acme_email: site.acme.email } : {}),
    ...site.ansible,
    gitea_operator_keys: Object.values(site.operator_ssh_keys)
      .map((key) => `${key.trim()}\n`)
      .join(''),
    gitea_database: { host, port, name: database, user, password, ca },
  }
}

/** Ansible only looks where a quick look finds nothing: whether all that it has written is as it was, and runs. */
export function dropletStep(droplet: Droplet, { needs }: { needs: readonly AnyStep[] }): Step {
  const { run, outputs, ssh } = droplet
  const { site } = run
  const given = async () => {
    const variables = variablesOf(site, await outputs())
    return { ...variables, gitea_fingerprint: fingerprintOf(variables) }
  }
  const playbook = async () => ({
    file: 'gitea.yml',
    inventory: inventoryFile(site),
    knownHosts: knownHostsFile(site),
    identity: run.environment[SSH_KEY],
    variables: await given(),
  })
  const differing = async (): Promise<string[]> => {
    const { gitea_fingerprint: wanted } = await given()
    const look = ['sh', '-c', `cat ${LEFT}/fingerprint && ${LEFT}/look`]
    const { code, stdout } = await (await ssh()).run({ argv: look, codes: [0, 1] })
    const [fingerprint, ...rest] = stdout.trim().split('\n')
    if (!fingerprint) return ['run ansible/gitea.yml']
    if (fingerprint !== wanted) return ['run ansible/gitea.yml, which has changed since, or what it is given']
    return code === 0 ? [] : rest
  }
  return step<Drift>({
    title: 'the droplet is as ansible/ says',
    needs,
    check: async (work) => {
      const lines = await differing()
      if (lines.length === 0) return undefined
      if (!run.plan) return { lines }
      const changes = await runPlaybook(run, await playbook(), { check: true }, work)
      return { lines: [...lines, ...changes.flatMap(({ task, diff }) => [task, ...diffLines(diff)])] }
    },
    apply: async (_drift, work) => {
      await runPlaybook(run, await playbook(), { check: false }, work)
    },
  })
}

const diffLines = (diff: string) => diff.split('\n').filter((line) => /^[-+](?![-+]{2} )/.test(line))
