// How long the whole rehearsal takes, from nothing to a customer that answers, then each further customer, and a new version
// to all of them; and how much memory everything in it takes at most: `npx tsx bench/full-rehearsal.mts [--cold]`. With
// --cold nothing is in any cache, and all is built first.
// Held to: 90 s, cold 25 min; 30 s; 60 s; and 3 GiB. Exit 1 above that.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ROOT } from '../lib/site.ts'
import { makeImage } from '../rehearsal/release.ts'
import { endRehearsal, findCloud, findRehearsal, processesOf } from '../rehearsal/site.ts'
import { installTools } from '../rehearsal/tools.ts'

const cold = process.argv.includes('--cold')
const MOST = { raise: cold ? 25 * 60 : 90, add: 30, deploy: 60, gibibytes: 3 }
const VERSION = '1.1.0'
const CUSTOMERS = ['beta', 'gamma', 'delta', 'epsilon']

const directory = mkdtempSync(join(tmpdir(), 'lunarfront-bench-'))
const caches = mkdtempSync(join(tmpdir(), 'lunarfront-caches-'))
const empty = {
  XDG_CACHE_HOME: caches,
  GOMODCACHE: join(caches, 'go-modules'),
  GOCACHE: join(caches, 'go-build'),
  npm_config_cache: join(caches, 'npm'),
}
const env = { ...process.env, ...(cold ? empty : {}) }

/** @returns KiB that these processes and all that they have started have in memory, shared pages divided by their users */
function memoryOf(roots: readonly number[]): number {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc').filter((one) => /^\d+$/.test(one)))
    try {
      const [, parent] = /^.*\) . (\d+)/.exec(readFileSync(`/proc/${name}/stat`, 'utf8')) ?? []
      parents.set(Number(name), Number(parent))
    } catch {} // it has ended
  const isOurs = (pid: number): boolean => roots.includes(pid) || (pid > 1 && isOurs(parents.get(pid) ?? 0))
  return [...parents.keys()].filter(isOurs).reduce((sum, pid) => {
    try {
      return sum + Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0)
    } catch {
      return sum
    }
  }, 0)
}

/** @returns how long the command took, and the most GiB that it and the rehearsal had in memory meanwhile */
async function measured(argv: string[]): Promise<{ seconds: number; gibibytes: number }> {
  const [program = '', ...args] = argv
  const started = performance.now()
  const child = spawn(program, args, { cwd: ROOT, env, stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit')
  let most = 0
  while (child.exitCode === null && child.signalCode === null) {
    // The cloud does not end with the command, and is nobody's child.
    most = Math.max(most, memoryOf([child.pid!, ...processesOf(directory).map(({ pid }) => pid)]))
    await Promise.race([ended, sleep(500)])
  }
  if (child.exitCode !== 0) throw new Error(`${argv.join(' ')} ended with ${child.exitCode ?? child.signalCode}`)
  return { seconds: (performance.now() - started) / 1000, gibibytes: most / 2 ** 20 }
}

let peak = 0

/** Runs it, and tells how long it took and how long it may take. */
async function bench(what: string, most: number, argv: string[]): Promise<void> {
  const { seconds, gibibytes } = await measured(argv)
  peak = Math.max(peak, gibibytes)
  if (seconds > most) process.exitCode = 1
  console.log(`${what.padEnd(42)} ${seconds.toFixed(1).padStart(7)} s of ${most}  ${gibibytes.toFixed(2)} GiB at most`)
}

try {
  const raise = ['npm', 'run', 'rehearse', '--', '--full', '--directory', directory]
  await bench('from nothing to a customer that answers', MOST.raise, raise)
  const runbook = (name: string, ...args: string[]) => {
    const environment = ['sh', '-c', '. "$0/env" && exec "$@"', directory]
    return [...environment, join(ROOT, 'runbooks', `${name}.mts`), ...args]
  }
  for (const customer of CUSTOMERS)
    await bench(`add-customer ${customer}`, MOST.add, runbook('add-customer', customer, '--yes'))
  const rehearsal = await findRehearsal(directory, await installTools(() => {}))
  if (!rehearsal) throw new Error('the rehearsal has ended')
  await makeImage(rehearsal, VERSION)
  await bench(`deploy, to ${CUSTOMERS.length + 1} customers`, MOST.deploy, runbook('deploy', '--tag', VERSION))
  console.log(`${peak.toFixed(2)} GiB of ${MOST.gibibytes}`)
  if (peak > MOST.gibibytes) process.exitCode = 1
} finally {
  if (await findCloud(directory)) await endRehearsal(directory)
  for (const folder of [directory, caches]) rmSync(folder, { recursive: true, force: true })
}
