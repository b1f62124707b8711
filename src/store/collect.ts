import { setTimeout as sleep } from 'node:timers/promises'
import { type Kysely, type RawBuilder, sql } from 'kysely'
import {
  formatCheckpoint,
  type LineBatch,
  type Position,
  RECORD_ID_BYTES_MAX,
  type RowText,
  SynclineError,
} from '../sync/index.ts'
import { canTellPlain, linesForm, plainQuery } from './collect-plain.ts'
import { linesSql, originsSql } from './lines-sql.ts'
import { quoteIdent } from './quote.ts'
import { type Column, liveTable, type ResourceInfo, sentColumns } from './resources.ts'
import { type RowTypes, rowsForm } from './rows-sql.ts'
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
  /** Only looks: what the peer holds is not taken note of. */
  readonly quiet?: boolean | undefined
  /** Condition on the live row, alias `t`. */
  readonly filter?: RawBuilder<boolean> | undefined
}

/** Record ids that travel have between one and this many bytes; others stay, and `resource check` counts them. */
export const SENT_ID_BYTES_MAX = 512

/** How far the text of a batch may exceed the bytes it is bounded to: JSON takes more than stored values. */
const OVERSIZE = 4

/** Pauses while an ending transaction holds the horizon, and the longest wait for it, in milliseconds. */
const HELD_STEP_MS = 20
const HELD_MAX_MS = 200

const START: Position = { xact: '0', recordId: '' }

export type BatchRow = {
  /** Most rows that were looked at. */
  readonly limit: number
  readonly text: string | null
  readonly lines: number
  readonly scanned: number
  /** Something is committed that an open transaction keeps from being read. */
  readonly held: boolean
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
 * PostgreSQL makes the lines; they pass through Node unparsed. Size is bounded by rows and by bytes; one record always fits.
 */
export async function collect(db: Kysely<Database>, request: CollectRequest): Promise<LineBatch> {
  const after = request.after ?? START
  const columns = sentColumns(request.resource, request.columns)
  const row = await readBatch(db, request, columns, after)
  const bytes = Buffer.byteLength(row.text ?? '')
  if (bytes > request.bytesMax * OVERSIZE && row.kept > 1) {
    // Values that are stored compressed may unfold to many times their size.
    return collect(db, { ...request, rowsMax: fewer(request, row.kept, bytes) })
  }
  if (request.filter !== undefined && request.quiet !== true) await rememberShared(db, request, row)
  return { ...(await besideText(db, request, columns, after, row)), text: row.text ?? '' }
}

/** So many records of that size fit. */
const fewer = ({ bytesMax }: CollectRequest, records: number, bytes: number) =>
  Math.max(1, Math.floor((records * bytesMax) / bytes))

/** What a batch says beside its records. */
async function besideText(
  db: Kysely<Database>,
  request: CollectRequest,
  columns: readonly Column[],
  after: Position,
  row: BatchRow,
) {
  const last: Position = row.last_xact === null ? after : { xact: row.last_xact, recordId: placeOf(row.last_id ?? '') }
  const more = row.kept < row.scanned || row.scanned === row.limit
  return {
    resource: request.resource.name,
    columns: columns.map((column) => column.name),
    refs: Object.fromEntries(
      request.resource.references
        .filter((reference) => columns.some((column) => column.name === reference.column.name))
        .map((reference) => [reference.column.name, reference.resource]),
    ),
    origins: await originNames(db, row.origins ?? []),
    count: row.lines,
    next: { checkpoint: formatCheckpoint({ logId: request.logId, position: last }), more },
  }
}

/**
 * The same batch as rows for a database with equal columns. Null where they cannot be: a filter, large values, types that are more than their name
 * (domains …), versions with writes behind single fields, fields that are kept for others, or nothing to send.
 */
export async function collectRows(db: Kysely<Database>, request: CollectRequest): Promise<RowText | null> {
  const { resource } = request
  const after = request.after ?? START
  const columns = sentColumns(resource, request.columns)
  if (request.filter !== undefined || columns.length === 0 || !(await canTellPlain(db, columns))) return null
  const form = rowsForm(resource, columns)
  const row = await only(plainQuery<RowTypes>(request, columns, after, SENT_ID_BYTES_MAX, form), db)
  const types = row.types.filter((type) => type !== null)
  if (!row.usable || row.parked || row.lines === 0 || types.length <= columns.length) return null
  const bytes = Buffer.byteLength(row.text ?? '')
  if (bytes > request.bytesMax * OVERSIZE && row.kept > 1)
    return collectRows(db, { ...request, rowsMax: fewer(request, row.kept, bytes) })
  const [keyType = '', ...rest] = types
  return { ...(await besideText(db, request, columns, after, row)), keyType, types: rest, text: row.text ?? '' }
}

/**
 * Reads a batch. When there is nothing below the horizon but something beyond it, a transaction that is just ending usually holds it back:
 * a person who wrote a record and says "sync" at once would be told that there is nothing to do. So that is waited for, briefly.
 */
async function readBatch(
  db: Kysely<Database>,
  request: CollectRequest,
  columns: readonly Column[],
  after: Position,
): Promise<BatchRow> {
  if (await nothingBehind(db, request.resource.id, after)) return { ...EMPTY, limit: request.rowsMax }
  for (let waitedMs = 0; ; waitedMs += HELD_STEP_MS) {
    const row =
      (await readPlain(db, request, columns, after)) ?? (await only(carefulQuery(request, columns, after), db))
    if (row.scanned > 0 || !row.held || waitedMs >= HELD_MAX_MS) return row
    await sleep(HELD_STEP_MS)
  }
}

/** Most runs find nothing. To look for it takes a tenth of the time that the query of a batch takes to be planned. */
async function nothingBehind(db: Kysely<Database>, resourceId: number, after: Position): Promise<boolean> {
  const { rows } = await sql`
    select from syncline.record r
     where r.resource_id = ${sql.lit(resourceId)} and (r.xact, r.record_id) > (${after.xact}::xid8, ${after.recordId} collate "C")
     order by r.xact, r.record_id limit 1`.execute(db)
  return rows.length === 0
}

const EMPTY: Omit<BatchRow, 'limit'> = {
  text: null,
  lines: 0,
  scanned: 0,
  held: false,
  kept: 0,
  last_xact: null,
  last_id: null,
  origins: null,
  left_ids: null,
  sent_ids: null,
}

/** Null where the link or the table asks for more care. */
async function readPlain(
  db: Kysely<Database>,
  request: CollectRequest,
  columns: readonly Column[],
  after: Position,
): Promise<BatchRow | null> {
  if (request.filter !== undefined || !(await canTellPlain(db, columns))) return null
  const row = await only(
    plainQuery(request, columns, after, SENT_ID_BYTES_MAX, linesForm(request.resource, columns)),
    db,
  )
  return row.usable ? row : null
}

async function only<T>(query: RawBuilder<T>, db: Kysely<Database>): Promise<T> {
  const { rows } = await query.execute(db)
  const [row] = rows
  if (row === undefined) throw new SynclineError('SYNC_INTERNAL', 'the batch query returned no row')
  return row
}

/** An id that is too long for a checkpoint stands behind everything that begins as it does: none of that travels either. */
function placeOf(id: string): string {
  if (Buffer.byteLength(id) <= RECORD_ID_BYTES_MAX) return id
  let place = ''
  for (const character of id) {
    if (Buffer.byteLength(place + character) > RECORD_ID_BYTES_MAX - 4) break
    place += character
  }
  return `${place}\u{10ffff}`
}

/**
 * The query of one batch for any table and link. `scan` is an index range over (resource, xact, record_id); sizes come from the stored rows, so JSON is made only
 * for what is kept; nested loops are forced by `offset 0` laterals, because a hash join over the whole table would be chosen for small limits.
 */
function carefulQuery(request: CollectRequest, columns: readonly Column[], after: Position): RawBuilder<BatchRow> {
  const { resource, peer } = request
  const key = sql.id(resource.keyColumn)
  const matches = request.filter === undefined ? sql`true` : sql`coalesce(${request.filter}, false)`
  // What came from the peer is not sent back, but with a filter it counts as what the peer holds.
  const looked = request.filter === undefined ? sql`and s.source is distinct from ${peer.siteId}` : sql``
  const shared =
    request.filter === undefined
      ? sql`false`
      : sql`exists (select from syncline.shared h where h.peer_id = ${peer.id} and h.resource_id = ${resource.id} and h.record_id = s.record_id)`
  return sql<BatchRow>`
    with scan as materialized (
      select r.record_id, r.xact, r.origin, r.clock, r.seen, r.fields, r.deleted, r.source
        from syncline.record r
       where r.resource_id = ${sql.lit(resource.id)} and (r.xact, r.record_id) > (${after.xact}::xid8, ${after.recordId} collate "C")
         and r.xact < pg_snapshot_xmin(pg_current_snapshot())
       order by r.xact, r.record_id limit ${request.rowsMax}
    ), sized as materialized (
      select s.*, live.live_key, live.matches, coalesce(live.bytes, 0) as bytes,
             row_number() over w as n, sum(coalesce(live.bytes, 0) + 80) over w as total
        from scan s left join lateral (
          select t.${key} as live_key, ${sql.raw(sizeSql(columns))} as bytes, ${matches} as matches
            from ${sql.raw(liveTable(resource))} t
           where t.${key} = s.record_id::${sql.raw(resource.keyType)} and not s.deleted ${looked} offset 0
        ) live on true
      window w as (order by s.xact, s.record_id)
    ), kept as materialized (
      select s.*,
             case when s.source is not distinct from ${peer.siteId} then null
                  when octet_length(s.record_id) not between 1 and ${sql.lit(SENT_ID_BYTES_MAX)} then null
                  when s.deleted then ${request.filter === undefined ? sql`'d'` : sql`case when ${shared} or s.seen ? ${String(peer.siteId)} then 'd' end`}
                  when s.live_key is null then null
                  when s.matches then 'p'
                  when ${shared} then 'l' end as kind
        from sized s where s.n = 1 or s.total <= ${request.bytesMax}
    ), ${originsSql()}
    select ${linesSql(resource, columns)} as text,
           (select count(*) from kept where kind is not null)::int as lines,
           (select count(*) from scan)::int as scanned, ${request.rowsMax}::int as limit,
           exists (select from syncline.record r where r.resource_id = ${sql.lit(resource.id)}
                     and r.xact >= pg_snapshot_xmin(pg_current_snapshot())) as held,
           (select count(*) from kept)::int as kept,
           (select xact::text from kept order by n desc limit 1) as last_xact,
           (select record_id from kept order by n desc limit 1) as last_id,
           (select list from origins) as origins,
           ${request.filter === undefined ? sql`null::text[]` : sql`(select array_agg(record_id) from kept where kind in ('l', 'd'))`} as left_ids,
           ${request.filter === undefined ? sql`null::text[]` : sql`(select array_agg(record_id) from kept where kind = 'p' or kind is null and matches and source = ${peer.siteId})`} as sent_ids`
}

/** Bytes of a row: as it is stored, or of its texts alone where those are stored compressed. Unpacks no value. */
function sizeSql(columns: readonly Column[]): string {
  const sizes = columns
    .filter((column) => ['text', 'varchar', 'xml', 'bytea'].includes(column.baseType))
    .map(
      ({ name, baseType }) => `coalesce(octet_length(t.${quoteIdent(name)}${baseType === 'bytea' ? '' : '::text'}), 0)`,
    )
  return sizes.length === 0 ? 'pg_column_size(t.*)' : `greatest(pg_column_size(t.*), ${sizes.join(' + ')})`
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

export async function originNames(db: Kysely<Database>, ids: readonly number[]): Promise<readonly string[]> {
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
