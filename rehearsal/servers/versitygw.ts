// The S3 server behind Spaces: versitygw on a folder, reachable only through a socket.
import { mkdir, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { type Server, startServer, waitUntil } from './processes.ts'

export type VersitygwOptions = {
  directory: string
  /** A short folder: a socket's path has 107 bytes at most. */
  runtime: string
  binary: string
  accessKeyId: string
  secretAccessKey: string
  /** The domain under which a bucket is a host name, such as nyc3.spaces.test. */
  virtualDomain: string
}

export type Versitygw = { server: Server; socket: string; stop: () => Promise<void> }

/** The region that signatures name; Spaces wants this one too, wherever a bucket is. */
export const SIGNING_REGION = 'us-east-1'

/** Starts the server with no bucket; resolves when it answers. */
export async function startVersitygw(options: VersitygwOptions): Promise<Versitygw> {
  const { directory, runtime, binary, accessKeyId, secretAccessKey, virtualDomain } = options
  const home = join(directory, 'spaces')
  await rm(home, { recursive: true, force: true })
  const buckets = join(home, 'buckets')
  const versions = join(home, 'versions')
  for (const folder of [buckets, versions]) await mkdir(folder, { recursive: true, mode: 0o700 })
  const socket = join(runtime, 's3')
  const server = startServer({
    directory,
    name: 'versitygw',
    command: [
      ...[binary, '--port', socket, '--socket-perm', '0600', '--region', SIGNING_REGION, '--quiet', '--keep-alive'],
      ...['--virtual-domain', virtualDomain, '--health', '/healthz'],
      ...['posix', '--versioning-dir', versions, buckets],
    ],
    env: { ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
  })
  await waitUntil(() => answers(socket), server, 10_000)
  return { server, socket, stop: server.stop }
}

const answers = (socketPath: string): Promise<boolean> =>
  new Promise((resolve) => {
    request({ socketPath, path: '/healthz' }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
      .once('error', () => resolve(false))
      .end()
  })
