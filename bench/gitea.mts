// How long bootstrap takes for Gitea's part when there is nothing to do, against a bare run of the same playbook on the same
// droplet, in turn: `npx tsx bench/gitea.mts [RUNS]`. Held to: less time than the playbook, and less than 30 s; exit 1 else.
// And, told only: how long a fresh droplet takes to a proven registry, with all of the infrastructure.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from '../lib/site.ts'
import { openPlaybook } from '../rehearsal/playbook.ts'
import { startRehearsal } from '../rehearsal/site.ts'
import { installClusterTools } from '../rehearsal/tools/cluster.ts'

const MOST = 30
const runs = Number(process.argv[2] ?? 5)
const directory = mkdtempSync(join(tmpdir(), 'lunarfront-bench-'))
const cluster = await installClusterTools(console.log)
const rehearsal = await startRehearsal({ directory, cluster })

const secondsOf = async (work: () => unknown): Promise<number> => {
  const start = performance.now()
  await work()
  return (performance.now() - start) / 1000
}
const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!
const bootstrap = () =>
  execFileSync(join(ROOT, 'runbooks', 'bootstrap.mts'), ['--yes', '--until', 'takes and gives images'], {
    cwd: ROOT,
    env: rehearsal.env,
    stdio: 'pipe',
  })

try {
  const fresh = await secondsOf(bootstrap)
  const play = await openPlaybook(rehearsal)
  const [ours, theirs]: [number[], number[]] = [[], []]
  for (let count = 0; count < runs; count++) {
    ours.push(await secondsOf(bootstrap))
    theirs.push(await secondsOf(() => play()))
  }
  const [a, b] = [median(ours), median(theirs)]
  console.log(`a fresh droplet to a proven registry   ${fresh.toFixed(1)} s, with all of the infrastructure`)
  console.log(`bootstrap to there, nothing to do      ${a.toFixed(2)} s (median of ${runs})`)
  console.log(`the playbook alone, nothing to change  ${b.toFixed(2)} s (median of ${runs})`)
  console.log(`ratio                                  ${(a / b).toFixed(2)}`)
  if (a >= b || a > MOST) process.exitCode = 1
} finally {
  await rehearsal.down()
  rmSync(directory, { recursive: true, force: true })
}
