#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Restores a customer's database from a backup into one of its own, compares it, and if asked puts it in the customer's place.
import { identityFile } from '../lib/age.ts'
import { listBackups } from '../lib/backups.ts'
import { giteaRestore } from '../lib/gitea-restore.ts'
import { openPlatform } from '../lib/platform.ts'
import { restorePrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { backupOf, restoredStep, scratchName, secretsRestoredStep, swappedStep } from '../lib/restore.ts'
import { databaseName, GITEA_NAME, parseTime, restorable } from '../lib/restore-arguments.ts'
import { runbook, startedAs } from '../lib/runbook.ts'

export const restore = runbook({
  name: 'restore',
  summary: 'Restores a customer’s database from a backup into one of its own, and compares it; or all of Gitea.',
  positionals: { customer: { summary: 'its name; or gitea, whose files come back as well', parse: restorable } },
  options: {
    at: { summary: 'the newest backup of this day or time, or before', value: 'TIME', parse: parseTime },
    into: { summary: 'name of the new database; otherwise restored_NAME_TIME', value: 'DATABASE', parse: databaseName },
    swap: { summary: 'then put it in the customer’s place; the customer’s is kept under another name' },
    again: { summary: 'with --swap: also where that was done before; what was written since is kept' },
    identity: { summary: 'the private key’s file; otherwise LUNARFRONT_AGE_IDENTITY', value: 'FILE' },
  },
  procedure: async (run, given) => {
    const { customer = '', at } = given
    const identity = identityFile(given.identity, run.environment)
    const [swap, again] = [given.swap === 'true', given.again === 'true']
    const { postgres, secrets, gitea } = openPlatform(run)
    const before = [
      preflight.terraformPrecondition(run),
      preflight.spacesPrecondition(run),
      restorePrecondition(run, identity),
    ]
    const backups = await listBackups(run)
    if (customer === GITEA_NAME)
      return { preflight: before, ...giteaRestore(gitea.droplet, backups, { ...given, identity }) }
    const backup = backupOf(backups, `database/${customer}`, at)
    const scratch = given.into ?? scratchName(customer, backup, 'restored')
    const restored = restoredStep(run, postgres, backup, scratch, { customer, identity, swap, again })
    return {
      preflight: before,
      steps: [
        secretsRestoredStep(run, backups, secrets(customer), { identity, ...(at ? { at } : {}) }),
        restored,
        ...(swap ? [swappedStep(postgres, customer, backup, scratch, { restored, again })] : []),
      ],
      afterwards: [
        swap
          ? `what ${customer} had before is in before_…; drop it when nobody needs it. --swap --again goes back once more`
          : `next: look at ${scratch}; --swap puts it in ${customer}’s place`,
      ],
    }
  },
})

startedAs(import.meta.url, restore)
