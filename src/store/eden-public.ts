import type { LineBatch } from '../sync/index.ts'
import { collect } from './collect.ts'
import type { Store } from './database.ts'
import { type ExchangeLimits, readyResource } from './exchange.ts'
import { ASKED_MAX } from './missing.ts'
import { readChosen } from './records.ts'
import { readSelf } from './registry/index.ts'
import { compileFilter, scopeMark, startOf } from './scope.ts'

/** Nobody has this number: nothing is left out because it came from there. */
const NOBODY = { id: 0, siteId: 0 }

/** One batch of a published table, in the order of this site, for everybody. Errors: SYNC_FILTER_INVALID, SYNC_CHECKPOINT_GONE. */
export async function readPublished(
  store: Store,
  request: {
    readonly resource: string
    readonly after?: string | undefined
    readonly filter?: string | undefined
    readonly limit: number
  },
  limits: ExchangeLimits,
): Promise<LineBatch> {
  const resource = await readyResource(store, request.resource)
  const { logId } = await readSelf(store.db)
  const filter = request.filter === undefined ? undefined : await compileFilter(store, resource, request.filter)
  const scope = scopeMark(request.filter ?? null, null)
  return collect(store.db, {
    resource,
    logId: `${logId}${scope}`,
    after: await startOf(store, request.after, logId, scope),
    rowsMax: Math.min(request.limit, limits.batchRowsMax),
    bytesMax: limits.batchBytesMax,
    peer: NOBODY,
    columns: null,
    filter,
    quiet: true,
  })
}

/** Some records of a published table, as they are now. */
export async function choosePublished(
  store: Store,
  request: { readonly resource: string; readonly ids: readonly string[]; readonly filter?: string | undefined },
  limits: ExchangeLimits,
): Promise<readonly LineBatch[]> {
  const resource = await readyResource(store, request.resource)
  const filter = request.filter === undefined ? undefined : await compileFilter(store, resource, request.filter)
  const batches: LineBatch[] = []
  for (let at = 0; at < request.ids.length; at += ASKED_MAX) {
    const ids = request.ids.slice(at, at + ASKED_MAX)
    const bytesMax = limits.batchBytesMax
    batches.push(await readChosen(store.db, { resource, columns: null, filter, ids, bytesMax }))
  }
  return batches
}
