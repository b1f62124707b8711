import { type Kysely, type RawBuilder, sql } from 'kysely'
import { formatCheckpoint, type LineBatch, type Position, SynclineError } from '../sync/index.ts'
import { quoteIdent } from './capture.ts'
import { type Column, liveTable, type ResolvedReference, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

export type CollectRequest = {
  readonly resource: ResourceInfo
  /** This site's current log; a checkpoint of another log is refused by the caller. */
  readonly logId: string
  /** Where the peer is; null collects from the beginning (a baseline). */
  readonly after: Position | null
  readonly rowsMax: number
  readonly bytesMax: number
  /** The link the batch goes over: what came by it is not sent back (I4). */
  readonly peer: { readonly id: number; readonly siteId: number }
  /** Columns to send; null sends all. */
  readonly columns?: readonly string[] | null
  /** Condition on the live row, alias `t`. */
  readonly filter?: RawBuilder<boolean> | undefined
}

const START: Position = { xact: '0', recordId: '' }

type BatchRow = {
  readonly text: string | null
  readonly lines: number
  readonly scanned: number
  readonly kept: number
  readonly last_xact: string | null
  readonly last_id: string | null
  readonly origins: readonly number[] | null
  readonly left_ids: readonly string[] | null
  readonly sent_ids: readonly string[] | null
}

/**
 * One bounded batch of a resource in position order: what changed after `after`, stops below the oldest running write transaction
 * (I1: transaction ids are handed out before commit, so reading past that horizon would skip what commits late).
 * PostgreSQL makes the lines; they pass through Node unparsed. Size is bounded by rows and by stored bytes; one record always fits.
 */
export async function collect(db: Kysely<Database>, request: CollectRequest): Promise<LineBatch> {
  const after = request.after ?? START
  const columns = sentColumns(request.resource, request.columns)
  const row = await sql<BatchRow>`${batchQuery(request, columns, after)}`.execute(db).then((result) => result.rows[0])
  if (row === undefined) throw new SynclineError('SYNC_INTERNAL', 'the batch query returned no row')
  if (request.filter !== undefined) await rememberShared(db, request, row)
  const last: Position = row.last_xact === null ? after : { xact: row.last_xact, recordId: row.last_id ?? '' }
  const more = row.kept < row.scanned || row.scanned === request.rowsMax
  const siteIds = row.origins ?? []
  return {
    resource: request.resource.name,
    columns: columns.map((column) => column.name),
    refs: Object.fromEntries(
      request.resource.references
        .filter((reference) => columns.some((column) => column.name === reference.column.name))
        .map((reference) => [reference.column.name, reference.resource]),
    ),
    origins: await originNames(db, siteIds),
    text: row.text ?? '',
    count: row.lines,
    next: { checkpoint: formatCheckpoint({ logId: request.logId, position: last }), more },
  }
}

/**
 * The query of one batch. `scan` is an index range over (resource, xact, record_id); sizes come from the stored rows, so JSON is made only
 * for what is kept; nested loops are forced by `offset 0` laterals, because a hash join over the whole table would be chosen for small limits.
 */
export function batchQuery(request: CollectRequest, columns: readonly Column[], after: Position): RawBuilder<BatchRow> {
  const { resource, peer } = request
  const key = sql.id(resource.keyColumn)
  const matches = request.filter === undefined ? sql`true` : sql`coalesce(${request.filter}, false)`
  const shared =
    request.filter === undefined
      ? sql`false`
      : sql`exists (select from syncline.shared h where h.peer_id = ${peer.id} and h.resource_id = ${resource.id} and h.record_id = s.record_id)`
  return sql<BatchRow>`
    with scan as materialized (
      select r.record_id, r.xact, r.origin, r.clock, r.seen, r.deleted, r.source
        from syncline.record r
       where r.resource_id = ${sql.lit(resource.id)} and (r.xact, r.record_id) > (${after.xact}::xid8, ${after.recordId} collate "C")
         and r.xact < pg_snapshot_xmin(pg_current_snapshot())
       order by r.xact, r.record_id limit ${request.rowsMax}
    ), sized as materialized (
      select s.*, live.payload_key, live.matches, coalesce(live.bytes, 0) as bytes,
             row_number() over w as n, sum(coalesce(live.bytes, 0) + 80) over w as total
        from scan s left join lateral (
          select t.${key} as payload_key, pg_column_size(t.*) as bytes, ${matches} as matches
            from ${sql.raw(liveTable(resource))} t
           where t.${key} = s.record_id::${sql.raw(resource.keyType)} and not s.deleted and s.source is distinct from ${peer.siteId} offset 0
        ) live on true
      window w as (order by s.xact, s.record_id)
    ), kept as materialized (
      select s.*,
             case when s.source is not distinct from ${peer.siteId} then null
                  when s.deleted then ${request.filter === undefined ? sql`'d'` : sql`case when ${shared} then 'd' end`}
                  when s.payload_key is null then null
                  when s.matches then 'p'
                  when ${shared} then 'l' end as kind
        from sized s where s.n = 1 or s.total <= ${request.bytesMax}
    ), origins as materialized (
      select array_agg(site order by site) as list from (
        select origin as site from kept where kind is not null
        union select key::int4 from kept, jsonb_object_keys(kept.seen) key where kind is not null and seen is not null
      ) o
    )
    select (select string_agg(
              to_json(k.record_id)::text || e'\\t' || k.clock || e'\\t' || array_position(o.list, k.origin) - 1 || e'\\t'
              || coalesce((select jsonb_object_agg(array_position(o.list, key::int4) - 1, value)::text from jsonb_each(k.seen)), '')
              || e'\\t' || k.kind || e'\\t' || coalesce(
                (select ${sql.raw(payloadSql(resource, columns))} from ${sql.raw(liveTable(resource))} t where k.kind = 'p' and t.${key} = k.payload_key offset 0), ''),
              e'\\n' order by k.n) from kept k cross join origins o where k.kind is not null) as text,
           (select count(*) from kept where kind is not null)::int as lines,
           (select count(*) from scan)::int as scanned,
           (select count(*) from kept)::int as kept,
           (select xact::text from kept order by n desc limit 1) as last_xact,
           (select record_id from kept order by n desc limit 1) as last_id,
           (select list from origins) as origins,
           ${request.filter === undefined ? sql`null::text[]` : sql`(select array_agg(record_id) from kept where kind in ('l', 'd'))`} as left_ids,
           ${request.filter === undefined ? sql`null::text[]` : sql`(select array_agg(record_id) from kept where kind = 'p')`} as sent_ids`
}

/** JSON array of the values that travel, in announced order, from the live row with alias `t`. */
export function payloadSql(resource: ResourceInfo, columns: readonly Column[]): string {
  const values = columns.map((column) => {
    const reference = resource.references.find((each) => each.column.name === column.name)
    return reference === undefined ? valueSql(column, 't') : referenceSql(resource, reference)
  })
  return `json_build_array(${values.join(', ')})::text`
}

function valueSql(column: Column, alias: string): string {
  const value = `${alias}.${quoteIdent(column.name)}`
  // JSON readers know no negative zero.
  if (column.baseType === 'float4' || column.baseType === 'float8')
    return `case when ${value} = 0 and ${value}::text = '-0' then '"-0"'::json else to_json(${value}) end`
  if (column.form === 'native') return value
  if (column.form === 'text') return `${value}::text`
  // Columns of type json keep the line breaks and tabs of whoever wrote them; between tokens a blank says the same.
  const oneLine = (json: string) => `translate(${json}::text, e'\\n\\r\\t', '   ')::json`
  if (column.form === 'json') return column.baseType === 'json' ? oneLine(value) : value
  // JSON numbers of these would be rounded by readers, so the elements travel as text.
  const exact = ['_int8', '_numeric'].includes(column.baseType) ? `${value}::text[]` : value
  const list = column.baseType === '_json' ? oneLine(`to_json(${value})`) : `to_json(${exact})`
  // JSON arrays begin at one; others travel as PostgreSQL writes them.
  return `case when array_lower(${value}, 1) <> 1 or array_lower(${value}, 2) <> 1 then to_json(${value}::text) else ${list} end`
}

/** Local keys never travel: a reference is the record id of its target. Inside cycles it may still wait in pending_ref. */
export function referenceSql(resource: ResourceInfo, reference: ResolvedReference): string {
  const value = `t.${quoteIdent(reference.column.name)}`
  const here = reference.direct
    ? `${value}::text`
    : `(select p.${quoteIdent(reference.targetKey)}::text from ${quoteIdent(reference.tableSchema)}.${quoteIdent(reference.tableName)} p
         where p.${quoteIdent(reference.targetColumn)} = ${value})`
  if (!reference.cyclic) return here
  return `coalesce(${here}, (select f.target_record_id from syncline.pending_ref f where f.resource_id = ${resource.id}
            and f.record_id = t.${quoteIdent(resource.keyColumn)}::text and f.column_name = '${reference.column.name.replaceAll("'", "''")}'))`
}

/** For links with a filter: what the peer holds, so that it hears when a record leaves. Kept until the record comes back or is purged. */
async function rememberShared(db: Kysely<Database>, request: CollectRequest, row: BatchRow): Promise<void> {
  const { peer, resource } = request
  if (row.sent_ids !== null) {
    await sql`insert into syncline.shared (peer_id, resource_id, record_id)
              select ${peer.id}, ${resource.id}, id from unnest(${row.sent_ids}::text[]) id
              on conflict (peer_id, resource_id, record_id) do update set gone = false where syncline.shared.gone`.execute(
      db,
    )
  }
  if (row.left_ids !== null) {
    await sql`update syncline.shared set gone = true
               where peer_id = ${peer.id} and resource_id = ${resource.id} and record_id = any(${row.left_ids}::text[]) and not gone`.execute(
      db,
    )
  }
}

async function originNames(db: Kysely<Database>, ids: readonly number[]): Promise<readonly string[]> {
  if (ids.length === 0) return []
  const rows = await db
    .selectFrom('syncline.site')
    .select(['id', 'origin'])
    .where('id', 'in', [...ids])
    .execute()
  const names = new Map(rows.map((row) => [row.id, row.origin]))
  return ids.map((id) => names.get(id) ?? '')
}

/** Age of the horizon: how long the oldest write transaction of the cluster has been open, and who holds it. Zero when nobody does. */
export async function horizon(
  db: Kysely<Database>,
): Promise<{ readonly ageSeconds: number; readonly holder: string | null }> {
  const { rows } = await sql<{ age: number; holder: string | null }>`
    select extract(epoch from clock_timestamp() - xact_start)::float8 as age,
           format('process %s (%s, %s)', pid, coalesce(application_name, ''), state) as holder
      from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid() order by xact_start limit 1`.execute(
    db,
  )
  return { ageSeconds: rows[0]?.age ?? 0, holder: rows[0]?.holder ?? null }
}
