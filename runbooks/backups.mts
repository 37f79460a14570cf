#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Shows the newest backup of everything, and exits 1 where one is older than the site allows; or all of one customer.
import { backupReport, backupsOf, backupTable } from '../lib/backup-report.ts'
import { sendHeartbeat } from '../lib/backup-steps.ts'
import { customerName } from '../lib/customers.ts'
import { EXIT } from '../lib/failure.ts'
import { openPlatform } from '../lib/platform.ts'
import { report, startedAs } from '../lib/runbook.ts'

export const backups = report({
  name: 'backups',
  summary:
    'Shows the newest backup of everything: its age, its size, whether it was verified; exits 1 if one is too old.',
  options: {
    customer: { summary: 'every backup of this customer', value: 'NAME', parse: customerName },
    heartbeat: { summary: 'call the site’s backups.heartbeat where everything has a fresh one' },
  },
  report: async (run, { customer, heartbeat }) => {
    if (customer) return backupsOf(run, customer)
    const { lines, problems } = await backupReport(run, openPlatform(run))
    const good = problems.length === 0 && lines.every(({ fresh }) => fresh)
    if (good && heartbeat) await sendHeartbeat(run)
    return {
      lines: backupTable(lines, problems),
      value: { sources: lines, problems },
      exit: good ? EXIT.converged : EXIT.failed,
    }
  },
})

startedAs(import.meta.url, backups)
