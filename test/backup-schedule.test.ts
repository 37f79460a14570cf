// What the backup schedule on the cluster is given, and what gitops/platform/chart makes of it.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { spacesEnvironment } from '../lib/backup-credentials.ts'
import { readableByBackups, scheduleValues } from '../lib/backup-schedule.ts'
import { Secret } from '../lib/secret.ts'
import { ROOT, type Site } from '../lib/site.ts'
import { READ, SCHEDULED } from '../rehearsal/cluster/runbooks-image.ts'
import { findHelm, type Manifest, manifestsOf, violations } from './chart.ts'

const test = suite('the backup schedule')

test('it may read a customer’s one Secret', () => {
  const [role, binding] = readableByBackups('customer-acme')
  assert.equal(role, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'Role',
    metadata: { name: 'backups', namespace: 'customer-acme' },
    rules: [{ apiGroups: [''], resources: ['secrets'], resourceNames: ['customer-acme'], verbs: ['get'] }],
  })
  assert.equal(binding?.subjects, [{ kind: 'ServiceAccount', name: 'backups', namespace: 'backups' }])
})

const site = (more: object, backups: object = {}) => ({ backups, ...more }) as unknown as Site

test('without an image of the runbooks there is no schedule; the drill is where its key is named', () => {
  assert.equal(scheduleValues(site({}, { drill_key: 'drill-key.txt' })), {})
  assert.equal(scheduleValues(site({ runbooks_image: 'r/i:1' })), {
    backups: { image: 'r/i:1', shards: 1, drill: false },
  })
  assert.equal(scheduleValues(site({ runbooks_image: 'r/i:1' }, { shards: 3, drill_key: 'k' })), {
    backups: { image: 'r/i:1', shards: 3, drill: true },
  })
})

test('the pods get a Spaces key of their own where there is one, whole', () => {
  const spaces = { accessKeyId: new Secret('SITES'), secretAccessKey: new Secret('sites'), endpoint: 'https://x' }
  const given = (environment: Record<string, string>) =>
    // The providers' are never asked for.
    spacesEnvironment({
      environment,
      credentials: { spaces } as Parameters<typeof spacesEnvironment>[0]['credentials'],
    })
  assert.equal(given({}), {
    SPACES_ACCESS_KEY_ID: 'SITES',
    SPACES_SECRET_ACCESS_KEY: 'sites',
    SPACES_ENDPOINT_URL: 'https://x',
  })
  const own = { BACKUP_SPACES_ACCESS_KEY_ID: 'OWN', BACKUP_SPACES_SECRET_ACCESS_KEY: 'own' }
  assert.is(given(own).SPACES_ACCESS_KEY_ID, 'OWN')
  assert.is(given(own).SPACES_SECRET_ACCESS_KEY, 'own')
  assert.throws(() => given({ BACKUP_SPACES_ACCESS_KEY_ID: 'OWN' }), /BACKUP_SPACES_SECRET_ACCESS_KEY is not set/)
})

function render(...settings: string[]): Map<string, Manifest> {
  const chart = join(ROOT, 'gitops', 'platform', 'chart')
  const set = settings.flatMap((one) => ['--set', one])
  const { status, stdout, stderr } = spawnSync(findHelm(), ['template', 'platform', chart, ...set], {
    encoding: 'utf8',
  })
  assert.is(status, 0, stderr)
  return manifestsOf(stdout)
}
const image = 'backups.image=registry.lunarfront.tech/ryan/lunarfront-infra:1'
const full = render(image, 'backups.shards=6', 'backups.drill=true')
const cronJobs = [...full].filter(([key]) => key.startsWith('CronJob/'))
const specOf = (name: string): Manifest => full.get(`CronJob/${name}`)?.spec

test('the chart: no schedule without an image, no drill without its key', () => {
  assert.not.ok([...render().keys()].some((key) => key.startsWith('CronJob/') || key === 'Namespace/backups'))
  const keys = [...render(image).keys()].filter((key) => key.startsWith('CronJob/'))
  assert.equal(keys, ['CronJob/backup', 'CronJob/prune'])
  assert.equal(
    cronJobs.map(([key]) => key),
    ['CronJob/backup', 'CronJob/prune', 'CronJob/drill'],
  )
})

test('the chart: backup is an Indexed Job, each index one part of all', () => {
  const { jobTemplate } = specOf('backup')
  const { completionMode, completions, parallelism, backoffLimitPerIndex } = jobTemplate.spec
  assert.equal([completionMode, completions, parallelism, backoffLimitPerIndex], ['Indexed', 6, 4, 2])
  const [args] = jobTemplate.spec.template.spec.containers[0].args as string[]
  for (const index of [0, 5]) {
    const { stdout } = spawnSync('sh', ['-c', args!.replace('exec node', 'echo')], {
      env: { ...process.env, JOB_COMPLETION_INDEX: String(index) },
      encoding: 'utf8',
    })
    assert.is(stdout, `/srv/lunarfront/backup.cjs --shard ${index + 1}/6\n`)
  }
})

for (const [key, { spec }] of cronJobs)
  test(`the chart: ${key} has an end, never runs twice, and its pods are restricted and have what they need`, () => {
    assert.is(spec.concurrencyPolicy, 'Forbid')
    assert.is(spec.timeZone, 'Etc/UTC')
    assert.ok(spec.startingDeadlineSeconds && spec.jobTemplate.spec.activeDeadlineSeconds)
    const pod = spec.jobTemplate.spec.template.spec
    assert.equal(violations(pod), [])
    assert.is(pod.restartPolicy, 'Never')
    assert.is(pod.automountServiceAccountToken, key === 'CronJob/backup')
    const [container] = pod.containers
    assert.is(container.securityContext.readOnlyRootFilesystem, true)
    assert.ok(container.resources.requests.memory && container.resources.limits.memory)
    for (const { name, value } of container.env) if (/KEY/.test(name)) assert.is(value, undefined, name)
    assert.is(
      pod.volumes.some(({ secret }: Manifest) => secret?.secretName === 'drill'),
      key === 'CronJob/drill',
    )
  })

test('the Dockerfile puts into the image what the CronJobs start and what that reads', () => {
  const dockerfile = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
  for (const name of SCHEDULED) assert.match(dockerfile, `runbooks/${name}.mts`)
  for (const path of READ) assert.match(dockerfile, path)
  const scripts = cronJobs.map(([, { spec }]) => spec.jobTemplate.spec.template.spec.containers[0].args[0])
  const started = scripts.join().matchAll(/\/srv\/lunarfront\/(\w+)\.cjs/g)
  assert.equal([...new Set([...started].map(([, name]) => name))].sort(), [...SCHEDULED].sort())
})

test.run()
