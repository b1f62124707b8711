import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { Position } from '../sync/index.ts'
import type { BatchRow, CollectRequest } from './collect.ts'
import { payloadSql, seenText } from './lines-sql.ts'
import { quoteIdent } from './quote.ts'
import { type Column, liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** Rows whose texts have at most so many bytes are plain: below it PostgreSQL stores every value as it is, so its size is known. */
const PLAIN_BYTES = 2_000
/** Bytes of a row and of each of its values where the table was never counted, and of a version on its way. */
const ROW_BYTES = 40
const VALUE_BYTES = 16
const ENVELOPE_BYTES = 80

/** Types of which every value has the same few bytes. */
const FIXED = new Set(
  'bool int2 int4 int8 float4 float8 date time timetz timestamp timestamptz interval uuid oid money macaddr macaddr8 inet cidr'.split(
    ' ',
  ),
)
const TEXTS = new Set(['text', 'varchar', 'bpchar', 'name', 'xml', 'json', 'bytea'])

/** How the text of a batch is made of version `s`, the live row `t` of a put, and the sites in `o.list`. */
export type PlainForm = {
  readonly id: RawBuilder<unknown>
  readonly seen: RawBuilder<unknown>
  /** The values of `t`. */
  readonly payload: RawBuilder<unknown>
  /** What stands in their place in the line of a deletion. */
  readonly nothing: string
  /** False for a version that this form cannot tell. */
  readonly tells: RawBuilder<boolean>
  /** Further columns of the answer. */
  readonly besides?: RawBuilder<unknown>
}

/** Lines: see src/sync/codec/lines.ts. */
export function linesForm(resource: ResourceInfo, columns: readonly Column[]): PlainForm {
  return {
    id: hasUuid(resource) ? sql`'"' || s.record_id || '"'` : sql`to_json(s.record_id)::text`,
    seen: seenText('s'),
    payload: sql.raw(payloadSql(resource, columns)),
    nothing: '',
    tells: sql<boolean>`true`,
  }
}

/** A uuid has one spelling, which holds nothing that would have to be escaped. */
export const hasUuid = ({ keyType }: ResourceInfo) => keyType.endsWith('.uuid')

/**
 * The query of one batch for links without a filter and tables without large values: every line is made as its row is looked up, once. How many
 * rows fit is reckoned from the mean width of the table. `usable` is false when the table turns out to hold large values, or a row of this batch
 * to be wide or beyond the form: then nothing of the answer counts. `carefulQuery` looks at sizes before it unpacks anything.
 */
export function plainQuery<T = unknown>(
  request: CollectRequest,
  columns: readonly Column[],
  after: Position,
  idBytesMax: number,
  form: PlainForm,
): RawBuilder<BatchRow & { readonly usable: boolean } & T> {
  const { resource, peer } = request
  const travels = hasUuid(resource) ? sql`` : sql`and octet_length(s.record_id) between 1 and ${sql.lit(idBytesMax)}`
  return sql`
    with room as materialized (
      select least(${request.rowsMax}, greatest(1, floor(${request.bytesMax} / (${sql.lit(ENVELOPE_BYTES)} + case
               when c.relpages > 0 and c.reltuples > 0 then c.relpages * 8192.0 / c.reltuples else ${sql.lit(ROW_BYTES + VALUE_BYTES * columns.length)} end))))::int as rows,
             c.relkind = 'r' and coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) = 0 as usable
        from pg_class c where c.oid = ${resource.tableOid}::oid
    ), scan as materialized (
      select r.record_id, r.xact, r.origin, r.clock, r.seen, r.fields, r.deleted
        from syncline.record r
       where r.resource_id = ${sql.lit(resource.id)} and (r.xact, r.record_id) > (${after.xact}::xid8, ${after.recordId} collate "C")
         and r.xact < pg_snapshot_xmin(pg_current_snapshot()) and (select usable from room)
         -- What came from the peer is not sent back (I4), and need not be stepped through either.
         and r.source is distinct from ${peer.siteId}
       order by r.xact, r.record_id limit (select rows from room)
    ), origins as materialized (
      select array(select distinct site from (
        select distinct origin as site from scan
        union all select distinct key::int4 from scan, jsonb_object_keys(seen) key where seen is not null
        union all select syncline.field_origins(fields) from scan where fields is not null
      ) o order by site) as list
    ), made as (
      -- The order of the scan, which nothing depends on.
      select string_agg(line, e'\\n') as text, count(line)::int as lines, count(*)::int as scanned, coalesce(bool_or(wide), false) as wide
        from (
          select ${form.id} || e'\\t' || s.clock || e'\\t' || array_position(o.list, s.origin) - 1 || e'\\t'
                 || ${form.seen}
                 || case when s.deleted then ${sql.lit(`\td\t${form.nothing}`)} else e'\\tp\\t' || live.payload end as line,
                 live.found and live.payload is null or not ${form.tells} as wide
            from scan s cross join origins o left join lateral (
              select case when ${plain(columns)} then ${form.payload} end as payload, true as found
                from ${sql.raw(liveTable(resource))} t
               where t.${sql.id(resource.keyColumn)} = s.record_id::${sql.raw(resource.keyType)} and not s.deleted offset 0
            ) live on true
           where true ${travels}
        ) l
    ), last as (
      -- When the scan came to the end, everything below the horizon was looked at.
      select xact, record_id from (
        (select xact, record_id from scan order by xact desc, record_id desc limit 1)
        union all
        (select r.xact, r.record_id from syncline.record r, room
          where room.usable and (select count(*) from scan) < room.rows and r.resource_id = ${sql.lit(resource.id)}
            and (r.xact, r.record_id) > (${after.xact}::xid8, ${after.recordId} collate "C") and r.xact < pg_snapshot_xmin(pg_current_snapshot())
          order by r.xact desc, r.record_id desc limit 1)
      ) p order by xact desc, record_id desc limit 1
    )
    select made.text, made.lines, (select count(*) from scan)::int as scanned, (select count(*) from scan)::int as kept,
           room.usable and not made.wide as usable, room.rows as limit,
           exists (select from syncline.record r where r.resource_id = ${sql.lit(resource.id)}
                     and r.xact >= pg_snapshot_xmin(pg_current_snapshot())) as held,
           (select xact::text from last) as last_xact, (select record_id from last) as last_id, (select list from origins) as origins,
           null::text[] as left_ids, null::text[] as sent_ids${form.besides ?? sql``}
      from made, room`
}

/** Whether a row is plain. Sizes of texts are known without unpacking them; what is not text must not be packed at all. */
function plain(columns: readonly Column[]): RawBuilder<boolean> {
  const texts = columns.filter(({ baseType }) => TEXTS.has(baseType))
  const others = columns.filter(isPackable)
  const sizes = texts.map(({ name, baseType }) => {
    const value = `t.${quoteIdent(name)}`
    return `coalesce(octet_length(${baseType === 'bytea' || baseType === 'bpchar' ? value : `${value}::text`}), 0)`
  })
  const tests = [
    ...(sizes.length > 0 ? [`${sizes.join(' + ')} <= ${PLAIN_BYTES}`] : []),
    ...others.map(({ name }) => `pg_column_compression(t.${quoteIdent(name)}) is null`),
  ]
  return sql.raw(tests.length === 0 ? 'true' : tests.join(' and '))
}

/** Types whose values may be stored packed, and then do not tell how large they are. */
function isPackable({ baseType }: Column): boolean {
  return !TEXTS.has(baseType) && !FIXED.has(baseType)
}

/** PostgreSQL 13 cannot say whether a value is packed. */
export async function canTellPlain(db: Kysely<Database>, columns: readonly Column[]): Promise<boolean> {
  if (!columns.some(isPackable)) return true
  const known = tells.get(db)
  if (known !== undefined) return known
  const { rows } = await sql<{ tells: boolean }>`
    select to_regproc('pg_catalog.pg_column_compression') is not null as tells`.execute(db)
  const answer = rows[0]?.tells ?? false
  tells.set(db, answer)
  return answer
}

const tells = new WeakMap<Kysely<Database>, boolean>()
