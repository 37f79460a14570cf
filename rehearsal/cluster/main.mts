// The first process of the cluster's node, and so of all its pods. Started by start.ts.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { serve, tellReady } from '../machine/serve.ts'
import { startControlPlane } from './control-plane.ts'
import { imageMessage, NODE_ADDRESS, nodeSettings } from './messages.ts'
import { importImage, makeNetwork, startContainerd, startNode } from './node.ts'

const settings = nodeSettings.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')))

// The machine's own containers, and their logs, are none of this node's business.
for (const folder of ['/run', '/var/log']) execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder])
mkdirSync('/run/netns')
mkdirSync(settings.directory, { recursive: true, mode: 0o700 })
await makeNetwork()
const perform = ({ image }: { image: string }) => importImage(settings, image)
serve({ address: NODE_ADDRESS, others: { schema: imageMessage, perform } })
await Promise.all([startControlPlane(settings), startContainerd(settings)])
await startNode(settings)
tellReady()
