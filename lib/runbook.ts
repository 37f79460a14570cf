// What makes a runbook an executable: its command line, preflight, steps, and the exit code.
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Arguments, CHANGING, COMMON, helpText, parseArguments, type Usage } from './arguments.ts'
import { type AnyStep, converge, stepsUntil } from './converge.ts'
import type { Emit, RunEvent } from './events.ts'
import { EXIT, Failure, type Told, tell } from './failure.ts'
import { json, type Presentation, plain, terminal } from './presentation.ts'
import type { Run } from './run.ts'
import { type Control, withRun } from './run-control.ts'
import { redact } from './secret.ts'

/** Something that has to be so before a run may start; throws a Failure where it is not. */
export type Precondition = { title: string; check: () => Promise<void> }

/** What a run is made of: what must be so first, and the steps. */
export type Procedure = {
  preflight: readonly Precondition[]
  steps: readonly AnyStep[]
  /** a word that a person has to type before anything is written, for what cannot be taken back */
  retype?: { question: string; word: string }
  /** told at the end of a run that succeeded */
  afterwards?: readonly string[]
  /** called at the end of a run that went to its end, or whose preflight has failed; what it tells are warnings */
  ended?: (exit: number) => Promise<void>
}

export type Runbook = Usage & {
  procedure: (run: Run, given: Arguments) => Procedure | Promise<Procedure>
  /** name of the lock that it takes; without it the site's own, for what changes the platform */
  lock?: (given: Arguments) => string
}

/** What a report shows: lines for people, a value for programs, and an exit code where that is not 0. */
export type Shown = { lines: string[]; value: unknown; exit?: number }

/** A runbook that only shows something. */
export type Report = Usage & { report: (run: Run, given: Arguments) => Promise<Shown> }

/** @returns the runbook with the options that every changing runbook has */
export const runbook = (declared: Runbook): Runbook => ({
  ...declared,
  options: { ...declared.options, ...CHANGING, ...COMMON },
})

/** @returns the report with the options that every runbook has */
export const report = (declared: Report): Report => ({ ...declared, options: { ...declared.options, ...COMMON } })

/**
 * Runs it when its file is the one that was started; does nothing when it was imported.
 *
 * @param url import.meta.url of the runbook's file
 */
export function startedAs(url: string, it: Runbook | Report): void {
  const started = process.argv[1]
  if (!started || realpathSync(started) !== realpathSync(fileURLToPath(url))) return
  // Whoever reads our output may stop reading; the run goes on. That it could not be written is a failure.
  let unwritten = 0
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (code !== 'EPIPE') process.exitCode = unwritten = EXIT.failed
    })
  void main(it, process.argv.slice(2), process.env).then((code) => {
    process.exitCode = code || unwritten
  })
}

async function main(it: Runbook | Report, words: string[], environment: NodeJS.ProcessEnv): Promise<number> {
  const asked = (option: string) => words.includes(`--${option}`)
  const verbose = asked('verbose')
  const show = present(asked('json'), verbose, environment)
  try {
    const given = parseArguments(it, words)
    if (given.help) {
      process.stdout.write(helpText(it))
      return EXIT.converged
    }
    return await withRun(it, given, environment, show, (run, control) =>
      'procedure' in it ? carryOut(it, run, given, control) : tellReport(it, run, given),
    )
  } catch (error) {
    show.close()
    show.emit({ event: 'run failed', failure: tell(error) })
    return error instanceof Failure ? error.exit : EXIT.failed
  } finally {
    show.close()
  }
}

function present(asJson: boolean, verbose: boolean, environment: NodeJS.ProcessEnv): Presentation {
  if (asJson) return json(process.stdout)
  return process.stdout.isTTY && environment.TERM !== 'dumb'
    ? terminal(process.stdout, verbose, !environment.NO_COLOR)
    : plain(process.stdout, process.stderr, verbose)
}

async function carryOut(it: Runbook, run: Run, given: Arguments, control: Control): Promise<number> {
  const { emit, signal, site, plan } = run
  const { positionals = {} } = it
  const finish = (counts: Parameters<typeof emit>[0] & { event: 'run finished' }) => {
    emit(counts)
    return counts.exit
  }
  const seconds = () => (performance.now() - control.started) / 1000
  const log = control.log ? { log: control.log } : {}
  const { preflight, steps, retype, afterwards = [], ended } = await it.procedure(run, given)
  const wanted = given.until ? stepsUntil(steps, given.until) : steps
  emit({
    event: 'run started',
    runbook: it.name,
    site: site.file,
    arguments: Object.fromEntries(Object.keys(positionals).map((name) => [name, given[name] ?? ''])),
    plan,
  })
  // The steps look at reality meanwhile; what they see is told, and anything written, only when the preflight has passed.
  const held: RunEvent[] = []
  let hold = true
  let tellPassed = (_passed: boolean) => {}
  const passed = new Promise<boolean>((resolve) => {
    tellPassed = resolve
  })
  const converged = converge(wanted, {
    plan,
    emit: (event) => (hold && event.event === 'step finished' ? held.push(event) : emit(event)),
    signal,
    preflight: async () => {
      const ok = await check(preflight, emit)
      tellPassed(ok)
      if (!ok) throw new Error('the preflight has failed')
    },
    lock: async () => {
      // Before the lock: others need not wait for somebody who thinks it over.
      if (retype && !(await control.retype(retype.question, retype.word)))
        throw new Failure({
          found: `what was typed is not ${retype.word}, so nothing was done`,
          next: 'run it again when it is to be done',
        })
      await control.lock()
    },
    confirm: control.confirm,
  })
  converged.catch(() => {}) // told where it is waited for
  if (!(await passed)) {
    const exit = signal.aborted ? EXIT.interrupted : EXIT.failed
    control.abandon()
    await converged.catch(() => {})
    if (!plan && exit === EXIT.failed && wanted === steps) await ended?.(exit).catch(() => {}) // why is told already
    return finish({ event: 'run finished', counts: {}, exit, seconds: seconds(), ...log })
  }
  hold = false
  held.forEach(emit)
  const { counts, exit } = await converged
  if (!plan && !signal.aborted && wanted === steps) await ended?.(exit)
  const code = finish({ event: 'run finished', counts, exit, seconds: seconds(), ...log })
  if (code === EXIT.converged && wanted === steps && !given.json)
    for (const line of afterwards) process.stdout.write(`${redact(line)}\n`)
  return code
}

/** Looks at everything side by side and tells all that is wrong at once. @returns whether nothing was */
async function check(preconditions: readonly Precondition[], emit: Emit): Promise<boolean> {
  const started = performance.now()
  const results = await Promise.allSettled(preconditions.map(({ check }) => check()))
  const failed: ({ title: string } & Told)[] = []
  for (const [index, result] of results.entries()) {
    if (result.status === 'fulfilled') continue
    const { title } = preconditions[index]!
    const told = tell(result.reason)
    const same = failed.find(({ found }) => found === told.found) // one cause, such as a provider out of reach
    if (same) same.title += `; ${title}`
    else failed.push({ title, ...told })
  }
  const passed = preconditions.flatMap(({ title }, index) => (results[index]!.status === 'fulfilled' ? [title] : []))
  emit({ event: 'preflight finished', passed, failed, seconds: (performance.now() - started) / 1000 })
  return failed.length === 0
}

async function tellReport(it: Report, run: Run, given: Arguments): Promise<number> {
  const { lines, value, exit = EXIT.converged } = await it.report(run, given)
  process.stdout.write(given.json ? `${redact(JSON.stringify(value, null, 2))}\n` : `${lines.map(redact).join('\n')}\n`)
  return exit
}
