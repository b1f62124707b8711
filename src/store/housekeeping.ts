import { type Kysely, sql } from 'kysely'
import type { Store } from './database.ts'
import { liveTable, loadResources } from './resources.ts'
import type { Database } from './schema.ts'

/** Changes after which the embedded database is tidied: it has no background process that would do it. */
const EMBEDDED_CHANGES = 20_000

const written = new WeakMap<Store, number>()

/**
 * Gives the embedded database what a server does by itself: space of dead rows is reused, and the planner knows the tables.
 * `changes` is how many rows were just written. Does nothing on a PostgreSQL server, which has autovacuum.
 */
export async function tidyAfter(store: Store, changes: number): Promise<void> {
  if (store.server) return
  const total = (written.get(store) ?? 0) + changes
  written.set(store, total < EMBEDDED_CHANGES ? total : 0)
  if (total < EMBEDDED_CHANGES) return
  for (const resource of await loadResources(store.db)) {
    await sql.raw(`vacuum (analyze) ${liveTable(resource)}`).execute(store.db)
  }
  for (const table of ['record', 'history', 'quarantine', 'shared', 'log']) {
    await sql.raw(`vacuum (analyze) syncline.${table}`).execute(store.db)
  }
}

/** Deletes overwritten and losing values that are older than `days`; gives how many. */
export async function pruneHistory(db: Kysely<Database>, days: number): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from syncline.history where at < now() - make_interval(days => ${days}::int4)`.execute(db)
  return Number(numAffectedRows ?? 0)
}
