import { setTimeout as sleep } from 'node:timers/promises'
import {
  findTaskFor,
  finishRun,
  loadResources,
  type Peer,
  setRunState,
  startRun,
  type Task,
  withPeerLease,
} from '../store/index.ts'
import { SynclineError } from '../sync/index.ts'
import { failureOf } from './failure.ts'
import { mappedLink } from './mapped.ts'
import type { PreviewReport } from './preview.ts'
import { carryOutRepair, nothingSpent } from './repair.ts'
import { planRepairs, type RepairPlan, type Spent, stopRepair, useRepairBrakes } from './repair-plan.ts'
import type { Repairing, RepairLink } from './repair-records.ts'
import type { RunnerDeps } from './runner.ts'
import { type Verified, verifyPeer } from './verify.ts'

export type RepairOptions = {
  readonly resources?: readonly string[] | undefined
  readonly deep: boolean
  /** Tells what it would do, and writes nothing. */
  readonly preview: boolean
  readonly signal?: AbortSignal | undefined
}

/** What a repair did, or would do, and what a comparison found afterwards. */
export type RepairReport = {
  readonly resources: readonly Verified[]
  /** The run that can be taken back; null where nothing differed, and for a preview. */
  readonly runId: string | null
  readonly adopted: number
  readonly applied: number
  readonly preview: PreviewReport | null
}

/** Passes: what one brings over may be what another record waited for. */
const PASSES_MAX = 3
/** Records of a resource that are looked for at most: with more of them the brakes could not be sure. */
const DIFFERING_MAX = 100_000
/** Ids that are reported of each resource. */
const NAMED_MAX = 10_000
/** How often a long repair says that it is alive; and how long a run that is under way is waited for. */
const ALIVE_MS = 2_000
const WAIT_ACTIVE_MS = 10_000
const WAIT_STEP_MS = 200

/**
 * Compares with a peer and exchanges what differs, as a run of its own: it stands in the log, what it replaces is kept under its id, and it can be taken
 * back. The brakes weigh all of it before any of it is written. Errors: SYNC_RUN_BRAKED, SYNC_PEER_PAUSED, SYNC_RUN_ACTIVE, those of the comparison.
 */
export async function repairPeer(deps: RunnerDeps, peer: Peer, options: RepairOptions): Promise<RepairReport> {
  if (peer.paused) throw new SynclineError('SYNC_PEER_PAUSED', `peer "${peer.name}" is paused`)
  for (const until = Date.now() + WAIT_ACTIVE_MS; ; ) {
    try {
      return await withPeerLease(deps.store, peer.id, (lost) => underLease(deps, peer, options, lost))
    } catch (error) {
      const active = error instanceof SynclineError && error.code === 'SYNC_RUN_ACTIVE'
      if (!active || Date.now() > until) throw error
      await sleep(WAIT_STEP_MS)
    }
  }
}

async function underLease(
  deps: RunnerDeps,
  peer: Peer,
  options: RepairOptions,
  lost: AbortSignal,
): Promise<RepairReport> {
  const { store, connections } = deps
  const began = performance.now()
  const signal = AbortSignal.any([lost, ...(options.signal ? [options.signal] : [])])
  const compare = () => verifyPeer({ store, connections }, peer, { ...options, namedMax: DIFFERING_MAX, signal })
  const found = await compare()
  const { client, all } = await repairing(deps, peer, found)
  const link = { store, client, limits: deps.limits, link: { self: await deps.self(), peer }, signal }
  const nothing = { runId: null, adopted: 0, applied: 0, preview: null }
  if (options.preview) {
    const plans = await planRepairs({ ...link, runId: null }, all, new Map())
    return { ...nothing, resources: named(found), preview: previewOf(peer, all, plans, began) }
  }
  if (all.length === 0) return { ...nothing, resources: named(found) }
  const { id: runId } = await startRun(store.db, { peer, cause: 'repair' })
  const alive = setInterval(() => void setRunState(store.db, runId, 'repair').catch(() => {}), ALIVE_MS)
  const done = { adopted: 0, applied: 0 }
  try {
    const left = await passes({ ...link, runId, deep: options.deep }, all, done, async () => {
      const again = await compare()
      return { found: again, all: (await repairing(deps, peer, again)).all }
    })
    const repaired = all.map(({ resource }) => resource.name)
    await useRepairBrakes({ ...link, runId }, repaired, true)
    const open = left.flatMap(({ differing }) => differing).length
    const message = `${done.applied} records applied, ${done.adopted} taken up from behind the triggers${open > 0 ? `; ${open} differ still` : ''}`
    await finishRun(store.db, runId, { result: open > 0 ? 'warning' : 'success', message, counts: done })
    return { resources: named(left), runId, ...done, preview: null }
  } catch (error) {
    const { code, detail } = failureOf(error, (err) => deps.events.internalError({ where: 'repair', err, runId }))
    const result = code === 'SYNC_RUN_BRAKED' ? 'fatal' : 'error'
    await finishRun(store.db, runId, { result, code, message: detail, counts: done })
    throw error
  } finally {
    clearInterval(alive)
  }
}

type Found = { readonly found: readonly Verified[]; readonly all: readonly Repairing[] }

/** Weighs everything, does it, and compares again, until nothing more can be done. */
async function passes(
  link: RepairLink & { readonly deep: boolean },
  first: readonly Repairing[],
  done: { adopted: number; applied: number },
  look: () => Promise<Found>,
): Promise<readonly Verified[]> {
  const spent = new Map<string, Spent>()
  let now: Found = { found: [], all: first }
  for (let pass = 0; pass < PASSES_MAX && now.all.length > 0; pass++) {
    const plans = await planRepairs(link, now.all, spent)
    const braked = [...plans.values()].some((plan) => plan.braked.length > 0)
    if (braked) throw await stopRepair(link, now.all, plans, { written: done.applied, deep: link.deep })
    await useRepairBrakes(
      link,
      now.all.map(({ resource }) => resource.name),
      false,
    )
    for (const each of now.all) {
      const name = each.resource.name
      const so = spent.get(name) ?? nothingSpent()
      spent.set(name, so)
      const { adopted, applied } = await carryOutRepair(link, each, so)
      done.adopted += adopted
      done.applied += applied
      const pushed = plans.get(name)?.parts.find(({ direction }) => direction === 'push')
      so.pushedDeletes += pushed?.writes.deletes ?? 0
      so.pushedChanges += pushed?.writes.updates ?? 0
    }
    now = await look()
  }
  return now.found
}

/** The resources that differ, parents before those that refer to them, with a client that knows the mappings of their tasks. */
async function repairing(deps: RunnerDeps, peer: Peer, found: readonly Verified[]) {
  const { store } = deps
  const resources = await loadResources(store.db)
  const tasks: Task[] = []
  const wanted = resources.filter(({ name }) =>
    found.some(({ resource, differences }) => resource === name && differences.some(({ left }) => left !== true)),
  )
  for (const { name } of wanted) {
    const task = await findTaskFor(store.db, peer.id, name)
    if (task !== null) tasks.push(task)
  }
  const { client } = await deps.connections.of(peer)
  const mapped = await mappedLink(store, peer.id, client, tasks, resources)
  const all = mapped.tasks.flatMap((task): Repairing[] => {
    const resource = resources.find(({ name }) => name === task.resource)
    const verified = found.find((each) => each.resource === task.resource)
    return resource === undefined || verified === undefined ? [] : [{ resource, task, verified }]
  })
  return { client: mapped.client, all }
}

function previewOf(
  peer: Peer,
  all: readonly Repairing[],
  plans: ReadonlyMap<string, RepairPlan>,
  began: number,
): PreviewReport {
  const tasks = all.map(({ resource: { name }, task: { mode } }) => {
    return { resource: name, mode, parts: plans.get(name)?.parts ?? [] }
  })
  return { peer: peer.name, tasks, newLog: false, durationMs: Math.round(performance.now() - began) }
}

function named(found: readonly Verified[]): readonly Verified[] {
  return found.map((each) => ({
    ...each,
    differing: each.differing.slice(0, NAMED_MAX),
    differences: each.differences.slice(0, NAMED_MAX),
  }))
}
