// What DigitalOcean's controller does in a cluster: each Service of type LoadBalancer has a load balancer, whose ports
// lead to the Service's node ports.
import { setTimeout as sleep } from 'node:timers/promises'
import { type Metadata, openApi } from '../../cluster/api.ts'
import type { Cluster } from '../../cluster/start.ts'
import type { Forward } from '../../servers/forward.ts'
import type { Account } from './account.ts'
import { addLoadBalancer, forwardPort, removeLoadBalancer } from './load-balancers.ts'
import type { ForwardingRule, LoadBalancer } from './state.ts'

const ANNOTATION = 'service.beta.kubernetes.io/do-loadbalancer-'

type Ingress = { ip?: string; hostname?: string }
type Service = {
  metadata: Metadata
  spec: { type: string; ports?: { port: number; protocol: string; nodePort?: number }[] }
  status: { loadBalancer?: { ingress?: Ingress[] } }
}

/** By port of the load balancer. */
type Open = Map<number, { nodePort: number; forward: Forward }>
type Made = { balancer: LoadBalancer; open: Open }

/**
 * Keeps the account's load balancers as the cluster's Services want them, until it is closed. What there is then stays:
 * a cluster that is deleted leaves its load balancers behind.
 */
export function balanceServices(account: Account, clusterId: string, cluster: Cluster): { close: () => void } {
  const api = openApi({ server: cluster.server, ca: account.servers.authority, token: cluster.token })
  const made = new Map<string, Made>()
  let isClosed = false

  async function balance(service: Service): Promise<void> {
    const { uid, namespace, name } = service.metadata
    const rules = rulesOf(service)
    let known = made.get(uid)
    if (!known || !account.state.loadBalancers.has(known.balancer.id)) {
      const wanted = { name: nameOf(service), clusterId, forwarding_rules: rules }
      known = { balancer: await addLoadBalancer(account, wanted), open: new Map() }
      made.set(uid, known)
    }
    const { balancer, open } = known
    balancer.name = nameOf(service)
    balancer.forwarding_rules = rules
    await openPorts(balancer, open, rules)
    await sleep(Math.max(0, balancer.readyAt - Date.now()))
    const ingress = ingressOf(service, balancer)
    const said = service.status.loadBalancer?.ingress?.map(({ ip, hostname }) => hostname ?? ip) ?? []
    if (said.length === 1 && said[0] === (ingress.hostname ?? ingress.ip)) return
    const path = `/api/v1/namespaces/${namespace}/services/${name}/status`
    await api.merge(path, { status: { loadBalancer: { ingress: [ingress] } } })
  }

  async function openPorts(balancer: LoadBalancer, open: Open, rules: ForwardingRule[]): Promise<void> {
    for (const [port, { nodePort, forward }] of open) {
      if (rules.some((rule) => rule.entry_port === port && rule.target_port === nodePort)) continue
      open.delete(port)
      await forward.close()
    }
    for (const { entry_port, target_port } of rules) {
      if (open.has(entry_port)) continue
      const path = await cluster.expose(target_port)
      open.set(entry_port, {
        nodePort: target_port,
        forward: await forwardPort(account, balancer, entry_port, { path }),
      })
    }
  }

  async function balanceAll(services: Service[]): Promise<void> {
    const wanted = services.filter(({ spec, metadata }) => spec.type === 'LoadBalancer' && !metadata.deletionTimestamp)
    for (const [uid, { balancer }] of made) {
      if (wanted.some(({ metadata }) => metadata.uid === uid)) continue
      made.delete(uid)
      await removeLoadBalancer(account, balancer)
    }
    for (const service of wanted)
      await balance(service).catch(({ message }: Error) => {
        if (!isClosed)
          console.error(`${service.metadata.namespace}/${service.metadata.name} has no load balancer: ${message}`)
      })
  }

  let latest: Service[] = []
  let isBusy = false
  /** One after the other, and only the newest of what came meanwhile. */
  const changed = async (services: Service[]) => {
    latest = services
    if (isBusy) return
    isBusy = true
    for (let done: Service[] | undefined; done !== latest && !isClosed; ) {
      done = latest
      await balanceAll(done)
    }
    isBusy = false
  }
  api.watch<Service>('/api/v1/services', changed)
  return {
    close: () => {
      isClosed = true
      api.close()
    },
  }
}

/** As the controller names it where the Service does not say. */
const nameOf = ({ metadata: { annotations, uid } }: Service) =>
  annotations?.[`${ANNOTATION}name`] ?? `a${uid.replaceAll('-', '')}`

const ingressOf = ({ metadata: { annotations } }: Service, { ip }: LoadBalancer): Ingress => {
  const hostname = annotations?.[`${ANNOTATION}hostname`]
  return hostname ? { hostname } : { ip }
}

const rulesOf = ({ spec: { ports = [] } }: Service): ForwardingRule[] =>
  ports.flatMap(({ port, protocol, nodePort }) =>
    protocol === 'TCP' && nodePort
      ? [
          {
            ...{ entry_protocol: 'tcp', entry_port: port, target_protocol: 'tcp', target_port: nodePort },
            ...{ certificate_id: '', tls_passthrough: false },
          },
        ]
      : [],
  )
