import { type Kysely, sql } from 'kysely'
import {
  judgeTotals,
  type Mode,
  NOTHING_WAITS,
  type Position,
  parseCheckpoint,
  SynclineError,
  sameTotal,
  type Total,
  type Verdict,
  WAITING_MAX,
  type Waiting,
} from '../sync/index.ts'
import { type CheckpointDirection, readCheckpoint } from './checkpoints.ts'
import type { Store } from './database.ts'
import { grantedDigestScope } from './digest-scope.ts'
import { foldDigest, rebuildDigest, wholeDigest } from './digest-sum.ts'
import { type DigestScope, digestOf } from './digests.ts'
import { standsSql } from './discards.ts'
import type { Peer } from './registry/index.ts'
import { isoTime } from './registry/values.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** What the last comparison with a peer found, and when both sides were last found equal. Times in ISO 8601. */
export type Agreement = {
  readonly peer: string
  readonly resource: string
  readonly verdict: Verdict
  readonly reason: string | null
  readonly comparedAt: string
  /** Living records here that were compared. */
  readonly records: number | null
  /** How many are known to differ; null where nobody counted. */
  readonly differing: number | null
  readonly agreedAt: string | null
  readonly agreedRecords: number | null
  /** Whether something was written here since the last comparison. */
  readonly changedSince: boolean
}

/** For the run: with the same head here and nothing from the peer, an agreement still holds. */
export type Proof = Agreement & {
  readonly head: string | null
  /** The newest transaction of the resource now. */
  readonly headNow: string
  readonly scope: string
  readonly tookMs: number
}

/** Records behind the counted place from which on a comparison has the sum brought up to date beside it, before housekeeping does. */
const BEHIND_MAX = 2_000
/** A comparison that has to read every record gives up after this time. */
const SCAN_MS = 15_000

export type Compared = Total & { readonly head: string | null }

/** The total of what is compared: the sum that is kept or, within a filter, one that is made by reading every record, for a bounded time. */
export async function totalOf(store: Store, scope: DigestScope): Promise<Compared> {
  if (scope.filter === undefined) {
    const digest = await wholeDigest(store.db, scope.resource.id)
    if (digest.behind > BEHIND_MAX) foldBeside(store, scope.resource.id)
    return digest
  }
  const whole = { from: null, to: null }
  const { head } = await headOf(store.db, scope.resource.id)
  const digests = await store.db.transaction().execute(async (trx) => {
    if (store.server) await sql`select set_config('statement_timeout', ${`${SCAN_MS}ms`}, true)`.execute(trx)
    return digestOf(trx, scope, whole)
  })
  return { records: digests[0]?.count ?? 0, sum: digests[0]?.sum ?? '0', head }
}

const folding = new WeakMap<Store, Set<number>>()

/** Nobody waits for it, and what goes wrong is left to housekeeping. */
function foldBeside(store: Store, resourceId: number): void {
  const busy = folding.get(store) ?? new Set()
  folding.set(store, busy)
  if (busy.has(resourceId)) return
  busy.add(resourceId)
  foldDigest(store.db, resourceId)
    .catch(() => false)
    .finally(() => busy.delete(resourceId))
}

/**
 * The total made by reading every record, whatever the kept sum says; a kept sum that is wrong, because somebody wrote past the triggers of Syncline's own
 * tables, is made anew.
 */
export async function fullDigest(store: Store, scope: DigestScope): Promise<Compared> {
  const { id } = scope.resource
  const before = await headOf(store.db, id)
  const [full] = await digestOf(store.db, scope, { from: null, to: null })
  const total = { records: full?.count ?? 0, sum: full?.sum ?? '0' }
  if (scope.filter === undefined) {
    const kept = await wholeDigest(store.db, id)
    if (kept.head === before.head && !sameTotal(kept, total)) await rebuildDigest(store.db, id)
  }
  return { ...total, head: before.head }
}

async function headOf(db: Kysely<Database>, resourceId: number): Promise<{ readonly head: string }> {
  const { rows } = await sql<{ head: string }>`
    select xact::text as head from syncline.record where resource_id = ${sql.lit(resourceId)} order by xact desc, record_id desc limit 1`.execute(
    db,
  )
  return rows[0] ?? { head: '0' }
}

/** What of a resource the peer does not have yet, as far as it is known here. `direction` names the checkpoint that tells how far the peer is. */
export async function waitingFor(
  db: Kysely<Database>,
  peer: Peer,
  resource: ResourceInfo,
  direction: CheckpointDirection | null,
): Promise<Waiting> {
  const { rows } = await sql<Waiting>`
    select 0 as changes,
           (select count(*) from (select from syncline.quarantine where peer_id = ${peer.id} and resource_id = ${resource.id} limit ${WAITING_MAX}) q)::int as quarantine,
           (select count(*) from (select from syncline.discard d where d.peer_id = ${peer.id} and d.resource_id = ${resource.id} and ${standsSql} limit ${WAITING_MAX}) d)::int as discarded,
           (select count(*) from (select from syncline.conflict where resource_id = ${resource.id} and resolved_at is null limit ${WAITING_MAX}) c)::int as conflicts`.execute(
    db,
  )
  const [waiting = NOTHING_WAITS] = rows
  const place = direction === null ? null : await placeOf(db, peer, resource, direction)
  if (place === null) return { ...waiting, changes: 0 }
  const { rows: changes } = await sql<{ count: number }>`
    select count(*)::int as count from (
      select from syncline.record r where r.resource_id = ${sql.lit(resource.id)} and (r.xact, r.record_id) > (${place.xact}::xid8, ${place.recordId} collate "C")
         and r.source is distinct from ${peer.siteId} limit ${WAITING_MAX}) r`.execute(db)
  return { ...waiting, changes: changes[0]?.count ?? 0 }
}

async function placeOf(
  db: Kysely<Database>,
  peer: Peer,
  resource: ResourceInfo,
  direction: CheckpointDirection,
): Promise<Position> {
  const checkpoint = await readCheckpoint(db, peer.id, resource.id, direction)
  return checkpoint === null ? { xact: '0', recordId: '' } : parseCheckpoint(checkpoint).position
}

/** What a peer tells of its side when it compares. Without `waiting` it only asks whether both are equal. */
export type ComparisonRequest = Total & {
  readonly resource: string
  readonly filter?: string | undefined
  readonly mode?: Mode | undefined
  readonly waiting?: Waiting | undefined
  /** The peer compared the values of all rows on both sides and found them equal as well. */
  readonly values?: boolean | undefined
}

export type ComparisonAnswer = Total & {
  readonly resource: string
  readonly verdict: Verdict
  readonly reason: string | null
  /** Filter of the grant, by which this site compared as well; null without one. */
  readonly filter: string | null
  /** True where the grant narrows it in a way that the peer may not see, so that the peer cannot compare its side. */
  readonly hidden: boolean
  readonly waiting: Waiting
}

const MIRRORED: Readonly<Record<Mode, Mode>> = { pull: 'push', push: 'pull', both: 'both' }

/**
 * Compares what a peer says of its side with this one, within its grant, and notes what came of it for the status here as well.
 * Errors: SYNC_AUTH_FORBIDDEN without a grant, SYNC_FILTER_INVALID, SYNC_STORE_BUSY when there is too much to read.
 */
export async function answerComparison(
  store: Store,
  peer: Peer,
  request: ComparisonRequest,
): Promise<ComparisonAnswer> {
  const scope = await grantedDigestScope(store, peer, request)
  const { resource, granted, shown } = scope
  const total = await totalOf(store, scope)
  const told: Total = { records: request.records, sum: request.sum }
  const mode = MIRRORED[request.mode ?? 'both']
  const waiting =
    request.waiting === undefined
      ? NOTHING_WAITS
      : await waitingFor(store.db, peer, resource, scope.pulls && mode !== 'pull' ? 'ack' : null)
  const { verdict, reason } = judgeTotals({
    here: total,
    there: told,
    waitingHere: waiting,
    waitingThere: request.waiting ?? NOTHING_WAITS,
    mode,
  })
  if (verdict === 'equal' || request.waiting !== undefined)
    await noteComparison(store.db, peer.id, resource.id, {
      ...{ verdict, reason, ...total, scope: granted ?? '', tookMs: 0 },
      depth: request.values === true ? 'whole' : null,
    })
  const answer = { resource: resource.name, records: total.records, sum: total.sum, verdict, reason, waiting }
  return { ...answer, filter: shown ? granted : null, hidden: !shown }
}

export type FoundComparison = {
  readonly verdict: Verdict
  readonly reason: string | null
  readonly records: number | null
  readonly head: string | null
  readonly scope: string
  readonly tookMs: number
  readonly differing?: number | null
  /**
   * For a comparison of values: of all of them, or of those that both sides have with the same type. What it found different stays so until another one
   * finds it equal: versions do not tell.
   */
  readonly depth?: 'whole' | 'part' | null
}

/**
 * Notes what a comparison found. Where both sides are equal nothing is left that a brake could keep from being written, so what is stopped ends with it.
 * The commit is not waited for on the disk: what a crash loses is found out anew.
 */
export async function noteComparison(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  found: FoundComparison,
): Promise<void> {
  const { verdict, reason, records, head, scope, tookMs, differing = null, depth = null } = found
  const deep = depth !== null
  const doubted = sql`(a.doubt is not null and ${depth}::text is distinct from 'whole')`
  const differs = sql`(not ${deep}::bool and a.deep_differing is not null)`
  const known = sql`(excluded.verdict = 'equal' and (${differs} or ${doubted}))`
  const values = deep && verdict === 'different' ? differing : null
  await sql`
    with quick as materialized (select set_config('synchronous_commit', 'off', true)),
         ended as (update syncline.brake set ended_at = clock_timestamp(), ending = case when used_at is null then 'cleared' else 'used' end
                    where ${verdict} = 'equal' and ended_at is null and peer_id = ${peerId} and resource_id = ${resourceId})
    insert into syncline.agreement as a (peer_id, resource_id, verdict, reason, records, differing, deep_differing, agreed_at, agreed_records, head, scope, took_ms)
    select ${peerId}, ${resourceId}, ${verdict}, ${reason}, ${records}::int8, ${differing}::int4, ${values}::int4,
           case when ${verdict} = 'equal' then clock_timestamp() end, case when ${verdict} = 'equal' then ${records}::int8 end, ${head}, ${scope}, ${tookMs}::float4
      from quick
    on conflict (peer_id, resource_id) do update set
      verdict = case when ${known} then 'different' else excluded.verdict end,
      reason = case when ${known} then case when ${differs} then 'values differ under equal versions, as verify --deep found' else a.doubt end else excluded.reason end,
      records = excluded.records, differing = case when ${known} then a.deep_differing else excluded.differing end, compared_at = clock_timestamp(),
      deep_differing = case when ${deep}::bool then excluded.deep_differing else a.deep_differing end,
      doubt = case when ${depth}::text = 'whole' and excluded.verdict = 'equal' then null else a.doubt end,
      agreed_at = case when ${known} then a.agreed_at else coalesce(excluded.agreed_at, a.agreed_at) end,
      agreed_records = case when ${known} then a.agreed_records else coalesce(excluded.agreed_records, a.agreed_records) end,
      head = excluded.head, scope = excluded.scope, took_ms = excluded.took_ms`.execute(db)
}

/** Notes that something moved and was not compared yet. What the last comparison found, and when, stays. */
export async function notePostponed(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  reason: string,
): Promise<void> {
  await sql`
    update syncline.agreement set verdict = 'waiting', reason = ${reason} where peer_id = ${peerId} and resource_id = ${resourceId}`.execute(
    db,
  )
}

type AgreementRow = {
  readonly peer: string
  readonly resource: string
  readonly verdict: Verdict
  readonly reason: string | null
  readonly compared_at: string
  readonly records: string | null
  readonly differing: number | null
  readonly agreed_at: string | null
  readonly agreed_records: string | null
  readonly head: string | null
  readonly head_now: string | null
  readonly scope: string
  readonly took_ms: number
}

const HEAD_NOW = sql`
  (select c.xact::text from syncline.record c where c.resource_id = a.resource_id order by c.xact desc, c.record_id desc limit 1) as head_now`

/** Every agreement, or those with one peer, in order of peer and resource. */
export async function listAgreements(db: Kysely<Database>, peerId?: number): Promise<readonly Agreement[]> {
  const { rows } = await sql<AgreementRow>`
    select p.name as peer, r.name as resource, a.*, ${HEAD_NOW} from syncline.agreement a
      join syncline.peer p on p.id = a.peer_id join syncline.resource r on r.id = a.resource_id
     where ${peerId === undefined ? sql`true` : sql`a.peer_id = ${peerId}`} order by 1, 2`.execute(db)
  return rows.map(toAgreement)
}

/** What is known of the agreement with a peer, by resource, with the heads as they are now. */
export async function proofsOf(db: Kysely<Database>, peerId: number): Promise<ReadonlyMap<string, Proof>> {
  const { rows } = await sql<AgreementRow>`
    select p.name as peer, r.name as resource, a.*, ${HEAD_NOW}
      from syncline.agreement a join syncline.peer p on p.id = a.peer_id join syncline.resource r on r.id = a.resource_id
     where a.peer_id = ${peerId}`.execute(db)
  return new Map(
    rows.map((row) => {
      const { head, scope, took_ms: tookMs, head_now: now } = row
      return [row.resource, { ...toAgreement(row), head, headNow: now ?? '0', scope, tookMs }]
    }),
  )
}

function toAgreement(row: AgreementRow): Agreement {
  const count = (text: string | null) => (text === null ? null : Number(text))
  return {
    peer: row.peer,
    resource: row.resource,
    verdict: row.verdict,
    reason: row.reason,
    comparedAt: isoTime(row.compared_at),
    records: count(row.records),
    differing: row.differing,
    agreedAt: row.agreed_at === null ? null : isoTime(row.agreed_at),
    agreedRecords: count(row.agreed_records),
    changedSince: row.head !== null && row.head !== (row.head_now ?? '0'),
  }
}

/** The error of a scan that took too long, in words. */
export function explainScan(error: unknown): unknown {
  if ((error as { code?: string }).code !== '57014') return error
  return new SynclineError('SYNC_STORE_BUSY', `comparing takes longer than ${SCAN_MS / 1000} s`, { cause: error })
}
