// The engine: brings reality to what the steps say, or tells what that would take. A step is data; its check looks,
// its apply is the only thing that writes, and its check decides again whether that came true.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Emit, Status } from './events.ts'
import { EXIT, Failure, tell } from './failure.ts'

/** How reality differs from a step: the lines a person is shown, and whatever apply needs to know. */
export type Drift = {
  /** one line per difference: 'CREATE DATABASE …', 'create digitalocean_vpc.main' */
  lines: string[]
  /** a question that must be answered with yes first, for what costs money: 'This will cost $116 a month. Go on?' */
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

/**
 * Checks only read, so all of them start at once; one is repeated in its turn when anything it needs was applied since.
 *
 * @param steps in the order of the procedure
 * @param options.ready resolves when a write is allowed: nothing is applied before
 * @param options.plan only look: steps that differ are a `change`; one that rests on such a step and cannot be seen to
 *   differ is `unknown`, never ok
 * @param options.beforeWriting called once before the first apply: takes the lock, after which the step is checked
 *   again, since another run may have held it until now
 * @param options.confirm asks a person; throws where nobody can be asked
 * @returns how many steps came out how, and the exit code; it does not throw for a step that failed
 */
export async function converge(
  steps: readonly AnyStep[],
  options: {
    plan: boolean
    emit: Emit
    signal: AbortSignal
    ready?: Promise<void>
    beforeWriting: () => Promise<void>
    confirm: (question: string) => Promise<boolean>
  },
): Promise<Outcome> {
  const { plan, emit, signal, ready, confirm } = options
  ready?.catch(() => {}) // told by whoever made it; here it only stops what would write
  /** when this run took the lock; what was seen before may have been changed by another run since */
  let locked: Promise<number> | undefined
  let failedWith: number = EXIT.failed
  emit({ event: 'steps', steps: steps.map((one) => one.title) })
  const ends = new Map<AnyStep, Promise<End>>()
  for (const [index, one] of steps.entries()) {
    const previous = steps[index - 1]
    const needs = one.needs ?? (previous ? [previous] : [])
    const before = needs.map((need) => {
      const end = ends.get(need)
      if (!end) throw new Error(`'${one.title}' needs '${need.title}', which does not come before it`)
      return end
    })
    ends.set(one, follow(one, before))
  }
  const counts: Partial<Record<Status, number>> = {}
  for (const { status } of await Promise.all(ends.values())) counts[status] = (counts[status] ?? 0) + 1
  const exit = signal.aborted
    ? EXIT.interrupted
    : counts.failed
      ? failedWith
      : counts.change || counts.unknown
        ? EXIT.changesPlanned
        : EXIT.converged
  return { counts, exit }

  async function follow(one: AnyStep, needs: Promise<End>[]): Promise<End> {
    emit({ event: 'step started', step: one.title })
    const work: Work = { signal, waitingFor: (what) => emit({ event: 'step waiting', step: one.title, for: what }) }
    const early = look(one, work)
    const before = await Promise.all(needs)
    const started = performance.now()
    const touched = before.some((end) => end.touched || end.status === 'changed')
    const rests = before.some(({ status }) => status === 'change' || status === 'unknown')
    const finish = (status: Status, drift?: Drift, error?: unknown): End => {
      emit({
        event: 'step finished',
        step: one.title,
        status,
        seconds: (performance.now() - started) / 1000,
        ...(drift ? { drift: drift.lines } : {}),
        ...(error === undefined ? {} : { failure: tell(error) }),
      })
      return { status, touched }
    }
    const seen = await early
    if (before.some(({ status }) => status === 'failed' || status === 'not run') || signal.aborted)
      return finish('not run')
    try {
      // What could not be looked at before the lock may be there now: another run that held it has made it.
      const stale = touched || (seen.error !== undefined && locked !== undefined && seen.since < (await locked))
      const { drift, error, since } = stale ? await look(one, work) : seen
      if (error !== undefined) {
        if (plan && rests && error instanceof Failure && error.notYet) return finish('unknown')
        throw error
      }
      if (plan) return finish(drift ? 'change' : rests ? 'unknown' : 'ok', drift)
      const removed = drift && (await remove(one, drift, since, work))
      return removed ? finish('changed', removed) : finish('ok')
    } catch (error) {
      if (error instanceof Failure) failedWith = error.exit
      return finish('failed', undefined, error)
    }
  }

  /** @returns the drift that was removed; undefined when another run had removed it before this one had the lock */
  async function remove(one: AnyStep, seen: Drift, since: number, work: Work): Promise<Drift | undefined> {
    await ready
    let drift: Drift | undefined = seen
    if (!one.beforeLock) {
      locked ??= options.beforeWriting().then(() => performance.now())
      if (since < (await locked)) drift = await one.check(work)
    }
    if (!drift) return undefined
    const { lines, confirm: question } = drift
    emit({ event: 'step drifted', step: one.title, drift: lines, ...(question ? { confirm: question } : {}) })
    if (question && !(await confirm(question)))
      throw new Failure({ found: 'the answer was not yes, so nothing was done', next: 'run again when it is' })
    signal.throwIfAborted()
    await one.apply(drift, work)
    const rest = await comesTrue(one, work)
    if (rest)
      throw new Failure({
        found: `applied, and still: ${rest.lines.join('; ')}`,
        expected: one.title,
        next: 'run it again with --verbose, which shows every command and its output',
      })
    return drift
  }
}

/** How a step ended, and whether anything that it rests on was applied in this run. */
type End = { status: Status; touched: boolean }

/** A check's answer as a value: it may be looked at much later, or never. */
async function look(one: AnyStep, work: Work): Promise<{ since: number; drift?: Drift; error?: unknown }> {
  const since = performance.now()
  try {
    const drift: Drift | undefined = await one.check(work)
    return drift ? { since, drift } : { since }
  } catch (error) {
    return { since, error }
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
