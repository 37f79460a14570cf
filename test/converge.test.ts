// The engine: check, apply, check again; what rests on what; plan; lock; interruption.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type AnyStep, converge, type Drift, step, stepsUntil } from '../lib/converge.ts'
import type { RunEvent } from '../lib/events.ts'
import { Failure, misuse } from '../lib/failure.ts'

/** A step over a world of facts: done when its title is in it. */
const fact = (world: Set<string>, title: string, more: Partial<AnyStep> = {}): AnyStep =>
  step<Drift>({
    title,
    check: async () => (world.has(title) ? undefined : { lines: [`make ${title}`] }),
    apply: async () => {
      world.add(title)
    },
    ...more,
  })

async function run(steps: AnyStep[], options: Partial<Parameters<typeof converge>[1]> = {}) {
  const events: RunEvent[] = []
  const outcome = await converge(steps, {
    plan: false,
    emit: (event) => events.push(event),
    signal: new AbortController().signal,
    lock: async () => {},
    confirm: async () => true,
    ...options,
  })
  const finished = Object.fromEntries(
    events.flatMap((event) => (event.event === 'step finished' ? [[event.step, event.status]] : [])),
  )
  return { ...outcome, events, finished }
}

test('what is missing is made, and a second run changes nothing', async () => {
  const world = new Set(['b'])
  const steps = ['a', 'b', 'c'].map((title) => fact(world, title))
  assert.equal((await run(steps)).counts, { changed: 2, ok: 1 })
  const again = await run(steps)
  assert.equal(again.counts, { ok: 3 })
  assert.is(again.exit, 0)
})

test('a step that still differs after apply has failed, and what rests on it is not run', async () => {
  const world = new Set<string>()
  const { finished, exit, events } = await run([
    fact(world, 'a', { apply: async () => {} }),
    fact(world, 'b'),
    fact(world, 'c', { needs: [] }),
  ])
  assert.equal(finished, { a: 'failed', b: 'not run', c: 'changed' })
  assert.is(exit, 1)
  const failed = events.find((event) => event.event === 'step finished' && event.status === 'failed')
  assert.match(JSON.stringify(failed), 'applied, and still: make a')
})

test('a check that comes true within its time is waited for', async () => {
  let looks = 0
  const slow = step<Drift>({
    title: 'slow',
    within: 10,
    check: async () => (looks++ < 3 ? { lines: ['not yet'] } : undefined),
    apply: async () => {},
  })
  assert.equal((await run([slow])).counts, { changed: 1 })
})

test('independent steps run side by side, and each after what it needs', async () => {
  const order: string[] = []
  let bothStarted = () => {}
  const meeting = new Promise<void>((resolve) => {
    bothStarted = resolve
  })
  const meets = (title: string, needs: AnyStep[]) =>
    step<Drift>({
      title,
      needs,
      check: async () => {
        order.push(title)
        if (order.filter((name) => name !== 'last').length === 2) bothStarted()
        await meeting // only ends when both are under way
        return undefined
      },
      apply: async () => {},
    })
  const left = meets('left', [])
  const right = meets('right', [])
  const last = meets('last', [left, right])
  assert.equal((await run([left, right, last])).counts, { ok: 3 })
  assert.is(order.at(-1), 'last')
})

test('--plan writes nothing, and what rests on a change is unknown and never ok', async () => {
  const world = new Set(['c', 'd'])
  const locks: string[] = []
  const steps = [
    fact(world, 'a'),
    fact(world, 'b'),
    fact(world, 'c'),
    fact(world, 'd', { needs: [] }),
    fact(world, 'e', {
      check: async () => {
        throw new Failure({ found: 'cannot look without the one before', notYet: true })
      },
      needs: [],
    }),
  ]
  const e = steps[4]!
  const { finished, exit } = await run([...steps.slice(0, 4), { ...e, needs: [steps[0]!] }], {
    plan: true,
    lock: async () => void locks.push('taken'),
  })
  assert.equal(finished, { a: 'change', b: 'change', c: 'unknown', d: 'ok', e: 'unknown' })
  assert.is(exit, 2)
  assert.equal([...world], ['c', 'd'])
  assert.equal(locks, [])
})

test('--plan of a converged world is ok and exits 0', async () => {
  const world = new Set(['a', 'b'])
  const { counts, exit } = await run([fact(world, 'a'), fact(world, 'b')], { plan: true })
  assert.equal(counts, { ok: 2 })
  assert.is(exit, 0)
})

test('--plan tells a check that fails for any other reason, also where it rests on a change', async () => {
  const world = new Set<string>()
  const broken = fact(world, 'broken', {
    check: async () => {
      throw new Error('no answer')
    },
  })
  const { finished, exit } = await run([fact(world, 'a'), broken], { plan: true })
  assert.equal(finished, { a: 'change', broken: 'failed' })
  assert.is(exit, 1)
})

test('--plan tells a check that fails on its own as failed', async () => {
  const broken = step<Drift>({
    title: 'broken',
    check: async () => {
      throw new Error('no answer')
    },
    apply: async () => {},
  })
  assert.is((await run([broken], { plan: true })).exit, 1)
})

test('the lock is taken once, before the first write, and then the step is looked at again', async () => {
  const world = new Set<string>()
  let taken = 0
  const { finished } = await run([fact(world, 'a'), fact(world, 'b')], {
    lock: async () => {
      taken++
      world.add('a') // whoever held the lock until now has done it
    },
  })
  assert.is(taken, 1)
  assert.equal(finished, { a: 'ok', b: 'changed' })
})

test('what another run made while this one waited for the lock is looked at again', async () => {
  const world = new Set<string>()
  const first = fact(world, 'first')
  const second = fact(world, 'second', {
    check: async () => {
      if (!world.has('first')) throw new Failure({ found: 'first is not there', notYet: true })
      return world.has('second') ? undefined : { lines: ['make second'] }
    },
  })
  const { finished } = await run([first, second], {
    lock: async () => {
      world.add('first')
      world.add('second')
    },
  })
  assert.equal(finished, { first: 'ok', second: 'ok' })
})

test('what another run changed while this one waited for the lock is looked at again, also where it was right', async () => {
  const world = new Set(['b', 'c'])
  const a = fact(world, 'a')
  const { finished } = await run([a, fact(world, 'b'), fact(world, 'c', { needs: [] })], {
    lock: async () => {
      world.clear() // whoever held the lock until now has undone everything
      world.add('a') // but for this, which it has done
    },
  })
  assert.equal(finished, { a: 'ok', b: 'changed', c: 'changed' })
})

test('the check that takes longest is under way before the others and the preflight begin', async () => {
  for (const waits of [true, false]) {
    const log: string[] = []
    const quick = step<Drift>({
      title: 'quick',
      check: async () => {
        log.push('quick')
        return undefined
      },
      apply: async () => {},
    })
    const slow = step<Drift>({
      title: 'slow',
      first: true,
      needs: [quick],
      check: async (work) => {
        log.push('slow begins')
        if (waits) {
          work.waitingFor('the world')
          await new Promise((resolve) => setTimeout(resolve, 20))
        }
        log.push('slow ends')
        return undefined
      },
      apply: async () => {},
    })
    const { finished } = await run([quick, slow], { preflight: async () => void log.push('preflight') })
    assert.equal(finished, { quick: 'ok', slow: 'ok' })
    assert.is(log[0], 'slow begins')
    assert.is(log.indexOf('slow ends') > log.indexOf('preflight'), waits, log.join())
    assert.ok(log.includes('quick'))
  }
})

test('a run with nothing to do takes no lock', async () => {
  let taken = 0
  await run([fact(new Set(['a']), 'a')], { lock: async () => void taken++ })
  assert.is(taken, 0)
})

test('a lock that is not to be had is told once, and nothing was written', async () => {
  const world = new Set<string>()
  const held = misuse({ found: 'held' })
  const refused = run([fact(world, 'a'), fact(world, 'b', { needs: [] })], { lock: () => Promise.reject(held) })
  assert.is(await refused.catch((error: unknown) => error), held)
  assert.equal([...world], [])
})

test('what costs money is asked about, and nothing is done without a yes', async () => {
  const world = new Set<string>()
  const dear = fact(world, 'dear', {
    check: async () => (world.has('dear') ? undefined : { lines: ['buy'], confirm: '$5?' }),
  })
  const asked: string[] = []
  const refused = await run([dear], { confirm: async (question) => asked.push(question) < 0 })
  assert.equal(asked, ['$5?'])
  assert.is(refused.exit, 1)
  assert.is(world.size, 0)
  assert.is((await run([dear])).exit, 0)
})

test('nobody to ask is wrong usage', async () => {
  const dear = step<Drift>({ title: 'dear', check: async () => ({ lines: [], confirm: '$5?' }), apply: async () => {} })
  const { exit } = await run([dear], {
    confirm: async () => {
      throw misuse({ found: 'nobody can be asked' })
    },
  })
  assert.is(exit, 64)
})

test('after an interruption no further step starts', async () => {
  const interruption = new AbortController()
  const world = new Set<string>()
  const first = fact(world, 'first', {
    apply: async () => {
      world.add('first')
      interruption.abort()
    },
  })
  const { finished, exit } = await run([first, fact(world, 'second')], { signal: interruption.signal })
  assert.equal(finished, { first: 'changed', second: 'not run' })
  assert.is(exit, 130)
})

test('a step may only need what comes before it', async () => {
  const world = new Set<string>()
  const late = fact(world, 'late')
  try {
    await run([fact(world, 'early', { needs: [late] }), late])
    assert.unreachable()
  } catch (error) {
    assert.match((error as Error).message, "'early' needs 'late'")
  }
})

test('--until finds one step by part of its title and keeps what is before it', () => {
  const steps = ['role acme exists', 'database acme exists', 'record exists'].map((title) => fact(new Set(), title))
  assert.equal(
    stepsUntil(steps, 'DATABASE').map((one) => one.title),
    ['role acme exists', 'database acme exists'],
  )
  for (const wrong of ['acme', 'nothing']) assert.throws(() => stepsUntil(steps, wrong), /--until/)
})

test.run()
