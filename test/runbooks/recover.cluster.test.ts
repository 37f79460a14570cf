// A LunarFront that is lost, in part and as a whole, and one command that brings it back from what is left: the bucket with
// the backups, the private key, and the repository.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { ask, clusterOf, FIRST_RELEASE, kubectl, loseCluster, startFullOperator } from './full.ts'
import { digitalocean, must, type Operator } from './operator.ts'

const CUSTOMERS = ['acme', 'beta', 'gamma', 'delta', 'epsilon']

const test = suite<{ operator: Operator; tokens: Record<string, string> }>('recover')

const credentialsOf = (customer: string) => ({
  email: `someone@${customer}.test`,
  password: `correct horse ${customer}`,
})

/** What an operator has added to acme's Secret by hand, in base64. */
const OTHERS = {
  SMTP_PASSWORD: Buffer.from('correct horse battery').toString('base64'),
  MOTTO: Buffer.from('Grüße,\n"mehr" $HOME\n').toString('base64'),
}

test.before(async (context) => {
  const operator = await startFullOperator()
  context.operator = operator
  context.tokens = {}
  for (const customer of CUSTOMERS) {
    await must(operator, 'add-customer', customer, '--yes')
    const body = credentialsOf(customer)
    assert.is((await ask(operator, customer, '/v1/users', { body })).status, 201)
    const { body: session } = await ask(operator, customer, '/v1/sessions', { body })
    context.tokens[customer] = String(session.token)
  }
  const patch = JSON.stringify({ data: OTHERS })
  kubectl(operator, '-n', 'customer-acme', 'patch', 'secret', 'customer-acme', `--patch=${patch}`)
  assert.match(await must(operator, 'add-customer', 'acme'), /changed {2}Argo CD runs customer-acme/)
  assert.match(await must(operator, 'add-customer', 'acme'), / ok, 0 changed/)
  await must(operator, 'backup')
})

test.after(async ({ operator }) => operator?.down())

/** Every customer answers, its users are still signed in, and can sign in anew: its secrets and its data are there. */
async function everybodyIsBack({ operator, tokens }: { operator: Operator; tokens: Record<string, string> }) {
  for (const customer of CUSTOMERS) {
    assert.equal(
      await ask(operator, customer, '/v1/version'),
      { status: 200, body: { version: FIRST_RELEASE } },
      customer,
    )
    const me = await ask(operator, customer, '/v1/me', { token: tokens[customer] ?? '' })
    assert.is(me.status, 200, customer)
    assert.is(me.body.email, `someone@${customer}.test`)
    const again = await ask(operator, customer, '/v1/sessions', { body: credentialsOf(customer) })
    assert.ok(again.status < 300, `${customer}: ${again.status}`)
  }
  const inAcme = (...args: string[]) => kubectl(operator, '-n', 'customer-acme', ...args)
  const { data } = JSON.parse(inAcme('get', 'secret', 'customer-acme', '-o', 'json'))
  assert.equal({ ...data, ...OTHERS }, data)
  assert.is(inAcme('exec', 'deployment/app', '--', 'printenv', 'SMTP_PASSWORD').trim(), 'correct horse battery')
}

async function recovered(operator: Operator): Promise<void> {
  const started = Date.now()
  await must(operator, 'recover', '--yes')
  console.log(`recovered in ${((Date.now() - started) / 1000).toFixed(0)} s`)
  assert.match(await must(operator, 'recover', '--yes'), / ok, 0 changed/)
}

test('the cluster is lost, with all that was only there', async (context) => {
  const { operator } = context
  const before = await clusterOf(operator)
  await loseCluster(operator)
  const answered = await ask(operator, 'acme', '/v1/version').catch(() => undefined)
  assert.is(answered, undefined)
  await recovered(operator)
  assert.is.not(await clusterOf(operator), before)
  await everybodyIsBack(context)
})

test('the cluster and the database are lost', async (context) => {
  const { operator } = context
  await loseCluster(operator)
  const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as {
    databases: { id: string; name: string }[]
  }
  const shared = databases.find(({ name }) => name === 'lunarfront-postgres')
  assert.ok(shared, databases.map(({ name }) => name).join())
  await digitalocean(operator, 'DELETE', `/v2/databases/${shared.id}`)
  await recovered(operator)
  await everybodyIsBack(context)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
