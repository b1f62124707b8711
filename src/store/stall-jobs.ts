import { type Kysely, sql } from 'kysely'
import type { JobState } from '../sync/index.ts'
import { type JobEntry, toJob } from './jobs.ts'
import type { Database } from './schema.ts'

/** Runs looked back at for how many have failed in a row. */
const LOOKED_AT_MAX = 100

/**
 * What this site knows of its jobs. `intervalOf` gives the longest pause between two of the next due times of a job; nothing before `floor`, when this
 * was first looked at, is anybody's fault.
 */
export async function jobStates(
  db: Kysely<Database>,
  { intervalOf, floor }: { readonly intervalOf: (job: JobEntry) => number | null; readonly floor: number },
): Promise<readonly JobState[]> {
  const jobs = await db.selectFrom('syncline.job_definition').selectAll().orderBy('name').execute()
  const waiting = new Map((await waitingRuns(db)).map(({ job, ...run }) => [job, run]))
  const failing = new Map((await failedRuns(db)).map((each) => [each.job, each]))
  return jobs.map((row): JobState => {
    const entry = toJob(row)
    const { enabled, nextDue, changedAt, lastSuccessAt, definition } = entry
    const { failures = 0, dead = 0, runId = '', message = '' } = failing.get(row.id) ?? {}
    const waits = (definition as { readonly deadLetter?: unknown }).deadLetter !== false
    return {
      job: entry.name,
      intervalMs: enabled ? intervalOf(entry) : null,
      dueAt: enabled ? millis(nextDue) : null,
      changedAt: Math.max(millis(changedAt) ?? 0, floor),
      succeededAt: millis(lastSuccessAt),
      failures,
      failed: failures === 0 ? null : { runId, message },
      dead: waits ? dead : null,
      waiting: waiting.get(row.id) ?? null,
    }
  })
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
