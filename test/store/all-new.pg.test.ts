import t from 'tap'
import { changesOfLines } from '../../src/sync/index.ts'
import { introduce, LIMITS, pullAll, type Site, serveAll, siteFactory, totalOf } from '../support/sites.ts'

const sites = await siteFactory(t)

const DDL = `
  create table region (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text unique);
  create table city (id uuid primary key, region_id int references region, name text, n int, note text, doc jsonb, plain json, born timestamptz, list int[]);
  create table statement (text text);
  create function note_statement() returns trigger language plpgsql as $$
    begin insert into statement values (current_query()); return null; end $$;
  create trigger noted after insert on city for each statement execute function note_statement()`

let serial = 0

async function pair(): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, DDL, ['region', 'city'])
  const b = await sites.make(`b${serial}`, DDL, ['region', 'city'])
  await introduce(a, b)
  return [a, b]
}

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

const FILL = `
  insert into city (id, region_id, name, n, note, doc, plain, born, list)
  select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (select max(id) from region), 'c' || n, n, case n % 3 when 0 then null else e'line\\n"' || n end,
         case n % 4 when 0 then null else jsonb_build_object('n', n) end, '{"b" : 1.0, "a":2}', timestamptz '2026-01-01' + n * interval '1 minute', array[n, null]
    from generate_series(1, 300) n`

/** Content of city without local keys. */
const content = (site: Site) =>
  site.sql(
    `select to_jsonb(c) - 'region_id' as c, c.plain::text as plain, r.uuid from city c left join region r on r.id = c.region_id order by c.id`,
  )

/** How the rows of city were written: in one statement from the lines, or from the stage. */
async function ways(site: Site): Promise<readonly string[]> {
  const rows = await site.sql(
    `select distinct case when text like '%line as materialized%' then 'at once' when text like '%syncline_stage%' then 'staged' else text end as way from statement order by 1`,
  )
  return rows.map((row) => String(row.way))
}

t.test('a batch of new records is written at once, with the same content and versions as from the stage', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into region (name) values ('north')`)
  await a.sql(FILL)
  // Another local number at b for the same region.
  await b.sql(`insert into region (name) values ('south')`)
  t.match(totalOf(await pullAll(b, a)), { applied: 301 })
  t.same(await ways(b), ['at once'])
  t.same(await content(b), await content(a))
  const versions = `select record_id, clock, deleted, seen from syncline.record r join syncline.resource s on s.id = r.resource_id and s.name = 'city' order by 1`
  t.same(await b.sql(versions), await a.sql(versions))
  t.same(await b.sql(`select count(*)::int as n from syncline.record where source is null`), [{ n: 1 }], 'no echo')
  t.match(totalOf(await pullAll(b, a)), { applied: 0 }, 'I2: nothing is left to do')
})

t.test('I8: whatever is not a new record takes the usual way, and the rest of its batch with it', async (t) => {
  const cases: readonly (readonly [string, string, string, Record<string, number>])[] = [
    ['a constraint', '', `alter table city add check (n <> 77)`, { applied: 299, quarantined: 1 }],
    [
      'a trigger that swallows a row',
      '',
      `create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
       create trigger swallow before insert on city for each row when (new.n = 77) execute function swallow()`,
      { applied: 299, quarantined: 1 },
    ],
    ['a record that is here already', '', `insert into city (id, n) values ('${id(77)}', 77)`, { applied: 299 }],
    ['a deletion', `update city set n = -1 where n = 77; delete from city where n = -1`, '', { applied: 300 }],
    [
      'a row without a version',
      '',
      `insert into city (id, n) values ('${id(77)}', 78); delete from syncline.record`,
      { applied: 299 },
    ],
    [
      'a value that is too large for its type',
      `alter table city alter n type int8; update city set n = 3000000000 where n = 77`,
      '',
      { applied: 299, quarantined: 1 },
    ],
    [
      'a clock far ahead',
      `update syncline.record set clock = clock + 3600000000 where record_id = '${id(77)}'`,
      '',
      { applied: 299, quarantined: 1 },
    ],
    [
      'a claim to have seen the far future',
      `insert into syncline.site (origin, uuid) values ('${id(9)}', '${id(9)}');
       update syncline.record set seen = jsonb_build_object((select max(id) from syncline.site)::text, clock + 3600000000) where record_id = '${id(77)}'`,
      '',
      { applied: 299, quarantined: 1 },
    ],
  ]
  for (const [what, there, here, counts] of cases) {
    const [a, b] = await pair()
    await a.sql(FILL)
    if (there !== '') await a.sql(there)
    if (here !== '') await b.sql(here)
    await b.sql('delete from statement')
    t.match(totalOf(await pullAll(b, a)), counts, what)
    t.same(await ways(b), ['staged'], what)
    const same = await b.sql(`select count(*)::int as n from city where n <> 77 and n between 1 and 300`)
    t.ok(Number(same[0]?.n) >= 298, what)
  }
})

t.test('I8: a missing parent named by a local key makes only its own children wait', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into region (name) values ('north')`)
  await a.sql(FILL)
  await a.sql(
    `insert into region (name) values ('taken'); update city set region_id = (select max(id) from region) where n = 150`,
  )
  await b.sql(`insert into region (name) values ('taken')`)
  const report = totalOf(await pullAll(b, a))
  t.match(report, { quarantined: 2 }, 'the region and the city that lies in it')
  t.same(await b.sql(`select count(*)::int as n from city where region_id is null`), [{ n: 0 }])
  t.same(await b.sql(`select count(*)::int as n from city`), [{ n: 299 }])
})

t.test('tables with large values are read with care, with the same content', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    [
      'a text beyond a page',
      `update city set note = (select string_agg(md5(g::text), '') from generate_series(1, 1000) g) where n = 5`,
    ],
    ['a text that is stored packed', `update city set note = repeat('x', 100000) where n % 50 = 0`],
    [
      'a document that is stored packed',
      `update city set doc = jsonb_build_object('a', repeat('x', 100000)) where n % 50 = 0`,
    ],
    [
      'a wide row',
      `update city set note = (select string_agg(md5(g::text), '') from generate_series(1, 100) g) where n = 300`,
    ],
    ['a long list', `update city set list = array(select 7 from generate_series(1, 5000)) where n = 1`],
  ]
  for (const [what, there] of cases) {
    const [a, b] = await pair()
    await a.sql(FILL)
    await a.sql(there)
    await a.sql('analyze city')
    const { batches } = await serveAll(a, b, 'city', { limits: { ...LIMITS, batchBytesMax: 200_000 } })
    for (const batch of batches) t.ok(batch.count === 1 || Buffer.byteLength(batch.text) < 4 * 200_000, what)
    t.equal(batches.flatMap((batch) => changesOfLines(batch)).length, 300, what)
    await pullAll(b, a)
    t.same(await content(b), await content(a), what)
  }
})

t.test('ids of every kind travel', async (t) => {
  const ddl = 'create table thing (id text primary key, n int)'
  serial++
  const a = await sites.make(`a${serial}`, ddl, ['thing'])
  const b = await sites.make(`b${serial}`, ddl, ['thing'])
  await introduce(a, b)
  await a.sql(`insert into thing select 'id' || n, n from generate_series(1, 200) n`)
  await a.sql(
    `insert into thing values (e'a"b\\\\c\\td\\ne', 1), ('Ünïcode ☃ 🎉', 2), (repeat('x', 513), 3), (repeat('y', 512), 4), ('', 5)`,
  )
  t.match(totalOf(await pullAll(b, a)), { applied: 203 })
  t.same(
    await b.sql('select * from thing order by id'),
    await a.sql(`select * from thing where length(id) between 1 and 512 order by id`),
  )
})
