// What makes a runbook an executable: its command line, site and credentials, preflight, lock, steps, journal, and the
// exit code.
import { setMaxListeners } from 'node:events'
import { appendFileSync, existsSync, mkdirSync, realpathSync, rmSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Arguments, CHANGING, COMMON, helpText, parseArguments, type Usage } from './arguments.ts'
import { answerTo } from './ask.ts'
import { type AnyStep, converge, stepsUntil } from './converge.ts'
import { readCredentials } from './credentials.ts'
import type { Emit, RunEvent } from './events.ts'
import { createExec, type ExecOptions } from './exec.ts'
import { EXIT, Failure, misuse, oneLine, type Told, tell } from './failure.ts'
import { type Lock, takeLock } from './lock.ts'
import { createPipe } from './pipe.ts'
import { json, jsonLine, type Presentation, plain, terminal } from './presentation.ts'
import { once, type Run } from './run.ts'
import { makeScratch, removeIfEmpty } from './scratch.ts'
import { redact } from './secret.ts'
import { loadSite } from './site.ts'
import { openSpaces } from './spaces.ts'

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

/** Seconds that what still runs at the end of a run gets to finish. */
const GRACE = 20

/** What carrying out needs beside the run: the lock, and who to ask. */
type Control = {
  lock: () => Promise<void>
  confirm: (question: string) => Promise<boolean>
  /** @returns whether a person typed the word; throws where nobody can be asked */
  retype: (question: string, word: string) => Promise<boolean>
  /** ends what is only reading */
  abandon: () => void
  /** path of the run's log, as it is told; undefined under --plan, which writes none */
  log: string | undefined
  started: number
}

/** Sets a run up from its arguments, and tidies up behind it however it ends. */
async function withRun(
  it: Runbook | Report,
  given: Arguments,
  environment: NodeJS.ProcessEnv,
  show: Presentation,
  work: (run: Run, control: Control) => Promise<number>,
): Promise<number> {
  const started = performance.now()
  const site = loadSite(given.site, environment)
  const credentials = readCredentials(environment, site.region)
  const plan = 'report' in it || given.plan === 'true'
  const interruption = new AbortController()
  const end = new AbortController()
  setMaxListeners(0, interruption.signal, end.signal) // one for each child, and there may be a hundred
  // Under --plan nothing may be left behind, not even an empty folder.
  const made = plan ? [site.directory, dirname(site.directory)].filter((folder) => !existsSync(folder)) : []
  const scratch = makeScratch(site.directory)
  const journal = plan ? undefined : join(site.directory, 'runs', `${stamp()}-${it.name}-${process.pid}`)
  let unwritable = false
  const write = (ending: string, line: string) => {
    if (!journal || unwritable) return
    try {
      mkdirSync(dirname(journal), { recursive: true, mode: 0o700 })
      appendFileSync(`${journal}.${ending}`, `${line}\n`, { mode: 0o600 })
    } catch (error) {
      // To stop halfway would be worse than to have no log of it.
      unwritable = true
      show.emit({ event: 'warning', text: `${oneLine(tell(error))}. The run goes on, and its log ends here` })
    }
  }
  const emit: Emit = (event: RunEvent) => {
    show.emit(event)
    write('jsonl', jsonLine(event))
  }
  let lock: Lock | undefined
  const children: ExecOptions = {
    environment,
    signal: interruption.signal,
    kill: end.signal,
    log: (line) => {
      write('log', line)
      if (given.verbose && !given.json) process.stderr.write(`  | ${line}\n`)
    },
  }
  const [exec, pipe] = [createExec(children), createPipe(children)]
  const running = new Set<Promise<unknown>>()
  const busy = <T>(work: Promise<T>): Promise<T> => {
    const ended: Promise<void> = work.then(
      () => void running.delete(ended),
      () => void running.delete(ended),
    )
    running.add(ended)
    return work
  }
  const run: Run = {
    runbook: it.name,
    site,
    credentials,
    environment,
    emit,
    plan,
    scratch,
    signal: interruption.signal,
    exec: (command) => busy(exec(command)),
    pipe: (pipeline) => {
      const piped = pipe(pipeline)
      void busy(piped.ended)
      return piped
    },
    spaces: once(() => openSpaces(credentials.spaces)),
    locked: () => lock !== undefined,
  }
  let interruptions = 0
  let lost = false
  const interrupted = () => {
    interruptions++
    const told = [
      'interrupted: what is running is asked to finish',
      'still finishing: Terraform writes down what it has made, which is lost when it is ended by force. Once more does that',
    ][interruptions - 1]
    if (told) emit({ event: 'warning', text: told })
    if (interruptions === 1) interruption.abort()
    if (!told) end.abort()
  }
  const ask = async (question: string, answers = '') => {
    if (!process.stdin.isTTY || !process.stdout.isTTY || given.json)
      throw misuse({
        found: `${question} Nobody can be asked here`,
        expected: '--yes',
        next: 'look with --plan, then run it with --yes',
      })
    show.close()
    return answerTo(`${question}${answers} `, interrupted)
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, interrupted)
  try {
    const code = await work(run, {
      started,
      abandon: () => interruption.abort(),
      log: journal && `${journal.startsWith(`${process.cwd()}/`) ? relative(process.cwd(), journal) : journal}.log`,
      lock: async () => {
        lock = await takeLock(await run.spaces(), site.buckets.state, {
          name: 'lock' in it ? (it.lock?.(given) ?? '') : '',
          directory: site.directory,
          runbook: [it.name, ...Object.keys(it.positionals ?? {}).map((name) => given[name])].join(' '),
          wait: Number(given.wait ?? 900),
          signal: interruption.signal,
          onWaiting: (holder) => emit({ event: 'lock waiting', holder }),
          onLost: (reason) => {
            emit({ event: 'warning', text: `${reason}, so this run stops` })
            lost = true
            interruption.abort()
          },
        })
      },
      confirm: async (question) => given.yes !== undefined || /^y(es)?$/i.test(await ask(question, ' [y/N]')),
      retype: async (question, word) => given.yes !== undefined || (await ask(question)).trim() === word,
    })
    return lost ? EXIT.locked : code
  } catch (error) {
    if (interruption.signal.aborted) return lost ? EXIT.locked : EXIT.interrupted
    show.close()
    // Wrong use leaves nothing behind, not even a journal.
    const tellIt = error instanceof Failure && error.exit === EXIT.usage ? show.emit : emit
    tellIt({ event: 'run failed', failure: tell(error) })
    return error instanceof Failure ? error.exit : EXIT.failed
  } finally {
    // What one failure has left at work must not go on in a folder that is gone.
    interruption.abort()
    await Promise.race([Promise.all(running), sleep(GRACE * 1000, undefined, { ref: false })])
    end.abort()
    await Promise.all(running)
    await lock?.release().catch(() => {}) // then it is passed by like that of a run that died
    rmSync(scratch, { recursive: true, force: true })
    for (const folder of made) removeIfEmpty(folder)
    for (const name of signals) process.off(name, interrupted)
  }
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

const stamp = () =>
  new Date()
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-')
