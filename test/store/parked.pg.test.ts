import t from 'tap'
import { applyPull, attach, serveChanges } from '../../src/store/index.ts'
import { changesOfLines, decodeLines, linesBody, splitSets } from '../../src/sync/index.ts'
import { introduce, LIMITS, linkOf, pullAll, type Site, siteFactory, syncOnce, TASK } from '../support/sites.ts'

const FULL = 'create table place (id text primary key, name text, extra text, detail jsonb, price numeric(12,2))'
const BARE = 'create table place (id text primary key, name text)'
const sites = await siteFactory(t)

/** a and c have every column, b between them only the name. */
async function chain(): Promise<readonly [Site, Site, Site]> {
  const a = await sites.make('a', FULL, ['place'])
  const b = await sites.make('b', BARE, ['place'])
  const c = await sites.make('c', FULL, ['place'])
  await introduce(a, b)
  await introduce(b, c)
  return [a, b, c]
}

const rows = (site: Site) => site.sql('select * from place order by id')

t.test(
  'I11: what one site in the middle has no column for reaches the sites beyond, and never comes back as null',
  async (t) => {
    const [a, b, c] = await chain()
    await a.sql(
      `insert into place values ('x', '1', 'E', '{"deep": [1, 12345678901234567890]}', 12.50), ('y', '1', null, null, null)`,
    )
    await b.sql(`insert into place values ('own', 'of b')`)
    await syncOnce(b, a)
    await syncOnce(b, c)
    t.same(await rows(c), await rows(a), 'everything went through')
    t.equal((await rows(c)).length, 3)

    await b.sql(`update place set name = '2'`)
    await syncOnce(b, a)
    await syncOnce(b, c)
    t.match(await rows(a), [
      { id: 'own', name: '2', extra: null },
      { id: 'x', name: '2', extra: 'E', price: '12.50' },
      { id: 'y', name: '2', extra: null },
    ])
    t.same(await rows(c), await rows(a))

    await c.sql(`update place set extra = 'F' where id = 'own'`)
    await syncOnce(b, c)
    await syncOnce(b, a)
    t.match((await rows(a))[0], { id: 'own', extra: 'F' }, 'also for a record of the site in the middle')

    await c.sql(`update place set extra = null where id = 'x'`)
    await syncOnce(b, c)
    await syncOnce(b, a)
    t.match(
      (await rows(a))[1],
      { id: 'x', extra: null, price: '12.50' },
      'a newer value replaces the one that was parked, a null too',
    )
  },
)

t.test(
  'I11: what is parked follows its record: a version without the field keeps it, a deletion takes it along',
  async (t) => {
    const [a, b, c] = await chain()
    const d = await sites.make('d', BARE, ['place'])
    await introduce(b, d)
    await a.sql(`insert into place values ('x', '1', 'E'), ('y', '1', 'E'), ('z', '1', 'E')`)
    await syncOnce(b, a)
    await d.sql(`insert into place values ('w', 'd')`)
    await pullAll(d, b)
    await d.sql(`update place set name = 'by d' where id = 'x'`)
    await syncOnce(d, b)
    await b.sql(`delete from place where id = 'y'`)
    await b.sql(`insert into place values ('y', 'anew')`)
    await a.sql(`delete from place where id = 'z'`)
    await syncOnce(b, a)
    await a.sql(`insert into place values ('z', 'anew')`)
    await syncOnce(b, a)
    await syncOnce(b, c)
    t.match(await rows(c), [
      { id: 'w', name: 'd', extra: null },
      { id: 'x', name: 'by d', extra: 'E' },
      { id: 'y', name: 'anew', extra: null },
      { id: 'z', name: 'anew', extra: null },
    ])
  },
)

t.test('I11: when the column appears, what was parked is in it, and nothing is relayed twice', async (t) => {
  const [a, b, c] = await chain()
  await a.sql(`insert into place values ('x', '1', 'E', null, 3)`)
  await syncOnce(b, a)
  await b.sql('alter table place add column extra text')
  await attach(b.store, [{ table: 'place' }])
  t.same(await b.sql('select name from syncline.parked_field order by 1'), [{ name: 'detail' }, { name: 'price' }])
  const batch = await serveChanges(b.store, linkOf(b, c), { resource: 'place' }, LIMITS)
  t.same(batch.sets, [['detail', 'price']])
  t.match(changesOfLines(batch), [{ data: { name: '1', extra: 'E', detail: null, price: '3.00' } }])
  const read = decodeLines(linesBody(batch), { recordsMax: 10, recordBytesMax: 10_000, depthMax: 20 })
  t.same(read, batch)
  t.match(splitSets(read), [{ count: 0 }, { count: 1, columns: ['name', 'extra', 'detail', 'price'], next: Object }])
  const narrow = await serveChanges(b.store, linkOf(b, c), { resource: 'place', columns: ['name', 'price'] }, LIMITS)
  t.same(narrow.sets, [['price']], 'no more than was asked for')
})

t.test('I11: every record may carry fields of its own', async (t) => {
  const wide = Array.from({ length: 12 }, (_, n) => `c${n} text`).join(', ')
  const a = await sites.make('a', `create table place (id text primary key, name text, ${wide})`, ['place'])
  const b = await sites.make('b', BARE, ['place'])
  const c = await sites.make('c', `create table place (id text primary key, name text, ${wide})`, ['place'])
  await introduce(a, b)
  await introduce(b, c)
  await a.sql(
    `insert into place (id, name, c0, c11) select n::text, 'x', n::text, n::text from generate_series(1, 900) n`,
  )
  await syncOnce(b, a)
  // As it would be had each come from a site with other columns.
  await b.sql(`update syncline.parked k set fields = (select jsonb_object_agg(f.key, f.value) from jsonb_each(k.fields) f
                where f.key = 'c11' or k.record_id::int & (1 << substr(f.key, 2)::int) > 0)`)
  await syncOnce(b, c)
  t.same(await c.sql('select count(*)::int as n, count(c11)::int as c11 from place'), [{ n: 900, c11: 900 }])
})

t.test('I11: a record with more or fewer values than its batch announces is set aside alone, by name', async (t) => {
  for (const rows of [3, 150]) {
    const [a, b] = await chain()
    await a.sql(`insert into place (id, name) select n::text, 'x' from generate_series(1, ${rows}) n`)
    await pullAll(b, a)
    await a.sql(`update place set name = 'y'`)
    const batch = await serveChanges(a.store, linkOf(a, b), { resource: 'place', columns: ['name'] }, LIMITS)
    const text = batch.text
      .split('\n')
      .map((line, n) =>
        n === 0 ? line.replace(/\["y"\]$/, '["y","surplus"]') : n === 1 ? line.replace(/\["y"\]$/, '[]') : line,
      )
      .join('\n')
    for (const line of ['', text.replaceAll('\t"', '\t"').replace(/^"\d+"/gm, (id) => `"new ${id.slice(1)}`)]) {
      const report = await applyPull(
        b.store,
        linkOf(b, a),
        { task: TASK, batch: { ...batch, text: line === '' ? text : line }, runId: null },
        LIMITS,
      )
      t.match(report.counts, { applied: rows - 2, quarantined: 2 })
      t.match(report.rejections, [
        { reason: /the record has 2 values where the batch announces 1 columns/ },
        { reason: /the record has 0 values where the batch announces 1 columns/ },
      ])
    }
  }
})
