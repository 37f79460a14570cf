// A managed Valkey: a real server of its protocol with TLS only and a password.
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connect } from 'node:tls'
import type { Authority, Certificate } from './certificates.ts'
import { freePort } from './ports.ts'
import { type Server, startServer, waitUntil } from './processes.ts'

export type ValkeyOptions = {
  directory: string
  name: string
  /** Path of valkey-server or redis-server. */
  binary: string
  authority: Authority
  certificate: Certificate
  password: string
  /** Of the plan, in GiB. */
  memory: number
}

export type Valkey = {
  server: Server
  port: number
  setEvictionPolicy: (policy: string) => Promise<void>
  setPassword: (password: string) => Promise<void>
  stop: () => Promise<void>
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

/** The customer is the user default, who may not reconfigure the server; the cloud has a user of its own for that. */
const settings = (options: ValkeyOptions, home: string, port: number, ownPassword: string) => `
bind 127.0.0.1
port 0
tls-port ${port}
tls-cert-file ${options.certificate.certificate}
tls-key-file ${options.certificate.key}
tls-ca-cert-file ${options.authority.certificate}
tls-auth-clients no
protected-mode yes
dir ${home}
save ""
appendonly no
maxmemory ${Math.round(options.memory * 512)}mb
maxmemory-policy noeviction
user default on #${sha256(options.password)} ~* &* +@all -@admin
user cloud on #${sha256(ownPassword)} ~* &* +@all
`

/** Starts a server on a free port; resolves when it accepts connections. */
export async function startValkey(options: ValkeyOptions): Promise<Valkey> {
  const home = join(options.directory, 'servers', options.name)
  await mkdir(home, { recursive: true, mode: 0o700 })
  const file = join(home, 'valkey.conf')
  const ownPassword = randomBytes(24).toString('base64url')

  // The port can be taken between asking for it and listening on it.
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    await writeFile(file, settings(options, home, port, ownPassword), { mode: 0o600 })
    const server = startServer({ ...options, command: [options.binary, file] })
    const tell = (...command: string[]) =>
      converse(port, options.authority.pem, [['AUTH', 'cloud', ownPassword], command])
    try {
      await waitUntil(
        () =>
          tell('PING').then(
            () => true,
            () => false,
          ),
        server,
        20_000,
      )
      return {
        server,
        port,
        setEvictionPolicy: (policy) => tell('CONFIG', 'SET', 'maxmemory-policy', policy),
        setPassword: (password) => tell('ACL', 'SETUSER', 'default', 'resetpass', `#${sha256(password)}`),
        stop: async () => {
          await server.stop()
          await rm(home, { recursive: true, force: true })
        },
      }
    } catch (error) {
      await server.stop()
      if (attempt === 3) throw error
    }
  }
}

/** Sends commands whose answers are one line each; rejects with the first answer that is an error. */
function converse(port: number, ca: string, commands: string[][]): Promise<void> {
  const encode = (words: string[]) =>
    `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ca }, () => socket.write(commands.map(encode).join('')))
    let answer = ''
    socket.setEncoding('utf8').setTimeout(2_000, () => socket.destroy(new Error('no answer')))
    socket.on('data', (chunk: string) => {
      answer += chunk
      const lines = answer.split('\r\n').slice(0, -1)
      const refusal = lines.find((line) => line.startsWith('-'))
      if (refusal) socket.destroy(new Error(refusal.slice(1)))
      else if (lines.length >= commands.length) socket.end()
    })
    socket.once('error', reject)
    socket.once('close', () => resolve())
  })
}
