#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Restores every customer's newest backup, and Gitea's, compares it, drops it again, and keeps the evidence.
import { identityFile } from '../lib/age.ts'
import { discoveredStep } from '../lib/backup-steps.ts'
import { listBackups } from '../lib/backups.ts'
import { drilledStep, giteaDrilledStep } from '../lib/drill.ts'
import { GITEA } from '../lib/gitea-backup.ts'
import { openPlatform } from '../lib/platform.ts'
import { restorePrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { slots } from '../lib/slots.ts'
import { discover } from '../lib/sources.ts'

export const drill = runbook({
  name: 'drill',
  summary:
    'Restores every newest backup that was not restored yet, of customers and Gitea, compares it, and keeps the evidence.',
  options: { identity: { summary: 'the private key’s file; otherwise LUNARFRONT_AGE_IDENTITY', value: 'FILE' } },
  lock: () => 'drill',
  procedure: async (run, given) => {
    const identity = identityFile(given.identity, run.environment)
    const platform = openPlatform(run)
    const [{ sources, problems }, backups] = await Promise.all([discover(run, platform), listBackups(run)])
    const names = sources.flatMap(({ name }) => /^database\/(.*)/.exec(name)?.[1] ?? [])
    const hasGitea = sources.some(({ name }) => name === GITEA)
    const turn = slots(2) // a restore takes the server more than a dump does
    return {
      preflight: [
        preflight.postgresKnownPrecondition(run),
        preflight.spacesPrecondition(run),
        restorePrecondition(run, identity),
      ],
      steps: [
        discoveredStep(problems),
        ...names.map((customer) => drilledStep(run, platform.postgres, customer, backups, { identity, turn })),
        ...(hasGitea ? [giteaDrilledStep(run, platform.postgres, backups, { identity, turn })] : []),
      ],
      afterwards: ['./runbooks/backups.mts shows when each was restored'],
    }
  },
})

startedAs(import.meta.url, drill)
