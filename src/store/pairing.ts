import type { Kysely } from 'kysely'
import { SynclineError } from '../sync/index.ts'
import {
  type BrakeLimitSettings,
  createPeer,
  type Direction,
  inTransaction,
  issueToken,
  type LinkRuleSettings,
  lookupPeer,
  type Offer,
  type Peer,
  redeemInvitation,
  removeGrant,
  rotatePeer,
  setGrant,
  updatePeer,
} from './registry/index.ts'
import type { Database } from './schema.ts'

/** A site that shows the secret of an invitation. */
export type Joiner = {
  readonly secret: string
  readonly uuid: string
  /** Where this site reaches it, and what it shows there; absent when it does all the connecting. */
  readonly url?: string | undefined
  readonly token?: string | undefined
}

/** The peer, the token that it shows here from now on, and what it was granted. */
export type PairedPeer = { readonly peer: Peer; readonly token: string; readonly offer: Offer }

/**
 * Uses an invitation up and registers who shows it, with grants and token, all or nothing: a pairing that fails leaves the invitation as it was.
 * A site that is registered already is paired anew only by an invitation for its own name here.
 * Errors: SYNC_AUTH_PAIRING_INVALID, SYNC_REQUEST_EXISTS, SYNC_REQUEST_INVALID also for this site's own UUID, SYNC_REQUEST_NOT_FOUND for a
 * resource that was detached since.
 */
export async function pairPeer(db: Kysely<Database>, key: Buffer, joiner: Joiner): Promise<PairedPeer> {
  return inTransaction(db, async (trx) => {
    const offer = await redeemInvitation(trx, joiner.secret, joiner.uuid)
    const settings = { url: joiner.url, token: joiner.url === undefined ? undefined : joiner.token }
    const known = await lookupPeer(trx, joiner.uuid)
    if (known !== null && known.name !== offer.name) {
      const detail = `the site ${joiner.uuid} is registered here as peer "${known.name}"; the invitation is for "${offer.name}"`
      throw new SynclineError('SYNC_REQUEST_EXISTS', detail)
    }
    const peer =
      known === null
        ? await createPeer(trx, key, { name: offer.name, uuid: joiner.uuid, ...settings })
        : await updatePeer(trx, key, known.id, settings)
    for (const grant of offer.pull) await setGrant(trx, { ...grant, peerId: peer.id, direction: 'pull' })
    for (const grant of offer.push) await setGrant(trx, { ...grant, peerId: peer.id, direction: 'push' })
    const { token } =
      known === null
        ? await issueToken(trx, { name: peer.name, role: 'peer', peerId: peer.id })
        : await rotatePeer(trx, peer.id)
    return { peer, token, offer }
  })
}

/**
 * Makes, replaces or (with null) takes back a grant as a change of its peer, which gets a new revision: `ifMatch` is the one that the caller
 * read. Errors: SYNC_REQUEST_CHANGED, SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID.
 */
export async function changeGrant(
  db: Kysely<Database>,
  key: Buffer,
  change: {
    readonly peerId: number
    readonly resource: string
    readonly direction: Direction
    readonly ifMatch: number | undefined
  },
  rules: (LinkRuleSettings & BrakeLimitSettings) | null,
): Promise<Peer> {
  const { peerId, resource, direction, ifMatch } = change
  return inTransaction(db, async (trx) => {
    const peer = await updatePeer(trx, key, peerId, {}, ifMatch)
    if (rules === null) await removeGrant(trx, peerId, resource, direction)
    else await setGrant(trx, { ...rules, peerId, resource, direction })
    return peer
  })
}
