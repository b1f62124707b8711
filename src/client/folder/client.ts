import { followMerges, type Peer, type Self, type Store } from '../../store/index.ts'
import { type BatchReport, type FolderSettings, type LineBatch, readFormatOf, SynclineError } from '../../sync/index.ts'
import type { PeerClient, PullQuery, Pushed } from '../peer-client.ts'
import { PeerError } from '../peer-error.ts'
import { type Folder, type FolderLimits, folderOf, pulledNames } from './folder.ts'
import { fittingFiles } from './look.ts'
import { createFolderWriter } from './output.ts'
import { inFolder } from './place.ts'
import { createFolderPuller } from './pull.ts'
import { previewOfFile, recordsForFile } from './push.ts'

/** A folder has one order of files; it does not tell when it was put back. */
const LOG_ID = 'folder'

/** A client that also knows when a run is over. */
export type FolderClient = PeerClient & {
  /** Gives files in the making their names, and lets go of those that everything was taken of. */
  readonly finish: (runId: string) => Promise<void>
}

/**
 * A folder as a peer: the verbs that runs use, answered by files. What is pulled is read from files, the oldest first and each once; what is pushed is
 * written to files, and counts as taken when it is safe on the disk. Nobody answers from a folder, so it gives no proof of what is at its other end.
 */
export function createFolderClient(
  given: {
    readonly store: Store
    readonly self: Pick<Self, 'uuid' | 'name'>
    readonly peer: Peer
    readonly settings: FolderSettings
  },
  limits: FolderLimits,
): FolderClient {
  const folder = folderOf({ ...given, limits })
  const { store, peer, settings } = folder
  const puller = createFolderPuller(folder)
  const writer = createFolderWriter(folder)

  return {
    host: settings.path,

    async greet() {
      folder.refresh()
      puller.begin()
      await folder.place()
      const tasks = await folder.tasks()
      return {
        ...{ uuid: peer.uuid, name: peer.name, logId: peer.logId ?? LOG_ID, mark: null, clockOffsetMs: 0 },
        resources: tasks.map(({ resource: name, mode }) => {
          return { name, pull: mode !== 'push', push: mode !== 'pull', fingerprint: null, terms: null, policy: null }
        }),
        ...{ waiting: null, heldMs: 0, limits: { bodyBytesMax: null, batchRowsMax: null } },
      }
    },

    pull: async (query) => {
      refuseFilter(query)
      if (settings.read === null)
        throw new SynclineError(
          'SYNC_REQUEST_INVALID',
          `nothing is read from the folder "${peer.name}": it has no pattern of files, as \`syncline folder set\` gives with --read`,
        )
      if (!query.purged) return inFolder(settings.path, () => puller.pull(query))
      const next = { checkpoint: query.after ?? 'folder:0', more: false }
      const batch = {
        resource: query.resource,
        columns: [],
        refs: {},
        origins: [],
        text: '',
        count: 0,
        next,
        purged: true as const,
      }
      return { batches: [batch], count: 0, ...next, bytes: 0, told: null }
    },

    push: async (batch, _signal, options = {}): Promise<Pushed> => {
      if (options.preview !== undefined)
        return {
          report: reportOf(0),
          bytes: 0,
          preview: await previewOfFile(store, await folder.resourceOf(batch.resource), batch),
        }
      // Deletions of long ago, of which only a hash is left, have no name that a file could tell.
      if (batch.purged === true) return { report: reportOf(0), bytes: 0 }
      const bytes = await inFolder(settings.path, () => writeBatch(batch))
      return { report: reportOf(batch.count), bytes }
    },

    pullChosen: async () => ({ batches: [], bytes: 0 }),
    pullForRepair: async () => {
      throw unproved('a folder cannot be asked for single records')
    },
    /** Everything that was pulled is applied: what was merged lets go of the records that were merged away. */
    ack: async (name) => {
      const { place, info } = await folder.resourceOf(name)
      await followMerges(store, place, info)
    },
    compare: async () => {
      throw unproved('a folder gives no proof: nobody tells from there what was taken of the files')
    },
    digests: async () => {
      throw unproved('a folder gives no proof: nobody tells from there what was taken of the files')
    },
    adopt: async () => {
      throw unproved('a folder has no application to look behind')
    },
    readSchema: async () => ({}),
    tellSchema: async () => {},
    tellWaiting: async () => {
      throw unproved('nobody at a folder can be told what waits here')
    },
    pair: async () => {
      throw new SynclineError(
        'SYNC_REQUEST_INVALID',
        'a folder is not paired by a code: syncline peer add --type folder',
      )
    },
    events: () => ({
      [Symbol.asyncIterator]: () => ({
        next: () => Promise.reject(unproved('a folder announces nothing: give the task a schedule instead of --live')),
      }),
    }),
    close: () => puller.close(),

    finish: async (runId) => {
      await inFolder(settings.path, async () => {
        await writer.publish(runId)
        await puller.clear(runId)
      })
      const [first, ...others] = puller.refused()
      if (first === undefined) return
      const more = others.length === 0 ? '' : `, and ${others.length} more`
      throw new SynclineError('SYNC_FORMAT_INVALID', `${first}${more}: the log has the reason of each`)
    },
  }

  async function writeBatch(batch: LineBatch): Promise<number> {
    const task = (await folder.tasks()).find(({ resource }) => resource === batch.resource)
    const resource = await folder.resourceOf(batch.resource)
    const elements = settings.format === 's3xml' || settings.format === 's3json'
    const remembered = elements || task?.mode === 'both'
    return writer.write(batch.resource, await recordsForFile(store, resource, batch, { elements, remembered }))
  }

  /** What a filter would leave out of a file would be nowhere: whoever writes the file chooses. */
  function refuseFilter({ filter }: Pick<PullQuery, 'filter'>): void {
    if (filter != null && filter.trim() !== '')
      throw new SynclineError(
        'SYNC_FILTER_INVALID',
        `a task with a folder that pulls has no filter; "${filter.slice(0, 80)}" was given. A task that only pushes may have one`,
      )
  }
}

function unproved(detail: string): PeerError {
  return new PeerError('SYNC_PEER_REFUSED', detail, { retryable: false })
}

function reportOf(applied: number): BatchReport {
  const counts = { applied, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 }
  return { counts, rejections: [], truncated: false }
}

/** What a look at a folder finds. Nothing of it is taken. */
export type FolderLook = {
  /** Files that fit the pattern. */
  readonly files: number
  readonly some: readonly string[]
  readonly reads: string | null
  readonly writes: string | null
}

/** Looks whether a folder can be used, and what is in it. Errors: SYNC_PEER_FOLDER_FORBIDDEN, SYNC_PEER_UNREACHABLE. */
export async function lookIntoFolder(folder: Folder): Promise<FolderLook> {
  const place = await folder.place()
  const { after } = folder.settings
  if (folder.settings.write !== null || after !== 'keep') await place.remove(await place.write('.syncline/probe', ''))
  const files = await fittingFiles(folder, pulledNames(await folder.tasks()))
  const { format, read, write } = folder.settings
  return {
    files: files.length,
    some: files.slice(0, 10).map(({ name }) => name),
    reads: read === null ? null : `${readFormatOf(folder.settings)} from ${read}`,
    writes: write === null ? null : `${format} to ${write}`,
  }
}
