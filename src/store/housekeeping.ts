import { type Kysely, sql } from 'kysely'
import type { Store } from './database.ts'
import { isoTime, setSetting } from './registry/index.ts'
import { liveTable, loadResources } from './resources.ts'
import type { Database } from './schema.ts'
import { HISTORY_PRUNED } from './undo-plan.ts'

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

/** Entries of the history that are deleted in one transaction. */
const PRUNED_AT_ONCE = 10_000

/**
 * Deletes overwritten and losing values that are older than `days`, some thousands at a time; gives how many. The time up to which they are gone is
 * kept, so that an undo can say what it misses.
 */
export async function pruneHistory(db: Kysely<Database>, days: number): Promise<number> {
  const { rows } = await sql<{ limit: string; due: boolean }>`
    select l.at::text as limit, exists (select from syncline.history h where h.at < l.at) as due
      from (select date_trunc('second', now() - make_interval(days => ${days}::int4)) as at) l`.execute(db)
  const [cut] = rows
  if (cut === undefined || !cut.due) return 0
  await setSetting(db, HISTORY_PRUNED, isoTime(cut.limit))
  for (let total = 0; ; ) {
    const { numAffectedRows } = await sql`
      delete from syncline.history where id in (
        select id from syncline.history where at < ${cut.limit}::timestamptz order by at limit ${PRUNED_AT_ONCE})`.execute(
      db,
    )
    total += Number(numAffectedRows ?? 0)
    if (Number(numAffectedRows ?? 0) < PRUNED_AT_ONCE) return total
  }
}
