import type pg from 'pg'
import { SynclineError } from '../sync/index.ts'
import type { Store } from './database.ts'

/** Leases of one store that this process holds, and the session that holds them in the database. */
type Holder = { readonly held: Set<string>; session: Promise<Session> | null }
type Session = { readonly client: Client; readonly lost: AbortController }
/** What pg's client can and its types do not tell: whether its socket keeps the process alive. */
type Client = pg.Client & { ref(): void; unref(): void }

const holders = new WeakMap<Store, Holder>()

/** A lock query that takes longer finds a database that does not answer. */
const QUERY_TIMEOUT_MS = 10_000
/** How often a session that holds leases shows itself that it is still there. */
const HEARTBEAT_MS = 15_000
/** The server drops a session whose network is gone after about a minute, and its leases with it. */
const KEEP_ALIVE = 'set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3'

/**
 * Does `work` while this process alone may exchange with a peer, of all processes that share the database. The lease ends with the work, or
 * the instant the process dies. `lost` is aborted when the database took it back: then another process may begin.
 * Errors: SYNC_RUN_ACTIVE when another run holds it, SYNC_STORE_UNAVAILABLE.
 */
export async function withPeerLease<T>(
  store: Store,
  peerId: number,
  work: (lost: AbortSignal) => Promise<T>,
): Promise<T> {
  return withLease(store, `peer ${peerId}`, work)
}

/**
 * The same for anything that one process at a time may do, by name. On PostgreSQL all leases of a process are advisory locks of one session
 * of its own; on the embedded database, whose folder belongs to one process, a set in memory is enough.
 */
export async function withLease<T>(store: Store, name: string, work: (lost: AbortSignal) => Promise<T>): Promise<T> {
  const holder = holders.get(store) ?? { held: new Set<string>(), session: null }
  holders.set(store, holder)
  if (holder.held.has(name)) throw taken(name)
  holder.held.add(name)
  try {
    return store.server ? await underLock(store, holder, name, work) : await work(new AbortController().signal)
  } finally {
    holder.held.delete(name)
  }
}

/** Ends the session of a store's leases. Call it before the store is closed. */
export async function closeLeases(store: Store): Promise<void> {
  const session = await holders.get(store)?.session?.catch(() => null)
  holders.delete(store)
  // The end of the session is waited for.
  session?.client.ref()
  await session?.client.end().catch(() => {})
}

async function underLock<T>(
  store: Store,
  holder: Holder,
  name: string,
  work: (lost: AbortSignal) => Promise<T>,
): Promise<T> {
  const session = await openSession(store, holder)
  session.client.ref()
  try {
    const lock = 'select pg_try_advisory_lock(hashtextextended($1, 0)) as granted'
    const { rows } = await ask<{ granted: boolean }>(session, lock, [`syncline ${name}`])
    if (rows[0]?.granted !== true) throw taken(name)
    return await whileHeld(session, name, work)
  } finally {
    // An idle session must not keep the process alive.
    if (holder.held.size === 1) session.client.unref()
  }
}

async function whileHeld<T>(session: Session, name: string, work: (lost: AbortSignal) => Promise<T>): Promise<T> {
  const heartbeat = setInterval(() => void ask(session, 'select 1', []).catch(() => {}), HEARTBEAT_MS)
  try {
    return await work(session.lost.signal)
  } finally {
    clearInterval(heartbeat)
    const unlock = 'select pg_advisory_unlock(hashtextextended($1, 0))'
    await ask(session, unlock, [`syncline ${name}`]).catch(() => {})
  }
}

/** The session, opened when the first lease is asked for and again after it was lost. */
function openSession(store: Store, holder: Holder): Promise<Session> {
  holder.session ??= connect(store, () => {
    holder.session = null
  }).catch((error: unknown) => {
    holder.session = null
    throw unavailable(error)
  })
  return holder.session
}

async function connect(store: Store, ended: () => void): Promise<Session> {
  const client = (await store.connect()) as Client | null
  if (client === null) throw new Error('the embedded database has no sessions')
  const lost = new AbortController()
  lost.signal.addEventListener('abort', ended)
  client.on('end', () => lost.abort(unavailable(new Error('the session that holds the lease has ended'))))
  await client.query(KEEP_ALIVE)
  return { client, lost }
}

/** A query of bounded length. A session that does not answer is given up, and all its leases with it. */
async function ask<R extends pg.QueryResultRow>(
  session: Session,
  text: string,
  values: string[],
): Promise<pg.QueryResult<R>> {
  try {
    return await session.client.query<R>({ text, values, query_timeout: QUERY_TIMEOUT_MS } as pg.QueryConfig)
  } catch (error) {
    const reason = unavailable(error)
    session.lost.abort(reason)
    session.client.end().catch(() => {})
    throw reason
  }
}

function taken(name: string): SynclineError {
  return new SynclineError('SYNC_RUN_ACTIVE', `the lease "${name}" is held by another run`)
}

function unavailable(cause: unknown): SynclineError {
  return new SynclineError('SYNC_STORE_UNAVAILABLE', `no lease could be held: ${(cause as Error).message}`, { cause })
}
