// The control plane: etcd, the API server, its controllers and the scheduler, as they are.
import { mkdirSync, readFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import { startServer, waitUntil } from '../servers/processes.ts'
import { API_PORT, NODE_ADDRESS, type NodeSettings, POD_CIDR, SERVICE_CIDR } from './messages.ts'

const ETCD = 'http://127.0.0.1:2379'

/** @returns the path of the administrator's kubeconfig, which every part of the cluster uses */
export const kubeconfigOf = ({ tls }: Pick<NodeSettings, 'tls'>) => join(tls, 'kubeconfig')

/** Starts it; resolves when the API server is ready. */
export async function startControlPlane(settings: NodeSettings): Promise<void> {
  const { directory, programs, tls } = settings
  const program = (name: string) => join(programs, name)
  const file = (name: string) => join(tls, name)
  const data = join(directory, 'etcd')
  mkdirSync(data, { recursive: true, mode: 0o700 })
  startServer({
    directory,
    name: 'etcd',
    command: [
      ...[program('etcd'), '--name=rehearsal', `--data-dir=${data}`, '--log-level=warn', '--unsafe-no-fsync'],
      ...[`--listen-client-urls=${ETCD}`, `--advertise-client-urls=${ETCD}`],
      ...['--listen-peer-urls=http://127.0.0.1:2380', '--initial-advertise-peer-urls=http://127.0.0.1:2380'],
      '--initial-cluster=rehearsal=http://127.0.0.1:2380',
    ],
  })
  const api = startServer({
    directory,
    name: 'kube-apiserver',
    command: [
      ...[program('kube-apiserver'), `--etcd-servers=${ETCD}`, '--bind-address=0.0.0.0', `--secure-port=${API_PORT}`],
      ...[`--advertise-address=${NODE_ADDRESS}`, `--service-cluster-ip-range=${SERVICE_CIDR}`],
      ...[`--tls-cert-file=${file('api.crt')}`, `--tls-private-key-file=${file('api.key')}`],
      ...[`--client-ca-file=${file('ca.crt')}`, `--token-auth-file=${file('tokens.csv')}`],
      ...['--authorization-mode=Node,RBAC', '--allow-privileged=true', '--enable-admission-plugins=NodeRestriction'],
      ...['--service-account-issuer=https://kubernetes.default.svc', `--service-account-key-file=${file('sa.pub')}`],
      ...[`--service-account-signing-key-file=${file('sa.key')}`],
      ...[`--kubelet-client-certificate=${file('admin.crt')}`, `--kubelet-client-key=${file('admin.key')}`],
      '--kubelet-preferred-address-types=InternalIP',
    ],
  })
  const ca = readFileSync(file('ca.crt'), 'utf8')
  await waitUntil(() => isReady(ca), api, 90_000)
  const credentials = [`--kubeconfig=${kubeconfigOf(settings)}`, '--leader-elect=false', '--bind-address=127.0.0.1']
  startServer({
    directory,
    name: 'kube-controller-manager',
    command: [
      ...[program('kube-controller-manager'), ...credentials, '--allocate-node-cidrs', `--cluster-cidr=${POD_CIDR}`],
      ...[`--service-cluster-ip-range=${SERVICE_CIDR}`, `--root-ca-file=${file('ca.crt')}`],
      ...[`--service-account-private-key-file=${file('sa.key')}`, '--use-service-account-credentials'],
      ...[`--cluster-signing-cert-file=${file('ca.crt')}`, `--cluster-signing-key-file=${file('ca.key')}`],
    ],
  })
  startServer({ directory, name: 'kube-scheduler', command: [program('kube-scheduler'), ...credentials] })
}

const isReady = (ca: string): Promise<boolean> =>
  new Promise((resolve) => {
    const asked = request({ host: NODE_ADDRESS, port: API_PORT, path: '/readyz', ca, timeout: 2000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    asked.once('timeout', () => asked.destroy())
    asked.once('error', () => resolve(false)).end()
  })
