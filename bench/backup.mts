// How long backup.mts takes against the usual recipe and the best shell pipeline, on the same databases, the same S3 server
// and the same processors, in turn: `npx tsx bench/backup.mts [large|small] [COUNT]`. `large`: 8 databases of 200 MB, held
// to 4.5 times the recipe's speed and 1.2 times the pipeline's. `small`: 1,000 of 1 MB, held to 5 times the recipe's.
// Nothing is kept; it needs aws (version 1 or 2) on PATH for the rivals.
import { execFileSync, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from '../lib/site.ts'
import { startFleet } from './customers.ts'

const kind = process.argv[2] ?? 'large'
const count = Number(process.argv[3] ?? (kind === 'large' ? 8 : 1000))
const megabytes = kind === 'large' ? 200 : 1
const rounds = kind === 'large' ? 3 : 1

const { directory, env, site, server, databases, down } = await startFleet(Array(count).fill(megabytes))

const timed = (work: () => void): number => {
  const start = performance.now()
  work()
  return (performance.now() - start) / 1000
}

try {
  const ca = join(directory, 'ca.pem')
  writeFileSync(ca, server.ca)
  const shell = {
    ...env,
    ...{ PGHOST: server.host, PGPORT: String(server.port), PGUSER: server.user, PGPASSWORD: server.password.reveal() },
    ...{ PGSSLMODE: 'verify-full', PGSSLROOTCERT: ca, AWS_EC2_METADATA_DISABLED: 'true' },
    ...{ AWS_ACCESS_KEY_ID: env.SPACES_ACCESS_KEY_ID ?? '', AWS_SECRET_ACCESS_KEY: env.SPACES_SECRET_ACCESS_KEY ?? '' },
    ...{ AWS_REGION: 'us-east-1', AWS_ENDPOINT_URL_S3: env.SPACES_ENDPOINT_URL ?? '' },
  }
  const bash = (script: string) => {
    const { status, stderr } = spawnSync('bash', ['-o', 'pipefail', '-ec', script], {
      env: shell,
      input: databases.join('\n'),
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(`${script} exited ${status}: ${stderr}`)
  }
  const upload = `aws s3 cp --quiet - s3://${site.buckets.backups}/rival/$1`
  const each = (processes: number, command: string) =>
    `xargs -P ${processes} -I{} bash -o pipefail -ec '${command}' _ {}`
  const compressed = `pg_dump -Fc -Z0 $1 | zstd -q -1 | age -r ${site.backups.recipients[0]}`

  const contestants = {
    ours: () =>
      execFileSync(join(ROOT, 'runbooks', 'backup.mts'), ['--again'], {
        cwd: ROOT,
        env,
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    recipe: () => bash(each(1, `pg_dump -Fc $1 | ${upload}`)),
    pipeline: () => bash(each(2, `${compressed} | ${upload}`)),
    compressed: () => bash(each(2, `${compressed} > /dev/null`)),
    floor: () => bash(each(2, 'pg_dump -Fc -Z0 $1 > /dev/null')),
  }
  const medians = Object.fromEntries(Object.keys(contestants).map((name) => [name, [] as number[]]))
  contestants.ours() // all of it has been read once, and the runbook is bundled
  for (let round = 0; round < rounds; round++)
    for (const [name, work] of Object.entries(contestants)) medians[name]!.push(timed(work))
  const of = (name: keyof typeof contestants) => medians[name]!.sort((a, b) => a - b)[Math.floor(rounds / 2)]!

  const line = (what: string, seconds: number, held?: number) => {
    const ratio = seconds / of('ours')
    const verdict = held === undefined ? '' : ratio >= held ? `  at least ${held}` : `  below ${held}`
    console.log(`${what.padEnd(64)} ${seconds.toFixed(1).padStart(7)} s  ${ratio.toFixed(2).padStart(6)}${verdict}`)
    if (held !== undefined && ratio < held) process.exitCode = 1
  }
  console.log(`${count} databases, ${megabytes} MB each; median of ${rounds}`)
  line('backup.mts, read again and counted', of('ours'))
  line('pg_dump -Fc | aws s3 cp -, one after the other', of('recipe'), kind === 'large' ? 4.5 : 5)
  line(
    'pg_dump -Fc -Z0 | zstd -1 | age | aws s3 cp -, two at a time',
    of('pipeline'),
    kind === 'large' ? 1.2 : undefined,
  )
  line('the same without the upload', of('compressed'))
  line('pg_dump -Fc -Z0 > /dev/null, two at a time', of('floor'))
} finally {
  await down()
}
