// What a run meets when something went wrong before it: things made but not written down, a lock that is left or held,
// secrets on another machine, a repository out of reach, a checkout that is behind.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, userInfo } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parse } from 'yaml'
import { readObject, removeObject, writeObject } from '../../lib/spaces.ts'
import {
  digitalocean,
  must,
  type Operator,
  objects,
  run,
  spacesOf,
  start,
  startOperator,
  statusesOf,
  watch,
} from './operator.ts'

const test = suite<{ operator: Operator }>('recovery')
test.before.each(async (context) => {
  context.operator = await startOperator()
})
test.after.each(({ operator }) => operator.down())

const STATE = { bucket: 'lunarfront-terraform-state', key: 'terraform.tfstate' }

/** @returns everything in the cloud by name or address */
async function names(operator: Operator): Promise<string[]> {
  const { digitalocean, cloudflare } = await objects(operator)
  const things = Object.entries(digitalocean).flatMap(([kind, list]) =>
    Array.isArray(list) ? list.map((one) => `${kind} ${one.name ?? (one as { ip?: string }).ip}`) : [],
  )
  return [...things, ...cloudflare.dns_records.map(({ name, content }) => `${name} ${content}`)].sort()
}

test('a platform whose state is lost is taken as it is: nothing is made twice', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  await must(operator, 'add-customer', 'acme')
  const before = await names(operator)
  await removeObject(await spacesOf(operator), STATE.bucket, STATE.key)
  const plan = await run(operator, 'bootstrap', '--plan')
  assert.is(plan.code, 2, plan.stdout)
  for (const address of [
    'digitalocean_vpc.main',
    'digitalocean_kubernetes_cluster.main',
    'digitalocean_database_cluster.postgres',
    'digitalocean_database_db.gitea',
    'digitalocean_droplet.gitea',
    'digitalocean_firewall.gitea',
    'digitalocean_spaces_bucket.this["backups"]',
  ])
    assert.match(plan.stdout, `import ${address}`)
  // What a database lets in is set anew, which changes nothing.
  assert.equal(
    plan.stdout.match(/create \S+/g)?.map((line) => line.replace(/\..*/, '')),
    Array(3).fill('create digitalocean_database_firewall'),
  )
  await must(operator, 'bootstrap', '--yes')
  assert.match(await must(operator, 'bootstrap'), '0 changed')
  assert.equal(await names(operator), before)
})

test('a record that somebody else made is left alone, and told', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  const { CLOUDFLARE_BASE_URL, CLOUDFLARE_API_TOKEN } = operator.env
  const { cloudflare_zone_id: zone_id } = parse(readFileSync(operator.siteFile, 'utf8'))
  const answer = await fetch(`${CLOUDFLARE_BASE_URL}/zones/${zone_id}/dns_records`, {
    method: 'POST',
    headers: { authorization: `Bearer ${CLOUDFLARE_API_TOKEN}`, 'content-type': 'application/json' },
    body: JSON.stringify({ type: 'CNAME', name: 'acme.app.lunarfront.test', content: 'elsewhere.test', ttl: 300 }),
  })
  assert.is(answer.status, 200)
  const { code, stdout } = await run(operator, 'add-customer', 'acme')
  assert.is(code, 1)
  assert.match(stdout, 'acme.app.lunarfront.test is in DNS already, as CNAME elsewhere.test')
  assert.match(stdout, 'expected: no such record, or CNAME lb.app.lunarfront.test')
})

test('a lock of Terraform that no run of ours left is waited for, by name, and never taken away', async ({
  operator,
}) => {
  await must(operator, 'bootstrap', '--yes')
  const spaces = await spacesOf(operator)
  const lock = `${STATE.key}.tflock`
  const holder = {
    ID: '8a3d1ab5-0b56-4d4c-8d5a-0b9b0f5f4a11',
    Operation: 'OperationTypeApply',
    Who: `${userInfo().username}@${hostname()}`, // typed into a shell of this very machine
    Version: '1.11.4',
    Created: new Date().toISOString(),
    Path: `${STATE.bucket}/${STATE.key}`,
    Info: '',
  }
  await writeObject(spaces, STATE.bucket, lock, JSON.stringify(holder))
  const started = start(operator, 'add-customer', 'acme', '--json')
  let waitedFor = ''
  watch(started, (event) => {
    if (event.event !== 'step waiting' || !event.for.includes('holds the state')) return
    waitedFor = event.for
    void readObject(spaces, STATE.bucket, lock).then(async (text) => {
      assert.ok(text, 'the lock was taken away')
      await removeObject(spaces, STATE.bucket, lock)
    })
  })
  const { code, stdout } = await started.ended
  assert.is(code, 0, stdout)
  assert.match(waitedFor, holder.Who)
  assert.match(waitedFor, `force-unlock ${holder.ID}`)
})

test('secrets that are on another machine are not made anew by themselves', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  await must(operator, 'add-customer', 'acme')
  const file = join(operator.kept, 'secrets', 'acme.json')
  const elsewhere = `${file}.elsewhere`
  renameSync(file, elsewhere)
  const { code, stdout } = await run(operator, 'add-customer', 'acme', '--yes')
  assert.is(code, 1, stdout)
  assert.match(stdout, 'the secrets of acme are neither on this machine nor on the cluster')
  assert.match(stdout, 'next: ./runbooks/restore.mts acme --until secrets')
  assert.not.ok(existsSync(file))
  renameSync(elsewhere, file)
  assert.match(await must(operator, 'add-customer', 'acme'), '0 changed')
})

test('a repository out of reach: the infrastructure is mended, and customers’ records stay', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  await must(operator, 'add-customer', 'acme')
  const away = `${operator.repository}.away`
  renameSync(operator.repository, away)
  const { firewalls = [] } = (await objects(operator)).digitalocean
  await digitalocean(operator, 'DELETE', `/v2/firewalls/${firewalls[0]?.id}`)
  const result = await run(operator, 'bootstrap', '--yes', '--json')
  const statuses = statusesOf(result)
  assert.is(statuses['infrastructure is as terraform/ says'], 'changed', result.stdout)
  assert.match(result.stdout, 'does not answer, so the customers’ records stay as they are')
  const { digitalocean: made, cloudflare } = await objects(operator)
  assert.is(made.firewalls?.length, 1)
  assert.ok(cloudflare.dns_records.some(({ name }) => name === 'acme.app.lunarfront.test'))
  renameSync(away, operator.repository)
})

test('a change of outputs alone is written too', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  const spaces = await spacesOf(operator)
  const state = JSON.parse((await readObject(spaces, STATE.bucket, STATE.key)) ?? '')
  delete state.outputs.gitea
  state.serial++
  await writeObject(spaces, STATE.bucket, STATE.key, JSON.stringify(state))
  const plan = await run(operator, 'bootstrap', '--plan')
  assert.match(plan.stdout, 'write the outputs gitea')
  await must(operator, 'bootstrap', '--yes')
  assert.match(await must(operator, 'bootstrap'), '0 changed')
})

test('a checkout that lacks what the repository has does not take it back', async ({ operator }) => {
  await must(operator, 'bootstrap', '--yes')
  await must(operator, 'add-customer', 'acme') // the repository is ahead by a customer, which is no matter
  assert.match(await must(operator, 'bootstrap'), '0 changed')
  const clone = join(operator.directory, 'colleague')
  execFileSync('git', ['clone', '--quiet', operator.repository, clone])
  writeFileSync(
    join(clone, 'terraform', 'gitea.tf'),
    `${readFileSync(join(clone, 'terraform', 'gitea.tf'))}\n# newer\n`,
  )
  const identity = ['-c', 'user.name=colleague', '-c', 'user.email=colleague@example.org']
  execFileSync('git', [...identity, 'commit', '--quiet', '-am', 'newer'], { cwd: clone })
  execFileSync('git', ['push', '--quiet'], { cwd: clone })
  const { code, stdout } = await run(operator, 'bootstrap', '--yes')
  assert.is(code, 1)
  assert.match(stdout, 'this checkout lacks what the repository has: terraform/gitea.tf')
})

test('a plan that runs beside another run takes nothing of it away', async ({ operator }) => {
  // The first thing that a run writes is a customer's secrets; --plan, started before there was anything, ends after.
  rmSync(join(operator.directory, '.lunarfront'), { recursive: true, force: true })
  const planning = start(operator, 'bootstrap', '--plan', '--json')
  watch(planning, (event) => {
    if (event.event === 'run started') writeFileSync(join(operator.kept, 'machine-id'), 'x')
  })
  assert.is((await planning.ended).code, 2)
  assert.is(readFileSync(join(operator.kept, 'machine-id'), 'utf8'), 'x')
})

test.run()
