// How Argo CD reads the repository: over SSH, with a deploy key of its own, and knowing its host's keys.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ARGOCD_NAMESPACE } from './applications.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { Failure } from './failure.ts'
import { writeWhole } from './files.ts'
import { knownHostsFile } from './host-keys.ts'
import { applyObjects, findObjects, type Kubernetes, type KubernetesObject, missingFrom } from './kubernetes.ts'
import { argocdRepository } from './repository-address.ts'
import type { Site } from './site.ts'

/** The public half of the key with which Argo CD reads: whoever hosts the repository has to know it. */
export const deployKeyFile = ({ directory }: Pick<Site, 'directory'>) => join(directory, 'argocd-deploy-key.pub')

/** @returns the host keys of the repository's host, as ssh knows them; throws a Failure where nobody has saved them */
export function readKnownHosts(site: Pick<Site, 'directory' | 'repository'>): string {
  const hosts = knownHostsFile(site)
  if (!existsSync(hosts))
    throw new Failure({
      found: `${hosts} is not there`,
      expected: 'the host keys of the repository’s host, so that nobody who reads it can be led to another one',
      next: `ssh-keyscan the host of ${site.repository}, compare the fingerprint with the host’s own, and save it there`,
    })
  return readFileSync(hosts, 'utf8')
}

const REPOSITORY_SECRET = 'repository'

const repositorySecret = (url: string, more: Record<string, string> = {}): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: {
    name: REPOSITORY_SECRET,
    namespace: ARGOCD_NAMESPACE,
    labels: { 'argocd.argoproj.io/secret-type': 'repository' },
  },
  data: Object.fromEntries(
    Object.entries({ type: 'git', url, ...more }).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
  ),
})

const keyOf = (secret: KubernetesObject | undefined) =>
  (secret?.data as Record<string, string> | undefined)?.sshPrivateKey

/** @returns the private key with which the cluster reads the repository; throws a Failure where it has none yet */
export async function findDeployKey(kubernetes: Kubernetes): Promise<string> {
  const [found] = await findObjects(kubernetes, [repositorySecret(argocdRepository(kubernetes.run.site))], {
    shown: false,
  })
  const key = keyOf(found)
  if (key) return Buffer.from(key, 'base64').toString()
  throw new Failure({
    found: 'Argo CD has no key for the repository yet',
    next: './runbooks/bootstrap.mts',
    notYet: true,
  })
}

/**
 * Argo CD reads the repository over SSH, with a key of its own, and knows its host. All of that is there before it starts:
 * what it is told later reaches its pods a minute later.
 */
export function repositoryAccessStep(kubernetes: Kubernetes, { needs }: { needs?: readonly AnyStep[] } = {}): Step {
  const { run } = kubernetes
  const { site } = run
  const namespace: KubernetesObject = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: ARGOCD_NAMESPACE } }
  const knownHosts = (): KubernetesObject => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'argocd-ssh-known-hosts-cm', namespace: ARGOCD_NAMESPACE },
    data: { ssh_known_hosts: readKnownHosts(site) },
  })
  return step<Drift>({
    title: 'Argo CD may read the repository',
    ...(needs ? { needs } : {}),
    check: async () => {
      if (!/^(ssh:|[\w.-]+@)/.test(site.repository))
        throw new Failure({
          found: `the site’s repository is ${site.repository}`,
          expected: 'ssh://…, which Argo CD can read from the cluster',
          next: `set repository in ${site.file}`,
        })
      const wanted = repositorySecret(argocdRepository(site))
      const [space, secret, config] = await findObjects(kubernetes, [namespace, wanted, knownHosts()], { shown: false })
      const lines = [
        ...(space ? [] : [`create namespace ${ARGOCD_NAMESPACE}`]),
        ...(missingFrom(secret, wanted).length > 0 || !keyOf(secret) ? [`make a key for ${site.repository}`] : []),
        ...(missingFrom(config, knownHosts()).length > 0 ? ['tell Argo CD the repository’s host keys'] : []),
        ...(existsSync(deployKeyFile(site)) ? [] : [`write the key’s public half: ${deployKeyFile(site)}`]),
      ]
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => {
      const [found] = await findObjects(kubernetes, [repositorySecret(argocdRepository(site))], { shown: false })
      const kept = keyOf(found)
      const key = join(run.scratch, 'deploy-key')
      if (kept) writeFileSync(key, Buffer.from(kept, 'base64'), { mode: 0o600 })
      else
        await run.exec({
          argv: ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', `argocd of ${site.name}`, '-f', key],
        })
      const { stdout } = await run.exec({ argv: ['ssh-keygen', '-y', '-f', key] })
      const sshPrivateKey = readFileSync(key, 'utf8')
      await applyObjects(
        kubernetes,
        [namespace, repositorySecret(argocdRepository(site), { sshPrivateKey }), knownHosts()],
        {
          shown: false,
        },
      )
      writeWhole(deployKeyFile(site), stdout)
    },
  })
}
