// Which backups go: by literal dates.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { expired, type Retention } from '../lib/retention.ts'

const NOTHING: Retention = { daily: 0, weekly: 0, monthly: 0, minimum: 1 }

/** @returns those that stay, oldest first */
function kept(times: string[], retention: Partial<Retention>): string[] {
  const taken = times.map((time) => ({ at: new Date(time.length === 10 ? `${time}T03:00:00Z` : time), time }))
  const gone = expired(taken, { ...NOTHING, ...retention })
  return taken
    .filter((one) => !gone.includes(one))
    .sort((a, b) => a.at.getTime() - b.at.getTime())
    .map(({ time }) => time)
}

test('daily: the newest of each of the last days that have one', () => {
  const times = ['2026-11-20', '2026-11-21', '2026-11-23', '2026-11-24']
  assert.equal(kept(times, { daily: 3 }), ['2026-11-21', '2026-11-23', '2026-11-24'], 'the 22nd has none')
})

test('several a day: the newest of the day, in UTC', () => {
  const times = [
    '2026-11-23T00:00:00.000Z',
    '2026-11-23T12:00:00.000Z',
    '2026-11-23T23:59:59.999Z',
    '2026-11-24T00:00:00.000Z',
    '2026-11-24T01:00:00.000Z',
  ]
  assert.equal(kept(times, { daily: 2 }), ['2026-11-23T23:59:59.999Z', '2026-11-24T01:00:00.000Z'])
})

test('weekly: a week begins on Monday', () => {
  // The 16th and the 23rd of November 2026 are Mondays.
  const times = ['2026-11-15', '2026-11-16', '2026-11-19', '2026-11-22', '2026-11-23', '2026-11-24']
  assert.equal(kept(times, { weekly: 2 }), ['2026-11-22', '2026-11-24'])
  assert.equal(kept(times, { weekly: 3 }), ['2026-11-15', '2026-11-22', '2026-11-24'])
})

test('a week that lies in two years is one week', () => {
  // Monday, 28 December 2026, to Sunday, 3 January 2027; and Monday, 30 December 2024, to Sunday, 5 January 2025.
  assert.equal(kept(['2026-12-27', '2026-12-28', '2026-12-31', '2027-01-01', '2027-01-03'], { weekly: 9 }), [
    '2026-12-27',
    '2027-01-03',
  ])
  assert.equal(kept(['2024-12-29', '2024-12-30', '2025-01-01', '2025-01-05', '2025-01-06'], { weekly: 9 }), [
    '2024-12-29',
    '2025-01-05',
    '2025-01-06',
  ])
})

test('monthly: the newest of each month, the same month of another year apart', () => {
  const times = ['2025-11-30', '2026-01-01', '2026-01-31', '2026-02-28', '2026-11-01', '2026-11-24']
  assert.equal(kept(times, { monthly: 3 }), ['2026-01-31', '2026-02-28', '2026-11-24'])
  assert.equal(kept(times, { monthly: 9 }), ['2025-11-30', '2026-01-31', '2026-02-28', '2026-11-24'])
})

test('what any of the three wants stays', () => {
  const times = ['2026-09-30', '2026-10-31', '2026-11-14', '2026-11-15', '2026-11-22', '2026-11-23', '2026-11-24']
  assert.equal(kept(times, { daily: 2, weekly: 3, monthly: 3 }), [
    '2026-09-30',
    '2026-10-31',
    '2026-11-15',
    '2026-11-22',
    '2026-11-23',
    '2026-11-24',
  ])
})

test('a year of nightly backups, by the example site: 7 days, 5 weeks, 12 months', () => {
  const times = Array.from({ length: 365 }, (_, index) =>
    new Date(Date.parse('2026-11-24T03:00:00Z') - index * 86_400_000).toISOString(),
  )
  const days = kept(times, { daily: 7, weekly: 5, monthly: 12, minimum: 3 }).map((time) => time.slice(0, 10))
  assert.equal(days, [
    ...['2025-12-31', '2026-01-31', '2026-02-28', '2026-03-31', '2026-04-30', '2026-05-31', '2026-06-30'],
    ...['2026-07-31', '2026-08-31', '2026-09-30', '2026-10-31'],
    ...['2026-11-01', '2026-11-08', '2026-11-15'],
    ...['2026-11-18', '2026-11-19', '2026-11-20', '2026-11-21', '2026-11-22', '2026-11-23', '2026-11-24'],
  ])
})

test('the minimum stays, however old, and however many of one day', () => {
  assert.equal(kept(['2001-01-01', '2002-01-01', '2003-01-01', '2004-01-01'], { daily: 1, minimum: 3 }), [
    '2002-01-01',
    '2003-01-01',
    '2004-01-01',
  ])
  const hours = ['2026-11-24T01:00:00Z', '2026-11-24T02:00:00Z', '2026-11-24T03:00:00Z']
  assert.equal(kept(hours, { daily: 1, minimum: 2 }), hours.slice(1))
})

test('one backup is never removed, nor the last of several', () => {
  assert.equal(kept(['2001-01-01'], { minimum: 1 }), ['2001-01-01'])
  assert.equal(kept(['2001-01-01'], { minimum: 0 }), ['2001-01-01'])
  assert.equal(kept(['2001-01-01', '2002-01-01'], { minimum: 0 }), ['2002-01-01'])
  assert.equal(kept([], { daily: 7 }), [])
})

test('the order that they come in is no matter, and stays as it is', () => {
  const times = ['2026-11-24', '2026-11-20', '2026-11-22', '2026-10-31', '2026-11-21']
  const wanted = ['2026-10-31', '2026-11-22', '2026-11-24']
  for (const [index] of times.entries()) {
    const turned = [...times.slice(index), ...times.slice(0, index)]
    const before = [...turned]
    assert.equal(kept(turned, { daily: 2, monthly: 2 }), wanted)
    assert.equal(turned, before)
  }
  assert.equal(kept([...times].reverse(), { daily: 2, monthly: 2 }), wanted)
})

test.run()
