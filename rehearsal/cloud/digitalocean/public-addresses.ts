// Public addresses at which a real machine is found: addresses of loopback that only this rehearsal has.
import { holdAddress } from '../../servers/addresses.ts'
import { startForward } from '../../servers/forward.ts'
import type { DropletMachine, State } from './state.ts'

/** What anybody has on a droplet so far; at all other ports of the address nobody is found. */
export const PORTS = [22, 80, 443, 2222] as const

/**
 * @returns where whoever is within the private network finds what has that public address: loopback is everybody's own
 */
export function addressWithin({ droplets, reservedIps, loadBalancers }: State, address: string): string {
  const reserved = reservedIps.get(address)?.dropletId
  const droplet = [...droplets.values()].find(({ id, public_address }) => id === reserved || public_address === address)
  const balancer = [...loadBalancers.values()].find(({ ip }) => ip === address)
  return (droplet ?? balancer)?.private_address ?? address
}

export type PublicAddress = { address: string; release: () => Promise<void> }

/** @param machine which one is found there just now */
export async function publicAddress(machine: () => DropletMachine | undefined): Promise<PublicAddress> {
  const { address, release } = await holdAddress()
  const forwards = await Promise.all(
    PORTS.map((port) =>
      startForward({
        listen: { host: address, port },
        connect: () => {
          const path = machine()?.sockets.get(port)
          return path === undefined ? undefined : { path }
        },
      }),
    ),
  )
  return {
    address,
    release: async () => {
      await Promise.all(forwards.map((forward) => forward.close()))
      await release()
    },
  }
}
