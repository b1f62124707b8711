import { SynclineError } from '../sync/index.ts'
import type { Store } from './database.ts'
import type { DigestScope } from './digests.ts'
import { findGrant, type Peer } from './registry/index.ts'
import { findResource, loadResources } from './resources.ts'
import { checkDisclosure, compileFilter, joinFilters } from './scope.ts'

export type GrantedScope = DigestScope & {
  /** Filter of the grant; null without one. */
  readonly granted: string | null
  /** Whether the peer may see that filter: it names only columns that the peer may see. */
  readonly shown: boolean
  /** Columns that the peer may see; null for all. */
  readonly columns: readonly string[] | null
  /** Whether the peer may pull the resource. */
  readonly pulls: boolean
}

/**
 * What a peer may compare of a resource: what it may pull, or where it may only push, what it may push.
 * Errors: SYNC_AUTH_FORBIDDEN without a grant or for a filter on what it may not see, SYNC_FILTER_INVALID.
 */
export async function grantedDigestScope(
  store: Store,
  peer: Peer,
  request: { readonly resource: string; readonly filter?: string | undefined },
): Promise<GrantedScope> {
  const [pull, push, resources] = await Promise.all([
    findGrant(store.db, peer.id, request.resource, 'pull'),
    findGrant(store.db, peer.id, request.resource, 'push'),
    loadResources(store.db),
  ])
  const grant = pull ?? push
  if (grant === null) {
    throw new SynclineError(
      'SYNC_AUTH_FORBIDDEN',
      `peer "${peer.name}" may not compare "${request.resource}"; an administrator of this site can grant it`,
    )
  }
  const resource =
    resources.find(({ name }) => name === request.resource) ?? (await findResource(store.db, request.resource))
  const disclosed = (text: string) => checkDisclosure(store, peer, resource, grant.columns, text)
  if (request.filter !== undefined) await disclosed(request.filter)
  const text = joinFilters([grant.filter, request.filter])
  const shown =
    grant.filter === null ||
    (await disclosed(grant.filter).then(
      () => true,
      () => false,
    ))
  return {
    ...{ resource, granted: grant.filter, shown, columns: grant.columns, pulls: pull !== null, keptFrom: peer.id },
    filter: text === null ? undefined : await compileFilter(store, resource, text),
  }
}
