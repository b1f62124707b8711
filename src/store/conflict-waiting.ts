import { sql, type Transaction } from 'kysely'
import type { LineHeader } from './quarantine.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/**
 * A version that could not be written here and has seen the other side of an open conflict takes its place there: it is the newest word of that side, and
 * a person who decides without having seen it would only open the conflict again where it came from, for ever. The entry says in its header that it `waits`. Belongs behind what sets staged
 * records aside, in its transaction.
 */
export async function showWaiting(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  header: LineHeader,
  place: { readonly peerId: number; readonly runId: string | null },
): Promise<void> {
  const { rows } = await sql`
    select from syncline.conflict c join pg_temp.syncline_stage s on s.id = c.record_id and s.class in ('w', 'b', 'q')
     where c.resource_id = ${resource.id} and c.resolved_at is null limit 1`.execute(trx)
  if (rows.length === 0) return
  const entry = JSON.stringify({ resource: header.resource, columns: header.columns, refs: header.refs })
  await sql`
    update syncline.conflict c set peer_id = ${place.peerId}, run_id = ${place.runId}::int8, updated_at = clock_timestamp(),
           theirs = case when s.kind = 'd' then null else (
             select jsonb_object_agg(name, s.payload::jsonb -> (at - 1)::int4) from unnest(${header.columns}::text[]) with ordinality n(name, at)) end,
           theirs_version = jsonb_strip_nulls(jsonb_build_object('origin', o.origin, 'clock', s.clock, 'seen', (
             select jsonb_object_agg(w.origin, e.value) from jsonb_each(s.seen) e join syncline.site w on w.id = e.key::int4))),
           fields = null, header = ${entry}::jsonb || jsonb_build_object('origins', jsonb_build_array(o.origin), 'waits', true),
           line = to_json(s.id)::text || e'\\t' || s.clock || e'\\t0\\t\\t' || s.kind::text || e'\\t' || coalesce(s.payload, '')
      from pg_temp.syncline_stage s join syncline.site o on o.id = s.origin
     where c.resource_id = ${resource.id} and c.record_id = s.id and c.resolved_at is null
       and s.class in ('w', 'b', 'q') and s.kind in ('p', 'd') and s.clock is not null and s.code <> 'SYNC_RECORD_INVALID'
       and (s.in_clock is null or s.in_clock = s.clock and s.in_origin = s.origin)
       and (o.origin, s.clock) is distinct from (c.theirs_version ->> 'origin', (c.theirs_version ->> 'clock')::int8)
       and (case when o.origin = c.theirs_version ->> 'origin' then s.clock
            else (select e.value::int8 from jsonb_each_text(s.seen) e join syncline.site w on w.id = e.key::int4
                   where w.origin = c.theirs_version ->> 'origin') end) >= (c.theirs_version ->> 'clock')::int8`.execute(
    trx,
  )
}
