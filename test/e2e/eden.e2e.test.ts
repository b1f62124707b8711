import pg from 'pg'
import t, { type Test } from 'tap'
import { startEdenDouble } from '../support/eden-double.ts'
import { startPostgres } from '../support/postgres.ts'
import { startSiteProcess } from '../support/site-process.ts'

const ID = (n: number) => `urn:uuid:00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const TABLES = ['org_sector_organisation', 'org_office', 'org_organisation', 'org_sector', 'gis_location']

type Verified = {
  readonly resources: readonly {
    readonly resource: string
    readonly verdict: string
    readonly differing: readonly string[]
  }[]
}

const cluster = await startPostgres(t)

t.test('a site without tables of its own exchanges organisations with an Eden', async (t) => {
  const eden = await startEdenDouble(t)
  eden.put('gis_location', ID(1), { name: 'Harbour', lat: 1.5, lon: 2.5, inherited: false }, '2026-01-02T03:04:05')
  eden.put('org_sector', ID(2), { name: 'Shelter' }, '2026-01-02T03:04:05')
  eden.put(
    'org_organisation',
    ID(3),
    { name: 'Relief', year: 1999, founded: '1999-12-31', logo: 'logo.png' },
    '2026-01-02T03:04:05',
  )
  eden.put(
    'org_office',
    ID(4),
    { name: 'HQ', opened_at: '2001-02-03T04:05:06', organisation_id: ID(3), location_id: ID(1) },
    '2026-01-02T03:04:05',
  )
  eden.put('org_sector_organisation', ID(5), { organisation_id: ID(3), sector_id: ID(2) }, '2026-01-02T03:04:05')
  const site = await startSiteProcess(t, { name: 'field', databaseUrl: (await cluster.createDatabase()).url })
  const { uuid: own } = await site.api<{ uuid: string }>('GET', '/site')
  const account = { username: eden.username, password: eden.password }

  await t.rejects(
    site.api('POST', '/peers/eden', { name: 'relief', url: eden.url, ...account, password: 'wrong' }),
    /SYNC_AUTH_MISSING/,
  )
  await t.rejects(
    site.api('POST', '/peers/eden', { name: 'relief', url: eden.url, ...account, uuid: own.replace(/^./, '0') }),
    /SYNC_PEER_MISMATCH/,
  )
  t.same((await site.api<{ items: unknown[] }>('GET', '/peers')).items, [], 'nothing is left behind')
  const peer = await site.api<{ kind: string; uuid: string }>('POST', '/peers/eden', {
    name: 'relief',
    url: eden.url,
    ...account,
  })
  t.match(peer, { kind: 'eden', uuid: eden.uuid.replace('urn:uuid:', ''), hasToken: true })
  t.same([...eden.registered], [`urn:uuid:${own}`])

  const { made } = await site.api<{
    made: { resource: { name: string; columns: { name: string; refersTo: string | null }[] }; without: string[] }[]
  }>('POST', '/resources/eden', { peer: 'relief', tables: TABLES })
  t.same(made.map(({ resource }) => resource.name).sort(), [...TABLES].sort())
  const offices = made.find(({ resource }) => resource.name === 'org_office')
  t.match(
    offices?.resource.columns.find(({ name }) => name === 'location_id'),
    { refersTo: 'gis_location' },
  )
  t.same(made.find(({ resource }) => resource.name === 'org_organisation')?.without, ['logo (upload)'])
  for (const resource of TABLES) await site.api('POST', '/tasks', { peer: 'relief', resource, mode: 'both' })

  t.match(await site.sync('relief'), { result: 'success' })
  t.match(await site.api('GET', `/records/org_office/${encodeURIComponent(ID(4))}`), {
    data: { name: 'HQ', opened_at: /^2001-02-03T04:05:06/ },
  })
  await site.api('PUT', `/records/org_organisation/${encodeURIComponent(ID(13))}`, {
    data: { name: 'Ours', year: 2003 },
  })
  await site.api('PUT', `/records/org_office/${encodeURIComponent(ID(14))}`, {
    data: { name: 'Our HQ' },
    refs: { organisation_id: { resource: 'org_organisation', id: ID(13) } },
  })
  t.match(await site.sync('relief'), { result: 'success', counts: { pushApplied: 2 } })
  t.match(eden.rows('org_office').get(ID(14))?.values, { name: 'Our HQ', organisation_id: ID(13) })

  const verified = await site.api<Verified>('POST', '/peers/relief/verify', {})
  t.same(
    verified.resources.map(({ verdict }) => verdict),
    TABLES.map(() => 'equal'),
  )
  eden.put('org_organisation', ID(30), { name: 'Came with an old time' }, '2020-01-01T00:00:00')
  const passed = await site.api<Verified>('POST', '/peers/relief/verify', { resources: ['org_organisation'] })
  t.match(
    passed.resources,
    [{ verdict: 'different', differing: [ID(30)] }],
    'I9: what the cursor of Eden passes over is named',
  )
  t.match(await site.sync('relief'), { result: 'success' })
  t.match(await site.api('GET', `/records/org_organisation/${encodeURIComponent(ID(30))}`), {
    data: { name: 'Came with an old time' },
  })

  const { items } = await site.api<{ items: { mode: string; direction: string; action: string; message: string }[] }>(
    'GET',
    '/log?peer=relief&limit=100',
  )
  t.ok(items.some(({ mode, action }) => mode === 'pull' && action === 'import'))
  t.ok(items.some(({ mode, action, message }) => mode === 'push' && action === 'send' && /applied/.test(message)))
  const explained = await site.api(
    'GET',
    `/explain?resource=org_organisation&id=${encodeURIComponent(ID(3))}&peer=relief`,
  )
  t.match(explained, { resource: 'org_organisation' })
  t.equal(
    eden.requests.filter(({ path }) => path.endsWith('register.json')).length,
    3,
    'registered once, beside the two that were refused',
  )
})

const DDL = `
  create table gis_location (id text primary key, name text, lat float8, lon float8, inherited bool, parent text references gis_location);
  create table org_sector (id text primary key, name text not null, abrv text);
  create table org_organisation (id text primary key, name text not null, acronym text, year int, comments text, founded date, root_organisation text references org_organisation);
  create table org_office (id text primary key, name text not null, obsolete bool, opened_at timestamptz, organisation_id text references org_organisation, location_id text references gis_location);
  create table org_sector_organisation (id text primary key, organisation_id text not null references org_organisation, sector_id text not null references org_sector);`

/** A site process with the tables of Eden, attached. */
async function startEdenSite(t: Test, name: string) {
  const { url } = await cluster.createDatabase()
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  t.teardown(() => pool.end())
  await pool.query(DDL)
  const site = await startSiteProcess(t, { name, databaseUrl: url })
  await site.api('POST', '/resources', { tables: TABLES.map((table) => ({ table })) }, { prefer: 'wait' })
  return { site, pool }
}

t.test('I3: two sites that speak through the endpoints of Eden alone end equal', async (t) => {
  const make = async (name: string) => {
    const { site, pool } = await startEdenSite(t, name)
    const rows = async () =>
      Promise.all(TABLES.map(async (table) => (await pool.query(`select * from ${table} order by id`)).rows))
    return { site, pool, rows }
  }
  const [hub, field] = [await make('hub'), await make('field')]
  await hub.site.api('POST', '/peers/eden', { name: 'field' })
  for (const resource of TABLES)
    for (const direction of ['pull', 'push'])
      await hub.site.api('PUT', `/peers/field/grants/${direction}/${resource}`, {}, { 'if-match': '*' })
  const { token } = await hub.site.api<{ token: string }>('POST', '/peers/field/rotate', {})
  const address = { url: `${hub.site.url}/eden`, username: 'field', password: token }
  await field.site.api('POST', '/peers/eden', { name: 'hub', ...address })
  for (const resource of TABLES) await field.site.api('POST', '/tasks', { peer: 'hub', resource, mode: 'both' })

  const fill = ({ pool }: typeof hub, from: number, name: string) =>
    pool.query(`
      insert into gis_location select id(n), '${name} place ' || n, n / 7.0, -n / 3.0, n % 2 = 0, null from generate_series(${from}, ${from + 40}) n;
      update gis_location set parent = id(${from}) where id <> id(${from}) and name like '${name}%';
      insert into org_sector select id(n + 1000), '${name} <sector> & "' || n, null from generate_series(${from}, ${from + 5}) n;
      insert into org_organisation select id(n + 2000), '${name} ' || n, 'A' || n, 1900 + n % 100, E'one\n&lt;two&gt;', date '2000-01-01' + n, null from generate_series(${from}, ${from + 300}) n;
      insert into org_office select id(n + 3000), 'Office ' || n, n % 3 = 0, timestamptz '2020-01-01T00:00:00Z' + n * interval '1 hour', id(n + 2000), id(${from} + n % 40) from generate_series(${from}, ${from + 300}) n;
      insert into org_sector_organisation select id(n + 4000), id(n + 2000), id(${from} + 1000 + n % 5) from generate_series(${from}, ${from + 300}) n;`)
  for (const { pool } of [hub, field])
    await pool.query(
      `create function id(n bigint) returns text language sql immutable as $$ select 'urn:uuid:00000000-0000-4000-8000-' || lpad(n::text, 12, '0') $$`,
    )
  await fill(hub, 10_000, 'Hub')
  await fill(field, 50_000, 'Field')
  t.match(await field.site.sync('hub'), { result: 'success', code: null })
  t.same(await field.rows(), await hub.rows())
  t.equal((await hub.rows())[2]?.length, 602, 'with all organisations')

  await hub.pool.query(
    `update org_organisation set name = 'Hub changed ' || id, acronym = null where id > id(52100); delete from org_sector_organisation where id > id(54200)`,
  )
  await field.pool.query(
    `update org_organisation set name = 'Field changed ' || id where id < id(12100); delete from org_office where id < id(13050)`,
  )
  await field.site.sync('hub')
  t.match(await field.site.sync('hub'), { result: 'success', code: null })
  t.same(await field.rows(), await hub.rows(), 'after edits and deletions on both sides')

  await hub.pool.query(`update org_organisation set name = 'By the hub' where id = id(12150)`)
  await field.pool.query(`select pg_sleep(1.1)`)
  await field.pool.query(`update org_organisation set name = 'By the field' where id = id(12150)`)
  await field.site.sync('hub')
  await field.site.sync('hub')
  t.same(await field.rows(), await hub.rows(), 'I7: and where both edited one record')
  const idle = await field.site.sync('hub')
  t.match(idle, { result: 'success', counts: { pulled: 0, pushed: 0 } })
  const verified = await field.site.api<Verified>('POST', '/peers/hub/verify', {})
  t.same(
    verified.resources.map(({ verdict, differing }) => [verdict, differing]),
    TABLES.map(() => ['equal', []]),
  )
})

t.test('a site follows the data set that another one publishes, from its archive and then by pulls', async (t) => {
  const make = async (name: string) => {
    const { site, pool } = await startEdenSite(t, name)
    return { site, pool, rows: async () => (await pool.query('select * from org_organisation order by id')).rows }
  }
  const [hub, field] = [await make('hub'), await make('field')]
  await hub.pool.query(
    `insert into org_organisation (id, name, year) select 'urn:uuid:' || n, 'Organisation ' || n, 2000 from generate_series(1, 3000) n`,
  )
  const tables = [{ resource: 'org_organisation' }, { resource: 'org_office' }]
  await hub.site.api('POST', '/datasets', { code: 'RELIEF', name: 'Relief', tables })
  await hub.site.api('POST', '/datasets/RELIEF/archive', {})
  await hub.pool.query(`update org_organisation set year = 2026 where id = 'urn:uuid:7'`)

  await hub.site.api('POST', '/peers/eden', { name: 'field' })
  for (const { resource } of tables)
    await hub.site.api('PUT', `/peers/field/grants/pull/${resource}`, {}, { 'if-match': '*' })
  const { token } = await hub.site.api<{ token: string }>('POST', '/peers/field/rotate', {})
  await field.site.api('POST', '/peers/eden', {
    ...{ name: 'hub', url: `${hub.site.url}/eden`, username: 'field', password: token },
  })
  t.match(await field.site.api('POST', '/peers/hub/datasets', { code: 'RELIEF', schedule: 'every:3600' }), {
    made: tables.map(({ resource }) => resource),
  })
  t.match(await field.site.sync('hub'), { result: 'success', code: null })
  t.same(await field.rows(), await hub.rows())
  const { items } = await field.site.api<{ items: { action: string; message: string }[] }>(
    'GET',
    '/log?peer=hub&limit=100',
  )
  t.ok(
    items.some(({ action, message }) => action === 'fetch archive' && /\(3000 records\), from archive/.test(message)),
  )
})
