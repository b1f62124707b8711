import {
  addFolderPeer,
  type Connections,
  changeFolderPeer,
  dumpFolder,
  type FolderSetup,
  testFolder,
} from './client/index.ts'
import type { ServerActions } from './server/index.ts'
import type { Self, Store } from './store/index.ts'

/** A peer that is looked at while a person waits has so long to answer. */
const ASK_MS = 20_000

/** What the server can ask of peers that are folders, and of the way to any peer. */
export function folderActions(site: {
  readonly store: Store
  readonly key: Buffer
  readonly limits: FolderSetup['limits']
  readonly self: () => Promise<Self>
  readonly connections: Connections
}): Pick<ServerActions, 'folders' | 'testPeer'> {
  const setup = async (): Promise<FolderSetup> => ({ ...site, self: await site.self() })
  return {
    folders: {
      add: async (request) => addFolderPeer(await setup(), request),
      change: async ({ peer, settings, revision }) => changeFolderPeer(await setup(), peer, settings, revision),
      dump: async ({ peer, resources }) => dumpFolder(await setup(), peer, resources),
    },
    testPeer: async (peer) => {
      const folder = peer.kind === 'folder' ? await testFolder(await setup(), peer) : null
      const { client } = await site.connections.of(peer)
      const { clockOffsetMs, resources } = await client.greet(AbortSignal.timeout(ASK_MS))
      const offered = resources.map(({ name, pull, push }) => ({ name, pull, push }))
      return { clockOffsetMs: Math.round(clockOffsetMs), resources: offered, folder }
    },
  }
}
