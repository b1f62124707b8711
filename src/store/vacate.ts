import { type RawBuilder, sql, type Transaction } from 'kysely'
import type { DatabaseError } from './explain.ts'
import { quoteIdent } from './quote.ts'
import { type Column, liveTable } from './resources.ts'
import type { Database } from './schema.ts'
import type { WriteContext } from './write.ts'

/** A column whose unique values the records of a batch hand to one another, and what each holds in between: an expression over rows `t` and `s`. */
export type Vacated = {
  readonly column: Column
  readonly meanwhile: string
  /** The columns of the index: a record whose values in them stay is in nobody's way. */
  readonly index: readonly { readonly column: Column; readonly at: number }[]
}

/**
 * How the records of a batch can give up what an index refuses, before any of them takes its new value: rows that swap unique values are each in
 * the way of the other, whatever the order. Null where the error is another one, or no column of the index can be told what to hold meanwhile.
 */
export async function vacancyFor(
  trx: Transaction<Database>,
  write: WriteContext,
  error: DatabaseError,
): Promise<Vacated | null> {
  if (error.code !== '23505' || error.constraint === undefined) return null
  const { rows } = await sql<{ name: string; room: number | null }>`
    select a.attname as name, case when a.atttypmod > 4 then a.atttypmod - 4 end as room
      from pg_index i join pg_class c on c.oid = i.indexrelid
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
     where i.indrelid = ${write.resource.tableOid}::oid and c.relname = ${error.constraint} and i.indisunique`.execute(
    trx,
  )
  const index = write.columns.filter(({ column }) => rows.some(({ name }) => name === column.name))
  const candidates = index.flatMap(({ column }) => {
    const meanwhile = meanwhileSql(column, rows.find(({ name }) => name === column.name)?.room ?? null)
    return meanwhile === null ? [] : [{ column, meanwhile, index }]
  })
  return candidates.find(({ column }) => !column.notNull) ?? candidates[0] ?? null
}

/** A value that no other row has: null where the column takes it. */
function meanwhileSql(column: Column, room: number | null): string | null {
  if (!column.notNull) return `null::${column.type}`
  switch (column.baseType) {
    case 'text':
    case 'varchar':
      return `left(md5(s.key::text), ${room ?? 32})`
    case 'int2':
    case 'int4':
    case 'int8':
    case 'numeric':
    case 'float4':
    case 'float8':
      return `(-s.n)::${column.type}`
    case 'uuid':
      return 'gen_random_uuid()'
    case 'date':
    case 'timestamp':
    case 'timestamptz':
      return `(timestamp '4713-01-01' + s.n * interval '1 day')::${column.type}`
    default:
      return null
  }
}

/** Makes the records that `staged` (key, n, v) gives change their unique values to what they hold meanwhile. */
export async function vacate(
  trx: Transaction<Database>,
  write: WriteContext,
  staged: RawBuilder<unknown>,
  incoming: (each: Vacated['index'][number]) => string,
): Promise<void> {
  for (const each of write.vacated ?? []) {
    const name = quoteIdent(each.column.name)
    const differs = each.index.map((part) => `t.${quoteIdent(part.column.name)} is distinct from (${incoming(part)})`)
    await sql`
      update ${sql.raw(liveTable(write.resource))} t set ${sql.raw(name)} = ${sql.raw(each.meanwhile)} from (${staged}) s
       where t.${sql.id(write.resource.keyColumn)} = s.key and (${sql.raw(differs.join(' or '))})`.execute(trx)
  }
}
