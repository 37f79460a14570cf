// A release of the reference application, as CI makes one: an image, where the cluster's nodes find it; and its tag in the
// chart's values, committed to the repository.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { Failure } from '../lib/failure.ts'
import { TAG_FILES, withTag } from '../lib/rollout.ts'
import { type AppFiles, buildApp } from './cluster/app-binary.ts'
import { CLUSTER_DEBIAN, debianLayer, filesLayer, writeArchive } from './cluster/images.ts'
import { DOMAIN, findRepository, type Rehearsal } from './site.ts'
import { type Machine, thisMachine } from './tools/machine.ts'

const run = promisify(execFile)

/**
 * @param tag of the image, and what GET /v1/version answers
 * @param files put in place of the application's own, for one that does not work
 * @returns the path of an OCI archive with it
 */
async function appArchive(tag: string, files: AppFiles, machine: Machine, report: (line: string) => void) {
  const binary = await buildApp({ version: tag, files }, machine, report)
  const reference = `registry.${DOMAIN}/ryan/lunarfront-app:${tag}`
  const base = await debianLayer(machine, CLUSTER_DEBIAN, report)
  const own = await filesLayer(machine, basename(binary), [{ path: '/app', source: binary }])
  const hash = createHash('sha256').update(`${reference} ${base.digest} ${own.digest}`).digest('hex').slice(0, 16)
  const archive = join(machine.cache, 'app', `image-${hash}.tar`)
  if (existsSync(archive)) return archive
  mkdirSync(join(machine.cache, 'app'), { recursive: true })
  const partial = `${archive}.${process.pid}`
  // The nodes have the Debian already.
  await writeArchive(
    partial,
    [{ reference, layers: [base, own], config: { Entrypoint: ['/app'], Cmd: ['serve'], User: '65532' } }],
    [base],
  )
  renameSync(partial, archive)
  return archive
}

/** Makes the image and brings it to the nodes, without anybody being told to run it. */
export async function makeImage(
  { cloud }: Rehearsal,
  tag: string,
  { files = {}, report = () => {} }: { files?: AppFiles; report?: (line: string) => void } = {},
): Promise<void> {
  const path = await appArchive(tag, files, thisMachine(), report)
  const answer = await fetch(`${cloud.control}/images`, { method: 'POST', body: JSON.stringify({ path }) })
  if (!answer.ok) throw new Failure({ found: `the cloud does not take the image ${path}: ${await answer.text()}` })
}

/**
 * Makes the tag everybody's at once, the canaries' too: a commit of its own.
 *
 * @returns the commit; undefined where it is theirs already
 */
export async function bumpTag(rehearsal: Rehearsal, tag: string): Promise<string | undefined> {
  const clone = mkdtempSync(join(tmpdir(), 'lunarfront-release-'))
  const identity = ['-c', 'user.name=CI', '-c', `user.email=ci@${DOMAIN}`]
  const repository = findRepository(rehearsal)
  const env = { ...process.env, ...repository?.env }
  const git = (...args: string[]) => run('git', ['-C', clone, ...identity, ...args], { env })
  try {
    await git('clone', '--quiet', '--branch', 'main', repository?.url ?? '', '.')
    for (const file of Object.values(TAG_FILES)) {
      const path = join(clone, file)
      writeFileSync(path, withTag(readFileSync(path, 'utf8'), tag))
    }
    if ((await git('status', '--porcelain')).stdout === '') return undefined
    await git('commit', '--quiet', '--all', '-m', `Image ${tag} [skip ci]`)
    await git('push', '--quiet', 'origin', 'main')
    return (await git('rev-parse', 'HEAD')).stdout.trim()
  } finally {
    rmSync(clone, { recursive: true, force: true })
  }
}
