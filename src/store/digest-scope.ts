import { SynclineError } from '../sync/index.ts'
import type { Store } from './database.ts'
import type { DigestScope } from './digests.ts'
import { findGrant, type Peer } from './registry/index.ts'
import { findResource } from './resources.ts'
import { checkDisclosure, compileFilter, joinFilters } from './scope.ts'

/**
 * What a peer may compare of a resource: what it may pull, or where it may only push, what it may push.
 * Errors: SYNC_AUTH_FORBIDDEN without a grant or for a filter on what it may not see, SYNC_FILTER_INVALID.
 */
export async function grantedDigestScope(
  store: Store,
  peer: Peer,
  request: { readonly resource: string; readonly filter?: string | undefined },
): Promise<DigestScope> {
  const grant =
    (await findGrant(store.db, peer.id, request.resource, 'pull')) ??
    (await findGrant(store.db, peer.id, request.resource, 'push'))
  if (grant === null) {
    throw new SynclineError(
      'SYNC_AUTH_FORBIDDEN',
      `peer "${peer.name}" may not compare "${request.resource}"; an administrator of this site can grant it`,
    )
  }
  const resource = await findResource(store.db, request.resource)
  if (request.filter !== undefined) await checkDisclosure(store, peer, resource, grant.columns, request.filter)
  const text = joinFilters([grant.filter, request.filter])
  return { resource, filter: text === null ? undefined : await compileFilter(store, resource, text) }
}
