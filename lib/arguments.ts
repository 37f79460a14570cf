// The command line of a runbook: one declaration that parses it and writes its --help.
import { parseArgs } from 'node:util'
import { EXIT, misuse } from './failure.ts'

export type Option = {
  /** one line for --help */
  summary: string
  /** name of the option's value: 'FILE'; without it the option is a switch */
  value?: string
  /** throws a misuse when the value is none; returns it otherwise */
  parse?: (value: string) => string
}

export type Usage = {
  /** 'add-customer' */
  name: string
  /** what the runbook does, in a sentence */
  summary: string
  /** positional arguments, all required, by name */
  positionals?: Record<string, Option>
  options?: Record<string, Option>
}

/** Options of every runbook. */
export const COMMON: Record<string, Option> = {
  site: { summary: 'the site file; otherwise LUNARFRONT_SITE, else lunarfront.yaml', value: 'FILE' },
  json: { summary: 'one JSON line per event on standard output, for programs' },
  verbose: { summary: 'every command and its output; a stack trace where something failed' },
  help: { summary: 'this text' },
}

/** Options of every runbook that changes something. */
export const CHANGING: Record<string, Option> = {
  plan: { summary: 'show what would change and what it would cost; write nothing; exit 2 if something would' },
  yes: { summary: 'do not ask before the infrastructure is changed, data is replaced or a customer removed' },
  until: { summary: 'stop after this step: part of its title', value: 'STEP' },
  wait: { summary: 'seconds to wait for another run to end; 900 unless told', value: 'SECONDS', parse: seconds },
}

function seconds(text: string): string {
  if (!/^\d{1,6}$/.test(text))
    throw misuse({ found: `--wait ${JSON.stringify(text)}`, expected: 'a whole number of seconds' })
  return text
}

export type Arguments = Record<string, string | undefined>

/**
 * @param words the command line after the program's name
 * @returns positionals and options by name; a switch that is on is 'true'. Throws a misuse for what is unknown, missing,
 *   doubled, empty or too much
 */
export function parseArguments(usage: Usage, words: readonly string[]): Arguments {
  const options = usage.options ?? {}
  const positionals = Object.entries(usage.positionals ?? {})
  const next = `./runbooks/${usage.name}.mts --help`
  const wrong = (found: string) => misuse({ found: `${usage.name}: ${found}`, next })
  const { tokens } = parseArgs({
    args: [...words],
    options: Object.fromEntries(
      Object.entries(options).map(([name, { value }]) => [name, { type: value ? 'string' : 'boolean' }] as const),
    ),
    strict: false,
    tokens: true,
    allowPositionals: true,
  })
  const given: Arguments = {}
  let count = 0
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue
    if (token.kind === 'positional') {
      const [name, option] = positionals[count++] ?? []
      if (!name) throw wrong(`${JSON.stringify(token.value)} is one argument too many`)
      given[name] = option?.parse ? option.parse(token.value) : token.value
      continue
    }
    const option = Object.hasOwn(options, token.name) ? options[token.name] : undefined
    if (!option) throw wrong(`there is no option ${token.rawName}`)
    if (given[token.name] !== undefined) throw wrong(`--${token.name} is given twice`)
    if (!option.value && token.value !== undefined) throw wrong(`--${token.name} takes no value`)
    if (option.value && (!token.value || (!token.inlineValue && token.value.startsWith('--'))))
      throw wrong(`--${token.name} needs a value: --${token.name} ${option.value}`)
    const value = token.value ?? 'true'
    given[token.name] = option.parse ? option.parse(value) : value
  }
  const [missing] = positionals[count] ?? []
  if (missing && !given.help) throw wrong(`${missing.toUpperCase()} is missing`)
  return given
}

/** @returns the text of --help, written from the same declaration that parses */
export function helpText({ name, summary, positionals = {}, options = {} }: Usage): string {
  const rows: [string, string][] = [
    ...Object.entries(positionals).map(([word, { summary }]): [string, string] => [word.toUpperCase(), summary]),
    ...Object.entries(options).map(([word, { summary, value }]): [string, string] => [
      `--${word}${value ? ` ${value}` : ''}`,
      summary,
    ]),
  ]
  const width = Math.max(...rows.map(([left]) => left.length))
  const words = [`./runbooks/${name}.mts`, ...Object.keys(positionals).map((word) => word.toUpperCase()), '[OPTION…]']
  return [
    words.join(' '),
    summary,
    '',
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
    '',
    `Exit: ${EXIT.converged} done or nothing to do, ${EXIT.changesPlanned} --plan found changes, ${EXIT.failed} failed, ${EXIT.usage} wrong usage, ${EXIT.locked} locked by another run, ${EXIT.interrupted} interrupted.`,
    '',
  ].join('\n')
}
