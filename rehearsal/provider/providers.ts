// Both providers, and what Terraform has to be told to use them.
import type { CloudAddresses } from '../cloud/cloud.ts'
import { cloudflareProvider } from './cloudflare/provider.ts'
import { digitalOceanProvider } from './digitalocean/provider.ts'
import { type ProviderServer, serveProvider } from './server.ts'

/** Terraform and OpenTofu each put their own registry before a provider's name. */
const REGISTRIES = ['registry.terraform.io', 'registry.opentofu.org']

const entries = (source: string, { address }: ProviderServer) =>
  REGISTRIES.map((registry) => [
    `${registry}/${source}`,
    {
      Protocol: 'grpc',
      ProtocolVersion: 6,
      Pid: process.pid,
      Test: true,
      Addr: { Network: 'tcp', String: address },
    },
  ])

/** Serves both until they are closed. */
export async function serveProviders(addresses: Pick<CloudAddresses, 'digitalocean' | 'cloudflare' | 'spaces'>) {
  const digitalocean = await serveProvider(digitalOceanProvider(addresses))
  const cloudflare = await serveProvider(cloudflareProvider(addresses))
  return {
    reattach: Object.fromEntries([
      ...entries('digitalocean/digitalocean', digitalocean),
      ...entries('cloudflare/cloudflare', cloudflare),
    ]) as Record<string, unknown>,
    close: async () => {
      await Promise.all([digitalocean.close(), cloudflare.close()])
    },
  }
}
