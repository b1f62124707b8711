import { type RawBuilder, sql, type Transaction } from 'kysely'
import type { LineBatch } from '../sync/index.ts'
import { type ApplyContext, applyLines } from './apply.ts'
import { isKept, keptValueSql, keptValuesSql } from './kept-values.ts'
import { jsonArraySql, payloadSql } from './lines-sql.ts'
import { quoteIdent } from './quote.ts'
import { originsOf, type SelfEntry } from './registry/index.ts'
import { type Column, liveTable, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

/** How to write an undo: the context of a batch, but for the resource. */
export type UndoWrite = {
  readonly self: SelfEntry
  readonly resources: readonly ResourceInfo[]
  readonly context: Omit<ApplyContext, 'resource'>
  readonly rowsMax: number
  readonly bytesMax: number
  /** Sees each batch before it is written. */
  readonly onBatch: (resource: ResourceInfo, batch: LineBatch) => Promise<void>
}

type Kind = 'p' | 'd'

/**
 * Writes what is due in `syncline_undo`, in sets, through the ordinary way of applying, as writes of this site that have seen what is here. Children go
 * before their parents and come back after them; what is refused is tried again while anything else moves, as it may free a reference or
 * a unique value. What is left then is blocked, with the database's reason.
 */
export async function writeUndo(trx: Transaction<Database>, write: UndoWrite): Promise<void> {
  for (;;) {
    let done = 0
    for (const resource of write.resources.toReversed()) done += await writeKind(trx, write, resource, 'd')
    for (const resource of write.resources) done += await writeKind(trx, write, resource, 'p')
    if (done > 0) continue
    const { rows } = await sql`select from pg_temp.syncline_undo where state = 'due' limit 1`.execute(trx)
    if (rows.length === 0) return
    if (!(await deleteCycles(trx, write))) break
  }
  await sql`update pg_temp.syncline_undo set state = 'blocked' where state = 'due'`.execute(trx)
}

/** Tries each record of a resource that is due once, in batches of one set of columns; gives how many were written. */
async function writeKind(
  trx: Transaction<Database>,
  write: UndoWrite,
  resource: ResourceInfo,
  kind: Kind,
): Promise<number> {
  let done = 0
  const { rows: sets } = await sql<{ keys: readonly string[] | null }>`
    select distinct u.keys from pg_temp.syncline_undo u where ${dueOf(resource, kind)}`.execute(trx)
  for (const { keys } of sets) {
    for (let after = ''; ; ) {
      const tried = await nextChunk(trx, write, resource, kind, keys, after)
      const last = tried.at(-1)
      if (last === undefined) break
      after = last
      const ids = await holdRows(trx, write, resource, tried)
      const batch = await linesOf(trx, write, resource, kind, { ids, keys })
      if (batch.count === 0) continue
      await write.onBatch(resource, batch)
      await applyLines(trx, { ...write.context, resource }, batch)
      done += await noteOutcomes(trx, resource)
    }
  }
  return done
}

const dueOf = (resource: ResourceInfo, kind: Kind) =>
  sql`u.resource_id = ${sql.lit(resource.id)} and u.state = 'due' and u.kind = ${kind}::"char"`

type Chunk = { readonly ids: readonly string[]; readonly keys: readonly string[] | null }

/** Records after one that can go in one batch, in order: bounded in rows and bytes; one record always fits. */
async function nextChunk(
  trx: Transaction<Database>,
  { rowsMax, bytesMax }: UndoWrite,
  resource: ResourceInfo,
  kind: Kind,
  keys: Chunk['keys'],
  after: string,
): Promise<readonly string[]> {
  const bytes =
    kind === 'd' ? sql`0` : sql`(select octet_length(h.data::text) from syncline.history h where h.id = s.first_id)`
  const { rows } = await sql<{ id: string }>`
    with bounded as materialized (
      select u.record_id, u.first_id from pg_temp.syncline_undo u
       where ${dueOf(resource, kind)} and u.record_id > ${after} collate "C" and u.keys is not distinct from ${keys}::text[]
       order by u.record_id limit ${rowsMax}
    ), sized as (
      select s.record_id, row_number() over w as n, sum(100 + coalesce(${bytes}, 0)) over w as total from bounded s window w as (order by s.record_id)
    )
    select record_id as id from sized where n = 1 or total <= ${bytesMax} order by n`.execute(trx)
  return rows.map(({ id }) => id)
}

/**
 * Holds the rows before their versions are read, in key order, so that nothing comes between what an undo has seen and what it writes. Gives
 * the records that are held or have no row; a row that an application holds for long is left, as blocked.
 */
async function holdRows(
  trx: Transaction<Database>,
  { context }: UndoWrite,
  resource: ResourceInfo,
  ids: readonly string[],
): Promise<readonly string[]> {
  const key = sql.id(resource.keyColumn)
  const wanted = sql`(select id::${sql.raw(resource.keyType)} as key from unnest(${[...ids]}::text[]) id order by id collate "C" offset 0)`
  const rows = sql`select t.${key}::text collate "C" as id from ${wanted} w join ${sql.raw(liveTable(resource))} t on t.${key} = w.key`
  await sql`select set_config('lock_timeout', ${`${context.lockWaitMs}ms`}, true)`.execute(trx)
  let held = ids
  if (context.patience === 'set aside') {
    const { rows: busy } = await sql<{ id: string }>`
      with living as materialized (${rows}), got as materialized (${rows} for no key update of t skip locked)
      select id from living where id not in (select id from got)`.execute(trx)
    const away = new Set(busy.map(({ id }) => id))
    held = ids.filter((id) => !away.has(id))
    await sql`
      update pg_temp.syncline_undo set state = 'blocked', code = 'SYNC_RECORD_IN_USE', reason = 'a transaction of the application holds the row'
       where resource_id = ${resource.id} and record_id = any(${[...away]}::text[])`.execute(trx)
  } else await sql`select from (${rows} for no key update of t) held`.execute(trx)
  await sql`select from syncline.record r where r.resource_id = ${resource.id} and r.deleted and r.record_id = any(${[...held]}::text[])
    order by r.record_id for update`.execute(trx)
  // What was changed between the plan and the lock was changed since the run.
  await sql`
    update pg_temp.syncline_undo u set state = 'since' where u.resource_id = ${resource.id} and u.record_id = any(${[...held]}::text[])
       and not exists (select from syncline.record r where r.resource_id = u.resource_id and r.record_id = u.record_id
                          and (r.origin, r.clock) = (u.p_origin, u.p_clock))
       and not (u.p_clock is null and not exists (
         select from syncline.record r where r.resource_id = u.resource_id and r.record_id = u.record_id))`.execute(trx)
  return held
}

/** Lines with new versions of this site for records that are held: what was before the run, or their deletion. */
async function linesOf(
  trx: Transaction<Database>,
  { self }: UndoWrite,
  resource: ResourceInfo,
  kind: Kind,
  chunk: Chunk,
): Promise<LineBatch> {
  const columns = kind === 'd' ? [] : sentColumns(resource).filter((column) => chunk.keys?.includes(column.name))
  const ordered = inPayloadOrder(resource, columns)
  const payload = kind === 'd' ? sql`''` : pastPayload(resource, columns)
  const { rows } = await sql<{ text: string | null; count: number; origins: readonly number[] | null }>`
    with due as materialized (
      select u.record_id, u.first_id,
             case when r.clock is null then now.us else syncline.next_clock(r.origin, r.clock, r.seen, ${self.siteId}, now.us) end as clock,
             case when r.clock is not null then syncline.next_seen(r.origin, r.clock, r.seen, ${self.siteId}) end as seen
        from pg_temp.syncline_undo u
        cross join (select (extract(epoch from clock_timestamp()) * 1000000)::int8 as us) now
        left join syncline.record r on r.resource_id = u.resource_id and r.record_id = u.record_id
       where u.resource_id = ${resource.id} and u.state = 'due' and u.record_id = any(${[...chunk.ids]}::text[])
    ), origins as materialized (
      select array_agg(distinct key::int4) as list from due, jsonb_object_keys(due.seen) key where due.seen is not null
    )
    select string_agg(to_json(d.record_id)::text || e'\\t' || d.clock || e'\\t0\\t'
             || coalesce((select jsonb_object_agg(array_position(o.list, key::int4), value)::text from jsonb_each(d.seen)), '')
             || e'\\t' || ${kind}::text || e'\\t' || coalesce(${payload}, ''), e'\\n' order by d.record_id) as text,
           count(*)::int as count, min(o.list) as origins
      from due d cross join origins o`.execute(trx)
  const [row] = rows
  const refs = resource.references.filter(({ column }) => ordered.includes(column))
  return {
    resource: resource.name,
    columns: ordered.map(({ name }) => name),
    refs: Object.fromEntries(refs.map((each) => [each.column.name, each.resource])),
    origins: [self.origin, ...(await originsOf(trx, row?.origins ?? []))],
    text: row?.text ?? '',
    count: row?.count ?? 0,
  }
}

/** What history keeps beside the row comes last. */
function inPayloadOrder(resource: ResourceInfo, columns: readonly Column[]): readonly Column[] {
  const kept = columns.filter((column) => isKept(resource, column))
  return [...columns.filter((column) => !kept.includes(column)), ...kept]
}

/** The payload of a line from what history kept of the row: through the row type, so that each value reads as it would have then. */
function pastPayload(resource: ResourceInfo, columns: readonly Column[]): RawBuilder<unknown> {
  const kept = columns.filter((column) => isKept(resource, column))
  const plain = columns.filter((column) => !kept.includes(column))
  const beside = jsonArraySql(kept.map((column) => keptValueSql(resource, column)))
  const values = payloadSql(resource, plain)
  const both =
    kept.length === 0 ? values : plain.length === 0 ? beside : `left(${values}, -1) || ', ' || substr(${beside}, 2)`
  return sql`(select ${sql.raw(both)} from syncline.history h cross join lateral json_populate_record(null::${sql.raw(liveTable(resource))}, h.data) t
    where h.id = d.first_id)`
}

async function noteOutcomes(trx: Transaction<Database>, resource: ResourceInfo): Promise<number> {
  const { numAffectedRows } = await sql`
    update pg_temp.syncline_undo u set state = 'done', code = null, reason = null from pg_temp.syncline_stage s
     where u.resource_id = ${resource.id} and u.record_id = s.id and u.state = 'due' and s.class in ('n', 'f', 's')`.execute(
    trx,
  )
  await sql`
    update pg_temp.syncline_undo u set code = coalesce(s.code, 'SYNC_STORE_BUSY'), reason = coalesce(s.reason, 'somebody changed it at the same moment')
      from pg_temp.syncline_stage s
     where u.resource_id = ${resource.id} and u.record_id = s.id and u.state = 'due'`.execute(trx)
  return Number(numAffectedRows ?? 0)
}

/**
 * Records that refer to each other in a circle can only go together: their references within the circle are emptied first, and all of them are
 * deleted in the same transaction or none is touched. The full values are kept for who undoes the undo. True when something was deleted.
 */
async function deleteCycles(trx: Transaction<Database>, write: UndoWrite): Promise<boolean> {
  await sql`savepoint syncline_cycle`.execute(trx)
  let emptied = 0
  for (const resource of write.resources) {
    const loose = resource.references.filter((each) => each.cyclic && !each.column.notNull)
    if (loose.length > 0) emptied += await emptyReferences(trx, write, resource, loose)
  }
  if (emptied === 0) return false
  let done = 0
  for (let moved = 1; moved > 0; done += moved) {
    moved = 0
    for (const resource of write.resources.toReversed()) moved += await writeKind(trx, write, resource, 'd')
  }
  const { rows: left } = await sql`
    select from pg_temp.syncline_undo where state = 'due' and kind = 'd' limit 1`.execute(trx)
  if (left.length === 0 && done > 0) return true
  await sql`rollback to savepoint syncline_cycle`.execute(trx)
  return false
}

async function emptyReferences(
  trx: Transaction<Database>,
  { context }: UndoWrite,
  resource: ResourceInfo,
  loose: ResourceInfo['references'],
): Promise<number> {
  const key = quoteIdent(resource.keyColumn)
  const names = loose.map(({ column }) => quoteIdent(column.name))
  const going = sql`u.resource_id = ${resource.id} and u.state = 'due' and u.kind = 'd' and t.${sql.raw(key)} = u.record_id::${sql.raw(resource.keyType)}
    and (${sql.raw(names.map((name) => `t.${name} is not null`).join(' or '))})`
  await sql`
    insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data, refs, xact, source, by_origin, by_clock)
    select ${resource.id}, r.record_id, ${context.runId}::int8, 'replaced', r.origin, r.clock, r.seen, false, row_to_json(t.*), ${sql.raw(keptValuesSql(resource))},
           r.xact, r.source, r.origin, r.clock
      from pg_temp.syncline_undo u join syncline.record r on r.resource_id = u.resource_id and r.record_id = u.record_id, ${sql.raw(liveTable(resource))} t
     where ${going}`.execute(trx)
  await sql`select set_config('syncline.apply', ${String(resource.id)}, true)`.execute(trx)
  const { numAffectedRows } = await sql`
    update ${sql.raw(liveTable(resource))} t set ${sql.raw(names.map((name) => `${name} = null`).join(', '))} from pg_temp.syncline_undo u where ${going}`.execute(
    trx,
  )
  await sql`select set_config('syncline.apply', '', true)`.execute(trx)
  return Number(numAffectedRows ?? 0)
}
