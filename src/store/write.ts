import { type RawBuilder, sql, type Transaction } from 'kysely'
import { COUNTED, countingInsert, notWhole } from './digest-sum.ts'
import { exactPayload, type Inexact } from './exact.ts'
import { keptValuesSql } from './kept-values.ts'
import { jsonFromWireSql } from './lines-sql.ts'
import { quoteIdent, quoteLiteral } from './quote.ts'
import { noteParked } from './relay.ts'
import { type Column, liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { emptyOwnReferences, type StageCounts } from './stage.ts'
import { type Vacated, vacate } from './vacate.ts'

export type WriteContext = {
  readonly resource: ResourceInfo
  /** Columns of the batch that this table has, with their place in the payload. */
  readonly columns: readonly { readonly column: Column; readonly at: number }[]
  /** Columns to which the task gives a fixed value, as text of the database. */
  readonly constants: readonly { readonly column: Column; readonly constant: string | null }[]
  /** How many values each record of the batch has. */
  readonly width: number
  /** Columns of the batch that this table has not: kept in `parked`. */
  readonly unknown: readonly { readonly name: string; readonly at: number }[]
  /** Site the batch came from; versions settled here are announced to everybody instead. */
  readonly source: number | null
  readonly runId: string | null
  /** The policy that settles what is concurrent, for whoever asks later. */
  readonly rule: string
  /** Condition that living rows must meet before and after (alias `t`), where the peer's grant has a filter. */
  readonly filter?: RawBuilder<boolean> | undefined
  /** What the table would not keep as it is; null where it keeps everything. */
  readonly inexact?: Inexact | null | undefined
  /** Unique columns that the records of a batch first give up, where they turned out to be in each other's way. */
  readonly vacated?: readonly Vacated[] | undefined
}

/** A column that is written: from the payload, or a constant. */
export type Written = { readonly column: Column; readonly at: number; readonly constant?: string | null | undefined }

/** Staged rows n in [from, to]. */
export type Range = { readonly from: number; readonly to: number }

/**
 * Writes the staged rows of a range in sets: before-images, live rows, version rows, parked fields, late references.
 * Throws the database's error when one of them is refused; the caller holds a savepoint and looks for the bad one.
 */
export async function writeRange(
  trx: Transaction<Database>,
  context: WriteContext,
  range: Range,
  counts: StageCounts,
): Promise<void> {
  const { resource } = context
  const superseding = (counts.f ?? 0) > 0
  if (superseding) await keepBeforeImages(trx, context, range)
  if (counts.deletes > 0 && superseding) await emptyOwnReferences(trx, resource, within(range))
  await sql`select set_config('syncline.apply', ${String(resource.id)}, true)`.execute(trx)
  if ((counts.r ?? 0) > 0) await removeRows(trx, context, range)
  if (counts.deletes > 0 && superseding) await deleteRows(trx, resource, range)
  if (counts.puts > 0 && superseding) await updateRows(trx, context, range)
  if (counts.puts > 0) await insertRows(trx, context, range, sql`(s.class = 'n' or s.class = 'f' and s.l_deleted)`)
  await sql`select set_config('syncline.apply', '', true)`.execute(trx)
  await writeVersions(trx, context, range, counts)
  if (superseding || (counts.r ?? 0) > 0) await dropParked(trx, resource, range)
  if (context.unknown.length > 0) await parkUnknown(trx, context, range)
  if (resource.references.some((reference) => reference.cyclic)) await keepLateReferences(trx, context, range)
  // What is checked at the end of a transaction would refuse all of it: now it is known whose fault it is.
  await sql`set constraints all immediate`.execute(trx)
}

/** Sets aside what would change or delete rows that do not meet the grant's filter as they are. */
export async function markOutsideFilter(trx: Transaction<Database>, context: WriteContext): Promise<void> {
  if (context.filter === undefined) return
  const { resource } = context
  await sql`
    update pg_temp.syncline_stage s set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'the record does not match the filter of the grant'
      from ${sql.raw(liveTable(resource))} t
     where s.class in ('f', 'c', 'u') and t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)}
       and not coalesce(${context.filter}, false)`.execute(trx)
}

/** Places of the records that were just written and do not meet the grant's filter now. */
export async function outsideFilter(
  trx: Transaction<Database>,
  context: WriteContext,
  range: Range,
): Promise<readonly number[]> {
  if (context.filter === undefined) return []
  const { resource } = context
  const { rows } = await sql<{ n: number }>`
    select s.n from pg_temp.syncline_stage s join ${sql.raw(liveTable(resource))} t on t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)}
     where s.class in ('n', 'f') and s.kind = 'p' and ${within(range)} and not coalesce(${context.filter}, false)`.execute(
    trx,
  )
  return rows.map((row) => row.n)
}

const within = (range: Range) => sql`s.n between ${range.from} and ${range.to}`

async function keepBeforeImages(trx: Transaction<Database>, context: WriteContext, range: Range): Promise<void> {
  const { resource } = context
  await sql`
    insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data, refs, xact, source, by_origin, by_clock, rule)
    select ${resource.id}, s.id, ${context.runId}::int8, case s.kind when 'd' then 'deleted' else 'replaced' end,
           s.l_origin, s.l_clock, s.l_seen, s.l_deleted, row_to_json(t.*), ${sql.raw(keptValuesSql(resource))}, r.xact, r.source,
           s.origin, s.clock, case when s.announce then ${context.rule} end
      from pg_temp.syncline_stage s
      left join lateral (
        select r.xact, r.source from syncline.record r where r.resource_id = ${sql.lit(resource.id)} and r.record_id = s.id offset 0) r on true
      left join ${sql.raw(liveTable(resource))} t on t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)}
     where s.class = 'f' and ${within(range)}`.execute(trx)
}

async function deleteRows(trx: Transaction<Database>, resource: ResourceInfo, range: Range): Promise<void> {
  const gone = sql`s.class = 'f' and s.kind = 'd' and not s.l_deleted and ${within(range)}
    and t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)}`
  await sql`delete from ${sql.raw(liveTable(resource))} t using pg_temp.syncline_stage s where ${gone}`.execute(trx)
  const { rows } =
    await sql`select from pg_temp.syncline_stage s, ${sql.raw(liveTable(resource))} t where ${gone} limit 1`.execute(
      trx,
    )
  if (rows.length > 0) throw ignored('deleted')
}

/** Forgets records that left the filter of the link: no tombstone, they live on elsewhere. */
async function removeRows(trx: Transaction<Database>, context: WriteContext, range: Range): Promise<void> {
  const { resource } = context
  const table = sql.raw(liveTable(resource))
  const removed = sql`s.class = 'r' and ${within(range)} and t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)}`
  await sql`
    insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data, refs)
    select ${resource.id}, s.id, ${context.runId}::int8, 'left', s.l_origin, s.l_clock, s.l_seen, false, row_to_json(t.*), ${sql.raw(keptValuesSql(resource))}
      from pg_temp.syncline_stage s, ${table} t where ${removed}`.execute(trx)
  await sql`delete from ${table} t using pg_temp.syncline_stage s where ${removed}`.execute(trx)
  const { rows } = await sql`select from pg_temp.syncline_stage s, ${table} t where ${removed} limit 1`.execute(trx)
  if (rows.length > 0) throw ignored('deleted')
  await sql`
    delete from syncline.record r using pg_temp.syncline_stage s
     where r.resource_id = ${resource.id} and r.record_id = s.id and s.class = 'r' and ${within(range)}`.execute(trx)
}

/** A trigger or rule of the table that quietly does nothing must not make us believe that a record is here. */
function ignored(what: string): Error {
  const message = `the row was not ${what}, without an error: a trigger or rule of the table must have prevented it`
  return Object.assign(new Error(message), { code: 'P0001' })
}

async function updateRows(trx: Transaction<Database>, context: WriteContext, range: Range): Promise<void> {
  const { resource } = context
  const columns = writtenColumns(context)
  const key = sql.id(resource.keyColumn)
  const table = sql.raw(liveTable(resource))
  const due = sql`s.class = 'f' and s.kind = 'p' and not s.l_deleted and ${within(range)}`
  const rows = stagedRows(context, due)
  const found = sql`exists (select from ${table} t where t.${key} = s.id::${sql.raw(resource.keyType)})`
  if (columns.length > 0) {
    await vacate(trx, context, rows, (each) => incomingSql(context, each))
    const assignments = columns.map((each) => sql`${sql.id(each.column.name)} = ${sql.raw(incomingSql(context, each))}`)
    const { numAffectedRows } =
      await sql`update ${table} t set ${sql.join(assignments)} from (${rows}) s where t.${key} = s.key`.execute(trx)
    const { rows: expected } = await sql<{ count: string }>`
      select count(*) from pg_temp.syncline_stage s where ${due}`.execute(trx)
    if (numAffectedRows === BigInt(expected[0]?.count ?? 0)) return
    const { rows: living } = await sql<{ count: string }>`
      select count(*) from pg_temp.syncline_stage s where ${due} and ${found}`.execute(trx)
    if (numAffectedRows !== BigInt(living[0]?.count ?? 0)) throw ignored('changed')
  }
  // A row that is gone behind the triggers although its record lives is written anew.
  await insertRows(trx, context, range, sql`s.class = 'f' and not s.l_deleted and not ${found}`)
}

async function insertRows(
  trx: Transaction<Database>,
  context: WriteContext,
  range: Range,
  which: RawBuilder<unknown>,
): Promise<void> {
  const { resource } = context
  const columns = writtenColumns(context)
  const names = sql.join([sql.id(resource.keyColumn), ...columns.map((each) => sql.id(each.column.name))])
  const values = sql.raw(['s.key', ...columns.map((each) => incomingSql(context, each))].join(', '))
  const due = sql`s.kind = 'p' and ${which} and ${within(range)}`
  const { rows: expected } = await sql<{ count: string }>`
    select count(*) from pg_temp.syncline_stage s where ${due}`.execute(trx)
  const { numAffectedRows } = await sql`
    insert into ${sql.raw(liveTable(resource))} (${names}) select ${values} from (${stagedRows(context, due)}) s`.execute(
    trx,
  )
  if (numAffectedRows !== BigInt(expected[0]?.count ?? 0)) throw ignored('inserted')
}

/** Columns that are written, with the place of their value in the payload, or the value that the task gives them. */
export function writtenColumns({ columns, constants }: WriteContext): readonly Written[] {
  return [...columns, ...constants.map((each) => ({ ...each, at: -1 }))]
}

/**
 * Staged rows with their payload as `v`, which has a value for each column of the batch, no more and no less (I11), each as the table will keep it:
 * what looks at that is kept from being done for each column anew.
 */
function stagedRows({ resource, width, inexact }: WriteContext, due: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`
    select x.n, x.key, x.payload, case when jsonb_array_length(x.v) = ${sql.lit(width)} then ${sql.raw(exactPayload(inexact, 'x.v', 'x.id'))} else syncline.misfit(x.v, ${sql.lit(width)}) end as v from (
      select s.n, s.id::${sql.raw(resource.keyType)} as key, s.id, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s where ${due} order by s.id offset 0) x${inexact == null ? sql`` : sql` offset 0`}`
}

/** The value of a column from payload array `s.v`. Casts go to the bare type: what is too long is refused by the assignment, never cut. */
export function incomingSql(context: Pick<WriteContext, 'resource'>, each: Written): string {
  const { column, at, constant } = each
  if (constant !== undefined)
    return constant === null ? `null::${column.type}` : `${quoteLiteral(constant)}::${column.type}`
  const text = `(s.v ->> ${at})`
  const reference = context.resource.references.find((other) => other.column.name === column.name)
  if (reference !== undefined && (!reference.direct || (reference.cyclic && !column.notNull))) {
    return `(select p.${quoteIdent(reference.targetColumn)} from ${quoteIdent(reference.tableSchema)}.${quoteIdent(reference.tableName)} p
      where p.${quoteIdent(reference.targetKey)} = ${text}::${reference.targetKeyType})`
  }
  // A column of type json keeps order, repeated members and digits, which jsonb does not.
  if (column.form === 'json') {
    const parsed = `(s.v -> ${at})`
    const wire = column.baseType === 'json' ? `(s.payload::json -> ${at})` : parsed
    return `(${jsonFromWireSql(wire, parsed, column.baseType, column.notNull)})::${column.type}`
  }
  if (column.form === 'array') {
    const [json, value] = column.baseType === '_json' ? ['json', 's.payload::json'] : ['jsonb', 's.v']
    return `(${json}_populate_record(null::${liveTable(context.resource)}, ${json}_build_object(${quoteLiteral(column.name)}, ${value} -> ${at}))).${quoteIdent(column.name)}`
  }
  return `${text}::${column.type}`
}

async function writeVersions(
  trx: Transaction<Database>,
  context: WriteContext,
  range: Range,
  counts: StageCounts,
): Promise<void> {
  const { resource } = context
  if ((counts.n ?? 0) > 0) {
    await countingInsert(
      resource.id,
      sql`insert into syncline.record (resource_id, record_id, xact, origin, clock, seen, fields, deleted, source, counted)
        select ${resource.id}, r.record_id, pg_current_xact_id(), r.origin, r.clock, r.seen, r.fields, r.deleted, ${context.source}::int4, ${sql.raw(COUNTED)}
          from (select s.id as record_id, s.origin, s.clock, s.seen, s.fields, s.kind = 'd' as deleted from pg_temp.syncline_stage s
                 where s.class = 'n' and ${within(range)} offset 0) r
          join syncline.site o on o.id = r.origin order by r.record_id`,
    ).execute(trx)
  }
  if ((counts.f ?? 0) + (counts.v ?? 0) > 0) {
    await sql`
      update syncline.record r set xact = pg_current_xact_id(), origin = s.origin, clock = s.clock,
             seen = case when s.l_seen is null then s.seen
                    else syncline.join_seen(s.origin, s.seen, s.origin, s.clock, s.l_seen, s.l_origin, s.l_clock) end,
             fields = s.fields, deleted = case s.class when 'v' then r.deleted else s.kind = 'd' end,
             source = case when s.announce then null else ${context.source}::int4 end
        from (select * from pg_temp.syncline_stage s where s.class in ('f', 'v') and ${within(range)} order by s.id offset 0) s
       where r.resource_id = ${sql.lit(resource.id)} and r.record_id = s.id`.execute(trx)
    await notWhole(trx, resource.id)
  }
}

/** A deletion takes what was parked for its record along. */
async function dropParked(trx: Transaction<Database>, resource: ResourceInfo, range: Range): Promise<void> {
  await sql`
    delete from syncline.parked k using pg_temp.syncline_stage s
     where k.resource_id = ${resource.id} and k.record_id = s.id and (s.class = 'f' and (s.kind = 'd' or s.l_deleted) or s.class = 'r') and ${within(range)}
       and exists (select from syncline.parked_field where resource_id = ${resource.id})`.execute(trx)
}

/** Also where the content here is the same and only the incoming version goes on: what is unknown here may differ. */
async function parkUnknown(trx: Transaction<Database>, context: WriteContext, range: Range): Promise<void> {
  await noteParked(
    trx,
    context.resource.id,
    context.unknown.map(({ name }) => name),
  )
  const pairs = context.unknown.flatMap((each) => [sql`${each.name}::text`, sql`s.v -> ${sql.lit(each.at)}`])
  await sql`
    insert into syncline.parked as k (resource_id, record_id, fields)
    select ${context.resource.id}, s.id, jsonb_build_object(${sql.join(pairs)}) from (
      select s.id, s.payload::jsonb as v from pg_temp.syncline_stage s
       where (s.class in ('n', 'f') or s.class = 'v' and s.clock = s.in_clock and s.origin = s.in_origin) and s.kind = 'p' and ${within(range)} offset 0) s
    on conflict (resource_id, record_id) do update set fields = k.fields || excluded.fields`.execute(trx)
}

/** Remembers references of a cycle that were written as null because their target is not here; forgets those that were overwritten. */
async function keepLateReferences(trx: Transaction<Database>, context: WriteContext, range: Range): Promise<void> {
  const { resource } = context
  const key = sql.id(resource.keyColumn)
  for (const reference of resource.references.filter((each) => each.cyclic && !each.column.notNull)) {
    const at = context.columns.find((each) => each.column.name === reference.column.name)?.at
    if (at === undefined) continue
    const column = reference.column.name
    await sql`
      delete from syncline.pending_ref f where f.resource_id = ${resource.id} and f.column_name = ${column} and f.record_id = any (array(
        select s.id from pg_temp.syncline_stage s where s.class in ('n', 'f') and ${within(range)}))`.execute(trx)
    await sql`
      insert into syncline.pending_ref (resource_id, record_id, column_name, target_resource_id, target_record_id)
      select ${resource.id}, v.id, ${column}, ${reference.resourceId}, v.target from (
        select s.id, s.payload::jsonb ->> ${sql.lit(at)} as target from pg_temp.syncline_stage s
         where s.class in ('n', 'f') and s.kind = 'p' and ${within(range)} offset 0) v
        join ${sql.raw(liveTable(resource))} t on t.${key} = v.id::${sql.raw(resource.keyType)}
       where v.target is not null and t.${sql.id(column)} is null`.execute(trx)
  }
}

/**
 * Fills in references that waited for records of this resource. The rows keep their versions: their content was always this,
 * only the target was missing.
 */
export async function resolveLateReferences(
  trx: Transaction<Database>,
  target: ResourceInfo,
  all: readonly ResourceInfo[],
): Promise<void> {
  const { rows: some } =
    await sql`select from syncline.pending_ref where target_resource_id = ${target.id} limit 1`.execute(trx)
  if (some.length === 0) return
  const waiting = all.flatMap((resource) =>
    resource.references
      .filter((each) => each.resourceId === target.id && each.cyclic && !each.column.notNull)
      .map((reference) => ({ resource, reference })),
  )
  for (const { resource, reference } of waiting) {
    await sql`select set_config('syncline.apply', ${String(resource.id)}, true)`.execute(trx)
    await sql`
      with ready as materialized (
        select f.ctid as at, f.record_id, p.value from pg_temp.syncline_stage s
          cross join lateral (select f.ctid, f.record_id from syncline.pending_ref f
            where f.target_resource_id = ${target.id} and f.target_record_id = s.id and f.resource_id = ${resource.id} and f.column_name = ${reference.column.name} offset 0) f
          cross join lateral (select t.${sql.id(reference.targetColumn)} as value from ${sql.raw(liveTable(target))} t
            where t.${sql.id(target.keyColumn)} = s.id::${sql.raw(target.keyType)} offset 0) p
         where s.class in ('n', 'f') and s.kind = 'p'
      ), filled as (
        update ${sql.raw(liveTable(resource))} t set ${sql.id(reference.column.name)} = ready.value from ready
         -- Null still: an application may have chosen another target meanwhile.
         where t.${sql.id(resource.keyColumn)} = ready.record_id::${sql.raw(resource.keyType)} and t.${sql.id(reference.column.name)} is null
      )
      delete from syncline.pending_ref f where f.ctid = any (array(select at from ready))`.execute(trx)
    await sql`select set_config('syncline.apply', '', true)`.execute(trx)
  }
}
