// What the cluster's node is told through its standard input, and the addresses inside of it. Its network is its own, so
// they are the same in every rehearsal, and no address of the machine's network is among them.
import * as z from 'zod'

/** The node's own address: the API server, DNS, and what the cloud publishes to the pods. */
export const NODE_ADDRESS = '10.77.0.1'
export const API_PORT = 6443
/** As DigitalOcean's clusters have them. */
export const POD_CIDR = '10.244.0.0/16'
export const SERVICE_CIDR = '10.245.0.0/16'
export const KUBERNETES_ADDRESS = '10.245.0.1'
export const NODE_NAME = 'workers-1'

/** Connections between the machine's loopback and the node go through sockets in the file system. */
export const message = z.union([
  /** whoever connects to this port of the node reaches the socket, behind which is a server of the cloud */
  z.strictObject({ publish: z.number(), socket: z.string() }),
  /** whoever connects to the socket reaches this port of the node */
  z.strictObject({ expose: z.number(), socket: z.string() }),
  /** an OCI archive is put among the node's images */
  z.strictObject({ image: z.string() }),
])

export type Message = z.infer<typeof message>

export const nodeSettings = z.strictObject({
  /** of everything that the cluster keeps */
  directory: z.string(),
  /** a short path, for sockets */
  runtime: z.string(),
  /** folder of the programs that are built with Go */
  programs: z.string(),
  /** folder of the certificates */
  tls: z.string(),
  /** OCI archives of what runs from the start */
  images: z.array(z.string()),
  /** names that end so are answered by the cloud's name server, which is published to the node */
  domain: z.string(),
  nameServerPort: z.number(),
  /** the control group that all pods are under */
  cgroup: z.string(),
})

export type NodeSettings = z.infer<typeof nodeSettings>
