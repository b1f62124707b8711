import { chown, stat, writeFile } from 'node:fs/promises'
import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'
import t, { type Test } from 'tap'
import { MIGRATIONS } from '../../migrations/index.ts'
import { ensureSelf, migrate, openStore, type Store } from '../../src/store/index.ts'
import { startPostgres } from '../support/postgres.ts'
import { bothStores } from './both-stores.ts'

const { cluster, all } = await bothStores(t)
const NAMES = Object.keys(MIGRATIONS).sort()
const DATA_KEY = Buffer.alloc(32, 7)

async function openAt(t: Test, url: string): Promise<Store> {
  const store = await openStore({ databaseUrl: url, dataDir: '/nonexistent' })
  t.teardown(() => store.close())
  return store
}

/** Every table, index, column and comment of the schema, as text. */
async function shape(store: Store): Promise<string> {
  const { rows } = await sql<{ shape: string }>`
    select string_agg(format('%s %s %s %s %s', c.relkind, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull),
                      e'\n' order by c.relname, a.attnum) as shape
      from pg_class c join pg_attribute a on a.attrelid = c.oid
     where c.relnamespace = 'syncline'::regnamespace and a.attnum > 0`.execute(store.db)
  return rows[0]?.shape ?? ''
}

for (const ground of all) {
  t.test(`migrations, on ${ground.name}`, async (t) => {
    t.test('run once, in order, and a second start finds nothing to do', async (t) => {
      const store = await ground.fresh()
      await sql`drop schema syncline cascade`.execute(store.db)
      t.same(await migrate(store), NAMES)
      t.same(await migrate(store), [])
      const { rows } = await sql<{ name: string }>`select name from syncline.migration order by name`.execute(store.db)
      t.same(
        rows.map((row) => row.name),
        NAMES,
      )
    })

    t.test('only what is new runs on a database of an older program', async (t) => {
      const store = await ground.fresh()
      const whole = await shape(store)
      await sql`drop schema syncline cascade`.execute(store.db)
      const older = Object.fromEntries(NAMES.slice(0, -1).map((name) => [name, MIGRATIONS[name] as Migration]))
      await migrate(store, older)
      t.same(await migrate(store), NAMES.slice(-1))
      t.equal(await shape(store), whole)
    })

    t.test('a database that a newer program migrated is refused by the name of what is unknown', async (t) => {
      const store = await ground.fresh()
      await sql`insert into syncline.migration values ('29990101T0000-thoughts', now()::text)`.execute(store.db)
      await t.rejects(migrate(store), { code: 'SYNC_CONFIG_DATABASE_NEWER', message: /29990101T0000-thoughts/ })
    })

    t.test('a migration that fails leaves nothing behind, and its own error comes out', async (t) => {
      const store = await ground.fresh()
      await sql`drop schema syncline cascade`.execute(store.db)
      const up = (db: Kysely<unknown>) => sql`select broken from syncline.site`.execute(db).then(() => {})
      const broken = { ...MIGRATIONS, '29990101T0000-broken': { up } }
      await t.rejects(migrate(store, broken), { code: '42703', message: /broken/ })
      const { rows } = await sql<{ site: string | null }>`select to_regclass('syncline.site') as site`.execute(store.db)
      t.same(rows, [{ site: null }])
      t.same(await migrate(store), NAMES)
    })
  })
}

t.test('eight processes that start at once on an empty database: one migrates, all go on', async (t) => {
  for (let round = 0; round < 3; round++) {
    const database = await cluster.createDatabase()
    const stores = await Promise.all(Array.from({ length: 8 }, () => openAt(t, database.url)))
    const starts = await Promise.all(
      stores.map(async (store) => {
        const ran = await migrate(store)
        const self = await ensureSelf(store.db, { name: 'field', key: DATA_KEY })
        return { ran, uuid: self.uuid }
      }),
    )
    const working = starts.filter((start) => start.ran.length > 0)
    t.same(
      working.map((start) => start.ran),
      [NAMES],
    )
    t.equal(new Set(starts.map((start) => start.uuid)).size, 1)
  }
})

t.test('an older program that starts beside a newer one either finishes first or is refused', async (t) => {
  const older = Object.fromEntries(NAMES.slice(0, 1).map((name) => [name, MIGRATIONS[name] as Migration]))
  const outcomes = new Set<string>()
  for (let round = 0; round < 6; round++) {
    const database = await cluster.createDatabase()
    const [newStore, oldStore] = [await openAt(t, database.url), await openAt(t, database.url)]
    const start = [() => migrate(newStore), () => migrate(oldStore, older)]
    if (round % 2 === 1) start.reverse()
    const results = await Promise.allSettled(start.map((each) => each()))
    const [fresh, old] = round % 2 === 1 ? results.reverse() : results
    t.equal(fresh?.status, 'fulfilled')
    outcomes.add(old?.status === 'rejected' ? String(old.reason.code) : 'finished first')
    t.same(await migrate(newStore), [])
  }
  // Which of the two it is depends on the moment; anything else is a fault.
  const others = [...outcomes].filter((code) => code !== 'SYNC_CONFIG_DATABASE_NEWER' && code !== 'finished first')
  t.same(others, [])
})

t.test('roles without superuser', async (t) => {
  t.test('one that owns nothing but may create a schema is enough', async (t) => {
    const role = await cluster.createRole()
    const database = await cluster.createDatabase()
    await cluster.query(database.name, `grant create on database ${database.name} to ${role}`)
    const store = await openAt(t, cluster.url(database.name, role))
    t.same(await migrate(store), NAMES)
    t.equal((await ensureSelf(store.db, { name: 'field', key: DATA_KEY })).log, 'created')
    t.same(await migrate(store), [])
  })

  t.test('one that may create nothing is enough when the schema was made for it', async (t) => {
    const role = await cluster.createRole()
    const database = await cluster.createDatabase()
    await cluster.query(database.name, `create schema syncline authorization ${role}`)
    const store = await openAt(t, cluster.url(database.name, role))
    t.same(await migrate(store), NAMES)
    t.equal((await ensureSelf(store.db, { name: 'field', key: DATA_KEY })).log, 'created')
  })

  const follow = async (t: Test, database: string, role: string, take: (detail: string) => string | undefined) => {
    const store = await openAt(t, cluster.url(database, role))
    const refused = await migrate(store).then(
      () => undefined,
      (error: Error & { code?: string }) => error,
    )
    t.equal(refused?.code, 'SYNC_STORE_RIGHTS')
    t.match(refused?.message, new RegExp(`role ${role} in database ${database}`))
    const statement = take(refused?.message ?? '')
    t.type(statement, 'string')
    await cluster.query(database, statement ?? '')
    // A granted role is only looked up for new sessions.
    t.same(await migrate(await openAt(t, cluster.url(database, role))), NAMES)
  }

  t.test('one that lacks every right is told which statement helps, and it does', async (t) => {
    for (const pattern of [/(create schema [^;]+);/, /(grant create on database [^;]+);/]) {
      const role = await cluster.createRole()
      const database = await cluster.createDatabase()
      await follow(t, database.name, role, (detail) => pattern.exec(detail)?.[1])
    }
  })

  t.test('one that meets the schema of another role is told which statement helps, and it does', async (t) => {
    for (const pattern of [/(grant \w+ to [^;]+);/, /(alter schema [^;]+);/]) {
      const [role, owner] = [await cluster.createRole(), await cluster.createRole()]
      const database = await cluster.createDatabase()
      await cluster.query(database.name, `create schema syncline authorization ${owner}`)
      await follow(t, database.name, role, (detail) => pattern.exec(detail)?.[1])
    }
  })

  t.test('one that may not read what another role migrated is told to ask for that role', async (t) => {
    const [role, owner] = [await cluster.createRole(), await cluster.createRole()]
    const database = await cluster.createDatabase()
    await cluster.query(database.name, `create schema syncline authorization ${owner}`)
    await migrate(await openAt(t, cluster.url(database.name, owner)))
    const attempt = migrate(await openAt(t, cluster.url(database.name, role)))
    await t.rejects(attempt, { code: 'SYNC_STORE_RIGHTS', message: new RegExp(`grant ${owner} to ${role};`) })
  })
})

t.test('a database of another encoding is refused before anything is written', async (t) => {
  await cluster.query('postgres', `create database latin template template0 encoding 'LATIN1' locale 'C'`)
  const store = await openAt(t, cluster.url('latin'))
  await t.rejects(migrate(store), { code: 'SYNC_CONFIG_DATABASE_UNSUITABLE', message: /LATIN1/ })
  t.same(await cluster.query('latin', `select to_regnamespace('syncline') as schema`), [{ schema: null }])
})

t.test('a standby is refused', async (t) => {
  const own = await startPostgres(t, { settings: { hot_standby: 'on' } })
  const database = await own.createDatabase()
  await own.halt('fast')
  const signal = `${own.dataDir}/standby.signal`
  await writeFile(signal, '')
  const { uid, gid } = await stat(own.dataDir)
  await chown(signal, uid, gid)
  await own.resume()
  const store = await openAt(t, database.url)
  await t.rejects(migrate(store), { code: 'SYNC_CONFIG_DATABASE_UNSUITABLE', message: /standby/ })
})
