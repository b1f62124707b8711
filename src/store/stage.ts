import { type RawBuilder, sql, type Transaction } from 'kysely'
import type { LineBatch } from '../sync/index.ts'
import { quoteIdent } from './quote.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/**
 * What becomes of a staged record, in one letter:
 * n new here · f supersedes what is here · s known or stale · c concurrent with what is here · u pushed without a version over a living record ·
 * v only the version changes (settled, content as it is here) · l left the filter of the link · r left it and is removed here ·
 * a waits for a person · w waits for the record it refers to · b deletion blocked by records that refer to it · o outside the grant · q refused by the database.
 */
export type StageClass = 'n' | 'f' | 's' | 'c' | 'u' | 'v' | 'l' | 'r' | 'a' | 'w' | 'b' | 'o' | 'q'

export type StageCounts = Readonly<Partial<Record<StageClass, number>>> & {
  readonly puts: number
  readonly deletes: number
}

/** A line that cannot be read here: its place in the batch, from 1, and the database's words. */
export type Unreadable = { readonly n: number; readonly reason: string }

/** One staging table a connection, emptied at each commit. */
export async function prepareStage(trx: Transaction<Database>): Promise<void> {
  await sql`create temporary table if not exists syncline_stage (
    n int not null, class "char" not null, kind "char" not null, id text collate "C" not null,
    clock int8, origin int4, seen jsonb, fields jsonb, payload text,
    l_clock int8, l_origin int4, l_seen jsonb, l_deleted bool, announce bool not null default false, in_clock int8, in_origin int4,
    w_resource int4, w_id text, code text, reason text
  ) on commit delete rows`.execute(trx)
  await sql`delete from pg_temp.syncline_stage`.execute(trx)
}

/**
 * Settings for the transaction of a batch. On fresh or unanalysed tables anything but index look-ups can cost fifteen times as much. Where more of
 * a pull follows, the commit does not wait for the disk: records and checkpoint are one commit, so what a crash takes comes again. The commit
 * of the last batch waits, and with it for all before; only then is anything acknowledged.
 */
export async function steadyPlans(trx: Transaction<Database>, lockWaitMs: number, moreFollows: boolean): Promise<void> {
  await sql`
    select set_config(name, 'off', true) from unnest(array['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit']) name
    union all select set_config('max_parallel_workers_per_gather', '0', true)
    union all select set_config('synchronous_commit', ${moreFollows ? 'off' : 'on'}, true)
    union all select set_config('lock_timeout', ${`${lockWaitMs}ms`}, true)`.execute(trx)
}

/** Classes of what is known of a record here, `l`, against a staged version, `p`. The dot look-ups of src/sync/version.ts, as one expression. */
export const CLASSIFY = `case
  when p.kind = 'l' then 'l'
  when l.origin is null then 'n'
  when p.clock is null then 'u'
  when l.origin = p.origin and l.clock = p.clock then 's'
  else case
    when (case when p.origin = l.origin then l.clock else (l.seen ->> p.origin::text)::int8 end) >= p.clock
      then case when (case when p.origin = l.origin then p.clock else (p.seen ->> l.origin::text)::int8 end) >= l.clock then 'c' else 's' end
    when (case when p.origin = l.origin then p.clock else (p.seen ->> l.origin::text)::int8 end) >= l.clock then 'f'
    else 'c'
  end
end`

const field = (n: number) => sql.raw(`split_part(line, e'\\t', ${n})`)

/** Lines as rows: n, id, the same as `key` where it is a uuid, payload and the line itself. An empty line only keeps its place. */
export function stagedLinesSql(resource: ResourceInfo, text: string): RawBuilder<unknown> {
  // A spelled out id is a JSON string; nearly none holds an escape.
  const bare = sql`case when strpos(first, '\\') = 0 then substr(first, 2, length(first) - 2) else ('[' || first || ']')::jsonb ->> 0 end`
  const key = resource.keyType.endsWith('.uuid') ? sql`(${bare})::uuid` : bare
  return sql`
    select n, key::text collate "C" as id, key, ${field(6)} as payload, line
      from (select n, ${key} as key, line
              from (select n, ${field(1)} as first, line
                      from unnest(string_to_array(${text}, e'\\n')) with ordinality as u(line, n) where line <> '' offset 0) f offset 0) u`
}

/** The number here of the site that wrote a line's version; of `writer` where a line has no version. */
export function originSql(origins: readonly number[], writer: number): RawBuilder<unknown> {
  return sql`coalesce((${origins}::int4[])[nullif(${field(3)}, '')::int4 + 1], ${writer}::int4)`
}

/** What a line's version has seen, by numbers of this site; null for nothing. */
export function seenSql(origins: readonly number[]): RawBuilder<unknown> {
  return sql`case when ${field(4)} = '' then null else (
    select jsonb_object_agg((${origins}::int4[])[key::int4 + 1], value::int8) from jsonb_each_text((${field(4)})::jsonb) where key <> 'fields') end`
}

/** The writes behind the fields of a line's version, by numbers of this site; null where the version wrote every field, as nearly all do. */
export function fieldsSql(origins: readonly number[]): RawBuilder<unknown> {
  return sql`case when strpos(${field(4)}, '"fields"') > 0 then syncline.map_fields((${field(4)})::jsonb -> 'fields', ${origins}::int4[]) end`
}

/**
 * Stages the lines of a batch and classifies each against the record row: one statement, one index look-up a record.
 * Lines that cannot be read are staged as such.
 */
export async function stageLines(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  batch: LineBatch,
  origins: readonly number[],
  writer: number,
  unreadable: readonly Unreadable[] = [],
): Promise<void> {
  const origin = originSql(origins, writer)
  const skipped = new Set(unreadable.map((each) => each.n))
  const lines = skipped.size === 0 ? [] : batch.text.split('\n')
  // An empty line keeps the place of one that cannot be read.
  const text = skipped.size === 0 ? batch.text : lines.map((line, n) => (skipped.has(n + 1) ? '' : line)).join('\n')
  await sql`
    insert into pg_temp.syncline_stage (n, class, kind, id, clock, origin, seen, fields, payload, l_clock, l_origin, l_seen, l_deleted)
    select p.n, ${sql.raw(CLASSIFY)}::"char", p.kind, p.id, p.clock, p.origin, p.seen, p.fields, p.payload, l.clock, l.origin, l.seen, l.deleted
      from (
        select n, id, nullif(${field(2)}, '')::int8 as clock, ${origin} as origin, ${seenSql(origins)} as seen, ${fieldsSql(origins)} as fields,
               (${field(5)})::"char" as kind, payload
          from (${stagedLinesSql(resource, text)}) staged offset 0
      ) p
      left join lateral (
        select r.clock, r.origin, r.seen, r.deleted from syncline.record r
         where r.resource_id = ${sql.lit(resource.id)} and r.record_id = p.id offset 0
      ) l on true
     order by p.id`.execute(trx)
  for (const { n, reason } of unreadable) {
    const line = lines[n - 1] ?? ''
    const id = (JSON.parse(line.slice(0, line.indexOf('\t'))) as string).replaceAll('\0', '\ufffd').toWellFormed()
    await sql`
      insert into pg_temp.syncline_stage (n, class, kind, id, clock, origin, payload, code, reason)
      select ${n}, 'q', (${field(5)})::"char", ${id}, nullif(${field(2)}, '')::int8, ${origin}, ${field(6)}, 'SYNC_RECORD_INVALID', ${reason}
        from (select ${line}::text as line) l`.execute(trx)
  }
}

/**
 * A uuid may be spelled in several ways, so two lines that look different may be one record. The last one counts; the others are refused,
 * since sets are written in no order and content and version could come from different lines.
 */
export async function refuseDoubles(trx: Transaction<Database>, resource: ResourceInfo): Promise<void> {
  if (!resource.keyType.endsWith('.uuid')) return
  await sql`
    update pg_temp.syncline_stage s set class = 'o', code = 'SYNC_RECORD_INVALID', reason = 'the batch names this record again, spelled differently; the last one counts'
      from (select id, max(n) as last from pg_temp.syncline_stage group by id having count(*) > 1) d
     where s.id = d.id and s.n < d.last`.execute(trx)
}

/**
 * Sets aside versions stamped too far in the future, claims about what they have seen included: either would push the clock of the
 * record ahead with it, and win every later conflict by "newer". What the record here has seen itself pushes nothing: our own clock may have
 * been set back.
 */
export async function markClockAhead(trx: Transaction<Database>, aheadMaxMicros: number): Promise<number> {
  const limit = sql`(extract(epoch from clock_timestamp()) * 1000000)::int8 + ${aheadMaxMicros}::int8`
  const { numAffectedRows } = await sql`
    update pg_temp.syncline_stage s set class = 'q', code = 'SYNC_RECORD_CLOCK_AHEAD', reason = 'its version is stamped more than ' || ${aheadMaxMicros / 60_000_000}::text || ' minutes ahead of the clock of this site'
     where s.class in ('n', 'f', 'c') and (s.clock > ${limit}
        or s.seen is not null and exists (select from jsonb_each_text(s.seen) e where e.value::int8 > ${limit}
          and e.value::int8 > coalesce(case when e.key::int4 = s.l_origin then s.l_clock else (s.l_seen ->> e.key)::int8 end, 0)))`.execute(
    trx,
  )
  return Number(numAffectedRows ?? 0)
}

export async function stageCounts(trx: Transaction<Database>): Promise<StageCounts> {
  const { rows } = await sql<{ class: StageClass; kind: string; count: number }>`
    select class::text, kind::text, count(*)::int from pg_temp.syncline_stage group by 1, 2`.execute(trx)
  const counts: Partial<Record<StageClass, number>> = {}
  let puts = 0
  let deletes = 0
  for (const row of rows) {
    counts[row.class] = (counts[row.class] ?? 0) + row.count
    if ('nf'.includes(row.class)) {
      if (row.kind === 'd') deletes += row.count
      else puts += row.count
    }
  }
  return { ...counts, puts, deletes }
}

/**
 * Holds the live rows that the batch will change, in key order, before anything is written: the order in which the triggers of an
 * application take them too (row, then record). Children may be added meanwhile: identities never change here. What committed while we waited is classified anew.
 */
export async function lockStaged(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  patience: 'wait' | 'set aside',
): Promise<void> {
  const key = sql.id(resource.keyColumn)
  if (patience === 'set aside') await setAsideLocked(trx, resource)
  await sql`select from (select s.id::${sql.raw(resource.keyType)} as key from pg_temp.syncline_stage s where s.class in ('f', 'c', 'u', 'l') order by s.id offset 0) s
    join ${sql.raw(liveTable(resource))} t on t.${key} = s.key for no key update of t`.execute(trx)
  // What is deleted here has no row that could be held: an application may be about to make it anew.
  await sql`select from syncline.record r where r.resource_id = ${resource.id} and r.record_id = any (array(
      select s.id from pg_temp.syncline_stage s where s.l_deleted and s.class in ('f', 'c', 'u', 'l')))
    order by r.record_id for update`.execute(trx)
  await sql`
    update pg_temp.syncline_stage s set class = now.class, l_clock = now.clock, l_origin = now.origin, l_seen = now.seen, l_deleted = now.deleted
      from (
        select p.n, (${sql.raw(CLASSIFY)})::"char" as class, l.* from pg_temp.syncline_stage p
          cross join lateral (
            select r.clock, r.origin, r.seen, r.deleted from syncline.record r
             where r.resource_id = ${sql.lit(resource.id)} and r.record_id = p.id offset 0
          ) l
         where p.class in ('f', 'c', 'u', 'l') and (l.clock, l.origin, l.deleted) is distinct from (p.l_clock, p.l_origin, p.l_deleted) offset 0
      ) now
     where s.n = now.n`.execute(trx)
}

/** A transaction of the application that stays open must not stop the link: only the rows that it holds wait. */
async function setAsideLocked(trx: Transaction<Database>, resource: ResourceInfo): Promise<void> {
  const key = sql.id(resource.keyColumn)
  const rows = sql`select t.${key}::text collate "C" as id from (
    select s.id::${sql.raw(resource.keyType)} as key from pg_temp.syncline_stage s where s.class in ('f', 'c', 'u', 'l') order by s.id offset 0) s
    join ${sql.raw(liveTable(resource))} t on t.${key} = s.key`
  await sql`
    with living as materialized (${rows}), held as materialized (${rows} for no key update of t skip locked)
    update pg_temp.syncline_stage s set class = 'q', code = 'SYNC_RECORD_IN_USE', reason = 'a transaction of the application holds the row'
     where s.class in ('f', 'c', 'u', 'l') and s.id in (select id from living) and s.id not in (select id from held)`.execute(
    trx,
  )
}

/**
 * Sets aside what refers to records that are not here. References inside cycles that may be null are not waited for:
 * they are written as null and filled in when the target arrives (pending_ref). A reference by local number (`direct` false) is looked up when the row
 * is written: so its target is held until then, since a number that is gone by then would become null; one that an application is deleting is waited for.
 */
export async function markMissingParents(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  columns: readonly string[],
  direct: boolean,
): Promise<number> {
  let marked = 0
  for (const reference of resource.references) {
    const at = columns.indexOf(reference.column.name)
    if (at < 0 || reference.direct !== direct || (reference.cyclic && !reference.column.notNull)) continue
    const target = targetTable(reference)
    const key = sql.id(reference.targetKey)
    const found = sql`exists (select from ${target} p where p.${key} = v.target::${sql.raw(reference.targetKeyType)})`
    const reads = sql`select n, payload::jsonb ->> ${sql.lit(at)} as target from pg_temp.syncline_stage where class in ('n', 'f') and kind = 'p' offset 0`
    const held = direct
      ? sql`select null::text as target where false`
      : sql`select w.target from (select distinct target from (${reads}) r where target is not null) w cross join lateral (
          select from ${target} p where p.${key} = w.target::${sql.raw(reference.targetKeyType)} offset 0 for key share skip locked) h`
    const { numAffectedRows } = await sql`
      with held as materialized (${held})
      update pg_temp.syncline_stage s set class = case when v.here then 'q' else 'w' end::"char",
             w_resource = case when v.here then null else ${reference.resourceId}::int4 end, w_id = case when v.here then null else v.target end,
             code = case when v.here then 'SYNC_RECORD_IN_USE' else 'SYNC_RECORD_PARENT_MISSING' end,
             reason = case when v.here then format('a transaction of the application holds %s %s, which it refers to', ${reference.resource}::text, v.target)
                      else format('%s refers to %s %s, which is not here yet', ${reference.column.name}::text, ${reference.resource}::text, v.target) end
        from (select v.n, v.target, ${found} as here from (${reads}) v where v.target is not null and v.target not in (select target from held) offset 0) v
       where v.n = s.n ${direct ? sql`and not v.here` : sql``}`.execute(trx)
    marked += Number(numAffectedRows ?? 0)
  }
  return marked
}

export function targetTable(reference: {
  readonly tableSchema: string
  readonly tableName: string
}): RawBuilder<unknown> {
  return sql.raw(`${quoteIdent(reference.tableSchema)}.${quoteIdent(reference.tableName)}`)
}

/**
 * Records that left the filter of the link go where the sender knows all that is here; the others stay as they are. So do rows that a pushing
 * peer may not write: what it says to have seen is its own word.
 */
export async function markRemovals(
  trx: Transaction<Database>,
  { resource, filter }: { readonly resource: ResourceInfo; readonly filter?: RawBuilder<boolean> | undefined },
): Promise<void> {
  const granted =
    filter === undefined
      ? sql``
      : sql`and exists (select from ${sql.raw(liveTable(resource))} t
             where t.${sql.id(resource.keyColumn)} = s.id::${sql.raw(resource.keyType)} and coalesce(${filter}, false))`
  await sql`
    update pg_temp.syncline_stage s set class = 'r'
     where s.class = 'l' and not s.l_deleted and s.l_origin is not null
       and (s.origin = s.l_origin and s.clock >= s.l_clock or (s.seen ->> s.l_origin::text)::int8 >= s.l_clock) ${granted}`.execute(
    trx,
  )
}

/** ON DELETE SET NULL and SET DEFAULT. */
export const EMPTYING = new Set(['n', 'd'])

export type IncomingKey = {
  readonly child: string
  readonly child_oid: number
  readonly child_columns: readonly string[]
  readonly columns: readonly string[]
  readonly action: string
  /** The referring columns have an index that can be used. */
  readonly indexed: boolean
}

export async function incomingKeys(
  trx: Transaction<Database>,
  resource: ResourceInfo,
): Promise<readonly IncomingKey[]> {
  const { rows } = await sql<IncomingKey>`
    select format('%I.%I', n.nspname, c.relname) as child, c.oid as child_oid, f.confdeltype::text as action,
           exists (select from pg_index i where i.indrelid = f.conrelid and i.indisvalid and i.indpred is null and i.indkey[0] = any (f.conkey)) as indexed,
           array(select a.attname::text from unnest(f.conkey) with ordinality k(num, at) join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.num order by k.at) as child_columns,
           array(select a.attname::text from unnest(f.confkey) with ordinality k(num, at) join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.num order by k.at) as columns
      from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_namespace n on n.oid = c.relnamespace
     where f.confrelid = ${resource.tableOid}::oid and f.contype = 'f' and f.conparentid = 0`.execute(trx)
  return rows
}

/**
 * Empties the references of a table to itself that the deletion of staged rows would empty. It is a change of this site, as it is where the
 * children lie in another table; the database would do it unseen, in the middle of what is applied.
 */
export async function emptyOwnReferences(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  within: RawBuilder<unknown>,
): Promise<void> {
  const key = sql.id(resource.keyColumn)
  const table = sql.raw(liveTable(resource))
  for (const foreign of await incomingKeys(trx, resource)) {
    if (Number(foreign.child_oid) !== resource.tableOid || !EMPTYING.has(foreign.action)) continue
    const emptied = foreign.child_columns.map(
      (column) => sql`${sql.id(column)} = ${sql.raw(foreign.action === 'n' ? 'null' : 'default')}`,
    )
    const columns = foreign.columns.map((column, n) => sql`t.${sql.id(column)} as ${sql.raw(`k${n}`)}`)
    const refers = foreign.columns.map(
      (_, n) => sql`c.${sql.id(foreign.child_columns[n] ?? '')} = t.${sql.raw(`k${n}`)}`,
    )
    await sql`
      update ${table} c set ${sql.join(emptied)}
        from (select t.* from pg_temp.syncline_stage s
                cross join lateral (select ${sql.join(columns)} from ${table} t where t.${key} = s.id::${sql.raw(resource.keyType)} offset 0) t
               where s.class = 'f' and s.kind = 'd' and not s.l_deleted and ${within}) t
       where ${sql.join(refers, sql` and `)}
         and c.${key}::text not in (select o.id from pg_temp.syncline_stage o where o.class in ('n', 'f'))`.execute(trx)
  }
}
