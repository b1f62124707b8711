import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database } from './schema.ts'

/**
 * Notes what the staged batch became, or one of `inserted` new records that was never staged, so that its run can be taken back: a row for each
 * batch, none for each record. Belongs behind the writing of the batch, in its transaction.
 */
export async function noteRunBatch(
  trx: Transaction<Database>,
  resourceId: number,
  runId: string,
  source: number | null,
  inserted?: number,
): Promise<void> {
  const counts =
    inserted === undefined
      ? sql`select count(*) filter (where class = 'n')::int as inserted, count(*) filter (where class in ('f', 'r'))::int as changed
              from pg_temp.syncline_stage`
      : sql`select ${inserted}::int as inserted, 0 as changed`
  await sql`
    insert into syncline.run_batch (run_id, xact, resource_id, source, inserted, changed)
    select ${runId}::int8, pg_current_xact_id(), ${resourceId}, ${source}::int4, inserted, changed from (${counts}) c
     where inserted + changed > 0`.execute(trx)
}

/** Forgets the batches of runs that are no longer in the log. */
export async function pruneRunBatches(db: Kysely<Database>): Promise<void> {
  await sql`delete from syncline.run_batch b where not exists (select from syncline.run r where r.id = b.run_id)`.execute(
    db,
  )
}
