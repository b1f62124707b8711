import { type RawBuilder, sql } from 'kysely'
import { hasUuid, type PlainForm } from './collect-plain.ts'
import { referenceSql, textSql } from './lines-sql.ts'
import { quoteIdent } from './quote.ts'
import type { Column, ResourceInfo } from './resources.ts'

/** The types of a resource's key and of the columns of a batch, null where a name does not tell all; whether fields are kept for others. */
export type RowTypes = { readonly types: readonly (string | null)[]; readonly parked: boolean }

/** Types whose text never holds a backslash or a control character. */
const BARE = new Set(
  'bool int2 int4 int8 float4 float8 numeric date time timetz timestamp timestamptz interval uuid'.split(' '),
)

const isBare = ({ baseType }: Column) => BARE.has(baseType)

/** Rows: see src/sync/codec/rows.ts. */
export function rowsForm(resource: ResourceInfo, columns: readonly Column[]): PlainForm {
  const values = columns.map((column) => {
    const reference = resource.references.find((each) => each.column.name === column.name)
    if (reference !== undefined) return escaped(referenceSql(resource, reference))
    const text = textSql(column, `t.${quoteIdent(column.name)}`)
    return isBare(column) ? text : escaped(text)
  })
  return {
    id: hasUuid(resource) ? sql`s.record_id` : sql.raw(escaped('s.record_id')),
    seen: sql`case when s.seen is null then e'\\\\N' else (select jsonb_object_agg(array_position(o.list, key::int4) - 1, value) from jsonb_each(s.seen))::text end`,
    payload: sql.raw(`array_to_string(array[${values.join(', ')}], e'\\t', e'\\\\N')`),
    nothing: columns.map(() => '\\N').join('\t'),
    tells: sql<boolean>`s.fields is null`,
    besides: sql`, (select types from (${declaredSql(resource, columns)}) d) as types,
           exists (select from syncline.parked_field where resource_id = ${sql.lit(resource.id)}) as parked`,
  }
}

/** A text as COPY reads it. */
function escaped(text: string): string {
  return `replace(replace(replace(replace(${text}, e'\\\\', e'\\\\\\\\'), e'\\n', e'\\\\n'), e'\\t', e'\\\\t'), e'\\r', e'\\\\r')`
}

/**
 * The declared `types` of the key and of `columns` as they are now, in one array, and whether some are `enums`. Text for references, which travel as record ids. Null for a type that
 * may be something else elsewhere under the same name, unless it is an enum: a label that is not there is refused. Null, too, for a column that was
 * one whose text needs no escape and is another now.
 */
export function declaredSql(resource: ResourceInfo, columns: readonly Column[]): RawBuilder<unknown> {
  const names = [resource.keyColumn, ...columns.map(({ name }) => name)]
  const refers = (name: string) => resource.references.some(({ column }) => column.name === name)
  const bare = [null, ...columns.map((column) => (isBare(column) && !refers(column.name) ? column.baseType : null))]
  const reference = [false, ...columns.map(({ name }) => refers(name))]
  return sql`
    select array_agg(case when c.reference then 'text'
             when t.typnamespace = 'pg_catalog'::regnamespace and coalesce(t.typname = c.bare, true) or t.typtype = 'e' and c.bare is null
             then format_type(a.atttypid, a.atttypmod) end order by c.n) as types,
           coalesce(bool_or(t.typtype = 'e'), false) as enums
      from unnest(${names}::text[], ${bare}::text[], ${reference}::bool[]) with ordinality c(name, bare, reference, n)
      left join pg_attribute a on a.attrelid = ${resource.tableOid}::oid and a.attname = c.name and not a.attisdropped
      left join pg_type t on t.oid = a.atttypid`
}
