#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Brings a LunarFront back that was lost, whole or in part: the platform as bootstrap does, then each customer of
// gitops/apps, with its secrets and its database from the backups where they are lost.
import { identityFile } from '../lib/age.ts'
import { listBackups } from '../lib/backups.ts'
import { openPlatform } from '../lib/platform.ts'
import { platformSteps } from '../lib/platform-steps.ts'
import { restorePrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { recoverySteps } from '../lib/recovery.ts'
import { runbook, startedAs } from '../lib/runbook.ts'

export const recover = runbook({
  name: 'recover',
  summary: 'Brings back what was lost: the platform, and every customer of gitops/apps, from the newest backups.',
  options: {
    identity: { summary: 'the private key’s file; otherwise LUNARFRONT_AGE_IDENTITY', value: 'FILE' },
  },
  procedure: async (run, given) => {
    const identity = identityFile(given.identity, run.environment)
    const platform = openPlatform(run)
    const [customers, backups] = await Promise.all([platform.customers(), listBackups(run)])
    const ofPlatform = platformSteps(platform)
    const ofCustomers = recoverySteps(platform, customers, { backups, identity, after: ofPlatform })
    return {
      preflight: [
        ...preflight.providerPreconditions(run),
        preflight.limitPrecondition(run),
        preflight.budgetPrecondition(run),
        restorePrecondition(run, identity),
      ],
      steps: [...ofPlatform.steps, ...ofCustomers],
    }
  },
})

startedAs(import.meta.url, recover)
