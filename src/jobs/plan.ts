import type { ErrorCode } from '../sync/index.ts'
import type { Guarded, Job, Retries, Step } from './definition.ts'

/**
 * What comes next, in a job and in a run of it: (state, event) → state and what is to be done. Nothing here knows a clock, chance, a process or a
 * database; src/jobs/executor.ts obeys.
 */

// --- a time comes, or somebody asks -------------------------------------------------------------------------------------------------------

/** What set off a run. Those of people and signals are never left out. */
export const CAUSES = ['schedule', 'event', 'hand', 'signal'] as const
export type Cause = (typeof CAUSES)[number]

/** Runs of a job that are not over: begun, and not yet begun. */
export type Standing = { readonly begun: number; readonly queued: number }

export type Arrival =
  /** A run of its own. */
  | { readonly does: 'begin' }
  /** The run that waits to begin, or the one that is made for this, stands for this one too. */
  | { readonly does: 'coalesce' }
  | { readonly does: 'skip'; readonly reason: string }

/** What becomes of one more reason to run. */
export function decideArrival(job: Pick<Job, 'overlap' | 'limits'>, cause: Cause, standing: Standing): Arrival {
  if (standing.begun + standing.queued === 0) return { does: 'begin' }
  if (job.overlap === 'parallel' && standing.begun + standing.queued < job.limits.job) return { does: 'begin' }
  if (job.overlap === 'skip' && cause === 'schedule')
    return { does: 'skip', reason: 'a run was under way, and the job leaves out what overlaps' }
  // What has begun may have looked at its sources already: one run after it sees all that is there now.
  return standing.queued === 0 ? { does: 'begin' } : { does: 'coalesce' }
}

/** A time that passed so long ago was not kept by a slow process: nothing ran here. */
export const MISSED_AFTER_MS = 60_000

/** Which of the times that came (oldest first, none of them handled) get a run, and which are only noted. */
export function decideMissed(
  rule: Job['missed'],
  dues: readonly number[],
  nowMs: number,
): { readonly run: readonly number[]; readonly skipped: readonly number[] } {
  const missed = dues.filter((at) => at < nowMs - MISSED_AFTER_MS)
  const fresh = dues.filter((at) => at >= nowMs - MISSED_AFTER_MS)
  if (rule === 'all') return { run: dues, skipped: [] }
  if (rule === 'skip') return { run: fresh, skipped: missed }
  // One for all of them; a time that comes just now is that one.
  const run = fresh.length > 0 ? fresh : missed.slice(-1)
  return { run, skipped: dues.filter((at) => !run.includes(at)) }
}

// --- waiting to begin ---------------------------------------------------------------------------------------------------------------------

/** Something that is not free, and why. */
export type Blocked = { readonly by: Guarded; readonly reason: string }

export type WaitDecision =
  | { readonly does: 'begin' }
  | { readonly does: 'wait'; readonly untilMs: number; readonly reason: string }
  | { readonly does: 'skip' | 'fail'; readonly reason: string }

/** What a run does that was looked at: everything is held and free, or something blocks it. `sinceMs` is when it began to wait. */
export function decideWait(blocked: Blocked | null, sinceMs: number, nowMs: number): WaitDecision {
  if (blocked === null) return { does: 'begin' }
  const { by, reason } = blocked
  const deadline = by.limitSeconds === null ? Number.POSITIVE_INFINITY : sinceMs + by.limitSeconds * 1000
  if (nowMs >= deadline)
    return { does: by.onTimeout, reason: `${by.label} was not free within ${by.limitSeconds} s: ${reason}` }
  return { does: 'wait', untilMs: Math.min(nowMs + by.everySeconds * 1000, deadline), reason }
}

// --- steps --------------------------------------------------------------------------------------------------------------------------------

export type Stage = 'steps' | 'always'
export type Failure = { readonly step: string; readonly code: ErrorCode; readonly message: string }
/** Why no further step is begun, though none failed. */
export type Ending = { readonly why: 'stopped' | 'time' | 'lease'; readonly message: string }

/** How far a run is. Kept in the database between any two events: another process can go on from it. */
export type RunState = {
  readonly stage: Stage | 'over'
  /** Place in its stage of the step that is done or about to be done. */
  readonly at: number
  /** 1 for its first try. */
  readonly attempt: number
  /** It has been begun: what is cut off now was in the middle of it. Set by whoever begins it. */
  readonly started: boolean
  /** How often the process under this step was lost. */
  readonly losses: number
  /** The first failure that counts. */
  readonly failure: Failure | null
  readonly warned: boolean
  readonly ending: Ending | null
}

export type RunEvent =
  | { readonly event: 'begun' }
  | {
      readonly event: 'stepEnded'
      readonly result: 'success' | 'warning' | 'error'
      readonly message: string
      readonly code?: ErrorCode | undefined
      readonly again?: boolean | undefined
      /** From 0 to 1. */
      readonly random: number
    }
  /** Its process died, or gave it back to end itself. `asked`: the process meant to, so it says nothing of the step. */
  | { readonly event: 'cutOff'; readonly asked: boolean }
  /** No further step: what runs is ended by its signal and reports by `stepEnded`. */
  | { readonly event: 'end'; readonly ending: Ending }

export type RunAction =
  | {
      readonly does: 'step'
      readonly stage: Stage
      readonly at: number
      readonly attempt: number
      readonly delayMs: number
    }
  | { readonly does: 'abort' }
  | {
      readonly does: 'finish'
      readonly result: RunEnd['result']
      readonly code: ErrorCode | null
      readonly message: string
    }

export type RunEnd = { readonly result: 'success' | 'warning' | 'error' | 'stopped' }
type Next = { readonly state: RunState; readonly action: RunAction }

/** A step that loses its process so often is the reason. */
const LOSSES_MAX = 3

export const FRESH: RunState = {
  stage: 'steps',
  at: 0,
  attempt: 1,
  started: false,
  losses: 0,
  failure: null,
  warned: false,
  ending: null,
}

/** The next thing that a run does. Total: every state takes every event. */
export function nextOf(job: Pick<Job, 'steps' | 'always'>, state: RunState, event: RunEvent): Next {
  if (state.stage === 'over') return { state, action: finish(state) }
  switch (event.event) {
    case 'begun':
      return go(job, state, 0)
    case 'end':
      return endNow(job, state, event.ending)
    case 'cutOff':
      return cutOff(job, state, event.asked)
    case 'stepEnded':
      return stepEnded(job, state, event)
  }
}

/** The step that a state is at; undefined where there is none any more. */
export function stepOf(job: Pick<Job, 'steps' | 'always'>, state: RunState): Step | undefined {
  return state.stage === 'over' ? undefined : job[state.stage][state.at]
}

/** To the step that the state is at, or past the end of its stage. */
function go(job: Pick<Job, 'steps' | 'always'>, state: RunState, delayMs: number): Next {
  const { stage, at, attempt } = state
  if (stage === 'over') return { state, action: finish(state) }
  if (at < job[stage].length)
    return { state: { ...state, started: false }, action: { does: 'step', stage, at, attempt, delayMs } }
  return stage === 'steps' ? go(job, enter(state, 'always'), 0) : go(job, enter(state, 'over'), 0)
}

function enter(state: RunState, stage: RunState['stage'], at = 0): RunState {
  return { ...state, stage, at, attempt: 1, started: false, losses: 0 }
}

function endNow(job: Pick<Job, 'steps' | 'always'>, state: RunState, ending: Ending): Next {
  // Asked twice, or while `always` is done: that ends too. The first reason stays.
  if (state.ending !== null || state.stage === 'always')
    return { state: { ...state, ending: state.ending ?? ending }, action: { does: 'abort' } }
  return stepOf(job, state) === undefined
    ? go(job, enter({ ...state, ending }, 'always'), 0)
    : { state: { ...state, ending }, action: { does: 'abort' } }
}

function stepEnded(
  job: Pick<Job, 'steps' | 'always'>,
  state: RunState,
  end: Extract<RunEvent, { readonly event: 'stepEnded' }>,
): Next {
  const step = stepOf(job, state)
  if (step === undefined) return go(job, state, 0)
  const warned = state.warned || end.result === 'warning'
  if (end.result !== 'error') return forward(job, { ...state, warned })
  // A step that was ended from outside did not fail by itself.
  if (state.ending !== null && state.stage === 'steps') return forward(job, state)
  const { retries, name } = step
  if (end.again !== false && state.attempt <= retries.limit) {
    const delayMs = pauseMs(retries, state.attempt, end.random)
    return go(job, { ...state, attempt: state.attempt + 1 }, delayMs)
  }
  return failed(job, state, { step: name, code: end.code ?? 'SYNC_JOB_FAILED', message: end.message })
}

function cutOff(job: Pick<Job, 'steps' | 'always'>, state: RunState, asked: boolean): Next {
  const step = stepOf(job, state)
  if (step === undefined) return go(job, state, 0)
  if (state.ending !== null && state.stage === 'steps') return forward(job, state)
  if (!state.started) return go(job, state, 0)
  const losses = state.losses + (asked ? 0 : 1)
  const mayRepeat = step.repeatable || state.attempt <= step.retries.limit
  if (mayRepeat && losses <= LOSSES_MAX) return go(job, { ...state, attempt: state.attempt + 1, losses }, 0)
  const why = mayRepeat
    ? `the process that performed it was lost ${losses} times`
    : 'it was cut off in the middle, and it is not known whether it may be begun again'
  return failed(job, state, { step: step.name, code: 'SYNC_JOB_INTERRUPTED', message: why })
}

function failed(job: Pick<Job, 'steps' | 'always'>, state: RunState, failure: Failure): Next {
  const rule = stepOf(job, state)?.onFailure ?? 'stop'
  if (rule === 'warn') return forward(job, { ...state, warned: true })
  const after = { ...state, failure: state.failure ?? failure }
  // Every step of `always` is tried, whatever became of the others.
  return rule === 'continue' || state.stage === 'always' ? forward(job, after) : go(job, enter(after, 'always'), 0)
}

/** Past the step that has ended. */
function forward(job: Pick<Job, 'steps' | 'always'>, state: RunState): Next {
  if (state.ending !== null && state.stage === 'steps') return go(job, enter(state, 'always'), 0)
  if (state.stage === 'over') return go(job, state, 0)
  return go(job, enter(state, state.stage, state.at + 1), 0)
}

function finish({ failure, warned, ending }: RunState): RunAction {
  if (failure !== null)
    return { does: 'finish', result: 'error', code: failure.code, message: `step ${failure.step}: ${failure.message}` }
  if (ending?.why === 'stopped')
    return { does: 'finish', result: 'stopped', code: 'SYNC_JOB_STOPPED', message: ending.message }
  if (ending !== null) {
    const code = ending.why === 'time' ? 'SYNC_JOB_TIME_LIMIT' : 'SYNC_JOB_LEASE_LOST'
    return { does: 'finish', result: 'error', code, message: ending.message }
  }
  return { does: 'finish', result: warned ? 'warning' : 'success', code: null, message: '' }
}

/** Grows with each attempt, and up to a quarter of it is left to chance, so that those who failed together do not come back together. */
export function pauseMs(retries: Retries, attempt: number, random: number): number {
  const { delaySeconds, factor, maxSeconds } = retries
  const seconds = Math.min(maxSeconds, delaySeconds * factor ** Math.min(attempt - 1, 50))
  return Math.round(seconds * 1000 * (1 - random / 4))
}

// --- limits -------------------------------------------------------------------------------------------------------------------------------

/** A run that is under way, or wants to be. */
export type Contender = { readonly job: string; readonly peers: readonly string[] }

/** Null when a run may begin beside those that are under way; else why it has to wait. */
export function limitReached(
  run: Contender & { readonly limits: Job['limits'] },
  running: readonly Contender[],
  siteMax: number,
): string | null {
  const { limits, job, peers } = run
  const site = Math.min(limits.site ?? siteMax, siteMax)
  if (running.length >= site) return `${running.length} runs are under way here; the limit is ${site}`
  const own = running.filter((other) => other.job === job).length
  if (own >= limits.job)
    return `${own === 1 ? 'a run' : `${own} runs`} of this job ${own === 1 ? 'is' : 'are'} under way`
  for (const peer of limits.peer === null ? [] : peers) {
    const there = running.filter((other) => other.peers.includes(peer)).length
    if (there >= (limits.peer ?? 0)) return `${there} runs with peer ${peer} are under way; the limit is ${limits.peer}`
  }
  return null
}
