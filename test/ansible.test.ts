// Ansible against a real OpenSSH server: what a play does is told task by task, what fails in its own words, and nothing
// that is secret anywhere.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { runPlaybook } from '../lib/ansible.ts'
import { createExec } from '../lib/exec.ts'
import { Failure } from '../lib/failure.ts'
import { redact, Secret } from '../lib/secret.ts'
import type { Site } from '../lib/site.ts'
import { findTools } from '../rehearsal/tools.ts'
import { type Sshd, startSshd } from './sshd.ts'

type Context = { sshd: Sshd; directory: string; log: string[]; waited: string[]; known: string; inventory: string }
const test = suite<Context>('ansible')

test.before(async (context) => {
  context.sshd = await startSshd()
  context.directory = mkdtempSync(join(tmpdir(), 'ansible-test-'))
  context.known = join(context.directory, 'known_hosts')
  context.inventory = join(context.directory, 'inventory.ini')
  const { port, user } = context.sshd
  writeFileSync(context.known, context.sshd.knownHost)
  writeFileSync(context.inventory, `[gitea]\none ansible_host=127.0.0.1 ansible_port=${port} ansible_user=${user}\n`)
})
test.before.each((context) => {
  context.log = []
  context.waited = []
})
test.after(async ({ sshd, directory }) => {
  await sshd?.stop()
  if (directory) rmSync(directory, { recursive: true, force: true })
})

/** Runs these tasks. */
async function play(
  { sshd, directory, log, waited, known, inventory }: Context,
  tasks: string,
  { check = false, variables = {} }: { check?: boolean; variables?: Record<string, unknown> } = {},
) {
  const file = join(directory, 'play.yml')
  writeFileSync(file, `- hosts: gitea\n  gather_facts: false\n  tasks:\n${tasks.replace(/^/gm, '    ')}\n`)
  const { ansible } = await findTools(['ansible'])
  if (!ansible) throw new Error('missing: ansible; npm test installs it')
  const { SSH_AUTH_SOCK: _agent, ...environment } = process.env
  const PATH = [join(ansible, '..'), environment.PATH].join(delimiter)
  const exec = createExec({ environment: { ...environment, PATH }, log: (line) => log.push(line) })
  const scratch = mkdtempSync(join(directory, 'scratch-')) // of each run, so that none finds a connection of another
  const site = { directory } as Site
  const playbook = { file, inventory, knownHosts: known, identity: sshd.identity, variables }
  const work = { signal: new AbortController().signal, waitingFor: (what: string) => waited.push(what) }
  return runPlaybook({ exec, scratch, site }, playbook, { check }, work)
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

const COPY = (path: string, content: string) =>
  `- name: The file is there\n  ansible.builtin.copy: { dest: ${path}, content: "${content}", mode: "0600" }`

test('tells task by task what it does, and what has changed; a second time nothing has', async (context) => {
  const path = join(context.sshd.directory, 'made')
  const tasks = `- name: Something is looked at\n  ansible.builtin.command: "true"\n  changed_when: false\n${COPY(path, 'one')}`
  const changes = await play(context, tasks)
  assert.equal(context.waited, ['Something is looked at', 'The file is there'])
  assert.equal(
    changes.map(({ host, task }) => [host, task]),
    [['one', 'The file is there']],
  )
  assert.is(readFileSync(path, 'utf8'), 'one')
  assert.equal(await play(context, tasks), [])
})

test('a check changes nothing, and tells how it would', async (context) => {
  const path = join(context.sshd.directory, 'unmade')
  writeFileSync(path, 'before\n', { mode: 0o600 })
  const [change, ...more] = await play(context, COPY(path, 'after'), { check: true })
  assert.equal(more, [])
  assert.match(change?.diff ?? '', /-before[\s\S]*\+after/)
  assert.is(readFileSync(path, 'utf8'), 'before\n')
})

test('a task that fails is told by its name, host and own words, and by where it stands', async (context) => {
  const failing = `- name: The disk is large enough\n  ansible.builtin.command: sh -c 'echo too small >&2; exit 3'`
  const { message, next } = await failureOf(play(context, failing))
  assert.match(message, /^one: The disk is large enough: /)
  assert.match(message, 'too small')
  assert.match(String(next), 'play.yml')
})

test('an item of a loop that fails is told, not only that one did', async (context) => {
  const looped = `- name: All are there\n  ansible.builtin.command: "sh -c 'echo {{ item }} is missing >&2; exit 1'"\n  loop: [beta]`
  assert.match((await failureOf(play(context, looped))).message, 'beta is missing')
})

test('a host that shows another key is not talked to', async (context) => {
  const other = await startSshd()
  await other.stop()
  writeFileSync(context.known, other.knownHost.replace(`:${other.port} `, `:${context.sshd.port} `))
  const { message, expected } = await failureOf(play(context, COPY(join(context.sshd.directory, 'no'), 'x')))
  writeFileSync(context.known, context.sshd.knownHost)
  assert.match(message, /one cannot be reached: [\s\S]*(HOST IDENTIFICATION HAS CHANGED|verification failed)/)
  assert.match(String(expected), 'host key')
  assert.not.ok(readdirSync(context.sshd.directory).includes('no'))
})

test('a file that is no playbook is told', async (context) => {
  const { message } = await failureOf(play(context, '- name: [broken'))
  assert.match(message, /exited 4|exited 1/)
})

test('a secret is in no argument and no log, and reaches the host all the same', async (context) => {
  const path = join(context.sshd.directory, 'secret')
  const secret = new Secret('correct horse battery')
  const tasks = `- name: Arguments are seen\n  ansible.builtin.shell: "ps -eo args > ${path}.args"\n${COPY(path, '{{ password }}')}\n  no_log: true`
  const [, change] = await play(context, tasks, { variables: { password: secret } })
  assert.is(readFileSync(path, 'utf8'), secret.reveal())
  assert.not.match(readFileSync(`${path}.args`, 'utf8'), secret.reveal())
  assert.not.match(JSON.stringify(change), secret.reveal())
  assert.not.match(context.log.join('\n'), secret.reveal())
  assert.is(redact(context.log.join('\n')), context.log.join('\n'))
  const left = readdirSync(context.directory, { recursive: true, encoding: 'utf8' })
  assert.not.ok(left.some((name) => name.endsWith('play.yml.json')))
})

test.run()
