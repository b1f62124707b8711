import type { Kysely, Transaction } from 'kysely'
import type { Database } from '../schema.ts'

/** Runs `work` in the caller's transaction when `db` is one, else in a transaction of its own. */
export async function inTransaction<T>(
  db: Kysely<Database>,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  return db.isTransaction ? work(db as Transaction<Database>) : db.transaction().execute(work)
}

/** True when PostgreSQL refused a duplicate of a unique key. The embedded database's errors are no instances of pg's class. */
export function isUniqueViolation(error: unknown): boolean {
  return sqlState(error) === '23505'
}

/** SQLSTATE of an error that the database reported, else null. */
export function sqlState(error: unknown): string | null {
  const code = error instanceof Error && 'code' in error ? error.code : null
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : null
}
