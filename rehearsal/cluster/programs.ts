// The programs of the full rehearsal's cluster, built with Go from pinned modules into the cache: some ten minutes once,
// nothing after. An interrupted build goes on where it was.
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildMissing, follow, goEnvironment, moduleFolder, oldestGo } from '../tools/go.ts'
import { isProgram, type Machine } from '../tools/machine.ts'
import { TRAEFIK_MODULE, traefikSource } from './traefik.ts'

const folderOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const CLUSTER = folderOf('.')
const KUBE_ROUTER = folderOf('kube-router')

/** Its minor version is the one that terraform/variables.tf asks DigitalOcean for. */
const moduleVersion = (module: string, file = join(CLUSTER, 'go.mod')) =>
  new RegExp(`^\\s*${module.replaceAll('.', '\\.')} (v\\S+)`, 'm').exec(readFileSync(file, 'utf8'))?.[1] ?? ''

export const KUBERNETES_VERSION = moduleVersion('k8s.io/kubernetes')
export const ARGOCD_VERSION = moduleVersion('github.com/argoproj/argo-cd/v3')
export const TRAEFIK_VERSION = moduleVersion('github.com/traefik/traefik/v3', join(TRAEFIK_MODULE, 'go.mod'))

/** The main package of each, in the order in which they are built: the longest first. */
const PACKAGES = {
  'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver',
  'kube-controller-manager': 'k8s.io/kubernetes/cmd/kube-controller-manager',
  'kube-scheduler': 'k8s.io/kubernetes/cmd/kube-scheduler',
  kubelet: 'k8s.io/kubernetes/cmd/kubelet',
  'kube-proxy': 'k8s.io/kubernetes/cmd/kube-proxy',
  kubectl: 'k8s.io/kubernetes/cmd/kubectl',
  etcd: 'go.etcd.io/etcd/server/v3',
  helm: 'helm.sh/helm/v4/cmd/helm',
  argocd: 'github.com/argoproj/argo-cd/v3/cmd',
  coredns: './coredns',
} as const

export type ProgramName = keyof typeof PACKAGES | 'kube-router' | 'traefik'
const NAMES = [...Object.keys(PACKAGES), 'kube-router', 'traefik'] as ProgramName[]

/** Whole versions: what asks a server for its version must read one. */
function ldflags(): string {
  const stamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((variables) => {
    const [major, minor] = KUBERNETES_VERSION.slice(1).split('.')
    return [
      `${variables}.gitVersion=${KUBERNETES_VERSION}`,
      `${variables}.gitMajor=${major}`,
      `${variables}.gitMinor=${minor}`,
      `${variables}.gitTreeState=clean`,
      `${variables}.gitCommit=${'0'.repeat(40)}`,
      `${variables}.buildDate=1970-01-01T00:00:00Z`,
    ]
  })
  const argocd = `github.com/argoproj/argo-cd/v3/common.version=${ARGOCD_VERSION.slice(1)}`
  return ['-s', '-w', ...[...stamps, argocd].map((stamp) => `-X ${stamp}`)].join(' ')
}

const FLAGS = ['-trimpath']
/** As measured. */
const PACKAGES_IN_ALL = 4000

/** Every file that decides what is built. */
const sources = () =>
  readdirSync(CLUSTER, { recursive: true, encoding: 'utf8' })
    .filter((name) => /(^|\/)(go\.(mod|sum)|[\w-]+\.go|index\.html)$/.test(name))
    .sort()
    .map((name) => `${name}\n${readFileSync(join(CLUSTER, name), 'utf8')}`)

function cached(machine: Machine): string {
  const identity = [...sources(), ldflags(), ...FLAGS, process.platform, process.arch]
  const hash = createHash('sha256').update(identity.join('\n')).digest('hex').slice(0, 16)
  return join(machine.cache, `cluster-${hash}`)
}

export const CLUSTER_GO = oldestGo(CLUSTER)

/** Of Argo CD's module, by the name under which each is kept: what its image holds, and what installs it. */
const ARGOCD_FILES = {
  'git-verify-wrapper.sh': 'hack/git-verify-wrapper.sh',
  'gpg-wrapper.sh': 'hack/gpg-wrapper.sh',
  'git-ask-pass.sh': 'hack/git-ask-pass.sh',
  'install.yaml': 'manifests/install.yaml',
}

/** @returns where a file of Argo CD's is, in the folder of the programs */
export const argocdFile = (programs: string, name: keyof typeof ARGOCD_FILES) => join(programs, 'argocd-files', name)

const hasArgocdFiles = (folder: string) =>
  (Object.keys(ARGOCD_FILES) as (keyof typeof ARGOCD_FILES)[]).every((name) => existsSync(argocdFile(folder, name)))

/** @returns the folder of all programs; undefined where some have yet to be built */
export function findPrograms(machine: Machine): string | undefined {
  const folder = cached(machine)
  return NAMES.every((name) => isProgram(join(folder, name))) && hasArgocdFiles(folder) ? folder : undefined
}

/**
 * Builds what is missing.
 *
 * @param go path of a Go that is new enough
 * @param report told every ten seconds how far it is, and how long it may still take
 */
export async function buildPrograms(go: string, machine: Machine, report: (line: string) => void): Promise<void> {
  const folder = cached(machine)
  const workspace = `${folder}.building`
  const onPackage = follow('cluster', PACKAGES_IN_ALL, report)
  const build = (module: string, programs: Partial<Record<ProgramName, string>>) =>
    buildMissing(folder, programs, { go, machine, module, workspace, ldflags: ldflags(), flags: FLAGS, onPackage })
  await build(CLUSTER, PACKAGES)
  await build(KUBE_ROUTER, { 'kube-router': 'github.com/cloudnativelabs/kube-router/v2/cmd/kube-router' })
  if (!existsSync(join(folder, 'traefik'))) {
    const copy = await traefikSource(go, join(workspace, 'traefik'), goEnvironment(machine, workspace))
    await build(copy, { traefik: './cmd/traefik' })
  }
  if (!hasArgocdFiles(folder)) {
    const module = await moduleFolder(go, 'github.com/argoproj/argo-cd/v3', CLUSTER, goEnvironment(machine, workspace))
    const partial = join(folder, `argocd-files.${process.pid}`)
    mkdirSync(partial, { recursive: true })
    for (const [name, path] of Object.entries(ARGOCD_FILES)) copyFileSync(join(module, path), join(partial, name))
    rmSync(join(folder, 'argocd-files'), { recursive: true, force: true })
    renameSync(partial, join(folder, 'argocd-files'))
  }
  rmSync(workspace, { recursive: true, force: true })
}
