import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createConnections, type RunEvents, type RunOptions, type RunReport, runPeer } from '../../src/client/index.ts'
import {
  attach,
  closeLeases,
  createPeer,
  createTask,
  ensureSelf,
  findPeer,
  listLog,
  listQuarantine,
  listRuns,
  listTasks,
  migrate,
  newLog,
  openStore,
  pausePeer,
  readSelf,
  type Self,
  type Store,
  setGrant,
  startRun,
  updatePeer,
  withPeerLease,
} from '../../src/store/index.ts'
import type { Mode } from '../../src/sync/index.ts'
import { freePort, startPostgres } from '../support/postgres.ts'
import { LIMITS, type PeerSite, servePeer } from './peer-site.ts'

const KEY = Buffer.alloc(32, 7)
const TABLES = `
  create table country (id uuid primary key default gen_random_uuid(), name text not null);
  create table city (id uuid primary key default gen_random_uuid(), country uuid references country, name text not null check (name <> 'bad'), size int);`

const cluster = await startPostgres(t)
const template = await cluster.createDatabase()
const first = await openStore({ databaseUrl: template.url, dataDir: '/nonexistent' })
await migrate(first)
await first.pool.query(TABLES)
await first.close()

type Side = { readonly store: Store; self: Self; readonly query: (text: string) => Promise<Record<string, unknown>[]> }
type Told = { readonly event: string; readonly [key: string]: unknown }
type Pair = {
  readonly here: Side
  readonly there: Side
  readonly site: PeerSite
  readonly told: Told[]
  readonly run: (options?: Partial<RunOptions>) => Promise<RunReport>
  readonly task: (resource: string, mode: Mode, more?: object) => Promise<unknown>
}

async function openSide(t: Test, name: string): Promise<Side> {
  const { url } = await cluster.createDatabase({ template: template.name })
  const store = await openStore({ databaseUrl: url, dataDir: '/nonexistent', connectionsMax: 4 })
  t.teardown(async () => {
    await closeLeases(store)
    await store.close()
  })
  const self = await ensureSelf(store.db, { name, key: KEY })
  await attach(store, [{ table: 'city' }, { table: 'country' }])
  const query = async (text: string) => (await store.pool.query(text)).rows as Record<string, unknown>[]
  return { store, self, query }
}

/** Two sites: `here` runs, `there` serves and grants everything. */
async function pair(t: Test): Promise<Pair> {
  const here = await openSide(t, 'here')
  const there = await openSide(t, 'there')
  let caller = await createPeer(there.store.db, KEY, { name: 'here', uuid: here.self.uuid })
  for (const resource of ['city', 'country']) {
    for (const direction of ['pull', 'push']) await setGrant(there.store.db, { peerId: caller.id, resource, direction })
  }
  caller = await findPeer(there.store.db, caller.id)
  const site = await servePeer(
    t,
    there.store,
    () => there.self,
    () => caller,
  )
  await createPeer(here.store.db, KEY, { name: 'there', uuid: there.self.uuid, url: site.url, token: 'secret' })
  const connections = createConnections(here.store, KEY, { ...LIMITS, noProxy: [], logId: () => here.self.logId })
  t.teardown(() => connections.close())
  const told: Told[] = []
  const events = new Proxy(
    {},
    { get: (_, event) => (facts: object) => told.push({ event: String(event), ...facts }) },
  ) as RunEvents
  const deps = { store: here.store, self: async () => here.self, connections, limits: LIMITS, events }
  return {
    here,
    there,
    site,
    told,
    run: async (options = {}) => runPeer(deps, await findPeer(here.store.db, 'there'), { cause: 'hand', ...options }),
    task: async (resource, mode, more = {}) => {
      const { id: peerId } = await findPeer(here.store.db, 'there')
      return createTask(here.store.db, { peerId, resource, mode, ...more })
    },
  }
}

const ROWS = 'select id, country, name, size from city order by id'
async function equal(t: Test, { here, there }: Pair): Promise<void> {
  t.same(await here.query(ROWS), await there.query(ROWS), 'both sites hold the same cities')
  const countries = 'select * from country order by id'
  t.same(await here.query(countries), await there.query(countries), 'and countries')
}

const addCities = (side: Side, count: number, name: string) =>
  side.query(`insert into city (name, size) select '${name} ' || n, n from generate_series(1, ${count}) n`)

t.test('a first copy comes in rows, and goes on in lines from where they are not all new', async (t) => {
  const sites = await pair(t)
  const { here, there, site, run, task } = sites
  const rows = () => site.seen.filter((each) => each.startsWith('rows'))
  await task('city', 'pull')
  await task('country', 'pull')
  await there.query(`insert into country (name) values ('north')`)
  // Known here by an earlier write of its own: the third batch is more than new records.
  const known = (name: string) =>
    `insert into city (id, name) values ('00000000-0000-4000-8000-000000000001', '${name}')`
  await here.query(known('earlier'))
  await addCities(there, 2_500, 'there')
  await there.query(known('later'))
  await addCities(there, 999, 'there too')
  const report = await run()
  t.match(report, { result: 'success', counts: { pulled: 3_501, quarantined: 0 } })
  t.same(rows().slice(0, 2), ['rows 1000', 'rows 1000'], 'I10: the first batch of each resource is weighed, in lines')
  t.ok(rows().length <= 3, 'after the third no more are asked for, but for the one on its way')
  await equal(t, sites)
  const { items: log } = await listLog(here.store.db, { resource: 'city' })
  const pulls = log.filter(({ action }) => action === 'apply').map(({ changes }) => changes)
  t.equal(
    pulls.reduce((sum: number, changes) => sum + Number(changes), 0),
    3_500,
    'each change is in the log once',
  )
  site.seen.length = 0
  await there.query(`update city set size = 0 where size < 10`)
  t.match(await run(), { result: 'success', counts: { pulled: 18, applied: 18 } })
  t.same(rows(), [], 'what follows a first copy comes in lines')
  await equal(t, sites)
})

t.test('I5: a run that is cut off in a first copy goes on behind the rows that it committed', async (t) => {
  const sites = await pair(t)
  const { there, site, run, task } = sites
  await task('city', 'pull')
  await task('country', 'pull')
  await addCities(there, 2_500, 'there')
  let answers = 0
  site.misbehave = (request, response) => {
    if (request.method !== 'GET' || !request.url?.includes('/changes?resource=city') || ++answers !== 2) return false
    // Rows that end in the middle count for nothing.
    response
      .setHeader('content-type', 'application/vnd.syncline.rows')
      .end('{"syncline":1,"resource":"city","keyType":"uuid"')
    return true
  }
  t.match(await run(), { result: 'success', counts: { pulled: 2_500, applied: 2_500 } }, 'asked for again')
  await equal(t, sites)
})

t.test('a run moves everything both ways, parents first, and says what it did', async (t) => {
  const sites = await pair(t)
  const { here, there, site, told, run, task } = sites
  await task('city', 'both')
  await task('country', 'both')
  await there.query(`insert into country (name) select 'country ' || n from generate_series(1, 50) n`)
  await there.query(`insert into city (country, name) select id, 'capital of ' || name from country`)
  await addCities(there, 2_500, 'there')
  await addCities(here, 1_800, 'here')
  const seen: string[] = []
  const report = await run({
    onProgress: ({ resource, direction, changes }) => seen.push(`${direction} ${resource} ${changes}`),
  })
  t.match(report, { result: 'success', cancelled: false, code: null, retryAt: null })
  t.match(report.counts, {
    pulled: 2_600,
    applied: 2_600,
    pushed: 1_800,
    pushApplied: 1_800,
    quarantined: 0,
    conflicts: 0,
  })
  t.same(seen, [
    'pull country 50',
    'pull city 1000',
    'pull city 1000',
    'pull city 550',
    'push city 1000',
    'push city 800',
  ])
  t.equal(site.seen[0], 'GET /site')
  t.equal(site.seen.filter((request) => request === 'PUT /checkpoints').length, 2)
  await equal(t, sites)

  const { items: log } = await listLog(here.store.db, {})
  t.same(
    log.map(({ mode, resource, changes }) => `${mode} ${resource} ${changes}`),
    seen.toReversed(),
    'an entry for each transaction',
  )
  t.match(log[0], {
    peer: 'there',
    runId: report.runId,
    direction: 'outgoing',
    action: 'send',
    result: 'success',
    message: '800 changes: 800 applied',
  })
  t.ok(log.every(({ bytes }) => bytes > 0))
  const { items: runs } = await listRuns(here.store.db)
  t.match(runs, [
    { id: report.runId, state: 'finished', result: 'success', cause: 'hand', counts: { pulled: 2_600, pushed: 1_800 } },
  ])
  const finished = told.filter(({ event }) => event === 'runFinished')
  t.match(finished, [{ peer: 'there', result: 'success', pulled: 2_600, applied: 2_600, pushed: 1_800, rejected: 0 }])
  t.type(finished[0]?.lagMs, 'number')
})

t.test('a run with nothing to do asks for nothing twice and writes nothing but its own line', async (t) => {
  const { here, site, run, task } = await pair(t)
  await task('city', 'both')
  await task('country', 'pull')
  await addCities(here, 10, 'here')
  await run()
  // The peer's order moved by what was pushed; this run passes over it.
  await run()
  site.seen.length = 0
  const records = await here.query('select max(xact::text::int8)::text as head, count(*) from syncline.record')
  const report = await run()
  t.match(report, { result: 'success', counts: { pulled: 0, pushed: 0 } })
  t.same(site.seen, ['GET /site', 'GET /changes', 'GET /changes'])
  t.same(await here.query('select max(xact::text::int8)::text as head, count(*) from syncline.record'), records)
  t.equal((await listLog(here.store.db, {})).items.length, 1)
})

t.test('the filter and the columns of a task narrow what is pulled and what is pushed', async (t) => {
  const { here, there, run, task } = await pair(t)
  await task('city', 'both', { filter: 'size > 5', columns: ['name', 'size'] })
  await there.query(`insert into country (name) values ('x')`)
  await there.query(
    `insert into city (country, name, size) select c.id, 'there ' || n, n from country c, generate_series(1, 10) n`,
  )
  await addCities(here, 8, 'here')
  t.match(await run(), { result: 'success', counts: { pulled: 5, pushed: 3 } })
  t.same(
    await here.query(
      `select count(*)::int as all, count(country)::int as with_country from city where name like 'there%'`,
    ),
    [{ all: 5, with_country: 0 }],
  )
  t.same(await there.query(`select count(*)::int as all, min(size) as least from city where name like 'here%'`), [
    { all: 3, least: 6 },
  ])
})

t.test('a record that is refused waits alone, and the run brings it in when its parent arrives', async (t) => {
  const { here, there, told, run, task } = await pair(t)
  await task('city', 'pull')
  await there.query(`insert into country (name) values ('parent')`)
  await there.query(`insert into city (country, name) select id, 'child' from country`)
  await addCities(there, 5, 'fine')
  const report = await run()
  t.match(report, { result: 'warning', counts: { pulled: 6, applied: 5, quarantined: 1 } })
  t.match(
    told.filter(({ event }) => event === 'recordQuarantined'),
    [{ resource: 'city', code: 'SYNC_RECORD_PARENT_MISSING' }],
  )
  t.equal((await listQuarantine(here.store.db, { limit: 9 })).length, 1)
  await task('country', 'pull')
  t.match(await run(), { result: 'success', counts: { pulled: 1, applied: 2 } })
  t.same(await here.query(`select c.name from city t join country c on c.id = t.country`), [{ name: 'parent' }])
  t.match((await listLog(here.store.db, { limit: 1 })).items, [{ action: 'retry', direction: 'none', applied: 1 }])
})

t.test('I8: a record larger than this site takes is set aside alone, not with its batch', async (t) => {
  const { here, there, run, task } = await pair(t)
  await task('country', 'pull')
  await there.query(`insert into country (name) values ('small'), (repeat('x', ${LIMITS.recordBytesMax + 1}))`)
  t.match(await run(), { result: 'warning', counts: { pulled: 2, applied: 1, quarantined: 1 } })
  t.match(await listQuarantine(here.store.db, { limit: 9 }), [{ code: 'SYNC_RECORD_TOO_LARGE' }])
  t.same(await here.query('select name from country'), [{ name: 'small' }])
})

t.test('what the peer sets aside of a push makes the run a warning', async (t) => {
  const { here, there, run, task } = await pair(t)
  await task('city', 'push')
  await there.query(`alter table city add constraint no_small check (size > 2)`)
  await addCities(here, 5, 'here')
  t.match(await run(), { result: 'warning', counts: { pushed: 5, pushApplied: 3, pushQuarantined: 2 } })
  t.match((await listLog(here.store.db, { limit: 1 })).items, [
    { result: 'warning', message: /5 changes: 3 applied, 2 in quarantine; first: .*no_small/ },
  ])
  t.match(await run(), { result: 'success', counts: { pushed: 0 } }, 'it is not sent again')
})

t.test('another site at the address is refused before anything moves', async (t) => {
  const { here, there, site, run, task } = await pair(t)
  await task('city', 'both')
  await addCities(there, 3, 'there')
  const real = there.self
  there.self = { ...real, uuid: '99999999-2222-4333-8444-555555555555' }
  const report = await run()
  t.match(report, {
    result: 'fatal',
    code: 'SYNC_PEER_MISMATCH',
    message: new RegExp(`${real.uuid} was expected, 9999`),
  })
  t.same(site.seen, ['GET /site'])
  t.same(await here.query('select count(*)::int as n from city'), [{ n: 0 }])
  t.match((await listLog(here.store.db, {})).items, [
    { result: 'fatal', message: /SYNC_PEER_MISMATCH/, resource: null },
  ])
})

t.test(
  'a site that finds its own uuid at the address of a peer has met a copy of itself, and moves nothing',
  async (t) => {
    const { here, there, site, run, task } = await pair(t)
    await task('city', 'both')
    await addCities(there, 3, 'there')
    there.self = { ...there.self, uuid: here.self.uuid }
    t.match(await run(), {
      result: 'fatal',
      code: 'SYNC_PEER_CLONED',
      message: /as this one does: it is a copy of this site/,
    })
    t.same(site.seen, ['GET /site'])
    t.same(await here.query('select count(*)::int as n from city'), [{ n: 0 }])
  },
)

t.test('a peer with a new log is followed from the beginning, and nothing is applied twice', async (t) => {
  const sites = await pair(t)
  const { here, there, run, task } = sites
  await task('city', 'both')
  await addCities(there, 30, 'there')
  await addCities(here, 20, 'here')
  await run()
  await newLog(there.store.db)
  there.self = { ...there.self, ...(await readSelf(there.store.db)) }
  await addCities(there, 5, 'later')
  const report = await run()
  t.match(report, { result: 'success', counts: { applied: 5 } })
  t.ok(report.counts.known >= 30, `${report.counts.known} were recognised`)
  t.equal((await findPeer(here.store.db, 'there')).logId, there.self.logId)
  t.match(await run(), { result: 'success', counts: { pulled: 0, pushed: 0 } })
  await equal(t, sites)
})

t.test('a checkpoint that the peer does not know starts the pull again from the beginning', async (t) => {
  const sites = await pair(t)
  const { here, there, run, task } = sites
  await task('city', 'pull')
  await addCities(there, 30, 'there')
  await run()
  await here.query(`update syncline.checkpoint set value = 'MSBhbm90aGVybG9nIDUgeA' where direction = 'pull'`)
  await addCities(there, 2, 'later')
  t.match(await run(), { result: 'success', counts: { pulled: 32, applied: 2, known: 30 } })
  await equal(t, sites)
})

t.test('a peer that is away for a moment is asked again within the run', async (t) => {
  const sites = await pair(t)
  const { there, site, run, task } = sites
  await task('city', 'both')
  await addCities(there, 2_500, 'there')
  await addCities(sites.here, 10, 'here')
  const faults = ['503', 'cut', 'reset']
  site.misbehave = (request, response) => {
    const fault = request.url?.includes('/changes') ? faults.shift() : undefined
    if (fault === '503') response.writeHead(503, { 'retry-after': '0' }).end()
    // The first half of a batch, ended as if it were whole.
    if (fault === 'cut')
      response
        .setHeader('content-type', 'application/vnd.syncline.lines')
        .end('{"syncline":1,"resource":"city","columns":[],"refs":{},"origins":[]}\n')
    if (fault === 'reset') response.destroy()
    return fault !== undefined
  }
  t.match(await run(), { result: 'error' }, 'three faults in a row are too many for one request')
  faults.push('cut', 'reset')
  t.match(await run(), { result: 'success', counts: { pulled: 2_500, pushed: 10 } })
  await equal(t, sites)
})

t.test('Retry-After is honoured: the run ends, scheduled runs wait, a success ends the wait', async (t) => {
  const { here, site, told, run, task } = await pair(t)
  await task('city', 'both')
  site.misbehave = (request, response) => {
    if (!request.url?.includes('/changes')) return false
    response.writeHead(503, { 'retry-after': '120' }).end()
    return true
  }
  const began = Date.now()
  const report = await run()
  t.match(report, { result: 'error', code: 'SYNC_PEER_UNREACHABLE' })
  t.same(site.seen, ['GET /site', 'GET /changes'], 'it is not asked again at once')
  const wait = Date.parse(report.retryAt ?? '') - began
  t.ok(wait >= 120_000 && wait < 130_000, `${wait}`)
  t.match(await findPeer(here.store.db, 'there'), { failures: 1, retryAt: /T/ })
  t.match(
    told.filter(({ event }) => event === 'peerUnreachable'),
    [{ peer: 'there', failures: 1, reason: /503/ }],
  )
  t.match((await listLog(here.store.db, {})).items, [{ result: 'error', remote: true }])
  site.misbehave = () => false
  t.match(await run(), { result: 'success', retryAt: null })
  t.match(await findPeer(here.store.db, 'there'), { failures: 0, retryAt: null })
})

t.test('pauses grow with each failure of the peer', async (t) => {
  const { here, run, task } = await pair(t)
  await task('city', 'both')
  const peer = await findPeer(here.store.db, 'there')
  await updatePeer(here.store.db, KEY, peer.id, { url: `http://127.0.0.1:${await freePort()}` })
  for (let failures = 1; failures <= 3; failures++) {
    const report = await run()
    t.match(report, { result: 'error', code: 'SYNC_PEER_UNREACHABLE', message: /ECONNREFUSED/ })
    const wait = Date.parse(report.retryAt ?? '') - Date.now()
    t.ok(wait <= 5_000 * 2 ** (failures - 1), `${wait} ms after ${failures}`)
    t.equal((await findPeer(here.store.db, 'there')).failures, failures)
  }
  t.match((await listLog(here.store.db, { limit: 1 })).items, [
    { result: 'error', remote: false, message: /ECONNREFUSED/ },
  ])
})

t.test('a run whose table has lost a trigger is not green, although it brings in what the peer has', async (t) => {
  const { here, there, told, run, task } = await pair(t)
  await task('country', 'both')
  await there.query(`insert into country (name) values ('Chile')`)
  await here.query('alter table country disable trigger zz_syncline_update')
  const report = await run()
  t.match(report, { result: 'error', code: 'SYNC_RESOURCE_OUTDATED', message: /country/ })
  t.equal(report.counts.applied, 1, 'what the peer sent was applied all the same')
  t.match(
    told.find(({ event }) => event === 'captureBroken'),
    { resource: 'country' },
  )
  t.match((await listLog(here.store.db, { resource: 'country' })).items, [{ action: 'check', result: 'error' }])
  await here.query('alter table country enable always trigger zz_syncline_update')
  t.match(await run(), { result: 'success', code: null })
})

t.test('a task that fails does not keep the others from running', async (t) => {
  const { here, there, run, task } = await pair(t)
  await task('country', 'pull', { filter: 'nosuchcolumn = 1' })
  await task('city', 'pull')
  await addCities(there, 3, 'there')
  const report = await run()
  t.match(report, {
    result: 'fatal',
    code: 'SYNC_PEER_REFUSED',
    message: /SYNC_FILTER_INVALID/,
    counts: { applied: 3 },
  })
  t.match(report.tasks, [
    { resource: 'country', result: 'fatal' },
    { resource: 'city', result: 'success' },
  ])
  t.match((await findPeer(here.store.db, 'there')).failures, 0, 'it is not the peer that failed')
  const lastRuns = async () =>
    Object.fromEntries((await listTasks(here.store.db)).items.map(({ resource, lastRun }) => [resource, lastRun]))
  t.match(await lastRuns(), {
    country: {
      ...{ runId: report.runId, result: 'fatal', succeededAt: null },
      ...{ code: 'SYNC_PEER_REFUSED', message: /SYNC_FILTER_INVALID/ },
    },
    city: { runId: report.runId, result: 'success', succeededAt: /^20/, code: null, message: null },
  })
  const later = await run({ resources: ['city'] })
  t.match(await lastRuns(), { country: { runId: report.runId, result: 'fatal' }, city: { runId: later.runId } })
})

t.test('one run with a peer at a time; a paused peer and a missing task are told', async (t) => {
  const { here, run, task } = await pair(t)
  await t.rejects(run(), { code: 'SYNC_REQUEST_NOT_FOUND', message: /no enabled task/ })
  await task('city', 'both')
  await t.rejects(run({ resources: ['country'] }), { code: 'SYNC_REQUEST_NOT_FOUND', message: /country/ })
  const peer = await findPeer(here.store.db, 'there')
  await withPeerLease(here.store, peer.id, () => t.rejects(run(), { code: 'SYNC_RUN_ACTIVE' }))
  await pausePeer(here.store.db, peer.id)
  await t.rejects(run(), { code: 'SYNC_PEER_PAUSED' })
})

t.test('a cancelled run ends between two batches and the next one goes on from there', async (t) => {
  const sites = await pair(t)
  const { here, there, site, run, task } = sites
  await task('city', 'both')
  await addCities(there, 3_500, 'there')
  await addCities(here, 100, 'here')
  const cancel = new AbortController()
  const report = await run({ signal: cancel.signal, onProgress: () => cancel.abort(new Error('stop')) })
  t.match(report, { cancelled: true, result: 'error', counts: { applied: 1_000, pushed: 0 } })
  t.match((await listRuns(here.store.db)).items, [{ state: 'cancelled', result: 'error' }])
  t.match(await findPeer(here.store.db, 'there'), { failures: 0 })
  t.match(await run(), { result: 'success', counts: { pulled: 2_500, pushed: 100 } }, 'nothing is fetched twice')
  await equal(t, sites)

  await addCities(here, 500, 'more')
  const slow = Promise.withResolvers<void>()
  site.misbehave = async (request) => {
    if (request.method === 'POST') await slow.promise
    return false
  }
  const late = new AbortController()
  const running = run({ signal: late.signal })
  await sleep(300)
  late.abort(new Error('stop'))
  slow.resolve()
  t.match(await running, { cancelled: true, counts: { pushed: 500 } }, 'an answer on its way is waited for')
  t.match(await run(), { counts: { pushed: 0 } })
})

t.test('an answer that is lost repeats the push, and the peer knows it already', async (t) => {
  const sites = await pair(t)
  const { here, site, run, task } = sites
  await task('city', 'push')
  await addCities(here, 50, 'here')
  let lost = 0
  site.misbehave = (request, response) => {
    if (request.method !== 'POST' || request.url?.includes('/digests/') || lost++ > 0) return false
    // The batch is applied, its answer is not sent.
    response.end = (() => response.destroy()) as unknown as typeof response.end
    return false
  }
  t.match(await run(), { result: 'success', counts: { pushed: 50, pushApplied: 0 } })
  t.equal(lost, 2)
  await equal(t, sites)
})

t.test('an answer that arrives cut is asked for again, like any broken transfer', async (t) => {
  const sites = await pair(t)
  const { here, site, run, task } = sites
  await task('city', 'push')
  await addCities(here, 50, 'here')
  let cut = 0
  site.misbehave = (request, response) => {
    if (request.method !== 'POST' || request.url?.includes('/digests/') || cut++ > 0) return false
    const end = response.end.bind(response) as (text: string) => typeof response
    response.end = ((text: string) => end(text.slice(0, text.length / 2))) as unknown as typeof response.end
    return false
  }
  t.match(await run(), { result: 'success', code: null, counts: { pushed: 50, pushApplied: 0 } })
  t.equal(cut, 2)
  await equal(t, sites)
})

t.test('batches too large for one of the sides are made smaller', async (t) => {
  const sites = await pair(t)
  const { here, there, site, run, task } = sites
  await task('city', 'both')
  await addCities(there, 900, 'there')
  await addCities(here, 600, 'here')
  const sizes: number[] = []
  site.misbehave = async (request, response) => {
    if (request.method === 'POST') {
      const length = Number(request.headers['content-length'])
      sizes.push(length)
      if (length < 30_000) return false
      response
        .writeHead(413, { 'content-type': 'application/problem+json' })
        .end('{"title":"Too large","code":"SYNC_REQUEST_TOO_LARGE"}')
      return true
    }
    const limit = Number(new URL(request.url ?? '', 'http://x').searchParams.get('limit') ?? 0)
    if (limit <= 300) return false
    // More than this site takes: the client gives up reading.
    response
      .setHeader('content-type', 'application/vnd.syncline.lines')
      .end(Buffer.alloc(LIMITS.bodyBytesMax + 1, 0x20))
    return true
  }
  t.match(await run(), { result: 'success', counts: { pulled: 900, pushed: 600 } })
  t.ok(sizes.filter((size) => size < 30_000).length >= 2, `${sizes}`)
  await equal(t, sites)
})

t.test('a run whose process died is closed by the next one', async (t) => {
  const { here, run, task } = await pair(t)
  await task('city', 'both')
  const peer = await findPeer(here.store.db, 'there')
  await startRun(here.store.db, { peer, cause: 'schedule' })
  const { runId } = await run()
  const { items } = await listRuns(here.store.db)
  t.match(items, [
    { id: runId, state: 'finished' },
    { state: 'interrupted', result: 'error' },
  ])
})

t.test('a peer that promises more but stays where it is ends the task', async (t) => {
  const { site, run, task } = await pair(t)
  await task('city', 'pull')
  const body =
    '{"syncline":1,"resource":"city","columns":[],"refs":{},"origins":[]}\n{"count":0,"checkpoint":"MSBsb2cgNSB4","more":true}'
  site.misbehave = (request, response) => {
    if (!request.url?.includes('/changes')) return false
    response.setHeader('content-type', 'application/vnd.syncline.lines').end(body)
    return true
  }
  t.match(await run(), { result: 'error', code: 'SYNC_PEER_STALLED' })
})
