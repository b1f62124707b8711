import { type Kysely, sql } from 'kysely'
import type { Database } from '../schema.ts'
import { forgetSource, notFound } from './peers.ts'
import { inTransaction } from './transaction.ts'
import { checkInstant } from './values.ts'

const INT4_MAX = 2_147_483_647

/** What a peer showed of itself. `clockOffsetMs` is its clock minus ours. */
export type PeerSighting = { readonly logId?: string | undefined; readonly clockOffsetMs?: number | undefined }

/**
 * Notes that a peer was heard. The first logId is kept; a different one changes nothing here and is answered with `logChanged`, for the caller to
 * stop at or to follow with `peerLogChanged`.
 */
export async function notePeerSeen(
  db: Kysely<Database>,
  peerId: number,
  sighting: PeerSighting,
): Promise<{ readonly logChanged: boolean }> {
  const { logId = null, clockOffsetMs } = sighting
  const offset = clockOffsetMs === undefined ? null : Math.max(-INT4_MAX, Math.min(INT4_MAX, Math.round(clockOffsetMs)))
  const row = await db
    .updateTable('syncline.peer')
    .set({
      last_seen_at: sql<string>`clock_timestamp()`,
      clock_offset_ms: sql<number | null>`coalesce(${offset}::int4, clock_offset_ms)`,
      log_id: sql<string | null>`coalesce(log_id, ${logId}::text)`,
    })
    .where('id', '=', peerId)
    .returning('log_id')
    .executeTakeFirst()
  if (row === undefined) throw notFound(peerId)
  return { logChanged: logId !== null && row.log_id !== logId }
}

/** Counts a failed attempt; `retryAt` is when the next one may begin. Gives the number of failures in a row. */
export async function notePeerFailure(db: Kysely<Database>, peerId: number, retryAt: string | null): Promise<number> {
  const row = await db
    .updateTable('syncline.peer')
    .set((eb) => ({
      failures: eb('failures', '+', 1),
      retry_at: retryAt === null ? null : checkInstant('the time of the next attempt', retryAt),
    }))
    .where('id', '=', peerId)
    .returning('failures')
    .executeTakeFirst()
  if (row === undefined) throw notFound(peerId)
  return row.failures
}

/** Ends a series of failures. */
export async function notePeerSuccess(db: Kysely<Database>, peerId: number): Promise<void> {
  await db
    .updateTable('syncline.peer')
    .set({ failures: 0, retry_at: null })
    .where('id', '=', peerId)
    .where((eb) => eb.or([eb('failures', '>', 0), eb('retry_at', 'is not', null)]))
    .execute()
}

/**
 * Follows a peer into its new log, after its database was restored or copied: every place in its old order is forgotten, and so is what it gave
 * or took of ours, so that both sides offer each other everything again. May be repeated, and called by several processes at once.
 */
export async function peerLogChanged(db: Kysely<Database>, peerId: number, newLogId: string): Promise<void> {
  await inTransaction(db, async (trx) => {
    const peer = await trx
      .selectFrom('syncline.peer')
      .select(['site_id', 'log_id'])
      .where('id', '=', peerId)
      .forNoKeyUpdate()
      .executeTakeFirst()
    if (peer === undefined) throw notFound(peerId)
    if (peer.log_id === newLogId) return
    await forgetSource(trx, peer.site_id)
    await trx.deleteFrom('syncline.checkpoint').where('peer_id', '=', peerId).execute()
    await trx.updateTable('syncline.peer').set({ log_id: newLogId }).where('id', '=', peerId).execute()
  })
}
