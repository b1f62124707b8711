import { sql, type Transaction } from 'kysely'
import {
  type BatchReport,
  type Json,
  type LineBatch,
  type Mapping,
  NO_MAPPING,
  type Policy,
  unsoundLines,
} from '../sync/index.ts'
import { writeAllNew } from './all-new.ts'
import { markBlockedDeletes } from './blocked.ts'
import { closeSettledConflicts } from './conflict-close.ts'
import { showWaiting } from './conflict-waiting.ts'
import { inexactOf, markInexact } from './exact.ts'
import { explain } from './explain.ts'
import { attemptAll, findUnreadable, isReadingFault, writeWithoutFaulty } from './isolate.ts'
import { noteKept } from './kept.ts'
import { raisePurged } from './purged.ts'
import { quarantineStaged, releaseApplied } from './quarantine.ts'
import { siteIds } from './registry/index.ts'
import { emptyReport, reportStaged } from './report.ts'
import type { Column, ResourceInfo } from './resources.ts'
import { noteRunBatch } from './run-batch.ts'
import type { Database } from './schema.ts'
import { settleConflicts } from './settle.ts'
import {
  lockStaged,
  markClockAhead,
  markMissingParents,
  markRemovals,
  prepareStage,
  refuseDoubles,
  type StageCounts,
  stageCounts,
  stageLines,
  steadyPlans,
  type Unreadable,
} from './stage.ts'
import { markOutsideFilter, type Range, resolveLateReferences, type WriteContext } from './write.ts'

export { emptyReport } from './report.ts'

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
  /** Looks at what is classified before any of it is written, and throws to stop it. Batches that only add are not shown. */
  readonly guard?: ((trx: Transaction<Database>, counts: StageCounts) => Promise<void>) | undefined
  /** Columns that the task leaves out or gives a fixed value. */
  readonly mapping?: Mapping | undefined
  /** What to do with records that left the filter of the link. */
  readonly onLeft: 'keep' | 'remove'
  readonly recordBytesMax: number
  readonly clockAheadMaxMicros: number
  /** Rows that an application holds: waited for, so that the batch is repeated, or set aside alone when that was in vain. */
  readonly patience: 'wait' | 'set aside'
  /** How long a lock is waited for. Below the server's deadlock_timeout: where we and an application wait for each other it is we who give way. */
  readonly lockWaitMs: number
}

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
  await oneBatchAtATime(trx, context.resource.id)
  await steadyPlans(trx, context.lockWaitMs, batch.next?.more === true)
  const read = writeContext(context, batch)
  const inexact = await inexactOf(trx, context.resource, read.columns).catch((error: unknown) => {
    throw explain(error)
  })
  const write = { ...read, inexact }
  const origins = await siteIds(trx, batch.origins)
  const allNew = await writeAllNew(trx, context, write, batch, origins)
  if (allNew !== null) {
    if (context.runId !== null)
      await noteRunBatch(trx, context.resource.id, context.runId, write.source, allNew.counts.applied)
    return allNew
  }
  await prepareStage(trx)
  try {
    return await applyReadable(trx, context, batch, write, origins)
  } catch (error) {
    throw explain(error)
  }
}

/** Applies a batch; when a line turns out to be unreadable, begins anew without the lines that are. */
async function applyReadable(
  trx: Transaction<Database>,
  context: ApplyContext,
  batch: LineBatch,
  write: WriteContext,
  origins: readonly number[],
): Promise<BatchReport> {
  const unsound = unsoundLines(batch)
  await sql`savepoint syncline_batch`.execute(trx)
  try {
    return await applyStaged(trx, context, batch, write, origins, unsound)
  } catch (error) {
    if (!isReadingFault(error)) throw error
    await sql`rollback to savepoint syncline_batch`.execute(trx)
    const found = await findUnreadable(trx, context.resource, batch, write)
    const unreadable = [...unsound, ...found.filter(({ n }) => !unsound.some((each) => each.n === n))]
    if (found.length === 0) throw error
    return await applyStaged(trx, context, batch, write, origins, unreadable)
  }
}

async function applyStaged(
  trx: Transaction<Database>,
  context: ApplyContext,
  batch: LineBatch,
  write: WriteContext,
  origins: readonly number[],
  unreadable: readonly Unreadable[],
): Promise<BatchReport> {
  const { resource } = context
  const writer = context.peer?.siteId ?? context.selfSiteId
  await stageLines(trx, resource, batch, origins, writer, unreadable)
  await refuseDoubles(trx, resource)
  await raisePurged(trx, resource)
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
    await markOutsideFilter(trx, write)
    if ((counts.c ?? 0) + (counts.u ?? 0) > 0 || (await anyConcurrent(trx))) {
      // A value that is cut to what is here would look equal.
      await markInexact(trx, write.inexact, ['c', 'u'])
      await settleConflicts(trx, settling, batch)
    }
    if (context.onLeft === 'remove') await markRemovals(trx, write)
    counts = await stageCounts(trx)
  }
  await context.guard?.(trx, counts)
  await writeStaged(trx, context, write, batch, counts)
  if (context.runId !== null) await noteRunBatch(trx, resource.id, context.runId, write.source)
  return await reportStaged(trx, context.peer === null)
}

async function writeStaged(
  trx: Transaction<Database>,
  context: ApplyContext,
  write: WriteContext,
  batch: LineBatch,
  counts: StageCounts,
): Promise<void> {
  const { resource, peer } = context
  const columns = batch.columns
  await markMissingParents(trx, resource, columns, false)
  if ((counts.deletes > 0 && (counts.f ?? 0) > 0) || (counts.r ?? 0) > 0) await markBlockedDeletes(trx, resource)
  const all: Range = { from: 1, to: batch.count }
  const tried = { write, counts, patience: context.patience }
  const error = await attemptAll(trx, tried, all)
  if (error !== null) {
    // The usual reason is a parent that is missing: set all such records aside at once instead of one by one.
    if (error.code === '23503') await markMissingParents(trx, resource, columns, true)
    await markInexact(trx, write.inexact, ['n', 'f'])
    await writeWithoutFaulty(trx, tried, all)
  }
  await resolveLateReferences(trx, resource, context.resources)
  await releaseApplied(trx, resource, peer?.id ?? null)
  await closeSettledConflicts(trx, resource)
  if (peer !== null) {
    const via = context.grant === undefined ? 'pull' : 'push'
    await quarantineStaged(trx, { resource, peerId: peer.id, via, runId: context.runId }, batch)
    await showWaiting(trx, resource, batch, { peerId: peer.id, runId: context.runId })
    await noteKept(trx, resource.id, peer.id, counts)
  }
}

/** Two links never wait for each other in the middle of a batch. */
export async function oneBatchAtATime(trx: Transaction<Database>, resourceId: number): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('syncline.apply', ${resourceId}))`.execute(trx)
}

function writeContext(context: ApplyContext, batch: LineBatch): WriteContext {
  const { resource, mapping = NO_MAPPING } = context
  const fixed = Object.keys(mapping.constant)
  const all = batch.columns.map((name, at) => ({
    name,
    at,
    column: resource.columns.find((column) => column.name === name && column.sent),
  }))
  // A field that was kept while nobody had a column for it gives way to the column of that name, as a mapping makes one.
  const places = all.filter(({ name, at }) => batch.columns.indexOf(name) === at)
  const taken = places.filter(({ name }) => !mapping.omit.includes(name) && !fixed.includes(name))
  return {
    resource,
    columns: taken.flatMap(({ at, column }) => (column === undefined ? [] : [{ at, column }])),
    constants: resource.columns.flatMap((column) =>
      column.sent && fixed.includes(column.name)
        ? [{ column, constant: constantText(column, mapping.constant[column.name]) }]
        : [],
    ),
    width: batch.columns.length,
    unknown: taken.flatMap(({ name, at, column }) => (column === undefined ? [{ name, at }] : [])),
    source: context.peer?.siteId ?? null,
    runId: context.runId,
    rule: context.policy.name,
    filter: context.grant?.filter,
  }
}

/** A constant as the database reads it. */
function constantText(column: Column, value: Json | undefined): string | null {
  if (column.form === 'json') return JSON.stringify(value ?? null)
  if (value === null || value === undefined) return null
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
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
  // Nobody can say whether it matched, and a tombstone would win against the record of another site that is on its way.
  if (context.grant?.filter !== undefined)
    await sql`
      update pg_temp.syncline_stage set class = 'o', code = 'SYNC_RECORD_OUTSIDE_GRANT', reason = 'there is no such record here, and this peer may delete only what matches the filter of its grant'
       where class = 'n' and kind = 'd'`.execute(trx)
  const allowed = context.grant?.columns
  const outside = allowed == null ? [] : batch.columns.filter((name) => !allowed.includes(name))
  if (outside.length > 0) {
    await refuse(
      'SYNC_RECORD_OUTSIDE_GRANT',
      `this peer may not write ${outside.map((name) => `"${name}"`).join(', ')} of ${context.resource.name}`,
    )
  }
}

async function anyConcurrent(trx: Transaction<Database>): Promise<boolean> {
  const { rows } = await sql`select from pg_temp.syncline_stage where class in ('c', 'u') limit 1`.execute(trx)
  return rows.length > 0
}
