// Terraform's command lines, what a plan would touch, and what a runbook may not.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { argv, changeLine, changesOf, forbidden, onlyAddOrUpdate, variablesOf } from '../lib/terraform.ts'

const change = (address: string, actions: string[], before: unknown = null, after: unknown = null, more = {}) => ({
  address,
  change: { actions, before, after, after_unknown: {}, ...more },
})
const plan = (...resource_changes: ReturnType<typeof change>[]) => ({
  planned_values: { root_module: { resources: [] } },
  resource_changes,
})

test('command lines', () => {
  assert.equal(argv.init('state'), [
    'init',
    '-input=false',
    '-no-color',
    '-reconfigure',
    '-backend-config=bucket=state',
  ])
  assert.equal(argv.plan({ variables: '/v.json', out: '/p', lock: false }), [
    'plan',
    '-input=false',
    '-json',
    '-var-file=/v.json',
    '-out=/p',
    '-lock=false',
  ])
  assert.equal(argv.plan({ variables: '/v.json', out: '/p', lock: true }).at(-1), '-lock-timeout=600s')
  assert.equal(argv.apply('/p'), ['apply', '-input=false', '-json', '-lock-timeout=600s', '/p'])
})

test('what a plan touches: creation, update by attribute, replacement, import; not reading, not nothing', () => {
  const changes = changesOf(
    plan(
      change('a.new', ['create']),
      change('a.resized', ['update'], { size: 1, name: 'x' }, { size: 2, name: 'x' }),
      change('a.replaced', ['delete', 'create'], { region: 'nyc3' }, { region: 'ams3' }),
      change('a.replaced_later', ['create', 'delete'], { region: 'nyc3' }, { region: 'ams3' }),
      change('a.gone', ['delete']),
      change('a.imported', ['no-op'], {}, {}, { importing: { id: 'x' } }),
      change('a.same', ['no-op']),
      change('data.read', ['read']),
    ),
  )
  assert.equal(changes.map(changeLine), [
    'create a.new',
    'update a.resized (size)',
    'replace a.replaced (region)',
    'replace a.replaced_later (region)',
    'delete a.gone',
    'import a.imported',
  ])
})

test('an attribute that is only known after apply counts as changed', () => {
  const [update] = changesOf(
    plan(change('a.b', ['update'], { id: '1', ip: 'x' }, { id: '1' }, { after_unknown: { ip: true } })),
  )
  assert.equal(update?.attributes, ['ip'])
})

test('bootstrap may add and update, and nothing else', () => {
  const changes = changesOf(
    plan(change('a', ['create']), change('b', ['update']), change('c', ['delete']), change('d', ['delete', 'create'])),
  )
  assert.equal(
    forbidden(changes, onlyAddOrUpdate).map(({ address }) => address),
    ['c', 'd'],
  )
})

test('the site’s own settings never win over what the runbook gives', () => {
  const site = {
    name: 'lunarfront',
    domain: 'lunarfront.tech',
    region: 'nyc3',
    cloudflare_zone_id: '0'.repeat(32),
    buckets: { state: 'a', files: 'b', backups: 'c' },
    operator_ssh_keys: { ryan: 'key' },
    repository: '/r',
    image_repository: 'r/i',
    budget_usd_per_month: 1,
    connections_per_customer: 5,
    allow_uncommitted_changes: false,
    terraform: { node_count: 3, apps_directory: '/elsewhere' },
    file: '',
    directory: '',
  }
  const variables = variablesOf(site, { appsDirectory: '/apps', importStateBucket: true })
  assert.is(variables.apps_directory, '/apps')
  assert.is((variables as Record<string, unknown>).node_count, 3)
})

test.run()
