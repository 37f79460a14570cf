// Why a customer's instance does not come up, in Kubernetes' own words, and what its pods have said last.
import * as z from 'zod'
import type { Kubernetes } from './kubernetes.ts'

const stateSchema = z
  .object({
    waiting: z.object({ reason: z.string().default(''), message: z.string().default('') }).optional(),
    terminated: z
      .object({ reason: z.string().default(''), exitCode: z.number(), message: z.string().optional() })
      .optional(),
  })
  .default({})

const conditionsSchema = z
  .array(
    z.object({ type: z.string(), status: z.string(), reason: z.string().default(''), message: z.string().default('') }),
  )
  .default([])

const podSchema = z.object({
  kind: z.literal('Pod'),
  metadata: z.object({
    name: z.string(),
    creationTimestamp: z.string(),
    deletionTimestamp: z.string().optional(),
    labels: z.record(z.string(), z.string()).default({}),
  }),
  status: z.object({
    phase: z.string().default(''),
    reason: z.string().optional(),
    message: z.string().optional(),
    conditions: conditionsSchema,
    containerStatuses: z
      .array(z.object({ ready: z.boolean(), restartCount: z.number(), state: stateSchema, lastState: stateSchema }))
      .default([]),
  }),
})

const replicaSetSchema = z.object({
  kind: z.literal('ReplicaSet'),
  metadata: z.object({ name: z.string() }),
  spec: z.object({ replicas: z.number().default(1) }),
  status: z.object({ conditions: conditionsSchema }),
})

const jobSchema = z.object({
  kind: z.literal('Job'),
  metadata: z.object({ name: z.string(), uid: z.string(), deletionTimestamp: z.string().optional() }),
  status: z.object({ active: z.number().default(0), conditions: conditionsSchema }),
})

const eventSchema = z.object({
  kind: z.literal('Event'),
  reason: z.string().default(''),
  message: z.string().default(''),
  involvedObject: z.object({ uid: z.string().default('') }),
})

const foundSchema = z.object({
  items: z.array(z.discriminatedUnion('kind', [podSchema, replicaSetSchema, jobSchema, eventSchema])),
})

type Found = z.infer<typeof foundSchema>['items'][number]
type Pod = z.infer<typeof podSchema>

export type Trouble = {
  /** with Kubernetes' own reason and message */
  text: string
  /** a command that shows more */
  next: string
  /** the pod, where there is one */
  pod?: Pod
}

/** What a namespace looks like while an instance comes up. */
export type Look = {
  /** what is waited for, for a person who waits with it */
  waits: string | undefined
  troubles: Trouble[]
  /** the migration's pod cannot be made, or not be started */
  migrationStuck: boolean
  /** names of the migration's pods that have failed; each is another try */
  failedMigrations: string[]
}

const isMigration = ({ metadata: { labels } }: Pod) => labels['app.kubernetes.io/component'] === 'migrate'

/** What a pod is for. */
const purposeOf = (pod: Pod) => (isMigration(pod) ? 'migration' : 'app')

/** @returns what the pod waits for; undefined when it does what it is for */
function waitsFor(pod: Pod): string | undefined {
  const { status } = pod
  const purpose = purposeOf(pod)
  const unscheduled = status.conditions.find(({ type, status: is }) => type === 'PodScheduled' && is === 'False')
  if (unscheduled) return `${purpose}: a node (${unscheduled.message})`
  for (const { state, ready } of status.containerStatuses) {
    const { waiting } = state
    if (waiting && /^(ContainerCreating|PodInitializing)$/.test(waiting.reason)) return `${purpose}: image pull`
    if (waiting) return `${purpose}: ${waiting.reason}`
    if (!ready && status.phase === 'Running') return isMigration(pod) ? 'migration' : 'app: readiness'
  }
  return status.phase === 'Pending' ? `${purpose}: a node` : undefined
}

/** Reasons that do not go away by waiting. */
const LASTING =
  /^(ErrImagePull|ImagePullBackOff|InvalidImageName|CrashLoopBackOff|CreateContainerConfigError|CreateContainerError|RunContainerError|StartError)$/

/** What cannot be started is told with its environment, secrets too. */
const withoutValues = (message: string) => message.replaceAll(/"([-._A-Za-z0-9]+)=(?:[^"\\]|\\.)*"?/g, '"$1=…"')

/** @returns what is wrong with the pod; undefined when nothing is */
function troubleOf(pod: Pod): string | undefined {
  const { status, metadata } = pod
  const name = `pod ${metadata.name}`
  if (status.phase === 'Failed' && status.reason) return `${name}: ${status.reason}: ${status.message ?? ''}`
  for (const { state, lastState, restartCount, ready } of status.containerStatuses) {
    const { waiting, terminated } = state
    if (terminated && terminated.exitCode !== 0) {
      const { exitCode, reason, message } = terminated
      return `${name} exited ${exitCode} (${reason})${message ? `: ${withoutValues(message.trim())}` : ''}`
    }
    const before = lastState.terminated
    const exited = before ? [`it exited ${before.exitCode} (${before.reason}), restarts: ${restartCount}`] : []
    if (waiting && LASTING.test(waiting.reason))
      return `${name}: ${[`${waiting.reason}: ${waiting.message}`, ...exited].join('; ')}`
    // Between two crashes it runs for a while.
    if (before && !ready) return `${name}: ${exited.join()}`
  }
  const unscheduled = status.conditions.find(({ type, status: is }) => type === 'PodScheduled' && is === 'False')
  return unscheduled ? `${name}: ${unscheduled.reason}: ${unscheduled.message}` : undefined
}

const hasRun = ({ status }: Pod) =>
  status.containerStatuses.some(({ state, restartCount }) => state.terminated || restartCount > 0)

/** @returns what keeps pods from being made at all; undefined where nothing does */
function refusalOf(owner: Found, events: readonly z.infer<typeof eventSchema>[]): string | undefined {
  if (owner.kind === 'ReplicaSet') {
    const refused = owner.status.conditions.find(({ type, status }) => type === 'ReplicaFailure' && status === 'True')
    return refused && owner.spec.replicas > 0
      ? `ReplicaSet ${owner.metadata.name}: ${refused.reason}: ${refused.message}`
      : undefined
  }
  if (owner.kind !== 'Job' || owner.metadata.deletionTimestamp) return undefined
  const { name, uid } = owner.metadata
  const { active, conditions } = owner.status
  // Its pod was deleted with its log; where one is left, that says more.
  const late = conditions.find(({ reason, status }) => reason === 'DeadlineExceeded' && status === 'True')
  if (late) return `Job ${name}: ${late.reason}: ${late.message}`
  if (active > 0 || conditions.some(({ status }) => status === 'True')) return undefined
  // A Job has no condition that says so.
  const refused = events.filter((event) => event.involvedObject.uid === uid && event.reason === 'FailedCreate').at(-1)
  return refused && `Job ${name}: ${refused.reason}: ${refused.message}`
}

/**
 * Of several pods for the same purpose the newest are what the repository says now; and pods that serve from before a
 * migration that is under way are the version before, whatever is wrong with them.
 *
 * @param pods the oldest first
 */
function currentOf(pods: readonly Pod[]): Pod[] {
  const migration = pods.findLast(isMigration)
  const server = pods.findLast((pod) => !isMigration(pod))
  const isUnderWay = migration !== undefined && /^(Pending|Running)$/.test(migration.status.phase)
  const isBefore = isUnderWay && (server?.metadata.creationTimestamp ?? '') < migration.metadata.creationTimestamp
  const template = (pod: Pod | undefined) => pod?.metadata.labels['pod-template-hash']
  return pods.filter((pod) => (isMigration(pod) ? pod === migration : !isBefore && template(pod) === template(server)))
}

/** @param found what `kubectl get pods,replicasets,jobs,events -o json` prints, parsed */
export function lookAt(found: unknown, namespace: string): Look {
  const { items } = foundSchema.parse(found)
  const pods = items.filter((item) => item.kind === 'Pod').filter(({ metadata }) => !metadata.deletionTimestamp)
  pods.sort((one, other) => (one.metadata.creationTimestamp < other.metadata.creationTimestamp ? -1 : 1))
  const events = items.filter((item) => item.kind === 'Event')
  const kubectl = `kubectl -n ${namespace}`
  const troubled = currentOf(pods).flatMap((pod): Trouble[] => {
    const text = troubleOf(pod)
    const { name } = pod.metadata
    // The next try of a migration is another pod.
    const log = isMigration(pod) ? 'logs job/migrate' : `logs ${name} --previous`
    return text ? [{ text, pod, next: `${kubectl} ${hasRun(pod) ? log : `describe pod ${name}`}` }] : []
  })
  const describe = `${kubectl} describe resourcequotas,replicasets,jobs`
  const refusals = (kind: 'ReplicaSet' | 'Job') =>
    items
      .filter((item) => item.kind === kind)
      .flatMap((item): Trouble[] => {
        const text = refusalOf(item, events)
        return text ? [{ text, next: describe }] : []
      })
  const refused = { app: refusals('ReplicaSet'), migration: refusals('Job') }
  // Of several pods for the same purpose the newest is what the repository says now.
  const newest = [...new Map(troubled.map((trouble) => [purposeOf(trouble.pod as Pod), trouble])).values()]
  return {
    waits: pods.map(waitsFor).find(Boolean),
    troubles: [...newest, ...refused.migration, ...refused.app],
    migrationStuck: refused.migration.length > 0 || troubled.some(({ pod }) => pod && isMigration(pod) && !hasRun(pod)),
    failedMigrations: pods
      .filter((pod) => isMigration(pod) && pod.status.phase === 'Failed')
      .map(({ metadata }) => metadata.name),
  }
}

/** @param namespace of the customer */
export async function look({ kubectl }: Kubernetes, namespace: string): Promise<Look> {
  const kinds = 'pods,replicasets,jobs,events'
  const { stdout } = await kubectl(['get', kinds, `--namespace=${namespace}`, '-o', 'json'], { shown: false })
  return lookAt(JSON.parse(stdout), namespace)
}

/** @returns lines: each trouble, and the last lines of its pod's log */
export async function tellTroubles({ kubectl }: Kubernetes, namespace: string, troubles: readonly Trouble[]) {
  const told = await Promise.all(
    troubles.map(async ({ text, pod }) => {
      if (!pod || !hasRun(pod)) return [text]
      const previous = pod.status.containerStatuses.some(({ state }) => !state.terminated) ? ['--previous'] : []
      const log = await kubectl(['logs', pod.metadata.name, `--namespace=${namespace}`, '--tail=10', ...previous], {
        codes: [0, 1],
      })
      const lines = log.code === 0 ? log.stdout.trim().split('\n').filter(Boolean) : []
      return [text, ...lines.map((line) => `  ${line}`)]
    }),
  )
  return told.flat()
}
