import { type Kysely, type RawBuilder, sql } from 'kysely'
import { type Json, type LineBatch, SynclineError } from '../sync/index.ts'
import { linesSql, originsSql } from './lines-sql.ts'
import { isoTime, olderThan, originsOf, type Page, type PageQuery, pageBounds, toPage } from './registry/index.ts'
import { liveTable, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

export type RecordQuery = {
  readonly resource: ResourceInfo
  /** Columns to read; null reads all that travel. */
  readonly columns?: readonly string[] | null | undefined
  /** Condition on the live row `t`; leaves out deleted records. */
  readonly filter?: RawBuilder<boolean> | undefined
  /** `newest` by when the version came here, newest first; `id` by record id, each record exactly once whatever is written meanwhile. */
  readonly order: 'newest' | 'id'
  /** Where the page before ended, as it was given. */
  readonly after?: string | undefined
  readonly rowsMax: number
  readonly bytesMax: number
  /** Whether deleted records are among them. */
  readonly deleted: boolean
}

/** One page of records as they are here, with their versions. `next` is null at the end. */
export type RecordPage = { readonly batch: LineBatch; readonly next: string | null }

/** Records of a resource page by page, bounded by rows and stored bytes; one record always fits. Errors: SYNC_REQUEST_INVALID for a foreign cursor. */
export async function readRecords(db: Kysely<Database>, query: RecordQuery): Promise<RecordPage> {
  const { row, batch } = await readPage(db, query, afterPlace(query))
  const more = row.kept < row.scanned || row.scanned > query.rowsMax
  const place = query.order === 'id' ? [row.last_id] : [row.last_xact, row.last_id]
  return { batch, next: more ? Buffer.from(JSON.stringify(place)).toString('base64url') : null }
}

/** One record by id, deleted or not; null when there never was one. */
export async function readRecord(db: Kysely<Database>, resource: ResourceInfo, id: string): Promise<LineBatch | null> {
  const query: RecordQuery = { resource, order: 'id', rowsMax: 1, bytesMax: 0, deleted: true }
  const { batch } = await readPage(db, query, sql`r.record_id = ${storedId(resource, id)} collate "C"`)
  return batch.count === 0 ? null : batch
}

/** Living records by id, with `deleted` also the others, as many as the bounds let through; those that do not match the filter are left out. */
export async function readChosen(
  db: Kysely<Database>,
  chosen: Pick<RecordQuery, 'resource' | 'columns' | 'filter' | 'bytesMax'> & {
    readonly ids: readonly string[]
    readonly deleted?: boolean
  },
): Promise<LineBatch> {
  const { ids, deleted = false, ...rest } = chosen
  const query: RecordQuery = { ...rest, order: 'id', rowsMax: ids.length, deleted }
  const wanted = ids.map((id) => storedId(rest.resource, id))
  return (await readPage(db, query, sql`r.record_id = any(${wanted}::text[])`)).batch
}

/** Values of a record that were overwritten, deleted or lost a conflict here, or were discarded from quarantine. */
export type HistoryEntry = {
  readonly id: string
  readonly at: string
  /** replaced, deleted, lost a conflict, left, discarded. */
  readonly reason: string
  readonly runId: string | null
  readonly version: { readonly origin: string; readonly clock: number }
  readonly deleted: boolean
  /** Of the whole row where it is known; null for a deletion. */
  readonly data: Json | null
}

/** What a record was before, newest first. */
export async function listHistory(
  db: Kysely<Database>,
  resource: ResourceInfo,
  id: string,
  query: PageQuery = {},
): Promise<Page<HistoryEntry>> {
  const bounds = pageBounds(query)
  const rows = await db
    .selectFrom('syncline.history as h')
    .innerJoin('syncline.site as o', 'o.id', 'h.origin')
    .select(['h.id', 'h.at', 'h.reason', 'h.run_id', 'o.origin', 'h.clock', 'h.deleted', 'h.data'])
    .where('h.resource_id', '=', resource.id)
    .where('h.record_id', '=', storedId(resource, id))
    .where(olderThan('h.id', bounds))
    .orderBy('h.id', 'desc')
    .limit(bounds.take)
    .execute()
  return toPage(rows, bounds, ({ origin, clock, run_id: runId, at, ...row }) => ({
    ...row,
    at: isoTime(at),
    runId,
    version: { origin, clock: Number(clock) },
  }))
}

/** Record ids are kept as PostgreSQL writes them, and it writes a uuid in lower case. */
export function storedId(resource: ResourceInfo, id: string): string {
  return resource.keyType.endsWith('.uuid') ? id.toLowerCase() : id
}

type PageRow = {
  readonly text: string | null
  readonly lines: number
  readonly scanned: number
  readonly kept: number
  readonly last_xact: string | null
  readonly last_id: string | null
  readonly origins: readonly number[] | null
}

async function readPage(
  db: Kysely<Database>,
  query: RecordQuery,
  where: RawBuilder<unknown>,
): Promise<{ readonly row: PageRow; readonly batch: LineBatch }> {
  const { resource } = query
  const { rows } = await recordsQuery(query, where).execute(db)
  const row = rows[0]
  if (row === undefined) throw new Error('the query of records returned no row')
  const columns = sentColumns(resource, query.columns).map((column) => column.name)
  const refs = resource.references
    .filter((reference) => columns.includes(reference.column.name))
    .map((reference) => [reference.column.name, reference.resource])
  const batch = {
    resource: resource.name,
    columns,
    refs: Object.fromEntries(refs),
    origins: await originsOf(db, row.origins ?? []),
    text: row.text ?? '',
    count: row.lines,
  }
  return { row, batch }
}

/** One row more than the page holds is looked for, to know whether another page follows. */
export function recordsQuery(query: RecordQuery, where: RawBuilder<unknown>): RawBuilder<PageRow> {
  const { resource, filter, order } = query
  const key = sql.id(resource.keyColumn)
  const table = sql.raw(liveTable(resource))
  const columns = sentColumns(resource, query.columns)
  const keyOf = sql.raw(`s.record_id::${resource.keyType}`)
  const matches = filter === undefined ? sql`` : sql`and coalesce(${filter}, false)`
  const living =
    filter === undefined
      ? sql``
      : sql`and exists (select from ${table} t where t.${key} = ${sql.raw(`r.record_id::${resource.keyType}`)} ${matches})`
  const by = (alias: string) =>
    sql.raw(order === 'id' ? `${alias}.record_id` : `${alias}.xact desc, ${alias}.record_id desc`)
  return sql<PageRow>`
    with scan as materialized (
      select r.record_id, r.xact, r.origin, r.clock, r.seen, r.fields, r.deleted from syncline.record r
       where r.resource_id = ${resource.id} and ${where} ${query.deleted && filter === undefined ? sql`` : sql`and not r.deleted`} ${living}
       order by ${by('r')} limit ${query.rowsMax + 1}
    ), sized as materialized (
      select s.*, live.live_key, row_number() over w as n, sum(coalesce(live.bytes, 0) + 80) over w as total
        from scan s left join lateral (
          select t.${key} as live_key, pg_column_size(t.*) as bytes from ${table} t where t.${key} = ${keyOf} and not s.deleted offset 0
        ) live on true
      window w as (order by ${by('s')})
    ), kept as materialized (
      select s.*, case when s.deleted then 'd' when s.live_key is not null then 'p' end as kind
        from sized s where s.n = 1 or s.n <= ${query.rowsMax} and s.total <= ${query.bytesMax}
    ), ${originsSql()}
    select ${linesSql(resource, columns)} as text,
           (select count(*) from kept where kind is not null)::int as lines,
           (select count(*) from scan)::int as scanned,
           (select count(*) from kept)::int as kept,
           (select xact::text from kept order by n desc limit 1) as last_xact,
           (select record_id from kept order by n desc limit 1) as last_id,
           (select list from origins) as origins`
}

function afterPlace({ order, after }: RecordQuery): RawBuilder<unknown> {
  if (after === undefined) return sql`true`
  const place = parsePlace(after, order === 'id' ? 1 : 2)
  const id = place.at(-1)
  return order === 'id'
    ? sql`r.record_id > ${id} collate "C"`
    : sql`(r.xact, r.record_id) < (${place[0]}::xid8, ${id} collate "C")`
}

function parsePlace(text: string, parts: number): readonly string[] {
  const place = parsed(Buffer.from(text, 'base64url').toString())
  const [first] = place
  if (
    place.length !== parts ||
    place.some((part) => part.includes('\0')) ||
    (parts === 2 && !/^\d{1,19}$/.test(first ?? ''))
  ) {
    throw new SynclineError('SYNC_REQUEST_INVALID', `the cursor "${text.slice(0, 40)}" was not given out by this list`)
  }
  return place
}

function parsed(json: string): readonly string[] {
  try {
    const value: unknown = JSON.parse(json)
    return Array.isArray(value) && value.every((part) => typeof part === 'string') ? value : []
  } catch {
    return []
  }
}
