// Customers' instances on a real cluster: added until they answer, kept apart from each other, and brought to a new version,
// canaries first.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withMigration } from '../../rehearsal/cluster/app-binary.ts'
import { bumpTag, makeImage } from '../../rehearsal/release.ts'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { FIRST_RELEASE, kubectl, startFullOperator } from './full.ts'
import { until, versionOf } from './instances.ts'
import { convergedAfter, killedAtEveryStep } from './kill.ts'
import { commitByHand, eventOf, git, must, type Operator, run, start } from './operator.ts'

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

/** In a pod, as its program could. @param place namespace and Deployment. @returns what it printed, and how it ended */
const inPod = (operator: Operator, place: string, script: string): string => {
  const [namespace = '', deployment = ''] = place.split('/')
  const pod = ['--namespace', namespace, `deployment/${deployment}`]
  return kubectl(operator, 'exec', ...pod, '--', 'bash', '-c', `${script} 2>&1; echo "exit $?"`)
}

const ACME = `customer-${CANARY}/app`

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
  // The same words reach both from where requests come from.
  for (const words of [connects(pod, 3000), connects(service, 80)]) {
    assert.match(inPod(operator, 'traefik/traefik', words), /^exit 0$/m)
    assert.match(inPod(operator, ACME, words), /^exit (1|124)$/m)
  }

  const query = 'printenv CA_CERT >/tmp/ca.pem; PGSSLROOTCERT=/tmp/ca.pem psql --no-psqlrc --tuples-only --command'
  assert.match(inPod(operator, ACME, `${query} 'SELECT current_database()' "$DATABASE_URL"`), /customer_acme\s+exit 0/)
  const elsewhere = inPod(
    operator,
    ACME,
    `${query} 'SELECT current_database()' "$(echo "$DATABASE_URL" | sed 's,/customer_acme?,/customer_beta?,')"`,
  )
  assert.match(elsewhere, /permission denied for database "customer_beta"[\s\S]*exit 2/)
})

test('a new version: the canary has it first, then all others; who is pinned stays', async ({ operator }) => {
  await must(operator, 'add-customer', PINNED, '--tag', FIRST_RELEASE, '--yes')
  commitByHand(operator, (clone) => {
    const file = join(clone, 'gitops', 'apps', `customer-${CANARY}`, 'values.yaml')
    writeFileSync(file, `${readFileSync(file, 'utf8')}rollout: canary\n`)
  })
  await makeImage(operator, '1.1.0')
  const started = Date.now()
  const deploy = start(operator, 'deploy', '--tag', '1.1.0', '--json')
  await eventOf(deploy, (event) => event.event === 'step finished' && event.step === `the canary ${CANARY} runs 1.1.0`)
  for (const customer of [...OTHERS, PINNED]) assert.is(await versionOf(operator, customer), FIRST_RELEASE, customer)
  // The pod before may answer for a moment longer.
  await until('the canary has it', 30, async () => (await versionOf(operator, CANARY)) === '1.1.0')
  console.log(`the canary: ${seconds(started)} s after the start`)
  const { code, stdout, stderr } = await deploy.ended
  assert.is(code, 0, `${stdout}${stderr}`)
  for (const customer of OTHERS)
    await until(`${customer} has it`, 30, async () => (await versionOf(operator, customer)) === '1.1.0')
  console.log(`all: ${seconds(started)} s after the start`)
  assert.is(await versionOf(operator, PINNED), FIRST_RELEASE)
  assert.match(await must(operator, 'deploy', '--tag', '1.1.0'), / ok, 0 changed/)
  for (const customer of [CANARY, ...OTHERS, PINNED])
    assert.match(await must(operator, 'add-customer', customer, '--yes'), / ok, 0 changed/, customer)
})

test('a version that does not come up with the canary goes no further, and is taken back', async ({ operator }) => {
  await makeImage(operator, '1.2.0', { files: withMigration('failing', 'SELECT 1/0;') })
  const { code, stdout } = await run(operator, 'deploy', '--tag', '1.2.0')
  console.log(stdout)
  assert.is(code, 1)
  assert.match(stdout, /division by zero/)
  assert.match(stdout, /the canaries are back at 1\.1\.0, and nobody else had 1\.2\.0/)
  for (const customer of [CANARY, ...OTHERS]) assert.is(await versionOf(operator, customer), '1.1.0', customer)
  for (const file of ['canary', 'values']) {
    const text = git(operator, 'show', `main:gitops/chart/${file}.yaml`)
    assert.match(text, '"1.1.0"')
    assert.not.match(text, '1.2.0')
  }
  // What was taken back does not stand in the way of the next.
  await makeImage(operator, '1.2.1')
  await must(operator, 'deploy', '--tag', '1.2.1')
  for (const customer of [CANARY, ...OTHERS])
    await until(`${customer} has it`, 30, async () => (await versionOf(operator, customer)) === '1.2.1')
})

test('a push of the tag that is for all, without any runbook, reaches every customer', async ({ operator }) => {
  await makeImage(operator, '1.3.0')
  const started = Date.now()
  await bumpTag(operator, '1.3.0')
  for (const customer of [CANARY, ...OTHERS])
    await until(`${customer} has it`, 120, async () => (await versionOf(operator, customer)) === '1.3.0')
  console.log(`all: ${seconds(started)} s after the push`)
  assert.ok(Date.now() - started < 150_000, 'Argo CD was not told: by itself it looks every 180 s')
})

test('a deployment that is killed again and again goes on', async ({ operator }) => {
  await makeImage(operator, '1.4.0')
  const { kills, begun } = await killedAtEveryStep(operator, 'deploy', '--tag', '1.4.0')
  console.log(`deploy was killed ${kills} times`)
  // When Argo CD has done its part after a kill, there is nothing left for the step to do.
  assert.ok(kills > 6 && begun.size > 3, `${kills} kills: ${[...begun].join('; ')}`)
  await convergedAfter(operator, 'deploy', '--tag', '1.4.0')
  for (const customer of [CANARY, ...OTHERS]) assert.is(await versionOf(operator, customer), '1.4.0', customer)
  assert.is(await versionOf(operator, PINNED), FIRST_RELEASE)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
