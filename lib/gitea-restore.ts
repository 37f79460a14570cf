// Gitea back from a backup: its database into one of its own, compared, its files beside those that are there, and then both
// in their place at once. What was there before is kept.
import pg from 'pg'
import { type Backup, type Manifest, readBackup, readManifest } from './backups.ts'
import { type Drift, type Step, step, type Work } from './converge.ts'
import type { Droplet } from './droplet.ts'
import { misuse } from './failure.ts'
import { DATA, DUMP, GITEA, whileStopped } from './gitea-backup.ts'
import { type Server, withPostgres } from './postgres.ts'
import { connectionOf, countRows } from './postgres-programs.ts'
import { backupOf, compact, compareRows, dropDatabase, endConnections } from './restore.ts'
import type { Run } from './run.ts'

const quoteName = pg.escapeIdentifier

/** On the droplet: which backup it was made of. */
const MARK = '/var/lib/lunarfront/restored'

/**
 * Fills a new database from Gitea's archive, and compares it with what the backup counted.
 *
 * @param options.administrator who may make a database
 * @param options.owner whose its tables are; the administrator's where nobody is said
 * @param options.database name of the new one; where there is one of that name, it is made anew
 * @throws a Failure, the database gone again, where anything differs
 */
export async function restoreGiteaDatabase(
  run: Run,
  backup: Backup,
  options: { administrator: Server; owner?: Server; database: string; identity: string },
): Promise<Manifest> {
  const { administrator, owner = administrator, database, identity } = options
  const manifest = await readManifest(run, backup)
  const drop = () => withPostgres(administrator, (client) => dropDatabase(client, database))
  await drop()
  try {
    await withPostgres(administrator, async (client) => {
      await client.query(`CREATE DATABASE ${quoteName(database)} TEMPLATE template0 ENCODING 'UTF8'`)
      await client.query(`REVOKE ALL ON DATABASE ${quoteName(database)} FROM PUBLIC`)
      if (owner !== administrator)
        await client.query(`GRANT ALL ON DATABASE ${quoteName(database)} TO ${quoteName(owner.user)}`)
    })
    if (owner !== administrator)
      await withPostgres({ ...administrator, database }, (client) =>
        client.query(`GRANT ALL ON SCHEMA public TO ${quoteName(owner.user)}`),
      )
    const dump = ['tar', '--extract', '--ignore-zeros', '--to-stdout', DUMP]
    const restore = ['pg_restore', '--exit-on-error', '--no-password', '--no-owner', '--no-acl', `--dbname=${database}`]
    await readBackup(run, manifest, identity, [dump, restore], connectionOf(run, owner, database))
    await withPostgres({ ...owner, database }, async (client) => {
      await client.query('SET statement_timeout = 0')
      compareRows(manifest, await countRows(client))
    })
  } catch (error) {
    await drop().catch(() => {})
    throw error
  }
  return manifest
}

/**
 * @param given as restore is told: `at` the newest backup of that time or before, `again` also where that was done before
 * @returns the step that puts Gitea back, and what to do next; throws a misuse where it is told what is only a customer's
 */
export function giteaRestore(
  droplet: Droplet,
  backups: readonly Backup[],
  given: { at?: string; into?: string; swap?: string; again?: string; identity: string },
): { steps: Step[]; afterwards: string[] } {
  if (given.into || given.swap)
    throw misuse({
      found: `--${given.into ? 'into' : 'swap'} with gitea`,
      expected: 'a customer: Gitea takes its own place, and what was there is kept',
      next: './runbooks/restore.mts gitea',
    })
  const backup = backupOf(backups, GITEA, given.at)
  const restored = giteaRestoredStep(droplet, backup, { identity: given.identity, again: given.again === 'true' })
  return { steps: [restored], afterwards: ['next: ./runbooks/bootstrap.mts, which looks whether all is well'] }
}

function giteaRestoredStep(droplet: Droplet, backup: Backup, options: { identity: string; again: boolean }): Step {
  const { run, on } = droplet
  let done = false
  return step<Drift>({
    title: `Gitea is the backup of ${backup.at.toISOString()}`,
    needs: [],
    check: async () => {
      const { stdout } = await run.exec({ argv: await on(['cat', MARK]), codes: [0, 1] })
      if ((done || !options.again) && stdout.trim() === backup.folder) return undefined
      return {
        lines: [`stop Gitea, and put ${backup.folder} in its place`],
        confirm: `Gitea goes back to ${backup.at.toISOString()}; what is there now is kept beside it. Go on?`,
      }
    },
    apply: async (_drift, work) => {
      await restoreGitea(droplet, backup, options.identity, work)
      done = true
    },
  })
}

async function restoreGitea(droplet: Droplet, backup: Backup, identity: string, work: Work): Promise<void> {
  const { run, on, outputs, wayTo, giteaDatabase } = droplet
  const { giteaPostgres } = await outputs()
  // Its own database is renamed, and nobody can be connected to it then.
  const administrator = {
    ...giteaPostgres,
    ...giteaPostgres.admin,
    ...(await wayTo(giteaPostgres)),
    database: 'defaultdb',
  }
  const owner = await giteaDatabase()
  const [now, own] = [compact(new Date()), owner.database]
  const restored = `restored_${compact(backup.at)}`
  work.waitingFor('its database')
  const manifest = await restoreGiteaDatabase(run, backup, { administrator, owner, database: restored, identity })
  await whileStopped(droplet, ['gitea-runner', 'gitea-proxy', 'gitea'], async () => {
    work.waitingFor('its files')
    await readBackup(run, manifest, identity, [await on([DATA, 'restore', now])])
    await withPostgres(administrator, async (client) => {
      await endConnections(client, own)
      await client.query('BEGIN')
      await client.query(`ALTER DATABASE ${quoteName(own)} RENAME TO ${quoteName(`before_${now}`)}`)
      await client.query(`ALTER DATABASE ${quoteName(restored)} RENAME TO ${quoteName(own)}`)
      await client.query('COMMIT')
    })
    await run.exec({ argv: await on(['sh', '-c', 'echo "$1" >"$2"', 'sh', backup.folder, MARK]) })
  })
}
