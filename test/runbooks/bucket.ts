// The bucket of backups as the tests see it, past all runbooks: what lies there, and what could have happened to it.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AbortMultipartUploadCommand, ListMultipartUploadsCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import * as assert from 'uvu/assert'
import { parse, stringify } from 'yaml'
import type { Manifest } from '../../lib/backups.ts'
import { listKeys, readObject, readStream, removeObjects } from '../../lib/spaces.ts'
import { backupKeyOf } from '../../rehearsal/site.ts'
import { administrator, commitByHand, eventsOf, type Operator, type Result, spacesOf } from './operator.ts'

export const BUCKET = 'lunarfront-backups'

/** @returns all keys that begin so */
export const keys = async (operator: Operator, prefix = ''): Promise<string[]> =>
  listKeys(await spacesOf(operator), BUCKET, prefix)

/** @returns an object's content */
export async function content(operator: Operator, key: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of await readStream(await spacesOf(operator), BUCKET, key)) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Puts an object, whatever was there. */
export async function put(operator: Operator, key: string, body: Buffer | string): Promise<void> {
  const { client } = await spacesOf(operator)
  await client.send(new PutObjectCommand({ Bucket: BUCKET, Key: key, Body: Buffer.from(body) }))
}

/** Removes all objects whose key begins so. */
export const remove = async (operator: Operator, prefix = ''): Promise<void> =>
  removeObjects(await spacesOf(operator), BUCKET, await keys(operator, prefix))

/** @returns the folders of one source's backups, oldest first, also of those that do not count */
export async function folders(operator: Operator, source: string): Promise<string[]> {
  const all = (await keys(operator, `${source}/`)).map((key) => key.slice(0, key.lastIndexOf('/')))
  return [...new Set(all)]
}

export async function manifest(operator: Operator, folder: string): Promise<Manifest> {
  const text = await readObject(await spacesOf(operator), BUCKET, `${folder}/manifest.json`)
  if (text === undefined) throw new Error(`${folder} has no manifest`)
  return JSON.parse(text) as Manifest
}

export const digestOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** @returns keys of the uploads that were begun and neither completed nor aborted */
export async function unfinishedUploads(operator: Operator): Promise<string[]> {
  const { client } = await spacesOf(operator)
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }))
  return Uploads.flatMap(({ Key }) => Key ?? [])
}

/** Aborts them, as the bucket's own rule does after a while with those of a run that was killed. */
export async function abortUploads(operator: Operator): Promise<void> {
  const { client } = await spacesOf(operator)
  const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: BUCKET }))
  for (const { Key, UploadId } of Uploads)
    await client.send(new AbortMultipartUploadCommand({ Bucket: BUCKET, Key, UploadId }))
}

/** @returns the object as it was before it was compressed and encrypted, by the very programs that a person has */
export async function opened(operator: Operator, key: string): Promise<Buffer> {
  const plain = execFileSync('age', ['--decrypt', '--identity', backupKeyOf(operator.directory)], {
    input: await content(operator, key),
    maxBuffer: 2 ** 30,
  })
  return execFileSync('zstd', ['--decompress', '--stdout', '--quiet'], { input: plain, maxBuffer: 2 ** 30 })
}

export const HOUR = 3_600_000
export const stampOf = (at: Date) => at.toISOString().replaceAll(':', '-')

/** Puts a copy of a backup where it would be had it been taken at that time. @returns its folder */
export async function copyTo(operator: Operator, folder: string, at: Date): Promise<string> {
  const told = await manifest(operator, folder)
  const copy = `${told.source}/${stampOf(at)}`
  const key = told.key.replace(folder, copy)
  await put(operator, key, await content(operator, told.key))
  await put(
    operator,
    `${copy}/manifest.json`,
    JSON.stringify({ ...told, key, taken_at: at.toISOString(), verified_at: at.toISOString() }),
  )
  return copy
}

/** Lets every backup be so many hours older than it is. */
export async function grow(operator: Operator, hours: number): Promise<void> {
  const old = (await keys(operator)).filter((key) => key.endsWith('/manifest.json'))
  for (const key of old) {
    const folder = key.replace('/manifest.json', '')
    const { taken_at } = await manifest(operator, folder)
    await copyTo(operator, folder, new Date(Date.parse(taken_at) - hours * HOUR))
    await remove(operator, `${folder}/`)
  }
}

export type Settings = { backups: Record<string, unknown> } & Record<string, unknown>

/** @returns the option that names a site file which is the rehearsal's, but for a change */
export function siteWith(operator: Operator, change: (site: Settings) => void): ['--site', string] {
  const site = parse(readFileSync(operator.siteFile, 'utf8')) as Settings
  change(site)
  const file = join(operator.directory, 'changed.yaml')
  writeFileSync(file, stringify(site))
  return ['--site', file]
}

/** A customer in gitops/apps, and nowhere else. @returns how to take it back */
export const listByHand = (operator: Operator, customer: string): (() => void) =>
  commitByHand(operator, (clone) => {
    const apps = join(clone, 'gitops', 'apps')
    const [model = ''] = readdirSync(apps).filter((name) => name.startsWith('customer-'))
    const text = readFileSync(join(apps, model, 'values.yaml'), 'utf8')
    const folder = join(apps, `customer-${customer}`)
    execFileSync('mkdir', ['-p', folder])
    writeFileSync(join(folder, 'values.yaml'), text.replaceAll(model.replace('customer-', ''), customer))
  })

/** @returns processes of this rehearsal's runs, with their arguments, that are one of the programs */
function processesOf({ directory }: Operator, programs: RegExp): { pid: number; argv: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, 'utf8').includes(directory)) return []
        const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
        return programs.test(argv[0] ?? '') ? [{ pid: Number(pid), argv: argv.join(' ').trim() }] : []
      } catch {
        return [] // it has ended
      }
    })
}

/** @returns programs of a backup or a restore of this rehearsal that run */
export const programsOf = (operator: Operator): string[] =>
  processesOf(operator, /^(.*\/)?(pg_dump|pg_restore|zstd|age)$/).map(({ argv }) => argv)

/** @returns the processes of this rehearsal's runs that are that program, but to tell its version */
export const pidsOf = (operator: Operator, program: string): number[] =>
  processesOf(operator, new RegExp(`^(.*/)?${program}$`))
    .filter(({ argv }) => !argv.endsWith('--version'))
    .map(({ pid }) => pid)

/** Tables as an application has them. @param megabytes of random content, which nothing compresses */
export const tablesOf = (megabytes: number): string[] => [
  'CREATE EXTENSION IF NOT EXISTS pgcrypto',
  'CREATE TABLE notes (id serial PRIMARY KEY, text text NOT NULL)',
  "INSERT INTO notes (text) SELECT 'plain words of a customer ' || i FROM generate_series(1, 1000) i",
  'CREATE TABLE files (id serial PRIMARY KEY, bytes bytea)',
  'ALTER TABLE files ALTER bytes SET STORAGE EXTERNAL',
  `INSERT INTO files (bytes) SELECT gen_random_bytes(1024) FROM generate_series(1, ${Math.round(megabytes * 1024)})`,
]

/** @returns the sources that have a backup which counts, and how many */
export async function verified(operator: Operator): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const key of await keys(operator)) {
    const [, source] = /^(\w+\/[\w-]+)\/[^/]+\/manifest\.json$/.exec(key) ?? []
    if (source) counts[source] = (counts[source] ?? 0) + 1
  }
  return counts
}

/** Nothing is left of what did not succeed: neither parts, nor an object without its manifest, nor a program. */
export async function nothingIsLeft(operator: Operator, why: string): Promise<void> {
  assert.equal(await unfinishedUploads(operator), [], `${why}: parts were left`)
  const all = await keys(operator)
  const without = all.filter((key) => !all.includes(key.replace(/[^/]+$/, 'manifest.json')))
  assert.equal(without, [], `${why}: an object that does not count was left`)
  assert.equal(programsOf(operator), [], why)
}

/** Every manifest tells the truth about its object. */
export async function everyManifestIsTrue(operator: Operator, why: string): Promise<void> {
  for (const key of (await keys(operator)).filter((one) => one.endsWith('/manifest.json'))) {
    const told = await manifest(operator, key.replace('/manifest.json', ''))
    const object = await content(operator, told.key)
    assert.is(object.length, told.bytes, `${why}: ${key}`)
    assert.is(digestOf(object), told.sha256, `${why}: ${key}`)
  }
}

/** @returns why a step failed; '' where it did not */
export const failureOf = (result: Pick<Result, 'stdout'>, step: string) =>
  eventsOf(result).flatMap((event) =>
    event.event === 'step finished' && event.step === step ? [event.failure?.found ?? ''] : [],
  )[0] ?? ''

export const eventually = async (what: string, comesTrue: () => Promise<boolean>) => {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(20)) if (await comesTrue()) return
  throw new Error(`it never came to this: ${what}`)
}

/** @returns what pg_dump says of a database, structure and content, as SQL; two that are equal give the same */
export async function dumpOf(operator: Operator, database: string): Promise<string> {
  const { host, port, user, password, ca } = await administrator(operator)
  const file = join(operator.directory, 'ca.pem')
  writeFileSync(file, ca)
  const env = {
    ...operator.env,
    ...{ PGHOST: host, PGPORT: String(port), PGUSER: user, PGPASSWORD: password.reveal(), PGDATABASE: database },
    ...{ PGSSLMODE: 'verify-full', PGSSLROOTCERT: file },
  }
  const text = execFileSync('pg_dump', ['--no-password'], { env, encoding: 'utf8', maxBuffer: 2 ** 30 })
  return text.replaceAll(/^\\(un)?restrict .*$/gm, '') // each dump has a word of its own there
}
