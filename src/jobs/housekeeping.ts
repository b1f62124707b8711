import {
  type ExchangeLimits,
  markInterruptedRuns,
  pruneHistory,
  pruneLog,
  redrive,
  type Self,
  type Store,
  withLease,
} from '../store/index.ts'
import { isActive } from './runs.ts'

export type HousekeepingDeps = {
  readonly store: Store
  readonly self: () => Promise<Self>
  readonly limits: ExchangeLimits
  readonly logDays: number
  readonly historyDays: number
  readonly onError: (error: unknown) => void
}

/** How often records in quarantine are looked through whose time has come, with whichever peer they came from. */
const ROUND_MS = 60_000
const PRUNE_MS = 6 * 3_600_000
/** A run that says nothing for so long lost its process. */
const SILENT_SECONDS = 60

/** What has to be done from time to time, by one of the processes that share the database. Gives what ends it. */
export function startHousekeeping(deps: HousekeepingDeps): () => Promise<void> {
  const { store } = deps
  let pruneAt = Date.now() + ROUND_MS
  let underWay: Promise<void> = Promise.resolve()
  const round = () =>
    withLease(store, 'housekeeping', async () => {
      await markInterruptedRuns(store.db, { silentSeconds: SILENT_SECONDS })
      await redrive(store, await deps.self(), null, deps.limits)
      if (Date.now() < pruneAt) return
      pruneAt = Date.now() + PRUNE_MS
      await pruneLog(store.db, deps.logDays)
      await pruneHistory(store.db, deps.historyDays)
    }).catch((error: unknown) => {
      if (!isActive(error)) deps.onError(error)
    })
  let busy = false
  const timer = setInterval(() => {
    if (busy) return
    busy = true
    underWay = round().finally(() => {
      busy = false
    })
  }, ROUND_MS)
  return async () => {
    clearInterval(timer)
    await underWay
  }
}
