import { compileFilter, joinFilters, type Peer, type ResourceInfo, type Store, totalOf } from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { askRanges } from './digest-client.ts'
import type { PeerClient } from './peer-client.ts'

/** Records that a task would no longer sync with another filter; null where the peer does not let this site count. */
export type Leaving = { readonly here: number; readonly there: number | null }

/** Counts on both sides what matches the filter of now, and not the one that is tried. Each side reads every record, for a bounded time. */
export async function countLeaving(
  side: {
    readonly store: Store
    readonly client: PeerClient
    readonly peer: Peer
    readonly resource: ResourceInfo
    readonly signal: AbortSignal
  },
  now: string | null,
  next: string,
): Promise<Leaving> {
  const { store, client, peer, resource, signal } = side
  const both = joinFilters([now, next])
  const here = async (text: string | null) => {
    const filter = text === null ? undefined : await compileFilter(store, resource, text)
    return (await totalOf(store, { resource, filter, keptFrom: peer.id })).records
  }
  const there = async (filter: string | null) => {
    const whole = { from: null, to: null }
    const { ranges } = await askRanges({ client, resource: resource.name, filter, signal }, whole, 1)
    return ranges.reduce((sum, { count }) => sum + count, 0)
  }
  const counted = Promise.all([there(now), there(both)]).then(
    ([before, after]) => before - after,
    (error: unknown) => {
      if (signal.aborted || !(error instanceof SynclineError)) throw error
      return null
    },
  )
  return { here: (await here(now)) - (await here(both)), there: await counted }
}
