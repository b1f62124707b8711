import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Kysely, sql } from 'kysely'
import type { Test } from 'tap'
import { type Database, migrate, openStore, type Peer, type Store } from '../../src/store/index.ts'
import { type Cluster, type Owner, startPostgres } from '../support/postgres.ts'

/** One kind of database that a suite of the store runs on. */
export type Ground = {
  readonly name: string
  /** An empty, migrated database. On the embedded kind it replaces the one before: there is only one instance for each test file. */
  readonly fresh: () => Promise<Store>
  /** Another process on the same database; the embedded kind has none and gives the same store. */
  readonly another: (store: Store) => Promise<Store>
}

export type Grounds = { readonly cluster: Cluster; readonly all: readonly Ground[] }

/** Both kinds of database, for suites that must hold on each. */
export async function bothStores(t: Owner): Promise<Grounds> {
  const cluster = await startPostgres(t)
  return { cluster, all: [serverGround(t, cluster), await embeddedGround(t)] }
}

/** Opens connections beforehand, so that what is then started at once really runs at once. */
export async function warm(stores: readonly Store[]): Promise<readonly Store[]> {
  await Promise.all(stores.map((store) => sql`select 1`.execute(store.db)))
  return stores
}

function serverGround(t: Owner, cluster: Cluster): Ground {
  const urls = new Map<Store, string>()
  const open = async (url: string) => {
    const store = await openStore({ databaseUrl: url, dataDir: '/nonexistent', connectionsMax: 4 })
    urls.set(store, url)
    t.teardown(() => store.close())
    return store
  }
  const template = cluster.createDatabase().then(async (database) => {
    const store = await openStore({ databaseUrl: database.url, dataDir: '/nonexistent' })
    await migrate(store)
    await store.close()
    return database.name
  })
  return {
    name: 'PostgreSQL',
    fresh: async () => open((await cluster.createDatabase({ template: await template })).url),
    another: async (store) => open(urls.get(store) ?? ''),
  }
}

async function embeddedGround(t: Owner): Promise<Ground> {
  const dataDir = await mkdtemp(join(tmpdir(), 'syncline-store-'))
  let opened: Promise<Store> | undefined
  t.teardown(async () => {
    await (await opened)?.close()
    await rm(dataDir, { recursive: true, force: true })
  })
  const fresh = async () => {
    opened ??= openStore({ dataDir })
    const store = await opened
    await sql`drop schema if exists syncline cascade`.execute(store.db)
    await migrate(store)
    return store
  }
  return { name: 'the embedded database', fresh, another: async (store) => store }
}

/** A resource as far as the registry looks at it. */
export async function addResource(store: Store, name: string): Promise<number> {
  const row = await store.db
    .insertInto('syncline.resource')
    .values({
      name,
      table_schema: 'public',
      table_name: name,
      table_oid: 0,
      key_column: 'id',
      columns: '[]',
      fingerprint: '',
      capture_version: 1,
    } as never)
    .returning('id')
    .executeTakeFirstOrThrow()
  return row.id
}

/** A row of the change order, with a transaction id that no test reaches by itself. */
export async function addRecord(
  store: Store,
  record: { resourceId: number; id: string; origin: number; source?: number | null; xact?: string },
): Promise<void> {
  const { resourceId, id, origin, source = null, xact = '99999999999' } = record
  await store.db
    .insertInto('syncline.record')
    .values({ resource_id: resourceId, record_id: id, xact, clock: 1_700_000_000_000_000, origin, source, seen: null })
    .execute()
}

/** The rows of the change order by id, with `xact` told apart only as the transaction that a test wrote or a later one. */
export async function records(store: Store): Promise<readonly string[]> {
  const { rows } = await sql<{ line: string }>`
    select record_id || ' ' || origin || ' ' || coalesce(source::text, '-') || ' ' || clock || ' '
           || case when xact = '99999999999'::xid8 then 'old' when xact < pg_snapshot_xmin(pg_current_snapshot()) then 'served' else 'ahead' end as line
      from syncline.record order by record_id`.execute(store.db)
  return rows.map((row) => row.line)
}

/** Places in both orders, as if the peer and this site had exchanged a resource. */
export async function checkpoint(db: Kysely<Database>, peer: Peer, resourceId: number): Promise<void> {
  for (const direction of ['pull', 'push', 'ack'] as const) {
    await db
      .insertInto('syncline.checkpoint')
      .values({ peer_id: peer.id, resource_id: resourceId, direction, value: 'somewhere' })
      .execute()
  }
}

/** Directions of the checkpoints with a peer that are left, of all resources. */
export async function checkpoints(db: Kysely<Database>, peer: Peer): Promise<readonly string[]> {
  const rows = await db
    .selectFrom('syncline.checkpoint')
    .select('direction')
    .where('peer_id', '=', peer.id)
    .orderBy('direction')
    .execute()
  return rows.map((row) => row.direction)
}

/** Every attempt must fail with one code. */
export async function refused(t: Test, code: string, message: RegExp, attempts: readonly (() => Promise<unknown>)[]) {
  for (const attempt of attempts) await t.rejects(attempt(), { code, message })
}
