import { type Kysely, sql, type Transaction } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import { inTransaction, isoTime } from './registry/index.ts'
import type { Database } from './schema.ts'

/** A lease as it is held now. */
export type LeaseEntry = {
  readonly name: string
  /** The job, or what a peer said of itself. */
  readonly owner: string
  readonly runId: string | null
  readonly site: string
  readonly host: string
  readonly pid: number
  readonly takenAt: string
  readonly renewedAt: string
  readonly expiresAt: string
}

/** Who takes leases. The token alone renews and releases. */
export type LeaseHolder = {
  readonly token: string
  readonly owner: string
  readonly runId: string | null
  readonly site: string
  readonly host: string
  readonly pid: number
  readonly peerId: number | null
  readonly seconds: number
}

/** What stands in the way, with the name as it was asked for. */
export type LeaseBlock = { readonly kind: 'lease' | 'job'; readonly name: string; readonly reason: string }

/** Everything that a run needs in the database at its begin: to hold, and to be free. */
export type LeaseWish = {
  readonly hold: readonly string[]
  readonly freeLeases: readonly string[]
  /** Jobs without a run under way. */
  readonly freeJobs: readonly string[]
  /** The own run, which does not block itself. */
  readonly runId: string | null
}

/** Takers are let in one after the other: between looking and taking nobody comes in between, on any number of processes. */
async function alone(trx: Transaction<Database>): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('syncline.lease', 0))`.execute(trx)
}

/** Takes all leases or none, if everything that must be free is free. Null when it has them; else the first thing in the way. */
export async function takeLeases(
  db: Kysely<Database>,
  wish: LeaseWish,
  holder: LeaseHolder,
): Promise<LeaseBlock | null> {
  return inTransaction(db, async (trx) => {
    await alone(trx)
    const block = await firstBlock(trx, wish, holder.token)
    if (block !== null) return block
    for (const name of [...wish.hold].sort()) await write(trx, name, holder)
    return null
  })
}

async function firstBlock(trx: Transaction<Database>, wish: LeaseWish, token: string): Promise<LeaseBlock | null> {
  const names = [...wish.hold, ...wish.freeLeases]
  if (names.length > 0) {
    const row = await trx
      .selectFrom('syncline.lease')
      .selectAll()
      .where('name', 'in', names)
      .where('token', '<>', token)
      .where('expires_at', '>', sql<string>`clock_timestamp()`)
      .orderBy('name')
      .limit(1)
      .executeTakeFirst()
    if (row !== undefined) {
      const since = isoTime(row.taken_at).slice(0, 19)
      const run = row.run_id === null ? '' : `, run ${row.run_id}`
      const reason = `lease ${row.name} is held by ${row.owner}${run} on ${row.host} since ${since}Z`
      return { kind: 'lease', name: row.name, reason }
    }
  }
  if (wish.freeJobs.length === 0) return null
  const busy = await trx
    .selectFrom('syncline.job_run')
    .select(['id', 'job_name', 'host', 'started_at'])
    .where('job_name', 'in', [...wish.freeJobs])
    .where('phase', '=', 'running')
    .where('id', '<>', wish.runId ?? '0')
    .orderBy('id')
    .limit(1)
    .executeTakeFirst()
  if (busy === undefined) return null
  return {
    kind: 'job',
    name: busy.job_name,
    reason: `job ${busy.job_name} is under way: run ${busy.id} on ${busy.host}`,
  }
}

async function write(trx: Transaction<Database>, name: string, holder: LeaseHolder): Promise<void> {
  const until = sql<string>`clock_timestamp() + make_interval(secs => ${holder.seconds})`
  const now = sql<string>`clock_timestamp()`
  const { token, owner, site, host, pid } = holder
  const who = { token, owner, site, host, pid, run_id: holder.runId, peer_id: holder.peerId }
  await trx
    .insertInto('syncline.lease')
    .values({ name, ...who, expires_at: until })
    .onConflict((conflict) =>
      conflict.column('name').doUpdateSet({
        ...who,
        // Taken again by its own token it is the same lease.
        taken_at: sql<string>`case when syncline.lease.token = excluded.token then syncline.lease.taken_at else ${now} end`,
        renewed_at: now,
        expires_at: until,
      }),
    )
    .execute()
}

/** Renews what a token holds: one lease, or all. Gives the names that it still holds; one that has expired and nobody took is held again. */
export async function renewLeases(
  db: Kysely<Database>,
  token: string,
  seconds: number,
  name?: string,
): Promise<readonly string[]> {
  const rows = await db
    .updateTable('syncline.lease')
    .set({
      renewed_at: sql<string>`clock_timestamp()`,
      expires_at: sql<string>`clock_timestamp() + make_interval(secs => ${seconds})`,
    })
    .where('token', '=', token)
    .$if(name !== undefined, (update) => update.where('name', '=', name ?? ''))
    .returning('name')
    .execute()
  return rows.map(({ name }) => name)
}

/** Releases what a token holds: one lease, or all. What others hold stays. */
export async function releaseLeases(db: Kysely<Database>, token: string, name?: string): Promise<void> {
  await db
    .deleteFrom('syncline.lease')
    .where('token', '=', token)
    .$if(name !== undefined, (query) => query.where('name', '=', name ?? ''))
    .execute()
}

/** Leases that are held now, by name. */
export async function listLeases(db: Kysely<Database>): Promise<readonly LeaseEntry[]> {
  const rows = await db
    .selectFrom('syncline.lease')
    .selectAll()
    .where('expires_at', '>', sql<string>`clock_timestamp()`)
    .orderBy('name')
    .limit(1000)
    .execute()
  return rows.map((row) => ({
    name: row.name,
    owner: row.owner,
    runId: row.run_id,
    site: row.site,
    host: row.host,
    pid: row.pid,
    takenAt: isoTime(row.taken_at),
    renewedAt: isoTime(row.renewed_at),
    expiresAt: isoTime(row.expires_at),
  }))
}

/** How many leases a peer holds here. */
export async function countPeerLeases(db: Kysely<Database>, peerId: number): Promise<number> {
  const row = await db
    .selectFrom('syncline.lease')
    .select((eb) => eb.fn.countAll<string>().as('count'))
    .where('peer_id', '=', peerId)
    .where('expires_at', '>', sql<string>`clock_timestamp()`)
    .executeTakeFirst()
  return Number(row?.count ?? 0)
}

/** Takes a lease away from whoever holds it: a person knows better. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function breakLease(db: Kysely<Database>, name: string): Promise<void> {
  const { numDeletedRows } = await db.deleteFrom('syncline.lease').where('name', '=', name).executeTakeFirst()
  if (numDeletedRows === 0n)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `nobody holds a lease "${name.slice(0, 80)}"`)
}
