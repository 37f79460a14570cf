// Gitea's droplet, as ansible/ and bootstrap make it: that it comes up and stays as it is, what of it answers the world,
// whom it lets in, what it takes to break it, and that the next run mends that.
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { PUBLIC_ADDRESS } from '../../rehearsal/droplet/messages.ts'
import { openPlaybook } from '../../rehearsal/playbook.ts'
import { DOMAIN, processesOf } from '../../rehearsal/site.ts'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { startEmptyFullOperator } from './full.ts'
import { address, ask, dropletId, knownHosts, on, ssh, until } from './gitea.ts'
import { digitalocean, eventOf, must, type Operator, run, start, statusesOf } from './operator.ts'
import { assertNowhere, watchArguments } from './secrets.ts'

const exec = promisify(execFile)
const test = suite<{ operator: Operator }>('Gitea’s droplet')

const CONFIGURED = 'the droplet is as ansible/ says'
const ALL = ['--until', 'takes and gives images']

/** @returns what ssh says where it is not let in */
const refusal = async (operator: Operator, ...options: string[]): Promise<string> =>
  exec('ssh', [...ssh(operator, ...options), 'true'], { timeout: 60_000 }).then(
    () => 'it was let in',
    ({ stderr }) => stderr,
  )

const changedOf = (stdout: string) => Number(/(\d+) changed/.exec(stdout)?.[1])

/** @returns which of the ports answer whoever is around the droplet, and not on it */
async function answering(operator: Operator, ports: readonly number[]): Promise<number[]> {
  const machine = processesOf(operator.directory).find(({ name }) => name.startsWith('droplet-'))
  const [first = ''] = execFileSync('pgrep', ['--parent', String(machine?.pid)], { encoding: 'utf8' }).split('\n')
  const script = `
    const { createConnection } = require('node:net')
    const reached = (port) => new Promise((resolve) => {
      const socket = createConnection({ host: '${PUBLIC_ADDRESS}', port, timeout: 1500 })
      const end = (is) => { socket.destroy(); resolve(is ? [port] : []) }
      socket.once('connect', () => end(true)).once('error', () => end(false)).once('timeout', () => end(false))
    })
    Promise.all(${JSON.stringify(ports)}.map(reached)).then((all) => console.log(JSON.stringify(all.flat())))`
  const { stdout } = await exec('nsenter', ['--target', first, '--net', process.execPath, '-e', script])
  return JSON.parse(stdout)
}

test.before(async (context) => {
  context.operator = await startEmptyFullOperator()
})
test.after(async ({ operator }) => operator?.down())

test('--plan tells what the playbook would do on a fresh droplet, task by task, and does none of it', async ({
  operator,
}) => {
  await must(operator, 'bootstrap', '--yes', '--until', 'may make tables')
  const traces =
    'find /etc /srv /usr/local -type f -exec md5sum {} + | sort | md5sum; dpkg --list | md5sum; docker ps 2>&1 || true'
  const before = await on(operator, traces)
  const { code, stdout, stderr } = await run(operator, 'bootstrap', '--plan', '--until', CONFIGURED)
  assert.is(code, 2, stdout + stderr)
  for (const line of [
    'Packages are installed',
    'The SSH server’s settings'.replace('’', "'"),
    '+PasswordAuthentication no',
  ])
    assert.match(stdout, line)
  assert.is(await on(operator, traces), before)
})

test('a fresh droplet becomes Gitea, with its certificates and its registry; no secret is told', async ({
  operator,
}) => {
  const argv = watchArguments()
  const started = Date.now()
  const first = await run(operator, 'bootstrap', '--yes', '--verbose', ...ALL)
  assert.is(first.code, 0, first.stdout + first.stderr)
  console.log(`a fresh droplet to a proven registry took ${((Date.now() - started) / 1000).toFixed(1)} s`)
  assert.equal((await ask(operator, '/api/healthz')).status, 200)
  const again = Date.now()
  const second = await must(operator, 'bootstrap', '--yes', ...ALL)
  console.log(`the second run took ${((Date.now() - again) / 1000).toFixed(1)} s`)
  assert.is(changedOf(second), 0, second)
  argv.stop()

  const secretFiles = [
    ...['/var/lib/lunarfront/gitea-password', '/var/lib/lunarfront/gitea-token'],
    ...['secret-key', 'internal-token', 'oauth2-jwt', 'lfs-jwt', 'runner-token'].map(
      (name) => `/srv/gitea/secrets/${name}`,
    ),
  ]
  const secrets: Record<string, string> = {}
  for (const file of secretFiles) secrets[file] = await on(operator, `cat ${file}`)
  secrets['the database’s'] = await on(operator, "sed -n 's/^PASSWD = `\\(.*\\)`/\\1/p' /srv/gitea/settings/app.ini")
  for (const [name, secret] of Object.entries(secrets)) assert.ok(secret.length >= 16, name)
  for (const [where, text] of [
    ['the arguments', [...argv.seen].join('\n')],
    ['what was printed', first.stdout + first.stderr],
    [
      'the logs of the droplet',
      await on(
        operator,
        'journalctl --no-pager; docker logs gitea 2>&1; docker logs gitea-runner 2>&1; docker logs gitea-proxy 2>&1',
      ),
    ],
    ['its processes', await on(operator, 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')],
    ...readdirSync(join(operator.kept, 'runs')).map((name) => [
      name,
      readFileSync(join(operator.kept, 'runs', name), 'utf8'),
    ]),
  ] as [string, string][])
    assertNowhere(secrets, text, where)
  const open = await on(
    operator,
    `stat --format '%A %n' ${secretFiles.join(' ')} /srv/gitea/settings/app.ini | grep -v '^-rw-------' || true`,
  )
  assert.is(open, '')
})

test('the playbook alone finds nothing to change, also where it only looks', async ({ operator }) => {
  const play = await openPlaybook(operator)
  assert.match(await play(), /changed=0 +unreachable=0 +failed=0/)
  assert.match(await play('--check', '--diff'), /changed=0 +unreachable=0 +failed=0/)
})

test('from outside only SSH, the proxy and git over SSH answer, whatever runs on it', async ({ operator }) => {
  const image = await on(operator, "docker inspect --format '{{.Image}}' gitea-proxy")
  await on(
    operator,
    `docker run --detach --rm --name published --publish 9999:80 ${image} caddy file-server --root /etc --listen :80`,
  )
  await on(operator, 'systemd-run --unit=listening python3 -m http.server 8888')
  await until(
    async () =>
      (await on(operator, 'curl -s -o /dev/null http://127.0.0.1:8888/ http://127.0.0.1:9999/ && echo yes')) === 'yes',
  )
  const ports = [
    ...Array.from({ length: 1200 }, (_, index) => index + 1),
    2222,
    2375,
    2376,
    3000,
    5432,
    8888,
    9323,
    9999,
  ]
  assert.equal(
    (await answering(operator, ports)).sort((a, b) => a - b),
    [22, 80, 443, 2222],
  )
  await on(operator, 'docker kill published; systemctl stop listening')
})

test('nobody signs in to it with a password, nor with anything old', async ({ operator }) => {
  assert.match(
    await refusal(operator, '-o', 'PubkeyAuthentication=no', '-o', 'PreferredAuthentications=password'),
    'Permission denied (publickey)',
  )
  assert.match(await refusal(operator, '-l', 'git'), 'Permission denied')
  for (const [option, old] of [
    ['Ciphers', 'aes128-cbc'],
    ['Ciphers', '3des-cbc'],
    ['Ciphers', 'aes128-ctr'],
    ['KexAlgorithms', 'diffie-hellman-group14-sha256'],
    ['HostKeyAlgorithms', 'ssh-rsa'],
  ])
    assert.match(
      await refusal(operator, '-o', `${option}=${old}`),
      /no matching|Unable to negotiate|Bad/,
      `${option}=${old}`,
    )
  const gitea = ['-p', '2222', '-l', 'git', '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null']
  assert.match(await refusal(operator, ...gitea, '-o', 'Ciphers=aes128-ctr'), 'no matching cipher found')
  for (const [version, isThere] of [
    ['-tls1', false],
    ['-tls1_1', false],
    ['-tls1_2', true],
    ['-tls1_3', true],
  ] as const) {
    // The client's own refusal of what is old is off, so that it is the server's that is seen.
    const client = ['s_client', '-connect', `${address(operator)}:443`, '-servername', `git.${DOMAIN}`, version]
    const opened = exec('openssl', [...client, '-cipher', 'DEFAULT:@SECLEVEL=0'], { timeout: 20_000 })
    opened.child.stdin?.end()
    const { stdout } = await opened.catch((error) => error)
    assert.is(/Cipher is (?!\(NONE\))/.test(stdout), isThere, version)
  }
})

test('nobody registers, and nobody looks without signing in', async ({ operator }) => {
  assert.not.match((await ask(operator, '/user/sign_up')).body, /name="password"/)
  assert.is((await ask(operator, '/explore/repos')).status, 303)
  assert.is((await ask(operator, '/api/v1/repos/search')).status, 403)
  assert.is((await ask(operator, '/v2/', { host: `registry.${DOMAIN}` })).status, 401)
  assert.is((await ask(operator, '/', { host: `registry.${DOMAIN}` })).status, 404)
})

test('what was changed by hand is told, and put back', async ({ operator }) => {
  await on(
    operator,
    "sed -i 's/^PasswordAuthentication no/PasswordAuthentication yes/' /etc/ssh/sshd_config.d/00-lunarfront.conf",
  )
  await on(operator, 'docker stop gitea-proxy; nft delete table inet lunarfront')
  const { code, stdout } = await run(operator, 'bootstrap', '--plan', '--until', CONFIGURED)
  assert.is(code, 2, stdout)
  for (const line of [
    '00-lunarfront.conf: FAILED',
    'gitea-proxy is exited',
    'the firewall has other rules',
    '+PasswordAuthentication no',
  ])
    assert.match(stdout, line)
  assert.is(changedOf(await must(operator, 'bootstrap', '--yes', ...ALL)), 1)
  assert.is(changedOf(await must(operator, 'bootstrap', '--yes', ...ALL)), 0)
  assert.equal(
    (await answering(operator, [22, 80, 443, 2222, 3000])).sort((a, b) => a - b),
    [22, 80, 443, 2222],
  )
})

test('a wrong host key stops everything, with what was found, what was expected, and what to do', async ({
  operator,
}) => {
  const right = readFileSync(knownHosts(operator), 'utf8')
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(operator.directory, 'stranger')])
  const [type = '', key = ''] = readFileSync(join(operator.directory, 'stranger.pub'), 'utf8').split(' ')
  const fingerprint = (base64: string) =>
    `SHA256:${createHash('sha256').update(Buffer.from(base64, 'base64')).digest('base64').replace(/=+$/, '')}`
  const ed25519 =
    new RegExp(`^${address(operator).replaceAll('.', '\\.')} ssh-ed25519 (\\S+)`, 'm').exec(right)?.[1] ?? ''
  writeFileSync(
    knownHosts(operator),
    right.replace(new RegExp(`^${address(operator).replaceAll('.', '\\.')} .*\n`, 'gm'), '') +
      `${address(operator)} ${type} ${key}\n`,
  )
  const { code, stdout } = await run(operator, 'bootstrap', '--yes', ...ALL)
  writeFileSync(knownHosts(operator), right)
  assert.is(code, 1)
  for (const part of [fingerprint(ed25519), fingerprint(key), 'do not connect', 'ssh-keygen -R'])
    assert.match(stdout, part)
  assert.is(changedOf(await must(operator, 'bootstrap', '--yes', ...ALL)), 0)
})

test('a reboot, a restart of Docker and a database that is away for a while: it comes back by itself', async ({
  operator,
}) => {
  const isWell = async () => (await ask(operator, '/api/healthz')).status === 200
  const id = await dropletId(operator)
  await digitalocean(operator, 'POST', `/v2/droplets/${id}/actions`, { type: 'reboot' })
  await sleep(1000)
  await until(isWell)
  await on(operator, 'systemctl restart docker')
  await until(isWell)
  const database = processesOf(operator.directory).filter(({ name }) => /gitea-postgres/.test(name))
  assert.ok(database.length > 0)
  const stopped = database.flatMap(({ pid }) => [
    pid,
    ...execFileSync('pgrep', ['--parent', String(pid)], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map(Number),
  ])
  for (const pid of stopped) process.kill(pid, 'SIGSTOP')
  await sleep(60_000)
  for (const pid of stopped) process.kill(pid, 'SIGCONT')
  await until(isWell)
  assert.is(changedOf(await must(operator, 'bootstrap', '--yes', ...ALL)), 0)
})

test('the connection is cut in the middle of a play: it says so, and the next run goes on', async ({ operator }) => {
  await on(operator, 'rm /var/lib/lunarfront/fingerprint /etc/docker/daemon.json')
  const started = start(operator, 'bootstrap', '--yes', '--json', ...ALL)
  await eventOf(started, (event) => event.event === 'step waiting' && event.for === "gitea : The SSH server's settings")
  // Every connection of the host's, as when the network goes.
  await on(operator, 'pkill -KILL -x sshd').catch(() => undefined)
  const cut = await started.ended
  assert.is(cut.code, 1, cut.stdout)
  assert.is(statusesOf(cut)[CONFIGURED], 'failed')
  await until(async () => (await on(operator, 'systemctl restart ssh; echo up')) === 'up')
  assert.is(changedOf(await must(operator, 'bootstrap', '--yes', ...ALL)), 1)
  assert.ok(existsSync(knownHosts(operator)))
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
