import { type Kysely, sql } from 'kysely'

/** The error that keeps a value from being written where its column would change it without a word. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function syncline.inexact() returns jsonb
    language plpgsql as $$
    begin
      raise exception using errcode = 'SYNX1', message = 'a value does not fit its column without losing something';
    end
    $$
  `.execute(db)
}
