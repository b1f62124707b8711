import { type Kysely, sql, type Transaction } from 'kysely'
import type { LineBatch } from '../sync/index.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** What is kept of a batch beside a quarantined line, so that the line can be applied later. */
export type LineHeader = Pick<LineBatch, 'resource' | 'columns' | 'refs' | 'origins'>

export type QuarantineEntry = {
  readonly id: string
  readonly peer: string
  readonly resource: string
  readonly recordId: string
  /** Whether we pulled it or the peer pushed it. */
  readonly via: 'pull' | 'push'
  readonly code: string
  readonly reason: string
  readonly waitsFor: { readonly resource: string; readonly id: string | null } | null
  readonly attempts: number
  readonly firstAt: string
  readonly lastAt: string
  readonly retryAt: string | null
  /** Records that wait for this one, or for one that does; counted up to `DEPENDANTS_MAX`. */
  readonly dependants: number
  readonly line: string
  readonly header: LineHeader
}

/** Counting ends here: a thousand and more is as good as all of them. */
export const DEPENDANTS_MAX = 1_000

/** Moves the staged rows of the set-aside classes into quarantine, each with its reason. A newer version of a waiting record replaces it. */
export async function quarantineStaged(
  trx: Transaction<Database>,
  place: {
    readonly resource: ResourceInfo
    readonly peerId: number
    readonly via: 'pull' | 'push'
    readonly runId: string | null
  },
  batch: LineBatch,
): Promise<void> {
  const { rows } = await sql`select from pg_temp.syncline_stage where class in ('w', 'b', 'q', 'o') limit 1`.execute(
    trx,
  )
  if (rows.length === 0) return
  const header: LineHeader = {
    resource: batch.resource,
    columns: batch.columns,
    refs: batch.refs,
    origins: batch.origins,
  }
  await sql`
    insert into syncline.quarantine as q (peer_id, resource_id, record_id, via, origin, clock, run_id, line, header, code, reason, waits_resource_id, waits_record_id, retry_at)
    select ${place.peerId}, ${place.resource.id}, s.id, ${place.via}, coalesce(s.in_origin, s.origin), coalesce(s.in_clock, s.clock, 0), ${place.runId}::int8, l.line, ${JSON.stringify(header)}::jsonb,
           s.code, s.reason, s.w_resource, s.w_id, now() + interval '1 minute'
      from pg_temp.syncline_stage s
      join unnest(string_to_array(${batch.text}, e'\\n')) with ordinality l(line, n) on l.n = s.n
     -- What was refused is not kept here, unless it waited already: then the reason is another now.
     -- Nor a version that a person here has given up.
     where (s.class in ('w', 'b', 'q') or s.class = 'o' and exists (
       select from syncline.quarantine e where e.peer_id = ${place.peerId} and e.resource_id = ${place.resource.id} and e.record_id = s.id))
       and not exists (select from syncline.discard d where d.peer_id = ${place.peerId} and d.resource_id = ${place.resource.id} and d.record_id = s.id
         and d.origin = coalesce(s.in_origin, s.origin) and d.clock >= coalesce(s.in_clock, s.clock, 0))
    on conflict (peer_id, resource_id, record_id) do update set
      via = excluded.via, origin = excluded.origin, clock = excluded.clock, run_id = excluded.run_id, line = excluded.line, header = excluded.header,
      code = excluded.code, reason = excluded.reason, waits_resource_id = excluded.waits_resource_id, waits_record_id = excluded.waits_record_id,
      attempts = q.attempts + 1, last_at = now(), retry_at = now() + least(interval '1 minute' * power(2, least(q.attempts, 10)), interval '6 hours')
    where not (excluded.origin = q.origin and excluded.clock < q.clock)`.execute(trx)
}

/**
 * Ends the wait of records whose version, or one that has seen it, is here now. Of the peer itself also of those that left its filter, and of
 * those that a person settles now.
 */
export async function releaseApplied(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  peerId: number | null,
): Promise<void> {
  const { rows } = await sql`select from syncline.quarantine where resource_id = ${resource.id} limit 1`.execute(trx)
  if (rows.length === 0) return
  await sql`
    delete from syncline.quarantine where ctid = any (array(
      select q.ctid from pg_temp.syncline_stage s cross join lateral (
        select w.ctid, w.peer_id, w.origin, w.clock, r.origin as r_origin, r.clock as r_clock, r.seen as r_seen
          from syncline.quarantine w left join syncline.record r on r.resource_id = w.resource_id and r.record_id = w.record_id
         where w.resource_id = ${resource.id} and w.record_id = s.id offset 0
      ) q
       where s.class in ('n', 'f', 's', 'v') and (q.r_origin = q.origin and q.r_clock >= q.clock or (q.r_seen ->> q.origin::text)::int8 >= q.clock)
          or s.class in ('l', 'r', 'a') and q.peer_id = ${peerId}::int4))`.execute(trx)
}

/**
 * Entries of any peer that may succeed now: their parent is here, they wait for a reference to go, or their time has come. Oldest first.
 * `after` is the id of the last entry seen, so that one pass tries each entry once.
 * A row in use is looked at in every run but the one that has just waited for it.
 */
export async function dueEntries(
  db: Kysely<Database>,
  after: string,
  limit: number,
  runId: string | null,
): Promise<readonly QuarantineEntry[]> {
  return selectEntries(
    db,
    sql`where q.id > ${after}::int8 and not p.paused and (
          q.retry_at <= now() or q.code = 'SYNC_RECORD_STILL_REFERENCED'
          or q.code = 'SYNC_RECORD_IN_USE' and (${runId}::int8 is null or q.run_id is distinct from ${runId}::int8)
          or exists (select from syncline.record p where p.resource_id = q.waits_resource_id and p.record_id = q.waits_record_id and not p.deleted))
        order by q.id limit ${limit}`,
  )
}

export async function listQuarantine(
  db: Kysely<Database>,
  filter: {
    readonly peer?: string | undefined
    readonly resource?: string | undefined
    readonly before?: string | undefined
    readonly limit: number
  },
): Promise<readonly QuarantineEntry[]> {
  return selectEntries(
    db,
    sql`where (${filter.peer ?? null}::text is null or p.name = ${filter.peer ?? null})
          and (${filter.resource ?? null}::text is null or r.name = ${filter.resource ?? null})
          and (${filter.before ?? null}::int8 is null or q.id < ${filter.before ?? null}::int8)
        order by q.id desc limit ${filter.limit}`,
    dependantsSql,
  )
}

export async function findQuarantined(db: Kysely<Database>, id: string): Promise<QuarantineEntry | null> {
  const [entry] = await selectEntries(db, sql`where q.id = ${id}::int8`, dependantsSql)
  return entry ?? null
}

/** Makes an entry due at once. False when there is none of that id. */
export async function retryNow(db: Kysely<Database>, id: string): Promise<boolean> {
  const result = await sql`update syncline.quarantine set retry_at = now() where id = ${id}::int8`.execute(db)
  return Number(result.numAffectedRows ?? 0) > 0
}

/** Makes every entry of a resource due at once, of one peer or of all: what it could not get past has changed. Gives how many. */
export async function retryResource(db: Kysely<Database>, resourceId: number, peerId?: number): Promise<number> {
  const result = await sql`
    update syncline.quarantine set retry_at = now()
     where resource_id = ${resourceId} and (${peerId ?? null}::int4 is null or peer_id = ${peerId ?? null})`.execute(db)
  return Number(result.numAffectedRows ?? 0)
}

type EntryRow = Omit<QuarantineEntry, 'waitsFor' | 'header'> & {
  readonly header: unknown
  readonly waitsResource: string | null
  readonly waitsId: string | null
}

/** How many records wait, in one step or several, for record `q`. */
export const dependantsSql = sql<number>`(
  with recursive waiting as (
    select d.resource_id, d.record_id from syncline.quarantine d
     where d.waits_resource_id = q.resource_id and d.waits_record_id = q.record_id
    union
    select d.resource_id, d.record_id from waiting w join syncline.quarantine d
        on d.waits_resource_id = w.resource_id and d.waits_record_id = w.record_id
  ) select count(*)::int from (select from waiting limit ${sql.lit(DEPENDANTS_MAX)}) counted)`

async function selectEntries(
  db: Kysely<Database>,
  tail: ReturnType<typeof sql>,
  dependants = sql<number>`0`,
): Promise<readonly QuarantineEntry[]> {
  const { rows } = await sql<EntryRow>`
    select q.id, p.name as peer, r.name as resource, q.record_id as "recordId", q.via, q.code, q.reason, w.name as "waitsResource", q.waits_record_id as "waitsId",
           q.attempts, q.first_at as "firstAt", q.last_at as "lastAt", q.retry_at as "retryAt", ${dependants} as dependants, q.line, q.header
      from syncline.quarantine q join syncline.peer p on p.id = q.peer_id join syncline.resource r on r.id = q.resource_id
      left join syncline.resource w on w.id = q.waits_resource_id
      ${tail}`.execute(db)
  return rows.map(({ waitsResource, waitsId, ...row }) => ({
    ...row,
    header: row.header as LineHeader,
    waitsFor: waitsResource === null ? null : { resource: waitsResource, id: waitsId },
  }))
}
