import { endedSteps, finishJobRun, type JobRunEnd, type Store, saveJobRun, type TakenRun } from '../store/index.ts'
import type { Json } from '../sync/index.ts'
import { Abandoned } from './abandoned.ts'
import type { Job } from './definition.ts'
import { type HoldingDeps, keepOutside, releaseOutside, tryBegin } from './holding.ts'
import type { JobEvents } from './job-events.ts'
import { after, longSleep } from './long-timer.ts'
import { persist } from './persist.ts'
import { decideWait, type Ending, FRESH, nextOf, type RunAction, type RunEvent, type RunState, stepOf } from './plan.ts'
import type { StepEnd, StepProgress } from './step.ts'
import { runStep, type StepOutcome, type StepRunDeps, type StepTry } from './step-run.ts'

export type ExecutorDeps = HoldingDeps &
  StepRunDeps & {
    readonly events: JobEvents
    /** Sets off the jobs that wait for this, in the transaction in which it becomes so. */
    readonly fire: (trx: Store['db'], happened: readonly string[]) => Promise<void>
  }

/** How others reach a run that this process performs. */
export type RunControl = {
  /** Aborted: no further step, and what runs ends. */
  readonly end: (ending: Ending) => void
  /** The site ends: the run is given back at the next safe point. */
  readonly handBack: () => void
  /** How many leases it must hold in the database. */
  readonly holding: () => number
  /** It is no longer this process's: nothing of it is written any more. */
  readonly abandon: (message: string) => void
}

type Live = {
  ending: Ending | null
  /** Nothing more is begun, not even what is always done. */
  cut: boolean
  closing: boolean
  abandoned: Error | null
  holding: number
  state: RunState
  /** Of the step that runs now. */
  step: AbortController
}

/** What cannot be begun again is let go on for so long when the site ends. */
const FINISH_MS = 10_000
const PROGRESS_MS = 1_000

export type PerformedRun = { readonly control: RunControl; readonly done: Promise<JobRunEnd | null> }

/** Performs a run that this process has taken, to its end, to its next wait, or until it is given back. `done` gives the end of a run that is over. */
export function performRun(deps: ExecutorDeps, run: TakenRun): PerformedRun {
  const live: Live = {
    ending: null,
    cut: false,
    closing: false,
    abandoned: null,
    holding: 0,
    state: stateOf(run.state),
    step: new AbortController(),
  }
  const job = run.definition as unknown as Job
  const control: RunControl = {
    end: (ending) => {
      // A second wish to end also ends what is always done, all of it.
      if (live.ending !== null && live.state.stage === 'always') live.cut = true
      live.ending ??= ending
      live.step.abort(new Error(ending.message))
    },
    handBack: () => {
      live.closing = true
      const abort = () => live.step.abort(new Error('the site stops'))
      const step = live.state.started ? stepOf(job, live.state) : undefined
      if (step?.repeatable === false) setTimeout(abort, FINISH_MS).unref()
      else abort()
    },
    holding: () => live.holding,
    abandon: (message) => {
      const reason = new Abandoned(message)
      live.abandoned = reason
      live.step.abort(reason)
    },
  }
  return { control, done: perform(deps, run, job, live) }
}

async function perform(deps: ExecutorDeps, run: TakenRun, job: Job, live: Live): Promise<JobRunEnd | null> {
  const began = performance.now()
  if (run.standing === 'fresh' && run.stopAskedBy !== null)
    return finish(deps, run, job, {
      ...NOTHING,
      result: 'stopped',
      code: 'SYNC_JOB_STOPPED',
      message: `stopped by ${run.stopAskedBy} before it began`,
    })
  const first = run.standing === 'fresh' ? FRESH : stateOf(run.state)
  const needs: Job = run.dryRun ? { ...job, gates: [], leases: [] } : job
  const begun = await tryBegin(deps, run, needs, first as unknown as Json, live.step.signal)
  if (begun === 'lost' || live.abandoned !== null) return null
  if (begun !== 'begun' && run.standing === 'fresh') return wait(deps, run, job, begun, live)
  const lateMs = run.nowMs - (run.dueAt === null ? run.queuedMs : Date.parse(run.dueAt))
  deps.events.jobStarted({
    ...{ job: run.job, runId: run.id, cause: run.cause, resumed: run.standing !== 'fresh' },
    ...{ leases: needs.leases.length, lateMs: Math.max(0, Math.round(lateMs)) },
  })
  const endKeeping = keepOutside(deps, run, needs, (reason) => {
    live.ending ??= { why: 'lease', message: reason }
    live.step.abort(new Error(reason))
  })
  // Somebody else took what it held while it had no process.
  if (begun === 'begun') live.holding = needs.leases.filter(({ kind }) => kind === 'lease').length
  else live.ending ??= { why: 'lease', message: begun.reason }
  const endTime = limitTime(run, job, live)
  try {
    const end = await goOn(deps, run, needs, live, first)
    if (end !== null) return await finish(deps, run, needs, end, performance.now() - began)
    const reason = givenBackFor(live)
    deps.events.jobGivenBack({ job: run.job, runId: run.id, reason, leases: needs.leases.length })
    return null
  } finally {
    endTime()
    endKeeping()
  }
}

function givenBackFor({ abandoned }: Live): string {
  return abandoned?.message ?? 'the site stops'
}

async function wait(
  deps: ExecutorDeps,
  run: TakenRun,
  job: Job,
  blocked: Exclude<Awaited<ReturnType<typeof tryBegin>>, string>,
  live: Live,
): Promise<JobRunEnd | null> {
  const { id, job: name, nowMs } = run
  const decision = decideWait(blocked, run.waitingSinceMs ?? nowMs, nowMs)
  deps.events.jobBlocked({ job: name, runId: id, reason: blocked.reason })
  if (live.ending !== null)
    return finish(deps, run, job, {
      ...NOTHING,
      result: 'stopped',
      code: 'SYNC_JOB_STOPPED',
      message: live.ending.message,
    })
  if (decision.does === 'wait') {
    // Two that keep stepping back for each other do not come back at the same moment.
    const waitMs = Math.max(0, decision.untilMs - nowMs) * (1 - Math.random() / 10)
    const change = { phase: 'waiting', reason: decision.reason, waitMs } as const
    await saveJobRun(deps.store.db, { id, worker: deps.workerId }, change)
    return null
  }
  const message = decision.does === 'begin' ? '' : decision.reason
  const failed = decision.does === 'fail'
  const code = 'SYNC_JOB_BLOCKED'
  return finish(deps, run, job, {
    ...NOTHING,
    result: failed ? 'error' : 'skipped',
    code,
    message,
    dead: failed && job.deadLetter,
  })
}

/** From step to step until the run is over. Null when it was given back, or is no longer this process's. */
async function goOn(
  deps: ExecutorDeps,
  run: TakenRun,
  job: Job,
  live: Live,
  first: RunState,
): Promise<JobRunEnd | null> {
  const { db } = deps.store
  const mine = { id: run.id, worker: deps.workerId }
  const before: Record<string, StepEnd> = {}
  const totals: Record<string, number> = {}
  const note = (name: string, { result, message, counts }: StepEnd) => {
    before[name] = { result, message, counts }
    for (const [key, value] of Object.entries(counts)) totals[key] = (totals[key] ?? 0) + value
  }
  const resumed = run.standing !== 'fresh'
  const ended = resumed ? await endedSteps(db, run.id) : []
  for (const { name, ...end } of ended) note(name, end)
  let { state, action } = nextOf(
    job,
    first,
    resumed ? resumedBy(first, ended, run.standing === 'handedBack') : { event: 'begun' },
  )
  while (action.does !== 'finish') {
    live.state = state
    if (live.abandoned !== null) return null
    if (live.closing) return handBack(deps, run, state)
    if (live.cut) {
      ;({ state, action } = cutShort(job, state))
      continue
    }
    if (live.ending !== null && state.ending === null) {
      ;({ state, action } = endBetween(job, state, action, live.ending))
      continue
    }
    if (action.does === 'abort') throw new Error('there is no step to abort')
    const { stage, attempt, delayMs } = action
    live.step = new AbortController()
    if (delayMs > 0 && !(await pause(deps, run, state, { attempt, delayMs }, live))) continue
    state = { ...state, started: true }
    live.state = state
    const change = { phase: 'running', state: state as unknown as Json, reason: null } as const
    if (!(await persist(() => saveJobRun(db, mine, change)))) return null
    const step = job[stage][state.at]
    if (step === undefined) throw new Error(`run ${run.id} has no step ${state.at} in ${stage}`)
    const outcome = await tryStep(deps, run, job, { step, stage, place: state.at, attempt, before }, live)
    if (live.abandoned !== null) return null
    // What was ended only because the site ends says nothing of the step.
    if (live.closing && outcome.result === 'error') return handBack(deps, run, state)
    note(step.name, outcome)
    if (live.ending !== null && state.ending === null) state = { ...state, ending: live.ending }
    const { result, message, code, again } = outcome
    const end = { event: 'stepEnded', result, message, code, again, random: Math.random() } as const
    // What was cut off by a second wish to end did not fail by itself.
    ;({ state, action } = live.cut ? cutShort(job, state) : nextOf(job, state, end))
    const retry = action.does === 'step' && action.attempt > 1 ? { retryMs: action.delayMs } : {}
    const { durationMs, threw, counts } = outcome
    deps.events.jobStepEnded({
      ...{ job: run.job, runId: run.id, step: step.name, kind: step.kind, attempt, result, message },
      ...{ durationMs: Math.round(durationMs), threw, counts, ...retry, ...(code !== undefined && { code }) },
    })
  }
  const { result, code, message } = action
  const dead = result === 'error' && job.deadLetter && !run.dryRun
  return { result, code, message: message === '' ? lastWord(before) : message, counts: totals, dead }
}

/** What became of the step that a run was at. One that had come to a good end was not cut off, though its process died before the run went on. */
function resumedBy(state: RunState, ended: Awaited<ReturnType<typeof endedSteps>>, asked: boolean): RunEvent {
  const done = ended.findLast(
    ({ stage, place, attempt }) => stage === state.stage && place === state.at && attempt === state.attempt,
  )
  if (!state.started || done === undefined || done.result === 'error') return { event: 'cutOff', asked }
  return { event: 'stepEnded', result: done.result, message: done.message, random: 0 }
}

/** To the end, past all that would still be done. */
function cutShort(job: Job, state: RunState) {
  return nextOf(job, { ...state, stage: 'over' }, { event: 'begun' })
}

/** Between two steps there is nothing to abort: past the step that was about to begin. What is always done is done all the same. */
function endBetween(job: Job, state: RunState, action: RunAction, ending: Ending) {
  if (state.stage === 'always') return { state: { ...state, ending }, action }
  const next = nextOf(job, state, { event: 'end', ending })
  return next.action.does === 'abort' ? nextOf(job, next.state, ENDED_BETWEEN) : next
}

const ENDED_BETWEEN = { event: 'stepEnded', result: 'success', message: '', random: 0 } as const
const NOTHING = { counts: {}, dead: false } as const

/** True when the pause is over; false when something came in between, which the caller looks at. */
async function pause(
  deps: ExecutorDeps,
  run: TakenRun,
  state: RunState,
  { attempt, delayMs }: { readonly attempt: number; readonly delayMs: number },
  live: Live,
): Promise<boolean> {
  const reason = `try ${attempt} of step ${stepOf(run.definition as unknown as Job, state)?.name} begins in ${Math.ceil(delayMs / 1000)} s`
  const change = { phase: 'running', state: state as unknown as Json, reason } as const
  if (!(await saveJobRun(deps.store.db, { id: run.id, worker: deps.workerId }, change))) {
    live.abandoned = new Error('another process has the run')
    return false
  }
  try {
    await longSleep(delayMs, live.step.signal)
    return true
  } catch {
    return false
  }
}

async function tryStep(
  deps: ExecutorDeps,
  run: TakenRun,
  job: Job,
  given: Pick<StepTry, 'step' | 'stage' | 'place' | 'attempt' | 'before'>,
  live: Live,
): Promise<StepOutcome> {
  const { step, stage, place } = given
  const at = { step: step.name, place: place + 1, of: job[stage].length }
  const shown = throttled(PROGRESS_MS, (progress: StepProgress) => {
    const change = { progress: { ...at, ...progress } }
    const known = Object.entries(progress).filter((entry): entry is [string, number] => entry[1] !== null)
    deps.events.jobProgressed({ job: run.job, runId: run.id, step: step.name, progress: Object.fromEntries(known) })
    saveJobRun(deps.store.db, { id: run.id, worker: deps.workerId }, change).catch(deps.onError)
  })
  const { outputBytes } = job.history
  try {
    return await runStep(deps, { ...given, run, outputBytes, signal: live.step.signal, progress: shown.call })
  } finally {
    shown.cancel()
  }
}

async function handBack(deps: ExecutorDeps, run: TakenRun, state: RunState): Promise<null> {
  const change = { state: state as unknown as Json, reason: 'given back by a process that ended', handBack: true }
  await saveJobRun(deps.store.db, { id: run.id, worker: deps.workerId }, change)
  return null
}

async function finish(
  deps: ExecutorDeps,
  run: TakenRun,
  job: Job,
  end: JobRunEnd,
  durationMs = 0,
): Promise<JobRunEnd | null> {
  // Whoever waits for locks elsewhere may begin as soon as the run is seen to be over.
  const left = durationMs === 0 ? [] : await releaseOutside(deps, run, job)
  const message = [end.message, ...left].filter((text) => text !== '').join('; ')
  const { id, jobId, dryRun } = run
  const told = { ...end, message }
  const happened = happenedBy(run, end)
  const mine = { id, worker: deps.workerId, jobId, dryRun }
  const finished = () => finishJobRun(deps.store.db, mine, told, (trx) => deps.fire(trx, happened))
  if (!(await persist(finished))) return null
  const before = run.startedMs === null ? 0 : run.nowMs - run.startedMs
  deps.events.jobFinished({
    ...{ job: run.job, runId: id, result: end.result, dryRun, leases: durationMs === 0 ? 0 : job.leases.length },
    durationMs: Math.max(0, Math.round(before + durationMs)),
    blockedMs: run.waitingSinceMs === null ? 0 : Math.round(run.nowMs - run.waitingSinceMs),
    ...(end.code !== null && { code: end.code }),
    ...(message !== '' && { message }),
  })
  return told
}

/** The time limit counts from the begin of the first step, also of one that another process began. */
function limitTime(run: TakenRun, job: Job, live: Live): () => void {
  if (job.limitSeconds === null) return () => {}
  const spentMs = run.startedMs === null ? 0 : Math.max(0, run.nowMs - run.startedMs)
  const message = `the time limit of ${job.limitSeconds} s for the run is over`
  const end = () => {
    if (live.ending !== null || live.state.stage !== 'steps') return
    live.ending = { why: 'time', message }
    live.step.abort(new Error(message))
  }
  return after(job.limitSeconds * 1000 - spentMs, end)
}

/** What others may wait for. */
function happenedBy({ job, dryRun }: TakenRun, { result }: JobRunEnd): readonly string[] {
  if (dryRun) return []
  // Left out because something was not free in time: whoever comes after it has waited long enough.
  if (result === 'skipped') return [`job ${job}`]
  const word = { success: 'success', warning: 'success', error: 'failure', stopped: null }[result]
  return [`job ${job}`, ...(word === null ? [] : [`job ${job} ${word}`])]
}

function lastWord(before: Readonly<Record<string, StepEnd>>): string {
  return Object.values(before).at(-1)?.message ?? ''
}

function stateOf(state: Json | null): RunState {
  return state === null ? FRESH : (state as unknown as RunState)
}

/** Calls at most once in `everyMs`, and never loses the last call before it is cancelled by more than that. */
function throttled<T>(everyMs: number, work: (value: T) => void) {
  let timer: NodeJS.Timeout | undefined
  let last = Number.NEGATIVE_INFINITY
  let latest: T
  const fire = () => {
    timer = undefined
    last = performance.now()
    work(latest)
  }
  return {
    call: (value: T) => {
      latest = value
      timer ??= setTimeout(fire, Math.max(0, last + everyMs - performance.now()))
    },
    cancel: () => clearTimeout(timer),
  }
}
