// How much memory backup.mts takes itself, for databases of 100 MB and 5 GB: `npx tsx bench/backup-memory.mts [MB...]`.
// Held to: 200 MB at most, and the same for all of them; exit 1 above that.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ROOT } from '../lib/site.ts'
import { startFleet } from './customers.ts'

const MOST = 200
/** As one run differs from the next. */
const SAME = 1.25

const sizes = process.argv.slice(2).map(Number)
const megabytes = sizes.length > 0 ? sizes : [100, 5000]
const { env, down } = await startFleet(megabytes)

/** @returns the most megabytes that the process ever had in memory */
async function peakOf(program: string, args: string[]): Promise<number> {
  const child = spawn(program, args, { cwd: ROOT, env, stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit')
  let peak = 0
  while (child.exitCode === null) {
    const [, kilobytes] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? []
    if (kilobytes) peak = Number(kilobytes) / 1024
    await Promise.race([ended, sleep(100)])
  }
  if (child.exitCode !== 0) throw new Error(`${program} ${args.join(' ')} exited ${child.exitCode}`)
  return peak
}

try {
  const peaks: number[] = []
  for (const [index, size] of megabytes.entries()) {
    const peak = await peakOf(join(ROOT, 'runbooks', 'backup.mts'), ['--again', '--customer', `bench-${index + 1}`])
    console.log(`${String(size).padStart(6)} MB database  ${peak.toFixed(0).padStart(4)} MB at most, held to ${MOST}`)
    peaks.push(peak)
  }
  if (Math.max(...peaks) > MOST || Math.max(...peaks) > SAME * Math.min(...peaks)) process.exitCode = 1
} finally {
  await down()
}
