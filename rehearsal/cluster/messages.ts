// What the cluster's node is told, and the addresses inside of it.
import * as z from 'zod'
import { CLOUD_ADDRESS, machineSettings } from '../machine/messages.ts'

/** The node's own address: the API server and DNS; the cloud is found there as well. */
export const NODE_ADDRESS = CLOUD_ADDRESS
export const API_PORT = 6443
/** As DigitalOcean's clusters have them. */
export const POD_CIDR = '10.244.0.0/16'
export const SERVICE_CIDR = '10.245.0.0/16'
export const KUBERNETES_ADDRESS = '10.245.0.1'
export const NODE_NAME = 'workers-1'

/** What the node is told besides: an OCI archive is put among its images. */
export const imageMessage = z.strictObject({ image: z.string() })

export const nodeSettings = machineSettings.extend({
  /** folder of the programs that are built with Go */
  programs: z.string(),
  /** folder of the certificates */
  tls: z.string(),
  /** OCI archives of what runs from the start */
  images: z.array(z.string()),
  /** names that end so are answered by the cloud's name server, which is published to the node */
  domain: z.string(),
  nameServerPort: z.number(),
})

export type NodeSettings = z.infer<typeof nodeSettings>
