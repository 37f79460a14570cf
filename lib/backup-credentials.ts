// What the CronJobs of the backup schedule are given, which is all that they have: neither DigitalOcean's token nor
// Cloudflare's is among it, nor Terraform.
import { existsSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { BACKUPS_NAMESPACE } from './backup-schedule.ts'
import type { AnyStep, Step } from './converge.ts'
import { Failure, misuse } from './failure.ts'
import { findObjects, type Kubernetes, type KubernetesObject, objectsStep } from './kubernetes.ts'
import type { Outputs } from './outputs.ts'
import type { Platform } from './platform.ts'
import { findDeployKey, readKnownHosts } from './repository-access.ts'
import type { Run } from './run.ts'
import { confidential } from './secret.ts'
import type { Site } from './site.ts'

const secret = (name: string, data: Record<string, string>): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace: BACKUPS_NAMESPACE },
  data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, encoded(text)])),
})

const encoded = (text: string) => Buffer.from(text).toString('base64')

/**
 * The schedule's own Spaces key, where the environment has one, else the site's.
 *
 * @returns the variables that the pods get; throws a misuse where only half of a key is there
 */
export function spacesEnvironment({ environment, credentials: { spaces } }: Pick<Run, 'environment' | 'credentials'>) {
  const { BACKUP_SPACES_ACCESS_KEY_ID: id, BACKUP_SPACES_SECRET_ACCESS_KEY: key } = environment
  if (!id !== !key)
    throw misuse({
      found: `BACKUP_SPACES_${id ? 'SECRET_ACCESS_KEY' : 'ACCESS_KEY_ID'} is not set`,
      expected: 'both halves of the key, or neither',
      next: 'set both: docs/backup.md, "The schedule", says what the key is for',
    })
  return {
    SPACES_ACCESS_KEY_ID: id || spaces.accessKeyId.reveal(),
    SPACES_SECRET_ACCESS_KEY: key ? confidential(key) : spaces.secretAccessKey.reveal(),
    SPACES_ENDPOINT_URL: environment.BACKUP_SPACES_ENDPOINT_URL || spaces.endpoint,
  }
}

const portOf = (address: string) => {
  if (!/^[a-z]+:\/\//.test(address)) return 22 // user@host:path
  const { port, protocol } = new URL(address)
  return Number(port || { 'http:': 80, 'https:': 443, 'ssh:': 22 }[protocol] || 443)
}

/** Of the pods of the schedule: nobody reaches them, and they reach what they need and no other port. */
function networkPolicy({ repository, backups }: Site, postgresPort: number, spaces: string): KubernetesObject {
  const { heartbeat } = backups
  const apiServer = [443, 6443]
  const ports = [
    ...apiServer,
    postgresPort,
    portOf(repository),
    portOf(spaces),
    ...(heartbeat ? [portOf(heartbeat)] : []),
  ]
  const tcp = [53, ...new Set(ports)].map((port) => ({ protocol: 'TCP', port }))
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: BACKUPS_NAMESPACE, namespace: BACKUPS_NAMESPACE },
    spec: {
      podSelector: {},
      policyTypes: ['Ingress', 'Egress'],
      egress: [{ ports: [{ protocol: 'UDP', port: 53 }, ...tcp] }],
    },
  }
}

const asOutput = ({ password, ...server }: Outputs['postgres']) =>
  JSON.stringify({ ...server, password: password.reveal() })

/** The private key for the drill; where this machine has it not, what the cluster has stays. */
async function drillSecret(
  kubernetes: Kubernetes,
  { file, backups: { drill_key } }: Site,
): Promise<KubernetesObject[]> {
  if (!drill_key) return []
  const path = resolve(dirname(file), drill_key)
  if (existsSync(path)) return [secret('drill', { key: confidential(readFileSync(path, 'utf8')) })]
  const [kept] = await findObjects(kubernetes, [secret('drill', {})], { shown: false })
  if (kept) return []
  throw new Failure({
    found: `there is no ${path}, and the cluster has no key for the drill yet`,
    expected: 'the private key that backups.drill_key names',
    next: `age-keygen -o ${path}, with its public key among backups.recipients; or take backups.drill_key out of ${file}`,
  })
}

/** Where the key in the Secret is one of the schedule's own, and not the site's. */
const OWN_KEY = 'own-spaces-key'

/** A key of the schedule's own that the cluster has stays, where this shell knows none; the site's may have been rotated. */
async function spacesKept(kubernetes: Kubernetes) {
  const { run } = kubernetes
  const given = spacesEnvironment(run)
  if (run.environment.BACKUP_SPACES_ACCESS_KEY_ID) return { ...given, [OWN_KEY]: 'true' }
  const [found] = await findObjects(kubernetes, [secret(BACKUPS_NAMESPACE, {})], { shown: false })
  const kept = (found?.data ?? {}) as Record<string, string>
  if (!kept[OWN_KEY]) return given
  const text = (name: keyof typeof given) => Buffer.from(kept[name] ?? '', 'base64').toString()
  return {
    SPACES_ACCESS_KEY_ID: text('SPACES_ACCESS_KEY_ID'),
    SPACES_SECRET_ACCESS_KEY: confidential(text('SPACES_SECRET_ACCESS_KEY')),
    SPACES_ENDPOINT_URL: text('SPACES_ENDPOINT_URL'),
    [OWN_KEY]: 'true',
  }
}

/** What the CronJobs are given: how to reach Postgres, Spaces and the repository; and to the drill its key. */
export function scheduleStep({ run, kubernetes, outputs }: Platform, needs: readonly AnyStep[]): Step {
  const { site } = run
  const objects = async (): Promise<KubernetesObject[]> => {
    const { postgres: server } = await outputs()
    const spaces = await spacesKept(kubernetes)
    return [
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: BACKUPS_NAMESPACE } },
      networkPolicy(site, server.port, spaces.SPACES_ENDPOINT_URL),
      secret(BACKUPS_NAMESPACE, {
        ...spaces,
        'lunarfront.yaml': readFileSync(site.file, 'utf8'),
        'postgres.json': confidential(asOutput(server)),
        'ssh-key': confidential(await findDeployKey(kubernetes)),
        known_hosts: readKnownHosts(site),
      }),
      ...(await drillSecret(kubernetes, site)),
    ]
  }
  return objectsStep(kubernetes, {
    title: 'the backup schedule has its credentials',
    needs,
    secret: true,
    objects,
  })
}
