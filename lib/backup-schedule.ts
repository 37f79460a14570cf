// The backup schedule on the cluster (gitops/platform/chart/templates/backups.yaml): what the chart is told of it, and what
// lets it read the customers' Secrets.
import type { KubernetesObject } from './kubernetes.ts'
import type { Site } from './site.ts'

/** Where its CronJobs are, and the name of their service account. */
export const BACKUPS_NAMESPACE = 'backups'

const RBAC = 'rbac.authorization.k8s.io'

/** @returns what lets the nightly backup read a customer's one Secret, in whose namespace it may do nothing else */
export function readableByBackups(slug: string): KubernetesObject[] {
  const metadata = { name: BACKUPS_NAMESPACE, namespace: slug }
  return [
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'Role',
      metadata,
      rules: [{ apiGroups: [''], resources: ['secrets'], resourceNames: [slug], verbs: ['get'] }],
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: RBAC, kind: 'Role', name: BACKUPS_NAMESPACE },
      subjects: [{ kind: 'ServiceAccount', name: BACKUPS_NAMESPACE, namespace: BACKUPS_NAMESPACE }],
    },
  ]
}

/** @returns the values of the platform's chart; none where the site names no image of the runbooks */
export const scheduleValues = ({ runbooks_image, backups: { shards, drill_key } }: Site) =>
  runbooks_image ? { backups: { image: runbooks_image, shards: shards ?? 1, drill: drill_key !== undefined } } : {}
