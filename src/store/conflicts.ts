import { type Kysely, sql } from 'kysely'
import { ERRORS, type ErrorCode, type Json, type LineBatch, SynclineError, type Version } from '../sync/index.ts'
import { applyLines } from './apply.ts'
import type { Store } from './database.ts'
import type { ExchangeLimits } from './exchange.ts'
import type { LineHeader } from './quarantine.ts'
import { isoTime, isRowId, type Page, type PageQuery, pageBounds, type Self, toPage } from './registry/index.ts'
import { findResource, loadResources, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

export const RESOLUTIONS = ['ours', 'theirs'] as const
export type Resolution = (typeof RESOLUTIONS)[number]

/** One side of a conflict. `data` by column, reference columns as record ids; null for a deletion. */
export type ConflictSide = { readonly data: Readonly<Record<string, Json>> | null; readonly version: Version }

/** Two versions of a record that wait for a person, or waited. */
export type Conflict = {
  readonly id: string
  /** Name of the peer that the other version came from; null when it was removed since. */
  readonly peer: string | null
  readonly resource: string
  readonly recordId: string
  readonly runId: string | null
  /** This site's when the conflict was met. */
  readonly ours: ConflictSide
  readonly theirs: ConflictSide
  readonly openedAt: string
  readonly updatedAt: string
  readonly resolvedAt: string | null
  readonly resolvedBy: string | null
  /** ours, theirs, or `elsewhere` when a version arrived that has seen both. */
  readonly resolution: string | null
  readonly comment: string | null
}

export type ConflictQuery = PageQuery & {
  readonly peer?: string | undefined
  readonly resource?: string | undefined
  /** True for those that wait, false for those that are settled. */
  readonly open?: boolean | undefined
}

/** Conflicts, newest first. */
export async function listConflicts(db: Kysely<Database>, query: ConflictQuery = {}): Promise<Page<Conflict>> {
  const bounds = pageBounds(query)
  const { peer = null, resource = null, open = null } = query
  const rows = await selectConflicts(
    db,
    sql`where (${peer}::text is null or p.name = ${peer}) and (${resource}::text is null or r.name = ${resource})
          and (${open}::bool is null or (c.resolved_at is null) = ${open})
          and (${bounds.before}::int8 is null or c.id < ${bounds.before}::int8)
        order by c.id desc limit ${bounds.take}`,
  )
  const resources = await loadResources(db)
  return toPage(rows, bounds, (row) => toConflict(row, resources))
}

/** A conflict by id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findConflict(db: Kysely<Database>, id: string): Promise<Conflict> {
  return toConflict(await findRow(db, id), await loadResources(db))
}

/**
 * Settles a conflict by a person's word: a new write of this site that has seen both versions, so that it wins everywhere. The record is taken
 * as it is now, which may be newer than what the conflict shows as ours. What loses goes to history.
 * Errors: SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_CHANGED for one that is settled already, SYNC_STORE_BUSY, and what the database refuses
 * (SYNC_RECORD_CONSTRAINT, SYNC_RECORD_PARENT_MISSING …): then the conflict stays open.
 */
export async function resolveConflict(
  store: Store,
  self: Self,
  resolution: {
    readonly id: string
    readonly choice: Resolution
    readonly by: string
    readonly comment?: string | null | undefined
  },
  limits: ExchangeLimits,
): Promise<Conflict> {
  const { id, choice, by, comment = null } = resolution
  return store.db.transaction().execute(async (trx) => {
    const row = await findRow(trx, id)
    // Two persons at once: the second one waits here and then reads that it is settled.
    await sql`select from syncline.conflict where id = ${row.id}::int8 for update`.execute(trx)
    if ((await findRow(trx, id)).resolvedAt !== null) {
      throw new SynclineError('SYNC_REQUEST_CHANGED', `conflict ${id} is settled already`)
    }
    const resource = await findResource(trx, row.resource)
    const report = await applyLines(
      trx,
      {
        resource,
        resources: await loadResources(trx),
        peer: null,
        selfSiteId: self.siteId,
        runId: null,
        policy: { name: choice === 'ours' ? 'mine' : 'theirs', here: self.origin },
        unknownFields: 'park',
        onLeft: 'keep',
        patience: 'wait',
        lockWaitMs: 800,
        recordBytesMax: limits.recordBytesMax,
        clockAheadMaxMicros: limits.clockAheadMaxMs * 1_000,
      },
      theirBatch(row),
    )
    const refusal = report.rejections.find(({ outcome }) => outcome === 'refused' || outcome === 'quarantined')
    if (refusal !== undefined) throw new SynclineError(codeOf(refusal.code), refusal.reason)
    await sql`
      update syncline.conflict set resolved_at = clock_timestamp(), resolved_by = ${by}, resolution = ${choice}, comment = ${comment}
       where id = ${row.id}::int8`.execute(trx)
    return toConflict(await findRow(trx, id), [resource])
  })
}

type ConflictRow = Omit<Conflict, 'ours' | 'theirs'> & {
  readonly ours: readonly Json[] | null
  readonly oursVersion: Version
  readonly theirs: readonly Json[] | null
  readonly theirsVersion: Version
  readonly header: LineHeader
  readonly line: string
}

async function selectConflicts(db: Kysely<Database>, tail: ReturnType<typeof sql>): Promise<readonly ConflictRow[]> {
  const { rows } = await sql<ConflictRow>`
    select c.id, p.name as peer, r.name as resource, c.record_id as "recordId", c.run_id as "runId", c.ours, c.ours_version as "oursVersion",
           c.theirs, c.theirs_version as "theirsVersion", c.header, c.line, c.opened_at as "openedAt", c.updated_at as "updatedAt",
           c.resolved_at as "resolvedAt", c.resolved_by as "resolvedBy", c.resolution, c.comment
      from syncline.conflict c join syncline.resource r on r.id = c.resource_id left join syncline.peer p on p.id = c.peer_id
      ${tail}`.execute(db)
  return rows
}

async function findRow(db: Kysely<Database>, id: string): Promise<ConflictRow> {
  const [row] = isRowId(id) ? await selectConflicts(db, sql`where c.id = ${id}::int8`) : []
  if (row === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no conflict ${id.slice(0, 40)}`)
  return row
}

function toConflict(row: ConflictRow, resources: readonly ResourceInfo[]): Conflict {
  const { ours, oursVersion, theirs, theirsVersion, header, line: _, ...rest } = row
  // What is here was read in the order of the batch too, but only the columns that this table has.
  const resource = resources.find(({ name }) => name === row.resource)
  const known = resource === undefined ? [] : sentColumns(resource).map((column) => column.name)
  return {
    ...rest,
    ours: {
      data: named(
        header.columns.filter((column) => known.includes(column)),
        ours,
      ),
      version: oursVersion,
    },
    theirs: { data: named(header.columns, theirs), version: theirsVersion },
    openedAt: isoTime(row.openedAt),
    updatedAt: isoTime(row.updatedAt),
    resolvedAt: isoTime(row.resolvedAt),
  }
}

function named(columns: readonly string[], values: readonly Json[] | null): Readonly<Record<string, Json>> | null {
  return values === null ? null : Object.fromEntries(columns.map((column, at) => [column, values[at] ?? null]))
}

/** The other version as it came, with all that it had seen. */
function theirBatch(row: ConflictRow): LineBatch {
  const { origin, clock, seen = {} } = row.theirsVersion
  const [id = '', , , , kind = '', payload = ''] = row.line.split('\t')
  const origins = [origin, ...Object.keys(seen)]
  const indexes = Object.entries(seen).map(([other, at]) => [origins.indexOf(other), at])
  const seenText = indexes.length === 0 ? '' : JSON.stringify(Object.fromEntries(indexes))
  const { resource, columns, refs } = row.header
  return {
    resource,
    columns,
    refs,
    origins,
    text: [id, clock, '0', seenText, kind, payload].join('\t'),
    count: 1,
  }
}

function codeOf(code: string | undefined): ErrorCode {
  return code !== undefined && Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'SYNC_RECORD_INVALID'
}
