// By which keys Gitea's droplet is known: learnt once, over a way on which nobody else can answer, and kept.
import { existsSync, readFileSync } from 'node:fs'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { type Droplet, targetOf } from './droplet.ts'
import { Failure } from './failure.ts'
import { writeWhole } from './files.ts'
import { knownAs, knownHostsFile, knownKeys } from './host-keys.ts'
import type { Kubernetes, KubernetesObject } from './kubernetes.ts'
import type { Outputs } from './outputs.ts'
import { upstreamOf } from './upstream.ts'

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
      const { gitea } = await outputs()
      const target = targetOf({ gitea })
      const kept = keptOf(file)
      if (kept.includes(noteOf(gitea)) && (await knownKeys(run.exec, file, target)).length > 0) return undefined
      return { lines: [`learn the host keys of ${target.host}, and keep them in ${file}`] }
    },
    apply: async (_drift, work) => {
      const { gitea } = await outputs()
      work.waitingFor('a pod of the cluster, which asks for them over the private network')
      const keys = await scanFromPod(kubernetes, gitea.private_ip)
      const name = knownAs(targetOf({ gitea }))
      const others = keptOf(file).filter((line) => !line.startsWith(`${name} `) && !line.startsWith(NOTE))
      writeWhole(file, [...others, noteOf(gitea), ...keys.map((key) => `${name} ${key}`), ''].join('\n'))
    },
  })
}

/** Another droplet may get the same address. It is as trustworthy, and has keys of its own. */
const NOTE = '# The keys of droplet '
const noteOf = ({ id }: Outputs['gitea']) => `${NOTE}${id}:`
const keptOf = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter(Boolean) : [])

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
