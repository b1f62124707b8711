import { type Kysely, sql } from 'kysely'
import { type Json, SynclineError, siteOf, type Version } from '../sync/index.ts'
import { payloadSql } from './lines-sql.ts'
import type { LineHeader } from './quarantine.ts'
import { isoTime, isRowId, type Page, type PageQuery, pageBounds, toPage } from './registry/index.ts'
import { liveTable, loadResources, type ResourceInfo, sentColumns } from './resources.ts'
import type { Database } from './schema.ts'

/** One side of a conflict: who wrote what, and when. */
export type ConflictSide = {
  /** By column, reference columns as record ids; null for a deletion. */
  readonly data: Readonly<Record<string, Json>> | null
  readonly version: Version
  /** Name of the site that wrote it, where this site knows it. */
  readonly site: string | null
  /** When, by the clock of that site; ISO 8601. */
  readonly at: string
}

/** Two versions of a record that wait for a person, or waited. */
export type Conflict = {
  readonly id: string
  /** Name of the peer that the other version came from; null when it was removed since. */
  readonly peer: string | null
  readonly resource: string
  readonly recordId: string
  /** The run that met it. */
  readonly runId: string | null
  /** The last version that both sides had, where history still has it. */
  readonly base: ConflictSide | null
  /** This site's: as it is now while the conflict is open. */
  readonly ours: ConflictSide
  readonly theirs: ConflictSide
  /** Fields that need a decision, where the others merge by themselves; null for all that differ. */
  readonly fields: readonly string[] | null
  readonly openedAt: string
  readonly updatedAt: string
  readonly resolvedAt: string | null
  readonly resolvedBy: string | null
  /** ours, theirs, merged; `elsewhere` when a version arrived that has seen both, `superseded` when a later one took its place. */
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
  await refreshOurs(db)
  const rows = await selectConflicts(
    db,
    sql`where (${peer}::text is null or p.name = ${peer}) and (${resource}::text is null or r.name = ${resource})
          and (${open}::bool is null or (c.resolved_at is null) = ${open})
          and (${bounds.before}::int8 is null or c.id < ${bounds.before}::int8)
        order by c.id desc limit ${bounds.take}`,
  )
  const names = await siteNames(db)
  return toPage(rows, bounds, (row) => toConflict(row, names))
}

/** A conflict by id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findConflict(db: Kysely<Database>, id: string): Promise<Conflict> {
  await refreshOurs(db)
  return toConflict(await findConflictRow(db, id), await siteNames(db))
}

/**
 * Brings open conflicts up to date with what was written here since they were met: our side is the record as it is now, and where that has
 * seen the other side too, the conflict is over. Costs one look-up for each open conflict.
 */
export async function refreshOurs(db: Kysely<Database>): Promise<void> {
  const { rows } = await sql<{ resource_id: number }>`
    select distinct c.resource_id from syncline.conflict c
      join syncline.record r on r.resource_id = c.resource_id and r.record_id = c.record_id join syncline.site o on o.id = r.origin
     where c.resolved_at is null and (r.clock, o.origin) is distinct from ((c.ours_version ->> 'clock')::int8, c.ours_version ->> 'origin')`.execute(
    db,
  )
  if (rows.length === 0) return
  const stale = new Set(rows.map((row) => row.resource_id))
  for (const resource of (await loadResources(db)).filter(({ id }) => stale.has(id)))
    await refreshResource(db, resource)
}

async function refreshResource(db: Kysely<Database>, resource: ResourceInfo): Promise<void> {
  const sent = sentColumns(resource)
  const names = sent.map((column) => column.name)
  await sql`
    update syncline.conflict c set updated_at = clock_timestamp(), ours = now.data, ours_version = now.version,
           resolved_at = case when now.over then clock_timestamp() end, resolution = case when now.over then 'elsewhere' end
      from (
        select c.id, case when r.deleted or t.* is null then null else (
                 select jsonb_object_agg(name, (${sql.raw(payloadSql(resource, sent))})::jsonb -> (at - 1)::int4) from unnest(${names}::text[]) with ordinality n(name, at)) end as data,
               jsonb_strip_nulls(jsonb_build_object('origin', o.origin, 'clock', r.clock, 'seen', (
                 select jsonb_object_agg(w.origin, e.value) from jsonb_each(r.seen) e join syncline.site w on w.id = e.key::int4))) as version,
               coalesce((select case when r.origin = w.id then r.clock else (r.seen ->> w.id::text)::int8 end >= (c.theirs_version ->> 'clock')::int8
                  from syncline.site w where w.origin = c.theirs_version ->> 'origin'), false) as over
          from syncline.conflict c
          join syncline.record r on r.resource_id = c.resource_id and r.record_id = c.record_id
          join syncline.site o on o.id = r.origin
          left join ${sql.raw(liveTable(resource))} t on t.${sql.id(resource.keyColumn)} = c.record_id::${sql.raw(resource.keyType)}
         where c.resource_id = ${resource.id} and c.resolved_at is null
           and (r.clock, o.origin) is distinct from ((c.ours_version ->> 'clock')::int8, c.ours_version ->> 'origin')
      ) now
     where c.id = now.id and c.resolved_at is null`.execute(db)
}

type Side = Readonly<Record<string, Json>> | null

export type ConflictRow = Omit<Conflict, 'base' | 'ours' | 'theirs'> & {
  readonly base: Side
  readonly baseVersion: Version | null
  readonly ours: Side
  readonly oursVersion: Version
  readonly theirs: Side
  readonly theirsVersion: Version
  readonly peerId: number | null
  readonly header: LineHeader
  readonly line: string
}

export async function selectConflicts(
  db: Kysely<Database>,
  tail: ReturnType<typeof sql>,
): Promise<readonly ConflictRow[]> {
  const { rows } = await sql<ConflictRow>`
    select c.id, p.name as peer, c.peer_id as "peerId", r.name as resource, c.record_id as "recordId", c.run_id as "runId", c.base, c.base_version as "baseVersion",
           c.ours, c.ours_version as "oursVersion", c.theirs, c.theirs_version as "theirsVersion", c.fields, c.header, c.line, c.opened_at as "openedAt",
           c.updated_at as "updatedAt", c.resolved_at as "resolvedAt", c.resolved_by as "resolvedBy", c.resolution, c.comment
      from syncline.conflict c join syncline.resource r on r.id = c.resource_id left join syncline.peer p on p.id = c.peer_id
      ${tail}`.execute(db)
  return rows
}

export async function findConflictRow(db: Kysely<Database>, id: string): Promise<ConflictRow> {
  const [row] = isRowId(id) ? await selectConflicts(db, sql`where c.id = ${id}::int8`) : []
  if (row === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no conflict ${id.slice(0, 40)}`)
  return row
}

/** Names of the sites that this one knows, by UUID. */
export async function siteNames(db: Kysely<Database>): Promise<ReadonlyMap<string, string>> {
  const { rows } = await sql<{ uuid: string; name: string }>`
    select uuid::text, name from syncline.peer union all select uuid::text, name from syncline.self`.execute(db)
  return new Map(rows.map(({ uuid, name }) => [uuid, name]))
}

export function toConflict(row: ConflictRow, names: ReadonlyMap<string, string>): Conflict {
  const { base, baseVersion, ours, oursVersion, theirs, theirsVersion, peerId: _, header: __, line: ___, ...rest } = row
  const side = (data: Side, version: Version): ConflictSide => ({
    data,
    version,
    site: names.get(siteOf(version.origin)) ?? null,
    at: new Date(version.clock / 1000).toISOString(),
  })
  return {
    ...rest,
    base: baseVersion === null ? null : side(base, baseVersion),
    ours: side(ours, oursVersion),
    theirs: side(theirs, theirsVersion),
    openedAt: isoTime(row.openedAt),
    updatedAt: isoTime(row.updatedAt),
    resolvedAt: isoTime(row.resolvedAt),
  }
}
