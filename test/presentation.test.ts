// What a person reads of a run, line by line.
import { PassThrough } from 'node:stream'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { RunEvent } from '../lib/events.ts'
import { jsonLine, linesOf, plain } from '../lib/presentation.ts'
import { Secret } from '../lib/secret.ts'

const lines = (event: RunEvent, verbose = false) => linesOf(event, verbose)

test('a step that is right is one short line', () => {
  assert.equal(lines({ event: 'step finished', step: 'role customer_acme exists', status: 'ok', seconds: 3 }), [
    'ok       role customer_acme exists',
  ])
})

test('a change tells its time, a plan what it would do', () => {
  assert.equal(
    lines({ event: 'step finished', step: 'database x', status: 'changed', seconds: 0.44, drift: ['CREATE'] }),
    [`changed  ${'database x'.padEnd(60)}  0.4 s`],
  )
  assert.equal(lines({ event: 'step finished', step: 'x', status: 'change', seconds: 0, drift: ['one', 'two'] }), [
    'change   x',
    '         one',
    '         two',
  ])
  assert.equal(lines({ event: 'step finished', step: 'x', status: 'unknown', seconds: 0 }), [
    `unknown  ${'x'.padEnd(60)}  unknown until applied`,
  ])
})

test('a failure says what was found, what was expected, what to do next; the stack only when asked for', () => {
  const failure = { found: 'health is Degraded', expected: 'Healthy', next: 'kubectl get pods', stack: 'at x.ts:1' }
  const event: RunEvent = { event: 'step finished', step: 'x', status: 'failed', seconds: 0, failure }
  assert.equal(lines(event), [
    'failed   x',
    '         health is Degraded',
    '         expected: Healthy',
    '         next: kubectl get pods',
  ])
  assert.match(lines(event, true).join('\n'), 'at x.ts:1')
})

test('wrong use is one line', () => {
  assert.equal(lines({ event: 'run failed', failure: { found: 'a', expected: 'b', next: 'c', stack: 's' } }), [
    'error: a; expected b. Next: c',
  ])
})

test('the last line counts', () => {
  const last = (counts: object) => lines({ event: 'run finished', counts, exit: 0, seconds: 2, log: 'x.log' })
  assert.equal(last({ ok: 7 }), ['7 steps: 7 ok, 0 changed; 2.0 s. Log: x.log'])
  assert.equal(last({ ok: 5, changed: 1, failed: 1, 'not run': 2 }), [
    '9 steps: 5 ok, 1 changed, 1 failed, 2 not run; 2.0 s. Log: x.log',
  ])
  assert.equal(last({ change: 2, unknown: 3 }), ['5 steps: 2 to change, 3 unknown until applied; 2.0 s. Log: x.log'])
})

test('no secret gets out, as a line or as JSON, and JSON has no stack', () => {
  const secret = new Secret('hidden-value-1').reveal()
  const event: RunEvent = { event: 'run failed', failure: { found: `with ${secret}`, stack: 'at x.ts' } }
  const out = new PassThrough()
  plain(out, out, false).emit(event)
  for (const text of [String(out.read()), jsonLine(event)]) {
    assert.match(text, '[redacted]')
    assert.not.match(text, secret)
    assert.not.match(text, 'at x.ts')
  }
})

test.run()
