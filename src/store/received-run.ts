import { type Kysely, sql, type Transaction } from 'kysely'
import type { BatchReport } from '../sync/index.ts'
import type { Peer } from './registry/index.ts'
import type { Database } from './schema.ts'

/** What a peer pushes in one of its runs is one run here, so that it can be listed, explained and taken back. */
export type ReceivedRun = {
  readonly id: string
  /** Takes note of what a batch did. Belongs into its transaction: a run that changed nothing leaves nothing. */
  readonly note: (trx: Transaction<Database>, report: BatchReport) => Promise<void>
}

/**
 * The run here of a run of the peer: the one that holds its earlier batches, or a new one. `key` is what the peer calls its run; without one, as with
 * earlier programs and by hand, every push is a run. Between two batches such a run is always over, since nobody says when the last one has come.
 */
export async function receivedRun(
  db: Kysely<Database>,
  peer: Pick<Peer, 'id' | 'name'>,
  key: string | null,
): Promise<ReceivedRun> {
  const { rows } = await sql<{ id: string }>`
    select coalesce((select id from syncline.run where peer_id = ${peer.id} and received = ${key}::text),
                    nextval(pg_get_serial_sequence('syncline.run', 'id')))::text as id`.execute(db)
  const id = rows[0]?.id ?? ''
  return { id, note: (trx, report) => noteReceived(trx, peer, { id, key }, report) }
}

async function noteReceived(
  trx: Transaction<Database>,
  peer: Pick<Peer, 'id' | 'name'>,
  { id, key }: { readonly id: string; readonly key: string | null },
  { counts }: BatchReport,
): Promise<void> {
  const { applied, merged, conflict: conflicts, quarantined, refused } = counts
  const added = { applied, merged, conflicts, quarantined, refused }
  if (Object.values(added).every((count) => count === 0)) return
  const result = conflicts + quarantined + refused > 0 ? 'warning' : 'success'
  // Where two processes took a first batch of one run at once, the second stands for itself.
  const mine = sql`case when exists (select from syncline.run where peer_id = ${peer.id} and received = ${key}::text and id <> ${id}::int8) then null else ${key}::text end`
  await sql`
    insert into syncline.run as r (id, peer_id, peer_name, cause, state, finished_at, result, counts, received)
    overriding system value
    values (${id}::int8, ${peer.id}, ${peer.name}, 'received', 'finished', clock_timestamp(), ${result}, ${JSON.stringify(added)}::jsonb, ${mine})
    on conflict (id) do update set
      finished_at = clock_timestamp(), alive_at = clock_timestamp(), result = case when r.result = 'warning' then r.result else excluded.result end,
      counts = (select jsonb_object_agg(key, coalesce((r.counts ->> key)::int8, 0) + value::int8) from jsonb_each_text(excluded.counts))`.execute(
    trx,
  )
}
