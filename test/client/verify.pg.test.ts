import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import {
  createConnections,
  type RunEvents,
  repairDifferences,
  repairPeer,
  runPeer,
  type Verified,
  verifyPeer,
} from '../../src/client/index.ts'
import {
  attach,
  closeLeases,
  createPeer,
  createTask,
  findPeer,
  findResource,
  issueToken,
  listAgreements,
  listBrakes,
  listLog,
  listRuns,
  listTasks,
  refreshAltered,
  releaseBrake,
  setGrant,
  undoRun,
  updateTask,
  wholeDigest,
} from '../../src/store/index.ts'
import { serve } from '../server/served.ts'
import { type Row, type Site, siteFactory } from '../support/sites.ts'
import { LIMITS } from './peer-site.ts'

const sites = await siteFactory(t)
const DDL = `create table place (id text primary key, name text not null, size int not null default 0, memo text, own serial)`

type Pair = {
  readonly here: Site
  readonly there: Site
  readonly run: () => ReturnType<typeof runPeer>
  readonly verify: (options?: { deep?: boolean; namedMax?: number }) => Promise<Verified>
  readonly repair: (found: Verified) => ReturnType<typeof repairDifferences>
  /** As `verify --repair` does it. */
  readonly repairPeer: (options?: { deep?: boolean; preview?: boolean }) => ReturnType<typeof repairPeer>
}

/** Two sites: `here` runs, `there` is a whole server. */
async function pair(t: Test, more: { task?: object; grant?: object; ddlThere?: string } = {}): Promise<Pair> {
  const [here, there] = [
    await sites.make('here', DDL, ['place']),
    await sites.make('there', more.ddlThere ?? DDL, ['place']),
  ]
  const caller = await createPeer(there.store.db, there.key, { name: 'here', uuid: here.self.uuid })
  const { token } = await issueToken(there.store.db, { name: 'here', role: 'peer', peerId: caller.id })
  for (const direction of ['pull', 'push'] as const)
    await setGrant(there.store.db, { peerId: caller.id, resource: 'place', direction, ...more.grant })
  const { app } = await serve(t, there)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const peer = await createPeer(here.store.db, here.key, { name: 'there', uuid: there.self.uuid, url, token })
  await createTask(here.store.db, { peerId: peer.id, resource: 'place', mode: 'both', ...more.task })
  const connections = createConnections(here.store, here.key, { ...LIMITS, noProxy: [], logId: () => here.self.logId })
  t.teardown(async () => {
    await connections.close()
    await closeLeases(here.store)
  })
  const events = new Proxy({}, { get: () => () => {} }) as RunEvents
  const deps = { store: here.store, self: async () => here.self, connections, limits: LIMITS, events }
  const now = () => findPeer(here.store.db, 'there')
  return {
    here,
    there,
    run: async () => runPeer(deps, await now(), { cause: 'hand' }),
    verify: async ({ deep = false, namedMax } = {}) => {
      const [found] = await verifyPeer({ store: here.store, connections }, await now(), { deep, namedMax })
      if (found === undefined) throw new Error('nothing was verified')
      return found
    },
    repair: async (found) => {
      const link = { self: here.self, peer: await now() }
      const { client } = await connections.of(await now())
      return repairDifferences({ store: here.store, link, client, limits: LIMITS, runId: null }, found)
    },
    repairPeer: async (options = {}) => repairPeer(deps, await now(), { deep: false, preview: false, ...options }),
  }
}

/** As a bulk load does it. The triggers are back afterwards as Syncline made them. */
const behind = (site: Site, text: string) => {
  const triggers = ['insert', 'update', 'delete', 'truncate'].map((event) => `zz_syncline_${event}`)
  const back = triggers.map((name) => `alter table place enable always trigger ${name}`).join('; ')
  return site.sql(`alter table place disable trigger all; ${text}; ${back}`)
}

const agreement = async (site: Site) => (await listAgreements(site.store.db))[0]

/** What a full comparison of both databases finds, in words of its own: no digest, every record and every row. */
async function fullComparison({
  here,
  there,
}: Pair): Promise<{ readonly versions: string[]; readonly values: string[] }> {
  const read = async (site: Site) => {
    const records = await site.sql(
      `select r.record_id as id, o.origin || ' ' || r.clock as version from syncline.record r join syncline.site o on o.id = r.origin where not r.deleted`,
    )
    const rows = await site.sql('select id, name, size, memo from place')
    return {
      records: new Map(records.map(({ id, version }) => [String(id), String(version)])),
      rows: new Map(rows.map((row) => [String(row.id), JSON.stringify(row)])),
    }
  }
  const [a, b] = [await read(here), await read(there)]
  const ids = [...new Set([...a.records.keys(), ...b.records.keys(), ...a.rows.keys(), ...b.rows.keys()])].sort()
  const versions = ids.filter((id) => a.records.get(id) !== b.records.get(id))
  const odd = ({ records, rows }: typeof a, id: string) => records.has(id) !== rows.has(id)
  const values = ids.filter(
    (id) => versions.includes(id) || odd(a, id) || odd(b, id) || a.rows.get(id) !== b.rows.get(id),
  )
  return { versions, values }
}

async function kept(t: Test, site: Site): Promise<void> {
  const { id } = await findResource(site.store.db, 'place')
  const [full] = await site.sql(
    `select count(*)::int as records, coalesce(sum(hashtextextended(r.record_id, hashtextextended(o.origin, r.clock))), 0)::text as sum
       from syncline.record r join syncline.site o on o.id = r.origin where not r.deleted`,
  )
  t.match(await wholeDigest(site.store.db, id), full as Row, `${site.name} keeps the sum of all its records`)
}

t.test('I9: every verdict, shallow and deep, is that of a full comparison, and a repair leaves nothing', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(
    `insert into place (id, name) select 'p' || lpad(n::text, 3, '0'), 'place ' || n from generate_series(1, 60) n`,
  )
  await both.run()
  const id = fc.integer({ min: 1, max: 70 }).map((n) => `p${String(n).padStart(3, '0')}`)
  const damage = fc.record({
    site: fc.constantFrom('here', 'there'),
    how: fc.constantFrom('forgotten', 'inserted', 'deleted', 'edited', 'older', 'buried', 'changed', 'removed'),
    id,
  })
  const seen = { shallow: 0, hidden: 0 }
  await fc.assert(
    fc.asyncProperty(fc.array(damage, { maxLength: 6 }), async (damages) => {
      for (const { site, how, id } of damages) {
        const at = site === 'here' ? here : there
        const record = `syncline.record where record_id = '${id}'`
        // The ways in which two sites come to differ: some by the triggers and on their way, some behind them, some in the tables of Syncline.
        if (how === 'forgotten') await behind(at, `delete from ${record}; delete from place where id = '${id}'`)
        if (how === 'inserted')
          await behind(at, `insert into place (id, name) values ('${id}', 'behind') on conflict do nothing`)
        if (how === 'deleted') await behind(at, `delete from place where id = '${id}'`)
        if (how === 'edited') await behind(at, `update place set name = name || '~' where id = '${id}'`)
        if (how === 'older')
          await at.sql(
            `update syncline.record set clock = clock - 5, xact = pg_current_xact_id() where record_id = '${id}'`,
          )
        if (how === 'buried') await behind(at, `delete from ${record} and deleted`)
        if (how === 'changed')
          await at.sql(
            `insert into place (id, name) values ('${id}', 'changed') on conflict (id) do update set size = place.size + 1`,
          )
        if (how === 'removed') await at.sql(`delete from place where id = '${id}'`)
      }
      const truth = await fullComparison(both)
      const shallow = await both.verify()
      fc.pre(true)
      if (JSON.stringify(shallow.differing) !== JSON.stringify(truth.versions))
        throw new Error(`shallow found ${shallow.differing}, a full comparison ${truth.versions}: ${shallow.detail}`)
      if (shallow.equal !== (truth.versions.length === 0)) throw new Error('the verdict is not that of what was found')
      const deep = await both.verify({ deep: true })
      const found = [...deep.differing].sort()
      if (JSON.stringify(found) !== JSON.stringify(truth.values))
        throw new Error(`deep found ${found}, a full comparison ${truth.values}: ${deep.detail}`)
      if (deep.equal !== (truth.values.length === 0)) throw new Error('the deep verdict is not that of what was found')
      if (truth.versions.length > 0) seen.shallow++
      if (truth.values.length > truth.versions.length) seen.hidden++
      if (!deep.equal) await both.repair(deep)
      const left = await fullComparison(both)
      if (left.values.length > 0) {
        await both.repair(await both.verify({ deep: true }))
        const still = await fullComparison(both)
        if (still.values.length > 0) throw new Error(`two repairs leave ${still.values}`)
      }
      const last = await both.verify({ deep: true })
      if (!last.equal) throw new Error(`the last word is ${last.detail}`)
    }),
    { numRuns: 40 },
  )
  t.ok(seen.shallow > 5, `${seen.shallow} times versions differed`)
  t.ok(seen.hidden > 5, `${seen.hidden} times only values did`)
  for (const site of [here, there]) await kept(t, site)
  t.match(await agreement(here), { verdict: 'equal' })
})

t.test('I9: two equal differences do not cancel each other', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 20) n`)
  await both.run()
  t.match(await both.verify(), { equal: true, checked: 20 })
  // Two records that are missing on one side, and the same wrong twice: with XOR either would vanish.
  const double = `insert into syncline.record (resource_id, record_id, xact, origin, clock)
    select resource_id, '%s', pg_current_xact_id(), origin, clock from syncline.record where record_id = 'p1'`
  await behind(there, double.replace('%s', 'q1'))
  await behind(there, double.replace('%s', 'q2'))
  t.match(await both.verify(), { equal: false, differing: ['q1', 'q2'] })
  await behind(there, `delete from syncline.record where record_id in ('q1', 'q2')`)
  await behind(there, `update syncline.record set clock = clock + 7 where record_id in ('p1', 'p2')`)
  t.match(await both.verify(), { equal: false, differing: ['p1', 'p2'] })
  await behind(there, `update syncline.record set clock = clock - 7 where record_id in ('p1', 'p2')`)
  t.match(await both.verify(), { equal: true })
})

t.test(
  'I9: a run proves both sites equal, both know it, and a run with nothing to do asks for nothing more',
  async (t) => {
    const both = await pair(t)
    const { here, there } = both
    await here.sql(`insert into place (id, name) select 'h' || n, 'place' from generate_series(1, 30) n`)
    await there.sql(`insert into place (id, name) select 't' || n, 'place' from generate_series(1, 12) n`)
    t.match(await both.run(), { result: 'success', counts: { compared: 1, different: 0 } })
    for (const site of [here, there]) {
      const found = await agreement(site)
      t.match(found, { verdict: 'equal', reason: null, records: 42, agreedRecords: 42, differing: null }, site.name)
      t.ok(Math.abs(Date.parse(found?.agreedAt ?? '') - Date.now()) < 60_000)
    }
    await both.run()
    t.match(await both.run(), { counts: { compared: 0 } }, 'what nobody touched is equal still')
    await there.sql(`delete from place where id in ('t1', 't2')`)
    t.match(await both.run(), { counts: { compared: 1 } })
    t.match(await agreement(here), { verdict: 'equal', records: 40 }, 'deleted records are not counted')
  },
)

t.test('I9: a difference that nothing explains is said, and one that waits is said to wait', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 10) n`)
  await both.run()
  await behind(there, `delete from syncline.record where record_id = 'p3'; delete from place where id = 'p3'`)
  await here.sql(`insert into place (id, name) values ('p11', 'more')`)
  t.match(await both.run(), { result: 'warning', counts: { different: 1 } })
  for (const site of [here, there])
    t.match(await agreement(site), { verdict: 'different', differing: site === here ? 1 : null })
  t.ok((await agreement(here))?.agreedAt, 'when both were equal last is still known')
  t.match(await both.run(), { result: 'warning' }, 'and it is said again as long as it is so')
  const found = await both.verify()
  t.match(found, { differing: ['p3'], differences: [{ id: 'p3', what: 'missing there' }] })
  t.match(await both.repair(found), { adopted: 0, applied: 1 })
  t.match(await both.run(), { result: 'success' })
  t.match(await agreement(here), { verdict: 'equal', records: 11 })

  await there.sql(`alter table place add constraint short check (length(name) < 20)`)
  await here.sql(`update place set name = repeat('long ', 10) where id = 'p5'`)
  await both.run()
  t.match(await agreement(here), { verdict: 'waiting', reason: /quarantine/ })
  t.match(await both.verify(), { equal: false, verdict: 'waiting' })
})

t.test('a repair writes nothing to records that are equal', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 3000) n`)
  await both.run()
  await behind(there, `delete from syncline.record where record_id = 'p17'; delete from place where id = 'p17'`)
  await behind(here, `update place set name = 'behind' where id = 'p18'`)
  await behind(there, `delete from place where id = 'p19'`)
  await behind(here, `insert into place (id, name) values ('new', 'behind')`)
  const heads = (site: Site) => site.sql('select record_id, xact::text, clock from syncline.record order by 1')
  const before = [await heads(here), await heads(there)]
  const found = await both.verify({ deep: true })
  t.same(found.differences.map(({ id, what }) => `${id} ${what}`).sort(), [
    'new row unknown here',
    'p17 missing there',
    'p18 content',
    'p19 row gone there',
  ])
  await both.repair(found)
  const after = [await heads(here), await heads(there)]
  for (const [n, rows] of before.entries()) {
    const now = new Map(after[n]?.map((row) => [row.record_id, row]))
    const moved = rows
      .filter((row) => JSON.stringify(row) !== JSON.stringify(now.get(row.record_id)))
      .map((row) => row.record_id)
    t.ok(
      moved.every((id) => ['p17', 'p18', 'p19'].includes(String(id))),
      `moved: ${moved}`,
    )
  }
  t.same(await fullComparison(both), { versions: [], values: [] })
  t.match(await there.sql(`select name from place where id in ('p18', 'new') order by id`), [
    { name: 'behind' },
    { name: 'behind' },
  ])
  t.same(await here.sql(`select from place where id = 'p19'`), [], 'what was deleted behind the triggers is deleted')
  t.match(await both.verify({ deep: true }), { equal: true })
})

t.test('values that were edited behind the triggers are those of the side that wrote its row last', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 5) n`)
  await both.run()
  await behind(there, `update place set name = 'edited there' where id = 'p1'`)
  await behind(here, `update place set name = 'edited here' where id = 'p2'`)
  await both.repair(await both.verify({ deep: true }))
  for (const site of [here, there])
    t.same(await site.sql(`select name from place where id in ('p1', 'p2') order by id`), [
      { name: 'edited there' },
      { name: 'edited here' },
    ])
})

t.test('only columns that both sides have, with the same type, and that the task names are compared', async (t) => {
  const both = await pair(t, {
    ddlThere: DDL.replace('size int', 'size text').replace('memo text, ', ''),
    task: { columns: ['name', 'size'] },
  })
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 5) n`)
  await both.run()
  await behind(there, `update place set size = '9' where id = 'p1'`)
  await behind(here, `update place set memo = 'x' where id = 'p2'`)
  t.match(await both.verify({ deep: true }), { equal: true, detail: /not compared.*: size/ })
  await behind(here, `update place set name = 'y' where id = 'p2'`)
  t.match(await both.verify({ deep: true }), { equal: false, differing: ['p2'] })
})

t.test('I9: a column that was narrowed is no agreement until the values were compared, at both sites', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  for (const site of [here, there]) {
    await site.sql('alter table place add column price numeric(8,2)')
    await refreshAltered(site.store)
  }
  await there.sql(`insert into place (id, name, price) values ('p1', 'x', 1.50), ('p2', 'x', 9.87)`)
  await both.run()
  t.match(await agreement(here), { verdict: 'equal' })
  await here.sql('alter table place alter column price type numeric(6,1)')
  await refreshAltered(here.store)
  const why = /may have lost something here: column price was numeric\(8,2\) and is numeric\(6,1\)/
  t.match(await agreement(here), { verdict: 'different', reason: why })
  await there.sql(`insert into place (id, name) values ('p3', 'y')`)
  await both.run()
  t.match(await agreement(here), { verdict: 'different', reason: why }, 'equal versions prove nothing')
  t.match(await agreement(there), { verdict: 'different', reason: /something at the peer: column price was/ })
  const found = await both.verify({ deep: true })
  t.match(found, { equal: false, differing: ['p2'] }, 'and 1.5 is 1.50')
  await here.sql('alter table place alter column price type numeric(8,2)')
  await refreshAltered(here.store)
  await behind(here, `update place set price = 9.87 where id = 'p2'`)
  await both.run()
  t.match(await agreement(here), { verdict: 'different' })
  t.match(await both.verify({ deep: true }), { equal: true })
  t.match(await agreement(here), { verdict: 'equal' })
  t.match(await agreement(there), { verdict: 'equal' }, 'the other side is told')
})

t.test('I9: within a filter only what matches is compared, and what left it and was kept does not count', async (t) => {
  const both = await pair(t, { task: { filter: 'size < 10' } })
  const { here, there } = both
  await there.sql(`insert into place (id, name, size) select 'p' || n, 'place', n from generate_series(1, 30) n`)
  await both.run()
  t.match(await agreement(here), { verdict: 'equal', records: 9 })
  await there.sql(`update place set size = 50 where id = 'p4'`)
  await both.run()
  t.same(await here.sql(`select size from place where id = 'p4'`), [{ size: 4 }], 'kept')
  t.match(await both.verify(), { equal: true, checked: 8 })
  t.match(await both.verify({ deep: true }), { equal: true })
  await there.sql(`update place set size = 5 where id = 'p4'`)
  await both.run()
  t.match(await both.verify(), { equal: true, checked: 9 }, 'and counts again when it comes back')
  await behind(here, `delete from syncline.record where record_id = 'p2'; delete from place where id = 'p2'`)
  t.match(await both.verify(), { equal: false, differing: ['p2'] })
})

t.test('a filter of the grant is compared by, unless it tells what the peer may not see', async (t) => {
  const both = await pair(t, { grant: { filter: 'size < 10' } })
  const { here, there } = both
  await there.sql(`insert into place (id, name, size) select 'p' || n, 'place', n from generate_series(1, 30) n`)
  await both.run()
  t.match(await agreement(here), { verdict: 'equal', records: 9 })
  t.match(await both.verify(), { equal: true, checked: 9 })
  const caller = await findPeer(there.store.db, 'here')
  for (const direction of ['pull', 'push'] as const)
    await setGrant(there.store.db, {
      peerId: caller.id,
      resource: 'place',
      direction,
      filter: 'size < 10',
      columns: ['name'],
    })
  await t.rejects(both.verify(), { code: 'SYNC_AUTH_FORBIDDEN' })
})

t.test('I1: what was done while the triggers were off is taken up when the table is attached again', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 10) n`)
  await both.run()
  await here.sql(`alter table place disable trigger all; insert into place (id, name) values ('off', 'written while off');
    delete from place where id = 'p1'; alter table place enable trigger all`)
  await both.run()
  t.equal((await there.sql(`select from place where id = 'off'`)).length, 0)
  await attach(here.store, [{ table: 'place' }])
  await both.run()
  t.same(await there.sql(`select name from place where id = 'off'`), [{ name: 'written while off' }])
  t.same(await there.sql(`select from place where id = 'p1'`), [])
  t.match(await both.verify({ deep: true }), { equal: true })
  const head = await here.sql('select max(xact::text::int8) as head from syncline.record')
  await attach(here.store, [{ table: 'place' }])
  t.same(
    await here.sql('select max(xact::text::int8) as head from syncline.record'),
    head,
    'attaching again changes nothing',
  )
})

t.test(
  'I9: what was proved of another scope is forgotten with it, and a sum that somebody broke is made anew',
  async (t) => {
    const both = await pair(t)
    const { here, there } = both
    await here.sql(`insert into place (id, name, size) select 'p' || n, 'place', n from generate_series(1, 20) n`)
    await both.run()
    t.match(await agreement(here), { verdict: 'equal', records: 20 })
    const { items } = await listTasks(here.store.db, {})
    await updateTask(here.store.db, Number(items[0]?.id), { filter: 'size > 10' })
    t.equal(await agreement(here), undefined)
    await both.run()
    t.match(await agreement(here), { verdict: 'equal', records: 10 })
    await updateTask(here.store.db, Number(items[0]?.id), { filter: null })

    await there.sql('update syncline.digest set sum = sum + 1')
    t.match(await both.verify(), { equal: true }, 'every record is read')
    await kept(t, there)
  },
)

t.test('a task in one direction is not called different for what the other side has more of', async (t) => {
  const both = await pair(t, { task: { mode: 'push' } })
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'h' || n, 'place' from generate_series(1, 10) n`)
  await there.sql(`insert into place (id, name) select 't' || n, 'place' from generate_series(1, 10) n`)
  t.match(await both.run(), { result: 'success' })
  t.match(await agreement(here), {
    verdict: 'unknown',
    reason: /10 records here, 20 at the peer; the task only pushes/,
  })
  t.match(await both.verify(), { equal: true })
  await behind(there, `delete from syncline.record where record_id = 'h3'; delete from place where id = 'h3'`)
  t.match(await both.verify(), { equal: false, differing: ['h3'] })
})

t.test(
  'I10: a repair deletes no more than the task allows, on either side, and nothing while a brake waits',
  async (t) => {
    for (const emptied of ['here', 'there'] as const) {
      const both = await pair(t, { grant: { maxDeletes: 'none' } })
      const { here, there } = both
      await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 300) n`)
      await both.run()
      await both[emptied].sql('delete from place')
      const found = await both.verify({ namedMax: 1_000 })
      t.equal(found.equal, false)
      await t.rejects(both.repair(found), { code: 'SYNC_RUN_BRAKED' })
      t.match(await both.run(), { code: 'SYNC_RUN_BRAKED' })
      await t.rejects(both.repair(found), { code: 'SYNC_RUN_BRAKED', message: /waits for a release/ })
      const other = emptied === 'here' ? there : here
      const [left] = await other.sql('select count(*)::int as n from place')
      t.equal(left?.n, 300, 'it was weighed before anything was written')
    }
  },
)

t.test('I9: values that were found different stay so until values are found equal', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 10) n`)
  await both.run()
  await behind(there, `update place set name = 'behind' where id = 'p3'`)
  t.match(await both.verify({ deep: true }), { equal: false, differing: ['p3'] })
  await both.verify()
  t.match(await agreement(here), { verdict: 'different', differing: 1, reason: /values differ/ })
  await here.sql(`update place set name = 'newer' where id = 'p1'`)
  await both.run()
  t.match(await agreement(here), { verdict: 'different' }, 'a run does not look at values')
  await both.repair(await both.verify({ deep: true }))
  t.match(await both.verify({ deep: true }), { equal: true })
  t.match(await agreement(here), { verdict: 'equal' })
})

t.test(
  'I10: a repair is weighed with all its records and those of the peer before the first of them is written',
  async (t) => {
    const both = await pair(t, { task: { maxDeletes: '150' }, grant: { maxDeletes: '20' } })
    const { here, there } = both
    await here.sql(
      `insert into place (id, name) select 'p' || lpad(n::text, 3, '0'), 'place' from generate_series(1, 250) n`,
    )
    await both.run()
    await there.sql(`delete from place where id <= 'p160'`)
    await t.rejects(both.repairPeer(), {
      code: 'SYNC_RUN_BRAKED',
      message: /would delete 160 of 250 .*nothing was written/,
    })
    t.same(await here.sql('select count(*)::int as n from place'), [{ n: 250 }])
    t.match(await listRuns(here.store.db, { limit: 1 }), {
      items: [{ cause: 'repair', result: 'fatal', code: 'SYNC_RUN_BRAKED', message: /nothing was written/ }],
    })
    const { preview } = await both.repairPeer({ preview: true })
    t.match(preview, {
      tasks: [
        {
          resource: 'place',
          parts: [{ direction: 'pull', writes: { deletes: 160 }, braked: [/would delete 160 of 250/] }, {}],
        },
      ],
    })
    const brakes = async () => (await listBrakes(here.store.db)).items
    const [brake, ...others] = await brakes()
    t.same(others, [], 'a preview stops nothing')
    t.match(brake, {
      ...{ direction: 'repair', resource: 'place', rules: ['deletes'], releasedAt: null, runId: String },
      facts: { deletes: 160, changes: 0, living: 250, deep: false, pushed: { deletes: 0, changes: 0 } },
    })
    const token = brake?.token ?? ''
    await t.rejects(both.repairPeer(), {
      message: new RegExp(`If it is meant: syncline verify there --release ${token}$`),
    })
    t.match(await brakes(), [{ token, times: 2 }], 'stopped with the same numbers it is the same brake')
    await releaseBrake(here.store.db, { token, by: 'a test' })
    t.match(await both.repairPeer(), { applied: 160, resources: [{ equal: true }] })
    t.match(await brakes(), [{ token, ending: 'used' }])
    await here.sql(`insert into place (id, name) select 'q' || n, 'place' from generate_series(1, 250) n`)
    await both.run()
    await there.sql(`delete from place where id like 'q%'`)
    await t.rejects(both.repairPeer(), { code: 'SYNC_RUN_BRAKED' }, 'it works once')

    const pushed = await pair(t, { grant: { maxDeletes: '20' } })
    await pushed.here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 250) n`)
    await pushed.run()
    await pushed.here.sql(`delete from place where id < 'p13'; update place set name = 'new' where id = 'p99'`)
    await t.rejects(pushed.repairPeer(), { code: 'SYNC_RUN_BRAKED', message: /delete 34 .*nothing was written/ })
    t.same(await pushed.there.sql('select count(*)::int as n from place'), [{ n: 250 }])
  },
)

t.test(
  'I1: a repair pushes no values that a narrower column has rounded, and takes the whole ones where there are',
  async (t) => {
    const both = await pair(t)
    const { here, there } = both
    const alter = async (site: Site, change: string) => {
      await site.sql(`alter table place ${change}`)
      await refreshAltered(site.store)
    }
    const prices = async () => [here, there].map((site) => site.sql('select price::text from place order by id'))
    const whole = [{ price: '1.2345' }, { price: '2.0000' }]
    for (const site of [here, there]) await alter(site, 'add column price numeric(10,4)')
    await here.sql(`insert into place (id, name, price) values ('a', 'Alp', 1.2345), ('b', 'Bach', 2)`)
    await both.run()
    for (const [narrow, detail] of [
      [here, /rounded \(values may have lost something here: .*\): a repair takes them from there$/],
      [there, /rounded \(values may have lost something at the peer: .*\): a repair takes them from this site$/],
    ] as const) {
      await alter(narrow, 'alter column price type numeric(6,2)')
      await both.run()
      const sides = narrow === here ? ['6,2', '10,4'] : ['10,4', '6,2']
      t.match(await both.verify({ deep: true }), {
        differing: ['a'],
        detail: new RegExp(
          `rounded \\(column price is numeric\\(${sides[0]}\\) here and numeric\\(${sides[1]}\\) at there\\): a repair leaves them`,
        ),
      })
      t.match(await both.repairPeer({ deep: true }), {
        runId: null,
        applied: 0,
        resources: [{ differing: ['a'] }],
      })
      const other = narrow === here ? there : here
      t.same(await other.sql('select price::text from place order by id'), whole, 'nothing was rounded there')
      await alter(narrow, 'alter column price type numeric(10,4)')
      await both.run()
      t.match(await both.verify({ deep: true }), { differing: ['a'], detail })
      t.match(await both.repairPeer({ deep: true }), { resources: [{ equal: true }] })
      t.same(await Promise.all(await prices()), [whole, whole])
    }
    await here.sql(`insert into place (id, name, price) values ('c', 'Cham', 5)`)
    await both.run()
    await behind(there, `update place set price = 3 where id = 'c'`)
    t.match(
      (await both.verify({ deep: true })).detail,
      /^1 with other values in the same version$/,
      'the doubt is over',
    )
    await both.repairPeer({ deep: true })
    t.match(await here.sql(`select price::text from place where id = 'c'`), [{ price: '3.0000' }])
    await here.sql(`insert into place (id, name, price) values ('d', 'Dorf', 4.5678)`)
    await both.run()
    for (const type of ['numeric(6,2)', 'numeric(10,4)']) await alter(there, `alter column price type ${type}`)
    t.match(await both.repairPeer({ deep: true }), { resources: [{ equal: false }] }, 'what this site never heard of')
    t.same(await here.sql(`select price::text from place where id = 'd'`), [{ price: '4.5678' }])
  },
)

t.test('a repair tells what it would do, and is a run that can be taken back', async (t) => {
  const both = await pair(t)
  const { here, there } = both
  await here.sql(`insert into place (id, name) select 'p' || n, 'place' from generate_series(1, 10) n`)
  await both.run()
  await there.sql(
    `update place set name = 'theirs' where id = 'p1'; delete from place where id = 'p2'; insert into place (id, name) values ('new', 'n')`,
  )
  await here.sql(`update place set name = 'ours' where id = 'p3'`)
  await behind(here, `update place set name = 'behind' where id = 'p4'`)
  const rows = () => here.sql('select id, name from place order by id')
  const [before, versions] = [await rows(), await here.sql('select record_id, clock from syncline.record order by 1')]
  const seen = await both.repairPeer({ deep: true, preview: true })
  t.equal(seen.runId, null)
  t.match(seen.preview?.tasks, [
    {
      resource: 'place',
      parts: [
        { direction: 'pull', writes: { inserts: 1, updates: 1, deletes: 1 }, braked: [] },
        { direction: 'push', writes: { inserts: 0, updates: 2, deletes: 0 }, braked: [] },
      ],
    },
  ])
  t.match(seen.preview?.tasks[0]?.parts[0]?.samples.map(({ id }) => id).sort(), ['new', 'p1', 'p2'])
  t.same(await rows(), before, 'nothing was written')
  t.same(await here.sql('select record_id, clock from syncline.record order by 1'), versions)

  const done = await both.repairPeer({ deep: true })
  t.match(done, { adopted: 1, applied: 5, resources: [{ equal: true }] })
  t.same(await rows(), await there.sql('select id, name from place order by id'))
  const runId = done.runId ?? ''
  t.match((await listRuns(here.store.db, { limit: 1 })).items, [
    { id: runId, cause: 'repair', result: 'success', counts: { applied: 5 } },
  ])
  t.match((await listLog(here.store.db, { runId })).items, [{ action: 'repair', resource: 'place' }])
  const undone = await undoRun(
    here.store,
    here.self,
    { runId, preview: false, force: [], partial: false, by: 'ann' },
    LIMITS,
  )
  t.match(undone.counts, { removed: 1, restored: 1, replaced: 1 })
  t.same(await rows(), before)
  await both.run()
  t.same(await there.sql('select id, name from place order by id'), before, 'and that is a change like any other')
  const again = await both.repairPeer()
  t.match(again, { runId: null, applied: 0, resources: [{ equal: true }] }, 'where nothing differs there is no run')
})
