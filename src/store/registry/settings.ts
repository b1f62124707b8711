import { type Kysely, sql } from 'kysely'
import type { Json } from '../../sync/index.ts'
import type { Database } from '../schema.ts'
import { inTransaction, sqlState } from './transaction.ts'
import { checkText, invalid } from './values.ts'

/** The value of a setting; undefined when it was never set, which differs from a setting that is null. */
export async function getSetting(db: Kysely<Database>, name: string): Promise<Json | undefined> {
  const row = await db.selectFrom('syncline.setting').select('value').where('name', '=', name).executeTakeFirst()
  return row?.value
}

/** Every setting by name. */
export async function listSettings(db: Kysely<Database>): Promise<ReadonlyMap<string, Json>> {
  const rows = await db.selectFrom('syncline.setting').select(['name', 'value']).orderBy('name').execute()
  return new Map(rows.map((row) => [row.name, row.value]))
}

/** Makes or replaces a setting. Errors: SYNC_REQUEST_INVALID. */
export async function setSetting(db: Kysely<Database>, name: string, value: Json): Promise<void> {
  checkText('the name of a setting', name, 63)
  await db
    .insertInto('syncline.setting')
    .values({ name, value: JSON.stringify(value) })
    .onConflict((conflict) =>
      conflict
        .column('name')
        .doUpdateSet((eb) => ({ value: eb.ref('excluded.value'), changed_at: sql<string>`now()` })),
    )
    .execute()
    .catch((cause: unknown) => {
      // jsonb has no place for the character NUL.
      if (sqlState(cause) === '22P05') throw invalid(`setting "${name}" contains a NUL character`, { cause })
      throw cause
    })
}

/** Takes a setting back to its default. Nothing happens when it was never set. */
export async function clearSetting(db: Kysely<Database>, name: string): Promise<void> {
  await db.deleteFrom('syncline.setting').where('name', '=', name).execute()
}

/**
 * Sets a setting only where it still has the value that the caller read; undefined for one that was not set. False where somebody else was first.
 * Errors: SYNC_REQUEST_INVALID.
 */
export async function replaceSetting(
  db: Kysely<Database>,
  name: string,
  value: Json,
  expected: Json | undefined,
): Promise<boolean> {
  return inTransaction(db, async (trx) => {
    // Also keeps two callers apart who both found nothing.
    await sql`select pg_advisory_xact_lock(hashtextextended('syncline.setting', 0))`.execute(trx)
    const { rows } = await sql<{ same: boolean }>`
      select ${expected === undefined ? sql`false` : sql`value = ${JSON.stringify(expected)}::jsonb`} as same
        from syncline.setting where name = ${name}`.execute(trx)
    const same = rows[0] === undefined ? expected === undefined : rows[0].same
    if (same) await setSetting(trx, name, value)
    return same
  })
}
