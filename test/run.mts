// Runs the test files, each in a process of its own, and counts. `npm test -- --help` tells how.
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { oneLine, tell } from '../lib/failure.ts'
import { clusterObstacle, installClusterTools } from '../rehearsal/tools/cluster.ts'
import { thisMachine } from '../rehearsal/tools/machine.ts'
import { installTools, pathWith, REHEARSAL_TOOLS } from '../rehearsal/tools.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const DURATIONS = join(ROOT, 'node_modules', '.cache', 'lunarfront', 'test-durations.json')
/** Seconds a file gets to tidy up after it was told to end. */
const GRACE = 5

/** Files that need a real cluster. */
const CLUSTER_TEST = /\bcluster\.test\.ts$/

const USAGE = `npm test -- [--jobs N] [--limit SECONDS] [TEXT...]

Runs every test/**/*.test.ts, or those whose path contains one of the texts. One file alone, with its output:
node --import tsx test/X.test.ts

  --jobs N         files side by side; 2 unless told
  --limit SECONDS  a file that takes longer is ended, and has failed; 1800 unless told
  --in DIRECTORY   where the files are; test unless told`

type Options = { jobs: number; limit: number; directory: string; texts: string[] }

/** A file that cannot be run on this machine says so, and why: it is neither passed nor failed. */
type Result = { passed: number; failed: number; seconds: number; output: string; reason?: string; notRun?: string }

const running = new Set<ChildProcess>()

/** @returns the options; undefined where only help was asked for; throws on wrong use */
function readOptions(args: string[]): Options | undefined {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      jobs: { type: 'string', default: '2' },
      limit: { type: 'string', default: '1800' },
      in: { type: 'string', default: join(ROOT, 'test') },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  const whole = (name: 'jobs' | 'limit') => {
    if (!/^[1-9][0-9]*$/.test(values[name]))
      throw new Error(`--${name} must be a whole number from 1, not ${values[name]}`)
    return Number(values[name])
  }
  return { jobs: whole('jobs'), limit: whole('limit'), directory: values.in, texts: positionals }
}

async function findFiles({ directory, texts }: Options): Promise<string[]> {
  const files = (await readdir(directory, { recursive: true }))
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => join(directory, file))
    .filter((file) => texts.length === 0 || texts.some((text) => relative(ROOT, file).includes(text)))
    .sort()
    .reverse()
  // The longest first, so that none of them is left to run alone at the end. Where that is not known yet: those in
  // folders, since they start servers.
  const known = readDurations()
  const depth = (file: string) => relative(ROOT, file).split('/').length
  const length = (file: string) => known[relative(ROOT, file)] ?? depth(file) * 1000
  return files.sort((one, other) => length(other) - length(one))
}

/** Runs one file to its end, with everything it started. */
function runFile(file: string, limit: number, environment: NodeJS.ProcessEnv): Promise<Result> {
  // Into a file: a server that a test left behind would keep a pipe open for ever.
  const folder = mkdtempSync(join(tmpdir(), 'lunarfront-test-'))
  const outputFile = join(folder, 'output')
  const output = openSync(outputFile, 'w')
  const started = Date.now()
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--import', 'tsx', file], {
      cwd: ROOT,
      env: environment,
      detached: true,
      stdio: ['ignore', output, output],
    })
    running.add(child)
    closeSync(output)
    let late = false
    let kill: NodeJS.Timeout | undefined
    const timer = setTimeout(() => {
      late = true
      end(child, 'SIGTERM')
      kill = setTimeout(() => end(child, 'SIGKILL'), GRACE * 1000)
    }, limit * 1000)
    child.once('exit', (code, signal) => {
      clearTimeout(timer)
      clearTimeout(kill)
      running.delete(child)
      end(child, 'SIGKILL') // what it left behind
      const text = readFileSync(outputFile, 'utf8')
      rmSync(folder, { recursive: true })
      const reason = late
        ? `did not end within ${limit} s`
        : signal
          ? `ended by ${signal}`
          : code
            ? `exited ${code}`
            : ''
      resolve({ ...count(text, reason), seconds: (Date.now() - started) / 1000, output: text })
    })
  })
}

/** Counts uvu's summaries in what a file printed; whatever is not a pass is a failure. */
function count(output: string, reason: string): Pick<Result, 'passed' | 'failed' | 'reason' | 'notRun'> {
  const sum = (name: string) =>
    [...output.matchAll(new RegExp(`^ {2}${name}: +([0-9]+)$`, 'gm'))].reduce((total, [, n]) => total + Number(n), 0)
  const passed = sum('Passed')
  const skipped = sum('Skipped')
  const failed = sum('Total') - passed + skipped
  if (failed > 0)
    return { passed, failed, reason: [reason, skipped ? `${skipped} skipped` : ''].filter(Boolean).join(', ') }
  if (reason) return { passed, failed: 1, reason }
  const notRun = /^NOT RUN: (.+)$/m.exec(output)?.[1]
  if (passed === 0) return notRun ? { passed, failed, notRun } : { passed, failed: 1, reason: 'reported no test' }
  return { passed, failed }
}

function end(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (child.pid) process.kill(-child.pid, signal)
  } catch {} // nothing of it is left
}

function readDurations(): Record<string, number> {
  try {
    return JSON.parse(readFileSync(DURATIONS, 'utf8'))
  } catch {
    return {}
  }
}

function remember(results: Map<string, Result>): void {
  const now = [...results].map(([file, { seconds }]) => [relative(ROOT, file), seconds] as const)
  const before = Object.entries(readDurations()).filter(([file]) => existsSync(join(ROOT, file)))
  mkdirSync(dirname(DURATIONS), { recursive: true })
  writeFileSync(DURATIONS, JSON.stringify(Object.fromEntries([...before, ...now]), null, 1))
}

function tellResult(file: string, { passed, failed, seconds, output, reason, notRun }: Result): void {
  if (notRun) {
    console.log(`NOT RUN ${relative(ROOT, file).padEnd(43)} ${notRun}`)
    return
  }
  const counts = failed > 0 ? `${passed} passed, ${failed} failed${reason ? ` (${reason})` : ''}` : `${passed} passed`
  console.log(
    `${failed > 0 ? 'FAILED' : 'ok    '} ${relative(ROOT, file).padEnd(44)} ${counts}  ${seconds.toFixed(1)} s`,
  )
  if (failed > 0) console.log(output.replace(/^(?=.)/gm, '    '))
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2))
  if (!options) return console.log(USAGE)
  const files = await findFiles(options)
  const tools = await installTools(console.log, [...REHEARSAL_TOOLS, 'aws', 'sshd', 'ansible'])
  if (files.some((file) => CLUSTER_TEST.test(file)) && clusterObstacle(thisMachine()) === undefined)
    await installClusterTools(console.log)
  const { FORCE_COLOR: _, ...inherited } = process.env
  const environment = { ...inherited, PATH: pathWith(tools), NO_COLOR: '1' }
  const results = new Map<string, Result>()
  const waiting = [...files]
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      const result = await runFile(file, options.limit, environment)
      results.set(file, result)
      tellResult(file, result)
    }
  }
  await Promise.all(Array.from({ length: options.jobs }, work))

  remember(results)

  const all = [...results.values()]
  const passed = all.reduce((total, result) => total + result.passed, 0)
  const failed = all.reduce((total, result) => total + result.failed, 0)
  if (all.length === 0)
    console.log(`No test file under ${options.directory} has a path that contains ${options.texts.join(' or ')}`)
  const notRun = all.filter((result) => result.notRun).length
  console.log(`${passed} passed, ${failed} failed${notRun > 0 ? `, ${notRun} not run` : ''}`)
  if (failed > 0 || passed === 0) process.exitCode = 1
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    for (const child of running) end(child, 'SIGTERM')
    process.exit(130)
  })

main().catch((error) => {
  console.error(oneLine(tell(error)))
  console.log('0 passed, 1 failed')
  process.exitCode = 1
})
