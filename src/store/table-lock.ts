import { setTimeout as sleep } from 'node:timers/promises'
import { type Kysely, sql, type Transaction } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import type { Database } from './schema.ts'

/** Longest wait for the lock of a table: every writer behind us waits as long. The pause lets them through before the next try. */
const LOCK_WAIT_MS = 500
const LOCK_PAUSE_MS = 500
const LOCK_TRIES = 12

/**
 * One transaction that alters tables of the application. Writers are never held for long: it waits briefly for a lock, gives up, lets them
 * through and begins anew. Errors: SYNC_STORE_BUSY when the lock was not to be had, SYNC_STORE_RIGHTS.
 */
export async function alteringTables<T>(
  db: Kysely<Database>,
  work: (trx: Transaction<Database>) => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await db.transaction().execute(async (trx) => {
        await sql`select set_config('lock_timeout', ${`${LOCK_WAIT_MS}ms`}, true)`.execute(trx)
        return work(trx)
      })
    } catch (error) {
      if ((error as { code?: string }).code !== '55P03' || tries === LOCK_TRIES) throw explainLock(error)
    }
    await sleep(LOCK_PAUSE_MS)
  }
}

function explainLock(error: unknown): unknown {
  const { code, message } = error as { code?: string; message: string }
  if (code === '55P03') {
    const detail = 'the table is in use by a long transaction; try again when it has ended'
    return new SynclineError('SYNC_STORE_BUSY', detail, { cause: error })
  }
  if (code === '42501') {
    const detail = `${message}: the role of Syncline needs TRIGGER, SELECT, INSERT, UPDATE and DELETE on the table`
    return new SynclineError('SYNC_STORE_RIGHTS', detail, { cause: error })
  }
  return error
}
