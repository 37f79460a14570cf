// What the searches for secrets share: every process's arguments, and that a text has none of the secrets in any form.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import * as assert from 'uvu/assert'
import { writeWhole } from '../../lib/files.ts'
import type { Operator } from './operator.ts'

/**
 * Puts before the programs others of their names, which write down what they are given and then are the real ones: a
 * process may end before anybody has looked at it.
 *
 * @returns the operator who uses them, and what they were given by now, a program with its arguments each
 */
export function recordArguments(
  operator: Operator,
  programs: readonly string[],
): { operator: Operator; recorded: () => string[] } {
  const folder = join(operator.directory, 'recorded')
  const file = join(folder, 'arguments')
  for (const program of programs) {
    const real = execFileSync('sh', ['-c', 'command -v "$0"', program], { env: operator.env, encoding: 'utf8' }).trim()
    const text = `#!/bin/sh\nprintf '%s\\0' "${program} $*" >>'${file}'\nexec '${real}' "$@"\n`
    writeWhole(join(folder, program), text, 0o700)
  }
  return {
    operator: { ...operator, env: { ...operator.env, PATH: `${folder}${delimiter}${operator.env.PATH}` } },
    recorded: () => (existsSync(file) ? readFileSync(file, 'utf8').split('\0').filter(Boolean) : []),
  }
}

/** Reads the arguments of every process, over and over, until it is stopped. */
export function watchArguments(): { seen: Set<string>; stop: () => void } {
  const seen = new Set<string>()
  const look = () => {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
      try {
        seen.add(readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '))
      } catch {} // it has ended
  }
  // No command of interest ends within that; a look costs as much as there are processes.
  const timer = setInterval(look, 30).unref()
  return { seen, stop: () => clearInterval(timer) }
}

/** Throws where any of the secrets, by what they are, is in the text: as it is, or as it stands in an address or in base64. */
export function assertNowhere(secrets: Record<string, string>, text: string, where: string): void {
  for (const [what, secret] of Object.entries(secrets))
    for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64')])
      assert.not.ok(text.includes(form), `the ${what} is in ${where}`)
}
