import t from 'tap'
import {
  loadResources,
  peerLogChanged,
  purgeTombstones,
  readSelf,
  removePeer,
  serveChanges,
  tombstoneState,
} from '../../src/store/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  peerOf,
  pullAll,
  pushAll,
  type Site,
  siteFactory,
  syncOnce,
} from '../support/sites.ts'

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
    // b does not ask first.
    await pushAll(b, a)
    t.equal(await ids(a), 'y')
    t.equal(await tombstones(a), 'x', 'the deletion is told again, to whoever brought the record')
    await syncOnce(b, a)
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
  t.same(open, [{ record_id: 'x', ours: { name: 'edit' }, theirs: null }])
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

t.test(
  'I6: a site that is put back to yesterday keeps what either side had, and deletions stay, purged ones too',
  async (t) => {
    for (const restored of ['the one that had purged', 'the other'] as const) {
      const a = await sites.make('a', DDL, ['place'])
      const b = await sites.make('b', DDL, ['place'])
      await introduce(a, b)
      await a.sql(`insert into place values ('a1', ''), ('a2', ''), ('a3', ''), ('early', '')`)
      await b.sql(`insert into place values ('b1', ''), ('b2', ''), ('b3', '')`)
      await syncOnce(a, b)
      await a.sql(`delete from place where id = 'early'`)
      await syncOnce(a, b)
      t.equal((await purge(a)) + (await purge(b, 0)), 2)
      const [lost, other] = restored === 'the other' ? [b, a] : [a, b]
      const name = lost.url.slice(lost.url.lastIndexOf('/') + 1)
      const dump = await sites.cluster.dump(name)
      // What the dump does not know.
      await a.sql(`delete from place where id in ('a1', 'b1')`)
      await b.sql(`delete from place where id in ('a2', 'b2')`)
      await a.sql(`insert into place values ('a4', '')`)
      await b.sql(`insert into place values ('b4', '')`)
      await syncOnce(a, b)
      await syncOnce(b, a)
      t.ok((await purge(other, 0)) >= 4)
      await lost.sql(`insert into place values ('never told', '')`)
      const copy = await sites.cluster.createDatabase()
      await sites.cluster.restore(copy.name, dump)
      const back = await sites.open(lost.name, copy.url, lost.key)
      t.equal(back.self.log, 'renewed')
      for (const peer of lost.peers.values()) back.peers.set(peer.name, peer)
      t.equal(await ids(back), 'a1 a2 a3 b1 b2 b3')
      await back.sql(`insert into place values ('made after', '')`)
      for (let round = 0; round < 2; round++) {
        await peerLogChanged(other.store.db, peerOf(other, lost).id, back.self.logId)
        await syncOnce(other, back)
        await syncOnce(back, other)
      }
      t.equal(await ids(back), 'a3 a4 b3 b4 made after')
      t.equal(await ids(other), 'a3 a4 b3 b4 made after')
    }
  },
)

t.test('I6: who holds tombstones back is told, and those who are gone hold none', async (t) => {
  const [a, b] = await pair()
  const c = await sites.make('c', DDL, ['place'])
  await introduce(a, c)
  await b.sql(`update syncline.peer_grant set max_deletes = 'none'`)
  await a.sql(`insert into place select n::text, '' from generate_series(1, 2500) n`)
  await syncOnce(b, a)
  await syncOnce(a, b)
  await syncOnce(a, c)
  await a.sql('delete from place')
  await syncOnce(a, b)
  const { logId } = await readSelf(a.store.db)
  const [place] = await loadResources(a.store.db)
  const state = () => tombstoneState(a.store.db, place?.id ?? 0, logId)
  t.match(await state(), { tombstones: 2500, purged: 0, heldBy: [{ peer: 'c', tombstones: 2500, since: String }] })
  t.equal(await purge(a), 0)
  await removePeer(a.store.db, peerOf(a, c).id)
  t.equal(await purge(a), 2500, 'in several steps')
  t.same(await state(), { tombstones: 0, purged: 2500, heldBy: [] })
  t.same(
    await a.sql('select living, sum from syncline.digest where living <> 0'),
    [],
    'a purged deletion counts as little as one that is kept',
  )
})

t.test('I6: what a peer with a filter never had, it is not told of', async (t) => {
  const [a, b] = await pair()
  const filter = `name = 'shared'`
  await a.sql(`insert into place values ('x', 'shared'), ('y', 'shared'), ('hidden', 'own')`)
  await pullAll(b, a, { filter })
  await a.sql(`delete from place where id in ('x', 'hidden')`)
  t.equal(await purge(a, 0), 2)
  const page = await serveChanges(a.store, linkOf(a, b), { resource: 'place', filter, purged: true }, LIMITS)
  t.equal(page.count, 1)
  await pullAll(b, a, { filter })
  t.equal(await ids(b), 'y')
})

t.test('I6: places of records and places of purged deletions are told apart', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into place select n::text, '' from generate_series(1, 30) n`)
  await pullAll(b, a)
  await a.sql('delete from place')
  await purge(a, 0)
  const seen: string[] = []
  let pages = 0
  for (let after: string | undefined, more = true; more; ) {
    const page = await serveChanges(a.store, linkOf(a, b), { resource: 'place', after, purged: true, limit: 7 }, LIMITS)
    seen.push(...page.text.split('\n'))
    pages++
    after = page.next?.checkpoint
    more = page.next?.more ?? false
  }
  t.equal(new Set(seen.filter((line) => line !== '')).size, 30, 'every page goes on where the last one ended')
  t.equal(pages, 5, 'and none begins again')
  await pullAll(b, a)
  t.equal(await ids(b), '')
})

t.test('I6: a first copy of many records brings back none whose deletion was purged', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into place select n::text, '' from generate_series(1, 400) n`)
  await pullAll(b, a)
  await b.sql(`delete from place where id in ('7', '300')`)
  await purge(b, 0)
  await b.sql('delete from syncline.record')
  await b.sql('truncate place')
  await b.sql('delete from syncline.record')
  await b.sql('delete from syncline.checkpoint')
  await pullAll(b, a)
  t.same(await b.sql('select count(*)::int as rows from place'), [{ rows: 398 }])
})
