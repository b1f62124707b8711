import { setTimeout as sleep } from 'node:timers/promises'
import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import type { Database } from './schema.ts'

/** Digest of a whole resource. `behind` is how many records had to be read for it because they changed since they were last counted. */
export type WholeDigest = {
  /** Living records. */
  readonly records: number
  /** Sum of their hashes in decimal digits. */
  readonly sum: string
  /** Newest transaction of the resource; '0' where there is none. With the same head nothing was written in between. */
  readonly head: string
  readonly behind: number
}

/**
 * Hash of a living record `r` of site `o`: its id and its dot. What a version has seen may differ between sites that agree, so it is left out.
 * Deleted records add nothing: sites may forget them at different times, and a record that lives on one side only differs by that side.
 */
export const RECORD_HASH = 'hashtextextended(r.record_id, hashtextextended(o.origin, r.clock))'

/** What a record `r` of site `o` adds to the sum of its resource; null for nothing. */
export const COUNTED = `case when r.deleted then null else ${RECORD_HASH} end`
const XACT_MAX = `'18446744073709551615'::xid8`
/** Sorts behind every record id. */
const LAST_ID = '\u{10ffff}'.repeat(4)

/** Records read in one step of folding. A step writes, and while it does, it holds back what this site sends: so it is short. */
const FOLD_ROWS = 1_000
/** A pause after each step, as a multiple of the time that it took: folding is in no hurry. */
const FOLD_PAUSE = 2
/** Steps for each resource in a round of housekeeping, which has other things to do. */
const ROUND_STEPS = 100

/**
 * The digest of a whole resource as it is in this snapshot: the sum that is kept, corrected by the records that were written since. Its cost grows
 * with those alone, not with what has not changed.
 */
export async function wholeDigest(db: Kysely<Database>, resourceId: number): Promise<WholeDigest> {
  const { rows } = await sql<{ records: string | null; sum: string; head: string | null; behind: string }>`
    select records::text, sum::text, head, behind::text from syncline.whole_digest(${resourceId}::int4)`.execute(db)
  const [row] = rows
  if (row === undefined || row.records === null) return { records: 0, sum: '0', head: '0', behind: 0 }
  return { records: Number(row.records), sum: row.sum, head: row.head ?? '0', behind: Number(row.behind) }
}

/**
 * Between the transactions whose records were counted as they were written, everything behind the place may have changed. One bound below and one above
 * for each gap: with more of them PostgreSQL begins to read at the wrong one.
 */
function behind(): RawBuilder<unknown> {
  return sql.raw(`lateral (select array(select w from unnest(d.whole) w order by w) as whole) w
    cross join lateral (
      select coalesce(g.low, d.folded) as low, case when g.low is null then d.folded_id else '${LAST_ID}' end collate "C" as low_id, g.high
        from unnest(array_prepend(null::xid8, w.whole), array_append(w.whole, ${XACT_MAX})) as g(low, high) offset 0
    ) gap`)
}

function uncounted(resourceId: number): RawBuilder<boolean> {
  return sql<boolean>`r.resource_id = ${sql.lit(resourceId)} and (r.xact, r.record_id) > (gap.low, gap.low_id) and r.xact < gap.high`
}

/** The planner takes any place in the change order for the middle of it, and would read the whole table. */
async function byIndex(trx: Transaction<Database>): Promise<void> {
  await sql`select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('synchronous_commit', 'off', true)`.execute(
    trx,
  )
}

/**
 * Brings the kept sum up to date, a bounded number of records for each commit. Records that are being written are left for the next time. True
 * when nothing is left that could be folded now; false when another process is at it or a record was in use.
 */
export async function foldDigest(
  db: Kysely<Database>,
  resourceId: number,
  stepsMax = Number.MAX_SAFE_INTEGER,
): Promise<boolean> {
  for (let step = 0; step < stepsMax; step++) {
    const began = performance.now()
    const state = await db.transaction().execute((trx) => foldStep(trx, resourceId))
    if (state !== 'more') return state === 'done'
    await sleep((performance.now() - began) * FOLD_PAUSE)
  }
  return false
}

/** Brings the sum of every resource up to date, or nearer to it. */
export async function foldDigests(db: Kysely<Database>): Promise<void> {
  const rows = await db.selectFrom('syncline.digest').select('resource_id').orderBy('resource_id').execute()
  for (const { resource_id: id } of rows) await foldDigest(db, id, ROUND_STEPS)
}

async function foldStep(trx: Transaction<Database>, resourceId: number): Promise<'more' | 'done' | 'held'> {
  await byIndex(trx)
  const { rows: mine } = await sql`
    select from syncline.digest where resource_id = ${resourceId} for update skip locked`.execute(trx)
  if (mine.length === 0) return 'held'
  const { rows } = await sql<{ page: number; held: boolean }>`
    with page as materialized (
      select s.*, row_number() over (order by s.xact, s.record_id) as n from (
        select r.record_id, r.xact, r.counted, ${sql.raw(COUNTED)} as now
          from syncline.digest d, ${behind()}, syncline.record r join syncline.site o on o.id = r.origin
         where d.resource_id = ${resourceId} and ${uncounted(resourceId)} and r.xact < pg_snapshot_xmin(pg_current_snapshot())
         order by r.xact, r.record_id limit ${FOLD_ROWS}
      ) s
    ), free as materialized (
      -- Whoever writes a record takes its lock; it will be behind the place again in any case.
      select p.n from page p cross join lateral (
        select from syncline.record r where r.resource_id = ${sql.lit(resourceId)} and r.record_id = p.record_id and r.xact = p.xact
        offset 0 for update skip locked
      ) mine where p.counted is distinct from p.now
    ), held as (
      select min(p.n) as n from page p where p.counted is distinct from p.now and p.n not in (select n from free)
    ), done as materialized (
      select p.* from page p, held where held.n is null or p.n < held.n
    ), counted as (
      -- Each row is there and held: this finds it by its key, whatever is known of the table.
      insert into syncline.record as r (resource_id, record_id, xact, origin, clock, born, counted)
      select ${resourceId}, p.record_id, p.xact, 0, 0, null, p.now from done p where p.counted is distinct from p.now
      on conflict (resource_id, record_id) do update set counted = excluded.counted
    ), last as (
      select xact, record_id as id from done order by n desc limit 1
    )
    update syncline.digest d set
           living = d.living + s.records, sum = d.sum + s.sum,
           (folded, folded_id) = (select p.xact, p.id from (
               select xact, id from last
               union all select d.folded, d.folded_id
               -- When everything between them is counted, the place is behind the transactions that were counted as they were written.
               union all select max(w), ${LAST_ID} from unnest(d.whole) w
                where w < pg_snapshot_xmin(pg_current_snapshot()) and s.page < ${FOLD_ROWS} and not s.held having count(*) > 0
             ) p order by p.xact desc, p.id desc limit 1)
      from (select count(done.now) - count(done.counted) as records, coalesce(sum(done.now), 0) - coalesce(sum(done.counted), 0) as sum,
                   (select count(*) from page)::int as page, (select n is not null from held) as held from done) s
     where d.resource_id = ${resourceId}
    returning s.page, s.held`.execute(trx)
  await sql`
    update syncline.digest d set whole = array(select w from unnest(d.whole) w where w > d.folded)
     where d.resource_id = ${resourceId} and exists (select from unnest(d.whole) w where w <= d.folded)`.execute(trx)
  const [{ page, held } = { page: 0, held: false }] = rows
  return held ? 'held' : page === FOLD_ROWS ? 'more' : 'done'
}

/**
 * Wraps an insert of new rows into syncline.record, whose select gives `counted` by `countedSql`, so that they are in the sum as they are written.
 * A transaction that has written nothing else of the resource is remembered as a whole, and none of its records is looked at again.
 */
export function countingInsert(resourceId: number, insert: RawBuilder<unknown>): RawBuilder<{ records: number }> {
  return sql`with made as (${insert} returning counted), ${addedToSum(resourceId)} select records from total`
}

/** CTEs that add what CTE `made (counted)` inserted in the same statement to the sum; `total (records)` says how many these were. */
export function addedToSum(resourceId: number): RawBuilder<unknown> {
  return sql`total as (
      select count(*)::int as records, count(counted) as living, coalesce(sum(counted), 0) as sum from made
    ), added as (
      update syncline.digest d set living = d.living + total.living, sum = d.sum + total.sum,
             whole = case when exists (select from syncline.record r where r.resource_id = ${sql.lit(resourceId)} and r.xact = pg_current_xact_id())
                     then d.whole else array_append(d.whole, pg_current_xact_id()) end
        from total where d.resource_id = ${resourceId}
    )`
}

/** After other records of the resource were written in this transaction: it is no longer counted as a whole. */
export async function notWhole(trx: Transaction<Database>, resourceId: number): Promise<void> {
  await sql`
    update syncline.digest set whole = array_remove(whole, pg_current_xact_id())
     where resource_id = ${resourceId} and pg_current_xact_id() = any(whole)`.execute(trx)
}

/** Makes the sum anew from what every record says, for when somebody wrote into the tables of Syncline past its triggers. */
export async function rebuildDigest(db: Kysely<Database>, resourceId: number): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await sql`select from syncline.digest where resource_id = ${resourceId} for update`.execute(trx)
    await sql`
      update syncline.digest d set living = r.records, sum = r.sum, folded = '0', folded_id = '', whole = '{}'
        from (select count(counted) as records, coalesce(sum(counted), 0) as sum from syncline.record where resource_id = ${sql.lit(resourceId)}) r
       where d.resource_id = ${resourceId}`.execute(trx)
  })
}

/** Makes the sum of a resource that was just attached. May be repeated. */
export async function beginDigest(trx: Transaction<Database>, resourceName: string): Promise<void> {
  await sql`
    insert into syncline.digest (resource_id) select id from syncline.resource where name = ${resourceName} on conflict do nothing`.execute(
    trx,
  )
}
