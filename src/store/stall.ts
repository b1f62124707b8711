import { type Kysely, sql } from 'kysely'
import {
  type HorizonState,
  type PullerState,
  parseCheckpoint,
  type QuarantineState,
  type StallSnapshot,
  type TaskState,
} from '../sync/index.ts'
import { brokenCaptures } from './capture.ts'
import { getSetting, readSelf, setSetting } from './registry/index.ts'
import type { Database } from './schema.ts'
import { jobStates } from './stall-jobs.ts'

/** Of a query of the holder of the horizon so much is shown: enough to know it by. */
const QUERY_CHARACTERS_MAX = 200
/** What a checkpoint was when it was first found behind, and since when. */
const MEMORY = 'stall:behind'

type Memory = Record<string, readonly [checkpoint: string, since: number]>

/**
 * What this site knows of itself at `at`, all but its disks. `intervalOf` gives the milliseconds between two runs of a schedule; `floor` is when
 * this was first looked at: what was not done before then is nobody's fault. Remembers since when each checkpoint has stood behind.
 */
export async function takeSnapshot(
  db: Kysely<Database>,
  at: number,
  options: {
    readonly intervalOf: (schedule: string) => number | null
    readonly floor: number
  },
): Promise<Omit<StallSnapshot, 'disks'>> {
  const heads = await headsOf(db)
  const { logId } = await readSelf(db)
  const before = ((await getSetting(db, MEMORY)) ?? {}) as unknown as Memory
  const after: Record<string, readonly [string, number]> = {}
  const standing = (key: string, resourceId: number, checkpoint: string | null): number | null => {
    if (!isBehind(checkpoint, logId, heads.get(resourceId) ?? '0')) return null
    const [was, since = at] = before[key] ?? []
    const entry = [checkpoint ?? '', was === (checkpoint ?? '') ? since : at] as const
    after[key] = entry
    return entry[1]
  }
  const tasks = await taskStates(db, options, standing)
  const pullers = await pullerStates(db, standing)
  if (JSON.stringify(after) !== JSON.stringify(before)) await setSetting(db, MEMORY, after)
  return {
    at,
    peers: await peerStates(db),
    tasks,
    pullers,
    quarantine: await waitingStates(db, sql`syncline.quarantine`),
    elsewhere: await waitingStates(db, sql`(select * from syncline.elsewhere where outcome = 'quarantined')`),
    horizon: await readHorizon(db),
    broken: (await brokenCaptures(db)).map((each) => ({ ...each, problem: 'its table lacks a working trigger' })),
    jobs: await jobStates(db, options.floor),
  }
}

/** Last transaction in the change order of each resource, also beyond the horizon. */
async function headsOf(db: Kysely<Database>): Promise<ReadonlyMap<number, string>> {
  const { rows } = await sql<{ id: number; head: string | null }>`
    select s.id, (select r.xact::text from syncline.record r where r.resource_id = s.id order by r.xact desc, r.record_id desc limit 1) as head
      from syncline.resource s`.execute(db)
  return new Map(rows.map(({ id, head }) => [id, head ?? '0']))
}

function isBehind(checkpoint: string | null, logId: string, head: string): boolean {
  if (head === '0') return false
  if (checkpoint === null) return true
  const { logId: log, position } = parseCheckpoint(checkpoint)
  return log.split('.')[0] !== logId || BigInt(position.xact) < BigInt(head)
}

type Standing = (key: string, resourceId: number, checkpoint: string | null) => number | null

async function taskStates(
  db: Kysely<Database>,
  { intervalOf, floor }: { readonly intervalOf: (schedule: string) => number | null; readonly floor: number },
  standing: Standing,
): Promise<readonly TaskState[]> {
  const { rows } = await sql<{
    peer: string
    kind: string
    resource: string
    resource_id: number
    mode: string
    schedule: string | null
    created: number
    push: string | null
    succeeded: number | null
    agreed: number | null
  }>`
    select p.name as peer, p.kind, r.name as resource, r.id as resource_id, t.mode, t.schedule, ${millis('t.created_at')} as created, c.value as push,
           ${millis(`coalesce((t.last_run ->> 'succeededAt')::timestamptz, case when t.last_run is null then (${SUCCEEDED}) end)`)} as succeeded,
           ${millis('a.agreed_at')} as agreed
      from syncline.task t join syncline.peer p on p.id = t.peer_id join syncline.resource r on r.id = t.resource_id
      left join syncline.checkpoint c on c.peer_id = t.peer_id and c.resource_id = t.resource_id and c.direction = 'push'
      left join syncline.agreement a on a.peer_id = t.peer_id and a.resource_id = t.resource_id
     where t.enabled and p.url is not null order by 1, 2`.execute(db)
  return rows.map((row) => ({
    peer: row.peer,
    resource: row.resource,
    intervalMs: row.schedule === null ? null : intervalOf(row.schedule),
    createdAt: row.created,
    pendingSince: row.mode === 'pull' ? null : standing(`push ${row.peer} ${row.resource}`, row.resource_id, row.push),
    succeededAt: Math.max(row.succeeded ?? 0, floor),
    agreedAt: row.agreed,
    ...(row.kind === 'folder' && { proves: false as const }),
  }))
}

/** Peers that connect to this site: those that it has an address of are its own task to reach. */
async function pullerStates(db: Kysely<Database>, standing: Standing): Promise<readonly PullerState[]> {
  const { rows } = await sql<{ peer: string; resource: string; resource_id: number; ack: string | null }>`
    select p.name as peer, r.name as resource, r.id as resource_id, c.value as ack
      from syncline.peer_grant g join syncline.peer p on p.id = g.peer_id join syncline.resource r on r.id = g.resource_id
      left join syncline.checkpoint c on c.peer_id = g.peer_id and c.resource_id = g.resource_id and c.direction = 'ack'
     where g.direction = 'pull' and p.url is null order by 1, 2`.execute(db)
  return rows.map(({ peer, resource, resource_id, ack }) => ({
    peer,
    resource,
    behindSince: standing(`ack ${peer} ${resource}`, resource_id, ack),
  }))
}

async function peerStates(db: Kysely<Database>): Promise<StallSnapshot['peers']> {
  const { rows } = await sql<StallSnapshot['peers'][number]>`
    select name as peer, case when paused then ${millis('coalesce(paused_at, now())')} end as "pausedAt", failures,
           ${millis('last_seen_at')} as "lastSeenAt", clock_offset_ms as "clockOffsetMs"
      from syncline.peer order by 1`.execute(db)
  return rows
}

async function waitingStates(db: Kysely<Database>, from: ReturnType<typeof sql>): Promise<readonly QuarantineState[]> {
  const { rows } = await sql<QuarantineState>`
    select p.name as peer, r.name as resource, count(*)::int as count, ${millis('min(q.first_at)')} as "oldestAt",
           (count(*) filter (where q.first_at > now() - interval '1 hour'))::int as lately
      from ${from} q join syncline.peer p on p.id = q.peer_id join syncline.resource r on r.id = q.resource_id group by 1, 2 order by 1, 2`.execute(
    db,
  )
  return rows
}

/** The oldest open write transaction of the whole server, with who holds it; null when there is none. */
export async function readHorizon(db: Kysely<Database>): Promise<HorizonState | null> {
  const { rows } = await sql<HorizonState>`
    select (extract(epoch from clock_timestamp() - xact_start) * 1000)::float8 as "ageMs", pid, coalesce(application_name, '') as application,
           coalesce(state, '') as state, left(regexp_replace(coalesce(query, ''), '\\s+', ' ', 'g'), ${QUERY_CHARACTERS_MAX}) as query
      from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid() and xact_start is not null order by xact_start limit 1`.execute(
    db,
  )
  return rows[0] ?? null
}

/** Folder of the database where it lies on this machine and the role may know it; null otherwise. */
export async function databaseFolder(db: Kysely<Database>): Promise<string | null> {
  const { rows } = await sql<{ folder: string | null }>`
    select case when (inet_server_addr() is null or host(inet_server_addr()) in ('127.0.0.1', '::1') or inet_server_addr() = inet_client_addr())
                 and pg_has_role('pg_read_all_settings', 'usage') then current_setting('data_directory', true) end as folder`.execute(
    db,
  )
  return rows[0]?.folder ?? null
}

/** Of a task that no run has come to yet the runs with its peer tell. */
const SUCCEEDED = `select max(u.finished_at) from syncline.run u where u.peer_id = p.id and u.received is null and u.result in ('success', 'warning')`
const millis = (column: string) => sql<number>`(extract(epoch from ${sql.raw(column)}) * 1000)::float8`
