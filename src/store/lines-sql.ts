import { type RawBuilder, sql } from 'kysely'
import { quoteIdent } from './quote.ts'
import { type Column, liveTable, type ResolvedReference, type ResourceInfo } from './resources.ts'

/** A further CTE `origins`: every site that the versions in CTE `kept` name, as an array whose places the lines refer to. */
export function originsSql(): RawBuilder<unknown> {
  return sql`origins as materialized (
      select array_agg(site order by site) as list from (
        select origin as site from kept where kind is not null
        union select key::int4 from kept, jsonb_object_keys(kept.seen) key where kind is not null and seen is not null
        union select syncline.field_origins(kept.fields) from kept where kind is not null and kept.fields is not null
      ) o
    )`
}

/** What version `row` has seen, and the writes behind its fields, by places in `o.list`: nothing for most. */
export function seenText(row: string): RawBuilder<unknown> {
  const seen = `(select jsonb_object_agg(array_position(o.list, key::int4) - 1, value) from jsonb_each(${row}.seen))`
  return sql.raw(`case when ${row}.fields is not null
                 then (coalesce(${seen}, '{}') || jsonb_build_object('fields', syncline.place_fields(syncline.sound_fields(${row}.fields, ${row}.origin, ${row}.clock, ${row}.seen), o.list)))::text
                 when ${row}.seen is null then '' else ${seen}::text end`)
}

/**
 * The lines (see sync/codec/lines.ts) of the rows of CTE `kept (record_id, clock, origin, seen, fields, kind, n, live_key)` in order of n, as one text.
 * PostgreSQL makes them, so that a batch passes through Node unparsed.
 */
export function linesSql(resource: ResourceInfo, columns: readonly Column[]): RawBuilder<unknown> {
  const payload = sql.raw(payloadSql(resource, columns))
  return sql`(select string_agg(
              to_json(k.record_id)::text || e'\\t' || k.clock || e'\\t' || array_position(o.list, k.origin) - 1 || e'\\t'
              || ${seenText('k')}
              || e'\\t' || k.kind || e'\\t' || coalesce(
                (select ${payload} from ${sql.raw(liveTable(resource))} t
                  where k.kind = 'p' and t.${sql.id(resource.keyColumn)} = k.live_key offset 0), ''),
              e'\\n' order by k.n) from kept k cross join origins o where k.kind is not null)`
}

/**
 * JSON array of the values that travel, in announced order, from the live row with alias `t`. To be `compared`, a number is written without the zeros at
 * its end: two columns may keep different numbers of them.
 */
export function payloadSql(resource: ResourceInfo, columns: readonly Column[], compared = false): string {
  const values = columns.map((column) => {
    const reference = resource.references.find((each) => each.column.name === column.name)
    if (reference !== undefined) return referenceSql(resource, reference)
    const trimmed = compared && column.baseType === 'numeric'
    return trimmed ? `trim_scale(t.${quoteIdent(column.name)})::text` : valueSql(column, 't')
  })
  return jsonArraySql(values)
}

/** A function of PostgreSQL takes so many arguments. */
const ARGUMENTS_MAX = 100

/** The text of a JSON array of any number of values. */
export function jsonArraySql(values: readonly string[]): string {
  const parts: string[] = []
  for (let at = 0; at === 0 || at < values.length; at += ARGUMENTS_MAX)
    parts.push(`json_build_array(${values.slice(at, at + ARGUMENTS_MAX).join(', ')})::text`)
  if (parts.length === 1) return parts.join('')
  const inner = parts.map((part) => `substr(left(${part}, -1), 2)`)
  return `('[' || ${inner.join(` || ', ' || `)} || ']')`
}

/** The value of a column of live row `alias` as it travels. */
export function valueSql(column: Column, alias: string): string {
  const value = `${alias}.${quoteIdent(column.name)}`
  // JSON readers know no negative zero.
  if (column.baseType === 'float4' || column.baseType === 'float8')
    return `case when ${value} = 0 and ${value}::text = '-0' then '"-0"'::json else to_json(${value}) end`
  if (column.form === 'native') return value
  if (column.form === 'text') return textSql(column, value)
  if (column.form === 'json') return jsonSql(value, column.baseType)
  // JSON numbers of these would be rounded by readers, or lose the sign of a zero, so the elements travel as text.
  const exact =
    column.baseType === '_int8' || column.baseType === '_numeric'
      ? `to_json(${value}::text[])`
      : column.baseType === '_float4' || column.baseType === '_float8'
        ? `case when ${value}::text ~ '[{,]-0[,}]' then to_json(${value}::text[]) else to_json(${value}) end`
        : column.baseType === '_json'
          ? oneLine(`to_json(${value})`)
          : `to_json(${value})`
  // JSON arrays begin at one, and know one null only; others travel as PostgreSQL writes them.
  const odd = ['_json', '_jsonb'].includes(column.baseType)
    ? ` or exists (select from unnest(${value}) e where e::text = 'null')`
    : ''
  return `case when array_lower(${value}, 1) <> 1 or array_lower(${value}, 2) <> 1${odd} then to_json(${value}::text) else ${exact} end`
}

/** The text of a value. The cast of a bpchar without a length drops the blanks at its end, which its output does not. */
export function textSql({ baseType, declared }: Column, value: string): string {
  return baseType === 'bpchar' && declared === 'bpchar'
    ? `case when ${value} is not null then concat(${value}) end`
    : `${value}::text`
}

/** Columns of type json keep the line breaks and tabs of whoever wrote them; between tokens a blank says the same. */
const oneLine = (json: string) => `translate(${json}::text, e'\\n\\r\\t', '   ')::json`

/**
 * A document that is JSON's null is not the absence of a document, which is null on the wire: it travels as {"$json": null}. So that this says
 * one thing only, a document that has that one member is itself wrapped once. `jsonFromWireSql` undoes it.
 */
export function jsonSql(value: string, baseType: string): string {
  if (baseType === 'jsonb')
    return `case jsonb_typeof(${value}) when 'null' then '{"$json":null}'::jsonb
      when 'object' then case when ${isWrapped(value)} then jsonb_build_object('$json', ${value}) else ${value} end else ${value} end`
  return `case when json_typeof(${value}) = 'null' then '{"$json":null}'::json
      when strpos(${value}::text, '"$json"') > 0 and json_typeof(${value}) = 'object'
      then case when ${isWrapped(`${value}::jsonb`)} then json_build_object('$json', ${oneLine(value)}) else ${oneLine(value)} end
      else ${oneLine(value)} end`
}

const isWrapped = (object: string) => `(${object}) ? '$json' and (${object}) - '$json' = '{}'::jsonb`

/** The document that stands as `wire` (of type `baseType`) in a payload; `parsed` is the same as jsonb. Null is none, unless there has to be one. */
export function jsonFromWireSql(wire: string, parsed: string, baseType: string, notNull: boolean): string {
  const bare = baseType === 'json' ? `nullif(${wire}::text, 'null')::json` : `nullif(${wire}, 'null'::jsonb)`
  const plain = notNull ? wire : bare
  return `case when ${parsed} ? '$json' then case when jsonb_typeof(${parsed}) <> 'object' then ${plain}
    when ${isWrapped(parsed)} then ${wire} -> '$json' else ${wire} end else ${plain} end`
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
