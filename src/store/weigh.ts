import { type Kysely, sql, type Transaction } from 'kysely'
import type { BatchReport, CanaryState, LineBatch, Position } from '../sync/index.ts'
import type { Store } from './database.ts'
import { type Link, type PullRequest, readyResource } from './exchange.ts'
import { type Counted, livingCount, SAMPLES_MAX } from './guard.ts'
import { findGrant, findTaskFor, readSelf } from './registry/index.ts'
import { emptyReport } from './report.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import { rolledBack } from './rolled-back.ts'
import type { Database } from './schema.ts'
import { compileFilter, joinFilters, scopeMark, startOf } from './scope.ts'
import { prepareStage, stageLines } from './stage.ts'

/** What is due after a place in the change order: changes that would travel at most, whatever the filter leaves out. */
export type Due = { readonly puts: number; readonly deletes: number }

/** What changes would do to records that live here, with the ids of some. */
export type Classified = Counted & { readonly inserts: number; readonly samples: readonly string[] }

/** What a peer is told with the first batch of a run about all that follows: how much is due, whether anything is left, and its canary. */
export type ServedWeight = { readonly due: Due | null; readonly empty: boolean; readonly canary: CanaryState | null }

/** Counts for a peer that pulls, within its grant. `due` only where more follows than the batch that it comes with. */
export async function weighServed(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  request: PullRequest & { readonly canary?: string | undefined; readonly more: boolean | Promise<boolean> },
): Promise<ServedWeight> {
  const { db } = store
  const [grant, empty] = await Promise.all([findGrant(db, link.peer.id, resource.name, 'pull'), isEmpty(db, resource)])
  const text = joinFilters([grant?.filter, request.filter])
  return {
    due: (await request.more) ? await dueAfter(db, resource, link, await placeOf(store, request, text)) : null,
    empty,
    canary: request.canary === undefined ? null : await canaryState(store, link, resource, request.canary, text),
  }
}

/** What this site has not yet offered to a peer that it pushes to. */
export async function weighPush(
  store: Store,
  link: Link,
  resource: ResourceInfo,
  request: PullRequest,
): Promise<Due & { readonly empty: boolean }> {
  const [empty, after] = await Promise.all([
    isEmpty(store.db, resource),
    placeOf(store, request, joinFilters([request.filter])),
  ])
  return { ...(await dueAfter(store.db, resource, link, after)), empty }
}

async function isEmpty(db: Kysely<Database>, resource: ResourceInfo): Promise<boolean> {
  const { rows } = await sql<{ empty: boolean }>`
    select not exists (select from ${sql.raw(liveTable(resource))}) as empty`.execute(db)
  return rows[0]?.empty ?? false
}

/** Where the answer to a request begins; null from the beginning. */
async function placeOf(store: Store, request: PullRequest, text: string | null): Promise<Position | null> {
  const { logId } = await readSelf(store.db)
  return startOf(store, request.after, logId, scopeMark(text, request.columns))
}

async function dueAfter(
  db: Kysely<Database>,
  resource: ResourceInfo,
  { peer }: Link,
  after: Position | null,
): Promise<Due> {
  const { rows } = await sql<Due>`
    select count(*) filter (where not r.deleted)::int as puts, count(*) filter (where r.deleted)::int as deletes
      from syncline.record r
     where r.resource_id = ${resource.id} and (r.xact, r.record_id) > (${after?.xact ?? '0'}::xid8, ${after?.recordId ?? ''} collate "C")
       and r.xact < pg_snapshot_xmin(pg_current_snapshot()) and r.source is distinct from ${peer.siteId}`.execute(db)
  return rows[0] ?? { puts: 0, deletes: 0 }
}

/** A canary outside of what the peer may see is simply not there: asking must not tell of other records. */
async function canaryState(
  store: Store,
  { peer }: Link,
  resource: ResourceInfo,
  id: string,
  text: string | null,
): Promise<CanaryState> {
  const filter = text === null ? sql`true` : sql`coalesce(${await compileFilter(store, resource, text)}, false)`
  const shared =
    text === null
      ? sql`true`
      : sql`exists (select from syncline.shared h where h.peer_id = ${peer.id} and h.resource_id = ${resource.id} and h.record_id = r.record_id)`
  const { rows } = await sql<{ deleted: boolean; seen: boolean; living: boolean }>`
    select r.deleted, ${shared} as seen, exists (
             select from ${sql.raw(liveTable(resource))} t
              where t.${sql.id(resource.keyColumn)}::text = r.record_id and not r.deleted and ${filter}) as living
      from syncline.record r where r.resource_id = ${resource.id} and r.record_id = ${id}`.execute(store.db)
  const [row] = rows
  if (row === undefined) return 'missing'
  if (row.deleted) return row.seen ? 'deleted' : 'missing'
  return row.living ? 'living' : 'missing'
}

/** Of these, those that came from a site as they are now. */
export async function heldFrom(db: Kysely<Database>, resource: ResourceInfo, siteId: number): Promise<number> {
  const { rows } = await sql<{ held: number }>`
    select count(*)::int as held from syncline.record where resource_id = ${resource.id} and source = ${siteId} and not deleted`.execute(
    db,
  )
  return rows[0]?.held ?? 0
}

/**
 * What a batch would do here, by versions alone: it needs no values, so `heads` of changes will do. Concurrent changes count as if they won.
 * Writes nothing that stays: the caller rolls back.
 */
export async function classifyLines(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  peerSiteId: number,
  batch: LineBatch,
  onLeft: 'keep' | 'remove',
): Promise<Classified> {
  if (batch.count === 0) return NOTHING
  await prepareStage(trx)
  await stageLines(trx, resource, batch, await knownSites(trx, batch.origins), peerSiteId)
  const gone = sql`not l_deleted and (kind = 'd' and class in ('f', 'c', 'u')${onLeft === 'remove' ? sql` or class = 'l' and l_origin is not null` : sql``})`
  const changed = sql`not l_deleted and kind = 'p' and class in ('f', 'c', 'u')`
  const fresh = sql`kind = 'p' and (class = 'n' or l_deleted and class in ('f', 'c', 'u'))`
  const { rows } = await sql<Counted & { inserts: number; gone: string[] | null; changed: string[] | null }>`
    select count(*) filter (where ${gone})::int as deletes, count(*) filter (where ${changed})::int as changes,
           count(*) filter (where ${fresh})::int as inserts,
           (select array_agg(id) from (select id from pg_temp.syncline_stage where ${gone} order by n limit ${SAMPLES_MAX}) s) as gone,
           (select array_agg(id) from (select id from pg_temp.syncline_stage where ${changed} order by n limit ${SAMPLES_MAX}) s) as changed
      from pg_temp.syncline_stage`.execute(trx)
  const { deletes = 0, changes = 0, inserts = 0, gone: lost = null, changed: other = null } = rows[0] ?? {}
  return { deletes, changes, inserts, samples: [...(lost ?? []), ...(other ?? [])].slice(0, SAMPLES_MAX) }
}

/** What a peer's push would do here, by versions alone; it may leave values out. Within its grant. Nothing stays. */
export async function weighReceived(
  store: Store,
  link: Link,
  push: { readonly resource: string; readonly batches: readonly LineBatch[] },
): Promise<Classified & { readonly living: number; readonly report: BatchReport }> {
  const resource = await readyResource(store, push.resource)
  const task = await findTaskFor(store.db, link.peer.id, resource.name)
  const found = await rolledBack(store, async (trx) => {
    const parts: Classified[] = []
    for (const batch of push.batches)
      parts.push(await classifyLines(trx, resource, link.peer.siteId, batch, task?.onLeft ?? 'keep'))
    return { total: parts.reduce(addClassified, NOTHING), living: await livingCount(trx, resource) }
  })
  return { ...found.total, living: found.living, report: emptyReport() }
}

export const NOTHING: Classified = { deletes: 0, changes: 0, inserts: 0, samples: [] }

export function addClassified(a: Classified, b: Classified): Classified {
  return {
    deletes: a.deletes + b.deletes,
    changes: a.changes + b.changes,
    inserts: a.inserts + b.inserts,
    samples: [...a.samples, ...b.samples].slice(0, SAMPLES_MAX),
  }
}

/** Numbers of origins without making any: one that nobody here has heard of gets a number that no record has. */
async function knownSites(trx: Transaction<Database>, origins: readonly string[]): Promise<readonly number[]> {
  const { rows } = await sql<{ id: number; origin: string }>`
    select id, origin from syncline.site where origin = any(${[...origins]}::text[])`.execute(trx)
  const known = new Map(rows.map(({ id, origin }) => [origin, id]))
  return origins.map((origin, at) => known.get(origin) ?? -1 - at)
}
