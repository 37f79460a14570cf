// Runs a cloud until it is told to stop:
//   tsx rehearsal/cloud/main.mts --directory DIR --domain lunarfront.test --tools '{"postgres": …}'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { startCloud } from './cloud.ts'

const tools = z.strictObject({
  postgres: z.string(),
  valkey: z.string(),
  versitygw: z.string(),
  openssl: z.string().default('openssl'),
  cluster: z.strictObject({ programs: z.string(), images: z.array(z.string()) }).optional(),
  droplet: z
    .strictObject({
      root: z.string(),
      pool: z.string(),
      programs: z.string(),
      images: z.strictObject({
        folder: z.string(),
        variables: z.strictObject({
          gitea_image: z.string(),
          gitea_runner_image: z.string(),
          gitea_proxy_image: z.string(),
          gitea_backup_image: z.string(),
        }),
      }),
    })
    .optional(),
})

const hosts = z.record(z.string(), z.array(z.string())).transform((given) => new Map(Object.entries(given)))

const USAGE = `usage: tsx rehearsal/cloud/main.mts --directory DIR --domain NAME --tools JSON [--region nyc3] [--ready-after MS]
                                        [--hosts JSON]
  --directory    where everything is kept; cloud.json there says how to reach the cloud
  --domain       name of the DNS zone, such as lunarfront.test
  --tools        {"postgres": folder of initdb, "valkey": path, "versitygw": path, "openssl": path},
                 and for real clusters "cluster": {"programs": folder, "images": [OCI archive]}
                 and for real droplets "droplet": {"root": folder, "pool": folder of packages, "programs": folder,
                 "images": {"folder": of blobs, "variables": {variable of the role: image}}}
  --region       the region that all buckets are in
  --ready-after  milliseconds from a request to the readiness of what it creates
  --hosts        {"name in the zone": ["address", …]}, answered whatever Cloudflare's records say`

const { values } = parseArgs({
  options: {
    directory: { type: 'string' },
    domain: { type: 'string' },
    tools: { type: 'string' },
    region: { type: 'string' },
    'ready-after': { type: 'string' },
    hosts: { type: 'string' },
  },
})
if (!values.directory || !values.domain || !values.tools) {
  console.error(USAGE)
  process.exit(64)
}

// Asked for before anything has started, so that a signal during the start is not lost.
const told = new Promise<void>((resolve) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve())
})

try {
  const { stop, ...addresses } = await startCloud({
    directory: values.directory,
    domain: values.domain,
    tools: tools.parse(JSON.parse(values.tools)),
    region: values.region,
    readyAfter: values['ready-after'] === undefined ? undefined : Number(values['ready-after']),
    hosts: values.hosts === undefined ? undefined : hosts.parse(JSON.parse(values.hosts)),
  })
  process.stdout.write(`${JSON.stringify(addresses)}\n`)
  await told
  await stop()
  process.exit(0)
} catch (error) {
  console.error(
    error instanceof z.ZodError ? `--tools or --hosts: ${z.prettifyError(error)}` : (error as Error).message,
  )
  process.exit(1)
}
