// The first process around a droplet: the network that it is in, and the container of systemd-nspawn that it is. Started
// by start.ts.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { serve, tellReady } from '../machine/serve.ts'
import { dropletSettings, type Power, PUBLIC_ADDRESS, powerMessage } from './messages.ts'
import { makeNetwork, relayNames } from './network.ts'
import { openSystem } from './system.ts'

const settings = dropletSettings.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')))

// What the computer has there is none of this droplet's business.
execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', '/run'])
mkdirSync('/run/netns')
mkdirSync(settings.directory, { recursive: true, mode: 0o700 })
await makeNetwork(settings)
relayNames()
const system = await openSystem(settings)
const perform = ({ power }: { power: Power }) => system.power(power)
serve({ address: PUBLIC_ADDRESS, others: { schema: powerMessage, perform } })
await system.power('on')
tellReady()
