import { type RawBuilder, sql } from 'kysely'
import {
  bindLiteral,
  elementKind,
  type FilterLiteral,
  type FilterOperand,
  type FilterReference,
  type FilterTerm,
  type FilterTree,
  formatOperand,
  type ResolvedColumn,
  type ResolvedColumns,
  type ValueKind,
} from '../sync/index.ts'

/**
 * A filter as a condition on the live table `alias`, with the columns that resolveFilter found. True or false, never null: what SQL calls
 * unknown does not match, so the condition may also stand in a select list, in `case` and behind `not`. It is false where a left join found no row.
 * It agrees with `evaluate` for every record; text compares by collation "C".
 */
export function filterSql(tree: FilterTree, columns: ResolvedColumns, alias: string): RawBuilder<boolean> {
  return sql<boolean>`(${condition(tree, columns, alias)} is true)`
}

type Sql = RawBuilder<unknown>

function condition(tree: FilterTree, columns: ResolvedColumns, alias: string): Sql {
  switch (tree.kind) {
    case 'and':
      return sql`(${sql.join(
        tree.trees.map((part) => condition(part, columns, alias)),
        sql` and `,
      )})`
    case 'or':
      return sql`(${sql.join(
        tree.trees.map((part) => condition(part, columns, alias)),
        sql` or `,
      )})`
    case 'not':
      return sql`(not ${condition(tree.tree, columns, alias)})`
    default:
      return termSql(tree, resolvedColumn(tree.operand, columns), alias)
  }
}

function termSql(term: FilterTerm, column: ResolvedColumn, alias: string): Sql {
  switch (term.kind) {
    case 'null':
      return nullSql(column, alias, term.negated)
    case 'compare': {
      const operator = term.operator === '!=' ? '<>' : term.operator
      const [text = ''] = boundTexts(column.kind, [term.value])
      return sql`(${comparedSql(column, alias)} ${sql.raw(operator)} ${text}::${typeOf(column, [text])})`
    }
    case 'in': {
      const texts = boundTexts(column.kind, term.values)
      const test = term.negated ? sql`<> all` : sql`= any`
      return sql`(${comparedSql(column, alias)} ${test} (${texts}::${typeOf(column, texts)}[]))`
    }
    case 'has':
      return hasSql(term.value, column, alias, term.negated)
    case 'like': {
      const operator = sql.raw(`${term.negated ? 'not ' : ''}${term.ignoreCase ? 'ilike' : 'like'}`)
      const subject =
        column.kind === 'uuid' ? sql`${valueSql(column, alias)}::text collate "C"` : comparedSql(column, alias)
      return sql`(${subject} ${operator} ${term.pattern}::text)`
    }
  }
}

/** What is null is unknown, what is no list has nothing; a null among its elements is none. */
function hasSql(literal: FilterLiteral, column: ResolvedColumn, alias: string, negated: boolean): Sql {
  const value = valueSql(column, alias)
  const not = negated ? sql`not ` : sql``
  if (column.kind === 'json') {
    const list = JSON.stringify([literal.type === 'number' ? null : literal.value])
    const text = literal.type === 'number' ? `[${literal.value}]` : list
    const found = sql`(case jsonb_typeof(${value}::jsonb) when 'array' then ${value}::jsonb @> ${text}::text::jsonb else false end)`
    return sql`(case when ${nullSql(column, alias, false)} then null else ${not}${found} end)`
  }
  const [text = ''] = boundTexts(elementKind(column.type) ?? 'text', [literal])
  const found = sql`coalesce(${text}::text collate "C" = any (${value}::text[]), false)`
  return sql`(case when ${value} is null then null else ${not}${found} end)`
}

/** A record's JSON cannot tell a null from a JSON null, and a composite value of nulls is a value: so these two are not tested by `is null` itself. */
function nullSql(column: ResolvedColumn, alias: string, negated: boolean): Sql {
  const test = negated ? sql`is not null` : sql`is null`
  if (column.column.ref !== undefined && !column.identity) return sql`(${rawSql(column, alias)} ${test})`
  const value = valueSql(column, alias)
  if (column.kind === 'json') {
    const type = column.type === 'jsonb' ? sql`jsonb_typeof(${value})` : sql`json_typeof(${value})`
    return sql`(nullif(${type}, 'null') ${test})`
  }
  return column.kind === 'opaque' ? sql`(${value}::text ${test})` : sql`(${value} ${test})`
}

/** The value in the type and collation that it is compared in. */
function comparedSql(column: ResolvedColumn, alias: string): Sql {
  const value = valueSql(column, alias)
  if (column.kind !== 'text' && column.kind !== 'padded' && column.kind !== 'opaque') return value
  const text = column.type === 'text' || column.type === 'varchar' ? value : sql`${value}::text`
  return sql`${text} collate "C"`
}

/** The value to compare: that of the column, or for a reference column the id of the record it leads to. */
function valueSql(column: ResolvedColumn, alias: string): Sql {
  const { ref } = column.column
  if (ref === undefined || column.identity) return rawSql(column, alias)
  return throughSql(column, alias, (inner) => {
    const foreignKey = sql.id(inner, column.column.name)
    return ref.targetColumn === ref.keyColumn
      ? foreignKey
      : targetSql(ref, foreignKey, `${inner}_target`, (target) => sql.id(target, ref.keyColumn))
  })
}

/** The value as the column holds it. */
function rawSql(column: ResolvedColumn, alias: string): Sql {
  return throughSql(column, alias, (inner) => sql.id(inner, column.column.name))
}

/** A scalar subquery gives null for a null reference, which is what SQL's logic needs; `exists` would turn unknown into false. */
function throughSql({ via }: ResolvedColumn, alias: string, read: (alias: string) => Sql): Sql {
  if (via === undefined) return read(alias)
  return targetSql(via.ref, sql.id(alias, via.name), `${alias}_parent`, read)
}

function targetSql(ref: FilterReference, foreignKey: Sql, alias: string, read: (alias: string) => Sql): Sql {
  const table = sql.id(ref.table.schema, ref.table.name)
  return sql`(select ${read(alias)} from ${table} as ${sql.id(alias)} where ${sql.id(alias, ref.targetColumn)} = ${foreignKey})`
}

const TYPES: Readonly<Record<Exclude<ValueKind, 'integer'>, string>> = {
  numeric: 'numeric',
  float4: 'float4',
  float8: 'float8',
  boolean: 'bool',
  text: 'text',
  padded: 'text',
  opaque: 'text',
  uuid: 'uuid',
  date: 'date',
  timestamp: 'timestamp',
  timestamptz: 'timestamptz',
  time: 'time',
  json: 'text',
  incomparable: 'text',
}

/** The type of the constants: that of the column, so that an index serves, or a wider one that an integer constant needs. */
function typeOf(column: ResolvedColumn, texts: readonly string[]): Sql {
  return sql.raw(column.kind === 'integer' ? integerType(column.type, texts) : TYPES[column.kind])
}

const INTEGER_BITS: ReadonlyMap<string, number> = new Map([
  ['int2', 16],
  ['int4', 32],
  ['int8', 64],
])

function integerType(type: string, texts: readonly string[]): string {
  const fits = (bits: number | undefined) =>
    bits !== undefined &&
    texts.every((text) => /^-?\d{1,19}$/.test(text) && BigInt.asIntN(bits, BigInt(text)) === BigInt(text))
  if (fits(INTEGER_BITS.get(type))) return type
  return fits(64) ? 'int8' : 'numeric'
}

function boundTexts(kind: ValueKind, literals: readonly FilterLiteral[]): string[] {
  return literals.map((literal) => {
    const bound = bindLiteral(kind, literal)
    if (typeof bound === 'string') throw new Error(`A filter met columns that it was not resolved with: ${bound}`)
    return bound.text
  })
}

function resolvedColumn(operand: FilterOperand, columns: ResolvedColumns): ResolvedColumn {
  const column = columns.get(formatOperand(operand))
  if (column === undefined) throw new Error(`Column ${formatOperand(operand)} of the filter was not resolved`)
  return column
}
