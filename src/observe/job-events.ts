import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Log } from './log.ts'

/**
 * What happens to jobs: lines and metrics. Beside our own names stand those of RsyncDirector, so that dashboards and alarms made for it go on; its labels
 * are `rsync_id` (the name of this site), `job_id` (the job) and `action_id` (the step).
 */
export type JobMeters = ReturnType<typeof createJobMeters>

/** Its own buckets. */
const SECONDS = [
  0.01, 0.1, 0.5, 1, 10, 30, 60, 300, 600, 1800, 3600, 7200, 14_400, 28_800, 86_400, 172_800, 604_800, 1_209_600,
]

const OLD = 'rsyncdirector_'
const named = (name: string) => (name.startsWith(OLD) ? name : `syncline_${name}`)

export function createJobMeters(registry: Registry) {
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Counter<L>({ name: named(name), help, labelNames: [...labelNames], registers })
  const gauge = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Gauge<L>({ name: named(name), help, labelNames: [...labelNames], registers })
  const histogram = <L extends string>(name: string, help: string, labelNames: readonly L[]) =>
    new Histogram<L>({ name: named(name), help, labelNames: [...labelNames], buckets: SECONDS, registers })
  return {
    runs: counter('job_runs_total', 'Runs of jobs that are over.', ['job', 'result']),
    seconds: histogram('job_run_seconds', 'Duration of runs of jobs.', ['job', 'result']),
    blocked: counter('job_blocked_total', 'Looks at which a gate or lease was not free.', ['job']),
    blockedSeconds: histogram('job_blocked_seconds', 'Time that runs waited for gates and leases.', ['job']),
    lateSeconds: histogram('job_late_seconds', 'From the due time, or the wish, to the begin.', ['job']),
    wishes: counter('job_wishes_total', 'Reasons to run, by what became of them.', ['job', 'cause', 'does']),
    steps: counter('job_steps_total', 'Tries of steps.', ['job', 'step', 'result']),
    stepSeconds: histogram('job_step_seconds', 'Duration of tries of steps.', ['job', 'step']),
    retries: counter('job_retries_total', 'Tries of steps after a failure.', ['job', 'step']),
    counts: counter('job_moved_total', 'What steps count: bytes, files, deleted.', ['job', 'step', 'what']),
    progress: gauge('job_progress', 'How far the step is that runs here: bytes, total, files, rate, secondsLeft.', [
      'job',
      'what',
    ]),
    adopted: counter('job_adopted_total', 'Runs taken over from another process.', ['job']),
    endedAt: gauge('job_ended_timestamp_seconds', 'When the last run with this result ended.', ['job', 'result']),
    queue: gauge('job_queue', 'Runs that are not over.', ['phase']),
    dead: gauge('job_dead', 'Runs that failed for good and wait for a person.', ['job']),
    succeededAt: gauge('job_succeeded_timestamp_seconds', 'When the job last succeeded, on any process.', ['job']),
    old: {
      runs: counter(`${OLD}runs_completed_total`, 'As syncline_job_runs_total, of all jobs.', ['rsync_id']),
      seconds: histogram(`${OLD}job_duration_seconds`, 'As syncline_job_run_seconds.', ['job_id']),
      skipped: counter(
        `${OLD}job_skipped_for_block_timeout_total`,
        'Runs left out because a gate was not free in time.',
        ['job_id'],
      ),
      process: counter(`${OLD}job_aborted_for_failed_process_err_total`, 'Steps whose process was lost.', [
        'job_id',
        'action_id',
      ]),
      action: counter(`${OLD}job_aborted_for_failed_action_err_total`, 'Steps that failed.', ['job_id', 'action_id']),
      exception: counter(`${OLD}job_aborted_for_exception_err_total`, 'Steps that could not be performed.', [
        'job_id',
        'action_id',
      ]),
      blocked: counter(`${OLD}blocked_total`, 'As syncline_job_blocked_total.', ['job_id']),
      blockedSeconds: histogram(`${OLD}blocked_seconds`, 'As syncline_job_blocked_seconds.', ['job_id']),
      lockFiles: gauge(`${OLD}lock_files`, 'Leases that this process holds.', ['job_id']),
    },
  }
}

/** What is so now, on all processes together. */
export type JobMeasurement = {
  readonly queue: readonly { readonly phase: string; readonly count: number }[]
  readonly dead: readonly { readonly job: string; readonly count: number }[]
  readonly succeeded: readonly { readonly job: string; readonly seconds: number }[]
}

/** Sets the measured gauges anew. */
export function recordJobs(meters: JobMeters, now: JobMeasurement | undefined): void {
  for (const measured of [meters.queue, meters.dead, meters.succeededAt]) measured.reset()
  for (const { phase, count } of now?.queue ?? []) meters.queue.set({ phase }, count)
  for (const { job, count } of now?.dead ?? []) meters.dead.set({ job }, count)
  for (const { job, seconds } of now?.succeeded ?? []) meters.succeededAt.set({ job }, seconds)
}

/** Of a long step a line of the log says so often how far it is. */
const PROGRESS_TOLD_MS = 30_000

type About = { readonly job: string; readonly runId: string }

export function createJobEvents(log: Log, meters: JobMeters, siteName: () => string) {
  const { old } = meters
  /** When the progress of a run was last told in a line. */
  const told = new Map<string, number>()
  return {
    jobQueued(event: { readonly job: string; readonly cause: string; readonly does: string }): void {
      meters.wishes.inc(event)
      log.debug({ event: 'job.queued', ...event })
    },

    /** A process goes on with what another one had, or gave back. */
    jobAdopted(event: About & { readonly standing: string }): void {
      meters.adopted.inc({ job: event.job })
      log.warn({ event: 'job.adopted', ...event })
    },

    jobBlocked(event: About & { readonly reason: string }): void {
      meters.blocked.inc({ job: event.job })
      old.blocked.inc({ job_id: event.job })
      log.debug({ event: 'job.blocked', ...event })
    },

    jobStarted(
      event: About & {
        readonly cause: string
        readonly resumed: boolean
        readonly leases: number
        readonly lateMs: number
      },
    ): void {
      if (!event.resumed) meters.lateSeconds.observe({ job: event.job }, event.lateMs / 1000)
      old.lockFiles.inc({ job_id: event.job }, event.leases)
      log.debug({ event: 'job.started', ...event })
    },

    jobStepEnded(
      event: About & {
        readonly step: string
        readonly kind: string
        readonly attempt: number
        readonly result: string
        readonly message: string
        readonly durationMs: number
        readonly threw: boolean
        readonly counts: Readonly<Record<string, number>>
        readonly code?: string
        readonly retryMs?: number
      },
    ): void {
      const { job, step, result, threw, counts, retryMs, code } = event
      meters.steps.inc({ job, step, result })
      meters.stepSeconds.observe({ job, step }, event.durationMs / 1000)
      if (retryMs !== undefined) meters.retries.inc({ job, step })
      for (const [what, value] of Object.entries(counts)) if (value > 0) meters.counts.inc({ job, step, what }, value)
      const labels = { job_id: job, action_id: step }
      if (result === 'error' && retryMs === undefined)
        (code === 'SYNC_JOB_INTERRUPTED' ? old.process : threw ? old.exception : old.action).inc(labels)
      const line = { event: 'job.step', ...event }
      if (result === 'success') log.debug(line)
      else log.warn(line)
    },

    /** The numbers every time, a line now and then. */
    jobProgressed(event: About & { readonly step: string; readonly progress: Readonly<Record<string, number>> }): void {
      const { job, runId, progress } = event
      for (const [what, value] of Object.entries(progress)) meters.progress.set({ job, what }, value)
      const now = performance.now()
      const toldAt = told.get(runId)
      if (toldAt === undefined || now - toldAt >= PROGRESS_TOLD_MS) {
        told.set(runId, now)
        if (toldAt !== undefined) log.info({ event: 'job.progress', ...event })
      }
    },

    jobFinished(
      event: About & {
        readonly result: string
        readonly dryRun: boolean
        readonly durationMs: number
        readonly blockedMs: number
        readonly leases: number
        readonly code?: string
        readonly message?: string
      },
    ): void {
      const { job, result, durationMs, blockedMs, leases, code, dryRun } = event
      old.lockFiles.dec({ job_id: job }, leases)
      forget(event)
      const line = { event: 'job.finished', ...event }
      if (!dryRun) count({ job, result, durationMs, blockedMs, code })
      if (result === 'error') log.error(line)
      else if (result === 'success') log.info(line)
      else log.warn(line)
    },

    jobGivenBack(event: About & { readonly reason: string; readonly leases: number }): void {
      old.lockFiles.dec({ job_id: event.job }, event.leases)
      forget(event)
      log.warn({ event: 'job.given-back', ...event })
    },
  }

  function forget({ job, runId }: About): void {
    told.delete(runId)
    for (const what of ['bytes', 'total', 'files', 'rate', 'secondsLeft']) meters.progress.remove({ job, what })
  }

  function count(end: {
    readonly job: string
    readonly result: string
    readonly durationMs: number
    readonly blockedMs: number
    readonly code: string | undefined
  }): void {
    const { job, result } = end
    meters.runs.inc({ job, result })
    meters.endedAt.setToCurrentTime({ job, result })
    if (end.blockedMs > 0) {
      meters.blockedSeconds.observe({ job }, end.blockedMs / 1000)
      old.blockedSeconds.observe({ job_id: job }, end.blockedMs / 1000)
    }
    if (result === 'skipped') {
      if (end.code === 'SYNC_JOB_BLOCKED') old.skipped.inc({ job_id: job })
      return
    }
    meters.seconds.observe({ job, result }, end.durationMs / 1000)
    old.runs.inc({ rsync_id: siteName() })
    old.seconds.observe({ job_id: job }, end.durationMs / 1000)
  }
}
