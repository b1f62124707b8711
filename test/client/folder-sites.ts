/** Sites that exchange through folders alone: no server, no network, only files. */
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Test } from 'tap'
import {
  addFolderPeer,
  createConnections,
  type PreviewReport,
  previewPeer,
  type RunEvents,
  type RunOptions,
  type RunReport,
  runPeer,
} from '../../src/client/index.ts'
import {
  createTask,
  findPeer,
  type LogEntry,
  listLog,
  type Peer,
  type Self,
  type Store,
} from '../../src/store/index.ts'
import type { FolderWish, Mode } from '../../src/sync/index.ts'
import { LIMITS } from './peer-site.ts'
import { sideFactory } from './side.ts'

export const KEY = Buffer.alloc(32, 9)
export const TABLES = `
  create table area (id text primary key, name text, tags text[], more jsonb, made timestamptz);
  create table visit (id uuid primary key, area_id text references area, people int, cost numeric, seen bool, note text not null default '');`
export const NAMES = ['area', 'visit']

export type FolderSite = {
  readonly store: Store
  readonly self: Self
  readonly limits: typeof LIMITS & { readonly folderRoots: readonly string[] }
  readonly query: (text: string, values?: readonly unknown[]) => Promise<Record<string, unknown>[]>
  /** Registers a folder, with tasks for these resources. */
  readonly add: (
    name: string,
    settings: FolderWish,
    tasks?: { readonly mode?: Mode; readonly onConflict?: string; readonly names?: readonly string[] },
  ) => Promise<Peer>
  readonly run: (peer: string, options?: Partial<RunOptions>) => Promise<RunReport>
  readonly preview: (peer: string) => Promise<PreviewReport>
  readonly log: (peer: string) => Promise<readonly LogEntry[]>
  /** As after a restart of the process: nothing is left in memory. */
  readonly restart: () => Promise<void>
}

/** A folder of a test, with short words for what is in it. */
export type TestFolder = {
  readonly path: string
  readonly names: (below?: string) => Promise<readonly string[]>
  readonly text: (name: string) => Promise<string>
  /** Writes a file; its time lies so many seconds back. */
  readonly put: (name: string, text: string, secondsAgo?: number) => Promise<void>
}

export async function testFolder(t: Pick<Test, 'teardown'>): Promise<TestFolder> {
  const path = await mkdtemp(join(tmpdir(), 'syncline-folder-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return {
    path,
    names: async (below = '') => {
      const found = await readdir(join(path, below), { recursive: true, withFileTypes: true }).catch(() => [])
      const files = found.filter(
        (entry) => entry.isFile() && !join(entry.parentPath, entry.name).includes('/.syncline/'),
      )
      return files.map((entry) => join(entry.parentPath, entry.name).slice(join(path, below).length + 1)).sort()
    },
    text: (name) => readFile(join(path, name), 'utf8'),
    put: async (name, text, secondsAgo = 0) => {
      const file = join(path, name)
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, text)
      const at = new Date(Date.now() - secondsAgo * 1_000)
      if (secondsAgo > 0) await utimes(file, at, at)
    },
  }
}

/** A site factory for one test file. */
export async function folderSites(t: Test) {
  const open = await sideFactory(t, TABLES)
  return async (
    t: Test,
    name: string,
    folders: readonly TestFolder[],
    more: Partial<typeof LIMITS> = {},
  ): Promise<FolderSite> => {
    const { store, self } = await open(t, { name, key: KEY, names: NAMES })
    const limits = { ...LIMITS, ...more, folderRoots: folders.map(({ path }) => path) }
    const connect = () => createConnections(store, KEY, { ...limits, noProxy: [], logId: () => self.logId })
    let connections = connect()
    t.teardown(() => connections.close())
    const events = new Proxy({}, { get: () => () => {} }) as RunEvents
    const deps = () => ({ store, self: async () => self, connections, limits, events })
    return {
      ...{ store, self, limits },
      query: async (text, values) =>
        (await store.pool.query(text, values && [...values])).rows as Record<string, unknown>[],
      add: async (peer, settings, { mode = 'both', onConflict = 'newer', names = NAMES } = {}) => {
        const wish = { settleSeconds: 0, ...settings }
        const made = await addFolderPeer({ store, key: KEY, self, limits }, { name: peer, settings: wish })
        for (const resource of names) await createTask(store.db, { peerId: made.id, resource, mode, onConflict })
        return made
      },
      run: async (peer, options = {}) => runPeer(deps(), await findPeer(store.db, peer), { cause: 'hand', ...options }),
      preview: async (peer) => previewPeer(deps(), await findPeer(store.db, peer), {}),
      log: async (peer) => (await listLog(store.db, { peer, limit: 100 })).items,
      restart: async () => {
        await connections.close()
        connections = connect()
      },
    }
  }
}
