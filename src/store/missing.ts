import { type Kysely, sql } from 'kysely'
import { type LineBatch, SynclineError } from '../sync/index.ts'
import type { Store } from './database.ts'
import { type ExchangeLimits, type Link, readyResource } from './exchange.ts'
import { explain } from './explain.ts'
import { readChosen } from './records.ts'
import { findGrant } from './registry/index.ts'
import type { Database } from './schema.ts'
import { checkDisclosure, compileFilter, joinFilters, narrow } from './scope.ts'

/** Records that others wait for, of one resource. */
export type Missing = { readonly resource: string; readonly ids: readonly string[] }

/** Records asked for in one request, and in one run. */
export const ASKED_MAX = 100
const ASKED_IN_RUN_MAX = 1_000
/** A record that the peer did not have a moment ago is not asked for in every run. */
const ASK_AGAIN_MINUTES = 10

/**
 * What records of a peer wait for and nobody here has: to be asked of that peer by id. Notes that it was asked, so that a run asks once. What waits
 * in quarantine itself, was given up by a person, or waits for the decision of one, is not missing.
 */
export async function takeMissing(
  db: Kysely<Database>,
  peerId: number,
  resources: readonly string[],
): Promise<readonly Missing[]> {
  const { rows } = await sql<{ resource: string; id: string }>`
    with wanted as materialized (
      select q.id as entry, w.name as resource, q.waits_record_id as id from syncline.quarantine q join syncline.resource w on w.id = q.waits_resource_id
       where q.peer_id = ${peerId} and q.code = 'SYNC_RECORD_PARENT_MISSING' and q.waits_record_id is not null and w.name = any(${[...resources]}::text[])
         and (q.asked_at is null or q.asked_at < now() - make_interval(mins => ${ASK_AGAIN_MINUTES}))
         and not exists (select from syncline.quarantine p where p.resource_id = q.waits_resource_id and p.record_id = q.waits_record_id)
         and not exists (select from syncline.discard d where d.resource_id = q.waits_resource_id and d.record_id = q.waits_record_id)
         and not exists (select from syncline.conflict c where c.resource_id = q.waits_resource_id and c.record_id = q.waits_record_id and c.resolved_at is null)
       order by q.id limit ${ASKED_IN_RUN_MAX}
    ), noted as (
      update syncline.quarantine q set asked_at = now() from wanted where q.id = wanted.entry
    )
    select distinct resource, id from wanted order by resource, id`.execute(db)
  return [...Map.groupBy(rows, (row) => row.resource)].map(([resource, some]) => ({
    resource,
    ids: some.map(({ id }) => id),
  }))
}

/**
 * Living records by id for a peer that misses them, within what it was granted and its own filter. What does not match, or is not here, is left out.
 * Errors: SYNC_AUTH_FORBIDDEN without a grant, SYNC_REQUEST_TOO_LARGE for too many ids, SYNC_FILTER_INVALID.
 */
export async function serveChosen(
  store: Store,
  link: Link,
  request: {
    readonly resource: string
    readonly ids: readonly string[]
    readonly filter?: string | undefined
    readonly columns?: readonly string[] | undefined
    /** Also deletions, for a peer that repairs a difference. */
    readonly deleted?: boolean | undefined
  },
  limits: ExchangeLimits,
): Promise<LineBatch> {
  const { peer } = link
  const { ids } = request
  const resource = await readyResource(store, request.resource)
  const grant = await findGrant(store.db, peer.id, resource.name, 'pull')
  if (grant === null) {
    const detail = `peer "${peer.name}" may not pull "${resource.name}"; an administrator of this site can grant it`
    throw new SynclineError('SYNC_AUTH_FORBIDDEN', detail)
  }
  if (ids.length > ASKED_MAX)
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `${ids.length} ids were asked for; at most ${ASKED_MAX} at once`)
  const columns = narrow(grant.columns, request.columns, `pull of "${resource.name}" by "${peer.name}"`)
  if (request.filter !== undefined && request.filter.trim() !== '')
    await checkDisclosure(store, peer, resource, grant.columns, request.filter)
  const text = joinFilters([grant.filter, request.filter])
  const filter = text === null ? undefined : await compileFilter(store, resource, text)
  const bytesMax = limits.batchBytesMax
  const deleted = request.deleted === true && filter === undefined
  const batch = await readChosen(store.db, { resource, columns, filter, ids, bytesMax, deleted }).catch(
    (error: unknown) => {
      throw explain(error)
    },
  )
  // The peer hears when one of these leaves its filter.
  if (filter !== undefined && batch.count > 0) await noteShared(store.db, peer.id, resource.id, batch)
  return batch
}

async function noteShared(db: Kysely<Database>, peerId: number, resourceId: number, batch: LineBatch): Promise<void> {
  const ids = batch.text.split('\n').map((line) => JSON.parse(line.slice(0, line.indexOf('\t'))) as string)
  await sql`
    insert into syncline.shared (peer_id, resource_id, record_id) select ${peerId}, ${resourceId}, id from unnest(${ids}::text[]) id
    on conflict (peer_id, resource_id, record_id) do update set gone = false where syncline.shared.gone`.execute(db)
}
