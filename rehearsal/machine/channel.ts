// What a machine is asked to do, and its answers: a line each, over the standard input and output of its first process.
import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Message } from './messages.ts'

export type Channel = {
  /** settles when the machine has done it; rejects with its reason where it could not, or when it ends */
  ask: (message: Message) => Promise<void>
  /** resolves when all of the machine is up */
  ready: Promise<void>
}

/**
 * @param what the machine, in words
 * @param ended resolves when it has ended, with why
 */
export function openChannel({ stdin, stdout }: ChildProcess, what: string, ended: Promise<Error>): Channel {
  if (!stdin || !stdout) throw new Error(`${what} has no standard input and output`)
  stdin.on('error', () => {}) // it is gone, which is told by its end
  const waiting = new Map<string, { resolve: () => void; reject: (error: Error) => void }>()
  let tellReady = () => {}
  const ready = new Promise<void>((resolve) => {
    tellReady = resolve
  })
  createInterface({ input: stdout }).on('line', (line) => {
    const told = JSON.parse(line)
    if (told.ready) return tellReady()
    const key = JSON.stringify(told.done ?? told.failed)
    if (told.failed) waiting.get(key)?.reject(new Error(`${what}: ${told.reason}`))
    else waiting.get(key)?.resolve()
    waiting.delete(key)
  })
  const ask = (message: Message) =>
    new Promise<void>((resolve, reject) => {
      waiting.set(JSON.stringify(message), { resolve, reject })
      stdin.write(`${JSON.stringify(message)}\n`)
      void ended.then(reject)
    })
  return { ask, ready }
}
