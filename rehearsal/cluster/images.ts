// Container images without a container engine: OCI archives, laid out by hand as the image specification says
// (github.com/opencontainers/image-spec), from a Debian root made once by mmdebstrap and single files.
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  createReadStream,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Machine } from '../tools/machine.ts'
import { run } from '../tools/run.ts'

/** The release whose libraries the programs run with. */
const RELEASE = 'bookworm'

export type DebianOptions = {
  packages: readonly string[]
  /** ids of users that have to have a name: ssh and Gitea refuse to run without one */
  users: Readonly<Record<string, number>>
  /** whose images it is for */
  why: string
}

/** What the cluster's images need. */
export const CLUSTER_DEBIAN: DebianOptions = {
  packages: [
    ...['ca-certificates', 'git', 'gnupg', 'openssh-client', 'tini', 'redis-server'],
    ...['postgresql-client', 'age', 'zstd', 'libstdc++6'],
  ],
  users: { argocd: 999, lunarfront: 1000 },
  why: 'those of the cluster',
}

/** A layer: a tar file whose name is its digest. */
export type Layer = { path: string; digest: string; size: number }

export type Image = {
  /** as pods name it: 'quay.io/argoproj/argocd:v3.5.7' */
  reference: string
  layers: readonly Layer[]
  config: { Entrypoint: string[]; Cmd?: string[]; User?: string; Env?: string[]; WorkingDir?: string }
}

const sha256 = (content: string) => createHash('sha256').update(content).digest('hex')

async function asLayer(tar: string, folder: string): Promise<Layer> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(tar), hash)
  const digest = hash.digest('hex')
  const path = join(folder, `${digest}.tar`)
  renameSync(tar, path)
  return { path, digest, size: statSync(path).size }
}

const layersOf = ({ cache }: Machine) => join(cache, 'layers')

/** A record of what a layer was made from, so that it is found again. */
async function remembered(machine: Machine, identity: string, make: (tar: string) => Promise<void>): Promise<Layer> {
  const folder = layersOf(machine)
  mkdirSync(folder, { recursive: true })
  const record = join(folder, `${sha256(identity).slice(0, 16)}.json`)
  if (existsSync(record)) {
    const layer: Layer = JSON.parse(readFileSync(record, 'utf8'))
    if (existsSync(layer.path)) return layer
  }
  const scratch = mkdtempSync(join(folder, 'new-'))
  try {
    const tar = join(scratch, 'layer.tar')
    await make(tar)
    const layer = await asLayer(tar, folder)
    writeFileSync(join(scratch, 'record'), JSON.stringify(layer))
    renameSync(join(scratch, 'record'), record)
    return layer
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/**
 * @param report told where it is not in the cache yet
 * @returns a small Debian, from its packages
 */
export const debianLayer = (
  machine: Machine,
  { packages, users, why }: DebianOptions,
  report: (line: string) => void,
): Promise<Layer> =>
  remembered(machine, JSON.stringify([RELEASE, packages, users]), async (tar) => {
    report(`images: Debian ${RELEASE} for ${why}, from its packages, once, in half a minute`)
    const made = Object.entries(users).map(
      ([name, id]) =>
        `--customize-hook=chroot "$1" useradd --system --uid ${id} --home-dir /home/${name} --create-home ${name}`,
    )
    await run(
      [
        ...['mmdebstrap', '--quiet', '--variant=minbase', `--include=${packages.join(',')}`, ...made],
        ...['--dpkgopt=path-exclude=/usr/share/doc/*', '--dpkgopt=path-exclude=/usr/share/man/*'],
        ...['--dpkgopt=path-exclude=/usr/share/locale/*', RELEASE, tar],
      ],
      { environment: machine.environment },
    )
  })

/** A file of a layer: a copy of one of the machine's, or a link to another one of the image. */
export type LayerFile = { path: string; source: string; mode?: number } | { path: string; link: string }

/**
 * @param identity changes whenever a file does
 * @param files absolute paths in the image
 */
export const filesLayer = (machine: Machine, identity: string, files: readonly LayerFile[]): Promise<Layer> =>
  remembered(machine, JSON.stringify([identity, files]), async (tar) => {
    const root = `${tar}.root`
    for (const file of files) {
      const path = join(root, file.path)
      mkdirSync(dirname(path), { recursive: true })
      if ('link' in file) symlinkSync(file.link, path)
      else {
        copyFileSync(file.source, path)
        chmodSync(path, file.mode ?? 0o755)
      }
    }
    const plain = ['--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--sort=name']
    await run(['tar', ...plain, '-C', root, '-cf', tar, '.'], { environment: process.env })
  })

const INDEX = 'application/vnd.oci.image.index.v1+json'
export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar'

type Descriptor = { mediaType: string; digest: string; size: number }

/**
 * Writes images into a folder, each layer once, as an OCI layout.
 *
 * @param known layers that its reader has already, and that are left out
 * @returns of each image its manifest
 */
export function layOut(root: string, images: readonly Image[], known: readonly Layer[] = []): Descriptor[] {
  const blobs = join(root, 'blobs', 'sha256')
  mkdirSync(blobs, { recursive: true })
  const blob = (mediaType: string, content: object): Descriptor => {
    const text = JSON.stringify(content)
    const digest = sha256(text)
    writeFileSync(join(blobs, digest), text)
    return { mediaType, digest: `sha256:${digest}`, size: Buffer.byteLength(text) }
  }
  const platform = { architecture: process.arch === 'x64' ? 'amd64' : process.arch, os: 'linux' }
  const manifests = images.map(({ reference, layers, config }) => {
    for (const layer of layers) {
      const target = join(blobs, layer.digest)
      if (!existsSync(target) && !known.some(({ digest }) => digest === layer.digest)) place(layer.path, target)
    }
    const diffs = layers.map(({ digest }) => `sha256:${digest}`)
    const described = blob(CONFIG, { ...platform, config, rootfs: { type: 'layers', diff_ids: diffs } })
    const manifest = blob(MANIFEST, {
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: described,
      layers: layers.map(({ digest, size }) => ({ mediaType: LAYER, digest: `sha256:${digest}`, size })),
    })
    return { ...manifest, platform, annotations: { 'io.containerd.image.name': reference } }
  })
  writeFileSync(join(root, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  writeFileSync(join(root, 'index.json'), JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }))
  return manifests
}

/** Writes images into one archive, as layOut does. */
export async function writeArchive(
  path: string,
  images: readonly Image[],
  known: readonly Layer[] = [],
): Promise<void> {
  const root = `${path}.parts`
  rmSync(root, { recursive: true, force: true })
  try {
    layOut(root, images, known)
    await run(['tar', '-C', root, '-cf', path, 'oci-layout', 'index.json', 'blobs'], { environment: process.env })
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

/** A copy that takes no room where the file system allows that. */
function place(source: string, target: string): void {
  try {
    linkSync(source, target)
  } catch {
    copyFileSync(source, target)
  }
}
