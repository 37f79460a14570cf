// What is backed up: which part of all is whose, and how pg_dump is told where to connect.
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { EXIT, Failure } from '../lib/failure.ts'
import { connectionOf } from '../lib/postgres-programs.ts'
import type { Run } from '../lib/run.ts'
import { Secret } from '../lib/secret.ts'
import { isInShard, parseShard } from '../lib/sources.ts'

const NAMES = Array.from({ length: 1000 }, (_, index) => `database/customer-${index}`)

test('every name is in exactly one of the shards, and each has its share', () => {
  for (const count of [1, 2, 3, 7, 16]) {
    const shares = Array.from({ length: count }, () => 0)
    for (const name of NAMES) {
      const shards = shares.map((_, index) => index).filter((index) => isInShard(name, { index: index + 1, count }))
      assert.is(shards.length, 1, `${name} of ${count}`)
      shares[shards[0]!]!++
    }
    for (const share of shares) assert.ok(share > 1000 / count / 2, `${share} of 1000 in one of ${count}`)
  }
})

test('a name stays in its shard, whatever others there are', () => {
  assert.equal(
    ['database/acme', 'secrets/acme', 'terraform/state'].map((name) =>
      [1, 2, 3, 4].find((index) => isInShard(name, { index, count: 4 })),
    ),
    [2, 4, 2],
  )
})

test('a shard is I/N, with I from 1 to N', () => {
  assert.equal(parseShard('1/1'), { index: 1, count: 1 })
  assert.equal(parseShard('2/4'), { index: 2, count: 4 })
  assert.equal(parseShard('9999/9999'), { index: 9999, count: 9999 })
  for (const text of [
    '',
    '1',
    '/',
    '0/4',
    '5/4',
    '1/0',
    '-1/4',
    '01/4',
    '1/04',
    '1.5/4',
    '1/4/2',
    ' 1/4',
    '1/4 ',
    'a/b',
  ])
    try {
      parseShard(text)
      assert.unreachable(`${text} was taken`)
    } catch (error) {
      assert.instance(error, Failure, text)
      assert.is((error as Failure).exit, EXIT.usage)
      assert.match((error as Failure).message, JSON.stringify(text))
    }
})

test('pg_dump is told whose certificate to trust, and the file is not written while others read it', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'sources-'))
  try {
    const run = { scratch } as Run
    const server = {
      host: 'pg.test',
      port: 25060,
      user: 'doadmin',
      password: new Secret('word'),
      database: 'x',
      ca: 'CA',
    }
    const connection = connectionOf(run, server, 'customer_acme')
    const ca = join(scratch, 'postgres-ca.pem')
    assert.equal(connection, {
      PGHOST: 'pg.test',
      PGPORT: '25060',
      PGUSER: 'doadmin',
      PGPASSWORD: 'word',
      PGDATABASE: 'customer_acme',
      PGSSLMODE: 'verify-full',
      PGSSLROOTCERT: ca,
      PGCONNECT_TIMEOUT: '15',
    })
    assert.is(readFileSync(ca, 'utf8'), 'CA')
    const before = statSync(ca, { bigint: true })
    assert.is(before.mode & 0o777n, 0o600n)
    connectionOf(run, server, 'customer_other')
    const after = statSync(ca, { bigint: true })
    assert.is(`${after.ino} ${after.mtimeNs}`, `${before.ino} ${before.mtimeNs}`)
  } finally {
    rmSync(scratch, { recursive: true })
  }
})

test.run()
