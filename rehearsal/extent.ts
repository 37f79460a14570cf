// How far the runbooks go where there is no real cluster.

const LAST_STEPS: Record<string, string> = {
  bootstrap: 'has this checkout’s commits',
  'add-customer': 'is in DNS',
  'remove-customer': 'is not in the repository',
}

/** @returns the arguments that end a runbook with the last step that needs no cluster */
export const withoutCluster = (runbook: string): string[] => {
  const last = LAST_STEPS[runbook]
  return last ? ['--until', last] : []
}
