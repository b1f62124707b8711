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
select a.attname as name, t.typname as "typeName", format('%I.%I', n.nspname, t.typname) as type, bt.typname as "baseType",
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

create or replace function syncline."capture_1"() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_hashagg = off set extra_float_digits = 1
as $capture$
declare
  child record;
  now_us int8 := extract(epoch from clock_timestamp()) * 1000000;
begin
  if current_setting('syncline.apply', true) = '1' then
    return null;
  end if;
  if tg_op = 'INSERT' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select n."uuid"::text collate "C" as record_id from new_rows n) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
  elsif tg_op = 'UPDATE' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 1, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select d.record_id from (select n."uuid"::text collate "C" as record_id, (n.*)::text collate "C" as row from new_rows n except select o."uuid"::text collate "C" as record_id, (o.*)::text collate "C" as row from old_rows o) d) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
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
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
    for child in
      select s.id, s.key_column, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
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
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, child.target, 'uuid', 'uuid') using now_us;
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
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
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
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end,
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
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
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
select c.oid, format('%I.%I', n.nspname, c.relname) as name
  from tree join pg_class c on c.oid = tree.oid join pg_namespace n on n.oid = c.relnamespace order by c.oid;

select tgname as name, tgenabled::text as state, coalesce(tgfoid = to_regproc($1)::oid, false) as ours
  from pg_trigger where tgrelid = $2::oid and not tgisinternal;

select pg_has_role(relowner, 'USAGE') as mine from pg_class where oid = $1::oid;

create trigger zz_syncline_insert after insert on public.country referencing new table as new_rows
for each statement execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_insert;

create trigger zz_syncline_update after update on public.country referencing old table as old_rows new table as new_rows
for each statement execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_update;

create trigger zz_syncline_delete after delete on public.country referencing old table as old_rows
for each statement execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_delete;

create trigger zz_syncline_truncate after truncate on public.country
for each statement execute function syncline."capture_1"();

alter table public.country enable always trigger zz_syncline_truncate;

select distinct jsonb_object_keys(fields) as name from syncline.parked where resource_id = $1;

delete from syncline.parked where resource_id = $1 and fields = '{}';

create or replace function syncline."capture_2"() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_hashagg = off set extra_float_digits = 1
as $capture$
declare
  child record;
  now_us int8 := extract(epoch from clock_timestamp()) * 1000000;
begin
  if current_setting('syncline.apply', true) = '2' then
    return null;
  end if;
  if tg_op = 'INSERT' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select n."id"::text collate "C" as record_id from new_rows n) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false;
  elsif tg_op = 'UPDATE' then
    insert into syncline.record as r (resource_id, record_id, xact, origin, clock, deleted)
    select 2, s.record_id, pg_current_xact_id(), self.site_id, now_us, false
      from (select d.record_id from (select n."id"::text collate "C" as record_id, (n.*)::text collate "C" as row from new_rows n except select o."id"::text collate "C" as record_id, (o.*)::text collate "C" as row from old_rows o) d) s, syncline.self order by s.record_id
    on conflict (resource_id, record_id) do update set
      xact = excluded.xact, clock = case
        when r.seen is not null then syncline.next_clock(r.origin, r.clock, r.seen, excluded.origin, now_us)
        when r.origin = excluded.origin then greatest(now_us, r.clock + 1)
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
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
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = true;
    for child in
      select s.id, s.key_column, f.conrelid::regclass::text as name, ca.attname as reference, pa.attname as target
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
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end,
      seen = case
        when r.origin = excluded.origin then r.seen
        when r.seen is null then jsonb_build_object(r.origin::text, r.clock)
        else syncline.next_seen(r.origin, r.clock, r.seen, excluded.origin) end,
      origin = excluded.origin, source = null, deleted = false$children$,
        child.id, child.key_column, child.name, child.reference, child.target, 'id', 'id') using now_us;
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
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
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
        else greatest($1, least(r.clock + 1, $1 + 300000000)) end,
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
        else greatest(now_us, least(r.clock + 1, now_us + 300000000)) end,
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

create trigger zz_syncline_insert after insert on public.city referencing new table as new_rows
for each statement execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_insert;

create trigger zz_syncline_update after update on public.city referencing old table as old_rows new table as new_rows
for each statement execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_update;

create trigger zz_syncline_delete after delete on public.city referencing old table as old_rows
for each statement execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_delete;

create trigger zz_syncline_truncate after truncate on public.city
for each statement execute function syncline."capture_2"();

alter table public.city enable always trigger zz_syncline_truncate;

select greatest(reltuples, 0)::int8 as estimate from pg_class where oid = $1::oid;

with page as materialized (select t."uuid" as key from "public"."country" t  order by t."uuid" limit $1),
made as (
  insert into syncline.record (resource_id, record_id, xact, origin, clock)
  select $2, page.key::text collate "C", pg_current_xact_id(), (select site_id from syncline.self),
         (extract(epoch from clock_timestamp()) * 1000000)::int8
    from page order by 2
  on conflict (resource_id, record_id) do nothing
)
select (select key::text from page order by page.key desc limit 1) as last, count(*)::int as rows from page;

analyze syncline.record;

with page as materialized (select t."id" as key from "public"."city" t  order by t."id" limit $1),
made as (
  insert into syncline.record (resource_id, record_id, xact, origin, clock)
  select $2, page.key::text collate "C", pg_current_xact_id(), (select site_id from syncline.self),
         (extract(epoch from clock_timestamp()) * 1000000)::int8
    from page order by 2
  on conflict (resource_id, record_id) do nothing
)
select (select key::text from page order by page.key desc limit 1) as last, count(*)::int as rows from page;

-- collect a batch

with scan as materialized (
  select r.record_id, r.xact, r.origin, r.clock, r.seen, r.deleted, r.source
    from syncline.record r
   where r.resource_id = 2 and (r.xact, r.record_id) > ($1::xid8, $2 collate "C")
     and r.xact < pg_snapshot_xmin(pg_current_snapshot())
   order by r.xact, r.record_id limit $3
), sized as materialized (
  select s.*, live.live_key, live.matches, coalesce(live.bytes, 0) as bytes,
         row_number() over w as n, sum(coalesce(live.bytes, 0) + 80) over w as total
    from scan s left join lateral (
      select t."id" as live_key, greatest(pg_column_size(t.*), coalesce(octet_length(t."name"::text), 0)) as bytes, true as matches
        from "public"."city" t
       where t."id" = s.record_id::pg_catalog.uuid and not s.deleted and s.source is distinct from $4 offset 0
    ) live on true
  window w as (order by s.xact, s.record_id)
), kept as materialized (
  select s.*,
         case when s.source is not distinct from $5 then null
              when octet_length(s.record_id) not between 1 and 512 then null
              when s.deleted then 'd'
              when s.live_key is null then null
              when s.matches then 'p'
              when false then 'l' end as kind
    from sized s where s.n = 1 or s.total <= $6
), origins as materialized (
  select array_agg(site order by site) as list from (
    select origin as site from kept where kind is not null
    union select key::int4 from kept, jsonb_object_keys(kept.seen) key where kind is not null and seen is not null
  ) o
)
select (select string_agg(
          to_json(k.record_id)::text || e'\t' || k.clock || e'\t' || array_position(o.list, k.origin) - 1 || e'\t'
          || case when k.seen is null then '' else (select jsonb_object_agg(array_position(o.list, key::int4) - 1, value)::text from jsonb_each(k.seen)) end
          || e'\t' || k.kind || e'\t' || coalesce(
            (select json_build_array((select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id"), coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')), t."name"::text, t."people"::text, case when array_lower(t."tags", 1) <> 1 or array_lower(t."tags", 2) <> 1 then to_json(t."tags"::text) else to_json(t."tags") end, t."facts", translate(t."source"::text, e'\n\r\t', '   ')::json)::text from "public"."city" t
              where k.kind = 'p' and t."id" = k.live_key offset 0), ''),
          e'\n' order by k.n) from kept k cross join origins o where k.kind is not null) as text,
       (select count(*) from kept where kind is not null)::int as lines,
       (select count(*) from scan)::int as scanned,
       exists (select from syncline.record r where r.resource_id = 2
                 and r.xact >= pg_snapshot_xmin(pg_current_snapshot())) as held,
       (select count(*) from kept)::int as kept,
       (select xact::text from kept order by n desc limit 1) as last_xact,
       (select record_id from kept order by n desc limit 1) as last_id,
       (select list from origins) as origins,
       null::text[] as left_ids,
       null::text[] as sent_ids;

-- collect a batch under a filter across a reference

select max(xact)::text as head from (
  select (select r.xact from syncline.record r where r.resource_id = p.id and r.xact < pg_snapshot_xmin(pg_current_snapshot())
           order by r.xact desc, r.record_id desc limit 1) as xact
    from unnest($1::int4[]) p(id)) heads;

with scan as materialized (
  select r.record_id, r.xact, r.origin, r.clock, r.seen, r.deleted, r.source
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
              when s.deleted then case when exists (select from syncline.shared h where h.peer_id = $7 and h.resource_id = $8 and h.record_id = s.record_id) then 'd' end
              when s.live_key is null then null
              when s.matches then 'p'
              when exists (select from syncline.shared h where h.peer_id = $9 and h.resource_id = $10 and h.record_id = s.record_id) then 'l' end as kind
    from sized s where s.n = 1 or s.total <= $11
), origins as materialized (
  select array_agg(site order by site) as list from (
    select origin as site from kept where kind is not null
    union select key::int4 from kept, jsonb_object_keys(kept.seen) key where kind is not null and seen is not null
  ) o
)
select (select string_agg(
          to_json(k.record_id)::text || e'\t' || k.clock || e'\t' || array_position(o.list, k.origin) - 1 || e'\t'
          || case when k.seen is null then '' else (select jsonb_object_agg(array_position(o.list, key::int4) - 1, value)::text from jsonb_each(k.seen)) end
          || e'\t' || k.kind || e'\t' || coalesce(
            (select json_build_array((select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id"), coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')), t."name"::text, t."people"::text, case when array_lower(t."tags", 1) <> 1 or array_lower(t."tags", 2) <> 1 then to_json(t."tags"::text) else to_json(t."tags") end, t."facts", translate(t."source"::text, e'\n\r\t', '   ')::json)::text from "public"."city" t
              where k.kind = 'p' and t."id" = k.live_key offset 0), ''),
          e'\n' order by k.n) from kept k cross join origins o where k.kind is not null) as text,
       (select count(*) from kept where kind is not null)::int as lines,
       (select count(*) from scan)::int as scanned,
       exists (select from syncline.record r where r.resource_id = 2
                 and r.xact >= pg_snapshot_xmin(pg_current_snapshot())) as held,
       (select count(*) from kept)::int as kept,
       (select xact::text from kept order by n desc limit 1) as last_xact,
       (select record_id from kept order by n desc limit 1) as last_id,
       (select list from origins) as origins,
       (select array_agg(record_id) from kept where kind in ('l', 'd')) as left_ids,
       (select array_agg(record_id) from kept where kind = 'p' or kind is null and matches and source = $12) as sent_ids;

-- apply records that are new

select pg_advisory_xact_lock(hashtextextended('syncline.apply', $1));

select set_config(name, 'off', true) from unnest(array['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit']) name;

select set_config('max_parallel_workers_per_gather', '0', true), set_config('lock_timeout', $1, true);

create temporary table if not exists syncline_stage (
  n int not null, class "char" not null, kind "char" not null, id text collate "C" not null,
  clock int8, origin int4, seen jsonb, payload text,
  l_clock int8, l_origin int4, l_seen jsonb, l_deleted bool, announce bool not null default false, in_clock int8, in_origin int4,
  w_resource int4, w_id text, code text, reason text
) on commit delete rows;

delete from pg_temp.syncline_stage;

savepoint syncline_batch;

insert into pg_temp.syncline_stage (n, class, kind, id, clock, origin, seen, payload, l_clock, l_origin, l_seen, l_deleted)
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
end::"char", p.kind, p.id, p.clock, p.origin, p.seen, p.payload, l.clock, l.origin, l.seen, l.deleted
      from (
        select n, id, nullif(split_part(line, e'\t', 2), '')::int8 as clock, coalesce(($1::int4[])[nullif(split_part(line, e'\t', 3), '')::int4 + 1], $2) as origin,
               case when split_part(line, e'\t', 4) = '' then null else (
                 select jsonb_object_agg(($3::int4[])[key::int4 + 1], value::int8)
                   from jsonb_each_text((split_part(line, e'\t', 4))::jsonb)) end as seen,
               (split_part(line, e'\t', 5))::"char" as kind, payload
          from (
    select n, (case when strpos(split_part(line, e'\t', 1), '\') = 0 then substr(split_part(line, e'\t', 1), 2, length(split_part(line, e'\t', 1)) - 2) else ('[' || split_part(line, e'\t', 1) || ']')::jsonb ->> 0 end)::uuid::text collate "C" as id, split_part(line, e'\t', 6) as payload, line
      from unnest(string_to_array($4, e'\n')) with ordinality as u(line, n) where line <> '') staged offset 0
      ) p
      left join lateral (
        select r.clock, r.origin, r.seen, r.deleted from syncline.record r
         where r.resource_id = 2 and r.record_id = p.id offset 0
      ) l on true
     order by p.id;

update pg_temp.syncline_stage s set class = 'o', code = 'SYNC_RECORD_INVALID', reason = 'the batch names this record again, spelled differently; the last one counts'
  from (select id, max(n) as last from pg_temp.syncline_stage group by id having count(*) > 1) d
 where s.id = d.id and s.n < d.last;

update pg_temp.syncline_stage set clock = (extract(epoch from clock_timestamp()) * 1000000)::int8 where clock is null and class = 'n';

update pg_temp.syncline_stage set class = 'q', code = 'SYNC_RECORD_TOO_LARGE',
       reason = format('the record has %s bytes; this site accepts %s', octet_length(payload), $1::int8)
 where octet_length(payload) > $2 and class <> 's';

update pg_temp.syncline_stage s set class = 'q', code = 'SYNC_RECORD_CLOCK_AHEAD', reason = 'its version is stamped more than ' || $1::text || ' minutes ahead of the clock of this site'
 where s.class in ('n', 'f', 'c') and (s.clock > (extract(epoch from clock_timestamp()) * 1000000)::int8 + $2::int8
    or s.seen is not null and exists (select from jsonb_each_text(s.seen) e where e.value::int8 > (extract(epoch from clock_timestamp()) * 1000000)::int8 + $3::int8
      and e.value::int8 > coalesce(case when e.key::int4 = s.l_origin then s.l_clock else (s.l_seen ->> e.key)::int8 end, 0)));

select class::text, kind::text, count(*)::int from pg_temp.syncline_stage group by 1, 2;

update pg_temp.syncline_stage s set class = 'w', w_resource = $1, w_id = v.target,
       code = 'SYNC_RECORD_PARENT_MISSING', reason = format('%s refers to %s %s, which is not here yet', $2::text, $3::text, v.target)
  from (select n, payload::jsonb ->> 0 as target from pg_temp.syncline_stage where class in ('n', 'f') and kind = 'p' offset 0) v
 where v.n = s.n and v.target is not null and not exists (
   select from "public"."country" p where p."uuid" = v.target::pg_catalog.uuid);

savepoint syncline_range;

select set_config('syncline.apply', $1, true);

select count(*) from pg_temp.syncline_stage s where s.kind = 'p' and (s.class = 'n' or s.class = 'f' and s.l_deleted) and s.n between $1 and $2;

insert into "public"."city" ("id", "country_id", "twin", "name", "people", "tags", "facts", "source") select s.key, (select p."id" from "public"."country" p
  where p."uuid" = (s.v ->> 0)::pg_catalog.uuid), (select p."id" from "public"."city" p
  where p."id" = (s.v ->> 1)::pg_catalog.uuid), (s.v ->> 2)::pg_catalog."varchar", (s.v ->> 3)::pg_catalog.int8, (jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags", nullif((s.v -> 5), 'null'::jsonb)::pg_catalog.jsonb, nullif((s.payload::json -> 6)::text, 'null')::pg_catalog.json from (
  select s.id::pg_catalog.uuid as key, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s
   where s.kind = 'p' and (s.class = 'n' or s.class = 'f' and s.l_deleted) and s.n between $1 and $2 order by s.id offset 0) s;

select set_config('syncline.apply', '', true);

insert into syncline.record (resource_id, record_id, xact, origin, clock, seen, deleted, source)
select $1, s.id, pg_current_xact_id(), s.origin, s.clock, s.seen, s.kind = 'd', $2::int4
  from pg_temp.syncline_stage s where s.class = 'n' and s.n between $3 and $4 order by s.id;

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

select class::text, announce, count(*)::int from pg_temp.syncline_stage group by 1, 2;

-- apply what supersedes, what is deleted and a conflict

select from (select s.id::pg_catalog.uuid as key from pg_temp.syncline_stage s where s.class in ('f', 'c', 'u', 'l') order by s.id offset 0) s
join "public"."city" t on t."id" = s.key for no key update of t;

select from syncline.record r where r.resource_id = $1 and r.record_id in (
  select s.id from pg_temp.syncline_stage s where s.l_deleted and s.class in ('f', 'c', 'u', 'l'))
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

select s.n, s.id, s.kind::text, s.class::text, s.clock, (select o.origin from syncline.site o where o.id = s.origin) as origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.seen) e join syncline.site o on o.id = e.key::int4) as seen,
       s.l_clock, (select o.origin from syncline.site o where o.id = s.l_origin) as l_origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.l_seen) e join syncline.site o on o.id = e.key::int4) as l_seen, s.l_deleted,
       case when s.l_deleted then s.kind = 'd' when s.kind = 'd' then false when s.class = 'u' then (select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id") is not distinct from (s.v ->> 0) and coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')) is not distinct from (s.v ->> 1) and t."name" is not distinct from ((s.v ->> 2)::pg_catalog."varchar") and t."people" is not distinct from ((s.v ->> 3)::pg_catalog.int8) and t."tags" is not distinct from ((jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags") and t."facts" is not distinct from (nullif((s.v -> 5), 'null'::jsonb)::pg_catalog.jsonb) and t."source"::text is not distinct from (nullif((s.payload::json -> 6)::text, 'null')::pg_catalog.json)::text else (select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id") is not distinct from (s.v ->> 0) and coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')) is not distinct from (s.v ->> 1) and t."name"::text is not distinct from ((s.v ->> 2)::pg_catalog."varchar")::text and t."people"::text is not distinct from ((s.v ->> 3)::pg_catalog.int8)::text and t."tags"::text is not distinct from ((jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags")::text and t."facts"::text is not distinct from (nullif((s.v -> 5), 'null'::jsonb)::pg_catalog.jsonb)::text and t."source"::text is not distinct from (nullif((s.payload::json -> 6)::text, 'null')::pg_catalog.json)::text end as equal,
       case when s.l_deleted then null else json_build_array((select p."uuid"::text from "public"."country" p
     where p."id" = t."country_id"), coalesce(t."twin"::text, (select f.target_record_id from syncline.pending_ref f where f.resource_id = 2
        and f.record_id = t."id"::text and f.column_name = 'twin')), t."name"::text, t."people"::text, case when array_lower(t."tags", 1) <> 1 or array_lower(t."tags", 2) <> 1 then to_json(t."tags"::text) else to_json(t."tags") end, t."facts", translate(t."source"::text, e'\n\r\t', '   ')::json)::text end as ours, nullif(s.payload, '') as theirs,
       (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us
  from (select x.*, nullif(x.payload, '')::jsonb as v from pg_temp.syncline_stage x where x.class in ('c', 'u') and x.n > $1 order by x.n limit $2) s
  left join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 order by s.n;

insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data)
select $1, s.id, $2::int8, 'lost a conflict', s.origin, s.clock, s.seen, s.kind = 'd',
       (select json_object_agg(name, nullif(s.payload, '')::jsonb -> (at - 1)::int4) from unnest($3::text[]) with ordinality c(name, at))
  from pg_temp.syncline_stage s where s.n = $4;

update pg_temp.syncline_stage set class = $1::"char", announce = $2, in_clock = clock, in_origin = origin,
       clock = coalesce($3::int8, clock), origin = coalesce($4::int4, origin),
       seen = case when $5 then $6::jsonb else seen end
 where n = $7;

select format('%I.%I', n.nspname, c.relname) as child, c.oid as child_oid, f.confdeltype::text as action,
       array(select a.attname::text from unnest(f.conkey) with ordinality k(num, at) join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.num order by k.at) as child_columns,
       array(select a.attname::text from unnest(f.confkey) with ordinality k(num, at) join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.num order by k.at) as columns
  from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_namespace n on n.oid = c.relnamespace
 where f.confrelid = $1::oid and f.contype = 'f' and f.conparentid = 0;

update pg_temp.syncline_stage s set class = 'b', code = 'SYNC_RECORD_STILL_REFERENCED',
       reason = format('rows of %s still refer to it by %s', $1::text, $2::text)
  from "public"."city" t
 where (s.kind = 'd' and s.class = 'f' and not s.l_deleted or s.class = 'r') and (s.class = 'r' or not true) and t."id" = s.id::pg_catalog.uuid
   and exists (select from public.city c where c."twin" = t."id" and c."id"::text not in (select d.id from pg_temp.syncline_stage d where (d.kind = 'd' and d.class = 'f' and not d.l_deleted or d.class = 'r')));

insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data)
select $1, s.id, $2::int8, case s.kind when 'd' then 'deleted' else 'replaced' end,
       s.l_origin, s.l_clock, s.l_seen, s.l_deleted, row_to_json(t.*)
  from pg_temp.syncline_stage s left join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 where s.class = 'f' and s.n between $3 and $4;

update "public"."city" c set "twin" = null from "public"."city" t join pg_temp.syncline_stage s on t."id" = s.id::pg_catalog.uuid
 where s.class = 'f' and s.kind = 'd' and not s.l_deleted and s.n between $1 and $2 and c."twin" = t."id"
   and c."id"::text not in (select o.id from pg_temp.syncline_stage o where o.class in ('n', 'f'));

delete from "public"."city" t using pg_temp.syncline_stage s where s.class = 'f' and s.kind = 'd' and not s.l_deleted and s.n between $1 and $2
and t."id" = s.id::pg_catalog.uuid;

select from pg_temp.syncline_stage s, "public"."city" t where s.class = 'f' and s.kind = 'd' and not s.l_deleted and s.n between $1 and $2
and t."id" = s.id::pg_catalog.uuid limit 1;

update "public"."city" t set "country_id" = (select p."id" from "public"."country" p
  where p."uuid" = (s.v ->> 0)::pg_catalog.uuid), "twin" = (select p."id" from "public"."city" p
  where p."id" = (s.v ->> 1)::pg_catalog.uuid), "name" = (s.v ->> 2)::pg_catalog."varchar", "people" = (s.v ->> 3)::pg_catalog.int8, "tags" = (jsonb_populate_record(null::"public"."city", jsonb_build_object('tags', s.v -> 4)))."tags", "facts" = nullif((s.v -> 5), 'null'::jsonb)::pg_catalog.jsonb, "source" = nullif((s.payload::json -> 6)::text, 'null')::pg_catalog.json from (select s.id::pg_catalog.uuid as key, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s
where s.class = 'f' and s.kind = 'p' and not s.l_deleted and s.n between $1 and $2 order by s.id offset 0) s where t."id" = s.key;

select count(*) from pg_temp.syncline_stage s where s.class = 'f' and s.kind = 'p' and not s.l_deleted and s.n between $1 and $2;

update syncline.record r set xact = pg_current_xact_id(), origin = s.origin, clock = s.clock,
       seen = case when s.l_seen is null then s.seen
              else syncline.join_seen(s.origin, s.seen, s.origin, s.clock, s.l_seen, s.l_origin, s.l_clock) end,
       deleted = case s.class when 'v' then r.deleted else s.kind = 'd' end,
       source = case when s.announce then null else $1::int4 end
  from (select * from pg_temp.syncline_stage s where s.class in ('f', 'v') and s.n between $2 and $3 order by s.id offset 0) s
 where r.resource_id = 2 and r.record_id = s.id;

select id, class::text, code, reason, announce from pg_temp.syncline_stage
 where class not in ('n', 's') and (class <> 'f' or announce) order by n limit $1;

-- take a push by hand within a grant

insert into "public"."city" ("id", "country_id", "people") select s.key, (select p."id" from "public"."country" p
  where p."uuid" = (s.v ->> 0)::pg_catalog.uuid), (s.v ->> 1)::pg_catalog.int8 from (
  select s.id::pg_catalog.uuid as key, s.payload, s.payload::jsonb as v from pg_temp.syncline_stage s
   where s.kind = 'p' and (s.class = 'n' or s.class = 'f' and s.l_deleted) and s.n between $1 and $2 order by s.id offset 0) s;

select s.n from pg_temp.syncline_stage s join "public"."city" t on t."id" = s.id::pg_catalog.uuid
 where s.class in ('n', 'f') and s.kind = 'p' and s.n between $1 and $2 and not coalesce((("t"."people" < $3::int8) is true), false);

insert into syncline.quarantine as q (peer_id, resource_id, record_id, via, origin, clock, run_id, line, header, code, reason, waits_resource_id, waits_record_id, retry_at)
select $1, $2, s.id, $3, coalesce(s.in_origin, s.origin), coalesce(s.in_clock, s.clock, 0), $4::int8, l.line, $5::jsonb,
       s.code, s.reason, s.w_resource, s.w_id, now() + interval '1 minute'
  from pg_temp.syncline_stage s
  join unnest(string_to_array($6, e'\n')) with ordinality l(line, n) on l.n = s.n
 -- What was refused is not kept here, unless it waited already: then the reason is another now.
 where s.class in ('w', 'b', 'q') or s.class = 'o' and exists (
   select from syncline.quarantine e where e.peer_id = $7 and e.resource_id = $8 and e.record_id = s.id)
on conflict (peer_id, resource_id, record_id) do update set
  via = excluded.via, origin = excluded.origin, clock = excluded.clock, run_id = excluded.run_id, line = excluded.line, header = excluded.header,
  code = excluded.code, reason = excluded.reason, waits_resource_id = excluded.waits_resource_id, waits_record_id = excluded.waits_record_id,
  attempts = q.attempts + 1, last_at = now(), retry_at = now() + least(interval '1 minute' * power(2, least(q.attempts, 10)), interval '6 hours')
where not (excluded.origin = q.origin and excluded.clock < q.clock);

update pg_temp.syncline_stage s set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'the record does not match the filter of the grant'
  from "public"."city" t
 where s.class in ('f', 'c', 'u') and t."id" = s.id::pg_catalog.uuid
   and not coalesce((("t"."people" < $1::int8) is true), false);

select s.n, s.id, s.kind::text, s.class::text, s.clock, (select o.origin from syncline.site o where o.id = s.origin) as origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.seen) e join syncline.site o on o.id = e.key::int4) as seen,
       s.l_clock, (select o.origin from syncline.site o where o.id = s.l_origin) as l_origin, (select jsonb_object_agg(o.origin, e.value) from jsonb_each_text(s.l_seen) e join syncline.site o on o.id = e.key::int4) as l_seen, s.l_deleted,
       case when s.l_deleted then s.kind = 'd' when s.kind = 'd' then false when s.class = 'u' then t."people" is not distinct from ((s.v ->> 0)::pg_catalog.int8) else t."people"::text is not distinct from ((s.v ->> 0)::pg_catalog.int8)::text end as equal,
       case when s.l_deleted then null else json_build_array(t."people"::text)::text end as ours, nullif(s.payload, '') as theirs,
       (extract(epoch from clock_timestamp()) * 1000000)::int8 as now_us
  from (select x.*, nullif(x.payload, '')::jsonb as v from pg_temp.syncline_stage x where x.class in ('c', 'u') and x.n > $1 order by x.n limit $2) s
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
       q.attempts, q.first_at as "firstAt", q.last_at as "lastAt", q.retry_at as "retryAt", q.line, q.header
  from syncline.quarantine q join syncline.peer p on p.id = q.peer_id join syncline.resource r on r.id = q.resource_id
  left join syncline.resource w on w.id = q.waits_resource_id
  where q.id > $1::int8 and not p.paused and (
      q.retry_at <= now() or q.code = 'SYNC_RECORD_STILL_REFERENCED'
      or exists (select from syncline.record p where p.resource_id = q.waits_resource_id and p.record_id = q.waits_record_id and not p.deleted))
    order by q.id limit $2;

-- compare

with hashed as (
  select record_id, hash, ntile($1::int4) over (order by record_id) as bucket from (
select r.record_id, hashtextextended(concat_ws(e'\n', r.record_id, o.origin, r.clock, r.deleted), 0)::numeric as hash
  from syncline.record r join syncline.site o on o.id = r.origin
 where r.resource_id = $2   ) records
)
select max(record_id) as last, count(*)::int as count, sum(hash)::text as sum from hashed group by bucket order by bucket;
