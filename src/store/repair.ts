import { type Kysely, sql, type Transaction } from 'kysely'
import { lockRecords } from './registry/self.ts'
import type { Database } from './schema.ts'

/** Of some records, those that wait in quarantine of a link. */
export async function quarantinedIds(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  ids: readonly string[],
): Promise<readonly string[]> {
  if (ids.length === 0) return []
  const { rows } = await sql<{ id: string }>`
    select record_id as id from syncline.quarantine
     where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${[...ids]}::text[])`.execute(db)
  return rows.map(({ id }) => id)
}

/**
 * Moves records to now in the change order as if they had been made here, with their versions as they are: every peer is offered them again,
 * also the one they came from.
 */
export async function offerAgain(
  trx: Transaction<Database>,
  resourceId: number,
  ids: readonly string[],
): Promise<void> {
  if (ids.length === 0) return
  await lockRecords(trx)
  await sql`
    update syncline.record set source = null, xact = pg_current_xact_id()
     where resource_id = ${resourceId} and record_id = any(${[...ids]}::text[])`.execute(trx)
}
