import { sql } from 'kysely'
import type { Store } from './database.ts'
import type { EdenPlace } from './eden.ts'
import { quoteIdent } from './quote.ts'
import { liveTable, loadResources, type ResourceInfo } from './resources.ts'

/** Merges that one step follows. */
const MERGES_MAX = 1_000

/**
 * Lets references follow what Eden merged: what refers to a record that was merged away refers to the other one from now on, as this site's own
 * write. The deletion, which waits while anything refers to the record, goes through after that. Gives how many rows were changed.
 */
export async function followMerges(
  store: Store,
  { peerId, resourceId }: EdenPlace,
  resource: ResourceInfo,
): Promise<number> {
  const { rows: merges } = await sql<{ loser: string; winner: string }>`
    select e.record_id as loser, e.replaced_by as winner from syncline.eden_record e
      join syncline.record w on w.resource_id = e.resource_id and w.record_id = e.replaced_by and not w.deleted
     where e.peer_id = ${peerId} and e.resource_id = ${resourceId} and e.replaced_by is not null limit ${MERGES_MAX}`.execute(
    store.db,
  )
  if (merges.length === 0) return 0
  const referring = (await loadResources(store.db)).flatMap((each) =>
    each.references
      .filter((reference) => reference.resourceId === resource.id)
      .map((reference) => ({ each, reference })),
  )
  return store.db.transaction().execute(async (trx) => {
    let changed = 0
    const pairs = JSON.stringify(merges)
    for (const { each, reference } of referring) {
      const column = sql.raw(quoteIdent(reference.column.name))
      const target = sql.raw(quoteIdent(reference.targetColumn))
      const key = sql.raw(quoteIdent(resource.keyColumn))
      const table = sql.raw(liveTable(resource))
      const { numAffectedRows = 0n } = await sql`
        update ${sql.raw(liveTable(each))} t set ${column} = w.${target}
          from jsonb_to_recordset(${pairs}::jsonb) m (loser text, winner text)
          join ${table} l on l.${key}::text = m.loser join ${table} w on w.${key}::text = m.winner
         where t.${column} = l.${target}`.execute(trx)
      changed += Number(numAffectedRows)
    }
    await sql`
      update syncline.eden_record set replaced_by = null
       where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${merges.map(({ loser }) => loser)}::text[])`.execute(
      trx,
    )
    return changed
  })
}
