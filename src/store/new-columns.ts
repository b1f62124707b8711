import { sql, type Transaction } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { nextFields, nextVersion } from './capture-function.ts'
import { exactPayload, inexactOf } from './exact.ts'
import { quoteIdent, quoteLiteral } from './quote.ts'
import { forgetParked } from './relay.ts'
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
  await forgetParked(trx, resource.id)
}

/**
 * Rows with something in a column that is synced from now on are changes of this site: until now that column did not travel, and peers that know
 * their version would never ask for it. A value that is only the column's constant default is the same elsewhere, and what `unpark` fills is
 * known to whoever sent it.
 */
export async function announceNew(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  before: ResourceInfo,
): Promise<void> {
  const known = new Set(before.columns.filter((each) => each.sent).map((each) => each.name))
  const added = resource.columns.filter((each) => each.sent && !known.has(each.name))
  if (added.length === 0) return
  const { rows: defaults } = await sql<{ name: string; value: string }>`
    select a.attname::text as name, pg_get_expr(d.adbin, d.adrelid) as value from pg_attrdef d
      join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
     where d.adrelid = ${resource.tableOid}::oid and position('(' in pg_get_expr(d.adbin, d.adrelid)) = 0`.execute(trx)
  const given = added.map(({ name }) => {
    const value = `t.${quoteIdent(name)}`
    const usual = defaults.find((each) => each.name === name)
    const differs = usual === undefined ? '' : ` and ${value}::text is distinct from (${usual.value})::text`
    return `${value} is not null${differs}`
  })
  const id = `t.${quoteIdent(resource.keyColumn)}::text collate "C"`
  // One time for all: what stands behind a field is the very write that its version names.
  const { rows: times } = await sql<{
    us: string
  }>`select (extract(epoch from clock_timestamp()) * 1000000)::int8 as us`.execute(trx)
  const now = `${BigInt(times[0]?.us ?? 0)}::int8`
  const names = JSON.stringify(Object.fromEntries(added.map(({ name }) => [name, null])))
  const changed = resource.marks === null ? 'null' : nextFields(`${quoteLiteral(names)}::jsonb`, 'excluded.origin', now)
  await sql`
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select ${resource.id}, ${sql.raw(id)}, pg_current_xact_id(), self.site_id, ${sql.raw(now)}, false
      from ${sql.raw(liveTable(resource))} t, syncline.self
     where (${sql.raw(given.join(' or '))}) and not exists (
       select from syncline.parked k where k.resource_id = ${resource.id} and k.record_id = ${sql.raw(id)}
         and k.fields ?| ${added.map(({ name }) => name)}::text[])
     order by 2
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, ${sql.raw(nextVersion('excluded.origin', now, changed))}, source = null, deleted = false`.execute(
    trx,
  )
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
  const inexact = await inexactOf(trx, resource, [{ column, at: 0 }])
  await sql`select set_config('syncline.apply', ${String(resource.id)}, true)`.execute(trx)
  await sql`
    with s as materialized (
      select k.record_id, k.record_id::${sql.raw(resource.keyType)} as key, ${sql.raw(exactPayload(inexact, 'one.v', 'k.record_id'))} as v, one.v::text as payload
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
