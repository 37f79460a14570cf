// Gitea as a source of backups: its database and its files as one archive, read while it is stopped; it starts again
// however that ends.

import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import type { Source } from './backups.ts'
import type { Droplet } from './droplet.ts'
import { eachLine } from './exec.ts'
import { Failure } from './failure.ts'
import type { Piped } from './pipe.ts'
import { withPostgres } from './postgres.ts'
import { connectionOf, countRows, postgresProgramVersion } from './postgres-programs.ts'
import type { Run } from './run.ts'

/** Its name among the sources. */
export const GITEA = 'gitea/gitea'
/** What reads and writes its files, as ansible/roles/gitea installs it. */
export const DATA = '/usr/local/sbin/gitea-data'
/** Of the database, in the archive. */
export const DUMP = 'database.dump'

/** Seconds that it may be held: what the droplet itself allows. */
const LONGEST = 6 * 3600
/** Seconds until it has come to its end, or begun again. */
const STOPPING = 120

/**
 * Stops containers of the droplet for as long as the work takes. The droplet starts them as soon as the connection is gone,
 * by whatever.
 */
export async function whileStopped<T>(
  { run, on }: Droplet,
  containers: readonly string[],
  work: () => Promise<T>,
): Promise<T> {
  const input = new PassThrough()
  const held = run.pipe({ commands: [await on([DATA, 'hold', ...containers])], input, timeout: LONGEST })
  const over = held.ended.then(() => {
    throw new Failure({ found: 'Gitea was started while it was to be stopped' })
  })
  over.catch(() => {}) // told where it is waited for
  let result: T
  try {
    await Promise.race([isHeld(held), over])
    result = await Promise.race([work(), over])
  } catch (error) {
    input.end()
    await held.ended.catch(() => {})
    throw error
  }
  input.end()
  await held.ended
  await run.exec({ argv: await on([DATA, 'healthy']), timeout: 180 })
  return result
}

function isHeld({ output }: Piped): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Failure({ found: `Gitea has not stopped within ${STOPPING} s` }))
    const timer = setTimeout(late, STOPPING * 1000)
    output.once('end', () => clearTimeout(timer))
    eachLine(output, (line) => {
      if (line !== 'held') return
      clearTimeout(timer)
      resolve()
    })
  })
}

export function giteaSource(droplet: Droplet): Source {
  const { run, on, giteaDatabase } = droplet
  return {
    name: GITEA,
    title: 'Gitea is backed up',
    file: 'gitea.tar.zst.age',
    read: async (store) => {
      const server = await giteaDatabase()
      const version = await output(run, await on([DATA, 'version']))
      return whileStopped(droplet, ['gitea'], async () => {
        const facts = await withPostgres(server, async (client) => {
          const { rows } = await client.query<{ version: string; bytes: string }>(
            `SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes`,
          )
          return { ...(await countRows(client)), version: rows[0]?.version ?? '', bytes: Number(rows[0]?.bytes) }
        })
        const file = join(run.scratch, DUMP)
        await run.exec({
          argv: [
            'pg_dump',
            '--format=custom',
            '--compress=0',
            '--no-owner',
            '--no-acl',
            '--no-password',
            `--file=${file}`,
          ],
          env: connectionOf(run, server, server.database),
          timeout: LONGEST,
        })
        const files = Number(await output(run, await on([DATA, 'count'])))
        // Two archives one after the other are one to whoever ignores the end of the first.
        const both = ['sh', '-c', 'tar --create --directory="$1" "$2" && shift 2 && exec "$@"', 'sh', run.scratch, DUMP]
        await store({ commands: [[...both, ...(await on([DATA, 'archive']))]] })
        return {
          database: {
            ...{ database: server.database, server_version: facts.version, database_bytes: facts.bytes },
            ...{ dump_version: await postgresProgramVersion(run, 'pg_dump') },
            ...{ rows: facts.rows, large_objects: facts.large_objects, settings: [] },
          },
          gitea: { version, files },
        }
      })
    },
  }
}

async function output(run: Run, argv: readonly string[]): Promise<string> {
  return (await run.exec({ argv: [...argv] })).stdout.trim()
}
