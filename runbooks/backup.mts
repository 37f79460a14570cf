#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
import { backupSteps, discoveredStep, raiseAlarms } from '../lib/backup-steps.ts'
// Backs up every customer's database and secrets, Terraform's state and Gitea: encrypted, to Spaces, and read again.
import type { Source } from '../lib/backups.ts'
import { customerName } from '../lib/customers.ts'
import { EXIT } from '../lib/failure.ts'
import { GITEA, giteaSource } from '../lib/gitea-backup.ts'
import { openPlatform } from '../lib/platform.ts'
import { dumpPrecondition, programsPrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { discover, isInShard, parseShard } from '../lib/sources.ts'

export const backup = runbook({
  name: 'backup',
  summary:
    'Backs up what has no fresh backup: databases, secrets, Terraform’s state, Gitea; encrypted, to Spaces, read again.',
  options: {
    customer: { summary: 'this customer alone', value: 'NAME', parse: customerName },
    shard: {
      summary: 'this part of all: 2/4 is the second of four',
      value: 'I/N',
      parse: (it) => parseShard(it) && it,
    },
    gitea: { summary: 'Gitea alone, which is stopped while it is read' },
    again: { summary: 'also what has a fresh backup' },
  },
  // Two that back up different things do not wait for each other, nor for whoever changes the platform.
  lock: ({ customer, shard, gitea }) =>
    `backup-${gitea ? 'gitea' : (customer ?? shard?.replace('/', '-of-') ?? 'all')}`,
  procedure: async (run, { customer, shard, gitea, again }) => {
    const platform = openPlatform(run)
    const { sources, problems, unsaved } = gitea
      ? { sources: [giteaSource(platform.gitea.droplet)], problems: [], unsaved: [] }
      : await discover(run, platform, customer).catch(async (error: unknown) => {
          await raiseAlarms(run, undefined, EXIT.failed, false).catch(() => {}) // Spaces may be out of reach as well
          throw error
        })
    for (const text of unsaved) run.emit({ event: 'warning', text })
    // The shards are the cluster's, and Gitea's droplet has a schedule of its own.
    const isOurs = ({ name }: Source) => !shard || (name !== GITEA && isInShard(name, parseShard(shard)))
    const ours = sources.filter(isOurs)
    return {
      preflight: [
        ...(gitea ? [] : [preflight.postgresKnownPrecondition(run)]),
        preflight.spacesPrecondition(run),
        gitea ? programsPrecondition(run) : dumpPrecondition(run, platform),
      ],
      steps: [
        ...(gitea ? [] : [discoveredStep(problems)]),
        ...backupSteps(run, platform, ours, { again: again === 'true' }),
      ],
      ended: (exit) => raiseAlarms(run, ours, exit, !customer && !shard && !gitea),
    }
  },
})

startedAs(import.meta.url, backup)
