// Which process asks a provider is told by both ends of its connection: the port of its own may be somebody else's too.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { environmentOf } from '../../rehearsal/provider/client-environment.ts'

const CLIENT = `
const { connect } = require('node:net')
const [port, localPort] = process.argv.slice(1).map(Number)
connect({ host: '127.0.0.1', port, localAddress: '127.0.0.1', localPort }).on('connect', () => console.log('connected'))
`

if (process.platform === 'linux')
  test('two clients on one port are told apart by what they are connected to', async () => {
    const servers = [createServer(), createServer()]
    for (const server of servers) await once(server.listen(0, '127.0.0.1'), 'listening')
    const [first = 0, second = 0] = servers.map((server) => (server.address() as AddressInfo).port)
    const ours = connect({ host: '127.0.0.1', port: first, localAddress: '127.0.0.1' })
    await once(ours, 'connect')
    const port = ours.localPort ?? 0
    const child = spawn(process.execPath, ['-e', CLIENT, String(second), String(port)], {
      env: { WHO: 'the other' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(child.stdout, 'data')
      assert.is((await environmentOf(`127.0.0.1:${port}`, second))?.WHO, 'the other')
      assert.is((await environmentOf(`127.0.0.1:${port}`, first))?.PATH, process.env.PATH)
    } finally {
      child.kill()
      ours.destroy()
      for (const server of servers) server.close()
    }
  })

test.run()
