// A customer's name, folder, instance, namespace and secrets when the customer is removed; its database is another subject.
import { cpSync, existsSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { ARGOCD_NAMESPACE, findApplication, refreshApplicationSet } from './applications.ts'
import { listBackups, sendBackup, verifyBackup } from './backups.ts'
import { type Drift, type Step, step } from './converge.ts'
import { findAllSecrets, secretsFile, secretsText } from './customer-secrets.ts'
import { namesOf, readCustomers } from './customers.ts'
import { isOnServer } from './database-removal.ts'
import { Failure, oneLine, tell } from './failure.ts'
import { writeWhole } from './files.ts'
import { terraformStep } from './infrastructure.ts'
import { findObjects, type Kubernetes, type KubernetesObject } from './kubernetes.ts'
import type { Platform } from './platform.ts'
import { pushChange, type Repository } from './repository.ts'
import type { Precondition } from './runbook.ts'
import { secretsSource } from './sources.ts'
import { removesRecordOf } from './terraform-plan.ts'

/** There is a customer of that name, or something is left of one, if only its backups. */
export const knownPrecondition = (platform: Platform, customer: string): Precondition => ({
  title: `${customer} is or was a customer`,
  check: async () => {
    const { run, postgres, appsDirectory } = platform
    if (existsSync(secretsFile(run.site.directory, customer))) return
    if (existsSync(join(await appsDirectory(), namesOf(customer).slug))) return
    if (await isOnServer(postgres, customer)) return
    const backups = await listBackups(run)
    if (backups.some(({ source }) => source === `database/${customer}` || source === `secrets/${customer}`)) return
    throw new Failure({
      found: `there is no customer ${customer}, nor anything that is left of one`,
      expected: 'the name of a customer',
      next: './runbooks/list-customers.mts',
    })
  },
})

// --- its name and its folder -----------------------------------------------------------

/**
 * First of all, since the plan also tells when somebody has changed the infrastructure by hand: then nothing has been
 * touched yet.
 */
export function recordGoneStep(platform: Platform, customer: string) {
  const { run, terraform: open, outputs } = platform
  const { slug } = namesOf(customer)
  return terraformStep({
    run,
    title: `${customer} has no name in DNS`,
    open,
    outputs,
    // As the folder will be: it goes only afterwards.
    appsDirectory: async () => {
      const apps = await platform.appsDirectory()
      const rest = join(run.scratch, 'apps-of-the-others')
      rmSync(rest, { recursive: true, force: true })
      cpSync(apps, rest, { recursive: true, filter: (path) => basename(path) !== slug })
      readCustomers(rest) // which names a file that Terraform could not read
      return rest
    },
    allowed: removesRecordOf(customer),
  })
}

export function folderGoneStep(repository: Repository, customer: string): Step {
  const path = `gitops/apps/${namesOf(customer).slug}`
  return step<Drift>({
    title: `${path} is not in the repository`,
    check: async () =>
      existsSync(join(await repository.clone(), path)) ? { lines: [`remove ${path}, and push`] } : undefined,
    apply: async (_drift, work) =>
      pushChange(repository, path, work, async (directory) => {
        if (!existsSync(join(directory, path))) return undefined
        rmSync(join(directory, path), { recursive: true })
        return `Remove customer ${customer}`
      }),
  })
}

// --- on the cluster --------------------------------------------------------------------

/** Seconds that Argo CD may take to let go of an Application. */
const ARGOCD_PATIENCE = 120
/** Seconds that pods and a namespace may take to end. */
const PODS_PATIENCE = 180

/** What the Application has made stays: the ApplicationSet is told so. */
export function applicationGoneStep({ kubernetes }: Platform, customer: string): Step {
  const { slug } = namesOf(customer)
  return step<Drift>({
    title: `Argo CD has no Application ${slug}`,
    check: async () =>
      (await findApplication(kubernetes, slug))
        ? { lines: [`delete Application ${slug} in ${ARGOCD_NAMESPACE}`] }
        : undefined,
    apply: async (_drift, work) => {
      work.waitingFor('Argo CD, which looks at the repository')
      // As long as it knows a folder it makes an Application.
      await refreshApplicationSet(kubernetes)
      work.waitingFor('Argo CD, which lets go of the instance')
      const application = ['application', slug, `--namespace=${ARGOCD_NAMESPACE}`, '--ignore-not-found']
      await kubernetes.kubectl(['delete', ...application, `--timeout=${ARGOCD_PATIENCE}s`], {
        timeout: ARGOCD_PATIENCE + 30,
        next: `kubectl -n ${ARGOCD_NAMESPACE} describe application ${slug}`,
      })
    },
  })
}

/** Its pods end as they do in an update: they answer first what they were asked. */
export function stoppedStep({ kubernetes }: Platform, customer: string): Step {
  const { kubectl } = kubernetes
  const { slug } = namesOf(customer)
  const running = ['deployments,jobs,pods', `--namespace=${slug}`]
  return step<Drift>({
    title: `nothing runs in ${slug}`,
    check: async () => {
      const { stdout } = await kubectl(['get', ...running, '--output=name'])
      const names = stdout.split('\n').filter(Boolean)
      return names.length > 0 ? { lines: names.map((name) => `stop ${name}`) } : undefined
    },
    apply: async (_drift, work) => {
      work.waitingFor('its pods, which end')
      await kubectl(['delete', ...running, '--all', '--cascade=foreground', `--timeout=${PODS_PATIENCE}s`], {
        timeout: PODS_PATIENCE + 30,
        next: `kubectl -n ${slug} get pods,events`,
      })
    },
  })
}

/** @returns names of the Secrets of a namespace that people have made: the chart's is what the repository says */
async function peoplesSecrets({ kubectl }: Kubernetes, namespace: string): Promise<string[]> {
  const byPeople = '--selector=app.kubernetes.io/name!=lunarfront-app'
  const { stdout } = await kubectl(['get', 'secrets', `--namespace=${namespace}`, byPeople, '--output=name'])
  const names = stdout.split('\n').filter(Boolean)
  return names.map((name) => name.replace('secret/', '')).filter((name) => name !== namespace)
}

/** What goes with the namespace and cannot be brought back is told before anybody is asked. */
export const unsavedPrecondition = ({ run, kubernetes }: Platform, customer: string): Precondition => ({
  title: 'what no backup has is known',
  check: async () => {
    const { slug } = namesOf(customer)
    const text = await peoplesSecrets(kubernetes, slug).then(
      (names) => names.length > 0 && `no backup has what goes with namespace ${slug}: the Secrets ${names.join(', ')}`,
      (error: unknown) => `it is not known what goes with namespace ${slug} and no backup has: ${oneLine(tell(error))}`,
    )
    if (text) run.emit({ event: 'warning', text })
  },
})

export function namespaceGoneStep({ kubernetes }: Platform, customer: string): Step {
  const { slug } = namesOf(customer)
  const namespace: KubernetesObject = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: slug } }
  return step<Drift>({
    title: `namespace ${slug} is gone`,
    check: async () => {
      const [found] = await findObjects(kubernetes, [namespace])
      return found ? { lines: [`delete Namespace ${slug}, with all that is in it`] } : undefined
    },
    apply: async (_drift, work) => {
      work.waitingFor('Kubernetes, which deletes what is in it')
      await kubernetes.kubectl(['delete', 'namespace', slug, '--ignore-not-found', `--timeout=${PODS_PATIENCE}s`], {
        timeout: PODS_PATIENCE + 30,
        next: `kubectl describe namespace ${slug}, which tells what it waits for`,
      })
    },
  })
}

// --- its secrets -----------------------------------------------------------------------

/** From wherever they are, as long as they are anywhere: what is restored later signs nobody out. */
export function secretsSavedStep(platform: Platform, customer: string): Step {
  const { run } = platform
  const home = platform.secrets(customer)
  const file = secretsFile(home.directory, customer)
  let saved = false
  return step<Drift>({
    title: `secrets of ${customer} are backed up`,
    check: async () => {
      if (saved) return undefined
      const there = existsSync(file) || (await home.onCluster()) !== undefined
      return there ? { lines: ['back them up before they go'] } : undefined
    },
    apply: async () => {
      // The cluster's Secret may have more, and goes next: a run that is ended in between would save the file alone.
      if (existsSync(file)) writeWhole(file, secretsText(await findAllSecrets(home)))
      await verifyBackup(run, await sendBackup(run, secretsSource(platform, customer)))
      saved = true
    },
  })
}
