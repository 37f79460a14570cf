// A customer's instance on the cluster: its namespace, and that it runs what the repository says.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import {
  type Application,
  ARGOCD_NAMESPACE,
  applicationErrors,
  applicationProblems,
  applicationSettles,
  endOperation,
  findApplication,
  isSettled,
  refreshApplication,
  refreshApplicationSet,
  retryApplication,
} from './applications.ts'
import { readableByBackups } from './backup-schedule.ts'
import { type AnyStep, type Drift, type Step, step, type Work } from './converge.ts'
import { CUSTOMER_LABEL, namesOf, readCustomer } from './customers.ts'
import { look, type Trouble, tellTroubles } from './diagnosis.ts'
import { Failure } from './failure.ts'
import { follow, type Kubernetes, objectsStep } from './kubernetes.ts'
import { changedSince, type Repository } from './repository.ts'

export const namespaceStep = (kubernetes: Kubernetes, customer: string, needs: readonly AnyStep[]): Step => {
  const { slug } = namesOf(customer)
  return objectsStep(kubernetes, {
    title: `namespace ${slug} exists`,
    needs,
    objects: async () => [
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: {
          name: slug,
          labels: {
            [CUSTOMER_LABEL]: customer,
            'pod-security.kubernetes.io/enforce': 'restricted',
            'pod-security.kubernetes.io/enforce-version': 'latest',
          },
        },
      },
      ...readableByBackups(slug),
    ],
  })
}

/** Of an Application: who gets a new version at the same time, as its values file says. */
const ROLLOUT_LABEL = 'lunarfront.tech/rollout'

/** Seconds that an instance may take to come up: a little more than a migration may take. */
const PATIENCE = 420

/** Argo CD has brought the customer's instance to what the repository says, and it is healthy. */
export function instanceStep(
  kubernetes: Kubernetes,
  repository: Repository,
  customer: string,
  needs: readonly AnyStep[],
): Step {
  const { slug } = namesOf(customer)
  const paths = ['gitops/chart', `gitops/apps/${slug}`]
  const problemsOf = async (application: Application | undefined): Promise<string[]> => {
    if (!application) return [`Argo CD does not know ${slug} yet`]
    const { revision } = application.status.sync
    if (!revision || (await changedSince(repository, revision, paths)))
      return [`bring ${slug} to what the repository says`]
    const apps = join(await repository.clone(), 'gitops', 'apps')
    if (!existsSync(join(apps, slug))) return [`put gitops/apps/${slug} back`]
    const { rollout = 'rest' } = readCustomer(apps, slug)
    // Until the ApplicationSet has seen that, it is in step with another audience's version.
    if (application.metadata.labels[ROLLOUT_LABEL] !== rollout)
      return [`have Argo CD count ${slug} among ${rollout === 'canary' ? 'the canaries' : 'the rest'}`]
    return applicationProblems(application)
  }
  return step<Drift>({
    title: `Argo CD runs ${slug}`,
    needs,
    check: async () => {
      const problems = await problemsOf(await findApplication(kubernetes, slug))
      return problems.length > 0 ? { lines: problems } : undefined
    },
    apply: async (_drift, work) => {
      await requestApplication(kubernetes, slug, work)
      const isDone = async (seen: Application) => (await problemsOf(seen)).length === 0
      const { application, troubles } = await settled(kubernetes, slug, isDone, work)
      const problems = await problemsOf(application)
      if (problems.length === 0) return
      const reasons = await tellTroubles(kubernetes, slug, troubles)
      const errors = application ? applicationErrors(application) : []
      throw new Failure({
        // What is wrong with the pods says most, and that it is not healthy least.
        found: [reasons, errors, problems].find((lines) => lines.length > 0)!.join('\n'),
        expected: `${slug} synced and healthy`,
        next: `${troubles[0]?.next ?? `kubectl -n ${ARGOCD_NAMESPACE} describe application ${slug}`}; then run this again`,
      })
    },
  })
}

/** Argo CD makes an Application of each folder when it looks at the repository: it is asked to do so now. */
async function requestApplication(kubernetes: Kubernetes, slug: string, work: Work): Promise<void> {
  work.waitingFor('Argo CD, which looks at the repository')
  await refreshApplicationSet(kubernetes)
  await kubernetes.kubectl(
    ['wait', `application/${slug}`, `--namespace=${ARGOCD_NAMESPACE}`, '--for=create', '--timeout=60s'],
    { timeout: 90, next: `kubectl -n ${ARGOCD_NAMESPACE} describe applicationset customers` },
  )
  // An image that is not there would be waited for until the migration's deadline, whatever is pushed meanwhile.
  if ((await look(kubernetes, slug)).migrationStuck) await endOperation(kubernetes, slug)
  await retryApplication(kubernetes, slug)
  await refreshApplication(kubernetes, slug)
}

/** Seconds for which a trouble may be there until it is taken for one that stays: an image may just have been pushed. */
const TROUBLE = 30

/**
 * Waits until the instance is as the repository says, or until something is wrong that waiting does not mend: a trouble
 * that stays, or a migration that failed twice.
 *
 * @param isDone whether the Application is as the main branch says by now: somebody may have pushed meanwhile
 * @returns the Application as it was last seen, and what is wrong on the cluster
 */
async function settled(
  kubernetes: Kubernetes,
  slug: string,
  isDone: (application: Application) => Promise<boolean>,
  work: Work,
): Promise<{ application: Application | undefined; troubles: Trouble[] }> {
  const enough = new AbortController()
  const failed = new Set<string>()
  let application: Application | undefined
  let troubles: Trouble[] = []
  let waited: string | undefined
  let lasting: NodeJS.Timeout | undefined
  let isLasting = false
  const lookAgain = oneAtATime(async () => {
    const { waits, failedMigrations, ...seen } = await look(kubernetes, slug)
    troubles = seen.troubles
    if (enough.signal.aborted) return
    if (waits && waits !== waited) work.waitingFor(waits)
    waited = waits
    for (const name of failedMigrations) failed.add(name)
    const isTroubled = troubles.length + (application ? applicationErrors(application).length : 0) > 0
    if (!isTroubled) {
      clearTimeout(lasting)
      lasting = undefined
    } else
      lasting ??= setTimeout(() => {
        isLasting = true
        again()
      }, TROUBLE * 1000)
    isLasting &&= isTroubled
    // The repository is only asked where nothing else is in the way.
    if (isLasting || failed.size > 1 || (application && isSettled(application) && (await isDone(application))))
      enough.abort()
  })
  let failure: unknown
  const again = () =>
    void lookAgain().catch((error: unknown) => {
      failure ??= error
      enough.abort()
    })
  try {
    await Promise.all([
      applicationSettles(
        kubernetes,
        slug,
        {
          isDone: () => false, // that takes a look at the repository
          timeout: PATIENCE,
          enough,
          onSeen: (seen) => {
            application = seen
            again()
          },
        },
        work,
      ),
      // Whatever goes wrong in a namespace makes an event there, and whatever goes on.
      follow(
        kubernetes,
        ['events', `--namespace=${slug}`],
        () => {
          again()
          return false
        },
        { enough, timeout: PATIENCE },
      ),
    ])
    if (failure) throw failure
    await lookAgain()
    return { application, troubles }
  } finally {
    enough.abort()
    clearTimeout(lasting)
  }
}

/** @returns a function that has the work done anew, after the one that is under way where one is: never two at once */
function oneAtATime(work: () => Promise<void>): () => Promise<void> {
  let underWay: Promise<void> | undefined
  let next: Promise<void> | undefined
  return () => {
    if (next) return next
    const begin = () => {
      next = undefined
      underWay = work().finally(() => {
        underWay = undefined
      })
      return underWay
    }
    if (!underWay) return begin()
    next = underWay.then(begin, begin)
    return next
  }
}
