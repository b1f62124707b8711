import { sqlState } from '../store/index.ts'
import { type Failure, mayRetryLater, SynclineError } from '../sync/index.ts'
import { PeerError } from './peer-error.ts'

/** Classes of SQLSTATE that say that the database is not there: connection, shutdown, too many connections, out of resources. */
const DATABASE_GONE = /^(08|53|57P|58)/
const NETWORK = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EHOSTUNREACH'])

/** An error as the run machine and the log understand it. `unforeseen` hears of what no rule foresees. */
export function failureOf(error: unknown, unforeseen: (error: unknown) => void): Failure {
  if (error instanceof PeerError) return { code: error.code, retryable: error.retryable, detail: error.message }
  if (error instanceof SynclineError) {
    return { code: error.code, retryable: mayRetryLater(error.code), detail: error.message }
  }
  const words = error instanceof Error ? error.message : String(error)
  const state = sqlState(error)
  if (state === '42501') return { code: 'SYNC_STORE_RIGHTS', retryable: false, detail: words }
  const code = (error as NodeJS.ErrnoException | null)?.code ?? ''
  if (
    (state !== null && DATABASE_GONE.test(state)) ||
    NETWORK.has(code) ||
    /^(Connection terminated|timeout exceeded)/.test(words)
  ) {
    return { code: 'SYNC_STORE_UNAVAILABLE', retryable: true, detail: words }
  }
  unforeseen(error)
  return { code: 'SYNC_INTERNAL', retryable: false, detail: words }
}
