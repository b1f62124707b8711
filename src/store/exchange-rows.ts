import type { BatchReport, RowBatch, RowText } from '../sync/index.ts'
import { writeNewRows } from './all-new-rows.ts'
import { oneBatchAtATime } from './apply.ts'
import { writeCheckpoint } from './checkpoints.ts'
import { collectRows } from './collect.ts'
import type { Store } from './database.ts'
import {
  type Alongside,
  applyContext,
  type ExchangeLimits,
  grantedScope,
  type Link,
  type PullRequest,
  type PullTask,
  pullChoice,
  readyResource,
} from './exchange.ts'
import { explain } from './explain.ts'
import { tidyAfter } from './housekeeping.ts'
import { passPurged, purgedSince } from './purged.ts'
import { readSelf } from './registry/index.ts'
import { joinFilters, scopeMark, startOf } from './scope.ts'
import { steadyPlans } from './stage.ts'

/** What the rows of a first copy wait for, in milliseconds: whatever is held is new here, and the lines have the patience. */
const LOCK_WAIT_MS = 500

/** One batch for a peer that pulls, as rows; null where it has to be lines. Errors: as serveChanges. */
export async function serveRows(
  store: Store,
  link: Link,
  request: PullRequest,
  limits: ExchangeLimits,
): Promise<RowText | null> {
  const resource = await readyResource(store, request.resource)
  const { columns, filters } = await grantedScope(store, link, resource, request)
  if (joinFilters(filters) !== null || !store.server) return null
  const { logId } = await readSelf(store.db)
  const scope = scopeMark(null, columns)
  const after = await startOf(store, request.after, logId, scope)
  const missed = await purgedSince(store.db, resource.id, after)
  const batch = await collectRows(store.db, {
    resource,
    logId: `${logId}${scope}`,
    after,
    rowsMax: Math.min(request.limit ?? limits.batchRowsMax, limits.batchRowsMax),
    bytesMax: limits.batchBytesMax,
    peer: { id: link.peer.id, siteId: link.peer.siteId },
    columns,
  }).catch((error: unknown) => {
    throw explain(error)
  })
  return batch === null || missed === null ? batch : passPurged(batch, missed)
}

/** Like applyPull. Null, and nothing is written, where the rows are not all new here: they have to come as lines. */
export async function applyRows(
  store: Store,
  link: Link,
  pull: {
    readonly task: PullTask
    readonly batch: RowBatch
    readonly runId: string | null
    readonly alongside: Alongside
  },
  limits: ExchangeLimits,
): Promise<BatchReport | null> {
  const { batch } = pull
  const resource = await readyResource(store, batch.resource)
  const choice = pullChoice(pull.task, link.self, resource)
  const context = await applyContext(store, link, resource, pull.runId, limits, choice)
  const report = await store.db.transaction().execute(async (trx) => {
    await oneBatchAtATime(trx, resource.id)
    await steadyPlans(trx, LOCK_WAIT_MS, batch.next.more)
    const written = await writeNewRows(trx, context, batch)
    if (written === null) return null
    await writeCheckpoint(trx, link.peer.id, resource.id, 'pull', batch.next.checkpoint)
    await pull.alongside(trx, written)
    return written
  })
  if (report !== null) await tidyAfter(store, report.counts.applied)
  return report
}
