import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type DueDecision,
  type DueJobRow,
  forgetWorkers,
  type JobEntry,
  type JobStanding,
  jobPulse,
  jobsOnEvents,
  keepRunsAlive,
  type NewRun,
  pruneJobRuns,
  requestRun,
  type Store,
  type TakenRun,
  takeDueJobs,
  takeRuns,
  withLease,
} from '../store/index.ts'
import { type Json, SynclineError } from '../sync/index.ts'
import type { JobCheck } from './check.ts'
import type { Job, Parts } from './definition.ts'
import { type ExecutorDeps, performRun, type RunControl } from './executor.ts'
import { LEASE_SECONDS } from './holding.ts'
import type { JobEvents } from './job-events.ts'
import { type Cause, decideArrival, decideMissed, limitReached } from './plan.ts'
import { isActive } from './runs.ts'
import { offsetOf } from './schedule.ts'
import type { StepSite } from './step.ts'
import { duesBetween, nextDue } from './times.ts'

export type EngineDeps = {
  readonly store: Store
  readonly site: StepSite
  readonly parts: Parts
  readonly check: JobCheck
  /** Turns due times into runs. */
  readonly schedule: boolean
  /** Performs runs. */
  readonly work: boolean
  readonly events: JobEvents & {
    readonly jobQueued: (event: { readonly job: string; readonly cause: string; readonly does: string }) => void
    readonly jobAdopted: (event: { readonly job: string; readonly runId: string; readonly standing: string }) => void
  }
  readonly onError: (error: unknown) => void
}

/** What was made of a wish to run. */
export type RequestedRun = {
  readonly runId: string
  /** `begin`: as soon as it can. `after`: after the run that is under way. `coalesce`: a run that waits to begin stands for this wish too. */
  readonly does: 'begin' | 'after' | 'coalesce'
}

/** The jobs of a site, in one of its processes. */
export type Engine = {
  /** Errors: SYNC_REQUEST_NOT_FOUND. */
  readonly request: (
    name: string,
    wish: { readonly cause: Cause; readonly caller?: string | undefined; readonly dryRun?: boolean | undefined },
  ) => Promise<RequestedRun>
  /** Something happened that jobs may wait for. */
  readonly fire: (events: readonly string[]) => Promise<void>
  /** Something changed: looks at once. */
  readonly wake: () => void
  /** A job as it is understood here. Errors: SYNC_REQUEST_INVALID when it is not any more. */
  readonly understand: (entry: JobEntry) => Job
  readonly nextDueOf: (job: Job, afterMs: number) => number | null
  readonly stop: (timeoutMs: number) => Promise<void>
}

/** How often what other processes did is looked for. */
const POLL_MS = 2_000
const BEAT_MS = 3_000
/** A process that was silent for so long is taken for dead. */
const ALIVE_SECONDS = 20
/** One that has not reached the database for so long ends its steps: with a beat and the grace of a program it is done before others begin. */
const FENCE_MS = 12_000
/** Runs of one process at once, and of a site. */
const RUNS_MAX = 16
const SITE_MAX = 64
const PRUNE_MS = 3_600_000
/** No two due times of a job are closer. */
const TICK_MS = 1_000
/** After a definition that is not understood any more. */
const CONFUSED_MS = 3_600_000

export async function startEngine(deps: EngineDeps): Promise<Engine> {
  const { store, site, events, onError } = deps
  const workerId = randomUUID()
  const active = new Map<
    string,
    { readonly control: RunControl; readonly done: Promise<unknown>; toldAt: string | null }
  >()
  const understood = new Map<string, Job>()
  const executor: ExecutorDeps = {
    store,
    site,
    workerId,
    events,
    onError,
    fire: (trx, happened) => fireIn(trx, happened),
    handlers: new Map(deps.parts.steps.map((handler) => [handler.kind, handler as never])),
    keepers: new Map(deps.parts.leases.map((keeper) => [keeper.kind, keeper as never])),
  }
  let stopping = false
  let heardAt = performance.now()
  let prunedAt = performance.now()
  if (!store.server && deps.work) await forgetWorkers(store.db)

  const understand = (entry: JobEntry): Job => {
    const key = `${entry.id} ${entry.revision}`
    const known = understood.get(key)
    if (known !== undefined) return known
    const { job, faults } = deps.check.check(entry.definition)
    if (job === undefined) {
      const text = faults.map(({ path, message }) => `${path} ${message}`).join('; ')
      throw new SynclineError('SYNC_REQUEST_INVALID', `job "${entry.name}" is not understood: ${text}`)
    }
    if (understood.size > 10_000) understood.clear()
    understood.set(key, job)
    return job
  }
  const seedOf = (name: string) => `${site.uuid} job ${name}`
  const nextDueOf = (job: Job, afterMs: number) => nextDue(job.triggers, seedOf(job.name), afterMs)

  const decideDue = (entry: DueJobRow, standing: JobStanding, nowMs: number): DueDecision => {
    let job: Job
    try {
      job = understand(entry)
    } catch (error) {
      const reason = (error as Error).message
      return {
        runs: [],
        skipped: [{ dueMs: entry.dueMs, reason, definition: entry.definition }],
        coalesced: 0,
        nextDueMs: nowMs + CONFUSED_MS,
      }
    }
    const definition = job as unknown as Json
    // A look that comes late finds several: none of them is passed over in silence.
    const late = nowMs - entry.dueMs >= TICK_MS
    const others = late ? duesBetween(job.triggers, seedOf(job.name), entry.dueMs, nowMs) : []
    const dues = [entry.dueMs, ...others]
    const { run, skipped } = decideMissed(job.missed, dues, nowMs)
    const left = skipped.map((dueMs) => ({ dueMs, reason: 'missed: nothing ran here at that time', definition }))
    const runs: NewRun[] = []
    let { begun, queued } = standing
    let coalesced = 0
    for (const dueMs of run) {
      const arrival = decideArrival(job, 'schedule', { begun, queued })
      events.jobQueued({ job: job.name, cause: 'schedule', does: arrival.does })
      if (arrival.does === 'skip') left.push({ dueMs, reason: arrival.reason, definition })
      if (arrival.does === 'coalesce') coalesced += 1
      if (arrival.does !== 'begin') continue
      queued += 1
      const jitterMs = job.jitterSeconds === 0 ? 0 : offsetOf(`${seedOf(job.name)} ${dueMs}`, job.jitterSeconds * 1000)
      runs.push({ ...runOf(job, 'schedule'), dryRun: job.dryRun, dueMs, notBeforeMs: Math.max(dueMs + jitterMs, 0) })
    }
    return { runs, skipped: left, coalesced, nextDueMs: nextDueOf(job, Math.max(nowMs, entry.dueMs)) }
  }

  const requestIn = async (
    db: Store['db'],
    name: string,
    { cause, caller, dryRun }: Parameters<Engine['request']>[1],
  ): Promise<RequestedRun | null> => {
    let behind = false
    const made = await requestRun(db, name, {
      dryRun: (entry) => dryRun ?? understand(entry).dryRun,
      decide: (entry, standing) => {
        behind = standing.begun > 0
        return decideArrival(understand(entry), cause, standing).does
      },
      run: (entry) => ({ ...runOf(understand(entry), cause), caller }),
    })
    if (made === null) return null
    const does = made.does === 'begin' && behind ? 'after' : made.does
    events.jobQueued({ job: name, cause, does })
    return { runId: made.runId, does }
  }
  const request: Engine['request'] = async (name, wish) => {
    const made = await requestIn(store.db, name, wish)
    // People and signals are never left out.
    if (made === null) throw new Error(`the wish to run job ${name} was left out`)
    wake()
    return made
  }

  const fireIn = async (db: Store['db'], happened: readonly string[]) => {
    for (const name of happened.length === 0 ? [] : await jobsOnEvents(db, happened)) {
      try {
        await requestIn(db, name, { cause: 'event' })
      } catch (error) {
        // A job that is gone, or not understood any more, must not keep what happened from having happened.
        if (!(error instanceof SynclineError)) throw error
        onError(error)
      }
    }
  }
  const fire: Engine['fire'] = async (happened) => {
    await fireIn(store.db, happened)
    wake()
  }

  const begin = (run: TakenRun) => {
    // What was given up for a silent database may not have ended yet: taken again when it has.
    if (active.has(run.id)) return
    if (run.standing !== 'fresh') events.jobAdopted({ job: run.job, runId: run.id, standing: run.standing })
    const { control, done } = performRun(executor, run)
    const ended: Promise<unknown> = done
      // The run stays this process's until it is silent for too long; then another one goes on with it.
      .catch(onError)
      .finally(() => {
        active.delete(run.id)
        wake()
      })
    active.set(run.id, { control, done: ended, toldAt: null })
  }

  const look = async (): Promise<number> => {
    const pulse = await jobPulse(store.db)
    if (deps.schedule && pulse.due) while ((await takeDueJobs(store.db, decideDue)).more && !stopping);
    const free = RUNS_MAX - active.size
    if (deps.work && free > 0 && (pulse.runnable || pulse.due)) {
      const admit: Parameters<typeof takeRuns>[2]['admit'] = (run, running) => {
        const { limits } = run.definition as unknown as Job
        return limitReached({ ...run, limits }, running, SITE_MAX)
      }
      for (const run of await takeRuns(
        store.db,
        { id: workerId, host: site.host, pid: site.pid },
        { free, aliveSeconds: ALIVE_SECONDS, admit },
      ))
        begin(run)
    }
    if (deps.work && performance.now() - prunedAt > PRUNE_MS) {
      prunedAt = performance.now()
      await withLease(store, 'job history', () => pruneJobRuns(store.db)).catch((error: unknown) => {
        // Another process does it.
        if (!isActive(error)) throw error
      })
    }
    if (!pulse.due) return pulse.nextMs ?? POLL_MS
    return (await jobPulse(store.db)).nextMs ?? POLL_MS
  }

  let timer: NodeJS.Timeout | undefined
  let looking: Promise<void> | null = null
  let again = false
  const wake = () => {
    if (stopping) return
    again = true
    looking ??= lookOn().finally(() => {
      looking = null
    })
  }
  const lookOn = async () => {
    let nextMs = POLL_MS
    while (again && !stopping) {
      again = false
      try {
        nextMs = await look()
      } catch (error) {
        onError(error)
        nextMs = POLL_MS
      }
    }
    clearTimeout(timer)
    if (!stopping) timer = setTimeout(wake, Math.min(Math.max(nextMs, 1), POLL_MS))
  }

  const beat = async () => {
    if (active.size === 0) {
      heardAt = performance.now()
      return
    }
    // Asked before the question is sent: a run that begins meanwhile holds nothing yet in the answer.
    const wanted = new Map([...active].map(([id, { control }]) => [id, control.holding()]))
    const seconds = { alive: ALIVE_SECONDS, lease: LEASE_SECONDS }
    const sentAt = performance.now()
    const answer = await keepRunsAlive(store.db, workerId, [...wanted.keys()], seconds)
    heardAt = sentAt
    const alive = new Map(answer.map((each) => [each.id, each]))
    for (const [id, leases] of wanted) {
      const run = active.get(id)
      const mine = alive.get(id)
      if (run === undefined) continue
      if (mine === undefined) {
        // It may just have ended.
        if (await stillActive(id)) run.control.abandon('another process has the run')
        continue
      }
      if (mine.stop !== null && mine.stop.at !== run.toldAt) {
        run.toldAt = mine.stop.at
        run.control.end({ why: 'stopped', message: `stopped by ${mine.stop.by}` })
      }
      if (mine.leases.length < leases && run.control.holding() > 0)
        run.control.end({ why: 'lease', message: 'a lease that it holds was released or taken by somebody else' })
    }
  }
  const stillActive = async (id: string) => {
    await sleep(100)
    return active.has(id)
  }
  const fence = () => {
    // Another process may begin with these runs now.
    if (performance.now() - heardAt < FENCE_MS) return
    for (const { control } of active.values()) control.abandon('the database has not answered for too long')
  }
  let beating: Promise<void> | null = null
  const beats = setInterval(() => {
    fence()
    beating ??= beat()
      .catch(onError)
      .finally(() => {
        beating = null
      })
  }, BEAT_MS)
  wake()

  return {
    request,
    fire,
    wake: () => {
      // Also what a person asked of a run here is heard at once.
      beating ??= beat()
        .catch(onError)
        .finally(() => {
          beating = null
        })
      wake()
    },
    understand,
    nextDueOf,
    stop: async (timeoutMs) => {
      stopping = true
      clearTimeout(timer)
      await Promise.race([looking, sleep(timeoutMs, undefined, { ref: false })])
      for (const { control } of active.values()) control.handBack()
      const over = Promise.all([...active.values()].map(({ done }) => done))
      await Promise.race([over, sleep(timeoutMs, undefined, { ref: false })])
      clearInterval(beats)
      await beating
    },
  }
}

function runOf(job: Job, cause: Cause): Omit<NewRun, 'dryRun'> {
  return { cause, definition: job as unknown as Json, priority: job.priority, peers: job.peers }
}
