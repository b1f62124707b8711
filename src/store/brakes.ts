import { randomBytes } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { type BrakeDirection, type BrakeRule, type Pass, SynclineError } from '../sync/index.ts'
import { inTransaction, isoTime, isRowId, type Page, type PageQuery, pageBounds, toPage } from './registry/index.ts'
import { appendLog } from './run-log.ts'
import type { Database } from './schema.ts'

/**
 * What was counted when the run was stopped. `announced` is what a pushing peer said is still to come; `pushed` what of a repair would have been done at
 * the peer, and `deep` that it compared the values too.
 */
export type BrakeFacts = {
  readonly deletes: number
  readonly changes: number
  readonly living: number
  readonly announced?: number
  readonly pushed?: { readonly deletes: number; readonly changes: number }
  readonly deep?: boolean
  /** Ids of some of the records concerned. */
  readonly samples: readonly string[]
}

/** A run that was stopped before it wrote, and what became of that. */
export type Brake = {
  readonly id: string
  /** What a person names to let it go on. */
  readonly token: string
  readonly peerId: number
  readonly peer: string
  /** Null where the peer as a whole is meant. */
  readonly resource: string | null
  /** Who would have been written to; `peer`: nothing is exchanged with it at all; `repair`: either side by a repair. */
  readonly direction: BrakeDirection | 'peer' | 'repair'
  readonly rules: readonly BrakeRule[]
  readonly reason: string
  readonly facts: BrakeFacts
  readonly runId: string | null
  readonly openedAt: string
  readonly seenAt: string
  readonly times: number
  readonly releasedAt: string | null
  readonly releasedBy: string | null
  readonly comment: string | null
  readonly usedAt: string | null
  readonly endedAt: string | null
  /** used: a released run went on · changed: stopped again with other numbers · cleared: nothing stops it any more · expired: released and not used. */
  readonly ending: 'used' | 'changed' | 'cleared' | 'expired' | null
}

export type BrakeQuery = PageQuery & {
  readonly peer?: string | undefined
  /** True for those that wait for a person. */
  readonly open?: boolean | undefined
}

/** How long a release waits for the run that it is for, in days; and what a peer pushes may use it for so long after its first batch. */
const RELEASE_DAYS = 7
export const METER_HOURS = 1
const TOKEN_CHARACTERS = 8
const TOKEN_ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

export type NewBrake = Pick<Brake, 'peerId' | 'direction' | 'rules' | 'reason' | 'facts'> & {
  readonly resourceId: number | null
  readonly runId: string | null
}

/**
 * Writes down that something was stopped. Stopped again with the same numbers it stays the same entry; with others it is a new one, so that a
 * token never lets more pass than the person who names it has seen. Belongs into a transaction after the one that was rolled back.
 */
export async function openBrake(db: Kysely<Database>, brake: NewBrake): Promise<Brake> {
  return inTransaction(db, async (trx) => {
    const { peerId, resourceId, direction } = brake
    await sql`select from syncline.peer where id = ${peerId} for no key update`.execute(trx)
    const [open] = await select(
      trx,
      sql`where b.ended_at is null and b.peer_id = ${peerId} and b.direction = ${direction}
      and b.resource_id is not distinct from ${resourceId}::int4`,
    )
    if (open !== undefined && open.releasedAt === null && sameFacts(open, brake)) {
      await sql`update syncline.brake set seen_at = clock_timestamp(), times = times + 1, run_id = ${brake.runId}::int8, reason = ${brake.reason}
                 where id = ${open.id}::int8`.execute(trx)
      return { ...open, times: open.times + 1, reason: brake.reason, runId: brake.runId }
    }
    if (open !== undefined) await end(trx, open.id, 'changed')
    const { id } = await trx
      .insertInto('syncline.brake')
      .values({
        token: newToken(),
        peer_id: peerId,
        resource_id: resourceId,
        direction,
        rules: [...brake.rules],
        reason: brake.reason,
        facts: JSON.stringify(brake.facts),
        run_id: brake.runId,
        released_by: null,
        comment: null,
        ending: null,
      })
      .returning('id')
      .executeTakeFirstOrThrow()
    const [made] = await select(trx, sql`where b.id = ${id}::int8`)
    if (made === undefined) throw new Error('a brake is gone right after it was written')
    return made
  })
}

/** Brakes, newest first. */
export async function listBrakes(db: Kysely<Database>, query: BrakeQuery = {}): Promise<Page<Brake>> {
  const bounds = pageBounds(query)
  const { peer = null, open = null } = query
  const rows = await select(
    db,
    sql`where (${peer}::text is null or p.name = ${peer})
          and (${open}::bool is null or (b.ended_at is null and b.released_at is null) = ${open})
          and (${bounds.before}::int8 is null or b.id < ${bounds.before}::int8)
        order by b.id desc limit ${bounds.take}`,
  )
  return toPage(rows, bounds, (row) => row)
}

/** A brake by its token or id. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function findBrake(db: Kysely<Database>, ref: string): Promise<Brake> {
  const [found] = await select(db, sql`where b.token = ${ref} or b.id = ${isRowId(ref) ? ref : '0'}::int8`)
  if (found === undefined) throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no brake "${ref.slice(0, 40)}"`)
  return found
}

/**
 * A person's word that what was stopped may go on, once. Releasing what a copied peer had stopped forgets the marks of both copies: the next one
 * that calls is taken for the right one. Errors: SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_SETTLED when it is released or over already.
 */
export async function releaseBrake(
  db: Kysely<Database>,
  release: { readonly token: string; readonly by: string; readonly comment?: string | null | undefined },
): Promise<Brake> {
  const { token, by, comment = null } = release
  return inTransaction(db, async (trx) => {
    await sql`select from syncline.brake where token = ${token} for update`.execute(trx)
    const [brake] = await select(trx, sql`where b.token = ${token}`)
    if (brake === undefined)
      throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no brake "${token.slice(0, 40)}"`)
    if (brake.releasedAt !== null || brake.endedAt !== null) {
      throw new SynclineError('SYNC_REQUEST_SETTLED', `brake ${token} ${settledHow(brake)}`)
    }
    await sql`update syncline.brake set released_at = clock_timestamp(), released_by = ${by}, comment = ${comment} where id = ${brake.id}::int8`.execute(
      trx,
    )
    if (brake.direction === 'peer') {
      await trx.deleteFrom('syncline.peer_mark').where('peer_id', '=', brake.peerId).execute()
      await endBrake(trx, brake.id, 'used')
    }
    if (brake.direction === 'receive' && brake.resource !== null) await resetMeter(trx, brake.peerId, brake.resource)
    const because = comment === null ? '' : `: ${comment}`
    await appendLog(trx, {
      peer: { id: brake.peerId, name: brake.peer },
      runId: brake.runId,
      resource: brake.resource,
      mode: brake.direction === 'pull' ? 'pull' : 'push',
      direction: 'none',
      action: 'release',
      result: 'success',
      message: `${by} released brake ${token}${because}. It had stopped because ${brake.reason}`,
    })
    return findBrake(trx, token)
  })
}

/** What is stopped or released with a peer now, by resource id (null: the peer as a whole) and direction. Releases that nobody used in time end here. */
export async function brakesWith(
  db: Kysely<Database>,
  peerId: number,
  place?: { readonly resource: string; readonly direction: BrakeDirection },
): Promise<readonly Brake[]> {
  const rows = await select(
    db,
    sql`where b.ended_at is null and b.peer_id = ${peerId}
    and (${place?.resource ?? null}::text is null or r.name = ${place?.resource ?? null} and b.direction = ${place?.direction ?? null})`,
  )
  const now = Date.now()
  const live: Brake[] = []
  for (const brake of rows) {
    const until = releasedUntil(brake)
    if (until !== null && until < now) await endBrake(db, brake.id, brake.usedAt === null ? 'expired' : 'used')
    else live.push(brake)
  }
  return live
}

/** What became of a brake that a person can release no more. */
function settledHow({ releasedAt, releasedBy, usedAt, endedAt, ending }: Brake): string {
  const released = releasedAt === null ? '' : `was released by ${releasedBy} at ${releasedAt}`
  switch (endedAt === null ? null : ending) {
    case null:
      return `${released}; what it had stopped goes on with the next run, or the next push of the peer`
    case 'used':
      return `${released}, and used at ${usedAt ?? endedAt}; a release works once`
    case 'changed':
      return `is over since ${endedAt}: stopped again with other numbers, which is a brake of its own; \`syncline brake list\` has its token`
    case 'expired':
      return `${released}, and nobody used that within ${RELEASE_DAYS} days; what is stopped again gets a new token`
    case 'cleared':
      return `is over since ${endedAt}: nothing was left that it had to stop`
  }
}

/** The pass that a released brake gives; null for one that waits for a person. */
export function passOf(brake: Brake | undefined): Pass | null {
  if (brake === undefined || brake.releasedAt === null) return null
  const { deletes, changes, announced = 0 } = brake.facts
  return { rules: brake.rules, deletes: Math.max(deletes, announced), changes }
}

/** The pass that a released repair has in one direction. */
export function repairPassOf(brake: Brake | undefined, direction: 'pull' | 'push'): Pass | null {
  if (brake === undefined || brake.releasedAt === null) return null
  const { rules, facts } = brake
  const { deletes, changes } = facts.pushed ?? { deletes: 0, changes: 0 }
  if (direction === 'push') return { rules, deletes, changes }
  return { rules, deletes: facts.deletes - deletes, changes: facts.changes - changes }
}

/** Ends a brake; repeating it changes nothing. Belongs into the commit of what it let pass. */
export async function endBrake(db: Kysely<Database>, id: string, ending: NonNullable<Brake['ending']>): Promise<void> {
  await end(db, id, ending)
}

/** Notes that a pushing peer began to use a release; it may go on with it for an hour. */
export async function useBrake(db: Kysely<Database>, id: string): Promise<void> {
  await sql`update syncline.brake set used_at = clock_timestamp() where id = ${id}::int8 and used_at is null`.execute(
    db,
  )
}

/** What a pushing peer did here within the last hour. */
export async function readMeter(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
): Promise<{ readonly deletes: number; readonly changes: number }> {
  const { rows } = await sql<{ deletes: string; changes: string }>`
    select deletes, changes from syncline.brake_meter
     where peer_id = ${peerId} and resource_id = ${resourceId} and since > clock_timestamp() - make_interval(hours => ${METER_HOURS})`.execute(
    db,
  )
  return { deletes: Number(rows[0]?.deletes ?? 0), changes: Number(rows[0]?.changes ?? 0) }
}

/** Adds to it, in the commit of what was done. The hour begins with the first that counts. */
export async function addToMeter(
  db: Kysely<Database>,
  peerId: number,
  resourceId: number,
  { deletes, changes }: { readonly deletes: number; readonly changes: number },
): Promise<void> {
  const fresh = sql`m.since > clock_timestamp() - make_interval(hours => ${METER_HOURS})`
  await sql`
    insert into syncline.brake_meter as m (peer_id, resource_id, deletes, changes) values (${peerId}, ${resourceId}, ${deletes}, ${changes})
    on conflict (peer_id, resource_id) do update set
      since = case when ${fresh} then m.since else excluded.since end,
      deletes = excluded.deletes + case when ${fresh} then m.deletes else 0 end,
      changes = excluded.changes + case when ${fresh} then m.changes else 0 end`.execute(db)
}

async function resetMeter(db: Kysely<Database>, peerId: number, resource: string): Promise<void> {
  await sql`delete from syncline.brake_meter where peer_id = ${peerId}
     and resource_id = (select id from syncline.resource where name = ${resource})`.execute(db)
}

/** When a release ends by itself, in milliseconds since 1970; null for one that was not given. */
function releasedUntil({ releasedAt, usedAt, direction }: Brake): number | null {
  if (releasedAt === null) return null
  if (direction === 'receive' && usedAt !== null) return Date.parse(usedAt) + METER_HOURS * 3_600_000
  return Date.parse(releasedAt) + RELEASE_DAYS * 86_400_000
}

function sameFacts(open: Brake, brake: NewBrake): boolean {
  const { deletes, changes, announced = 0 } = open.facts
  return (
    open.rules.join() === brake.rules.join() &&
    brake.facts.deletes === deletes &&
    brake.facts.changes === changes &&
    (brake.facts.announced ?? 0) === announced
  )
}

async function end(db: Kysely<Database>, id: string, ending: NonNullable<Brake['ending']>): Promise<void> {
  await sql`update syncline.brake set ended_at = clock_timestamp(), ending = ${ending},
                   used_at = case when ${ending} = 'used' then coalesce(used_at, clock_timestamp()) else used_at end
             where id = ${id}::int8 and ended_at is null`.execute(db)
}

/** Read out by telephone: no letters that look like digits. */
function newToken(): string {
  return Array.from(randomBytes(TOKEN_CHARACTERS), (byte) => TOKEN_ALPHABET[byte & 31]).join('')
}

async function select(db: Kysely<Database>, tail: ReturnType<typeof sql>): Promise<readonly Brake[]> {
  const { rows } = await sql<Brake>`
    select b.id, b.token, b.peer_id as "peerId", p.name as peer, r.name as resource, b.direction, b.rules, b.reason, b.facts, b.run_id as "runId",
           b.opened_at as "openedAt", b.seen_at as "seenAt", b.times, b.released_at as "releasedAt", b.released_by as "releasedBy", b.comment,
           b.used_at as "usedAt", b.ended_at as "endedAt", b.ending
      from syncline.brake b join syncline.peer p on p.id = b.peer_id left join syncline.resource r on r.id = b.resource_id
      ${tail}`.execute(db)
  return rows.map((row) => ({
    ...row,
    openedAt: isoTime(row.openedAt),
    seenAt: isoTime(row.seenAt),
    releasedAt: isoTime(row.releasedAt),
    usedAt: isoTime(row.usedAt),
    endedAt: isoTime(row.endedAt),
  }))
}
