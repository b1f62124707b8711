import { type Kysely, sql, type Transaction } from 'kysely'
import { type Json, SynclineError } from '../sync/index.ts'
import { type JobEntry, toJob } from './jobs.ts'
import { inTransaction } from './registry/index.ts'
import type { Database } from './schema.ts'

/** Runs of a job that are not over. */
export type JobStanding = { readonly begun: number; readonly queued: number }

/** A run to be made. `definition` is the job as it is understood now: later changes do not touch the run. */
export type NewRun = {
  readonly cause: string
  readonly caller?: string | null | undefined
  readonly dueMs?: number | undefined
  /** Not before; at once when absent. */
  readonly notBeforeMs?: number | undefined
  readonly definition: Json
  readonly dryRun: boolean
  readonly priority: number
  readonly peers: readonly string[]
}

/** What becomes of the times at which a job was due. */
export type DueDecision = {
  readonly runs: readonly NewRun[]
  /** Times without a run, with why; kept in the history. */
  readonly skipped: readonly { readonly dueMs: number; readonly reason: string; readonly definition: Json }[]
  readonly coalesced: number
  readonly nextDueMs: number | null
}

export type DueJobRow = JobEntry & { readonly consideredMs: number; readonly dueMs: number }

/** Jobs that one look takes; what is left is taken by the next one, at once. */
const DUE_MAX = 100
/** PostgreSQL's time of the clock in milliseconds. */
const NOW_MS = sql<number>`(extract(epoch from clock_timestamp()) * 1000)::float8`
const ms = (column: string) => sql<number>`(extract(epoch from ${sql.ref(column)}) * 1000)::float8`
const atMs = (value: number) => sql<string>`to_timestamp(${value / 1000}::float8)`

/**
 * Takes the jobs that are due, each on one process only, and does with them what `decide` says: the runs and the next time are one commit, so a
 * due time is handled once, whatever dies. Gives the number of runs that were made.
 */
export async function takeDueJobs(
  db: Kysely<Database>,
  decide: (job: DueJobRow, standing: JobStanding, nowMs: number) => DueDecision,
): Promise<{ readonly made: number; readonly more: boolean }> {
  return inTransaction(db, async (trx) => {
    const rows = await trx
      .selectFrom('syncline.job_definition')
      .selectAll()
      .select([NOW_MS.as('now_ms'), ms('considered_at').as('considered_ms'), ms('next_due').as('due_ms')])
      .where('enabled', '=', true)
      .where('next_due', '<=', sql<string>`clock_timestamp()`)
      .orderBy('next_due')
      .limit(DUE_MAX)
      .forUpdate()
      .skipLocked()
      .execute()
    let made = 0
    for (const row of rows) {
      const job = { ...toJob(row), consideredMs: row.considered_ms, dueMs: row.due_ms }
      const decision = decide(job, await standingOf(trx, job.id, false), row.now_ms)
      for (const run of decision.runs) if ((await insertRun(trx, job, run)) !== null) made += 1
      await noteSkipped(trx, job, decision.skipped)
      if (decision.coalesced > 0) await coalesce(trx, job.id, false, decision.coalesced)
      await trx
        .updateTable('syncline.job_definition')
        .set({
          considered_at: atMs(row.now_ms),
          next_due: decision.nextDueMs === null ? null : atMs(decision.nextDueMs),
        })
        .where('id', '=', job.id)
        .execute()
    }
    return { made, more: rows.length === DUE_MAX }
  })
}

export type Requested = { readonly runId: string; readonly does: 'begin' | 'coalesce' }

/**
 * A run because somebody or something asks. It is made, or the run that waits to begin stands for it too. Errors: SYNC_REQUEST_NOT_FOUND.
 */
export async function requestRun(
  db: Kysely<Database>,
  name: string,
  request: {
    readonly dryRun: (job: JobEntry) => boolean
    /** Null when the job's rules leave it out. */
    readonly decide: (job: JobEntry, standing: JobStanding) => 'begin' | 'coalesce' | 'skip'
    readonly run: (job: JobEntry) => Omit<NewRun, 'dryRun'>
  },
): Promise<Requested | null> {
  return inTransaction(db, async (trx) => {
    const row = await trx
      .selectFrom('syncline.job_definition')
      .selectAll()
      .where('name', '=', name)
      .forUpdate()
      .executeTakeFirst()
    if (row === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no job "${name.slice(0, 80)}"`)
    const job = toJob(row)
    const dryRun = request.dryRun(job)
    const does = request.decide(job, await standingOf(trx, job.id, dryRun))
    if (does === 'skip') return null
    if (does === 'coalesce') {
      const runId = await coalesce(trx, job.id, dryRun, 1)
      if (runId !== null) return { runId, does }
    }
    const runId = await insertRun(trx, job, { ...request.run(job), dryRun })
    if (runId === null) throw new Error(`no run of job ${job.id} could be made`)
    return { runId, does: 'begin' }
  })
}

/** Jobs that an event sets off. */
export async function jobsOnEvents(db: Kysely<Database>, events: readonly string[]): Promise<readonly string[]> {
  const rows = await db
    .selectFrom('syncline.job_definition')
    .select('name')
    .where('enabled', '=', true)
    .where(sql<boolean>`events && ${[...events]}::text[]`)
    .orderBy('name')
    .execute()
  return rows.map(({ name }) => name)
}

export type JobPulse = {
  /** A job is due. */
  readonly due: boolean
  /** A run could be taken: its time has come, or its process is gone. Whether limits let it go on is another question. */
  readonly runnable: boolean
  /** Milliseconds until the next of both, by the clock of the database; null when nothing is planned. */
  readonly nextMs: number | null
}

/** One cheap look at whether there is anything to do. */
export async function jobPulse(db: Kysely<Database>): Promise<JobPulse> {
  const { rows } = await sql<JobPulse>`
    with clock as (select clock_timestamp() as now),
    due as (select min(next_due) as at from syncline.job_definition where enabled and next_due is not null),
    run as (
      select coalesce(bool_or(case when worker is null then next_at <= now else alive_until < now end), false) as runnable,
             min(next_at) filter (where worker is null and next_at > now) as at
        from syncline.job_run, clock where phase <> 'over')
    select coalesce(due.at <= now, false) as "due", run.runnable,
           (extract(epoch from least(case when due.at > now then due.at end, run.at) - now) * 1000)::float8 as "nextMs"
      from clock, due, run`.execute(db)
  return rows[0] ?? { due: false, runnable: false, nextMs: null }
}

async function standingOf(trx: Transaction<Database>, jobId: number, dryRun: boolean): Promise<JobStanding> {
  const { rows } = await sql<{ begun: number; queued: number }>`
    select count(*) filter (where phase = 'running')::int as begun,
           count(*) filter (where phase <> 'running' and dry_run = ${dryRun} and stop_asked_at is null)::int as queued
      from syncline.job_run where job_id = ${jobId} and phase <> 'over'`.execute(trx)
  return rows[0] ?? { begun: 0, queued: 0 }
}

/** Null when there is a run for that due time. */
async function insertRun(trx: Transaction<Database>, job: JobEntry, run: NewRun): Promise<string | null> {
  const row = await trx
    .insertInto('syncline.job_run')
    .values({
      job_id: job.id,
      job_name: job.name,
      cause: run.cause,
      caller: run.caller ?? null,
      due_at: run.dueMs === undefined ? null : atMs(run.dueMs),
      next_at: run.notBeforeMs === undefined ? sql<string>`clock_timestamp()` : atMs(run.notBeforeMs),
      definition: JSON.stringify(run.definition),
      dry_run: run.dryRun,
      priority: run.priority,
      peers: [...run.peers],
      ...NOTHING_YET,
    })
    .onConflict((conflict) => conflict.columns(['job_id', 'due_at']).where('due_at', 'is not', null).doNothing())
    .returning('id')
    .executeTakeFirst()
  return row?.id ?? null
}

const NOTHING_YET = {
  reason: null,
  worker: null,
  host: null,
  pid: null,
  stop_asked_by: null,
  result: null,
  code: null,
  message: null,
}

async function noteSkipped(trx: Transaction<Database>, job: JobEntry, skipped: DueDecision['skipped']): Promise<void> {
  if (skipped.length === 0) return
  await trx
    .insertInto('syncline.job_run')
    .values(
      skipped.map(({ dueMs, reason, definition }) => ({
        job_id: job.id,
        job_name: job.name,
        cause: 'schedule',
        caller: null,
        due_at: atMs(dueMs),
        definition: JSON.stringify(definition),
        ...NOTHING_YET,
        phase: 'over' as const,
        result: 'skipped' as const,
        message: reason,
        finished_at: sql<string>`clock_timestamp()`,
      })),
    )
    .onConflict((conflict) => conflict.columns(['job_id', 'due_at']).where('due_at', 'is not', null).doNothing())
    .execute()
}

/** The run that waits to begin stands for more than itself. Null when it has begun in the meantime. */
async function coalesce(
  trx: Transaction<Database>,
  jobId: number,
  dryRun: boolean,
  count: number,
): Promise<string | null> {
  const { rows } = await sql<{ id: string }>`
    update syncline.job_run set coalesced = coalesced + ${count}, changed_at = clock_timestamp()
     where id = (select id from syncline.job_run
                  where job_id = ${jobId} and phase in ('queued', 'waiting') and dry_run = ${dryRun} and stop_asked_at is null
                  order by id limit 1 for update)
    returning id`.execute(trx)
  return rows[0]?.id ?? null
}
