import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  applyPull,
  attach,
  createManaged,
  createPeer,
  detach,
  findResource,
  finishRun,
  listHistory,
  listLog,
  loadResources,
  newLog,
  pruneHistory,
  readCheckpoint,
  readRecords,
  readRun,
  redrive,
  serveChanges,
  startRun,
  type UndoReport,
  undoRun,
} from '../../src/store/index.ts'
import { type Change, changesOfLines, linesOfChanges } from '../../src/sync/index.ts'
import {
  chance,
  introduce,
  LIMITS,
  linkOf,
  openEmbedded,
  peerOf,
  pullAll,
  type Site,
  siteFactory,
  syncOnce,
  TASK,
  versionsOf,
} from '../support/sites.ts'

const DDL = `
  create table country (id text primary key, name text not null, size int8, facts jsonb, tags text[], area numeric(10, 2));
  create table city (id uuid primary key default gen_random_uuid(), country text references country, name text not null unique);
  create table owner (nr serial primary key, uid uuid not null unique default gen_random_uuid(), name text, house int);
  create table house (nr serial primary key, uid uuid not null unique default gen_random_uuid(), owner int not null references owner, name text);
  alter table owner add foreign key (house) references house;`

t.setTimeout(600_000)
const sites = await siteFactory(t)

async function pair(names: readonly string[] = ['a', 'b']): Promise<Site[]> {
  const made: Site[] = []
  for (const name of names) {
    const site = await sites.make(name, DDL)
    await attach(site.store, [
      { table: 'country' },
      { table: 'city' },
      { table: 'owner', key: 'uid' },
      { table: 'house', key: 'uid' },
    ])
    for (const other of made) await introduce(site, other)
    made.push(site)
  }
  return made
}

/** One run in which `here` pulls everything from `there`. */
async function pullRun(here: Site, there: Site, task: Partial<typeof TASK> = {}, rows = 10_000): Promise<string> {
  const peer = peerOf(here, there)
  const { id: runId } = await startRun(here.store.db, { peer, cause: 'hand' })
  const limits = { ...LIMITS, batchRowsMax: rows }
  for (const { id, name } of await loadResources(here.store.db)) {
    for (let more = true; more; ) {
      const after = (await readCheckpoint(here.store.db, peer.id, id, 'pull')) ?? undefined
      const batch = await serveChanges(there.store, linkOf(there, here), { resource: name, after }, limits)
      await applyPull(here.store, linkOf(here, there), { task: { ...TASK, ...task }, batch, runId }, limits)
      more = batch.next?.more ?? false
    }
  }
  await redrive(here.store, here.self, runId, limits)
  await finishRun(here.store.db, runId, { result: 'success' })
  return runId
}

const undo = (site: Site, runId: string, more: Partial<Parameters<typeof undoRun>[2]> = {}): Promise<UndoReport> =>
  undoRun(site.store, site.self, { runId, preview: false, force: [], partial: false, by: 'anna', ...more }, LIMITS)

const countries = (site: Site) => site.sql('select * from country order by id')
const names = async (site: Site) =>
  (await site.sql('select id, name from country order by id')).map((r) => `${r.id} ${r.name}`)

async function converged(t: Test, ...all: readonly Site[]) {
  const [first, ...others] = all as [Site, ...Site[]]
  for (const other of others) {
    t.same(await countries(other), await countries(first), `${other.name} holds what ${first.name} holds`)
    t.same(await versionsOf(other), await versionsOf(first))
  }
}

t.test(
  'a run is taken back: what it brought goes, what it deleted returns, what it replaced is as before; and it syncs on',
  async (t) => {
    const [a, b, c] = (await pair(['a', 'b', 'c'])) as [Site, Site, Site]
    await b.sql(
      `insert into country values ('AT', 'Austria', 9007199254740993, '{"z": 1, "a": [1.50]}', '{x,"y z"}', 83871.10), ('DE', 'Germany', 2, null, null, null), ('CH', 'Swiss', 3, null, null, null)`,
    )
    await syncOnce(a, b)
    await syncOnce(c, a)
    const before = await countries(a)
    await b.sql(`update country set name = 'Österreich', size = 1, facts = null, tags = null, area = 1 where id = 'AT'`)
    await b.sql(`delete from country where id = 'DE'`)
    await b.sql(`insert into country values ('FR', 'France')`)
    const run = await pullRun(a, b)
    await syncOnce(c, a)
    const after = await countries(a)
    t.same(await names(a), ['AT Österreich', 'CH Swiss', 'FR France'])

    const report = await undo(a, run)
    t.match(report, {
      runId: run,
      preview: false,
      counts: { removed: 1, restored: 1, replaced: 1, since: 0, blocked: 0, same: 0, missing: 0 },
    })
    t.same(await countries(a), before, 'every value is as it was, to the last digit')
    const log = await listLog(a.store.db, { runId: report.undoRunId as string })
    t.ok(log.items.some(({ message }) => /taken back by anna: 1 removed, 1 restored, 1 back/.test(message)))
    t.match(await readRun(a.store.db, report.undoRunId as string), {
      cause: `undo of run ${run}`,
      result: 'success',
      state: 'finished',
    })

    await syncOnce(a, b)
    await syncOnce(c, a)
    t.same(await countries(b), before, 'the peer takes it as a change like any other')
    await converged(t, a, b, c)

    const again = await undo(a, report.undoRunId as string)
    t.match(again.counts, { removed: 1, restored: 1, replaced: 1, since: 0 })
    t.same(await countries(a), after, 'undoing the undo puts everything back')
    await syncOnce(a, b)
    await syncOnce(c, a)
    await converged(t, a, b, c)
  },
)

t.test(
  'a run that was taken back already is said to be, and makes no run; a record that it left can still be forced',
  async (t) => {
    const [a, b] = (await pair()) as [Site, Site]
    await b.sql(`insert into country values ('AT', 'Austria'), ('DE', 'Germany'), ('CH', 'Swiss')`)
    await syncOnce(a, b)
    await b.sql(`update country set name = 'Österreich' where id = 'AT'; delete from country where id = 'DE';
    insert into country values ('FR', 'France'); update country set name = 'Suisse' where id = 'CH'`)
    const run = await pullRun(a, b)
    await a.sql(`update country set name = 'Svizzera' where id = 'CH'`)
    const first = await undo(a, run)
    t.match(first, { before: null, counts: { removed: 1, restored: 1, replaced: 1, since: 1 } })
    const runs = async () => Number((await a.sql('select count(*) as n from syncline.run'))[0]?.n)
    const entries = async () => Number((await a.sql('select count(*) as n from syncline.log'))[0]?.n)
    const [runsBefore, entriesBefore] = [await runs(), await entries()]
    for (const preview of [true, false]) {
      const again = await undo(a, run, { preview })
      t.match(again, {
        undoRunId: null,
        before: { runId: first.undoRunId, at: /^20/ },
        counts: { removed: 0, restored: 0, replaced: 0, same: 3, since: 1, blocked: 0 },
        since: [{ id: 'CH', did: 'replaced' }],
      })
    }
    t.same([await runs(), await entries()], [runsBefore, entriesBefore], 'nothing was written, not even to the log')
    t.match(await undo(a, run, { force: ['country/CH'] }), {
      undoRunId: /^\d+$/,
      counts: { replaced: 1, same: 3, since: 0 },
    })
    t.same(await names(a), ['AT Austria', 'CH Swiss', 'DE Germany'])
    await a.sql(`update country set name = 'Autriche' where id = 'AT'`)
    t.match(
      await undo(a, run),
      { undoRunId: null, counts: { same: 3, since: 1 }, since: [{ id: 'AT' }] },
      'an edit after the undo is one',
    )
  },
)

t.test('what somebody changed since is named and left, each with who did it; and taken with force', async (t) => {
  const [a, b, c] = (await pair(['a', 'b', 'c'])) as [Site, Site, Site]
  await b.sql(`insert into country (id, name) select 'C' || n, 'old ' || n from generate_series(1, 4) n`)
  await syncOnce(a, b)
  await b.sql(`update country set name = 'new ' || id where id <> 'C4'`)
  await b.sql(`insert into country (id, name) values ('N1', 'new'), ('N2', 'new'), ('N3', 'new')`)
  const run = await pullRun(a, b)
  await syncOnce(c, a)
  await a.sql(`update country set name = 'local' where id in ('C1', 'N1')`)
  await c.sql(`update country set name = 'third' where id in ('C2', 'N2')`)
  const later = await pullRun(a, c)
  const preview = await undo(a, run, { preview: true })
  const report = await undo(a, run)
  t.same(preview.counts, report.counts, 'a preview counts what then happens')
  t.match(report.counts, { removed: 1, replaced: 1, since: 4 })
  t.same(
    report.since.map(({ id, did, site, via, runId }) => [id, did, site, via, runId]),
    [
      ['C1', 'replaced', 'a', null, null],
      ['C2', 'replaced', 'c', 'c', later],
      ['N1', 'inserted', 'a', null, null],
      ['N2', 'inserted', 'c', 'c', later],
    ],
  )
  t.match(await readRun(a.store.db, report.undoRunId as string), { result: 'warning' })
  t.same(await names(a), ['C1 local', 'C2 third', 'C3 old 3', 'C4 old 4', 'N1 local', 'N2 third'])
  await t.rejects(undo(a, run, { force: ['country/XX'] }), { code: 'SYNC_REQUEST_NOT_FOUND', message: /country\/XX/ })
  const forced = await undo(a, run, { force: ['country/C1', 'country/N2'] })
  t.match(forced.counts, { removed: 1, replaced: 1 })
  t.same(
    forced.since.map(({ id, runId }) => [id, runId]),
    [
      ['C2', later],
      ['N1', null],
    ],
    'what the first undo wrote is taken back, and not said to be changed since',
  )
  t.same(await names(a), ['C1 old 1', 'C2 third', 'C3 old 3', 'C4 old 4', 'N1 local'])
  await syncOnce(a, b)
  await syncOnce(c, a)
  await syncOnce(a, b)
  await converged(t, a, b, c)
})

t.test('a preview writes nothing, and shows the fields that would change', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name, size) values ('AT', 'Austria', 1)`)
  await syncOnce(a, b)
  await b.sql(`update country set size = 2; insert into country (id, name) values ('DE', 'Germany')`)
  const run = await pullRun(a, b)
  const before = [await countries(a), await versionsOf(a), await a.sql('select count(*) from syncline.history')]
  const preview = await undo(a, run, { preview: true })
  t.match(preview, { preview: true, undoRunId: null, counts: { removed: 1, replaced: 1 } })
  t.same(preview.samples.map(({ id, does }) => [id, does]).sort(), [
    ['AT', 'replaced'],
    ['DE', 'removed'],
  ])
  t.same(preview.samples.find(({ id }) => id === 'AT')?.fields, { size: { now: '2', next: '1' } })
  t.ok(preview.bytes > 0)
  t.same([await countries(a), await versionsOf(a), await a.sql('select count(*) from syncline.history')], before)
})

t.test('values that lost a conflict in the run come back', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name) values ('AT', 'Austria'), ('DE', 'Germany')`)
  await syncOnce(a, b)
  await a.sql(`update country set name = 'ours'`)
  await b.sql(`update country set name = 'theirs'`)
  const run = await pullRun(a, b, { onConflict: 'theirs' })
  t.same(await names(a), ['AT theirs', 'DE theirs'])
  const [country] = await loadResources(a.store.db)
  const { items } = await listHistory(a.store.db, country as never, 'AT')
  t.match(items[0], { reason: 'replaced', data: { name: 'ours' } })
  t.match((await undo(a, run)).counts, { replaced: 2 })
  t.same(await names(a), ['AT ours', 'DE ours'])
  await syncOnce(a, b)
  await converged(t, a, b)
})

t.test(
  'parents return before their children and go after them, by number or by identity, in circles too',
  async (t) => {
    const [a, b] = (await pair()) as [Site, Site]
    await b.sql(
      `insert into country (id, name) values ('AT', 'Austria'); insert into city (country, name) values ('AT', 'Graz')`,
    )
    await b.sql(
      `insert into owner (name) values ('Ada'); insert into house (owner, name) select nr, 'first' from owner; update owner set house = (select nr from house)`,
    )
    await a.sql(`select setval('owner_nr_seq', 100), setval('house_nr_seq', 200)`)
    const came = await pullRun(a, b)
    const state = async () => [
      await a.sql('select id, country, name from city'),
      await a.sql('select o.uid, o.name, h.uid as house from owner o left join house h on h.nr = o.house'),
      await a.sql('select h.uid, h.name, o.uid as owner from house h join owner o on o.nr = h.owner'),
      await names(a),
    ]
    const full = await state()
    t.match(full, [[{ name: 'Graz' }], [{ name: 'Ada', house: String }], [{ name: 'first' }], ['AT Austria']])

    const gone = await undo(a, came)
    t.match(gone.counts, { removed: 4, blocked: 0, since: 0 }, 'a circle of two goes as a whole')
    t.same(await state(), [[], [], [], []])
    const back = await undo(a, gone.undoRunId as string)
    t.match(back.counts, { restored: 4, blocked: 0 })
    t.same(await state(), full, 'and returns as a whole, with new numbers')

    await syncOnce(a, b)
    await b.sql('delete from city; delete from country')
    const deleted = await pullRun(a, b)
    t.match(await state(), [[], [{ name: 'Ada' }], [{ name: 'first' }], []])
    t.match((await undo(a, deleted)).counts, { restored: 2, blocked: 0 })
    t.same(await state(), full)
    await syncOnce(a, b)
    await converged(t, a, b)
  },
)

t.test('a parent that the run brought goes when its child is back at the parent from before', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(
    `insert into country (id, name) values ('AT', 'Austria'); insert into city (country, name) values ('AT', 'Graz')`,
  )
  await syncOnce(a, b)
  await b.sql(
    `insert into country (id, name) values ('ST', 'Styria'); update city set country = 'ST'; delete from country where id = 'AT'`,
  )
  const run = await pullRun(a, b)
  t.same(await names(a), ['ST Styria'])
  t.match((await undo(a, run)).counts, { removed: 1, restored: 1, replaced: 1, blocked: 0 })
  t.same(await a.sql('select country, name from city'), [{ country: 'AT', name: 'Graz' }])
  t.same(await names(a), ['AT Austria'])
  await syncOnce(a, b)
  await converged(t, a, b)
})

t.test('what stands in the way is named with its reason, and the rest is taken back', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(
    `insert into country (id, name) values ('AT', 'Austria'), ('DE', 'Germany'); insert into city (name) values ('Graz')`,
  )
  const run = await pullRun(a, b)
  await a.sql(`insert into city (country, name) values ('AT', 'Linz')`)
  const report = await undo(a, run)
  t.match(report.counts, { removed: 2, blocked: 1 })
  t.match(report.blocked, [{ resource: 'country', id: 'AT', code: 'SYNC_RECORD_STILL_REFERENCED', reason: /city/ }])
  t.same(await names(a), ['AT Austria'])
  await syncOnce(a, b)
  await converged(t, a, b)
})

t.test('a unique value that another record of the run took is free again when it is needed', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into city (name) values ('Graz')`)
  await syncOnce(a, b)
  const before = await a.sql('select id, name from city')
  await b.sql(`delete from city; insert into city (name) values ('Graz')`)
  const run = await pullRun(a, b)
  t.not((await a.sql('select id from city'))[0]?.id, before[0]?.id)
  t.match((await undo(a, run)).counts, { removed: 1, restored: 1, blocked: 0 })
  t.same(await a.sql('select id, name from city'), before)
})

t.test('a record that one run changed twice returns to what was before the run', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name) values ('AT', 'first')`)
  await syncOnce(a, b)
  const peer = peerOf(a, b)
  const { id: runId } = await startRun(a.store.db, { peer, cause: 'hand' })
  const country = (await loadResources(a.store.db)).find(({ name }) => name === 'country') as {
    id: number
    name: string
  }
  for (const name of ['second', 'third']) {
    await b.sql(
      `update country set name = '${name}'; insert into country (id, name) values ('DE', '${name}') on conflict (id) do update set name = excluded.name`,
    )
    const after = (await readCheckpoint(a.store.db, peer.id, country.id, 'pull')) ?? undefined
    const batch = await serveChanges(b.store, linkOf(b, a), { resource: 'country', after }, LIMITS)
    await applyPull(a.store, linkOf(a, b), { task: TASK, batch, runId }, LIMITS)
  }
  await t.rejects(undo(a, runId), { code: 'SYNC_RUN_ACTIVE' }, 'not while the run is under way')
  await finishRun(a.store.db, runId, { result: 'success' })
  t.match((await undo(a, runId)).counts, { removed: 1, replaced: 1 })
  t.same(await names(a), ['AT first'])
})

t.test('past what history keeps, an undo says exactly what is missing and does the rest only when asked', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name) values ('AT', 'old'), ('DE', 'old'), ('CH', 'old')`)
  await syncOnce(a, b)
  await b.sql(
    `update country set name = 'new' where id <> 'CH'; delete from country where id = 'CH'; insert into country (id, name) values ('FR', 'new')`,
  )
  const run = await pullRun(a, b)
  await a.sql(`update syncline.history set at = at - interval '100 days' where record_id in ('AT', 'CH')`)
  t.equal(await pruneHistory(a.store.db, 90), 2)
  const preview = await undo(a, run, { preview: true })
  t.match(preview.missing, [
    { resource: 'country', deed: 'changed', count: 2, reason: /no longer kept; what ended before 20/ },
  ])
  t.match(preview.counts, { removed: 1, replaced: 1, missing: 2 })
  await t.rejects(undo(a, run), {
    code: 'SYNC_RUN_UNDO_INCOMPLETE',
    message: /^2 records that it changed of country cannot be put back/,
  })
  t.same(await names(a), ['AT new', 'DE new', 'FR new'], 'nothing was written')
  t.match((await undo(a, run, { partial: true })).counts, { removed: 1, replaced: 1, missing: 2 })
  t.same(await names(a), ['AT new', 'DE old'])
})

t.test('what a run changed twice is not put back to a value of the run itself when the first is gone', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name) values ('AT', 'first')`)
  await syncOnce(a, b)
  const peer = peerOf(a, b)
  const { id: runId } = await startRun(a.store.db, { peer, cause: 'hand' })
  const { id } = await findResource(a.store.db, 'country')
  for (const name of ['second', 'third']) {
    await b.sql(`update country set name = '${name}'`)
    const after = (await readCheckpoint(a.store.db, peer.id, id, 'pull')) ?? undefined
    const batch = await serveChanges(b.store, linkOf(b, a), { resource: 'country', after }, LIMITS)
    await applyPull(a.store, linkOf(a, b), { task: TASK, batch, runId }, LIMITS)
  }
  await finishRun(a.store.db, runId, { result: 'success' })
  await a.sql(
    `update syncline.history set at = at - interval '100 days' where id = (select min(id) from syncline.history)`,
  )
  await pruneHistory(a.store.db, 90)
  t.match(await undo(a, runId, { partial: true }), {
    counts: { replaced: 0, blocked: 1, missing: 1 },
    blocked: [{ id: 'AT', reason: 'its values before the run are no longer kept' }],
  })
  t.same(await names(a), ['AT third'])
})

t.test(
  'values of a column that was dropped since are missing, the others are put back when that is asked for',
  async (t) => {
    const [a, b] = (await pair()) as [Site, Site]
    await b.sql(`insert into country (id, name, area) values ('AT', 'old', 1)`)
    await syncOnce(a, b)
    await b.sql(`update country set name = 'new', area = 2`)
    const run = await pullRun(a, b)
    await a.sql('alter table country drop column area')
    await attach(a.store, [{ table: 'country' }])
    await t.rejects(undo(a, run), { code: 'SYNC_RUN_UNDO_INCOMPLETE', message: /of country.*no column area any more/ })
    t.match((await undo(a, run, { partial: true })).counts, { replaced: 1 })
    t.same(await names(a), ['AT old'])
  },
)

t.test('JSON null is told from no document in history, so that an undo brings back what was there', async (t) => {
  const ddl = `create table paper (id text primary key, a jsonb, b json, list jsonb[], needed jsonb not null default 'null')`
  const [a, b] = [await sites.make('null-a', ddl, ['paper']), await sites.make('null-b', ddl, ['paper'])]
  await introduce(a, b)
  const shown = () =>
    a.sql(`select id, a::text, b::text, list::text, needed::text, a is null as none from paper order by id`)
  await b.sql(`insert into paper values
    ('json', 'null', ' null ', array['null', null, '1']::jsonb[]), ('none', null, null, null), ('odd', '{"$json": null}', '{"$json":null}', array['{}']::jsonb[]),
    ('some', '{"x": null}', '[null]', '{}'), ('gone', 'null', 'null', null)`)
  await syncOnce(a, b)
  const before = await shown()
  await b.sql(
    `update paper set a = '1', b = '2', list = null, needed = '3' where id <> 'gone'; delete from paper where id = 'gone'`,
  )
  const run = await pullRun(a, b)
  t.notSame(await shown(), before)
  t.match(await undo(a, run), { counts: { replaced: 4, restored: 1 } })
  t.same(await shown(), before)
  await syncOnce(a, b)
  t.same(
    await b.sql(`select id, a::text, b::text, list::text, needed::text, a is null as none from paper order by id`),
    before,
  )
})

t.test('after a new log what a run brought cannot be told from the rest any more, and that is said', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name) values ('AT', 'old')`)
  await syncOnce(a, b)
  await b.sql(`update country set name = 'new'; insert into country (id, name) values ('DE', 'new')`)
  const run = await pullRun(a, b)
  await newLog(a.store.db)
  await t.rejects(undo(a, run), {
    code: 'SYNC_RUN_UNDO_INCOMPLETE',
    message: /1 records that it brought new of country.*new log/,
  })
  t.match((await undo(a, run, { partial: true })).counts, { replaced: 1, removed: 0, missing: 1 })
  t.same(await names(a), ['AT old', 'DE new'])
})

t.test('what a run changed of a table that was detached since is missing, not forgotten', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into city (name) values ('Graz'), ('Linz')`)
  const run = await pullRun(a, b)
  await detach(a.store, 'city')
  const preview = await undo(a, run, { preview: true })
  t.same(preview.missing, [
    { resource: null, deed: 'inserted', count: 2, reason: 'the resource is not attached here any more' },
  ])
})

t.test('rows that an application holds are waited for, and then left with the reason', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(`insert into country (id, name) values ('AT', 'old'), ('DE', 'old')`)
  await syncOnce(a, b)
  await b.sql(`update country set name = 'new'`)
  const run = await pullRun(a, b)
  const application = await a.connect()
  await application.query(`begin; select from country where id = 'AT' for update`)
  const report = await undo(a, run)
  await application.query('rollback')
  t.match(report.counts, { replaced: 1, blocked: 1 })
  t.match(report.blocked, [{ id: 'AT', code: 'SYNC_RECORD_IN_USE' }])
})

t.test('10,000 records are taken back in sets and in bounded memory; a baseline keeps no history', async (t) => {
  const [a, b] = (await pair()) as [Site, Site]
  await b.sql(
    `insert into country (id, name, facts) select 'C' || n, 'old', jsonb_build_object('text', repeat('x', 500)) from generate_series(1, 5000) n`,
  )
  await syncOnce(a, b)
  await b.sql(`update country set name = 'new'`)
  await b.sql(
    `insert into country (id, name, facts) select 'N' || n, 'new', jsonb_build_object('text', repeat('x', 500)) from generate_series(1, 5000) n`,
  )
  const run = await pullRun(a, b, {}, 1_000)
  const [kept] = await a.sql(`select count(*)::int as n from syncline.history where run_id = $1`, [run])
  t.equal(kept?.n, 5_000, 'history only for what was replaced')
  const [batches] = await a.sql(
    `select count(*)::int as n, sum(inserted)::int as inserted, sum(changed)::int as changed from syncline.run_batch where run_id = $1`,
    [run],
  )
  t.match(batches, { n: 10, inserted: 5_000, changed: 5_000 })
  const began = performance.now()
  const report = await undo(a, run)
  t.match(report.counts, { removed: 5_000, replaced: 5_000, since: 0, blocked: 0 })
  t.comment(`${Math.round(performance.now() - began)} ms`)
  t.same(await a.sql('select count(*)::int as n, min(name) as low, max(name) as high from country'), [
    { n: 5_000, low: 'old', high: 'old' },
  ])
  await pullAll(b, a)
  await converged(t, a, b)
})

t.test(
  'I3: whatever a run did, its undo gives the state before it, the undo of that the state after it, and both sites agree',
  async (t) => {
    const ddl = `
    create table part (id text primary key, name text not null unique, whole text references part, size numeric);
    create table label (nr serial primary key, id text not null unique, part text not null references part, owner int references label, text text);`
    const [a, b] = [await sites.make('a', ddl), await sites.make('b', ddl)]
    for (const site of [a, b]) await attach(site.store, [{ table: 'part' }, { table: 'label', key: 'id' }])
    await introduce(a, b)
    const state = async (site: Site) => [
      await site.sql('select id, name, whole, size from part order by id'),
      await site.sql(
        'select l.id, l.part, o.id as owner, l.text from label l left join label o on o.nr = l.owner order by l.id',
      ),
    ]
    const below = chance(20_261_122)
    const some = (table: string) => `(select id from ${table} order by md5(id || ${below(1_000)}) limit 1)`
    const edits = [
      () =>
        `insert into part values ('p${below(30)}', 'name ${below(60)}', ${below(2) ? 'null' : some('part')}, ${below(9)}) on conflict do nothing`,
      () =>
        `update part set size = ${below(100)}.50, name = 'name ${below(60)}' where id = ${some('part')} and not exists (select from part p where p.name = 'name ' || ${below(60)})`,
      () => `update part set whole = ${some('part')} where id = ${some('part')}`,
      () =>
        `insert into label (id, part, owner, text) select 'l${below(40)}', id, (select nr from label order by md5(id || ${below(9)}) limit 1), 'new' from part order by md5(id || ${below(9)}) limit 1 on conflict do nothing`,
      () => `update label set text = 'text ${below(9)}', part = ${some('part')} where id = ${some('label')}`,
      () => `update label set owner = null where part = ${some('part')}`,
      () =>
        `delete from label where id = ${some('label')} and nr not in (select owner from label where owner is not null)`,
      () =>
        `delete from part p where id = ${some('part')} and not exists (select from part c where c.whole = p.id) and not exists (select from label l where l.part = p.id)`,
    ]
    const total = { removed: 0, restored: 0, replaced: 0 }
    for (let round = 0; round < 16; round++) {
      await syncOnce(a, b)
      const before = await state(a)
      for (let n = below(25) + 1; n > 0; n--)
        await b.sql((edits[below(edits.length)] as () => string)()).catch(ignoreUnique)
      const run = await pullRun(a, b)
      const after = await state(a)
      t.same(after, await state(b), `round ${round}: the run brought everything`)
      const undone = await undo(a, run)
      t.same(undone.blocked, [])
      for (const what of ['removed', 'restored', 'replaced'] as const) total[what] += undone.counts[what]
      t.same(await state(a), before, `round ${round}: as before the run`)
      // Nothing that the run did was left to be taken back: then there is no run to take back either.
      const again = undone.undoRunId === null ? null : await undo(a, undone.undoRunId)
      t.same(again?.blocked ?? [], [])
      t.same(await state(a), after, `round ${round}: as after it`)
      if (round % 2 === 0 && again !== null) await undo(a, again.undoRunId ?? '')
      await syncOnce(a, b)
      await syncOnce(a, b)
      t.same(await state(a), await state(b), `round ${round}: both sites hold the same`)
    }
    t.ok(Math.min(total.removed, total.restored, total.replaced) >= 5, JSON.stringify(total))
  },
)

/** An edit that would give two records one name is none. */
function ignoreUnique(error: { readonly code?: string }) {
  if (error.code !== '23505') throw error
}

t.test('an embedded database takes a run back too, on its one connection', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'syncline-undo-'))
  const { store, self } = await openEmbedded('here', folder, Buffer.alloc(32, 1))
  t.teardown(async () => {
    await store.close()
    await rm(folder, { recursive: true, force: true })
  })
  t.notOk(store.server)
  await createManaged(store, {
    name: 'place',
    schema: { type: 'object', properties: { id: { type: 'string' }, name: { type: 'string' } }, required: ['name'] },
  })
  const origin = '11111111-2222-4333-8444-555555555555'
  const peer = await createPeer(store.db, Buffer.alloc(32, 1), { name: 'there', uuid: origin })
  const put = (id: string, clock: number, name: string): Change => ({
    kind: 'put',
    id,
    version: { origin, clock },
    data: { name },
  })
  const run = async (...changes: Change[]) => {
    const { id: runId } = await startRun(store.db, { peer, cause: 'hand' })
    for (const batch of linesOfChanges('place', changes, {}))
      await applyPull(store, { self, peer }, { task: TASK, batch, runId }, LIMITS)
    await finishRun(store.db, runId, { result: 'success' })
    return runId
  }
  await run(put('a', 1, 'old'), put('b', 1, 'old'))
  const second = await run(
    put('a', 2, 'new'),
    { kind: 'delete', id: 'b', version: { origin, clock: 2 } },
    put('c', 2, 'new'),
  )
  const request = { runId: second, force: [], partial: false, by: 'anna' }
  t.match(await undoRun(store, self, { ...request, preview: true }, LIMITS), {
    counts: { removed: 1, restored: 1, replaced: 1 },
  })
  t.match(await undoRun(store, self, { ...request, preview: false }, LIMITS), {
    counts: { removed: 1, restored: 1, replaced: 1 },
  })
  const { batch } = await readRecords(store.db, {
    resource: await findResource(store.db, 'place'),
    order: 'id',
    rowsMax: 10,
    bytesMax: 100_000,
    deleted: false,
  })
  t.same(
    changesOfLines(batch).map((change) => [change.id, change.kind === 'put' ? change.data.name : null]),
    [
      ['a', 'old'],
      ['b', 'old'],
    ],
  )
})
