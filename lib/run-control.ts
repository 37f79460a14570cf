// One run of a runbook: its journal, its lock, its children, who may be asked and who interrupts it; and nothing left behind.
import { setMaxListeners } from 'node:events'
import { appendFileSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Arguments } from './arguments.ts'
import { answerTo } from './ask.ts'
import { readCredentials } from './credentials.ts'
import type { Emit, RunEvent } from './events.ts'
import { createExec, type ExecOptions } from './exec.ts'
import { EXIT, Failure, misuse, oneLine, tell } from './failure.ts'
import { type Lock, takeLock } from './lock.ts'
import { createPipe } from './pipe.ts'
import { jsonLine, type Presentation } from './presentation.ts'
import { once, type Run } from './run.ts'
import type { Report, Runbook } from './runbook.ts'
import { makeScratch, removeIfEmpty } from './scratch.ts'
import { loadSite } from './site.ts'
import { openSpaces } from './spaces.ts'

/** Seconds that what still runs at the end of a run gets to finish. */
const GRACE = 20

/** What carrying out needs beside the run: the lock, and who to ask. */
export type Control = {
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

/**
 * Sets a run up from its arguments, and tidies up behind it however it ends.
 *
 * @param show what tells the run's events to whoever started it
 * @param work gets the run; what it throws is told
 * @returns the exit code
 */
export async function withRun(
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
  const open: (() => Promise<void>)[] = []
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
    atEnd: (close) => void open.push(close),
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
    await Promise.allSettled(open.map((close) => close()))
    await lock?.release().catch(() => {}) // then it is passed by like that of a run that died
    rmSync(scratch, { recursive: true, force: true })
    for (const folder of made) removeIfEmpty(folder)
    for (const name of signals) process.off(name, interrupted)
  }
}

const stamp = () =>
  new Date()
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(':', '-')
