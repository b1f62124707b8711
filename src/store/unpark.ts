import { sql, type Transaction } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { quoteIdent } from './capture.ts'
import { type Column, liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { incomingSql } from './write.ts'

/**
 * Fills columns that a table has got meanwhile with what peers sent for them before. The rows keep their versions: their content was always this,
 * only the column was missing. A reference to a record that is not here stays parked.
 * Errors: SYNC_RESOURCE_UNSUITABLE when the values do not fit the column.
 */
export async function unpark(trx: Transaction<Database>, resource: ResourceInfo): Promise<void> {
  const { rows } = await sql<{ name: string }>`
    select distinct jsonb_object_keys(fields) as name from syncline.parked where resource_id = ${resource.id}`.execute(
    trx,
  )
  const names = new Set(rows.map((row) => row.name))
  for (const column of resource.columns.filter((each) => each.sent && names.has(each.name))) {
    try {
      await fill(trx, resource, column)
    } catch (cause) {
      const why = `what peers sent for column "${column.name}" does not fit it: ${(cause as Error).message}`
      throw new SynclineError('SYNC_RESOURCE_UNSUITABLE', `${resource.tableSchema}.${resource.tableName}: ${why}`, {
        cause,
      })
    }
  }
  await sql`delete from syncline.parked where resource_id = ${resource.id} and fields = '{}'`.execute(trx)
}

async function fill(trx: Transaction<Database>, resource: ResourceInfo, column: Column): Promise<void> {
  const key = sql.id(resource.keyColumn)
  const reference = resource.references.find((each) => each.column.name === column.name)
  const there =
    reference === undefined
      ? sql``
      : sql`and (k.fields ->> ${column.name} is null or exists (
          select from ${sql.raw(`${quoteIdent(reference.tableSchema)}.${quoteIdent(reference.tableName)}`)} p
           where p.${sql.id(reference.targetKey)} = (k.fields ->> ${column.name})::${sql.raw(reference.targetKeyType)}))`
  await sql`select set_config('syncline.apply', ${String(resource.id)}, true)`.execute(trx)
  await sql`
    with s as materialized (
      select k.record_id, k.record_id::${sql.raw(resource.keyType)} as key, one.v, one.v::text as payload
        from syncline.parked k cross join lateral (select jsonb_build_array(k.fields -> ${column.name}) as v) one
       where k.resource_id = ${resource.id} and k.fields ? ${column.name} ${there}
    ), filled as (
      update ${sql.raw(liveTable(resource))} t set ${sql.id(column.name)} = ${sql.raw(incomingSql({ resource }, { column, at: 0 }))}
        from s where t.${key} = s.key
    )
    update syncline.parked k set fields = k.fields - ${column.name}::text
      from s where k.resource_id = ${resource.id} and k.record_id = s.record_id`.execute(trx)
  await sql`select set_config('syncline.apply', '', true)`.execute(trx)
}
