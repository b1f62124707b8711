import { referenceSql, valueSql } from './lines-sql.ts'
import { quoteIdent, quoteLiteral } from './quote.ts'
import type { Column, ResourceInfo } from './resources.ts'

/**
 * What history keeps of live row `t` beside the row itself, as jsonb by column, each value as it travels: record ids behind references that the row
 * does not tell, or not for long (numbers of this database, and what is awaited), and documents that are JSON's null, which a row in JSON does not tell
 * from no document.
 */
export function keptValuesSql(resource: ResourceInfo): string {
  const references = keptReferences(resource)
  const parts = references.map(
    (each) => `jsonb_build_object(${quoteLiteral(each.column.name)}, ${referenceSql(resource, each)})`,
  )
  for (const column of resource.columns) {
    const odd = oddSql(column)
    if (odd === null) continue
    const wire = `jsonb_build_object(${quoteLiteral(column.name)}, to_jsonb(${valueSql(column, 't')}))`
    parts.push(`case when ${odd} then ${wire} else '{}'::jsonb end`)
  }
  return parts.length === 0 ? 'null::jsonb' : `nullif(${parts.join(' || ')}, '{}'::jsonb)`
}

export function keptReferences(resource: ResourceInfo): ResourceInfo['references'] {
  return resource.references.filter((reference) => !reference.direct || reference.cyclic)
}

/** Columns of which history may keep more than the row tells. */
export function isKept(resource: ResourceInfo, column: Column): boolean {
  return oddSql(column) !== null || keptReferences(resource).some((each) => each.column.name === column.name)
}

/** The value of a column from history entry `h`, whose row is `t`, as it travels. */
export function keptValueSql(resource: ResourceInfo, column: Column): string {
  const name = quoteLiteral(column.name)
  const reference = keptReferences(resource).find((each) => each.column.name === column.name)
  return reference === undefined
    ? `case when h.refs ? ${name} then (h.refs -> ${name})::text::json else to_json(${valueSql(column, 't')}) end`
    : `case when h.refs ? ${name} then h.refs ->> ${name} else ${referenceSql(resource, reference)} end`
}

/** When a row in JSON loses something of a column; null where it never does. */
function oddSql({ name, form, baseType }: Column): string | null {
  const value = `t.${quoteIdent(name)}`
  if (form === 'json')
    return baseType === 'jsonb' ? `jsonb_typeof(${value}) = 'null'` : `json_typeof(${value}) = 'null'`
  if (baseType === '_json' || baseType === '_jsonb')
    return `exists (select from unnest(${value}) e where e::text = 'null')`
  return null
}
