// The account's private network, as far as it is rehearsed: what pods of its clusters, and its droplets, reach of the cloud,
// under names of the domain. All of it listens on the machine's loopback, where everybody else reaches it.
import type { Machine } from '../machine/start.ts'

export type PrivateNetwork = {
  /** what the names lead to: where every real machine finds the cloud; loopback where there are none */
  address: string
  /** addresses by name, for the domain's name server */
  hosts: Map<string, readonly string[]>
  /** ports of loopback by the port of the address that leads there */
  ports: Map<number, number>
  members: Set<Member>
}

type Member = Pick<Machine, 'publish'>

export const privateNetwork = (address: string): PrivateNetwork => ({
  ...{ address, hosts: new Map(), ports: new Map(), members: new Set() },
})

/** Makes a port of loopback reachable under the name, by every member. Both may have been offered before. */
export async function offer(network: PrivateNetwork, name: string, port: number, loopbackPort = port): Promise<void> {
  network.hosts.set(name, [network.address])
  if (network.ports.has(port)) return
  network.ports.set(port, loopbackPort)
  await Promise.all([...network.members].map((member) => member.publish(port, loopbackPort)))
}

/** The port stays: another server may have it already. */
export const withdraw = ({ hosts }: PrivateNetwork, name: string) => hosts.delete(name)

/** Makes everything reachable by it, and what is offered later as well. */
export async function join({ members, ports }: PrivateNetwork, member: Member): Promise<void> {
  members.add(member)
  await Promise.all([...ports].map(([port, loopbackPort]) => member.publish(port, loopbackPort)))
}

export const leave = ({ members }: PrivateNetwork, member: Member) => members.delete(member)
