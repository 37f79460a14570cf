// Terraform's command lines, and the variables that a site gives it.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { argv, variablesOf } from '../lib/terraform.ts'

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
    backups: { recipients: [], daily: 7, weekly: 5, monthly: 12, minimum: 3, max_age_hours: 26 },
    allow_uncommitted_changes: false,
    terraform: { node_count: 3, apps_directory: '/elsewhere' },
    ansible: {},
    file: '',
    directory: '',
  }
  const variables = variablesOf(site, {
    appsDirectory: '/apps',
    importStateBucket: true,
    loadBalancerIp: '203.0.113.9',
  })
  assert.is(variables.apps_directory, '/apps')
  assert.is((variables as Record<string, unknown>).node_count, 3)
})

test.run()
