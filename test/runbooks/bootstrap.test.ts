// bootstrap against a rehearsed cloud: plan, first run, second run, budget, credentials, faults, interruption.
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { isRunning } from '../../lib/process.ts'
import { ROOT } from '../../lib/site.ts'
import {
  callsDuring,
  clearFaults,
  commitByHand,
  eventsOf,
  everything,
  filesBelow,
  git,
  must,
  type Operator,
  objects,
  plant,
  run,
  start,
  startOperator,
  statusesOf,
  terraformOf,
  watch,
} from './operator.ts'

const test = suite<{ operator: Operator }>('bootstrap')
test.before.each(async (context) => {
  context.operator = await startOperator()
})
test.after.each(({ operator }) => operator.down())

test('--plan of an empty site writes nothing anywhere, says what it cannot know, and exits 2', async ({ operator }) => {
  const before = await everything(operator)
  const { calls, writes } = await callsDuring(operator, async () => {
    const { code, stdout } = await run(operator, 'bootstrap', '--plan')
    assert.is(code, 2, stdout)
    assert.match(stdout, /unknown\s+Ansible’s inventory names the droplet\s+unknown until applied/)
    assert.match(stdout, 'create digitalocean_kubernetes_cluster.main')
    assert.match(stdout, /together \$116 a month/)
  })
  assert.equal(writes, [])
  for (const api of ['digitalocean', 'cloudflare', 'spaces'])
    assert.ok(
      calls.some((call) => call.api === api),
      `${api} was asked nothing`,
    )
  assert.equal(await everything(operator), before)
})

test('--plan of what is there writes nothing either, whether it differs or not', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  for (const exit of [0, 2]) {
    if (exit === 2) rmSync(join(operator.kept, 'inventory.ini'))
    const before = await everything(operator)
    const { writes } = await callsDuring(operator, async () => {
      const { code, stdout } = await run(operator, 'bootstrap', '--plan')
      assert.is(code, exit, stdout)
    })
    assert.equal(writes, [])
    assert.equal(await everything(operator), before)
  }
})

test('the first run makes everything, the second nothing', async ({ operator }) => {
  assert.match(await must(operator, 'bootstrap', '--yes'), '5 steps: 1 ok, 4 changed')
  const made = await objects(operator)
  assert.equal(made.digitalocean.databases?.map(({ name }) => name).sort(), [
    'lunarfront-gitea-postgres',
    'lunarfront-postgres',
    'lunarfront-valkey',
  ])
  assert.equal(made.cloudflare.dns_records.map(({ name }) => name).sort(), [
    'git-ssh.lunarfront.test',
    'git.lunarfront.test',
    'registry.lunarfront.test',
  ])
  const head = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: ROOT, encoding: 'utf8' })
  assert.is(git(operator, 'rev-parse', 'main'), head, 'the repository is not at this checkout’s commit')

  const second = await run(operator, 'bootstrap')
  assert.is(second.code, 0, second.stdout)
  assert.match(second.stdout, '5 steps: 5 ok, 0 changed')
  assert.equal(await objects(operator), made, 'the second run changed something')
  assert.is((await run(operator, 'bootstrap', '--plan')).code, 0)
})

test('money is not spent without a yes, and where nobody can be asked that is said', async ({ operator }) => {
  const { code, stdout } = await run(operator, 'bootstrap')
  assert.is(code, 64, stdout)
  assert.match(stdout, 'This costs $116 a month (now $5). Go on? Nobody can be asked here')
  assert.match(stdout, 'expected: --yes')
  assert.equal((await objects(operator)).digitalocean.databases, [])
})

test('--until stops after the step it names', async ({ operator }) => {
  const { code, stdout } = await run(operator, 'bootstrap', '--yes', '--until', 'infrastructure', '--json')
  assert.is(code, 0)
  assert.equal(Object.values(statusesOf({ stdout })), ['changed', 'ok', 'changed'])
  assert.is(git(operator, 'for-each-ref'), '')
})

test('a plan above the budget is refused with the bill, and nothing of it is made', async () => {
  const poor = await startOperator({ budget_usd_per_month: 100 })
  try {
    const { code, stdout } = await run(poor, 'bootstrap', '--yes')
    assert.is(code, 1)
    assert.match(stdout, 'the platform would cost $116 a month')
    assert.match(stdout, '2 nodes s-2vcpu-4gb')
    assert.match(stdout, 'budget_usd_per_month')
    assert.equal((await objects(poor)).digitalocean.databases, [])
  } finally {
    await poor.down()
  }
})

test('everything that is wrong before the start is told at once', async ({ operator }) => {
  await plant(operator, { droplet_limit: 2 })
  const env = {
    ...operator.env,
    CLOUDFLARE_API_TOKEN: 'not-the-token',
    SPACES_SECRET_ACCESS_KEY: 'not-the-secret-key',
  }
  const { code, stdout } = await run({ env }, 'bootstrap', '--yes')
  assert.is(code, 1)
  assert.match(
    stdout,
    /droplet limit is enough\n.*0 droplets are in use, 3 more are to be made, and the account may have 2/,
  )
  assert.match(stdout, /CLOUDFLARE_API_TOKEN.*is refused/)
  assert.match(stdout, 'Spaces refuses the key')
  assert.not.match(stdout, 'not-the-token')
  assert.equal(
    filesBelow(operator.kept).filter((file) => file.includes('scratch')),
    [],
  )
  const wrong = await run({ env: { ...operator.env, DIGITALOCEAN_TOKEN: 'dop_v1_wrong' } }, 'bootstrap', '--yes')
  assert.match(wrong.stdout, 'DIGITALOCEAN_TOKEN is refused (401)')
})

test('a zone that is not the domain’s is found before anything is made', async () => {
  const elsewhere = await startOperator({ domain: 'example.org' })
  try {
    const { code, stdout } = await run(elsewhere, 'bootstrap', '--yes')
    assert.is(code, 1)
    assert.match(stdout, 'is lunarfront.test')
    assert.match(stdout, 'the zone of example.org')
  } finally {
    await elsewhere.down()
  }
})

test('a provider that is busy or broken for a moment is asked again', async ({ operator }) => {
  await plant(
    operator,
    {
      api: 'digitalocean',
      method: 'GET',
      path: '^/v2/account$',
      times: 1,
    },
    { status: 429, retry_after: 1 },
  )
  await plant(operator, { api: 'cloudflare', method: 'GET', times: 1 }, { status: 500 })
  await plant(
    operator,
    {
      api: 'digitalocean',
      method: 'GET',
      path: '^/v2/droplets\\?',
      times: 1,
    },
    { drop: true },
  )
  assert.match(await must(operator, 'bootstrap', '--yes'), '4 changed')
})

test('a provider that stays broken fails the run with its words, and the next run goes on', async ({ operator }) => {
  await plant(operator, { api: 'digitalocean', method: 'POST', path: '^/v2/firewalls' }, { status: 422 })
  const broken = await run(operator, 'bootstrap', '--yes')
  assert.is(broken.code, 1)
  assert.match(broken.stdout, 'digitalocean_firewall.gitea')
  await clearFaults(operator)
  const { code, stdout } = await run(operator, 'bootstrap', '--yes')
  assert.is(code, 0, stdout)
  const { databases } = (await objects(operator)).digitalocean
  assert.is(databases?.length, 3, 'a database was made twice')
})

test('Ctrl-C, also pressed twice, lets Terraform end in order, tells where it stopped, leaves no process, and the next run finishes', async ({
  operator,
}) => {
  await plant(operator, { api: 'digitalocean', method: 'POST', path: '^/v2/databases$' }, { delay_ms: 1500 })
  const started = start(operator, 'bootstrap', '--yes', '--json')
  let pressed = 0
  let terraform = 0
  watch(started, (event) => {
    const applying = event.event === 'step waiting' && event.for.includes('digitalocean_database_cluster')
    if (!applying || pressed === 2) return
    terraform ||= terraformOf(operator)
    pressed++
    started.child.kill('SIGINT')
  })
  const result = await started.ended
  assert.is(pressed, 2)
  assert.is(result.code, 130)
  assert.equal(Object.values(statusesOf(result)).slice(-2), ['not run', 'not run'])
  const warning = eventsOf(result).find((event) => event.event === 'warning')
  assert.match(JSON.stringify(warning), 'interrupted')
  assert.ok(terraform > 0)
  assert.not.ok(isRunning({ pid: terraform, started: '' }), 'its Terraform still runs')
  await clearFaults(operator)
  await must(operator, 'bootstrap', '--yes')
  assert.is((await objects(operator)).digitalocean.databases?.length, 3, 'a database was made twice')
})

test('a resource to be removed is refused with the list, and left alone', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  await must(operator, 'add-customer', 'acme')
  const before = await objects(operator)
  // Nothing in terraform/ protects a customer's record: only the guard does.
  commitByHand(operator, (clone) => rmSync(join(clone, 'gitops', 'apps', 'customer-acme'), { recursive: true }))
  const { code, stdout } = await run(operator, 'bootstrap', '--yes')
  assert.is(code, 1)
  assert.match(
    stdout,
    'Terraform’s plan would touch what bootstrap may not: delete cloudflare_dns_record.customer["acme"]',
  )
  assert.equal(await objects(operator), before)
})

test('what holds data is not replaced, whatever the site file says', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  const before = await objects(operator)
  const elsewhere = join(operator.directory, 'elsewhere.yaml')
  writeFileSync(elsewhere, readFileSync(operator.siteFile, 'utf8').replace('region: nyc3', 'region: ams3'))
  const { code, stdout } = await run({ env: { ...operator.env, LUNARFRONT_SITE: elsewhere } }, 'bootstrap', '--yes')
  assert.is(code, 1)
  assert.match(stdout, 'prevent_destroy')
  assert.equal((await objects(operator)).digitalocean, before.digitalocean)
})

test('a repository that has gone another way is not overwritten', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  const tree = git(operator, 'rev-parse', 'main^{tree}').trim()
  const stranger = git(
    operator,
    '-c',
    'user.name=x',
    '-c',
    'user.email=x@x',
    'commit-tree',
    tree,
    '-m',
    'unrelated',
  ).trim()
  git(operator, 'update-ref', 'refs/heads/main', stranger)
  const { code, stdout } = await run(operator, 'bootstrap')
  assert.is(code, 1)
  assert.match(stdout, 'each has commits that the other lacks')
  assert.is(git(operator, 'rev-parse', 'main').trim(), stranger)
})

test('this month’s bill above the budget stops the run, also where what it would make is within', async ({
  operator,
}) => {
  await plant(operator, { month_to_date_usage: 150.5 })
  const { code, stdout } = await run(operator, 'bootstrap', '--yes')
  assert.is(code, 1)
  assert.match(stdout, 'this account has used $150.5 since the month began')
  assert.match(stdout, 'at most the budget of $150')
  assert.equal((await objects(operator)).digitalocean.databases, [])
  await plant(operator, { month_to_date_usage: 150 })
  await must(operator, 'bootstrap', '--yes')
})

test.run()
