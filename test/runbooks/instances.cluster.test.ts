// Customers' instances on a real cluster: added until they answer, kept apart from each other, and brought to a new version,
// canaries first.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bumpTag, makeImage } from '../../rehearsal/release.ts'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { FIRST_RELEASE, kubectl, startFullOperator } from './full.ts'
import { announce, until, versionOf } from './instances.ts'
import { commitByHand, must, type Operator } from './operator.ts'

const test = suite<{ operator: Operator }>('instances')

const [CANARY, OTHERS, PINNED] = ['acme', ['beta', 'gamma', 'delta', 'epsilon'], 'zenith']

test.before(async (context) => {
  context.operator = await startFullOperator()
})
test.after(async ({ operator }) => operator?.down())

const seconds = (since: number) => ((Date.now() - since) / 1000).toFixed(1)

test('a customer is added until it answers, and a second time nothing changes', async ({ operator }) => {
  for (const customer of [CANARY, ...OTHERS]) {
    const started = Date.now()
    await must(operator, 'add-customer', customer, '--yes')
    console.log(`add-customer ${customer}: ${seconds(started)} s until it answers`)
    assert.is(await versionOf(operator, customer), FIRST_RELEASE)
  }
  assert.match(await must(operator, 'add-customer', CANARY, '--yes'), / ok, 0 changed/)
})

/** In the pod of a customer, as its application could. @returns what it printed and how it ended */
const inPodOf = (operator: Operator, customer: string, script: string): string =>
  kubectl(
    operator,
    'exec',
    '--namespace',
    `customer-${customer}`,
    'deployment/app',
    '--',
    'bash',
    '-c',
    `${script} 2>&1; echo "exit $?"`,
  )

test('a customer’s pod reaches its own database, and of another customer neither pod, service nor database', ({
  operator,
}) => {
  const addressOf = (kind: string, path: string) =>
    kubectl(operator, 'get', kind, '--namespace=customer-beta', '-o', `jsonpath=${path}`)
  const pod = addressOf('pods', '{.items[?(@.metadata.labels.app\\.kubernetes\\.io/component=="server")].status.podIP}')
  const service = addressOf('service', '{.items[0].spec.clusterIP}')
  const connects = (address: string, port: number) => `timeout 3 bash -c '</dev/tcp/${address}/${port}'`
  assert.match(pod, /^10\.244\.[\d.]+$/)
  assert.match(service, /^10\.245\.[\d.]+$/)
  // The same words reach the pod from its own namespace, and so can tell.
  assert.match(inPodOf(operator, 'beta', connects('127.0.0.1', 3000)), /^exit 0$/m)
  assert.match(inPodOf(operator, CANARY, connects(pod, 3000)), /^exit (1|124)$/m)
  assert.match(inPodOf(operator, CANARY, connects(service, 80)), /^exit (1|124)$/m)

  const query = 'printenv CA_CERT >/tmp/ca.pem; PGSSLROOTCERT=/tmp/ca.pem psql --no-psqlrc --tuples-only --command'
  assert.match(
    inPodOf(operator, CANARY, `${query} 'SELECT current_database()' "$DATABASE_URL"`),
    /customer_acme\s+exit 0/,
  )
  const elsewhere = inPodOf(
    operator,
    CANARY,
    `${query} 'SELECT current_database()' "$(echo "$DATABASE_URL" | sed 's,/customer_acme?,/customer_beta?,')"`,
  )
  assert.match(elsewhere, /permission denied for database "customer_beta"[\s\S]*exit 2/)
})

test('a new version: the canary has it first, all others from the push that is for all on; who is pinned stays', async ({
  operator,
}) => {
  await must(operator, 'add-customer', PINNED, '--tag', FIRST_RELEASE, '--yes')
  commitByHand(operator, (clone) => {
    const file = join(clone, 'gitops', 'apps', `customer-${CANARY}`, 'values.yaml')
    writeFileSync(file, `${readFileSync(file, 'utf8')}rollout: canary\n`)
  })
  await makeImage(operator, '1.1.0')
  const started = Date.now()
  await bumpTag(operator, '1.1.0', 'canary')
  announce(operator)
  await until('the canary has it', 120, async () => (await versionOf(operator, CANARY)) === '1.1.0')
  console.log(`the canary: ${seconds(started)} s after the push`)
  for (const customer of [...OTHERS, PINNED]) assert.is(await versionOf(operator, customer), FIRST_RELEASE, customer)

  const forAll = Date.now()
  await bumpTag(operator, '1.1.0')
  announce(operator)
  for (const customer of OTHERS)
    await until(`${customer} has it`, 180, async () => (await versionOf(operator, customer)) === '1.1.0')
  console.log(`all: ${seconds(forAll)} s after the push for all, ${seconds(started)} s after the canary’s`)
  assert.is(await versionOf(operator, CANARY), '1.1.0')
  assert.is(await versionOf(operator, PINNED), FIRST_RELEASE)
  for (const customer of [CANARY, ...OTHERS, PINNED])
    assert.match(await must(operator, 'add-customer', customer, '--yes'), / ok, 0 changed/, customer)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
