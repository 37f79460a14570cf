// versitygw, the S3 server behind Spaces: one of the right version from PATH, else built with Go, once, into the cache.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildGo, oldestGo } from './go.ts'
import { type Machine, onPath, versionOf } from './machine.ts'

/** Where go.mod pins what is built. */
const MODULE = fileURLToPath(new URL('..', import.meta.url))
const MAIN = 'github.com/versity/versitygw/cmd/versitygw'

/**
 * Unoptimized code without debug data compiles in two thirds of the time, and a rehearsal's S3 server has little to do.
 */
const FLAGS = ['-trimpath', '-gcflags=all=-N -l -dwarf=false']

const moduleFile = (name: string) => readFileSync(join(MODULE, name), 'utf8')

const pinnedVersion = () => /github\.com\/versity\/versitygw (v\S+)/.exec(moduleFile('go.mod'))?.[1] ?? ''

/** The oldest Go that builds it. */
export const VERSITYGW_GO = oldestGo(MODULE)

/** Where this very build lies; a change of what is built, or how, is another one. */
function cached(machine: Machine): string {
  const identity = [moduleFile('go.mod'), moduleFile('go.sum'), ...FLAGS, process.platform, process.arch]
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

/**
 * Builds the server into the cache. Two at once do no harm: each builds beside, and the last one's file is kept.
 *
 * @param report told every ten seconds which package the build is at
 */
export async function buildVersitygw(go: string, machine: Machine, report: (line: string) => void): Promise<void> {
  const target = cached(machine)
  mkdirSync(dirname(target), { recursive: true })
  const partial = mkdtempSync(join(dirname(target), 'partial-'))
  const started = Date.now()
  let told = started
  let built = 0
  try {
    const output = join(partial, 'versitygw')
    await buildGo({
      go,
      machine,
      module: MODULE,
      programs: [{ package: MAIN, output }],
      flags: FLAGS,
      ldflags: `-s -w -X main.Version=${pinnedVersion()}`,
      // Whoever has no Go of their own gets none of its folders either: they go when the build is done.
      workspace: go.startsWith(machine.cache) ? partial : undefined,
      onPackage: (name, all) => {
        built += 1
        if (Date.now() - told < 10_000) return
        told = Date.now()
        report(`versitygw: ${Math.round((told - started) / 1000)} s, ${built} of ${all} packages, now ${name}`)
      },
    })
    renameSync(output, target)
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
}
