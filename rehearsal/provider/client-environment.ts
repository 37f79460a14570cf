// The environment of the Terraform at the other end of a connection. The real providers are its children and take
// their credentials from there; a provider that it reattaches to has to look, or it could not tell a Terraform
// with the right token from one with none. Linux only.
import { readdir, readFile, readlink } from 'node:fs/promises'
import type { Environment } from './resource.ts'

/**
 * @param peer 127.0.0.1:PORT
 * @param port what it is connected to; several processes may use one port of their own, each towards another
 * @returns undefined where it cannot be told: another system, or a process of somebody else's
 */
export async function environmentOf(peer: string, port: number): Promise<Environment | undefined> {
  if (process.platform !== 'linux') return undefined
  const inode = await socketInode(Number(peer.slice(peer.lastIndexOf(':') + 1)), port)
  const pid = inode && (await ownerOf(`socket:[${inode}]`))
  if (!pid) return undefined
  const pairs = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => undefined)
  return pairs === undefined
    ? undefined
    : Object.fromEntries(
        pairs.split('\0').map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
      )
}

/** @returns the inode of the connection between those ports of 127.0.0.1, at its first end */
async function socketInode(from: number, to: number): Promise<string | undefined> {
  const [local, remote] = [from, to].map((port) => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`)
  const ESTABLISHED = '01'
  for (const line of (await readFile('/proc/net/tcp', 'utf8').catch(() => '')).split('\n')) {
    const fields = line.trim().split(/\s+/)
    if (fields[1] === local && fields[2] === remote && fields[3] === ESTABLISHED) return fields[9]
  }
  return undefined
}

/** @returns the id of the process that has the file open; the youngest processes are asked first */
async function ownerOf(file: string): Promise<string | undefined> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).sort((a, b) => Number(b) - Number(a))
  for (const pid of pids) {
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => [])
    const files = await Promise.all(descriptors.map((number) => readlink(`/proc/${pid}/fd/${number}`).catch(() => '')))
    if (files.includes(file)) return pid
  }
  return undefined
}
