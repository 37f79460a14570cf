// The real machine behind a droplet of the API: that it boots and can be signed in to, what it reaches and who reaches it,
// that its disk stays as long as it does, and that nothing of it is left.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { stopCloud } from '../../rehearsal/cloud/cloud.ts'
import { PUBLIC_ADDRESS } from '../../rehearsal/droplet/messages.ts'
import { clusterObstacle, installClusterTools } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { allTools, cloudTools, createDatabase, digitalocean, postgresVersion, type Subject, until } from './cloud.ts'

const run = promisify(execFile)

type Context = { subject: Subject; directory: string; child: ChildProcess }
const test = suite<Context>('droplet')

const cloudOf = ({ directory }: Pick<Context, 'directory'>) => join(directory, 'cloud')
const key = ({ directory }: Context) => join(directory, 'key')

/** Makes a droplet whose user's key is known, and waits until it is active. @returns its id and public address */
async function createDroplet({ subject }: Context, name: string): Promise<{ id: number; address: string }> {
  const { body: keys } = await digitalocean(subject, 'GET', '/account/keys')
  const wanted = {
    name,
    region: 'nyc3',
    size: 's-1vcpu-1gb',
    image: 'ubuntu-24-04-x64',
    ssh_keys: [keys.ssh_keys[0].id],
  }
  const started = Date.now()
  const { status, body } = await digitalocean(subject, 'POST', '/droplets', wanted)
  assert.is(status, 202)
  const { id } = body.droplet
  assert.is(body.droplet.status, 'new')
  const active = await until(
    () => digitalocean(subject, 'GET', `/droplets/${id}`),
    (answer) => answer.body.droplet.status === 'active',
  )
  console.log(`${name} was up after ${((Date.now() - started) / 1000).toFixed(1)} s`)
  const [found] = active.body.droplet.networks.v4.filter(({ type }: { type: string }) => type === 'public')
  return { id, address: found.ip_address }
}

/** @returns arguments of ssh, for a droplet whose host keys are whatever it has: none is known before it has booted */
const ssh = (context: Context, address: string, ...more: string[]) => [
  ...['-i', key(context), '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=5'],
  ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR', ...more],
  `root@${address}`,
]

/** @returns what the command prints on the droplet */
const on = async (context: Context, address: string, command: string): Promise<string> =>
  (await run('ssh', [...ssh(context, address), command])).stdout.trim()

/** @returns once the API says that the action is done */
async function act({ subject }: Context, id: number, type: string): Promise<void> {
  const { status, body } = await digitalocean(subject, 'POST', `/droplets/${id}/actions`, { type })
  assert.is(status, 201)
  const done = await until(
    () => digitalocean(subject, 'GET', `/actions/${body.action.id}`),
    (answer) => answer.body.action.status !== 'in-progress',
  )
  assert.is(done.body.action.status, 'completed')
}

test.before(async (context) => {
  const { droplet } = await installClusterTools(console.log)
  const tools = await allTools()
  const directory = mkdtempSync(join(tmpdir(), 'lunarfront-test-'))
  context.directory = directory
  const main = fileURLToPath(new URL('../../rehearsal/cloud/main.mts', import.meta.url))
  const given = { '--directory': cloudOf(context), '--domain': 'lunarfront.test', '--ready-after': '20' }
  const made = ['--tools', JSON.stringify({ ...cloudTools(tools), droplet })]
  const args = ['--import', 'tsx', main, ...Object.entries(given).flat(), ...made]
  context.child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface({ input: context.child.stdout! })
  const [line] = await once(lines, 'line')
  const stop = () => stopCloud(cloudOf(context))
  context.subject = { cloud: { ...JSON.parse(line), stop }, directory, tools }
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key(context)])
  const public_key = readFileSync(`${key(context)}.pub`, 'utf8')
  assert.is((await digitalocean(context.subject, 'POST', '/account/keys', { name: 'one', public_key })).status, 201)
})

test.after(async ({ subject, directory }) => {
  await subject?.cloud.stop()
  if (directory) rmSync(directory, { recursive: true, force: true })
})

test('boots, lets its user in and nobody else, and knows its name', async (context) => {
  const { address } = await createDroplet(context, 'one.lunarfront.test')
  assert.match(address, /^127\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\./)
  assert.is(await on(context, address, 'hostname; systemctl is-system-running --wait'), 'one.lunarfront.test\nrunning')
  const stranger = join(context.directory, 'stranger')
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', stranger])
  const args = ssh(context, address)
  args[1] = stranger
  const refused = await run('ssh', [...args, 'true']).catch((error) => error)
  assert.is(refused.code, 255)
  assert.match(refused.stderr, 'Permission denied')
})

test('its memory is limited, as its size says', async (context) => {
  const { address } = await createDroplet(context, 'small')
  const most = `python3 -c 'print(len(bytearray(1500 * 2 ** 20)))'`
  assert.is(await on(context, address, `${most} 2>/dev/null || echo ended`), 'ended')
})

test('each starts fresh; a reboot from either side keeps the disk and the host keys', async (context) => {
  const one = await createDroplet(context, 'first')
  const hostKey = 'cat /etc/ssh/ssh_host_ed25519_key.pub'
  const before = await on(context, one.address, `touch /root/kept; ${hostKey}`)
  const boots = () => on(context, one.address, 'systemctl show --property=UserspaceTimestampMonotonic --value')
  const first = await boots()
  await act(context, one.id, 'reboot')
  const second = await boots()
  assert.is.not(second, first)
  assert.is(await on(context, one.address, `ls /root/kept; ${hostKey}`), `/root/kept\n${before}`)
  await on(context, one.address, 'systemctl reboot').catch(() => {}) // the connection goes with it
  await until(
    () => boots().catch(() => second),
    (now) => now !== second,
  )
  await act(context, one.id, 'power_cycle')
  assert.is(await on(context, one.address, `ls /root/kept; ${hostKey}`), `/root/kept\n${before}`)
  await act(context, one.id, 'shutdown')
  assert.is((await run('ssh', [...ssh(context, one.address), 'true']).catch((error) => error)).code, 255)
  await act(context, one.id, 'power_on')
  assert.is(await on(context, one.address, 'ls /root/kept'), '/root/kept')

  const other = await createDroplet(context, 'second')
  assert.is.not(await on(context, other.address, hostKey), before)
  assert.is(await on(context, other.address, 'ls /root'), '')
})

test('a reserved address leads to the droplet that it is assigned to', async (context) => {
  const { subject } = context
  const one = await createDroplet(context, 'reserved-one')
  const other = await createDroplet(context, 'reserved-other')
  const { body } = await digitalocean(subject, 'POST', '/reserved_ips', { region: 'nyc3' })
  const { ip } = body.reserved_ip
  const nobody = await run('ssh', [...ssh(context, ip), 'true']).catch((error) => error)
  assert.is(nobody.code, 255)
  for (const { id } of [one, other]) {
    const answer = await digitalocean(subject, 'POST', `/reserved_ips/${ip}/actions`, {
      type: 'assign',
      droplet_id: id,
    })
    assert.is(answer.status, 201)
    await until(
      () => digitalocean(subject, 'GET', `/reserved_ips/${ip}`),
      (now) => now.body.reserved_ip.droplet?.id === id,
    )
    assert.is(await on(context, ip, 'hostname'), id === one.id ? 'reserved-one' : 'reserved-other')
  }
  assert.is((await digitalocean(subject, 'DELETE', `/reserved_ips/${ip}`)).status, 204)
})

test('packages come from the pool, managed databases answer by their private names, and nothing else is there', async (context) => {
  const { subject } = context
  const { address } = await createDroplet(context, 'network')
  await on(context, address, 'apt-get update && apt-get install --yes --no-install-recommends postgresql-client curl')
  const database = await createDatabase(subject, {
    ...{ name: 'gitea', engine: 'pg', version: await postgresVersion(subject) },
  })
  const { host, port, user, password, database: name } = database.private_connection
  const { body } = await digitalocean(subject, 'GET', `/databases/${database.id}/ca`)
  const ca = Buffer.from(body.ca.certificate, 'base64').toString()
  writeFileSync(join(context.directory, 'ca.crt'), ca)
  await run('scp', [...ssh(context, address).slice(0, -1), join(context.directory, 'ca.crt'), `root@${address}:/root/`])
  const psql = `PGPASSWORD=${password} psql -XAt "host=${host} port=${port} user=${user} dbname=${name} sslmode=verify-full sslrootcert=/root/ca.crt"`
  assert.is(await on(context, address, `${psql} -c 'SELECT 6 * 7'`), '42')
  const spaces = await on(context, address, `curl -s -o /dev/null -w '%{http_code}' http://spaces.lunarfront.test/`)
  assert.is(spaces, '403')
  for (const elsewhere of ['http://192.0.2.1/', 'http://10.77.0.2/', 'https://1.1.1.1/', 'http://example.com/'])
    assert.match(
      await on(context, address, `curl -s -o /dev/null --max-time 10 ${elsewhere} || echo no way, $?`),
      /no way, (6|7)/,
    )
})

test('Docker runs a container of a loaded image, and what it publishes answers from outside', async (context) => {
  const { address, id } = await createDroplet(context, 'docker')
  await on(context, address, 'apt-get update && apt-get install --yes --no-install-recommends docker.io python3')
  // The droplet's own programs, so that the image needs no Debian of its own.
  await on(context, address, `tar -C / -c usr/bin usr/lib usr/lib64 lib lib64 bin etc/ssl | docker import - server:1`)
  await on(
    context,
    address,
    `docker run --detach --publish 80:8000 server:1 /usr/bin/python3 -m http.server --directory /etc/ssl 8000`,
  )
  const answer = await until(
    () =>
      fetch(`http://${address}/`).then(
        ({ status }) => status,
        () => 0,
      ),
    (status) => status !== 0,
  )
  assert.is(answer, 200)
  // Published ports that nobody else leads to are there as well, from around the droplet.
  await on(context, address, 'docker run --detach --publish 9999:8000 server:1 /usr/bin/python3 -m http.server 8000')
  const machine = JSON.parse(readFileSync(join(cloudOf(context), 'pids', `droplet-${id}`), 'utf8'))
  const [first] = (await run('pgrep', ['--parent', String(machine.pid)])).stdout.trim().split('\n')
  const outside = ['--target', first ?? '', '--net', 'curl', '-s', '-o', '/dev/null', '-w', '%{http_code}']
  const { stdout } = await run('nsenter', [
    ...outside,
    '--retry',
    '5',
    '--retry-all-errors',
    `http://${PUBLIC_ADDRESS}:9999/`,
  ])
  assert.is(stdout, '200')
})

/** @returns what there is of machines: folders, control groups, processes */
async function leftOf(context: Context): Promise<string[]> {
  const machines = join(cloudOf(context), 'machines')
  const groups = existsSync('/sys/fs/cgroup/cgroup.controllers') ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory'
  const processes = await run('pgrep', ['--full', '--list-full', machines]).catch(() => ({ stdout: '' }))
  return [
    ...(existsSync(machines) ? readdirSync(machines) : []),
    ...readdirSync(groups).filter((name) => name.startsWith(`lunarfront-${context.child.pid}-`)),
    ...processes.stdout.trim().split('\n').filter(Boolean),
  ]
}

test('nothing of one is left when it is destroyed, nor of any when their cloud is killed', async (context) => {
  const { subject, child } = context
  const { body } = await digitalocean(subject, 'GET', '/droplets')
  const ids: number[] = body.droplets.map(({ id }: { id: number }) => id)
  assert.ok(ids.length > 3)
  const [gone, ...others] = ids
  assert.is((await digitalocean(subject, 'DELETE', `/droplets/${gone}`)).status, 204)
  const left = await leftOf(context)
  assert.not.ok(
    left.some((one) => new RegExp(`droplet-${gone}\\b`).test(one)),
    left.join('\n'),
  )
  for (const id of others) assert.ok(left.includes(`droplet-${id}`))
  child.kill('SIGKILL')
  await once(child, 'exit')
  await stopCloud(cloudOf(context))
  assert.equal(await leftOf(context), [])
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
