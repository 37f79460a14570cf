// What a person reads of a run, line by line; and what is live below it on a terminal.
import { PassThrough } from 'node:stream'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { RunEvent } from '../lib/events.ts'
import { jsonLine, linesOf, plain, terminal } from '../lib/presentation.ts'
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

// --- on a terminal ---------------------------------------------------------------------

/** Shows what is written to it as a terminal would: lines, cursor up, erase below, and colours apart. */
function fakeTerminal(columns?: number) {
  let text = ''
  const out = {
    columns,
    write: (chunk: string) => {
      text += chunk
      return true
    },
  }
  const written = () => text
  const screen = () => {
    const shown: string[] = []
    let row = 0
    for (const [part, up, erase] of text
      .replaceAll(/\x1b\[\d+m/g, '')
      .matchAll(/\x1b\[(\d+)A|(\x1b\[J)|[^\x1b\n]*\n/g)) {
      if (up) row -= Number(up)
      else if (erase) shown.length = row
      else shown[row++] = part.slice(0, -1)
    }
    return shown
  }
  return { out: out as unknown as NodeJS.WriteStream, written, screen }
}

/** Runs with a clock that only moves when it is told to. */
function withClock(work: (pass: (ms: number) => void, isTicking: () => boolean) => void): void {
  const real = { setInterval: globalThis.setInterval, clearInterval: globalThis.clearInterval, now: performance.now }
  const timers = new Map<object, { tick: () => void; every: number; next: number }>()
  let now = 1000
  const pass = (ms: number) => {
    for (const end = now + ms; now < end; ) {
      now++
      for (const timer of timers.values())
        if (now >= timer.next) {
          timer.next += timer.every
          timer.tick()
        }
    }
  }
  try {
    performance.now = () => now
    globalThis.setInterval = ((tick: () => void, every: number) => {
      const timer = { unref: () => timer }
      timers.set(timer, { tick, every, next: now + every })
      return timer
    }) as unknown as typeof setInterval
    globalThis.clearInterval = ((timer: object) => void timers.delete(timer)) as typeof clearInterval
    work(pass, () => timers.size > 0)
  } finally {
    Object.assign(globalThis, { setInterval: real.setInterval, clearInterval: real.clearInterval })
    performance.now = real.now
  }
}

const finished = (step: string): RunEvent => ({ event: 'step finished', step, status: 'ok', seconds: 0 })

test('on a terminal every running step has a live line below what is done, with its time and what it waits for', () => {
  withClock((pass) => {
    const { out, screen } = fakeTerminal(100)
    const { emit } = terminal(out, false, true)
    emit({ event: 'step started', step: 'a' })
    emit({ event: 'step started', step: 'b' })
    assert.equal(screen(), ['…        a  0.0 s', '…        b  0.0 s'])
    emit({ event: 'step waiting', step: 'b', for: 'terraform\nplan' })
    pass(1000)
    assert.equal(screen(), ['…        a  1.0 s', '…        b  1.0 s  terraform plan'])
    emit(finished('a'))
    assert.equal(screen(), ['ok       a', '…        b  1.0 s  terraform plan'])
    emit({ event: 'warning', text: 'look' })
    pass(61_000)
    assert.equal(screen(), ['ok       a', 'warning  look', '…        b  1 min 2 s  terraform plan'])
    emit(finished('b'))
    assert.equal(screen(), ['ok       a', 'warning  look', 'ok       b'])
  })
})

test('when all has been looked at, a step has a live line from when those before it are done', () => {
  withClock((pass) => {
    const { out, screen } = fakeTerminal(100)
    const { emit } = terminal(out, false, true)
    emit({ event: 'step started', step: 'a' })
    emit({ event: 'step started', step: 'b' })
    pass(1000)
    emit({ event: 'lock taken' })
    assert.equal(screen(), [])
    emit({ event: 'step started', step: 'a' })
    pass(1000)
    assert.equal(screen(), ['…        a  1.0 s'])
    emit(finished('a'))
    emit({ event: 'step started', step: 'b' })
    assert.equal(screen(), ['ok       a', '…        b  0.0 s'])
  })
})

test('before a question and at the end nothing live is left, and nothing is drawn any more', () => {
  withClock((pass, isTicking) => {
    const { out, screen, written } = fakeTerminal(100)
    const { emit, close } = terminal(out, false, true)
    emit({ event: 'step started', step: 'a' })
    assert.ok(isTicking())
    close()
    assert.equal(screen(), [])
    assert.not.ok(isTicking())
    const before = written()
    pass(1000)
    assert.is(written(), before)
    emit({ event: 'step waiting', step: 'a', for: 'more' })
    assert.equal(screen(), ['…        a  1.0 s  more'], 'it goes on after the question')
  })
})

test('a live line never gets wider than the terminal, since erasing it would leave a rest', () => {
  for (const [columns, width] of [
    [20, 19],
    [undefined, 79],
    [0, 79],
  ] as const)
    withClock(() => {
      const { out, screen } = fakeTerminal(columns)
      terminal(out, false, true).emit({ event: 'step started', step: 'x'.repeat(200) })
      assert.equal(
        screen().map((line) => line.length),
        [width],
      )
    })
})

test('no more live lines than the screen holds; those that wait for a turn come last', () => {
  withClock(() => {
    const { out, screen } = fakeTerminal(100)
    const { emit } = terminal(Object.assign(out, { rows: 9 }), false, true)
    for (let number = 1; number <= 20; number++) {
      emit({ event: 'step started', step: `step ${number}` })
      emit({ event: 'step waiting', step: `step ${number}`, for: number < 19 ? 'its turn' : 'pg_dump' })
    }
    assert.equal(screen(), [
      '…        step 19  0.0 s  pg_dump',
      '…        step 20  0.0 s  pg_dump',
      '…        step 1  0.0 s  its turn',
      '…        step 2  0.0 s  its turn',
      '…        step 3  0.0 s  its turn',
      '…        and 15 more',
    ])
  })
})

test('colours are on the first word, and nowhere when they are not wanted', () => {
  for (const colour of [true, false])
    withClock(() => {
      const { out, written } = fakeTerminal(100)
      const { emit } = terminal(out, false, colour)
      emit(finished('fine'))
      emit({ event: 'step finished', step: 'bad', status: 'failed', seconds: 0, failure: { found: 'ok is not so' } })
      assert.is(
        written(),
        colour
          ? '\x1b[32mok\x1b[0m       fine\n\x1b[31mfailed\x1b[0m   bad\n         ok is not so\n'
          : 'ok       fine\nfailed   bad\n         ok is not so\n',
      )
    })
})

test('no secret gets onto a terminal, neither into a line that stays nor into a live one, nor in part', () => {
  withClock(() => {
    const secret = new Secret('hidden-value-of-the-terminal').reveal()
    const { out, written } = fakeTerminal(30)
    const { emit } = terminal(out, true, true)
    emit({ event: 'step started', step: 'a' })
    emit({ event: 'step waiting', step: 'a', for: secret })
    emit({ event: 'run failed', failure: { found: `with ${secret}`, stack: `at ${secret}` } })
    assert.match(written(), '[reda')
    assert.not.match(written(), 'hidden')
  })
})

test.run()
