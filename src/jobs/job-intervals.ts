import type { JobEntry } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import type { Engine } from './engine.ts'

/** So many of its next due times are looked at: from Friday to Monday nothing is late. */
const LOOKED_AT = 8
const KNOWN_MAX = 10_000

/** The longest pause between two of the next due times of a job, worked out once for each of its definitions. */
export function jobIntervals({ understand, nextDueOf }: Pick<Engine, 'understand' | 'nextDueOf'>) {
  const known = new Map<string, number | null>()
  const find = (entry: JobEntry): number | null => {
    const gaps: number[] = []
    try {
      const job = understand(entry)
      let last = nextDueOf(job, Date.now())
      for (let n = 0; n < LOOKED_AT && last !== null; n++) {
        const next = nextDueOf(job, last)
        if (next !== null) gaps.push(next - last)
        last = next
      }
    } catch (error) {
      // It is not understood any more: its history says so.
      if (!(error instanceof SynclineError)) throw error
    }
    return gaps.length === 0 ? null : Math.max(...gaps)
  }
  return (entry: JobEntry): number | null => {
    const key = `${entry.id} ${entry.revision}`
    const before = known.get(key)
    if (before !== undefined) return before
    if (known.size > KNOWN_MAX) known.clear()
    const found = find(entry)
    known.set(key, found)
    return found
  }
}
