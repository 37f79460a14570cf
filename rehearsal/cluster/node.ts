// The one node: containerd and the kubelet, so that pods are real; kube-proxy for services, kube-router for network
// policies, CoreDNS for names.
import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import { startServer, waitUntil } from '../servers/processes.ts'
import { kubeconfigOf } from './control-plane.ts'
import { NODE_ADDRESS, NODE_NAME, type NodeSettings, POD_CIDR, SERVICE_CIDR } from './messages.ts'

const run = promisify(execFile)

/** The image of the process that holds a pod's namespaces together. */
export const PAUSE_IMAGE = 'lunarfront.test/pause:1'

const containerdSocket = ({ runtime }: Pick<NodeSettings, 'runtime'>) => join(runtime, 'containerd.sock')

/** Makes the network that only this node has. */
export async function makeNetwork(): Promise<void> {
  const ip = (...args: string[]) => run('ip', args)
  await ip('link', 'set', 'lo', 'up')
  // A bridge without anything on it: every kernel that can run pods has those.
  await ip('link', 'add', 'node0', 'type', 'bridge')
  await ip('addr', 'add', `${NODE_ADDRESS}/32`, 'dev', 'node0')
  await ip('link', 'set', 'node0', 'up')
  // Nothing leads out: what is not here is unreachable at once, and not only after a time.
  await ip('route', 'add', 'unreachable', 'default')
  for (const [name, value] of Object.entries({ ip_forward: '1', 'conf.all.route_localnet': '0' }))
    writeFileSync(`/proc/sys/net/ipv4/${name.replaceAll('.', '/')}`, value)
}

const containerdConfig = (settings: NodeSettings) => `
version = 2
root = "${settings.directory}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "${containerdSocket(settings)}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${settings.directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`

/** Each pod has a link of its own to the node, so that all that passes between two of them passes the node's filter. */
const cniConfig = ({ directory }: NodeSettings) => ({
  cniVersion: '1.0.0',
  name: 'rehearsal',
  plugins: [
    {
      type: 'ptp',
      ipam: {
        type: 'host-local',
        ranges: [[{ subnet: '10.244.0.0/24' }]],
        routes: [{ dst: '0.0.0.0/0' }],
        dataDir: join(directory, 'cni-addresses'),
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
})

const kubeletConfig = (settings: NodeSettings) => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  address: NODE_ADDRESS,
  failCgroupV1: false,
  failSwapOn: false,
  cgroupDriver: 'cgroupfs',
  cgroupRoot: settings.cgroup,
  enforceNodeAllocatable: [],
  containerRuntimeEndpoint: `unix://${containerdSocket(settings)}`,
  authentication: {
    anonymous: { enabled: false },
    webhook: { enabled: true },
    x509: { clientCAFile: join(settings.tls, 'ca.crt') },
  },
  authorization: { mode: 'Webhook' },
  tlsCertFile: join(settings.tls, 'api.crt'),
  tlsPrivateKeyFile: join(settings.tls, 'api.key'),
  localStorageCapacityIsolation: false,
  imageGCHighThresholdPercent: 100,
  evictionHard: {},
  resolvConf: join(settings.directory, 'resolv.conf'),
  volumePluginDir: join(settings.directory, 'volume-plugins'),
  podLogsDir: join(settings.directory, 'pod-logs'),
  clusterDNS: [NODE_ADDRESS],
  clusterDomain: 'cluster.local',
  serializeImagePulls: false,
  // A person waits: nothing here is slow, and nobody else is asked.
  syncFrequency: '10s',
  nodeStatusUpdateFrequency: '10s',
})

const corefile = ({ domain, nameServerPort, tls }: NodeSettings) => `
.:53 {
  bind ${NODE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig ${kubeconfigOf({ tls })}
  }
  forward ${domain} ${NODE_ADDRESS}:${nameServerPort} {
    force_tcp
  }
}
`

/** Starts containerd and puts the images there; it needs no control plane. */
export async function startContainerd(settings: NodeSettings): Promise<void> {
  const { directory } = settings
  for (const folder of ['cni', 'cni-addresses', 'containerd']) mkdirSync(join(directory, folder), { recursive: true })
  const config = join(directory, 'containerd.toml')
  writeFileSync(config, containerdConfig(settings))
  writeFileSync(join(directory, 'cni', '10-rehearsal.conflist'), JSON.stringify(cniConfig(settings)))
  const containerd = startServer({ directory, name: 'containerd', command: ['containerd', '--config', config] })
  const answers = () =>
    run('ctr', ['--address', containerdSocket(settings), 'version']).then(
      () => true,
      () => false,
    )
  await waitUntil(answers, containerd, 30_000)
  for (const archive of settings.images) await importImage(settings, archive)
}

/** Puts an OCI archive among the node's images. */
export async function importImage(settings: NodeSettings, archive: string): Promise<void> {
  await run('ctr', ['--address', containerdSocket(settings), '--namespace', 'k8s.io', 'images', 'import', archive])
}

/** Starts what makes the machine a node; the API server has to be there. */
export async function startNode(settings: NodeSettings): Promise<void> {
  const { directory, programs } = settings
  const kubeconfig = kubeconfigOf(settings)
  const start = (name: string, ...args: string[]) =>
    startServer({ directory, name, command: [join(programs, name), ...args] })
  writeFileSync(join(directory, 'resolv.conf'), `nameserver ${NODE_ADDRESS}\n`)
  writeFileSync(join(directory, 'kubelet.yaml'), stringify(kubeletConfig(settings)))
  writeFileSync(join(directory, 'Corefile'), corefile(settings))
  start(
    'kubelet',
    ...[`--config=${join(directory, 'kubelet.yaml')}`, `--kubeconfig=${kubeconfig}`],
    ...[`--root-dir=${join(directory, 'kubelet')}`, `--hostname-override=${NODE_NAME}`, `--node-ip=${NODE_ADDRESS}`],
  )
  start('coredns', '-conf', join(directory, 'Corefile'))
  // Both look for the node once, when they start.
  const kubectl = [`--kubeconfig=${kubeconfig}`, 'wait', `node/${NODE_NAME}`]
  await run(join(programs, 'kubectl'), [...kubectl, '--for=create', '--timeout=60s'])
  start(
    'kube-proxy',
    ...[`--kubeconfig=${kubeconfig}`, `--hostname-override=${NODE_NAME}`, `--cluster-cidr=${POD_CIDR}`],
    ...['--proxy-mode=iptables', '--conntrack-max-per-core=0', '--conntrack-tcp-timeout-established=0'],
    ...['--conntrack-tcp-timeout-close-wait=0', '--healthz-bind-address=127.0.0.1:10256'],
  )
  start(
    'kube-router',
    ...[`--kubeconfig=${kubeconfig}`, `--hostname-override=${NODE_NAME}`],
    ...['--run-router=false', '--run-service-proxy=false', '--run-firewall=true', '--run-loadbalancer=false'],
    ...[`--service-cluster-ip-range=${SERVICE_CIDR}`, '--iptables-sync-period=1m', '--enable-cni=false'],
  )
  await run(join(programs, 'kubectl'), [...kubectl, '--for=condition=Ready', '--timeout=60s'])
}
