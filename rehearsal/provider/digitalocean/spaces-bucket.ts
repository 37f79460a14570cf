// digitalocean_spaces_bucket
import type { LifecycleRule, S3Client } from '@aws-sdk/client-s3'
import { openSpaces } from '../../cloud/spaces/client.ts'
import {
  bool,
  computed,
  listBlocks,
  listOf,
  number,
  optional,
  optionalComputed,
  type Row,
  required,
  setBlocks,
  string,
} from '../schema.ts'
import { type Client, halves, lowerCase, resource, uniqueId } from './client.ts'

const fields = {
  id: optionalComputed(string),
  name: required(string, { replace: true }),
  urn: computed(string),
  region: optional(string, { replace: true, fallback: 'nyc3', ...lowerCase }),
  acl: optional(string, { fallback: 'private' }),
  cors_rule: listBlocks({
    allowed_methods: required(listOf(string)),
    allowed_origins: required(listOf(string)),
    allowed_headers: optional(listOf(string)),
    max_age_seconds: optional(number),
  }),
  versioning: listBlocks({ enabled: optional(bool, { fallback: false }) }, { max: 1, computed: true }),
  bucket_domain_name: computed(string),
  endpoint: computed(string),
  lifecycle_rule: listBlocks({
    id: optionalComputed(string),
    prefix: optional(string),
    enabled: required(bool),
    abort_incomplete_multipart_upload_days: optional(number),
    expiration: setBlocks(
      { date: optional(string), days: optional(number), expired_object_delete_marker: optional(bool) },
      { max: 1 },
    ),
    noncurrent_version_expiration: setBlocks({ days: optional(number) }, { max: 1 }),
  }),
  force_destroy: optional(bool, { fallback: false }),
}

type Bucket = Row<typeof fields>
type Sdk = Awaited<ReturnType<typeof openSpaces>>['sdk']

/** The client lives as long as one question: resources are few, and nothing is left open. */
async function withSpaces<T>({ spaces }: Client, work: (client: S3Client, sdk: Sdk) => Promise<T>): Promise<T> {
  const { client, sdk } = await openSpaces(spaces)
  try {
    return await work(client, sdk)
  } finally {
    client.destroy()
  }
}

function lifecycleRule(rule: Bucket['lifecycle_rule'][number]): LifecycleRule {
  const [expiration] = rule.expiration
  const [noncurrent] = rule.noncurrent_version_expiration
  return {
    ID: rule.id || uniqueId('tf-s3-lifecycle-'),
    Filter: { Prefix: rule.prefix ?? '' },
    Status: rule.enabled ? 'Enabled' : 'Disabled',
    ...(rule.abort_incomplete_multipart_upload_days
      ? { AbortIncompleteMultipartUpload: { DaysAfterInitiation: rule.abort_incomplete_multipart_upload_days } }
      : {}),
    ...(expiration
      ? {
          Expiration: expiration.date
            ? { Date: new Date(`${expiration.date}T00:00:00Z`) }
            : expiration.days
              ? { Days: expiration.days }
              : { ExpiredObjectDeleteMarker: expiration.expired_object_delete_marker ?? false },
        }
      : {}),
    ...(noncurrent?.days ? { NoncurrentVersionExpiration: { NoncurrentDays: noncurrent.days } } : {}),
  }
}

const lifecycleRow = (rule: LifecycleRule): Bucket['lifecycle_rule'][number] => ({
  id: rule.ID ?? '',
  prefix: rule.Filter?.Prefix ?? '',
  enabled: rule.Status === 'Enabled',
  abort_incomplete_multipart_upload_days: rule.AbortIncompleteMultipartUpload?.DaysAfterInitiation ?? 0,
  expiration: rule.Expiration
    ? [
        {
          date: rule.Expiration.Date?.toISOString().slice(0, 10) ?? '',
          days: rule.Expiration.Days ?? 0,
          expired_object_delete_marker: rule.Expiration.ExpiredObjectDeleteMarker ?? false,
        },
      ]
    : [],
  noncurrent_version_expiration: rule.NoncurrentVersionExpiration
    ? [{ days: rule.NoncurrentVersionExpiration.NoncurrentDays ?? 0 }]
    : [],
})

/** Brings what differs to what is wanted; a bucket that is new has nothing yet. */
const settle = (context: Client, prior: Bucket | undefined, planned: Bucket) =>
  withSpaces(context, async (client, sdk) => {
    const Bucket = planned.name
    const differs = <Name extends keyof Bucket>(name: Name) =>
      JSON.stringify(prior?.[name] ?? []) !== JSON.stringify(planned[name])
    if (prior && differs('acl'))
      await client.send(
        new sdk.PutBucketAclCommand({ Bucket, ACL: planned.acl === 'public-read' ? 'public-read' : 'private' }),
      )
    if (differs('cors_rule')) {
      const CORSRules = planned.cors_rule.map((rule) => ({
        AllowedMethods: rule.allowed_methods,
        AllowedOrigins: rule.allowed_origins,
        ...(rule.allowed_headers ? { AllowedHeaders: rule.allowed_headers } : {}),
        ...(rule.max_age_seconds ? { MaxAgeSeconds: rule.max_age_seconds } : {}),
      }))
      await (CORSRules.length > 0
        ? client.send(new sdk.PutBucketCorsCommand({ Bucket, CORSConfiguration: { CORSRules } }))
        : client.send(new sdk.DeleteBucketCorsCommand({ Bucket })))
    }
    if (differs('versioning')) {
      const Status = planned.versioning[0]?.enabled ? 'Enabled' : 'Suspended'
      await client.send(new sdk.PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status } }))
    }
    if (differs('lifecycle_rule')) {
      const Rules = planned.lifecycle_rule.map(lifecycleRule)
      await (Rules.length > 0
        ? client.send(new sdk.PutBucketLifecycleConfigurationCommand({ Bucket, LifecycleConfiguration: { Rules } }))
        : client.send(new sdk.DeleteBucketLifecycleCommand({ Bucket })))
    }
  })

const isStatus = (error: unknown, status: number) =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode === status

const readBucket = (context: Client, Bucket: string) =>
  withSpaces(context, async (client, sdk) => {
    try {
      await client.send(new sdk.HeadBucketCommand({ Bucket }))
    } catch (error) {
      if (isStatus(error, 404)) return undefined
      throw error
    }
    const { LocationConstraint } = await client.send(new sdk.GetBucketLocationCommand({ Bucket }))
    const region = LocationConstraint || 'nyc3'
    const { Status } = await client.send(new sdk.GetBucketVersioningCommand({ Bucket }))
    const rules = await client.send(new sdk.GetBucketLifecycleConfigurationCommand({ Bucket })).then(
      ({ Rules = [] }) => Rules,
      (error: Error) => {
        if (error.name === 'NoSuchLifecycleConfiguration') return []
        throw error
      },
    )
    return {
      id: Bucket,
      name: Bucket,
      urn: `do:space:${Bucket}`,
      region,
      bucket_domain_name: `${Bucket}.${region}.digitaloceanspaces.com`,
      endpoint: `${region}.digitaloceanspaces.com`,
      versioning: [{ enabled: Status === 'Enabled' }],
      lifecycle_rule: rules.map(lifecycleRow),
    }
  })

async function emptyBucket(client: S3Client, sdk: Sdk, Bucket: string): Promise<void> {
  for (;;) {
    const { Versions = [], DeleteMarkers = [] } = await client.send(new sdk.ListObjectVersionsCommand({ Bucket }))
    const Objects = [...Versions, ...DeleteMarkers].map(({ Key, VersionId }) => ({ Key, VersionId }))
    if (Objects.length === 0) return
    await client.send(new sdk.DeleteObjectsCommand({ Bucket, Delete: { Objects } }))
  }
}

export const spacesBucket = resource({
  version: 0,
  fields,
  async create(planned, client, keep) {
    const { name, acl, region } = planned
    await withSpaces(client, (s3, sdk) =>
      s3.send(new sdk.CreateBucketCommand({ Bucket: name, ACL: acl === 'public-read' ? 'public-read' : 'private' })),
    )
    keep({ id: name })
    await settle(client, undefined, planned)
    const found = await readBucket(client, name)
    if (found && found.region !== region)
      throw new Error(
        `the rehearsed cloud has buckets in ${found.region} only, not in ${region}: start it with --region ${region}`,
      )
    return found ?? {}
  },
  read: ({ id }, client) => readBucket(client, id ?? ''),
  async update(prior, planned, client) {
    await settle(client, prior, planned)
    return (await readBucket(client, planned.name)) ?? {}
  },
  async remove({ name, force_destroy }, context) {
    await withSpaces(context, async (client, sdk) => {
      if (force_destroy) await emptyBucket(client, sdk, name)
      await client.send(new sdk.DeleteBucketCommand({ Bucket: name }))
    })
  },
  async adopt(id) {
    const [region, name] = halves(id, 'region,name')
    return { id: name, name, region, force_destroy: false }
  },
})
