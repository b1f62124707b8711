import { type Kysely, sql } from 'kysely'
import { retryResource } from './quarantine.ts'
import { getSetting, setSetting } from './registry/index.ts'
import type { Database } from './schema.ts'

/** What the tables were like when quarantine was last looked through: marks by id of the resource. */
const MEMORY = 'quarantine:tables'

/**
 * Makes what waits for a table due at once when the table has other columns, constraints, indexes or triggers than at the last look: whatever it
 * could not get past may be gone. Gives how many entries that are.
 */
export async function retryAltered(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ id: number; mark: string }>`
    select r.id, md5(concat_ws(e'\\n',
             (select string_agg(format('%s %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull), ',' order by a.attnum)
                from pg_attribute a where a.attrelid = r.table_oid and a.attnum > 0 and not a.attisdropped),
             (select string_agg(pg_get_constraintdef(c.oid), ',' order by c.oid) from pg_constraint c where c.conrelid = r.table_oid),
             (select string_agg(i.indexrelid::text, ',' order by i.indexrelid) from pg_index i where i.indrelid = r.table_oid and i.indisunique),
             (select string_agg(format('%s %s', t.oid, t.tgenabled), ',' order by t.oid) from pg_trigger t where t.tgrelid = r.table_oid and not t.tgisinternal))) as mark
      from syncline.resource r where exists (select from syncline.quarantine q where q.resource_id = r.id)`.execute(db)
  const before = ((await getSetting(db, MEMORY)) ?? {}) as unknown as Record<string, string>
  const now = Object.fromEntries(rows.map(({ id, mark }) => [String(id), mark]))
  if (JSON.stringify(now) === JSON.stringify(before)) return 0
  let due = 0
  for (const [id, mark] of Object.entries(now)) {
    // Of a table that nothing waited for until now nobody knows what it was like.
    if (before[id] !== undefined && before[id] !== mark) due += await retryResource(db, Number(id))
  }
  await setSetting(db, MEMORY, now)
  return due
}
