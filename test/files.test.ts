// Files that are there whole or not at all, and work that only one process does at a time.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { alone, writeWhole } from '../lib/files.ts'

const test = suite<{ directory: string }>('files')
test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'lunarfront-test-'))
})
test.after.each(({ directory }) => rmSync(directory, { recursive: true }))
const { signal } = new AbortController()

test('a file is written whole, for its owner alone, with its folders, and nothing is left beside it', ({
  directory,
}) => {
  const file = join(directory, 'a', 'b')
  writeWhole(file, 'one')
  writeWhole(file, 'two')
  assert.is(readFileSync(file, 'utf8'), 'two')
  assert.is(statSync(file).mode & 0o777, 0o600)
  assert.equal(readdirSync(join(directory, 'a')), ['b'])
})

test('a write that fails leaves what there was, and nothing beside it', ({ directory }) => {
  const file = join(directory, 'folder')
  writeWhole(join(file, 'x'), '') // a folder cannot be replaced by a file
  assert.throws(() => writeWhole(file, 'text'))
  assert.equal(readdirSync(directory), ['folder'])
})

test('two at work take turns, and leave nothing', async ({ directory }) => {
  const file = join(directory, 'work')
  const log: string[] = []
  const work = (name: string) =>
    alone(
      file,
      async () => {
        log.push(`${name} starts`)
        await new Promise((resolve) => setImmediate(resolve))
        log.push(`${name} ends`)
      },
      signal,
    )
  await Promise.all([work('one'), work('two')])
  assert.equal(log, ['one starts', 'one ends', 'two starts', 'two ends'])
  assert.equal(readdirSync(directory), [])
})

test('one that has died is passed by, also when its id was given to another process', async ({ directory }) => {
  const file = join(directory, 'work')
  for (const dead of [
    { pid: 2 ** 22 + 1, started: '' },
    { pid: process.pid, started: '1' },
  ]) {
    if (dead.pid === process.pid && process.platform !== 'linux') continue // the start is only told there
    writeFileSync(file, JSON.stringify(dead))
    assert.is(await alone(file, async () => 'done', signal), 'done')
  }
})

test('who waits can be interrupted', async ({ directory }) => {
  const file = join(directory, 'work')
  const abort = new AbortController()
  const waiting = alone(file, () => alone(file, async () => 'never', abort.signal), signal)
  abort.abort()
  const error = await waiting.catch((reason: Error) => reason)
  assert.is((error as Error).name, 'AbortError')
})

test.run()
