// What every machine is told: its settings in a file, and messages through its standard input.
import * as z from 'zod'

/**
 * The address at which each machine finds the cloud: managed databases, Spaces, the domain's name server. Machines'
 * networks are their own, so it is the same everywhere, and no address of the computer's network.
 */
export const CLOUD_ADDRESS = '10.77.0.1'

/** Connections between the computer's loopback and a machine go through sockets in the file system. */
export const connection = z.union([
  /** whoever connects to this port of the address, the cloud's unless told, reaches the socket, behind which is a server */
  z.strictObject({ publish: z.number(), socket: z.string(), address: z.ipv4().optional() }),
  /** whoever connects to the socket reaches this port of the machine */
  z.strictObject({ expose: z.number(), socket: z.string() }),
])

export type Message = Record<string, unknown>

export const machineSettings = z.object({
  /** of everything that it keeps */
  directory: z.string(),
  /** a short path, for sockets */
  runtime: z.string(),
  /** the control group that all it runs is under */
  cgroup: z.string(),
})

export type MachineSettings = z.infer<typeof machineSettings>
