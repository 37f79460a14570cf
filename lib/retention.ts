// Which backups are kept: the newest of each of the last days, weeks and months, and never fewer than a minimum.

export type Retention = {
  /** the newest backup of each of so many days that have one; in UTC, as everything here */
  daily: number
  /** of so many ISO weeks, which begin on Monday */
  weekly: number
  monthly: number
  /** however old they are, so many of the newest stay */
  minimum: number
}

const DAY = 86_400_000

const day = (at: Date) => at.toISOString().slice(0, 10)
const month = (at: Date) => at.toISOString().slice(0, 7)
const week = (at: Date) => day(new Date(at.getTime() - ((at.getUTCDay() + 6) % 7) * DAY))

/**
 * @param taken times of one source's verified backups, in any order
 * @returns those that are not kept
 */
export function expired<T extends { at: Date }>(taken: readonly T[], retention: Retention): T[] {
  const newestFirst = [...taken].sort((a, b) => b.at.getTime() - a.at.getTime())
  const kept = new Set(newestFirst.slice(0, Math.max(1, retention.minimum)))
  const periods: [number, (at: Date) => string][] = [
    [retention.daily, day],
    [retention.weekly, week],
    [retention.monthly, month],
  ]
  for (const [count, periodOf] of periods) {
    const newest = new Map<string, T>()
    for (const one of newestFirst) if (!newest.has(periodOf(one.at))) newest.set(periodOf(one.at), one)
    for (const one of [...newest.values()].slice(0, count)) kept.add(one)
  }
  return newestFirst.filter((one) => !kept.has(one))
}
