import type { BatchReport, LineBatch } from '../sync/index.ts'
import { emptyReport } from './apply.ts'
import type { Store } from './database.ts'
import {
  addReports,
  applyAll,
  applyContext,
  type ExchangeLimits,
  pullChoice,
  pushChoice,
  readyResource,
} from './exchange.ts'
import { dueEntries, type QuarantineEntry } from './quarantine.ts'
import { findPeer, findTaskFor, type SelfEntry } from './registry/index.ts'

/** Entries read at once, the most tried in one pass, and the most passes: each pass may free something for the next. */
const STEP = 200
const ENTRIES_MAX = 20_000
const PASSES_MAX = 16

/**
 * Tries again what waits in quarantine and may succeed now, whichever peer it came from: a parent may arrive by another link.
 * What a peer pushed is tried within what it is granted now; without a grant it waits on. Goes on while a pass frees something.
 */
export async function redrive(
  store: Store,
  self: SelfEntry,
  runId: string | null,
  limits: ExchangeLimits,
): Promise<BatchReport> {
  let total = emptyReport()
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    const report = await onePass(store, self, runId, limits)
    total = addReports(total, report)
    if (report.counts.applied + report.counts.merged === 0) break
  }
  return total
}

async function onePass(
  store: Store,
  self: SelfEntry,
  runId: string | null,
  limits: ExchangeLimits,
): Promise<BatchReport> {
  let total = emptyReport()
  let after = '0'
  for (let tried = 0; tried < ENTRIES_MAX; ) {
    const entries = await dueEntries(store.db, after, STEP, runId)
    for (const group of groupEntries(entries))
      total = addReports(total, await tryGroup(store, self, group, runId, limits))
    tried += entries.length
    const last = entries.at(-1)
    if (last === undefined || entries.length < STEP) break
    after = last.id
  }
  return total
}

type Group = Pick<QuarantineEntry, 'peer' | 'resource' | 'via'> & { readonly inUse: boolean; batch: LineBatch }

async function tryGroup(
  store: Store,
  self: SelfEntry,
  group: Group,
  runId: string | null,
  limits: ExchangeLimits,
): Promise<BatchReport> {
  const link = { self, peer: await findPeer(store.db, group.peer) }
  const resource = await readyResource(store, group.resource)
  const task = (await findTaskFor(store.db, link.peer.id, resource.name)) ?? {
    onConflict: 'newer',
    master: null,
    onLeft: 'keep' as const,
  }
  const choice = group.via === 'pull' ? pullChoice(task, self, resource) : await pushChoice(store, link, resource)
  if (choice === null) return emptyReport()
  const context = await applyContext(store, link, resource, runId, limits, choice)
  // A row that was in use a while ago is looked at once, not waited for anew in every run.
  return applyAll(store, context, [group.batch], undefined, group.inUse ? 'once' : 'patiently')
}

/** Entries that can be applied as one batch: of one link, one resource and one form of line. */
function groupEntries(entries: readonly QuarantineEntry[]): readonly Group[] {
  const groups = new Map<string, Group>()
  for (const { peer, resource, via, code, header, line } of entries) {
    const inUse = code === 'SYNC_RECORD_IN_USE'
    const key = JSON.stringify([peer, resource, via, inUse, header.columns, header.origins, header.refs])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { peer, resource, via, inUse, batch: { ...header, text: line, count: 1 } })
    else group.batch = { ...group.batch, text: `${group.batch.text}\n${line}`, count: group.batch.count + 1 }
  }
  return [...groups.values()]
}
