// Runs an installer: nothing on its standard input, its output kept back unless it fails.
import { spawn } from 'node:child_process'
import { Failure } from '../../lib/failure.ts'

/**
 * @param environment given to the child as it is: package managers find their registries in it
 * @param onLine called with each line of either output as it comes
 * @param next one command that helps when this one fails
 * @returns standard output; throws a Failure with the last 20 lines of both when the command fails
 */
export function run(
  argv: string[],
  options: { environment: NodeJS.ProcessEnv; cwd?: string; onLine?: (line: string) => void; next?: string },
): Promise<string> {
  const [program = '', ...args] = argv
  const { environment, cwd, onLine, next } = options
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(cwd ? { cwd } : {}),
    })
    let stdout = ''
    let tail = ''
    let rest = ''
    const take = (chunk: string) => {
      tail = (tail + chunk).slice(-8000)
      const lines = (rest + chunk).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) onLine?.(line)
    }
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk
      take(chunk)
    })
    child.stderr.setEncoding('utf8').on('data', take)
    const fail = (reason: string) => {
      const lines = tail.trim().split('\n').slice(-20).join('\n')
      reject(
        new Failure({
          found: `\`${argv.join(' ')}\` ${reason}${lines ? `:\n${lines}` : ''}`,
          ...(next ? { next } : {}),
        }),
      )
    }
    child.once('error', ({ message }) => fail(`could not be started (${message})`))
    child.once('close', (code, signal) => (code === 0 ? resolve(stdout) : fail(`ended with ${code ?? signal}`)))
  })
}
