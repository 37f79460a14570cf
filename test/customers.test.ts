// Customers' names, the files that list them, and what is refused.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  brokenRule,
  customerName,
  namesOf,
  RESERVED,
  readCustomers,
  readValues,
  secretsElsewhere,
} from '../lib/customers.ts'
import { ROOT } from '../lib/site.ts'

const test = suite<{ directory: string }>('customers')
test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'customers-'))
})
test.after.each(({ directory }) => rmSync(directory, { recursive: true }))

const write = (directory: string, folder: string, text: string) => {
  mkdirSync(join(directory, folder), { recursive: true })
  writeFileSync(join(directory, folder, 'values.yaml'), text)
}

/** A values file exactly as in the user's own text, secrets inline. */
const asInTheSeed = `customer: acme
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

for (const name of ['acme', 'a1', 'foo-bar', 'a-b-c', 'x'.repeat(30), 'acme2', 'lbx'])
  test(`${name} is a customer's name`, () => assert.is(customerName(name), name))

for (const [name, rule] of [
  ['', 'empty'],
  ['Acme', 'lower case'],
  ['ACME', 'lower case'],
  ['acme_test', 'letters a to z'],
  ['acme.test', 'letters a to z'],
  ['acme test', 'letters a to z'],
  ['acmé', 'letters a to z'],
  ['аcme', 'letters a to z'], // a Cyrillic а
  ['acme\n', 'letters a to z'],
  ['../acme', 'letters a to z'],
  ['acme/..', 'letters a to z'],
  ['acme;drop', 'letters a to z'],
  ["acme'--", 'letters a to z'],
  ['acme"', 'letters a to z'],
  ['$(id)', 'letters a to z'],
  ['acme\0', 'letters a to z'],
  ['1acme', 'start with a letter'],
  ['-acme', 'start with a letter'],
  ['--plan', 'start with a letter'],
  ['acme-', 'end with a hyphen'],
  ['ac--me', 'two hyphens'],
  ['xn--acme', 'two hyphens'],
  ['a', 'at least 2'],
  ['x'.repeat(31), 'at most 30'],
  ['customer', 'start with customer'],
  ['customer-acme', 'start with customer'],
  ['lb', 'reserved'],
  ['www', 'reserved'],
  ['registry', 'reserved'],
] as const)
  test(`${JSON.stringify(name)} is refused by the rule that it ${rule}`, () => {
    assert.match(brokenRule(name) ?? 'no rule', rule)
    assert.throws(() => customerName(name), /customer name/)
  })

test('no two names share a database, and all that is made from a name is short enough', () => {
  assert.equal(namesOf('foo-bar'), { slug: 'customer-foo-bar', database: 'customer_foo_bar' })
  const longest = namesOf('x'.repeat(30))
  // 63 is the limit of DNS labels, namespaces and Postgres; 24 more are for what is added to a name later.
  assert.ok(longest.database.length + 24 <= 63)
  assert.ok(longest.slug.length + 24 <= 63)
})

test('a values file written as in the seed is a customer', ({ directory }) => {
  write(directory, 'customer-acme', asInTheSeed)
  const [customer] = readCustomers(directory)
  assert.is(customer?.customer, 'acme')
  assert.is(customer?.image.tag, 'abc123')
})

test('no folder is no customer', ({ directory }) => {
  assert.equal(readCustomers(directory), [])
  assert.equal(readCustomers(join(directory, 'missing')), [])
})

for (const [what, folder, text, problem] of [
  ['broken YAML', 'customer-acme', 'customer: [acme', /customer-acme\/values.yaml is not valid YAML/],
  ['a doubled key', 'customer-acme', 'customer: acme\ncustomer: acme\n', /unique/],
  ['an unknown tag', 'customer-acme', 'customer: !!js/function acme', /not valid YAML/],
  [
    'an alias bomb',
    'customer-acme',
    `a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]`,
    /not valid YAML/,
  ],
  ['an empty file', 'customer-acme', '', /values.yaml/],
  ['a list', 'customer-acme', '- acme', /values.yaml/],
  ['no subdomain', 'customer-acme', asInTheSeed.replace('subdomain: acme\n', ''), /subdomain is missing/],
  [
    'a subdomain that is no label',
    'customer-acme',
    asInTheSeed.replace('subdomain: acme', 'subdomain: "a.b"'),
    /subdomain must be a DNS label/,
  ],
  ...['lb', 'argocd', 'git'].map(
    (name) =>
      [
        `the platform’s ${name} as subdomain`,
        'customer-acme',
        asInTheSeed.replace('subdomain: acme', `subdomain: ${name}`),
        new RegExp(`subdomain ${name} is reserved for the platform`),
      ] as const,
  ),
  ['no image', 'customer-acme', asInTheSeed.replace(/image:\n.*\n.*\n/, ''), /image is missing/],
  ['a number for a name', 'customer-42', asInTheSeed.replace('customer: acme', 'customer: 42'), /customer/],
  [
    'somebody else’s file',
    'customer-foo',
    asInTheSeed,
    /is about customer acme; expected customer foo|about customer acme/,
  ],
  ['a reserved name', 'customer-lb', asInTheSeed.replace('customer: acme', 'customer: lb'), /reserved/],
  ['a folder that is no customer', 'acme', asInTheSeed, /no customer's folder/],
] as const)
  test(`${what} is refused by name`, ({ directory }) => {
    write(directory, folder, text)
    assert.throws(() => readCustomers(directory), problem)
  })

test('a folder without a values file is refused', ({ directory }) => {
  mkdirSync(join(directory, 'customer-acme'))
  assert.throws(() => readCustomers(directory), /customer-acme\/values.yaml is not there/)
})

test('where an instance has its secrets from, where that is not the Secret that runbooks make', () => {
  const elsewhere = (more: string) => secretsElsewhere(readValues(`${asInTheSeed}${more}`, 'a test', 'acme'))
  assert.is(elsewhere(''), 'gitops/apps/customer-acme/values.yaml itself')
  assert.is(elsewhere('existingSecret: vault\n'), 'the Secret vault')
  assert.is(elsewhere('existingSecret: customer-acme\n'), undefined)
})

test('Terraform keeps the same names for the platform', () => {
  const list = /reserved_subdomains = \[([^\]]*)\]/.exec(readFileSync(join(ROOT, 'terraform', 'dns.tf'), 'utf8'))?.[1]
  assert.equal(list?.match(/[a-z]+/g), RESERVED)
})

test('two customers with one subdomain are refused', ({ directory }) => {
  write(directory, 'customer-acme', asInTheSeed)
  write(directory, 'customer-foo', asInTheSeed.replace('customer: acme', 'customer: foo'))
  assert.throws(() => readCustomers(directory), /both have the subdomain acme/)
})

test.run()
