import t from 'tap'
import { applyPull, horizon, newLog, readSelf, serveChanges, setGrant } from '../../src/store/index.ts'
import { type Change, changesOfLines, formatCheckpoint, parseCheckpoint } from '../../src/sync/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  onlyPut,
  peerOf,
  pullAll,
  recordOf,
  type Site,
  serveAll,
  siteFactory,
  syncOnce,
  TASK,
  totalOf,
  versionsOf,
} from '../support/sites.ts'

const sites = await siteFactory(t)

const DDL = `
  create table region (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text, open bool);
  create table city (id uuid primary key default gen_random_uuid(), region_id int references region, name text, people int, note text, doc jsonb)`
const TABLES = ['region', 'city']

let serial = 0

/** Sites with the same tables, each introduced to the next. */
async function chain(length: number): Promise<Site[]> {
  const made: Site[] = []
  for (let n = 0; n < length; n++) {
    made.push(await sites.make(`s${++serial}`, DDL, TABLES))
    if (n > 0) await introduce(made[n - 1] as Site, made[n] as Site)
  }
  return made
}

async function pair(): Promise<readonly [Site, Site]> {
  const [a, b] = await chain(2)
  return [a as Site, b as Site]
}

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

const say = (change: Change) => `${change.kind} ${Number(change.id.slice(-12))}`

t.test('batches are bounded by rows and can be resumed at every checkpoint', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into city (id, name) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'c' || n from generate_series(1, 10) n`,
  )
  await a.sql(`insert into city (id) values ('${id(11)}')`)
  await a.sql(`delete from city where id = '${id(3)}'`)
  const whole = await serveAll(a, b, 'city')
  t.equal(whole.ids.length, 11, 'a baseline tells of the dead too')
  for (const batchRowsMax of [1, 2, 3, 7, 10, 11, 12]) {
    const { batches, ids, checkpoint } = await serveAll(a, b, 'city', { limits: { batchRowsMax } })
    t.ok(batches.every((batch) => batch.count <= batchRowsMax))
    t.same(ids, whole.ids, `${batchRowsMax} at a time`)
    t.equal(checkpoint, whole.checkpoint)
    const counts = batches.map((batch) => batch.count)
    for (const [n, batch] of batches.entries()) {
      const rest = await serveAll(a, b, 'city', { after: batch.next?.checkpoint, limits: { batchRowsMax } })
      t.same(rest.ids, whole.ids.slice(counts.slice(0, n + 1).reduce((x, y) => x + y)))
    }
  }
  const end = await serveAll(a, b, 'city', { after: whole.checkpoint })
  t.match(end, { checkpoint: whole.checkpoint, ids: [] })
  t.match(end.batches, [{ count: 0, text: '', origins: [], next: { more: false } }])
  const asked = await serveChanges(a.store, linkOf(a, b), { resource: 'city', limit: 4 }, LIMITS)
  t.equal(asked.count, 4, 'a peer may ask for less')
  t.equal(
    (await serveChanges(a.store, linkOf(a, b), { resource: 'city', limit: 1e6 }, { ...LIMITS, batchRowsMax: 5 })).count,
    5,
  )
})

t.test(
  'batches are bounded by bytes, also of rows that are stored compressed, and one record always fits',
  async (t) => {
    const [a, b] = await pair()
    await a.sql(`insert into city (name, note) select n, repeat('x', 100000) from generate_series(1, 20) n`)
    const { batches, ids } = await serveAll(a, b, 'city', { limits: { batchBytesMax: 450_000 } })
    t.equal(ids.length, 20)
    t.same(
      batches.map((batch) => batch.count),
      [4, 4, 4, 4, 4],
    )
    t.ok(batches.every((batch) => batch.text.length <= 450_000))
    const single = await serveAll(a, b, 'city', { limits: { batchBytesMax: 10 } })
    t.same(
      single.batches.map((batch) => batch.count),
      Array(20).fill(1),
    )
    await a.sql(
      `update city set note = null, doc = jsonb_build_object('words', array_fill('the same word again'::text, array[2000]))`,
    )
    const packed = await serveAll(a, b, 'city', { limits: { batchBytesMax: 100_000 } })
    t.equal(packed.ids.length, 20)
    t.ok(packed.batches.every((batch) => batch.count >= 1 && batch.text.length <= 400_000))
  },
)

t.test('a baseline that is interrupted and written into meanwhile misses nothing', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into city (id, name) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'c' || n from generate_series(1, 30) n`,
  )
  const limits = { ...LIMITS, batchRowsMax: 7 }
  let after: string | undefined
  for (let round = 1; ; round++) {
    const batch = await serveChanges(a.store, linkOf(a, b), { resource: 'city', after }, limits)
    await applyPull(b.store, linkOf(b, a), { task: TASK, batch, runId: null }, limits)
    after = batch.next?.checkpoint
    if (round <= 4) {
      await a.sql(`update city set people = ${round} where id in ('${id(round)}', '${id(30 - round)}')`)
      await a.sql(`delete from city where id = '${id(10 + round)}'`)
      await a.sql(`insert into city (id) values ('${id(100 + round)}')`)
    } else if (!batch.next?.more) break
  }
  const rows = 'select id, name, people from city order by id'
  t.same(await b.sql(rows), await a.sql(rows))
  t.same(await versionsOf(b), await versionsOf(a))
})

t.test('I4: a change is not sent back over the link that it came by, and goes once over every other', async (t) => {
  const [a, b, c] = (await chain(3)) as [Site, Site, Site]
  await a.sql(`insert into city (id, name) values ('${id(1)}', 'from a')`)
  t.equal((await syncOnce(b, a)).lines, 1)
  t.equal((await syncOnce(b, c)).lines, 1, 'it is relayed')
  t.match(await recordOf(c, id(1)), { origin: a.self.uuid, clock: (await recordOf(a, id(1)))?.clock })
  const quiet = async () => {
    for (const there of [a, c, a]) t.equal((await syncOnce(b, there)).lines, 0)
  }
  await quiet()
  await c.sql(`update city set name = 'from c'`)
  t.equal((await syncOnce(b, c)).lines, 1)
  t.equal((await syncOnce(b, a)).lines, 1)
  t.same(await a.sql('select name from city'), [{ name: 'from c' }])
  await quiet()

  await t.test('in a ring each site hears of it, and the round after that is quiet', async (t) => {
    await introduce(c, a)
    const ring = [
      [a, b],
      [b, c],
      [c, a],
    ] as const
    for (const [here, there] of ring) await syncOnce(here, there)
    for (const [here, there] of ring) await syncOnce(here, there)
    await b.sql(`update city set name = 'around'`)
    const sent = []
    for (let round = 0; round < 3; round++) {
      let lines = 0
      for (const [here, there] of ring) lines += (await syncOnce(here, there)).lines
      sent.push(lines)
    }
    t.equal(sent.at(-1), 0, `${sent}`)
    t.ok((sent[0] ?? 0) + (sent[1] ?? 0) <= 4, `no more than twice over each link: ${sent}`)
    t.same(await a.sql('select name from city'), [{ name: 'around' }])
    t.same(await c.sql('select name from city'), [{ name: 'around' }])
  })
})

t.test('a filter sends what matches, and announces what leaves it', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into city (id, name, people) values ('${id(1)}', 'small', 10), ('${id(2)}', 'big', 1000), ('${id(3)}', 'unknown', null)`,
  )
  const seen: string[] = []
  let after: string | undefined
  const look = async (filter = 'people >= 100') => {
    const batch = await serveChanges(a.store, linkOf(a, b), { resource: 'city', after, filter }, LIMITS)
    after = batch.next?.checkpoint
    seen.push(...changesOfLines(batch).map(say))
    return seen.splice(0).sort()
  }
  t.same(await look(), ['put 2'])
  await a.sql(`update city set people = 100 where id = '${id(1)}'`)
  t.same(await look(), ['put 1'], 'a record that comes to match')
  await a.sql(`update city set people = 5 where id = '${id(2)}'`)
  const left = await serveChanges(a.store, linkOf(a, b), { resource: 'city', after, filter: 'people >= 100' }, LIMITS)
  t.match(changesOfLines(left), [{ kind: 'left', id: id(2), version: { origin: a.self.uuid } }])
  t.same(await look(), ['left 2'], 'asked again with the same checkpoint it says the same')
  await a.sql(`update city set people = 6 where id = '${id(2)}'`)
  t.same(await look(), ['left 2'], 'an edit outside the filter tells nothing but that it is outside')
  await a.sql(`update city set people = 7 where id = '${id(3)}'`)
  t.same(await look(), [], 'what never matched is never mentioned')
  await a.sql(`delete from city where id in ('${id(2)}', '${id(3)}')`)
  t.same(await look(), ['delete 2'], 'nor its deletion, while that of a record that was sent is')
  await a.sql(`insert into city (id, people) values ('${id(2)}', 500)`)
  t.same(await look(), ['put 2'])
  t.same(await look('people >= 100 and people < 400'), ['left 2', 'put 1'], 'another filter begins anew')
})

t.test('a filter may look across a reference, and a change of the parent moves its children', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into region (id, name, open) values (1, 'north', true), (2, 'south', false)`)
  await a.sql(
    `insert into city (id, region_id, name) values ('${id(1)}', 1, 'n'), ('${id(2)}', 2, 's'), ('${id(3)}', null, 'nowhere'), ('${id(4)}', 2, 't')`,
  )
  const options = { filter: 'region.open = true', resources: ['city'] }
  await pullAll(b, a, { resources: ['region'] })
  const names = async () => (await b.sql('select name from city order by name')).map((row) => row.name).join()
  const pull = async () => (await pullAll(b, a, { ...options, task: { onLeft: 'remove' } })).lines
  t.equal(await pull(), 1)
  t.equal(await names(), 'n')
  await a.sql(`update region set open = true where id = 2`)
  t.equal(await pull(), 2, 'children of a parent that comes to match')
  t.equal(await names(), 'n,s,t')
  await a.sql(`update region set open = false where id = 1`)
  t.equal(await pull(), 1, 'children of one that ceases to')
  t.equal(await names(), 's,t')
  t.equal(await pull(), 0, 'nothing moves by itself')
  const before = await recordOf(a, id(2))
  await a.sql(`update region set name = 'other' where id = 2`)
  t.equal(await pull(), 0, 'a change of the parent that changes no match moves nothing')
  t.same(await recordOf(a, id(2)), before)
  await a.sql(
    `update city set region_id = 1 where id = '${id(2)}'; update city set region_id = 2 where id = '${id(3)}'`,
  )
  t.equal(await pull(), 2, 'a child that moves to another parent')
  t.equal(await names(), 'nowhere,t')
  await a.sql(`update city set region_id = null where region_id = 2; delete from region where id = 2`)
  t.equal(await pull(), 2)
  t.equal(await names(), '')

  await t.test('what the peer has not reached yet is not moved before it', async (t) => {
    const [c, d] = await pair()
    await c.sql(`insert into region (id, open) values (1, true), (2, false)`)
    await c.sql(
      `insert into city (id, region_id) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1 + n / 5 from generate_series(1, 9) n`,
    )
    await pullAll(d, c, { resources: ['region'] })
    const limits = { ...LIMITS, batchRowsMax: 3 }
    const request = { resource: 'city', filter: 'region.open = true' }
    const first = await serveChanges(c.store, linkOf(c, d), request, limits)
    await c.sql(`update region set open = true`)
    const unread = () =>
      c.sql(`select record_id, xact::text from syncline.record where record_id in ('${id(5)}', '${id(9)}') order by 1`)
    const places = await unread()
    const seen = []
    for (let after = first.next?.checkpoint; ; ) {
      const batch = await serveChanges(c.store, linkOf(c, d), { ...request, after }, limits)
      seen.push(...changesOfLines(batch).map(say))
      after = batch.next?.checkpoint
      if (!batch.next?.more) break
    }
    t.same(seen.sort(), ['put 4', 'put 5', 'put 6', 'put 7', 'put 8', 'put 9'])
    t.same(await unread(), places)
  })
})

t.test('a record that the peer itself gave is announced too when it leaves the filter', async (t) => {
  const [a, b] = await pair()
  await b.sql(
    `insert into city (id, name, people) values ('${id(1)}', 'mine', 500), ('${id(2)}', 'mine', 500), ('${id(3)}', 'never', 1)`,
  )
  const filter = 'people >= 100'
  await syncOnce(b, a, { filter, resources: ['city'] })
  t.same(await a.sql('select id from city order by id'), [{ id: id(1) }, { id: id(2) }])
  t.equal((await pullAll(b, a, { filter, resources: ['city'] })).lines, 0)
  await a.sql(`update city set people = 1 where id = '${id(1)}'; delete from city where id = '${id(2)}'`)
  const batch = await serveChanges(a.store, linkOf(a, b), { resource: 'city', filter }, LIMITS)
  t.same(changesOfLines(batch).map(say).sort(), ['delete 2', 'left 1'])
})

t.test('I10: only granted columns and records leave, and a filter cannot ask about others', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into city (id, name, people, note) values ('${id(1)}', 'x', 1, 'secret'), ('${id(2)}', 'y', 2, 'secret')`,
  )
  const grant = { peerId: peerOf(a, b).id, resource: 'city', direction: 'pull' }
  await setGrant(a.store.db, { ...grant, columns: ['name', 'people'], filter: 'people > 1' })
  const serve = (request: object) => serveChanges(a.store, linkOf(a, b), { resource: 'city', ...request }, LIMITS)
  t.match(onlyPut(await serve({})), { id: id(2), data: { name: 'y', people: 2 } })
  t.same((await serve({})).columns, ['name', 'people'])
  t.same(onlyPut(await serve({ columns: ['name'] })).data, { name: 'y' })
  t.same(changesOfLines(await serve({ filter: "name = 'x'" })).map(say), ['left 2'], 'both filters must match')
  await t.rejects(serve({ columns: ['name', 'note'] }), { code: 'SYNC_AUTH_FORBIDDEN', message: /not granted: note/ })
  await t.rejects(serve({ filter: "note like 's%'" }), { code: 'SYNC_AUTH_FORBIDDEN', message: /"note"/ })
  await t.rejects(serve({ filter: 'people >' }), { code: 'SYNC_FILTER_INVALID' })
  await t.rejects(serve({ filter: 'nothing = 1' }), { code: /SYNC_(FILTER_INVALID|AUTH_FORBIDDEN)/ })
  await a.sql(`delete from syncline.peer_grant`)
  await t.rejects(serve({}), { code: 'SYNC_AUTH_FORBIDDEN', message: /may not pull "city"/ })
  await t.rejects(serve({ resource: 'syncline.peer' }), { code: 'SYNC_REQUEST_NOT_FOUND' })
})

t.test('a column list narrows what travels, and what is not sent is left alone', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into city (id, name, people, note) values ('${id(1)}', 'x', 1, 'stays here')`)
  await pullAll(b, a, { columns: ['name'], resources: ['city'] })
  await b.sql(`update syncline.record set source = null`)
  t.same(await b.sql('select name, people, note from city'), [{ name: 'x', people: null, note: null }])
  await a.sql(`update city set name = 'y', people = 2`)
  await pullAll(b, a, { columns: ['name'], resources: ['city'] })
  t.same(await b.sql('select name, people, note from city'), [{ name: 'y', people: null, note: null }])
  t.equal(
    (await pullAll(b, a, { columns: ['name', 'note'], resources: ['city'] })).lines,
    1,
    'another list begins anew',
  )
})

t.test('I5: a checkpoint counts only in the log and scope that it was made in', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into city (id, name) values ('${id(1)}', 'x')`)
  const { checkpoint } = await serveAll(a, b, 'city')
  const serve = (after: string, filter?: string) =>
    serveChanges(a.store, linkOf(a, b), { resource: 'city', after, filter }, LIMITS)
  t.equal((await serve(checkpoint)).count, 0)
  t.equal((await serve(checkpoint, "name = 'x'")).count, 1, 'under a filter it begins at zero')
  const filtered = (await serve('', "name = 'x'")).next?.checkpoint ?? ''
  t.equal((await serve(filtered, "name   = 'x'")).count, 0, 'spelling does not matter')
  t.equal((await serve(filtered)).count, 1)
  for (const wrong of ['x', `${checkpoint}x`, 'AAAA'])
    await t.rejects(serve(wrong), { code: 'SYNC_CHECKPOINT_INVALID' })
  const { position, logId } = parseCheckpoint(checkpoint)
  await t.rejects(
    serve(formatCheckpoint({ logId: `${logId.startsWith('x') ? 'y' : 'x'}${logId.slice(1)}`, position })),
    { code: 'SYNC_CHECKPOINT_GONE' },
  )
  const future = formatCheckpoint({ logId, position: { ...position, xact: String(BigInt(position.xact) + 100_000n) } })
  await t.rejects(serve(future), { code: 'SYNC_CHECKPOINT_GONE', message: /put back to an earlier state/ })
  t.not((await readSelf(a.store.db)).logId, logId, 'a checkpoint from the future begins a new log')
  await t.rejects(serve(checkpoint), { code: 'SYNC_CHECKPOINT_GONE' })
  const { logId: second } = await readSelf(a.store.db)
  await newLog(a.store.db)
  t.not((await readSelf(a.store.db)).logId, second)
  t.equal((await serve('')).count, 1, 'and everything is offered again')
})

t.test('I2: after a new log everything is offered again and known at the peer', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into city (id, name) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'c' || n from generate_series(1, 20) n; delete from city where name = 'c1'`,
  )
  await syncOnce(b, a)
  const versions = await versionsOf(b)
  await newLog(a.store.db)
  await t.rejects(pullAll(b, a), { code: 'SYNC_CHECKPOINT_GONE' })
  await b.sql('delete from syncline.checkpoint')
  t.match(totalOf(await pullAll(b, a)), { applied: 0, known: 20 })
  t.same(await versionsOf(b), versions)
})

t.test('the horizon names who holds it back, also from another database', async (t) => {
  const [a, b] = await pair()
  const other = await b.connect()
  await other.query(`set application_name = 'a long report'`)
  await other.query('begin')
  await other.query('select pg_current_xact_id()')
  await a.sql(`insert into city (id) values ('${id(1)}')`)
  t.same((await serveAll(a, b, 'city')).ids, [])
  const held = await horizon(a.store.db)
  t.match(held.holder, /a long report/)
  t.ok(held.ageSeconds > 0)
  await other.query('rollback')
  t.same((await serveAll(a, b, 'city')).ids, [id(1)])
  t.same(await horizon(a.store.db), { ageSeconds: 0, holder: null })
})
