#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Removes a customer: its name, folder, instance and namespace, its role. Its database is backed up for the last time, and
// kept under another name unless it is to be dropped.
import { fileGoneStep } from '../lib/customer-secrets.ts'
import { customerName } from '../lib/customers.ts'
import * as data from '../lib/database-removal.ts'
import { openPlatform } from '../lib/platform.ts'
import { dumpPrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import * as removal from '../lib/removal.ts'
import { roleGoneStep } from '../lib/role-removal.ts'
import { runbook, startedAs } from '../lib/runbook.ts'

export const removeCustomer = runbook({
  name: 'remove-customer',
  summary: 'Removes a customer, or finishes removing one; its data is backed up, and kept unless it is to be deleted.',
  positionals: { customer: { summary: 'its name', parse: customerName } },
  options: {
    'delete-data': { summary: 'also drop its database, and those kept of it: only what a verified backup has' },
  },
  procedure: async (run, { customer = '', 'delete-data': deleteData }) => {
    const platform = openPlatform(run)
    const { postgres, repository } = platform

    const role = roleGoneStep(postgres, customer)
    return {
      preflight: [
        ...preflight.providerPreconditions(run),
        dumpPrecondition(run, platform),
        removal.knownPrecondition(platform, customer),
        removal.unsavedPrecondition(platform, customer),
      ],
      retype: {
        question: `${customer} is removed, and its data ${deleteData ? 'deleted' : 'kept'}. Type its name to go on:`,
        word: customer,
      },
      // Each rests on the one before it.
      steps: [
        removal.recordGoneStep(platform, customer),
        removal.folderGoneStep(repository, customer),
        removal.applicationGoneStep(platform, customer),
        removal.stoppedStep(platform, customer),
        data.shutStep(postgres, customer),
        data.finalBackupStep(run, postgres, customer),
        removal.secretsSavedStep(platform, customer),
        removal.namespaceGoneStep(platform, customer),
        data.setAsideStep(run, postgres, customer),
        role,
        fileGoneStep(platform.secrets(customer), 'the backup has them', [role]),
        ...(deleteData ? [data.dataGoneStep(run, postgres, customer)] : []),
      ],
    }
  },
})

startedAs(import.meta.url, removeCustomer)
