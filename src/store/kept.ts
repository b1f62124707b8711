import { sql, type Transaction } from 'kysely'
import type { Database } from './schema.ts'
import type { StageCounts } from './stage.ts'

/**
 * Remembers which staged records left the filter of the link at the peer and stay here, so that a comparison within the filter leaves them out, and
 * forgets those that came back. With a version that the peer has not seen a record is none of them: it goes there and counts.
 */
export async function noteKept(
  trx: Transaction<Database>,
  resourceId: number,
  peerId: number,
  counts: StageCounts,
): Promise<void> {
  if ((counts.l ?? 0) > 0) {
    await sql`
      insert into syncline.kept (peer_id, resource_id, record_id, origin, clock)
      select ${peerId}, ${resourceId}, s.id, s.l_origin, s.l_clock from pg_temp.syncline_stage s
       where s.class = 'l' and not s.l_deleted and s.l_origin is not null
         and (s.origin = s.l_origin and s.clock >= s.l_clock or (s.seen ->> s.l_origin::text)::int8 >= s.l_clock)
      on conflict (peer_id, resource_id, record_id) do update set origin = excluded.origin, clock = excluded.clock`.execute(
      trx,
    )
  }
  await sql`
    delete from syncline.kept k using pg_temp.syncline_stage s
     where k.peer_id = ${peerId} and k.resource_id = ${resourceId} and k.record_id = s.id and s.kind = 'p'`.execute(trx)
}
