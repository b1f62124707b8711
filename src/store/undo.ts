import { setTimeout as sleep } from 'node:timers/promises'
import { sql, type Transaction } from 'kysely'
import { changesOfLines, type Json, type LineBatch, SynclineError } from '../sync/index.ts'
import type { Store } from './database.ts'
import type { ExchangeLimits } from './exchange.ts'
import { explain } from './explain.ts'
import { tidyAfter } from './housekeeping.ts'
import { readRecord } from './records.ts'
import { readSelf, type Self } from './registry/index.ts'
import { loadResources, type ResourceInfo } from './resources.ts'
import { rolledBack } from './rolled-back.ts'
import { appendLog, finishRun, type RunEntry, readRun, startRun } from './run-log.ts'
import type { Database } from './schema.ts'
import {
  type ChangedSince,
  changedSince,
  missingOf,
  notOfRun,
  planUndo,
  type UndoMissing,
  undoCause,
  undoneBefore,
} from './undo-plan.ts'
import { writeUndo } from './undo-write.ts'

export type UndoRequest = {
  readonly runId: string
  /** Nothing is written: all of it is done in a transaction that is rolled back. */
  readonly preview: boolean
  /** Records to take back although somebody changed them since, as `resource/id`. */
  readonly force: readonly string[]
  /** Take back what can be, although values of the run are no longer kept. */
  readonly partial: boolean
  /** Token of the person who asked. */
  readonly by: string
}

/** How many records were removed (the run had brought them), restored (it had deleted them) and put back to their previous values. */
export type UndoCounts = { readonly removed: number; readonly restored: number; readonly replaced: number }

/** One record as it is and as it will be. `fields` only where something differs; null stands for a record that is not there. */
export type UndoSample = {
  readonly resource: string
  readonly id: string
  readonly does: keyof UndoCounts
  readonly fields: Readonly<Record<string, { readonly now: Json; readonly next: Json }>>
}

export type UndoBlocked = {
  readonly resource: string
  readonly id: string
  readonly code: string
  readonly reason: string
}

export type UndoReport = {
  /** The run that is taken back, and the run that did so; null for a preview, and where there was nothing to write. */
  readonly runId: string
  readonly undoRunId: string | null
  /** The run that had taken it back before this one. */
  readonly before: { readonly runId: string; readonly at: string } | null
  readonly preview: boolean
  readonly counts: UndoCounts & {
    /** Changed by somebody since, and left. */
    readonly since: number
    readonly blocked: number
    /** As they were before the run already. */
    readonly same: number
    readonly missing: number
  }
  readonly resources: readonly (UndoCounts & { readonly resource: string })[]
  /** Up to a thousand each; the counts are complete. */
  readonly since: readonly ChangedSince[]
  readonly blocked: readonly UndoBlocked[]
  readonly missing: readonly UndoMissing[]
  readonly samples: readonly UndoSample[]
  readonly bytes: number
  readonly durationMs: number
}

/** Records that a report lists of a kind, and those that it shows with their fields. */
const LISTED_MAX = 1_000
const SAMPLES_MAX = 20
/** Tries of the whole undo when an application holds its rows; the last one leaves these. */
const TRIES = 4
const LOCK_WAIT_MS = 800

/**
 * Takes a run back: a new write of what was before for each record that the run changed here and nobody changed since. It is a run of its own, which
 * can be taken back in turn, and one transaction; where nothing is left to be written there is none. Errors: SYNC_REQUEST_NOT_FOUND for the run or a forced record, SYNC_RUN_ACTIVE while it
 * is under way, SYNC_RUN_UNDO_INCOMPLETE when values are no longer kept and `partial` was not asked for, SYNC_STORE_BUSY.
 */
export async function undoRun(
  store: Store,
  self: Self,
  request: UndoRequest,
  limits: ExchangeLimits,
): Promise<UndoReport> {
  const forced = request.force.map(splitName)
  const run = await readRun(store.db, request.runId)
  if (run.finishedAt === null)
    throw new SynclineError('SYNC_RUN_ACTIVE', `run ${run.id} is under way; it can be taken back when it has ended`)
  for (let tries = 1; ; tries++) {
    const work = (trx: Transaction<Database>) =>
      takeBack(trx, { ...request, forced, run, self, limits, patience: tries < TRIES ? 'wait' : 'set aside' })
    try {
      if (request.preview) return await rolledBack(store, work)
      const report = await store.db.transaction().execute(work)
      await tidyAfter(store, report.counts.removed + report.counts.restored + report.counts.replaced)
      return report
    } catch (error) {
      if (error instanceof NothingWritten) return error.report
      const known = explain(error)
      if (!(known instanceof SynclineError) || known.code !== 'SYNC_STORE_BUSY' || tries >= TRIES) throw known
      await sleep(Math.random() * LOCK_WAIT_MS)
    }
  }
}

/** Takes the run of an undo that had nothing to write away again with its transaction. */
class NothingWritten {
  readonly report: UndoReport

  constructor(report: UndoReport) {
    this.report = report
  }
}

type Work = Omit<UndoRequest, 'force'> & {
  readonly forced: readonly (readonly [string, string])[]
  readonly run: RunEntry
  readonly self: Self
  readonly limits: ExchangeLimits
  readonly patience: 'wait' | 'set aside'
}

async function takeBack(trx: Transaction<Database>, work: Work): Promise<UndoReport> {
  const { run, limits, by, preview } = work
  const began = performance.now()
  // Two at once would wait for each other's resources in a circle.
  await sql`select pg_advisory_xact_lock(hashtextextended('syncline.undo', 0))`.execute(trx)
  const self = await readSelf(trx)
  await planUndo(trx, self, run.id, work.forced)
  const unknown = await notOfRun(trx, work.forced)
  if (unknown.length > 0)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `run ${run.id} did not change ${unknown.join(', ')} here`)
  const before = await undoneBefore(trx, run.id)
  const missing = await missingOf(trx, run.id)
  if (missing.length > 0 && !work.partial && !preview)
    throw new SynclineError('SYNC_RUN_UNDO_INCOMPLETE', missing.map(missingText).join('; '))
  const undo = await startRun(trx, { cause: undoCause(run.id) })
  const seen = { bytes: 0, samples: [] as UndoSample[] }
  const context = {
    resources: await loadResources(trx),
    peer: null,
    selfSiteId: self.siteId,
    runId: undo.id,
    policy: { name: 'mine' as const, here: self.origin },
    unknownFields: 'park' as const,
    onLeft: 'keep' as const,
    recordBytesMax: 2 ** 31 - 1,
    // What the record here has seen may lie ahead of a clock that was set back; the undo has to come after it all the same.
    clockAheadMaxMicros: 2 ** 52,
    patience: work.patience,
    lockWaitMs: LOCK_WAIT_MS,
  }
  await writeUndo(trx, {
    self,
    resources: context.resources,
    context,
    rowsMax: limits.batchRowsMax,
    bytesMax: limits.batchBytesMax,
    onBatch: async (resource, batch) => {
      seen.bytes += Buffer.byteLength(batch.text)
      if (seen.samples.length < SAMPLES_MAX) seen.samples.push(...(await samplesOf(trx, resource, batch, seen.samples)))
    },
  })
  const report = await reportOf(trx, work, {
    ...seen,
    missing,
    before,
    undoRunId: preview ? null : undo.id,
    durationMs: performance.now() - began,
  })
  const { removed, restored, replaced } = report.counts
  if (removed + restored + replaced === 0) throw new NothingWritten({ ...report, undoRunId: null })
  await writeDown(trx, undo.id, report, by)
  return report
}

async function reportOf(
  trx: Transaction<Database>,
  { run, preview }: Work,
  rest: Pick<UndoReport, 'before' | 'bytes' | 'samples' | 'missing' | 'undoRunId' | 'durationMs'>,
): Promise<UndoReport> {
  const { rows } = await sql<{ resource: string; state: string; does: keyof UndoCounts; count: number }>`
    select s.name as resource, u.state, case when u.kind = 'd' then 'removed' when u.did = 'deleted' then 'restored' else 'replaced' end as does, count(*)::int
      from pg_temp.syncline_undo u join syncline.resource s on s.id = u.resource_id group by 1, 2, 3 order by 1`.execute(
    trx,
  )
  const blocked = await sql<UndoBlocked>`
    select s.name as resource, u.record_id as id, coalesce(u.code, 'SYNC_STORE_BUSY') as code, coalesce(u.reason, '') as reason
      from pg_temp.syncline_undo u join syncline.resource s on s.id = u.resource_id
     where u.state = 'blocked' order by s.name, u.record_id limit ${LISTED_MAX}`.execute(trx)
  const sum = (test: (row: (typeof rows)[number]) => boolean) =>
    rows.filter(test).reduce((total, { count }) => total + count, 0)
  const done = (does: keyof UndoCounts, resource?: string) =>
    sum((row) => row.state === 'done' && row.does === does && (resource === undefined || row.resource === resource))
  const names = [...new Set(rows.filter(({ state }) => state === 'done').map(({ resource }) => resource))]
  const counts = (resource?: string): UndoCounts => ({
    removed: done('removed', resource),
    restored: done('restored', resource),
    replaced: done('replaced', resource),
  })
  return {
    runId: run.id,
    preview,
    ...rest,
    durationMs: Math.round(rest.durationMs),
    counts: {
      ...counts(),
      since: sum(({ state }) => state === 'since'),
      blocked: sum(({ state }) => state === 'blocked'),
      same: sum(({ state }) => state === 'same'),
      missing: rest.missing.reduce((total, { count }) => total + count, 0),
    },
    resources: names.map((resource) => ({ resource, ...counts(resource) })),
    since: await changedSince(trx, LISTED_MAX),
    blocked: blocked.rows,
  }
}

/** The run of the undo, and an entry of the log for each resource and for the whole, with the name of who asked. */
async function writeDown(trx: Transaction<Database>, undoRunId: string, report: UndoReport, by: string): Promise<void> {
  const { removed, restored, replaced, since, blocked, missing } = report.counts
  const waiting = since + blocked + missing
  const result = waiting > 0 ? 'warning' : 'success'
  const entry = { runId: undoRunId, mode: 'undo', direction: 'none' as const, action: 'undo' }
  for (const { resource, ...counts } of report.resources) {
    const applied = counts.removed + counts.restored + counts.replaced
    const message = `run ${report.runId}: ${sentence(counts)}`
    await appendLog(trx, { ...entry, resource, result: 'success', message, changes: applied, applied })
  }
  const left = [
    since > 0 ? `${since} changed since and left` : '',
    blocked > 0 ? `${blocked} blocked` : '',
    missing > 0 ? `${missing} past what history keeps` : '',
  ].filter((part) => part !== '')
  const message = [`run ${report.runId} was taken back by ${by}: ${sentence(report.counts)}`, ...left].join('; ')
  const { bytes, durationMs } = report
  await appendLog(trx, { ...entry, result, message, changes: removed + restored + replaced, bytes, durationMs })
  await finishRun(trx, undoRunId, { result, message, counts: { removed, restored, replaced, since, blocked } })
}

function sentence({ removed, restored, replaced }: UndoCounts): string {
  const parts = [
    removed > 0 ? `${removed} removed` : '',
    restored > 0 ? `${restored} restored` : '',
    replaced > 0 ? `${replaced} back to their previous values` : '',
  ].filter((part) => part !== '')
  return parts.join(', ') || 'nothing to write'
}

function missingText({ resource, deed, count, reason }: UndoMissing): string {
  const what = deed === 'changed' ? 'records that it changed' : 'records that it brought new'
  return `${count} ${what} of ${resource ?? 'a resource that is no longer attached'} cannot be put back: ${reason}`
}

/** The first records of a batch with what will change of them. */
async function samplesOf(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  batch: LineBatch,
  known: readonly UndoSample[],
): Promise<readonly UndoSample[]> {
  const wanted = Math.min(SAMPLES_MAX - known.length, batch.count)
  const text = batch.text.split('\n', wanted).join('\n')
  const samples: UndoSample[] = []
  for (const change of changesOfLines({ ...batch, text, count: wanted })) {
    const found = await readRecord(trx, resource, change.id)
    const [present] = found === null ? [] : changesOfLines(found)
    const now = valuesOf(present)
    const then = valuesOf(change)
    const differing = [...new Set([...Object.keys(now ?? {}), ...Object.keys(then ?? {})])].filter(
      (name) => then === null || (name in then && JSON.stringify(now?.[name]) !== JSON.stringify(then[name])),
    )
    const fields = differing.map((name) => [name, { now: now?.[name] ?? null, next: then?.[name] ?? null }])
    const does = then === null ? 'removed' : now === null ? 'restored' : 'replaced'
    samples.push({ resource: resource.name, id: change.id, does, fields: Object.fromEntries(fields) })
  }
  return samples
}

function valuesOf(change: ReturnType<typeof changesOfLines>[number] | undefined): Record<string, Json> | null {
  if (change?.kind !== 'put') return null
  const refs = Object.entries(change.refs ?? {}).map(([name, target]) => [name, target?.id ?? null])
  return { ...change.data, ...Object.fromEntries(refs) }
}

function splitName(name: string): readonly [string, string] {
  const at = name.indexOf('/')
  if (at > 0 && at < name.length - 1) return [name.slice(0, at), name.slice(at + 1)]
  throw new SynclineError('SYNC_REQUEST_INVALID', `"${name.slice(0, 80)}" names no record; it is written resource/id`)
}
