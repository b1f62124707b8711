import { type Kysely, sql } from 'kysely'
import type { JobState } from '../sync/index.ts'
import { allJobs } from './jobs.ts'
import type { Database } from './schema.ts'

/** Runs looked back at for how many have failed in a row. */
const LOOKED_AT_MAX = 100

/** Due times looked back at for the pause between two of them. */
const DUES_MAX = 10

/** What this site knows of its jobs; nothing before `floor`, when this was first looked at, is anybody's fault. */
export async function jobStates(db: Kysely<Database>, floor: number): Promise<readonly JobState[]> {
  const jobs = await allJobs(db)
  const waiting = new Map((await waitingRuns(db)).map(({ job, ...run }) => [job, run]))
  const running = new Map((await runningRuns(db)).map(({ job, ...run }) => [job, run]))
  const failing = new Map((await failedRuns(db)).map((each) => [each.job, each]))
  const intervals = new Map((await dueIntervals(db)).map(({ job, ms }) => [job, ms]))
  return jobs.map(({ id, name, enabled, nextDue, changedAt, lastSuccessAt, definition }): JobState => {
    const { failures = 0, dead = 0, runId = '', message = '' } = failing.get(id) ?? {}
    const waits = (definition as { readonly deadLetter?: unknown }).deadLetter !== false
    return {
      job: name,
      intervalMs: intervals.get(id) ?? null,
      dueAt: enabled ? millis(nextDue) : null,
      changedAt: Math.max(millis(changedAt) ?? 0, floor),
      succeededAt: millis(lastSuccessAt),
      failures,
      failed: failures === 0 ? null : { runId, message },
      dead: waits ? dead : null,
      waiting: waiting.get(id) ?? null,
      running: running.get(id) ?? null,
    }
  })
}

/** Of each job that a clock sets off the longest pause between its last due times and the next one: from Friday to Monday nothing is late. */
async function dueIntervals(db: Kysely<Database>): Promise<readonly { readonly job: number; readonly ms: number }[]> {
  const { rows } = await sql<{ job: number; ms: number }>`
    select d.id as job, (extract(epoch from coalesce(g.longest, d.next_due - d.changed_at)) * 1000)::float8 as ms
      from syncline.job_definition d left join lateral (
        select max(gap) as longest from (
          select at - lag(at) over (order by at) as gap from (
            select d.next_due as at union all
            (select due_at from syncline.job_run where job_id = d.id and due_at >= d.changed_at order by due_at desc limit ${DUES_MAX})) dues) gaps) g on true
     where d.enabled and d.next_due is not null`.execute(db)
  return rows
}

type Waiting = { readonly job: number } & NonNullable<JobState['waiting']>

/** Of each job the run that has waited longest to begin. */
async function waitingRuns(db: Kysely<Database>): Promise<readonly Waiting[]> {
  const { rows } = await sql<Waiting>`
    select distinct on (job_id) job_id as job, id as "runId", reason, (extract(epoch from coalesce(waiting_since, next_at)) * 1000)::float8 as since
      from syncline.job_run where phase in ('queued', 'waiting') and job_id is not null
     order by job_id, coalesce(waiting_since, next_at)`.execute(db)
  return rows
}

/** Of each job the run that has been under way for the longest time. */
async function runningRuns(
  db: Kysely<Database>,
): Promise<readonly ({ readonly job: number } & NonNullable<JobState['running']>)[]> {
  const { rows } = await sql<{ job: number; runId: string; since: number }>`
    select distinct on (job_id) job_id as job, id as "runId", (extract(epoch from coalesce(started_at, queued_at)) * 1000)::float8 as since
      from syncline.job_run where phase = 'running' and job_id is not null order by job_id, coalesce(started_at, queued_at)`.execute(
    db,
  )
  return rows
}

type Failing = {
  readonly job: number
  readonly failures: number
  readonly dead: number
  readonly runId: string
  readonly message: string
}

/** Jobs whose last run failed: how many did in a row, how many of them wait for a person, and what the last one said. */
async function failedRuns(db: Kysely<Database>): Promise<readonly Failing[]> {
  const { rows } = await sql<Failing>`
    select d.id as job, r.* from syncline.job_definition d cross join lateral (
      select count(*)::int as failures, (count(*) filter (where dead))::int as dead, (array_agg(id order by id desc))[1] as "runId",
             coalesce((array_agg(message order by id desc))[1], '') as message
        from (select id, dead, result, message, dry_run, finished_at from syncline.job_run where job_id = d.id and phase = 'over' order by id desc limit ${LOOKED_AT_MAX}) l
       where result = 'error' and not dry_run and (d.last_success_at is null or finished_at > d.last_success_at)) r
     where d.last_result = 'error' and r.failures > 0`.execute(db)
  return rows
}

function millis(time: string | null): number | null {
  return time === null ? null : Date.parse(time)
}
