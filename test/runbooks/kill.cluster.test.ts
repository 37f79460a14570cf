// Runbooks killed again and again on a real cluster, when each step begins and when it has ended: the runs together do what
// one alone does, and the run after them has nothing to do.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { ask, FIRST_RELEASE, loseCluster, makeFirstRelease, startEmptyFullOperator } from './full.ts'
import { convergedAfter, killedAtEveryStep } from './kill.ts'
import { git, must, type Operator, sql, stepsOf } from './operator.ts'

const test = suite<{ operator: Operator }>('kill -9 on a cluster')

test.before(async (context) => {
  context.operator = await startEmptyFullOperator()
})
test.after(async ({ operator }) => operator?.down())

test('bootstrap', async ({ operator }) => {
  const steps = await stepsOf(operator, 'bootstrap')
  const { kills, begun } = await killedAtEveryStep(operator, 'bootstrap', '--yes')
  console.log(`bootstrap was killed ${kills} times`)
  // The first differs only after a kill within Terraform; the others are done by the steps before when those run anew.
  const done = /^no resource was left half made|leads to the load balancer$|answers$|^a runner of Actions is there$/
  const others = steps.filter((step) => !done.test(step))
  assert.equal([...begun].filter((step) => others.includes(step)).sort(), others.sort())
  assert.ok(kills > others.length, `${kills} kills`)
  await convergedAfter(operator, 'bootstrap', '--yes')
  await makeFirstRelease(operator)
})

test('add-customer', async ({ operator }) => {
  const steps = await stepsOf(operator, 'add-customer', 'acme')
  const { kills, begun } = await killedAtEveryStep(operator, 'add-customer', 'acme')
  console.log(`add-customer was killed ${kills} times`)
  // The platform's credentials are there; and when Argo CD has the instance running, it answers.
  const others = steps.filter((step) => !/^credentials of the cluster|answers$/.test(step))
  assert.equal([...begun].filter((step) => others.includes(step)).sort(), others.sort())
  assert.ok(kills > others.length, `${kills} kills`)
  await convergedAfter(operator, 'add-customer', 'acme')
  assert.equal(await ask(operator, 'acme', '/v1/version'), { status: 200, body: { version: FIRST_RELEASE } })
  assert.is(git(operator, 'log', '--oneline', '--', 'gitops/apps/customer-acme').trim().split('\n').length, 1)
})

test('recover, of a lost cluster', async ({ operator }) => {
  const body = { email: 'someone@acme.test', password: 'correct horse acme' }
  assert.is((await ask(operator, 'acme', '/v1/users', { body })).status, 201)
  const { body: session } = await ask(operator, 'acme', '/v1/sessions', { body })
  await must(operator, 'backup')
  await loseCluster(operator)
  await sql(operator, 'defaultdb', 'DROP DATABASE customer_acme WITH (FORCE)')
  const { kills } = await killedAtEveryStep(operator, 'recover', '--yes')
  console.log(`recover was killed ${kills} times`)
  assert.ok(kills >= 15, `${kills} kills`)
  await convergedAfter(operator, 'recover', '--yes')
  assert.equal(await ask(operator, 'acme', '/v1/version'), { status: 200, body: { version: FIRST_RELEASE } })
  assert.is((await ask(operator, 'acme', '/v1/me', { token: String(session.token) })).status, 200)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
