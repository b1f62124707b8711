import { type Kysely, sql } from 'kysely'
import { judgeMark, SynclineError } from '../sync/index.ts'
import { openBrake } from './brakes.ts'
import { inTransaction } from './registry/index.ts'
import type { Database } from './schema.ts'

/** Marks kept of one peer: enough to know one again after many restarts. */
const MARKS_MAX = 200
const MARK = /^[a-z0-9]{1,40}$/

export type MarkedPeer = { readonly id: number; readonly name: string; readonly uuid: string }

/**
 * Takes note of the mark that a peer shows. A former one that comes back stops every exchange with the peer until a person has looked: two sites
 * live under its UUID, or it was put back to an earlier state while it ran. Errors: SYNC_PEER_CLONED.
 */
export async function meetMark(
  db: Kysely<Database>,
  peer: MarkedPeer,
  mark: string,
  runId: string | null = null,
): Promise<void> {
  if (!MARK.test(mark)) return
  const { rows } = await sql<{ known: boolean; current: boolean; ago: number | null; stopped: string | null }>`
    select m.mark is not null as known, m.superseded_at is null as current,
           extract(epoch from clock_timestamp() - m.superseded_at)::float8 * 1000 as ago,
           (select b.reason from syncline.brake b where b.peer_id = ${peer.id} and b.direction = 'peer' and b.ended_at is null) as stopped
      from (values (1)) one left join syncline.peer_mark m on m.peer_id = ${peer.id} and m.mark = ${mark}`.execute(db)
  const { known = false, current = true, ago = null, stopped = null } = rows[0] ?? {}
  if (stopped !== null) throw cloned(stopped)
  switch (judgeMark(known ? { current, supersededMsAgo: ago } : null)) {
    case 'same':
    case 'late':
      return
    case 'new':
      return supersede(db, peer.id, mark)
    case 'former':
      throw await stop(
        db,
        peer,
        `two sites call themselves ${peer.uuid}: a former one of "${peer.name}" came back after another had taken its place. One of them is a copy, or was put back to an earlier state while it ran`,
        runId,
      )
  }
}

async function supersede(db: Kysely<Database>, peerId: number, mark: string): Promise<void> {
  await inTransaction(db, async (trx) => {
    await sql`select from syncline.peer where id = ${peerId} for no key update`.execute(trx)
    await sql`update syncline.peer_mark set superseded_at = clock_timestamp() where peer_id = ${peerId} and mark <> ${mark} and superseded_at is null`.execute(
      trx,
    )
    await sql`insert into syncline.peer_mark (peer_id, mark) values (${peerId}, ${mark}) on conflict do nothing`.execute(
      trx,
    )
    await sql`delete from syncline.peer_mark where peer_id = ${peerId} and mark in (
      select mark from syncline.peer_mark where peer_id = ${peerId} order by first_at desc offset ${MARKS_MAX})`.execute(
      trx,
    )
  })
}

async function stop(
  db: Kysely<Database>,
  peer: MarkedPeer,
  reason: string,
  runId: string | null,
): Promise<SynclineError> {
  const facts = { deletes: 0, changes: 0, living: 0, samples: [] }
  await openBrake(db, { peerId: peer.id, resourceId: null, direction: 'peer', rules: ['clone'], reason, facts, runId })
  return cloned(reason)
}

function cloned(reason: string): SynclineError {
  return new SynclineError('SYNC_PEER_CLONED', reason)
}
