import {
  addReports,
  adopt,
  type Brake,
  Braked,
  type BrakeFacts,
  brakesWith,
  compileFilter,
  createGuard,
  emptyReport,
  endBrake,
  type Guard,
  livingCount,
  openBrake,
  type PreviewedWrites,
  previewPull,
  readForRepair,
  repairPassOf,
  rolledBack,
  type Store,
  useBrake,
} from '../store/index.ts'
import { type BrakePlace, brakesOf, judgeBrakes, type LineBatch, SynclineError, type Trip } from '../sync/index.ts'
import type { PreviewedPart } from './preview.ts'
import { behindTriggers, type Repairing, type RepairLink, without } from './repair-records.ts'

/** What of one resource a repair would do, and why it would be stopped. */
export type RepairPlan = {
  readonly parts: readonly PreviewedPart[]
  /** Records of either side that would be made changes of it, since they were changed behind its triggers. */
  readonly adopted: { readonly here: number; readonly there: number }
  readonly braked: readonly string[]
  /** What of that a person may let pass. */
  readonly trips: readonly Trip[]
  readonly facts: BrakeFacts
}

/** What a repair has written so far of one resource, by its earlier passes. */
export type Spent = {
  deletes: number
  changes: number
  pushedDeletes: number
  pushedChanges: number
  /** Records that were applied here. */
  written: number
}

/** Records asked for at once, and how much of their values is held before it is tried and let go. */
export const IDS_MAX = 100
const HELD_MAX = 16 << 20
const REJECTIONS_MAX = 50
/** Ids that a brake shows. */
const SAMPLES = 10

/**
 * What repairing some resources would do, by the code that does it: what would be pulled is applied in a transaction that is rolled back, what would be
 * pushed is tried by the peer in the same way. Nothing is written here or there (I10). In order of dependency, so that children find their parents.
 */
export async function planRepairs(
  link: RepairLink,
  all: readonly Repairing[],
  spent: ReadonlyMap<string, Spent>,
): Promise<ReadonlyMap<string, RepairPlan>> {
  const pulls = await planPulls(
    link,
    all.filter(({ task }) => task.mode !== 'push'),
  )
  const plans = new Map<string, RepairPlan>()
  for (const each of all) {
    const { resource, task } = each
    const { here, there } = behindTriggers(each.verified.differences)
    const pull = pulls.get(resource.name)
    const push = task.mode === 'pull' ? null : await planPush(link, each)
    const { braked, trips, facts } = await judge(link, each, spent.get(resource.name), pull, push)
    const part = (found: PreviewedPart | null | undefined, direction: 'pull' | 'push') =>
      found == null ? [] : [{ ...found, braked: [...braked[direction], ...found.braked] }]
    plans.set(resource.name, {
      parts: [...part(pull, 'pull'), ...part(push, 'push')],
      adopted: { here: here.ids.length + here.edited.length, there: there.ids.length + there.edited.length },
      braked: [...new Set([...braked.pull, ...braked.push, ...(push?.braked ?? [])])],
      trips,
      facts,
    })
  }
  return plans
}

async function planPulls(link: RepairLink, all: readonly Repairing[]): Promise<ReadonlyMap<string, PreviewedPart>> {
  const { store, link: exchange, limits } = link
  const parts = new Map(all.map(({ resource }) => [resource.name, emptyPart('pull')]))
  const began = performance.now()
  let held: { readonly of: Repairing; readonly batches: LineBatch[] }[] = []
  let bytes = 0
  const flush = async () => {
    const pulls = held.map(({ of, batches }) => ({ task: of.task, resource: of.resource.name, batches }))
    const tried = await previewPull(store, exchange, pulls, limits, Number.POSITIVE_INFINITY)
    for (const found of tried) {
      const part = parts.get(found.resource) ?? emptyPart('pull')
      const report = addReports({ ...emptyReport(), counts: part.counts, rejections: part.rejections }, found.report)
      parts.set(found.resource, {
        ...part,
        changes: part.changes + found.changes,
        batches: part.batches + found.batches,
        counts: report.counts,
        rejections: report.rejections.slice(0, REJECTIONS_MAX),
        writes: sum(part.writes, found.writes),
        samples: [...part.samples, ...found.samples].slice(0, REJECTIONS_MAX),
        estimateMs: Math.round(performance.now() - began),
      })
    }
    held = []
    bytes = 0
  }
  for (const of of all) {
    const batches: LineBatch[] = []
    held.push({ of, batches })
    for await (const { batch, size } of pulledBatches(link, of, of.verified.differing)) {
      const part = parts.get(of.resource.name) ?? emptyPart('pull')
      parts.set(of.resource.name, { ...part, bytes: part.bytes + size })
      held.at(-1)?.batches.push(batch)
      bytes += size
      if (bytes < HELD_MAX) continue
      await flush()
      held.push({ of, batches: [] })
    }
  }
  await flush()
  return parts
}

/** The records as the peer has them, as many at once as one answer holds; the rest is asked for again. */
export async function* pulledBatches(
  { client, signal }: RepairLink,
  { resource, task }: Repairing,
  ids: readonly string[],
): AsyncIterable<{ readonly batch: LineBatch; readonly size: number }> {
  const { filter, columns } = task
  for (let at = 0; at < ids.length; at += IDS_MAX) {
    for (let left = ids.slice(at, at + IDS_MAX); left.length > 0; ) {
      signal?.throwIfAborted()
      const batches = await client.pullForRepair({ resource: resource.name, ids: left, filter, columns, signal })
      for (const { next: _, ...batch } of batches) if (batch.count > 0) yield { batch, size: batch.text.length }
      left = [...without(left, batches)]
    }
  }
}

/** What the peer would make of our records, those included that are taken up from behind the triggers first. */
async function planPush(link: RepairLink, each: Repairing): Promise<PreviewedPart> {
  const { store, client, signal, limits } = link
  const { resource, task, verified } = each
  const began = performance.now()
  const { here } = behindTriggers(verified.differences)
  const filter = task.filter === null ? undefined : await compileFilter(store, resource, task.filter)
  let part = emptyPart('push')
  let report = emptyReport()
  const braked = new Set<string>()
  for (let at = 0; at < verified.differing.length; at += IDS_MAX) {
    for (let left: readonly string[] = verified.differing.slice(at, at + IDS_MAX); left.length > 0; ) {
      signal?.throwIfAborted()
      const ids = left
      const own = {
        ids: here.ids.filter((id) => ids.includes(id)),
        edited: here.edited.filter((id) => ids.includes(id)),
      }
      const batches = await rolledBack(store, async (trx) => {
        if (own.ids.length + own.edited.length > 0) await adopt(trx, resource, own.ids, own.edited)
        const { peer } = link.link
        const request = {
          resource,
          ids,
          columns: task.columns,
          filter,
          peerId: peer.id,
          bytesMax: limits.batchBytesMax,
        }
        return readForRepair(trx, request)
      })
      for (const batch of batches) {
        if (batch.count === 0) continue
        const sent = await client.push(batch, signal, { preview: 'values' })
        if (sent.preview === undefined)
          throw new SynclineError('SYNC_PEER_REFUSED', 'the peer does not tell what a push would do')
        report = addReports(report, sent.report)
        if (sent.preview.braked !== null) braked.add(sent.preview.braked)
        part = {
          ...part,
          changes: part.changes + batch.count,
          bytes: part.bytes + sent.bytes,
          batches: part.batches + 1,
          writes: sum(part.writes, sent.preview),
        }
      }
      left = without(left, batches)
    }
  }
  return {
    ...part,
    counts: report.counts,
    rejections: report.rejections.slice(0, REJECTIONS_MAX),
    braked: [...braked],
    estimateMs: part.changes === 0 ? null : Math.round(performance.now() - began),
  }
}

/** Why the brakes of the task stop it, by direction, with all that is due and all that was done before. */
async function judge(
  { store, link }: RepairLink,
  { resource, task, verified }: Repairing,
  spent: Spent | undefined,
  pull: PreviewedPart | undefined,
  push: PreviewedPart | null,
): Promise<
  Pick<RepairPlan, 'trips' | 'facts'> & { readonly braked: Readonly<Record<'pull' | 'push', readonly string[]>> }
> {
  const mine = await brakesOn(store, link.peer.id, resource.name)
  const waiting = mine.find(({ releasedAt, direction }) => releasedAt === null && direction !== 'repair')
  const stopped =
    waiting === undefined ? [] : [`brake ${waiting.token} of "${resource.name}" waits for a release: ${waiting.reason}`]
  const brakes = { ...brakesOf(task), emptyGuard: false, canary: null }
  const endless = !verified.complete && (brakes.maxDeletes !== null || brakes.maxChanges !== null)
  const many = endless ? [`more than ${verified.differing.length} records of "${resource.name}" differ`] : []
  const { there } = behindTriggers(verified.differences)
  const gone = verified.differences.filter(({ what }) => what === 'row gone there').length
  const living = await livingCount(store.db, resource)
  // What is to be deleted at the peer lives there still, and here no more.
  const before = { pull: spent?.deletes ?? 0, push: (spent?.pushedDeletes ?? 0) + (push?.writes.deletes ?? 0) }
  const say = (direction: 'pull' | 'push', deletes: number, changes: number) => {
    const place: BrakePlace = { direction, peer: link.peer.name, resource: resource.name }
    const pass = repairPassOf(mine.find(isRepairs), direction)
    const weight = { deletes, changes, living: living + before[direction], empty: false, held: 0, canary: null }
    return judgeBrakes(weight, brakes, place, pass)
  }
  const pulled = pull?.writes ?? NO_WRITES
  const pushed = push?.writes ?? NO_WRITES
  const deletes = before.pull + pulled.deletes + (pull === undefined ? 0 : gone)
  const changes = (spent?.changes ?? 0) + pulled.updates + (pull === undefined ? 0 : there.edited.length)
  const pushedAll = { deletes: before.push, changes: (spent?.pushedChanges ?? 0) + pushed.updates }
  const trips = { pull: say('pull', deletes, changes), push: say('push', pushedAll.deletes, pushedAll.changes) }
  const reasons = (direction: 'pull' | 'push') => [...stopped, ...many, ...trips[direction].map(({ reason }) => reason)]
  return {
    braked: { pull: reasons('pull'), push: reasons('push') },
    trips: [...trips.pull, ...trips.push],
    facts: {
      ...{ deletes: deletes + pushedAll.deletes, changes: changes + pushedAll.changes, living },
      ...{ pushed: pushedAll, samples: verified.differing.slice(0, SAMPLES) },
    },
  }
}

function isRepairs({ direction }: Brake): boolean {
  return direction === 'repair'
}

/**
 * The error of a repair that was stopped, with the token of each brake that a person may release: what a brake is about is written down, unless there is
 * something in the way that no word of a person here removes.
 */
export async function stopRepair(
  link: RepairLink,
  all: readonly Repairing[],
  plans: ReadonlyMap<string, RepairPlan>,
  { written, deep }: { readonly written: number; readonly deep: boolean },
): Promise<SynclineError> {
  const { store, runId } = link
  const { id: peerId, name } = link.link.peer
  const tokens: string[] = []
  for (const { resource } of all) {
    const { trips = [], facts } = plans.get(resource.name) ?? {}
    if (facts === undefined || trips.length === 0) continue
    const rules = [...new Set(trips.map(({ rule }) => rule))]
    const reason = trips.map((trip) => trip.reason).join('; ')
    const place = { peerId, resourceId: resource.id, direction: 'repair', runId } as const
    const { token } = await openBrake(store.db, { ...place, rules, reason, facts: { ...facts, deep } })
    tokens.push(token)
  }
  const reasons = [...plans.values()].flatMap((plan) => plan.braked)
  const commands = tokens.map((token) => `syncline verify ${name} --release ${token}`)
  return stopOf([...new Set(reasons)], written, commands)
}

/** Notes that a repair goes on by the releases of its brakes; `over` that they have done what they were given for. */
export async function useRepairBrakes(link: RepairLink, resources: readonly string[], over: boolean): Promise<void> {
  for (const brake of await brakesWith(link.store.db, link.link.peer.id)) {
    if (!isRepairs(brake) || brake.releasedAt === null || !resources.includes(brake.resource ?? '')) continue
    if (over) await endBrake(link.store.db, brake.id, 'used')
    else await useBrake(link.store.db, brake.id)
  }
}

async function brakesOn(store: Store, peerId: number, resource: string) {
  return (await brakesWith(store.db, peerId)).filter((each) => [null, resource].includes(each.resource))
}

/** Counts again in the transactions that write: what was not there when it was weighed. `committed` says that the batch that it saw last is written. */
export async function guardOf(
  { store, link }: RepairLink,
  { resource, task }: Repairing,
  spent: Spent,
): Promise<{ readonly guard: Guard; readonly committed: () => void }> {
  const released = (await brakesOn(store, link.peer.id, resource.name)).find(isRepairs)
  const place: BrakePlace = { direction: 'pull', peer: link.peer.name, resource: resource.name }
  let pending = { deletes: 0, changes: 0 }
  const meter = {
    read: async () => ({ deletes: spent.deletes, changes: spent.changes }),
    add: async (_trx: unknown, now: typeof pending) => {
      pending = now
    },
  }
  const committed = () => {
    spent.deletes += pending.deletes
    spent.changes += pending.changes
    pending = { deletes: 0, changes: 0 }
  }
  return { guard: createGuard(resource, brakesOf(task), place, meter, () => repairPassOf(released, 'pull')), committed }
}

/** A repair that was stopped: nothing of it was written where it was weighed. */
export function stopOf(reasons: readonly string[], written: number, commands: readonly string[] = []): SynclineError {
  const what = written === 0 ? 'nothing was written' : `${written} records were written before`
  const meant = commands.length === 0 ? '' : `. If it is meant: ${commands.join('; ')}`
  return new SynclineError('SYNC_RUN_BRAKED', `${reasons.join('; ')}. The repair was stopped, ${what}${meant}`)
}

export function isBraked(error: unknown): error is Braked {
  return error instanceof Braked
}

const NO_WRITES: PreviewedWrites = { inserts: 0, updates: 0, deletes: 0 }

function sum(a: PreviewedWrites, b: PreviewedWrites): PreviewedWrites {
  return { inserts: a.inserts + b.inserts, updates: a.updates + b.updates, deletes: a.deletes + b.deletes }
}

function emptyPart(direction: 'pull' | 'push'): PreviewedPart {
  return {
    ...{ direction, changes: 0, bytes: 0, batches: 0, complete: true, counts: emptyReport().counts, writes: NO_WRITES },
    ...{ samples: [], rejections: [], braked: [], estimateMs: null, failure: null },
  }
}
