// The machine that the tools are looked for and installed on, as data.
import { accessSync, constants, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, isAbsolute, join } from 'node:path'
import { run } from './run.ts'

export type Machine = {
  /** environment of the installers, which find their registries in it; PATH says where programs are looked for */
  environment: NodeJS.ProcessEnv
  /** where what was built or unpacked is kept, outside of any checkout */
  cache: string
  /** whether packages may be installed */
  isRoot: boolean
  /** the root of its files: what a package manager keeps at fixed places is looked for under it */
  files: string
}

/** @returns this machine, as the environment says */
export function thisMachine(environment: NodeJS.ProcessEnv = process.env): Machine {
  const { XDG_CACHE_HOME: cacheHome = '', HOME = homedir() } = environment
  return {
    environment,
    cache: join(isAbsolute(cacheHome) ? cacheHome : join(HOME, '.cache'), 'lunarfront', 'tools'),
    isRoot: process.getuid?.() === 0,
    files: '/',
  }
}

/** @returns the path of a program, looked for as a shell would; undefined where there is none */
export function onPath(name: string, { environment }: Machine): string | undefined {
  return (environment.PATH ?? '')
    .split(delimiter)
    .filter(isAbsolute)
    .map((folder) => join(folder, name))
    .find(isProgram)
}

/** @returns whether there is a file here that may be run */
export function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/**
 * Asks a program for its version, once for each file: some take a good part of a second to answer.
 *
 * @param pattern finds the version, its first group, in what the program prints
 * @returns the version; undefined where the program does not say one
 */
export async function versionOf(
  program: string,
  args: string[],
  pattern: RegExp,
  machine: Machine,
): Promise<string | undefined> {
  const { mtimeMs, size, ino } = statSync(program)
  const key = [program, ...args, mtimeMs, size, ino].join(' ')
  const file = join(machine.cache, 'versions.json')
  const known = readKnown(file)
  if (known[key]) return known[key]
  const printed = await run([program, ...args], { environment: machine.environment }).catch(() => '')
  const version = pattern.exec(printed)?.[1]
  if (version) {
    mkdirSync(dirname(file), { recursive: true })
    const partial = `${file}.${process.pid}`
    writeFileSync(partial, JSON.stringify({ ...readKnown(file), [key]: version }, null, 1))
    renameSync(partial, file)
  }
  return version
}

function readKnown(file: string): Record<string, string> {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return {} // not there yet, or not ours to trust: asking again is only slower
  }
}

/** @returns whether a version such as 1.26.6 is at least the oldest one that will do, such as 1.25 */
export function atLeast(version: string, oldest: string): boolean {
  const parts = version.split('.').map(Number)
  for (const [index, least] of oldest.split('.').map(Number).entries()) {
    const part = parts[index] ?? 0
    if (part !== least) return part > least
  }
  return true
}
