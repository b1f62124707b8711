/** Two sites whose tables differ, over HTTP: what each learns of the other, what goes on, and what a mapping makes of it. */
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { createConnections, type RunEvents, runPeer, verifyPeer } from '../../src/client/index.ts'
import {
  attach,
  checkResources,
  closeLeases,
  createPeer,
  createTask,
  findPeer,
  listLog,
  listQuarantine,
  purgeTombstones,
  readSelf,
  updateTask,
} from '../../src/store/index.ts'
import { addPeer, LIMITS, type Served, serve } from '../server/served.ts'
import { type Site, siteFactory } from '../support/sites.ts'

const sites = await siteFactory(t)

type Pair = {
  readonly here: Site
  readonly there: Site
  readonly served: Served
  readonly token: string
  readonly task: (resource: string, mode: string, more?: object) => Promise<number>
  readonly run: () => ReturnType<typeof runPeer>
  readonly verify: () => ReturnType<typeof verifyPeer>
}

async function pair(t: Test, ddlHere: string, ddlThere: string, tables: readonly string[] = ['place']): Promise<Pair> {
  const here = await sites.make('here', ddlHere, tables)
  const there = await sites.make('hub', ddlThere, tables)
  const served = await serve(t, there)
  const { token } = await addPeer(served, { name: 'here', uuid: here.self.uuid }, tables)
  await served.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = served.app.server.address() as AddressInfo
  const peer = await createPeer(here.store.db, here.key, {
    ...{ name: 'hub', uuid: there.self.uuid, url: `http://127.0.0.1:${port}`, token },
  })
  const connections = createConnections(here.store, here.key, { ...LIMITS, noProxy: [], logId: () => here.self.logId })
  t.teardown(async () => {
    await connections.close()
    await closeLeases(here.store)
  })
  const events = new Proxy({}, { get: () => () => {} }) as RunEvents
  const deps = { store: here.store, self: async () => here.self, connections, limits: LIMITS, events }
  return {
    ...{ here, there, served, token },
    task: async (resource, mode, more = {}) =>
      (await createTask(here.store.db, { peerId: peer.id, resource, mode, ...more })).id,
    run: async () => runPeer(deps, await findPeer(here.store.db, 'hub'), { cause: 'hand' }),
    verify: async () =>
      verifyPeer({ store: here.store, connections }, await findPeer(here.store.db, 'hub'), { deep: false }),
  }
}

const told = async (site: Site) =>
  (await listLog(site.store.db)).items.find(({ action }) => action === 'compare schema')

t.test('I11: a column of another type stops only the values that do not fit, and says so', async (t) => {
  const { here, there, task, run } = await pair(
    t,
    'create table place (id text primary key, name text, price int4); create table other (id text primary key)',
    'create table place (id text primary key, name text, price bigint, extra text); create table other (id text primary key)',
    ['place', 'other'],
  )
  await task('place', 'pull')
  await task('other', 'pull')
  await there.sql(
    `insert into place values ('a', 'fits', 12, 'E'), ('b', 'does not', 12345678901, null); insert into other values ('x')`,
  )
  const report = await run()
  t.equal(report.result, 'warning')
  t.same(await here.sql('select * from place'), [{ id: 'a', name: 'fits', price: 12 }])
  t.same(await here.sql('select * from other'), [{ id: 'x' }], 'the other resources go on')
  t.match(await listQuarantine(here.store.db, { limit: 10 }), [{ recordId: 'b' }])
  t.equal(
    (await told(here))?.message,
    'hub has column price bigint, here it is integer; hub has column extra text, here there is none: its values are parked with their records',
  )
  const [check] = (await checkResources(here.store.db, 'place')) ?? []
  t.match(check?.warnings, [
    'hub has column price bigint, here it is integer (1 record waits in quarantine because values did not fit)',
    /extra/,
  ])
  const before = (await listLog(here.store.db)).items.filter(({ action }) => action === 'compare schema').length
  await run()
  const after = (await listLog(here.store.db)).items.filter(({ action }) => action === 'compare schema').length
  t.equal(after, before, 'it is told once')
  await here.sql('alter table place alter column price type bigint, add column extra text')
  await attach(here.store, [{ table: 'place' }])
  await here.sql('update syncline.quarantine set retry_at = now()')
  await run()
  t.equal((await told(here))?.message, 'both sites have the same columns again')
  t.same(await here.sql('select * from place order by id'), await there.sql('select * from place order by id'))
})

t.test('I11: both sites know the columns of the other', async (t) => {
  const { here, there, served, token, task, run } = await pair(
    t,
    'create table place (id text primary key, mine varchar(20) not null default 1)',
    'create table place (id text primary key, theirs int)',
  )
  await task('place', 'both')
  await run()
  t.match(await there.sql('select resource, columns from syncline.peer_schema'), [
    {
      resource: 'place',
      columns: [{ name: 'mine', type: 'character varying(20)', nullable: false, hasDefault: true }],
    },
  ])
  t.match(await here.sql('select resource, columns from syncline.peer_schema'), [
    { resource: 'place', columns: [{ name: 'theirs', type: 'integer', nullable: true, hasDefault: false }] },
  ])
  const read = await served.ask(t, 'GET /sync/v1/schemas/place', { token })
  t.match(read.json, { resource: 'place', columns: [{ name: 'theirs' }] })
  const wrote = await served.ask(t, 'PUT /sync/v1/schemas/place', {
    token,
    body: { fingerprint: 'f', columns: [] },
  })
  t.equal(wrote.status, 204)
  t.match((await served.ask(t, 'GET /sync/v1/site', { token })).json, { resources: [{ yours: 'f' }] })
  t.equal((await served.ask(t, 'GET /sync/v1/schemas/nothing', { token })).status, 403)
})

t.test('I11: a column that must have a value and does not come is said once, before a record is sent', async (t) => {
  const { here, there, task, run } = await pair(
    t,
    'create table place (id text primary key, name text, must int not null)',
    'create table place (id text primary key, name text, also int not null)',
  )
  const id = await task('place', 'both')
  await there.sql(`insert into place select n::text, 'x', 1 from generate_series(1, 50) n`)
  const report = await run()
  t.match(report, {
    result: 'fatal',
    code: 'SYNC_RESOURCE_SKEW',
    message: 'place: must must have a value here and has no default, and hub does not send it',
  })
  t.same(await listQuarantine(here.store.db, { limit: 10 }), [])
  await updateTask(here.store.db, id, { mode: 'push' })
  t.match(await run(), {
    code: 'SYNC_RESOURCE_SKEW',
    message: 'place: also must have a value at hub and has no default, and this site does not send it',
  })
  await updateTask(here.store.db, id, { mode: 'both', mapping: { constant: { must: 7, also: 8 } } })
  await here.sql(`insert into place values ('own', 'y', 1)`)
  t.equal((await run()).result, 'success')
  t.same(await here.sql('select count(*)::int as n from place where must = 7'), [{ n: 50 }])
  t.same(await there.sql(`select * from place where id = 'own'`), [{ id: 'own', name: 'y', also: 8 }])
})

t.test(
  'I11: a mapping renames, fixes and omits columns both ways, with a filter, and both sites stay equal',
  async (t) => {
    const { here, there, task, run, verify } = await pair(
      t,
      `create table kind (id text primary key);
     create table place (id text primary key, inhabitants bigint, kind text references kind, secret text, country text not null, detail jsonb)`,
      `create table kind (id text primary key);
     create table place (id text primary key, population bigint, type text references kind, secret text, detail jsonb)`,
      ['kind', 'place'],
    )
    await t.rejects(task('place', 'both', { mapping: { rename: { population: 'nothing' } } }), {
      code: 'SYNC_REQUEST_INVALID',
      message: /there is no column "nothing" here/,
    })
    await t.rejects(
      task('place', 'both', { mapping: { rename: { population: 'inhabitants' }, omit: ['inhabitants'] } }),
      {
        message: /is omitted, and something else is said of it too/,
      },
    )
    await task('kind', 'both')
    const mapping = {
      rename: { population: 'inhabitants', type: 'kind' },
      constant: { country: 'AT' },
      omit: ['secret'],
    }
    await task('place', 'both', { mapping, filter: `inhabitants > 100` })
    await there.sql(
      `insert into kind values ('city'); insert into place values ('a', 1000, 'city', 'theirs', '{"a":1}'), ('small', 10, null, null, null)`,
    )
    t.equal((await run()).result, 'success')
    t.same(await here.sql('select * from place'), [
      { id: 'a', inhabitants: '1000', kind: 'city', secret: null, country: 'AT', detail: { a: 1 } },
    ])
    await here.sql(`update place set inhabitants = 2000, secret = 'ours', country = 'DE' where id = 'a'`)
    await here.sql(`insert into place values ('b', 500, 'city', 'ours', 'IT'), ('tiny', 1, null, 'ours', 'IT')`)
    t.equal((await run()).result, 'success')
    t.same(await there.sql('select * from place order by id'), [
      { id: 'a', population: '2000', type: 'city', secret: 'theirs', detail: { a: 1 } },
      { id: 'b', population: '500', type: 'city', secret: null, detail: null },
      { id: 'small', population: '10', type: null, secret: null, detail: null },
    ])
    await there.sql(`update place set population = 3000 where id = 'a'; delete from place where id = 'b'`)
    t.equal((await run()).result, 'success')
    t.same(await here.sql('select id, inhabitants, secret, country from place order by id'), [
      { id: 'a', inhabitants: '3000', secret: 'ours', country: 'AT' },
      { id: 'tiny', inhabitants: '1', secret: 'ours', country: 'IT' },
    ])
    t.match(await verify(), [
      { resource: 'kind', equal: true },
      { resource: 'place', equal: true },
    ])
    t.same(await here.sql('select from syncline.parked'), [], 'what is omitted is not kept either')
    t.same(await there.sql('select from syncline.parked'), [])
  },
)

t.test('I6: over HTTP too a peer that was away catches up with what was purged meanwhile', async (t) => {
  const ddl = 'create table place (id text primary key, name text)'
  const { here, there, served, token, task, run, verify } = await pair(t, ddl, ddl)
  await task('place', 'both')
  await there.sql(`insert into place select 't' || n, '' from generate_series(1, 40) n`)
  await here.sql(`insert into place select 'h' || n, '' from generate_series(1, 40) n`)
  await run()
  await there.sql(`delete from place where id in ('t1', 't2', 'h1')`)
  await here.sql(`delete from place where id in ('t3', 'h3')`)
  for (const site of [here, there]) {
    const { logId } = await readSelf(site.store.db)
    await purgeTombstones(site.store.db, { logId, days: 0 })
  }
  await here.sql(`insert into place values ('new', '')`)
  t.equal((await run()).result, 'success')
  await run()
  t.same(await here.sql('select id from place order by id'), await there.sql('select id from place order by id'))
  t.same(await here.sql(`select count(*)::int as n from place`), [{ n: 76 }])
  t.match(await verify(), [{ equal: true }])
  const refused = await served.ask(t, 'GET /sync/v1/changes?resource=place&purged=true', { token })
  t.match(refused, { status: 406, json: { code: 'SYNC_FORMAT_UNSUPPORTED' } })
})

t.test('I11: a column that is added, renamed or dropped here is noticed by the next run', async (t) => {
  const { here, there, task, run } = await pair(
    t,
    'create table place (id text primary key, name text)',
    'create table place (id text primary key, name text, extra text, gone text)',
  )
  await task('place', 'both')
  await there.sql(`insert into place values ('a', '1', 'E', 'G')`)
  await run()
  await here.sql('alter table place add column extra text')
  await run()
  t.same(await here.sql('select * from place'), [{ id: 'a', name: '1', extra: 'E' }], 'what was parked is in it')
  await here.sql('alter table place drop column name')
  await there.sql(`update place set name = '2', extra = 'F'`)
  t.equal((await run()).result, 'success')
  t.same(await here.sql('select * from place'), [{ id: 'a', extra: 'F' }])
  t.match((await told(here))?.message, /hub has column name text, here there is none: its values are parked/)
  await here.sql('alter table place rename column extra to more')
  await here.sql(`update place set more = 'own'`)
  t.equal((await run()).result, 'success')
  t.same(
    await there.sql('select * from place'),
    [{ id: 'a', name: '2', extra: 'F', gone: 'G' }],
    'never null for what is not there',
  )
  await here.sql('alter table place add column name text')
  await run()
  t.same(await here.sql('select id, more, name from place'), [{ id: 'a', more: 'own', name: '2' }])
})

t.test('I9: a column that is added and filled at the peer is noticed there by the greeting', async (t) => {
  const ddl = 'create table place (id text primary key, name text)'
  const { here, there, task, run } = await pair(t, ddl, ddl)
  await task('place', 'both')
  await there.sql(`insert into place values ('a', '1')`)
  await run()
  await there.sql(`alter table place add column extra text; update place set extra = 'E'`)
  t.match(await run(), { result: 'success', counts: { pulled: 1 } }, 'it is no news a minute later')
  t.match((await told(here))?.message, /hub has column extra text, here there is none/)
  await here.sql('alter table place add column extra text')
  await run()
  t.same(await here.sql('select * from place'), [{ id: 'a', name: '1', extra: 'E' }])
})
