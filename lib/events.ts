// What a run tells while it goes: the same events feed the terminal, the plain lines, --json and the journal.
import type { Told } from './failure.ts'

/** How a step came out. Under --plan: ok, change or unknown. */
export type Status = 'ok' | 'changed' | 'failed' | 'not run' | 'change' | 'unknown'

export type RunEvent =
  | { event: 'run started'; runbook: string; site: string; arguments: Record<string, string>; plan: boolean }
  | { event: 'preflight finished'; passed: string[]; failed: ({ title: string } & Told)[]; seconds: number }
  | { event: 'lock waiting'; holder: string }
  | { event: 'lock taken' }
  | { event: 'warning'; text: string }
  | { event: 'steps'; steps: string[] }
  | { event: 'step started'; step: string }
  | { event: 'step waiting'; step: string; for: string }
  | { event: 'step drifted'; step: string; drift: string[]; confirm?: string }
  | { event: 'step finished'; step: string; status: Status; seconds: number; drift?: string[]; failure?: Told }
  | { event: 'run failed'; failure: Told }
  | { event: 'run finished'; counts: Partial<Record<Status, number>>; exit: number; seconds: number; log?: string }

export type Emit = (event: RunEvent) => void
