import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../../sync/index.ts'
import type { Database } from '../schema.ts'

const ORIGIN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?:\/[a-z0-9]{1,32})?$/

/** Sites stay for good and travel on with every version that has seen them: invented ones must not pile up. */
const NEW_ORIGINS_MAX = 1_000

/** True for a site's UUID in lower case, alone or with a slash and the logId that a restored site writes under. */
export function isOrigin(text: string): boolean {
  return ORIGIN.test(text)
}

/**
 * The small integers of origins, in the order asked for; unknown origins are added. Safe beside any number of other callers: missing rows are
 * inserted in one order everywhere, so that two transactions that add the same origins wait for each other but never in a circle.
 * Errors, before anything is written: SYNC_FORMAT_INVALID for text that is no origin, SYNC_REQUEST_TOO_LARGE for more than a thousand new ones.
 */
export async function siteIds(db: Kysely<Database>, origins: readonly string[]): Promise<number[]> {
  const wrong = origins.find((origin) => !isOrigin(origin))
  if (wrong !== undefined) {
    const detail = `"${wrong.slice(0, 80)}" is not an origin: a site's UUID in lower case, perhaps with a slash and its logId`
    throw new SynclineError('SYNC_FORMAT_INVALID', detail)
  }
  let known = await idsByOrigin(db, origins)
  // Looked up first: an insert that finds its row there would still use up a number of the sequence for every batch.
  const missing = [...new Set(origins)].filter((origin) => !known.has(origin)).sort()
  if (missing.length > NEW_ORIGINS_MAX) {
    throw new SynclineError(
      'SYNC_REQUEST_TOO_LARGE',
      `the batch names ${missing.length} sites that this one has never heard of; at most ${NEW_ORIGINS_MAX} at once are believed`,
    )
  }
  if (missing.length > 0) {
    await sql`
      insert into syncline.site (origin, uuid)
      select origin, left(origin, 36)::uuid from unnest(${missing}::text[]) with ordinality as each (origin, n) order by n
      on conflict (origin) do nothing`.execute(db)
    known = await idsByOrigin(db, origins)
  }
  return origins.map((origin) => {
    const id = known.get(origin)
    if (id === undefined) throw new Error(`origin ${origin} is not there after it was inserted`)
    return id
  })
}

/** The origins of site numbers, in the order asked for. A number without a row is a fault of this program. */
export async function originsOf(db: Kysely<Database>, ids: readonly number[]): Promise<string[]> {
  if (ids.length === 0) return []
  const rows = await db
    .selectFrom('syncline.site')
    .select(['id', 'origin'])
    .where(sql<boolean>`id = any(${[...ids]}::int4[])`)
    .execute()
  const origins = new Map(rows.map((row) => [row.id, row.origin]))
  return ids.map((id) => {
    const origin = origins.get(id)
    if (origin === undefined) throw new Error(`there is no site ${id}`)
    return origin
  })
}

async function idsByOrigin(db: Kysely<Database>, origins: readonly string[]): Promise<ReadonlyMap<string, number>> {
  if (origins.length === 0) return new Map()
  const rows = await db
    .selectFrom('syncline.site')
    .select(['id', 'origin'])
    .where(sql<boolean>`origin = any(${[...origins]}::text[])`)
    .execute()
  return new Map(rows.map((row) => [row.origin, row.id]))
}
