// The cluster, through kubectl: its credentials, objects as JSON, and steps about objects that are to be there.
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import type { Command, Output } from './exec.ts'
import { Failure } from './failure.ts'
import { writeWhole } from './files.ts'
import { readYaml, validate } from './input.ts'
import type { Outputs } from './outputs.ts'
import { kubeconfigOf } from './provider-api.ts'
import { once, type Run } from './run.ts'
import type { Site } from './site.ts'

/** Who owns the fields that runbooks set: https://kubernetes.io/docs/reference/using-api/server-side-apply/ */
const FIELD_MANAGER = 'lunarfront'

export type KubernetesObject = {
  apiVersion: string
  kind: string
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> }
  [field: string]: unknown
}

export type Kubectl = (
  args: readonly string[],
  options?: Pick<Command, 'input' | 'codes' | 'onLine' | 'enough' | 'shown' | 'timeout' | 'next'>,
) => Promise<Output>

export type Kubernetes = {
  run: Run
  /** text of a kubeconfig that is valid now */
  credentials: () => Promise<string>
  kubectl: Kubectl
}

/** Where a person finds the cluster's credentials: KUBECONFIG of their shell. */
export const kubeconfigFile = ({ directory }: Pick<Site, 'directory'>) => join(directory, 'kubeconfig')

/** Where kubectl finds the API server from within a pod. */
const IN_CLUSTER = ['KUBERNETES_SERVICE_HOST', 'KUBERNETES_SERVICE_PORT'] as const

/**
 * With DigitalOcean's token its API gives the credentials. In a pod without one it is the pod's own service account:
 * https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
 *
 * @param outputs say which cluster
 */
export function openKubernetes(run: Run, outputs: () => Promise<Outputs>): Kubernetes {
  const credentials = once(async () => kubeconfigOf(run, (await outputs()).cluster.id))
  // In the run's own folder: the token lasts some days, and the file that a person has may be older.
  const file = once(async () => {
    const path = join(run.scratch, 'kubeconfig')
    writeFileSync(path, await credentials(), { mode: 0o600 })
    return path
  })
  const { environment } = run
  const inPod = !environment.DIGITALOCEAN_TOKEN && environment[IN_CLUSTER[0]]
  const env = Object.fromEntries(IN_CLUSTER.map((name) => [name, environment[name] ?? '']))
  return {
    run,
    credentials,
    kubectl: async (args, options) =>
      inPod
        ? run.exec({ argv: ['kubectl', ...args], env, timeout: 60, ...options })
        : run.exec({ argv: ['kubectl', `--kubeconfig=${await file()}`, ...args], timeout: 60, ...options }),
  }
}

const clusterSchema = z.object({
  clusters: z
    .array(z.object({ cluster: z.object({ server: z.url(), 'certificate-authority-data': z.string() }) }))
    .min(1),
})

/** @returns which cluster a kubeconfig is about */
const clusterIn = (text: string) => validate(clusterSchema, readYaml(text, 'kubeconfig'), 'kubeconfig').clusters[0]!

/** The file that a person's own kubectl uses. */
export function kubeconfigStep(kubernetes: Kubernetes, { needs }: { needs?: readonly AnyStep[] } = {}): Step {
  const { run, credentials } = kubernetes
  const file = kubeconfigFile(run.site)
  const isRight = async () => {
    const wanted = clusterIn(await credentials())
    const found = clusterIn(readFileSync(file, 'utf8'))
    if (JSON.stringify(found) !== JSON.stringify(wanted)) return false
    const ask = ['kubectl', `--kubeconfig=${file}`, 'get', '--raw=/readyz']
    return (await run.exec({ argv: ask, codes: [0, 1], timeout: 30 })).code === 0
  }
  return step<Drift>({
    title: 'credentials of the cluster are kept',
    ...(needs ? { needs } : {}),
    check: async () => {
      await credentials()
      if (!existsSync(file) || !(await isRight().catch(() => false)))
        return { lines: [`fetch the cluster’s credentials: ${file}`] }
      const mode = statSync(file).mode & 0o777
      return mode === 0o600 ? undefined : { lines: [`chmod 600 ${file}, which is 0${mode.toString(8)}`] }
    },
    apply: async () => {
      writeWhole(file, await credentials())
      chmodSync(file, 0o600)
    },
  })
}

// --- objects ---------------------------------------------------------------------------

const listSchema = z.object({ items: z.array(z.looseObject({})).optional() })

const NOT_YET = /no matches for kind|the server doesn't have a resource type/

/**
 * @param wanted objects by kind, name and namespace
 * @returns those that are there, in the same order; undefined for each that is not
 */
export async function findObjects(
  { kubectl }: Kubernetes,
  wanted: readonly KubernetesObject[],
  { shown = true } = {},
): Promise<(KubernetesObject | undefined)[]> {
  const names = wanted.map(({ apiVersion, kind, metadata: { name, namespace } }) =>
    JSON.stringify({ apiVersion, kind, metadata: { name, ...(namespace ? { namespace } : {}) } }),
  )
  const options = { input: names.join('\n---\n'), codes: [0, 1], shown }
  const { code, stdout, stderr } = await kubectl(['get', '-f', '-', '-o', 'json', '--ignore-not-found'], options)
  if (code !== 0)
    throw new Failure({
      found: `kubectl get: ${stderr.trim()}`,
      next: './runbooks/bootstrap.mts',
      ...(NOT_YET.test(stderr) ? { notYet: true } : {}),
    })
  const answer = stdout.trim() === '' ? {} : JSON.parse(stdout)
  const found = (listSchema.parse(answer).items ?? (answer.kind ? [answer] : [])) as KubernetesObject[]
  return wanted.map(({ kind, metadata }) =>
    found.find(
      (one) =>
        one.kind === kind && one.metadata.name === metadata.name && one.metadata.namespace === metadata.namespace,
    ),
  )
}

/** @returns what is not as it should be, as paths such as 'spec.replicas'; what is there besides is left alone */
export function missingFrom(found: unknown, wanted: unknown, path = ''): string[] {
  if (wanted === null || typeof wanted !== 'object') return Object.is(found, wanted) ? [] : [path]
  const there = (found ?? {}) as Record<string, unknown>
  if (Array.isArray(wanted) && (!Array.isArray(found) || found.length !== wanted.length)) return [path]
  return Object.entries(wanted).flatMap(([key, value]) => missingFrom(there[key], value, path ? `${path}.${key}` : key))
}

export const nameOf = ({ kind, metadata: { name, namespace } }: KubernetesObject) =>
  namespace ? `${kind} ${name} in ${namespace}` : `${kind} ${name}`

/** Makes the objects what is given, and leaves what others have set on them. */
export async function applyObjects(
  { kubectl }: Kubernetes,
  objects: readonly KubernetesObject[],
  { shown = true } = {},
): Promise<void> {
  const input = objects.map((object) => JSON.stringify(object)).join('\n---\n')
  await kubectl(['apply', '--server-side', '--force-conflicts', `--field-manager=${FIELD_MANAGER}`, '-f', '-'], {
    input,
    shown,
  })
}

/**
 * @param options.objects as they should be; what they have besides is left alone
 * @param options.secret they hold secrets: nothing of them is told but their names
 */
export function objectsStep(
  kubernetes: Kubernetes,
  options: {
    title: string
    objects: () => Promise<readonly KubernetesObject[]>
    secret?: boolean
    needs?: readonly AnyStep[]
  },
): Step {
  const { title, needs, secret = false } = options
  return step<Drift>({
    title,
    ...(needs ? { needs } : {}),
    check: async () => {
      const wanted = await options.objects()
      const found = await findObjects(kubernetes, wanted, { shown: !secret })
      const lines = wanted.flatMap((object, index) => {
        const there = found[index]
        if (!there) return [`create ${nameOf(object)}`]
        const paths = missingFrom(there, object)
        return paths.length > 0 ? [`change ${nameOf(object)} (${paths.join(', ')})`] : []
      })
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => applyObjects(kubernetes, await options.objects(), { shown: !secret }),
  })
}

/** Milliseconds from a watch that the server has ended to the next. */
const WATCH_PAUSE = 500

/**
 * Follows an object, as it is and at each change, until the work has seen enough.
 *
 * @param seen gets the object; returns true when that is enough
 * @param enough aborted when it has been seen, or by others who have seen enough, or after so many seconds
 */
export async function follow(
  { kubectl }: Kubernetes,
  args: readonly string[],
  seen: (object: KubernetesObject) => boolean,
  { enough, timeout }: { enough: AbortController; timeout: number },
): Promise<void> {
  const timer = setTimeout(() => enough.abort(), timeout * 1000)
  const failures: unknown[] = []
  const see = (text: string) => {
    try {
      if (!enough.signal.aborted && seen(JSON.parse(text))) enough.abort()
    } catch (error) {
      failures.push(error)
      enough.abort()
    }
  }
  try {
    // The server ends a watch whenever it likes, and kubectl then succeeds.
    while (!enough.signal.aborted) {
      let text = ''
      await kubectl(['get', ...args, '--watch', '-o', 'json'], {
        // Each object is printed whole, and only the last line of one is a brace alone at its beginning.
        onLine: (line) => {
          text += `${line}\n`
          if (line !== '}') return
          see(text)
          text = ''
        },
        shown: false, // all of it, again and again
        enough: enough.signal,
        timeout: timeout + 60,
      })
      await sleep(WATCH_PAUSE, undefined, { signal: enough.signal }).catch(() => {})
    }
    if (failures.length > 0) throw failures[0]
  } finally {
    clearTimeout(timer)
  }
}
