// What goes wrong with customers' instances on a real cluster: each heals by itself, or is told with its cause and a
// command to run next. The version before serves on all the while.
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type AppFiles, withCrash, withMigration } from '../../rehearsal/cluster/app-binary.ts'
import { bumpTag, makeImage } from '../../rehearsal/release.ts'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { ask, FIRST_RELEASE, kubectl, startFullOperator } from './full.ts'
import { until, versionOf } from './instances.ts'
import { commitByHand, eventOf, must, type Operator, run, sql, start } from './operator.ts'

const CUSTOMER = 'acme'
const PERSON = { email: 'someone@acme.test', password: 'correct horse acme' }

/** @param good the last version that works */
const test = suite<{ operator: Operator; good: string; token: string }>('failures')

test.before(async (context) => {
  const operator = await startFullOperator()
  Object.assign(context, { operator, good: FIRST_RELEASE })
  await must(operator, 'add-customer', CUSTOMER)
  assert.is((await ask(operator, CUSTOMER, '/v1/users', { body: PERSON })).status, 201)
  context.token = String((await ask(operator, CUSTOMER, '/v1/sessions', { body: PERSON })).body.token)
})
test.after(async ({ operator }) => operator?.down())

const inNamespace = (operator: Operator, ...args: string[]) => kubectl(operator, '--namespace=customer-acme', ...args)
const inArgocd = (operator: Operator, ...args: string[]) => kubectl(operator, '--namespace=argocd', ...args)

/** Waits for a state of Argo CD's work on the customer. */
const phaseIs = (operator: Operator, phase: string, seconds: number) =>
  inArgocd(
    operator,
    'wait',
    'application/customer-acme',
    `--for=jsonpath={.status.operationState.phase}=${phase}`,
    `--timeout=${seconds}s`,
  )

/** A release for everybody. @param files put in place of the application's own, for one that does not work */
async function push(operator: Operator, tag: string, files: AppFiles = {}): Promise<void> {
  await makeImage(operator, tag, { files })
  await bumpTag(operator, tag)
}

/** The pod before may answer for a moment longer. */
const runs = (operator: Operator, tag: string) =>
  until(`${CUSTOMER} is on ${tag}`, 240, async () => (await versionOf(operator, CUSTOMER)) === tag)

const secondsSince = (started: number) => ((Date.now() - started) / 1000).toFixed(1)

/** What add-customer says when the instance does not come up. */
async function refusal(operator: Operator): Promise<string> {
  const started = Date.now()
  const { code, stdout } = await run(operator, 'add-customer', CUSTOMER)
  assert.is(code, 1, stdout)
  console.log(`told after ${secondsSince(started)} s:${stdout.split(/^failed /m)[1]?.split(/^not run/m)[0]}`)
  return stdout
}

/** A tag that works is pushed, and reaches the customer without any runbook. */
async function healsWith(context: { operator: Operator; good: string }, tag: string): Promise<void> {
  await push(context.operator, tag)
  await runs(context.operator, tag)
  context.good = tag
}

test('a migration that fails is told with its words, and the next good tag heals it', async (context) => {
  const { operator, good } = context
  await push(operator, '1.1.0', withMigration('failing', 'SELECT 1/0;'))
  const told = await refusal(operator)
  assert.match(told, /pod migrate-\w+ exited 1/)
  assert.match(told, /division by zero/)
  assert.match(told, /next: kubectl -n customer-acme logs job\/migrate; then run this again/)
  assert.is(await versionOf(operator, CUSTOMER), good)
  await healsWith(context, '1.1.1')
})

test('a migration that Argo CD has given up is tried again by the next run', async (context) => {
  const { operator } = context
  const role = 'ALTER ROLE customer_acme'
  await sql(operator, 'defaultdb', `${role} NOLOGIN`)
  await push(operator, '1.1.2')
  phaseIs(operator, 'Failed', 240)
  await sql(operator, 'defaultdb', `${role} LOGIN`)
  await must(operator, 'add-customer', CUSTOMER)
  await runs(operator, '1.1.2')
  context.good = '1.1.2'
})

test('an image that is not there is told, and does not stand in the way of the next', async (context) => {
  const { operator, good } = context
  await bumpTag(operator, '1.2.0-missing')
  const told = await refusal(operator)
  assert.match(told, /pod migrate-\w+: (ErrImagePull|ImagePullBackOff): .*1\.2\.0-missing/)
  assert.match(told, /next: kubectl -n customer-acme describe pod migrate-\w+; then run this again/)
  assert.is(await versionOf(operator, CUSTOMER), good)
  await push(operator, '1.2.1')
  await must(operator, 'add-customer', CUSTOMER)
  await runs(operator, '1.2.1')
  context.good = '1.2.1'
})

test('a crash loop is told with the pod’s last words, and the next good tag heals it', async (context) => {
  const { operator, good } = context
  await push(operator, '1.3.0', withCrash(200))
  const told = await refusal(operator)
  assert.match(told, /pod app-\w+-\w+.* exited 1 \(Error\)/)
  assert.match(told, /error: crashed/)
  assert.match(told, /next: kubectl -n customer-acme logs app-\w+-\w+ --previous; then run this again/)
  assert.is(await versionOf(operator, CUSTOMER), good)
  await healsWith(context, '1.3.1')
})

test('pods that a quota refuses are told, and come when there is room', async (context) => {
  const { operator, good } = context
  inNamespace(operator, 'create', 'quota', 'none', '--hard=pods=1')
  await push(operator, '1.4.0')
  const told = await refusal(operator)
  assert.match(told, /Job migrate: FailedCreate: .*exceeded quota: none/)
  assert.match(told, /next: kubectl -n customer-acme describe resourcequotas,replicasets,jobs; then run this again/)
  assert.is(await versionOf(operator, CUSTOMER), good)
  inNamespace(operator, 'delete', 'resourcequota/none')
  await must(operator, 'add-customer', CUSTOMER)
  await runs(operator, '1.4.0')
  context.good = '1.4.0'
})

test('values that the chart refuses are told in its words', async (context) => {
  const { operator, good } = context
  const undo = commitByHand(operator, (clone) =>
    appendFileSync(join(clone, 'gitops', 'apps', 'customer-acme', 'values.yaml'), 'replicas: none\n'),
  )
  const told = await refusal(operator)
  assert.match(told, /values don't meet the specifications[\s\S]*replicas/)
  assert.not.match(told.split(/^failed /m)[1] ?? '', /rpc error|helm template|it is Unknown/)
  assert.match(told, /next: kubectl -n argocd describe application customer-acme; then run this again/)
  assert.is(await versionOf(operator, CUSTOMER), good)
  undo()
  await must(operator, 'add-customer', CUSTOMER)
})

test('a Deployment edited by hand heals by itself', async ({ operator }) => {
  const path = '{.spec.replicas} {.status.readyReplicas} {.spec.template.spec.containers[0].image}'
  const deployment = () => inNamespace(operator, 'get', 'deployment/app', '-o', `jsonpath=${path}`)
  const before = deployment()
  inNamespace(operator, 'set', 'image', 'deployment/app', 'app=registry.lunarfront.test/ryan/lunarfront-app:0.0.1')
  inNamespace(operator, 'scale', 'deployment/app', '--replicas=0')
  const started = Date.now()
  await until('the Deployment is as it was', 120, () => deployment() === before)
  console.log(`healed after ${secondsSince(started)} s`)
})

test('somebody who pushes while an instance is waited for does not keep it waiting', async ({ operator }) => {
  const late = start(operator, 'add-customer', 'late', '--json')
  await eventOf(late, ({ event, ...more }) => event === 'step waiting' && /migrat/.test(JSON.stringify(more)))
  commitByHand(operator, (clone) => appendFileSync(join(clone, 'README.md'), 'somebody else’s\n'))
  let ended = false
  late.ended.finally(() => {
    ended = true
  })
  await until('add-customer has ended', 180, () => ended)
  assert.is((await late.ended).code, 0)
})

test('Argo CD’s controller, killed in the middle of a rollout, goes on', async (context) => {
  const { operator } = context
  await push(operator, '1.5.0')
  phaseIs(operator, 'Running', 60)
  inArgocd(operator, 'delete', 'pod/argocd-application-controller-0', '--force')
  const started = Date.now()
  await runs(operator, '1.5.0')
  console.log(`on the new version ${secondsSince(started)} s after the controller was killed`)
  context.good = '1.5.0'
  assert.match(await must(operator, 'add-customer', CUSTOMER), / ok, 0 changed/)
})

test('a namespace deleted by hand: what it takes to bring it back is told', async ({ operator, good, token }) => {
  await must(operator, 'backup')
  kubectl(operator, 'delete', 'namespace', 'customer-acme', '--timeout=180s')
  assert.is(await versionOf(operator, CUSTOMER), undefined)
  const told = await refusal(operator)
  assert.match(told, /the secrets of acme are neither on this machine nor on the cluster/)
  assert.match(told, /next: \.\/runbooks\/restore\.mts acme --until secrets/)
  await must(operator, 'restore', CUSTOMER, '--until', 'secrets')
  await must(operator, 'add-customer', CUSTOMER)
  await runs(operator, good)
  const me = await ask(operator, CUSTOMER, '/v1/me', { token })
  assert.equal([me.status, me.body.email], [200, PERSON.email])
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
