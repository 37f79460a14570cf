// Customers that are lost, whole or in part, as steps that bring them back: what is there is taken as it is, and what is
// not comes from the newest backups.
import pg from 'pg'
import { type Backup, newestOf } from './backups.ts'
import { type AnyStep, type Drift, type Step, step } from './converge.ts'
import { dataSteps, elsewhereSteps, instanceSteps } from './customer-steps.ts'
import { type Customer, namesOf, secretsElsewhere } from './customers.ts'
import { comments } from './database-comments.ts'
import { Failure } from './failure.ts'
import type { Platform } from './platform.ts'
import type { platformSteps } from './platform-steps.ts'
import { type Administrator, withPostgres } from './postgres.ts'
import { findDatabase, restoreInto, scratchName, secretsRestoredStep } from './restore.ts'
import type { Run } from './run.ts'

const quoteName = pg.escapeIdentifier
const quoteText = pg.escapeLiteral

/**
 * @param options.identity file of the private key that opens the backups
 * @param options.after the platform's steps
 */
export function recoverySteps(
  platform: Platform,
  customers: readonly Customer[],
  options: { backups: readonly Backup[]; identity: string; after: ReturnType<typeof platformSteps> },
): AnyStep[] {
  const { run, postgres } = platform
  const { backups, identity, after } = options
  const { credentials, applications, balancer, published } = after
  let pushed: AnyStep[] = [published] // one values file after the other: all are written in one clone
  return customers.flatMap((one) => {
    const { customer } = one
    const backup = newestOf(backups, `database/${customer}`)
    const database = (role: AnyStep) => databaseBackStep(run, postgres, customer, backup, { identity, needs: [role] })
    if (secretsElsewhere(one))
      return elsewhereSteps(platform, customer, { database, credentials, applications, record: balancer })
    // The cluster may have them, so it has to be there first.
    const secrets = secretsRestoredStep(run, backups, platform.secrets(customer), { identity, needs: [credentials] })
    const data = dataSteps(platform, customer, { secrets, database, values: pushed })
    const { role, before, login, own, values } = data
    pushed = [values]
    const known = { secrets, data, credentials, applications, record: balancer }
    const { namespace, secret, gone, instance, answers } = instanceSteps(platform, customer, known)
    const inData = before ? [secrets, role, before, login, own] : [secrets, role, login, own]
    return [...inData, values, namespace, secret, gone, instance, answers]
  })
}

/**
 * A customer's database that is lost is what was backed up last.
 *
 * @param backup of it; undefined where there is none
 * @param needs the customer's role among them, which is to own it
 */
function databaseBackStep(
  run: Run,
  administrator: Administrator,
  customer: string,
  backup: Backup | undefined,
  { identity, needs }: { identity: string; needs: readonly AnyStep[] },
): Step {
  const { database } = namesOf(customer)
  return step<Drift>({
    title: `database ${database} is there, or back`,
    needs,
    check: async () => {
      if (await withPostgres(await administrator(), (client) => findDatabase(client, database))) return undefined
      if (backup) return { lines: [`restore ${backup.folder}, of ${backup.at.toISOString()}`] }
      throw new Failure({
        found: `${database} is not there, and there is no backup of it`,
        expected: 'one of them, since gitops/apps has its customer',
        next: `./runbooks/add-customer.mts ${customer}, which makes an empty one`,
      })
    },
    apply: async (_drift, work) => {
      if (!backup) return
      const scratch = scratchName(customer, backup, 'restored')
      work.waitingFor(`Spaces, age, zstd and pg_restore: ${(backup.bytes / 2 ** 20).toFixed(1)} MiB`)
      await restoreInto(run, administrator, backup, scratch, { customer, identity })
      await withPostgres(await administrator(), async (client) => {
        await client.query('BEGIN')
        await client.query(`ALTER DATABASE ${quoteName(scratch)} RENAME TO ${quoteName(database)}`)
        await client.query(`COMMENT ON DATABASE ${quoteName(database)} IS ${quoteText(comments.placed(backup))}`)
        await client.query('COMMIT')
      })
    },
  })
}
