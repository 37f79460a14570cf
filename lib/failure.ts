// What goes wrong, told so that a person can act on it: what was found, what was expected, one command to run next.

/** The exit codes of every runbook. */
export const EXIT = { converged: 0, failed: 1, changesPlanned: 2, usage: 64, locked: 75, interrupted: 130 } as const

export type Explanation = {
  /** what was found, as a sentence without its full stop: 'the database customer_acme is owned by doadmin' */
  found: string
  /** what was expected instead: 'owner customer_acme' */
  expected?: string
  /** one command, or one action, to take next */
  next?: string
  /** exit code of the run; 1 unless told */
  exit?: number
  /** that something is not there yet: under --plan, what rests on a step not applied may well fail so */
  notYet?: boolean
}

/** An error that is meant to be read: shown without a stack. Anything else that is thrown is a defect of ours. */
export class Failure extends Error {
  readonly expected: string | undefined
  readonly next: string | undefined
  readonly exit: number
  readonly notYet: boolean

  constructor({ found, expected, next, exit = EXIT.failed, notYet = false }: Explanation) {
    super(found)
    this.name = 'Failure'
    this.expected = expected
    this.next = next
    this.exit = exit
    this.notYet = notYet
  }
}

/** @returns a failure of wrong use (bad arguments, bad site file, bad environment): exit 64, nothing touched */
export const misuse = (explanation: Explanation) => new Failure({ ...explanation, exit: EXIT.usage })

/** The parts of any thrown thing, for people and for --json. */
export type Told = { found: string; expected?: string; next?: string; stack?: string }

/** What a disk may answer to whoever writes. */
const DISK: Record<string, string> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk’s quota is used up',
  EROFS: 'the file system is read-only',
}

/** @returns what was thrown, told in parts; `stack` always, to be shown only when asked for */
export function tell(error: unknown): Told {
  const told: Told = { found: error instanceof Error ? error.message : String(error) }
  const { code = '', path } = error instanceof Error ? (error as NodeJS.ErrnoException) : {}
  if (error instanceof Failure) {
    if (error.expected) told.expected = error.expected
    if (error.next) told.next = error.next
  } else if (error instanceof AggregateError && !error.message) {
    told.found = error.errors.map((one) => tell(one).found).join('; ')
  } else if (DISK[code]) {
    told.found = `${path ? `${path} cannot be written: ` : ''}${DISK[code]}`
    told.next = 'df -h, and make room'
  }
  if (error instanceof Error && error.stack) told.stack = error.stack
  return told
}

/** @returns the same on one line: '<found>; expected <expected>. Next: <next>' */
export const oneLine = ({ found, expected, next }: Told) =>
  `${found}${expected ? `; expected ${expected}` : ''}${next ? `. Next: ${next}` : ''}`
