// Customers removed from a real cluster: all of one is gone and the other still answers, whenever it is interrupted, and what
// was removed comes back from its final backup.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { folders, manifest } from './bucket.ts'
import { ask, FIRST_RELEASE, kubectl, startFullOperator } from './full.ts'
import { convergedAfter, killAt, killedAtEveryStep } from './kill.ts'
import {
  clearFaults,
  everything,
  git,
  must,
  type Operator,
  objects,
  plant,
  run,
  sql,
  statusesOf,
  stepsOf,
} from './operator.ts'

const test = suite<{ operator: Operator }>('remove-customer on a cluster')

const credentialsOf = (customer: string) => ({
  email: `someone@${customer}.test`,
  password: `correct horse ${customer}`,
})

/** Adds a customer with a user. @returns the token of that user's session */
async function addWithUser(operator: Operator, customer: string): Promise<string> {
  await must(operator, 'add-customer', customer)
  const body = credentialsOf(customer)
  assert.is((await ask(operator, customer, '/v1/users', { body })).status, 201)
  return String((await ask(operator, customer, '/v1/sessions', { body })).body.token)
}

const signIn = async (operator: Operator, customer: string): Promise<number> =>
  (await ask(operator, customer, '/v1/sessions', { body: credentialsOf(customer) })).status

/** @returns what is left of a customer, but for its data: nothing is, where it is removed */
async function leftOf(operator: Operator, customer: string): Promise<string[]> {
  const slug = `customer-${customer}`
  const server = await sql<{ name: string }>(
    operator,
    'defaultdb',
    `SELECT 'role ' || rolname AS name FROM pg_roles WHERE rolname = 'customer_${customer}'
     UNION SELECT 'database ' || datname FROM pg_database WHERE datname = 'customer_${customer}'`,
  )
  const records = (await objects(operator)).cloudflare.dns_records
  return [
    kubectl(operator, 'get', 'namespace', slug, '--ignore-not-found', '-o', 'name').trim(),
    kubectl(operator, '-n', 'argocd', 'get', 'application', slug, '--ignore-not-found', '-o', 'name').trim(),
    git(operator, 'ls-tree', '--name-only', 'main', `gitops/apps/${slug}`).trim(),
    ...records.flatMap(({ name }) => (name.startsWith(`${customer}.app.`) ? [`record ${name}`] : [])),
    ...server.map(({ name }) => name),
    ...(existsSync(join(operator.kept, 'secrets', `${customer}.json`)) ? ['file of secrets'] : []),
  ].filter(Boolean)
}

const keptOf = async (operator: Operator, customer: string): Promise<string[]> =>
  (
    await sql<{ datname: string }>(
      operator,
      'defaultdb',
      `SELECT datname FROM pg_database WHERE datname LIKE 'removed_${customer}_%' ORDER BY 1`,
    )
  ).map(({ datname }) => datname)

const answers = async (operator: Operator, customer: string) =>
  assert.equal(await ask(operator, customer, '/v1/version'), { status: 200, body: { version: FIRST_RELEASE } })

test.before(async (context) => {
  context.operator = await startFullOperator()
  await addWithUser(context.operator, 'stays')
})
test.after(async ({ operator }) => operator?.down())

test('--plan shows all of it, and writes nothing', async ({ operator }) => {
  // What people have made there is told; the chart's own and what is backed up is not.
  kubectl(operator, '-n', 'customer-stays', 'create', 'secret', 'generic', 'vault', '--from-literal=KEY=value')
  const before = await everything(operator)
  const resources = () => kubectl(operator, '-n', 'customer-stays', 'get', 'deployments,secrets', '-o', 'yaml')
  const onCluster = resources()
  const { code, stdout } = await run(operator, 'remove-customer', 'stays', '--plan', '--delete-data')
  assert.is(code, 2, stdout)
  assert.match(stdout, /no backup has what goes with namespace customer-stays: the Secrets vault$/m)
  for (const line of [
    'delete cloudflare_dns_record.customer["stays"]',
    'remove gitops/apps/customer-stays, and push',
    'delete Application customer-stays in argocd',
    'stop deployment.apps/app',
    'ALTER ROLE "customer_stays" NOLOGIN',
    'delete Namespace customer-stays, with all that is in it',
    'rename customer_stays to removed_stays_TIME',
    'DROP ROLE "customer_stays"',
    'DROP DATABASE customer_stays',
  ])
    assert.match(stdout, line)
  assert.equal(await everything(operator), before)
  assert.is(resources(), onCluster)
})

test('all of it is gone but its data, which is kept; the other still answers; a second run changes nothing', async ({
  operator,
}) => {
  await addWithUser(operator, 'acme')
  const started = Date.now()
  await must(operator, 'remove-customer', 'acme', '--yes')
  console.log(`removed in ${((Date.now() - started) / 1000).toFixed(0)} s`)
  assert.equal(await leftOf(operator, 'acme'), [])
  assert.match(await must(operator, 'remove-customer', 'acme', '--yes'), '11 ok, 0 changed')
  const answered = await ask(operator, 'acme', '/v1/version').catch(() => undefined)
  assert.is(answered, undefined)
  const [kept = '', ...others] = await keptOf(operator, 'acme')
  assert.equal(others, [])
  assert.equal(await sql(operator, kept, 'SELECT email FROM users'), [{ email: 'someone@acme.test' }])
  const [final = ''] = await folders(operator, 'database/acme')
  assert.is((await manifest(operator, final)).database?.rows['public.users'], 1)
  assert.is((await folders(operator, 'secrets/acme')).length, 1)
  await answers(operator, 'stays')
  // Whoever adds a customer lets Argo CD look at all folders: it makes no Application of the one that is gone.
  await must(operator, 'add-customer', 'stays')
  await must(operator, 'add-customer', 'next')
  assert.equal(await leftOf(operator, 'acme'), [])
  await must(operator, 'backup')
  assert.match(await must(operator, 'prune'), /secrets\/acme has the backups that are to be kept/)
  assert.is((await folders(operator, 'database/acme')).length, 1)
})

test('added again it is empty and works; a restore brings the users back', async ({ operator }) => {
  await must(operator, 'add-customer', 'acme')
  await answers(operator, 'acme')
  assert.is(await signIn(operator, 'acme'), 401)
  await must(operator, 'restore', 'acme', '--swap', '--yes')
  assert.is(await signIn(operator, 'acme'), 201)
})

test('its secrets restored first, nobody is even signed out', async ({ operator }) => {
  const token = await addWithUser(operator, 'beta')
  const SMTP_PASSWORD = Buffer.from('correct horse battery').toString('base64')
  const patch = JSON.stringify({ data: { SMTP_PASSWORD } })
  const inBeta = ['-n', 'customer-beta']
  kubectl(operator, ...inBeta, 'patch', 'secret', 'customer-beta', `--patch=${patch}`)
  await must(operator, 'remove-customer', 'beta', '--yes', '--delete-data')
  assert.equal(await leftOf(operator, 'beta'), [])
  assert.equal(await keptOf(operator, 'beta'), [])
  await must(operator, 'restore', 'beta', '--until', 'secrets of beta')
  await must(operator, 'add-customer', 'beta')
  await must(operator, 'restore', 'beta', '--swap', '--yes')
  assert.is((await ask(operator, 'beta', '/v1/me', { token })).status, 200)
  assert.is(await signIn(operator, 'beta'), 201)
  const { data } = JSON.parse(kubectl(operator, ...inBeta, 'get', 'secret', 'customer-beta', '-o', 'json'))
  assert.is(data.SMTP_PASSWORD, SMTP_PASSWORD)
})

test('killed at every step it is finished by the next run', async ({ operator }) => {
  const args = ['beta', '--yes', '--delete-data']
  const steps = await stepsOf(operator, 'remove-customer', ...args)
  const { kills, begun } = await killedAtEveryStep(operator, 'remove-customer', ...args)
  console.log(`remove-customer was killed ${kills} times`)
  const others = steps.filter((step) => !/^no copy of/.test(step)) // the cluster has had them
  assert.equal([...begun].sort(), others.sort())
  assert.ok(kills > others.length, `${kills} kills`)
  await convergedAfter(operator, 'remove-customer', ...args)
  assert.equal(await leftOf(operator, 'beta'), [])
  assert.equal(await keptOf(operator, 'beta'), [])
  const finals = await folders(operator, 'database/beta')
  assert.is((await manifest(operator, finals.at(-1) ?? '')).database?.rows['public.users'], 1)
  await answers(operator, 'stays')
})

test('one whose addition was killed is removed as well, wherever that was', async ({ operator }) => {
  const steps = await stepsOf(operator, 'add-customer', 'half')
  for (const step of steps.filter((title) => /^role .* exists|values.yaml|^Secret|^Argo CD/.test(title))) {
    await killAt(operator, (event) => event.event === 'step drifted' && event.step === step, 'add-customer', 'half')
    await must(operator, 'remove-customer', 'half', '--yes', '--delete-data')
    assert.equal(await leftOf(operator, 'half'), [], step)
    assert.match(await must(operator, 'remove-customer', 'half', '--yes', '--delete-data'), ' ok, 0 changed')
  }
})

test('where the final backup fails nothing is deleted: it can be taken back, and gone on with', async ({
  operator,
}) => {
  await must(operator, 'add-customer', 'next')
  await plant(operator, { api: 'spaces', method: 'PUT', path: '/database/next/' }, { status: 403 })
  const failed = await run(operator, 'remove-customer', 'next', '--yes', '--delete-data', '--json').finally(() =>
    clearFaults(operator),
  )
  assert.is(failed.code, 1)
  const statuses = statusesOf(failed)
  assert.is(statuses['database customer_next has its final backup'], 'failed')
  assert.is(statuses['namespace customer-next is gone'], 'not run')
  const left = await leftOf(operator, 'next')
  for (const one of ['namespace/customer-next', 'role customer_next', 'database customer_next'])
    assert.ok(left.includes(one), left.join())
  // It may even be taken back.
  await must(operator, 'add-customer', 'next')
  await answers(operator, 'next')
  await must(operator, 'remove-customer', 'next', '--yes', '--delete-data')
  assert.equal(await leftOf(operator, 'next'), [])
  await answers(operator, 'stays')
})

test('where Argo CD does not look at the repository nothing on the cluster is touched', async ({ operator }) => {
  await must(operator, 'add-customer', 'deaf')
  const controller = 'argocd-applicationset-controller'
  const scale = (replicas: number) =>
    kubectl(operator, '-n', 'argocd', 'scale', `deployment/${controller}`, `--replicas=${replicas}`)
  scale(0)
  const pods = ['pod', '--selector', `app.kubernetes.io/name=${controller}`]
  kubectl(operator, '-n', 'argocd', 'wait', ...pods, '--for=delete', '--timeout=60s')
  try {
    const { code, stdout } = await run(operator, 'remove-customer', 'deaf', '--yes')
    assert.is(code, 1)
    assert.match(stdout, 'Argo CD has not looked at the repository for 120 s')
    assert.match(stdout, 'next: kubectl -n argocd describe applicationset customers')
    const left = await leftOf(operator, 'deaf')
    for (const one of ['namespace/customer-deaf', 'application.argoproj.io/customer-deaf', 'database customer_deaf'])
      assert.ok(left.includes(one), left.join())
  } finally {
    scale(1)
  }
  await must(operator, 'remove-customer', 'deaf', '--yes')
  assert.equal(await leftOf(operator, 'deaf'), [])
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
