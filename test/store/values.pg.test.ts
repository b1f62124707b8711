import t from 'tap'
import { applyPull, receiveChanges } from '../../src/store/index.ts'
import { changesOfLines, linesOfChanges } from '../../src/sync/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  pullAll,
  type Site,
  serveAll,
  siteFactory,
  syncOnce,
  TASK,
} from '../support/sites.ts'

const sites = await siteFactory(t)

const DDL = `
  create table thing (id uuid primary key, doc jsonb, plain json, must jsonb not null default '1', docs jsonb[], plains json[], floats float8[], reals float4[], big int8[])`

const DOCUMENTS = [
  'null',
  '{"$json": null}',
  '{"$json": {"$json": 1}}',
  '{"$json": 1, "a": 2}',
  '["$json"]',
  '"$json"',
  '"null"',
  '{"a": null}',
  '{}',
  '[]',
  '0',
  'false',
  '{"b":1.0, "a" : 2,\n"b":\t3}',
]
const ARRAYS = [
  `docs = '{"null",NULL,"1"}'`,
  `docs = '[3:4]={"null","{}"}'`,
  `plains = '{"null",NULL,"{\\"a\\": 1}"}'`,
  `floats = '{NaN,Infinity,-0,0,1e-300}'`,
  `floats = '{{-0,1},{2,-0}}'`,
  `reals = '{-0}'`,
  `big = '{9007199254740993,NULL}'`,
]

let serial = 0
async function pair(): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, DDL, ['thing'])
  const b = await sites.make(`b${serial}`, DDL, ['thing'])
  await introduce(a, b)
  return [a, b]
}

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const oneLine = `translate(plain::text, e'\\n\\t', '  ')`
const content = (site: Site, plain = oneLine) =>
  site.sql(
    `select id, doc::text, ${plain} as plain, plain is null as no_plain, must::text, docs::text, plains::text, floats::text, reals::text, big::text from thing order by id`,
  )

/** A row for each document and each array, and one without any. */
async function fill(site: Site): Promise<number> {
  let n = 0
  for (const document of DOCUMENTS)
    await site.sql('insert into thing (id, doc, plain, must) values ($1, $2::jsonb, $2::json, $2::jsonb)', [
      id(++n),
      document,
    ])
  for (const assignment of ARRAYS) {
    const [column, value] = assignment.split(' = ')
    await site.sql(`insert into thing (id, ${column}) values ('${id(++n)}', ${value})`)
  }
  await site.sql(`insert into thing (id) values ('${id(++n)}')`)
  return n
}

t.test('I3: every document and list arrives as it is, JSON null and the sign of zero included', async (t) => {
  const [a, b] = await pair()
  await fill(a)
  await pullAll(b, a)
  t.same(await content(b), await content(a))
  // Back and forth, over rows that exist.
  await b.sql(`update thing set must = '{"$json": 5}', doc = case when doc is null then 'null'::jsonb else null end`)
  await syncOnce(a, b)
  t.same(await content(a), await content(b))
})

t.test('a first copy brings them too', async (t) => {
  const [a, b] = await pair()
  const n = await fill(a)
  await a.sql(
    `insert into thing (id, doc) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'null' from generate_series(${n + 1}, 300) n`,
  )
  await pullAll(b, a)
  t.same(await content(b), await content(a))
})

t.test('so do the public formats', async (t) => {
  const [a, b] = await pair()
  await fill(a)
  const { batches } = await serveAll(a, b, 'thing')
  const changes = batches.flatMap((batch) => changesOfLines(batch))
  const again = linesOfChanges('thing', JSON.parse(JSON.stringify(changes)), {})
  await receiveChanges(b.store, linkOf(b, a), { resource: 'thing', batches: again, byHand: false, runId: null }, LIMITS)
  t.same(
    await content(b, 'plain::jsonb::text'),
    await content(a, 'plain::jsonb::text'),
    'blanks in columns of type json aside',
  )
})

t.test('equal documents on both sides are no conflict', async (t) => {
  const [a, b] = await pair()
  for (const site of [a, b]) await fill(site)
  await syncOnce(a, b)
  await syncOnce(a, b)
  t.same(await content(b), await content(a))
  t.same(await a.sql(`select count(*)::int as n from syncline.history where reason = 'lost a conflict'`), [{ n: 0 }])
})

t.test('I11: a field that was kept gives way to the column that has its name by a mapping', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into thing (id, doc) values ('${id(1)}', '1')`)
  await pullAll(b, a)
  await a.sql(`update thing set doc = '2'`)
  const { batches } = await serveAll(a, b, 'thing')
  const batch = batches.at(-1)
  if (batch === undefined) throw new Error('there is a batch')
  const text = batch.text.replace(/\]$/, ',"kept"]')
  const twice = { ...batch, columns: [...batch.columns, 'doc'], text }
  await applyPull(b.store, linkOf(b, a), { task: TASK, batch: twice, runId: null }, LIMITS)
  t.same(await b.sql('select doc from thing'), [{ doc: 2 }])
})

t.test('I11: a table of any number of columns travels, by its changes too', async (t) => {
  const columns = Array.from({ length: 250 }, (_, n) => `c${n} text default '["${n}]"'`).join(', ')
  serial++
  const a = await sites.make(`a${serial}`, `create table wide (id text primary key, ${columns})`, ['wide'])
  const b = await sites.make(`b${serial}`, `create table wide (id text primary key, ${columns})`, ['wide'])
  await introduce(a, b)
  await a.sql(`insert into wide (id) select 'i' || n from generate_series(1, 5) n`)
  await pullAll(b, a)
  await a.sql(`update wide set c0 = null, c99 = 'x', c100 = 'y', c249 = ']' where id = 'i3'`)
  await pullAll(b, a)
  const rows = 'select w::text as row from wide w order by id'
  t.same(await b.sql(rows), await a.sql(rows))
})

t.test('a backslash in a statement is a backslash, whatever the database thinks of it', async (t) => {
  const [a] = await pair()
  await a.sql(
    `do $$ begin execute format('alter database %I set standard_conforming_strings = off', current_database()); end $$`,
  )
  const again = await sites.open('again', a.url, a.key)
  const { rows } = await again.store.pool.query('show standard_conforming_strings')
  t.same(rows, [{ standard_conforming_strings: 'on' }])
})
