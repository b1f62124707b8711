import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'
import {
  applyPull,
  createTask,
  readCheckpoint,
  receiveChanges,
  serveChanges,
  setGrant,
  siteIds,
  writeByHand,
} from '../../src/store/index.ts'
import { findResource } from '../../src/store/resources.ts'
import { prepareStage, stageLines } from '../../src/store/stage.ts'
import {
  type BatchReport,
  type Change,
  compareVersions,
  type LineBatch,
  linesOfChanges,
  type Version,
} from '../../src/sync/index.ts'
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
  totalOf,
  versionsOf,
} from '../support/sites.ts'

const sites = await siteFactory(t)

const DDL = `
  create table item (id uuid primary key default gen_random_uuid(), name text, n int, amount numeric(12, 2), doc json)`

let serial = 0

async function pair(ddl = DDL, tables: readonly string[] = ['item']): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, ddl, tables)
  const b = await sites.make(`b${serial}`, ddl, tables)
  await introduce(a, b)
  return [a, b]
}

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

const names = async (site: Site) => (await site.sql('select name from item order by id')).map((row) => row.name)

/** What `to` makes of changes that `from` pushes, as a program would that knows no versions. */
async function byHand(
  from: Site,
  to: Site,
  resource: string,
  changes: readonly Change[],
  refs: Record<string, string> = {},
): Promise<BatchReport> {
  const batches = linesOfChanges(resource, changes, refs)
  return receiveChanges(to.store, linkOf(to, from), { resource, batches, byHand: true, runId: null }, LIMITS)
}

const put = (n: number, data: Record<string, string | number | null>): Change => ({ kind: 'put', id: id(n), data })

t.test('I7: the database classifies versions exactly as the core does', async (t) => {
  const [a] = await pair()
  const resource = await findResource(a.store.db, 'item')
  const uuids = [1, 2, 3, 4].map((n) => `${n}0000000-0000-4000-8000-000000000000`)
  const numbers = await siteIds(a.store.db, uuids)
  const clock = fc.integer({ min: 1, max: 6 })
  const version = fc
    .record({
      origin: fc.nat(3),
      clock,
      seen: fc.dictionary(fc.constantFrom('0', '1', '2', '3'), clock, { noNullPrototype: true }),
    })
    .map(({ origin, clock: at, seen }) => {
      const others = Object.entries(seen).filter(([other]) => Number(other) !== origin)
      return { origin, clock: at, seen: Object.fromEntries(others) }
    })
  type Drawn = { origin: number; clock: number; seen: Record<string, number> }
  const named = ({ origin, clock: at, seen }: Drawn): Version => ({
    origin: uuids[origin] ?? '',
    clock: at,
    seen: Object.fromEntries(Object.entries(seen).map(([other, n]) => [uuids[Number(other)], n])),
  })
  const classes = { same: 's', newer: 'f', stale: 's', concurrent: 'c' } as const
  const tally: Record<string, number> = {}
  const property = fc.asyncProperty(
    fc.array(fc.tuple(version, version), { minLength: 150, maxLength: 150 }),
    async (pairs) => {
      const lines = pairs.map(([incoming], n) => {
        const seen = Object.keys(incoming.seen).length === 0 ? '' : JSON.stringify(incoming.seen)
        return [JSON.stringify(id(n)), incoming.clock, incoming.origin, seen, 'p', '["x"]'].join('\t')
      })
      const batch: LineBatch = {
        resource: 'item',
        columns: ['name'],
        refs: {},
        origins: uuids,
        text: lines.join('\n'),
        count: lines.length,
      }
      const found = await a.store.db.transaction().execute(async (trx) => {
        await sql`delete from syncline.record`.execute(trx)
        for (const [n, [, local]] of pairs.entries()) {
          const seen = Object.fromEntries(Object.entries(local.seen).map(([other, at]) => [numbers[Number(other)], at]))
          await sql`insert into syncline.record (resource_id, record_id, xact, origin, clock, seen)
          values (${resource.id}, ${id(n)}, '1', ${numbers[local.origin]}, ${local.clock}, nullif(${JSON.stringify(seen)}, '{}')::jsonb)`.execute(
            trx,
          )
        }
        await prepareStage(trx)
        await stageLines(trx, resource, batch, numbers, numbers[0] ?? 0)
        const { rows } = await sql<{
          class: string
        }>`select class::text from pg_temp.syncline_stage order by n`.execute(trx)
        return rows.map((row) => row.class)
      })
      for (const [n, [incoming, local]] of pairs.entries()) {
        const order = compareVersions(named(incoming), named(local))
        tally[order] = (tally[order] ?? 0) + 1
        if (found[n] !== classes[order])
          throw new Error(`${JSON.stringify({ incoming, local })}: ${order} became ${found[n]}`)
      }
    },
  )
  await fc.assert(property, { numRuns: 12 })
  t.ok(
    Object.keys(classes).every((order) => (tally[order] ?? 0) > 20),
    JSON.stringify(tally),
  )
})

t.test('I2: every batch applied twice changes nothing the second time', async (t) => {
  const [a, b] = await pair()
  await a.sql(
    `insert into item (id, name, n) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'a', n from generate_series(1, 20) n`,
  )
  t.match(totalOf(await syncOnce(b, a, { twice: true })), { applied: 20, known: 20 })
  await a.sql(`update item set name = 'A' where n <= 10; delete from item where n = 20`)
  await b.sql(
    `update item set name = 'B' where n between 6 and 15; delete from item where n = 1; insert into item (id, name) values ('${id(50)}', 'new')`,
  )
  await syncOnce(b, a, { twice: true, limits: { batchRowsMax: 3 } })
  await syncOnce(b, a, { twice: true })
  t.same(await b.sql('select * from item order by id'), await a.sql('select * from item order by id'))
  t.same(await versionsOf(b), await versionsOf(a))
  t.equal((await syncOnce(b, a, { twice: true })).lines, 0)
  const history = await b.sql(
    `select record_id, count(*)::int as n from syncline.history group by 1 having count(*) > 1`,
  )
  t.same(history, [], 'what was overwritten is kept once')
})

/** Two sites that changed the same record without knowing of each other: b first, a a moment later. */
async function conflict(options: { a?: string; b?: string } = {}): Promise<readonly [Site, Site]> {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name, n) values ('${id(1)}', 'base', 0)`)
  await syncOnce(b, a)
  await b.sql(options.b ?? `update item set name = 'from b'`)
  await sleep(2)
  await a.sql(options.a ?? `update item set name = 'from a'`)
  return [a, b]
}

const settled = async (a: Site, b: Site, task: Record<string, string | null>) => {
  // The pushing side decides by its task; a peer decides by the policy of its grant.
  await setGrant(a.store.db, { peerId: peerOf(a, b).id, resource: 'item', direction: 'push', ...opposite(task) })
  const first = await syncOnce(b, a, { task })
  for (let n = 0; n < 3; n++) await syncOnce(b, a, { task })
  return { first, quiet: (await syncOnce(b, a, { task })).lines }
}

const opposite = (task: Record<string, string | null>) => {
  const mirrored = { mine: 'theirs', theirs: 'mine' } as Record<string, string>
  return { ...task, onConflict: mirrored[task.onConflict ?? ''] ?? task.onConflict ?? 'newer' }
}

t.test('I3: whatever policy settles a conflict, both sites end alike and the losing values are kept', async (t) => {
  const cases = [
    { task: { onConflict: 'newer' }, winner: 'from a', at: 'b' },
    { task: { onConflict: 'mine' }, winner: 'from b', at: 'b' },
    { task: { onConflict: 'theirs' }, winner: 'from a', at: 'b' },
    { task: { onConflict: 'master', master: 'a' }, winner: 'from a', at: 'b' },
    { task: { onConflict: 'master', master: 'b' }, winner: 'from b', at: 'b' },
  ]
  for (const { task, winner } of cases) {
    const [a, b] = await conflict()
    const master = task.master === 'a' ? a.self.uuid : task.master === 'b' ? b.self.uuid : null
    const what = `${task.onConflict} ${task.master ?? ''}`
    const { first, quiet } = await settled(a, b, { ...task, master })
    t.same([await names(a), await names(b)], [[winner], [winner]], what)
    t.same(await versionsOf(a), await versionsOf(b), what)
    t.equal(quiet, 0, `${what}: a quiet round sends nothing`)
    t.equal(totalOf(first).merged >= 1, true, `${what}: it is reported`)
    const loser = winner === 'from a' ? 'from b' : 'from a'
    const lost = await b.sql(`select data ->> 'name' as name from syncline.history where data ->> 'name' = '${loser}'`)
    t.equal(lost.length, 1, `${what}: the losing values are kept`)
    await b.sql(`update item set name = 'later'`)
    t.match(
      totalOf(await syncOnce(b, a, { task: { ...task, master } })),
      { merged: 0, conflict: 0 },
      `${what}: then there is peace`,
    )
    t.same(await names(a), ['later'], what)
  }
})

t.test('a conflict for a person waits with both sides, stops nothing else, and ends with a later edit', async (t) => {
  const [a, b] = await conflict()
  await a.sql(`insert into item (id, name) values ('${id(2)}', 'other')`)
  const { first } = await settled(a, b, { onConflict: 'ask' })
  t.match(totalOf(first), { conflict: 2, applied: 1 })
  t.same(
    [await names(a), await names(b)],
    [
      ['from a', 'other'],
      ['from b', 'other'],
    ],
  )
  const open = `select record_id, ours ->> 'name' as ours, theirs ->> 'name' as theirs, resolved_at is null as open from syncline.conflict`
  const order = await b.sql(`select header -> 'columns' ->> 0 as first from syncline.conflict`)
  t.same(order, [{ first: 'name' }])
  t.same(await b.sql(open), [{ record_id: id(1), ours: 'from b', theirs: 'from a', open: true }])
  t.same(await a.sql(open), [{ record_id: id(1), ours: 'from a', theirs: 'from b', open: true }])
  t.equal((await syncOnce(b, a, { task: { onConflict: 'ask' } })).lines, 0, 'it is not asked again and again')
})

t.test('a deletion against an edit is a conflict like any other', async (t) => {
  const erase = 'delete from item'
  const edit = (name: string) => `update item set name = '${name}'`
  for (const [changes, policy, left] of [
    [{ b: erase, a: edit('from a') }, 'newer', ['from a']],
    [{ b: edit('from b'), a: erase }, 'newer', []],
    [{ b: erase, a: edit('from a') }, 'mine', []],
    [{ b: edit('from b'), a: erase }, 'mine', ['from b']],
    [{ b: erase, a: edit('from a') }, 'theirs', ['from a']],
    [{ b: edit('from b'), a: erase }, 'theirs', []],
    [{ b: erase, a: erase }, 'newer', []],
    [{ b: erase, a: erase }, 'ask', []],
  ] as const) {
    const [a, b] = await conflict(changes)
    const { quiet } = await settled(a, b, { onConflict: policy })
    const what = `${policy}: ${changes.b} | ${changes.a}`
    t.same([await names(a), await names(b)], [left, left], what)
    t.same(await versionsOf(a), await versionsOf(b), what)
    t.equal(quiet, 0, what)
  }
  const [a, b] = await conflict({ b: erase, a: edit('from a') })
  await settled(a, b, { onConflict: 'ask' })
  t.same([await names(a), await names(b)], [['from a'], []])
  t.match(await b.sql('select ours, theirs is not null as theirs from syncline.conflict'), [
    { ours: null, theirs: true },
  ])
})

t.test('concurrent edits that say the same are no conflict under any policy', async (t) => {
  for (const onConflict of ['newer', 'mine', 'theirs', 'ask']) {
    const same = `update item set name = 'same', amount = 1.50, doc = '{"a": [1, 2]}'`
    const [a, b] = await conflict({ a: same, b: same })
    const { first, quiet } = await settled(a, b, { onConflict })
    t.match(totalOf(first), { conflict: 0 })
    t.same(await versionsOf(a), await versionsOf(b))
    t.equal(quiet, 0)
    t.same(await b.sql(`select * from syncline.history where reason = 'lost a conflict'`), [])
  }
})

t.test('I3: values that are equal but read differently do not stay different', async (t) => {
  const ddl = 'create table item (id uuid primary key, name text, n int, amount numeric, span interval)'
  const [a, b] = await pair(ddl)
  await a.sql(`insert into item values ('${id(1)}')`)
  await syncOnce(b, a)
  await b.sql(`update item set amount = 1.00, span = '1 month'`)
  await sleep(2)
  await a.sql(`update item set amount = 1.0, span = '30 days'`)
  await settled(a, b, { onConflict: 'newer' })
  const text = 'select item::text from item'
  t.same(await a.sql(text), await b.sql(text))
})

t.test('I3: three sites that edit at once agree, whoever hears of whom first', async (t) => {
  for (const order of [
    [0, 1, 2],
    [2, 1, 0],
    [1, 0, 2],
  ]) {
    const made = await Promise.all([0, 1, 2].map((n) => sites.make(`t${++serial}-${n}`, DDL, ['item'])))
    const [a, b, c] = made as [Site, Site, Site]
    const links = [
      [a, b],
      [b, c],
      [c, a],
    ] as const
    for (const [here, there] of links) await introduce(here, there)
    await a.sql(`insert into item (id, name) values ('${id(1)}', 'base')`)
    for (let n = 0; n < 2; n++) for (const [here, there] of links) await syncOnce(here, there)
    for (const site of made) await site.sql(`update item set name = 'by ${site.name}'`)
    let lines = 0
    for (let round = 0; round < 6; round++) {
      lines = 0
      for (const n of order) lines += (await syncOnce(...(links[n] as readonly [Site, Site]))).lines
    }
    t.equal(lines, 0)
    t.same(await names(b), await names(a))
    t.same(await names(c), await names(a))
    t.same(await versionsOf(b), await versionsOf(a))
    t.same(await versionsOf(c), await versionsOf(a))
  }
})

t.test('I5: rows, versions, quarantine and checkpoint commit together or not at all', async (t) => {
  const [a, b] = await pair(`${DDL}; alter table item add check (n < 100)`)
  await b.sql('alter table item drop constraint item_n_check1').catch(() => {})
  await a.sql(`alter table item drop constraint item_n_check`)
  await a.sql(`insert into item (id, name, n) values ('${id(1)}', 'good', 1), ('${id(2)}', 'bad', 100)`)
  const resource = await findResource(b.store.db, 'item')
  const state = async () => ({
    rows: await b.sql('select id, name from item'),
    versions: await versionsOf(b),
    quarantine: await b.sql('select record_id from syncline.quarantine'),
    checkpoint: await readCheckpoint(b.store.db, peerOf(b, a).id, resource.id, 'pull'),
  })
  const before = await state()
  t.match(before, { rows: [], checkpoint: null })
  const batch = await serveChanges(a.store, linkOf(a, b), { resource: 'item' }, LIMITS)
  const alongside = async () => {
    throw new Error('the process dies here')
  }
  await t.rejects(applyPull(b.store, linkOf(b, a), { task: TASK, batch, runId: null, alongside }, LIMITS), {
    message: 'the process dies here',
  })
  t.same(await state(), before, 'nothing moved')
  await applyPull(b.store, linkOf(b, a), { task: TASK, batch, runId: null }, LIMITS)
  t.match(await state(), {
    rows: [{ id: id(1) }],
    quarantine: [{ record_id: id(2) }],
    checkpoint: batch.next?.checkpoint,
  })
  t.equal((await versionsOf(b)).length, 1)
})

t.test('a push without versions is the peer’s own write at the time of arrival', async (t) => {
  const [a, b] = await pair()
  t.match(await byHand(b, a, 'item', [put(1, { name: 'new', n: 1 }), put(2, { name: 'two' })]), {
    counts: { applied: 2 },
    rejections: [],
  })
  t.match(await recordOf(a, id(1)), { origin: b.self.uuid, deleted: false })
  const again = await byHand(b, a, 'item', [put(1, { name: 'new', n: 1 }), put(2, { name: 'changed' })])
  t.match(
    again,
    { counts: { applied: 1, known: 1, merged: 0 }, rejections: [] },
    'the same again is known, an update is applied',
  )
  t.same(await a.sql('select name, n from item order by id'), [
    { name: 'new', n: 1 },
    { name: 'changed', n: null },
  ])
  t.match(await byHand(b, a, 'item', [put(1, { n: 2 })]), { counts: { applied: 1 } })
  t.same(
    await a.sql(`select name, n from item where id = '${id(1)}'`),
    [{ name: 'new', n: 2 }],
    'what is not sent is left alone',
  )
  t.match(await byHand(b, a, 'item', [put(1, { amount: '1.5' }), { kind: 'delete', id: id(2) }]), {
    counts: { applied: 2 },
  })
  t.match(await byHand(b, a, 'item', [put(1, { amount: 1.5 }), { kind: 'delete', id: id(2) }]), {
    counts: { applied: 0, known: 2 },
  })
  t.match(await byHand(b, a, 'item', [put(2, { name: 'back' })]), { counts: { applied: 1 } })
  const refused = await byHand(b, a, 'item', [put(3, { name: 'x', nmae: 'y' }), put(4, { name: 'fine' })])
  t.match(refused.counts, { applied: 1, refused: 1 })
  t.match(refused.rejections, [{ id: id(3), outcome: 'refused', code: 'SYNC_RECORD_FIELD_UNKNOWN', reason: /"nmae"/ }])
  t.same(await names(a), ['new', 'back', 'fine'])
  t.equal((await pullAll(b, a)).lines, 0, 'what it wrote itself is not sent back to it')
})

t.test('records written here by hand are this site’s own, and what the database refuses is refused', async (t) => {
  const [a, b] = await pair(`${DDL}; alter table item add check (n < 100)`)
  const write = (changes: readonly Change[]) =>
    writeByHand(a.store, a.self, 'item', linesOfChanges('item', changes, {}), LIMITS)
  const report = await write([put(1, { name: 'one', n: 1 }), put(2, { name: 'two', n: 200 })])
  t.match(report.counts, { applied: 1, refused: 1, quarantined: 0 })
  t.match(report.rejections, [
    { id: id(2), outcome: 'refused', code: 'SYNC_RECORD_CONSTRAINT', reason: /item_n_check/ },
  ])
  t.match(await recordOf(a, id(1)), { origin: a.self.uuid, source: null })
  t.match((await write([put(1, { name: 'uno' })])).counts, { applied: 1 })
  await syncOnce(b, a)
  t.same(await names(b), ['uno'])
})

t.test('I10: a push writes nothing outside its grant', async (t) => {
  const [a, b] = await pair()
  const grant = { peerId: peerOf(a, b).id, resource: 'item', direction: 'push' }
  const outside = { outcome: 'refused', code: 'SYNC_RECORD_OUTSIDE_GRANT' }
  await a.sql(`insert into item (id, name, n) values ('${id(1)}', 'low', 1), ('${id(2)}', 'high', 50)`)
  await setGrant(a.store.db, { ...grant, filter: 'n < 10' })
  const first = await byHand(b, a, 'item', [
    put(1, { n: 2 }),
    put(2, { n: 3 }),
    put(3, { n: 4 }),
    put(4, { n: 40 }),
    put(5, { n: null }),
  ])
  t.match(first.counts, { applied: 2, refused: 3 })
  t.match(
    first.rejections,
    [2, 4, 5].map((n) => ({ ...outside, id: id(n) })),
    'a record outside before or after',
  )
  t.match(
    (await byHand(b, a, 'item', [put(1, { n: 90 })])).rejections,
    [{ ...outside, id: id(1) }],
    'nor may it move a record out',
  )
  t.match((await byHand(b, a, 'item', [{ kind: 'delete', id: id(2) }])).rejections, [{ ...outside, id: id(2) }])
  t.match((await byHand(b, a, 'item', [{ kind: 'delete', id: id(1) }])).counts, { applied: 1 })
  t.same(await a.sql('select name, n from item order by id'), [
    { name: 'high', n: 50 },
    { name: null, n: 4 },
  ])
  t.match((await byHand(b, a, 'item', [{ kind: 'delete', id: id(7) }])).rejections, [{ ...outside, id: id(7) }])
  t.same(
    await a.sql(`select from syncline.record where record_id = '${id(7)}'`),
    [],
    'nor does it leave a tombstone for a record that is on its way here',
  )
  t.same(await a.sql('select * from syncline.quarantine'), [])

  await createTask(a.store.db, { peerId: peerOf(a, b).id, resource: 'item', mode: 'pull', onLeft: 'remove' })
  await a.sql(`insert into item (id, name, n) values ('${id(6)}', 'low', 1)`)
  const seen = { [a.self.origin]: Date.now() * 1_000 + 60_000_000 }
  const version = { origin: b.self.origin, clock: Date.now() * 1_000, seen }
  await byHand(b, a, 'item', [
    { kind: 'left', id: id(2), version },
    { kind: 'left', id: id(6), version },
  ])
  t.same(await names(a), ['high', null], 'what it calls left goes only where it may write')
  await a.sql('delete from syncline.task')

  await setGrant(a.store.db, { ...grant, columns: ['name'] })
  const columns = await byHand(b, a, 'item', [put(2, { name: 'x', n: 1 }), put(3, { name: 'y' })])
  t.match(columns.rejections, [{ ...outside, id: id(2), reason: /may not write "n" of item/ }])
  t.match(columns.counts, { applied: 1, refused: 1 })

  await a.sql('delete from syncline.peer_grant')
  await t.rejects(byHand(b, a, 'item', [put(2, { name: 'x' })]), { code: 'SYNC_AUTH_FORBIDDEN' })

  await t.test('also when it had to wait for a parent and the grant has narrowed', async (t) => {
    const ddl = `create table parent (id uuid primary key, open bool); create table child (id serial primary key, uuid uuid not null unique, n int, parent_id uuid references parent)`
    const [c, d] = await pair(ddl, ['parent', 'child'])
    await setGrant(c.store.db, { peerId: peerOf(c, d).id, resource: 'child', direction: 'push', filter: 'n < 10' })
    const child = (n: number, value: number): Change => ({
      kind: 'put',
      id: id(n),
      data: { n: value },
      refs: { parent_id: { resource: 'parent', id: id(1) } },
    })
    const waiting = await byHand(d, c, 'child', [child(2, 1), child(3, 99)], { parent_id: 'parent' })
    t.match(waiting.counts, { quarantined: 2 })
    await c.sql(`insert into parent values ('${id(1)}')`)
    await pullAll(c, d)
    t.same(await c.sql('select n from child'), [{ n: 1 }])
    t.match(await c.sql('select record_id, code from syncline.quarantine'), [
      { record_id: id(3), code: 'SYNC_RECORD_OUTSIDE_GRANT' },
    ])
  })
})

t.test('a version stamped far ahead waits alone, and so does a claim about us', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'ahead'), ('${id(2)}', 'fine'), ('${id(3)}', 'claims')`)
  await a.sql(`update syncline.record set clock = clock + 3600000000 where record_id = '${id(1)}'`)
  const [{ n } = {}] = await a.sql(
    `insert into syncline.site (origin, uuid) values ('${id(7)}', '${id(7)}') returning id as n`,
  )
  await a.sql(
    `update syncline.record set seen = jsonb_build_object('${n}', clock + 3600000000) where record_id = '${id(3)}'`,
  )
  t.match(totalOf(await pullAll(b, a)), { applied: 1, quarantined: 2 })
  t.same(await names(b), ['fine'])
  t.match(
    await b.sql('select code, reason from syncline.quarantine'),
    Array(2).fill({ code: 'SYNC_RECORD_CLOCK_AHEAD', reason: /more than 5 minutes ahead/ }),
  )
  await b.sql(`update syncline.quarantine set retry_at = now()`)
  t.match(totalOf(await pullAll(b, a, { limits: { clockAheadMaxMs: 7_200_000 } })), { applied: 2 })
  t.same(await b.sql('select * from syncline.quarantine'), [])
})

t.test('I1: applications that write while batches are applied lose nothing, on either side', async (t) => {
  const ddl = `create table item (id uuid primary key default gen_random_uuid(), name text, n int)`
  const [a, b] = await pair(ddl)
  await a.sql(
    `insert into item (id, name, n) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'base', 0 from generate_series(1, 40) n`,
  )
  await syncOnce(b, a)
  let writing = true
  let deadlocks = 0
  const next = chance(7)
  const writers = [a, b, a, b, a, b].map(async (site, which) => {
    const client = await site.connect()
    for (let n = 0; writing; n++) {
      const [x, y] = [1 + next(40), 1 + next(40)]
      const statements = [
        [`update item set name = '${site.name} ${n}', n = n + 1 where id in ('${id(x)}', '${id(y)}')`],
        [`update item set n = n + 1 where id = '${id(x)}'`, `update item set n = n + 1 where id = '${id(y)}'`],
        [`delete from item where id = '${id(x)}'`],
        [
          `insert into item (id, name, n) values ('${id(x)}', 'again', 0) on conflict (id) do update set n = item.n + 1`,
        ],
        [`insert into item (name, n) values ('fresh ${which}', ${n})`],
      ][next(5)] as string[]
      try {
        await client.query('begin')
        for (const statement of statements) await client.query(statement)
        await client.query('commit')
      } catch (error) {
        if ((error as { code: string }).code !== '40P01') throw error
        deadlocks++
        await client.query('rollback')
      }
      await sleep(next(3))
    }
  })
  const until = performance.now() + 1_500
  let exchanged = 0
  while (performance.now() < until || exchanged <= 50) {
    exchanged += (await syncOnce(b, a, { limits: { batchRowsMax: 40 } })).lines
  }
  writing = false
  await Promise.all(writers)
  t.ok(exchanged > 50, `${exchanged} lines, ${deadlocks} deadlocks of the application`)
  let lines = 1
  for (let round = 0; round < 12 && lines > 0; round++) {
    await a.sql('update syncline.quarantine set retry_at = now()')
    await b.sql('update syncline.quarantine set retry_at = now()')
    lines = (await syncOnce(b, a)).lines
  }
  t.equal(lines, 0)
  const rows = 'select id, name, n from item order by id'
  t.same(await b.sql(rows), await a.sql(rows))
  t.same(await versionsOf(b), await versionsOf(a))
  for (const site of [a, b]) {
    t.same(await site.sql('select code, reason from syncline.quarantine'), [])
    const stray = `select (select count(*) from item left join syncline.record r on r.record_id = item.id::text and not r.deleted where r.record_id is null) as unknown,
      (select count(*) from syncline.record r left join item on item.id::text = r.record_id where not r.deleted and item.id is null) as gone`
    t.same(await site.sql(stray), [{ unknown: '0', gone: '0' }], `${site.name}: every living row has a living record`)
  }
})

t.test('I7: an edit that commits while a batch waits for its row is met as what it is', async (t) => {
  // What is dead at both sites is written again at a, and deleted again: its tombstone moves on, and b has no row to hold.
  const again = `insert into item (id, name) values ('${id(2)}', 'risen'); delete from item where id = '${id(2)}'`
  for (const [there, here] of [
    [`update item set name = 'from a'`, `update item set name = 'from b'`],
    [again, `insert into item (id, name) values ('${id(2)}', 'from b')`],
  ] as const) {
    const [a, b] = await pair()
    await a.sql(`insert into item (id, name) values ('${id(1)}', 'from b'), ('${id(2)}', 'base')`)
    await syncOnce(b, a)
    await a.sql(`delete from item where id = '${id(2)}'; update item set name = 'base'`)
    await syncOnce(b, a)
    await a.sql(there)
    const application = await b.connect()
    await application.query('begin')
    await application.query(here)
    const pulling = pullAll(b, a)
    await sleep(300)
    await application.query('commit')
    t.match(totalOf(await pulling), { merged: 1, applied: 0 }, here)
    await syncOnce(b, a)
    t.ok((await names(b)).includes('from b'), here)
    t.same(await names(a), await names(b))
    t.same(await versionsOf(b), await versionsOf(a))
  }
})

t.test('I3: a parent that an application deletes meanwhile never becomes no parent', async (t) => {
  const tables = `create table area (id serial primary key, uuid uuid not null unique, name text);
    create table spot (id uuid primary key, area_id int references area, name text)`
  const [a, b] = await pair(tables, ['area', 'spot'])
  await a.sql(`insert into area (uuid, name) values ('${id(1)}', 'x')`)
  await syncOnce(b, a)
  const [holder, deletion] = [await b.connect(), `delete from area where uuid = '${id(1)}'`]
  await a.sql(`insert into spot values ('${id(2)}', (select id from area), 'x')`)
  await holder.query('begin')
  await holder.query(deletion)
  t.match(totalOf(await pullAll(b, a)), { applied: 0 })
  t.match(await b.sql('select code from syncline.quarantine'), [{ code: 'SYNC_RECORD_IN_USE' }])
  await holder.query('commit')
  t.same(await b.sql('select * from spot'), [], 'it waits, and has not lost its reference')
})

t.test('a transaction of the application that stays open keeps only its own rows waiting', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'held'), ('${id(2)}', 'free')`)
  await syncOnce(b, a)
  await a.sql(`update item set name = 'new'`)
  const holder = await b.connect()
  await holder.query('begin')
  await holder.query(`update item set n = 5 where id = '${id(1)}'`)
  t.match(totalOf(await pullAll(b, a)), { applied: 1 })
  t.match(await b.sql('select code from syncline.quarantine'), [{ code: 'SYNC_RECORD_IN_USE' }])
  t.same(await names(b), ['held', 'new'])
  t.match(await b.sql('select record_id, code from syncline.quarantine'), [
    { record_id: id(1), code: 'SYNC_RECORD_IN_USE' },
  ])
  await holder.query('rollback')
  await b.sql('update syncline.quarantine set retry_at = now()')
  await pullAll(b, a)
  t.same(await names(b), ['new', 'new'])
})

t.test('a record that left the filter is removed only where the task says so and nothing is lost by it', async (t) => {
  const ddl = `create table parent (id uuid primary key, n int); create table child (id uuid primary key, parent_id uuid references parent on delete cascade)`
  const [a, b] = await pair(ddl, ['parent', 'child'])
  await a.sql(
    `insert into parent select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1 from generate_series(1, 4) n`,
  )
  const options = { filter: 'n = 1', resources: ['parent'] }
  await createTask(b.store.db, {
    peerId: peerOf(b, a).id,
    resource: 'parent',
    mode: 'pull',
    filter: 'n = 1',
    onLeft: 'remove',
  })
  const remove = { ...options, task: { onLeft: 'remove' as const } }
  const left = async () =>
    (await b.sql('select id from parent order by id')).map((row) => Number((row.id as string).slice(-2)))
  await pullAll(b, a, options)
  await a.sql(`update parent set n = 2 where id = '${id(1)}'`)
  t.match(totalOf(await pullAll(b, a, options)), { skipped: 1 })
  t.same(await left(), [1, 2, 3, 4], 'kept')
  await b.sql(`insert into child values ('${id(9)}', '${id(3)}')`)
  await b.sql(`update parent set n = 7 where id = '${id(4)}'`)
  await a.sql(`update parent set n = 2`)
  await pullAll(b, a, remove)
  t.same(await left(), [1, 3, 4], 'removed, but not what b changed itself or what others refer to')
  t.equal((await b.sql('select * from child')).length, 1, 'no cascade runs for what only left a filter')
  t.match(await b.sql(`select data ->> 'n' as n from syncline.history where reason = 'left'`), [{ n: '1' }])
  await b.sql('delete from child')
  await b.sql(`update syncline.quarantine set retry_at = now()`)
  await pullAll(b, a, remove)
  t.same(await left(), [1, 4], 'when the reference is gone, so is the record')
  t.same(await b.sql('select * from syncline.quarantine'), [])
  t.equal((await pushAll(b, a, { resources: ['parent'] })).lines >= 1, true)
  t.same(await a.sql(`select count(*)::int as n from parent`), [{ n: 4 }], 'nothing of it comes back as a deletion')
  await a.sql(`update parent set n = 1 where id = '${id(2)}'`)
  await pullAll(b, a, remove)
  t.same(await left(), [1, 2], 'what comes back into the filter comes back; what a knows of b by now is removed too')
})

t.test('a task of ours decides how a push is settled, its absence leaves it to the grant', async (t) => {
  const [a, b] = await conflict()
  await setGrant(a.store.db, { peerId: peerOf(a, b).id, resource: 'item', direction: 'push', onConflict: 'theirs' })
  await createTask(a.store.db, { peerId: peerOf(a, b).id, resource: 'item', mode: 'pull', onConflict: 'mine' })
  await pushAll(b, a)
  t.same(await names(a), ['from a'])
})

t.test('a record that a batch names twice, spelled differently, is written once: as it was named last', async (t) => {
  const [a, b] = await pair()
  const spelled = 'ABCDEF00-0000-4000-8000-000000000001'
  const twice = (first: string, last: string): Change[] => [
    { kind: 'put', id: spelled, data: { name: first } },
    { kind: 'put', id: spelled.toLowerCase(), data: { name: last } },
  ]
  for (const [first, last] of [
    ['one', 'two'],
    ['three', 'four'],
  ] as const) {
    const report = await byHand(a, b, 'item', twice(first, last))
    t.match(report.counts, { applied: 1, refused: 1, quarantined: 0 })
    t.match(report.rejections, [{ id: spelled.toLowerCase(), outcome: 'refused', code: 'SYNC_RECORD_INVALID' }])
    t.same(await names(b), [last])
  }
})
