import {
  adoptRecords,
  appendLog,
  applyPull,
  compileFilter,
  type ExchangeLimits,
  type ExchangeLink,
  findResource,
  findTaskFor,
  type ResourceInfo,
  readForRepair,
  type Store,
  type Task,
} from '../store/index.ts'
import type { LineBatch } from '../sync/index.ts'
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
 * decide; what was changed behind the triggers of a side becomes a change of that side first. No other record is touched.
 */
export async function repairDifferences(deps: RepairDeps, verified: Verified): Promise<Repaired> {
  const { store, link, client, signal } = deps
  const resource = await findResource(store.db, verified.resource)
  const task = await findTaskFor(store.db, link.peer.id, resource.name)
  if (task === null || verified.differences.length === 0) return { adopted: 0, applied: 0 }
  const began = performance.now()
  const { here, there } = behindTriggers(verified.differences)
  const ours = await adoptRecords(store, resource, here.ids, here.edited)
  let adopted = ours.inserted + ours.deleted + ours.changed
  for (const part of parts(there, ADOPT_MAX)) adopted += await adoptThere(client, resource.name, part, signal)
  let applied = 0
  for (let at = 0; at < verified.differing.length; at += IDS_MAX) {
    const ids = verified.differing.slice(at, at + IDS_MAX)
    if (task.mode !== 'push') applied += await pull(deps, resource, task, ids)
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
async function pull(deps: RepairDeps, resource: ResourceInfo, task: Task, ids: readonly string[]): Promise<number> {
  const { store, link, client, limits, signal } = deps
  const { filter, columns } = task
  let applied = 0
  for (let left = ids; left.length > 0; ) {
    const batches = await client.pullForRepair({ resource: resource.name, ids: left, filter, columns, signal })
    for (const { next: _, ...batch } of batches) {
      if (batch.count === 0) continue
      const { counts } = await applyPull(store, link, { task, batch, runId: null }, limits)
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
