import { type Kysely, sql, type Transaction } from 'kysely'
import { comparePositions, type Position, parseCheckpoint } from '../sync/index.ts'
import { loadResources, type ResourceInfo } from './resources.ts'
import type { Database } from './schema.ts'

/** A peer that is to hear of every deletion of a resource, and how far it has come. Null: it never said. */
export type Holder = {
  readonly peerId: number
  readonly peer: string
  readonly position: Position | null
  /** When it last came further. */
  readonly at: string | null
}

/** Tombstones taken away in one transaction: short enough that writers hardly notice. */
const STEP_ROWS = 1_000

/**
 * Who has to have a deletion before its tombstone may go: peers that may pull the resource, and those we push it to. What a peer took from us,
 * either way, it has.
 */
export async function holdersOf(db: Kysely<Database>, resourceId: number, logId: string): Promise<readonly Holder[]> {
  const { rows } = await sql<{ id: number; name: string; value: string | null; at: string | null }>`
    select p.id, p.name, c.value, c.at::text as at from syncline.peer p
      left join syncline.checkpoint c on c.peer_id = p.id and c.resource_id = ${resourceId} and c.direction in ('ack', 'push')
     where exists (select from syncline.peer_grant g where g.peer_id = p.id and g.resource_id = ${resourceId} and g.direction = 'pull')
        or exists (select from syncline.task t where t.peer_id = p.id and t.resource_id = ${resourceId} and t.mode in ('push', 'both'))
     order by p.name`.execute(db)
  const holders = new Map<number, Holder>()
  for (const { id, name, value, at } of rows) {
    const known = holders.get(id) ?? { peerId: id, peer: name, position: null, at: null }
    const position = placeIn(logId, value)
    const further =
      position !== null && (known.position === null || comparePositions(position, known.position) > 0) ? position : null
    holders.set(id, further === null ? known : { ...known, position: further, at })
  }
  return [...holders.values()]
}

function placeIn(logId: string, value: string | null): Position | null {
  if (value === null) return null
  const checkpoint = parseCheckpoint(value)
  return checkpoint.logId.split('.')[0] === logId ? checkpoint.position : null
}

export type PurgeResult = { readonly resource: string; readonly purged: number }

/**
 * Takes away tombstones that every holder has, and those older than `days` whoever has them, in steps of one short transaction, at most
 * `rowsMax` for a resource. What is left of each is a hash of its record id and its version (syncline.purged), so that the record is known
 * again if it comes back (I6). Gives the resources of which something was purged.
 */
export async function purgeTombstones(
  db: Kysely<Database>,
  options: { readonly logId: string; readonly days: number; readonly rowsMax?: number },
): Promise<readonly PurgeResult[]> {
  const results: PurgeResult[] = []
  for (const resource of await loadResources(db)) {
    let purged = 0
    for (const rowsMax = options.rowsMax ?? 100_000; purged < rowsMax; ) {
      const limit = Math.min(STEP_ROWS, rowsMax - purged)
      const step = await db.transaction().execute((trx) => purgeStep(trx, resource, { ...options, limit }))
      purged += step
      if (step < limit) break
    }
    if (purged > 0) results.push({ resource: resource.name, purged })
  }
  return results
}

async function purgeStep(
  trx: Transaction<Database>,
  resource: ResourceInfo,
  { logId, days, limit }: { readonly logId: string; readonly days: number; readonly limit: number },
): Promise<number> {
  // A batch that is being applied has looked for these tombstones already.
  await sql`select pg_advisory_xact_lock(hashtextextended('syncline.apply', ${resource.id}))`.execute(trx)
  const holders = await holdersOf(trx, resource.id, logId)
  const known = holders.flatMap(({ position }) => (position === null ? [] : [position]))
  const behind = known.length < holders.length
  const [slowest] = [...known].sort(comparePositions)
  const acknowledged = behind
    ? sql`false`
    : slowest === undefined
      ? sql`true`
      : sql`(r.xact, r.record_id) <= (${slowest.xact}::xid8, ${slowest.recordId} collate "C")`
  // Of records that wait for a decision both sides are still needed.
  const { rows } = await sql<{ count: number }>`
    with due as materialized (
      select r.ctid as at, r.record_id, r.xact, r.origin, r.clock, r.seen from syncline.record r
       where r.resource_id = ${sql.lit(resource.id)} and r.deleted and r.xact < pg_snapshot_xmin(pg_current_snapshot())
         and (${acknowledged} or r.clock < (extract(epoch from clock_timestamp() - make_interval(days => ${days}::int4)) * 1000000)::int8)
         and not exists (select from syncline.conflict c where c.resource_id = r.resource_id and c.record_id = r.record_id and c.resolved_at is null)
         and not exists (select from syncline.quarantine q where q.resource_id = r.resource_id and q.record_id = r.record_id)
       order by r.xact, r.record_id limit ${limit} for update skip locked
    ), kept as (
      insert into syncline.purged as g (resource_id, id_hash, clock, xact, origin, seen)
      select ${resource.id}, hashtextextended(record_id, 0), clock, xact, origin, seen from due
      on conflict (resource_id, id_hash) do update set clock = excluded.clock, xact = excluded.xact, origin = excluded.origin, seen = excluded.seen
    ), gone as (
      delete from syncline.record r using due where r.ctid = due.at
    ), unparked as (
      delete from syncline.parked k using due where k.resource_id = ${resource.id} and k.record_id = due.record_id
    ), unshared as (
      delete from syncline.shared h using due, unnest(${known.map(({ xact }) => xact)}::text[]::xid8[], ${known.map(({ recordId }) => recordId)}::text[], ${holders.filter(({ position }) => position !== null).map(({ peerId }) => peerId)}::int4[]) as p(xact, record_id, peer_id)
       where h.resource_id = ${resource.id} and h.record_id = due.record_id and h.peer_id = p.peer_id
         and (due.xact, due.record_id) <= (p.xact, p.record_id collate "C")
    ), through as (
      insert into syncline.purge as u (resource_id, steps, xact, record_id)
      select ${resource.id}, 1, xact, record_id from due order by xact desc, record_id desc limit 1
      on conflict (resource_id) do update set steps = u.steps + 1,
        xact = case when (excluded.xact, excluded.record_id) > (u.xact, u.record_id) then excluded.xact else u.xact end,
        record_id = case when (excluded.xact, excluded.record_id) > (u.xact, u.record_id) then excluded.record_id else u.record_id end
    )
    select count(*)::int as count from due`.execute(trx)
  return rows[0]?.count ?? 0
}

/** How many tombstones of a resource there are, how many were purged, and which peers have not acknowledged the newest. */
export type TombstoneState = {
  readonly tombstones: number
  readonly purged: number
  readonly heldBy: readonly { readonly peer: string; readonly tombstones: number; readonly since: string | null }[]
}

export async function tombstoneState(db: Kysely<Database>, resourceId: number, logId: string): Promise<TombstoneState> {
  const { rows } = await sql<{ tombstones: number; purged: number }>`
    select (select count(*)::int from syncline.record where resource_id = ${resourceId} and deleted) as tombstones,
           (select count(*)::int from syncline.purged where resource_id = ${resourceId}) as purged`.execute(db)
  const { tombstones = 0, purged = 0 } = rows[0] ?? {}
  const heldBy: TombstoneState['heldBy'][number][] = []
  for (const { peer, position, at } of tombstones === 0 ? [] : await holdersOf(db, resourceId, logId)) {
    const beyond =
      position === null
        ? sql`true`
        : sql`(xact, record_id) > (${position.xact}::xid8, ${position.recordId} collate "C")`
    const { rows: waiting } = await sql<{ count: number }>`
      select count(*)::int as count from syncline.record where resource_id = ${resourceId} and deleted and ${beyond}`.execute(
      db,
    )
    const count = waiting[0]?.count ?? 0
    if (count > 0) heldBy.push({ peer, tombstones: count, since: at })
  }
  return { tombstones, purged, heldBy }
}
