import { sql } from 'kysely'
import t, { type Test } from 'tap'
import {
  applyPull,
  attach,
  digestOf,
  findResource,
  foldDigest,
  newLog,
  type Store,
  serveChanges,
  wholeDigest,
} from '../../src/store/index.ts'
import { introduce, LIMITS, linkOf, type Site, siteFactory, syncOnce } from '../support/sites.ts'

const sites = await siteFactory(t)
const DDL =
  'create table place (id text primary key, nr int generated always as (substr(id, 2)::int) stored, name text not null, size int not null default 0)'
const TASK = { onConflict: 'newer', master: null, onLeft: 'keep' } as const

/** The kept sum is what a full count says, whatever happened; gives what it is. */
async function sound(t: Test, store: Store, what: string) {
  const resource = await findResource(store.db, 'place')
  const [full] = await digestOf(store.db, { resource }, { from: null, to: null })
  const whole = await wholeDigest(store.db, resource.id)
  t.same({ records: whole.records, sum: whole.sum }, { records: full?.count, sum: full?.sum }, what)
  return { ...whole, id: resource.id }
}

const fold = async ({ store }: Site) => foldDigest(store.db, (await findResource(store.db, 'place')).id)

t.test('I9: the sum that is kept is the sum of all records, before and after it is brought up to date', async (t) => {
  const [a, b] = [await sites.make('a', DDL, []), await sites.make('b', DDL, ['place'])]
  await a.sql(`insert into place (id, name) select 'p' || n, 'place ' || n from generate_series(1, 12000) n`)
  await attach(a.store, [{ table: 'place' }])
  const registered = await sound(t, a.store, 'registered rows')
  t.match(registered, { records: 12_000, behind: 0 }, 'counted as they were written')
  await introduce(a, b)
  await syncOnce(b, a)
  t.match(
    await sound(t, b.store, 'applied rows'),
    { records: 12_000, sum: registered.sum, behind: 0 },
    'and so is a baseline',
  )

  await a.sql(`insert into place (id, name) select 'p' || n, 'more' from generate_series(20001, 20300) n`)
  await a.sql(`update place set size = size + 1 where nr % 40 = 0`)
  await a.sql(`delete from place where nr % 100 = 7`)
  t.match(await sound(t, a.store, 'captured changes'), { records: 12_177, behind: 720 })
  t.ok(await fold(a))
  t.match(await sound(t, a.store, 'folded'), { records: 12_177, behind: 0 })
  t.ok(await fold(a), 'folding again does nothing')
  await sound(t, a.store, 'folded twice')
  await syncOnce(b, a)
  t.match(await sound(t, b.store, 'applied changes'), { records: 12_177, sum: (await sound(t, a.store, 'there')).sum })
  await a.sql(
    `insert into place (id, name) select 'p' || n, 'again' from generate_series(1, 300) n on conflict do nothing`,
  )
  await a.sql(`delete from place where nr > 20100`)
  await a.sql(`update place set id = 'p' || nr + 100000 where nr between 500 and 520`)
  await sound(t, a.store, 'deleted, made again and renamed')
  await syncOnce(b, a)
  await sound(t, b.store, 'and applied')
  t.ok(await fold(b))
  const both = [await sound(t, a.store, 'a'), await sound(t, b.store, 'b')]
  t.equal(both[0]?.sum, both[1]?.sum)
  t.equal(both[0]?.records, both[1]?.records)
})

t.test(
  'I9: the sum stays right when records are forgotten, moved in the order or written while it is folded',
  async (t) => {
    const a = await sites.make('a', DDL, ['place'])
    await a.sql(`insert into place (id, name) select 'p' || n, 'place ' || n from generate_series(1, 900) n`)
    await fold(a)
    await a.sql('delete from place where nr <= 100')
    await sql`delete from syncline.record where deleted and substr(record_id, 2)::int <= 40`.execute(a.store.db)
    await sound(t, a.store, 'tombstones purged before they were counted')
    await fold(a)
    await sql`delete from syncline.record where deleted`.execute(a.store.db)
    t.match(await sound(t, a.store, 'and after'), { records: 800 })
    await newLog(a.store.db)
    await sound(t, a.store, 'a new log')
    await fold(a)
    t.match(await sound(t, a.store, 'counted anew'), { behind: 0 })

    const writer = await a.connect()
    await writer.query('begin')
    await writer.query(`update place set size = 7 where nr between 200 and 210`)
    await a.sql(`update place set size = 8 where nr between 300 and 310`)
    await fold(a)
    await sound(t, a.store, 'folded beside an open transaction')
    await writer.query('rollback')
    await fold(a)
    await sound(t, a.store, 'which was taken back')
    // A row that is locked and then left as it was must not be passed over.
    await a.sql(`update place set size = 9 where nr = 400`)
    await writer.query('begin')
    await writer.query(`select from syncline.record where record_id = 'p400' for update`)
    t.notOk(await fold(a), 'a record in use is left for the next time')
    await writer.query('rollback')
    await a.sql(`update place set size = 9 where nr = 401`)
    t.ok(await fold(a))
    t.match(await sound(t, a.store, 'and not forgotten'), { behind: 0 })
  },
)

t.test('I9: folding, writing and applying at once leave the sum right', async (t) => {
  const [a, b] = [await sites.make('a', DDL, ['place']), await sites.make('b', DDL, ['place'])]
  await introduce(a, b)
  const writer = async (site: Site, from: number) => {
    const client = await site.connect()
    for (let n = 0; n < 40; n++) {
      await client.query(
        `insert into place (id, name) select 'p' || x, 'w' from generate_series(${from + n * 20}, ${from + n * 20 + 30}) x on conflict (id) do update set size = place.size + 1`,
      )
      await client.query(`delete from place where nr in (${from + n}, ${from + 20 * n})`)
    }
  }
  let busy = true
  const folder = async (site: Site) => {
    while (busy) await fold(site)
  }
  const folding = [folder(a), folder(b)]
  const writing = Promise.all([writer(a, 1), writer(a, 300), writer(b, 600), writer(b, 5000)])
  for (let n = 0; n < 5; n++) await syncOnce(b, a)
  await writing
  busy = false
  await Promise.all(folding)
  for (let n = 0; n < 3; n++) await syncOnce(b, a)
  const ends = [await sound(t, a.store, 'a'), await sound(t, b.store, 'b')]
  t.equal(ends[0]?.sum, ends[1]?.sum, 'and both sites agree')
  t.ok((ends[0]?.records ?? 0) > 500)
})

t.test('I9: one transaction that writes new and known records is not taken as counted', async (t) => {
  const [a, b] = [await sites.make('a', DDL, ['place']), await sites.make('b', DDL, ['place'])]
  await introduce(a, b)
  await a.sql(`insert into place (id, name) select 'p' || n, 'place ' || n from generate_series(1, 10) n`)
  await syncOnce(b, a)
  const batch = async (text: string) => {
    await a.sql(text)
    return serveChanges(a.store, linkOf(a, b), { resource: 'place' }, LIMITS)
  }
  const mixed = await batch(
    `insert into place (id, name) values ('p11', 'new'); update place set name = 'changed' where nr < 4`,
  )
  await applyPull(b.store, linkOf(b, a), { task: TASK, batch: mixed, runId: null }, LIMITS)
  t.match(await sound(t, b.store, 'mixed'), { records: 11, behind: 4 })
})
