import { type Kysely, sql } from 'kysely'

/** What a run needs to be taken back: which transactions were its batches, and how much each of them changed. */
export async function up(db: Kysely<unknown>): Promise<void> {
  const statements = sql`
    create table syncline.run_batch (
      run_id int8 not null,
      xact xid8,
      at timestamptz not null default now(),
      resource_id int not null,
      source int,
      inserted int not null,
      changed int not null
    );
    create index run_batch_run on syncline.run_batch (run_id);
    create index run_batch_xact on syncline.run_batch (xact);
    comment on table syncline.run_batch is
      'One row for each batch that a run applied. Records that it brought new are those whose row was born in its transaction: a baseline costs no history.';
    comment on column syncline.run_batch.xact is 'The transaction of the batch; null after a new log, as transaction ids of another cluster mean nothing.';
    comment on column syncline.run_batch.changed is 'Records that were replaced, deleted or removed; each has a row in history as long as that is kept.';
  `
  for (const text of statements.compile(db).sql.split(/;\s*$/m)) {
    if (text.trim() !== '') await sql.raw(text).execute(db)
  }
}
