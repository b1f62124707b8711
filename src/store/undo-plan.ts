import { type RawBuilder, sql, type Transaction } from 'kysely'
import { getSetting, isoTime, type SelfEntry } from './registry/index.ts'
import type { Database } from './schema.ts'

/** Setting: values that ended before this time are no longer in the history. */
export const HISTORY_PRUNED = 'history:pruned-before'

/** Reasons of a history entry that tell what a run changed here; the others are values that never were here, or did not stay. */
const CHANGED = sql`('replaced', 'deleted', 'left')`

/** What a run did to a record: it came, its values were replaced, or it went. */
export type RunDeed = 'inserted' | 'replaced' | 'deleted'

/** Values of a run that are not there to be put back, with the reason. */
export type UndoMissing = {
  /** Null when the resource is not attached any more. */
  readonly resource: string | null
  readonly deed: 'inserted' | 'changed'
  readonly count: number
  readonly reason: string
}

/**
 * Plans the undo of a run in temporary table `syncline_undo`, one row for each record that the run changed here: what is to be done with it (`kind`
 * p writes the values of history entry `first_id`, d deletes), and its state: due, since (somebody changed it after the run), same (it is as it
 * was before). `forced` is pairs of resource and record id that are due whoever changed them. No row passes through Node.
 */
export async function planUndo(
  trx: Transaction<Database>,
  self: SelfEntry,
  runId: string,
  forced: readonly (readonly [resource: string, id: string])[],
): Promise<void> {
  await sql`create temporary table if not exists syncline_undo (
    resource_id int4 not null, record_id text collate "C" not null, born bool not null default false, first_id int8, last_id int8,
    kind "char" not null default 'd', did text, keys text[], p_origin int4, p_clock int8, state text not null default 'due',
    code text, reason text, primary key (resource_id, record_id)
  ) on commit delete rows`.execute(trx)
  await sql`delete from pg_temp.syncline_undo`.execute(trx)
  await sql`
    insert into pg_temp.syncline_undo (resource_id, record_id, first_id, last_id)
    select h.resource_id, h.record_id, min(h.id), max(h.id) from syncline.history h join syncline.resource s on s.id = h.resource_id
     where h.run_id = ${runId}::int8 and h.reason in ${CHANGED} group by 1, 2`.execute(trx)
  // What triggers of the application added in the same transaction is not what the run brought: it came from nobody.
  await sql`
    insert into pg_temp.syncline_undo as u (resource_id, record_id, born)
    select distinct r.resource_id, r.record_id, true
      from syncline.run_batch b join syncline.record r on r.resource_id = b.resource_id and r.born = b.xact
     where b.run_id = ${runId}::int8 and b.inserted > 0 and (r.xact <> r.born or r.source is not distinct from b.source)
    on conflict (resource_id, record_id) do update set born = true`.execute(trx)
  await sql`analyze pg_temp.syncline_undo`.execute(trx)
  await markStates(trx, self, runId)
  await markUndone(trx, runId)
  await markHalf(trx, runId)
  if (forced.length > 0) await markForced(trx, forced)
}

async function markStates(trx: Transaction<Database>, self: SelfEntry, runId: string): Promise<void> {
  const pruned = await getSetting(trx, HISTORY_PRUNED)
  const known = typeof pruned === 'string' ? sql`${pruned}::timestamptz` : sql`'-infinity'::timestamptz`
  // Without an entry of its own a record that came is as the run left it while nobody here wrote it and nothing took its place.
  const untouched = sql`(r.xact = r.born or (r.source is not null or o.uuid <> ${self.uuid}::uuid)
    and (select min(b.at) from syncline.run_batch b where b.run_id = ${runId}::int8) > ${known}
    and not exists (select from syncline.history h where h.resource_id = u.resource_id and h.record_id = u.record_id and h.reason in ${CHANGED}))`
  const unchanged = sql`case
    when u.last_id is null then ${untouched}
    when h2.reason = 'left' then r.clock is null
    else (r.origin, r.clock) is not distinct from (h2.by_origin, h2.by_clock) end`
  const absent = sql`(u.born or h1.deleted)`
  await sql`
    update pg_temp.syncline_undo w set kind = case when now.absent then 'd' else 'p' end::"char", did = now.did, keys = now.keys,
           p_origin = now.origin, p_clock = now.clock,
           state = case when now.absent and not now.living then 'same' when now.unchanged then 'due' else 'since' end
      from (
        select u.resource_id, u.record_id, r.origin, r.clock, coalesce(not r.deleted, false) as living, ${absent} as absent,
               coalesce(${unchanged}, false) as unchanged,
               case when ${absent} then 'inserted' when h2.reason in ('deleted', 'left') then 'deleted' else 'replaced' end as did,
               case when not ${absent} then array(select k from json_object_keys(h1.data) k order by k) end as keys
          from pg_temp.syncline_undo u
          left join syncline.record r on r.resource_id = u.resource_id and r.record_id = u.record_id
          left join syncline.site o on o.id = r.origin
          left join syncline.history h1 on h1.id = u.first_id left join syncline.history h2 on h2.id = u.last_id
      ) now
     where w.resource_id = now.resource_id and w.record_id = now.record_id`.execute(trx)
}

/** What an earlier undo of the run has put back is not changed since: it is as it was before the run. */
async function markUndone(trx: Transaction<Database>, runId: string): Promise<void> {
  await sql`
    update pg_temp.syncline_undo u set state = 'same' from syncline.record r
     where u.state = 'since' and r.resource_id = u.resource_id and r.record_id = u.record_id and exists (
       select from syncline.run_batch b join syncline.run n on n.id = b.run_id
        where b.xact = r.xact and b.resource_id = r.resource_id and n.cause = ${undoCause(runId)})`.execute(trx)
}

/** What set off a run that takes another one back. */
export function undoCause(runId: string): string {
  return `undo of run ${runId}`
}

/** The last run that took a run back. */
export async function undoneBefore(
  trx: Transaction<Database>,
  runId: string,
): Promise<{ readonly runId: string; readonly at: string } | null> {
  const { rows } = await sql<{ runId: string; at: string }>`
    select id as "runId", started_at::text as at from syncline.run where cause = ${undoCause(runId)} and finished_at is not null
     order by id desc limit 1`.execute(trx)
  const [row] = rows
  return row === undefined ? null : { ...row, at: isoTime(row.at) }
}

/** Where the first of what the run replaced is gone from the history already, what is left is a value of the run itself: nobody's to put back. */
async function markHalf(trx: Transaction<Database>, runId: string): Promise<void> {
  await sql`
    update pg_temp.syncline_undo u set state = 'blocked', code = 'SYNC_RUN_UNDO_INCOMPLETE', reason = 'its values before the run are no longer kept'
      from syncline.history h
     where h.id = u.first_id and u.kind = 'p' and h.xact in (select b.xact from syncline.run_batch b where b.run_id = ${runId}::int8)`.execute(
    trx,
  )
}

async function markForced(
  trx: Transaction<Database>,
  forced: readonly (readonly [resource: string, id: string])[],
): Promise<void> {
  await sql`
    update pg_temp.syncline_undo u set state = 'due'
      from unnest(${forced.map(([name]) => name)}::text[], ${forced.map(([, id]) => id)}::text[]) f(name, id) join syncline.resource s on s.name = f.name
     where u.resource_id = s.id and u.record_id = f.id collate "C" and u.state = 'since'`.execute(trx)
}

/** Of records that are to be forced, those that the run did not change here. */
export async function notOfRun(
  trx: Transaction<Database>,
  forced: readonly (readonly [resource: string, id: string])[],
): Promise<readonly string[]> {
  if (forced.length === 0) return []
  const { rows } = await sql<{ name: string }>`
    select f.name || '/' || f.id as name from unnest(${forced.map(([name]) => name)}::text[], ${forced.map(([, id]) => id)}::text[]) f(name, id)
     where not exists (select from pg_temp.syncline_undo u join syncline.resource s on s.id = u.resource_id
                        where s.name = f.name and u.record_id = f.id collate "C")`.execute(trx)
  return rows.map(({ name }) => name)
}

/** What the run changed here and nobody can put back, counted against what its batches say of themselves. */
export async function missingOf(trx: Transaction<Database>, runId: string): Promise<readonly UndoMissing[]> {
  const pruned = await getSetting(trx, HISTORY_PRUNED)
  const { rows } = await sql<{
    resource: string | null
    changed: number
    inserted: number
    kept: number
    lost: number
  }>`
    select s.name as resource, sum(b.changed)::int as changed, sum(b.inserted)::int as inserted,
           coalesce(sum(b.inserted) filter (where b.xact is null), 0)::int as lost,
           (select count(*)::int from syncline.history h
             where h.run_id = ${runId}::int8 and h.resource_id = b.resource_id and h.reason in ${CHANGED}) as kept
      from syncline.run_batch b left join syncline.resource s on s.id = b.resource_id
     where b.run_id = ${runId}::int8 group by s.name, b.resource_id order by 1`.execute(trx)
  const gone = 'the resource is not attached here any more'
  const past = `their previous values are no longer kept${typeof pruned === 'string' ? `; what ended before ${pruned} was removed` : ''}`
  const other = 'they cannot be told from others any more, as this site began a new log since'
  // Columns that were there when the run replaced the row.
  const columns = await sql<{ resource: string; name: string; count: number }>`
    select s.name as resource, k.name, count(*)::int as count
      from pg_temp.syncline_undo u join syncline.resource s on s.id = u.resource_id cross join unnest(u.keys) k(name)
     where u.kind = 'p' and u.state = 'due' and not s.columns @> jsonb_build_array(jsonb_build_object('name', k.name))
     group by 1, 2 order by 1, 2`.execute(trx)
  const dropped = columns.rows.map(({ resource, name, count }): UndoMissing => {
    return { resource, deed: 'changed', count, reason: `the table has no column ${name} any more` }
  })
  const counted = rows
    .flatMap(({ resource, changed, inserted, kept, lost }): UndoMissing[] => [
      resource === null
        ? { resource, deed: 'changed', count: changed, reason: gone }
        : { resource, deed: 'changed', count: changed - kept, reason: past },
      resource === null
        ? { resource, deed: 'inserted', count: inserted, reason: gone }
        : { resource, deed: 'inserted', count: lost, reason: other },
    ])
    .filter(({ count }) => count > 0)
  return [...counted, ...dropped]
}

/** Who wrote the version of a record that is here now. */
export type ChangedSince = {
  readonly resource: string
  readonly id: string
  readonly did: RunDeed
  /** Name of the site where it was changed since; its UUID where it has no name here. */
  readonly site: string
  /** Peer that the change came by; null when it was made or settled here. */
  readonly via: string | null
  readonly at: string
  /** Run of this site that brought or made it; null for the application and for writes by hand. */
  readonly runId: string | null
  readonly deleted: boolean
}

type SinceRow = Omit<ChangedSince, 'at'> & { readonly clock: string | null }

/** Records that the run changed and somebody changed after it, in order; at most `limit`. */
export async function changedSince(trx: Transaction<Database>, limit: number): Promise<readonly ChangedSince[]> {
  const { rows } = await sql<SinceRow>`
    select s.name as resource, u.record_id as id, u.did, coalesce(p.name, case when o.uuid = self.uuid then self.name end, o.uuid::text, self.name) as site,
           v.name as via, r.clock, ${runOf(sql`r.xact`, sql`u.resource_id`)} as "runId", coalesce(r.deleted, true) as deleted
      from pg_temp.syncline_undo u join syncline.resource s on s.id = u.resource_id cross join syncline.self self
      left join syncline.record r on r.resource_id = u.resource_id and r.record_id = u.record_id
      left join syncline.site o on o.id = r.origin left join syncline.peer p on p.uuid = o.uuid
      left join syncline.peer v on v.site_id = r.source
     where u.state = 'since' order by s.name, u.record_id limit ${limit}`.execute(trx)
  return rows.map(({ clock, ...row }) => ({ ...row, at: microsToIso(clock) }))
}

/** The run of this site that wrote a version here, by its transaction. */
export function runOf(xact: RawBuilder<unknown>, resourceId: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(select b.run_id from syncline.run_batch b where b.xact = ${xact} and b.resource_id = ${resourceId} limit 1)`
}

/** The time of a clock, to the microsecond. */
export function microsToIso(clock: string | number | null): string {
  const micros = Number(clock ?? 0)
  const rest = String(micros % 1_000).padStart(3, '0')
  return new Date(Math.floor(micros / 1_000)).toISOString().replace('Z', `${rest}Z`)
}
