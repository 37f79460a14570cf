// What a droplet is told, and the addresses of its network.
import * as z from 'zod'
import { machineSettings } from '../machine/messages.ts'

/** Its public address as it sees it itself, of a network that is kept for documentation (RFC 5737). */
export const PUBLIC_ADDRESS = '198.51.100.10'
/** The world as it sees it: whoever comes from outside comes from there. */
export const WORLD_ADDRESS = '198.51.100.1'

/** Where it asks for names, at the cloud's address. */
export const NAMES_PORT = 53

export const power = z.enum(['on', 'off', 'shutdown', 'reboot', 'cycle'])
export type Power = z.infer<typeof power>

/** What it is told besides: as DigitalOcean's API has it, `shutdown` and `reboot` ask, `off` and `cycle` do not. */
export const powerMessage = z.strictObject({ power })

export const dropletSettings = machineSettings.extend({
  name: z.string(),
  /** the root file system that it starts with, which stays as it is, and the folder of packages that are for it */
  root: z.string(),
  pool: z.string(),
  /** public keys in OpenSSH's format: whose may sign in as root */
  keys: z.array(z.string()),
  /** in the private network */
  privateAddress: z.string(),
  memoryMegabytes: z.number(),
})

export type DropletSettings = z.infer<typeof dropletSettings>
