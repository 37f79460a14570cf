#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
import { closedStep, roleExists } from '../lib/customer-database.ts'
// Adds a customer: secrets, a Postgres role and database of its own, its values file in the repository, its DNS record, and
// its instance on the cluster.
import { secretsStep } from '../lib/customer-secrets.ts'
import { dataSteps, hostOf, instanceSteps } from '../lib/customer-steps.ts'
import { customerName, namesOf } from '../lib/customers.ts'
import { kubeconfigStep } from '../lib/kubernetes.ts'
import { openPlatform, recordStep } from '../lib/platform.ts'
import { infrastructurePrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { imageTag } from '../lib/values.ts'

export const addCustomer = runbook({
  name: 'add-customer',
  summary: 'Adds a customer, or finishes adding one, until its instance answers at its address.',
  positionals: { customer: { summary: 'its name: lower-case letters, digits and hyphens', parse: customerName } },
  options: {
    tag: { summary: 'pin it to this image tag; otherwise it follows the chart’s', value: 'TAG', parse: imageTag },
    'new-secrets': { summary: 'make new secrets for a customer that is there: its users are signed out' },
  },
  procedure: async (run, { customer = '', tag, 'new-secrets': renew }) => {
    const platform = openPlatform(run)
    const { postgres, kubernetes } = platform
    const { database } = namesOf(customer)

    const isCustomer = () => roleExists(postgres, database)
    const secrets = secretsStep(platform.secrets(customer), { isCustomer, renew: renew === 'true' })
    const { role, login, own, values } = dataSteps(platform, customer, { secrets, tag })
    const closed = closedStep(postgres, database, { needs: [] })
    const record = recordStep(platform, hostOf(platform, customer), [values])
    const credentials = kubeconfigStep(kubernetes, { needs: [] })
    const onCluster = instanceSteps(platform, customer, { secrets, data: { login, own, values }, credentials, record })
    const { namespace, secret, gone, instance, answers } = onCluster
    return {
      preflight: [
        ...preflight.providerPreconditions(run),
        infrastructurePrecondition(run, platform, customer),
        preflight.customersPrecondition(platform, customer),
      ],
      steps: [
        ...[secrets, role, login, own, closed, values, record],
        ...[credentials, namespace, secret, gone, instance, answers],
      ],
    }
  },
})

startedAs(import.meta.url, addCustomer)
