import { findPeer, peerConnection, type Store } from '../store/index.ts'
import { isJsonObject, parseJson, SynclineError } from '../sync/index.ts'
import type { ClientSettings } from './peer-client.ts'
import { createTransport } from './transport.ts'

export type PeerLease = { readonly peer: string; readonly lease: string }
type Seen = { readonly free: true } | { readonly free: false; readonly reason: string }

/** Leases that are held at a peer, for jobs. Errors of all: those of the connection, SYNC_PEER_REFUSED for what is no answer. */
export function createLeaseClient(deps: {
  readonly store: Store
  readonly key: Buffer
  readonly settings: ClientSettings
}) {
  /** A lease is asked for rarely: each question has a connection of its own. */
  async function ask(
    { peer: ref, lease }: PeerLease,
    method: 'GET' | 'PUT' | 'POST',
    more: string,
    body: object | undefined,
    signal: AbortSignal,
  ): Promise<Readonly<Record<string, unknown>>> {
    const peer = await findPeer(deps.store.db, ref)
    if (peer.kind !== 'syncline')
      throw new SynclineError('SYNC_REQUEST_INVALID', `${peer.name} is no Syncline site and keeps no leases`)
    const transport = createTransport(await peerConnection(deps.store.db, deps.key, peer.id), deps.settings)
    try {
      const answer = await transport.exchange({
        method,
        path: `/leases/${encodeURIComponent(lease)}${more}`,
        headers: { accept: 'application/json', ...(body !== undefined && { 'content-type': 'application/json' }) },
        ...(body !== undefined && { body: Buffer.from(JSON.stringify(body)) }),
        signal,
      })
      const said = answer.body.bytes.toString()
      const value = said === '' ? {} : parseJson(said, 4)
      return isJsonObject(value) ? value : {}
    } finally {
      await transport.close()
    }
  }

  const seen = (answer: Readonly<Record<string, unknown>>, where: PeerLease): Seen => {
    if (answer.free === true) return { free: true }
    const reason = typeof answer.reason === 'string' ? answer.reason : 'it does not say why'
    return { free: false, reason: `at ${where.peer}: ${reason}` }
  }

  return {
    look: async (where: PeerLease, signal: AbortSignal) => seen(await ask(where, 'GET', '', undefined, signal), where),
    take: async (
      where: PeerLease,
      claim: {
        readonly token: string
        readonly owner: string
        readonly host: string
        readonly pid: number
        readonly seconds: number
      },
      signal: AbortSignal,
    ) => seen(await ask(where, 'PUT', '', claim, signal), where),
    renew: async (where: PeerLease, token: string, seconds: number, signal: AbortSignal) =>
      (await ask(where, 'POST', '/renewals', { token, seconds }, signal)).held === true,
    release: async (where: PeerLease, token: string, signal: AbortSignal) => {
      await ask(where, 'POST', '/release', { token }, signal)
    },
  }
}
