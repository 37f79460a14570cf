// Argo CD's Applications: what keeps one from being as the repository says, and how Argo CD is asked to look or to try again.
import { isDeepStrictEqual } from 'node:util'
import * as z from 'zod'
import type { Work } from './converge.ts'
import { Failure } from './failure.ts'
import { findObjects, follow, type Kubernetes } from './kubernetes.ts'

/** Argo CD's own. */
export const ARGOCD_NAMESPACE = 'argocd'

const applicationSchema = z.looseObject({
  metadata: z.looseObject({ name: z.string(), labels: z.record(z.string(), z.string()).default({}) }),
  spec: z.looseObject({
    source: z.unknown(),
    syncPolicy: z.looseObject({ syncOptions: z.array(z.string()).default([]), retry: z.unknown().optional() }),
  }),
  status: z
    .object({
      sync: z
        .object({
          status: z.string().default(''),
          revision: z.string().default(''),
          comparedTo: z.looseObject({ source: z.unknown() }).optional(),
        })
        .prefault({}),
      health: z.object({ status: z.string().default(''), message: z.string().optional() }).default({ status: '' }),
      operationState: z.object({ phase: z.string(), message: z.string().default('') }).optional(),
      conditions: z.array(z.object({ type: z.string(), message: z.string() })).default([]),
    })
    .prefault({}),
})

export type Application = z.infer<typeof applicationSchema>

/** Whether Argo CD has tried in vain: it does not try the same commit once more by itself. */
const hasGivenUp = ({ status: { operationState } }: Application) =>
  operationState !== undefined && /^(Failed|Error)$/.test(operationState.phase)

/** Of what Argo CD says of Helm's failure the sentence that the chart itself has for it; anything else as it is. */
export const chartsOwnWords = (message: string): string =>
  /(?:execution error at \([^)]*\): |(?=values don't meet the specifications))([\s\S]*?)(?:\n+Use --debug|$)/
    .exec(message)?.[1]
    ?.replace(/ \(retried \d+ times\)\.?$/, '')
    .trim() ?? message

/** @returns what Argo CD cannot make of the repository, or what was refused to it, each once; none: nothing */
export function applicationErrors(application: Application): string[] {
  const { conditions, operationState } = application.status
  const said = [
    ...conditions.filter(({ type }) => type.endsWith('Error')).map(({ message }) => message),
    ...(hasGivenUp(application) ? [operationState?.message ?? ''] : []),
  ]
  return [...new Set(said.map(chartsOwnWords))]
}

/** @returns what keeps an Application from being as the repository says, in Argo CD's words; none: nothing does */
export function applicationProblems(application: Application): string[] {
  const { sync, health } = application.status
  return [
    ...applicationErrors(application),
    ...(sync.status === 'Synced' ? [] : [`it is ${sync.status || 'not compared yet'}`]),
    // Its status may still be about what it was before, at the very commit that changed it.
    ...(isDeepStrictEqual(sync.comparedTo?.source, application.spec.source)
      ? []
      : ['it has changed since it was compared']),
    ...(health.status === 'Healthy' ? [] : [`its health is ${health.status || 'not known yet'}`]),
  ]
}

/** Whether Argo CD has done all there is to do, at the commit that it knows. */
export const isSettled = (application: Application): boolean =>
  applicationProblems(application).length === 0 && application.status.operationState?.phase !== 'Running'

/** @returns the Application; undefined where there is none */
export async function findApplication(kubernetes: Kubernetes, name: string): Promise<Application | undefined> {
  const [found] = await findObjects(kubernetes, [
    { apiVersion: 'argoproj.io/v1alpha1', kind: 'Application', metadata: { name, namespace: ARGOCD_NAMESPACE } },
  ])
  return found && applicationSchema.parse(found)
}

const patchApplication = ({ kubectl }: Kubernetes, name: string, patch: object) =>
  kubectl([
    'patch',
    `--namespace=${ARGOCD_NAMESPACE}`,
    `application/${name}`,
    '--type=merge',
    `--patch=${JSON.stringify(patch)}`,
  ])

/** Tells Argo CD to try once more where it has given up: what stood in its way may be gone, and the commit the same. */
export async function retryApplication(kubernetes: Kubernetes, name: string): Promise<void> {
  const application = await findApplication(kubernetes, name)
  if (!application || !hasGivenUp(application)) return
  const { syncOptions, retry } = application.spec.syncPolicy
  const sync = { prune: true, syncOptions }
  await patchApplication(kubernetes, name, { operation: { initiatedBy: { username: 'runbooks' }, sync, retry } })
}

/** Ends what Argo CD is doing for an Application, if anything: it looks at no other commit before it is done with one. */
export async function endOperation(kubernetes: Kubernetes, name: string): Promise<void> {
  const application = await findApplication(kubernetes, name)
  if (application?.status.operationState?.phase !== 'Running') return
  await patchApplication(kubernetes, name, { status: { operationState: { phase: 'Terminating' } } })
  const ended = '--for=jsonpath={.status.operationState.phase}=Failed'
  // Not seen: it has begun with another commit already.
  const codes = [0, 1]
  await kubernetes.kubectl(['wait', `application/${name}`, `--namespace=${ARGOCD_NAMESPACE}`, ended, '--timeout=30s'], {
    codes,
  })
}

/** Tells Argo CD to look at the repository now. */
export const refreshApplication = ({ kubectl }: Kubernetes, name: string) =>
  kubectl([
    'annotate',
    `--namespace=${ARGOCD_NAMESPACE}`,
    '--overwrite',
    `application/${name}`,
    'argocd.argoproj.io/refresh=normal',
  ])

/** The same for all of them at once. */
export const refreshApplications = ({ kubectl }: Kubernetes) =>
  kubectl([
    'annotate',
    `--namespace=${ARGOCD_NAMESPACE}`,
    '--overwrite',
    'applications',
    '--all',
    'argocd.argoproj.io/refresh=normal',
  ])

const REFRESH_SET = 'argocd.argoproj.io/application-set-refresh'
/** Seconds that Argo CD may take to look at the repository; it tells sooner what it cannot make of it. */
const SET_PATIENCE = 120
const SET_ERROR = 15

const applicationSetSchema = z.looseObject({
  metadata: z.looseObject({ annotations: z.record(z.string(), z.string()).default({}) }),
  status: z
    .looseObject({
      conditions: z
        .array(z.object({ type: z.string(), status: z.string(), message: z.string().default('') }))
        .default([]),
    })
    .prefault({}),
})

/**
 * Has Argo CD look for customers' folders that are new or gone.
 *
 * @returns when it has; throws a Failure with its reason where it cannot make Applications of what it finds
 */
export async function refreshApplicationSet(kubernetes: Kubernetes): Promise<void> {
  const set = ['applicationset', 'customers', `--namespace=${ARGOCD_NAMESPACE}`]
  // Any value asks; the one of a request that came to nothing is still there, and the same again would be no change.
  await kubernetes.kubectl(['annotate', ...set, '--overwrite', `${REFRESH_SET}=${Date.now()}`])
  const enough = new AbortController()
  let hasLooked = false
  let error: string | undefined
  const timer = setTimeout(() => error && enough.abort(), SET_ERROR * 1000)
  const seen = (object: unknown) => {
    const { metadata, status } = applicationSetSchema.parse(object)
    hasLooked = metadata.annotations[REFRESH_SET] === undefined // it takes the annotation away when it has
    error = status.conditions.find((one) => one.type === 'ErrorOccurred' && one.status === 'True')?.message
    return hasLooked
  }
  await follow(kubernetes, set, seen, { enough, timeout: SET_PATIENCE }).finally(() => clearTimeout(timer))
  if (hasLooked) return
  throw new Failure(
    error
      ? {
          found: `Argo CD cannot make Applications of gitops/apps: ${error}`,
          expected: 'a values file in every folder that is valid YAML',
          next: 'correct that file in the repository, and run this again',
        }
      : {
          found: `Argo CD has not looked at the repository for ${SET_PATIENCE} s`,
          expected: 'that it knows which folders there are',
          next: `kubectl -n ${ARGOCD_NAMESPACE} describe applicationset customers`,
        },
  )
}

/**
 * Waits until an Application is as it has to be.
 *
 * @param options.isDone whether it is
 * @param options.timeout seconds
 * @param options.enough aborted when it has settled, or by others who have seen enough
 * @param options.onSeen told each change
 * @returns the Application as it was last seen
 */
export async function applicationSettles(
  kubernetes: Kubernetes,
  name: string,
  options: {
    isDone: (application: Application) => boolean
    timeout: number
    enough?: AbortController
    onSeen?: (application: Application) => void
  },
  work: Work,
): Promise<Application | undefined> {
  let last: Application | undefined
  await follow(
    kubernetes,
    ['application', name, `--namespace=${ARGOCD_NAMESPACE}`],
    (object) => {
      last = applicationSchema.parse(object)
      options.onSeen?.(last)
      const { operationState } = last.status
      const problems = applicationProblems(last)
      const doing = operationState?.phase === 'Running' ? operationState.message : undefined
      work.waitingFor(doing ? chartsOwnWords(doing) : problems.join('; '))
      return options.isDone(last)
    },
    { enough: options.enough ?? new AbortController(), timeout: options.timeout },
  )
  return last
}
