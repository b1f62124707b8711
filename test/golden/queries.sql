-- What the store sends to PostgreSQL on the paths where the plan decides: taken from a run, each statement where it is
-- sent first. What the query builder makes of simple look-ups is left out.

-- attach two tables

select c.oid, c.relkind::text, c.relispartition, n.nspname as schema, c.relname as name,
       c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid) as children,
       not c.relispartition and exists (select from pg_inherits i where i.inhrelid = c.oid) as parents,
       row_security_active(c.oid) as hidden
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where (n.nspname || '.' || c.relname = $1 or c.relname = $2 and pg_table_is_visible(c.oid))
   and c.relkind in ('r', 'p', 'v', 'm', 'f')
 order by n.nspname || '.' || c.relname = $3 desc limit 1;

with recursive base as (
  select a.attname, a.attnum, a.atttypid as typid from pg_attribute a
   where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
  union all
  select b.attname, b.attnum, t.typbasetype from base b join pg_type t on t.oid = b.typid where t.typtype = 'd'
)
select a.attname as name, t.typname as "typeName", format_type(a.atttypid, a.atttypmod) as declared, format('%I.%I', n.nspname, t.typname) as type, bt.typname as "baseType",
       a.attnotnull or t.typnotnull as "notNull", a.attgenerated <> '' as generated, a.attidentity::text as identity,
       a.atthasdef as "hasDefault",
       a.attidentity <> '' or coalesce((select pg_get_expr(d.adbin, d.adrelid) like 'nextval(%' from pg_attrdef d
         where d.adrelid = a.attrelid and d.adnum = a.attnum), false) as numbered
  from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
  join base b on b.attnum = a.attnum join pg_type bt on bt.oid = b.typid and bt.typtype <> 'd'
 where a.attrelid = $2::oid and a.attnum > 0 and not a.attisdropped order by a.attnum;

select a.attname as column, i.indisprimary as primary
  from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
 where i.indrelid = $1::oid and i.indisunique and i.indnkeyatts = 1 and i.indpred is null and i.indexprs is null
   and i.indimmediate and i.indisvalid and a.attnotnull
 order by i.indisprimary desc, a.attnum;

select a.attname as column, tn.nspname as "tableSchema", tc.relname as "tableName", ta.attname as "targetColumn"
  from pg_constraint f
  join pg_attribute a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
  join pg_class tc on tc.oid = f.confrelid join pg_namespace tn on tn.oid = tc.relnamespace
  join pg_attribute ta on ta.attrelid = f.confrelid and ta.attnum = f.confkey[1]
 where f.conrelid = $1::oid and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
 order by f.conname;

select set_config('lock_timeout', $1, true);

select attname as name from pg_attribute
 where attrelid = $1::oid and attnum > 0 and not attisdropped and col_description(attrelid, attnum) = $2;

insert into syncline.digest (resource_id) select id from syncline.resource where name = $1 on conflict do nothing;

create or replace function syncline."capture_1"() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_hashagg = off set enable_seqscan = off set jit = off set extra_float_digits = 1
as $capture$
declare
  child record;
  now_us int8;
begin
  if current_setting('syncline.apply', true) = '1' then
    return null;
  end if;
  if tg_level = 'ROW' then
    if new *= old then
      return null;
    end if;
    now_us := date_part('epoch', clock_timestamp()) * 1000000;
    if new."uuid"::text collate "C" = old."uuid"::text collate "C" then
      update syncline.record r set xact = pg_current_xact_id(), clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, self.site_id, now_us)
        when r.origin = self.site_id then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = self.site_id then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, self.site_id) end,
      origin = self.site_id, source = null, deleted = false
        from syncline.self where r.resource_id = 1 and r.record_id = new."uuid"::text collate "C";
      if found then
        return null;
      end if;
    end if;
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select new."uuid"::text collate "C" as record_id) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
    if new."uuid"::text collate "C" <> old."uuid"::text collate "C" then
      -- A row of the same statement that takes the old identity comes later: until then it was not free.
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, true
      from (select old."uuid"::text collate "C" as record_id) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
    if exists (select from syncline.purged where resource_id = 1) then
      with met as (
        delete from syncline.purged g using (select new."uuid") n where g.resource_id = 1 and g.id_hash = hashtextextended(n."uuid"::text collate "C", 0)
        returning n."uuid"::text collate "C" as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = 1 and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = 1) then
      delete from syncline.parked k using (select new."uuid") n where k.resource_id = 1 and k.record_id = n."uuid"::text collate "C";
    end if;
    for child in
      select s.id, s.key_column, s.marks is not null as marked, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
        from pg_constraint f join syncline.resource s on s.table_oid = f.conrelid
        join pg_attribute ca on ca.attrelid = f.conrelid and ca.attnum = f.conkey[1]
        join pg_attribute pa on pa.attrelid = f.confrelid and pa.attnum = f.confkey[1]
       where f.confrelid in (tg_relid, pg_partition_root(tg_relid)) and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
         and pa.attname <> 'uuid'
    loop
      execute format($children$
        insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
        select %s, t.%I::text collate "C", pg_current_xact_id(), self.site_id, $1, false
          from %s t, syncline.self
         where t.%I = %L order by 2
        on conflict (resource_id, record_id) do update set
          xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, fields = case when %L then syncline.next_fields(r.fields, r.origin, r.clock, excluded.origin, case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, jsonb_build_object(%L, null)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, to_jsonb(new) ->> child.target, child.marked, child.reference) using now_us;
    end loop;
    end if;
    return null;
  end if;
  now_us := date_part('epoch', clock_timestamp()) * 1000000;
  if tg_op = 'INSERT' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select n."uuid"::text collate "C" as record_id from new_rows n) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
    if exists (select from syncline.purged where resource_id = 1) then
      with met as (
        delete from syncline.purged g using new_rows n where g.resource_id = 1 and g.id_hash = hashtextextended(n."uuid"::text collate "C", 0)
        returning n."uuid"::text collate "C" as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = 1 and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = 1) then
      delete from syncline.parked k using new_rows n where k.resource_id = 1 and k.record_id = n."uuid"::text collate "C";
    end if;
  elsif tg_op = 'UPDATE' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select d.record_id from (select n."uuid"::text collate "C" as record_id, (n.*)::text collate "C" as row from new_rows n except select o."uuid"::text collate "C" as record_id, (o.*)::text collate "C" as row from old_rows o) d) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
    -- Sums of hashes tell whether any identity changed for a tenth of the cost of comparing the sets.
    if (select sum(hashtextextended("uuid"::text, 0)) from old_rows) <> (select sum(hashtextextended("uuid"::text, 0)) from new_rows) then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, true
      from (select o."uuid"::text collate "C" as record_id from old_rows o except select n."uuid"::text collate "C" from new_rows n) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
    if exists (select from syncline.purged where resource_id = 1) then
      with met as (
        delete from syncline.purged g using new_rows n where g.resource_id = 1 and g.id_hash = hashtextextended(n."uuid"::text collate "C", 0)
        returning n."uuid"::text collate "C" as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = 1 and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = 1) then
      delete from syncline.parked k using new_rows n where k.resource_id = 1 and k.record_id = n."uuid"::text collate "C";
    end if;
    for child in
      select s.id, s.key_column, s.marks is not null as marked, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
        from pg_constraint f join syncline.resource s on s.table_oid = f.conrelid
        join pg_attribute ca on ca.attrelid = f.conrelid and ca.attnum = f.conkey[1]
        join pg_attribute pa on pa.attrelid = f.confrelid and pa.attnum = f.confkey[1]
       where f.confrelid in (tg_relid, pg_partition_root(tg_relid)) and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
         and pa.attname <> 'uuid'
    loop
      execute format($children$
        insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
        select %s, t.%I::text collate "C", pg_current_xact_id(), self.site_id, $1, false
          from %s t, syncline.self
         where t.%I in (select n.%I from new_rows n where not exists (select from old_rows o where o.%I = n.%I)) order by 2
        on conflict (resource_id, record_id) do update set
          xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, fields = case when %L then syncline.next_fields(r.fields, r.origin, r.clock, excluded.origin, case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, jsonb_build_object(%L, null)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, child.target, 'uuid', 'uuid', child.marked, child.reference) using now_us;
    end loop;
    end if;
  elsif tg_op = 'DELETE' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, true
      from (select o."uuid"::text collate "C" as record_id from old_rows o) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
  elsif (select relispartition from pg_class where oid = tg_relid) then
    -- A partition may have been emptied alone: what is found in the others lives on.
    execute $update$
    update syncline.record r set
      xact = pg_current_xact_id(), clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, self.site_id, $1)
        when r.origin = self.site_id then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, fields = null,
      seen = case
        when r.origin = self.site_id then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, self.site_id) end,
      origin = self.site_id, source = null, deleted = true
    from syncline.self where r.resource_id = 1 and not r.deleted
      and not exists (select from $update$ || pg_partition_root(tg_relid)::text || $update$ t
                       where t."uuid" = r.record_id::pg_catalog.uuid)$update$ using now_us;
  else
    update syncline.record r set
      xact = pg_current_xact_id(), clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, self.site_id, now_us)
        when r.origin = self.site_id then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = self.site_id then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, self.site_id) end,
      origin = self.site_id, source = null, deleted = true
    from syncline.self where r.resource_id = 1 and not r.deleted;
  end if;
  return null;
end
$capture$;

revoke all on function syncline."capture_1"() from public;

with recursive tree as (
  select c.oid from pg_class c where c.oid = $1::oid
  union all
  select i.inhrelid from pg_inherits i join tree on i.inhparent = tree.oid
)
select c.oid, format('%I.%I', n.nspname, c.relname) as name, c.relispartition or c.relkind = 'p' as partitioned
  from tree join pg_class c on c.oid = tree.oid join pg_namespace n on n.oid = c.relnamespace order by c.oid;

select tgname as name, tgenabled::text as state, coalesce(tgfoid = to_regproc($1)::oid, false)
         and (tgtype & 1 = 1) = (tgname = $2 and not $3) as ours
  from pg_trigger where tgrelid = $4::oid and not tgisinternal;

select pg_has_role(relowner, 'USAGE') as mine from pg_class where oid = $1::oid;

create trigger zz_syncline_insert after insert on public.country referencing new table as new_rows for each statement
execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_insert;

create trigger zz_syncline_update after update on public.country for each row
execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_update;

create trigger zz_syncline_delete after delete on public.country referencing old table as old_rows for each statement
execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_delete;

create trigger zz_syncline_truncate after truncate on public.country for each statement
execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_truncate;

select distinct jsonb_object_keys(fields) as name from syncline.parked where resource_id = $1;

delete from syncline.parked where resource_id = $1 and fields = '{}';

delete from syncline.parked_field f where f.resource_id = $1
   and not exists (select from syncline.parked k where k.resource_id = f.resource_id and k.fields ? f.name);

update syncline.quarantine set retry_at = now()
 where resource_id = $1 and ($2::int4 is null or peer_id = $3);

create or replace function syncline."capture_2"() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_hashagg = off set enable_seqscan = off set jit = off set extra_float_digits = 1
as $capture$
declare
  child record;
  now_us int8;
begin
  if current_setting('syncline.apply', true) = '2' then
    return null;
  end if;
  if tg_level = 'ROW' then
    if new *= old then
      return null;
    end if;
    now_us := date_part('epoch', clock_timestamp()) * 1000000;
    if new."id"::text collate "C" = old."id"::text collate "C" then
      update syncline.record r set xact = pg_current_xact_id(), clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, self.site_id, now_us)
        when r.origin = self.site_id then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = self.site_id then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, self.site_id) end,
      origin = self.site_id, source = null, deleted = false
        from syncline.self where r.resource_id = 2 and r.record_id = new."id"::text collate "C";
      if found then
        return null;
      end if;
    end if;
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select new."id"::text collate "C" as record_id) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
    if new."id"::text collate "C" <> old."id"::text collate "C" then
      -- A row of the same statement that takes the old identity comes later: until then it was not free.
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, true
      from (select old."id"::text collate "C" as record_id) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
    if exists (select from syncline.purged where resource_id = 2) then
      with met as (
        delete from syncline.purged g using (select new."id") n where g.resource_id = 2 and g.id_hash = hashtextextended(n."id"::text collate "C", 0)
        returning n."id"::text collate "C" as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = 2 and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = 2) then
      delete from syncline.parked k using (select new."id") n where k.resource_id = 2 and k.record_id = n."id"::text collate "C";
    end if;
    for child in
      select s.id, s.key_column, s.marks is not null as marked, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
        from pg_constraint f join syncline.resource s on s.table_oid = f.conrelid
        join pg_attribute ca on ca.attrelid = f.conrelid and ca.attnum = f.conkey[1]
        join pg_attribute pa on pa.attrelid = f.confrelid and pa.attnum = f.confkey[1]
       where f.confrelid in (tg_relid, pg_partition_root(tg_relid)) and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
         and pa.attname <> 'id'
    loop
      execute format($children$
        insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
        select %s, t.%I::text collate "C", pg_current_xact_id(), self.site_id, $1, false
          from %s t, syncline.self
         where t.%I = %L order by 2
        on conflict (resource_id, record_id) do update set
          xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, fields = case when %L then syncline.next_fields(r.fields, r.origin, r.clock, excluded.origin, case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, jsonb_build_object(%L, null)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, to_jsonb(new) ->> child.target, child.marked, child.reference) using now_us;
    end loop;
    end if;
    return null;
  end if;
  now_us := date_part('epoch', clock_timestamp()) * 1000000;
  if tg_op = 'INSERT' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select n."id"::text collate "C" as record_id from new_rows n) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
    if exists (select from syncline.purged where resource_id = 2) then
      with met as (
        delete from syncline.purged g using new_rows n where g.resource_id = 2 and g.id_hash = hashtextextended(n."id"::text collate "C", 0)
        returning n."id"::text collate "C" as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = 2 and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = 2) then
      delete from syncline.parked k using new_rows n where k.resource_id = 2 and k.record_id = n."id"::text collate "C";
    end if;
  elsif tg_op = 'UPDATE' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select d.record_id from (select n."id"::text collate "C" as record_id, (n.*)::text collate "C" as row from new_rows n except select o."id"::text collate "C" as record_id, (o.*)::text collate "C" as row from old_rows o) d) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
    -- Sums of hashes tell whether any identity changed for a tenth of the cost of comparing the sets.
    if (select sum(hashtextextended("id"::text, 0)) from old_rows) <> (select sum(hashtextextended("id"::text, 0)) from new_rows) then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, true
      from (select o."id"::text collate "C" as record_id from old_rows o except select n."id"::text collate "C" from new_rows n) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
    if exists (select from syncline.purged where resource_id = 2) then
      with met as (
        delete from syncline.purged g using new_rows n where g.resource_id = 2 and g.id_hash = hashtextextended(n."id"::text collate "C", 0)
        returning n."id"::text collate "C" as record_id, g.origin, g.clock, g.seen
      )
      update syncline.record r set clock = syncline.next_clock(met.origin, met.clock, met.seen, self.site_id, now_us),
             seen = syncline.next_seen(met.origin, met.clock, met.seen, self.site_id)
        from met, syncline.self where r.resource_id = 2 and r.record_id = met.record_id;
    end if;
    if exists (select from syncline.parked_field where resource_id = 2) then
      delete from syncline.parked k using new_rows n where k.resource_id = 2 and k.record_id = n."id"::text collate "C";
    end if;
    for child in
      select s.id, s.key_column, s.marks is not null as marked, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
        from pg_constraint f join syncline.resource s on s.table_oid = f.conrelid
        join pg_attribute ca on ca.attrelid = f.conrelid and ca.attnum = f.conkey[1]
        join pg_attribute pa on pa.attrelid = f.confrelid and pa.attnum = f.confkey[1]
       where f.confrelid in (tg_relid, pg_partition_root(tg_relid)) and f.contype = 'f' and array_length(f.conkey, 1) = 1 and f.conparentid = 0
         and pa.attname <> 'id'
    loop
      execute format($children$
        insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
        select %s, t.%I::text collate "C", pg_current_xact_id(), self.site_id, $1, false
          from %s t, syncline.self
         where t.%I in (select n.%I from new_rows n where not exists (select from old_rows o where o.%I = n.%I)) order by 2
        on conflict (resource_id, record_id) do update set
          xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, fields = case when %L then syncline.next_fields(r.fields, r.origin, r.clock, excluded.origin, case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, $1)
        when r.origin = excluded.origin then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, jsonb_build_object(%L, null)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, child.target, 'id', 'id', child.marked, child.reference) using now_us;
    end loop;
    end if;
  elsif tg_op = 'DELETE' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, true
      from (select o."id"::text collate "C" as record_id from old_rows o) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
  elsif (select relispartition from pg_class where oid = tg_relid) then
    -- A partition may have been emptied alone: what is found in the others lives on.
    execute $update$
    update syncline.record r set
      xact = pg_current_xact_id(), clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, self.site_id, $1)
        when r.origin = self.site_id then greatest($1, r.clock + 1)
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end, fields = null,
      seen = case
        when r.origin = self.site_id then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, self.site_id) end,
      origin = self.site_id, source = null, deleted = true
    from syncline.self where r.resource_id = 2 and not r.deleted
      and not exists (select from $update$ || pg_partition_root(tg_relid)::text || $update$ t
                       where t."id" = r.record_id::pg_catalog.uuid)$update$ using now_us;
  else
    update syncline.record r set
      xact = pg_current_xact_id(), clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, self.site_id, now_us)
        when r.origin = self.site_id then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end, fields = null,
      seen = case
        when r.origin = self.site_id then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, self.site_id) end,
      origin = self.site_id, source = null, deleted = true
    from syncline.self where r.resource_id = 2 and not r.deleted;
  end if;
  return null;
end
$capture$;

revoke all on function syncline."capture_2"() from public;

create trigger zz_syncline_insert after insert on public.city referencing new table as new_rows for each statement
execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_insert;

create trigger zz_syncline_update after update on public.city for each row
execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_update;

create trigger zz_syncline_delete after delete on public.city referencing old table as old_rows for each statement
execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_delete;

create trigger zz_syncline_truncate after truncate on public.city for each statement
execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_truncate;

select greatest(reltuples, 0)::int8 as estimate from pg_class where oid = $1::oid;

with page as materialized (select t."uuid" as key from "public"."country" t  order by t."uuid" limit $1)
select (select key::text from page order by page.key desc limit 1) as last, count(*)::int as rows from page;

with made as (insert into syncline.record (resource_id, record_id, xact, origin, clock, counted)
      select $1, r.record_id, pg_current_xact_id(), r.origin, r.clock, hashtextextended(r.record_id, hashtextextended(o.origin, r.clock))
        from (
          select t.key::text collate "C" as record_id, self.site_id as origin, (extract(epoch from clock_timestamp()) * 1000000)::int8 as clock
            from (select t."uuid" as key from "public"."country" t  where t."uuid" <= $2::text::pg_catalog.uuid) t, syncline.self
           offset 0
        ) r join syncline.site o on o.id = r.origin order by r.record_id
      on conflict (resource_id, record_id) do nothing returning counted), total as (
  select count(*)::int as records, count(counted) as living, coalesce(sum(counted), 0) as sum from made
), added as (
  update syncline.digest d set living = d.living + total.living, sum = d.sum + total.sum,
         whole = case when exists (select from syncline.record r where r.resource_id = 1 and r.xact = pg_current_xact_id())
                 then d.whole else array_append(d.whole, pg_current_xact_id()) end
    from total where d.resource_id = $3
) select records from total;

analyze syncline.record;

with page as materialized (select t."id" as key from "public"."city" t  order by t."id" limit $1)
select (select key::text from page order by page.key desc limit 1) as last, count(*)::int as rows from page;

with made as (insert into syncline.record (resource_id, record_id, xact, origin, clock, counted)
      select $1, r.record_id, pg_current_xact_id(), r.origin, r.clock, hashtextextended(r.record_id, hashtextextended(o.origin, r.clock))
        from (
          select t.key::text collate "C" as record_id, self.site_id as origin, (extract(epoch from clock_timestamp()) * 1000000)::int8 as clock
            from (select t."id" as key from "public"."city" t  where t."id" <= $2::text::pg_catalog.uuid) t, syncline.self
           offset 0
        ) r join syncline.site o on o.id = r.origin order by r.record_id
      on conflict (resource_id, record_id) do nothing returning counted), total as (
  select count(*)::int as records, count(counted) as living, coalesce(sum(counted), 0) as sum from made
), added as (
  update syncline.digest d set living = d.living + total.living, sum = d.sum + total.sum,
         whole = case when exists (select from syncline.record r where r.resource_id = 2 and r.xact = pg_current_xact_id())
                 then d.whole else array_append(d.whole, pg_current_xact_id()) end
    from total where d.resource_id = $3
) select records from total;

-- collect a batch

select steps, xact::text, record_id from syncline.purge where resource_id = $1 and true;

select from syncline.record r
 where r.resource_id = 2 and (r.xact, r.record_id) > ($1::xid8, $2 collate "C")
 order by r.xact, r.record_id limit 1;

select to_regproc('pg_catalog.pg_column_compression') is not null as tells;

with room as materialized (
  select least($1, greatest(1, floor($2 / (80 + case
           when c.relpages > 0 and c.reltuples > 0 then c.relpages * 8192.0 / c.reltuples else 152 end))))::int as rows,
         c.relkind = 'r' and coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) = 0 as usable
    from pg_class c where c.oid = $3::oid
), scan as materialized (
  select r.record_id, r.xact, r.origin, r.clock, r.seen, r.fields, r.deleted
    from syncline.record r
   where r.resource_id = 2 and (r.xact, r.record_id) > ($4::xid8, $5 collate "C")
     and r.xact < pg_snapshot_xmin(pg_current_snapshot()) and (select usable from room)
     -- What came from the peer is not sent back (I4), and need not be stepped through either.
     and r.source is distinct from $6
   order by r.xact, r.record_id limit (select rows from room)
), origins as materialized (
  select array(select distinct site from (
    select distinct origin as site from scan
    union all select distinct key::int4 from scan, jsonb_object_keys(seen) key where seen is not null
    union all select syncline.field_origins(fields) from scan where fields is not null
  ) o order by site) as list
), made as (
  -- The order of the scan, which nothing depends on.
  select string_agg(line, e'\n') as text, count(line)::int as lines, count(*)::int as scanned, coalesce(bool_or(wide), false) as wide
    from (
      select '"' || s.record_id || '"' || e'\t' || s.clock || e'\t' || array_position(o.list, s.origin) - 1 || e'\t'
             || case when s.fields is not null
             then (coalesce((select jsonb_object_agg(array_position(o.list, key::int4) - 1, value) from jsonb_each(s.seen)), '{}') || jsonb_build_object('fields', syncline.place_fields(syncline.sound_fields(s.fields, s.origin, s.clock, s.seen), o.list)))::text
             when s.seen is null then '' else (select jsonb_object_agg(array_position(o.list, key::int4) - 1, value) from jsonb_each(s.seen))::text end
             || case when s.deleted then '	d	' else e'\tp\t' || live.payload end as line,
             live.found and live.payload is null or not true as wide
        from scan s cross join origins o left join lateral (
          select case when coalesce(octet_length(t."name"::text), 0) + coalesce(octet_length(t."source"::text), 0) <= 2000 and pg_column_compression(t."tags") is null and pg_column_compression(t."facts") is null then json_build_array((select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id"), coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')), t."name"::text, t."people"::text, case when array_lower(t."tags", 1) <> 1 or array_lower(t."tags", 2) <> 1 then to_json(t."tags"::text) else to_json(t."tags") end, case jsonb_typeof(t."facts") when 'null' then '{"$json":null}'::jsonb
  when 'object' then case when (t."facts") ? '$json' and (t."facts") - '$json' = '{}'::jsonb then jsonb_build_object('$json', t."facts") else t."facts" end else t."facts" end, case when json_typeof(t."source") = 'null' then '{"$json":null}'::json
  when strpos(t."source"::text, '"$json"') > 0 and json_typeof(t."source") = 'object'
  then case when (t."source"::jsonb) ? '$json' and (t."source"::jsonb) - '$json' = '{}'::jsonb then json_build_object('$json', translate(t."source"::text, e'\n\r\t', '   ')::json) else translate(t."source"::text, e'\n\r\t', '   ')::json end
  else translate(t."source"::text, e'\n\r\t', '   ')::json end)::text end as payload, true as found
            from "public"."city" t
           where t."id" = s.record_id::pg_catalog.uuid and not s.deleted offset 0
        ) live on true
       where true
    ) l
), last as (
  -- When the scan came to the end, everything below the horizon was looked at.
  select xact, record_id from (
    (select xact, record_id from scan order by xact desc, record_id desc limit 1)
    union all
    (select r.xact, r.record_id from syncline.record r, room
      where room.usable and (select count(*) from scan) < room.rows and r.resource_id = 2
        and (r.xact, r.record_id) > ($7::xid8, $8 collate "C") and r.xact < pg_snapshot_xmin(pg_current_snapshot())
      order by r.xact desc, r.record_id desc limit 1)
  ) p order by xact desc, record_id desc limit 1
)
select made.text, made.lines, (select count(*) from scan)::int as scanned, (select count(*) from scan)::int as kept,
       room.usable and not made.wide as usable, room.rows as limit,
       exists (select from syncline.record r where r.resource_id = 2
                 and r.xact >= pg_snapshot_xmin(pg_current_snapshot())) as held,
       (select xact::text from last) as last_xact, (select record_id from last) as last_id, (select list from origins) as origins,
       null::text[] as left_ids, null::text[] as sent_ids
  from made, room;

select name from syncline.parked_field where resource_id = $1 order by name;

-- collect a batch under a filter across a reference

select max(xact)::text as head from (
  select (select r.xact from syncline.record r where r.resource_id = p.id and r.xact < pg_snapshot_xmin(pg_current_snapshot())
           order by r.xact desc, r.record_id desc limit 1) as xact
    from unnest($1::int4[]) p(id)) heads;

with scan as materialized (
  select r.record_id, r.xact, r.origin, r.clock, r.seen, r.fields, r.deleted, r.source
    from syncline.record r
   where r.resource_id = 2 and (r.xact, r.record_id) > ($1::xid8, $2 collate "C")
     and r.xact < pg_snapshot_xmin(pg_current_snapshot())
   order by r.xact, r.record_id limit $3
), sized as materialized (
  select s.*, live.live_key, live.matches, coalesce(live.bytes, 0) as bytes,
         row_number() over w as n, sum(coalesce(live.bytes, 0) + 80) over w as total
    from scan s left join lateral (
      select t."id" as live_key, greatest(pg_column_size(t.*), coalesce(octet_length(t."name"::text), 0)) as bytes, coalesce(((((select "t_parent"."name" from "public"."country" as "t_parent" where "t_parent"."id" = "t"."country_id") collate "C" = $4::text) and ("t"."people" > $5::int8)) is true), false) as matches
        from "public"."city" t
       where t."id" = s.record_id::pg_catalog.uuid and not s.deleted  offset 0
    ) live on true
  window w as (order by s.xact, s.record_id)
), kept as materialized (
  select s.*,
         case when s.source is not distinct from $6 then null
              when octet_length(s.record_id) not between 1 and 512 then null
              when s.deleted then case when exists (select from syncline.shared h where h.peer_id = $7 and h.resource_id = $8 and h.record_id = s.record_id) or s.seen ? $9 then 'd' end
              when s.live_key is null then null
              when s.matches then 'p'
              when exists (select from syncline.shared h where h.peer_id = $10 and h.resource_id = $11 and h.record_id = s.record_id) then 'l' end as kind
    from sized s where s.n = 1 or s.total <= $12
), origins as materialized (
  select array_agg(site order by site) as list from (
    select origin as site from kept where kind is not null
    union select key::int4 from kept, jsonb_object_keys(kept.seen) key where kind is not null and seen is not null
    union select syncline.field_origins(kept.fields) from kept where kind is not null and kept.fields is not null
  ) o
)
select (select string_agg(
          to_json(k.record_id)::text || e'\t' || k.clock || e'\t' || array_position(o.list, k.origin) - 1 || e'\t'
          || case when k.fields is not null
             then (coalesce((select jsonb_object_agg(array_position(o.list, key::int4) - 1, value) from jsonb_each(k.seen)), '{}') || jsonb_build_object('fields', syncline.place_fields(syncline.sound_fields(k.fields, k.origin, k.clock, k.seen), o.list)))::text
             when k.seen is null then '' else (select jsonb_object_agg(array_position(o.list, key::int4) - 1, value) from jsonb_each(k.seen))::text end
          || e'\t' || k.kind || e'\t' || coalesce(
            (select json_build_array((select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id"), coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')), t."name"::text, t."people"::text, case when array_lower(t."tags", 1) <> 1 or array_lower(t."tags", 2) <> 1 then to_json(t."tags"::text) else to_json(t."tags") end, case jsonb_typeof(t."facts") when 'null' then '{"$json":null}'::jsonb
  when 'object' then case when (t."facts") ? '$json' and (t."facts") - '$json' = '{}'::jsonb then jsonb_build_object('$json', t."facts") else t."facts" end else t."facts" end, case when json_typeof(t."source") = 'null' then '{"$json":null}'::json
  when strpos(t."source"::text, '"$json"') > 0 and json_typeof(t."source") = 'object'
  then case when (t."source"::jsonb) ? '$json' and (t."source"::jsonb) - '$json' = '{}'::jsonb then json_build_object('$json', translate(t."source"::text, e'\n\r\t', '   ')::json) else translate(t."source"::text, e'\n\r\t', '   ')::json end
  else translate(t."source"::text, e'\n\r\t', '   ')::json end)::text from "public"."city" t
              where k.kind = 'p' and t."id" = k.live_key offset 0), ''),
          e'\n' order by k.n) from kept k cross join origins o where k.kind is not null) as text,
       (select count(*) from kept where kind is not null)::int as lines,
       (select count(*) from scan)::int as scanned, $13::int as limit,
       exists (select from syncline.record r where r.resource_id = 2
                 and r.xact >= pg_snapshot_xmin(pg_current_snapshot())) as held,
       (select count(*) from kept)::int as kept,
       (select xact::text from kept order by n desc limit 1) as last_xact,
       (select record_id from kept order by n desc limit 1) as last_id,
       (select list from origins) as origins,
       (select array_agg(record_id) from kept where kind in ('l', 'd')) as left_ids,
       (select array_agg(record_id) from kept where kind = 'p' or kind is null and matches and source = $14) as sent_ids;

-- apply records that are new

select pg_advisory_xact_lock(hashtextextended('syncline.apply', $1));

select set_config(name, 'off', true) from unnest(array['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit']) name
union all select set_config('max_parallel_workers_per_gather', '0', true)
union all select set_config('synchronous_commit', $1, true)
union all select set_config('lock_timeout', $2, true);

with recursive inner_type as (
  select a.attname, a.atttypid as typid, a.atttypmod as typmod, false as is_array, false as is_domain
    from pg_attribute a
   where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped
     and not exists (select from only "public"."city" limit 0)
  union all
  select i.attname, case t.typtype when 'd' then t.typbasetype else t.typelem end,
         case t.typtype when 'd' then t.typtypmod else i.typmod end, i.is_array or t.typtype <> 'd', i.is_domain or t.typtype = 'd'
    from inner_type i join pg_type t on t.oid = i.typid and (t.typtype = 'd' or t.typcategory = 'A' and t.typelem <> 0 and t.typlen = -1)
)
select a.attname as name, format_type(a.atttypid, a.atttypmod) as declared, format('%I.%I', n.nspname, o.typname) as type,
       t.typname as base, i.typmod as limit, i.is_array as array, i.is_domain as domain
  from inner_type i join pg_type t on t.oid = i.typid and t.typnamespace = 'pg_catalog'::regnamespace
   and not (t.typtype = 'd' or t.typcategory = 'A' and t.typelem <> 0 and t.typlen = -1)
  join pg_attribute a on a.attrelid = $2::oid and a.attname = i.attname
  join pg_type o on o.oid = a.atttypid join pg_namespace n on n.oid = o.typnamespace;

create temporary table if not exists syncline_stage (
  n int not null, class "char" not null, kind "char" not null, id text collate "C" not null,
  clock int8, origin int4, seen jsonb, fields jsonb, payload text,
  l_clock int8, l_origin int4, l_seen jsonb, l_deleted bool, announce bool not null default false, in_clock int8, in_origin int4,
  w_resource int4, w_id text, code text, reason text
) on commit delete rows;

delete from pg_temp.syncline_stage;

savepoint syncline_batch;

insert into pg_temp.syncline_stage (n, class, kind, id, clock, origin, seen, fields, payload, l_clock, l_origin, l_seen, l_deleted)
    select p.n, case
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
end::"char", p.kind, p.id, p.clock, p.origin, p.seen, p.fields, p.payload, l.clock, l.origin, l.seen, l.deleted
      from (
        select n, id, nullif(split_part(line, e'\t', 2), '')::int8 as clock, coalesce(($1::int4[])[nullif(split_part(line, e'\t', 3), '')::int4 + 1], $2::int4) as origin, case when split_part(line, e'\t', 4) = '' then null else (
    select jsonb_object_agg(($3::int4[])[key::int4 + 1], value::int8) from jsonb_each_text((split_part(line, e'\t', 4))::jsonb) where key <> 'fields') end as seen, case when strpos(split_part(line, e'\t', 4), '"fields"') > 0 then syncline.map_fields((split_part(line, e'\t', 4))::jsonb -> 'fields', $4::int4[]) end as fields,
               (split_part(line, e'\t', 5))::"char" as kind, payload
          from (
    select n, key::text collate "C" as id, key, split_part(line, e'\t', 6) as payload, line
      from (select n, (case when strpos(first, '\') = 0 then substr(first, 2, length(first) - 2) else ('[' || first || ']')::jsonb ->> 0 end)::uuid as key, line
              from (select n, split_part(line, e'\t', 1) as first, line
                      from unnest(string_to_array($5, e'\n')) with ordinality as u(line, n) where line <> '' offset 0) f offset 0) u) staged offset 0
      ) p
      left join lateral (
        select r.clock, r.origin, r.seen, r.deleted from syncline.record r
         where r.resource_id = 2 and r.record_id = p.id offset 0
      ) l on true
     order by p.id;

update pg_temp.syncline_stage s set class = 'o', code = 'SYNC_RECORD_INVALID', reason = 'the batch names this record again, spelled differently; the last one counts'
  from (select id, max(n) as last from pg_temp.syncline_stage group by id having count(*) > 1) d
 where s.id = d.id and s.n < d.last;

select from syncline.purged where resource_id = 2 limit 1;

update pg_temp.syncline_stage set clock = (extract(epoch from clock_timestamp()) * 1000000)::int8 where clock is null and class = 'n';

update pg_temp.syncline_stage set class = 'q', code = 'SYNC_RECORD_TOO_LARGE',
       reason = format('the record has %s bytes; this site accepts %s', octet_length(payload), $1::int8)
 where octet_length(payload) > $2 and class <> 's';

update pg_temp.syncline_stage s set class = 'q', code = 'SYNC_RECORD_CLOCK_AHEAD', reason = 'its version is stamped more than ' || $1::text || ' minutes ahead of the clock of this site'
 where s.class in ('n', 'f', 'c') and (s.clock > (extract(epoch from clock_timestamp()) * 1000000)::int8 + $2::int8
    or s.seen is not null and exists (select from jsonb_each_text(s.seen) e where e.value::int8 > (extract(epoch from clock_timestamp()) * 1000000)::int8 + $3::int8
      and e.value::int8 > coalesce(case when e.key::int4 = s.l_origin then s.l_clock else (s.l_seen ->> e.key)::int8 end, 0)));

select class::text, kind::text, count(*)::int from pg_temp.syncline_stage group by 1, 2;

with held as materialized (select w.target from (select distinct target from (select n, payload::jsonb ->> 0 as target from pg_temp.syncline_stage where class in ('n', 'f') and kind = 'p' offset 0) r where target is not null) w cross join lateral (
    select from "public"."country" p where p."uuid" = w.target::pg_catalog.uuid offset 0 for key share skip locked) h)
update pg_temp.syncline_stage s set class = case when v.here then 'q' else 'w' end::"char",
       w_resource = case when v.here then null else $1::int4 end, w_id = case when v.here then null else v.target end,
       code = case when v.here then 'SYNC_RECORD_IN_USE' else 'SYNC_RECORD_PARENT_MISSING' end,
       reason = case when v.here then format('a transaction of the application holds %s %s, which it refers to', $2::text, v.target)
                else format('%s refers to %s %s, which is not here yet', $3::text, $4::text, v.target) end
  from (select v.n, v.target, exists (select from "public"."country" p where p."uuid" = v.target::pg_catalog.uuid) as here from (select n, payload::jsonb ->> 0 as target from pg_temp.syncline_stage where class in ('n', 'f') and kind = 'p' offset 0) v where v.target is not null and v.target not in (select target from held) offset 0) v
 where v.n = s.n;

savepoint syncline_range;

select set_config('syncline.apply', $1, true);

select count(*) from pg_temp.syncline_stage s where s.kind = 'p' and (s.class = 'n' or s.class = 'f' and s.l_deleted) and s.n between $1 and $2;

insert into "public"."city" ("id", "country_id", "twin", "name", "people", "tags", "facts", "source") select s.key, (select p."id" from "public"."country" p
  where p."uuid" = (s.v ->> 0)::pg_catalog.uuid), (select p."id" from "public"."city" p
  where p."id" = (s.v ->> 1)::pg_catalog.uuid), (s.v ->> 2)::pg_catalog."varchar", (s.v ->> 3)::pg_catalog.int8, (jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags", (case when (s.v -> 5) ? '$json' then case when jsonb_typeof((s.v -> 5)) <> 'object' then nullif((s.v -> 5), 'null'::jsonb)
when ((s.v -> 5)) ? '$json' and ((s.v -> 5)) - '$json' = '{}'::jsonb then (s.v -> 5) -> '$json' else (s.v -> 5) end else nullif((s.v -> 5), 'null'::jsonb) end)::pg_catalog.jsonb, (case when (s.v -> 6) ? '$json' then case when jsonb_typeof((s.v -> 6)) <> 'object' then nullif((s.payload::json -> 6)::text, 'null')::json
when ((s.v -> 6)) ? '$json' and ((s.v -> 6)) - '$json' = '{}'::jsonb then (s.payload::json -> 6) -> '$json' else (s.payload::json -> 6) end else nullif((s.payload::json -> 6)::text, 'null')::json end)::pg_catalog.json from (
select x.n, x.key, x.payload, case when jsonb_array_length(x.v) = 7 then case when coalesce(length((x.v ->> 2)) > 80 and rtrim(substr((x.v ->> 2), 81), ' ') = '', false) then syncline.inexact() else x.v end else syncline.misfit(x.v, 7) end as v from (
  select s.n, s.id::pg_catalog.uuid as key, s.id, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s where s.kind = 'p' and (s.class = 'n' or s.class = 'f' and s.l_deleted) and s.n between $1 and $2 order by s.id offset 0) x offset 0) s;

select set_config('syncline.apply', '', true);

with made as (insert into syncline.record (resource_id, record_id, xact, origin, clock, seen, fields, deleted, source, counted)
    select $1, r.record_id, pg_current_xact_id(), r.origin, r.clock, r.seen, r.fields, r.deleted, $2::int4, case when r.deleted then null else hashtextextended(r.record_id, hashtextextended(o.origin, r.clock)) end
      from (select s.id as record_id, s.origin, s.clock, s.seen, s.fields, s.kind = 'd' as deleted from pg_temp.syncline_stage s
             where s.class = 'n' and s.n between $3 and $4 offset 0) r
      join syncline.site o on o.id = r.origin order by r.record_id returning counted), total as (
  select count(*)::int as records, count(counted) as living, coalesce(sum(counted), 0) as sum from made
), added as (
  update syncline.digest d set living = d.living + total.living, sum = d.sum + total.sum,
         whole = case when exists (select from syncline.record r where r.resource_id = 2 and r.xact = pg_current_xact_id())
                 then d.whole else array_append(d.whole, pg_current_xact_id()) end
    from total where d.resource_id = $5
) select records from total;

delete from syncline.pending_ref f where f.resource_id = $1 and f.column_name = $2 and f.record_id = any (array(
  select s.id from pg_temp.syncline_stage s where s.class in ('n', 'f') and s.n between $3 and $4));

insert into syncline.pending_ref (resource_id, record_id, column_name, target_resource_id, target_record_id)
select $1, v.id, $2, $3, v.target from (
  select s.id, s.payload::jsonb ->> 1 as target from pg_temp.syncline_stage s
   where s.class in ('n', 'f') and s.kind = 'p' and s.n between $4 and $5 offset 0) v
  join "public"."city" t on t."id" = v.id::pg_catalog.uuid
 where v.target is not null and t."twin" is null;

set constraints all immediate;

release savepoint syncline_range;

select from syncline.pending_ref where target_resource_id = $1 limit 1;

select from syncline.quarantine where resource_id = $1 limit 1;

select from syncline.conflict where resource_id = $1 and resolved_at is null limit 1;

select from pg_temp.syncline_stage where class in ('w', 'b', 'q', 'o') limit 1;

select from syncline.conflict c join pg_temp.syncline_stage s on s.id = c.record_id and s.class in ('w', 'b', 'q')
 where c.resource_id = $1 and c.resolved_at is null limit 1;

delete from syncline.kept k using pg_temp.syncline_stage s
 where k.peer_id = $1 and k.resource_id = $2 and k.record_id = s.id and s.kind = 'p';

select class::text, announce, count(*)::int from pg_temp.syncline_stage group by 1, 2;

-- apply what supersedes, what is deleted and a conflict

select from (select s.id::pg_catalog.uuid as key from pg_temp.syncline_stage s where s.class in ('f', 'c', 'u', 'l') order by s.id offset 0) s
join "public"."city" t on t."id" = s.key for no key update of t;

select from syncline.record r where r.resource_id = $1 and r.record_id = any (array(
  select s.id from pg_temp.syncline_stage s where s.l_deleted and s.class in ('f', 'c', 'u', 'l')))
order by r.record_id for update;

update pg_temp.syncline_stage s set class = now.class, l_clock = now.clock, l_origin = now.origin, l_seen = now.seen, l_deleted = now.deleted
      from (
        select p.n, (case
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
end)::"char" as class, l.* from pg_temp.syncline_stage p
          cross join lateral (
            select r.clock, r.origin, r.seen, r.deleted from syncline.record r
             where r.resource_id = 2 and r.record_id = p.id offset 0
          ) l
         where p.class in ('f', 'c', 'u', 'l') and (l.clock, l.origin, l.deleted) is distinct from (p.l_clock, p.l_origin, p.l_deleted) offset 0
      ) now
     where s.n = now.n;

savepoint syncline_exact;

update pg_temp.syncline_stage s set class = 'q', code = 'SYNC_RECORD_INEXACT', reason = x.reason
  from (select n, nullif(concat_ws('; ', case when length((p.v ->> 2)) > 80 and rtrim(substr((p.v ->> 2), 81), ' ') = '' then left('column "name" is character varying(80) here: ' || format('%s blanks at the end would be cut off', length((p.v ->> 2)) - 80), 500) end), '') as reason
          from (select s.n, s.id, s.payload::jsonb as v from pg_temp.syncline_stage s
                 where s.kind = 'p' and s.class::text = any ($1::text[]) and true offset 0) p) x
 where s.n = x.n and x.reason is not null;

release savepoint syncline_exact;

select s.n, s.id, s.kind::text, s.class::text, s.clock, (select o.origin from syncline.site o where o.id = s.origin) as origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.seen) e join syncline.site o on o.id = e.key::int4) as seen, s.fields,
       s.l_clock, (select o.origin from syncline.site o where o.id = s.l_origin) as l_origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.l_seen) e join syncline.site o on o.id = e.key::int4) as l_seen, r.fields as l_fields, s.l_deleted,
       case when s.fields is null and r.fields is null then null else (select jsonb_object_agg(o.id, o.origin) from syncline.site o where o.id in (
         select syncline.field_origins(s.fields) union select syncline.field_origins(r.fields))) end as sites,
       case when s.l_deleted then s.kind = 'd' when s.kind = 'd' then false when s.class = 'u' then (select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id") is not distinct from (s.v ->> 0) and coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')) is not distinct from (s.v ->> 1) and t."name" is not distinct from ((s.v ->> 2)::pg_catalog."varchar") and t."people" is not distinct from ((s.v ->> 3)::pg_catalog.int8) and t."tags" is not distinct from ((jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags") and t."facts" is not distinct from ((case when (s.v -> 5) ? '$json' then case when jsonb_typeof((s.v -> 5)) <> 'object' then nullif((s.v -> 5), 'null'::jsonb)
when ((s.v -> 5)) ? '$json' and ((s.v -> 5)) - '$json' = '{}'::jsonb then (s.v -> 5) -> '$json' else (s.v -> 5) end else nullif((s.v -> 5), 'null'::jsonb) end)::pg_catalog.jsonb) and t."source"::text is not distinct from ((case when (s.v -> 6) ? '$json' then case when jsonb_typeof((s.v -> 6)) <> 'object' then nullif((s.payload::json -> 6)::text, 'null')::json
when ((s.v -> 6)) ? '$json' and ((s.v -> 6)) - '$json' = '{}'::jsonb then (s.payload::json -> 6) -> '$json' else (s.payload::json -> 6) end else nullif((s.payload::json -> 6)::text, 'null')::json end)::pg_catalog.json)::text else (select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id") is not distinct from (s.v ->> 0) and coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')) is not distinct from (s.v ->> 1) and t."name"::text is not distinct from ((s.v ->> 2)::pg_catalog."varchar")::text and t."people"::text is not distinct from ((s.v ->> 3)::pg_catalog.int8)::text and t."tags"::text is not distinct from ((jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags")::text and t."facts"::text is not distinct from ((case when (s.v -> 5) ? '$json' then case when jsonb_typeof((s.v -> 5)) <> 'object' then nullif((s.v -> 5), 'null'::jsonb)
when ((s.v -> 5)) ? '$json' and ((s.v -> 5)) - '$json' = '{}'::jsonb then (s.v -> 5) -> '$json' else (s.v -> 5) end else nullif((s.v -> 5), 'null'::jsonb) end)::pg_catalog.jsonb)::text and t."source"::text is not distinct from ((case when (s.v -> 6) ? '$json' then case when jsonb_typeof((s.v -> 6)) <> 'object' then nullif((s.payload::json -> 6)::text, 'null')::json
when ((s.v -> 6)) ? '$json' and ((s.v -> 6)) - '$json' = '{}'::jsonb then (s.payload::json -> 6) -> '$json' else (s.payload::json -> 6) end else nullif((s.payload::json -> 6)::text, 'null')::json end)::pg_catalog.json)::text end as equal,
       null::bool[] as alike,
       case when s.l_deleted then null else json_build_array((select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id"), coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')), t."name"::text, t."people"::text, case when array_lower(t."tags", 1) <> 1 or array_lower(t."tags", 2) <> 1 then to_json(t."tags"::text) else to_json(t."tags") end, case jsonb_typeof(t."facts") when 'null' then '{"$json":null}'::jsonb
  when 'object' then case when (t."facts") ? '$json' and (t."facts") - '$json' = '{}'::jsonb then jsonb_build_object('$json', t."facts") else t."facts" end else t."facts" end, case when json_typeof(t."source") = 'null' then '{"$json":null}'::json
  when strpos(t."source"::text, '"$json"') > 0 and json_typeof(t."source") = 'object'
  then case when (t."source"::jsonb) ? '$json' and (t."source"::jsonb) - '$json' = '{}'::jsonb then json_build_object('$json', translate(t."source"::text, e'\n\r\t', '   ')::json) else translate(t."source"::text, e'\n\r\t', '   ')::json end
  else translate(t."source"::text, e'\n\r\t', '   ')::json end)::text end as ours, nullif(s.payload, '') as theirs,
       (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us
  from (select x.*, nullif(x.payload, '')::jsonb as v from pg_temp.syncline_stage x where x.class in ('c', 'u') and x.n > $1 order by x.n limit $2) s
  join lateral (
    select r.fields from syncline.record r where r.resource_id = 2 and r.record_id = s.id offset 0) r on true
  left join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 order by s.n;

insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, source, rule, data)
select $1, s.id, $2::int8, 'lost a conflict', s.origin, s.clock, s.seen, s.kind = 'd', $3::int4, $4,
       (select json_object_agg(name, s.v -> (at - 1)::int4) from unnest($5::text[]) with ordinality c(name, at))
  from (select x.*, nullif(x.payload, '')::jsonb as v from unnest($6::int4[]) l(n) join pg_temp.syncline_stage x on x.n = l.n offset 0) s order by s.n;

update pg_temp.syncline_stage s set class = v.class::"char", announce = v.announce, in_clock = s.clock, in_origin = s.origin,
       clock = coalesce(v.clock, s.clock), origin = coalesce(v.origin, s.origin), seen = case when v.decided then v.seen else s.seen end,
       fields = case when v.decided then v.fields else s.fields end, payload = coalesce(v.payload, s.payload)
  from jsonb_to_recordset($1::jsonb)
       v(n int4, class text, announce bool, decided bool, clock int8, origin int4, seen jsonb, fields jsonb, payload text)
 where s.n = v.n;

select format('%I.%I', n.nspname, c.relname) as child, c.oid as child_oid, f.confdeltype::text as action,
       exists (select from pg_index i where i.indrelid = f.conrelid and i.indisvalid and i.indpred is null and i.indkey[0] = any (f.conkey)) as indexed,
       array(select a.attname::text from unnest(f.conkey) with ordinality k(num, at) join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.num order by k.at) as child_columns,
       array(select a.attname::text from unnest(f.confkey) with ordinality k(num, at) join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.num order by k.at) as columns
  from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_namespace n on n.oid = c.relnamespace
 where f.confrelid = $1::oid and f.contype = 'f' and f.conparentid = 0;

select count(*)::int as count from pg_temp.syncline_stage s where (s.kind = 'd' and s.class = 'f' and not s.l_deleted or s.class = 'r');

create temporary table if not exists syncline_block (n int not null, child int, why text not null) on commit delete rows;

delete from pg_temp.syncline_block;

select set_config('enable_hashjoin', 'on', true);

insert into pg_temp.syncline_block (n, child, why)
with going as materialized (
  select s.n, t.* from pg_temp.syncline_stage s
    cross join lateral (select t."id" as k0 from "public"."city" t where t."id" = s.id::pg_catalog.uuid offset 0) t
   where (s.kind = 'd' and s.class = 'f' and not s.l_deleted or s.class = 'r') and s.class = 'r'
)
select distinct g.n, d.n, $1::text from going g join (select c.*, c."id"::text collate "C" as referring from public.city c) c on c."twin" = g.k0
  left join (select n, id from pg_temp.syncline_stage s where (s.kind = 'd' and s.class = 'f' and not s.l_deleted or s.class = 'r')) d on d.id = c.referring;

with recursive blocked as (
  select n from pg_temp.syncline_block where child is null
  union select b.n from pg_temp.syncline_block b join blocked k on b.child = k.n
)
update pg_temp.syncline_stage s set class = 'b', code = 'SYNC_RECORD_STILL_REFERENCED', reason = w.why
  from (select b.n, min(b.why) as why from pg_temp.syncline_block b join blocked k on k.n = b.n group by b.n) w where w.n = s.n;

select set_config('enable_hashjoin', 'off', true);

insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data, refs, xact, source, by_origin, by_clock, rule)
select $1, s.id, $2::int8, case s.kind when 'd' then 'deleted' else 'replaced' end,
       s.l_origin, s.l_clock, s.l_seen, s.l_deleted, row_to_json(t.*), nullif(jsonb_build_object('country_id', (select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id")) || jsonb_build_object('twin', coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin'))) || case when jsonb_typeof(t."facts") = 'null' then jsonb_build_object('facts', to_jsonb(case jsonb_typeof(t."facts") when 'null' then '{"$json":null}'::jsonb
  when 'object' then case when (t."facts") ? '$json' and (t."facts") - '$json' = '{}'::jsonb then jsonb_build_object('$json', t."facts") else t."facts" end else t."facts" end)) else '{}'::jsonb end || case when json_typeof(t."source") = 'null' then jsonb_build_object('source', to_jsonb(case when json_typeof(t."source") = 'null' then '{"$json":null}'::json
  when strpos(t."source"::text, '"$json"') > 0 and json_typeof(t."source") = 'object'
  then case when (t."source"::jsonb) ? '$json' and (t."source"::jsonb) - '$json' = '{}'::jsonb then json_build_object('$json', translate(t."source"::text, e'\n\r\t', '   ')::json) else translate(t."source"::text, e'\n\r\t', '   ')::json end
  else translate(t."source"::text, e'\n\r\t', '   ')::json end)) else '{}'::jsonb end, '{}'::jsonb), r.xact, r.source,
       s.origin, s.clock, case when s.announce then $3 end
  from pg_temp.syncline_stage s
  left join lateral (
    select r.xact, r.source from syncline.record r where r.resource_id = 2 and r.record_id = s.id offset 0) r on true
  left join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 where s.class = 'f' and s.n between $4 and $5;

update "public"."city" c set "twin" = null
  from (select t.* from pg_temp.syncline_stage s
          cross join lateral (select t."id" as k0 from "public"."city" t where t."id" = s.id::pg_catalog.uuid offset 0) t
         where s.class = 'f' and s.kind = 'd' and not s.l_deleted and s.n between $1 and $2) t
 where c."twin" = t.k0
   and c."id"::text not in (select o.id from pg_temp.syncline_stage o where o.class in ('n', 'f'));

delete from "public"."city" t using pg_temp.syncline_stage s where s.class = 'f' and s.kind = 'd' and not s.l_deleted and s.n between $1 and $2
and t."id" = s.id::pg_catalog.uuid;

select from pg_temp.syncline_stage s, "public"."city" t where s.class = 'f' and s.kind = 'd' and not s.l_deleted and s.n between $1 and $2
and t."id" = s.id::pg_catalog.uuid limit 1;

update "public"."city" t set "country_id" = (select p."id" from "public"."country" p
  where p."uuid" = (s.v ->> 0)::pg_catalog.uuid), "twin" = (select p."id" from "public"."city" p
  where p."id" = (s.v ->> 1)::pg_catalog.uuid), "name" = (s.v ->> 2)::pg_catalog."varchar", "people" = (s.v ->> 3)::pg_catalog.int8, "tags" = (jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags", "facts" = (case when (s.v -> 5) ? '$json' then case when jsonb_typeof((s.v -> 5)) <> 'object' then nullif((s.v -> 5), 'null'::jsonb)
when ((s.v -> 5)) ? '$json' and ((s.v -> 5)) - '$json' = '{}'::jsonb then (s.v -> 5) -> '$json' else (s.v -> 5) end else nullif((s.v -> 5), 'null'::jsonb) end)::pg_catalog.jsonb, "source" = (case when (s.v -> 6) ? '$json' then case when jsonb_typeof((s.v -> 6)) <> 'object' then nullif((s.payload::json -> 6)::text, 'null')::json
when ((s.v -> 6)) ? '$json' and ((s.v -> 6)) - '$json' = '{}'::jsonb then (s.payload::json -> 6) -> '$json' else (s.payload::json -> 6) end else nullif((s.payload::json -> 6)::text, 'null')::json end)::pg_catalog.json from (
select x.n, x.key, x.payload, case when jsonb_array_length(x.v) = 7 then case when coalesce(length((x.v ->> 2)) > 80 and rtrim(substr((x.v ->> 2), 81), ' ') = '', false) then syncline.inexact() else x.v end else syncline.misfit(x.v, 7) end as v from (
  select s.n, s.id::pg_catalog.uuid as key, s.id, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s where s.class = 'f' and s.kind = 'p' and not s.l_deleted and s.n between $1 and $2 order by s.id offset 0) x offset 0) s where t."id" = s.key;

select count(*) from pg_temp.syncline_stage s where s.class = 'f' and s.kind = 'p' and not s.l_deleted and s.n between $1 and $2;

update syncline.record r set xact = pg_current_xact_id(), origin = s.origin, clock = s.clock,
       seen = case when s.l_seen is null then s.seen
              else syncline.join_seen(s.origin, s.seen, s.origin, s.clock, s.l_seen, s.l_origin, s.l_clock) end,
       fields = s.fields, deleted = case s.class when 'v' then r.deleted else s.kind = 'd' end,
       source = case when s.announce then null else $1::int4 end
  from (select * from pg_temp.syncline_stage s where s.class in ('f', 'v') and s.n between $2 and $3 order by s.id offset 0) s
 where r.resource_id = 2 and r.record_id = s.id;

update syncline.digest set whole = array_remove(whole, pg_current_xact_id())
 where resource_id = $1 and pg_current_xact_id() = any(whole);

delete from syncline.parked k using pg_temp.syncline_stage s
 where k.resource_id = $1 and k.record_id = s.id and (s.class = 'f' and (s.kind = 'd' or s.l_deleted) or s.class = 'r') and s.n between $2 and $3
   and exists (select from syncline.parked_field where resource_id = $4);

select id, class::text, code, reason, announce from pg_temp.syncline_stage
 where class not in ('n', 's') and (class <> 'f' or announce) order by n limit $1;

-- take a push by hand within a grant

update pg_temp.syncline_stage set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'there is no such record here, and this peer may delete only what matches the filter of its grant'
 where class = 'n' and kind = 'd';

insert into "public"."city" ("id", "country_id", "people") select s.key, (select p."id" from "public"."country" p
  where p."uuid" = (s.v ->> 0)::pg_catalog.uuid), (s.v ->> 1)::pg_catalog.int8 from (
select x.n, x.key, x.payload, case when jsonb_array_length(x.v) = 2 then x.v else syncline.misfit(x.v, 2) end as v from (
  select s.n, s.id::pg_catalog.uuid as key, s.id, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s where s.kind = 'p' and (s.class = 'n' or s.class = 'f' and s.l_deleted) and s.n between $1 and $2 order by s.id offset 0) x) s;

select s.n from pg_temp.syncline_stage s join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 where s.class in ('n', 'f') and s.kind = 'p' and s.n between $1 and $2 and not coalesce((("t"."people" < $3::int8) is true), false);

insert into syncline.quarantine as q (peer_id, resource_id, record_id, via, origin, clock, run_id, line, header, code, reason, waits_resource_id, waits_record_id, retry_at)
select $1, $2, s.id, $3, coalesce(s.in_origin, s.origin), coalesce(s.in_clock, s.clock, 0), $4::int8, l.line, $5::jsonb,
       s.code, s.reason, s.w_resource, s.w_id, now() + interval '1 minute'
  from pg_temp.syncline_stage s
  join unnest(string_to_array($6, e'\n')) with ordinality l(line, n) on l.n = s.n
 -- What was refused is not kept here, unless it waited already: then the reason is another now.
 -- Nor a version that a person here has given up.
 where (s.class in ('w', 'b', 'q') or s.class = 'o' and exists (
   select from syncline.quarantine e where e.peer_id = $7 and e.resource_id = $8 and e.record_id = s.id))
   and not exists (select from syncline.discard d where d.peer_id = $9 and d.resource_id = $10 and d.record_id = s.id
     and d.origin = coalesce(s.in_origin, s.origin) and d.clock >= coalesce(s.in_clock, s.clock, 0))
on conflict (peer_id, resource_id, record_id) do update set
  via = excluded.via, origin = excluded.origin, clock = excluded.clock, run_id = excluded.run_id, line = excluded.line, header = excluded.header,
  code = excluded.code, reason = excluded.reason, waits_resource_id = excluded.waits_resource_id, waits_record_id = excluded.waits_record_id,
  attempts = q.attempts + 1, last_at = now(), retry_at = now() + least(interval '1 minute' * power(2, least(q.attempts, 10)), interval '6 hours')
where not (excluded.origin = q.origin and excluded.clock < q.clock);

update pg_temp.syncline_stage s set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'the record does not match the filter of the grant'
  from "public"."city" t
 where s.class in ('f', 'c', 'u') and t."id" = s.id::pg_catalog.uuid
   and not coalesce((("t"."people" < $1::int8) is true), false);

select s.n, s.id, s.kind::text, s.class::text, s.clock, (select o.origin from syncline.site o where o.id = s.origin) as origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.seen) e join syncline.site o on o.id = e.key::int4) as seen, s.fields,
       s.l_clock, (select o.origin from syncline.site o where o.id = s.l_origin) as l_origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.l_seen) e join syncline.site o on o.id = e.key::int4) as l_seen, r.fields as l_fields, s.l_deleted,
       case when s.fields is null and r.fields is null then null else (select jsonb_object_agg(o.id, o.origin) from syncline.site o where o.id in (
         select syncline.field_origins(s.fields) union select syncline.field_origins(r.fields))) end as sites,
       case when s.l_deleted then s.kind = 'd' when s.kind = 'd' then false when s.class = 'u' then t."people" is not distinct from ((s.v ->> 0)::pg_catalog.int8) else t."people"::text is not distinct from ((s.v ->> 0)::pg_catalog.int8)::text end as equal,
       null::bool[] as alike,
       case when s.l_deleted then null else json_build_array(t."people"::text)::text end as ours, nullif(s.payload, '') as theirs,
       (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us
  from (select x.*, nullif(x.payload, '')::jsonb as v from pg_temp.syncline_stage x where x.class in ('c', 'u') and x.n > $1 order by x.n limit $2) s
  join lateral (
    select r.fields from syncline.record r where r.resource_id = 2 and r.record_id = s.id offset 0) r on true
  left join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 order by s.n;

delete from syncline.quarantine where ctid = any (array(
  select q.ctid from pg_temp.syncline_stage s cross join lateral (
    select w.ctid, w.peer_id, w.origin, w.clock, r.origin as r_origin, r.clock as r_clock, r.seen as r_seen
      from syncline.quarantine w left join syncline.record r on r.resource_id = w.resource_id and r.record_id = w.record_id
     where w.resource_id = $1 and w.record_id = s.id offset 0
  ) q
   where s.class in ('n', 'f', 's', 'v') and (q.r_origin = q.origin and q.r_clock >= q.clock or (q.r_seen ->> q.origin::text)::int8 >= q.clock)
      or s.class in ('l', 'r', 'a') and q.peer_id = $2::int4));

-- try quarantine again

select q.id, p.name as peer, r.name as resource, q.record_id as "recordId", q.via, q.code, q.reason, w.name as "waitsResource", q.waits_record_id as "waitsId",
       q.attempts, q.first_at as "firstAt", q.last_at as "lastAt", q.retry_at as "retryAt", 0 as dependants, q.line, q.header
  from syncline.quarantine q join syncline.peer p on p.id = q.peer_id join syncline.resource r on r.id = q.resource_id
  left join syncline.resource w on w.id = q.waits_resource_id
  where q.id > $1::int8 and not p.paused and (
      q.retry_at <= now() or q.code = 'SYNC_RECORD_STILL_REFERENCED'
      or q.code = 'SYNC_RECORD_IN_USE' and ($2::int8 is null or q.run_id is distinct from $3::int8)
      or exists (select from syncline.record p where p.resource_id = q.waits_resource_id and p.record_id = q.waits_record_id and not p.deleted))
    order by q.id limit $4;

-- compare

with hashed as (
  select record_id, hash, ntile($1::int4) over (order by record_id) as bucket from (
select r.record_id, hashtextextended(r.record_id, hashtextextended(o.origin, r.clock)) as hash
  from syncline.record r join syncline.site o on o.id = r.origin
 where r.resource_id = $2 and not r.deleted    ) records
)
select max(record_id) as last, count(*)::int as count, sum(hash)::text as sum from hashed group by bucket order by bucket;
