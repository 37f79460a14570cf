// The cloud as a process of its own: how it says where it is, how it ends, and what a killed one leaves behind.
import { type ChildProcess, spawn } from 'node:child_process'
import { Resolver } from 'node:dns/promises'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type CloudAddresses, startCloud, stopCloud } from '../../rehearsal/cloud/cloud.ts'
import { isRunning, type ProcessIdentity, processStarted } from '../../rehearsal/servers/processes.ts'
import { allTools, cloudTools, createDatabase, postgresVersion, temporaryDirectory, until } from './cloud.ts'

const MAIN = fileURLToPath(new URL('../../rehearsal/cloud/main.mts', import.meta.url))

type Context = { directory: string; tools: ReturnType<typeof cloudTools>; children: ChildProcess[] }
const test = suite<Context>('cloud process')

test.before.each(async (context) => {
  context.directory = temporaryDirectory()
  context.tools = cloudTools(await allTools())
  context.children = []
})
test.after.each(async ({ directory, children }) => {
  for (const child of children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
  await stopCloud(directory)
  rmSync(directory, { recursive: true, force: true })
})

/** Starts a cloud and waits for the line it prints. */
async function start({ directory, tools, children }: Context): Promise<{ child: ChildProcess; cloud: CloudAddresses }> {
  const child = spawn(
    process.execPath,
    [
      ...['--no-warnings', '--import', 'tsx', MAIN, '--directory', directory, '--domain', 'lunarfront.test'],
      ...['--tools', JSON.stringify(tools), '--ready-after', '20'],
      ...['--hosts', '{"git-ssh.lunarfront.test": ["10.88.0.1"]}'],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  children.push(child)
  let printed = ''
  for await (const chunk of child.stdout ?? []) {
    printed += chunk
    if (printed.includes('\n')) break
  }
  assert.is(printed.trimEnd().split('\n').length, 1, 'one line')
  return { child, cloud: JSON.parse(printed) }
}

const noted = (directory: string): ProcessIdentity[] =>
  readdirSync(join(directory, 'pids')).map((name) => JSON.parse(readFileSync(join(directory, 'pids', name), 'utf8')))

test('says where it is in a file for its owner only, and ends at a signal with all that it started', async (context) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const { child, cloud } = await start(context)
    const file = join(context.directory, 'cloud.json')
    assert.equal(JSON.parse(readFileSync(file, 'utf8')), cloud)
    assert.is(statSync(file).mode & 0o777, 0o600)
    assert.is(cloud.pid, child.pid)
    const tokens = [cloud.digitalocean.token, cloud.cloudflare.token, cloud.spaces.secret_access_key]
    assert.is(new Set(tokens).size, 3)
    assert.equal(Object.keys(cloud.reattach).sort(), [
      'registry.opentofu.org/cloudflare/cloudflare',
      'registry.opentofu.org/digitalocean/digitalocean',
      'registry.terraform.io/cloudflare/cloudflare',
      'registry.terraform.io/digitalocean/digitalocean',
    ])
    for (const url of [cloud.digitalocean.url, cloud.cloudflare.url, cloud.spaces.url, cloud.control])
      assert.is(new URL(url).hostname, '127.0.0.1')
    const resolver = new Resolver({ timeout: 2_000, tries: 1 })
    resolver.setServers([`${cloud.dns.host}:${cloud.dns.port}`])
    assert.equal(await resolver.resolve4('git-ssh.lunarfront.test'), ['10.88.0.1'])
    const subject = { cloud: { ...cloud, stop: async () => {} }, directory: '', tools: await allTools() }
    const version = await postgresVersion(subject)
    await createDatabase(subject, { name: 'main', engine: 'pg', version })
    await createDatabase(subject, { name: 'cache', engine: 'valkey', version: '8' })
    const started = noted(context.directory)
    assert.is(started.length, 4, 'the cloud, its S3 server and two databases')
    const runtime = readFileSync(join(context.directory, 'runtime'), 'utf8')

    child.kill(signal)
    const [code] = await once(child, 'exit')
    assert.is(code, 0)
    assert.not.ok(existsSync(file))
    assert.not.ok(existsSync(runtime))
    assert.equal(started.filter(isRunning), [])
    assert.equal(noted(context.directory), [])
  }
})

test('kill -9 of the cloud: nothing runs after stopCloud, and the next one starts', async (context) => {
  const { child, cloud } = await start(context)
  const subject = { cloud: { ...cloud, stop: async () => {} }, directory: '', tools: await allTools() }
  await createDatabase(subject, { name: 'main', engine: 'pg', version: await postgresVersion(subject) })
  const started = noted(context.directory)
  const runtime = readFileSync(join(context.directory, 'runtime'), 'utf8')
  child.kill('SIGKILL')
  await once(child, 'exit')
  await stopCloud(context.directory)
  assert.equal(started.filter(isRunning), [])
  assert.not.ok(existsSync(join(context.directory, 'cloud.json')))
  assert.not.ok(existsSync(runtime))
  await stopCloud(context.directory)

  const again = await start(context)
  assert.is.not(again.cloud.digitalocean.token, cloud.digitalocean.token)
})

test('where the system can, the servers die with a killed cloud by themselves', async (context) => {
  if (process.platform !== 'linux' || !['/usr/bin/setpriv', '/bin/setpriv'].some(existsSync)) return
  const { child } = await start(context)
  const started = noted(context.directory)
  child.kill('SIGKILL')
  await until(
    async () => started.filter(isRunning),
    (left) => left.length === 0,
  )
})

test('a second cloud in the same directory is refused, and the first goes on', async (context) => {
  const { cloud } = await start(context)
  const { directory, tools } = context
  try {
    await startCloud({ directory, domain: 'lunarfront.test', tools })
    assert.unreachable('should have been refused')
  } catch (error) {
    assert.match(
      (error as Error).message,
      new RegExp(`a cloud runs in ${directory} already \\(process ${cloud.pid}\\)`),
    )
  }
  const { ok } = await fetch(`${cloud.control}/faults`)
  assert.ok(ok)
})

test('stopCloud ends a cloud that runs, in good order', async (context) => {
  const { child } = await start(context)
  const started = noted(context.directory)
  const ended = once(child, 'exit')
  await stopCloud(context.directory)
  assert.equal(await ended, [0, null])
  assert.equal(started.filter(isRunning), [])
  assert.not.ok(existsSync(join(context.directory, 'cloud.json')))
})

test('a process that only has the number of one that was noted is left alone', async ({ directory, children }) => {
  const bystander = spawn('sleep', ['60'])
  children.push(bystander)
  mkdirSync(join(directory, 'pids'))
  const file = join(directory, 'pids', 'postgres')
  writeFileSync(file, JSON.stringify({ pid: bystander.pid, started: 'another time', stopSignal: 'SIGTERM' }))
  await stopCloud(directory)
  assert.not.ok(existsSync(file))
  assert.ok(processStarted(bystander.pid ?? 0))
  writeFileSync(
    file,
    JSON.stringify({ pid: bystander.pid, started: processStarted(bystander.pid ?? 0), stopSignal: 'SIGTERM' }),
  )
  await stopCloud(directory)
  assert.not.ok(processStarted(bystander.pid ?? 0))
})

test('a server that does not start is told with what it said, and nothing is left', async (context) => {
  const { directory, tools } = context
  for (const [tool, reason] of [
    ['versitygw', /versitygw stopped while it was starting: .*(logs\/versitygw\.log|No such file)/],
    ['openssl', /openssl-is-not-here/],
  ] as const) {
    const wrong = { ...tools, [tool]: `/nowhere/${tool}-is-not-here` }
    try {
      await startCloud({ directory, domain: 'lunarfront.test', tools: wrong })
      assert.unreachable('should have failed')
    } catch (error) {
      assert.match((error as Error).message, reason)
    }
    assert.equal(noted(directory), [])
    assert.not.ok(existsSync(join(directory, 'runtime')))
  }
})

test('wrong use is said, with exit 64', async ({ children }) => {
  const child = spawn(process.execPath, ['--no-warnings', '--import', 'tsx', MAIN, '--domain', 'x'], { stdio: 'pipe' })
  children.push(child)
  let said = ''
  child.stderr?.on('data', (chunk) => {
    said += chunk
  })
  const [code] = await once(child, 'close')
  assert.is(code, 64)
  assert.match(said, /^usage: /)
})

test.run()
