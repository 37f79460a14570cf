// gitops/chart for its tests: rendered as Argo CD does, for each kind of customer.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, parseAllDocuments } from 'yaml'
import { ROOT } from '../lib/site.ts'
import { render as renderTemplateText } from '../lib/templates.ts'
import { renderValues } from '../lib/values.ts'
import { findPrograms } from '../rehearsal/cluster/programs.ts'
import { onPath, thisMachine } from '../rehearsal/tools/machine.ts'

/** The one that Argo CD has, where the cluster's programs are built; else the machine's own. */
export function findHelm(): string {
  const programs = findPrograms(thisMachine())
  const found = programs ? join(programs, 'helm') : onPath('helm', thisMachine())
  if (found) return found
  console.log('NOT RUN: there is no Helm: `npm run rehearse -- --full` builds one, on Linux as root')
  process.exit() // no test of a chart can even be put together
}

const HELM = findHelm()

export const CHART = join(ROOT, 'gitops', 'chart')

/** What CI replaces when it has built an image. */
export const TAG_LINE = /^ {2}tag: ".*"$/gm
/** What it replaces before that, for the canaries. */
export const CANARY_LINE = /^image: {.*}$/gm

/** The chart as it is once CI has built an image of this tag. @param canary the tag that the canaries try */
export function builtChart(tag = '0c5d1f2', canary?: string): string {
  const chart = mkdtempSync(join(tmpdir(), 'chart-'))
  process.once('exit', () => rmSync(chart, { recursive: true, force: true }))
  cpSync(CHART, chart, { recursive: true })
  const values = join(chart, 'values.yaml')
  writeFileSync(values, readFileSync(values, 'utf8').replace(TAG_LINE, `  tag: "${tag}"`))
  const canaries = join(chart, 'canary.yaml')
  if (canary)
    writeFileSync(canaries, readFileSync(canaries, 'utf8').replace(CANARY_LINE, `image: { tag: "${canary}" }`))
  return chart
}

export type Values = Record<string, unknown>

const asText = (values: string | Values) =>
  typeof values === 'string' ? values : renderTemplateText('{{yaml values}}\n', { values }, 'values.yaml')

const namespaceOf = (values: string | Values) => `customer-${parse(asText(values)).customer}`

/** @param values a customer's values file, as text or parsed */
export function runHelm(
  command: 'template' | 'lint',
  chart: string,
  values: string | Values,
  namespace = namespaceOf(values),
) {
  const args = { template: ['template', namespace, chart], lint: ['lint', '--strict', chart] }[command]
  const text = asText(values)
  // As the ApplicationSet does.
  const first = join(chart, parse(text).rollout === 'canary' ? 'canary.yaml' : 'values.yaml')
  const { status, stdout, stderr, error } = spawnSync(
    HELM,
    [...args, '--namespace', namespace, '--values', first, '--values', '-'],
    { input: text, encoding: 'utf8' },
  )
  if (error) throw error
  return { status, stdout, stderr }
}

/** @returns the manifests; throws where the values are refused */
export function render(chart: string, values: string | Values): string {
  const { status, stdout, stderr } = runHelm('template', chart, values)
  if (status !== 0) throw new Error(stderr)
  return stdout.replace(/\n+(?=---\n)/g, '\n') // Helm 4 leaves an empty line there, Helm 3 none
}

// biome-ignore lint/suspicious/noExplicitAny: whatever a manifest may hold
export type Manifest = Record<string, any>

/** @returns each manifest by kind and name, such as 'Deployment/app' */
export function manifestsOf(text: string): Map<string, Manifest> {
  const manifests = parseAllDocuments(text).map((document) => document.toJS() as Manifest)
  return new Map(manifests.map((manifest) => [`${manifest.kind}/${manifest.metadata.name}`, manifest]))
}

/** @returns a workload's pod template */
export const podOf = (manifest: Manifest | undefined): Manifest => manifest!.spec.template

/** @returns what of the Pod Security Standard 'restricted' a pod's specification breaks */
export function violations(pod: Manifest): string[] {
  const found: string[] = []
  const require = (holds: boolean, rule: string) => holds || found.push(rule)
  for (const name of ['hostNetwork', 'hostPID', 'hostIPC', 'initContainers', 'ephemeralContainers'])
    require(!pod[name], name)
  for (const volume of pod.volumes ?? [])
    require('emptyDir' in volume || 'secret' in volume || 'configMap' in volume, `volume ${volume.name}`)
  const own = pod.securityContext ?? {}
  for (const { securityContext = {}, ports = [] } of pod.containers) {
    const effective = { ...own, ...securityContext }
    require(effective.runAsNonRoot === true, 'runAsNonRoot')
    require(effective.runAsUser !== 0, 'runAsUser')
    require(effective.seccompProfile?.type === 'RuntimeDefault', 'seccompProfile')
    require(effective.allowPrivilegeEscalation === false, 'allowPrivilegeEscalation')
    require(!effective.privileged, 'privileged')
    require(effective.capabilities?.drop?.includes('ALL') && !effective.capabilities.add, 'capabilities')
    for (const { hostPort } of ports) require(!hostPort, 'hostPort')
  }
  return found
}

/** @returns the values with some of them replaced, whole */
export const changed = (values: string, change: Values): Values => ({ ...parse(values), ...change })

/** A values file exactly as the first description of the platform has it, secrets inline. */
const inline = `customer: acme
subdomain: acme
image:
  repository: registry.lunarfront.tech/ryan/lunarfront-app
  tag: "abc123"
database:
  url: "postgresql://lunarfront:pass@db-host:25060/customer_acme?sslmode=require"
redis:
  url: "rediss://..."
env:
  JWT_SECRET: "..."
  NODE_ENV: production
`

const site = { image_repository: 'registry.lunarfront.tech/ryan/lunarfront-app' }

/** A values file of each kind, by what it is. */
export const CUSTOMERS = {
  inline,
  added: renderValues(site, 'acme', undefined, 'a1'.repeat(32)),
  pinned: `${renderValues(site, 'foo-bar', '7f3c1e9', 'b2'.repeat(32))}replicas: 3\nrollout: canary\n`,
} as const
