// The images of what runs on the cluster from the start, under the very names that its manifests have. They hold the
// same programs, built from the same versions, on a Debian; what the makers' own images hold besides is not rehearsed.
import { createHash } from 'node:crypto'
import { existsSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Machine } from '../tools/machine.ts'
import {
  CLUSTER_DEBIAN,
  debianLayer,
  filesLayer,
  type Image,
  type Layer,
  type LayerFile,
  writeArchive,
} from './images.ts'
import { PAUSE_IMAGE } from './node.ts'
import { ARGOCD_VERSION, argocdFile, TRAEFIK_VERSION } from './programs.ts'

/** One program of many names, as its own image has it. */
const ARGOCD_NAMES = [
  'argocd-server',
  'argocd-repo-server',
  'argocd-cmp-server',
  'argocd-application-controller',
  'argocd-dex',
  'argocd-notifications',
  'argocd-applicationset-controller',
  'argocd-k8s-auth',
  'argocd-commit-server',
]

/**
 * Makes them where they are not in the cache yet.
 *
 * @param programs folder of the programs that are built with Go
 * @param report told of what takes its time
 * @returns the path of one OCI archive of all
 */
export async function platformArchive(
  machine: Machine,
  programs: string,
  report: (line: string) => void,
): Promise<string> {
  const images = await platformImages(machine, programs, report)
  const hash = createHash('sha256').update(JSON.stringify(images)).digest('hex').slice(0, 16)
  const archive = join(programs, `images-${hash}.tar`)
  if (existsSync(archive)) return archive
  report('images: those of the cluster, put into one archive, once, in a quarter of a minute')
  const partial = `${archive}.${process.pid}`
  try {
    await writeArchive(partial, images)
    renameSync(partial, archive)
  } finally {
    rmSync(partial, { force: true })
  }
  return archive
}

async function platformImages(machine: Machine, programs: string, report: (line: string) => void): Promise<Image[]> {
  const base = await debianLayer(machine, CLUSTER_DEBIAN, report)
  const program = (name: string): LayerFile => ({ path: `/usr/local/bin/${name}`, source: join(programs, name) })
  const layer = (files: LayerFile[]): Promise<Layer> => filesLayer(machine, basename(programs), files)
  const argocd = await layer([
    program('argocd'),
    program('helm'),
    ...(['git-verify-wrapper.sh', 'gpg-wrapper.sh', 'git-ask-pass.sh'] as const).map((name) => ({
      path: `/usr/local/bin/${name}`,
      source: argocdFile(programs, name),
    })),
    ...ARGOCD_NAMES.map((name) => ({ path: `/usr/local/bin/${name}`, link: 'argocd' })),
  ])
  return [
    { reference: PAUSE_IMAGE, layers: [base], config: { Entrypoint: ['/usr/bin/tini', '--', 'sleep', 'infinity'] } },
    {
      reference: `quay.io/argoproj/argocd:${ARGOCD_VERSION}`,
      layers: [base, argocd],
      config: {
        Entrypoint: ['/usr/bin/tini', '--'],
        User: '999',
        WorkingDir: '/home/argocd',
        Env: ['PATH=/usr/local/bin:/usr/bin:/bin', 'USER=argocd', 'HOME=/home/argocd'],
      },
    },
    {
      reference: 'public.ecr.aws/docker/library/redis:8.2.3-alpine',
      layers: [base],
      config: { Entrypoint: ['redis-server'], User: '999', Env: ['PATH=/usr/local/bin:/usr/bin:/bin'] },
    },
    {
      reference: `docker.io/library/traefik:${TRAEFIK_VERSION}`,
      layers: [base, await layer([program('traefik')])],
      config: { Entrypoint: ['traefik'], Env: ['PATH=/usr/local/bin:/usr/bin:/bin'] },
    },
  ]
}
