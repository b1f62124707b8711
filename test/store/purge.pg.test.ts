import t from 'tap'
import { purgeTombstones, readSelf, tombstoneState, updateTask } from '../../src/store/index.ts'
import { introduce, linkOf, peerOf, pullAll, pushAll, type Site, siteFactory, syncOnce } from '../support/sites.ts'

const DDL = 'create table place (id text primary key, name text)'
const sites = await siteFactory(t)

async function pair(): Promise<readonly [Site, Site]> {
  const a = await sites.make('a', DDL, ['place'])
  const b = await sites.make('b', DDL, ['place'])
  await introduce(a, b)
  return [a, b]
}

async function ids(site: Site): Promise<string> {
  return (await site.sql('select id from place order by id')).map((row) => row.id).join(' ')
}

async function tombstones(site: Site): Promise<string> {
  return (await site.sql('select record_id as id from syncline.record where deleted order by 1'))
    .map((row) => row.id)
    .join(' ')
}

async function purge(site: Site, days = 36_500): Promise<number> {
  const { logId } = await readSelf(site.store.db)
  const [done] = await purgeTombstones(site.store.db, { logId, days })
  return done?.purged ?? 0
}

t.test('I6: a tombstone stays until every peer has it, and then goes', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into place values ('x', '1'), ('y', '1')`)
  await syncOnce(a, b)
  await a.sql(`delete from place where id = 'x'`)
  t.equal(await purge(a), 0, 'the peer has not been told')
  await syncOnce(a, b)
  t.equal(await ids(b), 'y')
  t.equal(await purge(a), 1)
  t.equal(await tombstones(a), '')
  await syncOnce(a, b)
  t.equal(await ids(a), 'y')
})

t.test('I6: what a peer missed because it was away too long is told when it is back', async (t) => {
  for (const direction of ['pulls', 'is pushed to'] as const) {
    const [a, b] = await pair()
    const meet = () => (direction === 'pulls' ? pullAll(b, a) : pushAll(a, b))
    await a.sql(`insert into place select 'r' || n, 'x' from generate_series(1, 9) n`)
    await meet()
    await a.sql(`delete from place where id in ('r1', 'r2', 'r3')`)
    t.equal(await purge(a, 0), 3, 'past the retention')
    await b.sql(`insert into place values ('new', 'made while away')`)
    await b.sql(`update place set name = 'edited while away' where id = 'r2'`)
    await meet()
    t.equal(
      await ids(b),
      'new r2 r4 r5 r6 r7 r8 r9',
      `what was deleted goes where the peer ${direction}; what was made or changed there stays`,
    )
    await syncOnce(b, a)
    await syncOnce(b, a)
    t.equal(await ids(a), await ids(b))
    t.match(await ids(a), /new r2/, 'the newer edit won over the deletion, as in any conflict')
    t.equal(await tombstones(a), '', 'nothing else was raised')
  }
})

t.test(
  'I6: a record that is older than its purged deletion does not come back, whichever way it is offered',
  async (t) => {
    const [a, b] = await pair()
    const c = await sites.make('c', DDL, ['place'])
    await introduce(a, c)
    await introduce(b, c)
    await a.sql(`insert into place values ('x', '1'), ('y', '1')`)
    await syncOnce(b, a)
    await b.sql(`update place set name = 'by b' where id = 'x'`)
    // It reaches c only, which gives it to a.
    await syncOnce(b, c)
    await syncOnce(c, a)
    await a.sql(`delete from place where id = 'x'`)
    await syncOnce(c, a)
    t.equal((await purge(a, 0)) + (await purge(c, 0)), 2)
    await syncOnce(b, a)
    t.equal(await ids(a), 'y')
    t.equal(await ids(b), 'y')
    await syncOnce(b, c)
    t.equal(await ids(c), 'y')
  },
)

t.test('I6: a deletion that was purged and an edit that did not know it are a conflict like any other', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into place values ('x', '1')`)
  await syncOnce(b, a)
  await b.sql(`update place set name = 'edit' where id = 'x'`)
  await a.sql(`delete from place where id = 'x'`)
  await purge(a, 0)
  await syncOnce(b, a, { task: { onConflict: 'ask' } })
  const open = await b.sql(`select record_id, ours, theirs from syncline.conflict where resolved_at is null`)
  t.same(open, [{ record_id: 'x', ours: ['1'].map(() => 'edit'), theirs: null }])
})

t.test('I6: a record that is made anew under a purged id lives everywhere', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into place values ('x', '1')`)
  await syncOnce(a, b)
  await a.sql(`delete from place where id = 'x'`)
  await purge(a, 0)
  await a.sql(`insert into place values ('x', 'again')`)
  await syncOnce(a, b, { task: { onConflict: 'ask' } })
  t.equal(await ids(b), 'x')
  t.same(await b.sql('select name from place'), [{ name: 'again' }])
  t.same(await b.sql('select from syncline.conflict'), [], 'the new record knows the deletion of the old one')
  t.same(await a.sql('select from syncline.purged'), [])
})
