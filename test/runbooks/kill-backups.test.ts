// backup, restore, drill and prune killed at any of their steps, and run again: everything that was to be is there, once, and
// nothing is left of what was not finished. The steps come from the runbooks themselves.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { copyTo, eventually, everyManifestIsTrue, folders, keys, programsOf, remove, verified } from './bucket.ts'
import { convergedAfter, killAt, lingers } from './kill.ts'
import { clearFaults, must, type Operator, sql, startOperator, stepsOf } from './operator.ts'

/** One rehearsal for all, with two customers that have something to lose. */
const test = suite<{ operator: Operator }>('kill -9 of backups')
const WORDS = "CREATE TABLE words AS SELECT 'word ' || i AS word FROM generate_series(1, 1000) i"
test.before(async (context) => {
  const operator = await startOperator()
  context.operator = operator
  await must(operator, 'bootstrap', '--yes')
  for (const customer of ['acme', 'zenith']) {
    await must(operator, 'add-customer', customer)
    await sql(operator, `customer_${customer}`, `SET ROLE customer_${customer}`, WORDS)
  }
})
test.after(({ operator }) => operator.down())

type Loop = {
  runbook: string
  args: string[]
  /** where its lock lies */
  lock: string
  /** steps that are so already, and so cannot be killed within */
  settled?: RegExp
  /** makes everything due again */
  due: (operator: Operator) => Promise<void>
  /** what has to be so in the end */
  proven: (operator: Operator, when: string) => Promise<void>
}

const backUpAnew = async (operator: Operator) => {
  await remove(operator)
  await must(operator, 'backup')
}

const named = async (operator: Operator, beginning: string): Promise<string[]> => {
  const like = `SELECT datname FROM pg_database WHERE datname LIKE '${beginning}%'`
  return (await sql<{ datname: string }>(operator, 'defaultdb', like)).map(({ datname }) => datname)
}

const LOOPS: Loop[] = [
  {
    runbook: 'backup',
    args: [],
    lock: 'lock-backup-all',
    settled: /^gitops\/apps and the server agree/,
    due: (operator) => remove(operator),
    proven: async (operator, when) => {
      assert.is(Object.keys(await verified(operator)).length, 5, when)
      await everyManifestIsTrue(operator, when)
    },
  },
  {
    runbook: 'restore',
    args: ['acme', '--swap', '--yes'],
    lock: 'lock',
    settled: /^secrets of acme/,
    due: async (operator) => {
      await sql(operator, 'customer_acme', 'SET ROLE customer_acme', 'DROP TABLE words', WORDS)
      await backUpAnew(operator)
      await sql(operator, 'customer_acme', 'TRUNCATE words')
    },
    proven: async (operator, when) => {
      assert.is((await sql(operator, 'customer_acme', 'SELECT FROM words')).length, 1000, when)
      assert.equal(await named(operator, 'restored'), [], when)
      const [kept, ...more] = await named(operator, 'before')
      assert.ok(kept && more.length === 0, `${when}: ${[kept, ...more]}`)
      await sql(operator, 'defaultdb', `DROP DATABASE ${kept}`)
    },
  },
  {
    runbook: 'drill',
    args: [],
    lock: 'lock-drill',
    settled: /^gitops\/apps and the server agree/,
    due: backUpAnew,
    proven: async (operator, when) => {
      assert.is((await keys(operator, 'drills/')).length, 2, when)
      assert.equal(await named(operator, 'drill'), [], when)
    },
  },
  {
    runbook: 'prune',
    args: [],
    lock: 'lock-prune',
    due: async (operator) => {
      await backUpAnew(operator)
      for (const source of Object.keys(await verified(operator))) {
        const [folder = ''] = await folders(operator, source)
        // All of one day long ago, so that the minimum alone keeps any.
        for (const hour of ['01', '02', '03', '04'])
          await copyTo(operator, folder, new Date(`2025-01-01T${hour}:00:00.000Z`))
      }
    },
    proven: async (operator, when) => {
      assert.equal(Object.values(await verified(operator)), [3, 3, 3, 3, 3], when)
      await everyManifestIsTrue(operator, when)
    },
  },
]

for (const { runbook, args, lock, settled, due, proven } of LOOPS)
  test(`${runbook}, after each step and within each`, async ({ operator }) => {
    await due(operator)
    const count = (await stepsOf(operator, runbook, ...args)).length
    assert.ok(count >= 2)
    for (let index = 0; index < count; index++)
      for (const moment of ['finished', 'drifted'] as const) {
        await due(operator)
        const title = (await stepsOf(operator, runbook, ...args))[index] ?? '' // it may have a time in it
        await lingers(operator, lock)
        const killed = await killAt(
          operator,
          (event) => 'step' in event && event.event === `step ${moment}` && event.step === title,
          runbook,
          ...args,
        )
        await clearFaults(operator)
        assert.is(killed, moment === 'finished' || !settled?.test(title), `never came to: ${title} ${moment}`)
        await eventually('its programs have ended', async () => programsOf(operator).length === 0)
        await convergedAfter(operator, runbook, ...args)
        await proven(operator, `killed when ${title} ${moment}`)
      }
  })

test.run()
