import { setTimeout as sleep } from 'node:timers/promises'
import { isDatabaseGone } from '../store/index.ts'

/** Shorter than a process may be silent before another one goes on with its runs. */
const PATIENCE_MS = 10_000
const PAUSE_MS = 250

/** Writes down what has been done, also when the database is away for a moment: work that was done must not be done again for that. */
export async function persist<T>(write: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + PATIENCE_MS; ; ) {
    try {
      return await write()
    } catch (error) {
      if (!isDatabaseGone(error) || performance.now() > until) throw error
      await sleep(PAUSE_MS)
    }
  }
}
