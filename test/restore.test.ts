// What a restore is told: a time, and the name of a database.
import { execFileSync } from 'node:child_process'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Backup } from '../lib/backups.ts'
import { EXIT, Failure } from '../lib/failure.ts'
import { backupOf, scratchName } from '../lib/restore.ts'
import { databaseName, parseTime } from '../lib/restore-arguments.ts'

const misused = (work: () => unknown, text: string) => {
  try {
    work()
  } catch (error) {
    assert.instance(error, Failure, text)
    assert.is((error as Failure).exit, EXIT.usage, text)
    return assert.match((error as Failure).message, JSON.stringify(text))
  }
  assert.unreachable(`${text} was taken`)
}

const TIMES: Record<string, string> = {
  '2026-11-24': '2026-11-24T23:59:59.999Z',
  '2024-02-29': '2024-02-29T23:59:59.999Z',
  '2026-11-24T03:00Z': '2026-11-24T03:00:00.000Z',
  '2026-11-24T03:00:05Z': '2026-11-24T03:00:05.000Z',
  '2026-11-24T03:00:05.123Z': '2026-11-24T03:00:05.123Z',
  '2026-11-24T03:00': '2026-11-24T03:00:00.000Z',
  '2026-11-24T03:00:05': '2026-11-24T03:00:05.000Z',
  '2026-11-24T03:00-05:00': '2026-11-24T08:00:00.000Z',
  '2026-11-24T00:30:00+02:00': '2026-11-23T22:30:00.000Z',
  // As folders in the bucket are called.
  '2026-11-24T03-00-05.123Z': '2026-11-24T03:00:05.123Z',
  '2026-11-24T03-00-05Z': '2026-11-24T03:00:05.000Z',
  '2026-11-24T03-00Z': '2026-11-24T03:00:00.000Z',
}

test('a time is in UTC unless it says otherwise, and a day is the whole of it', () => {
  for (const [text, time] of Object.entries(TIMES)) assert.is(parseTime(text), time, text)
})

test('it is so wherever the machine stands', () => {
  const script = `import { parseTime } from './lib/restore-arguments.ts'
    console.log(JSON.stringify(${JSON.stringify(Object.keys(TIMES))}.map(parseTime)))`
  const output = execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    env: { ...process.env, TZ: 'America/New_York' },
    encoding: 'utf8',
  })
  assert.equal(JSON.parse(output), Object.values(TIMES))
})

test('what is no time is refused', () => {
  for (const text of [
    '',
    'yesterday',
    '2026',
    '2026-11',
    '2026-13-01',
    '2026-02-30',
    '2025-02-29',
    '2026-11-24T',
    '2026-11-24T25:00',
    '2026-11-24T03',
    '2026-11-24T03:60',
    '2026-11-24 03:00',
    '2026-11-24T03:00:00 Z',
    '24.11.2026',
    '1764000000',
    ' 2026-11-24',
    '2026-11-24T03:00:00z; x',
  ])
    misused(() => parseTime(text), text)
})

test('a restore goes into a new database, never into one that is the platform’s or a customer’s', () => {
  for (const name of ['mine', '_mine', 'a1', 'restored_acme_20261124t030000z', 'customers', 'x'.repeat(63)])
    assert.is(databaseName(name), name)
  for (const name of [
    '',
    'Mine',
    '1a',
    'a-b',
    'a b',
    'a"b',
    'ü',
    'x'.repeat(64),
    'customer_acme',
    'customer_',
    'pg_mine',
    'postgres',
    'defaultdb',
    'template0',
    'template1',
    '_dodb',
    'gitea',
  ])
    misused(() => databaseName(name), name)
})

const backup = (source: string, time: string, verified = true): Backup => ({
  ...{ source, at: new Date(time), folder: `${source}/${time}`, keys: [], bytes: 1, verified },
})

test('a scratch database is named after the customer and the backup, and is never a customer’s', () => {
  const one = backup('database/acme-test', '2026-11-24T03:00:05.123Z')
  assert.is(scratchName('acme-test', one, 'restored'), 'restored_acme_test_20261124t030005z')
  assert.is(scratchName('acme-test', one, 'drill'), 'drill_acme_test_20261124t030005z')
  const longest = scratchName(`a${'b'.repeat(29)}`, one, 'restored')
  assert.ok(longest.length <= 63, 'Postgres would cut it off')
  assert.is(databaseName(longest), longest)
})

test('the newest verified one of that customer alone, of that time or before', () => {
  const all = [
    backup('database/acme', '2026-11-22T03:00:00.000Z'),
    backup('database/acme', '2026-11-24T03:00:00.000Z', false),
    backup('database/acme', '2026-11-23T03:00:00.000Z'),
    backup('database/acme-test', '2026-11-25T03:00:00.000Z'),
    backup('secrets/acme', '2026-11-25T03:00:00.000Z'),
  ]
  const folderOf = (customer: string, at?: string) => backupOf(all, `database/${customer}`, at).folder
  assert.is(folderOf('acme'), 'database/acme/2026-11-23T03:00:00.000Z')
  assert.is(folderOf('acme', '2026-11-23T03:00:00.000Z'), 'database/acme/2026-11-23T03:00:00.000Z')
  assert.is(folderOf('acme', '2026-11-23T02:59:59.999Z'), 'database/acme/2026-11-22T03:00:00.000Z')
  assert.throws(() => folderOf('acme', '2026-11-22T02:59:59.999Z'), /no verified backup of acme from 2026-11-22/)
  assert.throws(() => folderOf('zenith'), /no verified backup of zenith/)
})

test.run()
