import { sql, type Transaction } from 'kysely'
import {
  type BatchReport,
  type LineBatch,
  type Outcome,
  type Policy,
  type Rejection,
  SynclineError,
} from '../sync/index.ts'
import { closeSettledConflicts } from './conflict-close.ts'
import { type DatabaseError, explain } from './explain.ts'
import { quarantineStaged, releaseApplied } from './quarantine.ts'
import { siteIds } from './registry/index.ts'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'
import { settleConflicts } from './settle.ts'
import {
  lockStaged,
  markBlockedDeletes,
  markClockAhead,
  markMissingParents,
  prepareStage,
  type StageCounts,
  stageCounts,
  stageLines,
  steadyPlans,
} from './stage.ts'
import { markOutsideFilter, type Range, resolveLateReferences, type WriteContext, writeRange } from './write.ts'

export type ApplyContext = {
  readonly resource: ResourceInfo
  /** Every attached resource; references that waited are filled in across them. */
  readonly resources: readonly ResourceInfo[]
  /** The link the batch came by; null for records written here by hand. */
  readonly peer: { readonly id: number; readonly siteId: number } | null
  readonly selfSiteId: number
  readonly runId: string | null
  readonly policy: Policy
  /** Fields that the table has no column for: refused by name (pushes by hand) or kept with the record (peers). */
  readonly unknownFields: 'refuse' | 'park'
  /** What a pushing peer may write; absent for a pull, which is our own choice. */
  readonly grant?: { readonly columns: readonly string[] | null; readonly filter: WriteContext['filter'] }
  /** What to do with records that left the filter of the link. */
  readonly onLeft: 'keep' | 'remove'
  readonly recordBytesMax: number
  readonly clockAheadMaxMicros: number
  /** Rows that an application holds: waited for, so that the batch is repeated, or set aside alone when that was in vain. */
  readonly patience: 'wait' | 'set aside'
}

/** Rejections listed in a report; the counts are always complete. */
const REJECTIONS_MAX = 1_000
/** Errors of the database that lie in the record: data exception, constraint, raised by a trigger, program limit, wrong type. */
const RECORD_FAULT = /^(22|23|54|P0|42804|42846|44|HV)/

/**
 * Applies one batch inside the caller's transaction, which also moves the checkpoint (I5): stage, classify in one join, settle what is
 * concurrent, write in sets, set aside alone what cannot be written (I8). Repeating a batch changes nothing (I2).
 * Errors: SYNC_STORE_BUSY when the rows are in use (the caller rolls back and repeats), SYNC_STORE_RIGHTS.
 */
export async function applyLines(
  trx: Transaction<Database>,
  context: ApplyContext,
  batch: LineBatch,
): Promise<BatchReport> {
  if (batch.count === 0) return emptyReport()
  const { resource } = context
  // One batch of a resource at a time: two links never wait for each other in the middle of a batch.
  await sql`select pg_advisory_xact_lock(hashtextextended('syncline.apply', ${resource.id}))`.execute(trx)
  await steadyPlans(trx)
  await prepareStage(trx)
  const write = writeContext(context, batch)
  const writer = context.peer?.siteId ?? context.selfSiteId
  try {
    await stageLines(trx, resource, batch, await siteIds(trx, batch.origins), writer)
    await stampUnversioned(trx)
    await refuseOversize(trx, context.recordBytesMax)
    await markClockAhead(trx, context.clockAheadMaxMicros)
    await refuseOutside(trx, context, write, batch)
    let counts = await stageCounts(trx)
    if ((counts.f ?? 0) + (counts.c ?? 0) + (counts.u ?? 0) + (counts.l ?? 0) > 0) {
      await lockStaged(trx, resource, context.patience)
      const settling = {
        ...write,
        peerId: context.peer?.id ?? null,
        policy: context.policy,
        clockAheadMaxMicros: context.clockAheadMaxMicros,
      }
      await markOutsideFilter(trx, write, 'fcu')
      if ((counts.c ?? 0) + (counts.u ?? 0) > 0 || (await anyConcurrent(trx))) await settleConflicts(trx, settling, batch)
      await settleLeft(trx, context)
      counts = await stageCounts(trx)
      await writeStaged(trx, context, write, batch, counts)
      return await report(trx, context)
    }
    await writeStaged(trx, context, write, batch, counts)
    return await report(trx, context)
  } catch (error) {
    throw explain(error)
  }
}

async function writeStaged(
  trx: Transaction<Database>,
  context: ApplyContext,
  write: WriteContext,
  batch: LineBatch,
  counts: StageCounts,
): Promise<void> {
  const { resource } = context
  const columns = batch.columns
  await markMissingParents(trx, resource, columns, false)
  if (counts.deletes > 0 && (counts.f ?? 0) > 0) await markBlockedDeletes(trx, resource)
  const all: Range = { from: 1, to: batch.count }
  const error = await attempt(trx, write, all, counts, context.patience)
  if (error !== null) {
    // The usual reason is a parent that is missing: set all such records aside at once instead of one by one.
    if (error.code === '23503') await markMissingParents(trx, resource, columns, true)
    await writeHalves(trx, write, all, counts, context.patience)
  }
  await resolveLateReferences(trx, resource, context.resources)
  await releaseApplied(trx, resource)
  await closeSettledConflicts(trx, resource)
  if (context.peer !== null)
    await quarantineStaged(
      trx,
      { resource, peerId: context.peer.id, via: context.grant === undefined ? 'pull' : 'push', runId: context.runId },
      batch,
    )
}

/** Writes a range under a savepoint. Returns the error that one of its records caused, after undoing the range; throws any other. */
async function attempt(
  trx: Transaction<Database>,
  write: WriteContext,
  range: Range,
  counts: StageCounts,
  patience: ApplyContext['patience'],
  again = true,
): Promise<DatabaseError | null> {
  await sql`savepoint syncline_range`.execute(trx)
  try {
    await writeRange(trx, write, range, counts)
    if (write.filter !== undefined && (await markOutsideFilter(trx, write, 'nf')) > 0) {
      await sql`rollback to savepoint syncline_range`.execute(trx)
      await refuseWhereOutside(trx, write, range)
      if (!again)
        throw new SynclineError(
          'SYNC_STORE_BUSY',
          'the rows that the filter of the grant looks at change while they are written',
        )
      return await attempt(trx, write, range, counts, patience, false)
    }
    await sql`release savepoint syncline_range`.execute(trx)
    return null
  } catch (cause) {
    const error = cause as DatabaseError
    const inUse = patience === 'set aside' && error.code === '55P03'
    if (error.code === undefined || !(inUse || RECORD_FAULT.test(error.code))) throw cause
    await sql`rollback to savepoint syncline_range`.execute(trx)
    await sql`select set_config('syncline.apply', '', true)`.execute(trx)
    return error
  }
}

/** Bisects a range until what the database refuses is alone; the rest is written. */
async function writeHalves(
  trx: Transaction<Database>,
  write: WriteContext,
  range: Range,
  counts: StageCounts,
  patience: ApplyContext['patience'],
): Promise<void> {
  const error = await attempt(trx, write, range, counts, patience)
  if (error === null) return
  const { rows } = await sql<{ low: number; mid: number; high: number; count: number }>`
    select min(n) as low, max(n) as high, count(*)::int as count, (percentile_disc(0.5) within group (order by n)) as mid
      from pg_temp.syncline_stage where class in ('n', 'f', 'v') and n between ${range.from} and ${range.to}`.execute(
    trx,
  )
  const span = rows[0]
  if (span === undefined || span.count === 0) throw error
  if (span.count === 1) {
    const reason = [error.message, error.detail].filter((part) => part !== undefined && part !== '').join('; ')
    await sql`update pg_temp.syncline_stage set class = 'q', code = ${error.code === '55P03' ? 'SYNC_RECORD_IN_USE' : 'SYNC_RECORD_CONSTRAINT'}, reason = ${reason.slice(0, 2_000)} where n = ${span.low}`.execute(
      trx,
    )
    return
  }
  await writeHalves(trx, write, { from: span.low, to: span.mid }, counts, patience)
  await writeHalves(trx, write, { from: span.mid + 1, to: span.high }, counts, patience)
}

function writeContext(context: ApplyContext, batch: LineBatch): WriteContext {
  const { resource } = context
  const places = batch.columns.map((name, at) => ({
    name,
    at,
    column: resource.columns.find((column) => column.name === name && column.sent),
  }))
  return {
    resource,
    columns: places.flatMap(({ at, column }) => (column === undefined ? [] : [{ at, column }])),
    unknown: places.flatMap(({ name, at, column }) => (column === undefined ? [{ name, at }] : [])),
    source: context.peer?.siteId ?? null,
    runId: context.runId,
    filter: context.grant?.filter,
  }
}

/** A record pushed without a version that is new here gets the time of its arrival. */
async function stampUnversioned(trx: Transaction<Database>): Promise<void> {
  await sql`update pg_temp.syncline_stage set clock = (extract(epoch from clock_timestamp()) * 1000000)::int8 where clock is null and class = 'n'`.execute(
    trx,
  )
}

async function refuseOversize(trx: Transaction<Database>, recordBytesMax: number): Promise<void> {
  await sql`
    update pg_temp.syncline_stage set class = 'q', code = 'SYNC_RECORD_TOO_LARGE',
           reason = format('the record has %s bytes; this site accepts %s', octet_length(payload), ${recordBytesMax}::int8)
     where octet_length(payload) > ${recordBytesMax} and class <> 's'`.execute(trx)
}

/** Refuses what the peer may not write at all: unknown fields of a push by hand, columns outside the grant. */
async function refuseOutside(
  trx: Transaction<Database>,
  context: ApplyContext,
  write: WriteContext,
  batch: LineBatch,
): Promise<void> {
  const refuse = (code: string, reason: string) =>
    sql`update pg_temp.syncline_stage set class = 'o', code = ${code}, reason = ${reason} where class <> 's' and kind = 'p'`.execute(
      trx,
    )
  if (write.unknown.length > 0 && context.unknownFields === 'refuse') {
    const names = write.unknown.map((each) => `"${each.name}"`).join(', ')
    await refuse('SYNC_RECORD_FIELD_UNKNOWN', `${context.resource.name} has no field ${names}`)
  }
  const allowed = context.grant?.columns
  const outside = allowed == null ? [] : batch.columns.filter((name) => !allowed.includes(name))
  if (outside.length > 0) {
    await refuse(
      'SYNC_RECORD_OUTSIDE_GRANT',
      `this peer may not write ${outside.map((name) => `"${name}"`).join(', ')} of ${context.resource.name}`,
    )
  }
}

/** After a rollback the marks are gone with the rows; what was outside the filter is found again by writing each half alone. */
async function refuseWhereOutside(trx: Transaction<Database>, write: WriteContext, range: Range): Promise<void> {
  const { rows } = await sql<{
    n: number
  }>`select n from pg_temp.syncline_stage where class in ('n', 'f') and kind = 'p' and n between ${range.from} and ${range.to} order by n`.execute(
    trx,
  )
  const counts = await stageCounts(trx)
  for (const { n } of rows) {
    await sql`savepoint syncline_one`.execute(trx)
    let outside = false
    try {
      await writeRange(trx, write, { from: n, to: n }, counts)
      outside = (await markOutsideFilter(trx, write, 'nf')) > 0
    } catch (cause) {
      if (!RECORD_FAULT.test((cause as DatabaseError).code ?? '')) throw cause
    }
    await sql`rollback to savepoint syncline_one`.execute(trx)
    if (outside) {
      await sql`update pg_temp.syncline_stage set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'the record would not match the filter of the grant' where n = ${n}`.execute(
        trx,
      )
    }
  }
}

async function anyConcurrent(trx: Transaction<Database>): Promise<boolean> {
  const { rows } = await sql`select from pg_temp.syncline_stage where class in ('c', 'u') limit 1`.execute(trx)
  return rows.length > 0
}

/** Records that left the filter of the link: forgotten here when the task says so and nothing here is unknown to the sender; else kept. */
async function settleLeft(trx: Transaction<Database>, context: ApplyContext): Promise<void> {
  if (context.onLeft === 'keep') return
  const { resource } = context
  const key = sql.id(resource.keyColumn)
  const table = sql.raw(`"${resource.tableSchema.replaceAll('"', '""')}"."${resource.tableName.replaceAll('"', '""')}"`)
  const known = sql`s.class = 'l' and not s.l_deleted and s.l_origin is not null and (s.origin = s.l_origin and s.clock >= s.l_clock or (s.seen ->> s.l_origin::text)::int8 >= s.l_clock)`
  await sql`insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, seen, deleted, data)
    select ${resource.id}, s.id, ${context.runId}::int8, 'left', s.l_origin, s.l_clock, s.l_seen, false, row_to_json(t.*)
      from pg_temp.syncline_stage s join ${table} t on t.${key} = s.id::${sql.raw(resource.keyType)} where ${known}`.execute(
    trx,
  )
  await sql`select set_config('syncline.apply', ${String(resource.id)}, true)`.execute(trx)
  await sql`delete from ${table} t using pg_temp.syncline_stage s where t.${key} = s.id::${sql.raw(resource.keyType)} and ${known}`.execute(
    trx,
  )
  await sql`select set_config('syncline.apply', '', true)`.execute(trx)
  await sql`delete from syncline.record r using pg_temp.syncline_stage s where r.resource_id = ${resource.id} and r.record_id = s.id and ${known}`.execute(
    trx,
  )
}

const OUTCOMES: Readonly<Record<string, Outcome>> = {
  n: 'applied',
  f: 'applied',
  v: 'merged',
  s: 'known',
  l: 'skipped',
  a: 'conflict',
  w: 'quarantined',
  b: 'quarantined',
  q: 'quarantined',
  o: 'refused',
}

async function report(trx: Transaction<Database>, context: ApplyContext): Promise<BatchReport> {
  const counts = { ...emptyReport().counts }
  const { rows } = await sql<{ class: string; announce: boolean; count: number }>`
    select class::text, announce, count(*)::int from pg_temp.syncline_stage group by 1, 2`.execute(trx)
  for (const row of rows) counts[outcomeOf(row, context)] += row.count
  if (counts.applied + counts.known === rows.reduce((sum, row) => sum + row.count, 0))
    return { counts, rejections: [], truncated: false }
  const listed = await sql<{
    id: string
    class: string
    code: string | null
    reason: string | null
    announce: boolean
  }>`
    select id, class::text, code, reason, announce from pg_temp.syncline_stage
     where class not in ('n', 's') and (class <> 'f' or announce) order by n limit ${REJECTIONS_MAX + 1}`.execute(trx)
  const rejections = listed.rows.slice(0, REJECTIONS_MAX).map((row): Rejection => {
    return {
      id: row.id,
      outcome: outcomeOf(row, context) as Rejection['outcome'],
      ...(row.code === null ? {} : { code: row.code }),
      reason: row.reason ?? REASONS[row.class] ?? '',
    }
  })
  return { counts, rejections, truncated: listed.rows.length > REJECTIONS_MAX }
}

/** What is announced although it was written is the outcome of a conflict. Records written here by hand wait nowhere. */
function outcomeOf(row: { readonly class: string; readonly announce: boolean }, { peer }: ApplyContext): Outcome {
  if (row.class === 'f' && row.announce) return 'merged'
  const outcome = OUTCOMES[row.class] ?? 'refused'
  return outcome === 'quarantined' && peer === null ? 'refused' : outcome
}

const REASONS: Readonly<Record<string, string>> = {
  v: 'changed on both sides; settled by policy, the values here stayed',
  f: 'changed on both sides; settled by policy, the values here were replaced and kept in history',
  a: 'changed on both sides; waits for a person',
  l: 'no longer matches the filter of this link',
}

export function emptyReport(): BatchReport {
  return {
    counts: { applied: 0, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 },
    rejections: [],
    truncated: false,
  }
}
