// The images of what runs on the cluster from the start, under the very names that its manifests have. They hold the
// same programs, built from the same versions, on a Debian; what the makers' own images hold besides is not rehearsed.
import { basename, join } from 'node:path'
import type { Machine } from '../tools/machine.ts'
import { debianLayer, filesLayer, type Image, type Layer, type LayerFile } from './images.ts'
import { PAUSE_IMAGE } from './node.ts'
import { ARGOCD_VERSION, TRAEFIK_VERSION } from './programs.ts'

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
 * @param programs folder of the programs that are built with Go
 * @param argocdModule folder of Argo CD's module, whose scripts its image holds
 */
export async function platformImages(machine: Machine, programs: string, argocdModule: string): Promise<Image[]> {
  const base = await debianLayer(machine)
  const program = (name: string): LayerFile => ({ path: `/usr/local/bin/${name}`, source: join(programs, name) })
  const script = (name: string): LayerFile => ({
    path: `/usr/local/bin/${name}`,
    source: join(argocdModule, 'hack', name),
  })
  const layer = (files: LayerFile[]): Promise<Layer> => filesLayer(machine, basename(programs), files)
  const argocd = await layer([
    program('argocd'),
    program('helm'),
    ...['git-verify-wrapper.sh', 'gpg-wrapper.sh', 'git-ask-pass.sh'].map(script),
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
