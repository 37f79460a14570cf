// Whatever is asked to go wrong does, as a client sees it, as often as was asked; and what happened can be looked at.
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { cloudFor, cloudflare, control, digitalocean, fault } from './cloud.ts'

const test = suite('faults')
const subject = cloudFor(test)
const plant = async (target: object, consequence: object) => {
  const { status, body } = await control(subject, 'POST', '/faults', fault(target, consequence))
  assert.is(status, 201, JSON.stringify(body))
}
const vpcNames = async () =>
  (await digitalocean(subject, 'GET', '/vpcs')).body.vpcs.map(({ name }: { name: string }) => name)
const broken = (attempt: Promise<unknown>) =>
  attempt.then(
    () => assert.unreachable('the connection should have broken'),
    (error: Error) => assert.ok(error instanceof TypeError || error instanceof SyntaxError, String(error)),
  )

test.after.each(async () => {
  await control(subject, 'DELETE', '/faults')
})

test('429 with Retry-After, the asked number of times, on the asked path only', async () => {
  await plant(
    {
      api: 'digitalocean',
      method: 'GET',
      path: '^/v2/vpcs',
      times: 2,
    },
    { status: 429, retry_after: 3 },
  )
  assert.is((await digitalocean(subject, 'GET', '/account')).status, 200)
  for (let n = 0; n < 2; n++) {
    const { status, headers, body } = await digitalocean(subject, 'GET', '/vpcs')
    assert.equal([status, headers.get('retry-after'), body.id], [429, '3', 'too_many_requests'])
  }
  assert.is((await digitalocean(subject, 'GET', '/vpcs')).status, 200)
})

test('500 in each API’s own form, until the faults are deleted', async () => {
  await plant({ api: 'digitalocean' }, { status: 500 })
  await plant({ api: 'cloudflare' }, { status: 500 })
  const { cloudflare: settings } = subject.cloud
  for (let n = 0; n < 3; n++) {
    assert.is((await digitalocean(subject, 'GET', '/account')).body.id, 'server_error')
    assert.is((await cloudflare(subject, 'GET', `/zones/${settings.zone_id}`)).body.success, false)
  }
  await control(subject, 'DELETE', '/faults')
  assert.is((await digitalocean(subject, 'GET', '/account')).status, 200)
})

test('a connection that drops before, and one that drops after the effect', async () => {
  const create = (name: string) => digitalocean(subject, 'POST', '/vpcs', { name, region: 'nyc3' })
  await plant({ api: 'digitalocean', method: 'POST', times: 1 }, { drop: true })
  await broken(create('before'))
  assert.not.ok((await vpcNames()).includes('before'))
  await plant({ api: 'digitalocean', method: 'POST', times: 1 }, { drop: 'after' })
  await broken(create('after'))
  assert.ok((await vpcNames()).includes('after'))
})

test('an answer that breaks off', async () => {
  await plant({ api: 'digitalocean', path: '/sizes', times: 1 }, { truncate: true })
  await broken(digitalocean(subject, 'GET', '/sizes'))
  assert.is((await digitalocean(subject, 'GET', '/sizes')).status, 200)
})

test('an answer that takes its time', async () => {
  await plant({ api: 'digitalocean', times: 1 }, { delay_ms: 150 })
  const started = performance.now()
  await digitalocean(subject, 'GET', '/account')
  assert.ok(performance.now() - started >= 150)
})

test('a droplet and a database that never become ready', async () => {
  await plant({ api: 'digitalocean', method: 'POST', path: '/v2/droplets$', times: 1 }, { never_ready: true })
  const wanted = { name: 'stuck', region: 'nyc3', size: 's-1vcpu-1gb', image: 'debian-12-x64' }
  const stuck = (await digitalocean(subject, 'POST', '/droplets', wanted)).body.droplet.id
  const fine = (await digitalocean(subject, 'POST', '/droplets', { ...wanted, name: 'fine' })).body.droplet.id
  const status = async (id: number) => (await digitalocean(subject, 'GET', `/droplets/${id}`)).body.droplet.status
  // The second was asked for later: when it is ready, the first would have been.
  while ((await status(fine)) !== 'active');
  assert.is(await status(stuck), 'new')
})

test('how long a thing is made can be set', async () => {
  const create = async (name: string) => {
    const wanted = { name, region: 'nyc3', size: 's-1vcpu-1gb', image: 'debian-12-x64' }
    return (await digitalocean(subject, 'POST', '/droplets', wanted)).body.droplet
  }
  await control(subject, 'POST', '/faults', { ready_after_ms: 0 })
  assert.is((await create('quick')).status, 'active')
  await control(subject, 'DELETE', '/faults')
  assert.is((await create('usual')).status, 'new')
})

test('what the account has used since the month began can be set', async () => {
  const used = async () => (await digitalocean(subject, 'GET', '/customers/my/balance')).body.month_to_date_usage
  await control(subject, 'POST', '/faults', { month_to_date_usage: 23.4 })
  assert.is(await used(), '23.40')
  await control(subject, 'DELETE', '/faults')
  assert.is(await used(), '0.00')
})

test('Spaces: refused, dropped, broken off', async () => {
  const { url, region, access_key_id, secret_access_key } = subject.cloud.spaces
  const s3 = new S3Client({
    endpoint: url,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId: access_key_id, secretAccessKey: secret_access_key },
    maxAttempts: 1,
  })
  const Bucket = 'faulty'
  await s3.send(new CreateBucketCommand({ Bucket }))
  const put = (Key: string) => s3.send(new PutObjectCommand({ Bucket, Key, Body: 'x'.repeat(1000) }))
  const get = async (Key: string) => (await s3.send(new GetObjectCommand({ Bucket, Key }))).Body?.transformToString()
  const fails = (attempt: Promise<unknown>) =>
    attempt.then(
      () => assert.unreachable('should have failed'),
      (error: Error & { $metadata?: { httpStatusCode?: number } }) => error.$metadata?.httpStatusCode,
    )
  await plant({ api: 'spaces', method: 'PUT', path: '^/faulty/full', times: 1 }, { status: 507 })
  assert.is(await fails(put('full')), 507)
  await put('full')
  await plant({ api: 'spaces', times: 1 }, { drop: true })
  await fails(put('lost'))
  await plant({ api: 'spaces', times: 1 }, { drop: 'after' })
  await fails(put('kept'))
  const { spaces } = (await control(subject, 'GET', '/objects')).body
  assert.equal(spaces, { faulty: ['full', 'kept'] })
  await plant({ api: 'spaces', method: 'GET', times: 1 }, { truncate: true })
  await fails(get('full'))
  assert.is((await get('full'))?.length, 1000)
  s3.destroy()
})

test('a fault that makes no sense is refused', async () => {
  const wrong = [
    {},
    fault({ api: 'aws' }, { status: 500 }),
    fault({ api: 'spaces' }, {}),
    fault({ api: 'spaces', path: '(' }, { drop: true }),
    fault({ api: 'spaces', times: 0 }, { drop: true }),
    { month_to_date_usage: '1' },
  ]
  for (const each of wrong)
    assert.is((await control(subject, 'POST', '/faults', each)).status, 422, JSON.stringify(each))
  assert.equal((await control(subject, 'GET', '/faults')).body, {
    faults: [],
    droplet_limit: 10,
    ready_after_ms: 20,
    month_to_date_usage: 0,
  })
})

test('everything that exists is listed, the same while nothing changes, without a secret', async () => {
  const first = await control(subject, 'GET', '/objects')
  assert.equal((await control(subject, 'GET', '/objects')).body, first.body)
  const names = first.body.digitalocean.vpcs.map(({ name }: { name: string }) => name)
  assert.ok(names.includes('after'))
  await digitalocean(subject, 'POST', '/tags', { name: 'changed' })
  assert.ok((await control(subject, 'GET', '/objects')).body.digitalocean.tags.includes('changed'))
  const { digitalocean: api, cloudflare: dns, spaces } = subject.cloud
  for (const secret of [api.token, dns.token, spaces.secret_access_key])
    assert.not.ok(JSON.stringify(first.body).includes(secret))
})

test('the calls are logged, those without an answer with status 0', async () => {
  await control(subject, 'DELETE', '/requests')
  await digitalocean(subject, 'GET', '/account')
  await plant({ api: 'cloudflare', times: 1 }, { drop: true })
  await broken(cloudflare(subject, 'GET', '/user/tokens/verify'))
  const calls = (await control(subject, 'GET', '/requests')).body
  assert.equal(
    calls.map(({ api, method, path, status }: Record<string, unknown>) => [api, method, path, status]),
    [
      ['digitalocean', 'GET', '/v2/account', 200],
      ['cloudflare', 'GET', '/client/v4/user/tokens/verify', 0],
    ],
  )
})

test.run()
