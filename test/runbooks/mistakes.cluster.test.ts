// Mistakes in the repository and on the cluster that must not cost a customer its instance, its namespace or its data.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { ask, kubectl, startFullOperator } from './full.ts'
import { applicationsOf, assertUnharmed, belongingsOf, looked, until } from './instances.ts'
import { commitByHand, must, type Operator } from './operator.ts'

type Context = { operator: Operator; before: Record<string, string[]> }

const CUSTOMERS = ['acme', 'beta']
const APPS = 'gitops/apps'
const SET = 'gitops/platform/chart/templates/customers.yaml'

const test = suite<Context>('mistakes')

test.before(async (context) => {
  context.operator = await startFullOperator()
  context.before = {}
  for (const customer of CUSTOMERS) {
    await must(context.operator, 'add-customer', customer, '--yes')
    const body = { email: `someone@${customer}.test`, password: `correct horse ${customer}` }
    assert.is((await ask(context.operator, customer, '/v1/users', { body })).status, 201)
    context.before[customer] = belongingsOf(context.operator, customer)
  }
})
test.after(async ({ operator }) => operator?.down())

const everybodyUnharmed = async ({ operator, before }: Context, why: string) => {
  for (const customer of CUSTOMERS) await assertUnharmed(operator, customer, before[customer] ?? [], why)
}

/** Commits the mistake, looks at what has become of everybody, and takes it back. */
async function mistaken(context: Context, why: string, change: (clone: string) => void, meanwhile = () => {}) {
  const { operator } = context
  const undo = commitByHand(operator, change)
  try {
    await looked(operator)
    meanwhile()
    await everybodyUnharmed(context, why)
  } finally {
    undo()
  }
  await looked(operator)
  await everybodyUnharmed(context, `${why}, and taken back`)
}

const edit = (clone: string, path: string, change: (text: string) => string) => {
  const file = join(clone, path)
  const [before, after] = [readFileSync(file, 'utf8'), change(readFileSync(file, 'utf8'))]
  assert.is.not(after, before, `nothing in ${path} was changed`)
  writeFileSync(file, after)
}

test('a customer’s folder is removed', (context) =>
  mistaken(context, 'no folder', (clone) => rmSync(join(clone, APPS, 'customer-acme'), { recursive: true })))

test('all folders are removed', (context) =>
  mistaken(context, 'no folders', (clone) => rmSync(join(clone, APPS), { recursive: true })))

test('a customer’s folder gets another name', (context) =>
  mistaken(
    context,
    'another folder',
    (clone) => renameSync(join(clone, APPS, 'customer-acme'), join(clone, APPS, 'customer-zenith')),
    () => {
      const zenith = applicationsOf(context.operator).find(({ metadata }) => metadata.name === 'customer-zenith')
      assert.match(zenith?.status?.conditions?.[0]?.message ?? '', /values are those of customer acme/)
    },
  ))

test('a values file is no YAML, and has a key that nobody knows', async (context) => {
  const path = `${APPS}/customer-acme/values.yaml`
  await mistaken(context, 'no YAML', (clone) => edit(clone, path, (text) => `${text}\n  : [`))
  await mistaken(context, 'unknown key', (clone) => edit(clone, path, (text) => `${text}\nreplica: 0\n`))
})

test('a customer’s file says that it is somebody else’s', (context) =>
  mistaken(context, 'beta’s name in acme’s folder', (clone) =>
    edit(clone, `${APPS}/customer-acme/values.yaml`, (text) => text.replace(/^customer: .*$/m, 'customer: beta')),
  ))

test('the chart puts something into another namespace, and something that is nobody’s', (context) =>
  mistaken(
    context,
    'another namespace',
    (clone) => {
      const object = (kind: string, place: string) =>
        `apiVersion: v1\nkind: ${kind}\nmetadata: { name: mistake${place} }\n---\n`
      writeFileSync(
        join(clone, 'gitops/chart/templates/mistake.yaml'),
        object('Secret', ', namespace: default') + object('Namespace', ''),
      )
    },
    () => {
      const found = ['secret/mistake', 'namespace/mistake'].map((name) =>
        kubectl(context.operator, 'get', name, '--namespace=default', '--ignore-not-found', '-o', 'name'),
      )
      assert.equal(found, ['', ''])
    },
  ))

test('the ApplicationSet looks at a folder that is not there', (context) =>
  mistaken(context, 'another path', (clone) =>
    edit(clone, SET, (text) => text.replace('path: gitops/apps/customer-*', 'path: gitops/customers/customer-*')),
  ))

test('the ApplicationSet is not in the repository any more', (context) =>
  mistaken(context, 'no ApplicationSet', (clone) => edit(clone, SET, (text) => text.slice(0, text.lastIndexOf('---')))))

test('the ApplicationSet is deleted by hand: Argo CD makes it again, and its Applications', async (context) => {
  const { operator } = context
  kubectl(operator, 'delete', 'applicationset', 'customers', '--namespace=argocd', '--wait=true')
  await everybodyUnharmed(context, 'deleted')
  await until('they are there again', 120, () => {
    const names = applicationsOf(operator).map(({ metadata }) => metadata.name)
    return CUSTOMERS.every((customer) => names.includes(`customer-${customer}`))
  })
  await looked(operator)
  await everybodyUnharmed(context, 'made again')
})

test('every Application is deleted by hand: what they have made stays, and the next bootstrap brings them back', async (context) => {
  const { operator } = context
  kubectl(operator, 'delete', 'applications', '--all', '--namespace=argocd', '--wait=true')
  await everybodyUnharmed(context, 'deleted')
  await must(operator, 'bootstrap', '--yes')
  for (const customer of CUSTOMERS) await must(operator, 'add-customer', customer, '--yes')
  await everybodyUnharmed(context, 'brought back')
  assert.match(await must(operator, 'bootstrap', '--yes'), / ok, 0 changed/)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
