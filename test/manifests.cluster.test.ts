// What the charts render, held against the API server of the Kubernetes version in use: it knows every field, and refuses
// what it does not know.
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseAllDocuments } from 'yaml'
import { ROOT } from '../lib/site.ts'
import { clusterObstacle } from '../rehearsal/tools/cluster.ts'
import { thisMachine } from '../rehearsal/tools/machine.ts'
import { startFullOperator } from './runbooks/full.ts'
import type { Operator } from './runbooks/operator.ts'

const GOLDEN = join(ROOT, 'test', 'golden', 'chart')

const test = suite<{ operator: Operator }>('manifests')
test.before(async (context) => {
  context.operator = await startFullOperator()
})
test.after(async ({ operator }) => operator?.down())

/** @param input manifests */
async function kubectl({ env, kept }: Operator, args: string[], input = '') {
  const child = promisify(execFile)('kubectl', [`--kubeconfig=${join(kept, 'kubeconfig')}`, ...args], { env })
  child.child.stdin?.end(input)
  return child
}

const namespace = (name: string) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name,
      labels: { 'pod-security.kubernetes.io/enforce': 'restricted', 'pod-security.kubernetes.io/warn': 'restricted' },
    },
  })

const VALIDATED = ['apply', '--dry-run=server', '--validate=strict', '--filename=-']

/** @returns how many objects the server takes; throws its words where it does not */
async function validated(operator: Operator, manifests: object[]): Promise<number> {
  const { stdout, stderr } = await kubectl(
    operator,
    VALIDATED,
    manifests.map((one) => JSON.stringify(one)).join('\n---\n'),
  )
  assert.not.match(stderr, /would violate|unknown field/i)
  return stdout.trim().split('\n').length
}

for (const file of readdirSync(GOLDEN))
  test(`${file}: the server takes every object, and the pods are restricted ones`, async ({ operator }) => {
    const documents = parseAllDocuments(readFileSync(join(GOLDEN, file), 'utf8')).map((one) => one.toJS())
    const objects = documents.filter((one): one is { metadata: { namespace?: string } } => one !== null)
    const name = 'customer-golden'
    await kubectl(operator, ['apply', '-f', '-'], namespace(name))
    for (const { metadata } of objects) metadata.namespace = name
    assert.is(await validated(operator, objects), objects.length)
  })

test('a field that Kubernetes does not know is refused, so that this can fail', async ({ operator }) => {
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x', namespace: 'default' }, dta: {} }
  const said = await validated(operator, [object]).catch(({ stderr }: { stderr: string }) => stderr)
  assert.match(String(said), /unknown field "dta"/)
})

test('the platform’s chart: the server takes every object of it', async ({ operator }) => {
  const values = [
    ...['domain=lunarfront.test', 'repository=ssh://git@git-ssh.lunarfront.test:2222/x.git', 'loadBalancer=x'],
    ...['backups.image=registry.lunarfront.test/x:1', 'backups.shards=3', 'backups.drill=true'],
  ]
  const chart = join(ROOT, 'gitops', 'platform', 'chart')
  const args = ['template', 'platform', chart, ...values.flatMap((value) => ['--set', value])]
  const { stdout } = await promisify(execFile)('helm', args, { env: operator.env })
  const objects = parseAllDocuments(stdout)
    .map((one) => one.toJS())
    .filter((one) => one !== null)
  assert.ok(objects.length >= 15)
  assert.is(await validated(operator, objects), objects.length)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
