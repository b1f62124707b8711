import {
  brokenCaptures,
  type ExchangeLimits,
  foldDigests,
  horizon,
  markInterruptedRuns,
  pruneHistory,
  pruneLog,
  purgeTombstones,
  redrive,
  refreshAltered,
  retryAltered,
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
  readonly tombstoneDays: number
  readonly events: {
    readonly horizonOld: (event: { readonly ageMs: number; readonly holder?: string }) => void
    readonly captureBroken: (event: { readonly resource: string; readonly problem: string }) => void
    readonly tombstonesPurged: (event: { readonly resource: string; readonly count: number }) => void
  }
  readonly onError: (error: unknown) => void
}

/** How often records in quarantine are looked through whose time has come, with whichever peer they came from. */
const ROUND_MS = 60_000
const PRUNE_MS = 6 * 3_600_000
/** A run that says nothing for so long lost its process. */
const SILENT_SECONDS = 60
/** An open transaction of this age holds all changes back for so long that a person should look. */
const HORIZON_OLD_SECONDS = 300

/** What has to be done from time to time, by one of the processes that share the database. Gives what ends it. */
export function startHousekeeping(deps: HousekeepingDeps): () => Promise<void> {
  let pruneAt = Date.now() + ROUND_MS
  let underWay: Promise<void> | null = null
  const round = async () => {
    const prune = Date.now() >= pruneAt
    if (prune) pruneAt = Date.now() + PRUNE_MS
    try {
      await withLease(deps.store, 'housekeeping', () =>
        keepHouse(deps, { prune, horizonOldSeconds: HORIZON_OLD_SECONDS }),
      )
    } catch (error) {
      if (!isActive(error)) deps.onError(error)
    }
  }
  const timer = setInterval(() => {
    underWay ??= round().finally(() => {
      underWay = null
    })
  }, ROUND_MS)
  return async () => {
    clearInterval(timer)
    await underWay
  }
}

/** One round: closes runs that lost their process, tries quarantine again, looks for what a person should know, forgets what is old. */
export async function keepHouse(
  { store, self, limits, logDays, historyDays, tombstoneDays, events }: Omit<HousekeepingDeps, 'onError'>,
  { prune, horizonOldSeconds }: { readonly prune: boolean; readonly horizonOldSeconds: number },
): Promise<void> {
  await markInterruptedRuns(store.db, { silentSeconds: SILENT_SECONDS })
  await refreshAltered(store)
  await retryAltered(store.db)
  await redrive(store, await self(), null, limits)
  await foldDigests(store.db)
  const { ageSeconds, holder } = await horizon(store.db)
  if (ageSeconds > horizonOldSeconds) {
    events.horizonOld({ ageMs: Math.round(ageSeconds * 1000), ...(holder !== null && { holder }) })
  }
  // Runs look for themselves; a site that only serves has none.
  for (const { resource, mend } of await brokenCaptures(store.db)) {
    events.captureBroken({
      resource,
      problem: `its table lacks a working trigger; to mend: ${mend}`,
    })
  }
  if (!prune) return
  await pruneLog(store.db, logDays)
  await pruneHistory(store.db, historyDays)
  const { logId } = await self()
  for (const { resource, purged: count } of await purgeTombstones(store.db, { logId, days: tombstoneDays }))
    events.tombstonesPurged({ resource, count })
}
