// Backups as they lie in the bucket: SOURCE/TIME/FILE, encrypted, and SOURCE/TIME/manifest.json beside it. The manifest is
// written when the object has been read again and matches, so a backup without one does not count.
import { createHash } from 'node:crypto'
import { userInfo } from 'node:os'
import { Readable } from 'node:stream'
import * as z from 'zod'
import { decryptArgv, encryptArgv, publicKeys } from './age.ts'
import { Failure, tell } from './failure.ts'
import { writeStream } from './multipart.ts'
import type { Piped } from './pipe.ts'
import { once, type Run } from './run.ts'
import { listObjects, readObject, readPatiently, readStream, removeObject, writeObject } from './spaces.ts'

/** What a database's backup says about its content, read in the dump's own snapshot. */
export const databaseFactsSchema = z.object({
  database: z.string(),
  server_version: z.string(),
  dump_version: z.string(),
  database_bytes: z.number(),
  /** rows by table: 'public.notes' */
  rows: z.record(z.string(), z.number()),
  large_objects: z.number(),
  /** made by ALTER DATABASE … SET, or by ALTER ROLE … IN DATABASE … SET: no dump has them */
  settings: z.array(z.object({ role: z.string().nullable(), name: z.string(), value: z.string() })).default([]),
})

const manifestSchema = z.object({
  format: z.literal(1),
  source: z.string(),
  taken_at: z.string(),
  key: z.string(),
  /** of the object as it is stored */
  bytes: z.number(),
  sha256: z.string(),
  seconds: z.number(),
  /** public keys of those who can decrypt it */
  recipients: z.array(z.string()),
  /** 'backup by ryan' */
  made_by: z.string(),
  verified_at: z.string(),
  database: databaseFactsSchema.optional(),
  /** of Gitea's archive: which version wrote it, and of how many files and folders */
  gitea: z.object({ version: z.string(), files: z.number() }).optional(),
})
export type Manifest = z.infer<typeof manifestSchema>
export type DatabaseFacts = z.infer<typeof databaseFactsSchema>

/** One backup in the listing. */
export type Backup = {
  /** 'database/acme' */
  source: string
  /** when it was taken */
  at: Date
  /** 'database/acme/2026-11-24T03-00-00.123Z' */
  folder: string
  keys: string[]
  /** of the encrypted object; 0 where there is none */
  bytes: number
  /** it was read again after it was written, and matched */
  verified: boolean
}

const MANIFEST = 'manifest.json'

/** Colons are awkward in keys and file names. */
const stampOf = (at: Date) => at.toISOString().replaceAll(':', '-')
const timeOf = (stamp: string) => new Date(stamp.replace(/T(\d\d)-(\d\d)-/, 'T$1:$2:'))

/** @returns the backups in the bucket; of one source alone where that is given. Oldest first */
export async function listBackups(run: Run, source?: string): Promise<Backup[]> {
  const objects = await listObjects(await run.spaces(), run.site.buckets.backups, source ? `${source}/` : '')
  const backups = new Map<string, Backup>()
  for (const { key, bytes } of objects) {
    const [, name, stamp, file] =
      /^((?:database|secrets|terraform|gitea)\/[^/]+)\/([0-9TZ.-]+)\/([^/]+)$/.exec(key) ?? []
    if (!name || !stamp || !file) continue
    const folder = `${name}/${stamp}`
    const backup = backups.get(folder) ?? {
      ...{ source: name, at: timeOf(stamp), folder, keys: [], bytes: 0, verified: false },
    }
    backup.keys.push(key)
    if (file === MANIFEST) backup.verified = true
    else backup.bytes = bytes
    backups.set(folder, backup)
  }
  // A manifest whose object is gone tells of nothing.
  return [...backups.values()].map((one) => ({ ...one, verified: one.verified && one.bytes > 0 }))
}

/** @returns the names of all sources that have backups, in order */
export const sourcesIn = (backups: readonly Backup[]): string[] =>
  [...new Set(backups.map(({ source }) => source))].sort()

/** The bucket's listing, read once, and once more when the run has its lock. */
export function openCatalogue(run: Run): () => Promise<Backup[]> {
  const [early, underLock] = [once(() => listBackups(run)), once(() => listBackups(run))]
  return () => (run.locked() ? underLock() : early())
}

/** @returns the newest verified backup of the source, taken at a time or before */
export const newestOf = (backups: readonly Backup[], source: string, before = new Date(8.64e15)): Backup | undefined =>
  backups
    .filter((one) => one.source === source && one.verified && one.at.getTime() <= before.getTime())
    .sort((a, b) => b.at.getTime() - a.at.getTime())[0]

/**
 * @param folder of a backup: 'database/acme/2026-11-24T03-00-00.123Z'
 * @returns the backup, when it is verified and as large as its manifest says; undefined otherwise
 */
export async function backupNamed(run: Run, folder: string): Promise<Backup | undefined> {
  const source = folder.slice(0, folder.lastIndexOf('/'))
  const found = (await listBackups(run, source)).find((one) => one.folder === folder && one.verified)
  return found && (await readManifest(run, found)).bytes === found.bytes ? found : undefined
}

/** @returns what a backup says of itself; throws a Failure where its manifest is not one, or about another backup */
export async function readManifest(
  run: Run,
  { folder, source, keys }: Pick<Backup, 'folder' | 'source' | 'keys'>,
): Promise<Manifest> {
  const key = `${folder}/${MANIFEST}`
  const damaged = (what: string) =>
    new Failure({
      found: `${key} ${what}`,
      expected: 'a manifest as backup writes it',
      next: `./runbooks/restore.mts with --at a time before ${folder.split('/').at(-1)}`,
    })
  const text = await readObject(await run.spaces(), run.site.buckets.backups, key)
  if (text === undefined) throw damaged('is not there')
  let manifest: Manifest
  try {
    manifest = manifestSchema.parse(JSON.parse(text))
  } catch {
    throw damaged('is damaged')
  }
  if (manifest.source !== source || !keys.includes(manifest.key)) throw damaged('is about another backup')
  return manifest
}

type Digest = { bytes: number; sha256: string }

/**
 * @param from who it comes from, told where it breaks off
 * @param then awaited when the content has come to its end; where it throws, the content has not ended well
 */
function digested(
  content: AsyncIterable<Buffer>,
  from: string,
  then: () => Promise<void>,
): { chunks: AsyncIterable<Buffer>; digest: () => Digest } {
  const hash = createHash('sha256')
  let bytes = 0
  async function* chunks() {
    try {
      for await (const chunk of content) {
        hash.update(chunk)
        bytes += chunk.length
        yield chunk
      }
    } catch (error) {
      throw new Failure({ found: `${from} broke off after ${bytes} bytes: ${tell(error).found}`, next: 'run it again' })
    }
    await then()
  }
  return { chunks: chunks(), digest: () => ({ bytes, sha256: hash.digest('hex') }) }
}

/** Commands whose output is compressed and encrypted, or the content itself. */
export type Content = { commands?: readonly (readonly string[])[]; env?: Record<string, string>; input?: Buffer }

/** Seconds that a dump may take: a terabyte at 25 MB a second. */
const LONGEST = 12 * 3600

/** A small thing of its own that is backed up. */
export type Source = {
  /** kind and name, where its backups lie: 'database/acme' */
  name: string
  /** what is true once it is: 'database customer_acme is backed up' */
  title: string
  /** name of the encrypted object, which tells what is in it: 'dump.zst.age' */
  file: string
  /**
   * Reads the source through `store`, which has sent it when it resolves.
   *
   * @returns what the manifest says of the content
   */
  read: (store: (content: Content) => Promise<void>) => Promise<Pick<Manifest, 'database' | 'gitea'>>
}

/** A backup that was sent, and does not count yet. */
export type Sent = Omit<Manifest, 'verified_at'>

/** Reads the source, and sends it to Spaces compressed and encrypted. */
export async function sendBackup(run: Run, { name, file, read }: Source): Promise<Sent> {
  const { recipients } = run.site.backups
  const started = performance.now()
  const at = new Date()
  const key = `${name}/${stampOf(at)}/${file}`
  let stored: Digest | undefined
  let piped: Piped | undefined
  const store = async ({ commands = [], env = {}, input }: Content) => {
    // One thread: there are as many dumps side by side as there are processors.
    const compress = ['zstd', '-1', '--single-thread', '--no-check', '--quiet', '--stdout']
    piped = run.pipe({
      commands: [...commands, compress, encryptArgv(recipients)],
      env,
      timeout: LONGEST,
      ...(input ? { input } : {}),
    })
    const { ended, output } = piped
    const { chunks, digest } = digested(output, 'the dump', () => ended)
    await writeStream(await run.spaces(), run.site.buckets.backups, key, chunks)
    stored = digest()
  }
  try {
    const facts = await read(store)
    if (!stored) throw new Error(`the source ${name} has stored nothing`)
    return {
      format: 1,
      source: name,
      taken_at: at.toISOString(),
      key,
      ...stored,
      seconds: Math.round(performance.now() - started) / 1000,
      recipients: [...recipients],
      made_by: `${run.runbook} by ${userInfo().username}`,
      ...facts,
    }
  } catch (error) {
    piped?.stop()
    await dropUnverified(run, key)
    throw error
  }
}

/** Without a manifest it does not count, whatever is left. */
const dropUnverified = async (run: Run, key: string) =>
  removeObject(await run.spaces(), run.site.buckets.backups, key).catch(() => {})

/** Reads the object again, and writes its manifest; throws a Failure unless it is what was sent. */
export async function verifyBackup(run: Run, sent: Sent): Promise<Manifest> {
  const { key, bytes, sha256 } = sent
  const spaces = await run.spaces()
  try {
    const content = await readStream(spaces, run.site.buckets.backups, key)
    const { chunks, digest } = digested(content, `Spaces, which was to send ${key},`, async () => {})
    for await (const _ of chunks) run.signal.throwIfAborted()
    const found = digest()
    if (found.bytes !== bytes || found.sha256 !== sha256)
      throw new Failure({
        found: `${key} is not what was sent: ${found.bytes} bytes, sha256 ${found.sha256}`,
        expected: `${bytes} bytes, sha256 ${sha256}`,
        next: 'run it again; should that be so again, ask the provider of the object storage',
      })
    const manifest: Manifest = { ...sent, verified_at: new Date().toISOString() }
    const text = `${JSON.stringify(manifest, null, 2)}\n`
    await writeObject(spaces, run.site.buckets.backups, key.replace(/[^/]+$/, MANIFEST), text)
    return manifest
  } catch (error) {
    await dropUnverified(run, key)
    throw error
  }
}

/**
 * Reads a backup back through the given commands, decrypted and decompressed.
 *
 * @param commands which take the content on standard input; none: the content is returned
 * @returns their output; throws a Failure where the object is not what the manifest says, or a command fails
 */
export async function readBackup(
  run: Run,
  { key, bytes, sha256, recipients }: Manifest,
  identity: string,
  commands: readonly (readonly string[])[],
  env: Record<string, string> = {},
): Promise<string> {
  const content = await readPatiently(await run.spaces(), run.site.buckets.backups, key)
  const { chunks, digest } = digested(content, `Spaces, which was to send ${key},`, async () => {
    const found = digest()
    if (found.bytes !== bytes || found.sha256 !== sha256)
      throw new Failure({
        found: `${key} has ${found.bytes} bytes and the sha256 ${found.sha256}`,
        expected: `${bytes} bytes and ${sha256}, as its manifest says: it was changed since`,
        next: './runbooks/backups.mts --customer NAME, which shows the older ones, and restore with --at',
      })
  })
  const stream = Readable.from(chunks, { objectMode: false })
  let broken: unknown
  stream.once('error', (error) => {
    broken = error
  })
  const { output, ended } = run.pipe({
    commands: [decryptArgv(identity), ['zstd', '--decompress', '--quiet', '--stdout'], ...commands],
    env,
    input: stream,
    timeout: LONGEST,
  })
  let text = ''
  output.setEncoding('utf8')
  try {
    for await (const chunk of output) text += chunk
    await ended
  } catch (error) {
    if (broken) throw broken // which is why the commands were ended
    const keys = await publicKeys(run, identity)
    if (keys.length > 0 && !keys.some((one) => recipients.includes(one)))
      throw new Failure({
        found: `${key} is encrypted for ${recipients.join(' and ')}, and ${identity} is the key of ${keys.join(' and ')}`,
        expected: 'one of the private keys that it is encrypted for',
        next: 'name that key’s file with --identity',
      })
    throw error
  } finally {
    content.destroy() // or it would keep its connection
  }
  return text
}
