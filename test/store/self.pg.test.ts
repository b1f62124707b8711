import { randomBytes } from 'node:crypto'
import { chown, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Kysely, sql } from 'kysely'
import t, { type Test } from 'tap'
import {
  createPeer,
  type Database,
  ensureSelf,
  keyFingerprint,
  migrate,
  newLog,
  openStore,
  originsOf,
  readSelf,
  type Store,
  siteIds,
  verifySignature,
} from '../../src/store/index.ts'
import { startPostgres } from '../support/postgres.ts'
import { addRecord, addResource, bothStores, records, warm } from './both-stores.ts'

const { cluster, all } = await bothStores(t)
const key = randomBytes(32)
const PEER = '0b1f7c1e-8d53-4b52-9d43-0a6f3f7d6a01'

async function openAt(t: Test, url: string): Promise<Store> {
  const store = await openStore({ databaseUrl: url, dataDir: '/nonexistent' })
  t.teardown(() => store.close())
  return store
}

async function checkpoints(db: Kysely<Database>): Promise<readonly string[]> {
  const rows = await db.selectFrom('syncline.checkpoint').select(['direction', 'value']).orderBy('direction').execute()
  return rows.map((row) => `${row.direction} ${row.value}`)
}

/** A site that has exchanged records with a peer. */
async function furnish(store: Store): Promise<void> {
  const self = await ensureSelf(store.db, { name: 'field', key })
  const resourceId = await addResource(store, 'place')
  const peer = await createPeer(store.db, key, { name: 'hub', uuid: PEER, url: 'http://hub.example:8420' })
  await addRecord(store, { resourceId, id: 'a', origin: self.siteId })
  await addRecord(store, { resourceId, id: 'b', origin: peer.siteId, source: peer.siteId })
  for (const direction of ['pull', 'push', 'ack'] as const) {
    await store.db
      .insertInto('syncline.checkpoint')
      .values({ peer_id: peer.id, resource_id: resourceId, direction, value: `${direction}-place` })
      .execute()
  }
}

for (const ground of all) {
  t.test(`the site itself, on ${ground.name}`, async (t) => {
    t.test('the first start makes the site, every later one finds it again', async (t) => {
      const { db } = await ground.fresh()
      await t.rejects(readSelf(db), /ensureSelf/)
      const first = await ensureSelf(db, { name: 'field', key })
      t.equal(first.log, 'created')
      t.equal(first.origin, first.uuid)
      t.match(first.logId, /^[a-z2-7]{10}$/)
      t.match(first.uuid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
      t.match(first.createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
      t.same(await originsOf(db, [first.siteId]), [first.uuid])
      const second = await ensureSelf(db, { name: 'field', key })
      t.equal(second.log, 'continued')
      const { log, sign, ...entry } = second
      t.same(await readSelf(db), entry)
      t.same([second.uuid, second.siteId, second.logId], [first.uuid, first.siteId, first.logId])
      t.equal(second.publicKey, first.publicKey)
    })

    t.test('a changed name is taken over', async (t) => {
      const { db } = await ground.fresh()
      await ensureSelf(db, { name: 'field', key })
      await ensureSelf(db, { name: 'field-2', key })
      t.equal((await readSelf(db)).name, 'field-2')
    })

    t.test('what it signs is verified with its public key and with no other text, key or signature', async (t) => {
      const { db } = await ground.fresh()
      const { publicKey, sign } = await ensureSelf(db, { name: 'field', key })
      const again = await ensureSelf(db, { name: 'field', key })
      const signature = sign('a bundle')
      t.equal(verifySignature(publicKey, 'a bundle', signature), true)
      t.equal(verifySignature(publicKey, Buffer.from('a bundle'), again.sign('a bundle')), true)
      t.equal(verifySignature(publicKey, 'another bundle', signature), false)
      t.equal(verifySignature(publicKey, 'a bundle', `A${signature.slice(1)}x`), false)
      t.equal(verifySignature('nonsense', 'a bundle', signature), false)
      t.match(keyFingerprint(publicKey), /^[\w-]{43}$/)
    })

    t.test(
      'the private key opens only with the data key that sealed it, and a failed start changes nothing',
      async (t) => {
        const store = await ground.fresh()
        await furnish(store)
        await store.db.updateTable('syncline.self').set({ log_seen: '{"databaseOid":"1"}' }).execute()
        const row = () => store.db.selectFrom('syncline.self').selectAll().executeTakeFirstOrThrow()
        const before = await row()
        const attempt = ensureSelf(store.db, { name: 'thief', key: randomBytes(32) })
        await t.rejects(attempt, { code: 'SYNC_CONFIG_DATA_KEY_WRONG', message: /self\.private_key/ })
        t.same(await row(), before)
        t.equal((await records(store))[0]?.endsWith('old'), true)
      },
    )

    t.test('a part that was never seen makes no new log and is remembered from then on', async (t) => {
      const { db } = await ground.fresh()
      await ensureSelf(db, { name: 'field', key })
      const seen = async () =>
        (await db.selectFrom('syncline.self').select('log_seen').executeTakeFirstOrThrow()).log_seen
      const full = await seen()
      t.same(Object.keys(full as object).sort(), ['databaseOid', 'recordTableOid', 'systemIdentifier', 'timeline'])
      t.equal(Object.values(full as object).includes(null), false)
      await db
        .updateTable('syncline.self')
        .set({ log_seen: JSON.stringify({ ...(full as object), timeline: null }) })
        .execute()
      t.equal((await ensureSelf(db, { name: 'field', key })).log, 'continued')
      t.same(await seen(), full)
    })

    for (const part of ['systemIdentifier', 'databaseOid', 'recordTableOid', 'timeline']) {
      t.test(
        `another ${part} makes a new log and a new origin, restamps every record and forgets what peers had`,
        async (t) => {
          const store = await ground.fresh()
          const { db } = store
          await furnish(store)
          await sql`create table if not exists public.place (id text)`.execute(db)
          t.teardown(() => sql`drop table public.place`.execute(db))
          const before = await readSelf(db)
          const [peerSite] = await siteIds(db, [PEER])
          await db
            .updateTable('syncline.self')
            .set({ log_seen: sql<string>`log_seen || ${JSON.stringify({ [part]: '4711' })}::jsonb` })
            .execute()
          const after = await ensureSelf(db, { name: 'field', key })
          t.equal(after.log, 'renewed')
          t.not(after.logId, before.logId)
          t.equal(after.origin, `${before.uuid}/${after.logId}`)
          t.not(after.siteId, before.siteId)
          t.same(await originsOf(db, [before.siteId, after.siteId]), [before.uuid, after.origin])
          t.same([after.uuid, after.publicKey], [before.uuid, before.publicKey])
          t.same(await records(store), [
            `a ${before.siteId} - 1700000000000000 served`,
            `b ${peerSite} ${peerSite} 1700000000000000 served`,
          ])
          t.same(await checkpoints(db), ['pull pull-place'])
          const { rows } = await sql<{ right: boolean }>`
          select table_oid = 'public.place'::regclass as right from syncline.resource`.execute(db)
          t.same(rows, [{ right: true }])
          t.equal((await ensureSelf(db, { name: 'field', key })).log, 'continued')
        },
      )
    }

    t.test('a new log by hand has the same effect', async (t) => {
      const store = await ground.fresh()
      await furnish(store)
      const before = await readSelf(store.db)
      const after = await newLog(store.db)
      t.equal(after.origin, `${before.uuid}/${after.logId}`)
      t.same(await checkpoints(store.db), ['pull pull-place'])
      t.equal(
        (await records(store)).every((line) => line.endsWith('served')),
        true,
      )
      t.equal((await ensureSelf(store.db, { name: 'field', key })).logId, after.logId)
    })

    t.test('several that notice at once that the log must be replaced make one new log', async (t) => {
      const store = await ground.fresh()
      const { logId } = await ensureSelf(store.db, { name: 'field', key })
      const stores = await warm(await Promise.all(Array.from({ length: 4 }, () => ground.another(store))))
      const selves = await Promise.all(stores.map(({ db }) => newLog(db, logId)))
      t.equal(new Set(selves.map((self) => self.logId)).size, 1)
      t.not(selves[0]?.logId, logId)
      t.same(await newLog(store.db, logId), selves[0])
      t.equal((await store.db.selectFrom('syncline.site').select('id').execute()).length, 2)
    })

    t.test('eight first starts at once make one site', async (t) => {
      const store = await ground.fresh()
      const stores = await Promise.all(Array.from({ length: 8 }, () => ground.another(store)))
      const selves = await Promise.all(stores.map(({ db }) => ensureSelf(db, { name: 'field', key })))
      t.same(selves.map((self) => self.log).sort(), [
        'continued',
        'continued',
        'continued',
        'continued',
        'continued',
        'continued',
        'continued',
        'created',
      ])
      t.equal(new Set(selves.map((self) => `${self.uuid} ${self.logId} ${self.siteId}`)).size, 1)
      t.equal((await store.db.selectFrom('syncline.site').select('id').execute()).length, 1)
    })
  })
}

t.test('a dump restored into another cluster: many processes start at once and agree on one new log', async (t) => {
  const role = await cluster.createRole()
  const database = await cluster.createDatabase({ owner: role })
  const store = await openAt(t, database.url)
  await migrate(store)
  await furnish(store)
  const before = await readSelf(store.db)

  const other = await startPostgres(t)
  await other.query('postgres', `create role "${role}" login`)
  const restored = await other.createDatabase({ owner: role })
  await other.restore(restored.name, await cluster.dump(database.name))
  const stores = await Promise.all(Array.from({ length: 4 }, () => openAt(t, restored.url)))
  const selves = await Promise.all(stores.map(({ db }) => ensureSelf(db, { name: 'field', key })))
  t.same(selves.map((self) => self.log).sort(), ['continued', 'continued', 'continued', 'renewed'])
  const [after, ...others] = selves.map((self) => self.origin)
  t.not(after, before.origin)
  t.same([...new Set(others)], [after])
  t.equal(
    (await records(stores[0] ?? store)).every((line) => line.endsWith('served')),
    true,
  )
  t.equal((await ensureSelf(store.db, { name: 'field', key })).log, 'continued')
})

t.test('a database that is put back under a running process begins a new log, once', async (t) => {
  const role = await cluster.createRole()
  const database = await cluster.createDatabase({ owner: role })
  const running = await openAt(t, database.url)
  await migrate(running)
  await furnish(running)
  const before = await readSelf(running.db)
  const dump = await cluster.dump(database.name)
  await running.db.schema.dropSchema('syncline').cascade().execute()
  await cluster.restore(database.name, dump)

  const found = await Promise.all(Array.from({ length: 4 }, () => readSelf(running.db)))
  const [after] = found
  t.equal(after?.uuid, before.uuid)
  t.not(after?.logId, before.logId)
  t.equal(after?.origin, `${before.uuid}/${after?.logId}`)
  t.same([...new Set(found.map((self) => self.origin))], [after?.origin])
  t.same(await checkpoints(running.db), ['pull pull-place'])
  t.same(await readSelf(running.db), after)
  t.equal((await ensureSelf(running.db, { name: 'field', key })).log, 'continued')
})

t.test('a copied database gets a new log, a renamed one keeps its own', async (t) => {
  const database = await cluster.createDatabase()
  const store = await openStore({ databaseUrl: database.url, dataDir: '/nonexistent' })
  await migrate(store)
  await furnish(store)
  const before = await readSelf(store.db)
  await store.close()
  const copy = await openAt(t, (await cluster.createDatabase({ template: database.name })).url)
  t.equal((await ensureSelf(copy.db, { name: 'field', key })).log, 'renewed')
  await cluster.query('postgres', `alter database ${database.name} rename to renamed`)
  const renamed = await ensureSelf((await openAt(t, cluster.url('renamed'))).db, { name: 'field', key })
  t.equal(renamed.log, 'continued')
  t.equal(renamed.logId, before.logId)
})

t.test(
  'a role that may not look at the cluster starts all the same, and a right that comes or goes makes no new log',
  async (t) => {
    const role = await cluster.createRole()
    const database = await cluster.createDatabase({ owner: role })
    const functions = ['pg_control_system()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_lsn()']
    const say = (statement: (name: string) => string) =>
      cluster.query(database.name, functions.map((name) => statement(name)).join(';'))
    await say((name) => `revoke execute on function ${name} from public`)
    const { db } = await openAt(t, database.url)
    await migrate({ db })
    const first = await ensureSelf(db, { name: 'field', key })
    const seen = async () =>
      (await db.selectFrom('syncline.self').select('log_seen').executeTakeFirstOrThrow()).log_seen
    t.match(await seen(), { systemIdentifier: null, timeline: null, databaseOid: /^\d+$/, recordTableOid: /^\d+$/ })
    await say((name) => `grant execute on function ${name} to public`)
    t.equal((await ensureSelf(db, { name: 'field', key })).logId, first.logId)
    const full = await seen()
    t.match(full, { systemIdentifier: /^\d+$/, timeline: '00000001' })
    await say((name) => `revoke execute on function ${name} from public`)
    t.equal((await ensureSelf(db, { name: 'field', key })).logId, first.logId)
    t.same(await seen(), full)
  },
)

t.test('a restart keeps the log, a recovery to another timeline begins a new one', async (t) => {
  const own = await startPostgres(t, { settings: { restore_command: '/bin/false' } })
  const database = await own.createDatabase()
  const start = async () => {
    const store = await openStore({ databaseUrl: database.url, dataDir: '/nonexistent' })
    await migrate(store)
    const self = await ensureSelf(store.db, { name: 'field', key })
    await store.close()
    return self
  }
  const first = await start()
  await own.halt('fast')
  await own.resume()
  t.equal((await start()).logId, first.logId)
  await own.halt('fast')
  const signal = join(own.dataDir, 'recovery.signal')
  await writeFile(signal, '')
  const { uid, gid } = await stat(own.dataDir)
  await chown(signal, uid, gid)
  await own.resume()
  const recovered = await start()
  t.equal(recovered.log, 'renewed')
  t.not(recovered.logId, first.logId)
})
