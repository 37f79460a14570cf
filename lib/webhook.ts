// By which Gitea tells Argo CD of each push, so that it looks at once and not only every few minutes.
import { createHash, randomBytes } from 'node:crypto'
import * as z from 'zod'
import { ARGOCD_NAMESPACE } from './applications.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import type { Gitea } from './gitea.ts'
import { findObjects, type Kubernetes, type KubernetesObject, objectsStep } from './kubernetes.ts'
import { requireHosted } from './repository-address.ts'
import { Secret } from './secret.ts'

/** Argo CD takes Gitea's for those of Gogs, of which Gitea has its form. */
const KEY = 'webhook.gogs.secret'

const argocdSecret = (data: Record<string, string> = {}): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  // Argo CD looks only at what is labelled as its own.
  metadata: { name: 'argocd-secret', namespace: ARGOCD_NAMESPACE, labels: { 'app.kubernetes.io/part-of': 'argocd' } },
  data,
})

async function findSecret(kubernetes: Kubernetes): Promise<Secret | undefined> {
  const [found] = await findObjects(kubernetes, [argocdSecret()], { shown: false })
  const value = (found?.data as Record<string, string> | undefined)?.[KEY]
  return value === undefined ? undefined : new Secret(Buffer.from(value, 'base64').toString())
}

/** It is there before Argo CD starts, which would start once more for it. */
export const webhookSecretStep = (kubernetes: Kubernetes, { needs }: { needs: readonly AnyStep[] }): Step =>
  objectsStep(kubernetes, {
    title: 'Argo CD knows by which secret Gitea speaks to it',
    needs,
    secret: true,
    objects: async () => {
      const secret = (await findSecret(kubernetes)) ?? new Secret(randomBytes(24).toString('base64url'))
      return [argocdSecret({ [KEY]: Buffer.from(secret.reveal()).toString('base64') })]
    },
  })

const hooksSchema = z.array(z.object({ id: z.number(), active: z.boolean(), config: z.object({ url: z.string() }) }))

export function webhookStep(
  { droplet, api }: Gitea,
  kubernetes: Kubernetes,
  { needs }: { needs: readonly AnyStep[] },
): Step {
  const { site } = droplet.run
  const { owner, name } = requireHosted(site)
  const path = `/repos/${owner}/${name}/hooks`
  const address = `https://lb.app.${site.domain}/api/webhook`
  const compare = async () => {
    const key = (await findSecret(kubernetes))?.reveal() ?? ''
    // Gitea does not tell the secret that it has, so that is in the address.
    const url = `${address}?secret=${createHash('sha256').update(key).digest('hex').slice(0, 16)}`
    const ours = hooksSchema
      .parse(await api('GET', `${path}?limit=50`))
      .filter((one) => one.config.url.startsWith(address))
    const isRight = (one: (typeof ours)[number]) => one.active && one.config.url === url
    return { key, url, isThere: ours.some(isRight), wrong: ours.filter((one) => !isRight(one)) }
  }
  return step<Drift>({
    title: 'Gitea tells Argo CD of each push',
    needs,
    check: async () => {
      const { isThere, wrong } = await compare()
      const lines = [
        ...wrong.map(({ id }) => `remove webhook ${id}, which is not as it has to be`),
        ...(isThere ? [] : [`add a webhook to ${address}`]),
      ]
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => {
      const { key, url, isThere, wrong } = await compare()
      for (const { id } of wrong) await api('DELETE', `${path}/${id}`)
      const config = { url, content_type: 'json', secret: key }
      if (!isThere) await api('POST', path, { type: 'gitea', active: true, events: ['push'], config })
    },
  })
}
