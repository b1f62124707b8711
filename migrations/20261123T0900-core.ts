import { type Kysely, sql } from 'kysely'

/** Values that a column would change without a word, and writes behind fields that cannot be. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function syncline.inexact() returns jsonb
    language plpgsql as $$
    begin
      raise exception using errcode = 'SYNX1', message = 'a value does not fit its column without losing something';
    end
    $$
  `.execute(db)
  await sql`
    alter table syncline.run add column received text
  `.execute(db)
  await sql`
    create unique index run_received on syncline.run (peer_id, received) where received is not null
  `.execute(db)
  await sql`
    comment on column syncline.run.received is 'What the peer calls the run in which it pushed what this one holds.'
  `.execute(db)
  // A write behind a field that its version has not seen stands for the last write of that origin that it has: nobody can have merged anything else.
  await sql`
    create function syncline.sound_dots(dots jsonb, origin int4, clock int8, seen jsonb) returns jsonb
    language sql immutable as $$
      select jsonb_object_agg(key, least(value, limit_us)) from (
        select e.key, e.value::int8 as value, coalesce(case when e.key::int4 = origin then clock else (seen ->> e.key)::int8 end, 0) as limit_us
          from jsonb_each_text(dots) e) d where limit_us > 0
    $$
  `.execute(db)
  await sql`
    create function syncline.sound_fields(fields jsonb, origin int4, clock int8, seen jsonb) returns jsonb
    language plpgsql immutable as $$
    declare
      made jsonb := '{}';
      field text;
      mark jsonb;
      dots jsonb;
    begin
      if not exists (select from jsonb_each(fields) f, jsonb_each(f.value) p, jsonb_each_text(p.value) e
                      where p.key in ('dots', 'base')
                        and e.value::int8 > coalesce(case when e.key::int4 = origin then clock else (seen ->> e.key)::int8 end, 0)) then
        return fields;
      end if;
      for field, mark in select * from jsonb_each(fields) loop
        dots := syncline.sound_dots(mark -> 'dots', origin, clock, seen);
        if dots is null then
          mark := jsonb_build_object('dots', jsonb_build_object(origin::text, clock));
        else
          mark := mark || jsonb_build_object('dots', dots);
          if mark ? 'values' then
            mark := mark || jsonb_build_object('values', (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(mark -> 'values') where dots ? key));
          end if;
          if mark ? 'base' and syncline.sound_dots(mark -> 'base', origin, clock, seen) is null then
            mark := mark - 'base' - 'sums';
          elsif mark ? 'base' then
            mark := mark || jsonb_build_object(
              'base', syncline.sound_dots(mark -> 'base', origin, clock, seen),
              'sums', (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(mark -> 'sums') where dots ? key));
          end if;
        end if;
        made := made || jsonb_build_object(field, mark);
      end loop;
      return made;
    end
    $$
  `.execute(db)
  await sql`
    comment on function syncline.sound_fields is 'The writes behind the fields of a version, none of which the version has not seen.'
  `.execute(db)
  // What cannot be sent as it is was refused by peers until now: it is offered to all of them again.
  await sql`
    update syncline.record r set fields = syncline.sound_fields(fields, origin, clock, seen), xact = pg_current_xact_id(), source = null
     where fields is not null and fields is distinct from syncline.sound_fields(fields, origin, clock, seen)
  `.execute(db)
}
