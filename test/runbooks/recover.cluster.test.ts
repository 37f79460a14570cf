// A LunarFront that is lost, in part and as a whole, and one command that brings it back from what is left: the bucket with
// the backups, the private key, and the repository.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse, stringify } from 'yaml'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { folders, manifest, opened } from './bucket.ts'
import { ask, clusterOf, FIRST_RELEASE, kubectl, loseCluster, startFullOperator } from './full.ts'
import { killAt } from './kill.ts'
import { commitByHand, digitalocean, must, type Operator, run } from './operator.ts'

const CUSTOMERS = ['acme', 'beta', 'gamma', 'delta', 'epsilon']

const test = suite<{ operator: Operator; tokens: Record<string, string> }>('recover')

const credentialsOf = (customer: string) => ({
  email: `someone@${customer}.test`,
  password: `correct horse ${customer}`,
})

/** What an operator has added to a customer's Secret by hand, in base64. */
const OTHERS = {
  SMTP_PASSWORD: Buffer.from('correct horse battery').toString('base64'),
  MOTTO: Buffer.from('Grüße,\n"mehr" $HOME\n').toString('base64'),
}

const addOthers = (operator: Operator, customer: string) => {
  const [name, patch] = [`customer-${customer}`, JSON.stringify({ data: OTHERS })]
  kubectl(operator, '-n', name, 'patch', 'secret', name, `--patch=${patch}`)
}

const secretOf = (operator: Operator, customer: string): Record<string, string> => {
  const name = `customer-${customer}`
  return JSON.parse(kubectl(operator, '-n', name, 'get', 'secret', name, '-o', 'json')).data
}

/** Signs a customer's user in. @returns the token */
async function signIn(operator: Operator, customer: string): Promise<string> {
  const { status, body } = await ask(operator, customer, '/v1/sessions', { body: credentialsOf(customer) })
  assert.is(status, 201, customer)
  return String(body.token)
}

/** Changes a customer's values file in the repository. @returns what it was */
function changeValues(operator: Operator, customer: string, change: (text: string) => string): string {
  let before = ''
  commitByHand(operator, (clone) => {
    const file = join(clone, 'gitops', 'apps', `customer-${customer}`, 'values.yaml')
    before = readFileSync(file, 'utf8')
    writeFileSync(file, change(before))
  })
  return before
}

test.before(async (context) => {
  const operator = await startFullOperator()
  context.operator = operator
  context.tokens = {}
  for (const customer of CUSTOMERS) {
    await must(operator, 'add-customer', customer, '--yes')
    const body = credentialsOf(customer)
    assert.is((await ask(operator, customer, '/v1/users', { body })).status, 201)
    context.tokens[customer] = await signIn(operator, customer)
  }
  addOthers(operator, 'acme')
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
  for (const customer of ['acme', 'beta']) {
    const data = secretOf(operator, customer)
    assert.equal({ ...data, ...OTHERS }, data)
    const variable = ['exec', 'deployment/app', '--', 'printenv', 'SMTP_PASSWORD']
    assert.is(kubectl(operator, '-n', `customer-${customer}`, ...variable).trim(), 'correct horse battery')
  }
}

async function recovered(operator: Operator): Promise<void> {
  const started = Date.now()
  await must(operator, 'recover', '--yes')
  console.log(`recovered in ${((Date.now() - started) / 1000).toFixed(0)} s`)
  assert.match(await must(operator, 'recover', '--yes'), / ok, 0 changed/)
}

test('new secrets leave what people have added, also where a run that made them was killed', async ({
  operator,
  tokens,
}) => {
  const file = join(operator.kept, 'secrets', 'beta.json')
  const before = secretOf(operator, 'beta')
  addOthers(operator, 'beta')
  const step = 'Secret customer-beta is on the cluster'
  const args = ['add-customer', 'beta', '--new-secrets'] as const
  assert.ok(await killAt(operator, (event) => event.event === 'step drifted' && event.step === step, ...args))
  assert.ok(existsSync(file))
  await must(operator, 'backup', '--customer', 'beta', '--again')
  const newest = (await folders(operator, 'secrets/beta')).at(-1) ?? ''
  const { key } = await manifest(operator, newest)
  assert.equal(JSON.parse((await opened(operator, key)).toString()).others, OTHERS)
  await must(operator, 'add-customer', 'beta')
  assert.not.ok(existsSync(file))
  const data = secretOf(operator, 'beta')
  assert.equal({ ...data, ...OTHERS }, data)
  assert.is.not(data.JWT_SECRET, before.JWT_SECRET)
  assert.match(await must(operator, 'add-customer', 'beta'), / ok, 0 changed/)
  // Once more, now that the runbooks' own field manager has set them.
  const inBeta = ['-n', 'customer-beta']
  const server = '--selector=app.kubernetes.io/component=server'
  const old = kubectl(operator, ...inBeta, 'get', 'pods', server, '-o', 'name')
    .trim()
    .split('\n')
  await must(operator, 'add-customer', 'beta', '--new-secrets')
  // The pods before may answer for a moment longer, and would sign with the secret before.
  kubectl(operator, ...inBeta, 'delete', ...old, '--ignore-not-found', '--timeout=90s')
  const again = secretOf(operator, 'beta')
  assert.equal({ ...again, ...OTHERS }, again)
  assert.is.not(again.JWT_SECRET, data.JWT_SECRET)
  assert.match(await must(operator, 'add-customer', 'beta'), / ok, 0 changed/)
  tokens.beta = await signIn(operator, 'beta')
  await must(operator, 'backup', '--customer', 'beta', '--again')
})

test('a key that was taken away by hand stays away', async ({ operator }) => {
  const patch = (MOTTO: string | null) =>
    kubectl(
      operator,
      '-n',
      'customer-beta',
      'patch',
      'secret',
      'customer-beta',
      `--patch=${JSON.stringify({ data: { MOTTO } })}`,
    )
  patch(null)
  await must(operator, 'add-customer', 'beta')
  assert.not.ok('MOTTO' in secretOf(operator, 'beta'))
  assert.match(await must(operator, 'add-customer', 'beta'), / ok, 0 changed/)
  patch(OTHERS.MOTTO)
})

test('the cluster is lost, with all that was only there', async (context) => {
  const { operator } = context
  // One has its secrets in its values file, as the platform's first description has it.
  const plain = (key: string) => Buffer.from(secretOf(operator, 'epsilon')[key] ?? '', 'base64').toString()
  const file = changeValues(operator, 'epsilon', (text) => {
    const { existingSecret: _secret, secretChecksum: _sum, env, ...values } = parse(text)
    const [JWT_SECRET, CA_CERT] = [plain('JWT_SECRET'), plain('CA_CERT')]
    const inline = { database: { url: plain('DATABASE_URL') }, redis: { url: plain('REDIS_URL') } }
    return stringify({ ...values, ...inline, env: { ...env, JWT_SECRET, CA_CERT } })
  })
  const before = await clusterOf(operator)
  await loseCluster(operator)
  const answered = await ask(operator, 'acme', '/v1/version').catch(() => undefined)
  assert.is(answered, undefined)
  await recovered(operator)
  assert.is.not(await clusterOf(operator), before)
  await everybodyIsBack(context)
  // Those are backed up by nobody, and left alone; the way back is that of any secrets that are lost.
  const names = kubectl(operator, '-n', 'customer-epsilon', 'get', 'secrets', '-o', 'name')
  assert.is(names.trim(), 'secret/app')
  assert.is((await run(operator, 'backup')).code, 0)
  changeValues(operator, 'epsilon', () => file)
  await must(operator, 'restore', 'epsilon', '--until', 'secrets of epsilon')
  await must(operator, 'add-customer', 'epsilon')
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
