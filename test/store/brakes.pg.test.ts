import t from 'tap'
import {
  answerComparison,
  brakesWith,
  endBrake,
  findBrake,
  findResource,
  listBrakes,
  listLog,
  meetMark,
  openBrake,
  passOf,
  receiveChanges,
  releaseBrake,
  setGrant,
  totalOf,
} from '../../src/store/index.ts'
import type { LineBatch } from '../../src/sync/index.ts'
import { introduce, LIMITS, linkOf, peerOf, pullAll, pushAll, type Site, siteFactory } from '../support/sites.ts'

const DDL = 'create table place (id uuid primary key default gen_random_uuid(), name text not null, n int)'
const sites = await siteFactory(t)
let made = 0

async function pair(rows: number): Promise<readonly [Site, Site]> {
  made++
  const a = await sites.make(`a${made}`, DDL, ['place'])
  const b = await sites.make(`b${made}`, DDL, ['place'])
  await introduce(a, b)
  await a.sql(`insert into place (name, n) select 'place ' || n, n from generate_series(1, ${rows}) n`)
  await pullAll(b, a)
  return [a, b]
}

const facts = { deletes: 500, changes: 0, living: 1_000, samples: ['x'] }
const placeId = async (site: Site) =>
  Number((await site.sql(`select id from syncline.resource where name = 'place'`))[0]?.id)

t.test('a brake keeps its token while it stops the same, and gets another one when the numbers change', async (t) => {
  const [a, b] = await pair(1)
  const at = { peerId: peerOf(b, a).id, resourceId: await placeId(b), direction: 'pull', runId: null } as const
  const first = await openBrake(b.store.db, { ...at, rules: ['deletes'], reason: 'too many', facts })
  const again = await openBrake(b.store.db, { ...at, rules: ['deletes'], reason: 'too many', facts })
  t.equal(again.token, first.token)
  t.equal(again.times, 2)
  const other = await openBrake(b.store.db, {
    ...at,
    rules: ['deletes'],
    reason: 'more',
    facts: { ...facts, deletes: 501 },
  })
  t.not(other.token, first.token)
  await t.rejects(releaseBrake(b.store.db, { token: first.token, by: 'ann' }), {
    code: 'SYNC_REQUEST_SETTLED',
    message: /is over since 20\S+: stopped again with other numbers/,
  })
  t.equal((await listBrakes(b.store.db, { open: true })).items.length, 1)
  t.match(other.token, /^[0-9a-hjkmnp-tv-z]{8}$/)
})

t.test('a release works once, by a named person, and is in the log', async (t) => {
  const [a, b] = await pair(1)
  const at = { peerId: peerOf(b, a).id, resourceId: await placeId(b), direction: 'pull', runId: null } as const
  const { token, id } = await openBrake(b.store.db, { ...at, rules: ['deletes'], reason: 'it would delete 500', facts })
  t.equal(passOf((await brakesWith(b.store.db, at.peerId))[0]), null)
  const released = await releaseBrake(b.store.db, { token, by: 'ann', comment: 'we closed those' })
  t.match(released, { releasedBy: 'ann', comment: 'we closed those', endedAt: null })
  t.same(passOf((await brakesWith(b.store.db, at.peerId))[0]), { rules: ['deletes'], deletes: 500, changes: 0 })
  await t.rejects(releaseBrake(b.store.db, { token, by: 'bob' }), {
    code: 'SYNC_REQUEST_SETTLED',
    message: /was released by ann at 20\S+; what it had stopped goes on with the next run/,
  })
  await endBrake(b.store.db, id, 'used')
  t.same(await brakesWith(b.store.db, at.peerId), [])
  await t.rejects(releaseBrake(b.store.db, { token, by: 'bob' }), {
    code: 'SYNC_REQUEST_SETTLED',
    message: /was released by ann at 20\S+, and used at 20/,
  })
  await t.rejects(releaseBrake(b.store.db, { token: 'nothing', by: 'bob' }), { code: 'SYNC_REQUEST_NOT_FOUND' })
  t.match((await listLog(b.store.db, { action: 'release' })).items, [
    { peer: a.name, resource: 'place', message: /^ann released brake .*: we closed those\. .*it would delete 500/ },
  ])
  t.match(await findBrake(b.store.db, token), { ending: 'used', releasedBy: 'ann' })
})

t.test('a release that nobody used in a week is worth nothing', async (t) => {
  const [a, b] = await pair(1)
  const at = { peerId: peerOf(b, a).id, resourceId: await placeId(b), direction: 'pull', runId: null } as const
  const { token } = await openBrake(b.store.db, { ...at, rules: ['deletes'], reason: 'too many', facts })
  await releaseBrake(b.store.db, { token, by: 'ann' })
  await b.sql(`update syncline.brake set released_at = now() - interval '8 days'`)
  t.same(await brakesWith(b.store.db, at.peerId), [])
  t.match(await findBrake(b.store.db, token), { ending: 'expired' })
  await t.rejects(releaseBrake(b.store.db, { token, by: 'bob' }), {
    code: 'SYNC_REQUEST_SETTLED',
    message: /nobody used that within 7 days/,
  })
})

/** Deletions of every place that `from` holds, as one push. */
async function wipe(from: Site, to: Site, most = 100_000): Promise<LineBatch> {
  const rows = await to.sql('select id from place order by id limit $1', [most])
  const text = rows.map(({ id }) => `"${id}"\t\t\t\td\t`).join('\n')
  return { resource: 'place', columns: [], refs: {}, origins: [from.self.origin], text, count: rows.length }
}

const push = (to: Site, from: Site, batch: LineBatch, announced?: number) =>
  receiveChanges(
    to.store,
    linkOf(to, from),
    { resource: 'place', batches: [batch], byHand: false, runId: null, announced },
    LIMITS,
  )
const living = async (site: Site) => Number((await site.sql('select count(*) as n from place'))[0]?.n)

t.test(
  'I10: a peer that pushes can delete no more than its grant lets it in an hour, in however many batches',
  async (t) => {
    const [a, b] = await pair(400)
    t.match((await push(b, a, await wipe(a, b, 60))).counts, { applied: 60 })
    t.match((await push(b, a, await wipe(a, b, 40))).counts, { applied: 40 })
    await t.rejects(push(b, a, await wipe(a, b, 1)), {
      code: 'SYNC_RUN_BRAKED',
      message: /what a\d+ pushes of "place" would delete 101 of 400 records/,
    })
    t.equal(await living(b), 300, 'nothing of the batch was written')
    const [brake] = (await listBrakes(b.store.db, { open: true })).items
    t.match(brake, { direction: 'receive', rules: ['deletes'], facts: { deletes: 101, living: 400 } })

    await b.sql(`update syncline.brake_meter set since = since - interval '61 minutes'`)
    t.match((await push(b, a, await wipe(a, b, 100))).counts, { applied: 100 }, 'the next hour')
  },
)

t.test('I10: what a person released goes on for what was announced, and not for more', async (t) => {
  const [a, b] = await pair(1_000)
  await t.rejects(push(b, a, await wipe(a, b, 200), 500), { code: 'SYNC_RUN_BRAKED' })
  await t.rejects(push(b, a, await wipe(a, b, 200), 500), { code: 'SYNC_RUN_BRAKED' })
  const [brake, ...others] = (await listBrakes(b.store.db, { open: true })).items
  t.same(others, [])
  t.match(brake, { times: 2, reason: /it announces 500 deletions in all/, facts: { deletes: 200, announced: 500 } })
  await releaseBrake(b.store.db, { token: brake?.token ?? '', by: 'ann' })
  for (let n = 0; n < 3; n++) t.match((await push(b, a, await wipe(a, b, 200))).counts, { applied: 200 })
  await t.rejects(push(b, a, await wipe(a, b, 200)), { code: 'SYNC_RUN_BRAKED', message: /delete 800 of 1,000/ })
  t.equal(await living(b), 400)
})

t.test('I10: the limits of a grant are its own, for deletions and for changes', async (t) => {
  const [a, b] = await pair(50)
  const grant = { peerId: peerOf(b, a).id, resource: 'place', direction: 'push' }
  await setGrant(b.store.db, { ...grant, maxDeletes: '3', maxChanges: '10%' })
  await t.rejects(push(b, a, await wipe(a, b, 4)), { code: 'SYNC_RUN_BRAKED' })
  await a.sql('update place set n = n + 1 where n <= 5')
  await pushAll(a, b)
  t.equal(Number((await b.sql(`select count(*) as n from place where name <> 'place ' || n`))[0]?.n), 5)
  await a.sql('update place set n = n + 1 where n > 40')
  await t.rejects(pushAll(a, b), { code: 'SYNC_RUN_BRAKED', message: /would change 15 of 50 records \(30 %\) here/ })
  await setGrant(b.store.db, { ...grant, maxDeletes: 'none', maxChanges: 'none' })
  await pushAll(a, b)
  t.match((await push(b, a, await wipe(a, b))).counts, { applied: 50 })
  await t.rejects(setGrant(b.store.db, { ...grant, maxDeletes: 'many' }), { code: 'SYNC_REQUEST_INVALID' })
})

t.test('I9: what was stopped stops nothing any more when both sites are found equal', async (t) => {
  const [a, b] = await pair(400)
  await t.rejects(push(b, a, await wipe(a, b, 200)), { code: 'SYNC_RUN_BRAKED' })
  const compare = async (of: Site) => {
    const total = await totalOf(of.store, {
      resource: await findResource(of.store.db, 'place'),
      filter: undefined,
      keptFrom: 0,
    })
    return answerComparison(b.store, peerOf(b, a), { resource: 'place', records: total.records, sum: total.sum })
  }
  const [open] = (await listBrakes(b.store.db, { open: true })).items
  await a.sql(`delete from place where n > 390`)
  t.not((await compare(a)).verdict, 'equal')
  t.equal((await listBrakes(b.store.db, { open: true })).items.length, 1, 'as long as they differ it waits')
  await pushAll(a, b)
  t.match(await compare(a), { verdict: 'equal', records: 390 })
  t.same((await listBrakes(b.store.db, { open: true })).items, [])
  t.match(await findBrake(b.store.db, open?.token ?? ''), { ending: 'cleared', releasedAt: null })
  await t.rejects(releaseBrake(b.store.db, { token: open?.token ?? '', by: 'bob' }), {
    code: 'SYNC_REQUEST_SETTLED',
    message: /nothing was left/,
  })

  await t.rejects(push(b, a, await wipe(a, b, 200)), { code: 'SYNC_RUN_BRAKED' })
  const [again] = (await listBrakes(b.store.db, { open: true })).items
  await releaseBrake(b.store.db, { token: again?.token ?? '', by: 'ann' })
  await b.sql(`update syncline.brake set used_at = now() where ended_at is null`)
  await compare(a)
  t.match(await findBrake(b.store.db, again?.token ?? ''), { ending: 'used' }, 'one that let something pass is used up')
})

t.test('new records meet no brake, however many', async (t) => {
  const [a, b] = await pair(1)
  const grant = { peerId: peerOf(b, a).id, resource: 'place', direction: 'push' }
  await setGrant(b.store.db, { ...grant, maxDeletes: '0', maxChanges: '0' })
  await a.sql(`insert into place (name) select 'new ' || n from generate_series(1, 300) n`)
  await pushAll(a, b)
  t.equal(await living(b), 301)
})

t.test(
  'two sites of one UUID are told by a former mark that comes back, and stay stopped until a person has looked',
  async (t) => {
    const [a, b] = await pair(1)
    const peer = peerOf(b, a)
    const later = () => b.sql(`update syncline.peer_mark set superseded_at = superseded_at - interval '2 minutes'`)
    await meetMark(b.store.db, peer, 'first')
    await meetMark(b.store.db, peer, 'first')
    await meetMark(b.store.db, peer, 'second')
    await meetMark(b.store.db, peer, 'first')
    t.same((await listBrakes(b.store.db, { open: true })).items, [], 'a request that was under way')
    await meetMark(b.store.db, peer, 'third')
    await later()
    await t.rejects(meetMark(b.store.db, peer, 'first'), { code: 'SYNC_PEER_CLONED', message: new RegExp(peer.uuid) })
    await t.rejects(
      meetMark(b.store.db, peer, 'third'),
      { code: 'SYNC_PEER_CLONED' },
      'which of the two is the copy nobody knows',
    )
    const [brake] = (await listBrakes(b.store.db, { open: true })).items
    t.match(brake, { direction: 'peer', resource: null, rules: ['clone'] })
    await releaseBrake(b.store.db, { token: brake?.token ?? '', by: 'ann' })
    await meetMark(b.store.db, peer, 'first')
    await later()
    await meetMark(b.store.db, peer, 'first')
    await meetMark(b.store.db, peer, 'third')
    await later()
    await t.rejects(meetMark(b.store.db, peer, 'first'), { code: 'SYNC_PEER_CLONED' }, 'the copy lives still')
  },
)
