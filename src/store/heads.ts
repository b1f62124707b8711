import { type Kysely, sql } from 'kysely'
import type { Database } from './schema.ts'

/**
 * For each resource, the newest transaction that a peer can be served now; '0' where there is none. Moves when something new can be pulled, also
 * when an old transaction ends that held the order back. One index look-up a resource. Names that are not attached are absent.
 */
export async function servableHeads(
  db: Kysely<Database>,
  resources: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  if (resources.length === 0) return new Map()
  const { rows } = await sql<{ name: string; head: string | null }>`
    select s.name, (
      select r.xact::text from syncline.record r
       where r.resource_id = s.id and r.xact < pg_snapshot_xmin(pg_current_snapshot())
       order by r.xact desc, r.record_id desc limit 1) as head
      from syncline.resource s where s.name = any(${[...resources]}::text[])`.execute(db)
  return new Map(rows.map((row) => [row.name, row.head ?? '0']))
}
