import { type Kysely, sql } from 'kysely'
import { isoTime } from './registry/index.ts'
import { appendLog } from './run-log.ts'
import type { Database } from './schema.ts'

/** A record of a peer that a person gave up while it waited, by the version that was given up. */
export type Discard = {
  readonly resource: string
  readonly recordId: string
  readonly version: { readonly origin: string; readonly clock: number }
  /** Why it had waited. */
  readonly code: string
  readonly reason: string
  readonly by: string
  readonly because: string | null
  readonly at: string
}

/** Who decides, and why, in that person's words. */
export type Decision = { readonly by: string; readonly because?: string | undefined }

/**
 * Gives up a waiting record. Its values stay in history, the decision in the log and for the peer to see. False when there is none of that id.
 * The same version is not set aside again; a later one comes like any other.
 */
export async function discardQuarantined(db: Kysely<Database>, id: string, decision: Decision): Promise<boolean> {
  const because = decision.because ?? null
  return db.transaction().execute(async (trx) => {
    const { rows } = await sql<{ peer_id: number; peer: string; resource: string; record_id: string; reason: string }>`
      with gone as (delete from syncline.quarantine where id = ${id}::int8 returning *),
      doubted as (
        update syncline.agreement a set head = null, reason = 'a record was given up here since then, which the next comparison takes into account'
          from gone where a.peer_id = gone.peer_id and a.resource_id = gone.resource_id and a.verdict = 'waiting'
      ),
      kept as (
        insert into syncline.history (resource_id, record_id, run_id, reason, origin, clock, deleted, data)
        select resource_id, record_id, run_id, 'discarded', origin, clock, false, json_build_object('line', line, 'header', header) from gone
      ), told as (
        insert into syncline.discard (peer_id, resource_id, record_id, origin, clock, code, reason, decided_by, because)
        select peer_id, resource_id, record_id, origin, clock, code, reason, ${decision.by}, ${because} from gone
        on conflict (peer_id, resource_id, record_id) do update set origin = excluded.origin, clock = excluded.clock, code = excluded.code,
          reason = excluded.reason, decided_by = excluded.decided_by, because = excluded.because, at = now()
      )
      select g.peer_id, p.name as peer, r.name as resource, g.record_id, g.reason from gone g
        join syncline.peer p on p.id = g.peer_id join syncline.resource r on r.id = g.resource_id`.execute(trx)
    const [gone] = rows
    if (gone === undefined) return false
    await appendLog(trx, {
      peer: { id: gone.peer_id, name: gone.peer },
      resource: gone.resource,
      mode: 'pull',
      direction: 'none',
      action: 'discard',
      result: 'warning',
      message: `${gone.record_id} was given up by ${decision.by}${because === null ? '' : ` because ${because}`}; it waited: ${gone.reason}`,
      changes: 1,
    })
    return true
  })
}

/**
 * What was given up here of a peer's records, newest first, as far as it still makes a difference: a record whose version here has seen what was
 * given up is no longer one.
 */
export async function listDiscards(
  db: Kysely<Database>,
  query: {
    readonly peerId?: number
    readonly resource?: string
    readonly recordIds?: readonly string[]
    readonly limit: number
  },
): Promise<readonly Discard[]> {
  const ids = query.recordIds === undefined ? null : [...query.recordIds]
  const { rows } = await sql<Omit<Discard, 'version'> & { readonly origin: string; readonly clock: string }>`
    select r.name as resource, d.record_id as "recordId", o.origin, d.clock, d.code, d.reason, d.decided_by as by, d.because, d.at
      from syncline.discard d join syncline.resource r on r.id = d.resource_id join syncline.site o on o.id = d.origin
     where ${standsSql} and (${query.peerId ?? null}::int4 is null or d.peer_id = ${query.peerId ?? null})
       and (${query.resource ?? null}::text is null or r.name = ${query.resource ?? null})
       and (${ids}::text[] is null or d.record_id = any(${ids}::text[]))
     order by d.id desc limit ${query.limit}`.execute(db)
  return rows.map(({ origin, clock, at, ...row }) => ({
    ...row,
    at: isoTime(at),
    version: { origin, clock: Number(clock) },
  }))
}

export async function countDiscards(db: Kysely<Database>, peerId: number): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from syncline.discard d where d.peer_id = ${peerId} and ${standsSql}`.execute(db)
  return rows[0]?.count ?? 0
}

/** True where decision `d` still keeps the record out. */
export const standsSql = sql<boolean>`not exists (
  select from syncline.record v where v.resource_id = d.resource_id and v.record_id = d.record_id
     and (case when v.origin = d.origin then v.clock else (v.seen ->> d.origin::text)::int8 end) >= d.clock)`
