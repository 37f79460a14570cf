// Spaces, through the AWS SDK: buckets, and objects whole, as streams and as lists.
import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import type { S3Client } from '@aws-sdk/client-s3'
import { type Drift, type Step, step } from './converge.ts'
import type { Credentials } from './credentials.ts'
import { Failure } from './failure.ts'

export type Spaces = {
  client: S3Client
  /** for what is read as slowly as somebody else takes it: a connection may be silent for as long as that wants */
  patient: S3Client
  endpoint: string
}

/** The SDK takes a while to load, so only what needs Spaces loads it. */
export const sdk = () => {
  // Its advice to move to a newer Node is for us, not for whoever runs a runbook.
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
  return import('./s3-commands.ts')
}

/** @returns a client for the site's Spaces, path style */
export async function openSpaces({ accessKeyId, secretAccessKey, endpoint }: Credentials['spaces']): Promise<Spaces> {
  const { S3Client } = await sdk()
  const settings = {
    endpoint,
    region: 'us-east-1', // Spaces wants this in the signature, wherever the bucket is
    forcePathStyle: true,
    credentials: { accessKeyId: accessKeyId.reveal(), secretAccessKey: secretAccessKey.reveal() },
    // Spaces has refused the checksums that newer SDKs add by themselves.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: 4,
  } as const
  const open = (socketTimeout?: number) => {
    const timeouts = { connectionTimeout: 10_000, ...(socketTimeout ? { socketTimeout } : {}) }
    const client = new S3Client({ ...settings, requestHandler: timeouts })
    client.middlewareStack.add(
      (next) => (args) =>
        next(args).catch((error: unknown) => {
          throw outOfOrder(error, endpoint) ?? error
        }),
      { step: 'initialize', name: 'outOfOrder' }, // around the SDK's own attempts
    )
    // What is sent in parts is read again and compared as a whole, so the signature need not hold a hash of each part.
    client.middlewareStack.add(
      (next, { commandName }) =>
        (args) => {
          const { headers } = args.request as { headers: Record<string, string> }
          if (commandName === 'UploadPartCommand') headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD'
          return next(args)
        },
      { step: 'build', name: 'unsignedParts' },
    )
    return client
  }
  // Milliseconds. Without them a connection that has died without a word is waited for without end.
  return { client: open(30_000), patient: open(), endpoint }
}

/** @returns a Failure for an error of the network or of the server; undefined for an answer to what was asked */
function outOfOrder(error: unknown, endpoint: string): Failure | undefined {
  const { code, name, message, $metadata } = error as Error & { code?: string; $metadata?: { httpStatusCode?: number } }
  const status = $metadata?.httpStatusCode
  if (status !== undefined && status >= 500)
    return new Failure({
      found: `Spaces at ${endpoint} fails (${status}): ${[name, message].filter((word) => word && word !== 'UnknownError').join(': ') || 'no reason was given'}`,
      expected: 'an answer',
      next: 'look at DigitalOcean’s status page, and run it again: what is done is kept',
    })
  if (status !== undefined || !(/^E[A-Z]+$/.test(code ?? '') || name === 'TimeoutError')) return undefined
  return new Failure({
    found: `Spaces at ${endpoint} does not answer: ${message || code}`,
    expected: 'an S3 server',
    next: `curl -sS -o /dev/null -w '%{http_code}\\n' ${endpoint}`,
  })
}

/** @returns whether the error is S3's answer with that status */
export const isStatus = (error: unknown, status: number) =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode === status

/** @returns the names of all buckets that the key may list */
export async function listBuckets({ client }: Spaces): Promise<string[]> {
  const { ListBucketsCommand } = await sdk()
  const { Buckets = [] } = await client.send(new ListBucketsCommand({}))
  return Buckets.flatMap((bucket) => bucket.Name ?? [])
}

/** @returns whether the bucket is there and ours; throws when its name is another customer's */
export async function bucketExists({ client }: Spaces, bucket: string): Promise<boolean> {
  const { HeadBucketCommand } = await sdk()
  try {
    await client.send(new HeadBucketCommand({ Bucket: bucket }))
    return true
  } catch (error) {
    if (isStatus(error, 404)) return false
    if (isStatus(error, 403))
      throw new Failure({
        found: `the bucket ${bucket} is not open to this Spaces key`,
        expected: 'a bucket of this account, and a key that may use it',
        next: 'choose another name under buckets in the site file, or make a key with full access',
      })
    throw error
  }
}

/** The bucket that has to be there before Terraform's state can be. */
export const bucketStep = (spaces: () => Promise<Spaces>, bucket: string): Step =>
  step<Drift>({
    title: `bucket ${bucket} exists`,
    beforeLock: true,
    check: async () =>
      (await bucketExists(await spaces(), bucket)) ? undefined : { lines: [`create bucket ${bucket}`] },
    apply: async () => {
      const { CreateBucketCommand } = await sdk()
      try {
        await (await spaces()).client.send(new CreateBucketCommand({ Bucket: bucket }))
      } catch (error) {
        if ((error as Error).name === 'BucketAlreadyOwnedByYou') return // another run was quicker
        if (isStatus(error, 409))
          throw new Failure({
            found: `the bucket name ${bucket} is taken by another account`,
            expected: 'names that nobody in the region has',
            next: 'choose other names under buckets in the site file',
          })
        throw error
      }
    },
  })

/** @returns the object's text; undefined when it is not there */
export async function readObject({ client }: Spaces, bucket: string, key: string): Promise<string | undefined> {
  const { GetObjectCommand } = await sdk()
  try {
    const found = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
    return await found.Body?.transformToString()
  } catch (error) {
    if (isStatus(error, 404)) return undefined
    throw error
  }
}

/**
 * @param onlyNew refuses to overwrite (If-None-Match: *)
 * @returns false when onlyNew was asked and the key was taken already
 */
export async function writeObject(
  { client }: Spaces,
  bucket: string,
  key: string,
  body: string,
  { onlyNew = false } = {},
): Promise<boolean> {
  const { PutObjectCommand } = await sdk()
  try {
    await client.send(
      new PutObjectCommand({ Bucket: bucket, Key: key, Body: body, ...(onlyNew ? { IfNoneMatch: '*' } : {}) }),
    )
    return true
  } catch (error) {
    if (onlyNew && (isStatus(error, 412) || isStatus(error, 409))) return false
    throw error
  }
}

export async function removeObject({ client }: Spaces, bucket: string, key: string): Promise<void> {
  const { DeleteObjectCommand } = await sdk()
  await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }))
}

export type StoredObject = { key: string; bytes: number; modified: Date }

/** @returns all objects whose key begins with the prefix, in order, however many pages the listing has */
export async function listObjects({ client }: Spaces, bucket: string, prefix: string): Promise<StoredObject[]> {
  const { paginateListObjectsV2 } = await sdk()
  const objects: StoredObject[] = []
  for await (const page of paginateListObjectsV2({ client }, { Bucket: bucket, Prefix: prefix }))
    for (const { Key, Size = 0, LastModified = new Date(0) } of page.Contents ?? [])
      if (Key) objects.push({ key: Key, bytes: Size, modified: LastModified })
  return objects.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** @returns all keys that begin with the prefix, in order */
export const listKeys = async (spaces: Spaces, bucket: string, prefix: string): Promise<string[]> =>
  (await listObjects(spaces, bucket, prefix)).map(({ key }) => key)

/** @returns the object's content as it comes; throws when it is not there */
export async function readStream({ client }: Spaces, bucket: string, key: string): Promise<Readable> {
  const { GetObjectCommand } = await sdk()
  const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }))
  return Body as Readable
}

/** The same for whoever may not read on for minutes, as pg_restore while it makes tables: only a peer that is gone is given up. */
export async function readPatiently({ patient, ...rest }: Spaces, bucket: string, key: string): Promise<Readable> {
  const content = await readStream({ ...rest, patient, client: patient }, bucket, key)
  ;(content as IncomingMessage).socket?.setKeepAlive(true, 30_000)
  return content
}

/** Removes objects, a thousand at a time. */
export async function removeObjects({ client }: Spaces, bucket: string, keys: readonly string[]): Promise<void> {
  const { DeleteObjectsCommand } = await sdk()
  for (let from = 0; from < keys.length; from += 1000) {
    const Objects = keys.slice(from, from + 1000).map((Key) => ({ Key }))
    const { Errors = [] } = await client.send(
      new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: true } }),
    )
    if (Errors[0])
      throw new Failure({ found: `${Errors.length} objects were not removed: ${Errors[0].Key}: ${Errors[0].Message}` })
  }
}
