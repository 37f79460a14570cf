// The log: one line of JSON on standard output for each thing that happened.

/** @param entry what happened; nothing secret */
export const log = (entry: Record<string, string | number>): void =>
  console.log(JSON.stringify({ time: new Date().toISOString(), ...entry }))
