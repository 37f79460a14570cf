// Sends a stream to Spaces in parts. The SDK's own way of doing that makes new buffers for every part, and a third of a
// backup's time went into making and collecting them; here a few are used again and again.
import { Failure } from './failure.ts'
import { type Spaces, sdk } from './spaces.ts'

/** Bytes of a part. */
const PART = 8 * 2 ** 20
/** What S3 allows: 78 GiB of them. */
const MOST_PARTS = 10_000
/** Parts that are on their way while the next one fills. */
const IN_FLIGHT = 1

/** Buffers of uploads that have ended. */
const spare: Buffer[] = []

/**
 * Sends a stream as it comes. Where it breaks off with an error nothing is kept: not the object, not its parts.
 *
 * @param content has to end with an error where it is not whole: its end completes the object
 */
export async function writeStream(
  { client }: Spaces,
  bucket: string,
  key: string,
  content: AsyncIterable<Buffer>,
): Promise<void> {
  const commands = await sdk()
  const object = { Bucket: bucket, Key: key }
  const buffers = Array.from({ length: IN_FLIGHT + 1 }, () => spare.pop() ?? Buffer.allocUnsafeSlow(PART))
  const sending: Promise<{ ETag: string | undefined; PartNumber: number }>[] = []
  let UploadId: string | undefined
  let filled = 0
  const filling = () => buffers[sending.length % buffers.length]!

  async function sendPart(): Promise<void> {
    UploadId ??= (await client.send(new commands.CreateMultipartUploadCommand(object))).UploadId
    const PartNumber = sending.length + 1
    if (PartNumber > MOST_PARTS)
      throw new Failure({
        found: `${key} has more than ${MOST_PARTS} parts of ${PART / 2 ** 20} MiB`,
        expected: 'at most 78 GiB, compressed',
        next: 'make PART in lib/multipart.ts bigger: each upload takes twice as much memory',
      })
    const part = { ...object, UploadId, PartNumber, Body: filling().subarray(0, filled) }
    const sent = client.send(new commands.UploadPartCommand(part)).then(({ ETag }) => ({ ETag, PartNumber }))
    sent.catch(() => {}) // told where it is waited for
    sending.push(sent)
    filled = 0
    await sending[sending.length - buffers.length] // whose buffer is filled next
  }

  try {
    for await (const chunk of content)
      for (let taken = 0; taken < chunk.length; ) {
        const count = chunk.copy(filling(), filled, taken)
        taken += count
        filled += count
        if (filled === PART) await sendPart()
      }
    if (!UploadId) {
      const Body = filling().subarray(0, filled)
      await client.send(new commands.PutObjectCommand({ ...object, Body }))
      return
    }
    if (filled > 0) await sendPart()
    const Parts = await Promise.all(sending)
    await client.send(new commands.CompleteMultipartUploadCommand({ ...object, UploadId, MultipartUpload: { Parts } }))
  } catch (error) {
    await Promise.allSettled(sending)
    if (UploadId) await client.send(new commands.AbortMultipartUploadCommand({ ...object, UploadId })).catch(() => {})
    throw error
  } finally {
    spare.push(...buffers)
  }
}
