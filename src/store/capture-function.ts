import { quoteIdent, quoteLiteral } from './quote.ts'
import type { ResourceInfo } from './resources.ts'

export function captureFunction(resourceId: number): string {
  return `syncline.${quoteIdent(`capture_${resourceId}`)}`
}

/**
 * The trigger function of one resource. Runs in the application's own statement:
 * - a statement of the application moves the record rows to its own transaction and gives them a version of this site;
 * - an update that changes nothing is no change. Whole rows are compared, by their images or as text: their types may have no equality or one that
 *   takes different values for equal (1.0 and 1.00, 30 days and a month), and as no column but the identity is named, the statements of an
 *   application that drops or renames one go on;
 * - rows written by `apply` to this resource keep the version of their origin, hence the quiet exit; what a foreign key or trigger of
 *   the application changes in *another* resource meanwhile is a change of this site and is captured;
 * - inserted and deleted rows are written in key order: half the cost of random order on a bulk insert, and one lock order for all writers.
 *
 * Updates come row by row, in the order in which the application locked its rows: for one row, as most statements have, that costs two thirds of
 * looking at sets, and for many about as much. Of a partitioned table they come as sets: a row that moves to another partition is no update of a row.
 */
export function captureFunctionSql(resource: ResourceInfo): string {
  const key = quoteIdent(resource.keyColumn)
  const id = `${key}::text collate "C"`
  return `
create or replace function ${captureFunction(resource.id)}() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_hashagg = off set enable_seqscan = off set jit = off set extra_float_digits = 1
as $capture$
declare
  child record;
  now_us int8;
begin
  if current_setting('syncline.apply', true) = '${resource.id}' then
    return null;
  end if;
  if tg_level = 'ROW' then
    if new *= old then
      return null;
    end if;
    ${NOW}${rowUpdate(resource)}
    return null;
  end if;
  ${NOW}
  if tg_op = 'INSERT' then${upsert(resource, `select n.${id} as record_id from new_rows n`, false)}${remember(resource, 'new_rows')}
  elsif tg_op = 'UPDATE' then${setUpdate(resource)}
  elsif tg_op = 'DELETE' then${resource.marks === null ? '' : keptEdits(resource, `select o.${id} as record_id, row_to_json(o.*) as old_doc from old_rows o`, ';')}${upsert(
    resource,
    `select o.${id} as record_id from old_rows o`,
    true,
  )}
  elsif (select relispartition from pg_class where oid = tg_relid) then
    -- A partition may have been emptied alone: what is found in the others lives on.
    execute $update$${tombstones(resource, '$1')}
      and not exists (select from $update$ || pg_partition_root(tg_relid)::text || $update$ t
                       where t.${key} = r.record_id::${resource.keyType})$update$ using now_us;
  else${tombstones(resource, 'now_us')};
  end if;
  return null;
end
$capture$`
}

const NOW = `now_us := date_part('epoch', clock_timestamp()) * 1000000;`

function upsert(resource: ResourceInfo, source: string, deleted: boolean): string {
  return `
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select ${resource.id}, s.record_id, pg_current_xact_id(), self.site_id, now_us, ${deleted}
      from (${source}) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, ${nextVersion('excluded.origin')}, source = null, deleted = ${deleted};`
}

function tombstones(resource: ResourceInfo, now: string): string {
  return `
    update syncline.record r set
      xact = pg_current_xact_id(), ${nextVersion('self.site_id', now)}, source = null, deleted = true
    from syncline.self where r.resource_id = ${resource.id} and not r.deleted`
}

/**
 * A record that is made anew knows its deletion, although the tombstone was purged, and nothing of what was parked for the old one. Looked for
 * afterwards: a purge may just have ended.
 */
function remember(resource: ResourceInfo, rows: string): string {
  const id = `${quoteIdent(resource.keyColumn)}::text collate "C"`
  return `
    if exists (select from syncline.purged where resource_id = ${resource.id}) then
      with met as (
        delete from syncline.purged g using ${rows} n where g.resource_id = ${resource.id} and g.id_hash = hashtextextended(n.${id}, 0)
        returning n.${id} as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = ${resource.id} and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = ${resource.id}) then
      delete from syncline.parked k using ${rows} n where k.resource_id = ${resource.id} and k.record_id = n.${id};
    end if;`
}

/** An update of one row. Nearly always it keeps its identity and its record is known: then one plan settles it. */
function rowUpdate(resource: ResourceInfo): string {
  const key = quoteIdent(resource.keyColumn)
  const [was, is] = [`old.${key}::text collate "C"`, `new.${key}::text collate "C"`]
  const known = `
    if ${is} = ${was} then
      update syncline.record r set xact = pg_current_xact_id(), ${nextVersion('self.site_id')}, source = null, deleted = false
        from syncline.self where r.resource_id = ${resource.id} and r.record_id = ${is};
      if found then
        return null;
      end if;
    end if;`
  const diff = `
      select ${was} as record_id, row_to_json(old)::text as old_doc, case when ${is} = ${was} then row_to_json(new)::text end as new_doc
      union all select ${is}, null, row_to_json(new)::text where ${is} <> ${was}`
  const written =
    resource.marks === null
      ? known + upsert(resource, `select ${is} as record_id`, false)
      : markedUpdate(resource, resource.marks.counted, diff)
  return `${written}
    if ${is} <> ${was} then
      -- A row of the same statement that takes the old identity comes later: until then it was not free.${upsert(resource, `select ${was} as record_id`, true)}${remember(resource, `(select new.${key})`)}
${touchChildren(resource.keyColumn, 't.%I = %L', 'to_jsonb(new) ->> child.target')}
    end if;`
}

/** An update as sets, compared by sort, so that a huge statement spills instead of growing. Its plans are kept for a session, whatever the table grows to. */
function setUpdate(resource: ResourceInfo): string {
  const key = quoteIdent(resource.keyColumn)
  const id = `${key}::text collate "C"`
  const whole = (alias: string) => `${alias}.${id} as record_id, (${alias}.*)::text collate "C" as row`
  const changed = `select d.record_id from (select ${whole('n')} from new_rows n except select ${whole('o')} from old_rows o) d`
  const written =
    resource.marks === null
      ? upsert(resource, changed, false)
      : markedUpdate(resource, resource.marks.counted, pairedRows(resource))
  return `${written}
    -- Sums of hashes tell whether any identity changed for a tenth of the cost of comparing the sets.
    if (select sum(hashtextextended(${key}::text, 0)) from old_rows) <> (select sum(hashtextextended(${key}::text, 0)) from new_rows) then${upsert(
      resource,
      `select o.${id} as record_id from old_rows o except select n.${id} from new_rows n`,
      true,
    )}${remember(resource, 'new_rows')}
${touchChildren(
  resource.keyColumn,
  't.%I in (select n.%I from new_rows n where not exists (select from old_rows o where o.%I = n.%I))',
  `child.target, ${quoteLiteral(resource.keyColumn)}, ${quoteLiteral(resource.keyColumn)}`,
)}
    end if;`
}

/**
 * Who refers to a row by its local number refers to another record when the row's identity changes, without a change of its own row.
 * References by the identity itself are changed by the application or a cascade, which is captured there. `refers`: a condition in the language of
 * format, of the reference and `to`.
 */
function touchChildren(keyColumn: string, refers: string, to: string): string {
  const key = quoteLiteral(keyColumn)
  return `    for child in
      select s.id, s.key_column, s.marks is not null as marked, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
        from pg_constraint f join syncline.resource s on s.table_oid = f.conrelid
        join pg_attribute ca on ca.attrelid = f.conrelid and ca.attnum = f.conkey[1]
        join pg_attribute pa on pa.attrelid = f.confrelid and pa.attnum = f.confkey[1]
       where f.confrelid in (tg_relid, pg_partition_root(tg_relid)) and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
         and pa.attname <> ${key}
    loop
      execute format($children$
        insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
        select %s, t.%I::text collate "C", pg_current_xact_id(), self.site_id, $1, false
          from %s t, syncline.self
         where ${refers} order by 2
        on conflict (resource_id, record_id) do update set
          xact = excluded.xact, ${nextVersion('excluded.origin', '$1', `case when %L then ${nextFields('jsonb_build_object(%L, null)', 'excluded.origin', '$1')} end`)}, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, ${to}, child.marked, child.reference) using now_us;
    end loop;`
}

/**
 * The next version of record row `r`, written by site `me` (a column). The two common cases stand in line: calling the SQL functions of
 * the general case costs more than all the rest of the trigger.
 */
export function nextVersion(me: string, now = 'now_us', fields = 'null'): string {
  return `clock = ${nextClockSql(me, now)}, fields = ${fields},
      seen = case
        when r.origin = ${me} then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, ${me}) end,
      origin = ${me}`
}

function nextClockSql(me: string, now: string): string {
  return `case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, ${me}, ${now})
        when r.origin = ${me} then greatest(${now}, r.clock + 1)
        else greatest(${now}, least(r.clock + 1, ${now} + 300000000)) end`
}

/** What stands behind the fields of record row `r` after site `me` wrote those that `changed` (a jsonb object) names: to a counter its difference. */
export function nextFields(changed: string, me: string, now = 'now_us'): string {
  return `syncline.next_fields(r.fields, r.origin, r.clock, ${me}, ${nextClockSql(me, now)}, ${changed})`
}

/**
 * An update where something merges or asks: keeps what the application replaces, which is what both sides had, and tells which fields it changed.
 * `diff (record_id, old_doc, new_doc)` are the changed rows as JSON, so that the statements of an application that drops or renames a column go on.
 */
function markedUpdate(resource: ResourceInfo, counted: readonly string[], diff: string): string {
  const number = (value: string) => `${value} ~ '^-?[0-9.]+(e[-+]?[0-9]+)?$'`
  const counts = counted.length === 0 ? 'false' : `b.key in (${counted.map(quoteLiteral).join(', ')})`
  const fields = `case when excluded.fields is not null then ${nextFields('excluded.fields', 'excluded.origin')} end`
  return `
    with diff as materialized (${diff}
    ), kept as (${keptEdits(resource, 'select d.record_id, d.old_doc::json from diff d where d.old_doc is not null', '')}
    )
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted, fields)
    select ${resource.id}, d.record_id, pg_current_xact_id(), self.site_id, now_us, false,
           -- Marks of a record that is not there yet would be those of nothing.
           case when (select true from syncline.record x where x.resource_id = ${resource.id} and x.record_id = d.record_id) then (
             select jsonb_object_agg(b.key, case when ${counts} and ${number('a.value')} and ${number('b.value')} then (b.value::numeric - a.value::numeric)::text end)
               from json_each_text(d.old_doc::json) a join json_each_text(d.new_doc::json) b on b.key = a.key
              where a.value is distinct from b.value) end
      from diff d, syncline.self where d.new_doc is not null order by d.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, ${nextVersion('excluded.origin', 'now_us', fields)}, source = null, deleted = false;`
}

/** Rows are paired by sorting them together: a join of the transition tables would keep the plan that the first statement of a session got, and take hours for a large one. */
function pairedRows(resource: ResourceInfo): string {
  const id = `${quoteIdent(resource.keyColumn)}::text collate "C"`
  const rows = (alias: string, table: string, side: number) =>
    `select ${alias}.${id} as record_id, ${side} as side, row_to_json(${alias}.*)::text as doc, (${alias}.*)::text collate "C" as row from ${table} ${alias}`
  const of = (side: number, column: string) => `max(${column}) filter (where side = ${side})`
  return `
      select record_id, ${of(0, 'doc')} as old_doc, ${of(1, 'doc')} as new_doc
        from (${rows('o', 'old_rows', 0)} union all ${rows('n', 'new_rows', 1)}) u
       group by record_id having ${of(0, 'row')} is distinct from ${of(1, 'row')}`
}

/** Keeps in history what the application replaces or deletes, `old (record_id, old_doc)`, with the versions that are there before it does. */
function keptEdits(resource: ResourceInfo, old: string, end: string): string {
  return `
    insert into syncline.history (resource_id, record_id, reason, origin, clock, seen, deleted, data, xact, source)
    select ${resource.id}, w.record_id, 'edited', r.origin, r.clock, r.seen, r.deleted, w.old_doc, r.xact, r.source
      from (${old}) w(record_id, old_doc) cross join lateral (
        select r.* from syncline.record r where r.resource_id = ${resource.id} and r.record_id = w.record_id offset 0) r${end}`
}
