import { setTimeout as sleep } from 'node:timers/promises'
import { retryDelayMs, SynclineError } from '../sync/index.ts'
import { PeerError } from './peer-error.ts'
import type { RunSession } from './run-session.ts'

/** Tries of one request within a run. What lasts longer is for the next run. */
const TRIES = 3
const RETRY_BASE_MS = 250
const RETRY_MAX_MS = 3_000
/** A Retry-After beyond this ends the run instead of holding it. */
const RETRY_AFTER_WAIT_MS = 5_000

/** Repeats a request that may work the next time: all of them may be repeated (I2). */
export async function retrying<T>(run: RunSession, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const wait = signal.aborted ? null : pause(error, attempt, run.random())
      if (wait === null) throw error
      await sleep(wait, undefined, { signal })
    }
  }
}

function pause(error: unknown, attempt: number, random: number): number | null {
  const incomplete = error instanceof SynclineError && error.code === 'SYNC_BATCH_INCOMPLETE'
  const retryable = error instanceof PeerError ? error.retryable : incomplete
  if (!retryable || attempt >= TRIES) return null
  const retryAfterMs = error instanceof PeerError ? (error.retryAfterMs ?? 0) : 0
  if (retryAfterMs > RETRY_AFTER_WAIT_MS) return null
  return retryDelayMs({ attempt, random, baseMs: RETRY_BASE_MS, maxMs: RETRY_MAX_MS, retryAfterMs })
}

/** An answer larger than this site takes is asked for again with fewer records, down to one. */
export async function fewerRows<T>(
  run: RunSession,
  key: string,
  most: number,
  work: (limit: number) => Promise<T>,
): Promise<T> {
  for (;;) {
    const limit = run.rows.get(key) ?? most
    try {
      return await work(limit)
    } catch (error) {
      const tooLarge = error instanceof SynclineError && error.code === 'SYNC_REQUEST_TOO_LARGE'
      if (!tooLarge || limit === 1) throw error
      run.rows.set(key, Math.ceil(limit / 4))
    }
  }
}
