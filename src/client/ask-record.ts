import { digestOfRecord, type Peer, type ResourceInfo, type Store } from '../store/index.ts'
import { isJsonObject, type PeerAnswer, SynclineError } from '../sync/index.ts'
import type { Connections } from './connections.ts'

/** How long a person who asks waits for a peer, in milliseconds. */
const ASK_MS = 10_000

/**
 * Asks a peer whether it holds a record in the version that is here: by the digest of that one record, which tells no values. A peer that cannot
 * be asked is an answer too.
 */
export async function askRecord(
  deps: { readonly store: Store; readonly connections: Connections },
  peer: Peer,
  resource: ResourceInfo,
  id: string,
  waitMs = ASK_MS,
): Promise<PeerAnswer> {
  const signal = AbortSignal.timeout(waitMs)
  try {
    if (peer.url === null)
      throw new SynclineError('SYNC_PEER_UNREACHABLE', `${peer.name} has no address here: it does the connecting`)
    const { client } = await deps.connections.of(peer)
    const { resources } = await client.greet(signal)
    const offered = resources.find(({ name }) => name === resource.name)
    const offers = offered === undefined ? null : { pull: offered.pull, push: offered.push }
    if (offers === null) return { answered: true, offers, holds: null }
    const here = await digestOfRecord(deps.store, resource, id)
    const query = { from: here.from ?? undefined, to: here.to, records: 'true' }
    const { records } = await client.digests(resource.name, query, signal)
    const found = Array.isArray(records)
      ? records.find((each: unknown) => isJsonObject(each) && each.id === here.to)
      : undefined
    const hash = isJsonObject(found) ? found.hash : null
    const holds = hash === null ? 'none' : hash === here.hash ? 'same' : 'other'
    return { answered: true, offers, holds }
  } catch (error) {
    if (signal.aborted)
      return {
        answered: false,
        code: 'SYNC_PEER_UNREACHABLE',
        detail: `${peer.name} did not answer within ${waitMs} ms`,
      }
    if (error instanceof SynclineError) return { answered: false, code: error.code, detail: error.message }
    throw error
  }
}
