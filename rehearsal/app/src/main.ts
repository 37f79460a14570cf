// The commands of the binary.
import { migrateDatabase } from './database.ts'
import { Failure, reason } from './failure.ts'
import { log } from './log.ts'
import { startServer } from './server.ts'
import { readDatabaseSettings, readServerSettings } from './settings.ts'
import { version } from './version.ts'

/** Milliseconds; a migration of a big table may take long, and its Job waits for it. */
const MIGRATION_PATIENCE = 10 * 60_000

const commands: Record<string, () => Promise<void>> = {
  serve: async () => {
    const server = await startServer(readServerSettings(process.env))
    log({ message: 'listening', port: server.port, version })
    let stopping = false
    onStopSignal(async () => {
      if (stopping) return
      stopping = true
      await server.stop()
      process.exit(0)
    })
  },
  migrate: async () => {
    const settings = readDatabaseSettings(process.env)
    await migrateDatabase(settings, MIGRATION_PATIENCE)
    log({ message: 'migrated', database: settings.database, version })
    process.exit(0)
  },
}

/** A container's first process is not ended by a signal that it does not ask for. */
function onStopSignal(listener: () => void): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.removeAllListeners(signal).on(signal, listener)
}

/** @param args of the command line; `serve` unless told */
export async function main(args: string[]): Promise<void> {
  onStopSignal(() => process.exit(143))
  const [name = 'serve', ...rest] = args
  try {
    const command = Object.hasOwn(commands, name) && rest.length === 0 ? commands[name] : undefined
    if (!command) throw new Failure(`expected one of the commands ${Object.keys(commands).join(' and ')}`)
    await command()
  } catch (error) {
    // Of a defect only the stack: other fields of an error can hold anything.
    console.error(`app: ${error instanceof Error && !(error instanceof Failure) ? error.stack : reason(error)}`)
    process.exit(1)
  }
}
