// How much of what could run side by side does: the steps of a run start together, and take turns here.

/** What a step says that it waits for until then. */
export const ITS_TURN = 'its turn'

/** @returns a function that does the work when one of so many places is free, first come, first served */
export function slots(places: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = []
  let free = places
  return async (work) => {
    if (free > 0) free--
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else free++
    }
  }
}
