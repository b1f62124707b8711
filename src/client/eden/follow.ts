import {
  createTask,
  findTaskFor,
  followedFromEden,
  loadResources,
  type Peer,
  peerConnection,
  type Task,
} from '../../store/index.ts'
import { SynclineError } from '../../sync/index.ts'
import { archivePlace } from './archive.ts'
import { createEdenRequests } from './requests.ts'
import type { EdenSetup } from './setup.ts'

/** How long an Eden may take to answer while a person waits. */
const ASK_MS = 20_000

/** A data set of an Eden, and what follows from it here. */
export type DatasetFollowed = {
  readonly code: string
  readonly name: string
  /** Where its archive is; null for none. */
  readonly archive: string | null
  /** Resources that are pulled from now on, and those that were before. */
  readonly made: readonly string[]
  readonly kept: readonly string[]
  /** Tables of it that are not here. */
  readonly without: readonly string[]
}

/**
 * Makes tasks for the tables of a data set that an Eden publishes: they are pulled, with the filters of the data set, the first time from its
 * archive. To be repeated when the data set has changed. Errors: those of Eden's answers, SYNC_REQUEST_NOT_FOUND, SYNC_REQUEST_INVALID.
 */
export async function followDataset(
  { store, key, self, settings }: EdenSetup,
  peer: Peer,
  { code, schedule }: { readonly code: string; readonly schedule?: string | null | undefined },
): Promise<DatasetFollowed> {
  if (peer.kind !== 'eden') throw new SynclineError('SYNC_REQUEST_INVALID', `peer "${peer.name}" is no Eden site`)
  const requests = createEdenRequests(await peerConnection(store.db, key, peer.id), settings, self.uuid)
  try {
    const dataset = await requests.dataset(code, AbortSignal.timeout(ASK_MS))
    const archive = dataset.archiveUrl === null ? null : archivePlace(dataset.archiveUrl, requests.url)
    const here = new Map((await loadResources(store.db)).map((each) => [each.name, each]))
    const [made, kept]: [string[], string[]] = [[], []]
    const pulled = dataset.tasks.filter(({ pulls }) => pulls)
    for (const { uuid, table, filters } of pulled) {
      const resource = here.get(table)
      if (resource === undefined) continue
      if (new Set(filters.map(([name]) => name)).size < filters.length)
        throw new SynclineError('SYNC_FILTER_INVALID', `data set "${code}" has two filters of one name for "${table}"`)
      await store.db.transaction().execute(async (trx) => {
        const task: Task | null = await findTaskFor(trx, peer.id, table)
        if (task !== null && task.mode !== 'pull')
          throw new SynclineError(
            'SYNC_REQUEST_INVALID',
            `the task with "${peer.name}" for "${table}" pushes too: a data set is only pulled`,
          )
        if (task === null) await createTask(trx, { peerId: peer.id, resource: table, mode: 'pull', schedule })
        const followed = { code, task: uuid, filters, archiveOrigin: archive?.origin ?? null }
        await followedFromEden(trx, { peerId: peer.id, resourceId: resource.id }, followed)
        const list = task === null ? made : kept
        list.push(table)
      })
    }
    const without = pulled.map(({ table }) => table).filter((table) => !here.has(table))
    return { code, name: dataset.name, archive: archive?.href ?? null, made, kept, without }
  } finally {
    await requests.close()
  }
}
