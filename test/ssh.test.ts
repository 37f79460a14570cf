// SSH against a real OpenSSH server: only a host whose key is known is talked to, what is asked for arrives as it was
// meant, and what is cut off is told and leaves nothing by halves.
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { createExec } from '../lib/exec.ts'
import { Failure } from '../lib/failure.ts'
import { fingerprint } from '../lib/host-keys.ts'
import { openSsh, type Ssh } from '../lib/ssh.ts'
import { type Sshd, startSshd } from './sshd.ts'

type Context = { sshd: Sshd; ssh: Ssh }
const test = suite<Context>('ssh')

const { SSH_AUTH_SOCK: _agent, ...environment } = process.env
const exec = createExec({ environment })
const LEARN = './runbooks/bootstrap.mts'

/** @param known what known_hosts says */
function connect(
  { port, user, identity, directory, knownHost }: Sshd,
  { known = knownHost, signal = new AbortController().signal, file = identity } = {},
): Promise<Ssh> {
  const knownHosts = join(directory, 'known_hosts')
  writeFileSync(knownHosts, known)
  const options = { knownHosts, identity: file, learn: LEARN }
  return openSsh({ exec, environment, signal }, { host: '127.0.0.1', port, user }, options)
}

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  try {
    await work
  } catch (error) {
    assert.instance(error, Failure, String((error as Error).stack))
    return error as Failure
  }
  throw new Error('it did not fail')
}

/** Waits until a condition holds. */
async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; Date.now() < end; await sleep(10)) if (holds()) return
  throw new Error(`it never came to this: ${what}`)
}

test.before(async (context) => {
  context.sshd = await startSshd()
  context.ssh = await connect(context.sshd)
})
test.after(async ({ sshd, ssh }) => {
  await ssh?.close()
  await sshd?.stop()
})

const keyIn = (knownHost: string) => Buffer.from(knownHost.trim().split(' ')[2] ?? '', 'base64')

test('a host whose key is not known is not talked to', async ({ sshd }) => {
  const { message: found, expected, next } = await failureOf(connect(sshd, { known: '' }))
  assert.match(found, fingerprint(keyIn(sshd.knownHost)))
  assert.match(found, 'none is known of it')
  assert.match(String(expected), 'known_hosts')
  assert.is(next, LEARN)
})

test('a host that shows another key is not talked to: what it shows and what was expected are told', async ({
  sshd,
}) => {
  const other = await startSshd()
  const expected = other.knownHost.replace(/:\d+\]?/, (text) => text.replace(String(other.port), String(sshd.port)))
  const failure = await failureOf(connect(sshd, { known: expected.replace(`]:${other.port}`, `]:${sshd.port}`) }))
  await other.stop()
  assert.match(failure.message, fingerprint(keyIn(sshd.knownHost)))
  assert.match(String(failure.expected), fingerprint(keyIn(other.knownHost)))
  assert.match(String(failure.next), `ssh-keygen -R '[127.0.0.1]:${sshd.port}'`)
})

test('a fingerprint is the one that OpenSSH tells', async ({ sshd }) => {
  const { stdout } = await exec({ argv: ['ssh-keygen', '-l', '-f', join(sshd.directory, 'host.pub')] })
  assert.match(stdout, fingerprint(keyIn(sshd.knownHost)))
})

test('a hashed known_hosts is read as well', async ({ sshd }) => {
  const file = join(sshd.directory, 'hashed')
  writeFileSync(file, sshd.knownHost)
  await exec({ argv: ['ssh-keygen', '-H', '-f', file] })
  const known = readFileSync(file, 'utf8')
  assert.not.match(known, '127.0.0.1')
  const ssh = await connect(sshd, { known })
  assert.is((await ssh.run({ argv: ['echo', 'in'] })).stdout, 'in\n')
  await ssh.close()
})

test('a key that may not sign in is told, and what lets one in', async ({ sshd }) => {
  const file = join(sshd.directory, 'stranger')
  await exec({ argv: ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', file] })
  const { message: found, expected } = await failureOf(connect(sshd, { file }))
  assert.match(found, 'lets none of the keys in')
  assert.match(String(expected), 'operator_ssh_keys')
})

test('an agent’s key signs in', async ({ sshd }) => {
  const socket = join(sshd.directory, 'agent')
  const { stdout } = await exec({ argv: ['ssh-agent', '-a', socket, '-s'] })
  const pid = Number(/SSH_AGENT_PID=(\d+)/.exec(stdout)?.[1])
  try {
    await exec({ argv: ['ssh-add', '-q', sshd.identity], env: { SSH_AUTH_SOCK: socket } })
    const target = { host: '127.0.0.1', port: sshd.port, user: sshd.user }
    const run = { exec, environment: { ...environment, SSH_AUTH_SOCK: socket }, signal: new AbortController().signal }
    const ssh = await openSsh(run, target, { knownHosts: join(sshd.directory, 'known_hosts'), learn: LEARN })
    assert.is((await ssh.run({ argv: ['echo', 'in'] })).stdout, 'in\n')
    await ssh.close()
  } finally {
    process.kill(pid)
  }
})

test('a host that does not answer is told', async ({ sshd }) => {
  const closed = { ...sshd, port: 1 }
  const { message: found, next } = await failureOf(connect(closed, { known: sshd.knownHost }))
  assert.match(found, /127\.0\.0\.1\]:1 cannot be reached: connect ECONNREFUSED/)
  assert.match(String(next), /^ssh -v/)
})

test('arguments arrive as they were given, whatever is in them', async ({ ssh }) => {
  const nasty = ['', ' ', "it's", '"', '$HOME', '`id`', '\\', '*', '; false', 'two\nlines', 'ü', '-n']
  const { stdout } = await ssh.run({ argv: ['printf', '%s\\0', ...nasty] })
  assert.equal(stdout.split('\0').slice(0, -1), nasty)
})

test('what goes in, what comes out, line by line, and how it ended', async ({ ssh }) => {
  const lines: string[] = []
  const { stdout, stderr, code } = await ssh.run({
    argv: ['sh', '-c', 'cat; echo to stderr >&2; printf last; exit 3'],
    input: 'one\ntwo\n',
    codes: [0, 3],
    onLine: (line) => lines.push(line),
  })
  assert.is(stdout, 'one\ntwo\nlast')
  assert.is(stderr, 'to stderr\n')
  assert.is(code, 3)
  assert.equal(lines, ['one', 'two', 'last'])
  const { message: found, next } = await failureOf(
    ssh.run({ argv: ['sh', '-c', 'echo why >&2; exit 7'], next: 'do this' }),
  )
  assert.match(found, /on 127\.0\.0\.1 exited 7:\nwhy/)
  assert.is(next, 'do this')
})

test('a command that takes too long is ended on the host', async ({ ssh }) => {
  const { message: found } = await failureOf(ssh.run({ argv: ['sleep', '4711'], timeout: 1 }))
  assert.match(found, 'did not end within 1 s')
  const { code } = await ssh.run({ argv: ['pgrep', '--full', '^sleep 4711'], codes: [0, 1] })
  assert.is(code, 1)
})

test('an interruption ends what runs on the host', async ({ sshd }) => {
  const interruption = new AbortController()
  const ssh = await connect(sshd, { signal: interruption.signal })
  const failed = failureOf(ssh.run({ argv: ['sleep', '4712'] }))
  await sleep(300)
  interruption.abort()
  assert.match((await failed).message, 'was interrupted')
  await ssh.close()
  await eventually('sleep is gone', () => processes('sleep 4712').length === 0)
})

/** @returns ids of the machine's processes with these arguments */
const processes = (argv: string): string[] =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim() === argv
    } catch {
      return false // it has ended
    }
  })

test('a connection that is cut while a command runs is told', async ({ sshd }) => {
  const ssh = await connect(sshd)
  const failed = failureOf(ssh.run({ argv: ['sleep', '20'] }))
  await sleep(300)
  for (const pid of sshd.connections()) process.kill(pid, 'SIGKILL')
  assert.match((await failed).message, /was cut off|cannot/)
  await ssh.close()
})

const BIG = 256 * 2 ** 20

/** @returns a stream of so many bytes, and their digest when it has ended */
function bytes(size: number): { stream: Readable; digest: () => string } {
  const hash = createHash('sha256')
  const block = randomBytes(2 ** 16)
  let left = size
  const stream = new Readable({
    read() {
      const chunk = block.subarray(0, Math.min(left, block.length))
      left -= chunk.length
      if (chunk.length > 0) hash.update(chunk)
      this.push(chunk.length > 0 ? chunk : null)
    },
  })
  return { stream, digest: () => hash.digest('hex') }
}

/** @returns a stream that takes bytes, and their digest when it has ended */
function sink(): { stream: Writable; digest: () => string } {
  const hash = createHash('sha256')
  const stream = new Writable({
    write(chunk, _encoding, done) {
      hash.update(chunk)
      done()
    },
  })
  return { stream, digest: () => hash.digest('hex') }
}

test('a file goes there and comes back', async (context) => {
  context.ssh = await connect(context.sshd) // the one before was cut
  const { ssh, sshd } = context
  const path = join(sshd.directory, 'file')
  const sent = bytes(4 * 2 ** 20)
  await ssh.upload(sent.stream, path, 0o640)
  assert.is(statSync(path).mode & 0o777, 0o640)
  const found = sink()
  await ssh.download(path, found.stream)
  assert.is(found.digest(), sent.digest())
})

test('what is larger than it may take of memory flows through a command, both ways', async ({ ssh, sshd }) => {
  const path = join(sshd.directory, 'big')
  const before = process.memoryUsage.rss()
  let most = 0
  const look = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss() - before)
  }, 20)
  const sent = bytes(BIG)
  await ssh.run({ argv: ['dd', `of=${path}`, 'bs=64k', 'status=none'], input: sent.stream })
  assert.is(statSync(path).size, BIG)
  const found = sink()
  await ssh.run({ argv: ['cat', path], output: found.stream })
  clearInterval(look)
  assert.is(found.digest(), sent.digest())
  assert.ok(most < BIG / 2, `${(most / 2 ** 20).toFixed(0)} MiB more memory`)
})

test('a stream out of a command that fails is not taken for a whole one', async ({ ssh }) => {
  const found = sink()
  const ended = once(found.stream, 'finish').then(
    () => 'whole',
    (error: Error) => error.message,
  )
  const { message } = await failureOf(ssh.run({ argv: ['sh', '-c', 'echo half; exit 9'], output: found.stream }))
  assert.match(message, 'exited 9')
  assert.match(await ended, 'exited 9')
})

test('a stream into a command that breaks off fails it', async ({ ssh }) => {
  const source = new Readable({ read() {} })
  const failed = failureOf(ssh.run({ argv: ['cat'], input: source }))
  source.push('half')
  await sleep(200)
  source.destroy(new Error('the dump failed'))
  assert.match((await failed).message, /cat/)
})

test('a stream that is cut leaves the file as it was, and is told', async ({ sshd }) => {
  const ssh = await connect(sshd)
  const folder = join(sshd.directory, 'cut')
  mkdirSync(folder)
  const path = join(folder, 'file')
  writeFileSync(path, 'before')
  const endless = new PassThrough()
  const failed = ssh.upload(endless, path, 0o600).then(
    () => undefined,
    (error: Error) => error,
  )
  endless.write(randomBytes(2 ** 20))
  await eventually('it is being written', () => readdirSync(folder).length > 1)
  for (const pid of sshd.connections()) process.kill(pid, 'SIGKILL')
  assert.instance(await failed, Error)
  assert.is(readFileSync(path, 'utf8'), 'before')
  await ssh.close()
  // What is left beside it is written over by the next.
  const again = await connect(sshd)
  await again.upload(Readable.from(['after']), path, 0o600)
  await again.close()
  assert.equal(readdirSync(folder), ['file'])
  assert.is(readFileSync(path, 'utf8'), 'after')
})

test('a source that fails leaves the file as it was', async (context) => {
  context.ssh = await connect(context.sshd)
  const path = join(context.sshd.directory, 'source')
  writeFileSync(path, 'before')
  const source = new Readable({ read() {} })
  const failed = context.ssh.upload(source, path, 0o600).then(
    () => undefined,
    (error: Error) => error,
  )
  source.push('half')
  await sleep(200)
  source.destroy(new Error('the dump failed'))
  assert.match(String(await failed), 'the dump failed')
  assert.is(readFileSync(path, 'utf8'), 'before')
  assert.not.ok(readdirSync(context.sshd.directory).some((name) => name.endsWith('.partial')))
})

test('a file that is not there is told', async ({ ssh, sshd }) => {
  const missing = join(sshd.directory, 'missing')
  const error = await ssh.download(missing, new PassThrough()).catch((caught: Error) => caught)
  assert.match(String(error), /No such file/)
})

test('a tunnel leads to a port that only the host reaches, and ends with the connection', async ({ sshd }) => {
  const echo = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
  await once(echo, 'listening')
  const { port } = echo.address() as { port: number }
  const ssh = await connect(sshd)
  const tunnel = await ssh.tunnel('127.0.0.1', port)
  const talk = async (text: string): Promise<string> => {
    const socket = createConnection({ host: '127.0.0.1', port: tunnel.port })
    socket.write(text)
    const [answer] = await once(socket, 'data')
    socket.destroy()
    return String(answer)
  }
  assert.equal(await Promise.all(['one', 'two', 'three'].map(talk)), ['one', 'two', 'three'])
  const nowhere = await ssh.tunnel('127.0.0.1', 1)
  const refused = createConnection({ host: '127.0.0.1', port: nowhere.port })
  await once(refused, 'close')
  const open: Socket = createConnection({ host: '127.0.0.1', port: tunnel.port })
  await once(open, 'connect')
  const closed = once(open, 'close')
  await ssh.close()
  await closed
  const after = createConnection({ host: '127.0.0.1', port: tunnel.port })
  const [error] = await once(after, 'error')
  assert.is((error as NodeJS.ErrnoException).code, 'ECONNREFUSED')
  echo.close()
})

test('a tunnel whose connection is cut breaks what goes through it off', async ({ sshd }) => {
  const echo = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1')
  await once(echo, 'listening')
  const ssh = await connect(sshd)
  const tunnel = await ssh.tunnel('127.0.0.1', (echo.address() as { port: number }).port)
  const socket = createConnection({ host: '127.0.0.1', port: tunnel.port })
  socket.on('error', () => {})
  socket.write('one')
  await once(socket, 'data')
  const closed = once(socket, 'close')
  for (const pid of sshd.connections()) process.kill(pid, 'SIGKILL')
  await closed
  await ssh.close()
  echo.close()
})

test.run()
