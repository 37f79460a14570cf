// Argo CD on the cluster: its own manifest, and the Application from which all else comes.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import {
  type Application,
  ARGOCD_NAMESPACE,
  applicationProblems,
  applicationSettles,
  findApplication,
  isSettled,
  refreshApplication,
} from './applications.ts'
import { scheduleValues } from './backup-schedule.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { applyObjects, findObjects, type Kubernetes, type KubernetesObject, missingFrom } from './kubernetes.ts'
import { changedSince, type Repository } from './repository.ts'
import { argocdRepository } from './repository-address.ts'
import { ROOT, type Site } from './site.ts'
import { readUpstream, upstreamOf } from './upstream.ts'

const MANIFESTS = join(ROOT, 'gitops', 'platform', 'argocd')

/** On the namespace: of what was applied last. */
const FINGERPRINT = 'lunarfront.tech/manifest'

const fingerprint = (sha256: string) => {
  const hash = createHash('sha256').update(sha256)
  for (const name of readdirSync(MANIFESTS).sort())
    hash.update(`${name}\n${readFileSync(join(MANIFESTS, name), 'utf8')}`)
  return hash.digest('hex')
}

const workloads = z.object({
  items: z.array(
    z.object({
      kind: z.string(),
      metadata: z.object({ name: z.string() }),
      spec: z.object({ replicas: z.number().default(1) }),
      status: z.object({ readyReplicas: z.number().default(0) }).default({ readyReplicas: 0 }),
    }),
  ),
})

/** Argo CD as gitops/platform/argocd says. */
export function argocdStep(kubernetes: Kubernetes, { needs }: { needs?: readonly AnyStep[] } = {}): Step {
  const { run, kubectl } = kubernetes
  const upstream = upstreamOf('argocd')
  const namespace: KubernetesObject = {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: ARGOCD_NAMESPACE, annotations: { [FINGERPRINT]: fingerprint(upstream.sha256) } },
  }
  return step<Drift>({
    title: `Argo CD ${upstream.version} runs`,
    ...(needs ? { needs } : {}),
    within: 300,
    check: async () => {
      const [[found], { stdout }] = await Promise.all([
        findObjects(kubernetes, [namespace]),
        kubectl(['get', 'deployments,statefulsets', `--namespace=${ARGOCD_NAMESPACE}`, '-o', 'json']),
      ])
      if (missingFrom(found, namespace).length > 0) return { lines: [`apply gitops/platform/argocd`] }
      const short = workloads
        .parse(JSON.parse(stdout))
        .items.filter(({ spec, status }) => status.readyReplicas < spec.replicas)
      const lines = short.map(({ metadata: { name } }) => `${name} is not ready`)
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async (_drift, work) => {
      const folder = join(run.scratch, 'argocd')
      mkdirSync(folder, { recursive: true })
      for (const name of readdirSync(MANIFESTS)) writeFileSync(join(folder, name), readFileSync(join(MANIFESTS, name)))
      work.waitingFor(`${new URL(upstream.url).host}: the manifest`)
      writeFileSync(join(folder, 'install.yaml'), await readUpstream(run, upstream))
      await kubectl(['apply', '--server-side', '--force-conflicts', '--kustomize', folder], { timeout: 300 })
      // Only now: what was interrupted before is applied again.
      await applyObjects(kubernetes, [namespace])
      work.waitingFor('its pods')
      await kubectl(
        [
          'rollout',
          'status',
          `--namespace=${ARGOCD_NAMESPACE}`,
          '--timeout=300s',
          'statefulset/argocd-application-controller',
        ],
        { timeout: 330 },
      )
    },
  })
}

/** What gitops/platform/chart is, of this site. */
export function platformStep(
  kubernetes: Kubernetes,
  repository: Repository,
  { needs }: { needs?: readonly AnyStep[] } = {},
): Step {
  const { site } = kubernetes.run
  const objects = platformObjects(site)
  const current = async () => {
    const application = await findApplication(kubernetes, 'platform')
    const revision = application?.status.sync.revision
    return { application, changed: !revision || (await changedSince(repository, revision, ['gitops/platform/chart'])) }
  }
  return step<Drift>({
    title: 'Argo CD runs the platform',
    ...(needs ? { needs } : {}),
    check: async () => {
      const found = await findObjects(kubernetes, objects)
      const differing = objects.filter((object, index) => missingFrom(found[index], object).length > 0)
      if (differing.length > 0)
        return { lines: differing.map(({ kind, metadata }) => `apply ${kind} ${metadata.name}`) }
      const { application, changed } = await current()
      if (changed) return { lines: ['bring the platform to what the repository says'] }
      const problems = application ? applicationProblems(application) : []
      return problems.length > 0 ? { lines: problems } : undefined
    },
    apply: async (_drift, work) => {
      await applyObjects(kubernetes, objects)
      await refreshApplication(kubernetes, 'platform')
      const head = await repository.head()
      const isDone = (seen: Application) => isSettled(seen) && seen.status.sync.revision === head
      await applicationSettles(kubernetes, 'platform', { isDone, timeout: 300 }, work)
    },
  })
}

function platformObjects(site: Site): KubernetesObject[] {
  const metadata = { name: 'platform', namespace: ARGOCD_NAMESPACE }
  const server = 'https://kubernetes.default.svc'
  const repository = argocdRepository(site)
  return [
    {
      apiVersion: 'argoproj.io/v1alpha1',
      kind: 'AppProject',
      metadata,
      spec: {
        description: 'What runs for all customers',
        sourceRepos: [repository],
        destinations: [{ server, namespace: '*' }],
        clusterResourceWhitelist: [{ group: '*', kind: '*' }],
      },
    },
    {
      apiVersion: 'argoproj.io/v1alpha1',
      kind: 'Application',
      metadata,
      spec: {
        project: 'platform',
        destination: { server, namespace: ARGOCD_NAMESPACE },
        source: {
          repoURL: repository,
          targetRevision: 'main',
          path: 'gitops/platform/chart',
          helm: {
            valuesObject: {
              domain: site.domain,
              repository,
              loadBalancer: site.name,
              ...(site.acme ? { acme: site.acme } : {}),
              ...scheduleValues(site),
            },
          },
        },
        syncPolicy: {
          automated: { prune: true, selfHeal: true },
          syncOptions: ['ServerSideApply=true'],
          retry: { limit: 10, refresh: true, backoff: { duration: '5s', factor: 2, maxDuration: '1m' } },
        },
      },
    },
  ]
}
