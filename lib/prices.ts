// What DigitalOcean's API does not price, in US dollars a month. Droplets and nodes are priced by GET /v2/sizes.
// Taken from the price pages of managed databases, Kubernetes and Spaces; look again when the date is old.

export const PRICES_AS_OF = '2026-11-24'

/** One node of a managed database, by size slug; standby nodes cost as much again. */
export const DATABASE_NODE: Record<string, number> = {
  'db-s-1vcpu-1gb': 15,
  'db-s-1vcpu-2gb': 30,
  'db-s-2vcpu-4gb': 60,
  'db-s-4vcpu-8gb': 120,
  'db-s-6vcpu-16gb': 240,
  'db-s-8vcpu-32gb': 480,
}

/** A plain control plane is free; a highly available one is not, and stays. */
export const HA_CONTROL_PLANE = 40

/** The load balancer that the cluster's ingress makes: not in Terraform's plan, but on the bill. */
export const LOAD_BALANCER = 12

/** All buckets of an account together: 250 GiB kept, 1 TiB sent. */
export const SPACES = 5
