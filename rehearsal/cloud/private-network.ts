// The account's private network, as far as it is rehearsed: what pods of its clusters, and its droplets, reach of the cloud,
// under names of the domain. All of it listens on the machine's loopback, where everybody else reaches it.
import type { Machine } from '../machine/start.ts'
import { loopback, type Target } from '../servers/forward.ts'

export type PrivateNetwork = {
  /** what the names lead to: where every real machine finds the cloud; loopback where there are none */
  address: string
  /** addresses by name, for the domain's name server */
  hosts: Map<string, readonly string[]>
  offers: Offer[]
  members: Set<Member>
}

type Member = Pick<Machine, 'publish'>

/** From where everybody within it comes, so that a server can tell them from who is outside. */
export const PRIVATE_SOURCE = '127.77.0.1'

/** A port of an address of the network, and what is found there; `by` the member that has it itself. */
type Offer = { address: string; port: number; to: Target; by?: Member }

export const privateNetwork = (address: string): PrivateNetwork => ({
  ...{ address, hosts: new Map(), offers: [], members: new Set() },
})

const tellMember = (member: Member, { address, port, to, by }: Offer) =>
  member === by ? undefined : member.publish(port, to, address)

/** Makes it reachable by every member. Others may have offered it before. */
export async function offerAt({ offers, members }: PrivateNetwork, wanted: Offer): Promise<void> {
  if (offers.some(({ address, port }) => address === wanted.address && port === wanted.port)) return
  offers.push(wanted)
  await Promise.all([...members].map((member) => tellMember(member, wanted)))
}

/** Makes a port of loopback reachable under the name, by every member. */
export async function offer(network: PrivateNetwork, name: string, port: number, loopbackPort = port): Promise<void> {
  const { address } = network
  network.hosts.set(name, [address])
  await offerAt(network, { address, port, to: { ...loopback(loopbackPort), localAddress: PRIVATE_SOURCE } })
}

/** The port stays: another server may have it already. */
export const withdraw = ({ hosts }: PrivateNetwork, name: string) => hosts.delete(name)

/** Makes everything reachable by it, and what is offered later as well. */
export async function join({ members, offers }: PrivateNetwork, member: Member): Promise<void> {
  members.add(member)
  await Promise.all(offers.map((one) => tellMember(member, one)))
}

export const leave = ({ members }: PrivateNetwork, member: Member) => members.delete(member)
