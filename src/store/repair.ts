import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import type { LineBatch } from '../sync/index.ts'
import { readChosen } from './records.ts'
import { lockRecords } from './registry/self.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** Of some records, those that differ for a known reason: they wait in quarantine on either side, were given up on either, or wait for a decision. */
export async function listExplained(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  ids: readonly string[],
): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set()
  const { rows } = await sql<{ id: string }>`
    select record_id as id from syncline.quarantine where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${[...ids]}::text[])
    union select record_id from syncline.elsewhere where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${[...ids]}::text[])
    union select record_id from syncline.discard where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${[...ids]}::text[])
    union select record_id from syncline.conflict where resource_id = ${resourceId} and resolved_at is null and record_id = any(${[...ids]}::text[])`.execute(
    db,
  )
  return new Set(rows.map(({ id }) => id))
}

/**
 * Records by id as they are here, deleted ones included, in lines of at most `bytesMax` bytes; those that do not fit are left for the next call. With a
 * filter, the living ones that match and the deletions of records that the peer holds.
 */
export async function readForRepair(
  db: Kysely<Database>,
  request: {
    readonly resource: ResourceInfo
    readonly ids: readonly string[]
    readonly columns?: readonly string[] | null | undefined
    readonly filter?: RawBuilder<boolean> | undefined
    readonly peerId: number
    readonly bytesMax: number
  },
): Promise<readonly LineBatch[]> {
  const { ids, filter, peerId, ...rest } = request
  if (filter === undefined) return [await readChosen(db, { ...rest, ids, deleted: true })]
  const { rows } = await sql<{ id: string }>`
    select r.record_id as id from syncline.record r join syncline.shared h using (resource_id, record_id)
     where h.peer_id = ${peerId} and r.resource_id = ${rest.resource.id} and r.deleted and r.record_id = any(${[...ids]}::text[])`.execute(
    db,
  )
  const gone = rows.map(({ id }) => id)
  const living = await readChosen(db, { ...rest, ids, filter })
  return gone.length === 0 ? [living] : [living, await readChosen(db, { ...rest, ids: gone, deleted: true })]
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

/** How many of some records are deleted here. */
export async function tombstonesAmong(
  db: Kysely<Database>,
  resourceId: number,
  ids: readonly string[],
): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from syncline.record r
     where r.resource_id = ${resourceId} and r.deleted and r.record_id = any(${[...ids]}::text[])`.execute(db)
  return rows[0]?.count ?? 0
}
