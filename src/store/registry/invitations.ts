import { type Kysely, type Selectable, sql } from 'kysely'
import { SynclineError } from '../../sync/index.ts'
import type { Database } from '../schema.ts'
import { resourceIdOf } from './grants.ts'
import { isRowId, olderThan, type Page, type PageQuery, pageBounds, toPage } from './page.ts'
import { randomSecret, secretHash } from './secrets.ts'
import { inTransaction } from './transaction.ts'
import { checkInstant, checkLink, checkName, checkUuid, invalid, isoTime, type LinkRuleSettings } from './values.ts'

/** What an invitation promises for one resource: settings of a grant, of which only the resource must be given. */
export type GrantOffer = LinkRuleSettings & { readonly resource: string }

/** What a redeemed invitation is good for: the name the peer gets here, and its grants. */
export type Offer = {
  readonly name: string
  readonly pull: readonly GrantOffer[]
  readonly push: readonly GrantOffer[]
}

export type Invitation = Offer & {
  readonly id: number
  readonly createdAt: string
  readonly expiresAt: string
  readonly redeemedAt: string | null
  /** UUID of the site that redeemed it. */
  readonly redeemedBy: string | null
}

/**
 * Makes an invitation for a peer that will be registered as `name`. The secret is shown once. An earlier invitation of that name is replaced
 * when it can no longer be redeemed. Errors: SYNC_REQUEST_EXISTS, SYNC_REQUEST_NOT_FOUND for a resource, SYNC_REQUEST_INVALID.
 */
export async function createInvitation(
  db: Kysely<Database>,
  invitation: Offer & { readonly expiresAt: string },
): Promise<{ readonly id: number; readonly secret: string }> {
  const name = checkName('an invited peer', invitation.name)
  const expiresAt = checkInstant('the expiry of an invitation', invitation.expiresAt)
  if (Date.parse(expiresAt) <= Date.now()) throw invalid(`the expiry of an invitation, ${expiresAt}, is in the past`)
  const [pull, push] = [readOffers('pull', invitation.pull), readOffers('push', invitation.push)]
  return inTransaction(db, async (trx) => {
    for (const offer of [...pull, ...push]) await resourceIdOf(trx, offer.resource)
    const peer = await trx.selectFrom('syncline.peer').select('id').where('name', '=', name).executeTakeFirst()
    if (peer !== undefined) throw new SynclineError('SYNC_REQUEST_EXISTS', `a peer named "${name}" exists`)
    await trx
      .deleteFrom('syncline.invitation')
      .where('name', '=', name)
      .where(sql<boolean>`(redeemed_at is not null or expires_at <= clock_timestamp())`)
      .execute()
    const secret = randomSecret()
    const row = await trx
      .insertInto('syncline.invitation')
      .values({
        name,
        hash: secretHash(secret),
        pull: JSON.stringify(pull),
        push: JSON.stringify(push),
        expires_at: expiresAt,
      })
      .onConflict((conflict) => conflict.column('name').doNothing())
      .returning('id')
      .executeTakeFirst()
    if (row === undefined) {
      throw new SynclineError(
        'SYNC_REQUEST_EXISTS',
        `an invitation for "${name}" waits to be redeemed; remove it to make another`,
      )
    }
    return { id: row.id, secret }
  })
}

/**
 * Uses an invitation up, once and for all: of several callers one gets the offer. Call it in the transaction that registers the peer, so that a
 * pairing that fails leaves the invitation as it was. Errors: SYNC_AUTH_PAIRING_INVALID, the same for unknown, used and expired secrets.
 */
export async function redeemInvitation(trx: Kysely<Database>, secret: string, byUuid: string): Promise<Offer> {
  const row = await trx
    .updateTable('syncline.invitation')
    .set({
      redeemed_at: sql<string>`clock_timestamp()`,
      redeemed_by: checkUuid('the UUID of the joining site', byUuid),
    })
    .where('hash', '=', secretHash(secret))
    .where('redeemed_at', 'is', null)
    .where(sql<boolean>`expires_at > clock_timestamp()`)
    .returningAll()
    .executeTakeFirst()
  if (row === undefined)
    throw new SynclineError('SYNC_AUTH_PAIRING_INVALID', 'the code is unknown, expired or already used')
  const { name, pull, push } = toInvitation(row)
  return { name, pull, push }
}

/** Invitations, newest first, used and expired ones included. */
export async function listInvitations(db: Kysely<Database>, query: PageQuery = {}): Promise<Page<Invitation>> {
  const bounds = pageBounds(query)
  const rows = await db
    .selectFrom('syncline.invitation')
    .selectAll()
    .where(olderThan('id', bounds))
    .orderBy('id', 'desc')
    .limit(bounds.take)
    .execute()
  return toPage(rows, bounds, toInvitation)
}

/** Withdraws an invitation, by id or name. A peer that was registered with it stays. Errors: SYNC_REQUEST_NOT_FOUND. */
export async function removeInvitation(db: Kysely<Database>, ref: number | string): Promise<void> {
  const text = String(ref)
  const row = await db
    .deleteFrom('syncline.invitation')
    .where(isRowId(text) ? sql<boolean>`id = ${text}::int8` : sql<boolean>`name = ${text}`)
    .returning('id')
    .executeTakeFirst()
  if (row === undefined)
    throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `there is no invitation "${text.slice(0, 80)}"`)
}

function readOffers(direction: string, offers: readonly GrantOffer[]): readonly GrantOffer[] {
  const doubled = offers.find((offer, n) => offers.findIndex((other) => other.resource === offer.resource) !== n)
  if (doubled !== undefined) throw invalid(`resource "${doubled.resource}" is offered twice for ${direction}`)
  return offers.map((offer) => ({ resource: offer.resource, ...checkLink(offer) }))
}

function toInvitation(row: Selectable<Database['syncline.invitation']>): Invitation {
  return {
    id: row.id,
    name: row.name,
    pull: row.pull as readonly GrantOffer[],
    push: row.push as readonly GrantOffer[],
    createdAt: isoTime(row.created_at),
    expiresAt: isoTime(row.expires_at),
    redeemedAt: isoTime(row.redeemed_at),
    redeemedBy: row.redeemed_by,
  }
}
