import { type Kysely, sql } from 'kysely'

/** What the triggers and apply need to keep the writes behind single fields (src/sync/merge.ts). */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function syncline.map_fields(fields jsonb, origins int4[]) returns jsonb
    language sql immutable as $$
      select jsonb_object_agg(f.key, (
        select jsonb_object_agg(p.key, (
          select jsonb_object_agg(origins[e.key::int4 + 1]::text, e.value) from jsonb_each(p.value) e))
          from jsonb_each(f.value) p))
        from jsonb_each(fields) f
    $$
  `.execute(db)
  await sql`
    comment on function syncline.map_fields is 'The origins in the writes behind fields, from places in a list to its members.'
  `.execute(db)
  await sql`
    create function syncline.place_fields(fields jsonb, origins int4[]) returns jsonb
    language sql immutable as $$
      select jsonb_object_agg(f.key, (
        select jsonb_object_agg(p.key, (
          select jsonb_object_agg((array_position(origins, e.key::int4) - 1)::text, e.value) from jsonb_each(p.value) e))
          from jsonb_each(f.value) p))
        from jsonb_each(fields) f
    $$
  `.execute(db)
  await sql`
    comment on function syncline.place_fields is 'The other way round: from members of the list to their places.'
  `.execute(db)
  await sql`
    create function syncline.field_origins(fields jsonb) returns setof int4
    language sql immutable as $$
      select distinct e.key::int4 from jsonb_each(fields) f, jsonb_each(f.value) p, jsonb_each(p.value) e
    $$
  `.execute(db)
  // Mirrors `edit` in test/sync/merge.test.ts: unchanged fields keep what stood behind them, a counter counts on, the rest is written anew.
  await sql`
    create function syncline.next_fields(fields jsonb, origin int4, clock int8, me int4, now int8, changed jsonb) returns jsonb
    language plpgsql immutable as $$
    declare
      rest jsonb := coalesce(fields -> '*', jsonb_build_object('dots', jsonb_build_object(origin::text, clock)));
      plain jsonb := jsonb_build_object('dots', jsonb_build_object(me::text, now));
      made jsonb := jsonb_build_object('*', rest) || coalesce(fields, '{}');
      field text;
      delta text;
      mark jsonb;
    begin
      for field, delta in select * from jsonb_each_text(changed) loop
        mark := coalesce(fields -> field, rest);
        if delta is null or mark ? 'values' then
          mark := plain;
        elsif mark ? 'base' then
          mark := mark || jsonb_build_object(
            'dots', mark -> 'dots' || jsonb_build_object(me::text, now),
            'sums', mark -> 'sums' || jsonb_build_object(me::text, (coalesce((mark -> 'sums' ->> me::text)::numeric, 0) + delta::numeric)::text));
        elsif (select count(*) from jsonb_object_keys(mark -> 'dots')) = 1 then
          mark := jsonb_build_object('base', mark -> 'dots', 'dots', jsonb_build_object(me::text, now), 'sums', jsonb_build_object(me::text, delta));
        else
          mark := plain;
        end if;
        made := made || jsonb_build_object(field, mark);
      end loop;
      return made;
    end
    $$
  `.execute(db)
}
