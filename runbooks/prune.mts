#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Removes the backups that the site does not want to keep. --plan shows which.
import { retentionSteps } from '../lib/backup-steps.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'

export const prune = runbook({
  name: 'prune',
  summary: 'Removes backups that are older than the site wants, never fewer than its minimum; --plan shows which.',
  lock: () => 'prune',
  procedure: async (run) => ({
    preflight: [preflight.spacesPrecondition(run)],
    steps: await retentionSteps(run),
  }),
})

startedAs(import.meta.url, prune)
