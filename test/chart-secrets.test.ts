// gitops/chart: secrets and variables, inline and in a Secret that is there; and what replaces pods.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { builtChart, CUSTOMERS, changed, type Manifest, manifestsOf, podOf, render, type Values } from './chart.ts'

const test = suite('gitops/chart, secrets')
const chart = builtChart()
const of = (values: string | Values) => manifestsOf(render(chart, values))

const SECRETS = {
  database: { url: 'postgresql://customer_acme:kV7qTz9w@host/customer_acme' },
  redis: { url: 'rediss://:Xp2mLr4s@host' },
  env: { JWT_SECRET: 'Yb8nHd3f', SMTP_PASSWORD: 'Gc5jWk6e' },
}

test('inline secrets are in the Secret, and nowhere else, in no form', () => {
  const values = changed(CUSTOMERS.inline, SECRETS)
  const manifests = of(values)
  const { data } = manifests.get('Secret/app')!
  const decoded = Object.entries(data).map(([key, value]) => [key, Buffer.from(value as string, 'base64').toString()])
  assert.equal(Object.fromEntries(decoded), {
    DATABASE_URL: SECRETS.database.url,
    REDIS_URL: SECRETS.redis.url,
    ...SECRETS.env,
  })
  manifests.delete('Secret/app')
  const others = JSON.stringify([...manifests])
  for (const [key, value] of decoded) assert.not.ok(others.includes(value!) || others.includes(data[key!]), key)
  assert.equal(podOf(manifests.get('Deployment/app')).spec.containers[0].envFrom, [{ secretRef: { name: 'app' } }])
})

test('an existing Secret is used as it is, and none is made', () => {
  const manifests = of(CUSTOMERS.added)
  assert.not.ok(manifests.has('Secret/app'))
  for (const workload of ['Deployment/app', 'Job/migrate'])
    assert.equal(podOf(manifests.get(workload)).spec.containers[0].envFrom, [{ secretRef: { name: 'customer-acme' } }])
})

const checksums = (values: Values | string) =>
  ['Deployment/app', 'Job/migrate'].map(
    (workload) => podOf(of(values).get(workload)).metadata.annotations?.['checksum/secret'],
  )

test('pods are replaced when the secret changes', () => {
  const before = changed(CUSTOMERS.inline, SECRETS)
  const seen = [
    before,
    { ...before, database: { url: 'postgresql://other' } },
    { ...before, redis: { url: 'rediss://other' } },
    { ...before, env: { ...SECRETS.env, JWT_SECRET: 'other' } },
    { ...before, env: { ...SECRETS.env, MORE: 'x' } },
  ].map(checksums)
  for (const [deployment, job] of seen) assert.is(deployment, job)
  assert.is(new Set(seen.flat()).size, seen.length)
  assert.equal(checksums(CUSTOMERS.added), ['a1'.repeat(32), 'a1'.repeat(32)])
  const { secretChecksum: _, ...without } = parse(CUSTOMERS.added)
  assert.equal(checksums(without), [undefined, undefined])
})

test('whatever a variable contains, the pod has it so', () => {
  const awkward = {
    TEXT: 'a: "b" \'c\' #d {{ .Values }} $(PORT) $$(PORT) $5 \\n\n\ttab\u0085\u2028ü😀 ',
    EMPTY: '', WORD: 'yes', DIGITS: '0123', LARGE: 1000000, HUGE: 12345678901, FRACTION: 0.5, FLAG: false,
  } // biome-ignore format: a list
  const expected = Object.fromEntries(Object.entries(awkward).map(([name, value]) => [name, String(value)]))
  const { env } = podOf(of(changed(CUSTOMERS.added, { env: awkward })).get('Deployment/app')).spec.containers[0]
  const variables = Object.fromEntries(env.map(({ name, value }: Manifest) => [name, expanded(value)]))
  assert.equal(variables, { PORT: '3000', ...expected })
  const { data } = of(changed(CUSTOMERS.inline, { env: { JWT_SECRET: 'x', ...awkward } })).get('Secret/app')!
  for (const [name, value] of Object.entries(expected))
    assert.is(Buffer.from(data[name], 'base64').toString(), value, name)
})

/** As Kubernetes puts variables into the value of another: $(NAME), and $$ for a dollar. */
const expanded = (value: string) => value.replace(/\$\$|\$\(\w+\)/g, (found) => (found === '$$' ? '$' : 'EXPANDED'))

test.run()
