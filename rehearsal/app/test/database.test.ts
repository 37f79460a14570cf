// The migration, against the Postgres of DATABASE_URL.
import { expect, test } from 'bun:test'
import { SQL } from 'bun'
import { sql as expression } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/bun-sql'
import { MIGRATION_LOCK, migrateDatabase, openDatabase } from '../src/database.ts'
import { Failure, reason } from '../src/failure.ts'
import { readDatabaseSettings } from '../src/settings.ts'

const settings = readDatabaseSettings(process.env)

test('several at once all end well, and leave one record of each migration', async () => {
  await Promise.all([1, 2, 3].map(() => migrateDatabase(settings, 10_000)))
  await migrateDatabase(settings, 10_000)
  const sql = await openDatabase(settings)
  const [counted] =
    await sql`SELECT count(*)::int AS all, count(DISTINCT hash)::int AS different FROM drizzle.__drizzle_migrations`
  expect(counted.all).toBeGreaterThan(0)
  expect(counted.different).toBe(counted.all)
  await sql.close()
})

test('one that waits for another too long says so', async () => {
  const other = new SQL({ adapter: 'postgres', ...settings, max: 1 })
  await other`SELECT pg_advisory_lock(${MIGRATION_LOCK})`
  try {
    await expect(migrateDatabase(settings, 100)).rejects.toThrow('another migration has held the database for 0.1 s')
  } finally {
    await other.close()
  }
  await migrateDatabase(settings, 100)
})

test('a password that is refused is not told', async () => {
  const attempt = migrateDatabase({ ...settings, username: 'nobody_of_this_name', password: 'not-to-be-told' }, 100)
  const error: Error = await attempt.then(
    () => new Error('let in'),
    (error) => error,
  )
  expect(error).toBeInstanceOf(Failure)
  expect(error.message).toStartWith(`nobody_of_this_name cannot connect to ${settings.database} of Postgres at `)
  expect(error.message).not.toContain('not-to-be-told')
})

test('what is told of a failed query is the server’s word, without the parameters', async () => {
  const sql = await openDatabase(settings)
  const query = drizzle({ client: sql }).execute(expression`SELECT 1 / 0, ${'not-to-be-told'}::text`)
  const error: Error = await query.then(
    () => new Error('it was answered'),
    (error) => error,
  )
  expect(error.message).toContain('not-to-be-told')
  expect(reason(error)).toBe('division by zero')
  await sql.close()
})
