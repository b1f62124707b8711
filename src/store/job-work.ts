import { type Kysely, sql } from 'kysely'
import type { Json } from '../sync/index.ts'
import { type LeaseBlock, type LeaseHolder, type LeaseWish, takeLeases } from './job-leases.ts'
import { storable } from './job-steps.ts'
import { inTransaction } from './registry/index.ts'
import type { Database } from './schema.ts'
import type { JobResult } from './schema-jobs.ts'

/** What the process that performs a run does to it. Everything is written only while the run is this process's: one that was away too long finds that out. */

export type Worker = { readonly id: string; readonly host: string; readonly pid: number }

/** A run that a process has taken. */
export type TakenRun = {
  readonly id: string
  readonly job: string
  readonly jobId: number | null
  readonly definition: Json
  readonly state: Json | null
  /** It had begun: `lost` when its process died, `handedBack` when it gave the run back to end itself, `fresh` when it had not begun. */
  readonly standing: 'fresh' | 'lost' | 'handedBack'
  readonly cause: string
  readonly caller: string | null
  readonly dueAt: string | null
  readonly dryRun: boolean
  readonly token: string
  readonly waitingSinceMs: number | null
  readonly startedMs: number | null
  readonly queuedMs: number
  readonly nowMs: number
  readonly stopAskedBy: string | null
}

/** A run as far as limits are concerned. `limits` is that of its definition. */
export type Candidate = {
  readonly id: string
  readonly job: string
  readonly peers: readonly string[]
  readonly definition: Json
}

const LOOKED_AT_MAX = 200
const ms = (column: string) => sql<number>`(extract(epoch from ${sql.ref(column)}) * 1000)::float8`

/**
 * Takes runs that may go on now: first those that lost their process, then those to come by priority, as far as `admit` lets them beside those that
 * are under way. What is not admitted keeps its reason.
 */
export async function takeRuns(
  db: Kysely<Database>,
  worker: Worker,
  options: {
    readonly free: number
    readonly aliveSeconds: number
    readonly admit: (run: Candidate, running: readonly Candidate[]) => string | null
  },
): Promise<readonly TakenRun[]> {
  return inTransaction(db, async (trx) => {
    await sql`select pg_advisory_xact_lock(hashtextextended('syncline.job_run', 0))`.execute(trx)
    const open = await trx
      .selectFrom('syncline.job_run')
      .select(['id', 'job_name as job', 'peers', 'definition', 'phase', 'worker', 'reason'])
      .select(sql<boolean>`worker is not null and alive_until < clock_timestamp()`.as('lost'))
      .where('phase', '<>', 'over')
      .where((eb) => eb.or([eb('worker', 'is not', null), eb('next_at', '<=', sql<string>`clock_timestamp()`)]))
      .orderBy(sql`phase = 'running'`, 'desc')
      .orderBy('priority', 'desc')
      .orderBy('id')
      .limit(LOOKED_AT_MAX)
      .execute()
    const running: Candidate[] = open.filter(({ phase, worker }) => phase === 'running' || worker !== null)
    const chosen: string[] = []
    for (const run of open) {
      if (chosen.length >= options.free) break
      // One that has begun counts already.
      const adopted = run.lost || (run.phase === 'running' && run.worker === null)
      if (!adopted && run.worker !== null) continue
      const reason = adopted ? null : options.admit(run, running)
      if (reason === null) {
        chosen.push(run.id)
        if (!adopted) running.push(run)
      } else if (reason !== run.reason)
        await trx
          .updateTable('syncline.job_run')
          .set({ reason, changed_at: sql<string>`clock_timestamp()` })
          .where('id', '=', run.id)
          .execute()
    }
    if (chosen.length === 0) return []
    const standing = new Map(open.map((run) => [run.id, standingOf(run)]))
    const rows = await trx
      .updateTable('syncline.job_run')
      .set({
        worker: worker.id,
        host: worker.host,
        pid: worker.pid,
        alive_until: aliveUntil(options.aliveSeconds),
        changed_at: sql<string>`clock_timestamp()`,
      })
      .where('id', 'in', chosen)
      .returningAll()
      .returning([
        ms('waiting_since').as('waiting_ms'),
        ms('started_at').as('started_ms'),
        ms('queued_at').as('queued_ms'),
      ])
      .returning(sql<number>`(extract(epoch from clock_timestamp()) * 1000)::float8`.as('now_ms'))
      .execute()
    const order = (id: string) => chosen.indexOf(id)
    return rows
      .map(
        (row): TakenRun => ({
          id: row.id,
          job: row.job_name,
          jobId: row.job_id,
          definition: row.definition,
          state: row.state,
          standing: standing.get(row.id) ?? 'fresh',
          cause: row.cause,
          caller: row.caller,
          dueAt: row.due_at,
          dryRun: row.dry_run,
          token: row.token,
          waitingSinceMs: row.waiting_ms,
          startedMs: row.started_ms,
          queuedMs: row.queued_ms,
          nowMs: row.now_ms,
          stopAskedBy: row.stop_asked_at === null ? null : (row.stop_asked_by ?? 'somebody'),
        }),
      )
      .sort((a, b) => order(a.id) - order(b.id))
  })
}

function standingOf(run: { readonly phase: string; readonly worker: string | null }): TakenRun['standing'] {
  if (run.phase !== 'running') return 'fresh'
  return run.worker === null ? 'handedBack' : 'lost'
}

/** Takes what the run holds and lets it begin, or says what is in the way; one commit. `lost` when the run is no longer this worker's. */
export async function beginJobRun(
  db: Kysely<Database>,
  run: { readonly id: string; readonly worker: string; readonly state: Json },
  wish: LeaseWish,
  holder: LeaseHolder,
): Promise<'begun' | 'lost' | LeaseBlock> {
  return inTransaction(db, async (trx) => {
    const block = await takeLeases(trx, wish, holder)
    if (block !== null) return block
    const began = await saveJobRun(trx, run, {
      phase: 'running',
      state: run.state,
      reason: null,
      started: true,
    })
    if (!began) throw new LostRun()
    return 'begun' as const
  }).catch((error: unknown) => {
    if (error instanceof LostRun) return 'lost' as const
    throw error
  })
}

class LostRun extends Error {}

export type RunChange = {
  readonly phase?: 'waiting' | 'running' | undefined
  readonly state?: Json | undefined
  readonly reason?: string | null | undefined
  readonly progress?: Json | null | undefined
  readonly started?: boolean | undefined
  /** Lets go of it until then. */
  readonly waitMs?: number | undefined
  readonly handBack?: boolean | undefined
}

/** False when the run is no longer this worker's. */
export async function saveJobRun(
  db: Kysely<Database>,
  { id, worker }: { readonly id: string; readonly worker: string },
  change: RunChange,
): Promise<boolean> {
  const now = sql<string>`clock_timestamp()`
  const { numUpdatedRows } = await db
    .updateTable('syncline.job_run')
    .set({ changed_at: now })
    .$if(change.phase !== undefined, (update) => update.set({ phase: change.phase ?? 'waiting' }))
    .$if(change.state !== undefined, (update) => update.set({ state: JSON.stringify(change.state) }))
    .$if(change.reason !== undefined, (update) => update.set({ reason: storable(change.reason ?? null) }))
    .$if(change.progress !== undefined, (update) =>
      update.set({ progress: change.progress == null ? null : JSON.stringify(change.progress) }),
    )
    .$if(change.started === true, (update) =>
      update.set({
        started_at: sql<string>`coalesce(started_at, clock_timestamp())`,
        blocked_ms: sql<string>`case when waiting_since is null then 0
          else (extract(epoch from clock_timestamp() - waiting_since) * 1000)::int8 end`,
      }),
    )
    .$if(change.waitMs !== undefined, (update) =>
      update.set({
        next_at: sql<string>`clock_timestamp() + make_interval(secs => ${(change.waitMs ?? 0) / 1000})`,
        waiting_since: sql<string>`coalesce(waiting_since, clock_timestamp())`,
        worker: null,
        alive_until: null,
      }),
    )
    .$if(change.handBack === true, (update) => update.set({ worker: null, alive_until: null }))
    .where('id', '=', id)
    .where('worker', '=', worker)
    .where('phase', '<>', 'over')
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** What a process hears of its runs when it says that it is alive. */
export type Alive = {
  readonly id: string
  readonly stop: { readonly by: string; readonly at: string } | null
  /** Of those in the database, the ones that the run still holds. */
  readonly leases: readonly string[]
}

/** Says that a process is alive, for the runs that it performs and their leases. A run that is missing in the answer is no longer its own. */
export async function keepRunsAlive(
  db: Kysely<Database>,
  worker: string,
  ids: readonly string[],
  seconds: { readonly alive: number; readonly lease: number },
): Promise<readonly Alive[]> {
  const { rows } = await sql<{ id: string; by: string | null; at: string | null; leases: string[] }>`
    with runs as (
      update syncline.job_run set alive_until = clock_timestamp() + make_interval(secs => ${seconds.alive})
       where worker = ${worker} and id = any(${[...ids]}::int8[]) and phase <> 'over'
      returning id, token, stop_asked_by as by, stop_asked_at::text as at),
    held as (
      update syncline.lease l
         set renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => ${seconds.lease})
        from runs where l.token = runs.token
      returning l.name, l.token)
    select runs.id, runs.by, runs.at, coalesce(array_agg(held.name) filter (where held.name is not null), '{}') as leases
      from runs left join held on held.token = runs.token group by runs.id, runs.by, runs.at`.execute(db)
  return rows.map(({ id, by, at, leases }) => ({
    id,
    stop: at === null ? null : { by: by ?? 'somebody', at },
    leases,
  }))
}

export type JobRunEnd = {
  readonly result: JobResult
  readonly code: string | null
  readonly message: string
  readonly counts: Readonly<Record<string, number>>
  readonly dead: boolean
}

/**
 * Ends a run, lets go of its leases in the database and does what `also` does, one commit. False when the run is no longer this worker's: then nothing
 * is done.
 */
export async function finishJobRun(
  db: Kysely<Database>,
  run: { readonly id: string; readonly worker: string; readonly jobId: number | null; readonly dryRun: boolean },
  end: JobRunEnd,
  also?: (trx: Kysely<Database>) => Promise<void>,
): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    const row = await trx
      .updateTable('syncline.job_run')
      .set({
        phase: 'over',
        result: end.result,
        code: end.code,
        message: storable(end.message),
        counts: JSON.stringify(end.counts),
        dead: end.dead,
        reason: null,
        progress: null,
        worker: null,
        alive_until: null,
        finished_at: sql<string>`clock_timestamp()`,
        changed_at: sql<string>`clock_timestamp()`,
      })
      .where('id', '=', run.id)
      .where('worker', '=', run.worker)
      .where('phase', '<>', 'over')
      .returning('token')
      .executeTakeFirst()
    if (row === undefined) return false
    await trx.deleteFrom('syncline.lease').where('token', '=', row.token).execute()
    await trx
      .updateTable('syncline.job_step')
      .set({ finished_at: sql<string>`clock_timestamp()`, result: 'error', message: 'cut off' })
      .where('run_id', '=', run.id)
      .where('finished_at', 'is', null)
      .execute()
    await also?.(trx)
    if (run.jobId === null || run.dryRun || end.result === 'skipped') return true
    const good = end.result === 'success' || end.result === 'warning'
    await trx
      .updateTable('syncline.job_definition')
      .set({ last_result: end.result, last_finished_at: sql<string>`clock_timestamp()` })
      .$if(good, (update) => update.set({ last_success_at: sql<string>`clock_timestamp()` }))
      .where('id', '=', run.jobId)
      .execute()
    // What a later run has made good needs nobody any more.
    if (good)
      await trx
        .updateTable('syncline.job_run')
        .set({ dead: false })
        .where('job_id', '=', run.jobId)
        .where('dead', '=', true)
        .where('id', '<', run.id)
        .execute()
    return true
  })
}

/** Runs of which only this process can know that nobody has them: on the embedded database, whose folder belongs to one process. */
export async function forgetWorkers(db: Kysely<Database>): Promise<void> {
  await db
    .updateTable('syncline.job_run')
    .set({ alive_until: sql<string>`clock_timestamp() - interval '1 second'` })
    .where('phase', '<>', 'over')
    .where('worker', 'is not', null)
    .execute()
}

function aliveUntil(seconds: number) {
  return sql<string>`clock_timestamp() + make_interval(secs => ${seconds})`
}
