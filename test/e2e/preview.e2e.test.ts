import pg from 'pg'
import t from 'tap'
import type { Preview } from '../../src/cli/preview-text.ts'
import type { Conflict } from '../../src/store/index.ts'
import { syncline } from '../cli/terminal.ts'
import { startPostgres } from '../support/postgres.ts'
import { startSiteProcess } from '../support/site-process.ts'

t.setTimeout(600_000)
const cluster = await startPostgres(t, { settings: { max_connections: 200 } })
const TABLES = `
  create table country (id text primary key, name text not null);
  create table city (id text primary key, country text references country, name text not null check (name <> 'bad'), size int);`

async function makeSite(name: string) {
  const { name: database, url } = await cluster.createDatabase()
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  await pool.query(TABLES)
  const site = await startSiteProcess(t, { name, databaseUrl: url })
  await site.api('POST', '/resources', { tables: [{ table: 'country' }, { table: 'city' }] }, { prefer: 'wait' })
  return { site, database, query: async (text: string) => (await pool.query(text)).rows as Record<string, unknown>[] }
}

const hub = await makeSite('hub')
const field = await makeSite('field')
const both = ['country', 'city']
const { code } = await hub.site.api<{ code: string }>('POST', '/invitations', { name: 'field', pull: both, push: both })
await field.site.api('POST', '/peers/join', { code, name: 'hub' })
for (const resource of both) await field.site.api('POST', '/tasks', { peer: 'hub', resource, mode: 'both' })

/** Everything that a site keeps: its own schema and the tables of the application, without numbers of sequences and when who was seen. */
async function dumpOf({ database }: { readonly database: string }): Promise<string> {
  const out = [
    '--exclude-table-data=syncline.token',
    '--exclude-table-data=syncline.peer',
    // When the queue last looked after itself.
    '--exclude-table-data=syncline.version',
    '--exclude-table-data=syncline.alarm*',
  ]
  const text = (
    await cluster.run('pg_dump', ['--inserts', '-n', 'syncline', '-n', 'public', ...out, database])
  ).toString()
  return text.replace(/^(?:SELECT pg_catalog\.setval|\\(?:un)?restrict).*$/gm, '')
}

const preview = async (body: object = { peer: 'hub' }) =>
  (await field.site.api<{ items: Preview[] }>('POST', '/sync/preview', body)).items[0]
const partOf = (found: Preview | undefined, resource: string, direction: string) =>
  found?.tasks.find((task) => task.resource === resource)?.parts.find((part) => part.direction === direction)

await hub.query(`insert into country values ('AT', 'Austria'), ('SI', 'Slovenia')`)
await hub.query(
  `insert into city select 'c' || lpad(n::text, 3, '0'), case n % 2 when 0 then 'AT' else 'SI' end, 'city ' || n, n from generate_series(1, 200) n`,
)
await field.site.sync('hub')

t.test(
  'a preview tells what a run would do here and there, record by record, and writes nothing on either side',
  async (t) => {
    await hub.query(`insert into country values ('HU', 'Hungary')`)
    await hub.query(`insert into city values ('new', 'HU', 'Pécs', 7)`)
    await hub.query(
      `update city set name = 'Graz', size = 9 where id = 'c002'; update city set size = 1000 where id = 'c004'; delete from city where id in ('c006', 'c008')`,
    )
    await field.query(`update city set name = 'edited here' where id = 'c004'`)
    await field.query(`insert into city values ('ours', 'AT', 'Linz', 3); delete from city where id = 'c010'`)
    await field.query(`alter table city add constraint no_seven check (size is distinct from 7) not valid`)
    await hub.query(`alter table city add constraint no_three check (size is distinct from 3 or id < 'd') not valid`)
    const before = await Promise.all([dumpOf(field), dumpOf(hub)])
    const found = await preview()
    const after = await Promise.all([dumpOf(field), dumpOf(hub)])
    t.equal(after[0], before[0], 'this site is as it was')
    t.equal(after[1], before[1], 'so is the peer')

    const countries = partOf(found, 'country', 'pull')
    t.match(countries, { changes: 1, complete: true, writes: { inserts: 1, updates: 0, deletes: 0 }, failure: null })
    t.match(countries?.samples, [
      { id: 'HU', kind: 'insert', fields: [{ field: 'name', before: null, after: 'Hungary' }] },
    ])

    const cities = partOf(found, 'city', 'pull')
    t.match(cities, {
      changes: 5,
      counts: { applied: 3, merged: 1, quarantined: 1 },
      writes: { inserts: 0, updates: 1, deletes: 2 },
      rejections: [
        { id: 'new', outcome: 'quarantined', reason: /no_seven/ },
        { id: 'c004', outcome: 'merged' },
      ],
      braked: [],
    })
    t.ok((cities?.bytes ?? 0) > 0)
    t.type(cities?.estimateMs, 'number')
    const sampled = new Map(cities?.samples.map((record) => [record.id, record]))
    t.match(sampled.get('c002'), {
      kind: 'update',
      fields: [
        { field: 'name', before: 'city 2', after: 'Graz' },
        { field: 'size', before: 2, after: 9 },
      ],
    })
    t.equal(sampled.get('c002')?.fields.length, 2, 'only what differs')
    t.match(sampled.get('c006'), {
      kind: 'delete',
      fields: [{ field: 'country' }, { field: 'name', after: null }, { field: 'size' }],
    })
    t.match(sampled.get('c004'), { decision: 'ours', kind: 'keep' }, 'the later edit, here, would stay')
    t.match(
      sampled.get('c004')?.fields.find(({ field }) => field === 'size'),
      { before: 4, after: 4, theirs: 1000 },
    )

    const pushed = partOf(found, 'city', 'push')
    t.match(pushed, {
      changes: 3,
      counts: { applied: 1, quarantined: 1 },
      writes: { inserts: 0, deletes: 1 },
      rejections: [{ outcome: /merged|quarantined/ }, {}],
    })
    t.ok(pushed?.rejections.some(({ id, reason }) => id === 'ours' && /no_three/.test(reason)))

    const run = await field.site.sync('hub')
    t.match(
      run.counts,
      { applied: 4, merged: 1, quarantined: 1, pushQuarantined: 1 },
      'and that is what the run then does',
    )
  },
)

t.test('what would wait for a person is told as such, and is not opened', async (t) => {
  const tasks = await field.site.api<{ items: { id: number; resource: string }[] }>('GET', '/tasks')
  const id = tasks.items.find(({ resource }) => resource === 'city')?.id
  await field.site.api('PATCH', `/tasks/${id}`, { onConflict: 'ask' }, { 'if-match': '*' })
  await hub.query(`update city set name = 'theirs' where id = 'c020'`)
  await field.query(`update city set name = 'ours' where id = 'c020'`)
  const cities = partOf(await preview({ peer: 'hub', resources: ['city'] }), 'city', 'pull')
  t.match(cities?.counts, { conflict: 1 })
  t.match(
    cities?.samples.find((record) => record.id === 'c020'),
    {
      decision: 'open',
      kind: 'keep',
      fields: [{ field: 'name', before: 'ours', after: 'ours', theirs: 'theirs' }],
    },
  )
  t.same((await field.site.api<{ items: Conflict[] }>('GET', '/conflicts?open=true')).items, [])
  await hub.query(`update city set name = 'theirs' where id = 'c022'`)
  await field.query(`update city set size = 77 where id = 'c022'`)
  const merged = await field.site.api<Preview>('POST', `/tasks/${id}/preview`, { onConflict: 'merge' })
  t.match(
    partOf(merged, 'city', 'pull')?.samples.find((record) => record.id === 'c022'),
    {
      decision: 'merged',
      kind: 'update',
      fields: [
        { field: 'name', before: 'city 22', after: 'theirs', theirs: 'theirs' },
        { field: 'size', before: 77, after: 77, theirs: 22 },
      ],
    },
    'a policy is tried before it is kept: what each side changed is kept',
  )
  await field.site.api('PATCH', `/tasks/${id}`, { onConflict: 'newer' }, { 'if-match': '*' })
  await field.site.sync('hub')
})

t.test('a brake that would stop the run is told with the preview', async (t) => {
  await hub.query(`delete from city where id like 'c1%'`)
  const cities = partOf(await preview({ peer: 'hub', resources: ['city'] }), 'city', 'pull')
  t.match(cities, { writes: { deletes: 101 - 1 }, braked: [] }, 'a hundred is allowed')
  await hub.query(`delete from city where id like 'c0%'`)
  t.match(partOf(await preview(), 'city', 'pull')?.braked, [/has no record|would delete/])
  t.equal((await field.site.api<{ items: unknown[] }>('GET', '/brakes')).items.length, 0, 'and not written down')
  await hub.query(
    `insert into city select 'd' || lpad(n::text, 3, '0'), 'AT', 'city ' || n, n + 100 from generate_series(1, 50) n`,
  )
})

t.test('what a change of filter or columns would add and remove is told before it is kept', async (t) => {
  const fresh = `insert into country select 'X' || n, 'country ' || n from generate_series(1, 30) n`
  await hub.query(fresh)
  await field.site.api(
    'PATCH',
    `/tasks/${await taskOf('country')}`,
    { filter: `name = 'Hungary'`, onLeft: 'remove' },
    { 'if-match': '*' },
  )
  await field.site.api('POST', '/sync/preview', { peer: 'hub', resources: ['country'] })
  await field.site.sync('hub')
  const before = await Promise.all([dumpOf(field), dumpOf(hub)])
  const wider = await field.site.api<Preview>('POST', `/tasks/${await taskOf('country')}/preview`, {
    filter: `name like 'country 1%'`,
  })
  t.match(partOf(wider, 'country', 'pull'), { writes: { inserts: 11, deletes: 1 } }, 'eleven come, Hungary goes')
  t.match(
    partOf(wider, 'country', 'pull')?.samples.find(({ kind }) => kind === 'delete'),
    { id: 'HU' },
  )
  const across = { filter: `country.name = 'Austria'` }
  await field.site.api('POST', `/tasks/${await taskOf('city')}/preview`, across)
  t.same(await Promise.all([dumpOf(field), dumpOf(hub)]), before)
  await t.rejects(
    field.site.api('POST', `/tasks/${await taskOf('country')}/preview`, { filter: 'nonsense' }),
    /SYNC_FILTER_INVALID/,
  )
})

t.test(
  'what a preview counts of other columns and another filter is what the run then does, on both sides',
  async (t) => {
    const ddl = 'create table shop (id text primary key, name text not null, stock int not null default 0, note text)'
    for (const { site, query } of [hub, field]) {
      await query(ddl)
      await site.api('POST', '/resources', { tables: [{ table: 'shop' }] }, { prefer: 'wait' })
    }
    for (const direction of ['pull', 'push'])
      await hub.site.api('PUT', `/peers/field/grants/${direction}/shop`, {}, { 'if-match': '*' })
    await hub.query(
      `insert into shop select 's' || lpad(n::text, 2, '0'), 'shop ' || n, n from generate_series(1, 40) n`,
    )
    await field.site.api('POST', '/tasks', { peer: 'hub', resource: 'shop', mode: 'both' })
    await field.site.sync('hub')
    const rows = async ({ query }: typeof hub) =>
      new Map((await query('select * from shop')).map((row) => [row.id, JSON.stringify(row)]))
    /** What changed of the rows of a side while something was done. */
    const effect = async (side: typeof hub, work: () => Promise<unknown>) => {
      const before = await rows(side)
      await work()
      const after = await rows(side)
      const changed = [...after].filter(([id, row]) => before.has(id) && before.get(id) !== row).length
      const inserts = [...after.keys()].filter((id) => !before.has(id)).length
      return { inserts, updates: changed, deletes: [...before.keys()].filter((id) => !after.has(id)).length }
    }
    const task = await taskOf('shop')
    const run = () => field.site.sync('hub')

    await hub.query(
      `update shop set note = 'only here' where id <= 's11'; update shop set name = 'renamed' where id in ('s01', 's20')`,
    )
    await field.query(`update shop set stock = 99 where id > 's30'; update shop set name = 'better' where id = 's40'`)
    const columns = await field.site.api<Preview>('POST', `/tasks/${task}/preview`, { columns: ['name'] })
    const [pull, push] = [partOf(columns, 'shop', 'pull')?.writes, partOf(columns, 'shop', 'push')?.writes]
    t.same(
      [pull, push],
      [
        { inserts: 0, updates: 2, deletes: 0 },
        { inserts: 0, updates: 1, deletes: 0 },
      ],
    )
    await field.query('alter table shop alter stock drop default')
    await field.site.api('POST', '/resources', { tables: [{ table: 'shop' }] }, { prefer: 'wait' })
    const refused = await field.site.api<Preview>('POST', `/tasks/${task}/preview`, { columns: ['name'] })
    t.match(partOf(refused, 'shop', 'pull'), {
      failure: { code: 'SYNC_RESOURCE_SKEW', detail: /stock must have a value/ },
    })
    await field.query('alter table shop alter stock set default 0')
    await field.site.api('POST', '/resources', { tables: [{ table: 'shop' }] }, { prefer: 'wait' })
    await field.site.api('PATCH', `/tasks/${task}`, { columns: ['name'] }, { 'if-match': '*' })
    let there = { inserts: 0, updates: 0, deletes: 0 }
    const here = await effect(field, async () => {
      there = await effect(hub, run)
    })
    t.same(here, pull)
    t.same(there, push)

    await field.site.api('PATCH', `/tasks/${task}`, { columns: null }, { 'if-match': '*' })
    await run()
    const narrower = await field.site.api<Preview>('POST', `/tasks/${task}/preview`, { filter: `id <= 's15'` })
    t.same(narrower.tasks[0]?.leaving, { here: 25, there: 25 })
    const cli = await syncline([
      'task',
      'set',
      'hub',
      'shop',
      '--filter',
      `id <= 's15'`,
      '--preview',
      '--data-dir',
      field.site.dataDir,
    ])
    t.match(cli.stdout, /25 records here and 25 at hub would no longer be synced by this task; they stay as they are\./)
    await field.site.api('PATCH', `/tasks/${task}`, { filter: `id <= 's15'`, onLeft: 'remove' }, { 'if-match': '*' })
    t.same(await effect(field, run), { inserts: 0, updates: 0, deletes: 0 }, 'what never was sent under a filter stays')
    const further = await field.site.api<Preview>('POST', `/tasks/${task}/preview`, { filter: `id <= 's05'` })
    t.same(further.tasks[0]?.leaving, { here: 10, there: 10 })
    const removed = partOf(further, 'shop', 'pull')?.writes
    await field.site.api('PATCH', `/tasks/${task}`, { filter: `id <= 's05'` }, { 'if-match': '*' })
    t.same(await effect(field, run), removed, 'and what was is removed, as the preview said')
  },
)

t.test('a preview of much looks at the first batches and says so', async (t) => {
  await hub.query('create table big (id text primary key, text text)')
  await field.query('create table big (id text primary key, text text)')
  for (const { site } of [hub, field])
    await site.api('POST', '/resources', { tables: [{ table: 'big' }] }, { prefer: 'wait' })
  await hub.site.api('PUT', '/peers/field/grants/pull/big', {}, { 'if-match': '*' })
  await hub.query(`insert into big select n::text, repeat(md5(n::text), 40) from generate_series(1, 90000) n`)
  await field.site.api('POST', '/tasks', { peer: 'hub', resource: 'big', mode: 'pull' })
  const big = partOf(await preview({ peer: 'hub', resources: ['big'] }), 'big', 'pull')
  t.match(big, { complete: false, failure: null })
  t.ok((big?.changes ?? 0) > 100 && (big?.changes ?? 0) < 90_000, `${big?.changes} of 90,000`)
  t.equal(big?.writes.inserts, big?.changes)
  t.ok((big?.estimateMs ?? 0) > 0)
  t.same(await field.query('select count(*)::int as n from big'), [{ n: 0 }])
})

async function taskOf(resource: string): Promise<number> {
  const { items } = await field.site.api<{ items: { id: number; resource: string }[] }>('GET', '/tasks')
  return items.find((task) => task.resource === resource)?.id ?? 0
}
