// A droplet's network: a public interface, to which the world leads, and a private one, through which it finds the cloud.
import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { promisify } from 'node:util'
import { CLOUD_ADDRESS } from '../machine/messages.ts'
import { type DropletSettings, NAMES_PORT, PUBLIC_ADDRESS, WORLD_ADDRESS } from './messages.ts'

const run = promisify(execFile)
const ip = (...args: string[]) => run('ip', args)

/** The droplet's own network namespace, seen from around it. */
export const NETWORK = 'droplet'
export const NETWORK_PATH = `/run/netns/${NETWORK}`

/** The private network's router: DigitalOcean keeps the first address of each for it. */
const routerOf = (address: string) => address.replace(/\d+$/, '1')

/** Around the droplet is the world: what is not here is unreachable at once, and not only after a time. */
export async function makeNetwork({ privateAddress }: Pick<DropletSettings, 'privateAddress'>): Promise<void> {
  const inside = (...args: string[]) => ip('-n', NETWORK, ...args)
  await ip('link', 'set', 'lo', 'up')
  await ip('addr', 'add', `${CLOUD_ADDRESS}/32`, 'dev', 'lo')
  await ip('netns', 'add', NETWORK)
  await inside('link', 'set', 'lo', 'up')
  for (const [outer, inner, theirs, own] of [
    ['world', 'eth0', `${WORLD_ADDRESS}/24`, `${PUBLIC_ADDRESS}/24`],
    ['private', 'eth1', `${routerOf(privateAddress)}/20`, `${privateAddress}/20`],
  ] as const) {
    await ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', inner, 'netns', NETWORK)
    await ip('addr', 'add', theirs, 'dev', outer)
    await ip('link', 'set', outer, 'up')
    await inside('addr', 'add', own, 'dev', inner)
    await inside('link', 'set', inner, 'up')
  }
  await inside('route', 'add', 'default', 'via', WORLD_ADDRESS)
  await inside('route', 'add', `${CLOUD_ADDRESS}/32`, 'via', routerOf(privateAddress))
  await ip('route', 'add', 'unreachable', 'default')
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1')
}

/** Milliseconds; whoever asked has asked again by then. */
const PATIENCE = 5_000

/** Names are asked for over UDP, and only TCP leads to the cloud: each question makes a connection. */
export function relayNames(): void {
  const server = createSocket('udp4')
  server.on('error', console.error)
  server.on('message', (question, { address, port }) => {
    const length = Buffer.alloc(2)
    length.writeUInt16BE(question.length)
    const upstream = createConnection({ host: CLOUD_ADDRESS, port: NAMES_PORT, timeout: PATIENCE })
    let answer = Buffer.alloc(0)
    upstream.on('data', (chunk) => {
      answer = Buffer.concat([answer, chunk])
      if (answer.length < 2 || answer.length < 2 + answer.readUInt16BE(0)) return
      server.send(answer.subarray(2), port, address)
      upstream.destroy()
    })
    upstream.on('error', () => upstream.destroy())
    upstream.on('timeout', () => upstream.destroy())
    upstream.end(Buffer.concat([length, question]))
  })
  server.bind(NAMES_PORT, CLOUD_ADDRESS)
}
