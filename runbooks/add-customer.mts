#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Adds a customer: secrets, a Postgres role and database of its own, its values file in the repository, its DNS record.
import { readSecrets, secretsStep } from '../lib/customer-secrets.ts'
import { customerName, namesOf } from '../lib/customers.ts'
import { onlyMakesRecords, terraformStep } from '../lib/infrastructure.ts'
import { openPlatform } from '../lib/platform.ts'
import { closedStep, databaseStep, passwordStep, roleExists, roleStep } from '../lib/postgres.ts'
import { infrastructurePrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { imageTag, valuesStep } from '../lib/values.ts'

export const addCustomer = runbook({
  name: 'add-customer',
  summary: 'Adds a customer, or finishes adding one: its secrets, role, database, values file and DNS record.',
  positionals: {
    customer: { summary: 'its name: lower-case letters, digits and hyphens, such as acme', parse: customerName },
  },
  options: {
    tag: {
      summary: 'pin the customer to this image tag; otherwise it follows the chart’s',
      value: 'TAG',
      parse: imageTag,
    },
    'new-secrets': { summary: 'make new secrets for a customer that is there, but whose secrets are lost' },
  },
  procedure: async (run, given) => {
    const customer = given.customer!
    const { database } = namesOf(customer)
    const platform = openPlatform(run)
    const { postgres } = platform
    const isCustomer = () => roleExists(postgres, database)
    const secrets = secretsStep(run.site.directory, customer, { isCustomer, renew: given['new-secrets'] === 'true' })
    // After the secrets, so that a role without them belongs to a customer that was added elsewhere.
    const role = roleStep(postgres, database, run.site.connections_per_customer, { needs: [secrets] })
    const secret = () => readSecrets(run.site.directory, customer).databasePassword
    const password = passwordStep(postgres, database, database, secret, { needs: [role] })
    const own = databaseStep(postgres, database, database, { needs: [role] })
    const closed = closedStep(postgres, database, { needs: [] })
    const values = valuesStep(platform.repository, customer, given.tag)
    const record = terraformStep({
      title: `${customer}.app.${run.site.domain} is in DNS`,
      needs: [values],
      open: platform.terraform,
      appsDirectory: platform.appsDirectory,
      allowed: onlyMakesRecords,
    })
    return {
      preflight: [
        ...preflight.providerPreconditions(run),
        infrastructurePrecondition(run, platform, customer),
        preflight.customersPrecondition(platform, customer),
      ],
      steps: [secrets, role, password, own, closed, values, record],
      afterwards: ['Here this runbook ends for now: it does not wait for the customer’s instance on the cluster yet.'],
    }
  },
})

startedAs(import.meta.url, addCustomer)
