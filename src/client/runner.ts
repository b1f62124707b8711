import type { Events } from '../observe/index.ts'
import {
  appendLog,
  type BrokenCapture,
  brokenCaptures,
  checkpointsOf,
  type ExchangeLimits,
  everyItem,
  finishRun,
  listQuarantine,
  listTasks,
  loadResources,
  markInterruptedRuns,
  notePeerFailure,
  notePeerSuccess,
  type Peer,
  proofsOf,
  refreshAltered,
  type Self,
  type Store,
  setRunState,
  startRun,
  type TaskEnd,
  withPeerLease,
} from '../store/index.ts'
import {
  type Effect,
  type ErrorCode,
  type Failure,
  startRun as firstStep,
  type ResultName,
  type RunEvent,
  type RunResult,
  type RunTask,
  retryDelayMs,
  SynclineError,
  step,
  type TaskResult,
} from '../sync/index.ts'
import { notGreen, reportBroken } from './capture-check.ts'
import { stillKnown } from './compare.ts'
import type { Connections } from './connections.ts'
import { edenFailure } from './eden/words.ts'
import { failureOf } from './failure.ts'
import { finishLink } from './finish-link.ts'
import { mappedLink } from './mapped.ts'
import { PeerError } from './peer-error.ts'
import { perform } from './run-effects.ts'
import type { RunSession } from './run-session.ts'
import { emptyCounts, type RunCounts } from './tally.ts'
import { inOrder } from './task-order.ts'
import { heldBack, settleWaiting } from './waiting.ts'

/** What a run tells the site's log and metrics. */
export type RunEvents = Pick<
  Events,
  | 'batchPulled'
  | 'captureBroken'
  | 'batchPushed'
  | 'clockCompared'
  | 'clockFar'
  | 'conflictDecided'
  | 'internalError'
  | 'peerUnreachable'
  | 'recordQuarantined'
  | 'resourceCompared'
  | 'runFinished'
  | 'runStarted'
>

export type RunnerDeps = {
  readonly store: Store
  /** This site as it is now: its log may be renewed while the process runs. */
  readonly self: () => Promise<Self>
  readonly connections: Connections
  readonly limits: ExchangeLimits
  readonly events: RunEvents
  readonly random?: () => number
}

export type RunOptions = {
  /** Only these resources; every enabled task when absent. */
  readonly resources?: readonly string[] | undefined
  /** What set the run off: schedule, live, retry, hand, signal. */
  readonly cause: string
  /** Ends the run between two batches. */
  readonly signal?: AbortSignal | undefined
  readonly onStarted?: ((runId: string) => void) | undefined
  readonly onProgress?: ((progress: RunProgress) => void) | undefined
}

/** One batch that was applied or taken. */
export type RunProgress = {
  readonly runId: string
  readonly resource: string
  readonly direction: 'pull' | 'push'
  readonly changes: number
  readonly more: boolean
}

export type RunReport = {
  readonly runId: string
  readonly peer: string
  readonly result: ResultName
  readonly cancelled: boolean
  /** What ended the run early, or the first task's failure. */
  readonly code: ErrorCode | null
  readonly message: string | null
  /** Scheduled runs wait until then. */
  readonly retryAt: string | null
  readonly counts: Readonly<RunCounts>
  readonly tasks: readonly TaskResult[]
  readonly durationMs: number
}

/** The first pause after a peer failed, and the longest; a failure that a person must mend is looked at again within an hour. */
const BACKOFF = { baseMs: 5_000, maxMs: 900_000 }
const BACKOFF_FATAL = { baseMs: 3_000_000, maxMs: 3_000_000, retryAfterMs: 600_000 }
/** How often a long run says that it is alive, and how far it is. */
const ALIVE_MS = 2_000
/** How long an answer to a push is waited for after the run was cancelled. */
const GRACE_MS = 5_000

/**
 * One run with one peer: pulls, applies and pushes what its enabled tasks say, parents before those that refer to them. A process that dies in
 * the middle leaves committed batches with their checkpoints; the next run goes on from there. What fails is in the report, not thrown.
 * Throws SYNC_PEER_PAUSED, SYNC_RUN_ACTIVE, SYNC_REQUEST_NOT_FOUND (no such task), SYNC_REQUEST_INVALID (no address), SYNC_STORE_UNAVAILABLE.
 */
export async function runPeer(deps: RunnerDeps, peer: Peer, options: RunOptions): Promise<RunReport> {
  if (peer.paused) throw new SynclineError('SYNC_PEER_PAUSED', `peer "${peer.name}" is paused`)
  const connection = await deps.connections.of(peer)
  return withPeerLease(deps.store, peer.id, async (lost) => {
    const began = performance.now()
    const { db } = deps.store
    const look = () =>
      Promise.all([
        everyItem((page) => listTasks(db, { ...page, peerId: peer.id, enabled: true })),
        loadResources(db),
        checkpointsOf(db, peer.id),
        brokenCaptures(db),
        proofsOf(db, peer.id),
      ])
    // Under the lease nobody else can be at work with this peer: a run that is still open lost its process.
    const [seen, altered] = await Promise.all([
      look(),
      refreshAltered(deps.store),
      markInterruptedRuns(db, { peerId: peer.id }),
    ])
    const [tasks, resources, checkpoints, broken, proofs] = altered.length === 0 ? seen : await look()
    const ordered = inOrder(
      tasks,
      resources.map(({ name }) => name),
      peer,
      options.resources,
    )
    const { id: runId } = await startRun(db, { peer, cause: options.cause })
    options.onStarted?.(runId)
    const names = ordered.map(({ resource }) => resource)
    deps.events.runStarted({
      runId,
      peer: peer.name,
      cause: options.cause,
      ...(options.resources && { resources: names }),
    })
    const mapped = await mappedLink(deps.store, peer.id, connection.client, ordered, resources)
    const signal = AbortSignal.any([lost, ...(options.signal ? [options.signal] : [])])
    const session: RunSession = {
      store: deps.store,
      link: { self: await deps.self(), peer },
      peer: { ...connection, client: mapped.client },
      limits: deps.limits,
      events: deps.events,
      random: deps.random ?? Math.random,
      runId,
      tasks: new Map(mapped.tasks.map((task) => [task.resource, task])),
      resources: new Map(resources.map((resource) => [resource.name, resource])),
      counts: emptyCounts(),
      onProgress: options.onProgress ?? (() => {}),
      signal,
      lateSignal: after(signal, GRACE_MS),
      fetched: new Map(),
      pushes: new Map(names.map((name) => [name, { after: checkpoints.get(name)?.push, ended: false, next: null }])),
      proofs,
      rows: new Map(),
      forms: new Map(),
      skews: new Map(),
      purges: new Map(),
      brakes: null,
      released: new Map(),
      guards: new Map(),
      firsts: new Map(),
      announced: new Map(),
      allTasks: tasks,
      greeted: null,
      batches: 0,
      doing: 'begin',
      lagMs: undefined,
    }
    const runTasks = ordered.map((task): RunTask => {
      const { resource, mode } = task
      return {
        resource,
        mode,
        after: checkpoints.get(resource)?.pull ?? null,
        acked: connection.told.get(resource) ?? null,
        proved: stillKnown(proofs.get(resource), Date.now()),
      }
    })
    return obey(deps, session, runTasks, broken, options.cause, began)
  })
}

/** Performs what the run machine asks for until it says that the run is over. */
async function obey(
  deps: RunnerDeps,
  session: RunSession,
  tasks: readonly RunTask[],
  broken: readonly BrokenCapture[],
  cause: string,
  began: number,
): Promise<RunReport> {
  const { peer } = session.link
  const inbox: RunEvent[] = []
  let wake = () => {}
  const answer = (event: RunEvent) => {
    inbox.push(event)
    wake()
  }
  const failures: unknown[] = []
  const begin = (effect: Exclude<Effect, { do: 'finish' }>) => {
    perform(session, effect).then(answer, (error: unknown) => {
      if (session.signal.aborted) return answer({ type: 'aborted' })
      failures.push(error)
      answer({
        type: 'failed',
        ...failureOf(error, (err) => deps.events.internalError({ where: 'run', err, runId: session.runId })),
      })
    })
  }
  const cancel = () => answer({ type: 'cancelled' })
  if (session.signal.aborted) cancel()
  session.signal.addEventListener('abort', cancel)
  const alive = setInterval(() => {
    setRunState(deps.store.db, session.runId, session.doing, { ...session.counts }).catch(() => {})
  }, ALIVE_MS)
  try {
    let next = firstStep({ expected: { uuid: peer.uuid, logId: peer.logId }, tasks })
    for (;;) {
      for (const effect of next.effects) {
        if (effect.do === 'finish') return await finish(deps, session, effect.result, failures, broken, cause, began)
        begin(effect)
      }
      if (inbox.length === 0) await new Promise<void>((resolve) => (wake = resolve))
      next = step(next.state, inbox.shift() as RunEvent)
    }
  } finally {
    clearInterval(alive)
    session.signal.removeEventListener('abort', cancel)
  }
}

/** Writes down how a run ended. Errors of the database are thrown: the run stays open and is closed by the next one. */
async function finish(
  deps: RunnerDeps,
  session: RunSession,
  outcome: RunResult,
  failures: readonly unknown[],
  broken: readonly BrokenCapture[],
  cause: string,
  began: number,
): Promise<RunReport> {
  const { db } = deps.store
  const { runId, counts, link } = session
  const { peer } = link
  const [held] = await Promise.all([heldBack(session), outcome.cancelled ? undefined : settleWaiting(session, outcome)])
  await logFailures(session, outcome, failures)
  const uncaptured = (await finishLink(session)) ?? (await reportBroken(session, broken))
  const failure = outcome.failure ?? worstFailure(outcome.tasks) ?? uncaptured
  const exchanged = await settled(session, outcome)
  const result = uncaptured === null ? exchanged : notGreen(exchanged)
  const durationMs = Math.round(performance.now() - began)
  const [code, message] = [failure?.code ?? null, failure?.detail ?? held]
  const state = outcome.cancelled ? 'cancelled' : 'finished'
  const [retryAt] = await Promise.all([
    notePeer(deps, session, outcome, failures),
    finishRun(db, runId, { result, state, code, message, counts: { ...counts }, tasks: taskEnds(outcome) }),
  ])
  deps.events.runFinished({
    runId,
    peer: peer.name,
    cause,
    result,
    pulled: counts.pulled,
    applied: counts.applied,
    conflicts: counts.conflicts + counts.pushConflicts,
    rejected: counts.quarantined + counts.refused + counts.pushQuarantined + counts.pushRefused,
    pushed: counts.pushed,
    durationMs,
    ...(session.lagMs !== undefined && { lagMs: session.lagMs }),
    ...(code !== null && { code }),
    ...(message !== null && { message }),
    ...(retryAt !== null && { retryAt }),
  })
  const { cancelled, tasks } = outcome
  return { runId, peer: peer.name, result, cancelled, code, message, retryAt, counts, tasks, durationMs }
}

/** What a brake stopped waits for a person and is no fault: another failure says more of the run. */
function worstFailure(tasks: readonly TaskResult[]): Failure | null {
  const failures = tasks.flatMap(({ failure }) => (failure === null ? [] : [failure]))
  return failures.find(({ code }) => code !== 'SYNC_RUN_BRAKED') ?? failures[0] ?? null
}

/** How the run ended for each of its tasks; for one that was cancelled in the middle it did not. */
function taskEnds({ tasks }: RunResult): readonly TaskEnd[] {
  return tasks.flatMap(({ resource, result, failure }) => {
    if (result === 'error' && failure === null) return []
    return [{ resource, result, code: failure?.code ?? null, message: failure?.detail ?? null }]
  })
}

/** One entry for each task that failed, or one for the run when it ended before its tasks. */
async function logFailures(
  { store, link, runId, tasks }: RunSession,
  outcome: RunResult,
  failures: readonly unknown[],
): Promise<void> {
  const remote = failures.some((error) => error instanceof PeerError && error.remote)
  const entry = { peer: link.peer, runId, direction: 'outgoing' as const, action: 'run', remote }
  for (const { resource, result, failure } of outcome.tasks) {
    if (failure === null) continue
    const mode = tasks.get(resource)?.mode ?? 'both'
    const told = link.peer.kind === 'eden' && edenFailure(mode, failure, words(failure))
    await appendLog(store.db, { ...entry, resource, mode, result, message: words(failure), ...told })
  }
  if (outcome.failure !== null && outcome.tasks.every(({ failure }) => failure === null)) {
    const { result, failure } = outcome
    const told = link.peer.kind === 'eden' && edenFailure('both', failure, words(failure))
    await appendLog(store.db, { ...entry, mode: 'both', result, message: words(failure), ...told })
  }
}

/** What went into quarantine and out of it again within the run needs nobody's attention. */
async function settled({ store, link, counts }: RunSession, { result }: RunResult): Promise<ResultName> {
  const others =
    counts.conflicts +
    counts.refused +
    counts.pushConflicts +
    counts.pushQuarantined +
    counts.pushRefused +
    counts.different
  if (result !== 'warning' || others > 0) return result
  const waiting = await listQuarantine(store.db, { peer: link.peer.name, limit: 1 })
  return waiting.length === 0 ? 'success' : 'warning'
}

/** Opens or closes the circuit to the peer. Gives the time of the next attempt when the peer as a whole failed. */
async function notePeer(
  deps: RunnerDeps,
  session: RunSession,
  outcome: RunResult,
  failures: readonly unknown[],
): Promise<string | null> {
  const { db } = deps.store
  const { peer } = session.link
  const { failure } = outcome
  if (failure === null) {
    if (!outcome.cancelled) await notePeerSuccess(db, peer.id)
    return null
  }
  const retryAfterMs = Math.max(
    0,
    ...failures.map((error) => (error instanceof PeerError ? (error.retryAfterMs ?? 0) : 0)),
  )
  const pause = failure.retryable ? { ...BACKOFF, retryAfterMs } : BACKOFF_FATAL
  const delay = retryDelayMs({ attempt: peer.failures + 1, random: session.random(), ...pause })
  const retryAt = new Date(Date.now() + delay).toISOString()
  const count = await notePeerFailure(db, peer.id, retryAt)
  if (failure.code === 'SYNC_PEER_UNREACHABLE') {
    deps.events.peerUnreachable({
      peer: peer.name,
      runId: session.runId,
      reason: failure.detail,
      failures: count,
      retryAt,
    })
  }
  return retryAt
}

/** A signal that follows another one after a while. */
function after(signal: AbortSignal, delayMs: number): AbortSignal {
  const late = new AbortController()
  signal.addEventListener('abort', () => setTimeout(() => late.abort(signal.reason), delayMs).unref(), { once: true })
  return late.signal
}

function words({ code, detail }: Failure): string {
  return `${code}: ${detail}`
}
