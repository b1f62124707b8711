import {
  allJobs,
  applyJobs,
  type CheckedJob,
  compareJobs,
  findJob,
  type JobChange,
  jobsToSignal,
  listLeases,
  openJobRuns,
  type Store,
  stopJobRuns,
} from '../store/index.ts'
import type { Json } from '../sync/index.ts'
import type { JobCheck } from './check.ts'
import type { Guarded, Job, Parts, Step } from './definition.ts'
import type { Engine, RequestedRun } from './engine.ts'
import { firstOccupied, type Keepers } from './holding.ts'
import type { Stage } from './plan.ts'
import type { Fault, JsonSchema, StepHandler, StepPlan, StepSite } from './step.ts'

/** What becomes of definitions: with faults nothing is changed. Paths are JSON Pointers that begin with the place in the list. */
export type Applied = { readonly faults: readonly Fault[]; readonly changes: readonly JobChange[] }

export type GuardPlan = { readonly label: string; readonly free: boolean; readonly reason: string | null }

/** What a run would do now. Nothing is taken, begun or written. */
export type JobPlan = {
  readonly job: string
  readonly dryRun: boolean
  readonly gates: readonly GuardPlan[]
  readonly leases: readonly GuardPlan[]
  readonly steps: readonly {
    readonly name: string
    readonly kind: string
    readonly stage: Stage
    readonly plan: StepPlan | null
    /** Why it cannot be told. */
    readonly failure: string | null
  }[]
}

/** What people and programs ask of the jobs of this site. */
export type JobDesk = {
  readonly schema: () => JsonSchema
  readonly compare: (definitions: readonly unknown[], prune: boolean) => Promise<Applied>
  readonly apply: (definitions: readonly unknown[], prune: boolean) => Promise<Applied>
  /** Errors: SYNC_REQUEST_NOT_FOUND. */
  readonly run: (
    name: string,
    wish: { readonly caller: string; readonly dryRun?: boolean | undefined },
  ) => Promise<RequestedRun>
  /** Everything that the clock runs, and what waits for the signal. */
  readonly runAll: () => Promise<readonly string[]>
  /** Gives the runs that were asked to stop. Errors: SYNC_REQUEST_NOT_FOUND. */
  readonly stop: (name: string, runId: string | undefined, caller: string) => Promise<readonly string[]>
  readonly plan: (name: string, signal: AbortSignal) => Promise<JobPlan>
}

const PLAN_MS = 300_000

export function createDesk(deps: {
  readonly store: Store
  readonly check: JobCheck
  readonly parts: Parts
  readonly engine: Engine
  readonly site: StepSite
}): JobDesk {
  const { store, check, parts, engine, site } = deps
  const handlers = new Map(parts.steps.map((handler) => [handler.kind, handler as StepHandler<unknown>]))
  const keepers: Keepers = new Map(parts.leases.map((keeper) => [keeper.kind, keeper as never]))

  const checked = async (definitions: readonly unknown[], prune: boolean) => {
    const faults: Fault[] = []
    const jobs: CheckedJob[] = []
    const places = new Map<string, number>()
    for (const [n, definition] of definitions.entries()) {
      const { job, faults: found } = check.check(definition)
      for (const { path, message } of found) faults.push({ path: `/${n}${path}`, message })
      if (job === undefined) continue
      if (jobs.some(({ name }) => name === job.name))
        faults.push({ path: `/${n}/name`, message: `there are two jobs "${job.name}"` })
      const dueMs = engine.nextDueOf(job, Date.now())
      const events = job.triggers.flatMap((trigger) => (trigger.kind === 'event' ? [trigger.event] : []))
      places.set(job.name, n)
      const nextDue = dueMs === null ? null : new Date(dueMs)
      jobs.push({ name: job.name, definition: definition as Json, enabled: job.enabled, events, nextDue })
    }
    const others = prune ? [] : (await allJobs(store.db)).filter(({ name }) => !places.has(name))
    const known = new Map([...others, ...jobs].map(({ name, events }) => [name, events]))
    for (const [name, n] of places) {
      const circle = circleOf(name, known)
      if (circle !== null)
        faults.push({ path: `/${n}/schedule`, message: `a job must not set itself off: ${circle.join(' → ')}` })
    }
    return { faults, jobs }
  }

  const lookAtGuards = async (job: Job, signal: AbortSignal) => {
    const leases = await listLeases(store.db)
    const runs = await openJobRuns(store.db)
    return async (guard: Guarded): Promise<GuardPlan> => {
      const { label, kind, settings } = guard
      const held = kind === 'lease' ? leases.find(({ name }) => name === settings) : undefined
      const busy = kind === 'job' ? runs.find((run) => run.job === settings && run.phase === 'running') : undefined
      if (held !== undefined)
        return { label, free: false, reason: `held by ${held.owner} on ${held.host} since ${held.takenAt}` }
      if (busy !== undefined) return { label, free: false, reason: `run ${busy.id} of job ${job.name} is under way` }
      if (kind === 'lease' || kind === 'job') return { label, free: true, reason: null }
      const blocked = await firstOccupied({ keepers }, [guard], signal)
      return { label, free: blocked === null, reason: blocked?.reason ?? null }
    }
  }

  const planStep = async (job: Job, step: Step, stage: Stage, signal: AbortSignal) => {
    const about = { name: step.name, kind: step.kind, stage }
    try {
      const context = { signal, job: job.name, step: step.name, site, now: () => Date.now() }
      const plan = await handlers.get(step.kind)?.plan(step.settings, context)
      return { ...about, plan: plan ?? null, failure: null }
    } catch (error) {
      return { ...about, plan: null, failure: (error as Error).message }
    }
  }

  return {
    schema: () => check.schema,
    compare: async (definitions, prune) => {
      const { faults, jobs } = await checked(definitions, prune)
      return { faults, changes: faults.length > 0 ? [] : await compareJobs(store.db, jobs, prune) }
    },
    apply: async (definitions, prune) => {
      const { faults, jobs } = await checked(definitions, prune)
      if (faults.length > 0) return { faults, changes: [] }
      const changes = await applyJobs(store.db, jobs, prune)
      engine.wake()
      return { faults, changes }
    },
    run: (name, { caller, dryRun }) => engine.request(name, { cause: 'hand', caller, dryRun }),
    runAll: async () => {
      const names: string[] = []
      const failures: unknown[] = []
      for (const entry of await jobsToSignal(store.db)) {
        try {
          const { triggers } = engine.understand(entry)
          if (!triggers.some(({ kind }) => kind === 'cron' || kind === 'every' || kind === 'signal')) continue
          await engine.request(entry.name, { cause: 'signal' })
          names.push(entry.name)
        } catch (error) {
          // One job that is not understood any more does not keep the others from running.
          failures.push(error)
        }
      }
      if (failures.length > 0) throw failures[0]
      return names
    },
    stop: async (name, runId, caller) => {
      const runs = await stopJobRuns(store.db, { job: name, runId }, caller)
      if (runs.length === 0) await findJob(store.db, name)
      engine.wake()
      return runs
    },
    plan: async (name, signal) => {
      const job = engine.understand(await findJob(store.db, name))
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(PLAN_MS)])
      const look = await lookAtGuards(job, bounded)
      const steps: Awaited<ReturnType<typeof planStep>>[] = []
      // One after the other, as a run would: they may ask the same hosts.
      for (const step of job.steps) steps.push(await planStep(job, step, 'steps', bounded))
      for (const step of job.always) steps.push(await planStep(job, step, 'always', bounded))
      const gates = await Promise.all(job.gates.map(look))
      const leases = await Promise.all(job.leases.map(look))
      return { job: job.name, dryRun: job.dryRun, gates, leases, steps }
    },
  }
}

/** The jobs by whose ends a job sets itself off, from it back to it; null when it does not. */
function circleOf(name: string, events: ReadonlyMap<string, readonly string[]>): readonly string[] | null {
  const cameFrom = new Map<string, string | null>([[name, null]])
  for (const [at] of cameFrom) {
    for (const event of events.get(at) ?? []) {
      const before = /^job (\S+)/.exec(event)?.[1]
      if (before === undefined) continue
      if (before === name) return [name, ...pathTo(at, cameFrom)]
      if (!cameFrom.has(before)) cameFrom.set(before, at)
    }
  }
  return null
}

function pathTo(at: string, cameFrom: ReadonlyMap<string, string | null>): readonly string[] {
  const path: string[] = []
  for (let each: string | null = at; each !== null; each = cameFrom.get(each) ?? null) path.push(each)
  return path
}
