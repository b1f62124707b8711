/** A site with tables of the shape of Eden's, and a scripted Eden that it calls. */
import type { Test } from 'tap'
import {
  createConnections,
  type PreviewReport,
  previewPeer,
  type RunEvents,
  type RunOptions,
  type RunReport,
  runPeer,
} from '../../src/client/index.ts'
import { createPeer, createTask, findPeer, type Peer, type Self, type Store } from '../../src/store/index.ts'
import { type Mode, siteOfRepository } from '../../src/sync/index.ts'
import { type EdenDouble, startEdenDouble } from '../support/eden-double.ts'
import { LIMITS } from './peer-site.ts'
import { sideFactory } from './side.ts'

export const KEY = Buffer.alloc(32, 7)
export const TABLES = `
  create table gis_location (id text primary key, name text, level text, lat float8, lon float8, inherited bool, parent text references gis_location);
  create table org_sector (id text primary key, name text not null, abrv text);
  create table org_organisation (id text primary key, name text not null, acronym text, year int, website text, comments text, founded date,
    root_organisation text references org_organisation);
  create table org_office (id text primary key, name text not null, code text, obsolete bool, opened_at timestamptz,
    organisation_id text references org_organisation, location_id text references gis_location);
  create table org_sector_organisation (id text primary key, organisation_id text not null references org_organisation, sector_id text not null references org_sector);`
export const NAMES = ['gis_location', 'org_sector', 'org_organisation', 'org_office', 'org_sector_organisation']

export type Told = { readonly event: string; readonly [key: string]: unknown }
export type EdenPair = {
  readonly store: Store
  readonly self: Self
  readonly peer: Peer
  readonly eden: EdenDouble
  readonly told: Told[]
  readonly query: (text: string) => Promise<Record<string, unknown>[]>
  readonly run: (options?: Partial<RunOptions>) => Promise<RunReport>
  /** Another peer of the same site. */
  readonly runWith: (peer: string) => Promise<RunReport>
  readonly preview: () => Promise<PreviewReport>
  /** Makes the next run a full comparison. */
  readonly longAfter: () => Promise<void>
}

/** A site factory for one test file. */
export async function edenSites(t: Test) {
  const open = await sideFactory(t, TABLES)
  return async (
    t: Test,
    options: { readonly mode?: Mode; readonly onConflict?: string; readonly names?: readonly string[] } = {},
  ): Promise<EdenPair> => {
    const names = options.names ?? NAMES
    const { store, self } = await open(t, { name: 'here', key: KEY, names: names })
    const eden = await startEdenDouble(t)
    eden.registered.add(`urn:uuid:${self.uuid}`)
    const uuid = siteOfRepository(eden.uuid) ?? ''
    const token = `${eden.username}:${eden.password}`
    const peer = await createPeer(store.db, KEY, { name: 'eden', uuid, kind: 'eden', url: eden.url, token })
    const connections = createConnections(store, KEY, { ...LIMITS, noProxy: [], logId: () => self.logId })
    t.teardown(() => connections.close())
    const { mode = 'both', onConflict = 'newer' } = options
    for (const resource of names) await createTask(store.db, { peerId: peer.id, resource, mode, onConflict })
    const told: Told[] = []
    const events = new Proxy(
      {},
      { get: (_, event) => (facts: object) => told.push({ event: String(event), ...facts }) },
    ) as RunEvents
    const deps = { store, self: async () => self, connections, limits: LIMITS, events }
    const query: EdenPair['query'] = async (text) => (await store.pool.query(text)).rows as Record<string, unknown>[]
    return {
      store,
      self,
      peer,
      eden,
      told,
      query,
      run: async (options = {}) => runPeer(deps, await findPeer(store.db, 'eden'), { cause: 'hand', ...options }),
      runWith: async (name) => runPeer(deps, await findPeer(store.db, name), { cause: 'hand' }),
      preview: async () => previewPeer(deps, await findPeer(store.db, 'eden'), {}),
      longAfter: async () =>
        void (await query(`update syncline.eden_table set compared_at = now() - interval '1 day'`)),
    }
  }
}

export const uuid = (n: number) => `urn:uuid:00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
