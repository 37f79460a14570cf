// The account's private network, as far as it is rehearsed: what pods of its clusters reach of the cloud, under names
// of the domain. All of it listens on the machine's loopback, where everybody else reaches it.
import type { Cluster } from '../cluster/start.ts'

export type PrivateNetwork = {
  /** what the names lead to: the address of every cluster's node; loopback where there are no real clusters */
  address: string
  /** addresses by name, for the domain's name server */
  hosts: Map<string, readonly string[]>
  /** ports of loopback by the port of the address that leads there */
  ports: Map<number, number>
  clusters: Set<Cluster>
}

export const privateNetwork = (address: string): PrivateNetwork => ({
  ...{ address, hosts: new Map(), ports: new Map(), clusters: new Set() },
})

/** Makes a port of loopback reachable under the name, in every cluster. Both may have been offered before. */
export async function offer(network: PrivateNetwork, name: string, port: number, loopbackPort = port): Promise<void> {
  network.hosts.set(name, [network.address])
  if (network.ports.has(port)) return
  network.ports.set(port, loopbackPort)
  await Promise.all([...network.clusters].map((cluster) => cluster.publish(port, loopbackPort)))
}

/** The port stays: another server may have it already. */
export const withdraw = ({ hosts }: PrivateNetwork, name: string) => hosts.delete(name)

/** Makes everything reachable in the cluster, and what is offered later as well. */
export async function join({ clusters, ports }: PrivateNetwork, cluster: Cluster): Promise<void> {
  clusters.add(cluster)
  await Promise.all([...ports].map(([port, loopbackPort]) => cluster.publish(port, loopbackPort)))
}

export const leave = ({ clusters }: PrivateNetwork, cluster: Cluster) => clusters.delete(cluster)
