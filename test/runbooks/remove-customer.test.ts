// remove-customer against a rehearsed cloud, as far as it goes without a cluster: who may remove whom, the name in DNS, the
// folder, and the guard.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withoutCluster } from '../../rehearsal/extent.ts'
import { listByHand } from './bucket.ts'
import {
  callsDuring,
  clearFaults,
  commitByHand,
  digitalocean,
  everything,
  git,
  must,
  type Operator,
  objects,
  plant,
  run,
  sql,
  startOperator,
} from './operator.ts'

/** One rehearsal for all: bootstrapped once, and every test has customers of its own. */
const test = suite<{ operator: Operator }>('remove-customer')
test.before(async (context) => {
  context.operator = await startOperator()
  await must(context.operator, 'bootstrap', '--yes')
  await must(context.operator, 'add-customer', 'stays')
})
test.after(({ operator }) => operator.down())

const recordsOf = async (operator: Operator) =>
  (await objects(operator)).cloudflare.dns_records.flatMap(
    ({ name }) => /^(.+)\.app\.(?!.*\.app)/.exec(name)?.[1] ?? [],
  )

const foldersOf = (operator: Operator) =>
  git(operator, 'ls-tree', '--name-only', 'main', 'gitops/apps/')
    .split('\n')
    .flatMap((path) => /customer-(.+)$/.exec(path)?.[1] ?? [])

/** @returns where the customer still is */
const placesOf = async (operator: Operator, customer: string) => ({
  record: (await recordsOf(operator)).includes(customer),
  folder: foldersOf(operator).includes(customer),
  role: (await sql(operator, 'defaultdb', `SELECT FROM pg_roles WHERE rolname = 'customer_${customer}'`)).length === 1,
})
const EVERYWHERE = { record: true, folder: true, role: true }

/** Runs it on a terminal of its own, and types an answer to its question. @returns exit code and all that was shown */
function onTerminal(
  { env }: Operator,
  customer: string,
  answer: string,
): Promise<{ code: number | null; shown: string }> {
  const words = ['runbooks/remove-customer.mts', customer, ...withoutCluster('remove-customer').map((it) => `'${it}'`)]
  const child: ChildProcess = spawn('script', ['-qec', words.join(' '), '/dev/null'], {
    env: { ...env, TERM: 'xterm' },
  })
  let shown = ''
  return new Promise((resolve, reject) => {
    child.stdout?.on('data', (chunk) => {
      const asked = shown.includes('Type its name')
      shown += chunk
      if (!asked && shown.includes('Type its name')) child.stdin?.write(`${answer}\n`)
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, shown }))
  })
}

test('a file of another customer that is broken is told by name, and nothing is touched', async ({ operator }) => {
  await must(operator, 'add-customer', 'beside')
  const undo = commitByHand(operator, (clone) =>
    writeFileSync(join(clone, 'gitops', 'apps', 'customer-stays', 'values.yaml'), 'customer: [\n'),
  )
  const { code, stdout } = await run(operator, 'remove-customer', 'beside', '--yes')
  undo()
  assert.is(code, 64, stdout)
  assert.match(stdout, 'gitops/apps/customer-stays/values.yaml is not valid YAML')
  assert.equal(await placesOf(operator, 'beside'), EVERYWHERE)
  // Its own is in nobody's way.
  commitByHand(operator, (clone) =>
    writeFileSync(join(clone, 'gitops', 'apps', 'customer-beside', 'values.yaml'), 'customer: [\n'),
  )
  await must(operator, 'remove-customer', 'beside', '--yes')
  assert.not.ok((await placesOf(operator, 'beside')).record)
})

test('the name goes from DNS and the folder from the repository, and nobody else’s; a second run changes nothing', async ({
  operator,
}) => {
  await must(operator, 'add-customer', 'goes')
  assert.equal(await placesOf(operator, 'goes'), EVERYWHERE)
  const before = git(operator, 'rev-parse', 'main').trim()
  assert.match(await must(operator, 'remove-customer', 'goes', '--yes'), '2 steps: 2 changed')
  assert.equal(await placesOf(operator, 'goes'), { record: false, folder: false, role: true })
  assert.equal(await placesOf(operator, 'stays'), EVERYWHERE)
  const changed = git(operator, 'diff', '--name-status', before, 'main').trim()
  assert.is(changed, 'D\tgitops/apps/customer-goes/values.yaml')
  assert.is(git(operator, 'log', '-1', '--format=%s', 'main').trim(), 'Remove customer goes')
  const after = await objects(operator)
  assert.match(await must(operator, 'remove-customer', 'goes', '--yes'), '2 steps: 2 ok, 0 changed')
  assert.equal(await objects(operator), after)
  assert.match(await must(operator, 'add-customer', 'stays'), '7 ok, 0 changed')
})

test('where nobody can be asked it wants --yes, and touches nothing', async ({ operator }) => {
  const before = await objects(operator)
  const { code, stderr } = await run(operator, 'remove-customer', 'stays')
  assert.is(code, 64)
  assert.match(stderr, 'stays is removed, and its data kept')
  assert.match(stderr, 'expected --yes')
  assert.match((await run(operator, 'remove-customer', 'stays', '--delete-data')).stderr, 'and its data deleted')
  assert.equal(await objects(operator), before)
  assert.equal(await placesOf(operator, 'stays'), EVERYWHERE)
})

test('a person types the name again: another one, or yes, does nothing', async ({ operator }) => {
  await must(operator, 'add-customer', 'typed')
  for (const answer of ['stays', 'yes', 'Typed', '']) {
    const { code, shown } = await onTerminal(operator, 'typed', answer)
    assert.is(code, 1, shown)
    assert.match(shown, 'what was typed is not typed, so nothing was done')
    assert.equal(await placesOf(operator, 'typed'), EVERYWHERE)
  }
  const { code, shown } = await onTerminal(operator, 'typed', 'typed')
  assert.is(code, 0, shown)
  assert.equal(await placesOf(operator, 'typed'), { record: false, folder: false, role: true })
})

test('who never was a customer cannot be removed', async ({ operator }) => {
  const before = await objects(operator)
  const { code, stdout } = await run(operator, 'remove-customer', 'nobody', '--yes')
  assert.is(code, 1)
  assert.match(stdout, 'there is no customer nobody, nor anything that is left of one')
  assert.match(stdout, 'next: ./runbooks/list-customers.mts')
  assert.is((await run(operator, 'remove-customer', 'Nobody')).code, 64)
  assert.equal(await objects(operator), before)
})

test('--plan shows what would go, and writes nothing', async ({ operator }) => {
  const before = await everything(operator)
  const { calls, writes } = await callsDuring(operator, async () => {
    const { code, stdout } = await run(operator, 'remove-customer', 'stays', '--plan')
    assert.is(code, 2, stdout)
    assert.match(stdout, 'delete cloudflare_dns_record.customer["stays"]')
    assert.match(stdout, 'remove gitops/apps/customer-stays, and push')
  })
  assert.ok(calls.length > 0)
  assert.equal(writes, [])
  assert.equal(await everything(operator), before)
})

test('of one that is only half added goes what there is', async ({ operator }) => {
  mkdirSync(join(operator.kept, 'secrets'), { recursive: true })
  await must(operator, 'add-customer', 'begun', '--until', 'secrets of begun')
  assert.match(await must(operator, 'remove-customer', 'begun', '--yes'), '2 steps: 2 ok, 0 changed')
  await must(operator, 'add-customer', 'pushed', '--until', 'is in the repository')
  assert.equal(await placesOf(operator, 'pushed'), { record: false, folder: true, role: true })
  assert.match(await must(operator, 'remove-customer', 'pushed', '--yes'), '2 steps: 1 ok, 1 changed')
  assert.not.ok(foldersOf(operator).includes('pushed'))
})

test('of two that are half added either can be removed', async ({ operator }) => {
  listByHand(operator, 'left')
  listByHand(operator, 'right')
  await must(operator, 'remove-customer', 'left', '--yes')
  await must(operator, 'remove-customer', 'right', '--yes')
  for (const name of ['left', 'right'])
    assert.equal(await placesOf(operator, name), { record: false, folder: false, role: false }, name)
})

test('one whose folder somebody removed by hand: the others are told, and it is finished', async ({ operator }) => {
  await must(operator, 'add-customer', 'byhand')
  commitByHand(operator, (clone) => rmSync(join(clone, 'gitops', 'apps', 'customer-byhand'), { recursive: true }))
  const { code, stdout } = await run(operator, 'add-customer', 'stays')
  assert.is(code, 1)
  assert.match(stdout, 'but by ./runbooks/remove-customer.mts byhand')
  assert.match(await must(operator, 'remove-customer', 'byhand', '--yes'), '2 steps: 1 ok, 1 changed')
  assert.equal(await placesOf(operator, 'byhand'), { record: false, folder: false, role: true })
  await must(operator, 'add-customer', 'stays')
})

test('a repository that refuses the push: told, and the next run finishes it', async ({ operator }) => {
  await must(operator, 'add-customer', 'refused')
  const hook = join(operator.repository, 'hooks', 'pre-receive')
  writeFileSync(hook, '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  try {
    const { code, stdout } = await run(operator, 'remove-customer', 'refused', '--yes')
    assert.is(code, 1)
    assert.match(stdout, 'the push of gitops/apps/customer-refused was refused 8 times')
  } finally {
    rmSync(hook)
  }
  await must(operator, 'remove-customer', 'refused', '--yes')
  assert.equal(await placesOf(operator, 'refused'), { record: false, folder: false, role: true })
})

test('Spaces out of reach, or Postgres: nothing is begun', async ({ operator }) => {
  await plant(operator, { api: 'spaces' }, { status: 503 })
  try {
    const { code } = await run(operator, 'remove-customer', 'stays', '--yes', '--delete-data')
    assert.is(code, 1)
  } finally {
    await clearFaults(operator)
  }
  const elsewhere = { ...operator, env: { ...operator.env, PGHOSTADDR: '127.0.0.254' } }
  const { code, stdout } = await run(elsewhere, 'remove-customer', 'stays', '--yes')
  assert.is(code, 1)
  assert.match(stdout, /Postgres at .* does not answer/)
  assert.equal(await placesOf(operator, 'stays'), EVERYWHERE)
})

test('a drift that is not the customer’s is refused with the list before anything is touched', async ({ operator }) => {
  const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as {
    databases: { id: string; name: string }[]
  }
  const { id } = databases.find(({ name }) => name === 'lunarfront-postgres')!
  await digitalocean(operator, 'PUT', `/v2/databases/${id}/resize`, { size: 'db-s-1vcpu-2gb', num_nodes: 1 })
  const { code, stdout } = await run(operator, 'remove-customer', 'stays', '--yes')
  assert.is(code, 1)
  assert.match(
    stdout,
    'Terraform’s plan would touch what remove-customer may not: update digitalocean_database_cluster.postgres (size',
  )
  assert.equal(await placesOf(operator, 'stays'), EVERYWHERE)
  assert.equal(
    readdirSync(operator.kept).filter((name) => name.startsWith('scratch-')),
    [],
  )
})

test.run()
