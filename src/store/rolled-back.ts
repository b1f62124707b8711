import type { Transaction } from 'kysely'
import type { Store } from './database.ts'
import type { Database } from './schema.ts'

/** Carries the result out of a transaction that must not commit. */
class RolledBack<T> {
  readonly result: T

  constructor(result: T) {
    this.result = result
  }
}

/**
 * Runs `work` in a transaction that is always rolled back, and gives what it found: the same code path as the real thing, and nothing of it stays.
 * What PostgreSQL itself never takes back are numbers drawn from sequences. On the embedded database nothing else can use the database
 * meanwhile: `work` must use only `trx`, and be bounded.
 */
export async function rolledBack<T>(store: Store, work: (trx: Transaction<Database>) => Promise<T>): Promise<T> {
  try {
    return await store.db.transaction().execute(async (trx): Promise<never> => {
      throw new RolledBack(await work(trx))
    })
  } catch (error) {
    if (error instanceof RolledBack) return error.result as T
    throw error
  }
}
