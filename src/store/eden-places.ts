import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import type { EdenPlace } from './eden.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** Records below others that one filter may name: more would not fit into it. */
const BELOW_MAX = 80
/** Places that are looked up at once. */
const PLACES_MAX = 1_000

/** The records that stand below one in its own table by a reference to it, at any depth. Errors: SYNC_FILTER_INVALID for too many. */
export async function recordsBelow(
  db: Kysely<Database>,
  resource: ResourceInfo,
  column: string,
  id: string,
): Promise<readonly string[]> {
  const reference = resource.references.find((each) => each.column.name === column)
  if (reference === undefined) return []
  const [table, key] = [sql.raw(liveTable(resource)), sql.id(resource.keyColumn)]
  const target = sql.id(reference.targetColumn)
  const { rows } = await sql<{ id: string }>`
    with recursive below (place, id) as (
      select t.${target}, t.${key}::text from ${table} t where t.${key}::text = ${id}
      union
      select t.${target}, t.${key}::text from ${table} t join below b on t.${sql.id(column)} = b.place
    )
    select id from below where id <> ${id} limit ${BELOW_MAX + 1}`.execute(db)
  if (rows.length <= BELOW_MAX) return rows.map((row) => row.id)
  throw new SynclineError(
    'SYNC_FILTER_INVALID',
    `a filter with typeof names ${id.slice(0, 80)}: more than ${BELOW_MAX} records of "${resource.name}" are below it`,
  )
}

/** Where some places are, in degrees; those without coordinates are left out. */
export async function coordinatesOf(
  db: Kysely<Database>,
  resource: ResourceInfo,
  ids: readonly string[],
  columns: { readonly lat: string; readonly lon: string },
): Promise<ReadonlyMap<string, { readonly lat: number; readonly lon: number }>> {
  const found = new Map<string, { readonly lat: number; readonly lon: number }>()
  const [lat, lon] = [sql.id(columns.lat), sql.id(columns.lon)]
  for (let at = 0; at < ids.length; at += PLACES_MAX) {
    const some = ids.slice(at, at + PLACES_MAX)
    const { rows } = await sql<{ id: string; lat: number; lon: number }>`
      select t.${sql.id(resource.keyColumn)}::text as id, t.${lat}::float8 as lat, t.${lon}::float8 as lon from ${sql.raw(liveTable(resource))} t
       where t.${sql.id(resource.keyColumn)} = any (array(select w::${sql.raw(resource.keyType)} from unnest(${some}::text[]) w))
         and t.${lat} is not null and t.${lon} is not null`.execute(db)
    for (const row of rows) found.set(row.id, row)
  }
  return found
}

/** Notes in which records others stand, by their ids: those that are known at this Eden. */
export async function noteWithin(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  within: ReadonlyMap<string, string>,
): Promise<void> {
  if (within.size === 0) return
  await sql`
    update syncline.eden_record e set within = w.master from unnest(${[...within.keys()]}::text[], ${[...within.values()]}::text[]) w (id, master)
     where e.peer_id = ${peerId} and e.resource_id = ${resourceId} and e.record_id = w.id and e.within is distinct from w.master`.execute(
    db,
  )
}

/** In which records some stood when an Eden last knew of them. */
export async function readWithin(
  db: Kysely<Database>,
  { peerId, resourceId }: EdenPlace,
  ids: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const { rows } = await sql<{ id: string; within: string }>`
    select record_id as id, within from syncline.eden_record
     where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${[...ids]}::text[]) and within is not null`.execute(
    db,
  )
  return new Map(rows.map(({ id, within }) => [id, within]))
}

/** The bytes of a column of a living record; null for none. */
export async function readBytes(
  db: Kysely<Database>,
  resource: ResourceInfo,
  column: string,
  id: string,
): Promise<Buffer | null> {
  const { rows } = await sql<{ bytes: Buffer | null }>`
    select t.${sql.id(column)} as bytes from ${sql.raw(liveTable(resource))} t where t.${sql.id(resource.keyColumn)}::text = ${id}`.execute(
    db,
  )
  const [row] = rows
  return row?.bytes == null ? null : Buffer.from(row.bytes)
}
