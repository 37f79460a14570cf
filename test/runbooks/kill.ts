// What the kill loops share: a run that is killed at an event of its own, and what the next ones then have to say.
import { readdirSync } from 'node:fs'
import * as assert from 'uvu/assert'
import { must, type Operator, plant, start, type TimedEvent, watch } from './operator.ts'

/**
 * From now on a run takes a second to give its lock back, so that one which has just finished can still be killed.
 *
 * @param lock where its lock lies
 */
export const lingers = (operator: Operator, lock = 'lock') =>
  plant(operator, { api: 'spaces', method: 'PUT', path: `/${lock}/` }, { delay_ms: 1000 })

/** Starts the runbook and kills it, children excepted, at the first event that fits. @returns whether it came to that */
export async function killAt(
  operator: Operator,
  fits: (event: TimedEvent) => boolean,
  runbook: string,
  ...args: string[]
): Promise<boolean> {
  const started = start(operator, runbook, ...args, '--json')
  watch(started, (event) => {
    if (fits(event)) started.child.kill('SIGKILL')
  })
  return (await started.ended).signal === 'SIGKILL'
}

/** Of what a step waits for: so many of it it is killed at. */
const WAITS = 2

/**
 * Kills the runbook at every step's beginning, within it when it begins to wait for something, and at its end, one run at
 * each, every run going on from where the one before was killed, until one has nothing left to be killed at.
 *
 * @returns how many runs were killed, and the steps that each of them had begun to apply; throws where a run ends in
 *   another way before it has converged
 */
export async function killedAtEveryStep(
  operator: Operator,
  runbook: string,
  ...args: string[]
): Promise<{ kills: number; begun: Set<string> }> {
  const moments = new Set<string>()
  const begun = new Set<string>()
  const waits = new Map<string, number>()
  for (let kills = 0; kills < 200; kills++) {
    const started = start(operator, runbook, ...args, '--json')
    let isKilled = false
    let isLocked = false
    watch(started, (event) => {
      if (event.event === 'lock taken') isLocked = true
      const isWaiting = event.event === 'step waiting' && isLocked
      if (event.event === 'step drifted' || (event.event === 'step finished' && event.status === 'changed'))
        begun.add(event.step)
      else if (!isWaiting) return
      const moment = `${event.event} ${event.step}${isWaiting ? `: ${event.for}` : ''}`
      if (isKilled || moments.has(moment)) return
      if (isWaiting && (waits.get(event.step) ?? 0) >= WAITS) return
      if (isWaiting) waits.set(event.step, (waits.get(event.step) ?? 0) + 1)
      isKilled = started.child.kill('SIGKILL')
      moments.add(moment)
    })
    const { code, signal, stdout, stderr } = await started.ended
    if (signal === 'SIGKILL') continue
    assert.is(code, 0, `after it was killed at ‘${[...moments].at(-1)}’:\n${stdout}${stderr}`)
    return { kills, begun }
  }
  throw new Error(`it never came to an end: ${[...moments].join('; ')}`)
}

/** The next run has to succeed, the one after that to find nothing to do, and neither to leave anything behind. */
export async function convergedAfter(operator: Operator, runbook: string, ...args: string[]): Promise<void> {
  await must(operator, runbook, ...args)
  assert.match(await must(operator, runbook, ...args), / ok, 0 changed/, 'the run after that still changed something')
  const left = readdirSync(operator.kept).filter((name) => name.startsWith('scratch-'))
  assert.equal(left, [], 'a scratch folder was left')
}
