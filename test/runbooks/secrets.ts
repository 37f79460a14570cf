// What the searches for secrets share: every process's arguments, and that a text has none of the secrets in any form.
import { readdirSync, readFileSync } from 'node:fs'
import * as assert from 'uvu/assert'

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
