// A free port on loopback for a server that has to be told its port.
import { createServer } from 'node:net'

/** @returns a port of 127.0.0.1 that nobody listened on a moment ago */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0))
    })
  })
