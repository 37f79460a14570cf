// The images of what runs on the rehearsal's droplet, and where its Docker finds them: a mirror of Docker Hub that has
// nothing else. They hold the same programs as the makers' own, on a Debian, so their digests are others.
import { createHash } from 'node:crypto'
import { createReadStream, existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'
import { writeWhole } from '../../lib/files.ts'
import { debianLayer, filesLayer, type Image, type LayerFile, layOut, MANIFEST } from '../cluster/images.ts'
import type { Machine } from '../tools/machine.ts'
import { GITEA_FILES, GITEA_HOME } from './programs.ts'

/** What the programs need of a Debian; Gitea's user has a name, as in its own image. */
const DEBIAN = {
  packages: ['ca-certificates', 'curl', 'git', 'tini'],
  users: { git: 1000 },
  why: 'those of Gitea’s droplet',
}

const PATH = 'PATH=/usr/local/bin:/usr/bin:/bin'

/** The role's variables, and the images that they name. */
const REPOSITORIES = {
  gitea_image: 'gitea/gitea',
  gitea_runner_image: 'gitea/act_runner',
  gitea_proxy_image: 'library/caddy',
  gitea_backup_image: 'lunarfront/runbooks',
} as const

type Variable = keyof typeof REPOSITORIES

export type DropletImages = {
  /** of the blobs, each by its digest */
  folder: string
  /** for the role: 'docker.io/gitea/gitea@sha256:…' */
  variables: Record<Variable, string>
}

/**
 * Makes them where they are not in the cache yet.
 *
 * @param programs folder of the programs that are built with Go
 * @param runbooks the image of the scheduled runbooks
 * @param report told of what takes its time
 */
export async function dropletImages(
  machine: Machine,
  programs: string,
  runbooks: Image,
  report: (line: string) => void,
): Promise<DropletImages> {
  const images = { ...(await imagesOf(machine, programs, report)), gitea_backup_image: runbooks }
  const hash = createHash('sha256').update(JSON.stringify(images)).digest('hex').slice(0, 16)
  const folder = join(machine.cache, `droplet-images-${hash}`)
  const record = join(folder, 'variables.json')
  if (!existsSync(record)) {
    rmSync(folder, { recursive: true, force: true })
    const manifests = layOut(folder, Object.values(images))
    const names = Object.keys(images) as Variable[]
    const variables = names.map((name, index) => [name, `docker.io/${REPOSITORIES[name]}@${manifests[index]?.digest}`])
    writeWhole(record, JSON.stringify(Object.fromEntries(variables)))
  }
  return { folder: join(folder, 'blobs', 'sha256'), variables: JSON.parse(readFileSync(record, 'utf8')) }
}

async function imagesOf(
  machine: Machine,
  programs: string,
  report: (line: string) => void,
): Promise<Record<Exclude<Variable, 'gitea_backup_image'>, Image>> {
  const base = await debianLayer(machine, DEBIAN, report)
  const image = async (files: LayerFile[], config: Image['config']): Promise<Image> => ({
    reference: basename(files[0]?.path ?? ''),
    layers: [base, await filesLayer(machine, basename(programs), files)],
    config: { Env: [PATH], ...config },
  })
  const program = (name: string, path: string): LayerFile => ({ path, source: join(programs, name) })
  const beside = join(programs, GITEA_FILES)
  return {
    gitea_image: await image(
      [
        program('gitea', `${GITEA_HOME}/gitea`),
        // Its own image has all of these within the program.
        ...filesIn(beside).map((name) => ({ path: `${GITEA_HOME}/${name}`, source: join(beside, name), mode: 0o644 })),
      ],
      { Entrypoint: [`${GITEA_HOME}/gitea`] },
    ),
    gitea_runner_image: await image([program('act-runner', '/usr/local/bin/act_runner')], {
      Entrypoint: ['/usr/bin/tini', '--', 'act_runner'],
    }),
    gitea_proxy_image: await image([program('caddy', '/usr/bin/caddy')], { Entrypoint: [], Cmd: ['caddy'] }),
  }
}

const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort()

/** As Docker asks a registry (github.com/opencontainers/distribution-spec): everything by its digest. */
const ASKED = /^\/v2\/[a-z0-9._/-]+\/(manifests|blobs)\/sha256:([0-9a-f]{64})$/

/** Serves on a free port of 127.0.0.1. @param folder of the blobs */
export async function serveImages(folder: string): Promise<{ port: number; close: () => Promise<void> }> {
  const server = createServer((request, response) => {
    const [, kind, digest = ''] = ASKED.exec(request.url ?? '') ?? []
    const file = join(folder, digest)
    if (request.url === '/v2/') response.writeHead(200).end()
    else if (!kind || !existsSync(file)) response.writeHead(404).end()
    else {
      response.writeHead(200, {
        'content-type': kind === 'manifests' ? MANIFEST : 'application/octet-stream',
        'content-length': statSync(file).size,
        'docker-content-digest': `sha256:${digest}`,
      })
      if (request.method === 'HEAD') response.end()
      else createReadStream(file).pipe(response)
    }
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  return { port: (server.address() as AddressInfo).port, close }
}
