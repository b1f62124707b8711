import fc from 'fast-check'
import t from 'tap'
import { applyRows, readCheckpoint, refreshAltered, serveRows } from '../../src/store/index.ts'
import { type BatchReport, decodeRows, type RowBatch, rowsBody } from '../../src/sync/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  peerOf,
  pullAll,
  type Site,
  siteFactory,
  TASK,
  totalOf,
  versionsOf,
} from '../support/sites.ts'
import { holdsAsync } from '../sync/holds.ts'

const sites = await siteFactory(t)

let serial = 0

async function pair(ddl: string, tables: readonly string[], other = ddl): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, ddl, tables)
  const b = await sites.make(`b${serial}`, other, tables)
  await introduce(a, b)
  return [a, b]
}

/** One batch of `there` as rows, from where `here` is. */
async function rowsOf(here: Site, there: Site, resource: string): Promise<RowBatch | null> {
  const { rows } = await here.store.pool.query('select id from syncline.resource where name = $1', [resource])
  const after = (await readCheckpoint(here.store.db, peerOf(here, there).id, rows[0].id, 'pull')) ?? undefined
  const served = await serveRows(there.store, linkOf(there, here), { resource, after }, LIMITS)
  return (
    served &&
    decodeRows(rowsBody(served), {
      recordsMax: LIMITS.batchRowsMax,
      recordBytesMax: LIMITS.recordBytesMax,
      depthMax: 8,
    })
  )
}

function write(here: Site, there: Site, batch: RowBatch): Promise<BatchReport | null> {
  const pull = { task: TASK, batch, runId: null, alongside: async () => {} }
  return applyRows(here.store, linkOf(here, there), pull, LIMITS)
}

async function bring(here: Site, there: Site, resource: string): Promise<BatchReport | null> {
  const batch = await rowsOf(here, there, resource)
  return batch === null ? null : write(here, there, batch)
}

const CITY = `
  create table region (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text unique);
  create table city (id uuid primary key, region_id int references region, name text, n int unique, near uuid references region (uuid))`
const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const FILL = `
  insert into region (name) values ('north');
  insert into city select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (select id from region), 'c' || n, n, (select uuid from region) from generate_series(1, 300) n`
const cities = (site: Site) =>
  site.sql(`select c.id, c.name, c.n, r.uuid, c.near from city c left join region r on r.id = c.region_id order by 1`)

t.test('rows that are all new are written with their versions, and taken for nothing the second time', async (t) => {
  const [a, b] = await pair(CITY, ['region', 'city'])
  await b.sql(`insert into region (name) values ('south')`)
  await a.sql(FILL)
  await a.sql(`delete from city where n = 7; update city set name = 'changed' where n = 8`)
  t.match(await bring(b, a, 'region'), { counts: { applied: 1 } })
  const batch = await rowsOf(b, a, 'city')
  t.match(batch, { count: 300, types: ['text', 'text', 'integer', 'text'], keyType: 'uuid' })
  t.match(await write(b, a, batch as RowBatch), { counts: { applied: 300, quarantined: 0 } })
  t.same(await cities(b), await cities(a))
  t.same(
    (await versionsOf(b)).filter((each) => !(each.startsWith('region') && each.includes(b.self.origin))),
    await versionsOf(a),
  )
  t.same(await b.sql('select count(*)::int as n from syncline.record where source is null'), [{ n: 1 }], 'no echo')
  const sums = (site: Site) =>
    site
      .sql(
        `select d.living::text, d.sum::text from syncline.resource r, syncline.whole_digest(r.id) w(living, sum) join lateral (select w.living, w.sum) d on true where r.name = 'city'`,
      )
      .catch(() => [])
  t.same(await sums(b), await sums(a))
  t.equal(await bring(b, a, 'city'), null, 'nothing is left')
  t.equal(await write(b, a, batch as RowBatch), null, 'I2: known records are not rows')
  t.match(totalOf(await pullAll(b, a)), { applied: 0, quarantined: 0 })
})

t.test(
  'I8, I11: rows that are not all new, or not for equal columns, leave nothing behind; lines then say what each becomes',
  async (t) => {
    const cases: readonly (readonly [what: string, there: string, here: string])[] = [
      ['a constraint', '', 'alter table city add check (n <> 77)'],
      ['a unique value that is taken', '', `insert into city (id, n) values ('${id(900)}', 77)`],
      ['a record that is here', '', `insert into city (id, n) values ('${id(77)}', 1077)`],
      [
        'a missing target by its own key',
        `insert into region (name) values ('far'); update city set near = (select uuid from region where name = 'far') where n = 77`,
        '',
      ],
      [
        'a missing target by a local number',
        `insert into region (name) values ('far'); update city set region_id = (select id from region where name = 'far') where n = 77`,
        '',
      ],
      ['a clock far ahead', `update syncline.record set clock = clock + 3600000000 where record_id = '${id(77)}'`, ''],
      [
        'a trigger that swallows a row',
        '',
        `create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
       create trigger swallow before insert on city for each row when (new.n = 77) execute function swallow()`,
      ],
      ['another type', '', 'alter table city alter n type int2'],
      [
        'another length',
        'alter table city alter name type varchar(20)',
        'alter table city alter name type varchar(10)',
      ],
      ['a column that is not here', 'alter table city add further text', ''],
      [
        'a reference that waits for a record of this resource',
        '',
        `insert into syncline.pending_ref (resource_id, record_id, column_name, target_resource_id, target_record_id)
         select id, '${id(901)}', 'near', id, '${id(77)}' from syncline.resource where name = 'city'`,
      ],
    ]
    for (const [what, there, here] of cases) {
      const [a, b] = await pair(CITY, ['region', 'city'])
      await a.sql(FILL)
      await bring(b, a, 'region')
      if (there !== '') await a.sql(there)
      if (here !== '') await b.sql(here)
      await refreshAltered(a.store)
      const before = await b.sql(
        'select count(*)::int as n, (select count(*)::int from syncline.record) as versions from city',
      )
      const batch = await rowsOf(b, a, 'city')
      t.equal(batch === null ? null : await write(b, a, batch), null, what)
      t.same(
        await b.sql('select count(*)::int as n, (select count(*)::int from syncline.record) as versions from city'),
        before,
        what,
      )
      t.same(
        await b.sql(
          `select from syncline.checkpoint c join syncline.resource r on r.id = c.resource_id where r.name = 'city' and c.direction = 'pull'`,
        ),
        [],
        `${what}: I5, no checkpoint moves`,
      )
    }
  },
)

t.test('rows are not served where lines say more', async (t) => {
  const ddl = `create domain percent as int check (value <= 100);
    create type colour as enum ('red', 'a\\b');
    create table thing (id text primary key, n int, c colour, note text)`
  const [a, b] = await pair(ddl, ['thing'])
  await a.sql(`insert into thing select 'i' || n, n, 'a\\b' from generate_series(1, 20) n`)
  t.match(await rowsOf(b, a, 'thing'), { types: ['integer', 'colour', 'text'] }, 'an enum is told by its labels')
  t.match(await bring(b, a, 'thing'), { counts: { applied: 20 } })
  const cases: readonly (readonly [string, string])[] = [
    ['a domain', 'alter table thing alter n type percent'],
    [
      'a column that nobody has looked at since it became a text',
      `alter table thing alter n type text; update thing set n = 'a\\b' where id = 'i1'`,
    ],
    [
      'an enum with the name of a type whose text needs no escape',
      `create type "date" as enum ('a\\b'); alter table thing alter n type public."date" using 'a\\b'`,
    ],
    ['a large value', `update thing set note = repeat('x', 3000) where id = 'i1'`],
    [
      'writes behind single fields',
      `update thing set n = 5 where id = 'i1'; update syncline.record set fields = jsonb_build_object('n', jsonb_build_object('dots', jsonb_build_object(origin::text, clock))) where record_id = 'i1'`,
    ],
    [
      'fields that are kept for others',
      `update thing set n = 6 where id = 'i1'; insert into syncline.parked_field select id, 'other' from syncline.resource`,
    ],
  ]
  for (const [what, change] of cases) {
    serial++
    const c = await sites.make(`c${serial}`, ddl, ['thing'])
    const d = await sites.make(`d${serial}`, ddl, ['thing'])
    await introduce(c, d)
    await c.sql(`insert into thing select 'i' || n, n from generate_series(1, 20) n`)
    t.not(await rowsOf(d, c, 'thing'), null, what)
    await c.sql(change)
    t.equal(await rowsOf(d, c, 'thing'), null, what)
  }
  t.equal(await serveRows(a.store, linkOf(a, b), { resource: 'thing', filter: 'n > 3' }, LIMITS), null, 'a filter')
})

t.test('I8: rows that no site writes are refused whole', async (t) => {
  const [a, b] = await pair(CITY, ['region', 'city'])
  await a.sql(FILL)
  await bring(b, a, 'region')
  const batch = (await rowsOf(b, a, 'city')) as RowBatch
  const text = Buffer.from(batch.rows).toString()
  const lines = text.split('\n')
  const replaced = (from: string | RegExp, to: string) => [(lines[5] as string).replace(from, to), ...lines.slice(6)]
  const altered: Record<string, readonly string[]> = {
    'a row too few': lines.slice(1),
    'the end of a copy in the middle': [...lines.slice(0, 100), '\\.', ...lines.slice(101)],
    'a value too many': [...lines.slice(0, 5), `${lines[5]}\t1`, ...lines.slice(6)],
    'a value too few': [...lines.slice(0, 5), (lines[5] as string).replace(/\t[^\t]*$/, ''), ...lines.slice(6)],
    'an origin that is not named': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t\d+\t)0/, '$17')],
    'an origin below the first': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t\d+\t)0/, '$1-1')],
    'no origin': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t\d+\t)0/, '$1\\N')],
    'no clock': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t)\d+/, '$1\\N')],
    'a clock of nought': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t)\d+/, '$10')],
    'a kind that is none': [...lines.slice(0, 5), ...replaced('\tp\t', '\tx\t')],
    'no kind': [...lines.slice(0, 5), ...replaced('\tp\t', '\t\\N\t')],
    'an id twice': [...lines.slice(0, 5), lines[6] as string, ...lines.slice(6)],
    'what was seen at an unknown place': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t\d+\t0\t)\\N/, '$1{"7": 5}')],
    'what was seen far ahead': [
      ...lines.slice(0, 5),
      ...replaced(/^([^\t]*\t\d+\t0\t)\\N/, '$1{"0": 9000000000000000}'),
    ],
    'what was seen is no object': [...lines.slice(0, 5), ...replaced(/^([^\t]*\t\d+\t0\t)\\N/, '$1[1]')],
    'bytes that are no text': [...lines.slice(0, 5), ...replaced('c6', '\\xff')],
  }
  for (const [what, rows] of Object.entries(altered)) {
    t.not(rows.join('\n'), text, what)
    t.equal(await write(b, a, { ...batch, rows: Buffer.from(rows.join('\n')) }), null, what)
    t.same(await b.sql('select count(*)::int as n from city'), [{ n: 0 }], what)
  }
  t.match(await write(b, a, batch), { counts: { applied: 300 } }, 'as it was sent it is taken')
})

t.test('what is in the way of rows is left to the lines, which wait for it', async (t) => {
  const [a, b] = await pair(CITY, ['region', 'city'])
  await a.sql(FILL)
  await bring(b, a, 'region')
  const batch = (await rowsOf(b, a, 'city')) as RowBatch
  const holder = await b.connect()
  await holder.query('begin; lock table city in access exclusive mode')
  t.equal(await write(b, a, batch), null)
  await holder.query('rollback')
  await holder.end()
  t.match(await write(b, a, batch), { counts: { applied: 300 } })
})

t.test('a batch of rows is bounded by its bytes, also of a table that was never counted', async (t) => {
  const wide = Array.from({ length: 400 }, (_, n) => `c${n} timestamptz not null default now()`).join(', ')
  const [a, b] = await pair(`create table wide (id int, uuid uuid primary key default gen_random_uuid(), ${wide})`, [
    'wide',
  ])
  await a.sql('insert into wide (id) select n from generate_series(1, 2000) n')
  const limits = { ...LIMITS, batchBytesMax: 500_000 }
  const served = await serveRows(a.store, linkOf(a, b), { resource: 'wide' }, limits)
  t.match(served, { next: { more: true } })
  t.ok(Buffer.byteLength(served?.text ?? '') < 4 * 500_000)

  const [c, d] = await pair('create table note (id int, uuid uuid primary key default gen_random_uuid(), note text)', [
    'note',
  ])
  await c.sql('insert into note (id) select n from generate_series(1, 3000) n')
  await c.sql('vacuum analyze note')
  await c.sql(`update note set note = repeat('x', 1500)`)
  const grown = await serveRows(c.store, linkOf(c, d), { resource: 'note' }, limits)
  t.match(grown, { next: { more: true } })
  t.ok(Buffer.byteLength(grown?.text ?? '') < 4 * 500_000, 'nor of one that has grown since')
})

t.test('what an application calls a type is its own again after a first copy', async (t) => {
  const ddl = `create type colour as enum ('red'); create table thing (id text primary key, c colour)`
  const [a, b] = await pair(ddl, ['thing'])
  await a.sql(`insert into thing values ('a', 'red')`)
  t.match(await bring(b, a, 'thing'), { counts: { applied: 1 } })
  await b.sql('drop table thing; drop type colour')
  t.same(await b.sql(`select from pg_type where typname = 'colour'`), [], 'no connection of the pool keeps it')
})

const KINDS = `
  create type mood as enum ('fine', E'a\\tb', E'c\\nd', 'e\\f', '{');
  create table kind (id text primary key, t text, v varchar(40), c char(6), bl bpchar, b bytea, j jsonb, p json, a text[], aj jsonb[], m mood, f float8, r float4,
    n numeric, n2 numeric(9,3), i2 int2, i4 int4, i8 int8, d date, ti time(3), tz timestamptz, ts timestamp(2), iv interval, u uuid, bo bool, bits varbit(9), net inet, rg int4range, x xml)`

const word = fc
  .array(
    fc.constantFrom(
      '\\',
      'N',
      '.',
      'n',
      '\t',
      '\n',
      '\r',
      '"',
      "'",
      '{',
      '}',
      ',',
      ' ',
      'a',
      'é',
      '☃',
      '🎉',
      '\u0001',
      '\u001f',
      '\u007f',
    ),
    { maxLength: 9 },
  )
  .map((letters) => letters.join(''))
const json = fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value).replaceAll('\\u0000', ''))
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: null, freq: 6 })
const kindRow = fc.tuple(
  maybe(word),
  maybe(word),
  maybe(word.map((text) => text.slice(0, 3))),
  maybe(fc.uint8Array({ maxLength: 6 }).map((bytes) => Buffer.from(bytes))),
  maybe(json),
  maybe(json),
  maybe(fc.array(maybe(word), { maxLength: 3 })),
  maybe(fc.constantFrom('fine', 'a\tb', 'c\nd', 'e\\f', '{')),
  maybe(fc.constantFrom('-0', 'NaN', 'Infinity', '1e-300', '0.1', '1.7976931348623157e308')),
  maybe(fc.constantFrom('123456789012345678901234567890.123456789', '-0.000', 'NaN', '7')),
  maybe(fc.constantFrom('infinity', '2026-01-01 12:00:00.123456+05', '0044-03-15 BC', '1999-12-31 23:59:59.999999+00')),
  maybe(fc.constantFrom('1 year -2 days 03:04:05.000006', '-00:00:01', '100 years')),
)

t.test('I11: rows of any values arrive as they were written', async (t) => {
  await holdsAsync(
    t,
    fc.asyncProperty(
      fc.uniqueArray(
        word.filter((text) => text !== ''),
        { minLength: 100, maxLength: 120 },
      ),
      fc.array(kindRow, { minLength: 120, maxLength: 120 }),
      async (ids, rows) => {
        const [a, b] = await pair(KINDS, ['kind'])
        for (const [n, key] of ids.entries()) {
          const [text, vary, short, bytes, doc, plain, list, mood, float, number, time, span] = rows[n] ?? []
          await a.sql(
            `insert into kind (id, t, v, c, bl, b, j, p, a, m, f, n, tz, iv, r, n2, i2, i4, i8, d, ti, ts, u, bo, bits, net, rg, x)
           values ($1, $2, $3::text::varchar, $4, $3::text::bpchar, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0.1, 1.5, -1, 2147483647, 9223372036854775807, '2026-02-28', '12:00:00.123', '2026-01-01 00:00:00.12',
                   '${id(1)}', true, '101', '10.0.0.1/8', '[1,5)', '<a b="\\"/>')`,
            [key, text, vary, short, bytes, doc, plain, list, mood, float, number, time, span],
          )
        }
        const report = await bring(b, a, 'kind')
        const all = 'select k::text as row, p::text as text from kind k order by id collate "C"'
        if (report?.counts.applied !== ids.length) throw new Error(`the rows were not taken: ${JSON.stringify(report)}`)
        const [there, here] = [await a.sql(all), await b.sql(all)]
        for (const [n, row] of there.entries())
          if (row.row !== here[n]?.row || row.text !== here[n]?.text)
            throw new Error(`${JSON.stringify(row)} became ${JSON.stringify(here[n])}`)
      },
    ),
    3,
  )
})
