// The reference application as one executable: built once for each version, into the cache.
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../../lib/failure.ts'
import type { Machine } from '../tools/machine.ts'
import { run } from '../tools/run.ts'

export const APP = fileURLToPath(new URL('../app', import.meta.url))

/** Text by path, such as src/index.ts, of files of rehearsal/app. */
export type AppFiles = Record<string, string>

const JOURNAL = 'src/migrations/meta/_journal.json'
const MODULES = ['package.json', 'package-lock.json']
/** Days after which goes what nobody asked for: an executable has 110 MB and is built again in a second. */
const KEPT = { executables: 1, modules: 30 }

/**
 * Builds the application. Two at once do no harm: each builds beside, and the last one's file is kept.
 *
 * @param version what GET /v1/version answers; it may be an image's tag
 * @param files put in place of the application's own, or beside them: see withMigration and withCrash
 * @param report told what is done and how long it took, line by line; nothing where it was built before
 * @returns the path of the executable; throws a Failure where it cannot be built
 */
export async function buildApp(
  { version, files = {} }: { version: string; files?: AppFiles },
  machine: Machine,
  report: (line: string) => void,
): Promise<string> {
  if (!/^\w[\w.-]{0,127}$/.test(version))
    throw new Failure({ found: `the version ${JSON.stringify(version)}`, expected: 'one that an image’s tag can be' })
  const sources = { ...ownSources(), ...files }
  const folder = join(machine.cache, 'app')
  const target = join(folder, `${version}-${hashOf(sources)}`)
  if (existsSync(target)) return used(target)

  const modules = await installAppModules(machine, report, sources)
  const started = Date.now()
  const partial = mkdtempSync(join(folder, 'partial-'))
  try {
    for (const [path, text] of Object.entries(sources)) {
      mkdirSync(dirname(join(partial, path)), { recursive: true })
      writeFileSync(join(partial, path), text)
    }
    symlinkSync(modules, join(partial, 'node_modules'))
    await run(['npm', 'run', 'build'], {
      environment: { ...machine.environment, APP_VERSION: version },
      cwd: partial,
      next: `(cd '${APP}' && npm ci && APP_VERSION=${version} npm run build)`,
    })
    renameSync(join(partial, 'dist', 'app'), target)
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
  report(`app ${version}: built in ${seconds(started)} s`)
  removeUnused(folder)
  return target
}

/**
 * Installs what the application is built, checked and tested with, once for each package-lock.json, outside of the
 * checkout.
 *
 * @returns the folder node_modules; throws a Failure where npm cannot install it
 */
export async function installAppModules(
  machine: Machine,
  report: (line: string) => void,
  sources: AppFiles = ownSources(),
): Promise<string> {
  const wanted = Object.fromEntries(MODULES.map((name) => [name, sources[name] ?? '']))
  const folder = join(machine.cache, 'app')
  const target = join(folder, `modules-${hashOf(wanted)}`)
  if (!existsSync(target)) {
    const started = Date.now()
    mkdirSync(folder, { recursive: true })
    const partial = mkdtempSync(join(folder, 'partial-'))
    try {
      for (const [name, text] of Object.entries(wanted)) writeFileSync(join(partial, name), text)
      // Bun is a program that its package puts in place when it is installed; npm run hands this checkout's "none may" on.
      const argv = ['npm', 'ci', '--include=dev', '--ignore-scripts=false', '--no-audit', '--no-fund']
      await run(argv, { environment: machine.environment, cwd: partial, next: `(cd '${APP}' && npm ci)` })
      try {
        renameSync(partial, target)
      } catch (error) {
        if (!existsSync(target)) throw error // or else another one was quicker
      }
    } finally {
      rmSync(partial, { recursive: true, force: true })
    }
    report(`app: npm ci took ${seconds(started)} s`)
  }
  return join(used(target), 'node_modules')
}

/**
 * One migration more, as drizzle-kit would have written it.
 *
 * @param name such as 'failing'
 * @param sql its statements, `--> statement-breakpoint` between them
 */
export function withMigration(name: string, sql: string): AppFiles {
  const journal = JSON.parse(readFileSync(join(APP, JOURNAL), 'utf8'))
  const last = journal.entries.at(-1)
  const tag = `${String(last.idx + 1).padStart(4, '0')}_${name}`
  const entry = { ...last, idx: last.idx + 1, when: last.when + 1, tag }
  return {
    [JOURNAL]: JSON.stringify({ ...journal, entries: [...journal.entries, entry] }, null, 2),
    [`src/migrations/${tag}.sql`]: sql,
  }
}

/**
 * A server that dies some time after it has begun to listen.
 *
 * @param after milliseconds
 */
export const withCrash = (after: number): AppFiles => ({
  'src/index.ts':
    readFileSync(join(APP, 'src/index.ts'), 'utf8') + `setTimeout(() => { throw new Error('crashed') }, ${after})\n`,
})

/** What an executable is made of. */
function ownSources(): AppFiles {
  const inSrc = readdirSync(join(APP, 'src'), { recursive: true, encoding: 'utf8' })
    .map((name) => `src/${name}`)
    .filter((path) => statSync(join(APP, path)).isFile())
  return Object.fromEntries([...MODULES, ...inSrc].map((path) => [path, readFileSync(join(APP, path), 'utf8')]))
}

function hashOf(files: AppFiles): string {
  const identity = Object.entries(files).sort(([one], [other]) => (one < other ? -1 : 1))
  return createHash('sha256')
    .update(JSON.stringify([process.platform, process.arch, ...identity]))
    .digest('hex')
    .slice(0, 16)
}

function used(path: string): string {
  utimesSync(path, new Date(), new Date())
  return path
}

function removeUnused(folder: string): void {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    const days = name.startsWith('modules-') ? KEPT.modules : KEPT.executables
    const since = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()
    if (Date.now() - since > days * 24 * 60 * 60 * 1000) rmSync(path, { recursive: true, force: true })
  }
}

const seconds = (since: number) => ((Date.now() - since) / 1000).toFixed(1)
