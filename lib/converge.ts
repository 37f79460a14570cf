// The engine: brings reality to what the steps say, or tells what that would take. A step is data; its check looks,
// its apply is the only thing that writes, and its check decides again whether that came true.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Emit, Status } from './events.ts'
import { EXIT, Failure, tell } from './failure.ts'

/** How reality differs from a step: the lines a person is shown, and whatever apply needs to know. */
export type Drift = {
  /** one line per difference: 'CREATE DATABASE …', 'create digitalocean_vpc.main' */
  lines: string[]
  /** a question that must be answered with yes first, for what costs money or is hard to undo */
  confirm?: string
}

/** What a step may use while it works. */
export type Work = {
  /** aborted when the run is interrupted */
  signal: AbortSignal
  /** tells what is being waited for: 'image pull' */
  waitingFor: (what: string) => void
}

export type Step<D extends Drift = Drift> = {
  /** a fact that is true once the step is done: 'database customer_acme exists' */
  title: string
  /** reads only; undefined: nothing to do */
  check: (work: Work) => Promise<D | undefined>
  /** writes only what the drift says */
  apply: (drift: D, work: Work) => Promise<void>
  /** steps that must be done before; without it, the step before in the list. Independent steps run side by side */
  needs?: readonly AnyStep[]
  /** true for the one step whose check takes longest: the others' begin when it is under way and waits for something */
  first?: boolean
  /** true for the one step that makes the lock's own place: two runs may apply it at once */
  beforeLock?: boolean
  /** seconds that the check after apply may take to come true; 0 unless told */
  within?: number
}

// biome-ignore lint/suspicious/noExplicitAny: a list holds steps of different drifts, each of which only meets its own
export type AnyStep = Step<any>

/** @returns the step itself; only so that its drift's type is worked out */
export const step = <D extends Drift>(it: Step<D>): Step<D> => it

export type Outcome = { counts: Partial<Record<Status, number>>; exit: number }

/** How a step came out, and what to tell of it. */
type Result = { status: Status; drift?: Drift; error?: unknown; seconds: number }

/** A step's result, and whether anything that it rests on was applied in this run. */
type End = Result & { touched: boolean }

/**
 * Looks at everything first, without the lock. Only where something differs it takes the lock, and then looks anew at
 * all of it: whoever held the lock until then may have changed anything.
 *
 * @param steps in the order of the procedure
 * @param options.preflight called when the longest check is under way; where it rejects, nothing is written
 * @param options.plan only look: steps that differ are a `change`; one that rests on such a step and cannot be seen to
 *   differ is `unknown`, never ok
 * @param options.lock called once, before the first write
 * @param options.confirm asks a person; throws where nobody can be asked
 * @returns how many steps came out how, and the exit code; it does not throw for a step that failed, but where the lock
 *   cannot be had
 */
export async function converge(
  steps: readonly AnyStep[],
  options: {
    plan: boolean
    emit: Emit
    signal: AbortSignal
    preflight?: () => Promise<void>
    lock: () => Promise<void>
    confirm: (question: string) => Promise<boolean>
  },
): Promise<Outcome> {
  const { plan, emit, signal } = options
  emit({ event: 'steps', steps: steps.map((one) => one.title) })
  const first = steps.find((one) => one.first)
  let begin = () => {}
  const underWay = new Promise<void>((resolve) => {
    begin = resolve
  })
  if (!first) begin()
  const ready = underWay.then(options.preflight)
  ready.catch(() => {}) // told by the preflight itself; here it only stops what would write
  const watching: Pass = {
    ...options,
    emit: (event) => {
      if (event.event === 'step waiting' && event.step === first?.title) begin()
      emit(event)
    },
  }
  const seen = await inOrder(steps, async (one, before) => {
    if (one !== first) await underWay
    return look(one, before, one === first ? watching : options, begin)
  })
  const differs = [...seen.values()].some(({ status }) => status === 'change')
  if (plan || !differs || signal.aborted) {
    for (const [one, end] of seen) tellEnd(emit, one, end)
    return outcomeOf([...seen.values()], signal)
  }
  await ready
  const done = new Map<AnyStep, Promise<End>>()
  for (const one of steps.filter(({ beforeLock }) => beforeLock)) {
    done.set(one, settle(one, [], options))
    await done.get(one)
  }
  await options.lock()
  emit({ event: 'lock taken' })
  const ends = await inOrder(steps, (one, before) => done.get(one) ?? settle(one, before, options))
  return outcomeOf([...ends.values()], signal)
}

/** Starts every step at once, each with a promise of the ends of those that it needs. @returns all ends, in order */
async function inOrder(
  steps: readonly AnyStep[],
  work: (one: AnyStep, before: readonly Promise<End>[]) => Promise<End>,
): Promise<Map<AnyStep, End>> {
  const started = new Map<AnyStep, Promise<End>>()
  for (const [index, one] of steps.entries()) {
    const previous = steps[index - 1]
    const needs = one.needs ?? (previous ? [previous] : [])
    const before = needs.map((need) => {
      const end = started.get(need)
      if (!end) throw new Error(`'${one.title}' needs '${need.title}', which does not come before it`)
      return end
    })
    started.set(one, work(one, before))
  }
  const ends = new Map<AnyStep, End>()
  for (const [one, end] of started) ends.set(one, await end)
  return ends
}

type Pass = Pick<Parameters<typeof converge>[1], 'emit' | 'signal' | 'confirm'>

const workOf = (one: AnyStep, { emit, signal }: Pass): Work => ({
  signal,
  waitingFor: (what) => emit({ event: 'step waiting', step: one.title, for: what }),
})

/**
 * Checks only read, so a step's check does not wait for those that it needs.
 *
 * @param looked called when the check itself has ended
 */
async function look(one: AnyStep, before: readonly Promise<End>[], pass: Pass, looked: () => void): Promise<End> {
  pass.emit({ event: 'step started', step: one.title })
  const work = workOf(one, pass)
  const started = performance.now()
  let early = await attempt(one, work)
  looked()
  const needs = await Promise.all(before)
  const end = (status: Status, more: Partial<Result> = {}): End => ({
    status,
    ...more,
    seconds: (performance.now() - started) / 1000,
    touched: false,
  })
  if (pass.signal.aborted || isStopped(needs)) return end('not run')
  const rests = needs.some(({ status }) => status === 'change' || status === 'unknown')
  // It may only have been too early: another run may be at work, and have been waited for since.
  if (early.error !== undefined && needs.length > 0 && !rests) early = await attempt(one, work)
  const { drift, error } = early
  if (error !== undefined)
    return rests && error instanceof Failure && error.notYet ? end('unknown') : end('failed', { error })
  return drift ? end('change', { drift }) : end(rests ? 'unknown' : 'ok')
}

/** Looks, applies what differs, and looks again. */
async function settle(one: AnyStep, before: readonly Promise<End>[], pass: Pass): Promise<End> {
  const { emit, signal } = pass
  const work = workOf(one, pass)
  const early = attempt(one, work)
  const needs = await Promise.all(before)
  emit({ event: 'step started', step: one.title })
  const touched = needs.some((end) => end.touched || end.status === 'changed')
  const started = performance.now()
  let applying = false
  const finish = (status: Status, more: Partial<Result> = {}): End => {
    const end = { status, ...more, seconds: (performance.now() - started) / 1000, touched }
    tellEnd(emit, one, end)
    return end
  }
  const seen = await early
  if (signal.aborted || isStopped(needs)) return finish('not run')
  try {
    const { drift, error } = touched ? await attempt(one, work) : seen
    if (error !== undefined) throw error
    if (!drift) return finish('ok')
    const { lines, confirm: question } = drift
    emit({ event: 'step drifted', step: one.title, drift: lines, ...(question ? { confirm: question } : {}) })
    if (question && !(await pass.confirm(question)))
      throw new Failure({ found: 'the answer was not yes, so nothing was done', next: 'run again when it is' })
    signal.throwIfAborted()
    applying = true
    await one.apply(drift, work)
    const rest = await comesTrue(one, work)
    if (rest)
      throw new Failure({
        found: `applied, and still: ${rest.lines.join('; ')}`,
        expected: one.title,
        next: 'run it again with --verbose, which shows every command and its output',
      })
    return finish('changed', { drift })
  } catch (error) {
    return signal.aborted && !applying ? finish('not run') : finish('failed', { error })
  }
}

const isStopped = (needs: readonly End[]) => needs.some(({ status }) => status === 'failed' || status === 'not run')

function tellEnd(emit: Emit, one: AnyStep, { status, seconds, drift, error }: End): void {
  emit({
    event: 'step finished',
    step: one.title,
    status,
    seconds,
    ...(drift ? { drift: drift.lines } : {}),
    ...(error === undefined ? {} : { failure: tell(error) }),
  })
}

function outcomeOf(ends: readonly End[], signal: AbortSignal): Outcome {
  const counts: Partial<Record<Status, number>> = {}
  for (const { status } of ends) counts[status] = (counts[status] ?? 0) + 1
  const failure = ends.map(({ error }) => error).find((error) => error instanceof Failure)
  if (signal.aborted) return { counts, exit: EXIT.interrupted }
  if (counts.failed) return { counts, exit: failure?.exit ?? EXIT.failed }
  return { counts, exit: counts.change || counts.unknown ? EXIT.changesPlanned : EXIT.converged }
}

/** A check's answer as a value: it may be looked at much later, or never. */
async function attempt(one: AnyStep, work: Work): Promise<{ drift?: Drift; error?: unknown }> {
  try {
    const drift: Drift | undefined = await one.check(work)
    return drift ? { drift } : {}
  } catch (error) {
    return { error }
  }
}

/** Checks until nothing differs or the step's time is over, a little more seldom each time. */
async function comesTrue(one: AnyStep, work: Work): Promise<Drift | undefined> {
  const end = performance.now() + (one.within ?? 0) * 1000
  for (let pause = 100; ; pause = Math.min(pause * 1.5, 5000)) {
    const drift = await one.check(work)
    if (!drift || performance.now() + pause > end || work.signal.aborted) return drift
    work.waitingFor(drift.lines.join('; '))
    await sleep(pause, undefined, { signal: work.signal }).catch(() => {}) // aborted: one last look
  }
}

/**
 * @param until part of a step's title, in any case
 * @returns the steps up to that one and with it; throws when none or more than one fits
 */
export function stepsUntil(steps: readonly AnyStep[], until: string): readonly AnyStep[] {
  const exact = steps.findIndex((one) => one.title === until)
  const fitting = steps.flatMap((one, index) => (one.title.toLowerCase().includes(until.toLowerCase()) ? [index] : []))
  const last = exact >= 0 ? exact : fitting.length === 1 ? fitting[0]! : -1
  if (last < 0)
    throw new Failure({
      found: `--until "${until}" fits ${fitting.length === 0 ? 'no step' : `${fitting.length} steps`}`,
      expected: `one of: ${steps.map((one) => one.title).join(' | ')}`,
      exit: EXIT.usage,
    })
  return steps.slice(0, last + 1)
}
