import { type Kysely, sql, type Transaction } from 'kysely'
import { comparePositions, formatCheckpoint, type LineBatch, type Position, parseCheckpoint } from '../sync/index.ts'
import { originNames } from './collect.ts'
import type { Store } from './database.ts'
import { originsSql } from './lines-sql.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { startOf } from './scope.ts'
import { CLASSIFY } from './stage.ts'

/** Purged deletions in one batch: each takes about sixty bytes of it. */
const PAGE = 20_000

/**
 * Staged records that look new but were deleted here and purged: their tombstones are put back, and they are classified against those as if
 * nothing had been purged. What is older dies again, and the tombstone is once more in the feed for whoever sent it; what is newer or concurrent
 * goes its usual way (I6).
 */
export async function raisePurged(trx: Transaction<Database>, resource: ResourceInfo): Promise<void> {
  const { rows: some } =
    await sql`select from syncline.purged where resource_id = ${sql.lit(resource.id)} limit 1`.execute(trx)
  if (some.length === 0) return
  // A deletion that says nothing new needs no tombstone.
  const needed = sql`not (met.kind = 'd' and met.class = 's')`
  await sql`
    with met as materialized (
      select p.n, p.id, p.kind, (${sql.raw(CLASSIFY)})::"char" as class, l.clock, l.origin, l.seen from pg_temp.syncline_stage p
        cross join lateral (
          select g.clock, g.origin, g.seen from syncline.purged g
           where g.resource_id = ${sql.lit(resource.id)} and g.id_hash = hashtextextended(p.id, 0) offset 0
        ) l
       where p.class = 'n'
    ), taken as (
      delete from syncline.purged g using met
       where g.resource_id = ${sql.lit(resource.id)} and g.id_hash = hashtextextended(met.id, 0) and ${needed}
    ), raised as (
      insert into syncline.record (resource_id, record_id, xact, origin, clock, seen, deleted)
      select ${resource.id}, met.id, pg_current_xact_id(), met.origin, met.clock, met.seen, true from met where ${needed} order by met.id
    )
    update pg_temp.syncline_stage s set class = met.class, l_clock = met.clock, l_origin = met.origin, l_seen = met.seen, l_deleted = true
      from met where s.n = met.n`.execute(trx)
}

/** Tombstones that were purged behind the place where a peer is: how many purges there were until now, and how far they went. */
export type Missed = { readonly purges: number; readonly through: Position }

/** What a peer has missed that comes from `after`, or null when it has heard of every tombstone that was purged. One index look-up. */
export async function purgedSince(
  db: Kysely<Database>,
  resourceId: number,
  after: Position | null,
): Promise<Missed | null> {
  const behind =
    after === null ? sql`true` : sql`(xact, record_id) > (${after.xact}::xid8, ${after.recordId} collate "C")`
  const { rows } = await sql<{ steps: string; xact: string; record_id: string }>`
    select steps, xact::text, record_id from syncline.purge where resource_id = ${resourceId} and ${behind}`.execute(db)
  const [row] = rows
  return row === undefined ? null : { purges: Number(row.steps), through: { xact: row.xact, recordId: row.record_id } }
}

/**
 * A batch that tells what its peer has missed. Its last part leads past the purged tombstones: no record stands between it and them, and a peer
 * that stayed before them would be told again and again.
 */
export function passPurged<B extends Pick<LineBatch, 'next' | 'purges'>>(batch: B, { purges, through }: Missed): B {
  const { next } = batch
  if (next === undefined || next.more) return { ...batch, purges }
  const { logId, position } = parseCheckpoint(next.checkpoint)
  if (comparePositions(position, through) >= 0) return { ...batch, purges }
  return { ...batch, purges, next: { checkpoint: formatCheckpoint({ logId, position: through }), more: false } }
}

export type PurgedRequest = {
  readonly resource: ResourceInfo
  readonly logId: string
  /** Mark of the filter and columns of the link, as in its checkpoints. */
  readonly scope: string
  /** Where the peer is: a checkpoint of changes, or one that this function gave for the page before. */
  readonly after: string | undefined
  readonly rowsMax: number
  /** For links with a filter: only records that this peer was sent. */
  readonly sharedWith: number | null
}

/** Tells places in the order of purged deletions from places in the order of changes. */
const PAGED = 'purged'

/**
 * One page of the purged deletions whose tombstones stood behind a place: deletes with their versions, each named by the hash of its record id
 * in decimal digits. Errors: as startOf.
 */
export async function servePurged(store: Store, request: PurgedRequest): Promise<LineBatch> {
  const { resource, logId, scope, after, sharedWith } = request
  const limit = Math.min(PAGE, request.rowsMax)
  const page = after === undefined ? null : parseCheckpoint(after)
  const paged = page?.logId === `${logId}.${PAGED}` ? page.position : null
  // A place in the order of records begins with its whole transaction: hashes have another order.
  const start = paged ?? { xact: (await startOf(store, after, logId, scope))?.xact ?? '0', recordId: '' }
  const behind =
    paged === null
      ? sql`g.xact >= ${start.xact}::xid8`
      : sql`(g.xact, g.id_hash) > (${start.xact}::xid8, ${start.recordId}::int8)`
  const shared =
    sharedWith === null
      ? sql``
      : sql`and g.id_hash in (select hashtextextended(h.record_id, 0) from syncline.shared h where h.peer_id = ${sharedWith} and h.resource_id = ${resource.id})`
  const { rows } = await sql<{
    text: string | null
    count: number
    origins: readonly number[] | null
    last_xact: string | null
    last_hash: string | null
  }>`
    with kept as materialized (
      select g.xact, g.id_hash, g.origin, g.clock, g.seen, null::jsonb as fields, 'd' as kind from syncline.purged g
       where g.resource_id = ${sql.lit(resource.id)} and ${behind} ${shared} order by g.xact, g.id_hash limit ${limit}
    ), ${originsSql()}
    select string_agg('"' || g.id_hash || e'"\\t' || g.clock || e'\\t' || array_position(o.list, g.origin) - 1 || e'\\t'
             || case when g.seen is null then '' else (select jsonb_object_agg(array_position(o.list, key::int4) - 1, value)::text from jsonb_each(g.seen)) end
             || e'\\td\\t', e'\\n' order by g.xact, g.id_hash) as text,
           count(*)::int as count, (select list from origins) as origins,
           (select k.xact::text from kept k order by k.xact desc, k.id_hash desc limit 1) as last_xact,
           (select k.id_hash::text from kept k order by k.xact desc, k.id_hash desc limit 1) as last_hash
      from kept g cross join origins o`.execute(store.db)
  const { text = null, count = 0, origins = null, last_xact = null, last_hash = null } = rows[0] ?? {}
  const position = last_xact === null ? start : { xact: last_xact, recordId: last_hash ?? '' }
  return {
    resource: resource.name,
    columns: [],
    refs: {},
    origins: await originNames(store.db, origins ?? []),
    text: text ?? '',
    count,
    purged: true,
    next: { checkpoint: formatCheckpoint({ logId: `${logId}.${PAGED}`, position }), more: count === limit },
  }
}

/**
 * Purged deletions of a peer as deletions of the records that this site has: an ordinary batch, and an empty one where it has none of them.
 * One scan of the records of the resource.
 */
export async function namePurged(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  batch: LineBatch,
): Promise<LineBatch> {
  // Nothing tells the planner how many hashes there are: for a few it would look through them once for each record.
  await sql`select set_config('enable_nestloop', 'off', true), set_config('enable_hashjoin', 'on', true)`.execute(trx)
  const { rows } = await sql<{ text: string | null; count: number }>`
    select string_agg(to_json(r.record_id)::text || substr(p.line, strpos(p.line, e'\\t')), e'\\n' order by r.record_id) as text, count(*)::int as count
      from syncline.record r
      join (select line, trim('"' from split_part(line, e'\\t', 1))::int8 as hash from unnest(string_to_array(${batch.text}, e'\\n')) line) p
        on p.hash = hashtextextended(r.record_id, 0)
     where r.resource_id = ${sql.lit(resource.id)} and not r.deleted`.execute(trx)
  await sql`select set_config('enable_nestloop', 'on', true)`.execute(trx)
  const { purged: _, next: _next, ...rest } = batch
  return { ...rest, text: rows[0]?.text ?? '', count: rows[0]?.count ?? 0 }
}

/** Whether a record lived here once and its tombstone was purged: by the hash that is left of it. */
export async function wasPurged(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<boolean> {
  const { rows } = await sql`
    select from syncline.purged where resource_id = ${resource.id} and id_hash = hashtextextended(${id}, 0) limit 1`.execute(
    db,
  )
  return rows.length > 0
}

/** True when this site has no record of a resource, living or deleted: nothing that a peer purged concerns it. */
export async function holdsNone(db: Kysely<Database>, resourceId: number): Promise<boolean> {
  const { rows } = await sql`select from syncline.record where resource_id = ${resourceId} limit 1`.execute(db)
  return rows.length === 0
}
