import { beginJobRun, type LeaseBlock, type LeaseHolder, type Store, type TakenRun } from '../store/index.ts'
import type { Json } from '../sync/index.ts'
import type { Guarded, Job } from './definition.ts'
import type { Blocked } from './plan.ts'
import type { HostLease, LeaseClaim, StepSite } from './step.ts'

/** What a run must find free and must hold before it begins, in the database and elsewhere. */

export type Keepers = ReadonlyMap<string, HostLease<unknown>>

export type HoldingDeps = {
  readonly store: Store
  readonly keepers: Keepers
  readonly site: StepSite
  readonly workerId: string
}

/** A lease in the database is stale when nobody renewed it for so long. Processes renew every few seconds. */
export const LEASE_SECONDS = 60
/** Elsewhere a renewal is a connection to another host. */
const HOST_LEASE_SECONDS = 240
const HOST_RENEW_MS = 60_000
/** Well before others may take it over, whoever cannot renew it has ended what it does. */
const HOST_SILENT_MS = (HOST_LEASE_SECONDS * 1000) / 2
/** One question to another host. */
const ASK_MS = 60_000

const IN_DATABASE = new Set(['lease', 'job'])

/**
 * Takes everything or nothing, and only while all gates are free. Elsewhere: leases are taken first, in one order, and gates looked at while they are
 * held; two runs that wait for each other's locks both step back. In the database: one transaction, in which the run begins.
 */
export async function tryBegin(
  deps: HoldingDeps,
  run: TakenRun,
  job: Job,
  state: Json,
  signal: AbortSignal,
): Promise<Blocked | 'begun' | 'lost'> {
  const gates = run.standing === 'fresh' ? job.gates : []
  const outside = gates.filter(({ kind }) => !IN_DATABASE.has(kind))
  const before = await firstOccupied(deps, outside, signal)
  if (before !== null) return before
  const held = await takeOutside(deps, run, job, signal)
  if (held !== null) return held
  try {
    const after = outsideLeases(job).length > 0 ? await firstOccupied(deps, outside, signal) : null
    if (after !== null) return await steppedBack(deps, run, job, after)
    const names = (list: readonly Guarded[], kind: string) =>
      list.filter((each) => each.kind === kind).map(({ settings }) => String(settings))
    const wish = {
      hold: names(job.leases, 'lease'),
      freeLeases: names(gates, 'lease'),
      freeJobs: names(gates, 'job'),
      runId: run.id,
    }
    const began = await beginJobRun(
      deps.store.db,
      { id: run.id, worker: deps.workerId, state },
      wish,
      holderOf(deps, run),
    )
    if (typeof began === 'string') return began
    return await steppedBack(deps, run, job, { by: guardOf([...job.leases, ...gates], began), reason: began.reason })
  } catch (error) {
    await releaseOutside(deps, run, job)
    throw error
  }
}

async function steppedBack(deps: HoldingDeps, run: TakenRun, job: Job, blocked: Blocked): Promise<Blocked> {
  await releaseOutside(deps, run, job)
  return blocked
}

/** The first gate that is not free. Without changing anything, so also for a plan. */
export async function firstOccupied(
  { keepers }: Pick<HoldingDeps, 'keepers'>,
  gates: readonly Guarded[],
  signal: AbortSignal,
): Promise<Blocked | null> {
  for (const gate of gates) {
    const keeper = keepers.get(gate.kind)
    if (keeper === undefined)
      return { by: gate, reason: `${gate.label} cannot be checked here: nobody knows ${gate.kind}` }
    try {
      const seen = await keeper.look(gate.settings, bounded(signal))
      if (!seen.free) return { by: gate, reason: seen.reason }
    } catch (error) {
      return { by: gate, reason: `${gate.label} cannot be checked: ${(error as Error).message}` }
    }
  }
  return null
}

async function takeOutside(deps: HoldingDeps, run: TakenRun, job: Job, signal: AbortSignal): Promise<Blocked | null> {
  for (const lease of outsideLeases(job)) {
    const keeper = deps.keepers.get(lease.kind)
    const blocked = await (async (): Promise<string | null> => {
      if (keeper === undefined) return `${lease.label} cannot be taken here: nobody knows ${lease.kind}`
      try {
        const taken = await keeper.take(lease.settings, claimOf(deps, run), bounded(signal))
        return taken.taken ? null : taken.reason
      } catch (error) {
        return `${lease.label} cannot be taken: ${(error as Error).message}`
      }
    })()
    if (blocked === null) continue
    // Also the one that failed: it may have been taken before the connection broke.
    await releaseOutside(deps, run, job)
    return { by: lease, reason: blocked }
  }
  return null
}

/** Lets go of what is held elsewhere. What cannot be released goes stale by itself; gives what was said about it. */
export async function releaseOutside(deps: HoldingDeps, run: TakenRun, job: Job): Promise<readonly string[]> {
  const told = await Promise.all(
    outsideLeases(job).map(async (lease) => {
      try {
        await deps.keepers.get(lease.kind)?.release(lease.settings, claimOf(deps, run), AbortSignal.timeout(ASK_MS))
        return []
      } catch (error) {
        return [`${lease.label} could not be released and goes stale by itself: ${(error as Error).message}`]
      }
    }),
  )
  return told.flat()
}

/** Renews what is held elsewhere for as long as the run goes. `lost` hears of a lease that is no longer held. Gives what ends it. */
export function keepOutside(deps: HoldingDeps, run: TakenRun, job: Job, lost: (reason: string) => void): () => void {
  const leases = outsideLeases(job)
  if (leases.length === 0) return () => {}
  const renewedAt = new Map(leases.map((lease) => [lease.label, performance.now()]))
  const renew = async (lease: Guarded) => {
    try {
      const held = await deps.keepers
        .get(lease.kind)
        ?.renew(lease.settings, claimOf(deps, run), AbortSignal.timeout(ASK_MS))
      if (held === true) renewedAt.set(lease.label, performance.now())
      else lost(`${lease.label} is no longer held`)
    } catch (error) {
      const ageMs = performance.now() - (renewedAt.get(lease.label) ?? 0)
      if (ageMs >= HOST_SILENT_MS)
        lost(`${lease.label} could not be renewed for ${Math.round(ageMs / 1000)} s: ${(error as Error).message}`)
    }
  }
  const timer = setInterval(() => void Promise.all(leases.map(renew)), HOST_RENEW_MS)
  return () => clearInterval(timer)
}

function outsideLeases(job: Job): readonly Guarded[] {
  return job.leases.filter(({ kind }) => !IN_DATABASE.has(kind)).sort((a, b) => (a.label < b.label ? -1 : 1))
}

function guardOf(all: readonly Guarded[], block: LeaseBlock): Guarded {
  const found = all.find(({ kind, settings }) => kind === block.kind && settings === block.name)
  if (found === undefined) throw new Error(`${block.kind} ${block.name} was not asked for`)
  return found
}

function holderOf({ site }: HoldingDeps, run: TakenRun): LeaseHolder {
  return {
    token: run.token,
    owner: run.job,
    runId: run.id,
    site: site.name,
    host: site.host,
    pid: site.pid,
    peerId: null,
    seconds: LEASE_SECONDS,
  }
}

function claimOf({ site }: HoldingDeps, run: TakenRun): LeaseClaim {
  return { token: run.token, runId: run.id, job: run.job, site, ttlSeconds: HOST_LEASE_SECONDS }
}

function bounded(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)])
}
