import { randomUUID } from 'node:crypto'
import {
  appendLog,
  changeFolder,
  collectPush,
  createFolderPeer,
  type ExchangeLimits,
  type Peer,
  readFolder,
  type Self,
  type Store,
  withPeerLease,
} from '../../store/index.ts'
import { type FolderSettings, type FolderWish, folderFaults, folderSettings, SynclineError } from '../../sync/index.ts'
import { type FolderLook, lookIntoFolder } from './client.ts'
import { type FolderLimits, folderOf } from './folder.ts'
import { createFolderWriter } from './output.ts'
import { inFolder, openPlace } from './place.ts'
import { recordsForFile } from './push.ts'

/** What setting up a folder works on. */
export type FolderSetup = {
  readonly store: Store
  /** The data key. */
  readonly key: Buffer
  readonly self: Self
  readonly limits: FolderLimits & ExchangeLimits
}

/** Registers a folder as a peer. It must be there, and be one that may be used. Errors: SYNC_REQUEST_INVALID, SYNC_PEER_FOLDER_FORBIDDEN, SYNC_PEER_UNREACHABLE. */
export async function addFolderPeer(
  { store, key, limits }: FolderSetup,
  request: { readonly name: string; readonly uuid?: string | undefined; readonly settings: FolderWish },
): Promise<Peer> {
  const settings = await checked(request.settings, limits)
  return createFolderPeer(store.db, key, { name: request.name, uuid: request.uuid ?? randomUUID(), settings })
}

/** Changes how a folder is read and written; what is not given stays. Errors also: SYNC_REQUEST_CHANGED. */
export async function changeFolderPeer(
  { store, limits }: FolderSetup,
  peer: Peer,
  wish: Partial<FolderWish>,
  ifMatch?: number,
): Promise<Peer> {
  const before = await readFolder(store.db, peer)
  const given = Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined))
  return changeFolder(store.db, peer, await checked({ ...before, ...given }, limits), ifMatch)
}

async function checked(wish: FolderWish, { folderRoots = [] }: FolderLimits): Promise<FolderSettings> {
  const settings = folderSettings(wish)
  const faults = folderFaults(settings)
  if (faults.length > 0)
    throw new SynclineError('SYNC_REQUEST_INVALID', faults.map(({ path, message }) => `${path} ${message}`).join('\n'))
  await openPlace(settings.path, folderRoots)
  return settings
}

/** Looks whether a folder can be used, and what is in it. */
export async function testFolder({ store, self, limits }: FolderSetup, peer: Peer): Promise<FolderLook> {
  const settings = await readFolder(store.db, peer)
  return inFolder(settings.path, () => lookIntoFolder(folderOf({ store, self, peer, limits, settings })))
}

/**
 * Writes everything that tasks push to a folder into new files, also what came from there; the next run goes on with what changed since the last one
 * all the same. Gives how many records there were. Errors: SYNC_RUN_ACTIVE, SYNC_REQUEST_INVALID, SYNC_REQUEST_NOT_FOUND for a resource without a task.
 */
export async function dumpFolder(
  { store, self, limits }: FolderSetup,
  peer: Peer,
  names: readonly string[] | undefined,
): Promise<{ readonly files: number; readonly records: number }> {
  const settings = await readFolder(store.db, peer)
  const folder = folderOf({ store, self, peer, limits, settings })
  const work = async (lost: AbortSignal) => {
    const tasks = (await folder.tasks()).filter(({ mode }) => mode !== 'pull')
    const unknown = names?.filter((name) => !tasks.some(({ resource }) => resource === name)) ?? []
    if (unknown.length > 0)
      throw new SynclineError('SYNC_REQUEST_NOT_FOUND', `no task pushes ${unknown.join(', ')} to "${peer.name}"`)
    const writer = createFolderWriter(folder)
    await writer.publish(null)
    const elements = settings.format === 's3xml' || settings.format === 's3json'
    // Nothing came from a site of this number: what came from the folder is told, too.
    const link = { self, peer: { ...peer, siteId: 0 } }
    let records = 0
    for (const { resource: name, filter, columns, mode } of tasks) {
      if (names !== undefined && !names.includes(name)) continue
      const resource = await folder.resourceOf(name)
      const remembered = elements || mode === 'both'
      for (let after: string | undefined; ; ) {
        lost.throwIfAborted()
        const batch = await collectPush(store, link, { resource: name, after, filter, columns, quiet: true }, limits)
        if (batch.count > 0)
          await writer.write(name, await recordsForFile(store, resource, batch, { elements, remembered }))
        records += batch.count
        if (batch.next?.more !== true) break
        after = batch.next.checkpoint
      }
    }
    const files = await writer.publish(null)
    await appendLog(store.db, {
      ...{ peer, mode: 'push', direction: 'outgoing', action: 'data export', result: 'success', changes: records },
      message: `all of ${(names ?? tasks.map(({ resource }) => resource)).join(', ')} was written: ${records} records`,
    })
    return { files, records }
  }
  return inFolder(settings.path, () => withPeerLease(store, peer.id, work))
}
