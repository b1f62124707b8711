import {
  adoptRecords,
  appendLog,
  applyPull,
  Braked,
  brakesWith,
  compileFilter,
  createGuard,
  type ExchangeLimits,
  type ExchangeLink,
  findResource,
  findTaskFor,
  type Guard,
  livingCount,
  passOf,
  type ResourceInfo,
  readForRepair,
  type Store,
  type Task,
  tombstonesAmong,
} from '../store/index.ts'
import { type BrakeDirection, brakesOf, judgeBrakes, type LineBatch, SynclineError } from '../sync/index.ts'
import type { PeerClient } from './peer-client.ts'
import type { Verified } from './verify.ts'
import type { Difference } from './walk.ts'

export type RepairDeps = {
  readonly store: Store
  readonly link: ExchangeLink
  readonly client: PeerClient
  readonly limits: ExchangeLimits
  readonly signal?: AbortSignal | undefined
}

/** What a repair did: records that were made changes of a site, and records that went over the link and were applied. */
export type Repaired = { readonly adopted: number; readonly applied: number }

const IDS_MAX = 100
const ADOPT_MAX = 1_000

/**
 * Brings records that differ over the ordinary way: those two sides have in other versions are exchanged by id and applied like any batch, so that versions
 * decide; what was changed behind the triggers of a side becomes a change of that side first. No other record is touched, and the brakes of the task
 * hold as in a run (I10). Errors: SYNC_RUN_BRAKED.
 */
export async function repairDifferences(deps: RepairDeps, verified: Verified): Promise<Repaired> {
  const { store, link, client, signal } = deps
  const resource = await findResource(store.db, verified.resource)
  const task = await findTaskFor(store.db, link.peer.id, resource.name)
  if (task === null || verified.differences.length === 0) return { adopted: 0, applied: 0 }
  const began = performance.now()
  const guard = await guardOf(deps, resource, task, verified)
  const { here, there } = behindTriggers(verified.differences)
  const ours = await adoptRecords(store, resource, here.ids, here.edited)
  let adopted = ours.inserted + ours.deleted + ours.changed
  for (const part of parts(there, ADOPT_MAX)) adopted += await adoptThere(client, resource.name, part, signal)
  let applied = 0
  for (let at = 0; at < verified.differing.length; at += IDS_MAX) {
    const ids = verified.differing.slice(at, at + IDS_MAX)
    if (task.mode !== 'push') applied += await pull(deps, resource, task, ids, guard)
    if (task.mode !== 'pull') applied += await push(deps, resource, task, ids)
  }
  await appendLog(store.db, {
    ...{
      peer: link.peer,
      resource: resource.name,
      mode: task.mode,
      direction: 'outgoing',
      action: 'repair',
      result: 'success',
    },
    message: `${verified.differing.length} records exchanged anew: ${applied} applied, ${adopted} taken up from behind the triggers`,
    ...{ changes: verified.differing.length, applied, durationMs: performance.now() - began },
  })
  return { adopted, applied }
}

/**
 * The brakes of a repair. What waits for a release stops it, and so does what would delete too much at the peer; what would be deleted or changed here is
 * counted by the guard that is given, in the transactions that write it.
 */
async function guardOf(
  { store, link }: RepairDeps,
  resource: ResourceInfo,
  task: Task,
  { differing, differences }: Verified,
): Promise<Guard> {
  const brakes = brakesOf(task)
  const mine = (await brakesWith(store.db, link.peer.id)).filter((each) =>
    [null, resource.name].includes(each.resource),
  )
  const waiting = mine.find(({ releasedAt }) => releasedAt === null)
  if (waiting !== undefined) {
    const detail = `brake ${waiting.token} of "${resource.name}" waits for a release: ${waiting.reason}`
    throw new SynclineError('SYNC_RUN_BRAKED', detail)
  }
  const place = (direction: BrakeDirection) => ({ direction, peer: link.peer.name, resource: resource.name })
  const pass = (direction: BrakeDirection) => passOf(mine.find((each) => each.direction === direction))
  const gone = differences.filter(({ what }) => what === 'row gone here').length
  const deletes = task.mode === 'pull' ? 0 : gone + (await tombstonesAmong(store.db, resource.id, differing))
  const living = (await livingCount(store.db, resource)) + deletes
  const weight = { deletes, changes: 0, living, empty: false, held: 0, canary: null }
  const trips = judgeBrakes(weight, { ...brakes, emptyGuard: false, canary: null }, place('push'), pass('push'))
  if (trips.length > 0) throw new Braked(trips, { deletes, changes: 0, living, samples: [] })
  let total = { deletes: 0, changes: 0 }
  const meter = {
    read: async () => total,
    add: async (_trx: unknown, now: typeof total) => {
      total = { deletes: total.deletes + now.deletes, changes: total.changes + now.changes }
    },
  }
  return createGuard(resource, brakes, place('pull'), meter, () => pass('pull'))
}

type Behind = { readonly ids: readonly string[]; readonly edited: readonly string[] }

/** Which side has to take up what. Values that differ in one version are those of the side whose row was written last; where none tells, ours. */
function behindTriggers(differences: readonly Difference[]): { readonly here: Behind; readonly there: Behind } {
  const ids = (kinds: readonly string[]) => differences.filter(({ what }) => kinds.includes(what)).map(({ id }) => id)
  const content = differences.filter(({ what }) => what === 'content')
  const theirs = content.filter(({ touched }) => touched?.there === true && !touched.here)
  return {
    here: {
      ids: ids(['row gone here', 'row unknown here']),
      edited: content.filter((each) => !theirs.includes(each)).map(({ id }) => id),
    },
    there: { ids: ids(['row gone there', 'row unknown there']), edited: theirs.map(({ id }) => id) },
  }
}

function* parts({ ids, edited }: Behind, size: number): Iterable<Behind> {
  for (let at = 0; at < Math.max(ids.length, edited.length); at += size)
    yield { ids: ids.slice(at, at + size), edited: edited.slice(at, at + size) }
}

async function adoptThere(client: PeerClient, resource: string, part: Behind, signal?: AbortSignal): Promise<number> {
  const { inserted, deleted, changed } = await client.adopt(resource, part, signal)
  const counts = [inserted, deleted, changed].map((count) => (Number.isSafeInteger(count) ? (count as number) : 0))
  return counts.reduce((sum, count) => sum + count, 0)
}

/** As many of the records as one answer holds; the rest is asked for again. */
async function pull(
  deps: RepairDeps,
  resource: ResourceInfo,
  task: Task,
  ids: readonly string[],
  guard: Guard,
): Promise<number> {
  const { store, link, client, limits, signal } = deps
  const { filter, columns } = task
  let applied = 0
  for (let left = ids; left.length > 0; ) {
    const batches = await client.pullForRepair({ resource: resource.name, ids: left, filter, columns, signal })
    for (const { next: _, ...batch } of batches) {
      if (batch.count === 0) continue
      const { counts } = await applyPull(store, link, { task, batch, runId: null, guard }, limits)
      applied += counts.applied + counts.merged
    }
    left = without(left, batches)
  }
  return applied
}

async function push(deps: RepairDeps, resource: ResourceInfo, task: Task, ids: readonly string[]): Promise<number> {
  const { store, link, client, limits, signal } = deps
  const filter = task.filter === null ? undefined : await compileFilter(store, resource, task.filter)
  const bytesMax = limits.batchBytesMax
  let applied = 0
  for (let left = ids; left.length > 0; ) {
    const request = { resource, ids: left, columns: task.columns, filter, peerId: link.peer.id, bytesMax }
    const batches = await readForRepair(store.db, request)
    for (const batch of batches) {
      if (batch.count === 0) continue
      const { report } = await client.push(batch, signal)
      applied += report.counts.applied + report.counts.merged
    }
    left = without(left, batches)
  }
  return applied
}

/** Answers come in key order, cut where they grow too large: what comes behind the last record is still due. Nothing more comes after an empty one. */
function without(ids: readonly string[], batches: readonly LineBatch[]): readonly string[] {
  const got = new Set(
    batches.flatMap(({ text }) =>
      text === '' ? [] : text.split('\n').map((line) => JSON.parse(line.slice(0, line.indexOf('\t'))) as string),
    ),
  )
  if (got.size === 0) return []
  const last = [...got].reduce((a, b) => (Buffer.compare(Buffer.from(a), Buffer.from(b)) < 0 ? b : a))
  return ids.filter((id) => Buffer.compare(Buffer.from(id), Buffer.from(last)) > 0)
}
