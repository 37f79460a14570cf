// Mistakes in the repository and on the cluster that must not cost a customer its instance, its namespace or its data.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { ask, kubectl, startFullOperator } from './full.ts'
import { applicationsOf, assertUnharmed, belongingsOf, looked, toldOf, until } from './instances.ts'
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

/**
 * Commits the mistake, looks at what has become of everybody, and takes it back.
 *
 * @param arrived throws unless the mistake has come to where it could do harm; or what Argo CD has to say of acme then
 */
async function mistaken(
  context: Context,
  why: string,
  change: (clone: string) => void,
  arrived: RegExp | (() => void),
) {
  const { operator } = context
  const undo = commitByHand(operator, change)
  try {
    await looked(operator)
    if (arrived instanceof RegExp) assert.match(toldOf(operator, 'acme'), arrived, why)
    else arrived()
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

const NO_FILE = /customer-acme\/values\.yaml: no such file/

test('a customer’s folder is removed', (context) =>
  mistaken(context, 'no folder', (clone) => rmSync(join(clone, APPS, 'customer-acme'), { recursive: true }), NO_FILE))

test('all folders are removed', (context) =>
  mistaken(context, 'no folders', (clone) => rmSync(join(clone, APPS), { recursive: true }), NO_FILE))

test('a customer’s folder gets another name', (context) =>
  mistaken(
    context,
    'another folder',
    (clone) => renameSync(join(clone, APPS, 'customer-acme'), join(clone, APPS, 'customer-zenith')),
    () => assert.match(toldOf(context.operator, 'zenith'), /values are those of customer acme/),
  ))

const VALUES = `${APPS}/customer-acme/values.yaml`

test('a values file is no YAML', (context) =>
  mistaken(context, 'no YAML', (clone) => edit(clone, VALUES, (text) => `${text}\n  : [`), /values\.yaml|yaml: /))

test('a values file has a key that nobody knows', (context) =>
  mistaken(
    context,
    'unknown key',
    (clone) => edit(clone, VALUES, (text) => `${text}\nreplica: 0\n`),
    /additional properties 'replica' not allowed/,
  ))

test('a customer’s file says that it is somebody else’s', (context) =>
  mistaken(
    context,
    'beta’s name in acme’s folder',
    (clone) => edit(clone, VALUES, (text) => text.replace(/^customer: .*$/m, 'customer: beta')),
    /values are those of customer beta/,
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
      assert.match(toldOf(context.operator, 'acme'), /not permitted in project/)
      const found = ['secret/mistake', 'namespace/mistake'].map((name) =>
        kubectl(context.operator, 'get', name, '--namespace=default', '--ignore-not-found', '-o', 'name'),
      )
      assert.equal(found, ['', ''])
    },
  ))

/** @returns an object in argocd, as it is on the cluster, or as that path of it */
const inArgocd = ({ operator }: Context, name: string, path?: string) =>
  kubectl(operator, 'get', name, '--namespace=argocd', '-o', path ? `jsonpath=${path}` : 'name').trim()

test('the ApplicationSet looks at a folder that is not there', (context) =>
  mistaken(
    context,
    'another path',
    (clone) =>
      edit(clone, SET, (text) => text.replace('path: gitops/apps/customer-*', 'path: gitops/customers/customer-*')),
    () => {
      const path = inArgocd(context, 'applicationset/customers', '{.spec.generators[0].git.files[0].path}')
      assert.is(path, 'gitops/customers/customer-*/values.yaml')
    },
  ))

test('the ApplicationSet is not in the repository any more', (context) =>
  mistaken(
    context,
    'no ApplicationSet',
    (clone) => edit(clone, SET, (text) => text.slice(0, text.lastIndexOf('---'))),
    () => {
      assert.is(inArgocd(context, 'application/platform', '{.status.sync.status}'), 'OutOfSync')
      assert.is(inArgocd(context, 'applicationset/customers'), 'applicationset.argoproj.io/customers')
    },
  ))

test('the backup schedule is not in the repository any more: its namespace stays, with what was put there', (context) => {
  const secret = () =>
    kubectl(context.operator, 'get', 'secret/backups', '--namespace=backups', '-o', 'jsonpath={.metadata.uid}')
  const before = secret()
  return mistaken(
    context,
    'no schedule',
    (clone) => rmSync(join(clone, 'gitops/platform/chart/templates/backups.yaml')),
    () => {
      assert.is(kubectl(context.operator, 'get', 'cronjobs', '--namespace=backups', '-o', 'name'), '')
      assert.is(secret(), before)
    },
  )
})

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
