// A client of the rehearsed Spaces, path style. The SDK takes a while to load, so it is loaded when it is needed.

export type SpacesSettings = { url: string; region: string; access_key_id: string; secret_access_key: string }

/** @returns the SDK, and a client to close with destroy() */
export async function openSpaces({ url, region, access_key_id, secret_access_key }: SpacesSettings) {
  const sdk = await import('@aws-sdk/client-s3')
  const client = new sdk.S3Client({
    endpoint: url,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId: access_key_id, secretAccessKey: secret_access_key },
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  return { sdk, client }
}

/** @returns the keys of all objects by bucket */
export async function listObjects(settings: SpacesSettings): Promise<Record<string, string[]>> {
  const { sdk, client } = await openSpaces(settings)
  try {
    const { Buckets = [] } = await client.send(new sdk.ListBucketsCommand({}))
    const listed: Record<string, string[]> = {}
    for (const { Name: bucket = '' } of Buckets) {
      const keys: string[] = []
      for await (const { Contents = [] } of sdk.paginateListObjectsV2({ client }, { Bucket: bucket }))
        for (const { Key } of Contents) if (Key !== undefined) keys.push(Key)
      listed[bucket] = keys
    }
    return listed
  } finally {
    client.destroy()
  }
}
