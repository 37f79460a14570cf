#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Raises a LunarFront from nothing, or brings one to what this checkout and the site file say.
import { openPlatform } from '../lib/platform.ts'
import { platformSteps } from '../lib/platform-steps.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'

export const bootstrap = runbook({
  name: 'bootstrap',
  summary: 'Raises a LunarFront from nothing, or brings one to what this checkout and the site file say.',
  procedure: async (run) => {
    const platform = openPlatform(run)
    return {
      preflight: [
        preflight.checkoutPrecondition(platform),
        ...preflight.providerPreconditions(run),
        preflight.limitPrecondition(run),
        preflight.budgetPrecondition(run),
      ],
      steps: platformSteps(platform).steps,
      afterwards: ['next: ./runbooks/add-customer.mts NAME'],
    }
  },
})

startedAs(import.meta.url, bootstrap)
