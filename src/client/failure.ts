import { isDatabaseGone, sqlState } from '../store/index.ts'
import { type Failure, mayRetryLater, SynclineError } from '../sync/index.ts'
import { PeerError } from './peer-error.ts'

/** An error as the run machine and the log understand it. `unforeseen` hears of what no rule foresees. */
export function failureOf(error: unknown, unforeseen: (error: unknown) => void): Failure {
  if (error instanceof PeerError) return { code: error.code, retryable: error.retryable, detail: error.message }
  if (error instanceof SynclineError) {
    return { code: error.code, retryable: mayRetryLater(error.code), detail: error.message }
  }
  const detail = error instanceof Error ? error.message : String(error)
  if (isDatabaseGone(error)) return { code: 'SYNC_STORE_UNAVAILABLE', retryable: true, detail }
  if (sqlState(error) === '42501') return { code: 'SYNC_STORE_RIGHTS', retryable: false, detail }
  unforeseen(error)
  return { code: 'SYNC_INTERNAL', retryable: false, detail }
}
