/** The databases of simulated sites: one PostgreSQL cluster, a template for each site, copies for each seed. */
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import {
  attach,
  createPeer,
  ensureSelf,
  findPeer,
  issueToken,
  loadResources,
  migrate,
  openStore,
  type Store,
  setGrant,
  updatePeer,
} from '../../src/store/index.ts'
import { type Cluster, type Owner, startPostgres } from '../support/postgres.ts'
import { type Control, machine } from './machine.ts'

export const SITES = ['a', 'b', 'c', 'd', 'e'] as const
export const KEY = Buffer.alloc(32, 7)
export const START_MICROS = Date.UTC(2026, 10, 22) * 1_000

/** Local numbers, a reference, a unique value that several sites may take, text identities. */
const TABLES = `
  create table place (id serial primary key, key uuid not null unique, code text unique, label text not null, amount numeric);
  create table visit (id serial primary key, key uuid not null unique, place_id int references place, label text not null, doc jsonb);
  create table tag (id text primary key, slot text unique, label text not null)`
export const RESOURCES = ['place', 'visit', 'tag'] as const
export type ResourceName = (typeof RESOURCES)[number]

/** The time of these databases is told by a sequence, which counts on by itself and is set to whatever time a site believes in. */
const clockSql = (version: number) => `
  create schema sim;
  create ${version >= 15 ? 'unlogged' : ''} sequence sim.clock;
  alter function pg_catalog.clock_timestamp() rename to real_clock_timestamp;
  create function pg_catalog.clock_timestamp() returns timestamptz language plpgsql volatile as
    $$ begin return to_timestamp(0) + nextval('sim.clock') * interval '1 microsecond'; end $$;
  alter function pg_catalog.now() rename to real_now;
  create function pg_catalog.now() returns timestamptz language plpgsql stable as
    $$ begin return to_timestamp(0) + (select last_value from sim.clock) * interval '1 microsecond'; end $$;`

export type Databases = {
  readonly control: Control
  readonly url: (database: string) => string
  /** Makes a database as a copy of another one, or of the template of a site. */
  readonly copy: (name: string, from: string) => Promise<void>
  readonly drop: (name: string) => Promise<void>
  /** Ends the sessions of a database that have this name; resolves when the server has let go of them. */
  readonly endSessions: (database: string, application: string) => Promise<void>
}

export function originOf(index: number): string {
  return `http://127.0.0.${index + 1}:8420`
}

/** A cluster with a template for each site: attached tables, and every other site as a peer. */
export async function startDatabases(t: Owner): Promise<Databases> {
  const settings = { autovacuum: 'off', deadlock_timeout: '1h', max_connections: 200, synchronous_commit: 'off' }
  const cluster = await startPostgres(t, { settings })
  machine.begin('templates', START_MICROS, { isBlocked: async () => false, cancel: async () => {} })
  await cluster.query('postgres', 'create database sim_base')
  await cluster.query('sim_base', clockSql(cluster.version))
  await cluster.query('sim_base', `select setval('sim.clock', ${START_MICROS})`)
  await cluster.query('sim_base', TABLES)
  const base = await open(cluster, 'sim_base')
  await migrate(base)
  await base.close()
  const stores: { readonly store: Store; readonly uuid: string }[] = []
  for (const name of SITES) {
    await cluster.query('postgres', `create database sim_${name} template sim_base`)
    const store = await open(cluster, `sim_${name}`)
    const { uuid } = await ensureSelf(store.db, { name, key: KEY })
    await attach(
      store,
      RESOURCES.map((table) => ({ table })),
    )
    stores.push({ store, uuid })
  }
  await introduceAll(stores)
  for (const { store } of stores) {
    // A copy of the template is no copy of a site: what it runs on is learnt at its first start.
    await store.pool.query(
      `update syncline.self set log_seen = '{"systemIdentifier":null,"databaseOid":null,"recordTableOid":null,"timeline":null}'`,
    )
    await store.close()
  }
  const admin = new pg.Client({ connectionString: cluster.url('postgres') })
  await admin.connect()
  t.teardown(() => admin.end())
  const ask = async (text: string, values: unknown[] = []) => (await admin.query(text, values)).rows
  return {
    control: {
      isBlocked: async (pid) => {
        const [row] = await ask('select cardinality(pg_blocking_pids($1)) > 0 as blocked', [pid])
        return (row as { blocked: boolean }).blocked
      },
      cancel: async (pid) => void (await ask('select pg_cancel_backend($1)', [pid])),
    },
    url: cluster.url,
    copy: async (name, from) => void (await ask(`create database "${name}" template "${from}"`)),
    drop: async (name) => void (await ask(`drop database if exists "${name}" with (force)`)),
    endSessions: async (database, application) => {
      const theirs = 'pg_stat_activity where datname = $1 and application_name = $2'
      await ask(`select pg_terminate_backend(pid) from ${theirs}`, [database, application])
      while ((await ask(`select from ${theirs}`, [database, application])).length > 0) await pause(1)
    },
  }
}

async function open(cluster: Cluster, database: string): Promise<Store> {
  return openStore({ databaseUrl: cluster.url(database), dataDir: '/nonexistent', connectionsMax: 2 })
}

/** Every site knows every other one, and lets it pull and push everything. A seed forgets those that it does not link. */
async function introduceAll(stores: readonly { readonly store: Store; readonly uuid: string }[]): Promise<void> {
  for (const [here, { store }] of stores.entries()) {
    for (const [there, { uuid }] of stores.entries()) {
      if (here === there) continue
      const name = SITES[there] ?? ''
      const peer = await createPeer(store.db, KEY, { name, uuid, url: originOf(there) })
      for (const { name: resource } of await loadResources(store.db)) {
        for (const direction of ['pull', 'push']) await setGrant(store.db, { peerId: peer.id, resource, direction })
      }
    }
  }
  for (const [here, { store }] of stores.entries()) {
    for (const [there, other] of stores.entries()) {
      if (here === there) continue
      const peer = await findPeer(store.db, SITES[there] ?? '')
      const { token } = await issueToken(store.db, { name: peer.name, role: 'peer', peerId: peer.id })
      const self = await findPeer(other.store.db, SITES[here] ?? '')
      await updatePeer(other.store.db, KEY, self.id, { token })
    }
  }
}
