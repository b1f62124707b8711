import { spell } from './spell.ts'
import type { StallFinding, StallThresholds } from './stall.ts'

/** What the stall detector knows of a job. Times are milliseconds since 1970; null is never, or unknown. */
export type JobState = {
  readonly job: string
  /** The longest pause between two of its next due times; null for one that no clock sets off. */
  readonly intervalMs: number | null
  /** A due time that no process has taken up; null when there is none. */
  readonly dueAt: number | null
  /** When its definition last changed, or when this was first looked for. */
  readonly changedAt: number
  readonly succeededAt: number | null
  /** Runs that failed since its last success, and the last of them. */
  readonly failures: number
  readonly failed: { readonly runId: string; readonly message: string } | null
  /** Runs that wait for a person; null for a job that has nobody wait. */
  readonly dead: number | null
  /** Of its runs that do not begin the one that has waited longest. */
  readonly waiting: { readonly runId: string; readonly since: number; readonly reason: string | null } | null
  /** Of its runs that are under way the one that began first. */
  readonly running: { readonly runId: string; readonly since: number } | null
}

const MINUTE = 60_000
/** So many times a threshold is critical. */
const WORSE = 4

/** What is the matter with a job: it fails, nothing sets it off or it does not succeed, or a run does not begin. One cause is told once. */
export function jobVerdicts(state: JobState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const waiting = waitingVerdict(state, at, limits)
  const failed = failedVerdict(state, limits)
  const overdue = failed.length + waiting.length > 0 ? [] : overdueVerdict(state, at, limits)
  return [...failed, ...untakenVerdict(state, at, limits), ...waiting, ...overdue]
}

function failedVerdict(state: JobState, limits: StallThresholds): readonly StallFinding[] {
  const { job, failures, failed, dead } = state
  const often = failures >= limits.failures
  if (failed === null || !(dead === null ? often : dead > 0)) return []
  const { runId, message } = failed
  const runs = failures > 1 ? `the last ${failures} runs of job ${job} have` : `the last run of job ${job} has`
  return [
    {
      ...verdict('job-failed', often && dead !== null ? 'critical' : 'warning', job),
      text: `${runs} failed: ${message}`,
      mend: `\`syncline job show ${job} --run ${runId}\` says more. Then \`syncline job run ${job}\`, or \`syncline job dismiss ${runId}\` when it was seen to.`,
    },
  ]
}

/** Nobody turns its due times into runs. */
function untakenVerdict({ job, dueAt }: JobState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const late = at - (dueAt ?? at)
  if (late <= limits.jobMinutes * MINUTE) return []
  return [
    {
      ...verdict('job-overdue', 'critical', job),
      text: `job ${job} was due ${spell(late)} ago, and no process of this site has taken that up`,
      mend: 'Let a process with the role `schedule` run: `syncline doctor` says what there is.',
    },
  ]
}

function overdueVerdict(state: JobState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const { job, intervalMs, changedAt, succeededAt, running } = state
  if (intervalMs === null) return []
  const interval = Math.max(intervalMs, MINUTE)
  const still = at - Math.max(succeededAt ?? 0, changedAt)
  if (still <= limits.intervals * interval) return []
  return [
    {
      ...verdict('job-overdue', still > WORSE * limits.intervals * interval ? 'critical' : 'warning', job),
      text: `no run of job ${job} has succeeded for ${spell(still)}; one is due every ${spell(interval)}${running === null ? '' : `, and run ${running.runId} has been under way for ${spell(at - running.since)}`}`,
      mend:
        running === null
          ? `\`syncline job show ${job}\` lists its runs, with those that were left out and why.`
          : `\`syncline job show ${job} --run ${running.runId}\` says what it does; \`syncline job stop ${job}\` ends it. A \`timeLimit\` does so by itself.`,
    },
  ]
}

function waitingVerdict({ job, waiting }: JobState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const age = at - (waiting?.since ?? at)
  if (waiting === null || age <= limits.jobMinutes * MINUTE) return []
  const { runId, reason } = waiting
  return [
    {
      ...verdict('job-waiting', age > WORSE * limits.jobMinutes * MINUTE ? 'critical' : 'warning', job),
      text: `run ${runId} of job ${job} has waited to begin for ${spell(age)}: ${reason ?? 'no process has taken it up'}`,
      mend: `Free what it waits for (\`syncline job list\`, \`syncline lease list\`), or give the run up: \`syncline job stop ${job} --run ${runId}\`.`,
    },
  ]
}

function verdict(code: StallFinding['code'], level: StallFinding['level'], job: string) {
  return { code, level, peer: '', resource: job }
}
