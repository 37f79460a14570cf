// Gitea in the backups: stopped only while it is read and never left so, drilled, and back on a droplet that is new, where
// all that its users hold on to is as it was.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { DOMAIN, findRepository } from '../../rehearsal/site.ts'
import { clusterObstacle } from '../../rehearsal/tools/cluster.ts'
import { thisMachine } from '../../rehearsal/tools/machine.ts'
import { keys } from './bucket.ts'
import { startEmptyFullOperator } from './full.ts'
import { ask, dropletId, on, until } from './gitea.ts'
import { digitalocean, eventOf, must, type Operator, run, start } from './operator.ts'

const test = suite<{ operator: Operator; held: Held }>('Gitea in the backups')

const WHOLE = ['--until', 'nightly backup has']
const REPOSITORY = '/api/v1/repos/ryan/lunarfront-infra'

/** What Gitea's users have from it, and hold on to. */
type Held = { token: string; digest: string; attachment: string; secretKey: string; refs: string }

const ATTACHMENT = 'what a customer wrote\n'

const withToken = (token: string) => ({ authorization: `token ${token}` })
const isWell = async (operator: Operator) => (await ask(operator, '/api/healthz')).status === 200
const backupsOf = async (operator: Operator) =>
  (await keys(operator, 'gitea/')).filter((key) => key.endsWith('/manifest.json'))

/** @returns digest of the image by which bootstrap proves the registry */
async function digestOf(operator: Operator, token: string): Promise<string> {
  const basic = Buffer.from(`lunarfront:${token}`).toString('base64')
  const host = `registry.${DOMAIN}`
  const scope = 'repository:ryan/registry-check:pull'
  const signedIn = await ask(operator, `/v2/token?service=container_registry&scope=${scope}`, {
    host,
    headers: { authorization: `Basic ${basic}` },
  })
  const { status, body } = await ask(operator, '/v2/ryan/registry-check/manifests/1', {
    host,
    headers: {
      authorization: `Bearer ${JSON.parse(signedIn.body).token}`,
      accept: 'application/vnd.oci.image.manifest.v1+json',
    },
  })
  assert.is(status, 200, body)
  return createHash('sha256').update(body).digest('hex')
}

/** @returns what the repository has, as Git tells it; only where its host shows the key that is known */
function refs(operator: Operator): string {
  const found = findRepository(operator)!
  return execFileSync('git', ['ls-remote', found.url], {
    env: { ...process.env, ...found.env },
    encoding: 'utf8',
    stdio: 'pipe',
  })
}

test.before(async (context) => {
  context.operator = await startEmptyFullOperator()
})
test.after(async ({ operator }) => operator?.down())

test('its users get something to hold on to', async (context) => {
  const { operator } = context
  await must(operator, 'bootstrap', '--yes', ...WHOLE)
  const admin = 'docker exec gitea /app/gitea/gitea --config /settings/app.ini admin user'
  const token = await on(
    operator,
    `${admin} generate-access-token --username lunarfront --scopes all --raw --token-name test`,
  )
  const json = { ...withToken(token), 'content-type': 'application/json' }
  const issue = await ask(operator, `${REPOSITORY}/issues`, { method: 'POST', headers: json, body: '{"title": "x"}' })
  assert.is(issue.status, 201, issue.body)
  const form = new FormData()
  form.append('attachment', new Blob([ATTACHMENT]), 'note.txt')
  const encoded = new Request('http://x', { method: 'POST', body: form })
  const asset = await ask(operator, `${REPOSITORY}/issues/1/assets`, {
    method: 'POST',
    headers: { ...withToken(token), 'content-type': encoded.headers.get('content-type') ?? '' },
    body: Buffer.from(await encoded.arrayBuffer()),
  })
  assert.is(asset.status, 201, asset.body)
  const secret = await ask(operator, `${REPOSITORY}/actions/secrets/DEPLOY`, {
    method: 'PUT',
    headers: json,
    body: '{"data": "opensesame"}',
  })
  assert.is(secret.status, 201, secret.body)
  context.held = {
    ...{ token, attachment: new URL(JSON.parse(asset.body).browser_download_url).pathname },
    ...{ digest: await digestOf(operator, token), refs: refs(operator) },
    secretKey: await on(operator, 'sha256sum /srv/gitea/secrets/secret-key'),
  }
})

test('it is backed up with all the rest, and stopped for that no longer than it takes', async ({ operator }) => {
  const started = Date.now()
  const stdout = await must(operator, 'backup', '--yes', '--gitea')
  assert.match(stdout, /changed +Gitea is backed up/)
  console.log(`a backup of Gitea took ${((Date.now() - started) / 1000).toFixed(1)} s`)
  await until(() => isWell(operator))
  assert.is((await backupsOf(operator)).length, 1)
  assert.match(await must(operator, 'backup', '--yes'), /ok +Gitea is backed up/)
  assert.match(await must(operator, 'backups'), /gitea\/gitea +\d+ min old/)
})

test('a backup that is killed at any moment leaves Gitea running, and nothing that counts', async ({ operator }) => {
  for (const pause of [0, 500, 1500, 3000]) {
    const started = start(operator, 'backup', '--yes', '--gitea', '--again', '--json')
    await eventOf(started, (event) => event.event === 'step waiting' && event.for === 'pg_dump, zstd, age and Spaces')
    await new Promise((resolve) => setTimeout(resolve, pause))
    started.child.kill('SIGKILL')
    await started.ended
    await until(async () => (await on(operator, 'systemctl is-active gitea-held || true')) !== 'active')
    await until(() => isWell(operator))
  }
  const counted = (await backupsOf(operator)).length
  assert.ok(counted <= 2, `${counted} count`)
  // The droplet switched off in the middle of one.
  const started = start(operator, 'backup', '--yes', '--gitea', '--again', '--json')
  await until(async () => (await on(operator, 'systemctl is-active gitea-held || true')) === 'active')
  await digitalocean(operator, 'POST', `/v2/droplets/${await dropletId(operator)}/actions`, { type: 'power_cycle' })
  assert.is((await started.ended).code, 1)
  await until(() => isWell(operator))
})

test('the droplet backs it up by itself, whatever has become of the cluster', async ({ operator }) => {
  const before = (await backupsOf(operator)).length
  assert.match(await on(operator, 'systemctl list-timers gitea-backup.timer'), 'gitea-backup.service')
  // It finds a fresh one, and then another is asked for.
  await on(operator, 'systemctl start gitea-backup')
  assert.is((await backupsOf(operator)).length, before)
  await on(
    operator,
    `sed 's/--gitea$/--gitea --again/; s/--name gitea-backup/--name again/' /etc/systemd/system/gitea-backup.service >/run/systemd/system/again.service; systemctl start again`,
  )
  assert.is((await backupsOf(operator)).length, before + 1)
  await until(() => isWell(operator))
})

test('a drill restores its database and counts its files', async ({ operator }) => {
  assert.match(await must(operator, 'drill', '--yes'), /changed +the backup of Gitea of \S+ restores/)
  assert.match(await must(operator, 'drill', '--yes'), /ok +the backup of Gitea of \S+ restores/)
  assert.match(await must(operator, 'backups'), /gitea\/gitea .* restored \d{4}-/)
})

test('on a fresh droplet all of it is as it was', async ({ operator, held }) => {
  await digitalocean(operator, 'DELETE', `/v2/droplets/${await dropletId(operator)}`)
  await must(operator, 'bootstrap', '--yes', '--until', 'https://git.')
  // It is another one, and nobody's Git takes it for the one before.
  assert.throws(() => refs(operator), /Host key verification failed/)
  assert.is.not((await ask(operator, held.attachment, { headers: withToken(held.token) })).status, 200)
  const started = Date.now()
  const stdout = await must(operator, 'restore', 'gitea', '--yes')
  assert.match(stdout, /changed +Gitea is the backup of/)
  console.log(`Gitea came back in ${((Date.now() - started) / 1000).toFixed(1)} s`)
  assert.match(await must(operator, 'restore', 'gitea', '--yes'), /ok +Gitea is the backup of/)
  await until(() => isWell(operator))
  assert.is((await ask(operator, '/api/v1/user', { headers: withToken(held.token) })).status, 200)
  assert.is((await ask(operator, held.attachment, { headers: withToken(held.token) })).body, ATTACHMENT)
  assert.is(await digestOf(operator, held.token), held.digest)
  assert.is(refs(operator), held.refs)
  assert.is(await on(operator, 'sha256sum /srv/gitea/secrets/secret-key'), held.secretKey)
  const secrets = await ask(operator, `${REPOSITORY}/actions/secrets`, { headers: withToken(held.token) })
  assert.match(secrets.body, 'DEPLOY')
  assert.match(await must(operator, 'bootstrap', '--yes', ...WHOLE), / 0 failed| ok, /)
  assert.match(await must(operator, 'bootstrap', '--yes', ...WHOLE), / ok, 0 changed/)
  assert.is((await run(operator, 'backup', '--yes', '--gitea', '--again')).code, 0)
})

const obstacle = clusterObstacle(thisMachine())
if (obstacle) console.log(`NOT RUN: ${obstacle}`)
else test.run()
