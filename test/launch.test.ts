// lib/launch.mjs, on a small runbook of its own: it starts whatever state what it keeps is in.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ROOT } from '../lib/site.ts'

const FIRST_LINE = readFileSync(join(ROOT, 'runbooks', 'bootstrap.mts'), 'utf8').split('\n')[0]
const HELLO = `${FIRST_LINE}
import { EXIT } from '../lib/failure.ts'
function greet(words: string[]): void {
  if (words.includes('--fail')) throw new Error('on purpose')
  console.log(EXIT.usage, ...words)
}
greet(process.argv.slice(2))
`

const test = suite<{ folder: string; runbook: string }>('launch')
test.before((context) => {
  const folder = mkdtempSync(join(tmpdir(), 'lunarfront-launch-'))
  Object.assign(context, { folder, runbook: join(folder, 'runbooks', 'hello.mts') })
  for (const name of ['lib', 'package.json', 'package-lock.json'])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true })
  for (const name of ['runbooks', 'node_modules']) mkdirSync(join(folder, name))
  for (const name of readdirSync(join(ROOT, 'node_modules')))
    if (!name.startsWith('.')) symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name))
  writeFileSync(context.runbook, HELLO, { mode: 0o755 })
})
test.after(({ folder }) => rmSync(folder, { recursive: true, force: true }))

const run = (program: string, ...args: string[]) => spawnSync(program, args, { encoding: 'utf8' })

/** @returns path of what V8 compiled; throws where it is not there */
function compiled(folder: string): string {
  const cache = join(folder, 'node_modules', '.cache', 'runbooks')
  const [found] = readdirSync(cache, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.v8'))
  if (!found) throw new Error('nothing was kept')
  return join(cache, found)
}

function greets(runbook: string, ...args: string[]): void {
  const { status, stdout, stderr } = run(runbook, ...args)
  assert.equal([status, stdout, stderr], [0, `${['64', ...args].join(' ')}\n`, ''])
}

test('a runbook starts, and again from what was kept of it', ({ folder, runbook }) => {
  greets(runbook)
  assert.ok(readFileSync(compiled(folder)).length > 1000)
  greets(runbook, 'a', "it's 2 words")
})

test('what was kept may be damaged in any way: it starts, and keeps it anew', ({ folder, runbook }) => {
  greets(runbook)
  const file = compiled(folder)
  const whole = readFileSync(file)
  const middle = Buffer.from(whole)
  for (let index = whole.length >> 1; index < (whole.length >> 1) + 400; index++) middle[index]! ^= 0x55
  const zeroes = Buffer.concat([whole.subarray(0, 200), Buffer.alloc(whole.length - 200)])
  for (const damaged of [middle, zeroes, whole.subarray(0, whole.length - 1), whole.subarray(32), Buffer.alloc(0)]) {
    writeFileSync(file, damaged)
    greets(runbook)
    assert.not.ok(readFileSync(file).equals(damaged))
    greets(runbook)
  }
})

test('a source that has changed is what runs', ({ runbook }) => {
  greets(runbook)
  writeFileSync(runbook, HELLO.replace('EXIT.usage,', "'changed',"))
  assert.is(run(runbook, 'x').stdout, 'changed x\n')
  writeFileSync(runbook, HELLO)
  greets(runbook, 'x')
})

test('several at once, and through a link', ({ folder, runbook }) => {
  rmSync(join(folder, 'node_modules', '.cache'), { recursive: true, force: true })
  const link = join(folder, 'link')
  symlinkSync(runbook, link)
  const { status, stdout } = run('sh', '-c', `for i in 1 2 3 4; do '${link}' $i & done; wait`)
  assert.is(status, 0)
  assert.equal(stdout.trim().split('\n').sort(), ['64 1', '64 2', '64 3', '64 4'])
})

test('a defect is told with its place in the source under --verbose', ({ runbook }) => {
  const { status, stderr } = run(runbook, '--fail', '--verbose')
  assert.is(status, 1)
  assert.match(stderr, /runbooks\/hello\.mts:4/)
})

test('a bundle that cannot be kept does not hinder anybody', ({ folder, runbook }) => {
  greets(runbook)
  const file = compiled(folder)
  rmSync(file)
  mkdirSync(file) // nothing can be put there
  const { stdout } = run(runbook)
  assert.is(stdout, '64\n')
})

test.run()
