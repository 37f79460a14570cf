// How a run's events look: live lines on a terminal, plain lines elsewhere, JSON lines for programs.
import type { Emit, RunEvent, Status } from './events.ts'
import { oneLine, type Told } from './failure.ts'
import { redact } from './secret.ts'
import { ITS_TURN } from './slots.ts'

export type Presentation = { emit: Emit /** ends what is live, before a question or at the end */; close: () => void }

const WORDS: Record<Status, string> = {
  ok: 'ok',
  changed: 'changed',
  failed: 'failed',
  'not run': 'not run',
  change: 'change',
  unknown: 'unknown',
}

/** In the order in which the last line counts them. */
const COUNTED: [Status, string][] = [
  ['ok', 'ok'],
  ['changed', 'changed'],
  ['change', 'to change'],
  ['unknown', 'unknown until applied'],
  ['failed', 'failed'],
  ['not run', 'not run'],
]

const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`
const row = (word: string, text: string) => `${word.padEnd(7)}  ${text}`
const below = (text: string) => `         ${text.replaceAll('\n', '\n         ')}`
const time = (seconds: number) =>
  seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`

const toldLines = ({ found, expected, next, stack }: Told, verbose: boolean): string[] => [
  below(found),
  ...(expected ? [below(`expected: ${expected}`)] : []),
  ...(next ? [below(`next: ${next}`)] : []),
  ...(verbose && stack ? [below(stack)] : []),
]

/** @returns the lines that an event leaves behind, on a terminal or in a log; none for what is only live */
export function linesOf(event: RunEvent, verbose: boolean): string[] {
  switch (event.event) {
    case 'preflight finished':
      return [
        ...(verbose ? event.passed.map((title) => row('ok', `preflight: ${title}`)) : []),
        ...(event.failed.length === 0 ? [row('ok', `preflight: ${counted(event.passed.length, 'check')}`)] : []),
        ...event.failed.flatMap((failed) => [
          row('failed', `preflight: ${failed.title}`),
          ...toldLines(failed, verbose),
        ]),
      ]
    case 'lock waiting':
      return [row('waiting', `for the lock of this site, held by ${event.holder}`)]
    case 'warning':
      return [row('warning', event.text)]
    case 'step drifted': // what a person is asked about, or asked to see
      return event.confirm || verbose ? [row('differs', event.step), ...event.drift.map(below)] : []
    case 'step finished': {
      const { step, status, seconds, drift, failure } = event
      const took = seconds >= 0.1 && status !== 'not run' ? time(seconds) : ''
      const note = status === 'unknown' ? 'unknown until applied' : status === 'ok' ? '' : took
      return [
        row(WORDS[status], note ? `${step.padEnd(60)}  ${note}` : step),
        ...(status === 'change' && drift ? drift.map(below) : []),
        ...(failure ? toldLines(failure, verbose) : []),
      ]
    }
    case 'run failed':
      return [`error: ${oneLine(event.failure)}`, ...(verbose && event.failure.stack ? [event.failure.stack] : [])]
    case 'run finished': {
      const { counts, log, seconds } = event
      const all = Object.values(counts).reduce((sum, count) => sum + count, 0)
      const parts = COUNTED.flatMap(([status, words]) =>
        counts[status] || (status === 'changed' && !counts.change && !counts.unknown)
          ? [`${counts[status] ?? 0} ${words}`]
          : [],
      )
      return all > 0
        ? [`${counted(all, 'step')}: ${parts.join(', ')}; ${time(seconds)}.${log ? ` Log: ${log}` : ''}`]
        : []
    }
    default:
      return []
  }
}

/** Plain lines, errors to standard error: pipes, files, CI. */
export const plain = (out: NodeJS.WritableStream, errors: NodeJS.WritableStream, verbose: boolean): Presentation => ({
  emit: (event) => {
    const stream = event.event === 'run failed' ? errors : out
    for (const line of linesOf(event, verbose)) stream.write(`${redact(line)}\n`)
  },
  close: () => {},
})

/** One JSON line per event, with its time. */
export const json = (out: NodeJS.WritableStream): Presentation => ({
  emit: (event) => out.write(`${jsonLine(event)}\n`),
  close: () => {},
})

export const jsonLine = (event: RunEvent) => {
  const told = 'failure' in event && event.failure ? { failure: { ...event.failure, stack: undefined } } : {}
  return redact(JSON.stringify({ time: new Date().toISOString(), ...event, ...told }))
}

const COLOURS: Record<string, string> = {
  ok: '32',
  changed: '33',
  change: '33',
  failed: '31',
  warning: '35',
  unknown: '36',
  differs: '33',
  waiting: '35',
}

type Live = { since: number; waitingFor: string }

/** The same lines, and below them one live line for each step that is running: what it waits for, for how long. */
export function terminal(out: NodeJS.WriteStream, verbose: boolean, colour: boolean): Presentation {
  const running = new Map<string, Live>()
  let drawn = 0
  let timer: NodeJS.Timeout | undefined
  const erase = () => {
    if (drawn > 0) out.write(`\x1b[${drawn}A\x1b[J`)
    drawn = 0
  }
  const draw = () => {
    erase()
    // No more than the screen holds, or what has scrolled away could not be erased. Who waits for a turn comes last.
    const room = Math.max(3, (out.rows || 24) - 4)
    const queued = ([, { waitingFor }]: [string, Live]) => Number(waitingFor === ITS_TURN)
    const lines = [...running].sort((a, b) => queued(a) - queued(b))
    for (const [step, { since, waitingFor }] of lines.slice(0, room)) {
      const elapsed = time((performance.now() - since) / 1000)
      const line = `${row('…', step)}  ${elapsed}${waitingFor ? `  ${waitingFor}` : ''}`
      out.write(
        `${redact(line)
          .replaceAll('\n', ' ')
          .slice(0, (out.columns || 80) - 1)}\n`,
      )
      drawn++
    }
    if (lines.length > room) {
      out.write(`${row('…', `and ${lines.length - room} more`)}\n`)
      drawn++
    }
  }
  const painted = (line: string) => {
    const code = COLOURS[/^\S+/.exec(line)?.[0] ?? '']
    return colour && code ? line.replace(/^\S+/, (word) => `\x1b[${code}m${word}\x1b[0m`) : line
  }
  return {
    emit: (event) => {
      if (event.event === 'step started') running.set(event.step, { since: performance.now(), waitingFor: '' })
      if (event.event === 'step waiting') {
        const one = running.get(event.step)
        if (one) one.waitingFor = event.for
      }
      if (event.event === 'step finished') running.delete(event.step)
      // All have been looked at; from here on each begins when those that it rests on are done.
      if (event.event === 'lock taken') running.clear()
      erase()
      for (const line of linesOf(event, verbose)) out.write(`${painted(redact(line))}\n`)
      draw()
      if (running.size > 0) timer ??= setInterval(draw, 200).unref()
    },
    close: () => {
      erase()
      clearInterval(timer)
      timer = undefined
    },
  }
}
