import { type Kysely, sql } from 'kysely'

/**
 * The two rules of a new version, for triggers and for apply. Mirrors src/sync/clock.ts and version.ts:
 * a clock grows past everything the record has seen, but a foreign clock never pushes it more than five minutes ahead of now;
 * what a version has seen is kept for other origins only.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function syncline.next_clock(origin int4, clock int8, seen jsonb, me int4, now_us int8) returns int8
    language sql immutable as $$
      select case
        when origin = me and seen is null then greatest(now_us, clock + 1)
        when seen is null then greatest(now_us, least(clock + 1, now_us + 300000000))
        else greatest(
          now_us,
          least((select max(value::int8) + 1 from jsonb_each_text(seen)), now_us + 300000000),
          case when origin = me then clock + 1 else least(clock + 1, now_us + 300000000) end,
          (seen ->> me::text)::int8 + 1)
      end
    $$
  `.execute(db)
  await sql`
    create function syncline.next_seen(origin int4, clock int8, seen jsonb, me int4) returns jsonb
    language sql immutable as $$
      select case
        when origin = me then seen
        when seen is null then jsonb_build_object(origin::text, clock)
        else (seen || jsonb_build_object(origin::text, clock)) - me::text
      end
    $$
  `.execute(db)
  await sql`
    create function syncline.join_seen(origin int4, a jsonb, a_origin int4, a_clock int8, b jsonb, b_origin int4, b_clock int8) returns jsonb
    language sql immutable as $$
      select jsonb_object_agg(site, clock) from (
        select site, max(clock) as clock from (
          select key as site, value::int8 as clock from jsonb_each_text(coalesce(a, '{}'))
          union all select key, value::int8 from jsonb_each_text(coalesce(b, '{}'))
          union all select a_origin::text, a_clock union all select b_origin::text, b_clock
        ) every_dot where site <> origin::text group by site
      ) highest
    $$
  `.execute(db)
}
