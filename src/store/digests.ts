import { type Kysely, type RawBuilder, sql } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { RECORD_HASH } from './digest-sum.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

export type DigestScope = {
  readonly resource: ResourceInfo
  /** Condition on the live row `t`. */
  readonly filter?: RawBuilder<boolean> | undefined
  /** Peer of the link. Records that left the filter there and were kept here do not count. */
  readonly keptFrom?: number | undefined
}

/** Record ids after `from` up to and with `to`, by bytes (collation "C"); null is open. */
export type KeyRange = { readonly from: string | null; readonly to: string | null }

/** How many living records lie in a range, and the sum of the hashes of their versions in decimal digits. */
export type Digest = KeyRange & { readonly count: number; readonly sum: string }

/**
 * Digest of a range in at most `buckets` pieces of about equal count, which together cover it. Two sites that hold the same living records in
 * the same versions get the same digests for the same ranges. Hashes are added, never XORed: with XOR two equal differences would cancel.
 */
export async function digestOf(
  db: Kysely<Database>,
  scope: DigestScope,
  range: KeyRange,
  buckets = 1,
): Promise<readonly Digest[]> {
  if (buckets === 1) {
    const { rows } = await sql<{ count: number; sum: string }>`
      select count(*)::int as count, coalesce(sum(hash), 0)::text as sum from (${hashedRecords(scope, range)}) records`.execute(
      db,
    )
    return rows.map((row) => ({ ...range, ...row }))
  }
  const { rows } = await digestQuery(scope, range, buckets).execute(db)
  if (rows.length === 0) return [{ ...range, count: 0, sum: '0' }]
  return rows.map((row, n) => ({
    from: n === 0 ? range.from : (rows[n - 1]?.last ?? null),
    to: n === rows.length - 1 ? range.to : row.last,
    count: row.count,
    sum: row.sum,
  }))
}

/** One record of a range with the hash that the sums of digests add up, in decimal digits. */
export type RecordDigest = { readonly id: string; readonly hash: string }

/** The records of a small range one by one, in key order. Errors: SYNC_REQUEST_TOO_LARGE when it holds more than `limit`. */
export async function digestRecords(
  db: Kysely<Database>,
  scope: DigestScope,
  range: KeyRange,
  limit: number,
): Promise<readonly RecordDigest[]> {
  const { rows } = await sql<RecordDigest>`
    select record_id as id, hash::text as hash from (${hashedRecords(scope, range)}) hashed order by record_id limit ${limit + 1}`.execute(
    db,
  )
  if (rows.length > limit) {
    throw new SynclineError('SYNC_REQUEST_TOO_LARGE', `the range holds more than ${limit} records`)
  }
  return rows
}

type BucketRow = { readonly last: string; readonly count: number; readonly sum: string }

export function digestQuery(scope: DigestScope, range: KeyRange, buckets: number): RawBuilder<BucketRow> {
  return sql<BucketRow>`
    with hashed as (
      select record_id, hash, ntile(${buckets}::int4) over (order by record_id) as bucket from (${hashedRecords(scope, range)}) records
    )
    select max(record_id) as last, count(*)::int as count, sum(hash)::text as sum from hashed group by bucket order by bucket`
}

function hashedRecords({ resource, filter, keptFrom }: DigestScope, range: KeyRange): RawBuilder<unknown> {
  const from = range.from === null ? sql`` : sql`and r.record_id > ${range.from} collate "C"`
  const to = range.to === null ? sql`` : sql`and r.record_id <= ${range.to} collate "C"`
  const matches =
    filter === undefined
      ? sql``
      : sql`and exists (
          select from ${sql.raw(liveTable(resource))} t
           where t.${sql.id(resource.keyColumn)} = r.record_id::${sql.raw(resource.keyType)} and coalesce(${filter}, false))`
  const kept =
    filter === undefined || keptFrom === undefined
      ? sql``
      : sql`and not exists (
          select from syncline.kept k where k.peer_id = ${keptFrom} and k.resource_id = ${resource.id} and k.record_id = r.record_id
             and k.origin = r.origin and k.clock = r.clock)`
  return sql`
    select r.record_id, ${sql.raw(RECORD_HASH)} as hash
      from syncline.record r join syncline.site o on o.id = r.origin
     where r.resource_id = ${resource.id} and not r.deleted ${from} ${to} ${matches} ${kept}`
}
