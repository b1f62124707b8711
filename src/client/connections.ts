import { type Peer, peerConnection, readFolder, readSelf, type Store } from '../store/index.ts'
import { createEdenClient } from './eden/client.ts'
import { createFolderClient } from './folder/client.ts'
import type { FolderLimits } from './folder/folder.ts'
import { type ClientSettings, createPeerClient, type PeerClient } from './peer-client.ts'

/** The connection to one peer, kept from run to run so that an idle run needs no handshake. */
export type PeerLink = {
  readonly client: PeerClient
  /** Checkpoints that this process told the peer, by resource: the same one is not told twice. Losing it costs one request. */
  readonly told: Map<string, string>
  /** Ends what is done with a run at a peer that is no site. */
  readonly finish?: (runId: string) => Promise<void>
}

export type Connections = {
  /** The connection to a peer with its settings as they are now. Errors: SYNC_REQUEST_INVALID for a peer without an address. */
  readonly of: (peer: Peer) => Promise<PeerLink>
  readonly close: () => Promise<void>
}

/** Connections to every peer. One whose settings change gets a new one; what still uses the old one may end. */
export function createConnections(
  store: Store,
  key: Buffer,
  settings: ClientSettings & Pick<FolderLimits, 'folderRoots' | 'recordBytesMax'>,
): Connections {
  const links = new Map<number, { readonly revision: number; readonly link: Promise<PeerLink> }>()
  const open = async (peer: Peer): Promise<PeerLink> => {
    const connection = await peerConnection(store.db, key, peer.id)
    if (peer.kind === 'eden') {
      const self = await readSelf(store.db)
      return { client: createEdenClient({ store, self, peer }, connection, settings), told: new Map() }
    }
    if (peer.kind === 'folder') {
      const [self, how] = [await readSelf(store.db), await readFolder(store.db, peer)]
      const client = createFolderClient({ store, self, peer, settings: how }, settings)
      return { client, told: new Map(), finish: client.finish }
    }
    return { client: createPeerClient(connection, settings), told: new Map() }
  }
  const end = (link: Promise<PeerLink>) =>
    link.then(
      ({ client }) => client.close(),
      () => {},
    )
  return {
    of: async (peer) => {
      const known = links.get(peer.id)
      if (known?.revision === peer.revision) return known.link
      if (known !== undefined) void end(known.link)
      const link = open(peer)
      links.set(peer.id, { revision: peer.revision, link })
      // A connection that could not be made is tried anew next time.
      link.catch(() => links.delete(peer.id))
      return link
    },
    close: async () => {
      await Promise.all([...links.values()].map(({ link }) => end(link)))
      links.clear()
    },
  }
}
