import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { Position } from '../sync/index.ts'
import { getSetting, setSetting } from './registry/index.ts'
import { liveTable, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

export type Refilter = {
  readonly resource: ResourceInfo
  readonly peerId: number
  readonly filter: RawBuilder<boolean>
  readonly text: string
  /** Where the peer is; what lies behind that it will be asked about anyway. Null: it has nothing yet. */
  readonly after: Position | null
}

/**
 * A filter across a reference can begin or cease to match because the *other* record changed. When records of a referenced resource
 * changed since the last look, those of this resource whose match differs from what the peer was sent are moved to now in the change
 * order, with their versions as they are: the ordinary batch then sends or withdraws them.
 */
export async function touchRefiltered(
  db: Kysely<Database>,
  { resource, peerId, filter, text, after }: Refilter,
): Promise<void> {
  const parents = text.includes('.') ? resource.references.map((reference) => reference.resourceId) : []
  if (parents.length === 0) return
  const { rows } = await sql<{ head: string | null }>`
    select max(xact)::text as head from (
      select (select r.xact from syncline.record r where r.resource_id = p.id and r.xact < pg_snapshot_xmin(pg_current_snapshot())
               order by r.xact desc, r.record_id desc limit 1) as xact
        from unnest(${parents}::int4[]) p(id)) heads`.execute(db)
  const head = rows[0]?.head ?? '0'
  const name = `refilter:${peerId}:${resource.id}`
  if ((await getSetting(db, name)) === head) return
  if (after !== null)
    await sql`
    with live as materialized (
      select t.${sql.id(resource.keyColumn)}::text collate "C" as record_id, coalesce(${filter}, false) as matches from ${sql.raw(liveTable(resource))} t
    )
    update syncline.record r set xact = pg_current_xact_id()
      from live left join syncline.shared h on h.peer_id = ${peerId} and h.resource_id = ${resource.id} and h.record_id = live.record_id
     where r.resource_id = ${resource.id} and r.record_id = live.record_id
       and (r.xact, r.record_id) <= (${after.xact}::xid8, ${after.recordId} collate "C")
       and live.matches <> (h.record_id is not null and not h.gone)`.execute(db)
  await setSetting(db, name, head)
}
