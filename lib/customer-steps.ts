// A customer as steps: what add-customer is made of, and what brings a customer back.
import { answersStep } from './answers.ts'
import type { AnyStep } from './converge.ts'
import { databaseStep, passwordStep, roleStep } from './customer-database.ts'
import { fileGoneStep } from './customer-secrets.ts'
import { namesOf } from './customers.ts'
import { instanceStep, namespaceStep } from './instance.ts'
import { openSecrets, secretStep } from './instance-secret.ts'
import type { Platform } from './platform.ts'
import { valuesStep } from './values.ts'

/** The host name of a customer's instance. */
export const hostOf = ({ run }: Pick<Platform, 'run'>, customer: string) => `${customer}.app.${run.site.domain}`

/**
 * @param options.secrets the step after which the customer's secrets are known
 * @param options.before steps that have to be done before the database is looked at, and before the values file is
 * @returns the steps by name: in Postgres, and the values file
 */
export function dataSteps(
  platform: Platform,
  customer: string,
  options: {
    secrets: AnyStep
    tag?: string | undefined
    database?: (role: AnyStep) => AnyStep
    values?: readonly AnyStep[]
  },
) {
  const { run, postgres, repository } = platform
  const { secrets, tag } = options
  const { database } = namesOf(customer)
  const { password, checksum } = openSecrets(platform, customer)
  // After the secrets, so that a role without them belongs to a customer that was added elsewhere.
  const role = roleStep(postgres, database, run.site.connections_per_customer, { needs: [secrets] })
  const login = passwordStep(postgres, database, database, password, { needs: [role] })
  const before = options.database?.(role)
  const own = databaseStep(postgres, database, database, { needs: [before ?? role] })
  const values = valuesStep(repository, customer, { tag, checksum, needs: [secrets, ...(options.values ?? [])] })
  return { role, login, own, values, ...(before ? { before } : {}) }
}

/**
 * @param options.credentials the step after which the cluster can be reached
 * @param options.platform steps that have to be done before Argo CD is asked
 * @param options.record the step after which its name is in DNS
 * @returns the steps by name: on the cluster, until it answers
 */
export function instanceSteps(
  platform: Platform,
  customer: string,
  options: {
    secrets: AnyStep
    data: Pick<ReturnType<typeof dataSteps>, 'login' | 'own' | 'values'>
    credentials: AnyStep
    applications?: AnyStep
    record: AnyStep
  },
) {
  const { run, kubernetes, repository } = platform
  const { secrets, credentials, record, applications } = options
  const { login, own, values } = options.data
  const { home, data } = openSecrets(platform, customer)
  const namespace = namespaceStep(kubernetes, customer, [credentials])
  const secret = secretStep(kubernetes, customer, data, [secrets, namespace])
  const gone = fileGoneStep(home, 'the cluster has them', [secret, login, values])
  const ready = [login, own, values, secret, ...(applications ? [applications] : [])]
  const instance = instanceStep(kubernetes, repository, customer, ready)
  const answers = answersStep(run, hostOf(platform, customer), { needs: [instance, record] })
  return { namespace, secret, gone, instance, answers }
}

/**
 * Of a customer whose secrets are not where runbooks put them: those, its role's password among them, are left to whoever
 * wrote its values file.
 *
 * @param options as for dataSteps and instanceSteps
 * @returns the steps, in order
 */
export function elsewhereSteps(
  platform: Platform,
  customer: string,
  options: {
    database: (role: AnyStep) => AnyStep
    credentials: AnyStep
    applications: AnyStep
    record: AnyStep
  },
): AnyStep[] {
  const { run, postgres, kubernetes, repository } = platform
  const { credentials, applications, record } = options
  const { database } = namesOf(customer)
  const role = roleStep(postgres, database, run.site.connections_per_customer, { needs: [credentials] })
  const before = options.database(role)
  const own = databaseStep(postgres, database, database, { needs: [before] })
  const namespace = namespaceStep(kubernetes, customer, [credentials])
  const instance = instanceStep(kubernetes, repository, customer, [own, namespace, applications])
  const answers = answersStep(run, hostOf(platform, customer), { needs: [instance, record] })
  return [role, before, own, namespace, instance, answers]
}
