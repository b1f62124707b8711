import { type Kysely, type RawBuilder, sql } from 'kysely'
import { RECORD_HASH } from './digest-sum.ts'
import type { Digest, KeyRange, RecordDigest } from './digests.ts'
import type { EdenPlace } from './eden.ts'
import type { Database } from './schema.ts'

/**
 * What Eden was found to have, counted as a site counts its own records (digest-sum.ts), so that both can be compared. A record of which Eden did
 * not take what it was sent counts as another version.
 */

/** The living records of a table. `refused`: of all, those where Eden did not take what was sent. */
export async function edenTotal(
  db: Kysely<Database>,
  place: EdenPlace,
): Promise<{ readonly records: number; readonly sum: string; readonly refused: number }> {
  const { rows } = await sql<{ records: number; sum: string; refused: number }>`
    select count(*)::int as records, coalesce(sum(hash), 0)::text as sum,
           (select count(*)::int from syncline.eden_record where peer_id = ${place.peerId} and resource_id = ${place.resourceId} and refused is not null) as refused
      from (${hashed(place, { from: null, to: null })}) r`.execute(db)
  return rows[0] ?? { records: 0, sum: '0', refused: 0 }
}

/** Digest of a range in at most so many pieces of about equal count. */
export async function edenDigest(
  db: Kysely<Database>,
  place: EdenPlace,
  range: KeyRange,
  buckets: number,
): Promise<readonly Digest[]> {
  const { rows } = await sql<{ last: string; count: number; sum: string }>`
    select max(record_id) as last, count(*)::int as count, sum(hash)::text as sum
      from (select record_id, hash, ntile(${buckets}::int4) over (order by record_id) as bucket from (${hashed(place, range)}) r) b
     group by bucket order by bucket`.execute(db)
  if (rows.length === 0) return [{ ...range, count: 0, sum: '0' }]
  return rows.map(({ last, count, sum }, n) => ({
    from: n === 0 ? range.from : (rows[n - 1]?.last ?? null),
    to: n === rows.length - 1 ? range.to : last,
    count,
    sum,
  }))
}

/** The records of a range one by one, in key order, at most `limit`. */
export async function edenDigestRecords(
  db: Kysely<Database>,
  place: EdenPlace,
  range: KeyRange,
  limit: number,
): Promise<readonly RecordDigest[]> {
  const { rows } = await sql<RecordDigest>`
    select record_id as id, hash::text as hash from (${hashed(place, range)}) r order by record_id limit ${limit}`.execute(
    db,
  )
  return rows
}

function hashed({ peerId, resourceId }: EdenPlace, range: KeyRange): RawBuilder<unknown> {
  const from = range.from === null ? sql`` : sql`and r.record_id > ${range.from} collate "C"`
  const to = range.to === null ? sql`` : sql`and r.record_id <= ${range.to} collate "C"`
  return sql`
    select r.record_id, ${sql.raw(RECORD_HASH.replaceAll('o.origin', 'r.origin'))}::numeric + (r.refused is not null)::int as hash from syncline.eden_record r
     where r.peer_id = ${peerId} and r.resource_id = ${resourceId} and r.origin is not null and not r.deleted and not r.gone ${from} ${to}`
}

/** How many writes of Eden were seen and are not here yet: the next pull brings them. */
export async function comingFromEden(db: Kysely<Database>, { peerId, resourceId }: EdenPlace): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from syncline.eden_record e join syncline.site s on s.origin = e.origin
     where e.peer_id = ${peerId} and e.resource_id = ${resourceId} and not e.gone
       and not exists (
         select from syncline.record r where r.resource_id = e.resource_id and r.record_id = e.record_id
            and ((r.origin = s.id and r.clock >= e.clock) or (r.seen ->> s.id::text)::int8 >= e.clock))
       and not exists (
         select from syncline.quarantine q where q.peer_id = e.peer_id and q.resource_id = e.resource_id and q.record_id = e.record_id)`.execute(
    db,
  )
  return rows[0]?.count ?? 0
}
