// A runbook killed at any step, and run again: it ends converged, with nothing doubled and no lock to clear. The steps
// come from the runbook itself, so a new one is covered the day it is written.
import { setTimeout as sleep } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withPostgres } from '../../lib/postgres.ts'
import { convergedAfter, killAt, lingers } from './kill.ts'
import {
  administrator,
  clearFaults,
  digitalocean,
  git,
  must,
  type Operator,
  objects,
  plant,
  run,
  start,
  startOperator,
  stepsOf,
  terraformOf,
} from './operator.ts'

const test = suite('kill -9')

/** Differs only after another run was killed, so no other run can be killed within it. */
const NOTHING_TO_APPLY = 'no resource was left half made'

/** Waits until all of them have been asked for, ready or not. */
async function threeDatabases(operator: Operator): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(20)) {
    const { databases } = (await digitalocean(operator, 'GET', '/v2/databases')) as { databases: unknown[] }
    if (databases.length === 3) return
  }
  throw new Error('there never were three databases')
}

/** What must not be doubled, by its name. */
async function inventory(operator: Operator): Promise<string[]> {
  const { digitalocean, cloudflare } = await objects(operator)
  const lines = [
    ...Object.entries(digitalocean).flatMap(([kind, list]) =>
      Array.isArray(list) ? list.map(({ name }) => `${kind} ${name}`) : [],
    ),
    ...(digitalocean.databases ?? []).flatMap(({ name, databases = [], users = [] }) => [
      ...databases.map((database) => `database ${name}/${database}`),
      ...users.map((user) => `role ${name}/${user}`),
    ]),
    ...cloudflare.dns_records.map(({ name, type }) => `record ${name} ${type}`),
  ]
  return lines.map((line) => line.replace(/^droplets workers-.*/, 'droplets workers')).sort() // nodes have random names
}

test('bootstrap, after each step and within each', async () => {
  const model = await startOperator()
  const steps = await stepsOf(model, 'bootstrap')
  await must(model, 'bootstrap', '--yes')
  const expected = await inventory(model)
  await model.down()
  assert.ok(steps.length >= 5)
  for (const [index, step] of steps.entries())
    for (const moment of ['finished', 'drifted'] as const) {
      const operator = await startOperator()
      try {
        // The repository's place differs from rehearsal to rehearsal, and so does that step's title.
        const [title] = (await stepsOf(operator, 'bootstrap')).slice(index)
        if (index === steps.length - 1) await lingers(operator)
        const killed = await killAt(
          operator,
          (event) => 'step' in event && event.event === `step ${moment}` && event.step === title,
          'bootstrap',
          '--yes',
        )
        assert.is(killed, moment === 'finished' || title !== NOTHING_TO_APPLY, `never came to: ${step} ${moment}`)
        await clearFaults(operator)
        await convergedAfter(operator, 'bootstrap', '--yes')
        assert.equal(await inventory(operator), expected, `killed when ${step} ${moment}`)
      } finally {
        await operator.down()
      }
    }
})

test('bootstrap, while Terraform makes things: it is waited for, and nothing is made twice', async () => {
  const operator = await startOperator()
  try {
    const killed = await killAt(
      operator,
      (event) => event.event === 'step waiting' && event.for.includes('digitalocean_database_cluster.postgres'),
      'bootstrap',
      '--yes',
    )
    assert.ok(killed)
    await convergedAfter(operator, 'bootstrap', '--yes')
    const names = (await objects(operator)).digitalocean.databases?.map(({ name }) => name)
    assert.is(names?.length, 3, String(names))
  } finally {
    await operator.down()
  }
})

test('bootstrap and its Terraform, while databases are made: the next run takes what it finds', async () => {
  const operator = await startOperator()
  try {
    await plant(operator, { ready_after_ms: 3000 })
    const started = start(operator, 'bootstrap', '--yes', '--json')
    await threeDatabases(operator)
    const terraform = terraformOf(operator)
    started.child.kill('SIGKILL')
    process.kill(terraform, 'SIGKILL')
    await started.ended
    await clearFaults(operator)
    const second = await run(operator, 'bootstrap', '--yes')
    assert.is(second.code, 0, second.stdout)
    assert.match(second.stdout, /import digitalocean_database_cluster.postgres/)
    await convergedAfter(operator, 'bootstrap', '--yes')
    const { databases, droplets } = (await objects(operator)).digitalocean
    assert.is(databases?.length, 3, 'a database was made twice')
    assert.is(droplets?.filter(({ name }) => name === 'lunarfront-gitea').length, 1, 'the droplet was made twice')
  } finally {
    await operator.down()
  }
})

test('add-customer, after each step and within each', async () => {
  const operator = await startOperator({ connections_per_customer: 2 })
  try {
    await must(operator, 'bootstrap', '--yes')
    const steps = await stepsOf(operator, 'add-customer', 'model')
    assert.ok(steps.length >= 7)
    for (const [index, step] of steps.entries())
      for (const moment of ['finished', 'drifted'] as const) {
        const name = `${moment}-${index}`
        const title = step.replaceAll('model', name).replaceAll(`customer_${name}`, `customer_${moment}_${index}`)
        // The first customer has closed it for all; open, that step differs again.
        await withPostgres(await administrator(operator), (client) =>
          client.query('GRANT CONNECT ON DATABASE defaultdb TO PUBLIC'),
        )
        if (index === steps.length - 1) await lingers(operator)
        const killed = await killAt(
          operator,
          (event) => 'step' in event && event.event === `step ${moment}` && event.step === title,
          'add-customer',
          name,
        )
        await clearFaults(operator)
        assert.ok(killed, `never came to: ${title} ${moment}`)
        await convergedAfter(operator, 'add-customer', name)
        const made = (await inventory(operator)).filter(
          (line) => line.includes(name) || line.includes(`${moment}_${index}`),
        )
        assert.is(made.length, 3, `${title} ${moment}: ${made}`) // role, database, record
        assert.is(git(operator, 'log', '--oneline', '--', `gitops/apps/customer-${name}`).trim().split('\n').length, 1)
      }
    const { code, stdout } = await run(operator, 'bootstrap')
    assert.is(code, 0, stdout)
  } finally {
    await operator.down()
  }
})

test.run()
