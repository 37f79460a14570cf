// The site file: the example is valid and complete, and everything wrong is named, all at once.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse, stringify } from 'yaml'
import { readCredentials } from '../lib/credentials.ts'
import { Failure } from '../lib/failure.ts'
import { loadSite, ROOT, siteSchema } from '../lib/site.ts'

const example = readFileSync(join(ROOT, 'lunarfront.example.yaml'), 'utf8')
const valid = parse(example) as Record<string, unknown>

const test = suite<{ file: string; directory: string }>('site')
test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'site-'))
  context.file = join(context.directory, 'lunarfront.yaml')
})
test.after.each(({ directory }) => rmSync(directory, { recursive: true }))

const refusal = (file: string, text: string): Failure => {
  writeFileSync(file, text)
  try {
    loadSite(file, {})
  } catch (error) {
    assert.instance(error, Failure)
    assert.is((error as Failure).exit, 64)
    return error as Failure
  }
  throw new Error(`accepted: ${text}`)
}

test('the example is valid, and explains every setting there is', ({ file }) => {
  writeFileSync(file, example)
  assert.is(loadSite(file, {}).name, 'lunarfront')
  for (const name of Object.keys(siteSchema.shape))
    assert.match(example, new RegExp(`(^|\n)#[^\n]*\n(# )?${name}:`), `${name} is not explained`)
})

test('what a site keeps lies beside its file, so that two sites never share it', ({ file, directory }) => {
  writeFileSync(file, example)
  assert.is(loadSite(file, {}).directory, join(directory, '.lunarfront', 'lunarfront'))
  assert.is(loadSite(undefined, { LUNARFRONT_SITE: file }).file, file)
})

test('every variable that a runbook gives Terraform is refused in the site’s own', ({ file }) => {
  const { message } = refusal(file, stringify({ ...valid, terraform: { domain: 'x.tech' } }))
  assert.match(message, 'the runbooks give those themselves')
})

test('all that is wrong is told at once', ({ file }) => {
  const { message } = refusal(file, stringify({ ...valid, name: 'X', domain: 7, region: undefined }))
  for (const name of ['name', 'domain', 'region']) assert.match(message, name)
})

/** What may be left out. */
const OPTIONAL = ['acme', 'ansible', 'dns_servers']

const without = (name: string) => Object.fromEntries(Object.entries(valid).filter(([key]) => key !== name))
const cases: [string, string, RegExp][] = [
  ['an empty file', '', /lunarfront.yaml/],
  ['a list', '- 1', /lunarfront.yaml/],
  ['broken YAML', 'name: [', /not valid YAML/],
  ['a tab for indentation', 'buckets:\n\tstate: x', /not valid YAML/],
  ['a doubled setting', `${example}\nname: other\n`, /unique/],
  ['an unknown setting', stringify({ ...valid, colour: 'red' }), /colour/],
  ['a misspelt setting', stringify({ ...without('region'), regoin: 'nyc3' }), /regoin/],
  ...Object.keys(valid)
    .filter((name) => name !== 'terraform' && !OPTIONAL.includes(name))
    .map((name): [string, string, RegExp] => [`no ${name}`, stringify(without(name)), new RegExp(`${name} .*missing`)]),
  [
    'an ACME server without TLS',
    stringify({ ...valid, acme: { server: 'http://x.test/d', email: 'a@b.test' } }),
    /acme.server must be/,
  ],
  [
    'an ACME account that nobody reads',
    stringify({ ...valid, acme: { server: 'https://x.test/d', email: 'me' } }),
    /acme.email must be/,
  ],
  ['a name for a name server', stringify({ ...valid, dns_servers: ['ns.x.test'] }), /dns_servers.* must be an IP/],
  ['a name in upper case', stringify({ ...valid, name: 'LunarFront' }), /name must be 3 to 24/],
  ['a name with a path', stringify({ ...valid, name: '../x' }), /name must be 3 to 24/],
  ['a name that is too long', stringify({ ...valid, name: 'x'.repeat(25) }), /name must be 3 to 24/],
  ['a domain with a scheme', stringify({ ...valid, domain: 'https://lunarfront.tech' }), /domain must be/],
  ['a domain of one label', stringify({ ...valid, domain: 'localhost' }), /domain must be/],
  [
    'a zone’s name for its id',
    stringify({ ...valid, cloudflare_zone_id: 'lunarfront.tech' }),
    /cloudflare_zone_id must be 32/,
  ],
  ['a zone id read as a number', stringify({ ...valid, cloudflare_zone_id: 12 }), /cloudflare_zone_id/],
  ['a region in words', stringify({ ...valid, region: 'New York' }), /region must be/],
  [
    'two buckets of one name',
    stringify({ ...valid, buckets: { state: 'abc', files: 'abc', backups: 'abd' } }),
    /three different names/,
  ],
  [
    'a bucket name with dots',
    stringify({ ...valid, buckets: { state: 'a.b.c', files: 'abc', backups: 'abd' } }),
    /buckets.state must be/,
  ],
  ['a missing bucket', stringify({ ...valid, buckets: { state: 'abc', files: 'abd' } }), /buckets.backups/],
  ['no SSH key', stringify({ ...valid, operator_ssh_keys: {} }), /at least one key/],
  [
    'a private SSH key',
    stringify({ ...valid, operator_ssh_keys: { ryan: '-----BEGIN OPENSSH PRIVATE KEY-----' } }),
    /operator_ssh_keys.ryan must be a public SSH key/,
  ],
  [
    'a path for an SSH key',
    stringify({ ...valid, operator_ssh_keys: { ryan: '~/.ssh/id_ed25519.pub' } }),
    /must be a public SSH key/,
  ],
  [
    'a repository with a password',
    stringify({ ...valid, repository: 'https://ryan:hunter2@git.lunarfront.tech/x.git' }),
    /must not contain a password/,
  ],
  ['a relative repository', stringify({ ...valid, repository: 'x.git' }), /repository must be/],
  ['a repository that is an option', stringify({ ...valid, repository: '--upload-pack=id' }), /repository must be/],
  [
    'an image with its tag',
    stringify({ ...valid, image_repository: 'registry.lunarfront.tech/ryan/app:1' }),
    /image_repository must be/,
  ],
  ['a budget in words', stringify({ ...valid, budget_usd_per_month: 'little' }), /budget_usd_per_month/],
  ['a budget of nothing', stringify({ ...valid, budget_usd_per_month: 0 }), /budget_usd_per_month/],
  ['a budget with cents', stringify({ ...valid, budget_usd_per_month: 99.5 }), /budget_usd_per_month/],
  [
    'one connection',
    stringify({ ...valid, connections_per_customer: 1 }),
    /connections_per_customer must be at least 2/,
  ],
  ['yes for a boolean', stringify({ ...valid, allow_uncommitted_changes: 'yes' }), /allow_uncommitted_changes/],
  ['a list for Terraform’s settings', stringify({ ...valid, terraform: ['x'] }), /terraform/],
  ['a Terraform setting with a hyphen', stringify({ ...valid, terraform: { 'node-count': 2 } }), /terraform/],
]
for (const [what, text, problem] of cases)
  test(`${what} is refused by name, in one line`, ({ file }) => {
    const { message } = refusal(file, text)
    assert.match(message, problem)
    assert.not.match(message, '\n')
    assert.not.match(message, 'hunter2')
  })

test('a site file that is not there is told with what to do', () => {
  assert.throws(() => loadSite('/no/such/file.yaml', {}), /there is no site file/)
})

const complete = {
  DIGITALOCEAN_TOKEN: 'dop_v1_0123456789',
  CLOUDFLARE_API_TOKEN: 'cloudflare-token',
  SPACES_ACCESS_KEY_ID: 'SPACESKEYID',
  SPACES_SECRET_ACCESS_KEY: 'spaces-secret-key',
}

test('credentials come from the environment, addresses are the providers’ own unless told', () => {
  const { digitalocean, cloudflare, spaces } = readCredentials(complete, 'ams3')
  assert.is(digitalocean.url, 'https://api.digitalocean.com')
  assert.is(cloudflare.url, 'https://api.cloudflare.com/client/v4')
  assert.is(spaces.endpoint, 'https://ams3.digitaloceanspaces.com')
  assert.is(
    readCredentials({ ...complete, SPACES_ENDPOINT_URL: 'https://{{.Region}}.example.com/' }, 'ams3').spaces.endpoint,
    'https://ams3.example.com',
  )
})

test('where a file says where Postgres is, a provider’s token is missed by whoever reads it', () => {
  const { DIGITALOCEAN_TOKEN, CLOUDFLARE_API_TOKEN, ...spacesOnly } = complete
  const environment = { ...spacesOnly, LUNARFRONT_POSTGRES: '/etc/lunarfront/postgres.json' }
  const credentials = readCredentials(environment, 'nyc3')
  assert.is(credentials.spaces.accessKeyId.reveal(), 'SPACESKEYID')
  assert.throws(() => credentials.digitalocean, /DIGITALOCEAN_TOKEN is not set/)
  assert.throws(() => credentials.cloudflare, /CLOUDFLARE_API_TOKEN is not set/)
  assert.is(
    readCredentials({ ...environment, DIGITALOCEAN_TOKEN }, 'nyc3').digitalocean.token.reveal(),
    DIGITALOCEAN_TOKEN,
  )
  assert.throws(() => readCredentials({ ...environment, DIGITALOCEAN_TOKEN: 'x y' }, 'nyc3'), /does not look/)
  assert.throws(() => readCredentials({ LUNARFRONT_POSTGRES: '/x' }, 'nyc3'), /SPACES_ACCESS_KEY_ID is not set/)
})

for (const [what, environment, problem] of [
  [
    'no credential at all',
    {},
    /DIGITALOCEAN_TOKEN is not set; CLOUDFLARE_API_TOKEN is not set; SPACES_ACCESS_KEY_ID is not set; SPACES_SECRET_ACCESS_KEY is not set/,
  ],
  ['an empty token', { ...complete, DIGITALOCEAN_TOKEN: '' }, /DIGITALOCEAN_TOKEN is not set/],
  [
    'a token with a line break',
    { ...complete, DIGITALOCEAN_TOKEN: 'dop_v1_012345\n' },
    /DIGITALOCEAN_TOKEN does not look like a credential/,
  ],
  [
    'a token in quotes',
    { ...complete, CLOUDFLARE_API_TOKEN: '"cloudflare-token"' },
    /CLOUDFLARE_API_TOKEN does not look/,
  ],
  ['a short key', { ...complete, SPACES_SECRET_ACCESS_KEY: 'x' }, /SPACES_SECRET_ACCESS_KEY does not look/],
  [
    'an address without a scheme',
    { ...complete, DIGITALOCEAN_API_URL: 'api.example.com' },
    /DIGITALOCEAN_API_URL is not an http/,
  ],
  ['an address of a file', { ...complete, SPACES_ENDPOINT_URL: 'file:///tmp' }, /SPACES_ENDPOINT_URL is not an http/],
] as const)
  test(`${what} is refused, and its value is not shown`, () => {
    try {
      readCredentials(environment, 'nyc3')
      assert.unreachable()
    } catch (error) {
      assert.match((error as Error).message, problem)
      assert.not.match((error as Error).message, '012345')
    }
  })

test.run()
