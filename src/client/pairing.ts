import { createHash, randomBytes } from 'node:crypto'
import {
  createPeer,
  findPeer,
  issueToken,
  keyFingerprint,
  notePeerSeen,
  type Peer,
  removePeer,
  type SelfEntry,
  type Store,
  updatePeer,
  verifySignature,
} from '../store/index.ts'
import { decodePairingCode, isJsonObject, pairingProof, SynclineError } from '../sync/index.ts'
import { type ClientSettings, createPeerClient } from './peer-client.ts'

export type JoinRequest = {
  readonly store: Store
  /** The data key. */
  readonly key: Buffer
  readonly self: SelfEntry
  readonly settings: ClientSettings
  /** Where peers reach this site; absent for one that does all the connecting itself. */
  readonly publicUrl?: string | undefined
  readonly code: string
  /** What the other site is called here; the name it gives itself when absent. */
  readonly name?: string | undefined
}

/** One thing that the inviting site lets this site do. */
export type JoinedGrant = {
  readonly resource: string
  readonly filter: string | null
  readonly columns: readonly string[] | null
}

export type Joined = {
  readonly peer: Peer
  readonly grants: { readonly pull: readonly JoinedGrant[]; readonly push: readonly JoinedGrant[] }
}

/**
 * Redeems a pairing code at the site that made it and registers that site here. Nothing is kept unless the answer is proved to be from the holder
 * of the key in the code, whole and new. Errors: SYNC_AUTH_PAIRING_INVALID, SYNC_PEER_MISMATCH, SYNC_REQUEST_EXISTS, those of the connection.
 */
export async function joinPeer(request: JoinRequest): Promise<Joined> {
  const { store, key, self, settings, publicUrl } = request
  const code = decodePairingCode(request.code)
  if (Date.parse(code.expires) <= Date.now()) {
    throw new SynclineError('SYNC_AUTH_PAIRING_INVALID', `the pairing code expired at ${code.expires}`)
  }
  const url = code.url
  // Registered first: a name or site that is taken here must not use up the code over there.
  const peer = await createPeer(store.db, key, { name: request.name ?? peerName(code.name), uuid: code.uuid, url })
  try {
    const nonce = randomBytes(32).toString('base64url')
    const back =
      publicUrl === undefined
        ? undefined
        : await issueToken(store.db, { name: peer.name, role: 'peer', peerId: peer.id })
    const none = { token: null, proxy: null, caPem: null, clientCertPem: null, clientKeyPem: null }
    const client = createPeerClient({ ...none, url }, settings)
    try {
      const answer = await client.pair({
        secret: code.secret,
        uuid: self.uuid,
        name: self.name,
        nonce,
        ...(back !== undefined && { url: publicUrl, token: back.token }),
      })
      const token = proved(answer, code, self.uuid, nonce)
      const { logId } = answer
      await updatePeer(store.db, key, peer.id, { token })
      if (typeof logId === 'string') await notePeerSeen(store.db, peer.id, { logId })
      return { peer: await findPeer(store.db, peer.id), grants: grantsOf(answer.grants) }
    } finally {
      await client.close()
    }
  } catch (error) {
    await removePeer(store.db, peer.id)
    throw error
  }
}

/** The token in an answer that its signature proves to be from the site that made the code, for this site and this attempt. */
function proved(
  answer: Readonly<Record<string, unknown>>,
  code: ReturnType<typeof decodePairingCode>,
  joiner: string,
  nonce: string,
): string {
  const { uuid, publicKey, signature, token } = answer
  if (
    typeof uuid !== 'string' ||
    typeof publicKey !== 'string' ||
    typeof signature !== 'string' ||
    typeof token !== 'string'
  ) {
    throw new SynclineError('SYNC_PEER_MISMATCH', `what answers at ${code.url} does not answer a pairing`)
  }
  if (uuid !== code.uuid)
    throw new SynclineError('SYNC_PEER_MISMATCH', `site ${uuid} answers at ${code.url}, the code is from ${code.uuid}`)
  const tokenHash = createHash('sha256').update(token).digest('base64url')
  const proof = pairingProof({ nonce, inviter: uuid, joiner, tokenHash })
  if (keyFingerprint(publicKey) !== code.key || !verifySignature(publicKey, proof, signature)) {
    throw new SynclineError(
      'SYNC_PEER_MISMATCH',
      `what answers at ${code.url} does not hold the key of the site that made the code`,
    )
  }
  return token
}

function grantsOf(value: unknown): Joined['grants'] {
  const read = (direction: 'pull' | 'push') => {
    const found = isJsonObject(value) ? value[direction] : undefined
    return (Array.isArray(found) ? found : []).filter(isJsonObject).map(({ resource, filter, columns }) => ({
      resource: String(resource),
      filter: typeof filter === 'string' ? filter : null,
      columns: Array.isArray(columns) ? columns.map(String) : null,
    }))
  }
  return { pull: read('pull'), push: read('push') }
}

/** A site may call itself what it likes; names of peers are stricter. */
function peerName(name: string): string {
  const plain = name
    .replace(/[^A-Za-z0-9._-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+|-+$/g, '')
    .slice(0, 63)
  return plain === '' || /^\d+$/.test(plain) ? `site-${plain}` : plain
}
