import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import t from 'tap'
import {
  applyPull,
  attach,
  createPeer,
  type ExchangeLimits,
  ensureSelf,
  horizon,
  migrate,
  openQueue,
  openStore,
  type Peer,
  type Self,
  type Store,
  serveChanges,
  setGrant,
} from '../../src/store/index.ts'
import { startPostgres } from '../support/postgres.ts'

t.setTimeout(600_000)

const GUIDE = join(import.meta.dirname, '../../docs/guides/database-grants.md')
const KEY = Buffer.alloc(32, 7)
const LIMITS: ExchangeLimits = {
  batchRowsMax: 1_000,
  batchBytesMax: 1_000_000,
  recordBytesMax: 1_000_000,
  clockAheadMaxMs: 300_000,
}

/** What a careful administrator takes away first, and the tables of an application with a role of its own. */
const DATABASE = `
  revoke all on database clinic from public;
  revoke all on schema public from public;
  grant connect on database clinic to app;
  grant usage, create on schema public to app;`
const TABLES = `
  set role app;
  create table public.district (id serial primary key, uuid uuid not null default gen_random_uuid() unique, name text not null);
  create table public.hospital (id serial primary key, uuid uuid not null default gen_random_uuid() unique, name text not null,
    beds int, district_id int not null references public.district, parent_id int references public.hospital);
  insert into public.district (name, uuid) values
    ('North', '00000000-0000-4000-8000-000000000001'), ('South', '00000000-0000-4000-8000-000000000002');
  insert into public.hospital (name, beds, district_id, parent_id, uuid) values
    ('Old', 10, 1, null, '00000000-0000-4000-8000-000000000003'), ('Annex', 3, 2, 1, '00000000-0000-4000-8000-000000000004');
  reset role;`

const guide = readFileSync(GUIDE, 'utf8')
const [once = [], tables = [], statistics = [], uuid = [], always = []] = [
  ...guide.matchAll(/```sql\n([^`]*)```/g),
].map(([, text = '']) =>
  text
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== ''),
)

const cluster = await startPostgres(t)
await cluster.query('postgres', 'create role app login')

type Site = { readonly store: Store; readonly self: Self; readonly asApp: (text: string) => Promise<unknown> }

/** Two sites in turn on one cluster: databases are copied from `clinic`, because the guide names it. */
async function withSite<T>(statements: readonly string[], work: (site: Site) => Promise<T>): Promise<T> {
  await cluster.query('postgres', 'drop database if exists clinic with (force)')
  await cluster.query('postgres', 'drop role if exists syncline')
  await cluster.query('postgres', 'create database clinic')
  await cluster.query('clinic', DATABASE)
  await cluster.query('clinic', TABLES)
  const [role = '', ...grants] = statements
  await cluster.query('clinic', role)
  for (const grant of grants) await cluster.query('clinic', grant)
  const store = await openStore({ databaseUrl: cluster.url('clinic', 'syncline'), dataDir: '/nonexistent' })
  const app = await openStore({ databaseUrl: cluster.url('clinic', 'app'), dataDir: '/nonexistent' })
  try {
    await migrate(store)
    const self = await ensureSelf(store.db, { name: 'clinic', key: KEY })
    return await work({ store, self, asApp: (text) => sql.raw(text).execute(app.db) })
  } finally {
    await store.close()
    await app.close()
  }
}

/** Everything that a site does with its database, its counterpart played by changes that were kept: attach, capture, collect, apply, queue. */
async function exchange({ store, self, asApp }: Site): Promise<readonly string[]> {
  await attach(store, [{ table: 'public.district' }, { table: 'public.hospital' }])
  await asApp(`update public.hospital set beds = 11 where name = 'Old'`)
  await asApp(`insert into public.district (name) values ('East')`)
  const queue = await openQueue<{ at: string }>(store, () => {})
  await queue.stop(1_000)
  const peer = await createPeer(store.db, KEY, { name: 'field', uuid: '11111111-2222-4333-8444-555555555555' })
  await send(store, self, peer)
  return rowsOf(store)
}

const NEW = '99999999-2222-4333-8444-555555555555'

/** What the peer pulls comes back as the peer's own later write, with a new record, a copy of the first, which is deleted again. */
async function send(store: Store, self: Self, peer: Peer): Promise<void> {
  const task = { onConflict: 'newer', master: null, onLeft: 'keep' as const }
  for (const resource of ['district', 'hospital']) {
    await setGrant(store.db, { peerId: peer.id, resource, direction: 'pull' })
    const batch = await serveChanges(store, { self, peer }, { resource }, LIMITS)
    const clock = Date.now() * 1000
    const later = batch.text.split('\n').map((line) => {
      const [id, seen, origin, , , payload = ''] = line.split('\t')
      return `${id}\t${clock}\t0\t{"${Number(origin) + 1}":${seen}}\tp\t${payload.replace('"Annex"', '"Ward"')}`
    })
    const added = `"${NEW}"\t${clock}\t0\t\tp\t${later[0]?.split('\t').at(-1)}`
    const deleted = `"${NEW}"\t${clock + 1}\t0\t\td\t`
    for (const lines of [[...later, added], [deleted]]) {
      const origins = [peer.uuid, ...batch.origins]
      const answer = { ...batch, origins, text: lines.join('\n'), count: lines.length }
      await applyPull(store, { self, peer }, { task, batch: answer, runId: null }, LIMITS)
    }
  }
}

async function rowsOf({ db }: Store): Promise<readonly string[]> {
  const { rows } = await sql<{ row: string }>`
    select 'district ' || name as row from public.district
    union all select 'hospital ' || name || ' ' || beds || ' ' || coalesce(parent_id::text, '-') from public.hospital
    order by row`.execute(db)
  return rows.map(({ row }) => row)
}

t.test('the grants of the guide are enough to attach and to sync', async (t) => {
  t.same(await withSite([...once, ...tables], exchange), [
    'district East',
    'district North',
    'district South',
    'hospital Old 11 -',
    'hospital Ward 3 1',
  ])
})

t.test('each grant of the guide is needed', async (t) => {
  const all = [...once, ...tables]
  t.equal(all.length, 6)
  for (const left of all.slice(1)) {
    const message = await withSite(
      all.filter((statement) => statement !== left),
      exchange,
    ).then(
      () => '',
      (error: Error) => error.message,
    )
    t.match(message, /permission denied|cannot create|no schema|may not see|create schema|TRIGGER/i, `without: ${left}`)
  }
  for (const right of ['temporary', 'select', 'insert', 'update', 'delete', 'trigger']) {
    const fewer = all.map((statement) => statement.replace(new RegExp(`, ${right}\\b|\\b${right}, `), ''))
    t.notSame(fewer, all)
    await t.rejects(withSite(fewer, exchange), { message: /permission denied|may not see/ }, `without: ${right}`)
  }
})

t.test('only with the right to the statistics the age of the horizon is known', async (t) => {
  const holder = async ({ store, asApp }: Site) => {
    await attach(store, [{ table: 'public.district' }])
    let open = true
    const held = asApp(
      `do $$ begin insert into public.district (name) values ('West'); perform pg_sleep(2.5); end $$`,
    ).finally(() => {
      open = false
    })
    let ageSeconds = 0
    while (open && ageSeconds === 0) ageSeconds = (await horizon(store.db)).ageSeconds
    await held
    return ageSeconds
  }
  t.ok((await withSite([...once, ...tables, ...statistics], holder)) > 0)
  t.equal(await withSite([...once, ...tables], holder), 0)
})

t.test('what only the owner may do works by hand', async (t) => {
  await withSite([...once, ...tables], async ({ store, asApp }) => {
    await asApp('alter table public.hospital drop column uuid')
    const tables = [{ table: 'public.district' }, { table: 'public.hospital', addUuid: true }]
    await t.rejects(attach(store, tables), { message: /must be owner/ })
    for (const statement of uuid) await asApp(statement)
    await attach(store, [{ table: 'public.district' }, { table: 'public.hospital' }])
    for (const statement of always) await asApp(statement)
    const { rows } = await sql<{ state: string }>`
      select distinct tgenabled::text as state from pg_trigger
       where tgrelid = 'public.hospital'::regclass and tgname like 'zz_syncline_%'`.execute(store.db)
    t.same(rows, [{ state: 'A' }])
  })
})
