// A question to the person at the terminal.
import { createInterface } from 'node:readline'

/** @returns the line that a person types; '' where they press Ctrl-D, or Ctrl-C, which `interrupted` is told */
export function answerTo(question: string, interrupted: () => void): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stdout })
  return new Promise((resolve) => {
    // The terminal hands Ctrl-C to whoever reads lines, and not to the process.
    lines.once('SIGINT', () => {
      process.stdout.write('\n')
      interrupted()
      lines.close()
    })
    lines.once('SIGCONT', () => lines.prompt(true)) // after Ctrl-Z and fg nobody would read otherwise
    lines.once('close', () => resolve(''))
    lines.once('line', (answer) => {
      resolve(answer)
      lines.close()
    })
    lines.setPrompt(question)
    lines.prompt()
  })
}
