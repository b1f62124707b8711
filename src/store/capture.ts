import { type Kysely, sql } from 'kysely'
import { type AttachedAs, attachCommand } from './mends.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** Raised when the text of the capture functions changes: `resource check` then reports older triggers as outdated. */
export const CAPTURE_VERSION = 2

const EVENTS = ['insert', 'update', 'delete', 'truncate'] as const
type CaptureEvent = (typeof EVENTS)[number]

const TRANSITIONS: Record<CaptureEvent, string> = {
  insert: 'referencing new table as new_rows',
  update: 'referencing old table as old_rows new table as new_rows',
  delete: 'referencing old table as old_rows',
  truncate: '',
}

export function quoteIdent(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

export function quoteLiteral(text: string): string {
  return text.includes('\\')
    ? ` E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
    : `'${text.replaceAll("'", "''")}'`
}

/** Trigger names sort last, so that other AFTER triggers of the statement have run before. */
export function triggerName(event: CaptureEvent): string {
  return `zz_syncline_${event}`
}

export function captureFunction(resourceId: number): string {
  return `syncline.${quoteIdent(`capture_${resourceId}`)}`
}

/**
 * The trigger function of one resource. Runs in the application's own statement:
 * - a statement of the application moves the record rows to its own transaction and gives them a version of this site;
 * - an update that changes nothing is no change. Whole rows are compared as text: their types may have no equality or one that takes different
 *   values for equal (1.0 and 1.00, 30 days and a month), and as no column but the identity is named, the statements of an application that
 *   drops or renames one go on. Rows are compared as sets, by sort, so that a huge statement spills instead of growing; where there is only one,
 *   its image decides, which differs wherever the text does;
 * - rows written by `apply` to this resource keep the version of their origin, hence the quiet exit; what a foreign key or trigger of
 *   the application changes in *another* resource meanwhile is a change of this site and is captured;
 * - rows are written in key order: half the cost of random order on a bulk insert, and one lock order for all writers.
 */
export function captureFunctionSql(resource: ResourceInfo): string {
  const key = quoteIdent(resource.keyColumn)
  const id = `${key}::text collate "C"`
  const whole = (alias: string) => `${alias}.${id} as record_id, (${alias}.*)::text collate "C" as row`
  const upsert = (source: string, deleted: boolean) => `
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select ${resource.id}, s.record_id, pg_current_xact_id(), self.site_id, now_us, ${deleted}
      from (${source}) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, ${nextVersion('excluded.origin')}, source = null, deleted = ${deleted};`
  const tombstones = (now: string) => `
    update syncline.record r set
      xact = pg_current_xact_id(), ${nextVersion('self.site_id', now)}, source = null, deleted = true
    from syncline.self where r.resource_id = ${resource.id} and not r.deleted`
  // A record that is made anew knows its deletion, although the tombstone was purged, and nothing of what was parked for the old one. Looked for afterwards: a purge may just have ended.
  const remember = `
    if exists (select from syncline.purged where resource_id = ${resource.id}) then
      with met as (
        delete from syncline.purged g using new_rows n where g.resource_id = ${resource.id} and g.id_hash = hashtextextended(n.${id}, 0)
        returning n.${id} as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = ${resource.id} and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = ${resource.id}) then
      delete from syncline.parked k using new_rows n where k.resource_id = ${resource.id} and k.record_id = n.${id};
    end if;`
  // Plans are kept for a session, whatever the table grows to: only look-ups by index stay right.
  const one =
    resource.marks === null
      ? `
    -- One row that keeps its identity is what most statements change: one plan settles it. Anything else is left for below.
    update syncline.record r set xact = pg_current_xact_id(), ${nextVersion('self.site_id')}, source = null, deleted = false
      from (select * from new_rows limit 1) n, (select * from old_rows limit 1) o, syncline.self
     where r.resource_id = ${resource.id} and r.record_id = n.${id} and o.${id} = n.${id} and n.* *<> o.*
       and not exists (select from new_rows offset 1);
    if found then
      return null;
    end if;`
      : ''
  const update =
    resource.marks === null
      ? one +
        upsert(
          `select d.record_id from (select ${whole('n')} from new_rows n except select ${whole('o')} from old_rows o) d`,
          false,
        )
      : markedUpdate(resource, resource.marks.counted)
  const remove = upsert(`select o.${id} as record_id from old_rows o`, true)
  return `
create or replace function ${captureFunction(resource.id)}() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_hashagg = off set enable_seqscan = off set jit = off set extra_float_digits = 1
as $capture$
declare
  child record;
  now_us int8 := extract(epoch from clock_timestamp()) * 1000000;
begin
  if current_setting('syncline.apply', true) = '${resource.id}' then
    return null;
  end if;
  if tg_op = 'INSERT' then${upsert(`select n.${id} as record_id from new_rows n`, false)}${remember}
  elsif tg_op = 'UPDATE' then${update}
    -- Sums of hashes tell whether any identity changed for a tenth of the cost of comparing the sets.
    if (select sum(hashtextextended(${key}::text, 0)) from old_rows) <> (select sum(hashtextextended(${key}::text, 0)) from new_rows) then${upsert(
      `select o.${id} as record_id from old_rows o except select n.${id} from new_rows n`,
      true,
    )}${remember}
${touchChildren(resource.keyColumn)}
    end if;
  elsif tg_op = 'DELETE' then${resource.marks === null ? '' : keptEdits(resource, `select o.${id} as record_id, row_to_json(o.*) as old_doc from old_rows o`, ';')}${remove}
  elsif (select relispartition from pg_class where oid = tg_relid) then
    -- A partition may have been emptied alone: what is found in the others lives on.
    execute $update$${tombstones('$1')}
      and not exists (select from $update$ || pg_partition_root(tg_relid)::text || $update$ t
                       where t.${key} = r.record_id::${resource.keyType})$update$ using now_us;
  else${tombstones('now_us')};
  end if;
  return null;
end
$capture$`
}

/**
 * Who refers to a row by its local number refers to another record when the row's identity changes, without a change of its own row.
 * References by the identity itself are changed by the application or a cascade, which is captured there.
 */
function touchChildren(keyColumn: string): string {
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
         where t.%I in (select n.%I from new_rows n where not exists (select from old_rows o where o.%I = n.%I)) order by 2
        on conflict (resource_id, record_id) do update set
          xact = excluded.xact, ${nextVersion('excluded.origin', '$1', `case when %L then ${nextFields('jsonb_build_object(%L, null)', 'excluded.origin', '$1')} end`)}, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, child.target, ${key}, ${key}, child.marked, child.reference) using now_us;
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
 * Rows are paired by sorting them together: a join of the transition tables would keep the plan that the first statement of a session got, and
 * take hours for a large one. They are compared as JSON, so that the statements of an application that drops or renames a column go on.
 */
function markedUpdate(resource: ResourceInfo, counted: readonly string[]): string {
  const id = `${quoteIdent(resource.keyColumn)}::text collate "C"`
  const rows = (alias: string, table: string, side: number) =>
    `select ${alias}.${id} as record_id, ${side} as side, row_to_json(${alias}.*)::text as doc, (${alias}.*)::text collate "C" as row from ${table} ${alias}`
  const of = (side: number, column: string) => `max(${column}) filter (where side = ${side})`
  const number = (value: string) => `${value} ~ '^-?[0-9.]+(e[-+]?[0-9]+)?$'`
  const counts = counted.length === 0 ? 'false' : `b.key in (${counted.map(quoteLiteral).join(', ')})`
  const fields = `case when excluded.fields is not null then ${nextFields('excluded.fields', 'excluded.origin')} end`
  return `
    with diff as materialized (
      select record_id, ${of(0, 'doc')} as old_doc, ${of(1, 'doc')} as new_doc
        from (${rows('o', 'old_rows', 0)} union all ${rows('n', 'new_rows', 1)}) u
       group by record_id having ${of(0, 'row')} is distinct from ${of(1, 'row')}
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

/** Keeps in history what the application replaces or deletes, `old (record_id, old_doc)`, with the versions that are there before it does. */
function keptEdits(resource: ResourceInfo, old: string, end: string): string {
  return `
    insert into syncline.history (resource_id, record_id, reason, origin, clock, seen, deleted, data, xact, source)
    select ${resource.id}, w.record_id, 'edited', r.origin, r.clock, r.seen, r.deleted, w.old_doc, r.xact, r.source
      from (${old}) w(record_id, old_doc) cross join lateral (
        select r.* from syncline.record r where r.resource_id = ${resource.id} and r.record_id = w.record_id offset 0) r${end}`
}

function qualified(resource: { tableSchema: string; tableName: string }): string {
  return `${quoteIdent(resource.tableSchema)}.${quoteIdent(resource.tableName)}`
}

/**
 * Makes or renews the function, and the triggers that are missing or not ours. A trigger that has to be made takes a lock on the table that
 * waits for running writers; the caller bounds the wait.
 */
export async function installCapture(db: Kysely<Database>, resource: ResourceInfo): Promise<void> {
  await sql.raw(captureFunctionSql(resource)).execute(db)
  await sql.raw(`revoke all on function ${captureFunction(resource.id)}() from public`).execute(db)
  for (const table of await tablesOf(db, resource.tableOid)) {
    const found = await triggersOf(db, table.oid, resource)
    // Only an owner may do this; elsewhere a session with session_replication_role = replica goes unseen, which `check` reports.
    const mine = await ownsTable(db, table.oid)
    for (const event of EVENTS) {
      const trigger = found.get(triggerName(event))
      if (trigger !== undefined && !trigger.ours)
        await sql.raw(`drop trigger ${triggerName(event)} on ${table.name}`).execute(db)
      if (!trigger?.ours) {
        await sql
          .raw(
            `create trigger ${triggerName(event)} after ${event} on ${table.name} ${TRANSITIONS[event]}
             for each statement execute function ${captureFunction(resource.id)}()`,
          )
          .execute(db)
      }
      if (mine && !(trigger?.ours && trigger.state === 'A'))
        await sql.raw(`alter table ${table.name} enable always trigger ${triggerName(event)}`).execute(db)
    }
  }
}

type Trigger = { readonly state: string; readonly ours: boolean }

/** Triggers of one table by name; ours are those that call the capture function of the resource. */
async function triggersOf(
  db: Kysely<Database>,
  tableOid: number,
  resource: ResourceInfo,
): Promise<ReadonlyMap<string, Trigger>> {
  const { rows } = await sql<Trigger & { name: string }>`
    select tgname as name, tgenabled::text as state, coalesce(tgfoid = to_regproc(${captureFunction(resource.id)})::oid, false) as ours
      from pg_trigger where tgrelid = ${tableOid}::oid and not tgisinternal`.execute(db)
  return new Map(rows.map(({ name, ...trigger }) => [name, trigger]))
}

/** Leaves the table as it was before it was attached. */
export async function removeCapture(db: Kysely<Database>, resource: ResourceInfo): Promise<void> {
  for (const table of await tablesOf(db, resource.tableOid)) {
    for (const event of EVENTS) {
      await sql.raw(`drop trigger if exists ${triggerName(event)} on ${table.name}`).execute(db)
    }
  }
  await sql.raw(`drop function if exists ${captureFunction(resource.id)}()`).execute(db)
}

/** `mend`: a command, or a statement that only the owner of the table may run. */
export type CaptureFault = { readonly table: string; readonly fault: string; readonly mend: string }

/** What is wrong with the triggers of a resource: missing, disabled or made by an older program. Empty when all is well. */
export async function captureFaults(db: Kysely<Database>, resource: ResourceInfo): Promise<readonly CaptureFault[]> {
  const faults: CaptureFault[] = []
  const again = attachCommand(resource)
  const tables = await tablesOf(db, resource.tableOid)
  if (tables.length === 0) {
    const mend = `make the table again, then: ${again}; or let go of it: syncline resource detach ${resource.name}`
    return [{ table: qualified(resource), fault: 'the table no longer exists', mend }]
  }
  for (const table of tables) {
    const found = await triggersOf(db, table.oid, resource)
    const mine = await ownsTable(db, table.oid)
    for (const event of EVENTS) {
      const trigger = found.get(triggerName(event))
      const name = triggerName(event)
      const fault = faultOf(trigger, mine)
      if (fault === null) continue
      // Attaching makes what is missing; what is there may be changed by the owner of the table alone.
      const change = trigger?.ours
        ? `alter table ${table.name} enable always trigger ${name}`
        : `drop trigger ${name} on ${table.name}`
      const mend = trigger === undefined || mine ? again : `the owner of the table runs: ${change}; then: ${again}`
      faults.push({ table: table.name, fault: `trigger ${name} ${fault}`, mend })
    }
  }
  const { rows } = await sql<{ body: string }>`
    select prosrc as body from pg_proc where oid = to_regproc(${captureFunction(resource.id)})`.execute(db)
  const body = captureFunctionSql(resource).split('$capture$')[1]
  if (resource.captureVersion !== CAPTURE_VERSION || rows[0]?.body !== body) {
    faults.push({
      table: qualified(resource),
      fault: 'the triggers were made by another version of the program',
      mend: again,
    })
  }
  return faults
}

/**
 * What an owner could still improve: where this role is none, triggers do not see sessions in the role of a replica until the owner says so. Everything
 * else is captured meanwhile.
 */
export async function captureWarnings(db: Kysely<Database>, resource: ResourceInfo): Promise<readonly string[]> {
  const warnings: string[] = []
  for (const table of await tablesOf(db, resource.tableOid)) {
    if (await ownsTable(db, table.oid)) continue
    const found = await triggersOf(db, table.oid, resource)
    const plain = EVENTS.filter((event) => found.get(triggerName(event))?.state === 'O')
    const statements = plain.map((event) => `alter table ${table.name} enable always trigger ${triggerName(event)};`)
    if (plain.length > 0)
      warnings.push(
        `${table.name}: sessions in the role of a replica go unseen until the owner of the table says: ${statements.join(' ')}`,
      )
  }
  return warnings
}

/** A resource whose table lacks a working trigger, and the command that mends it. */
export type BrokenCapture = { readonly resource: string; readonly mend: string }

/** The resources whose table lacks a working trigger: one query, for every run. `captureFaults` says what is wrong in full. */
export async function brokenCaptures(db: Kysely<Database>): Promise<readonly BrokenCapture[]> {
  const { rows } = await sql<AttachedAs>`
    select r.name, r.table_schema as "tableSchema", r.table_name as "tableName", r.key_column as "keyColumn" from syncline.resource r
     where (select count(*) from pg_trigger t where t.tgrelid = r.table_oid and t.tgenabled in ('O', 'A')
               and t.tgname = any(${EVENTS.map(triggerName)}::text[])) < ${EVENTS.length}
     order by r.name`.execute(db)
  return rows.map((row) => ({ resource: row.name, mend: attachCommand(row) }))
}

function faultOf(trigger: Trigger | undefined, mine: boolean): string | null {
  if (trigger === undefined) return 'is missing'
  if (!trigger.ours) return 'calls another function'
  if (trigger.state === 'D' || trigger.state === 'R') return 'is disabled'
  // Made by us it would be ALWAYS: somebody disabled it, and writes went unseen until it was enabled again.
  if (trigger.state === 'O' && mine)
    return 'does not see sessions in the role of a replica: it was changed, perhaps disabled for a while'
  return null
}

/** The table itself and, for a partitioned table, every partition: a statement that names a partition fires only its own triggers. */
async function tablesOf(db: Kysely<Database>, tableOid: number): Promise<readonly { oid: number; name: string }[]> {
  const { rows } = await sql<{ oid: number; name: string }>`
    with recursive tree as (
      select c.oid from pg_class c where c.oid = ${tableOid}::oid
      union all
      select i.inhrelid from pg_inherits i join tree on i.inhparent = tree.oid
    )
    select c.oid, format('%I.%I', n.nspname, c.relname) as name
      from tree join pg_class c on c.oid = tree.oid join pg_namespace n on n.oid = c.relnamespace order by c.oid`.execute(
    db,
  )
  return rows
}

async function ownsTable(db: Kysely<Database>, oid: number): Promise<boolean> {
  const { rows } = await sql<{ mine: boolean }>`
    select pg_has_role(relowner, 'USAGE') as mine from pg_class where oid = ${oid}::oid`.execute(db)
  return rows[0]?.mine ?? false
}
