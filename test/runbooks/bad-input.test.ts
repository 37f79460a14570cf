// Bad input, through the executables: one line that says what is wrong, exit 64 or 1, and nothing written anywhere.

import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse, stringify } from 'yaml'
import { ROOT } from '../../lib/site.ts'
import {
  callsDuring,
  commitByHand,
  everything,
  must,
  type Operator,
  objects,
  type Result,
  run,
  startOperator,
} from './operator.ts'

/** A site file that a test writes for itself, where a good one would be. */
const badFile = ({ directory }: Operator) => join(directory, 'bad.yaml')

/** Everything but that file. */
const untouched = async (operator: Operator) => {
  const { files, ...rest } = await everything(operator)
  const ours = (line: string) => line.startsWith(`${badFile(operator)} `)
  return { files: files.filter((line) => !ours(line)), ...rest }
}

type Everything = Awaited<ReturnType<typeof untouched>>

const test = suite<{ operator: Operator; before: Everything }>('bad input')
test.before(async (context) => {
  context.operator = await startOperator()
  await must(context.operator, 'bootstrap', '--yes')
  await must(context.operator, 'add-customer', 'acme')
  context.before = await untouched(context.operator)
})
test.after(({ operator }) => operator.down())

type Case = {
  what: string
  runbook?: string
  args?: string[]
  env?: Record<string, string | undefined>
  site?: string
  says: RegExp
}

const name = (word: string, says: RegExp): Case => ({ what: `the name ${JSON.stringify(word)}`, args: [word], says })
const words = (what: string, args: string[], says: RegExp, runbook = 'add-customer'): Case => ({
  what,
  runbook,
  args,
  says,
})
const environment = (what: string, env: Record<string, string | undefined>, says: RegExp): Case => ({
  what,
  args: ['new'],
  env,
  says,
})
const setting = (
  what: string,
  change: (site: Record<string, unknown>) => unknown,
  says: RegExp,
): Case & { change: typeof change } => ({
  what: `a site file with ${what}`,
  args: ['new'],
  says,
  change,
})

const fixed: (Case & { change?: (site: Record<string, unknown>) => unknown })[] = [
  name('', /customer name "" must not be empty/),
  name('Acme', /lower case/),
  name('acme_test', /letters a to z/),
  name('acme.test', /letters a to z/),
  name('acme test', /letters a to z/),
  name('acmé', /letters a to z/),
  name('../../etc', /letters a to z/),
  name('acme;id', /letters a to z/),
  name("a'; drop role doadmin; --", /letters a to z/),
  name('$(id)', /letters a to z/),
  name('`id`', /letters a to z/),
  name('a\nb', /letters a to z/),
  name('9lives', /start with a letter/),
  name('acme-', /end with a hyphen/),
  name('xn--80ak6aa92e', /two hyphens/),
  name('a', /at least 2/),
  name('x'.repeat(64), /at most 30/),
  name('customer-acme', /start with customer/),
  name('lb', /reserved/),
  name('registry', /reserved/),
  words('no name', [], /CUSTOMER is missing/),
  words('two names', ['one', 'two'], /one argument too many/),
  words('an unknown option', ['new', '--force'], /there is no option --force/),
  words('an option with a typing error', ['new', '--paln'], /there is no option --paln/),
  words('--plan with a value', ['new', '--plan=yes'], /takes no value/),
  words('--plan twice', ['new', '--plan', '--plan'], /given twice/),
  words('--wait in words', ['new', '--wait', 'long'], /--wait "long"/),
  words('--wait below nothing', ['new', '--wait=-1'], /--wait "-1"/),
  words('--until without a step', ['new', '--until'], /--until needs a value/),
  words('--until a step that there is not', ['new', '--until', 'lunch'], /--until "lunch" fits no step/),
  words('--until two steps', ['new', '--until', 'exists'], /--until "exists" fits 3 steps/),
  words('an empty tag', ['new', '--tag='], /--tag needs a value/),
  words('a tag with a space', ['new', '--tag', 'a b'], /image tag "a b"/),
  words('a tag with a slash', ['new', '--tag', '../latest'], /image tag/),
  words('a tag that is too long', ['new', '--tag', 'x'.repeat(129)], /image tag/),
  words('a site file that is not there', ['new', '--site', '/no/such.yaml'], /there is no site file/),
  words('a folder for a site file', ['new', '--site', '/tmp'], /there is no site file \/tmp/),
  words('an argument to bootstrap', ['acme'], /one argument too many/, 'bootstrap'),
  words('an argument to list-customers', ['acme'], /one argument too many/, 'list-customers'),
  words('deploy without a tag', [], /no --tag/, 'deploy'),
  words('a tag that is none', ['--tag', 'a b'], /the image tag "a b"/, 'deploy'),
  words('--plan to list-customers', ['--plan'], /there is no option --plan/, 'list-customers'),
  environment('no DigitalOcean token', { DIGITALOCEAN_TOKEN: undefined }, /DIGITALOCEAN_TOKEN is not set/),
  environment('an empty Cloudflare token', { CLOUDFLARE_API_TOKEN: '' }, /CLOUDFLARE_API_TOKEN is not set/),
  environment(
    'no Spaces keys',
    { SPACES_ACCESS_KEY_ID: undefined, SPACES_SECRET_ACCESS_KEY: undefined },
    /SPACES_ACCESS_KEY_ID is not set; SPACES_SECRET_ACCESS_KEY is not set/,
  ),
  environment(
    'a token with a line break',
    { DIGITALOCEAN_TOKEN: 'dop_v1_0000000\nx' },
    /does not look like a credential/,
  ),
  environment('a token with a space', { DIGITALOCEAN_TOKEN: 'Bearer dop_v1_00000' }, /does not look like a credential/),
  environment('an address that is none', { DIGITALOCEAN_API_URL: 'nowhere' }, /DIGITALOCEAN_API_URL is not an http/),
  environment(
    'an address of another kind',
    { SPACES_ENDPOINT_URL: 'ftp://example.org' },
    /SPACES_ENDPOINT_URL is not an http/,
  ),
  environment('a site variable that leads nowhere', { LUNARFRONT_SITE: '/no/such.yaml' }, /there is no site file/),
  setting('a misspelt setting', (site) => ({ ...site, bugdet: 1 }), /bugdet/),
  setting('no region', ({ region, ...site }) => site, /region .*missing/),
  setting('a number for a domain', (site) => ({ ...site, domain: 7 }), /domain/),
  setting('an address for a domain', (site) => ({ ...site, domain: 'https://lunarfront.test/' }), /domain must be/),
  setting('a name that is a path', (site) => ({ ...site, name: '../x' }), /name must be/),
  setting('a budget below nothing', (site) => ({ ...site, budget_usd_per_month: -1 }), /budget_usd_per_month/),
  setting(
    'one bucket three times',
    (site) => ({ ...site, buckets: { state: 'aaa', files: 'aaa', backups: 'aaa' } }),
    /three different names/,
  ),
  setting(
    'a private key',
    (site) => ({ ...site, operator_ssh_keys: { me: '-----BEGIN RSA PRIVATE KEY-----' } }),
    /public SSH key/,
  ),
  setting(
    'a password in the repository’s address',
    (site) => ({ ...site, repository: 'https://me:hunter2@git.example.org/x.git' }),
    /must not contain a password/,
  ),
  setting(
    'an option for a repository',
    (site) => ({ ...site, repository: '--upload-pack=touch /tmp/x' }),
    /repository must be/,
  ),
  setting(
    'a variable that the runbook gives',
    (site) => ({ ...site, terraform: { apps_directory: '/' } }),
    /the runbooks give those themselves/,
  ),
  { what: 'a site file that is no YAML', args: ['new'], site: 'name: [', says: /not valid YAML/ },
  { what: 'an empty site file', args: ['new'], site: '', says: /lunarfront|site/ },
  { what: 'a site file with a tab', args: ['new'], site: 'buckets:\n\tstate: x\n', says: /not valid YAML/ },
  { what: 'a site file with a setting twice', args: ['new'], site: 'name: a\nname: b\n', says: /unique/ },
]

test('there are at least 60 cases', () => assert.ok(fixed.length >= 60, String(fixed.length)))

function refusedInOneLine({ code, stdout, stderr }: Result, says: RegExp): void {
  assert.is(code, 64, stdout + stderr)
  assert.is(stdout, '')
  assert.match(stderr, says)
  assert.is(stderr.trimEnd().split('\n').length, 1, stderr)
  assert.not.match(stderr, /hunter2|\n +at /)
}

for (const { what, runbook = 'add-customer', args = [], env = {}, site, says, change } of fixed)
  test(`${what} is refused in one line`, async ({ operator }) => {
    const siteFile = badFile(operator)
    if (site !== undefined) writeFileSync(siteFile, site)
    if (change) writeFileSync(siteFile, stringify(change(parse(readFileSync(operator.siteFile, 'utf8')))))
    const given = site !== undefined || change ? { LUNARFRONT_SITE: siteFile } : {}
    const changed = Object.fromEntries(
      Object.entries({ ...operator.env, ...given, ...env }).filter(
        (entry): entry is [string, string] => entry[1] !== undefined,
      ),
    )
    const { writes } = await callsDuring(operator, async () =>
      refusedInOneLine(await run({ env: changed }, runbook, ...args), says),
    )
    assert.equal(writes, [])
  })

test('none of them has written anything', async ({ operator, before }) => {
  assert.equal(await untouched(operator), before)
})

for (const [what, settings, says] of [
  ['an undeclared variable’s value', { postgres_size: 'huge' }, /postgres_size must be a database size slug/],
  ['a version that is none', { postgres_version: 'latest' }, /postgres_version must be a major version/],
  ['no nodes', { node_count: 0 }, /node_count must be a whole number from 1 to 20/],
  ['a network that is none', { vpc_cidr: '10.0.0.0/33' }, /vpc_cidr must be a network/],
  ['nobody who may reach the droplet', { admin_cidrs: [] }, /admin_cidrs must be networks/],
] as const)
  test(`Terraform’s own settings: ${what} is refused by its plan, and nothing is applied`, async ({ operator }) => {
    const siteFile = badFile(operator)
    const site = parse(readFileSync(operator.siteFile, 'utf8'))
    writeFileSync(siteFile, stringify({ ...site, terraform: { ...site.terraform, ...settings } }))
    const before = await objects(operator)
    const { code, stdout } = await run({ env: { ...operator.env, LUNARFRONT_SITE: siteFile } }, 'bootstrap', '--yes')
    assert.is(code, 1)
    assert.match(stdout, says)
    assert.match(stdout, 'next: correct the setting')
    assert.equal(await objects(operator), before)
  })

for (const [what, path, text, says] of [
  ['broken YAML', 'gitops/apps/customer-bad/values.yaml', 'customer: [', /customer-bad\/values.yaml is not valid YAML/],
  ['an empty file', 'gitops/apps/customer-bad/values.yaml', '', /customer-bad\/values.yaml/],
  [
    'somebody else’s file',
    'gitops/apps/customer-bad/values.yaml',
    'customer: acme\nsubdomain: x\nimage: { repository: r/i }\n',
    /is about customer acme/,
  ],
  [
    'a subdomain that is taken',
    'gitops/apps/customer-bad/values.yaml',
    'customer: bad\nsubdomain: acme\nimage: { repository: r/i }\n',
    /both have the subdomain acme/,
  ],
  [
    'the new customer’s subdomain',
    'gitops/apps/customer-bad/values.yaml',
    'customer: bad\nsubdomain: new\nimage: { repository: r/i }\n',
    /the customer bad has the subdomain new/,
  ],
  ['a folder without its file', 'gitops/apps/customer-bad/readme.md', 'x', /customer-bad\/values.yaml is not there/],
  [
    'a folder that is no customer’s',
    'gitops/apps/stray/values.yaml',
    'x: 1\n',
    /gitops\/apps\/stray is no customer's folder/,
  ],
  ['a missing image', 'gitops/apps/customer-bad/values.yaml', 'customer: bad\nsubdomain: bad\n', /image is missing/],
] as const)
  test(`gitops/apps with ${what} stops add-customer before anything is touched`, async ({ operator }) => {
    const undo = commitByHand(operator, (clone) => {
      mkdirSync(dirname(join(clone, path)), { recursive: true })
      writeFileSync(join(clone, path), text)
    })
    try {
      const before = await objects(operator)
      const { code, stdout } = await run(operator, 'add-customer', 'new')
      assert.is(code, 1)
      assert.match(stdout, says, stdout)
      assert.equal(await objects(operator), before)
    } finally {
      undo()
    }
  })

test('terraform.tfvars that is no HCL is told with its line', async ({ operator }) => {
  // In a checkout of its own: the file is the checkout's, and no test may leave one in this.
  const checkout = join(operator.directory, 'checkout')
  execFileSync('git', ['clone', '-q', ROOT, checkout], { stdio: 'pipe' })
  for (const folder of ['lib', 'runbooks', 'terraform', 'templates'])
    cpSync(join(ROOT, folder), join(checkout, folder), { recursive: true })
  execFileSync('sh', ['-c', `mkdir node_modules && ln -s ${join(ROOT, 'node_modules')}/* node_modules/`], {
    cwd: checkout,
  })
  writeFileSync(join(checkout, 'terraform', 'terraform.tfvars'), 'node_size = \n')
  const result = execFileSync(
    'sh',
    ['-c', `${join(checkout, 'runbooks', 'bootstrap.mts')} --yes --until infrastructure 2>&1; echo "exit $?"`],
    { env: operator.env, encoding: 'utf8' },
  )
  assert.match(result, /terraform.tfvars line \d/, result)
  assert.match(result, 'exit 1')
})

test.run()
