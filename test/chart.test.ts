// gitops/chart: what it renders for each kind of customer, and what must hold of whatever it renders.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { ROOT } from '../lib/site.ts'
import {
  builtChart,
  CANARY_LINE,
  CHART,
  CUSTOMERS,
  changed,
  type Manifest,
  manifestsOf,
  podOf,
  render,
  runHelm,
  TAG_LINE,
  type Values,
  violations,
} from './chart.ts'
import { matchGolden } from './golden.ts'

const test = suite('gitops/chart')
const chart = builtChart()
const of = (values: string | Values) => manifestsOf(render(chart, values))

/** Every customer, and values that none of them has. */
const RENDERED = Object.entries({
  ...CUSTOMERS,
  'with all that may be set': changed(CUSTOMERS.inline, {
    domain: 'example.org',
    image: {
      repository: 'registry:5000/app',
      tag: `_${'1.0-'.repeat(30)}`,
      pullPolicy: 'Always',
      pullSecret: 'registry',
    },
    rollout: 'canary',
    replicas: 2,
    port: 8080,
    resources: { requests: { cpu: '1', memory: '1Gi' }, limits: { memory: '2Gi' } },
    ingress: { className: 'other' },
    quota: { sparePods: 0 },
    migrate: { deadlineSeconds: 120 },
    network: { clusterCidrs: ['172.16.0.0/16'] },
  }),
}).map(([name, values]) => ({ name, values, text: render(chart, values), manifests: of(values) }))

for (const { name, values, text, manifests } of RENDERED) {
  test(`${name}: helm lint --strict passes`, () => {
    const { status, stdout } = runHelm('lint', chart, values)
    assert.is(status, 0, stdout)
  })

  test(`${name}: every pod passes the Pod Security Standard 'restricted'`, () => {
    for (const workload of ['Deployment/app', 'Job/migrate'])
      assert.equal(violations(podOf(manifests.get(workload)).spec), [], workload)
  })

  test(`${name}: no pod has more than it needs`, () => {
    for (const workload of ['Deployment/app', 'Job/migrate']) {
      const { spec } = podOf(manifests.get(workload))
      assert.is(spec.automountServiceAccountToken, false)
      assert.is(spec.enableServiceLinks, false)
      assert.is(spec.securityContext.runAsUser, 65532)
      for (const { securityContext, resources } of spec.containers) {
        assert.is(securityContext.readOnlyRootFilesystem, true)
        assert.ok(resources.requests.cpu && resources.requests.memory && resources.limits.memory)
        assert.not('cpu' in resources.limits)
      }
      for (const volume of spec.volumes) assert.ok(volume.emptyDir.sizeLimit, volume.name)
    }
  })

  test(`${name}: nothing is there before what it needs, and nothing waits for an address`, () => {
    const waves = new Map([...manifests].map(([key, manifest]) => [key, waveOf(manifest)]))
    for (const key of ['Secret/app', 'NetworkPolicy/app', 'ResourceQuota/app', 'ResourceQuota/migrate'])
      if (waves.has(key)) assert.ok(waves.get(key)! < waves.get('Job/migrate')!, key)
    assert.ok(waves.get('Job/migrate')! < waves.get('Deployment/app')!)
    assert.is(waves.get('Ingress/app'), Math.max(...waves.values()))
    assert.is(waves.get('Deployment/app'), Math.max(...waves.values()))
  })

  test(`${name}: the migration is the only hook, ends, and keeps its logs`, () => {
    const hooks = [...manifests].filter(([, { metadata }]) => 'argocd.argoproj.io/hook' in metadata.annotations)
    assert.equal(
      hooks.map(([key]) => key),
      ['Job/migrate'],
    )
    const { metadata, spec } = manifests.get('Job/migrate')!
    assert.is(metadata.annotations['argocd.argoproj.io/hook'], 'Sync')
    assert.is(metadata.annotations['argocd.argoproj.io/hook-delete-policy'], 'BeforeHookCreation')
    assert.not('ttlSecondsAfterFinished' in spec)
    // The Job’s deadline deletes the pod that runs, and its logs; the pod’s own leaves them.
    assert.ok(spec.template.spec.activeDeadlineSeconds + 45 < spec.activeDeadlineSeconds)
    assert.is(spec.template.spec.restartPolicy, 'Never')
    assert.equal(spec.template.spec.containers[0].args, ['migrate'])
    assert.is(spec.template.spec.containers[0].image, podOf(manifests.get('Deployment/app')).spec.containers[0].image)
  })

  test(`${name}: what selects pods finds the servers, and never the migration`, () => {
    const [server, migration] = ['Deployment/app', 'Job/migrate'].map(
      (key) => podOf(manifests.get(key)).metadata.labels,
    )
    const selectors = [
      manifests.get('Deployment/app')!.spec.selector.matchLabels,
      manifests.get('Service/app')!.spec.selector,
      podOf(manifests.get('Deployment/app')).spec.topologySpreadConstraints[0].labelSelector.matchLabels,
      ...(manifests.has('PodDisruptionBudget/app')
        ? [manifests.get('PodDisruptionBudget/app')!.spec.selector.matchLabels]
        : []),
    ]
    for (const selector of selectors) {
      assert.ok(matches(selector, server))
      assert.not.ok(matches(selector, migration))
    }
  })

  test(`${name}: labels and annotations are what Kubernetes takes for such`, () => {
    for (const [key, { metadata }] of manifests) {
      for (const value of Object.values(metadata.labels))
        assert.match(value as string, /^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/, key)
      for (const value of Object.values(metadata.annotations)) assert.type(value, 'string', key)
      assert.not('namespace' in metadata, key)
    }
    assert.is(text.match(/^kind: /gm)!.length, manifests.size, 'two manifests have one name')
  })
}

test('a disruption budget is there from two replicas on', () => {
  for (const [replicas, there] of [[1, false], [2, true]] as const) // biome-ignore format: a table
    assert.is(of(changed(CUSTOMERS.added, { replicas })).has('PodDisruptionBudget/app'), there)
})

test('nothing but the image and the secret replaces pods', () => {
  for (const values of [CUSTOMERS.inline, CUSTOMERS.added]) {
    const pod = (change: Values) => podOf(of(changed(values, change)).get('Deployment/app'))
    const before = pod({})
    for (const change of [
      { replicas: 3 },
      { rollout: 'canary' },
      { domain: 'example.org', subdomain: 'shop' },
      { quota: { sparePods: 5 }, migrate: { deadlineSeconds: 120 }, network: { clusterCidrs: ['172.16.0.0/16'] } },
    ])
      assert.equal(pod(change), before, JSON.stringify(change))
    const after = pod({ image: { tag: 'def456' } })
    after.spec.containers[0].image = before.spec.containers[0].image
    assert.equal(after, before)
  }
})

test('a selector, which Kubernetes does not let change, never does', () => {
  const selector = (values: Values) => of(values).get('Deployment/app')!.spec.selector.matchLabels
  const expected = {
    'app.kubernetes.io/name': 'lunarfront-app',
    'app.kubernetes.io/instance': 'acme',
    'app.kubernetes.io/component': 'server',
  }
  for (const change of [{}, { replicas: 3, subdomain: 'shop', port: 8080 }, { image: { tag: 'def456' } }])
    assert.equal(selector(changed(CUSTOMERS.added, change)), expected)
})

test('the quotas leave room for a rollout and the migration, at whatever size', () => {
  for (const [replicas, cpu, memory, limit] of [
    [1, '50m', '192Mi', '384Mi'],
    [3, '250m', '1Gi', '1536Mi'],
    [12, '2', '512Mi', '3Gi'],
  ] as const) {
    // biome-ignore format: a table
    const resources = { requests: { cpu, memory }, limits: { memory: limit } }
    const manifests = of(changed(CUSTOMERS.added, { replicas, resources }))
    for (const [quota, workload, scope, pods] of [
      // A new pod for every old one, all of which may still be ending.
      ['ResourceQuota/app', 'Deployment/app', 'NotTerminating', 2 * replicas],
      ['ResourceQuota/migrate', 'Job/migrate', 'Terminating', 1],
    ] as const) {
      const { scopes, hard } = manifests.get(quota)!.spec
      const pod = podOf(manifests.get(workload)).spec
      assert.equal(scopes, [scope])
      assert.is('activeDeadlineSeconds' in pod, scope === 'Terminating', workload)
      const { requests, limits } = pod.containers[0].resources
      assert.ok(Number(hard.pods) > pods)
      assert.is(quantity(hard['requests.cpu']), Number(hard.pods) * quantity(requests.cpu))
      assert.is(quantity(hard['requests.memory']), Number(hard.pods) * quantity(requests.memory))
      assert.is(quantity(hard['limits.memory']), Number(hard.pods) * quantity(limits.memory))
    }
  }
})

test('the databases in the private network can be reached, other pods and the metadata cannot', () => {
  const { egress, ingress, podSelector, policyTypes } = of(CUSTOMERS.added).get('NetworkPolicy/app')!.spec
  assert.equal([podSelector, policyTypes], [{}, ['Ingress', 'Egress']])
  const [dns, outside, ...more] = egress
  assert.equal(more, [])
  assert.equal(
    dns.ports.map(({ port }: Manifest) => port),
    [53, 53],
  )
  const { cidr, except } = outside.to[0].ipBlock
  const network = /variable "vpc_cidr" {[^}]*default += "([0-9.]+)\//.exec(
    readFileSync(join(ROOT, 'terraform', 'variables.tf'), 'utf8'),
  )?.[1]
  const allowed = (address: string) => within(cidr, address) && !except.some((range: string) => within(range, address))
  assert.ok(allowed(network!.replace(/0$/, '7')))
  assert.ok(allowed('203.0.113.7'))
  for (const address of ['10.244.3.7', '10.245.0.10', '169.254.169.254']) assert.not.ok(allowed(address), address)
  assert.equal(ingress, [
    {
      from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'traefik' } } }],
      ports: [{ protocol: 'TCP', port: 3000 }],
    },
  ])
})

for (const name of Object.keys(CUSTOMERS) as (keyof typeof CUSTOMERS)[])
  test(`${name}: the manifests are those of the golden file`, () => {
    matchGolden(join(ROOT, 'test', 'golden', 'chart', `${name}.yaml`), render(chart, CUSTOMERS[name]))
  })

test('CI has one line to write, and every customer without a tag of its own follows it', () => {
  assert.is(readFileSync(join(CHART, 'values.yaml'), 'utf8').match(TAG_LINE)?.length, 1)
  const image = (values: string) =>
    podOf(manifestsOf(render(builtChart('1234567'), values)).get('Deployment/app')).spec.containers[0].image
  assert.match(image(CUSTOMERS.added), /:1234567$/)
  assert.match(image(CUSTOMERS.pinned), /:7f3c1e9$/)
})

test('CI has one line to write for the canaries, which follow the others where it says nothing', () => {
  const empty = readFileSync(join(CHART, 'canary.yaml'), 'utf8')
  assert.equal(empty.match(CANARY_LINE), ['image: {}'])
  assert.equal(Object.keys(parse(empty)), ['image'])
  const canary = `${CUSTOMERS.added}rollout: canary\n`
  const image = (tried: string | undefined, values: string) =>
    podOf(manifestsOf(render(builtChart('1234567', tried), values)).get('Deployment/app')).spec.containers[0].image
  assert.match(image(undefined, canary), /:1234567$/)
  assert.match(image('7654321', canary), /:7654321$/)
  assert.match(image('7654321', CUSTOMERS.added), /:1234567$/)
  // One that is pinned stays where it is.
  assert.match(image('7654321', CUSTOMERS.pinned), /:7f3c1e9$/)
})

test('values.yaml explains every value that the schema knows', () => {
  const text = readFileSync(join(CHART, 'values.yaml'), 'utf8')
  const named = (schema: Manifest): string[] =>
    Object.entries(schema.properties ?? {}).flatMap(([name, inner]) => [name, ...named(inner as Manifest)])
  const schema = JSON.parse(readFileSync(join(CHART, 'values.schema.json'), 'utf8'))
  for (const name of named(schema)) assert.match(text, new RegExp(`^ *(# )? *${name}:`, 'm'), name)
})

const waveOf = ({ metadata }: Manifest) => Number(metadata.annotations['argocd.argoproj.io/sync-wave'])

const matches = (selector: Manifest, labels: Manifest) =>
  Object.entries(selector).every(([name, value]) => labels[name] === value)

/** @param text such as 250m, 2, 512Mi or 1Gi; @returns millicores or MiB, and the like of neither */
const quantity = (text: string) =>
  Number.parseInt(text, 10) * (/(m|Mi)$/.test(text) ? 1 : text.endsWith('Gi') ? 1024 : 1000)

const asNumber = (address: string) => address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0)

function within(range: string, address: string): boolean {
  const [base, bits] = range.split('/')
  const size = 2 ** (32 - Number(bits))
  return Math.floor(asNumber(base!) / size) === Math.floor(asNumber(address) / size)
}

test('a plain pod does not pass the standard', () => {
  assert.ok(violations({ hostNetwork: true, containers: [{ name: 'a' }] }).length >= 5)
})

test.run()
