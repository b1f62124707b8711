import {
  adoptRecords,
  appendLog,
  applyPull,
  compileFilter,
  findResource,
  findTaskFor,
  readForRepair,
} from '../store/index.ts'
import type { PeerClient } from './peer-client.ts'
import { guardOf, IDS_MAX, isBraked, planRepairs, pulledBatches, type Spent, stopOf } from './repair-plan.ts'
import { type Behind, behindTriggers, type Repairing, type RepairLink, without } from './repair-records.ts'
import type { Verified } from './verify.ts'

/** What a repair did: records that were made changes of a site, and records that went over the link and were applied. */
export type Repaired = { readonly adopted: number; readonly applied: number }

const ADOPT_MAX = 1_000

/**
 * Brings records that differ over the ordinary way: those two sides have in other versions are exchanged by id and applied like any batch, so that versions
 * decide; what was changed behind the triggers of a side becomes a change of that side first. No other record is touched. All of it is weighed before
 * any of it is written, by the brakes of the task and those of the peer (I10). Errors: SYNC_RUN_BRAKED.
 */
export async function repairDifferences(link: RepairLink, verified: Verified): Promise<Repaired> {
  const resource = await findResource(link.store.db, verified.resource)
  const task = await findTaskFor(link.store.db, link.link.peer.id, resource.name)
  if (task === null || verified.differences.length === 0) return { adopted: 0, applied: 0 }
  const each = { resource, task, verified }
  const plan = (await planRepairs(link, [each], new Map())).get(resource.name)
  if (plan !== undefined && plan.braked.length > 0) throw stopOf(plan.braked, 0)
  return carryOutRepair(link, each, nothingSpent())
}

export function nothingSpent(): Spent {
  return { deletes: 0, changes: 0, pushedDeletes: 0, pushedChanges: 0, written: 0 }
}

/** Does what was weighed. Errors: SYNC_RUN_BRAKED where more came meanwhile than was weighed. */
export async function carryOutRepair(link: RepairLink, each: Repairing, spent: Spent): Promise<Repaired> {
  const { store, client, signal, runId } = link
  const { resource, task, verified } = each
  const began = performance.now()
  const { here, there } = behindTriggers(verified.differences)
  const ours = await adoptRecords(store, resource, here.ids, here.edited)
  let adopted = ours.inserted + ours.deleted + ours.changed
  for (const part of parts(there, ADOPT_MAX)) adopted += await adoptThere(client, resource.name, part, signal)
  let applied = 0
  for (let at = 0; at < verified.differing.length; at += IDS_MAX) {
    const ids = verified.differing.slice(at, at + IDS_MAX)
    if (task.mode !== 'push') applied += await pull(link, each, ids, spent)
    if (task.mode !== 'pull') applied += await push(link, each, ids)
  }
  const entry = {
    peer: link.link.peer,
    runId,
    resource: resource.name,
    mode: task.mode,
    direction: 'outgoing',
  } as const
  await appendLog(store.db, {
    ...{ ...entry, action: 'repair', result: 'success' },
    message: `${verified.differing.length} records exchanged anew: ${applied} applied, ${adopted} taken up from behind the triggers`,
    ...{ changes: verified.differing.length, applied, durationMs: performance.now() - began },
  })
  return { adopted, applied }
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

async function pull(link: RepairLink, each: Repairing, ids: readonly string[], spent: Spent): Promise<number> {
  const { store, limits, runId } = link
  const { guard, committed } = await guardOf(link, each, spent)
  let applied = 0
  for await (const { batch } of pulledBatches(link, each, ids)) {
    const pulled = { task: each.task, batch, runId, guard }
    const { counts } = await applyPull(store, link.link, pulled, limits).catch((error: unknown) => {
      throw isBraked(error) ? stopOf([error.message], spent.written) : error
    })
    committed()
    applied += counts.applied + counts.merged
    spent.written += counts.applied + counts.merged
  }
  return applied
}

async function push(link: RepairLink, { resource, task }: Repairing, ids: readonly string[]): Promise<number> {
  const { store, client, limits, signal, runId } = link
  const filter = task.filter === null ? undefined : await compileFilter(store, resource, task.filter)
  const bytesMax = limits.batchBytesMax
  let applied = 0
  for (let left = ids; left.length > 0; ) {
    const request = { resource, ids: left, columns: task.columns, filter, peerId: link.link.peer.id, bytesMax }
    const batches = await readForRepair(store.db, request)
    for (const batch of batches) {
      if (batch.count === 0) continue
      const { report } = await client.push(batch, signal, {
        runId: runId === null ? null : `${link.link.self.logId}/${runId}`,
      })
      applied += report.counts.applied + report.counts.merged
    }
    left = without(left, batches)
  }
  return applied
}
