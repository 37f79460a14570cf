#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Shows the fleet: every customer of gitops/apps and every customer's database, side by side.
import { fleet, fleetTable } from '../lib/fleet.ts'
import { openPlatform } from '../lib/platform.ts'
import { report, startedAs } from '../lib/runbook.ts'

export const listCustomers = report({
  name: 'list-customers',
  summary: 'Shows every customer: its address, its image, its database.',
  report: async (run) => {
    const customers = await fleet(openPlatform(run), run.site)
    return { lines: fleetTable(customers), value: customers }
  },
})

startedAs(import.meta.url, listCustomers)
