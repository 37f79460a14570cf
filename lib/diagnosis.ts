// Why a customer's instance does not come up, in Kubernetes' own words, and what its pods have said last.
import * as z from 'zod'
import type { Kubernetes, KubernetesObject } from './kubernetes.ts'

const stateSchema = z
  .object({
    waiting: z.object({ reason: z.string().default(''), message: z.string().default('') }).optional(),
    terminated: z
      .object({ reason: z.string().default(''), exitCode: z.number(), message: z.string().default('') })
      .optional(),
  })
  .default({})

const podSchema = z.object({
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
    conditions: z
      .array(
        z.object({
          type: z.string(),
          status: z.string(),
          reason: z.string().default(''),
          message: z.string().default(''),
        }),
      )
      .default([]),
    containerStatuses: z
      .array(
        z.object({
          name: z.string(),
          ready: z.boolean(),
          restartCount: z.number(),
          state: stateSchema,
          lastState: stateSchema,
        }),
      )
      .default([]),
  }),
})

export type Pod = z.infer<typeof podSchema>

export const podOf = (object: KubernetesObject): Pod => podSchema.parse(object)

/** What a pod is for: 'migration' for the Job's, 'app' for those that serve. */
const purposeOf = ({ metadata: { labels } }: Pod) =>
  labels['app.kubernetes.io/component'] === 'migrate' || 'batch.kubernetes.io/job-name' in labels ? 'migration' : 'app'

/** @returns what the pod waits for, for a person who waits with it; undefined when it does what it is for */
export function waitsFor(pod: Pod): string | undefined {
  const { status } = pod
  const purpose = purposeOf(pod)
  const unscheduled = status.conditions.find(({ type, status: is }) => type === 'PodScheduled' && is === 'False')
  if (unscheduled) return `${purpose}: a node (${unscheduled.message})`
  for (const { state, ready } of status.containerStatuses) {
    const { waiting } = state
    if (waiting && /^(ContainerCreating|PodInitializing)$/.test(waiting.reason)) return `${purpose}: image pull`
    if (waiting) return `${purpose}: ${waiting.reason}`
    if (!ready && status.phase === 'Running') return purpose === 'migration' ? 'migration' : 'app: readiness'
  }
  return status.phase === 'Pending' ? `${purpose}: a node` : undefined
}

/** Reasons that do not go away by waiting. */
const LASTING =
  /^(ErrImagePull|ImagePullBackOff|InvalidImageName|CrashLoopBackOff|CreateContainerConfigError|CreateContainerError|RunContainerError|StartError)$/

/** @returns what is wrong with the pod, with Kubernetes' own reason and message; undefined when nothing is */
export function troubleOf(pod: Pod): string | undefined {
  const { status, metadata } = pod
  const name = `pod ${metadata.name}`
  if (status.phase === 'Failed' && status.reason) return `${name}: ${status.reason}: ${status.message ?? ''}`
  for (const { state, lastState, restartCount } of status.containerStatuses) {
    if (state.waiting && LASTING.test(state.waiting.reason)) {
      const before = lastState.terminated
      const exited = before ? `; it exited ${before.exitCode} (${before.reason}), ${restartCount} restarts` : ''
      return `${name}: ${state.waiting.reason}: ${state.waiting.message}${exited}`
    }
    if (state.terminated && state.terminated.exitCode !== 0)
      return `${name} exited ${state.terminated.exitCode} (${state.terminated.reason})`
  }
  const unscheduled = status.conditions.find(({ type, status: is }) => type === 'PodScheduled' && is === 'False')
  return unscheduled ? `${name}: ${unscheduled.reason}: ${unscheduled.message}` : undefined
}

/**
 * @param namespace of the customer
 * @returns lines: each pod's trouble, and the last lines of its log; none where no pod is in trouble
 */
export async function diagnose({ kubectl }: Kubernetes, namespace: string): Promise<string[]> {
  const { stdout } = await kubectl(['get', 'pods', `--namespace=${namespace}`, '-o', 'json'])
  const pods = z.object({ items: z.array(podSchema) }).parse(JSON.parse(stdout)).items
  const troubled = pods
    .filter((pod) => !pod.metadata.deletionTimestamp && troubleOf(pod))
    .sort((one, other) => (one.metadata.creationTimestamp < other.metadata.creationTimestamp ? 1 : -1))
  const newest = [...new Map(troubled.reverse().map((pod) => [purposeOf(pod), pod])).values()]
  const told = await Promise.all(
    newest.map(async (pod) => {
      const wasRunning = pod.status.containerStatuses.some(
        ({ state, restartCount }) => state.terminated || restartCount > 0,
      )
      if (!wasRunning) return [troubleOf(pod) ?? '']
      const previous = pod.status.containerStatuses.some(({ state }) => state.waiting) ? ['--previous'] : []
      const log = await kubectl(['logs', pod.metadata.name, `--namespace=${namespace}`, '--tail=10', ...previous], {
        codes: [0, 1],
      })
      const lines = log.code === 0 ? log.stdout.trim().split('\n').filter(Boolean) : []
      return [troubleOf(pod) ?? '', ...lines.map((line) => `  ${line}`)]
    }),
  )
  return told.flat()
}
