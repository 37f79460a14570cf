// A machine's first process, as it does what it is told on its standard input.
import { execFile } from 'node:child_process'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import type * as z from 'zod'
import { startForward } from '../servers/forward.ts'
import { CLOUD_ADDRESS, connection, type Message } from './messages.ts'

const run = promisify(execFile)

const tell = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)

/** Tells the cloud that all of the machine is up. */
export const tellReady = () => tell({ ready: true })

/**
 * Does what it is told until its standard input ends, since the cloud is gone then.
 *
 * @param options.address of the machine, whose ports are exposed
 * @param options.others what else it may be told, and what does it
 */
export function serve<Other extends Message>({
  address,
  others,
}: {
  address: string
  others: { schema: z.ZodType<Other>; perform: (message: Other) => Promise<void> }
}): void {
  createInterface({ input: process.stdin })
    .on('line', async (line) => {
      const told = JSON.parse(line)
      try {
        const known = connection.safeParse(told)
        if (!known.success) await others.perform(others.schema.parse(told))
        else if ('publish' in known.data) {
          const { publish: port, socket: path, address: host = CLOUD_ADDRESS } = known.data
          if (host !== CLOUD_ADDRESS) await run('ip', ['addr', 'replace', `${host}/32`, 'dev', 'lo'])
          await startForward({ listen: { host, port }, connect: { path } })
        } else
          await startForward({
            listen: { path: known.data.socket },
            connect: { host: address, port: known.data.expose },
          })
        tell({ done: told })
      } catch (error) {
        tell({ failed: told, reason: (error as Error).message })
      }
    })
    .once('close', () => process.exit(0))
}
