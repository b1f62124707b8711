import { type RawBuilder, sql, type Transaction } from 'kysely'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { EMPTYING, type IncomingKey, incomingKeys } from './stage.ts'

/** Staged rows whose live row is to go: deleted, or removed as it left the filter. */
const goes = (alias: string) =>
  sql.raw(`(${alias}.kind = 'd' and ${alias}.class = 'f' and not ${alias}.l_deleted or ${alias}.class = 'r')`)

/**
 * Sets aside deletions of rows that others still refer to. A cascade is never left to the database: it would delete records
 * that the peer has not deleted, perhaps never seen. They go when those records are deleted themselves.
 * Who refers to what is found once, for all staged rows together; a row that stays keeps its own parents, however deep the tree.
 */
export async function markBlockedDeletes(trx: Transaction<Database>, resource: ResourceInfo): Promise<void> {
  const keys = await incomingKeys(trx, resource)
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from pg_temp.syncline_stage s where ${goes('s')}`.execute(trx)
  const count = rows[0]?.count ?? 0
  if (keys.length === 0 || count === 0) return
  await sql`create temporary table if not exists syncline_block (n int not null, child int, why text not null) on commit delete rows`.execute(
    trx,
  )
  await sql`delete from pg_temp.syncline_block`.execute(trx)
  // Sets of rows meet sets of rows here, and a referring column without an index can only be read once for all of them.
  await sql`select set_config('enable_hashjoin', 'on', true)`.execute(trx)
  for (const foreign of keys) await findReferring(trx, resource, foreign, count)
  await sql`
    with recursive blocked as (
      select n from pg_temp.syncline_block where child is null
      union select b.n from pg_temp.syncline_block b join blocked k on b.child = k.n
    )
    update pg_temp.syncline_stage s set class = 'b', code = 'SYNC_RECORD_STILL_REFERENCED', reason = w.why
      from (select b.n, min(b.why) as why from pg_temp.syncline_block b join blocked k on k.n = b.n group by b.n) w where w.n = s.n`.execute(
    trx,
  )
  await sql`select set_config('enable_hashjoin', 'off', true)`.execute(trx)
}

/** Notes which staged rows others refer to by one foreign key: `child` is the place of the one that refers where that one is to go too. */
async function findReferring(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  foreign: IncomingKey,
  count: number,
): Promise<void> {
  const self = Number(foreign.child_oid) === resource.tableOid
  const key = sql.id(resource.keyColumn)
  const table = sql.raw(liveTable(resource))
  const child = sql.raw(foreign.child)
  const columns = foreign.columns.map((column, n) => sql`t.${sql.id(column)} as ${sql.raw(`k${n}`)}`)
  const refers = sql.join(
    foreign.columns.map((_, n) => sql`c.${sql.id(foreign.child_columns[n] ?? '')} = g.${sql.raw(`k${n}`)}`),
    sql` and `,
  )
  // A deletion empties such references; a record that only left a filter is still referred to elsewhere.
  const holds = EMPTYING.has(foreign.action) ? sql`s.class = 'r'` : sql`true`
  const why = `rows of ${foreign.child} still refer to it by ${foreign.child_columns.join(', ')}`
  const id: RawBuilder<unknown> = self ? sql`c.${key}::text collate "C"` : sql`null::text`
  // So many at most can be going themselves: one more is one that stays. Of another table any one does.
  const enough = sql.lit(self ? count + 1 : 1)
  const referring = foreign.indexed
    ? sql`cross join lateral (select ${id} as id from ${child} c where ${refers} limit ${enough}) c`
    : sql`join (select c.*, ${id} as referring from ${child} c) c on ${refers}`
  const found = foreign.indexed ? sql`c.id` : sql`c.referring`
  await sql`
    insert into pg_temp.syncline_block (n, child, why)
    with going as materialized (
      select s.n, t.* from pg_temp.syncline_stage s
        cross join lateral (select ${sql.join(columns)} from ${table} t where t.${key} = s.id::${sql.raw(resource.keyType)} offset 0) t
       where ${goes('s')} and ${holds}
    )
    select distinct g.n, d.n, ${why}::text from going g ${referring}
      left join (select n, id from pg_temp.syncline_stage s where ${goes('s')}) d on d.id = ${found}`.execute(trx)
}
