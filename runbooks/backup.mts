#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Backs up every customer's database and secrets, and Terraform's state: encrypted, to Spaces, and read again.
import { backupSteps, discoveredStep, raiseAlarms } from '../lib/backup-steps.ts'
import { customerName } from '../lib/customers.ts'
import { EXIT } from '../lib/failure.ts'
import { openPlatform } from '../lib/platform.ts'
import { dumpPrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { discover, isInShard, parseShard } from '../lib/sources.ts'

export const backup = runbook({
  name: 'backup',
  summary:
    'Backs up what has no fresh backup: databases, secrets, Terraform’s state; encrypted, to Spaces, read again.',
  options: {
    customer: { summary: 'this customer alone', value: 'NAME', parse: customerName },
    shard: {
      summary: 'this part of all: 2/4 is the second of four',
      value: 'I/N',
      parse: (it) => parseShard(it) && it,
    },
    again: { summary: 'also what has a fresh backup' },
  },
  // Two that back up different things do not wait for each other, nor for whoever changes the platform.
  lock: ({ customer, shard }) => `backup-${customer ?? shard?.replace('/', '-of-') ?? 'all'}`,
  procedure: async (run, { customer, shard, again }) => {
    const platform = openPlatform(run)
    const { sources, problems, unsaved } = await discover(run, platform, customer).catch(async (error: unknown) => {
      await raiseAlarms(run, undefined, EXIT.failed, false).catch(() => {}) // Spaces may be out of reach as well
      throw error
    })
    for (const text of unsaved) run.emit({ event: 'warning', text })
    const ours = shard ? sources.filter(({ name }) => isInShard(name, parseShard(shard))) : sources
    return {
      preflight: [
        preflight.postgresKnownPrecondition(run),
        preflight.spacesPrecondition(run),
        dumpPrecondition(run, platform),
      ],
      steps: [discoveredStep(problems), ...backupSteps(run, platform, ours, { again: again === 'true' })],
      ended: (exit) => raiseAlarms(run, ours, exit, customer === undefined && shard === undefined),
    }
  },
})

startedAs(import.meta.url, backup)
