// The image of the scheduled runbooks: what the Dockerfile makes, from this checkout as it is, on the rehearsal's Debian.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundleRunbook } from '../../lib/bundle.mjs'
import type { Machine } from '../tools/machine.ts'
import { CLUSTER_DEBIAN, debianLayer, filesLayer, type Image, writeArchive } from './images.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Where the image has the runbooks. */
const HOME = '/srv/lunarfront'
/** The runbooks that the CronJobs start. */
export const SCHEDULED = ['backup', 'backups', 'drill', 'prune']
/** What they read of this checkout while they run. */
export const READ = ['package.json', 'terraform/variables.tf', 'ansible/roles/gitea/defaults/main.yml']

/** @returns SHA-256 of all that the image is made of, 16 digits of it */
function identityOf(programs: string): string {
  const hash = createHash('sha256').update(JSON.stringify([process.version, process.arch, basename(programs)]))
  const sources = ['lib', 'runbooks'].flatMap((folder) =>
    readdirSync(join(ROOT, folder)).map((name) => join(folder, name)),
  )
  for (const path of [...sources.sort(), ...READ, 'package-lock.json'])
    hash.update(`${path}\n`).update(readFileSync(join(ROOT, path)))
  return hash.digest('hex').slice(0, 16)
}

/**
 * Makes it where it is not in the cache yet.
 *
 * @param programs folder of the programs that are built with Go, kubectl among them
 * @param report told of what takes its time
 * @returns the image, and the path of an OCI archive with it, for nodes that have the Debian already
 */
export async function runbooksArchive(
  machine: Machine,
  programs: string,
  report: (line: string) => void,
): Promise<{ archive: string; image: Image }> {
  const identity = identityOf(programs)
  const folder = join(machine.cache, 'runbooks')
  const archive = join(folder, `image-${identity}.tar`)
  const bundles = await bundlesIn(join(folder, `bundles-${identity}`))
  const base = await debianLayer(machine, CLUSTER_DEBIAN, report)
  const node = await filesLayer(machine, process.version, [{ path: '/usr/local/bin/node', source: process.execPath }])
  const kubectl = await filesLayer(machine, basename(programs), [
    { path: '/usr/local/bin/kubectl', source: join(programs, 'kubectl') },
  ])
  const own = await filesLayer(machine, identity, [
    ...bundles.map((source) => ({ path: `${HOME}/${basename(source)}`, source, mode: 0o644 })),
    ...READ.map((path) => ({ path: `${HOME}/${path}`, source: join(ROOT, path), mode: 0o644 })),
  ])
  const config = {
    Entrypoint: ['/usr/bin/tini', '--'],
    User: '1000',
    WorkingDir: HOME,
    Env: ['PATH=/usr/local/bin:/usr/bin:/bin'],
  }
  const reference = `registry.lunarfront.test/ryan/lunarfront-infra:${identity}`
  const image = { reference, layers: [base, node, kubectl, own], config }
  if (!existsSync(archive)) {
    const partial = `${archive}.${process.pid}`
    await writeArchive(partial, [image], [base])
    renameSync(partial, archive)
  }
  return { archive, image }
}

/** @returns paths of the runbooks, each as one file; made where they are not there yet */
async function bundlesIn(folder: string): Promise<string[]> {
  if (!existsSync(folder)) {
    mkdirSync(dirname(folder), { recursive: true })
    const partial = mkdtempSync(`${folder}.`)
    for (const name of SCHEDULED)
      await bundleRunbook(join(ROOT, 'runbooks', `${name}.mts`), join(partial, `${name}.cjs`))
    try {
      renameSync(partial, folder)
    } catch (error) {
      rmSync(partial, { recursive: true })
      if (!existsSync(folder)) throw error // another was quicker
    }
  }
  return SCHEDULED.map((name) => join(folder, `${name}.cjs`))
}
