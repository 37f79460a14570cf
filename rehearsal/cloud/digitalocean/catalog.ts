// What DigitalOcean sells, as far as a platform of this size meets it: regions, sizes, images, versions.
import { KUBERNETES_VERSION } from '../../cluster/programs.ts'

export const REGIONS = Object.entries({
  nyc1: 'New York 1',
  nyc2: 'New York 2',
  nyc3: 'New York 3',
  sfo2: 'San Francisco 2',
  sfo3: 'San Francisco 3',
  ams3: 'Amsterdam 3',
  sgp1: 'Singapore 1',
  lon1: 'London 1',
  fra1: 'Frankfurt 1',
  tor1: 'Toronto 1',
  blr1: 'Bangalore 1',
  syd1: 'Sydney 1',
  atl1: 'Atlanta 1',
}).map(([slug, name]) => ({ slug, name }))

export const isRegion = (slug: string) => REGIONS.some((region) => region.slug === slug)

/** Memory in MiB, disk in GiB, transfer in TiB, price in US dollars a month. */
export type Size = {
  slug: string
  memory: number
  vcpus: number
  disk: number
  transfer: number
  price_monthly: number
}

const size = (
  slug: string,
  memory: number,
  vcpus: number,
  disk: number,
  transfer: number,
  price_monthly: number,
): Size => ({ slug, memory, vcpus, disk, transfer, price_monthly })

export const SIZES: Size[] = [
  size('s-1vcpu-512mb-10gb', 512, 1, 10, 0.5, 4),
  size('s-1vcpu-1gb', 1024, 1, 25, 1, 6),
  size('s-1vcpu-2gb', 2048, 1, 50, 2, 12),
  size('s-2vcpu-2gb', 2048, 2, 60, 3, 18),
  size('s-2vcpu-4gb', 4096, 2, 80, 4, 24),
  size('s-4vcpu-8gb', 8192, 4, 160, 5, 48),
  size('s-8vcpu-16gb', 16384, 8, 320, 6, 96),
]

/** A size as the API tells it. */
export const sizeBody = (size: Size) => ({
  ...size,
  price_hourly: Number((size.price_monthly / 672).toFixed(5)),
  regions: REGIONS.map((region) => region.slug),
  available: true,
  description: 'Basic',
})

export const regionBody = ({ slug, name }: { slug: string; name: string }) => ({
  slug,
  name,
  available: true,
  features: ['backups', 'ipv6', 'metadata', 'install_agent', 'storage', 'image_transfer'],
  sizes: SIZES.map((size) => size.slug),
})

/** @returns the region as other objects carry it */
export const regionOf = (slug: string) =>
  regionBody(REGIONS.find((region) => region.slug === slug) ?? { slug, name: slug })

export const IMAGES = [
  { id: 195932981, slug: 'ubuntu-24-04-x64', name: '24.04 (LTS) x64', distribution: 'Ubuntu' },
  { id: 129211873, slug: 'ubuntu-22-04-x64', name: '22.04 (LTS) x64', distribution: 'Ubuntu' },
  { id: 200323100, slug: 'debian-13-x64', name: '13 x64', distribution: 'Debian' },
  { id: 173347580, slug: 'debian-12-x64', name: '12 x64', distribution: 'Debian' },
].map((image) => ({
  ...image,
  type: 'base',
  public: true,
  status: 'available',
  regions: REGIONS.map((region) => region.slug),
}))

/** The one that a real cluster has. */
export const REAL_KUBERNETES_VERSION = `${KUBERNETES_VERSION.slice(1)}-do.0`

/** Newest first, as the API lists them. */
export const KUBERNETES_VERSIONS = [REAL_KUBERNETES_VERSION, '1.35.3-do.0', '1.34.6-do.0', '1.33.10-do.0']

/** Memory and disk of a database node in GiB. */
export const DATABASE_SIZES: Record<string, { memory: number; disk: number }> = {
  'db-s-1vcpu-1gb': { memory: 1, disk: 10 },
  'db-s-1vcpu-2gb': { memory: 2, disk: 30 },
  'db-s-2vcpu-4gb': { memory: 4, disk: 60 },
  'db-s-4vcpu-8gb': { memory: 8, disk: 140 },
  'db-s-6vcpu-16gb': { memory: 16, disk: 290 },
  'db-s-8vcpu-32gb': { memory: 32, disk: 600 },
}

/** What the rehearsal has one server for says nothing about the difference between these. */
export const VALKEY_VERSIONS = ['8', '9']
