// The real cluster behind a Kubernetes cluster of the API, where the rehearsal has the programs for one.
import { readFile } from 'node:fs/promises'
import { openApi } from '../../cluster/api.ts'
import { kubeconfig } from '../../cluster/kubeconfig.ts'
import type { Cluster } from '../../cluster/start.ts'
import { join, leave } from '../private-network.ts'
import type { Account } from './account.ts'
import { balanceServices } from './service-load-balancers.ts'
import type { KubernetesCluster } from './state.ts'

/** Starts it: cluster.server settles when it is ready, or has failed. Without the programs there is nothing to wait for. */
export function startServer(account: Account, cluster: KubernetesCluster): void {
  const { startCluster, network, images } = account
  if (!startCluster) return
  cluster.server = (async () => {
    try {
      const real = await startCluster(`${cluster.name.slice(0, 30)}-${cluster.id.slice(0, 8)}`, images)
      await join(network, real)
      await putCertificate(account, real)
      cluster.real = real
      const controller = balanceServices(account, cluster.id, real)
      void real.ended.then((error) => {
        controller.close()
        fail(cluster, error)
      })
    } catch (error) {
      fail(cluster, error as Error)
    }
  })()
}

/** Where gitops/platform has the ingress controller look for it. */
async function putCertificate({ wildcard, servers }: Account, { server, token }: Cluster): Promise<void> {
  const api = openApi({ server, token, ca: servers.authority })
  const [name, namespace] = ['wildcard-tls', 'traefik']
  const base64 = async (file: string) => (await readFile(file)).toString('base64')
  const metadata = { name: namespace }
  await api.apply(`/api/v1/namespaces/${namespace}`, { apiVersion: 'v1', kind: 'Namespace', metadata })
  await api.apply(`/api/v1/namespaces/${namespace}/secrets/${name}`, {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'kubernetes.io/tls',
    metadata: { name, namespace },
    data: { 'tls.crt': await base64(wildcard.certificate), 'tls.key': await base64(wildcard.key) },
  })
  api.close()
}

function fail(cluster: KubernetesCluster, error: Error): void {
  if (cluster.failure !== undefined) return
  cluster.failure = error.message
  console.error(error)
}

/** Ends it, also one that is still starting. */
export async function stopServer({ network }: Account, cluster: KubernetesCluster): Promise<void> {
  await cluster.server
  const { real } = cluster
  if (!real) return
  leave(network, real)
  cluster.failure ??= 'it was removed'
  await real.stop()
}

/** Ends every one, for the end of the cloud. */
export const stopClusters = async (account: Account): Promise<void> => {
  await Promise.all([...account.state.clusters.values()].map((cluster) => stopServer(account, cluster)))
}

/** @returns status as the API tells it */
export function statusOf({ startCluster }: Account, { readyAt, real, failure }: KubernetesCluster) {
  if (failure !== undefined) return { state: 'error', message: failure }
  const isReady = Date.now() >= readyAt && (real !== undefined || startCluster === undefined)
  return isReady ? { state: 'running' } : { state: 'provisioning', message: 'provisioning' }
}

/** @returns the address of the API; without a real cluster a name that leads nowhere */
export const endpointOf = ({ domain, startCluster }: Account, { id, real }: KubernetesCluster): string =>
  real?.server ?? (startCluster ? '' : `https://${id}.k8s.${domain}`)

/** @returns how an administrator reaches it: certificate authority in PEM, token */
const accessTo = (account: Account, cluster: KubernetesCluster) => ({
  server: endpointOf(account, cluster),
  ca: account.servers.authority,
  token: cluster.real?.token ?? cluster.token,
})

const DAY = 86_400_000

export function credentials(account: Account, cluster: KubernetesCluster) {
  const { server, ca, token } = accessTo(account, cluster)
  return {
    ...{ server, token, certificate_authority_data: Buffer.from(ca).toString('base64') },
    ...{ client_certificate_data: null, client_key_data: null },
    expires_at: new Date(Date.now() + 7 * DAY).toISOString().replace(/\.\d+Z$/, 'Z'),
  }
}

export const kubeconfigFor = (account: Account, cluster: KubernetesCluster): string =>
  kubeconfig(`do-${cluster.region}-${cluster.name}`, accessTo(account, cluster))

/** Puts an OCI archive among the images of every cluster, also of those that are made later. */
export async function addImages(account: Account, archive: string): Promise<void> {
  const clusters = [...account.state.clusters.values()]
  await Promise.all(clusters.map(({ server }) => server))
  await Promise.all(clusters.map(({ real }) => real?.importImages(archive)))
  if (!account.images.includes(archive)) account.images.push(archive)
}
