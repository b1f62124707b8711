import {
  type DueJob,
  type ExchangeLimits,
  everyItem,
  isDatabaseGone,
  listPeers,
  listTasks,
  lookupPeer,
  openQueue,
  type Peer,
  type Self,
  type Store,
  type Task,
} from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { createCheck } from './check.ts'
import { createDesk, type JobDesk } from './desk.ts'
import { type DetectorDeps, startDetector } from './detector.ts'
import { type Engine, type EngineDeps, startEngine } from './engine.ts'
import { startHousekeeping } from './housekeeping.ts'
import { startLive } from './live.ts'
import { createRuns, type RunPeer, type Runs, type StartedRuns, type SyncRequest } from './runs.ts'
import { type DueTasks, startScheduler } from './scheduler.ts'
import type { HostLease, StepHandler, StepSite } from './step.ts'
import { commandStep, type NotifyDeps, notifyStep, type SyncDeps, syncStep, waitStep } from './steps/index.ts'

export type JobsDeps = {
  readonly store: Store
  readonly self: () => Promise<Self>
  readonly limits: ExchangeLimits
  readonly logDays: number
  readonly historyDays: number
  readonly tombstoneDays: number
  /** Puts due work on the queue. */
  readonly schedule: boolean
  /** Performs what is on the queue. */
  readonly work: boolean
  readonly runPeer: RunPeer
  /** Announcements of a peer, for live tasks. */
  readonly listen: (peer: Peer, signal: AbortSignal) => AsyncIterable<string>
  /** Rules of the stall detector, and whom it tells. */
  readonly alarms: DetectorDeps['alarms']
  /** What jobs are made of, besides what this room brings along. */
  readonly parts: {
    readonly host: string
    readonly environment: Readonly<Record<string, string | undefined>>
    readonly notify: NotifyDeps
    readonly previewSync: SyncDeps['preview']
    readonly steps: readonly StepHandler<never>[]
    readonly leases: readonly HostLease<never>[]
  }
  readonly events: DetectorDeps['events'] &
    EngineDeps['events'] & {
      readonly jobScheduled: (event: {
        readonly job: string
        readonly cause: 'schedule' | 'retry'
        readonly dueAt: string
      }) => void
      readonly internalError: (event: { readonly where: string; readonly err: unknown }) => void
      readonly horizonOld: (event: { readonly ageMs: number; readonly holder?: string }) => void
      readonly captureBroken: (event: { readonly resource: string; readonly problem: string }) => void
      readonly tombstonesPurged: (event: { readonly resource: string; readonly count: number }) => void
    }
}

/** Everything that sets off runs in this process. */
export type Jobs = {
  /** Starts runs now and gives their ids. */
  readonly syncNow: (request: SyncRequest) => Promise<StartedRuns>
  /** One run to its end. Errors: those of RunPeer. */
  readonly run: Runs['run']
  /** Tasks or peers changed: due times are worked out anew. */
  readonly scheduleChanged: () => void
  readonly nextRuns: () => readonly { readonly taskId: number; readonly at: string }[]
  readonly desk: JobDesk
  /** Takes no more work, cancels what runs at its next safe point, and waits for that at most `timeoutMs`. */
  readonly stop: (timeoutMs: number) => Promise<void>
}

/** One due run as it stands on the queue. */
type SyncJob = {
  readonly peerId: number
  readonly resources: readonly string[]
  readonly cause: 'schedule' | 'retry'
  readonly key: string
}

const LIVE = 'live'
/** How often live tasks that other processes changed are looked for. */
const LIVE_REFRESH_MS = 5_000

export async function startJobs(deps: JobsDeps): Promise<Jobs> {
  const { store } = deps
  const onError = tellSometimes((err) => deps.events.internalError({ where: 'jobs', err }))
  const runs = createRuns({
    store,
    runPeer: announced(deps.runPeer, (events) => engine.fire(events), onError),
    onError,
  })
  const { engine, desk } = await startWork(deps, runs, onError)
  try {
    return await startTasks(deps, { runs, engine, desk }, onError)
  } catch (error) {
    await engine.stop(0)
    throw error
  }
}

/** What the tasks with peers set off, beside the jobs. */
async function startTasks(
  deps: JobsDeps,
  { runs, engine, desk }: { readonly runs: Runs; readonly engine: Engine; readonly desk: JobDesk },
  onError: (error: unknown) => void,
): Promise<Jobs> {
  const { store } = deps
  const queue = deps.schedule || deps.work ? await openQueue<SyncJob>(store, onError) : null
  const send = (job: DueJob<SyncJob>, dueAt: string, peer: string) => {
    const sending = queue?.send(job).then((added) => {
      if (added) deps.events.jobScheduled({ job: `sync ${peer}`, cause: job.data.cause, dueAt })
    })
    sending?.catch(onError)
  }
  const onDue = ({ key, peerId, peer, resources, dueAt }: DueTasks) => {
    if (deps.schedule) send({ key, data: { peerId, resources, cause: 'schedule', key } }, dueAt, peer)
  }
  if (deps.work) await queue?.work((job) => perform(deps, runs, job, send))
  // Every process can say when tasks are due; those of the role put them on the queue.
  const scheduler = startScheduler({
    siteUuid: (await deps.self()).uuid,
    tasks: async () => (await scheduledTasks(store)).map(({ id, ...task }) => ({ ...task, taskId: id })),
    onDue,
    onError,
  })
  const live = deps.work ? startLive({ store, runs, listen: deps.listen, onError }) : null
  const refreshLive = async () => {
    const tasks = (await scheduledTasks(store)).filter(({ schedule }) => schedule === LIVE)
    live?.refresh(tasks.map(({ peerId, resource, mode }) => ({ peerId, resource, mode })))
  }
  const polling = live === null ? undefined : setInterval(() => void refreshLive().catch(onError), LIVE_REFRESH_MS)
  const endHousekeeping = deps.work ? startHousekeeping({ ...deps, onError }) : null
  const endDetector = deps.work ? startDetector({ ...deps, onError }) : null
  const refresh = async () => {
    await scheduler.refresh()
    if (live !== null) await refreshLive()
  }
  await refresh()

  return {
    syncNow: runs.syncNow,
    run: runs.run,
    scheduleChanged: () => void refresh().catch(onError),
    nextRuns: scheduler.nextRuns,
    desk,
    stop: async (timeoutMs) => {
      clearInterval(polling)
      scheduler.stop()
      await Promise.all([
        engine.stop(timeoutMs),
        runs.stop(timeoutMs),
        queue?.stop(timeoutMs),
        live?.stop(),
        endHousekeeping?.(),
        endDetector?.(),
      ])
    },
  }
}

/** The engine of jobs with all kinds of steps, and the desk where people ask for them. */
async function startWork(deps: JobsDeps, runs: Runs, onError: (error: unknown) => void) {
  const { store, events, schedule, work } = deps
  const { host, environment, notify, previewSync, steps, leases } = deps.parts
  const { uuid, name } = await deps.self()
  const site: StepSite = { uuid, name, host, pid: process.pid }
  const own = [
    commandStep(environment),
    syncStep({ store, run: runs.run, preview: previewSync }),
    waitStep,
    notifyStep(notify),
  ]
  const parts = { steps: [...own, ...steps], leases }
  const check = createCheck(parts)
  const engine = await startEngine({ store, site, parts, check, schedule, work, events, onError })
  return { engine, desk: createDesk({ store, check, parts, engine, site }) }
}

/** Runs that jobs may wait for are told of when they have ended well; those that a job performs are its own business. */
function announced(
  runPeer: RunPeer,
  fire: (events: readonly string[]) => Promise<void>,
  onError: (error: unknown) => void,
): RunPeer {
  return async (peer, options) => {
    const outcome = await runPeer(peer, options)
    const well = outcome.result === 'success' || outcome.result === 'warning'
    if (well && options.cause !== 'job') fire([`sync ${peer.name}`]).catch(onError)
    return outcome
  }
}

/** While the database is away every look at the queue fails: one line a minute says so. */
const OUTAGE_TOLD_MS = 60_000

function tellSometimes(tell: (error: unknown) => void): (error: unknown) => void {
  let toldAt = Number.NEGATIVE_INFINITY
  return (error) => {
    if (isDatabaseGone(error)) {
      if (performance.now() - toldAt < OUTAGE_TOLD_MS) return
      toldAt = performance.now()
    }
    tell(error)
  }
}

/** How long after a run whose task failed, but not its peer, it is tried again. */
const TASK_RETRY_MS = 60_000
/** Clocks of the database and of this process may differ a little. */
const EARLY_MS = 1_000

/** Does one due run. What is thrown puts the job back on the queue. */
async function perform(
  { store }: JobsDeps,
  runs: ReturnType<typeof createRuns>,
  { peerId, resources, cause, key }: SyncJob,
  send: (job: DueJob<SyncJob>, dueAt: string, peer: string) => void,
): Promise<void> {
  const peer = await lookupPeer(store.db, peerId)
  if (peer === null || peer.paused || peer.url === null) return
  const again = (at: string) =>
    send(
      { key: `${key} retry ${at}`, data: { peerId, resources, cause: 'retry', key }, startAfter: new Date(at) },
      at,
      peer.name,
    )
  if (peer.retryAt !== null && Date.parse(peer.retryAt) > Date.now() + EARLY_MS) {
    // The circuit is open. The run that opened it has its own next attempt on the queue; one of another schedule goes on waiting.
    if (cause === 'retry') again(peer.retryAt)
    return
  }
  try {
    const { cancelled, retryAt, result } = await runs.run(peer, { resources, cause })
    if (cancelled) throw new Error('the run was cancelled before it was done')
    if (retryAt !== null) again(retryAt)
    // A task failed and may work later, though the peer is well. Once: its next due time may be days away, or soon.
    else if (result === 'error' && cause === 'schedule') again(new Date(Date.now() + TASK_RETRY_MS).toISOString())
  } catch (error) {
    // The task was removed or disabled since it became due.
    if (error instanceof SynclineError && error.code === 'SYNC_REQUEST_NOT_FOUND') return
    throw error
  }
}

type Scheduled = Pick<Task, 'id' | 'peerId' | 'peer' | 'resource' | 'mode'> & { readonly schedule: string }

/** Enabled tasks with a schedule, of peers that this site can reach and that are not paused. */
async function scheduledTasks(store: Store): Promise<readonly Scheduled[]> {
  const tasks = await everyItem((page) => listTasks(store.db, { ...page, enabled: true }))
  const scheduled = tasks.flatMap(({ id, peerId, peer, resource, mode, schedule }) =>
    schedule === null ? [] : [{ id, peerId, peer, resource, mode, schedule }],
  )
  if (scheduled.length === 0) return []
  const peers = await everyItem((page) => listPeers(store.db, { ...page, paused: false }))
  const reachable = new Set(peers.filter(({ url }) => url !== null).map(({ id }) => id))
  return scheduled.filter(({ peerId }) => reachable.has(peerId))
}
