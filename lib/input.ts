// Reading what people wrote: YAML and its schema, every problem told at once and by name.
import { parseDocument } from 'yaml'
import type * as z from 'zod'
import { misuse } from './failure.ts'

/**
 * @param text YAML
 * @param source where it is from, for the message
 * @returns the value; throws a misuse with line and column for bad YAML, a doubled key, an unknown tag or an alias bomb
 */
export function readYaml(text: string, source: string): unknown {
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: true })
  const problem = document.errors[0] ?? document.warnings[0]
  if (problem)
    throw misuse({
      found: `${source} is not valid YAML: ${problem.message.split('\n')[0]!.replace(/:$/, '')}`,
      next: `correct ${source}`,
    })
  try {
    return document.toJS({ maxAliasCount: 20 })
  } catch (error) {
    throw misuse({ found: `${source} is not valid YAML: ${(error as Error).message}`, next: `correct ${source}` })
  }
}

/** @returns the value as the schema has it; throws a misuse that names every wrong setting of the source */
export function validate<T>(schema: z.ZodType<T>, value: unknown, source: string): T {
  const result = schema.safeParse(value, { error: (issue) => (issue.input === undefined ? 'is missing' : undefined) })
  if (result.success) return result.data
  const problems = result.error.issues.map((issue) => {
    const path = issue.path.join('.')
    return path ? `${path} ${lowered(issue.message)}` : lowered(issue.message)
  })
  throw misuse({ found: `${source}: ${problems.join('; ')}`, next: `correct ${source}` })
}

/** zod's own messages are sentences of their own; after a setting's name they go on in lower case. */
const lowered = (message: string) =>
  message.replace(/^(Invalid|Unrecognized|Too) /, (word) => `: ${word.toLowerCase()}`)
