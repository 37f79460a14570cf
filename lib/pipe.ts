// Runs programs one into the other. A shell connects them, since its pipes are the system's own: what flows from one to
// the next does not pass through this process. Each tells how it ended, which a shell's exit code does not.
import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { type ExecOptions, eachLine, handedDown, posixQuote } from './exec.ts'
import { Failure } from './failure.ts'
import { redact } from './secret.ts'

export type Pipeline = {
  /** each a program and its arguments; never a secret: other users of the machine can read them */
  commands: readonly (readonly string[])[]
  /** for all of them, added to the few variables that every child gets; the place for credentials */
  env?: Record<string, string>
  /** standard input of the first; without it that is empty */
  input?: Readable | Buffer
  /** seconds until they are ended and have failed */
  timeout: number
}

export type Piped = {
  /** standard output of the last; has to be read to its end */
  output: Readable
  /** resolves when all have exited 0; rejects with a Failure that names each that has not */
  ended: Promise<void>
  /** ends them all */
  stop: () => void
}

export type Pipe = (pipeline: Pipeline) => Piped

/** The descriptor on which the shell tells how each program ended: '1 0' for the second, exit code 0. */
const STATUSES = 3

/**
 * @param options as for createExec. Interrupted, the programs are ended: none of them has anything to tidy up
 * @returns the function that starts a pipeline
 */
export function createPipe({ environment, signal, log = () => {} }: ExecOptions): Pipe {
  const inherited = handedDown(environment)
  return function pipe({ commands, env = {}, input, timeout }) {
    const title = redact(commands.map((argv) => argv.join(' ')).join(' | '))
    log(`$ ${title}`)
    const parts = commands.map(
      (argv, index) => `{ ${argv.map(posixQuote).join(' ')} ${STATUSES}>&-; echo "${index} $?" >&${STATUSES}; }`,
    )
    const child = spawn('sh', ['-c', parts.join(' | ')], {
      env: { ...inherited, ...env },
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', 'pipe'],
      detached: true,
    })
    const stop = () => {
      try {
        if (child.pid) process.kill(-child.pid, 'SIGKILL')
      } catch {} // they have ended
    }
    signal?.addEventListener('abort', stop)
    if (signal?.aborted) stop()
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      stop()
    }, timeout * 1000)

    const [, output, errors, statuses] = child.stdio as unknown as [unknown, Readable, Readable, Readable]
    const told: string[] = []
    eachLine(errors, (line) => {
      log(redact(line))
      told.push(redact(line))
      if (told.length > 20) told.shift()
    })
    const codes = new Map<number, number>()
    eachLine(statuses, (line) => {
      const [index = -1, code = -1] = line.split(' ').map(Number)
      codes.set(index, code)
    })
    child.stdin?.on('error', () => {}) // a program that has failed no longer reads; its exit code tells
    if (Buffer.isBuffer(input)) child.stdin?.end(input)
    else if (input && child.stdin) {
      input.once('error', stop) // or the part that came would be taken for the whole
      input.pipe(child.stdin)
    }

    const failureOf = (): Failure | undefined => {
      const failed = commands.flatMap(([program], index) => {
        const code = codes.get(index)
        return code === 0 ? [] : [`${program} ${code === undefined ? 'was ended' : `exited ${code}`}`]
      })
      if (failed.length === 0) return undefined
      const reason = signal?.aborted
        ? 'was interrupted'
        : timedOut
          ? `did not end within ${timeout} s`
          : `failed: ${failed.join(', ')}`
      return new Failure({ found: `\`${title}\` ${reason}${told.length > 0 ? `:\n${told.join('\n')}` : ''}` })
    }
    const ended = new Promise<void>((resolve, reject) => {
      const settle = (error?: Error) => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', stop)
        const failure = error ? new Failure({ found: `\`${title}\` was not started: ${error.message}` }) : failureOf()
        if (failure) reject(failure)
        else resolve()
      }
      child.once('error', settle)
      child.once('close', () => settle())
    })
    ended.catch(() => {}) // told where it is waited for
    return { output, ended, stop }
  }
}
