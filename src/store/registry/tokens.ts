import { type Kysely, sql } from 'kysely'
import { SynclineError } from '../../sync/index.ts'
import type { Database } from '../schema.ts'
import { isRowId, olderThan, type Page, type PageQuery, pageBounds, toPage } from './page.ts'
import { notFound } from './peers.ts'
import { randomSecret, secretHash } from './secrets.ts'
import { inTransaction } from './transaction.ts'
import { checkInstant, checkText, checkWord, invalid, isoTime } from './values.ts'

export const ROLES = ['administrator', 'operator', 'viewer', 'peer'] as const
/** administrator > operator > viewer for people and programs; `peer` only for the exchange itself. */
export type Role = (typeof ROLES)[number]

/** Who a token belongs to. */
export type Caller = { readonly id: number; readonly name: string; readonly role: Role; readonly peerId: number | null }

export type Token = Caller & {
  /** Name of the peer, for tokens of peers. */
  readonly peer: string | null
  readonly createdAt: string
  readonly expiresAt: string | null
  /** Exact to a minute. */
  readonly lastUsedAt: string | null
}

export type NewToken = {
  readonly name: string
  readonly role: string
  readonly peerId?: number | null | undefined
  readonly expiresAt?: string | null | undefined
}

/** A token as it is shown, once: only its hash is kept. */
export type IssuedToken = { readonly id: number; readonly token: string }

const VALID = sql<boolean>`(expires_at is null or expires_at > clock_timestamp())`

/** Makes a token: `syncline_`, the first letter of its role, `_` and 43 characters of chance. Errors: SYNC_REQUEST_INVALID, SYNC_REQUEST_NOT_FOUND. */
export async function issueToken(db: Kysely<Database>, settings: NewToken): Promise<IssuedToken> {
  const role = checkWord('role', settings.role, ROLES)
  const name = checkText('the name of a token', settings.name, 100)
  const peerId = settings.peerId ?? null
  const expiresAt = settings.expiresAt ?? null
  if ((role === 'peer') !== (peerId !== null)) {
    throw invalid(
      role === 'peer' ? 'a token of the role peer needs its peer' : `a token of the role ${role} belongs to no peer`,
    )
  }
  if (expiresAt !== null && Date.parse(checkInstant('the expiry of a token', expiresAt)) <= Date.now()) {
    throw invalid(`the expiry of a token, ${expiresAt}, is in the past`)
  }
  return inTransaction(db, async (trx) => {
    const peer =
      peerId && (await trx.selectFrom('syncline.peer').select('id').where('id', '=', peerId).executeTakeFirst())
    if (peerId !== null && !peer) throw notFound(peerId)
    const token = `syncline_${role.charAt(0)}_${randomSecret()}`
    const row = await trx
      .insertInto('syncline.token')
      .values({ name, role, peer_id: peerId, hash: secretHash(token), expires_at: expiresAt })
      .returning('id')
      .executeTakeFirstOrThrow()
    return { id: row.id, token }
  })
}

/**
 * Whose token this is; null for one that is malformed, unknown, revoked or expired, without telling which: each costs one look-up by hash.
 * Notes the use at most once a minute, so that a busy caller does not make every request a write.
 */
export async function findToken(db: Kysely<Database>, token: string): Promise<Caller | null> {
  const row = await db
    .selectFrom('syncline.token')
    .select(['id', 'name', 'role', 'peer_id', stale.as('stale')])
    .where('hash', '=', secretHash(token))
    .where(VALID)
    .executeTakeFirst()
  if (row === undefined) return null
  if (row.stale) {
    await db
      .updateTable('syncline.token')
      .set({ last_used_at: sql<string>`clock_timestamp()` })
      .where('id', '=', row.id)
      .where(stale)
      .execute()
  }
  return { id: row.id, name: row.name, role: row.role, peerId: row.peer_id }
}

const stale = sql<boolean>`(last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute')`

/** Tokens, newest first, expired ones included. */
export async function listTokens(
  db: Kysely<Database>,
  query: PageQuery & { readonly role?: string | undefined; readonly peerId?: number | undefined } = {},
): Promise<Page<Token>> {
  const bounds = pageBounds(query)
  let select = db
    .selectFrom('syncline.token as token')
    .leftJoin('syncline.peer as peer', 'peer.id', 'token.peer_id')
    .select(['token.id', 'token.name', 'token.role', 'token.peer_id', 'peer.name as peer'])
    .select(['token.created_at', 'token.expires_at', 'token.last_used_at'])
    .where(olderThan('token.id', bounds))
  if (query.role !== undefined) select = select.where('token.role', '=', checkWord('role', query.role, ROLES))
  if (query.peerId !== undefined) select = select.where('token.peer_id', '=', query.peerId)
  return toPage(await select.orderBy('token.id', 'desc').limit(bounds.take).execute(), bounds, (row) => ({
    id: row.id,
    name: row.name,
    role: row.role,
    peerId: row.peer_id,
    peer: row.peer,
    createdAt: isoTime(row.created_at),
    expiresAt: isoTime(row.expires_at),
    lastUsedAt: isoTime(row.last_used_at),
  }))
}

/**
 * Makes a token worthless at once. The last valid administrator token stays, or nobody could make another.
 * Errors: SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID.
 */
export async function revokeToken(db: Kysely<Database>, id: number | string): Promise<void> {
  await inTransaction(db, async (trx) => {
    // Every administrator token is locked, in one order, so that two revocations cannot each count on the other's.
    const administrators = await trx
      .selectFrom('syncline.token')
      .select('id')
      .where('role', '=', 'administrator')
      .where(VALID)
      .orderBy('id')
      .forUpdate()
      .execute()
    if (administrators.length === 1 && String(administrators[0]?.id) === String(id)) {
      throw invalid(`token ${id} is the last valid one of an administrator; issue another first`)
    }
    const row = isRowId(String(id))
      ? await trx
          .deleteFrom('syncline.token')
          .where(sql<boolean>`id = ${String(id)}::int8`)
          .returning('id')
          .executeTakeFirst()
      : undefined
    if (row === undefined)
      throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no token ${String(id).slice(0, 40)}`)
  })
}

/** Issues an administrator token when no valid one exists: on the first start, and when the last has expired. Only one of several processes does. */
export async function ensureAdministrator(db: Kysely<Database>, name: string): Promise<IssuedToken | null> {
  return inTransaction(db, async (trx) => {
    await sql`lock table syncline.token in share row exclusive mode`.execute(trx)
    const found = await trx
      .selectFrom('syncline.token')
      .select('id')
      .where('role', '=', 'administrator')
      .where(VALID)
      .executeTakeFirst()
    return found === undefined ? issueToken(trx, { name, role: 'administrator' }) : null
  })
}

/**
 * Gives a peer a new token to show here. Its earlier ones stay valid for `graceSeconds`, so that an answer that is lost does not shut it out.
 * What this site shows at the peer is changed by `updatePeer`.
 */
export async function rotatePeer(db: Kysely<Database>, peerId: number, graceSeconds = 0): Promise<IssuedToken> {
  if (!Number.isInteger(graceSeconds) || graceSeconds < 0)
    throw invalid('the time that old tokens stay valid is not a number of seconds')
  return inTransaction(db, async (trx) => {
    const peer = await trx
      .selectFrom('syncline.peer')
      .select('name')
      .where('id', '=', peerId)
      .forNoKeyUpdate()
      .executeTakeFirst()
    if (peer === undefined) throw notFound(peerId)
    await trx
      .updateTable('syncline.token')
      .set({ expires_at: sql<string>`least(expires_at, clock_timestamp() + make_interval(secs => ${graceSeconds}))` })
      .where('peer_id', '=', peerId)
      .execute()
    return issueToken(trx, { name: peer.name, role: 'peer', peerId })
  })
}
