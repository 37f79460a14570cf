// AWS Signature Version 4, for what the Spaces front asks the S3 server in its own name.
import { createHash, createHmac } from 'node:crypto'

export type SigningKey = { accessKeyId: string; secretAccessKey: string; region: string }

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest()

/**
 * @param target path and query as they go over the wire
 * @param headers x-amz-content-sha256 is kept where it is given; else the body is not signed
 * @returns the headers, signature included
 */
export function sign(
  { accessKeyId, secretAccessKey, region }: SigningKey,
  method: string,
  host: string,
  target: string,
  headers: Record<string, string>,
): Record<string, string> {
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
  const payload = headers['x-amz-content-sha256'] ?? 'UNSIGNED-PAYLOAD'
  const all: Record<string, string> = {
    ...headers,
    host,
    'x-amz-content-sha256': payload,
    'x-amz-date': time,
  }
  const signed = Object.keys(all)
    .filter((name) => name === 'host' || name.startsWith('x-amz-'))
    .sort()
  const encode = (text: string) =>
    encodeURIComponent(text).replace(
      /[!'()*]/g,
      (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
    )
  const [path = '/', query = ''] = target.split('?')
  const canonical = [
    method,
    path,
    [...new URLSearchParams(query)]
      .map(([name, value]) => `${encode(name)}=${encode(value)}`)
      .sort()
      .join('&'),
    ...signed.map((name) => `${name}:${all[name]?.trim()}`),
    '',
    signed.join(';'),
    payload,
  ].join('\n')
  const scope = `${time.slice(0, 8)}/${region}/s3/aws4_request`
  const key = scope.split('/').reduce<string | Buffer>(hmac, `AWS4${secretAccessKey}`)
  const signature = hmac(key, ['AWS4-HMAC-SHA256', time, scope, sha256(canonical)].join('\n')).toString('hex')
  return {
    ...all,
    authorization: `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${signed.join(';')}, Signature=${signature}`,
  }
}
