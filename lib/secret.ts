// Values that must never be seen: a Secret shows itself as [redacted] wherever it is printed, and redact() masks
// every secret that this process has met in any text on its way out.
import { inspect } from 'node:util'

const REDACTED = '[redacted]'
const masked = new Set<string>()

export class Secret {
  readonly #value: string

  /** @param value the secret text; from now on redact() masks it, also base64, URL and JSON encoded */
  constructor(value: string) {
    this.#value = value
    for (const form of [
      value,
      encodeURIComponent(value),
      JSON.stringify(value).slice(1, -1),
      Buffer.from(value).toString('base64'),
    ])
      if (form.length >= 4) masked.add(form)
  }

  /** The text itself: for a child's environment, a connection, a 0600 file; for nothing that is shown. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return REDACTED
  }

  toJSON(): string {
    return REDACTED
  }

  [inspect.custom](): string {
    return REDACTED
  }
}

/** @returns the text, which redact() masks from now on, whole and as it stands in a Secret */
export const confidential = (text: string): string => new Secret(text).reveal()

/** @returns the text with every known secret replaced by [redacted], the longest first so that none leaves a rest */
export function redact(text: string): string {
  let shown = text
  for (const value of [...masked].sort((a, b) => b.length - a.length)) shown = shown.replaceAll(value, REDACTED)
  return shown
}
