import { type Kysely, sql } from 'kysely'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/**
 * Triggers of the application that run before a row is written, in words: they may store something else than what a peer sent, under the version
 * that it sent. That is not made a write of this site, since a trigger that stamps the time would then send every record back and forth for ever.
 */
export async function rowTriggerWarnings(db: Kysely<Database>, resource: ResourceInfo): Promise<readonly string[]> {
  // tgtype: 1 for each row, 2 before, 4 insert, 16 update.
  const { rows } = await sql<{ name: string }>`
    select tgname::text as name from pg_trigger
     where tgrelid = ${resource.tableOid}::oid and not tgisinternal and tgenabled <> 'D' and tgtype & 3 = 3 and tgtype & 20 <> 0
     order by tgname`.execute(db)
  return rows.map(
    ({ name }) =>
      `trigger "${name}" runs before rows are written: where it changes what a peer sent, the two sites differ under one version, which only a deep comparison sees`,
  )
}
