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

/** Tells Argo CD to look at the repository now: for new customers, and for each one's Application. */
function announce(operator: Operator): void {
  const set = ['annotate', '--namespace=argocd', '--overwrite']
  const anew = `argocd.argoproj.io/application-set-refresh=${Date.now()}` // the same value once more is no change
  kubectl(operator, ...set, 'applicationset/customers', anew)
  kubectl(operator, ...set, 'applications', '--all', 'argocd.argoproj.io/refresh=normal')
}

type Application = {
  metadata: { name: string; annotations?: Record<string, string> }
  status?: {
    sync?: { revision?: string; status?: string }
    conditions?: { message: string }[]
    operationState?: { phase: string; message?: string; syncResult?: { revision?: string } }
  }
}

type ApplicationSet = Pick<Application, 'metadata'> & {
  status?: { conditions?: { type: string; status: string }[] }
}

export const applicationsOf = (operator: Operator): Application[] =>
  JSON.parse(kubectl(operator, 'get', 'applications', '--namespace=argocd', '-o', 'json')).items

/** Whether Argo CD has done all that it does at that commit: synced it, tried to in vain, or found that it cannot. */
function isDoneWith({ metadata, status }: Application, head: string): boolean {
  if (metadata.annotations?.['argocd.argoproj.io/refresh'] !== undefined) return false
  if (status?.operationState?.phase === 'Running') return false
  if (status?.conditions?.length) return true
  const isTried = status?.operationState?.syncResult?.revision === head
  return status?.sync?.revision === head && (status.sync.status === 'Synced' || isTried)
}

/** @returns what Argo CD says of a customer's Application: what it cannot do, and how its last work ended */
export function toldOf(operator: Operator, customer: string): string {
  const { status } = applicationsOf(operator).find(({ metadata }) => metadata.name === `customer-${customer}`) ?? {}
  return [...(status?.conditions ?? []), status?.operationState].map((one) => one?.message ?? '').join('\n')
}

/** Announces what was pushed, and waits until Argo CD is done with it, or has said that it cannot be. */
export async function looked(operator: Operator): Promise<void> {
  const head = git(operator, 'rev-parse', 'main').trim()
  announce(operator)
  const set = ['get', 'applicationset', 'customers', '--namespace=argocd', '-o', 'json']
  await until('Argo CD is done with what was pushed', 180, () => {
    const { metadata, status } = JSON.parse(kubectl(operator, ...set)) as ApplicationSet
    const asked = metadata.annotations?.['argocd.argoproj.io/application-set-refresh']
    const cannot = status?.conditions?.some((one) => one.type === 'ErrorOccurred' && one.status === 'True')
    return (asked === undefined || cannot === true) && applicationsOf(operator).every((one) => isDoneWith(one, head))
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
