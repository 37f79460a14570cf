#!/usr/bin/env -S sh -c 'f=$0; [ -L "$f" ] && f=$(readlink -f "$f"); exec node "${f%/*}/../lib/launch.mjs" "$f" "$@"'
// Adds a customer: secrets, a Postgres role and database of its own, its values file in the repository, its DNS record, and
// its instance on the cluster.
import { answersStep } from '../lib/answers.ts'
import { fileGoneStep, secretsStep } from '../lib/customer-secrets.ts'
import { customerName, namesOf } from '../lib/customers.ts'
import { instanceStep, namespaceStep, openSecrets, secretStep } from '../lib/instance.ts'
import { kubeconfigStep } from '../lib/kubernetes.ts'
import { openPlatform, recordStep } from '../lib/platform.ts'
import { closedStep, databaseStep, passwordStep, roleExists, roleStep } from '../lib/postgres.ts'
import { infrastructurePrecondition } from '../lib/postgres-preflight.ts'
import * as preflight from '../lib/preflight.ts'
import { runbook, startedAs } from '../lib/runbook.ts'
import { imageTag, valuesStep } from '../lib/values.ts'

export const addCustomer = runbook({
  name: 'add-customer',
  summary: 'Adds a customer, or finishes adding one, until its instance answers at its address.',
  positionals: { customer: { summary: 'its name: lower-case letters, digits and hyphens', parse: customerName } },
  options: {
    tag: { summary: 'pin it to this image tag; otherwise it follows the chart’s', value: 'TAG', parse: imageTag },
    'new-secrets': { summary: 'make new secrets for a customer that is there: its users are signed out' },
  },
  procedure: async (run, { customer = '', tag, 'new-secrets': renew }) => {
    const { database } = namesOf(customer)
    const platform = openPlatform(run)
    const { postgres, kubernetes, repository } = platform
    const { home, password, environment, checksum } = openSecrets(platform, customer)
    const host = `${customer}.app.${run.site.domain}`

    const isCustomer = () => roleExists(postgres, database)
    const secrets = secretsStep(home, { isCustomer, renew: renew === 'true' })
    // After the secrets, so that a role without them belongs to a customer that was added elsewhere.
    const role = roleStep(postgres, database, run.site.connections_per_customer, { needs: [secrets] })
    const login = passwordStep(postgres, database, database, password, { needs: [role] })
    const own = databaseStep(postgres, database, database, { needs: [role] })
    const closed = closedStep(postgres, database, { needs: [] })
    const values = valuesStep(repository, customer, { tag, checksum, needs: [secrets] })
    const record = recordStep(platform, host, [values])
    const credentials = kubeconfigStep(kubernetes, { needs: [] })
    const namespace = namespaceStep(kubernetes, customer, [credentials])
    const secret = secretStep(kubernetes, customer, environment, [secrets, namespace])
    const gone = fileGoneStep(home, [secret, login, values])
    const instance = instanceStep(kubernetes, repository, customer, [login, own, values, secret])
    const answers = answersStep(run, host, { needs: [instance, record] })
    const inData = [secrets, role, login, own, closed]
    const onCluster = [credentials, namespace, secret, gone, instance, answers]
    return {
      preflight: [
        ...preflight.providerPreconditions(run),
        infrastructurePrecondition(run, platform, customer),
        preflight.customersPrecondition(platform, customer),
      ],
      steps: [...inData, values, record, ...onCluster],
    }
  },
})

startedAs(import.meta.url, addCustomer)
