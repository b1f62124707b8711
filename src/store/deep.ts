import { type Kysely, type RawBuilder, sql } from 'kysely'
import { RECORD_HASH } from './digest-sum.ts'
import type { Digest, DigestScope, KeyRange } from './digests.ts'
import { payloadSql } from './lines-sql.ts'
import { type Column, liveTable, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

/** What is compared of the rows themselves: the text of these columns as it would be sent. */
export type DeepScope = DigestScope & { readonly compared: readonly Column[] }

/** A column as both sides must know it to compare its values: the same name and the same type. A reference travels as the record id of its target. */
export type ComparedColumn = { readonly name: string; readonly type: string }

/** Digest of at most so many records as were asked for; `to` is null when the range ends before that. */
export type DeepDigest = Digest & {
  /** Living records whose row is gone. */
  readonly rowless: number
}

/** One living record. `content` is null where its row is gone; `touched` when the row was written after the version was. */
export type DeepRecord = {
  readonly id: string
  readonly version: string
  readonly content: string | null
  readonly touched: boolean
}

/** Columns of a resource as they are compared, within what was asked for and what may be seen. */
export function comparedColumns(
  resource: ResourceInfo,
  only: readonly (readonly string[] | null | undefined)[],
): readonly Column[] {
  return sentColumns(resource).filter(({ name }) => only.every((names) => names == null || names.includes(name)))
}

export function columnFacts(resource: ResourceInfo, columns: readonly Column[]): readonly ComparedColumn[] {
  const refers = new Set(resource.references.map(({ column }) => column.name))
  return columns.map(({ name, baseType }) => ({ name, type: refers.has(name) ? 'reference' : baseType }))
}

/** Digest of the next `limit` records of a range, their rows included: one short read for each piece. */
export async function deepDigest(
  db: Kysely<Database>,
  scope: DeepScope,
  range: KeyRange,
  limit: number,
): Promise<DeepDigest> {
  const { rows } = await sql<{ count: number; sum: string; rowless: number; scanned: number; last: string | null }>`
    with page as materialized (${page(scope, range, limit)}), hashed as (${hashed(scope)})
    select count(*)::int as count, count(*) filter (where content is null)::int as rowless,
           coalesce(sum(hashtextextended(concat_ws(e'\\n', id, version, content), 0)), 0)::text as sum,
           (select count(*) from page)::int as scanned, (select max(record_id) from page) as last from hashed`.execute(
    db,
  )
  const { count, sum, rowless, scanned, last } = rows[0] ?? { count: 0, sum: '0', rowless: 0, scanned: 0, last: null }
  return { from: range.from, to: scanned < limit ? range.to : last, count, sum, rowless }
}

/** The next `limit` records of a range one by one. */
export async function deepRecords(
  db: Kysely<Database>,
  scope: DeepScope,
  range: KeyRange,
  limit: number,
): Promise<readonly DeepRecord[]> {
  const { rows } = await sql<DeepRecord>`
    with page as materialized (${page(scope, range, limit)}), hashed as (${hashed(scope)})
    select id, version::text, content::text, touched from hashed order by id`.execute(db)
  return rows
}

function page({ resource }: DeepScope, { from, to }: KeyRange, limit: number): RawBuilder<unknown> {
  return sql`
    select r.record_id, r.origin, r.clock, age(r.xmin) as written from syncline.record r
     where r.resource_id = ${sql.lit(resource.id)} and not r.deleted
       ${from === null ? sql`` : sql`and r.record_id > ${from} collate "C"`} ${to === null ? sql`` : sql`and r.record_id <= ${to} collate "C"`}
     order by r.record_id limit ${limit}`
}

/** With a filter a record whose row is gone is left out: nobody can say whether it matched. */
function hashed({ resource, compared, filter, keptFrom }: DeepScope): RawBuilder<unknown> {
  const kept =
    filter === undefined || keptFrom === undefined
      ? sql``
      : sql`and not exists (
          select from syncline.kept k where k.peer_id = ${keptFrom} and k.resource_id = ${resource.id} and k.record_id = r.record_id
             and k.origin = r.origin and k.clock = r.clock)`
  return sql`
    select r.record_id as id, ${sql.raw(RECORD_HASH)} as version, live.content, coalesce(live.written < r.written, false) as touched
      from page r join syncline.site o on o.id = r.origin left join lateral (
        select hashtextextended(${sql.raw(payloadSql(resource, compared, true))}, 0) as content, age(t.xmin) as written,
               ${filter === undefined ? sql`true` : sql`coalesce(${filter}, false)`} as matches
          from ${sql.raw(liveTable(resource))} t where t.${sql.id(resource.keyColumn)} = r.record_id::${sql.raw(resource.keyType)} offset 0
      ) live on true
     where ${filter === undefined ? sql`true` : sql`live.matches`} ${kept}`
}

/** One step through the rows of a table in the order of their keys. `after` is where the next one begins; null at the end. */
export type StrayPage = { readonly ids: readonly string[]; readonly after: string | null }

/** Rows that no living record stands for: they were written while the triggers were off. */
export async function strayRows(
  db: Kysely<Database>,
  { resource, filter }: DigestScope,
  after: string | null,
  limit: number,
): Promise<StrayPage> {
  const key = sql.id(resource.keyColumn)
  const from = after === null ? sql`` : sql`where t.${key} > ${after}::text::${sql.raw(resource.keyType)}`
  const matches = filter === undefined ? sql`true` : sql`coalesce(${filter}, false)`
  const { rows } = await sql<{ ids: readonly string[] | null; last: string | null; count: number }>`
    with page as materialized (
      select t.${key} as key, ${matches} as matches from ${sql.raw(liveTable(resource))} t ${from} order by t.${key} limit ${limit}
    ), stray as (
      select p.key from page p where p.matches and not exists (
        select from syncline.record r where r.resource_id = ${sql.lit(resource.id)} and r.record_id = p.key::text collate "C" and not r.deleted)
    )
    select (select array_agg(key::text order by key) from stray) as ids, (select key::text from page order by page.key desc limit 1) as last,
           (select count(*) from page)::int as count`.execute(db)
  const { ids, last, count } = rows[0] ?? { ids: null, last: null, count: 0 }
  return { ids: ids ?? [], after: count < limit ? null : last }
}

/** Living records whose row is gone: it was deleted while the triggers were off. In key order behind `after`. */
export async function rowlessRecords(
  db: Kysely<Database>,
  resource: ResourceInfo,
  after: string | null,
  limit: number,
): Promise<StrayPage> {
  const { rows } = await sql<{ ids: readonly string[] | null; last: string | null; count: number }>`
    with page as materialized (
      select r.record_id from syncline.record r where r.resource_id = ${sql.lit(resource.id)} and not r.deleted
         ${after === null ? sql`` : sql`and r.record_id > ${after} collate "C"`} order by r.record_id limit ${limit}
    )
    select array_agg(p.record_id order by p.record_id) filter (where not exists (
             select from ${sql.raw(liveTable(resource))} t where t.${sql.id(resource.keyColumn)} = p.record_id::${sql.raw(resource.keyType)})) as ids,
           max(p.record_id) as last, count(*)::int as count from page p`.execute(db)
  const { ids, last, count } = rows[0] ?? { ids: null, last: null, count: 0 }
  return { ids: ids ?? [], after: count < limit ? null : last }
}
