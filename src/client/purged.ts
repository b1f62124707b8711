import { applyPull, collectPush, holdsNone, type ResourceInfo, type Task } from '../store/index.ts'
import type { LineBatch } from '../sync/index.ts'
import type { Pulled, Pushed } from './peer-client.ts'
import type { RunSession } from './run-session.ts'
import { countPulled, countPushed } from './tally.ts'
import { guardFor } from './weigh.ts'

/** A link and a task of it, for one resource. */
type About = { readonly run: RunSession; readonly task: Task; readonly resource: ResourceInfo }

/**
 * Asks the peer for the deletions whose tombstones it purged behind a place of ours, and applies those that concern records which are here.
 * Belongs before anything of the peer that comes after that place.
 */
export async function pullPurged(
  { run, task, resource }: About,
  from: string | null,
  ask: (after: string | null) => Promise<Pulled>,
): Promise<void> {
  if (await holdsNone(run.store.db, resource.id)) return
  run.doing = `catch up ${resource.name}`
  // Nobody can say beforehand how many of these records are here: the limits hold in the transactions that delete them.
  const brake = await guardFor(run, task, resource)
  for (let after = from, more = true; more; ) {
    const page = await ask(after)
    for (const batch of page.batches) {
      const report = await applyPull(
        run.store,
        run.link,
        { task, batch, runId: run.runId, guard: brake.guard },
        run.limits,
      )
      brake.committed()
      const { applied, merged, conflict } = report.counts
      countPulled(run.counts, report, applied + merged + conflict, page.bytes)
    }
    after = page.checkpoint
    more = page.more
  }
}

/** Tells the peer of the deletions whose tombstones were purged here behind the place up to which it was sent our changes. */
export async function pushPurged(
  { run, task, resource }: About,
  from: string | undefined,
  send: (page: LineBatch) => Promise<Pushed>,
): Promise<void> {
  const { filter, columns } = task
  for (let after = from, more = true; more; ) {
    const request = { resource: resource.name, after, filter, columns, purged: true }
    const page = await collectPush(run.store, run.link, request, run.limits)
    if (page.count > 0) {
      const sent = await send(page)
      const { applied, merged, conflict } = sent.report.counts
      countPushed(run.counts, sent.report, applied + merged + conflict, sent.bytes)
    }
    after = page.next?.checkpoint
    more = page.next?.more === true
  }
}
