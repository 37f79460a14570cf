// The image of the scheduled runbooks: what the Dockerfile makes, from this checkout as it is, on the rehearsal's Debian.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundleRunbook } from '../../lib/bundle.mjs'
import type { Machine } from '../tools/machine.ts'
import { CLUSTER_DEBIAN, debianLayer, filesLayer, writeArchive } from './images.ts'

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
 * @returns the path of an OCI archive, for nodes that have the Debian already, and the image's name
 */
export async function runbooksArchive(
  machine: Machine,
  programs: string,
  report: (line: string) => void,
): Promise<{ archive: string; reference: string }> {
  const identity = identityOf(programs)
  const reference = `registry.lunarfront.test/ryan/lunarfront-infra:${identity}`
  const folder = join(machine.cache, 'runbooks')
  const archive = join(folder, `image-${identity}.tar`)
  if (existsSync(archive)) return { archive, reference }
  mkdirSync(folder, { recursive: true })
  const scratch = mkdtempSync(join(folder, 'new-'))
  try {
    const bundles = SCHEDULED.map((name) => `${name}.cjs`)
    for (const name of SCHEDULED)
      await bundleRunbook(join(ROOT, 'runbooks', `${name}.mts`), join(scratch, `${name}.cjs`))
    const base = await debianLayer(machine, CLUSTER_DEBIAN, report)
    const node = await filesLayer(machine, process.version, [{ path: '/usr/local/bin/node', source: process.execPath }])
    const kubectl = await filesLayer(machine, basename(programs), [
      { path: '/usr/local/bin/kubectl', source: join(programs, 'kubectl') },
    ])
    const own = await filesLayer(machine, identity, [
      ...bundles.map((name) => ({ path: `${HOME}/${name}`, source: join(scratch, name), mode: 0o644 })),
      ...READ.map((path) => ({ path: `${HOME}/${path}`, source: join(ROOT, path), mode: 0o644 })),
    ])
    const config = {
      Entrypoint: ['/usr/bin/tini', '--'],
      User: '1000',
      WorkingDir: HOME,
      Env: ['PATH=/usr/local/bin:/usr/bin:/bin'],
    }
    const partial = join(scratch, 'image.tar')
    await writeArchive(partial, [{ reference, layers: [base, node, kubectl, own], config }], [base])
    renameSync(partial, archive)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  return { archive, reference }
}
