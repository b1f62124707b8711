import { sql, type Transaction } from 'kysely'
import {
  compareVersions,
  ERRORS,
  type ErrorCode,
  type Json,
  type LineBatch,
  type Policy,
  type PolicyName,
  SynclineError,
} from '../sync/index.ts'
import { applyLines } from './apply.ts'
import { makeRule } from './conflict-rule.ts'
import {
  type Conflict,
  type ConflictRow,
  findConflictRow,
  refreshOurs,
  selectConflicts,
  siteNames,
  toConflict,
} from './conflicts.ts'
import type { Store } from './database.ts'
import type { ExchangeLimits } from './exchange.ts'
import { isoTime, type Self } from './registry/index.ts'
import { findResource, liveTable, loadResources, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'
import { compileFilter } from './scope.ts'

export const RESOLUTIONS = ['ours', 'theirs'] as const
export type Resolution = (typeof RESOLUTIONS)[number]

/** What a person decides: a side, and what is to differ from it. */
export type Choice = {
  /** The side that wins; `ours` when only fields or values are given. */
  readonly choice?: Resolution | undefined
  /** The side that wins for single fields. */
  readonly fields?: Readonly<Record<string, Resolution>> | undefined
  /** Values of neither side, by column; references as record ids. */
  readonly values?: Readonly<Record<string, Json>> | undefined
  readonly by: string
  readonly comment?: string | null | undefined
  /** Also makes the choice the rule of the task, or of the grant of a peer that pushes, that the conflict came by. */
  readonly rule?: boolean | undefined
}

/**
 * Settles a conflict by a person's word: a new write of this site that has seen both versions, so that it wins everywhere. The record is taken
 * as it is now, which may be newer than what the conflict shows as ours. What loses goes to history.
 * Errors: SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID for a choice that names what is not there, SYNC_REQUEST_SETTLED for one that is settled
 * already, SYNC_STORE_BUSY, and what the database refuses (SYNC_RECORD_CONSTRAINT, SYNC_RECORD_PARENT_MISSING …): then the conflict stays open.
 */
export async function resolveConflict(
  store: Store,
  self: Self,
  { id, ...choice }: Choice & { readonly id: string },
  limits: ExchangeLimits,
): Promise<Conflict> {
  return store.db.transaction().execute(async (trx) => {
    await findConflictRow(trx, id)
    // Two persons at once: the second one waits here and then reads that it is settled.
    await sql`select from syncline.conflict where id = ${id}::int8 for update`.execute(trx)
    await refreshOurs(trx)
    const row = await findConflictRow(trx, id)
    if (row.resolvedAt !== null) throw settledAlready(row)
    const resource = await findResource(trx, row.resource)
    const content = contentOf(row, resource, choice)
    const resolution = content === null ? (choice.choice ?? 'ours') : 'merged'
    await write(trx, self, resource, resolution, batchFor(row, resource, resolution, content), limits)
    if (choice.rule === true) await makeRule(trx, row, choice)
    await sql`
      update syncline.conflict set resolved_at = clock_timestamp(), resolved_by = ${choice.by}, resolution = ${resolution}, comment = ${choice.comment ?? null}
       where id = ${row.id}::int8`.execute(trx)
    return toConflict(await findConflictRow(trx, id), await siteNames(trx))
  })
}

async function write(
  trx: Transaction<Database>,
  self: Self,
  resource: ResourceInfo,
  resolution: Resolution | 'merged',
  batch: LineBatch,
  limits: ExchangeLimits,
): Promise<void> {
  const name: PolicyName = resolution === 'ours' ? 'mine' : 'theirs'
  const policy: Policy = { name, here: self.origin, ...(resolution === 'merged' && { decided: true }) }
  const report = await applyLines(
    trx,
    {
      resource,
      resources: await loadResources(trx),
      peer: null,
      selfSiteId: self.siteId,
      runId: null,
      policy,
      unknownFields: 'park',
      onLeft: 'keep',
      patience: 'wait',
      lockWaitMs: 800,
      recordBytesMax: limits.recordBytesMax,
      clockAheadMaxMicros: limits.clockAheadMaxMs * 1_000,
    },
    batch,
  )
  const refusal = report.rejections.find(({ outcome }) => outcome === 'refused' || outcome === 'quarantined')
  if (refusal !== undefined) throw new SynclineError(codeOf(refusal.code), refusal.reason)
  // Somebody's write that knew the other side came in between: what was chosen was not written.
  if (resolution === 'merged' && report.counts.merged + report.counts.applied === 0)
    throw new SynclineError(
      'SYNC_REQUEST_SETTLED',
      'it was settled in the meantime by a change of the record by somebody who knew both sides',
    )
}

export type BulkQuery = {
  readonly peer?: string | undefined
  readonly resource?: string | undefined
  /** Condition on the record as it is here; needs a resource. */
  readonly filter?: string | undefined
}

export type BulkOutcome = {
  /** Open conflicts that the query names. */
  readonly matched: number
  readonly resolved: number
  /** Those that could not be settled and stay open, up to a hundred, with the reason. */
  readonly failed: readonly {
    readonly id: string
    readonly recordId: string
    readonly code: string
    readonly reason: string
  }[]
}

/** Settled by one request at most, so that it is soon answered; the caller repeats it until nothing is resolved any more. */
export const BULK_MAX = 500

/**
 * Settles all open conflicts that match, each in a transaction of its own, the oldest first. `preview` only counts them.
 * Errors: SYNC_REQUEST_INVALID, SYNC_FILTER_INVALID, SYNC_REQUEST_NOT_FOUND.
 */
export async function resolveMatching(
  store: Store,
  self: Self,
  query: BulkQuery & Choice & { readonly preview: boolean },
  limits: ExchangeLimits,
): Promise<BulkOutcome> {
  const { peer, resource, filter, preview, ...choice } = query
  if (choice.choice === undefined && choice.fields === undefined && choice.values === undefined)
    throw invalid('say which side wins')
  await refreshOurs(store.db)
  const ids = await matchingIds(store, { peer, resource, filter })
  if (preview) return { matched: ids.length, resolved: 0, failed: [] }
  const failed: BulkOutcome['failed'][number][] = []
  let resolved = 0
  for (const { id, recordId } of ids.slice(0, BULK_MAX)) {
    try {
      await resolveConflict(store, self, { ...choice, id, rule: choice.rule === true && resolved === 0 }, limits)
      resolved++
    } catch (error) {
      if (!(error instanceof SynclineError)) throw error
      // Settled by somebody else meanwhile, which is what was wanted.
      if (error.code === 'SYNC_REQUEST_SETTLED') continue
      if (failed.length < 100) failed.push({ id, recordId, code: error.code, reason: error.message })
    }
  }
  return { matched: ids.length, resolved, failed }
}

async function matchingIds(
  store: Store,
  {
    peer = null,
    resource = null,
    filter,
  }: { peer?: string | null | undefined; resource?: string | null | undefined; filter?: string | undefined },
): Promise<readonly { readonly id: string; readonly recordId: string }[]> {
  const scope = sql`c.resolved_at is null and (${peer}::text is null or p.name = ${peer}) and (${resource}::text is null or r.name = ${resource})`
  if (filter === undefined) return selectConflicts(store.db, sql`where ${scope} order by c.id`)
  if (resource === null) throw invalid('a filter needs a resource: its columns are those of one table')
  const info = await findResource(store.db, resource)
  const condition = await compileFilter(store, info, filter)
  return selectConflicts(
    store.db,
    sql`join ${sql.raw(liveTable(info))} t on t.${sql.id(info.keyColumn)} = c.record_id::${sql.raw(info.keyType)}
        where ${scope} and coalesce(${condition}, false) order by c.id`,
  )
}

/** What the record is to hold; null when it is one of the two sides as it stands. */
function contentOf(row: ConflictRow, resource: ResourceInfo, choice: Choice): Readonly<Record<string, Json>> | null {
  const { fields = {}, values = {} } = choice
  if (Object.keys(fields).length + Object.keys(values).length === 0) {
    if (choice.choice === undefined) throw invalid('say which side wins')
    return null
  }
  const sides = { ours: row.ours, theirs: row.theirs }
  const start = sides[choice.choice ?? 'ours'] ?? sides.ours ?? sides.theirs
  if (start === null) throw invalid('both sides deleted the record: there are no fields to choose from')
  const known = sentColumns(resource).map((column) => column.name)
  const unknown = [...Object.keys(fields), ...Object.keys(values)].filter((column) => !known.includes(column))
  if (unknown.length > 0)
    throw invalid(
      `resource "${row.resource}" sends no column ${unknown.map((name) => `"${name}"`).join(', ')}; it sends ${known.join(', ')}`,
    )
  const twice = Object.keys(fields).find((column) => Object.hasOwn(values, column))
  if (twice !== undefined) throw invalid(`field "${twice}" is chosen and set: say one of them`)
  const chosen = Object.entries(fields).map(([column, side]): [string, Json] => {
    const data = sides[side]
    if (data === null) throw invalid(`field "${column}" cannot be that of ${side}, where the record is deleted`)
    if (!Object.hasOwn(data, column)) throw invalid(`the version of ${side} has no field "${column}"`)
    return [column, data[column] as Json]
  })
  return Object.fromEntries([...Object.entries(start), ...chosen, ...Object.entries(values)])
}

/**
 * What is to be applied. Where the other version knows what is here and could not be written, to apply it would be to take it: a decision against it
 * is a write of its own, which has seen both.
 */
function batchFor(
  row: ConflictRow,
  resource: ResourceInfo,
  resolution: Resolution | 'merged',
  content: Readonly<Record<string, Json>> | null,
): LineBatch {
  if (resolution !== 'theirs' && compareVersions(row.theirsVersion, row.oursVersion) === 'newer')
    return ownBatch(row, resource, content ?? row.ours)
  return content === null ? theirBatch(row) : mergedBatch(row, resource, content)
}

/** A write of this site, without a version of its own yet, that has seen the other version. */
function ownBatch(row: ConflictRow, resource: ResourceInfo, content: Readonly<Record<string, Json>> | null): LineBatch {
  const made = mergedBatch(row, resource, content ?? {})
  const { clock } = row.theirsVersion
  const [id = '', , , seen = '', , payload = ''] = made.text.split('\t')
  const all = JSON.stringify({ ...(seen === '' ? {} : (JSON.parse(seen) as object)), 0: clock })
  const [kind, values] = content === null ? ['d', ''] : ['p', payload]
  return { ...made, text: [id, '', '', all, kind, values].join('\t') }
}

/** The other version as it came, with all that it had seen. */
function theirBatch(row: ConflictRow): LineBatch {
  const [id = '', , , , kind = '', payload = ''] = row.line.split('\t')
  return batchOf(row, row.header.columns, row.header.refs, id, kind, payload)
}

/** The other version with other values: whoever takes it over has seen both. */
function mergedBatch(row: ConflictRow, resource: ResourceInfo, content: Readonly<Record<string, Json>>): LineBatch {
  const columns = Object.keys(content)
  const here = resource.references.filter(({ column }) => columns.includes(column.name))
  const refs = { ...row.header.refs, ...Object.fromEntries(here.map((each) => [each.column.name, each.resource])) }
  const kept = Object.fromEntries(Object.entries(refs).filter(([column]) => columns.includes(column)))
  const [id = ''] = row.line.split('\t')
  return batchOf(row, columns, kept, id, 'p', JSON.stringify(columns.map((column) => content[column] ?? null)))
}

function batchOf(
  row: ConflictRow,
  columns: readonly string[],
  refs: LineBatch['refs'],
  id: string,
  kind: string,
  payload: string,
): LineBatch {
  const { origin, clock, seen = {} } = row.theirsVersion
  const origins = [origin, ...Object.keys(seen)]
  const indexes = Object.entries(seen).map(([other, at]) => [origins.indexOf(other), at])
  const seenText = indexes.length === 0 ? '' : JSON.stringify(Object.fromEntries(indexes))
  const text = [id, clock, '0', seenText, kind, payload].join('\t')
  return { resource: row.header.resource, columns, refs, origins, text, count: 1 }
}

function codeOf(code: string | undefined): ErrorCode {
  return code !== undefined && Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'SYNC_RECORD_INVALID'
}

/** How a conflict ended, in words. */
const ENDINGS: Readonly<Record<string, string>> = {
  ours: 'the side here won',
  theirs: 'the other side won',
  merged: 'with what was chosen of both',
  elsewhere: 'by a later change, or a decision at another site, that knew both sides',
  superseded: 'taken up by another conflict of the same record',
}

function settledAlready({ id, resolvedAt, resolvedBy, resolution }: ConflictRow): SynclineError {
  const by = resolvedBy === null ? '' : ` by ${resolvedBy}`
  const how = resolution === null ? '' : `: ${ENDINGS[resolution] ?? resolution}`
  return new SynclineError('SYNC_REQUEST_SETTLED', `conflict ${id} was settled at ${isoTime(resolvedAt)}${by}${how}`)
}

function invalid(detail: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', detail)
}
