// Taking turns: never more at once than there are places, first come, first served, and a failure gives its place back.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { slots } from '../lib/slots.ts'

/** Work that ends when it is told to. */
function job(name: string, log: string[]) {
  let end = (_error?: Error) => {}
  const work = () =>
    new Promise<string>((resolve, reject) => {
      log.push(name)
      end = (error) => (error ? reject(error) : resolve(name))
    })
  return { work, end: (error?: Error) => end(error) }
}

/** Lets everything that is due happen. */
const settled = () => new Promise((resolve) => setImmediate(resolve))

test('so many run at once, and the others in the order that they came', async () => {
  const turn = slots(2)
  const log: string[] = []
  const jobs = ['a', 'b', 'c', 'd'].map((name) => job(name, log))
  const ends = jobs.map(({ work }) => turn(work))
  await settled()
  assert.equal(log, ['a', 'b'])
  jobs[1]!.end()
  await settled()
  assert.equal(log, ['a', 'b', 'c'])
  jobs[0]!.end()
  await settled()
  assert.equal(log, ['a', 'b', 'c', 'd'])
  jobs[2]!.end()
  jobs[3]!.end()
  assert.equal(await Promise.all(ends), ['a', 'b', 'c', 'd'], 'each gets its own answer')
})

test('a failure is its own alone, and its place is free again', async () => {
  const turn = slots(1)
  const log: string[] = []
  const [one, other] = [job('one', log), job('other', log)]
  const failing = turn(one.work)
  const waiting = turn(other.work)
  await settled()
  one.end(new Error('it failed'))
  try {
    await failing
    assert.unreachable()
  } catch (error) {
    assert.is((error as Error).message, 'it failed')
  }
  await settled()
  assert.equal(log, ['one', 'other'])
  other.end()
  assert.is(await waiting, 'other')
})

test('work that throws at once gives its place back too, and a place that is free is taken at once', async () => {
  const turn = slots(1)
  for (const _ of [1, 2, 3])
    try {
      await turn(() => {
        throw new Error('at once')
      })
      assert.unreachable()
    } catch (error) {
      assert.is((error as Error).message, 'at once')
    }
  assert.is(await turn(async () => 'still free'), 'still free')
})

test('one that comes when a place was just handed on waits behind those who wait', async () => {
  const turn = slots(1)
  const log: string[] = []
  const jobs = ['a', 'b', 'c'].map((name) => job(name, log))
  const ends = [turn(jobs[0]!.work), turn(jobs[1]!.work)]
  await settled()
  jobs[0]!.end()
  await ends[0]
  ends.push(turn(jobs[2]!.work))
  await settled()
  assert.equal(log, ['a', 'b'], 'never two at once')
  jobs[1]!.end()
  await settled()
  assert.equal(log, ['a', 'b', 'c'])
  jobs[2]!.end()
  await Promise.all(ends)
})

test.run()
