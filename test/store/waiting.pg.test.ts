import t, { type Test } from 'tap'
import {
  applyPull,
  attach,
  countTold,
  createTask,
  discardQuarantined,
  findQuarantined,
  listDiscards,
  listElsewhere,
  listQuarantine,
  notePushed,
  noteTold,
  offerRefused,
  retryAltered,
  reviveBlocked,
  serveChosen,
  setGrant,
  takeMissing,
  toldTo,
} from '../../src/store/index.ts'
import { type BatchReport, changesOfLines } from '../../src/sync/index.ts'
import {
  chance,
  introduce,
  LIMITS,
  linkOf,
  peerOf,
  pullAll,
  pushAll,
  recordOf,
  type Site,
  siteFactory,
  syncOnce,
  TASK,
  versionsOf,
} from '../support/sites.ts'

const sites = await siteFactory(t)

const PERSON = `
  create table person (id uuid primary key default gen_random_uuid(), name text);
  create table visit (id uuid primary key default gen_random_uuid(), person uuid not null references person, note text)`
const TABLES = ['person', 'visit']
const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

let serial = 0

async function pair(ddl = PERSON, tables = TABLES): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, ddl, tables)
  const b = await sites.make(`b${serial}`, ddl, tables)
  await introduce(a, b)
  return [a, b]
}

/** What a run of `here` with `there` ends with, when it was complete: both sides look for deletions that can never go through. */
async function endOfRun(here: Site, there: Site): Promise<number> {
  const mine = await reviveBlocked(here.store, linkOf(here, there), 'pull', null, LIMITS)
  const theirs = await reviveBlocked(there.store, linkOf(there, here), 'push', null, LIMITS)
  return mine.length + theirs.length
}

async function run(here: Site, there: Site): Promise<number> {
  await syncOnce(here, there)
  return endOfRun(here, there)
}

const waitingAt = (site: Site) =>
  site.sql('select record_id, code, waits_record_id, attempts from syncline.quarantine order by record_id')
const contents = async (site: Site) => [
  await site.sql('select * from person order by id'),
  await site.sql('select * from visit order by id'),
]

async function equal(t: Test, ...all: readonly Site[]): Promise<void> {
  const [first, ...rest] = all
  for (const other of rest) {
    t.same(await contents(other), await contents(first as Site), `${other.name} has what ${first?.name} has`)
    t.same(await versionsOf(other), await versionsOf(first as Site))
  }
  for (const site of all) t.same(await waitingAt(site), [], `nothing waits at ${site.name}`)
}

t.test('I1, I3: a deletion that crosses a new reference loses, whichever side does the connecting', async (t) => {
  for (const connects of ['deleter', 'keeper'] as const) {
    const [a, b] = await pair()
    await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada'), ('${id(2)}', 'Bea')`)
    await syncOnce(a, b)
    await a.sql(`delete from person where id = '${id(1)}'`)
    await b.sql(`insert into visit (id, person, note) values ('${id(11)}', '${id(1)}', 'unknown to a')`)
    const [here, there] = connects === 'deleter' ? [a, b] : [b, a]
    await syncOnce(here, there)
    t.match(await waitingAt(b), [{ record_id: id(1), code: 'SYNC_RECORD_STILL_REFERENCED' }])
    t.match(await waitingAt(a), [{ record_id: id(11), code: 'SYNC_RECORD_PARENT_MISSING', waits_record_id: id(1) }])
    t.equal(await endOfRun(here, there), 1, 'the deletion loses where the reference lives')
    const revived = await recordOf(b, id(1))
    t.match(revived, { origin: b.self.uuid, deleted: false, source: null })
    t.match(
      await b.sql(`select reason, deleted from syncline.history where record_id = '${id(1)}' and reason = 'revived'`),
      [{ reason: 'revived', deleted: true }],
    )
    t.match(await b.sql(`select message from syncline.log where action = 'revive'`), [
      { message: /its deletion by .* lost: rows of public\.visit/ },
    ])
    await run(here, there)
    await run(here, there)
    await equal(t, a, b)
    t.equal((await a.sql('select from visit')).length, 1)
    t.equal(await run(here, there), 0, 'and nothing goes on')
    t.equal((await b.sql(`select from syncline.log where action = 'revive'`)).length, 1)
  }
})

t.test('I1, I3: it loses at three sites alike, when two of them keep it at once', async (t) => {
  serial++
  const [hub, a, b, c] = [
    await sites.make(`hub${serial}`, PERSON, TABLES),
    await sites.make(`a${serial}`, PERSON, TABLES),
    await sites.make(`b${serial}`, PERSON, TABLES),
    await sites.make(`c${serial}`, PERSON, TABLES),
  ]
  for (const leaf of [a, b, c]) await introduce(leaf, hub)
  await a.sql(
    `insert into person (id, name) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'p' || n from generate_series(1, 6) n`,
  )
  for (const leaf of [a, b, c]) await run(leaf, hub)
  await a.sql(`delete from person where id in ('${id(1)}', '${id(2)}', '${id(3)}')`)
  await b.sql(`insert into visit (id, person) values ('${id(21)}', '${id(1)}'), ('${id(22)}', '${id(2)}')`)
  await c.sql(`insert into visit (id, person) values ('${id(31)}', '${id(1)}'), ('${id(33)}', '${id(5)}')`)
  await c.sql(`update person set name = 'renamed at c' where id = '${id(4)}'`)
  // The deletion is at the hub before any reference, so both other sites meet it alone.
  await run(a, hub)
  t.equal(await run(b, hub), 2)
  t.equal(await run(c, hub), 1, 'what b keeps is not at the hub yet')
  for (let round = 0; round < 3; round++) for (const leaf of [a, b, c]) await run(leaf, hub)
  await equal(t, hub, a, b, c)
  t.same(
    (await a.sql('select id from person order by id')).map((row) => row.id),
    [id(1), id(2), id(4), id(5), id(6)],
  )
})

t.test('I3: two sites that keep the same record at once agree on it', async (t) => {
  serial++
  const [a, b, c] = [
    await sites.make(`x${serial}`, PERSON, TABLES),
    await sites.make(`y${serial}`, PERSON, TABLES),
    await sites.make(`z${serial}`, PERSON, TABLES),
  ]
  for (const [one, other] of [
    [a, b],
    [b, c],
    [c, a],
  ] as const)
    await introduce(one, other)
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada')`)
  for (let round = 0; round < 2; round++)
    for (const [one, other] of [
      [a, b],
      [b, c],
      [c, a],
    ] as const)
      await run(one, other)
  await a.sql(`delete from person where id = '${id(1)}'`)
  await b.sql(`insert into visit (id, person) values ('${id(12)}', '${id(1)}')`)
  await c.sql(`insert into visit (id, person) values ('${id(13)}', '${id(1)}')`)
  t.equal(await run(b, a), 1)
  t.equal(await run(c, a), 1, 'what b keeps is not at a yet')
  for (let round = 0; round < 4; round++)
    for (const [one, other] of [
      [a, b],
      [b, c],
      [c, a],
    ] as const)
      await run(one, other)
  await equal(t, a, b, c)
  t.equal((await a.sql('select from visit')).length, 2)
})

t.test(
  'I1, I3: writers at three sites who add, move and delete parents and children at random end alike, with nothing waiting',
  async (t) => {
    for (const [seed, links] of [
      [1, 'ring'],
      [2, 'ring'],
      [3, 'star'],
      [4, 'star'],
    ] as const) {
      serial++
      const all = [
        await sites.make(`r${serial}a`, PERSON, TABLES),
        await sites.make(`r${serial}b`, PERSON, TABLES),
        await sites.make(`r${serial}c`, PERSON, TABLES),
      ] as const
      const [a, b, c] = all
      const pairs =
        links === 'ring'
          ? ([
              [a, b],
              [b, c],
              [c, a],
            ] as const)
          : ([
              [b, a],
              [c, a],
            ] as const)
      for (const [one, other] of pairs) await introduce(one, other)
      const random = chance(seed)
      const some = `(select id from person order by md5(id::text || ${seed}) offset greatest(0, (select count(*)::int from person)`
      for (let step = 0; step < 150; step++) {
        const site = all[random(3)] as Site
        const pick = `${some} * ${random(1_000)} / 1000) limit 1)`
        const n = id(10_000 + step)
        const acts = [
          `insert into person (id, name) values ('${n}', '${site.name}')`,
          `insert into visit (id, person, note) select '${n}', id, 'x' from person where id = ${pick}`,
          `insert into visit (id, person, note) select '${n}', id, 'y' from person where id = ${pick}`,
          `delete from person p where id = ${pick} and not exists (select from visit v where v.person = p.id)`,
          `delete from person p where not exists (select from visit v where v.person = p.id) and md5(id::text) < '4'`,
          `delete from visit where id = (select id from visit order by md5(id::text || ${step}) limit 1)`,
          `update visit set person = p.id, note = note || '${step}' from person p where p.id = ${pick} and visit.id = (select id from visit order by md5(id::text || ${step}) limit 1)`,
          `update person set name = name || '${step}' where id = ${pick}`,
        ]
        await site.sql(acts[random(acts.length)] as string)
        if (random(4) === 0) {
          const [one, other] = pairs[random(pairs.length)] as readonly [Site, Site]
          await run(one, other)
        }
      }
      for (let round = 0; round < 8; round++) for (const [one, other] of pairs) await run(one, other)
      await equal(t, ...all)
      t.ok((await a.sql('select from visit')).length > 0)
    }
  },
)

t.test('a deletion that only waits for another one does not lose', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into person (id, name) values ('${id(1)}', 'Ada'); insert into visit (id, person) values ('${id(11)}', '${id(1)}')`,
  )
  await syncOnce(a, b)
  await a.sql(`delete from visit; delete from person`)
  const holder = await b.connect()
  await holder.query(`begin; update visit set note = 'being written'`)
  await pullAll(b, a)
  t.match(await waitingAt(b), [
    { record_id: id(1), code: 'SYNC_RECORD_STILL_REFERENCED' },
    { record_id: id(11), code: 'SYNC_RECORD_IN_USE' },
  ])
  t.equal((await reviveBlocked(b.store, linkOf(b, a), 'pull', null, LIMITS)).length, 0)
  await holder.query('rollback')
  await pullAll(b, a)
  t.same(await contents(b), [[], []])
})

t.test('a deletion that a chain of references blocks loses from the far end on', async (t) => {
  const ddl = `${PERSON}; create table photo (id uuid primary key, visit uuid not null references visit)`
  const [a, b] = await pair(ddl, ['person', 'visit', 'photo'])
  await a.sql(
    `insert into person (id, name) values ('${id(1)}', 'Ada'); insert into visit (id, person) values ('${id(11)}', '${id(1)}')`,
  )
  await syncOnce(a, b)
  await a.sql('delete from visit; delete from person')
  await b.sql(`insert into photo (id, visit) values ('${id(21)}', '${id(11)}')`)
  await syncOnce(b, a)
  t.equal(await endOfRun(b, a), 2)
  await run(b, a)
  await run(b, a)
  await equal(t, a, b)
  t.equal((await a.sql('select from photo')).length, 1)
})

t.test('a record that only left the filter of a link is not revived', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada')`)
  const options = { filter: `name = 'Ada'`, task: { onLeft: 'remove' as const }, resources: ['person'] }
  await createTask(b.store.db, { peerId: peerOf(b, a).id, resource: 'person', mode: 'pull', onLeft: 'remove' })
  await pullAll(b, a, options)
  await b.sql(`insert into visit (id, person) values ('${id(11)}', '${id(1)}')`)
  await a.sql(`update person set name = 'Bea'`)
  await pullAll(b, a, options)
  t.match(await waitingAt(b), [{ record_id: id(1), code: 'SYNC_RECORD_STILL_REFERENCED' }])
  t.equal((await reviveBlocked(b.store, linkOf(b, a), 'pull', null, LIMITS)).length, 0)
})

t.test('I8: a row that was in use is tried in the next run, without waiting for it anew', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada')`)
  await syncOnce(a, b)
  await a.sql(`update person set name = 'Ada L.'`)
  const holder = await b.connect()
  await holder.query(`begin; update person set name = 'held'`)
  const start = performance.now()
  await pullAll(b, a)
  const first = performance.now() - start
  t.match(await waitingAt(b), [{ code: 'SYNC_RECORD_IN_USE', attempts: 2 }])
  const began = performance.now()
  await pullAll(b, a)
  const took = performance.now() - began
  t.ok(took < first / 2, `a look, not the patience of a first try: ${Math.round(took)} against ${Math.round(first)} ms`)
  t.match(await waitingAt(b), [{ code: 'SYNC_RECORD_IN_USE', attempts: 3 }])
  await holder.query('rollback')
  await pullAll(b, a)
  t.same(await waitingAt(b), [])
  t.match(await b.sql('select name from person'), [{ name: 'Ada L.' }])
})

t.test('an entry says how many records wait for it, in one step or several', async (t) => {
  const ddl = `create table node (id uuid primary key, parent uuid not null references node, name text check (name <> 'bad'))`
  const a = await sites.make('ga', ddl.replace(` check (name <> 'bad')`, ''), ['node'])
  const b = await sites.make('gb', ddl, ['node'])
  await introduce(a, b)
  await a.sql(
    `insert into node (id, parent, name) values ('${id(1)}', '${id(1)}', 'bad'), ('${id(2)}', '${id(1)}', 'x'), ('${id(3)}', '${id(1)}', 'y'), ('${id(4)}', '${id(3)}', 'z')`,
  )
  await pullAll(b, a)
  const entries = await listQuarantine(b.store.db, { limit: 10 })
  t.same(
    entries
      .toSorted((x, y) => (x.recordId < y.recordId ? -1 : 1))
      .map(({ recordId, dependants }) => [recordId, dependants]),
    [
      [id(1), 3],
      [id(2), 0],
      [id(3), 1],
      [id(4), 0],
    ],
  )
})

t.test('what waits is tried again when the grant or the table changes', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada')`)
  await b.sql(`alter table person add constraint short check (length(name) < 3)`)
  await pushAll(a, b)
  const retryAt = async () =>
    Date.parse((await listQuarantine(b.store.db, { limit: 1 }))[0]?.retryAt ?? '') - Date.now()
  t.ok((await retryAt()) > 10_000)
  await setGrant(b.store.db, { peerId: peerOf(b, a).id, resource: 'person', direction: 'push' })
  t.ok((await retryAt()) < 1_000, 'the grant was renewed')
  await b.sql(
    `update syncline.quarantine set retry_at = now() + interval '1 hour'; alter table person drop constraint short`,
  )
  await attach(b.store, [{ table: 'person' }])
  t.ok((await retryAt()) < 1_000, 'the table was attached again')
  await pushAll(a, b)
  t.match(await b.sql('select name from person'), [{ name: 'Ada' }])
})

t.test('what waits is tried again when a constraint, index or trigger of its table changes', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada')`)
  await b.sql(`alter table person add constraint short check (length(name) < 3)`)
  await pullAll(b, a)
  t.equal(await retryAltered(b.store.db), 0, 'the first look')
  t.equal(await retryAltered(b.store.db), 0)
  await b.sql(`alter table person drop constraint short; create unique index on person (name)`)
  t.equal(await retryAltered(b.store.db), 1)
  t.equal(await retryAltered(b.store.db), 0)
  await pullAll(b, a)
  t.match(await b.sql('select name from person'), [{ name: 'Ada' }])
  t.equal(await retryAltered(b.store.db), 0)
})

t.test('a deletion deep in a tree goes unless a row that stays refers to it, with an index or without', async (t) => {
  for (const index of ['', '; create index on node (parent)']) {
    const ddl = `create table node (id uuid primary key, parent uuid references node, name text)${index}`
    const [a, b] = await pair(ddl, ['node'])
    const uuid = (n: string) => `('00000000-0000-4000-8000-' || lpad((${n})::text, 12, '0'))::uuid`
    await a.sql(
      `insert into node (id, parent) select ${uuid('n')}, case when n % 100 <> 1 then ${uuid('n - 1')} end from generate_series(1, 300) n`,
    )
    await syncOnce(a, b)
    // Three chains of a hundred. At b a row of its own hangs on the end of the first, and one in the middle of the second.
    await b.sql(`insert into node (id, parent) values ('${id(901)}', '${id(100)}'), ('${id(902)}', '${id(150)}')`)
    await a.sql('delete from node')
    await pullAll(b, a)
    const left = (await b.sql('select id from node order by id')).map((row) => Number(String(row.id).slice(-12)))
    t.same(left, [...Array.from({ length: 150 }, (_, n) => n + 1), 901, 902])
    t.equal((await waitingAt(b)).length, 150)
    t.match(await b.sql('select distinct reason from syncline.quarantine'), [
      { reason: 'rows of public.node still refer to it by parent' },
    ])
    t.equal((await reviveBlocked(b.store, linkOf(b, a), 'pull', null, LIMITS)).length, 150)
    t.same(await waitingAt(b), [])
  }
})

t.test(
  'a record that was given up is told to its site, and is no longer one when a later version is here',
  async (t) => {
    const [a, b] = await pair()
    await b.sql(`alter table person add constraint short check (length(name) < 5)`)
    await a.sql(`insert into person (id, name) values ('${id(1)}', 'too long'), ('${id(2)}', 'also too long')`)
    await pullAll(b, a)
    const entries = await listQuarantine(b.store.db, { limit: 10 })
    const entry = entries.find(({ recordId }) => recordId === id(1))
    t.equal(
      await discardQuarantined(b.store.db, entry?.id ?? '', { by: 'the operator', because: 'a test entry' }),
      true,
    )
    t.equal(await findQuarantined(b.store.db, entry?.id ?? ''), null)
    t.match(await b.sql(`select message, result from syncline.log where action = 'discard'`), [
      { message: new RegExp(`${id(1)} was given up by the operator because a test entry`), result: 'warning' },
    ])
    t.same(await countTold(b.store.db, peerOf(b, a).id), { quarantined: 1, discarded: 1 })
    const told = await toldTo(b.store.db, peerOf(b, a).id)
    await noteTold(a.store.db, peerOf(a, b).id, told)
    const there = await listElsewhere(a.store.db, { limit: 10 })
    t.match(
      there.find(({ recordId }) => recordId === id(1)),
      {
        outcome: 'discarded',
        decidedBy: 'the operator',
        because: 'a test entry',
        reason: /short/,
        peer: b.name,
      },
    )
    t.match(
      there.find(({ recordId }) => recordId === id(2)),
      { outcome: 'quarantined', reason: /short/, attempts: 1 },
    )
    // Offered again as it is, it stays given up; changed, it comes.
    await b.sql('delete from syncline.checkpoint')
    await pullAll(b, a)
    t.match(await waitingAt(b), [{ record_id: id(2) }])
    await a.sql(`update person set name = 'ok'`)
    t.match(await listElsewhere(a.store.db, { limit: 10, recordIds: [id(1)] }), [], 'its version there is another now')
    await pullAll(b, a)
    t.same(await listDiscards(b.store.db, { limit: 10 }), [])
    t.match(await b.sql('select name from person'), [{ name: 'ok' }, { name: 'ok' }])
    await noteTold(a.store.db, peerOf(a, b).id, await toldTo(b.store.db, peerOf(b, a).id))
    t.same(await listElsewhere(a.store.db, { limit: 10 }), [])
  },
)

t.test('what waits at a peer keeps its number from one run to the next, whatever else is told', async (t) => {
  const [a, b] = await pair()
  await b.sql(`alter table person add constraint short check (length(name) < 5)`)
  const tell = async () => noteTold(a.store.db, peerOf(a, b).id, await toldTo(b.store.db, peerOf(b, a).id))
  const numbers = async () =>
    Object.fromEntries((await listElsewhere(a.store.db, { limit: 10 })).map((each) => [each.recordId, each.id]))
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'too long'), ('${id(2)}', 'longer still')`)
  await pushAll(a, b)
  await tell()
  const before = await numbers()
  t.same(Object.keys(before).sort(), [id(1), id(2)])
  await tell()
  t.same(await numbers(), before)
  await a.sql(`insert into person (id, name) values ('${id(3)}', 'and this one')`)
  await a.sql(`update person set name = 'fits' where id = '${id(2)}'`)
  await pushAll(a, b)
  await tell()
  const after = await numbers()
  t.same(Object.keys(after).sort(), [id(1), id(3)], 'what was taken there is forgotten here')
  t.equal(after[id(1)], before[id(1)])
  const [entry] = await listQuarantine(b.store.db, { limit: 10 }).then((all) =>
    all.filter((each) => each.recordId === id(1)),
  )
  await discardQuarantined(b.store.db, entry?.id ?? '', { by: 'ann' })
  await tell()
  t.match(await listElsewhere(a.store.db, { id: before[id(1)], limit: 1 }), [{ recordId: id(1), outcome: 'discarded' }])
})

t.test('what a peer tells of nothing we have changes nothing, and is bounded', async (t) => {
  const [a, b] = await pair()
  const one = {
    resource: 'person',
    id: id(1),
    version: null,
    code: 'SYNC_RECORD_CONSTRAINT',
    reason: `${'x'.repeat(9_000)}\0`,
    waitsFor: { resource: 'unheard of', id: null },
    dependants: 2_000_000_000,
    attempts: 1,
    firstAt: '2026-11-22T09:30:00Z',
    lastAt: '2026-11-22T09:30:00Z',
    retryAt: null,
  }
  const told = {
    counts: { quarantined: 3, discarded: 0 },
    quarantined: [one, one, { ...one, resource: 'nothing' }],
    discarded: [],
  }
  await noteTold(a.store.db, peerOf(a, b).id, told)
  await noteTold(a.store.db, peerOf(a, b).id, told)
  const found = await listElsewhere(a.store.db, { limit: 10 })
  t.equal(found.length, 1)
  t.match(found, [{ recordId: id(1), dependants: 1_000, waitsFor: { resource: 'unheard of', id: null } }])
  t.equal(found[0]?.reason.length, 2_000)
})

t.test('the answer to a push tells what waits there; what is taken later is forgotten', async (t) => {
  const [a, b] = await pair()
  await b.sql(`alter table person add constraint short check (length(name) < 5)`)
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'too long'), ('${id(2)}', 'ok')`)
  const { reports } = await pushAll(a, b)
  const [report] = reports
  const resourceId = Number((await a.sql(`select id from syncline.resource where name = 'person'`))[0]?.id)
  const link = { peerId: peerOf(a, b).id, resourceId, terms: 'as of now' }
  const dots = await a.sql(`select record_id, clock::text from syncline.record order by 1`)
  const batch = {
    origins: [a.self.uuid],
    text: dots.map((row) => `${JSON.stringify(row.record_id)}\t${row.clock}\t0\t\tp\t[]`).join('\n'),
  }
  const note = (given: BatchReport) => a.store.db.transaction().execute((trx) => notePushed(trx, link, batch, given))
  await note(report as never)
  t.match(await listElsewhere(a.store.db, { limit: 10 }), [
    { recordId: id(1), outcome: 'quarantined', attempts: 1, reason: /short/ },
  ])
  await note(report as never)
  t.match(await listElsewhere(a.store.db, { limit: 10 }), [{ recordId: id(1), attempts: 2 }])
  await note({ ...(report as object), rejections: [] } as never)
  t.same(await listElsewhere(a.store.db, { limit: 10 }), [])
})

t.test('what a peer refused is offered again when its terms change, once', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada')`)
  await setGrant(b.store.db, { peerId: peerOf(b, a).id, resource: 'person', direction: 'push', filter: `name = 'Bea'` })
  const { reports } = await pushAll(a, b)
  t.match(reports[0], { counts: { refused: 1 } })
  const resourceId = Number((await a.sql(`select id from syncline.resource where name = 'person'`))[0]?.id)
  const link = { peerId: peerOf(a, b).id, resourceId, terms: 'narrow' }
  const text = `"${id(1)}"\t1\t0\t\tp\t[]`
  await a.store.db
    .transaction()
    .execute((trx) => notePushed(trx, link, { text, origins: [a.self.uuid] }, reports[0] as never))
  t.equal(await offerRefused(a.store.db, link.peerId, new Map([['person', 'narrow']])), 0)
  await setGrant(b.store.db, { peerId: peerOf(b, a).id, resource: 'person', direction: 'push' })
  t.equal(await offerRefused(a.store.db, link.peerId, new Map([['person', 'wide']])), 1)
  t.equal(await offerRefused(a.store.db, link.peerId, new Map([['person', 'wide']])), 0)
  await pushAll(a, b)
  t.match(await b.sql('select name from person'), [{ name: 'Ada' }], 'I1: it was refused for a while')
})

t.test('a missing record is asked for by id, within grant and filter, and not again and again', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into person (id, name) values ('${id(1)}', 'Ada'), ('${id(2)}', 'Bea')`)
  await a.sql(`insert into visit (id, person) values ('${id(11)}', '${id(1)}'), ('${id(12)}', '${id(2)}')`)
  await pullAll(b, a, { resources: ['visit'] })
  const peerId = peerOf(b, a).id
  t.same(await takeMissing(b.store.db, peerId, ['visit']), [], 'only of resources that may be pulled')
  const missing = await takeMissing(b.store.db, peerId, ['person', 'visit'])
  t.same(missing, [{ resource: 'person', ids: [id(1), id(2)] }])
  t.same(await takeMissing(b.store.db, peerId, ['person', 'visit']), [], 'asked a moment ago')
  const ask = (request: object) =>
    serveChosen(a.store, linkOf(a, b), { resource: 'person', ids: [id(1), id(2), id(3)], ...request }, LIMITS)
  t.same(
    changesOfLines(await ask({})).map(({ id }) => id),
    [id(1), id(2)],
  )
  t.same(
    changesOfLines(await ask({ filter: `name = 'Bea'` })).map(({ id }) => id),
    [id(2)],
  )
  t.match(
    await a.sql('select record_id from syncline.shared'),
    [{ record_id: id(2) }],
    'it hears when that one leaves the filter',
  )
  await setGrant(a.store.db, {
    peerId: peerOf(a, b).id,
    resource: 'person',
    direction: 'pull',
    filter: `name = 'Ada'`,
    columns: ['name'],
  })
  t.same(
    changesOfLines(await ask({})).map(({ id }) => id),
    [id(1)],
    'I10: within the grant',
  )
  await t.rejects(ask({ ids: Array.from({ length: 101 }, (_, n) => id(n)) }), { code: 'SYNC_REQUEST_TOO_LARGE' })
  await t.rejects(ask({ resource: 'visit', filter: 'nonsense = 1' }), { code: 'SYNC_FILTER_INVALID' })
  const batch = await ask({})
  t.equal(batch.next, undefined)
  await applyPull(b.store, linkOf(b, a), { task: TASK, batch, runId: null }, LIMITS)
  t.match(
    await b.sql(
      `select value from syncline.checkpoint c join syncline.resource r on r.id = c.resource_id where r.name = 'person'`,
    ),
    [],
    'I5: no checkpoint moves',
  )
  await pullAll(b, a, { resources: ['visit'] })
  t.match(await b.sql('select id from visit'), [{ id: id(11) }])
  const waiting = await listQuarantine(b.store.db, { limit: 5 })
  await discardQuarantined(b.store.db, waiting[0]?.id ?? '', { by: 'a person' })
})
