// The real machine behind a droplet of the API, where the rehearsal has what one is made of.
import type { Power } from '../../droplet/messages.ts'
import { join, leave, offerAt } from '../private-network.ts'
import type { Account } from './account.ts'
import { PORTS, publicAddress } from './public-addresses.ts'
import type { Droplet } from './state.ts'

/**
 * Starts it: machine.started settles when SSH answers, or it has failed. Where there is nothing to make one of, the droplet
 * stays an object of the API.
 *
 * @param keys public keys, in OpenSSH's format
 */
export async function startMachine(
  { startDroplet, network, state }: Account,
  droplet: Droplet,
  { keys, memoryMegabytes }: { keys: string[]; memoryMegabytes: number },
): Promise<void> {
  if (!startDroplet) return
  const found = await publicAddress(() => droplet.machine)
  droplet.public_address = found.address
  const id = `droplet-${droplet.id}`
  const start = async () => {
    const booted = await startDroplet(id, {
      name: droplet.name,
      keys,
      privateAddress: droplet.private_address,
      memoryMegabytes,
    })
    machine.booted = booted
    await join(network, booted)
    for (const port of PORTS) machine.sockets.set(port, await booted.expose(port))
    for (const [port, path] of machine.sockets)
      await offerAt(network, { address: droplet.private_address, port, to: { path }, by: booted })
    void booted.ended.then((error) => {
      if (state.droplets.has(droplet.id)) fail(droplet, error)
    })
  }
  const machine: NonNullable<Droplet['machine']> = {
    ...{ booted: undefined, failure: undefined, sockets: new Map(), release: found.release },
    started: Promise.resolve(),
  }
  droplet.machine = machine
  machine.started = start().catch((error: Error) => fail(droplet, error))
}

function fail({ machine }: Droplet, error: Error): void {
  if (!machine || machine.failure !== undefined) return
  machine.failure = error.message
  console.error(error)
}

/** Which of the API's actions are something that the machine does. */
const POWERS: Record<string, Power> = {
  power_on: 'on',
  power_off: 'off',
  shutdown: 'shutdown',
  reboot: 'reboot',
  power_cycle: 'cycle',
}

/** @returns what settles when the machine has done it; undefined where it is nothing that a machine does */
export function perform({ machine }: Droplet, type: string): Promise<void> | undefined {
  const power = POWERS[type]
  return machine?.booted && power ? machine.booted.power(power) : undefined
}

/** @returns whether there is anything to wait for until it can be used */
export const isComing = ({ machine }: Droplet) => machine !== undefined && machine.sockets.size < PORTS.length

/** Ends it, also one that is still starting, and gives its address back. */
export async function stopMachine({ network }: Account, { machine }: Droplet): Promise<void> {
  if (!machine) return
  await machine.started
  machine.failure ??= 'it was removed'
  await machine.release()
  if (!machine.booted) return
  leave(network, machine.booted)
  await machine.booted.stop()
}

/** Ends every one, and gives all addresses back, for the end of the cloud. */
export async function stopMachines(account: Account): Promise<void> {
  const { droplets, reservedIps } = account.state
  await Promise.all([...reservedIps.values()].map(({ release }) => release?.()))
  await Promise.all([...droplets.values()].map((droplet) => stopMachine(account, droplet)))
}
