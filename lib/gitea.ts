// What Gitea is asked to have, through its API: https://docs.gitea.com/api. The way there is the droplet's SSH, so that it
// needs neither DNS nor a certificate.
import * as z from 'zod'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import type { Droplet } from './droplet.ts'
import { Failure } from './failure.ts'
import { once } from './run.ts'
import { Secret } from './secret.ts'
import type { Site } from './site.ts'

/** As ansible/roles/gitea has them. */
export const ADMINISTRATOR = 'lunarfront'
const TOKEN_FILE = '/var/lib/lunarfront/gitea-token'
const PORT = 3000

export type Gitea = {
  droplet: Droplet
  /** of the administrator; throws a Failure where the playbook has not run yet */
  token: () => Promise<Secret>
  /** @returns what is answered; undefined for 404. Throws a Failure for any other that is not 2xx */
  api: (method: 'GET' | 'POST' | 'DELETE', path: string, body?: object) => Promise<unknown>
}

export function openGitea(droplet: Droplet): Gitea {
  const { run, ssh } = droplet
  const token = once(async () => {
    const { code, stdout } = await (await ssh()).run({ argv: ['cat', TOKEN_FILE], codes: [0, 1] })
    if (code === 0 && stdout.trim()) return new Secret(stdout.trim())
    throw new Failure({
      found: `the droplet has no ${TOKEN_FILE}`,
      expected: 'the administrator’s token, which ansible/gitea.yml leaves there',
      next: './runbooks/bootstrap.mts',
      notYet: true,
    })
  })
  const tunnel = once(async () => (await ssh()).tunnel('127.0.0.1', PORT))
  return {
    droplet,
    token,
    api: async (method, path, body) => {
      const [{ port }, secret] = await Promise.all([tunnel(), token()])
      const response = await fetch(`http://127.0.0.1:${port}/api/v1${path}`, {
        method,
        headers: { authorization: `token ${secret.reveal()}`, 'content-type': 'application/json' },
        signal: AbortSignal.any([run.signal, AbortSignal.timeout(30_000)]),
        ...(body ? { body: JSON.stringify(body) } : {}),
      })
      const text = await response.text()
      if (response.status === 404) return undefined
      if (response.ok) return text ? JSON.parse(text) : {}
      throw new Failure({
        found: `Gitea answers ${response.status} to ${method} ${path}: ${text.slice(0, 500)}`,
        next: 'run it again with --verbose',
      })
    },
  }
}

/** @returns 'ryan' and 'lunarfront-app', of registry.lunarfront.tech/ryan/lunarfront-app */
export function imageOwner({ image_repository }: Pick<Site, 'image_repository'>): string {
  const [, owner = ''] = image_repository.split('/')
  return owner
}

/**
 * Repositories and images are an organisation's: whoever made them may go.
 *
 * @param owners some of them twice, as they come
 */
export function organisationStep({ api }: Gitea, owners: readonly string[], needs: readonly AnyStep[]): Step {
  const wanted = [...new Set(owners)]
  const missing = async () => {
    const found = await Promise.all(wanted.map((owner) => api('GET', `/orgs/${owner}`)))
    return wanted.filter((_owner, index) => found[index] === undefined)
  }
  return step<Drift>({
    title: `Gitea has the organisation ${wanted.join(' and ')}`,
    needs,
    check: async () => {
      const lines = (await missing()).map((owner) => `create organisation ${owner}`)
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => {
      for (const username of await missing()) await api('POST', '/orgs', { username, visibility: 'private' })
    },
  })
}

/** As the API lists keys, a person's and a repository's. */
export const keysSchema = z.array(z.object({ id: z.number(), key: z.string(), title: z.string() }))

/** Type and base64, without what people write behind it. */
export const bareKey = (key: string) => key.trim().split(/\s+/).slice(0, 2).join(' ')

/** Who may sign in to the droplet may push, and nobody else does so as the administrator. */
export function operatorKeysStep({ droplet, api }: Gitea, needs: readonly AnyStep[]): Step {
  const wanted = Object.entries(droplet.run.site.operator_ssh_keys)
  const compare = async () => {
    const found = keysSchema.parse(await api('GET', '/user/keys?limit=50'))
    return {
      missing: wanted.filter(([, key]) => !found.some((one) => bareKey(one.key) === bareKey(key))),
      strange: found.filter(({ key }) => !wanted.some(([, one]) => bareKey(one) === bareKey(key))),
    }
  }
  return step<Drift>({
    title: 'Gitea knows the operators’ keys',
    needs,
    check: async () => {
      const { missing, strange } = await compare()
      const lines = [
        ...missing.map(([holder]) => `add the key of ${holder}`),
        ...strange.map(({ title }) => `remove the key ${title}, which operator_ssh_keys does not have`),
      ]
      return lines.length > 0 ? { lines } : undefined
    },
    apply: async () => {
      const { missing, strange } = await compare()
      for (const { id } of strange) await api('DELETE', `/user/keys/${id}`)
      for (const [title, key] of missing) await api('POST', '/user/keys', { title, key })
    },
  })
}

const runnersSchema = z.object({ runners: z.array(z.object({ name: z.string(), status: z.string() })) })

/** It registers itself when it starts; that may be a moment later than Gitea is well. */
export function runnerStep({ api }: Gitea, needs: readonly AnyStep[]): Step {
  return step<Drift>({
    title: 'a runner of Actions is there',
    needs,
    within: 60,
    check: async () => {
      const { runners } = runnersSchema.parse(await api('GET', '/admin/actions/runners'))
      if (runners.some(({ status }) => status === 'online' || status === 'idle' || status === 'active'))
        return undefined
      const told = runners.map(({ name, status }) => `${name} is ${status}`)
      return { lines: told.length > 0 ? told : ['none has registered'] }
    },
    // Nothing is left to do: it asks for work every few seconds.
    apply: async () => {},
  })
}
