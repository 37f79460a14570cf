// Addresses of loopback that only one rehearsal of a machine has.
import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'

export type HeldAddress = { address: string; release: () => Promise<void> }

/** Whoever has this UDP port of an address has the address: two cannot, and the system frees it when its holder dies. */
const HOLDING_PORT = 20_443

const candidate = () => `127.${randomInt(64, 128)}.${randomInt(256)}.${randomInt(1, 255)}`

/**
 * Takes an address out of 127.64.0.0/10. Every TCP port of it is still free; it is held until it is released.
 * @returns it, and what gives it back
 * @throws where the system has no such addresses (macOS has 127.0.0.1 only), or something has that port of all of them
 */
export async function holdAddress(): Promise<HeldAddress> {
  for (let attempt = 1; ; attempt++) {
    const address = candidate()
    const socket = createSocket('udp4')
    try {
      socket.bind(HOLDING_PORT, address)
      await once(socket, 'listening')
      socket.on('error', console.error)
      const release = async () => {
        const closed = once(socket, 'close')
        socket.close()
        await closed
      }
      return { address, release }
    } catch (error) {
      socket.close()
      if (attempt < 10 && (error as NodeJS.ErrnoException).code === 'EADDRINUSE') continue
      throw new Error(
        `no address of loopback could be held: ${(error as Error).message}; expected Linux, and UDP port ${HOLDING_PORT} to be free. Next: ss -lunp 'sport = :${HOLDING_PORT}'`,
      )
    }
  }
}
