// What the tests of customers' instances share: what is there of one on the cluster, what Argo CD has seen, and waiting.
import { setTimeout as sleep } from 'node:timers/promises'
import * as assert from 'uvu/assert'
import { ask, FIRST_RELEASE, kubectl } from './full.ts'
import { git, type Operator, sql } from './operator.ts'

/** Waits until it is so, and looks four times a second. @param seconds after which it throws */
export async function until(what: string, seconds: number, isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(250)) if (await isSo()) return
  throw new Error(`not within ${seconds} s: ${what}`)
}

/** @returns the version that a customer's instance says it is; undefined where it does not answer */
export const versionOf = async (operator: Operator, customer: string): Promise<unknown> =>
  (await ask(operator, customer, '/v1/version').catch(() => undefined))?.body.version

/** Tells Argo CD to look at the repository now, as its webhook does: for new customers, and for each one's Application. */
export function announce(operator: Operator): void {
  const set = ['annotate', '--namespace=argocd', '--overwrite']
  kubectl(operator, ...set, 'applicationset/customers', 'argocd.argoproj.io/application-set-refresh=true')
  kubectl(operator, ...set, 'applications', '--all', 'argocd.argoproj.io/refresh=normal')
}

type Application = {
  metadata: { name: string; annotations?: Record<string, string> }
  status?: { sync?: { revision?: string }; conditions?: { message: string }[] }
}

type ApplicationSet = Pick<Application, 'metadata'> & {
  status?: { conditions?: { type: string; status: string }[] }
}

export const applicationsOf = (operator: Operator): Application[] =>
  JSON.parse(kubectl(operator, 'get', 'applications', '--namespace=argocd', '-o', 'json')).items

/** Announces what was pushed, and waits until Argo CD has looked at it, or has said that it cannot. */
export async function looked(operator: Operator): Promise<void> {
  const head = git(operator, 'rev-parse', 'main').trim()
  announce(operator)
  const set = ['get', 'applicationset', 'customers', '--namespace=argocd', '-o', 'json']
  await until('Argo CD has looked at the repository', 60, () => {
    const { metadata, status } = JSON.parse(kubectl(operator, ...set)) as ApplicationSet
    const asked = metadata.annotations?.['argocd.argoproj.io/application-set-refresh']
    const cannot = status?.conditions?.some((one) => one.type === 'ErrorOccurred' && one.status === 'True')
    const seen = applicationsOf(operator).every(
      ({ metadata, status }) =>
        metadata.annotations?.['argocd.argoproj.io/refresh'] === undefined &&
        (status?.sync?.revision === head || status?.conditions?.length),
    )
    return (asked === undefined || cannot === true) && seen
  })
}

/** What must outlive every mistake, by the ids that Kubernetes gave it: made anew it would have others. */
export function belongingsOf(operator: Operator, customer: string): string[] {
  const slug = `customer-${customer}`
  const kinds = ['namespace', 'secret', 'deployment', 'service', 'ingress']
  const names = kinds.map((kind) => (/^(namespace|secret)$/.test(kind) ? slug : 'app'))
  return kinds.map((kind, index) => {
    const place = kind === 'namespace' ? [] : [`--namespace=${slug}`]
    return `${kind} ${kubectl(operator, 'get', kind, names[index] ?? '', ...place, '-o', 'jsonpath={.metadata.uid}')}`
  })
}

/** The customer answers, with its user and with all that it had. */
export async function assertUnharmed(operator: Operator, customer: string, before: string[], why: string) {
  assert.equal(belongingsOf(operator, customer), before, why)
  assert.is(await versionOf(operator, customer), FIRST_RELEASE, `${customer} does not answer: ${why}`)
  const [row] = await sql<{ count: string }>(
    operator,
    `customer_${customer}`,
    `SELECT count(*) FROM users WHERE email = 'someone@${customer}.test'`,
  )
  assert.is(row?.count, '1', why)
}
