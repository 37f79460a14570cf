// How long a bootstrap with nothing to do takes, against a bare `terraform init && terraform plan` in the same rehearsal,
// in turn: `npx tsx bench/no-op-bootstrap.mts [RUNS]`. Held to: at most 1.5 times; exit 1 above that.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { ROOT, type Site } from '../lib/site.ts'
import { variablesOf } from '../lib/terraform.ts'
import { withoutCluster } from '../rehearsal/extent.ts'
import { startRehearsal } from '../rehearsal/site.ts'
import { installTools } from '../rehearsal/tools.ts'

const MOST = 1.5
const runs = Number(process.argv[2] ?? 9)
const directory = mkdtempSync(join(tmpdir(), 'lunarfront-bench-'))
const tools = await installTools(console.log)
const { env, siteFile, down } = await startRehearsal({ directory, tools })

const seconds = (program: string, args: string[], cwd: string, more: Record<string, string> = {}): number => {
  const start = performance.now()
  execFileSync(program, args, { cwd, env: { ...env, ...more }, stdio: 'pipe' })
  return (performance.now() - start) / 1000
}
const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!

try {
  const bootstrap = (...args: string[]) =>
    seconds(join(ROOT, 'runbooks', 'bootstrap.mts'), [...args, ...withoutCluster('bootstrap')], ROOT)
  bootstrap('--yes')

  const bare = join(directory, 'bare')
  cpSync(join(ROOT, 'terraform'), bare, { recursive: true, filter: (path) => !path.endsWith('.terraform') })
  const variables = join(directory, 'bare.tfvars.json')
  const site = parse(readFileSync(siteFile, 'utf8')) as Site
  const given = { appsDirectory: join(ROOT, 'gitops', 'apps'), importStateBucket: true, loadBalancerIp: '' }
  writeFileSync(variables, JSON.stringify(variablesOf({ ...site, file: siteFile, directory }, given)))
  const data = { TF_DATA_DIR: join(bare, '.terraform') }
  const initAndPlan = () =>
    seconds(tools.terraform, ['init', '-input=false', `-backend-config=bucket=${site.buckets.state}`], bare, data) +
    seconds(tools.terraform, ['plan', '-input=false', '-detailed-exitcode', `-var-file=${variables}`], bare, data)

  const [ours, theirs]: [number[], number[]] = [[], []]
  initAndPlan()
  bootstrap()
  for (let count = 0; count < runs; count++) {
    theirs.push(initAndPlan())
    ours.push(bootstrap())
  }
  const [a, b] = [median(ours), median(theirs)]
  console.log(`bootstrap, nothing to do          ${a.toFixed(2)} s (median of ${runs})`)
  console.log(`terraform init && terraform plan  ${b.toFixed(2)} s (median of ${runs})`)
  console.log(`ratio                             ${(a / b).toFixed(2)}, at most ${MOST}`)
  if (a / b > MOST) process.exitCode = 1
} finally {
  await down()
  rmSync(directory, { recursive: true, force: true })
}
