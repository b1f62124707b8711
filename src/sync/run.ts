import assert from 'node:assert/strict'
import type { ErrorCode } from './errors.ts'
import type { BatchReport } from './record.ts'
import type {
  Effect,
  EventName,
  ExpectedPeer,
  Failure,
  FetchedBatch,
  ResultName,
  RunEvent,
  RunResult,
  RunState,
  RunStep,
  RunTask,
  StateName,
  TaskResult,
  Work,
} from './run-state.ts'

type Event<E extends EventName> = Extract<RunEvent, { type: E }>
type Cell<E extends EventName = EventName> = (run: RunState, event: Event<E>) => RunStep
/** Whole by type: a state or an event without its cells does not compile. */
type Table = { readonly [S in StateName]: { readonly [E in EventName]: Cell<E> } }

/** Failures that concern the peer or this site as a whole: no further task would fare better. */
export const ENDS_RUN: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'SYNC_PEER_UNREACHABLE',
  'SYNC_PEER_MISMATCH',
  'SYNC_PEER_CLONED',
  'SYNC_PEER_PAUSED',
  'SYNC_AUTH_MISSING',
  'SYNC_REQUEST_TOO_MANY',
  'SYNC_REQUEST_OVERLOADED',
  'SYNC_STORE_UNAVAILABLE',
])

// biome-ignore format: a grid is read by its columns
const TABLE: Table = {
  greeting: {    greeted: meet,   logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  following: {   greeted: no,     logFollowed: restart, allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  fetching: {    greeted: no,     logFollowed: no,      allowed: no,      batchFetched: first,  pullEnded: none,    batchApplied: no,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: refetch, aborted: no,     cancelled: cancel },
  weighing: {    greeted: no,     logFollowed: no,      allowed: allow,   batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  overlapping: { greeted: no,     logFollowed: no,      allowed: no,      batchFetched: hold,   pullEnded: lastOne, batchApplied: wait,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  holding: {     greeted: no,     logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: applyOn,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  applying: {    greeted: no,     logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: pulled,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  acking: {      greeted: no,     logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: push,   pushSent: no,     pushEnded: no,      compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  pushing: {     greeted: no,     logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: no,     pushSent: sent,   pushEnded: compare, compared: no,     failed: fail,    aborted: no,     cancelled: cancel },
  comparing: {   greeted: no,     logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: no,     pushSent: no,     pushEnded: no,      compared: proved, failed: fail,    aborted: no,     cancelled: cancel },
  settling: {    greeted: settle, logFollowed: settle,  allowed: settle,  batchFetched: settle, pullEnded: settle,  batchApplied: settle,
    acked: settle, pushSent: settle, pushEnded: settle,  compared: settle, failed: fail,    aborted: settle, cancelled: cancel },
  finished: {    greeted: no,     logFollowed: no,      allowed: no,      batchFetched: no,     pullEnded: no,      batchApplied: no,
    acked: no,     pushSent: no,     pushEnded: no,      compared: no,     failed: no,      aborted: no,     cancelled: stay },
}

/**
 * One run with one peer as a state machine: greet, then for each task in turn weigh, pull, acknowledge, push, compare.
 * It decides and does nothing; whoever runs it performs the effects and feeds back one answer for each:
 *
 *     let { state, effects } = startRun({ expected, tasks })
 *     until finish: begin the new effects, wait for any answer, ({ state, effects } = step(state, answer))
 *
 * | effect    | is answered by          | what is done                                                              |
 * |-----------|-------------------------|---------------------------------------------------------------------------|
 * | greet     | greeted                 | ask who the peer is                                                       |
 * | followLog | logFollowed             | forget the checkpoints of the peer, remember its new log, in one commit   |
 * | weigh     | allowed                 | judge by the brakes what is due, before anything of it is written         |
 * | pull      | batchFetched, pullEnded | fetch one batch; pullEnded: it is empty and its checkpoint is the old one |
 * | apply     | batchApplied            | apply a fetched batch and commit its checkpoint with it                   |
 * | ack       | acked                   | tell the peer up to where we have everything                              |
 * | push      | pushSent, pushEnded     | collect and send the next batch; pushEnded: nothing was left to send      |
 * | compare   | compared                | find out by digests whether both sites hold the same now                  |
 * | finish    | nothing                 | write the result down; the run is over                                    |
 *
 * Every effect but finish may also be answered by `failed` (after the retries of whoever performs it) or, once the run
 * was cancelled, by `aborted`. `cancelled` may come at any time and answers nothing.
 *
 * | state       | under way      | meaning                                                                       |
 * |-------------|----------------|-------------------------------------------------------------------------------|
 * | greeting    | greet          | the first step of every run                                                   |
 * | following   | followLog      | the peer has a new log: its database was restored or copied                   |
 * | fetching    | pull           | a batch is on its way, none is being applied                                  |
 * | weighing    | weigh          | the first batch waits, or the first push, until what is due was weighed       |
 * | overlapping | pull, apply    | the next batch is on its way while one is applied                             |
 * | holding     | apply          | the next batch waits while one is applied; no further one is fetched          |
 * | applying    | apply          | the last batch is being applied                                               |
 * | acking      | ack            | everything fetched is applied                                                 |
 * | pushing     | push           | one batch is being sent; the pull of this resource has ended                  |
 * | comparing   | compare        | the pull and the push of this resource have ended                             |
 * | settling    | one or two     | the task failed or the run was cancelled: begin nothing, wait for the answers |
 * | finished    | nothing        | finish was given out, once                                                    |
 *
 * Nothing of a task is written, here or at the peer, before all that is due of it in that direction was weighed (I10).
 * Batches are applied one at a time in the order of fetching, so a checkpoint never passes a change that was not
 * applied (I5). A failed task does not stop the tasks after it; a failure of the whole peer ends the run (ENDS_RUN).
 */
export function startRun(input: { readonly expected: ExpectedPeer; readonly tasks: readonly RunTask[] }): RunStep {
  const { expected, tasks } = input
  const none = { work: null, done: [], cancelled: false, ending: null }
  return { state: { at: 'greeting', expected, todo: tasks, outstanding: 1, ...none }, effects: [{ do: 'greet' }] }
}

/** The next step. An event that cannot happen in this state is a bug of the caller and throws an AssertionError. */
export function step(state: RunState, event: RunEvent): RunStep {
  const cell = TABLE[state.at][event.type] as Cell
  const answered = event.type === 'cancelled' ? 0 : 1
  const next = cell({ ...state, outstanding: state.outstanding - answered }, event)
  const begun = next.effects.filter((effect) => effect.do !== 'finish').length
  return { ...next, state: { ...next.state, outstanding: next.state.outstanding + begun } }
}

/** True when a record of the batch waits for a person: it conflicts, is in quarantine or was refused. */
export function needsAttention(report: BatchReport): boolean {
  const { conflict, quarantined, refused } = report.counts
  return conflict + quarantined + refused > 0
}

function no(run: RunState, event: RunEvent): never {
  assert.fail(`a run that is ${run.at} cannot meet ${event.type}`)
}

function meet(run: RunState, { uuid, logId }: Event<'greeted'>): RunStep {
  if (uuid !== run.expected.uuid) {
    const detail = `site ${run.expected.uuid} was expected, ${uuid} answered`
    return fail(run, { code: 'SYNC_PEER_MISMATCH', retryable: false, detail })
  }
  const known = run.expected.logId ?? logId
  return known === logId ? next(run) : go(run, 'following', { do: 'followLog', logId })
}

function restart(run: RunState): RunStep {
  return next({ ...run, todo: run.todo.map((task) => ({ ...task, after: null, acked: null, proved: false })) })
}

/** Goes on to the next task; when there is none or none may begin, the run is over. */
function next(run: RunState): RunStep {
  const done = run.work === null ? run.done : [...run.done, taskResult(run, run.work)]
  const [task, ...todo] = run.todo
  if (task === undefined || run.cancelled || run.ending !== null) {
    const finished = { ...run, work: null, done }
    return go(finished, 'finished', { do: 'finish', result: runResult(finished) })
  }
  const none = {
    held: null,
    weighed: 'nothing',
    restarted: false,
    moved: false,
    attention: false,
    failure: null,
  } as const
  const work: Work = { task, reached: task.after, ...none }
  const begun = { ...run, todo, done, work }
  return task.mode === 'push' ? weighPush(begun) : fetch(begun, work, 'fetching')
}

/** Before the first batch of a pull is applied, all that is due is weighed. */
function first(run: RunState, batch: Event<'batchFetched'>): RunStep {
  const work = atWork(run)
  const begin = () => (work.weighed === 'nothing' ? weighPull(run, batch) : applyBatch(run, work, batch))
  return stalled(run, batch) ?? begin()
}

/** That nothing came may have a reason: the peer may have lost everything. */
function none(run: RunState): RunStep {
  return atWork(run).weighed === 'nothing' ? weighPull(run, null) : ack(run)
}

function weighPull(run: RunState, batch: FetchedBatch | null): RunStep {
  const work: Work = { ...atWork(run), weighed: 'pull', held: batch }
  const effect = { do: 'weigh', resource: work.task.resource, direction: 'pull', batch: batch?.batch ?? null } as const
  return go({ ...run, work }, 'weighing', effect)
}

function weighPush(run: RunState): RunStep {
  const work: Work = { ...atWork(run), weighed: 'push' }
  const effect = { do: 'weigh', resource: work.task.resource, direction: 'push', batch: null } as const
  return go({ ...run, work }, 'weighing', effect)
}

function allow(run: RunState): RunStep {
  const { held, ...work } = atWork(run)
  if (work.weighed === 'push') return pushOn(run)
  return held === null ? ack(run) : applyBatch(run, { ...work, held: null }, held)
}

function hold(run: RunState, batch: Event<'batchFetched'>): RunStep {
  return stalled(run, batch) ?? go({ ...run, work: { ...atWork(run), held: batch, moved: true } }, 'holding')
}

/** The batch that was to follow turned out to be empty. */
function lastOne(run: RunState): RunStep {
  return go(run, 'applying')
}

function wait(run: RunState, event: Event<'batchApplied'>): RunStep {
  return go(applied(run, event), 'fetching')
}

function applyOn(run: RunState, event: Event<'batchApplied'>): RunStep {
  const { held, ...work } = atWork(applied(run, event))
  assert(held !== null, 'a run that is holding holds a batch')
  return applyBatch(run, { ...work, held: null }, held)
}

function pulled(run: RunState, event: Event<'batchApplied'>): RunStep {
  return ack(applied(run, event))
}

function ack(run: RunState): RunStep {
  const { task, reached } = atWork(run)
  if (reached === null || reached === task.acked) return push(run)
  return go(run, 'acking', { do: 'ack', resource: task.resource, checkpoint: reached })
}

function push(run: RunState): RunStep {
  return atWork(run).task.mode === 'both' ? weighPush(run) : compare(run)
}

function pushOn(run: RunState): RunStep {
  return go(run, 'pushing', { do: 'push', resource: atWork(run).task.resource })
}

function sent(run: RunState, { attention }: Event<'pushSent'>): RunStep {
  return pushOn({ ...run, work: { ...noting(atWork(run), attention), moved: true } })
}

/** Where nothing moved on either side since both were found equal, they are equal still, and nobody has to ask. */
function compare(run: RunState): RunStep {
  const { task, moved } = atWork(run)
  return task.proved && !moved ? next(run) : go(run, 'comparing', { do: 'compare', resource: task.resource })
}

function proved(run: RunState, { attention }: Event<'compared'>): RunStep {
  return next({ ...run, work: noting(atWork(run), attention) })
}

/** The peer does not know our checkpoint: ask for everything, versions tell what is here already (I2). */
function refetch(run: RunState, event: Event<'failed'>): RunStep {
  const work = atWork(run)
  if (event.code !== 'SYNC_CHECKPOINT_GONE' || work.restarted || work.reached === null) return fail(run, event)
  return fetch(run, { ...work, weighed: 'nothing', restarted: true, moved: true, reached: null }, 'fetching')
}

/** The first failure of a task is its reason; those that follow are mostly its consequences. */
function fail(run: RunState, { code, retryable, detail }: Failure): RunStep {
  // A lost checkpoint heals by itself: the next run meets it at its first fetch and begins from zero.
  const failure = { code, retryable: retryable || code === 'SYNC_CHECKPOINT_GONE', detail }
  const ends = run.work === null || ENDS_RUN.has(code)
  const work = run.work === null ? null : { ...run.work, failure: run.work.failure ?? failure }
  return settle({ ...run, work, ending: run.ending ?? (ends ? failure : null) })
}

function cancel(run: RunState): RunStep {
  return settle({ ...run, cancelled: true })
}

function settle(run: RunState): RunStep {
  return run.outstanding > 0 ? go(run, 'settling') : next(run)
}

function stay(run: RunState): RunStep {
  return go(run, 'finished')
}

function go(run: RunState, at: StateName, ...effects: readonly Effect[]): RunStep {
  return { state: { ...run, at }, effects }
}

function fetch(run: RunState, work: Work, at: StateName, ...before: readonly Effect[]): RunStep {
  const { task, reached, weighed } = work
  const effect = { do: 'pull', resource: task.resource, after: reached, weigh: weighed === 'nothing' } as const
  return go({ ...run, work }, at, ...before, effect)
}

/** Applies one batch and, when more follow, fetches the next at the same time. */
function applyBatch(run: RunState, work: Work, batch: FetchedBatch): RunStep {
  const effect = { do: 'apply', resource: work.task.resource, batch: batch.batch } as const
  const busy = { ...work, reached: batch.checkpoint, moved: true }
  return batch.more ? fetch(run, busy, 'overlapping', effect) : go({ ...run, work: busy }, 'applying', effect)
}

function applied(run: RunState, { attention }: Event<'batchApplied'>): RunState {
  return { ...run, work: noting(atWork(run), attention) }
}

/** A peer that has more to give but stays where it is would keep us asking for ever. */
function stalled(run: RunState, { checkpoint, more }: FetchedBatch): RunStep | null {
  const { task, reached } = atWork(run)
  if (!more || checkpoint !== reached) return null
  const detail = `${task.resource}: two batches in a row end at the same checkpoint, and more is said to follow`
  return fail(run, { code: 'SYNC_PEER_STALLED', retryable: true, detail })
}

function noting(work: Work, attention: boolean): Work {
  return attention ? { ...work, attention } : work
}

function atWork(run: RunState): Work {
  assert(run.work !== null, `a run that is ${run.at} has a task at work`)
  return run.work
}

function taskResult(run: RunState, { task, attention, failure }: Work): TaskResult {
  const fine = attention ? 'warning' : 'success'
  const result = failure !== null ? resultOfFailure(failure) : run.cancelled ? 'error' : fine
  return { resource: task.resource, result, failure }
}

function runResult({ done, cancelled, ending }: RunState): RunResult {
  const results = done.map((task) => task.result)
  if (ending !== null) results.push(resultOfFailure(ending))
  if (cancelled) results.push('error')
  const worst = (['fatal', 'error', 'warning'] as const).find((name) => results.includes(name)) ?? 'success'
  return { result: worst, cancelled, failure: ending, tasks: done }
}

function resultOfFailure({ retryable }: Failure): ResultName {
  return retryable ? 'error' : 'fatal'
}
