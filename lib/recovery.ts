// Customers that are lost, whole or in part, as steps that bring them back: what is there is taken as it is, and what is
// not comes from the newest backups.
import { type Backup, newestOf } from './backups.ts'
import type { AnyStep } from './converge.ts'
import { dataSteps, instanceSteps } from './customer-steps.ts'
import type { Customer } from './customers.ts'
import type { Platform } from './platform.ts'
import type { platformSteps } from './platform-steps.ts'
import { databaseBackStep, secretsRestoredStep } from './restore.ts'

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
  return customers.flatMap(({ customer }) => {
    // The cluster may have them, so it has to be there first.
    const secrets = secretsRestoredStep(run, backups, platform.secrets(customer), { identity, needs: [credentials] })
    const backup = newestOf(backups, `database/${customer}`)
    const database = (role: AnyStep) => databaseBackStep(run, postgres, customer, backup, { identity, needs: [role] })
    const data = dataSteps(platform, customer, { secrets, database, values: pushed })
    const { role, before, login, own, values } = data
    pushed = [values]
    const known = { secrets, data, credentials, applications, record: balancer }
    const { namespace, secret, gone, instance, answers } = instanceSteps(platform, customer, known)
    const inData = before ? [secrets, role, before, login, own] : [secrets, role, login, own]
    return [...inData, values, namespace, secret, gone, instance, answers]
  })
}
