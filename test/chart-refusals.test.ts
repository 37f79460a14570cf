// gitops/chart: which values it refuses, and in which words; never with a secret in them.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { brokenRule, RESERVED } from '../lib/customers.ts'
import { builtChart, CHART, CUSTOMERS, changed, runHelm, type Values } from './chart.ts'

const test = suite('gitops/chart, refusals')
const chart = builtChart()

const without = (values: string, ...keys: string[]): Values =>
  Object.fromEntries(Object.entries(parse(values)).filter(([key]) => !keys.includes(key)))

const { added, inline } = CUSTOMERS
const image = parse(added).image as Values
const database = { url: 'postgresql://customer_acme:kV7qTz9w@host/customer_acme' }
const redis = { url: 'rediss://:kV7qTz9w@host' }

for (const [what, values, ...message] of [
  ['no customer', without(added, 'customer'), "missing property 'customer'"],
  ['no subdomain', without(added, 'subdomain'), "missing property 'subdomain'"],
  ['a number for a name', changed(added, { customer: 42 }), "at '/customer': got number, want string"],
  ['a subdomain that is no label', changed(added, { subdomain: 'a.b' }), "at '/subdomain': 'a.b' does not match pattern"],
  ['a reserved subdomain', changed(added, { subdomain: 'argocd' }), 'subdomain argocd is reserved for the platform'],
  ['a domain that is none', changed(added, { domain: 'https://x' }), "at '/domain': 'https://x' does not match pattern"],
  ['an unknown value', changed(added, { replica: 2 }), "additional properties 'replica' not allowed"],
  ['an unknown value inside', changed(added, { ingress: { classname: 'traefik' } }), "at '/ingress': additional properties 'classname' not allowed"],
  ['a value taken away', changed(added, { replicas: null }), "missing property 'replicas'"],
  ['a tag with a space', changed(added, { image: { ...image, tag: 'a b' } }), "at '/image/tag': 'a b' does not match pattern"],
  ['a tag with a colon', changed(added, { image: { ...image, tag: 'app:1' } }), "at '/image/tag': 'app:1' does not match pattern"],
  ['a tag that is too long', changed(added, { image: { ...image, tag: 'a'.repeat(129) } }), "at '/image/tag'"],
  ['a tag without quotes', changed(added, { image: { ...image, tag: 1234567 } }), "at '/image/tag': got number, want string"],
  ['an image with its tag', changed(added, { image: { repository: 'registry/app:1' } }), "at '/image/repository': 'registry/app:1' does not match pattern"],
  ['no replica', changed(added, { replicas: 0 }), "at '/replicas': minimum: got 0, want 1"],
  ['fewer replicas than none', changed(added, { replicas: -1 }), "at '/replicas': minimum: got -1, want 1"],
  ['half a replica', changed(added, { replicas: 1.5 }), "at '/replicas': got number, want integer"],
  ['replicas in words', changed(added, { replicas: 'two' }), "at '/replicas': got string, want integer"],
  ['a port that needs a right', changed(added, { port: 80 }), "at '/port': minimum: got 80, want 1,024"],
  ['an unknown rollout', changed(added, { rollout: 'first' }), "at '/rollout': value must be one of 'canary', 'rest'"],
  ['a limit of CPU', changed(added, { resources: { limits: { cpu: '1' } } }), "at '/resources/limits': additional properties 'cpu' not allowed"],
  ['memory that cannot be multiplied', changed(added, { resources: { requests: { memory: '0.5Gi' } } }), "at '/resources/requests/memory': '0.5Gi' does not match pattern"],
  ['less memory than is asked for', changed(added, { resources: { requests: { memory: '1Gi' }, limits: { memory: '512Mi' } } }), 'resources.requests.memory is 1Gi, above resources.limits.memory, 512Mi'],
  ['a migration without an end', changed(added, { migrate: { deadlineSeconds: 0 } }), "at '/migrate/deadlineSeconds': minimum: got 0, want 120"],
  ['a network that is none', changed(added, { network: { clusterCidrs: ['10.244.0.0'] } }), "'10.244.0.0' does not match pattern"],
  ['an address of the whole world', changed(added, { network: { clusterCidrs: ['0.0.0.0/0'] } }), "'0.0.0.0/0' does not match pattern"],
  ['a checksum that is none', changed(added, { secretChecksum: 'x' }), "at '/secretChecksum': 'x' does not match pattern"],
  ['a checksum of inline secrets', changed(inline, { secretChecksum: 'a1'.repeat(32) }), 'secretChecksum is given without existingSecret'],
  ['no secrets', without(added, 'existingSecret', 'secretChecksum'), 'there are no secrets: expected existingSecret, or database.url, redis.url and env.JWT_SECRET inline'],
  ['secrets twice', changed(inline, { existingSecret: 'customer-acme', database }), 'existingSecret is customer-acme, and database.url, env.JWT_SECRET, redis.url inline too: expected the one or the other'],
  ['a secret twice', changed(added, { env: { JWT_SECRET: 'kV7qTz9w' } }), 'existingSecret is customer-acme, and env.JWT_SECRET inline too'],
  ['no address of Valkey', without(inline, 'redis'), 'of the inline secrets redis.url is missing'],
  ['an empty JWT_SECRET', changed(inline, { database, env: { JWT_SECRET: '' } }), 'of the inline secrets env.JWT_SECRET is missing'],
  ['an empty address', changed(inline, { database: { url: '' } }), "at '/database/url': minLength: got 0, want 1"],
  ['an address in the wrong place', changed(inline, { database: database.url }), "at '/database': got string, want object"],
  ['several addresses', changed(inline, { redis: { url: [redis.url] } }), "at '/redis/url': got array, want string"],
  ['a secret where none is known', changed(added, { JWT_SECRET: 'kV7qTz9w' }), "additional properties 'JWT_SECRET' not allowed"],
  ['a variable within a variable', changed(added, { env: { SMTP: { PASSWORD: 'kV7qTz9w' } } }), "at '/env/SMTP': got object, want boolean or number or string"],
  ['a name that no variable has', changed(added, { env: { 'SMTP-PASSWORD': 'kV7qTz9w' } }), "'SMTP-PASSWORD' does not match pattern"],
  ['a variable that is another value', changed(added, { env: { PORT: 80, DATABASE_URL: database.url } }), 'env has DATABASE_URL: expected database.url in its place', 'env has PORT: expected port in its place'],
] as const satisfies [string, Values, string, ...string[]][]) // biome-ignore format: a table
  test(`${what} is refused`, () => {
    const { status, stdout, stderr } = runHelm('template', chart, values, 'customer-acme')
    assert.is(status, 1, stdout)
    for (const part of message) assert.ok(stderr.includes(part), stderr)
    assert.not.match(stderr, 'kV7qTz9w')
  })

test('a customer’s values in another customer’s namespace are refused', () => {
  const { stderr } = runHelm('template', chart, added, 'customer-foo')
  assert.match(
    stderr,
    'those of customer acme, but the namespace is customer-foo: expected the namespace customer-acme',
  )
})

test('a chart for which no image was ever built says so', () => {
  assert.match(runHelm('template', CHART, added).stderr, 'image.tag is empty: expected the tag of an image')
})

for (const customer of [
  'acme', 'a1', 'foo-bar', 'x'.repeat(30), 'customers', 'yes', 'null',
  '', 'a', 'x'.repeat(31), 'Acme', 'acme_test', 'acmé', 'acme\n', '../acme', '{{ acme }}', '1acme', '-acme', 'acme-', 'ac--me', 'customer', 'customer-acme', 'lb', 'www',
]) // biome-ignore format: a list
  test(`the customer ${JSON.stringify(customer)} is judged as add-customer does`, () => {
    const { status, stderr } = runHelm('template', chart, changed(added, { customer }), `customer-${customer}`)
    assert.is(status === 0, brokenRule(customer) === undefined, stderr)
    if (status !== 0) assert.match(stderr, /customer/)
  })

test('the chart keeps the same names for the platform', () => {
  const text = readFileSync(join(CHART, 'templates', '_checks.tpl'), 'utf8')
  assert.equal(/define "app.reserved" -}}\n(.*)\n/.exec(text)?.[1]?.split(' '), RESERVED)
})

test.run()
