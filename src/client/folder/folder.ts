import {
  everyItem,
  listTasks,
  loadResources,
  type Peer,
  type ResourceInfo,
  type Self,
  type Store,
  type Task,
} from '../../store/index.ts'
import {
  type FolderSettings,
  NO_MAPPING,
  nameThere,
  type Pattern,
  readFormatOf,
  readPattern,
} from '../../sync/index.ts'
import { type EdenResource, edenResource } from '../eden/resources.ts'
import { type FolderPlace, openPlace } from './place.ts'
import type { FileContext } from './reader.ts'

/** Limits on what is read and written in folders, from the settings of the site. */
export type FolderLimits = {
  /** Folders below which files may be. */
  readonly folderRoots?: readonly string[] | undefined
  readonly bodyBytesMax: number
  readonly recordBytesMax?: number | undefined
  readonly depthMax: number
  readonly batchRowsMax: number
}

/** A peer that is a folder, with all that is needed to read and write it. */
export type Folder = {
  readonly store: Store
  readonly self: Pick<Self, 'uuid' | 'name'>
  readonly peer: Peer
  readonly settings: FolderSettings
  readonly limits: FolderLimits
  readonly pattern: Pattern | null
  /** The folder itself, looked for anew each time: a disk may have come or gone. */
  readonly place: () => Promise<FolderPlace>
  /** Forgets tasks and resources as they were read: a run reads them once. */
  readonly refresh: () => void
  /** Enabled tasks with it, and where that is said the disabled ones too. */
  readonly tasks: (more?: { readonly disabled: true }) => Promise<readonly Task[]>
  readonly resources: () => Promise<ReadonlyMap<string, ResourceInfo>>
  /** A resource with the names that its task gives its columns. */
  readonly resourceOf: (name: string) => Promise<EdenResource>
  /** What a file is read with; `named` is the resource that its name tells, `resource` the one that is wanted of it. */
  readonly contextOf: (named: string | undefined, resource?: string) => Promise<FileContext>
}

export function folderOf(given: Pick<Folder, 'store' | 'self' | 'peer' | 'settings' | 'limits'>): Folder {
  const { store, peer, settings, limits } = given
  const read = new Map<string, Promise<unknown>>()
  const once = <T>(key: string, work: () => Promise<T>): Promise<T> => {
    const known = read.get(key) as Promise<T> | undefined
    if (known !== undefined) return known
    const fresh = work()
    read.set(key, fresh)
    fresh.catch(() => read.delete(key))
    return fresh
  }
  const tasks = (more?: { readonly disabled: true }) =>
    once(more === undefined ? 'tasks' : 'all tasks', () =>
      everyItem((page) =>
        listTasks(store.db, { ...page, peerId: peer.id, ...(more === undefined && { enabled: true }) }),
      ),
    )
  const resources = () =>
    once('resources', async () => new Map((await loadResources(store.db)).map((info) => [info.name, info])))
  const resourceOf = (name: string) => once(`resource ${name}`, () => edenResource(store, peer, name))
  return {
    ...given,
    pattern: settings.read === null ? null : readPattern(settings.read),
    place: () => openPlace(settings.path, limits.folderRoots ?? []),
    tasks,
    resources,
    resourceOf,
    refresh: () => read.clear(),
    contextOf: async (named, resource) => {
      const [all, enabled] = await Promise.all([resources(), tasks()])
      const pulled = pulledNames(enabled)
      // Where the name does not say it, the one task that pulls does.
      const only = named ?? (pulled.length === 1 ? pulled[0] : undefined)
      const own = resource ?? only ?? pulled[0] ?? [...all.keys()][0]
      const shapes = own === undefined ? new Map() : (await resourceOf(own)).shapes
      const refs = new Map<string, Readonly<Record<string, string>>>()
      for (const info of all.values()) {
        const mapping = enabled.find((task) => task.resource === info.name)?.mapping ?? NO_MAPPING
        refs.set(
          info.name,
          Object.fromEntries(
            info.references.map(({ column, resource: target }) => [nameThere(mapping, column.name), target]),
          ),
        )
      }
      return {
        ...{ format: readFormatOf(settings), shapes, resources: all, named: only },
        bytesMax: limits.bodyBytesMax,
        recordBytesMax: limits.recordBytesMax ?? limits.bodyBytesMax,
        depthMax: limits.depthMax,
        refsOf: (name) => refs.get(name) ?? {},
      }
    },
  }
}

/** Resources that tasks pull. */
export function pulledNames(tasks: readonly Task[]): readonly string[] {
  return tasks.filter(({ mode }) => mode !== 'push').map(({ resource }) => resource)
}
