// The programs of the rehearsal's droplet, built with Go from pinned modules into the cache: some six minutes once.
import { createHash } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildMissing, follow, goEnvironment, moduleFolder, oldestGo } from '../tools/go.ts'
import { isProgram, type Machine } from '../tools/machine.ts'
import { run } from '../tools/run.ts'

const folderOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const DROPLET = folderOf('.')
const COMPOSE = folderOf('compose')

const GITEA = 'code.gitea.io/gitea'

/** The main package of each. */
const PACKAGES = {
  gitea: GITEA,
  caddy: 'github.com/caddyserver/caddy/v2/cmd/caddy',
  pebble: 'github.com/letsencrypt/pebble/v2/cmd/pebble',
  'act-runner': './runner',
}
const COMPOSE_PACKAGES = { 'docker-compose': 'github.com/docker/compose/v2/cmd' }
const NAMES = [...Object.keys(PACKAGES), ...Object.keys(COMPOSE_PACKAGES)]
/** As measured. */
const PACKAGES_IN_ALL = 3000
const FLAGS = ['-trimpath']

/** Of Gitea's module: what its own build puts into the program, and what this one finds beside it. */
const GITEA_FOLDERS = ['options', 'templates', 'public']

const FILES = ['go.mod', 'go.sum', 'runner/main.go', 'compose/go.mod', 'compose/go.sum']

const versionIn = (file: string, module: string) =>
  new RegExp(`^\\s*${module.replaceAll('.', '\\.')} v(\\S+)`, 'm').exec(
    readFileSync(join(DROPLET, file), 'utf8'),
  )?.[1] ?? ''

const GITEA_VERSION = versionIn('go.mod', GITEA)
const COMPOSE_VERSION = versionIn('compose/go.mod', 'github.com/docker/compose/v2')

/** Where Gitea's image has what it finds beside it. */
export const GITEA_HOME = '/app/gitea'

/** What each says of itself, and where Gitea's own files are. */
const ldflags = () =>
  [
    ...['-s', '-w', `-X main.Version=${GITEA_VERSION}`],
    `-X code.gitea.io/gitea/modules/setting.StaticRootPath=${GITEA_HOME}`,
    `-X github.com/docker/compose/v2/internal.Version=v${COMPOSE_VERSION}`,
  ].join(' ')

function cached(machine: Machine): string {
  const sources = FILES.map((name) => readFileSync(join(DROPLET, name), 'utf8'))
  const identity = [...sources, ldflags(), ...FLAGS, ...GITEA_FOLDERS, process.platform, process.arch]
  const hash = createHash('sha256').update(identity.join('\n')).digest('hex').slice(0, 16)
  return join(machine.cache, `droplet-programs-${hash}`)
}

export const DROPLET_GO = oldestGo(DROPLET)

/** The folder of what Gitea finds beside it, in that of the programs. */
export const GITEA_FILES = 'gitea-files'
/** The package of Docker Compose, by Ubuntu's name for it, in that of the programs. */
export const COMPOSE_PACKAGE = 'docker-compose-v2.deb'

/** @returns the folder of all programs; undefined where some have yet to be built */
export function findDropletPrograms(machine: Machine): string | undefined {
  const folder = cached(machine)
  const isThere = (name: string) => existsSync(join(folder, name))
  return NAMES.every((name) => isProgram(join(folder, name))) && isThere(GITEA_FILES) && isThere(COMPOSE_PACKAGE)
    ? folder
    : undefined
}

/**
 * Builds what is missing.
 *
 * @param go path of a Go that is new enough
 * @param report told every ten seconds how far it is, and how long it may still take
 */
export async function buildDropletPrograms(
  go: string,
  machine: Machine,
  report: (line: string) => void,
): Promise<void> {
  const folder = cached(machine)
  const workspace = `${folder}.building`
  const onPackage = follow('droplet', PACKAGES_IN_ALL, report)
  const settings = { go, machine, workspace, ldflags: ldflags(), flags: FLAGS, onPackage }
  await buildMissing(folder, PACKAGES, { ...settings, module: DROPLET })
  await buildMissing(folder, COMPOSE_PACKAGES, { ...settings, module: COMPOSE })
  const partial = mkdtempSync(join(folder, 'partial-'))
  try {
    const files = join(partial, GITEA_FILES)
    const module = await moduleFolder(go, GITEA, DROPLET, goEnvironment(machine, workspace))
    for (const name of GITEA_FOLDERS) cpSync(join(module, name), join(files, name), { recursive: true })
    await makeComposePackage(machine, folder, partial)
    for (const name of [GITEA_FILES, COMPOSE_PACKAGE]) {
      rmSync(join(folder, name), { recursive: true, force: true })
      renameSync(join(partial, name), join(folder, name))
    }
  } finally {
    rmSync(partial, { recursive: true, force: true })
  }
  rmSync(workspace, { recursive: true, force: true })
}

/** As Ubuntu packages it: a plugin of Docker's. */
async function makeComposePackage({ environment }: Machine, folder: string, into: string): Promise<void> {
  const root = join(into, 'compose')
  const plugins = join(root, 'usr/libexec/docker/cli-plugins')
  for (const path of [plugins, join(root, 'DEBIAN')]) mkdirSync(path, { recursive: true })
  cpSync(join(folder, 'docker-compose'), join(plugins, 'docker-compose'))
  chmodSync(join(plugins, 'docker-compose'), 0o755)
  const control = {
    Package: 'docker-compose-v2',
    Version: COMPOSE_VERSION,
    Architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    Maintainer: 'the rehearsal',
    Depends: 'docker.io',
    Description: 'Docker Compose, built with Go',
  }
  writeFileSync(
    join(root, 'DEBIAN/control'),
    Object.entries(control)
      .map(([name, value]) => `${name}: ${value}\n`)
      .join(''),
  )
  await run(['dpkg-deb', '--root-owner-group', '-Znone', '--build', root, join(into, COMPOSE_PACKAGE)], { environment })
}
