import { type Kysely, sql, type Transaction } from 'kysely'
import type { BatchReport, LineBatch } from '../sync/index.ts'
import { countDiscards, type Discard, listDiscards } from './discards.ts'
import { DEPENDANTS_MAX, dependantsSql } from './quarantine.ts'
import { isoTime } from './registry/index.ts'
import { offerAgain } from './repair.ts'
import type { Database } from './schema.ts'

/** A record that waits at a site, as that site tells the one it came from. */
export type WaitingThere = {
  readonly resource: string
  readonly id: string
  readonly version: { readonly origin: string; readonly clock: number } | null
  readonly code: string
  readonly reason: string
  readonly waitsFor: { readonly resource: string; readonly id: string | null } | null
  readonly dependants: number
  readonly attempts: number
  readonly firstAt: string
  readonly lastAt: string
  readonly retryAt: string | null
}

/** A record that a person at a site gave up, as that site tells the one it came from. */
export type DiscardedThere = {
  readonly resource: string
  readonly id: string
  readonly version: { readonly origin: string; readonly clock: number }
  readonly code: string
  readonly reason: string
  readonly by: string
  readonly because: string | null
  readonly at: string
}

/** What a site tells a peer of that peer's records. `quarantined` and `discarded` are at most `TOLD_MAX` each, the newest; the counts are complete. */
export type Told = {
  readonly counts: { readonly quarantined: number; readonly discarded: number }
  readonly quarantined: readonly WaitingThere[]
  readonly discarded: readonly DiscardedThere[]
}

export const TOLD_MAX = 1_000

/** What became at a peer of a record that this site sent. */
export type ElsewhereEntry = {
  readonly id: string
  readonly peer: string
  readonly resource: string
  readonly recordId: string
  readonly outcome: 'quarantined' | 'refused' | 'discarded'
  readonly code: string
  readonly reason: string
  readonly waitsFor: { readonly resource: string; readonly id: string | null } | null
  readonly dependants: number
  readonly attempts: number
  readonly firstAt: string
  readonly lastAt: string
  readonly retryAt: string | null
  /** Who gave it up there, and why. */
  readonly decidedBy: string | null
  readonly because: string | null
}

/** Cheap enough for every greeting: how many records of a peer wait here, and how many were given up. */
export async function countTold(db: Kysely<Database>, peerId: number): Promise<Told['counts']> {
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from syncline.quarantine where peer_id = ${peerId}`.execute(db)
  return { quarantined: rows[0]?.count ?? 0, discarded: await countDiscards(db, peerId) }
}

/** What waits here of a peer's records, or was given up: what the peer is told. */
export async function toldTo(db: Kysely<Database>, peerId: number): Promise<Told> {
  const { rows } = await sql<ToldRow>`
    select r.name as resource, q.record_id as id, o.origin, q.clock, q.code, q.reason, w.name as waits_resource, q.waits_record_id as waits_id,
           ${dependantsSql} as dependants, q.attempts, q.first_at, q.last_at, q.retry_at
      from syncline.quarantine q join syncline.resource r on r.id = q.resource_id left join syncline.site o on o.id = q.origin
      left join syncline.resource w on w.id = q.waits_resource_id
     where q.peer_id = ${peerId} order by q.id desc limit ${TOLD_MAX}`.execute(db)
  const discarded = await listDiscards(db, { peerId, limit: TOLD_MAX })
  return {
    counts: await countTold(db, peerId),
    quarantined: rows.map((row) => ({
      resource: row.resource,
      id: row.id,
      version: row.origin === null || Number(row.clock) === 0 ? null : { origin: row.origin, clock: Number(row.clock) },
      code: row.code,
      reason: row.reason,
      waitsFor: row.waits_resource === null ? null : { resource: row.waits_resource, id: row.waits_id },
      dependants: row.dependants,
      attempts: row.attempts,
      firstAt: isoTime(row.first_at),
      lastAt: isoTime(row.last_at),
      retryAt: isoTime(row.retry_at),
    })),
    discarded: discarded.map(({ recordId, ...rest }: Discard) => ({ id: recordId, ...rest })),
  }
}

type ToldRow = {
  readonly resource: string
  readonly id: string
  readonly origin: string | null
  readonly clock: string
  readonly code: string
  readonly reason: string
  readonly waits_resource: string | null
  readonly waits_id: string | null
  readonly dependants: number
  readonly attempts: number
  readonly first_at: string
  readonly last_at: string
  readonly retry_at: string | null
}

/** Remembers what a peer told of our records in the place of what it told before, each under its number. What it refused stays until it takes it. */
export async function noteTold(db: Kysely<Database>, peerId: number, told: Told): Promise<void> {
  const rows = [
    ...told.quarantined.map((each) => ({ ...each, outcome: 'quarantined', by: null, because: null })),
    ...told.discarded.map((each) => ({
      ...each,
      outcome: 'discarded',
      waitsFor: null,
      dependants: 0,
      attempts: 1,
      firstAt: each.at,
      lastAt: each.at,
      retryAt: null,
    })),
  ].map(({ reason, because, ...each }) => ({
    ...each,
    reason: clip(reason),
    because: because === null ? null : clip(because),
  }))
  await db.transaction().execute(async (trx) => {
    const before = await outcomesAt(trx, peerId)
    // Those that are told again keep their numbers: a person may have one at hand.
    const again = JSON.stringify(rows.map(({ resource, id }) => ({ resource, id })))
    await sql`
      delete from syncline.elsewhere e where e.peer_id = ${peerId} and e.outcome <> 'refused' and not exists (
        select from jsonb_to_recordset(${again}::jsonb) as t (resource text, id text) join syncline.resource r on r.name = t.resource
         where r.id = e.resource_id and t.id = e.record_id)`.execute(trx)
    if (rows.length > 0) await keepTold(trx, peerId, rows)
    const after = await outcomesAt(trx, peerId)
    const other = [...new Set([...before.keys(), ...after.keys()])].filter((id) => before.get(id) !== after.get(id))
    // What explained a difference is not what explains it now: the next run compares anew.
    await sql`
      update syncline.agreement set head = null
       where peer_id = ${peerId} and verdict = 'waiting' and resource_id = any(${other}::int4[])`.execute(trx)
  })
}

/** What became of our records at a peer, by resource, as a text that changes with it. */
async function outcomesAt(trx: Transaction<Database>, peerId: number): Promise<ReadonlyMap<number, string>> {
  const { rows } = await sql<{ id: number; outcomes: string }>`
    select resource_id as id, string_agg(md5(record_id || outcome), '' order by record_id) as outcomes
      from syncline.elsewhere where peer_id = ${peerId} group by 1`.execute(trx)
  return new Map(rows.map(({ id, outcomes }) => [id, outcomes]))
}

async function keepTold(trx: Transaction<Database>, peerId: number, rows: readonly object[]): Promise<void> {
  await sql`
      insert into syncline.elsewhere as e (peer_id, resource_id, record_id, outcome, origin, clock, code, reason, waits_resource, waits_id, dependants, attempts,
                                           first_at, last_at, retry_at, decided_by, because)
      select distinct on (r.id, t.id) ${peerId}, r.id, t.id, t.outcome, t.version ->> 'origin', (t.version ->> 'clock')::int8, t.code, t.reason,
             t."waitsFor" ->> 'resource', t."waitsFor" ->> 'id', least(t.dependants, ${DEPENDANTS_MAX}), t.attempts, t."firstAt", t."lastAt", t."retryAt", t.by, t.because
        from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as t (resource text, id text, outcome text, version jsonb, code text, reason text, "waitsFor" jsonb,
             dependants int4, attempts int4, "firstAt" timestamptz, "lastAt" timestamptz, "retryAt" timestamptz, by text, because text)
        join syncline.resource r on r.name = t.resource
      on conflict (peer_id, resource_id, record_id) do update set outcome = excluded.outcome, origin = excluded.origin, clock = excluded.clock, code = excluded.code,
        reason = excluded.reason, waits_resource = excluded.waits_resource, waits_id = excluded.waits_id, dependants = excluded.dependants, attempts = excluded.attempts,
        first_at = excluded.first_at, last_at = excluded.last_at, retry_at = excluded.retry_at, decided_by = excluded.decided_by, because = excluded.because, terms = null`.execute(
    trx,
  )
}

/**
 * Remembers from the answer to a push what waits at the peer or was refused by it, and forgets what it took. `terms` marks what the peer let us
 * write then. Belongs into the transaction that moves the checkpoint.
 */
export async function notePushed(
  trx: Transaction<Database>,
  link: { readonly peerId: number; readonly resourceId: number; readonly terms: string | null },
  batch: Pick<LineBatch, 'text' | 'origins'>,
  report: BatchReport,
): Promise<void> {
  const { peerId, resourceId } = link
  const kept = report.rejections.filter(({ outcome }) => outcome === 'quarantined' || outcome === 'refused')
  const { rows: known } = await sql`
    select from syncline.elsewhere where peer_id = ${peerId} and resource_id = ${resourceId} limit 1`.execute(trx)
  if (known.length === 0 && kept.length === 0) return
  const dots = new Map(
    batch.text.split('\n').map((line) => {
      const [id = '""', clock = '', origin = ''] = line.split('\t', 3)
      return [
        JSON.parse(id) as string,
        { clock: clock === '' ? null : clock, origin: batch.origins[Number(origin)] ?? null },
      ]
    }),
  )
  const waiting = new Set(kept.map(({ id }) => id))
  // Where the answer names not all of them, nobody can say which were taken.
  const taken = report.truncated ? [] : [...dots.keys()].filter((id) => !waiting.has(id))
  await sql`
    delete from syncline.elsewhere where peer_id = ${peerId} and resource_id = ${resourceId} and record_id = any(${taken}::text[])`.execute(
    trx,
  )
  if (kept.length === 0) return
  const rows = kept.map(({ id, outcome, code = '', reason }) => ({
    id,
    outcome,
    code,
    reason: clip(reason),
    ...dots.get(id),
  }))
  await sql`
    insert into syncline.elsewhere as e (peer_id, resource_id, record_id, outcome, origin, clock, code, reason, terms)
    select distinct on (t.id) ${peerId}, ${resourceId}, t.id, t.outcome, t.origin, t.clock, t.code, t.reason, ${link.terms}
      from jsonb_to_recordset(${JSON.stringify(rows)}::jsonb) as t (id text, outcome text, origin text, clock int8, code text, reason text)
    on conflict (peer_id, resource_id, record_id) do update set outcome = excluded.outcome, origin = excluded.origin, clock = excluded.clock, code = excluded.code,
      reason = excluded.reason, terms = excluded.terms, attempts = e.attempts + 1, last_at = now(), retry_at = null, decided_by = null, because = null
    where not (e.outcome = 'discarded' and e.origin is not distinct from excluded.origin and e.clock is not distinct from excluded.clock)`.execute(
    trx,
  )
}

/** Offers again what a peer refused under other terms than those of now: its grant or its table has changed since. Gives how many. */
export async function offerRefused(
  db: Kysely<Database>,
  peerId: number,
  terms: ReadonlyMap<string, string>,
): Promise<number> {
  const { rows } = await sql<{ resource_id: number; ids: string[] }>`
    update syncline.elsewhere e set terms = t.terms from syncline.resource r, unnest(${[...terms.keys()]}::text[], ${[...terms.values()]}::text[]) t (name, terms)
     where e.peer_id = ${peerId} and e.outcome = 'refused' and e.terms is distinct from t.terms and r.id = e.resource_id and r.name = t.name
    returning e.resource_id, array[e.record_id] as ids`.execute(db)
  const byResource = Map.groupBy(rows, (row) => row.resource_id)
  for (const [resourceId, some] of byResource) {
    await db.transaction().execute((trx) =>
      offerAgain(
        trx,
        resourceId,
        some.flatMap(({ ids }) => ids),
      ),
    )
  }
  return rows.length
}

/** What waits, was refused or was given up at peers, newest first. What the record here has left behind since is not shown. */
export async function listElsewhere(
  db: Kysely<Database>,
  filter: {
    readonly peer?: string | undefined
    readonly resource?: string | undefined
    readonly recordIds?: readonly string[] | undefined
    readonly id?: string | undefined
    readonly before?: string | undefined
    readonly limit: number
  },
): Promise<readonly ElsewhereEntry[]> {
  const ids = filter.recordIds === undefined ? null : [...filter.recordIds]
  const { rows } = await sql<
    Omit<ElsewhereEntry, 'waitsFor'> & { readonly waitsResource: string | null; readonly waitsId: string | null }
  >`
    select e.id, p.name as peer, r.name as resource, e.record_id as "recordId", e.outcome, e.code, e.reason, e.waits_resource as "waitsResource",
           e.waits_id as "waitsId", e.dependants, e.attempts, e.first_at as "firstAt", e.last_at as "lastAt", e.retry_at as "retryAt",
           e.decided_by as "decidedBy", e.because
      from syncline.elsewhere e join syncline.peer p on p.id = e.peer_id join syncline.resource r on r.id = e.resource_id
     where (${filter.peer ?? null}::text is null or p.name = ${filter.peer ?? null})
       and (${filter.resource ?? null}::text is null or r.name = ${filter.resource ?? null})
       and (${filter.id ?? null}::int8 is null or e.id = ${filter.id ?? null}::int8)
       and (${filter.before ?? null}::int8 is null or e.id < ${filter.before ?? null}::int8)
       and (${ids}::text[] is null or e.record_id = any(${ids}::text[]))
       and (e.outcome <> 'discarded' or exists (
         select from syncline.record v join syncline.site o on o.id = v.origin
          where v.resource_id = e.resource_id and v.record_id = e.record_id and o.origin = e.origin and v.clock <= e.clock))
     order by e.id desc limit ${filter.limit}`.execute(db)
  return rows.map(({ waitsResource, waitsId, ...row }) => ({
    ...row,
    firstAt: isoTime(row.firstAt),
    lastAt: isoTime(row.lastAt),
    retryAt: isoTime(row.retryAt),
    waitsFor: waitsResource === null ? null : { resource: waitsResource, id: waitsId },
  }))
}

/** How many records wait at peers, by peer. What was given up there waits no more. */
export async function countElsewhere(db: Kysely<Database>, peerId: number): Promise<Told['counts']> {
  const { rows } = await sql<Told['counts']>`
    select (count(*) filter (where outcome = 'quarantined'))::int as quarantined, (count(*) filter (where outcome = 'discarded'))::int as discarded
      from syncline.elsewhere where peer_id = ${peerId}`.execute(db)
  return rows[0] ?? { quarantined: 0, discarded: 0 }
}

/** True when nothing waits here, nothing of ours is known to wait at the peer, and setting `told` says that it last heard so. One look, for every run. */
export async function nothingWaits(db: Kysely<Database>, peerId: number, told: string): Promise<boolean> {
  const { rows } = await sql<{ quiet: boolean }>`
    select not (exists (select from syncline.quarantine)
             or exists (select from syncline.discard where peer_id = ${peerId})
             or exists (select from syncline.elsewhere where peer_id = ${peerId})
             or exists (select from syncline.setting where name = ${told} and value::text <> '0')) as quiet`.execute(db)
  return rows[0]?.quiet ?? false
}

/** What a peer writes has no natural end, and PostgreSQL's text no place for NUL. */
function clip(text: string): string {
  return text.slice(0, 2_000).replaceAll('\0', '\ufffd')
}
