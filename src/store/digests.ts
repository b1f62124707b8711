import { type Kysely, type RawBuilder, sql } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

export type DigestScope = {
  readonly resource: ResourceInfo
  /** Condition on the live row `t`. With it only living records count: nobody can say whether a deleted one matched. */
  readonly filter?: RawBuilder<boolean> | undefined
}

/** Record ids after `from` up to and with `to`, by bytes (collation "C"); null is open. */
export type KeyRange = { readonly from: string | null; readonly to: string | null }

/** How many records lie in a range, and the sum of the hashes of their versions in decimal digits. */
export type Digest = KeyRange & { readonly count: number; readonly sum: string }

/**
 * Digest of a range in at most `buckets` pieces of about equal count, which together cover it. Two sites that hold the same versions get the
 * same digests for the same ranges. Hashes are added, never XORed: with XOR a record that is there twice would vanish. A hash covers record id,
 * dot and deletion; what a version has seen may differ between sites that agree.
 */
export async function digestOf(
  db: Kysely<Database>,
  scope: DigestScope,
  range: KeyRange,
  buckets = 1,
): Promise<readonly Digest[]> {
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

function hashedRecords({ resource, filter }: DigestScope, range: KeyRange): RawBuilder<unknown> {
  const from = range.from === null ? sql`` : sql`and r.record_id > ${range.from} collate "C"`
  const to = range.to === null ? sql`` : sql`and r.record_id <= ${range.to} collate "C"`
  const matches =
    filter === undefined
      ? sql``
      : sql`and not r.deleted and exists (
          select from ${sql.raw(liveTable(resource))} t
           where t.${sql.id(resource.keyColumn)} = r.record_id::${sql.raw(resource.keyType)} and coalesce(${filter}, false))`
  return sql`
    select r.record_id, hashtextextended(concat_ws(e'\\n', r.record_id, o.origin, r.clock, r.deleted), 0)::numeric as hash
      from syncline.record r join syncline.site o on o.id = r.origin
     where r.resource_id = ${resource.id} ${from} ${to} ${matches}`
}
