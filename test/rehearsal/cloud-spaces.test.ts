// Spaces: a real S3 server, and what the front in front of it adds and guards.
import { randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import {
  CompleteMultipartUploadCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteBucketCommand,
  DeleteBucketLifecycleCommand,
  DeleteObjectCommand,
  GetBucketCorsCommand,
  GetBucketLifecycleConfigurationCommand,
  GetBucketLocationCommand,
  GetBucketLoggingCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  PutBucketAclCommand,
  PutBucketCorsCommand,
  PutBucketLifecycleConfigurationCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { sign } from '../../rehearsal/cloud/spaces/signature.ts'
import { cloudFor } from './cloud.ts'

const test = suite('Spaces')
const subject = cloudFor(test)

const clientWith = (more: object = {}) => {
  const { url, region, access_key_id, secret_access_key } = subject.cloud.spaces
  return new S3Client({
    endpoint: url,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId: access_key_id, secretAccessKey: secret_access_key },
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: 1,
    ...more,
  })
}
let s3: S3Client
test.before(() => {
  s3 = clientWith()
})
test.after(() => s3.destroy())

const newBucket = async (client = s3) => {
  const Bucket = `b-${randomBytes(6).toString('hex')}`
  await client.send(new CreateBucketCommand({ Bucket }))
  return Bucket
}
const enableVersions = (Bucket: string) =>
  s3.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: 'Enabled' } }))
/** @returns the HTTP status of a refusal, and its code */
const refusal = (attempt: Promise<unknown>) =>
  attempt.then(
    () => [200, ''],
    (error: Error & { $metadata?: { httpStatusCode?: number } }) => [error.$metadata?.httpStatusCode, error.name],
  )
const read = async (Bucket: string, Key: string, VersionId?: string) => {
  const { Body } = await s3.send(new GetObjectCommand({ Bucket, Key, VersionId }))
  return Body?.transformToString()
}

test('If-None-Match: * writes once, and 412 the second time', async () => {
  const Bucket = await newBucket()
  const put = (Body: string) => s3.send(new PutObjectCommand({ Bucket, Key: 'lock', Body, IfNoneMatch: '*' }))
  await put('first')
  assert.equal(await refusal(put('second')), [412, 'PreconditionFailed'])
  assert.is(await read(Bucket, 'lock'), 'first')
})

test('of many conditional writes at once one wins, with versions or without', async () => {
  for (const versioned of [false, true]) {
    const Bucket = await newBucket()
    if (versioned) await enableVersions(Bucket)
    for (let round = 0; round < 2; round++) {
      const attempts = Array.from({ length: 8 }, (_, n) =>
        refusal(s3.send(new PutObjectCommand({ Bucket, Key: 'lock', Body: `${n}`, IfNoneMatch: '*' }))),
      )
      const statuses = (await Promise.all(attempts)).map(([status]) => status)
      assert.equal(statuses.sort(), [200, 412, 412, 412, 412, 412, 412, 412], `versioned: ${versioned}`)
      await s3.send(new DeleteObjectCommand({ Bucket, Key: 'lock' }))
    }
  }
})

test('versions: an overwritten and a deleted object can be taken back', async () => {
  const Bucket = await newBucket()
  await enableVersions(Bucket)
  const { VersionId } = await s3.send(new PutObjectCommand({ Bucket, Key: 'state', Body: 'old' }))
  await s3.send(new PutObjectCommand({ Bucket, Key: 'state', Body: 'new' }))
  await s3.send(new DeleteObjectCommand({ Bucket, Key: 'state' }))
  assert.equal((await refusal(read(Bucket, 'state')))[0], 404)
  assert.is(await read(Bucket, 'state', VersionId), 'old')
  const { Versions, DeleteMarkers } = await s3.send(new ListObjectVersionsCommand({ Bucket }))
  assert.equal([Versions?.length, DeleteMarkers?.length], [2, 1])
  assert.equal(await refusal(s3.send(new DeleteBucketCommand({ Bucket }))), [409, 'BucketNotEmpty'])
})

test('a multipart upload arrives whole', async () => {
  const Bucket = await newBucket()
  const Key = 'backups/big'
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ Bucket, Key }))
  const parts = [randomBytes(5 * 2 ** 20), randomBytes(1234)]
  const Parts = await Promise.all(
    parts.map(async (Body, index) => {
      const PartNumber = index + 1
      const { ETag } = await s3.send(new UploadPartCommand({ Bucket, Key, UploadId, PartNumber, Body }))
      return { PartNumber, ETag }
    }),
  )
  await s3.send(new CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } }))
  const { Body } = await s3.send(new GetObjectCommand({ Bucket, Key }))
  assert.ok(Buffer.concat(parts).equals(Buffer.from((await Body?.transformToByteArray()) ?? [])))
})

test('a listing of more than 1,000 keys comes in pages, in order', async () => {
  const Bucket = await newBucket()
  const names = Array.from({ length: 1_005 }, (_, n) => `k/${String(n).padStart(4, '0')}`)
  for (let from = 0; from < names.length; from += 100)
    await Promise.all(
      names.slice(from, from + 100).map((Key) => s3.send(new PutObjectCommand({ Bucket, Key, Body: 'x' }))),
    )
  const first = await s3.send(new ListObjectsV2Command({ Bucket, Prefix: 'k/' }))
  assert.equal([first.Contents?.length, first.IsTruncated], [1_000, true])
  const { NextContinuationToken: ContinuationToken } = first
  const second = await s3.send(new ListObjectsV2Command({ Bucket, Prefix: 'k/', ContinuationToken }))
  assert.equal(
    [...(first.Contents ?? []), ...(second.Contents ?? [])].map(({ Key }) => Key),
    names,
  )
})

test('keys of any characters survive the front', async () => {
  const Bucket = await newBucket()
  for (const Key of ['a b', 'ü/ß', 'a+b=c&d', "it's (1)!*", 'per%20cent', 'a//b', '~.-_']) {
    await s3.send(new PutObjectCommand({ Bucket, Key, Body: Key, IfNoneMatch: '*' }))
    assert.is(await read(Bucket, Key), Key)
  }
})

test('lifecycle: none, put, got as it was put, deleted, and gone with the bucket', async () => {
  const Bucket = await newBucket()
  const get = () => s3.send(new GetBucketLifecycleConfigurationCommand({ Bucket }))
  const Rules = [
    {
      ID: 'old',
      Status: 'Enabled' as const,
      Filter: { Prefix: '' },
      NoncurrentVersionExpiration: { NoncurrentDays: 30 },
      AbortIncompleteMultipartUpload: { DaysAfterInitiation: 7 },
    },
  ]
  const put = () => s3.send(new PutBucketLifecycleConfigurationCommand({ Bucket, LifecycleConfiguration: { Rules } }))
  assert.equal(await refusal(get()), [404, 'NoSuchLifecycleConfiguration'])
  await put()
  assert.equal((await get()).Rules, Rules)
  await s3.send(new DeleteBucketLifecycleCommand({ Bucket }))
  assert.equal(await refusal(get()), [404, 'NoSuchLifecycleConfiguration'])
  await put()
  await s3.send(new DeleteBucketCommand({ Bucket }))
  assert.equal((await refusal(get()))[0], 404)
  await s3.send(new CreateBucketCommand({ Bucket }))
  assert.equal(await refusal(get()), [404, 'NoSuchLifecycleConfiguration'])
})

test('location, logging, CORS and a private ACL', async () => {
  const Bucket = await newBucket()
  assert.is((await s3.send(new GetBucketLocationCommand({ Bucket }))).LocationConstraint, 'nyc3')
  assert.is((await s3.send(new GetBucketLoggingCommand({ Bucket }))).LoggingEnabled, undefined)
  assert.equal((await refusal(s3.send(new GetBucketCorsCommand({ Bucket }))))[0], 404)
  const CORSRules = [{ AllowedMethods: ['GET'], AllowedOrigins: ['https://acme.test'] }]
  await s3.send(new PutBucketCorsCommand({ Bucket, CORSConfiguration: { CORSRules } }))
  assert.equal((await s3.send(new GetBucketCorsCommand({ Bucket }))).CORSRules?.[0]?.AllowedMethods, ['GET'])
  await s3.send(new PutBucketAclCommand({ Bucket, ACL: 'private' }))
})

test('without the right key there is nothing, neither from the server nor from the front', async () => {
  const Bucket = await newBucket()
  const { access_key_id, secret_access_key, url } = subject.cloud.spaces
  const wrong = clientWith({ credentials: { accessKeyId: access_key_id, secretAccessKey: `${secret_access_key}x` } })
  const attempts = [
    () => wrong.send(new ListObjectsV2Command({ Bucket })),
    () => wrong.send(new GetBucketLocationCommand({ Bucket })),
    () => wrong.send(new GetBucketLifecycleConfigurationCommand({ Bucket })),
    () => wrong.send(new DeleteBucketLifecycleCommand({ Bucket })),
    () => wrong.send(new GetBucketLoggingCommand({ Bucket })),
    () => wrong.send(new PutObjectCommand({ Bucket, Key: 'k', Body: 'x', IfNoneMatch: '*' })),
  ]
  for (const attempt of attempts) assert.equal(await refusal(attempt()), [403, 'SignatureDoesNotMatch'])
  wrong.destroy()
  for (const path of ['?lifecycle', '?logging', '?location', ''])
    for (const method of ['GET', 'PUT', 'DELETE'])
      assert.is((await fetch(`${url}/${Bucket}${path}`, { method })).status, 403, `${method} ${path}`)
})

test('a lifecycle that was changed on its way is refused', async () => {
  const Bucket = await newBucket()
  const { url, access_key_id: accessKeyId, secret_access_key: secretAccessKey, region } = subject.cloud.spaces
  const target = `/${Bucket}?lifecycle=`
  const given = { 'x-amz-content-sha256': 'a'.repeat(64) }
  const { host } = new URL(url)
  const headers = sign({ accessKeyId, secretAccessKey, region }, 'PUT', host, target, given)
  const response = await fetch(url + target, { method: 'PUT', headers, body: '<LifecycleConfiguration/>' })
  assert.equal([response.status, /SHA256Mismatch/.test(await response.text())], [400, true])
})

test('a bucket as a host name, and the front as a proxy', async () => {
  const Bucket = await newBucket()
  const { url, access_key_id: accessKeyId, secret_access_key: secretAccessKey, region } = subject.cloud.spaces
  const { port, hostname } = new URL(url)
  const agent = new Agent()
  agent.createConnection = () => connect(Number(port), hostname)
  const byHost = clientWith({
    endpoint: 'http://nyc3.spaces.test',
    forcePathStyle: false,
    requestHandler: { httpAgent: agent },
  })
  await byHost.send(new PutObjectCommand({ Bucket, Key: 'a/b', Body: 'by host', IfNoneMatch: '*' }))
  assert.is(await read(Bucket, 'a/b'), 'by host')
  assert.equal(await refusal(byHost.send(new GetBucketLifecycleConfigurationCommand({ Bucket }))), [
    404,
    'NoSuchLifecycleConfiguration',
  ])
  byHost.destroy()

  const host = `${Bucket}.nyc3.spaces.test`
  const headers = sign({ accessKeyId, secretAccessKey, region }, 'GET', host, '/a/b', {})
  const body = await new Promise<string>((resolve, reject) => {
    request({ hostname, port, path: `http://${host}/a/b`, headers }, async (response) => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve(text)
    })
      .once('error', reject)
      .end()
  })
  assert.is(body, 'by host')
})

test('a large object streams: the cloud’s memory does not grow with it', async () => {
  const Bucket = await newBucket()
  const Body = Buffer.alloc(256 * 2 ** 20, 'x')
  const before = process.memoryUsage().external + process.memoryUsage().arrayBuffers
  let highest = 0
  const watch = setInterval(() => {
    highest = Math.max(highest, process.memoryUsage().external + process.memoryUsage().arrayBuffers)
  }, 5)
  await s3.send(new PutObjectCommand({ Bucket, Key: 'large', Body }))
  clearInterval(watch)
  assert.ok(highest > 0, 'memory was looked at')
  assert.ok(highest - before < 128 * 2 ** 20, `${Math.round((highest - before) / 2 ** 20)} MiB more`)
})

test.run()
