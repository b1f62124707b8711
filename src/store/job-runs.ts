import { type Kysely, type Selectable, sql } from 'kysely'
import { type Json, SynclineError } from '../sync/index.ts'
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
import type { Database } from './schema.ts'
import type { JobPhase, JobResult } from './schema-jobs.ts'

/** One run of a job, to come, under way or over. */
export type JobRunEntry = {
  readonly id: string
  readonly job: string
  readonly cause: string
  /** Who asked, where somebody did. */
  readonly caller: string | null
  readonly dueAt: string | null
  readonly phase: JobPhase
  /** Why it does not go on. */
  readonly reason: string | null
  readonly dryRun: boolean
  /** How many further reasons to run it stands for. */
  readonly coalesced: number
  readonly host: string | null
  readonly queuedAt: string
  readonly startedAt: string | null
  readonly finishedAt: string | null
  readonly nextAt: string
  readonly blockedMs: number
  readonly result: JobResult | null
  readonly code: string | null
  readonly message: string | null
  readonly counts: Readonly<Record<string, number>>
  readonly progress: Json | null
  readonly dead: boolean
  readonly changedAt: string
}

/** One try of a step. */
export type JobStepEntry = {
  readonly id: string
  readonly stage: 'steps' | 'always'
  readonly place: number
  readonly name: string
  readonly kind: string
  readonly attempt: number
  readonly host: string
  readonly startedAt: string
  readonly finishedAt: string | null
  readonly result: 'success' | 'warning' | 'error' | null
  readonly code: string | null
  readonly message: string | null
  readonly counts: Readonly<Record<string, number>>
  readonly output: string
}

export type JobRunQuery = PageQuery & {
  readonly job?: string | undefined
  readonly phase?: JobPhase | undefined
  readonly result?: JobResult | undefined
  readonly dead?: boolean | undefined
}

/** Runs, newest first. */
export async function listJobRuns(db: Kysely<Database>, query: JobRunQuery = {}): Promise<Page<JobRunEntry>> {
  const bounds = pageBounds(query)
  let select = db.selectFrom('syncline.job_run').selectAll().where(olderThan('id', bounds))
  if (query.job !== undefined) select = select.where('job_name', '=', query.job)
  if (query.phase !== undefined) select = select.where('phase', '=', query.phase)
  if (query.result !== undefined) select = select.where('result', '=', query.result)
  if (query.dead !== undefined) select = select.where('dead', '=', query.dead)
  return toPage(await select.orderBy('id', 'desc').limit(bounds.take).execute(), bounds, toJobRun)
}

/** Runs that are not over, by priority. */
export async function openJobRuns(db: Kysely<Database>): Promise<readonly JobRunEntry[]> {
  const rows = await db
    .selectFrom('syncline.job_run')
    .selectAll()
    .where('phase', '<>', 'over')
    .orderBy('priority', 'desc')
    .orderBy('id')
    .limit(1000)
    .execute()
  return rows.map(toJobRun)
}

/**
 * Runs that changed after a moment, in the order of their changes, and the moment up to which this is all but what commits late. Without a moment
 * all runs that are not over.
 */
export async function changedJobRuns(
  db: Kysely<Database>,
  after: string | null,
): Promise<{ readonly runs: readonly JobRunEntry[]; readonly at: string }> {
  const { rows } = await sql<{ at: string }>`select clock_timestamp() as at`.execute(db)
  let select = db.selectFrom('syncline.job_run').selectAll()
  if (after === null) select = select.where('phase', '<>', 'over')
  else select = select.where('changed_at', '>', after)
  const runs = (await select.orderBy('changed_at').limit(1000).execute()).map(toJobRun)
  // A full page: the rest comes with the next question.
  return { runs, at: runs.length === 1000 ? (runs.at(-1)?.changedAt ?? '') : isoTime(rows[0]?.at ?? '') }
}

/** A run by id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function readJobRun(db: Kysely<Database>, id: string): Promise<JobRunEntry> {
  const row = isRowId(id)
    ? await db.selectFrom('syncline.job_run').selectAll().where('id', '=', id).executeTakeFirst()
    : undefined
  if (row === undefined)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no run ${id.slice(0, 40)} of a job`)
  return toJobRun(row)
}

const STEPS_SHOWN_MAX = 1000

/** Every try of every step of a run, in order. */
export async function jobSteps(db: Kysely<Database>, runId: string): Promise<readonly JobStepEntry[]> {
  const rows = await db
    .selectFrom('syncline.job_step')
    .selectAll()
    .where('run_id', '=', runId)
    .orderBy('id')
    .limit(STEPS_SHOWN_MAX)
    .execute()
  return rows.map(({ run_id: _, ...row }) => ({
    id: row.id,
    stage: row.stage,
    place: row.place,
    name: row.name,
    kind: row.kind,
    attempt: row.attempt,
    host: row.host,
    startedAt: isoTime(row.started_at),
    finishedAt: isoTime(row.finished_at),
    result: row.result,
    code: row.code,
    message: row.message,
    counts: row.counts,
    output: row.output,
  }))
}

/**
 * Asks every run of a job that is not over to stop, or one of them. What has not begun is over at once; what runs is told by the process that has it.
 * Gives the runs.
 */
export async function stopJobRuns(
  db: Kysely<Database>,
  which: { readonly job: string; readonly runId?: string | undefined },
  by: string,
): Promise<readonly string[]> {
  return inTransaction(db, async (trx) => {
    const rows = await trx
      .updateTable('syncline.job_run')
      .set({
        stop_asked_at: sql<string>`clock_timestamp()`,
        stop_asked_by: by,
        changed_at: sql<string>`clock_timestamp()`,
      })
      .where('job_name', '=', which.job)
      .where('phase', '<>', 'over')
      .$if(which.runId !== undefined, (update) => update.where('id', '=', which.runId ?? '0'))
      .returning(['id', 'phase', 'worker'])
      .execute()
    const idle = rows.filter(({ phase, worker }) => phase !== 'running' && worker === null).map(({ id }) => id)
    if (idle.length > 0)
      await trx
        .updateTable('syncline.job_run')
        .set({
          phase: 'over',
          result: 'stopped',
          code: 'SYNC_JOB_STOPPED',
          message: `stopped by ${by} before it began`,
          finished_at: sql<string>`clock_timestamp()`,
        })
        .where('id', 'in', idle)
        .execute()
    return rows.map(({ id }) => id)
  })
}

/** A person has seen that a run failed for good: it waits no more. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function dismissJobRun(db: Kysely<Database>, id: string): Promise<JobRunEntry> {
  const { dead } = await readJobRun(db, id)
  if (!dead) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `run ${id} waits for nobody`)
  await db
    .updateTable('syncline.job_run')
    .set({ dead: false, changed_at: sql<string>`clock_timestamp()` })
    .where('id', '=', id)
    .execute()
  return readJobRun(db, id)
}

/** Deletes what is older or more than each job keeps. What waits for a person stays. */
export async function pruneJobRuns(db: Kysely<Database>): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from syncline.job_run r using (
      select id, row_number() over (partition by job_name order by id desc) as place
        from syncline.job_run where phase = 'over') o
     where r.id = o.id and not r.dead
       and (o.place > coalesce((r.definition #>> '{history,runs}')::int, 1000)
         or r.finished_at < clock_timestamp() - make_interval(days => coalesce((r.definition #>> '{history,days}')::int, 90)))`.execute(
    db,
  )
  // Also of jobs that nobody looks after: the last thousand are enough to see that.
  await sql`
    update syncline.job_run r set dead = false from (
      select id, row_number() over (partition by job_name order by id desc) as place from syncline.job_run where dead) o
     where r.id = o.id and o.place > 1000`.execute(db)
  return Number(numAffectedRows ?? 0)
}

/** Runs that are not over, those that wait for a person, and when each job last succeeded. For metrics. */
export async function measureJobs(db: Kysely<Database>) {
  const queue = await sql<{ phase: string; count: number }>`
    select phase, count(*)::int from syncline.job_run where phase <> 'over' group by 1 order by 1`.execute(db)
  const dead = await sql<{ job: string; count: number }>`
    select job_name as job, count(*)::int from syncline.job_run where dead group by 1 order by 1`.execute(db)
  const succeeded = await sql<{ job: string; seconds: number }>`
    select name as job, extract(epoch from last_success_at)::float8 as seconds from syncline.job_definition
     where last_success_at is not null order by name`.execute(db)
  return { queue: queue.rows, dead: dead.rows, succeeded: succeeded.rows }
}

export function toJobRun(row: Selectable<Database['syncline.job_run']>): JobRunEntry {
  return {
    id: row.id,
    job: row.job_name,
    cause: row.cause,
    caller: row.caller,
    dueAt: isoTime(row.due_at),
    phase: row.phase,
    reason: row.reason,
    dryRun: row.dry_run,
    coalesced: row.coalesced,
    host: row.host,
    queuedAt: isoTime(row.queued_at),
    startedAt: isoTime(row.started_at),
    finishedAt: isoTime(row.finished_at),
    nextAt: isoTime(row.next_at),
    blockedMs: Number(row.blocked_ms),
    result: row.result,
    code: row.code,
    message: row.message,
    counts: row.counts,
    progress: row.progress,
    dead: row.dead,
    changedAt: isoTime(row.changed_at),
  }
}
