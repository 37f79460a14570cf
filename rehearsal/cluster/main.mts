// The first process of the cluster's node: in a network, a process tree and a file system view of its own, so that all
// of it, pods included, ends with this one. Started by start.ts; told what to do on its standard input (messages.ts).
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { startForward } from '../servers/forward.ts'
import { startControlPlane } from './control-plane.ts'
import { message, NODE_ADDRESS, nodeSettings } from './messages.ts'
import { importImage, makeNetwork, startContainerd, startNode } from './node.ts'

const settings = nodeSettings.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')))

// The machine's own containers, and their logs, are none of this node's business.
for (const folder of ['/run', '/var/log']) execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder])
mkdirSync('/run/netns')
mkdirSync(settings.directory, { recursive: true, mode: 0o700 })
await makeNetwork()

const tell = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)

createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const told = message.parse(JSON.parse(line))
    try {
      if ('image' in told) await importImage(settings, told.image)
      else if ('publish' in told)
        await startForward({ listen: { host: NODE_ADDRESS, port: told.publish }, connect: { path: told.socket } })
      else await startForward({ listen: { path: told.socket }, connect: { host: NODE_ADDRESS, port: told.expose } })
      tell({ done: told })
    } catch (error) {
      tell({ failed: told, reason: (error as Error).message })
    }
  })
  .once('close', () => process.exit(0)) // the cloud is gone

await Promise.all([startControlPlane(settings), startContainerd(settings)])
await startNode(settings)
tell({ ready: true })
