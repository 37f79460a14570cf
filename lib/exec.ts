// Runs a process, which nothing but this and pipe.ts does: with a time limit, cancelled with the run, its output logged without secrets,
// and its last lines told when it fails.
import { closeSync, openSync, readSync, watch } from 'node:fs'
import { PassThrough, type Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { StringDecoder } from 'node:string_decoder'
import { $ } from 'zx/core'
import { Failure } from './failure.ts'
import { redact } from './secret.ts'

export type Command = {
  /** the program and its arguments; never a secret: other users of the machine can read them */
  argv: readonly string[]
  /** added to the few variables that every child gets; the place for credentials */
  env?: Record<string, string>
  cwd?: string
  /** standard input; without it the child reads an empty one */
  input?: string
  /** seconds until it is ended, or if it outlives us asked to finish, and the command fails; 600 unless told */
  timeout?: number
  /** called with each line of standard output as it comes */
  onLine?: (line: string) => void
  /**
   * a file for its output, from which it is followed: a program that writes to us dies with us, and one that is making
   * things must not
   */
  outlives?: string
  /** called with the process id as soon as there is one */
  onStart?: (pid: number) => void
  /** false for output that holds secrets of its own: it is neither logged nor told when the command fails */
  shown?: boolean
  /** exit codes that are answers and not failures; [0] unless told */
  codes?: readonly number[]
  /** aborted when it has said enough: it is ended, which is no failure then */
  enough?: AbortSignal
  /** one command that helps when this one fails */
  next?: string
}

export type Output = { code: number; stdout: string; stderr: string }

export type Exec = (command: Command) => Promise<Output>

/** What a child needs to find its programs, its home, the network and an SSH agent; nothing else is handed down. */
const HANDED_DOWN =
  /^(PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TERM|TZ|TMPDIR|SHELL|SSH_AUTH_SOCK|PGHOSTADDR|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|GIT_CONFIG_(COUNT|(KEY|VALUE)_\d+))$/

export type ExecOptions = {
  environment: Record<string, string | undefined>
  signal?: AbortSignal
  kill?: AbortSignal
  log?: (line: string) => void
}

export const handedDown = (environment: ExecOptions['environment']) =>
  Object.fromEntries(
    Object.entries(environment).filter(
      (entry): entry is [string, string] => HANDED_DOWN.test(entry[0]) && entry[1] !== undefined,
    ),
  )

/**
 * @param environment the variables of the run, of which a child gets the harmless ones
 * @param signal aborted when the run is interrupted: the first time the child is asked to finish (SIGINT, which
 *   Terraform and git answer by tidying up); `kill` aborted: it is ended at once
 * @param log takes every line of every child, secrets already masked
 * @returns the function that runs a command; it throws a Failure with the last 20 lines when the command fails
 */
export function createExec({ environment, signal, kill, log = () => {} }: ExecOptions): Exec {
  const inherited = handedDown(environment)
  return async function exec(command) {
    const {
      argv,
      env = {},
      cwd,
      input,
      timeout = 600,
      onLine,
      outlives,
      onStart,
      shown = true,
      codes = [0],
      enough,
      next,
    } = command
    const title = redact(argv.join(' '))
    if (signal?.aborted) throw new Failure({ found: `\`${title}\` was not started: the run is being interrupted` })
    log(`$ ${title}`)
    const file = outlives === undefined ? undefined : openSync(outlives, 'w', 0o600)
    const followed = outlives === undefined ? undefined : follow(outlives)
    // A group of its own: Ctrl-C reaches it once, from us, and not a second time from the terminal.
    const child = $({
      env: { ...inherited, ...env },
      ...(cwd ? { cwd } : {}),
      ...(input === undefined ? {} : { input }),
      stdio: [input === undefined ? 'ignore' : 'pipe', file ?? 'pipe', file ?? 'pipe'],
      detached: true,
      quiet: true,
      nothrow: true,
      prefix: 'exec ',
      shell: 'sh',
      quote: posixQuote,
    })`${argv}`
    if (child.pid) onStart?.(child.pid)
    const end = (name: NodeJS.Signals) => {
      try {
        if (child.pid) process.kill(-child.pid, name)
      } catch {} // it has ended by itself
    }
    const interrupt = () => end('SIGINT')
    const terminate = () => end('SIGKILL')
    signal?.addEventListener('abort', interrupt)
    kill?.addEventListener('abort', terminate)
    const suffices = () => end('SIGTERM')
    if (enough?.aborted) suffices()
    enough?.addEventListener('abort', suffices)
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      if (outlives !== undefined) return interrupt() // it has to write down what it has made
      end('SIGTERM')
      setTimeout(terminate, 10_000).unref()
    }, timeout * 1000)
    const streams = followed ? [followed.stream] : [child.stdout, child.stderr]
    if (onLine) eachLine(streams[0]!, onLine)
    for (const stream of shown ? streams : streams.slice(1)) eachLine(stream, (line) => log(redact(line)))
    try {
      const { exitCode, stdout, stderr } = await child
      await followed?.end()
      const code = exitCode ?? -1
      const sufficed = enough?.aborted && !signal?.aborted
      if ((codes.includes(code) || sufficed) && !timedOut) return { code, stdout, stderr }
      const reason = signal?.aborted
        ? 'was interrupted'
        : timedOut
          ? `did not end within ${timeout} s`
          : code === 127 && stderr.includes('not found')
            ? 'could not be started: there is no such program'
            : `exited ${code}`
      throw new Failure({
        found: `\`${title}\` ${reason}${lastLines(stderr.trim() || (shown ? stdout : ''))}`,
        ...(code === 127 ? { next: `install ${argv[0]}` } : next ? { next } : {}),
      })
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', interrupt)
      kill?.removeEventListener('abort', terminate)
      enough?.removeEventListener('abort', suffices)
      if (file !== undefined) closeSync(file)
    }
  }
}

/** @returns what is written to the file, as it is written; `end` waits for the rest of it */
function follow(path: string): { stream: Readable; end: () => Promise<void> } {
  const stream = new PassThrough()
  const file = openSync(path, 'r')
  const buffer = Buffer.alloc(65_536)
  const read = () => {
    for (let count = readSync(file, buffer); count > 0; count = readSync(file, buffer))
      stream.write(Buffer.from(buffer.subarray(0, count)))
  }
  const watcher = watch(path, read)
  return {
    stream,
    end: async () => {
      watcher.close()
      read()
      closeSync(file)
      stream.end()
      await finished(stream)
    },
  }
}

/** zx quotes for bash; this holds in every shell. */
export const posixQuote = (argument: string) => `'${argument.replaceAll("'", "'\\''")}'`

/** @returns the last 20 lines, each without secrets, to be put behind what failed */
export const lastLines = (output: string) => {
  const lines = redact(output).trim().split('\n').slice(-20)
  return lines[0] ? `:\n${lines.join('\n')}` : ''
}

/** Calls back with each line as it comes, the last one also where nothing ends it. */
export function eachLine(stream: Readable, take: (line: string) => void): void {
  const decoder = new StringDecoder()
  let rest = ''
  stream.on('data', (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) take(line)
  })
  stream.on('end', () => {
    if (rest) take(rest)
  })
}
