import { type Kysely, type Selectable, sql } from 'kysely'
import { SynclineError, type TaskRun } from '../sync/index.ts'
import {
  inTransaction,
  isoTime,
  isRowId,
  olderThan,
  type Page,
  type PageQuery,
  pageBounds,
  toPage,
} from './registry/index.ts'
import { pruneRunBatches } from './run-batch.ts'
import type { Database } from './schema.ts'

export const RESULTS = ['success', 'warning', 'error', 'fatal'] as const
export type RunResult = (typeof RESULTS)[number]

/** State of a run whose process died under it. */
export const INTERRUPTED = 'interrupted'

/** sync: with a peer, set off here · received: what a peer pushed in one of its runs · repair: what differed, exchanged anew · undo: a run taken back. */
export const RUN_KINDS = ['sync', 'received', 'repair', 'undo'] as const
export type RunKind = (typeof RUN_KINDS)[number]

/** One execution of a task set or job. */
export type RunEntry = {
  readonly id: string
  readonly kind: RunKind
  /** What the peer calls the run in which it pushed this; null for what began here. */
  readonly received: string | null
  /** Null when the peer was removed since; `peer` still names it. */
  readonly peerId: number | null
  readonly peer: string | null
  readonly cause: string
  readonly state: string
  readonly startedAt: string
  readonly finishedAt: string | null
  readonly result: RunResult | null
  readonly code: string | null
  readonly message: string | null
  readonly counts: Readonly<Record<string, number>>
}

/** One transaction with a peer. `bytes` and `durationMs` are whole numbers. */
export type LogEntry = {
  readonly id: string
  readonly at: string
  readonly runId: string | null
  readonly peerId: number | null
  readonly peer: string | null
  readonly resource: string | null
  readonly mode: string
  readonly direction: 'incoming' | 'outgoing' | 'none'
  readonly action: string
  readonly result: RunResult
  /** True when the error was the other side's. */
  readonly remote: boolean
  readonly message: string
  readonly changes: number
  readonly applied: number
  readonly conflicts: number
  readonly quarantined: number
  readonly refused: number
  readonly bytes: number
  readonly durationMs: number
}

type PeerName = { readonly id: number; readonly name: string }
type LogCounts = Pick<
  LogEntry,
  'changes' | 'applied' | 'conflicts' | 'quarantined' | 'refused' | 'bytes' | 'durationMs'
>

export type NewLogEntry = Pick<LogEntry, 'mode' | 'direction' | 'action' | 'result' | 'message'> &
  Partial<LogCounts> & {
    readonly peer?: PeerName | null | undefined
    readonly runId?: string | null | undefined
    readonly resource?: string | null | undefined
    readonly remote?: boolean | undefined
  }

export type LogQuery = PageQuery & {
  /** Name of a peer, also of one that was removed. */
  readonly peer?: string | undefined
  readonly resource?: string | undefined
  readonly result?: RunResult | undefined
  readonly action?: string | undefined
  readonly runId?: string | undefined
}

export type RunQuery = PageQuery & {
  readonly peer?: string | undefined
  readonly state?: string | undefined
  readonly result?: RunResult | undefined
  readonly kind?: RunKind | undefined
}

const MESSAGE_CHARACTERS_MAX = 10_000

/** Opens a run. `cause` says what set it off, such as schedule, hand or signal. */
export async function startRun(
  db: Kysely<Database>,
  run: { readonly peer?: PeerName | null | undefined; readonly cause: string; readonly state?: string | undefined },
): Promise<RunEntry> {
  const row = await db
    .insertInto('syncline.run')
    .values({
      peer_id: run.peer?.id ?? null,
      peer_name: run.peer?.name ?? null,
      cause: run.cause,
      state: run.state ?? 'running',
      result: null,
      code: null,
      message: null,
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  return toRun(row)
}

/**
 * Moves an open run to another state, and says that its process is alive. A run that was taken for dead lives on with it; a run that finished
 * stays finished. Long waits call it again with the same state, more often than `markInterruptedRuns` is patient.
 */
export async function setRunState(
  db: Kysely<Database>,
  id: string,
  state: string,
  counts?: Readonly<Record<string, number>>,
): Promise<void> {
  await openRun(db, id)
    .set({
      state,
      alive_at: sql<string>`clock_timestamp()`,
      finished_at: null,
      result: null,
      code: null,
      message: null,
    })
    .$if(counts !== undefined, (update) => update.set({ counts: JSON.stringify(counts) }))
    .execute()
}

/** What became of one task in a run. */
export type TaskEnd = Pick<TaskRun, 'result' | 'code' | 'message'> & { readonly resource: string }

/** Closes a run, and notes at its tasks how it ended for them. The first to do so is right: repeating it changes nothing. */
export async function finishRun(
  db: Kysely<Database>,
  id: string,
  end: {
    readonly result: RunResult
    readonly state?: string | undefined
    readonly code?: string | null | undefined
    readonly message?: string | null | undefined
    readonly counts?: Readonly<Record<string, number>> | undefined
    readonly tasks?: readonly TaskEnd[] | undefined
  },
): Promise<void> {
  const { counts, tasks = [] } = end
  const closed = openRun(db, id)
    .set({
      state: end.state ?? 'finished',
      result: end.result,
      code: end.code ?? null,
      message: end.message == null ? null : storable(end.message),
      finished_at: sql<string>`clock_timestamp()`,
    })
    .$if(counts !== undefined, (update) => update.set({ counts: JSON.stringify(counts) }))
  if (tasks.length === 0) {
    await closed.execute()
    return
  }
  const ends = tasks.map(({ message, ...task }) => ({ ...task, message: message === null ? null : storable(message) }))
  await sql`
    with run as (${closed.returning(['id', 'peer_id', 'started_at', 'finished_at'])})
    update syncline.task t set last_run = jsonb_build_object('runId', run.id::text, 'at', run.started_at::text, 'result', e.result, 'code', e.code, 'message', e.message,
           'succeededAt', case when e.result in ('success', 'warning') then run.finished_at::text else t.last_run ->> 'succeededAt' end)
      from run, syncline.resource r, jsonb_to_recordset(${JSON.stringify(ends)}::jsonb) e (resource text, result text, code text, message text)
     where r.name = e.resource and t.resource_id = r.id and t.peer_id = run.peer_id`.execute(db)
}

/**
 * Closes open runs whose process is gone: state `interrupted`, result `error`. Without a limit every open run is meant: right where no other
 * process can be at work, as on the embedded database. `peerId` limits it to one peer, for whoever holds that peer's lock; `silentSeconds`
 * to runs that gave no sign of life for so long, where several processes share a database. Gives the ids.
 */
export async function markInterruptedRuns(
  db: Kysely<Database>,
  limits: { readonly peerId?: number | undefined; readonly silentSeconds?: number | undefined } = {},
): Promise<readonly string[]> {
  const { peerId, silentSeconds } = limits
  let update = db
    .updateTable('syncline.run')
    .set({
      state: INTERRUPTED,
      result: 'error',
      message:
        'the process that performed the run ended in the middle of it; what was committed stays, the next run goes on from there',
      finished_at: sql<string>`clock_timestamp()`,
    })
    .where('finished_at', 'is', null)
  if (peerId !== undefined) update = update.where('peer_id', '=', peerId)
  if (silentSeconds !== undefined) {
    update = update.where(sql<boolean>`alive_at < clock_timestamp() - make_interval(secs => ${silentSeconds})`)
  }
  return (await update.returning('id').execute()).map((row) => row.id)
}

/** A run by id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function readRun(db: Kysely<Database>, id: string): Promise<RunEntry> {
  const row = isRowId(id)
    ? await db.selectFrom('syncline.run').selectAll().where('id', '=', id).executeTakeFirst()
    : undefined
  if (row === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no run ${id.slice(0, 40)}`)
  return toRun(row)
}

/** Runs, newest first. */
export async function listRuns(db: Kysely<Database>, query: RunQuery = {}): Promise<Page<RunEntry>> {
  const bounds = pageBounds(query)
  let select = db.selectFrom('syncline.run').selectAll().where(olderThan('id', bounds))
  if (query.peer !== undefined) select = select.where(ofPeer(query.peer))
  if (query.state !== undefined) select = select.where('state', '=', query.state)
  if (query.result !== undefined) select = select.where('result', '=', query.result)
  if (query.kind !== undefined) select = select.where(ofKind(query.kind))
  return toPage(await select.orderBy('id', 'desc').limit(bounds.take).execute(), bounds, toRun)
}

/** Writes one entry of the log and gives its id. Belongs into the transaction that it tells of. */
export async function appendLog(db: Kysely<Database>, entry: NewLogEntry): Promise<string> {
  const row = await db
    .insertInto('syncline.log')
    .values({
      run_id: entry.runId ?? null,
      peer_id: entry.peer?.id ?? null,
      peer_name: entry.peer?.name ?? null,
      resource: entry.resource ?? null,
      mode: entry.mode,
      direction: entry.direction,
      action: entry.action,
      result: entry.result,
      remote: entry.remote ?? false,
      message: storable(entry.message),
      changes: entry.changes ?? 0,
      applied: entry.applied ?? 0,
      conflicts: entry.conflicts ?? 0,
      quarantined: entry.quarantined ?? 0,
      refused: entry.refused ?? 0,
      bytes: entry.bytes ?? 0,
      duration_ms: Math.round(entry.durationMs ?? 0),
    })
    .returning('id')
    .executeTakeFirstOrThrow()
  return row.id
}

/**
 * Entries of the log, newest first. Ids are given out before commit, so a follower that reads the newest page again and again must compare ids
 * with those it has shown instead of remembering only the last one.
 */
export async function listLog(db: Kysely<Database>, query: LogQuery = {}): Promise<Page<LogEntry>> {
  const bounds = pageBounds(query)
  let select = db.selectFrom('syncline.log').selectAll().where(olderThan('id', bounds))
  if (query.peer !== undefined) select = select.where(ofPeer(query.peer))
  if (query.resource !== undefined) select = select.where('resource', '=', query.resource)
  if (query.result !== undefined) select = select.where('result', '=', query.result)
  if (query.action !== undefined) select = select.where('action', '=', query.action)
  if (query.runId !== undefined) select = select.where('run_id', '=', isRowId(query.runId) ? query.runId : '0')
  return toPage(await select.orderBy('id', 'desc').limit(bounds.take).execute(), bounds, toEntry)
}

/** Deletes entries and closed runs that are older than `days`. Open runs stay, however old. */
export async function pruneLog(
  db: Kysely<Database>,
  days: number,
): Promise<{ readonly entries: number; readonly runs: number }> {
  if (!Number.isInteger(days) || days < 1) {
    throw new SynclineError(
      'SYNC_REQUEST_INVALID',
      `the log is kept for ${days} days; it must be a whole number from 1`,
    )
  }
  return inTransaction(db, async (trx) => {
    const limit = sql<string>`now() - make_interval(days => ${days})`
    const entries = await trx.deleteFrom('syncline.log').where('at', '<', limit).executeTakeFirst()
    const runs = await trx.deleteFrom('syncline.run').where('finished_at', '<', limit).executeTakeFirst()
    if (runs.numDeletedRows > 0n) await pruneRunBatches(trx)
    return { entries: Number(entries.numDeletedRows), runs: Number(runs.numDeletedRows) }
  })
}

function openRun(db: Kysely<Database>, id: string) {
  return db
    .updateTable('syncline.run')
    .where('id', '=', id)
    .where((eb) => eb.or([eb('finished_at', 'is', null), eb('state', '=', INTERRUPTED)]))
}

/** By the peer that has the name now, whatever it was called then; by the name as it was for peers that were removed. */
function ofPeer(name: string) {
  return sql<boolean>`(peer_id = (select id from syncline.peer where name = ${name}) or (peer_id is null and peer_name = ${name}))`
}

function kindOf({ received, cause }: { readonly received: string | null; readonly cause: string }): RunKind {
  if (cause === 'received' || received !== null) return 'received'
  return cause === 'repair' ? 'repair' : cause.startsWith('undo of run ') ? 'undo' : 'sync'
}

/** The same in the database. */
function ofKind(kind: RunKind) {
  return sql<boolean>`case when cause = 'received' or received is not null then 'received' when cause = 'repair' then 'repair'
    when starts_with(cause, 'undo of run ') then 'undo' else 'sync' end = ${kind}`
}

/** PostgreSQL's text has no place for NUL, and what peers say has no natural end. */
function storable(message: string): string {
  return message.slice(0, MESSAGE_CHARACTERS_MAX).replaceAll('\0', '\uFFFD')
}

function toRun(row: Selectable<Database['syncline.run']>): RunEntry {
  return {
    id: row.id,
    kind: kindOf(row),
    received: row.received,
    peerId: row.peer_id,
    peer: row.peer_name,
    cause: row.cause,
    state: row.state,
    startedAt: isoTime(row.started_at),
    finishedAt: isoTime(row.finished_at),
    result: row.result,
    code: row.code,
    message: row.message,
    counts: row.counts,
  }
}

function toEntry(row: Selectable<Database['syncline.log']>): LogEntry {
  return {
    id: row.id,
    at: isoTime(row.at),
    runId: row.run_id,
    peerId: row.peer_id,
    peer: row.peer_name,
    resource: row.resource,
    mode: row.mode,
    direction: row.direction,
    action: row.action,
    result: row.result,
    remote: row.remote,
    message: row.message,
    changes: row.changes,
    applied: row.applied,
    conflicts: row.conflicts,
    quarantined: row.quarantined,
    refused: row.refused,
    bytes: Number(row.bytes),
    durationMs: row.duration_ms,
  }
}
