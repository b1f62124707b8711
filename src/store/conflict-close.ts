import { sql, type Transaction } from 'kysely'
import type { ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/**
 * Closes the open conflicts of the records in the stage whose version here has seen both sides now: somebody settled them elsewhere.
 * Belongs behind the writing of a batch, in its transaction.
 */
export async function closeSettledConflicts(trx: Transaction<Database>, resource: ResourceInfo): Promise<void> {
  const { rows } = await sql`
    select from syncline.conflict where resource_id = ${resource.id} and resolved_at is null limit 1`.execute(trx)
  if (rows.length === 0) return
  const seen = (side: string) => sql`exists (
    select from syncline.site o where o.origin = ${sql.ref(`c.${side}`)} ->> 'origin'
       and (case when r.origin = o.id then r.clock else (r.seen ->> o.id::text)::int8 end) >= (${sql.ref(`c.${side}`)} ->> 'clock')::int8)`
  await sql`
    update syncline.conflict c set resolved_at = clock_timestamp(), resolution = 'elsewhere'
      from pg_temp.syncline_stage s join syncline.record r on r.resource_id = ${resource.id} and r.record_id = s.id
     where c.resource_id = ${resource.id} and c.record_id = s.id and c.resolved_at is null and s.class in ('n', 'f', 's', 'v')
       and ${seen('ours_version')} and ${seen('theirs_version')}`.execute(trx)
}
