// Pebble, Let's Encrypt's own small authority for tests (RFC 8555): it asks whoever wants a certificate for proof over HTTP,
// where the domain's name server says that the name is.
import { mkdir, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import { type Authority, issueCertificate } from './certificates.ts'
import { freePort } from './ports.ts'
import { startServer, waitUntil } from './processes.ts'

export type PebbleOptions = {
  directory: string
  binary: string
  /** of the certificate that it answers with */
  authority: Authority
  /** under which it is reached: 'acme.lunarfront.test' */
  host: string
  /** '127.0.0.1:5353' */
  nameServer: string
}

export type Pebble = {
  /** of 127.0.0.1 */
  port: number
  /** what all certificates are signed with, as PEM; made anew at each start */
  root: string
  close: () => Promise<void>
}

/** Starts it; resolves when it answers. */
export async function startPebble({ directory, binary, authority, host, nameServer }: PebbleOptions): Promise<Pebble> {
  const home = join(directory, 'pebble')
  await mkdir(home, { recursive: true, mode: 0o700 })
  const names = { file: 'pebble', names: ['localhost', host], addresses: ['127.0.0.1'] }
  const { certificate, key } = await issueCertificate(authority, home, names)
  const [port, management] = [await freePort(), await freePort()]
  const settings = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${management}`,
    certificate,
    privateKey: key,
    httpPort: 80,
    tlsPort: 443,
    ocspResponderURL: '',
    externalAccountBindingRequired: false,
  }
  const config = join(home, 'config.json')
  await writeFile(config, JSON.stringify({ pebble: settings }))
  const server = startServer({
    ...{ directory, name: 'pebble' },
    command: [binary, '-config', config, '-dnsserver', nameServer],
    // It would wait, and turn good requests away, as a test of clients.
    env: { PEBBLE_VA_NOSLEEP: '1', PEBBLE_WFE_NONCEREJECT: '0' },
  })
  let root: string | undefined
  await waitUntil(
    async () => {
      root = await get(management, '/roots/0', authority.pem)
      return root !== undefined
    },
    server,
    10_000,
  )
  return { port, root: root ?? '', close: server.stop }
}

const get = (port: number, path: string, ca: string) =>
  new Promise<string | undefined>((resolve) => {
    request({ host: '127.0.0.1', port, path, ca, servername: 'localhost' }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.once('end', () => resolve(response.statusCode === 200 ? text : undefined))
    })
      .once('error', () => resolve(undefined))
      .end()
  })
