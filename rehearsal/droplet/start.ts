// Starts a droplet: a Debian that boots, with a disk, a network and a memory limit of its own, in a machine of its own.
import { join } from 'node:path'
import { cgroupOf, homeOf, type Machine, startMachine } from '../machine/start.ts'
import { loopback } from '../servers/forward.ts'
import { type DropletSettings, NAMES_PORT, type Power } from './messages.ts'

export type DropletOptions = Pick<
  DropletSettings,
  'name' | 'root' | 'pool' | 'keys' | 'privateAddress' | 'memoryMegabytes'
> & {
  /** of the cloud */
  directory: string
  /** a short path, for sockets */
  runtime: string
  /** unique among the cloud's machines */
  id: string
  /** of the computer's loopback, where the domain's name server answers */
  nameServerPort: number
}

export type BootedDroplet = Pick<Machine, 'publish' | 'expose' | 'ended' | 'stop'> & {
  /** resolves when it is done: after `on`, `reboot` and `cycle` SSH answers */
  power: (power: Power) => Promise<void>
}

/** Starts it; resolves when SSH answers. */
export async function startDroplet(options: DropletOptions): Promise<BootedDroplet> {
  const { directory, runtime, id, nameServerPort, ...rest } = options
  const main = new URL('main.mts', import.meta.url)
  const paths = { directory: join(homeOf(directory, id), 'droplet'), runtime: join(runtime, id), cgroup: cgroupOf(id) }
  const what = `the droplet ${rest.name}`
  const machine = startMachine({ directory, name: id, what, main, settings: { ...rest, ...paths } })
  try {
    await machine.publish(NAMES_PORT, loopback(nameServerPort))
    await machine.ready
    const { publish, expose, ended, stop, ask } = machine
    return { publish, expose, ended, stop, power: (power) => ask({ power }) }
  } catch (error) {
    await machine.end()
    throw error
  }
}
