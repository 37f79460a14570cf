// npm run rehearse, whole: up, up again, status, down; and that nothing of a person's own can get into a rehearsal.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { Failure } from '../../lib/failure.ts'
import { isRunning, processStarted } from '../../rehearsal/servers/processes.ts'
import { checkOwn, endRehearsal, findRehearsal, processesOf, startRehearsal } from '../../rehearsal/site.ts'
import { installTools } from '../../rehearsal/tools.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const PLANTED = 'planted-credential-of-a-real-account'
/** What a person's shell may hold when they start a rehearsal. */
const REAL = {
  DIGITALOCEAN_TOKEN: PLANTED,
  DIGITALOCEAN_API_URL: `https://${PLANTED}.example.com`,
  AWS_PROFILE: PLANTED,
  AWS_SESSION_TOKEN: PLANTED,
  CLOUDFLARE_API_TOKEN: PLANTED,
  KUBECONFIG: `/${PLANTED}`,
  HTTPS_PROXY: `http://${PLANTED}.example.com`,
  PGPASSWORD: PLANTED,
  LUNARFRONT_SITE: `/${PLANTED}`,
}

const test = suite<{ parent: string; directory: string }>('rehearse')

test.before.each((context) => {
  context.parent = mkdtempSync(join(tmpdir(), 'lunarfront-rehearse-'))
  context.directory = join(context.parent, 'rehearsal')
})

test.after.each(async ({ parent, directory }) => {
  await endRehearsal(directory)
  rmSync(parent, { recursive: true, force: true })
})

function rehearse(directory: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', 'rehearsal/rehearse.mts', ...args, '--directory', directory],
    { cwd: ROOT, env: { ...process.env, ...REAL }, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' },
  )
  return { status, stdout, stderr }
}

const environmentOf = (pid: number) => readFileSync(`/proc/${pid}/environ`, 'utf8')

test('up raises everything, a second up changes nothing, down leaves nothing', async ({ directory }) => {
  const first = rehearse(directory)
  assert.is(first.status, 0, first.stdout + first.stderr)
  assert.match(first.stdout, /^cloud: started/m)
  assert.match(first.stdout, /^changed {2}acme\.app\.lunarfront\.test is in DNS/m)
  assert.match(first.stdout, /^A LunarFront is up, [\d.]+ s after the start\.$/m)
  assert.not.match(first.stdout + first.stderr, PLANTED)

  const processes = processesOf(directory)
  assert.ok(processes.length >= 5, 'the cloud, an S3 server, two Postgres, a Valkey')
  const cloud = processes.find(({ name }) => name === 'cloud')
  if (process.platform === 'linux') assert.not.match(environmentOf(cloud?.pid ?? 0), PLANTED)
  assert.not.match(readFileSync(join(directory, 'env'), 'utf8'), PLANTED)

  // What it says to look with, from a shell that has credentials of its own.
  const look = (command: string) =>
    execFileSync('sh', ['-c', `. '${directory}/env'; ${command}`], {
      cwd: ROOT,
      env: { ...process.env, ...REAL },
      encoding: 'utf8',
    })
  assert.match(look('psql service=doadmin -Atc "SELECT datname FROM pg_database"'), /^customer_acme$/m)
  assert.is(
    look(
      'psql service=acme -Atc "SELECT current_user || \' \' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"',
    ).trim(),
    'customer_acme true',
  )
  assert.match(
    look('"$(command -v terraform || command -v tofu)" -chdir=terraform output -json buckets'),
    'lunarfront-backups',
  )
  assert.match(look('./runbooks/list-customers.mts'), /^acme +/m)
  assert.match(
    execFileSync('git', [`--git-dir=${directory}/git/lunarfront-infra.git`, 'log', '--oneline'], { encoding: 'utf8' }),
    'Add customer acme',
  )
  for (const file of ['env', 'pg_service.conf', 'operator', 'lunarfront.yaml', 'cloud/cloud.json'])
    assert.is(statSync(join(directory, file)).mode & 0o077, 0, `${file} is nobody else's to read`)

  const second = rehearse(directory, 'up')
  assert.is(second.status, 0, second.stdout + second.stderr)
  assert.match(second.stdout, /^cloud: already up/m)
  assert.equal(second.stdout.match(/^\d+ steps: \d+ ok, 0 changed/gm)?.length, 2, second.stdout)
  assert.equal(processesOf(directory), processes)

  assert.match(rehearse(directory, 'status').stdout, /^Up since /)

  const down = rehearse(directory, 'down')
  assert.is(down.status, 0)
  assert.match(down.stdout, `Down: ${processes.length} processes ended`)
  assert.equal(processes.filter(isRunning), [])
  assert.not(existsSync(directory))
  assert.is(rehearse(directory, 'down').stdout, 'Nothing is up.\n')
  assert.is(rehearse(directory, 'status').stdout, 'Nothing is up.\n')
})

test('several rehearsals at once are each their own, and start in seconds', async ({ parent }) => {
  const tools = await installTools(console.log)
  const directories = ['one', 'two'].map((name) => join(parent, name))
  const listeners = process.listenerCount('exit')
  const [one, two] = await Promise.all(directories.map((directory) => startRehearsal({ directory, tools })))
  try {
    for (const name of ['DIGITALOCEAN_API_URL', 'SPACES_ENDPOINT_URL', 'SPACES_SECRET_ACCESS_KEY', 'LUNARFRONT_SITE'])
      assert.is.not(one?.env[name], two?.env[name])
    assert.is(process.listenerCount('exit'), listeners, 'each waits for the end of this process by itself')
  } finally {
    await Promise.all([one?.down(), two?.down()])
  }
  for (const directory of directories) assert.not(existsSync(directory))
})

test('rehearsals that nobody ended end with the process that started them', async ({ parent }) => {
  const directories = ['one', 'two'].map((name) => join(parent, name))
  const script = join(parent, 'start.mts')
  writeFileSync(
    script,
    `import { startRehearsal } from ${JSON.stringify(join(ROOT, 'rehearsal', 'site.ts'))}
const started = await Promise.all(${JSON.stringify(directories)}.map((directory) => startRehearsal({ directory })))
process.stdout.write(JSON.stringify(started.map(({ cloud }) => cloud.pid)))
process.exit(0)
`,
  )
  try {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script], {
      cwd: ROOT,
      encoding: 'utf8',
    })
    assert.is(status, 0, stderr)
    const pids = JSON.parse(stdout) as number[]
    assert.is(pids.length, 2)
    const running = () => pids.filter((pid) => processStarted(pid) !== undefined)
    for (const end = Date.now() + 30_000; running().length > 0 && Date.now() < end; ) await sleep(20)
    assert.equal(running(), [])
  } finally {
    await Promise.all(directories.map(endRehearsal))
  }
})

test('settings of the site can be given', async ({ directory }) => {
  const { siteFile, down } = await startRehearsal({ directory, settings: { budget_usd_per_month: 7 } })
  assert.is(parse(readFileSync(siteFile, 'utf8')).budget_usd_per_month, 7)
  await down()
})

test('the environment is built from empty', async ({ directory }) => {
  const before = { ...process.env }
  Object.assign(process.env, REAL)
  try {
    const { env } = await startRehearsal({ directory })
    assert.not.match(JSON.stringify(env), PLANTED)
    const own = Object.keys(env).filter((name) => env[name] === process.env[name])
    assert.equal(
      own.filter((name) => !['PATH', 'HOME', 'USER', 'LANG', 'TERM'].includes(name)),
      [],
    )
  } finally {
    for (const name of Object.keys(REAL)) delete process.env[name]
    Object.assign(process.env, before)
  }
})

test('an address that is neither on loopback nor its own stops everything', async ({ directory }) => {
  const { env, siteFile } = await startRehearsal({ directory })
  const site = readFileSync(siteFile, 'utf8')
  checkOwn(env, site, directory)
  const refused = (changed: Record<string, string>, text = site) =>
    assert.throws(
      () => checkOwn({ ...env, ...changed }, text, directory),
      (error: unknown) => error instanceof Failure && /names|a provider at/.test(error.message),
      JSON.stringify(changed) + text,
    )
  for (const name of ['DIGITALOCEAN_API_URL', 'CLOUDFLARE_BASE_URL', 'SPACES_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3'])
    for (const address of [
      'https://api.digitalocean.com',
      'http://10.0.0.5:80',
      'http://127.0.0.1.example.com/',
      'http://127.0.0.1@example.com',
    ])
      refused({ [name]: address })
  refused({ TF_REATTACH_PROVIDERS: '{"x":{"Addr":{"Network":"tcp","String":"203.0.113.9:80"}}}' })
  refused(
    {},
    site.replace(/^repository: .*$/m, 'repository: ssh://git@git-ssh.lunarfront.tech/ryan/lunarfront-infra.git'),
  )
  refused({}, site.replace(/^repository: .*$/m, 'repository: /srv/git/lunarfront-infra.git'))
  refused({}, `${site}\nextra: https://example.com\n`)
})

test('what a killed cloud left is cleared away by the next start and by down', async ({ directory }) => {
  const tools = await installTools(console.log)
  const { cloud } = await startRehearsal({ directory, tools })
  const processes = processesOf(directory)
  process.kill(cloud.pid, 'SIGKILL')
  while (processesOf(directory).some(({ pid }) => pid === cloud.pid))
    await new Promise((resolve) => setImmediate(resolve))
  assert.is(await findRehearsal(directory, tools), undefined)
  await endRehearsal(directory)
  assert.equal(processes.filter(isRunning), [])
  assert.not(existsSync(directory))
})

test('a rehearsal that cannot get this checkout’s commits any more is told before anything runs', async ({
  directory,
}) => {
  await startRehearsal({ directory })
  const git = (...args: string[]) =>
    execFileSync('git', [`--git-dir=${directory}/git/lunarfront-infra.git`, ...args], {
      encoding: 'utf8',
      env: {
        ...process.env,
        GIT_AUTHOR_NAME: 'x',
        GIT_AUTHOR_EMAIL: 'x@example.com',
        GIT_COMMITTER_NAME: 'x',
        GIT_COMMITTER_EMAIL: 'x@example.com',
      },
    }).trim()
  git(
    'update-ref',
    'refs/heads/main',
    git('commit-tree', '-m', 'another history', git('hash-object', '-w', '-t', 'tree', '/dev/null')),
  )
  const { status, stdout, stderr } = rehearse(directory)
  assert.is(status, 1)
  assert.match(stderr, 'Next: npm run rehearse -- down && npm run rehearse')
  assert.not.match(stdout, 'runbooks/')
})

test('a directory with something else in it is neither filled nor removed', async ({ parent }) => {
  const directory = join(parent, 'somebody')
  mkdirSync(directory)
  writeFileSync(join(directory, 'letter'), 'dear')
  for (const command of ['up', 'down']) {
    const { status, stderr } = rehearse(directory, command)
    assert.is(status, 1)
    assert.match(stderr, 'holds something else than a rehearsal')
  }
  assert.is(readFileSync(join(directory, 'letter'), 'utf8'), 'dear')
})

test('wrong use is one line and exit 64', ({ directory }) => {
  const { status, stderr, stdout } = rehearse(directory, 'sideways')
  assert.is(status, 64)
  assert.is(stderr, 'npm run rehearse -- sideways; expected up, down or status. Next: npm run rehearse -- --help\n')
  assert.is(stdout, '')
  assert.is(rehearse(directory, '--frobnicate').status, 64)
})

test.run()
