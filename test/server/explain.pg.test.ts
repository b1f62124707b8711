import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { askRecord, type Connections, createConnections } from '../../src/client/index.ts'
import {
  attach,
  createTask,
  findPeer,
  findResource,
  finishRun,
  gatherReach,
  issueToken,
  listQuarantine,
  loadResources,
  openBrake,
  pausePeer,
  readLife,
  removeGrant,
  setGrant,
  startRun,
  updatePeer,
  updateTask,
} from '../../src/store/index.ts'
import { explainReach, type Reach } from '../../src/sync/index.ts'
import { freePort } from '../support/postgres.ts'
import { introduce, peerOf, pullAll, type Site, siteFactory, syncOnce } from '../support/sites.ts'
import { LIMITS, type Served, serve } from './served.ts'

const DDL = `
  create table country (id text primary key, name text not null check (name <> 'bad'), size int, secret text);
  create table city (id uuid primary key default gen_random_uuid(), country text references country, name text not null);`
t.setTimeout(600_000)
const sites = await siteFactory(t)

type Pair = {
  readonly a: Site
  readonly b: Site
  readonly server: Served
  readonly connections: Connections
  readonly task: (more?: object) => Promise<unknown>
  /** What a says of one of its records and of b. */
  readonly why: (id: string, resource?: string) => Promise<Reach>
}

/** Two sites that may do everything with each other; a reaches b over HTTP. */
async function pair(t: Test): Promise<Pair> {
  const [a, b] = [await sites.make('a', DDL, ['country', 'city']), await sites.make('b', DDL, ['country', 'city'])]
  await introduce(a, b)
  const server = await serve(t, b)
  const url = await server.app.listen({ port: 0, host: '127.0.0.1' })
  const { token } = await issueToken(b.store.db, { name: 'a', role: 'peer', peerId: peerOf(b, a).id })
  await updatePeer(a.store.db, a.key, peerOf(a, b).id, { url, token })
  const settings = { ...LIMITS, noProxy: [], logId: () => a.self.logId, uuid: a.self.uuid, mark: () => a.self.mark }
  const connections = createConnections(a.store, a.key, settings)
  t.teardown(() => connections.close())
  const why: Pair['why'] = async (id, name = 'country') => {
    const resource = await findResource(a.store.db, name)
    const peer = await findPeer(a.store.db, 'b')
    const asked = await askRecord({ store: a.store, connections }, peer, resource, id)
    return explainReach({ ...(await gatherReach(a.store, await findPeer(a.store.db, 'b'), resource, id)), asked })
  }
  const task: Pair['task'] = (more = {}) =>
    createTask(a.store.db, { peerId: peerOf(a, b).id, resource: 'country', mode: 'both', ...more })
  return { a, b, server, connections, task, why }
}

const names = (reach: Reach) => reach.reasons.map(({ reason, way }) => `${reason} ${way}`)
const factOf = (reach: Reach, reason: string) => reach.reasons.find((each) => each.reason === reason)?.fact ?? ''

t.test('a peer that holds the same version is proved to, by its own digest of that one record', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task()
  await a.sql(`insert into country (id, name) values ('AT', 'Austria'), ('AU', 'Australia'), ('a''T/1 ü', 'Odd')`)
  await syncOnce(a, b)
  for (const id of ['AT', 'AU', "a'T/1 ü"])
    t.match(await why(id), { has: 'same', proof: /^b was asked just now/, reasons: [] })
  await a.sql(`update country set name = 'Österreich' where id = 'AT'; delete from country where id = 'AU'`)
  const other = await why('AT')
  t.equal(other.has, 'other')
  t.same(names(other), ['checkpoint there', 'checkpoint there', 'checkpoint here'], 'neither way has come so far')
  const deleted = await why('AU')
  t.equal(deleted.has, 'other', 'it still holds what was deleted here')
  await syncOnce(a, b)
  t.match(await why('AT'), { has: 'same', reasons: [] })
  t.match(await why('AU'), { has: 'same', proof: /holds no such record either/ })
})

t.test('no task, a task that is disabled or goes the other way, and a missing permission are named', async (t) => {
  const { a, b, task, why } = await pair(t)
  await removeGrant(a.store.db, peerOf(a, b).id, 'country', 'pull')
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  t.match(await why('AT'), {
    has: 'none',
    reasons: [
      { reason: 'no task', way: 'there', fact: /^no task syncs country with b, and b was not granted to pull it$/ },
    ],
  })
  await task({ mode: 'pull' })
  t.match(factOf(await why('AT'), 'no task'), /^the task with b only pulls/)
  await updateTask(a.store.db, 1, { mode: 'push', enabled: false })
  t.match(await why('AT'), { reasons: [{ reason: 'task disabled' }] })
  await updateTask(a.store.db, 1, { enabled: true })
  await removeGrant(b.store.db, peerOf(b, a).id, 'country', 'push')
  t.match(factOf(await why('AT'), 'not permitted'), /^b does not let this site push country$/)
  await removeGrant(b.store.db, peerOf(b, a).id, 'country', 'pull')
  t.match(await why('AT'), { has: 'unknown', proof: /does not let this site compare country/ })
  await removeGrant(a.store.db, peerOf(a, b).id, 'country', 'push')
  t.match(await why('XX'), {
    has: 'unknown',
    reasons: [{ reason: 'no task', way: 'here', fact: /none pulls country from it/ }],
  })
})

t.test(
  'a filter is shown by the part that the record does not match, with its values; columns that stay are named',
  async (t) => {
    const { a, b, task, why } = await pair(t)
    await task({ mode: 'push', filter: `size > 10 and name like 'A%'`, columns: ['name', 'size'] })
    await createTask(a.store.db, {
      peerId: peerOf(a, b).id,
      resource: 'city',
      mode: 'push',
      filter: `country.name = 'Austria'`,
    })
    await a.sql(`insert into country (id, name, size) values ('AT', 'Austria', 5), ('AU', 'Australia', 50);
    insert into city (id, country, name) values ('00000000-0000-4000-8000-000000000001', 'AU', 'Perth')`)
    await syncOnce(a, b, { resources: ['country'], filter: `size > 10 and name like 'A%'`, columns: ['name', 'size'] })
    const at = await why('AT')
    t.equal(at.has, 'none')
    t.equal(factOf(at, 'filter'), 'the filter of the task asks for size > 10; the record has size = 5')
    t.match(factOf(at, 'columns'), /do not travel to b: secret$/)
    t.match(names(await why('AU')), ['columns there'])
    const perth = await why('00000000-0000-4000-8000-000000000001', 'city')
    t.equal(
      factOf(perth, 'filter'),
      `the filter of the task asks for country.name = 'Austria'; the record has country.name = "Australia"`,
    )
  },
)

t.test('what waits in quarantine, here or there, is named with the reason', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task()
  await b.sql(
    `alter table country drop constraint country_name_check; insert into country (id, name) values ('XX', 'bad')`,
  )
  await pullAll(a, b)
  t.equal((await listQuarantine(a.store.db, { limit: 1 })).length, 1)
  const here = await why('XX')
  t.equal(here.has, 'other')
  t.match(factOf(here, 'quarantine'), /^it waits here: SYNC_RECORD_CONSTRAINT: .*country_name_check.*\(tried /)
  await a.sql(`insert into country (id, name) values ('YY', 'fine')`)
  await a.sql(`insert into syncline.elsewhere (peer_id, resource_id, record_id, outcome, code, reason) select p.id, r.id, 'YY', 'quarantined', 'SYNC_RECORD_CONSTRAINT', 'too long'
                 from syncline.peer p, syncline.resource r where r.name = 'country'`)
  t.match(factOf(await why('YY'), 'quarantine'), /^at b it was quarantined: SYNC_RECORD_CONSTRAINT: too long$/)
})

t.test('a conflict that waits for a person is named, at both sites', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task({ onConflict: 'ask' })
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  await syncOnce(a, b)
  await a.sql(`update country set name = 'ours'`)
  await b.sql(`update country set name = 'theirs'`)
  await pullAll(a, b, { task: { onConflict: 'ask' } })
  const reach = await why('AT')
  t.equal(reach.has, 'other')
  t.match(factOf(reach, 'conflict'), /^conflict \d+ waits for a decision/)
})

t.test('a brake that is on is named with what releases it', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task()
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  const facts = { deletes: 5, changes: 5, records: 6, samples: [] } as never
  await openBrake(a.store.db, {
    peerId: peerOf(a, b).id,
    resource: 'country',
    direction: 'push',
    rules: ['deletes'],
    reason: 'too many deletes',
    facts,
    runId: null,
  } as never)
  t.match(
    factOf(await why('AT'), 'brake'),
    /^too many deletes; `syncline brake show \S+` tells more, and if it is meant, `syncline sync --release \S+` lets it pass$/,
  )
})

t.test(
  'a deletion at the peer that a brake holds back here is told, with the brake and what releases it',
  async (t) => {
    const { a, b, task, why } = await pair(t)
    await task()
    await b.sql(`insert into country (id, name) values ('AT', 'Austria')`)
    await syncOnce(a, b)
    await b.sql(`delete from country`)
    t.match(names(await why('AT')), ['came from there there', 'deleted there here'])
    t.match(
      factOf(await why('AT'), 'deleted there'),
      /^b had the version that is here and shows no such record any more: it was deleted there, .*; the last batch from b was taken at 20.*, and what happened since comes with the next run$/,
    )
    const { id: resourceId } = await findResource(a.store.db, 'country')
    const facts = { deletes: 1, changes: 0, living: 1, samples: ['AT'] }
    const at = { peerId: peerOf(a, b).id, resourceId, direction: 'pull', runId: null } as const
    const brake = await openBrake(a.store.db, {
      ...at,
      rules: ['deletes'],
      reason: 'it would delete 1 of 1 records',
      facts,
    })
    const held = await why('AT')
    t.match(names(held), ['came from there there', 'deleted there here', 'brake here'])
    t.match(factOf(held, 'deleted there'), /That waits behind the brake below$/)
    t.match(
      factOf(held, 'brake'),
      new RegExp(`^it would delete 1 of 1 records; .*syncline sync --release ${brake.token}\``),
    )
  },
)

t.test('what a peer that cannot be asked may not push here is told although it acknowledged all', async (t) => {
  const { a, b, why } = await pair(t)
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  await syncOnce(a, b)
  await pullAll(b, a)
  await updatePeer(a.store.db, a.key, peerOf(a, b).id, { url: null })
  const { id: resourceId } = await findResource(a.store.db, 'country')
  const facts = { deletes: 1, changes: 0, living: 1, samples: ['AT'] }
  const at = { peerId: peerOf(a, b).id, resourceId, direction: 'receive', runId: null } as const
  await openBrake(a.store.db, { ...at, rules: ['deletes'], reason: 'what b pushes would delete 1', facts })
  t.match(await why('AT'), { has: 'acknowledged', reasons: [{ reason: 'brake', way: 'here', fact: /what b pushes/ }] })
})

t.test('an id that nobody has ever seen is said to be one', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task()
  await syncOnce(a, b)
  t.match(await why('XX'), {
    has: 'none',
    reasons: [
      {
        reason: 'never seen',
        fact: 'neither this site nor b has a country "XX", and this site has never had one; is the id right?',
      },
    ],
  })
  await updatePeer(a.store.db, a.key, peerOf(a, b).id, { url: `http://127.0.0.1:${await freePort()}` })
  t.match(
    factOf(await why('XX'), 'never seen'),
    /^this site has never had a country "XX"; whether b has one could not be asked$/,
  )
  await a.sql(`insert into syncline.purged (id_hash, clock, xact, resource_id, origin)
    select hashtextextended('XX', 0), 1, '1', r.id, s.id from syncline.resource r, syncline.site s where r.name = 'country' limit 1`)
  t.match(
    factOf(await why('XX'), 'deleted and purged'),
    /^"XX" lived here once; it was deleted, and its tombstone was purged/,
  )
})

t.test('a checkpoint that has not come so far is shown beside the place of the record', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task({ mode: 'push', schedule: 'every:300' })
  await removeGrant(a.store.db, peerOf(a, b).id, 'country', 'pull')
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  t.match(
    factOf(await why('AT'), 'checkpoint'),
    /^what this site pushes to b of country has not begun; the record stands at \d+\/AT; the task runs every:300$/,
  )
  await syncOnce(a, b)
  await a.sql(`insert into country (id, name) values ('DE', 'Germany')`)
  t.match(factOf(await why('DE'), 'checkpoint'), /has reached \d+\/AT; the record stands at \d+\/DE/)
})

t.test('an open transaction that holds the order back is named with its process and query', async (t) => {
  const { a, task, why } = await pair(t)
  await task()
  const slow = await a.connect()
  await slow.query(`set application_name = 'nightly-import'; begin; insert into city (name) values ('held')`)
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  const reach = await why('AT')
  const [{ pid }] = (await slow.query('select pg_backend_pid() as pid')).rows as [{ pid: number }]
  await slow.query('rollback')
  t.match(
    factOf(reach, 'horizon'),
    new RegExp(`process ${pid} \\(nightly-import, idle in transaction\\), in it since 20.*insert into city`),
  )
  t.notOk(names(reach).includes('checkpoint there'), 'it is not the peer that is late')
})

t.test('a peer that is paused, that was never heard of, and that does not answer', async (t) => {
  const { a, b, task, why, server } = await pair(t)
  await task()
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  await a.sql(`update syncline.peer set last_seen_at = now(), failures = 3, retry_at = now() + interval '1 hour'`)
  await pausePeer(a.store.db, peerOf(a, b).id)
  t.match(factOf(await why('AT'), 'paused'), /^the exchange with b is paused here; `syncline peer resume b`/)
  await a.sql('update syncline.peer set paused = false')
  await pausePeer(b.store.db, peerOf(b, a).id)
  t.match(factOf(await why('AT'), 'paused'), /^b has paused the exchange/)
  await server.app.close()
  await updatePeer(a.store.db, a.key, peerOf(a, b).id, { url: `http://127.0.0.1:${await freePort()}` })
  await a.sql('update syncline.peer set last_seen_at = null')
  t.match(factOf(await why('AT'), 'never contacted'), /^b has never been heard of/)
  await a.sql('update syncline.peer set last_seen_at = now()')
  const gone = await why('AT')
  t.match(gone, { has: 'unknown', proof: /^b could not be asked: SYNC_PEER_UNREACHABLE/ })
  t.match(factOf(gone, 'unreachable'), /last heard of at 20.*; 3 attempts failed, the next is at 20/)
})

t.test('a peer that takes the question and never answers keeps nobody waiting', async (t) => {
  const { a, b, connections } = await pair(t)
  const silent = createServer(() => {})
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  t.teardown(() => void silent.close())
  t.teardown(() => silent.closeAllConnections())
  const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
  const peer = await updatePeer(a.store.db, a.key, peerOf(a, b).id, { url })
  const country = await findResource(a.store.db, 'country')
  t.match(await askRecord({ store: a.store, connections }, peer, country, 'AT', 200), {
    answered: false,
    code: 'SYNC_PEER_UNREACHABLE',
    detail: 'b did not answer within 200 ms',
  })
})

t.test('a peer that cannot be asked has had what it acknowledged, and what came from it', async (t) => {
  const { a, b, task, why, server } = await pair(t)
  await task()
  await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
  await b.sql(`insert into country (id, name) values ('DE', 'Germany')`)
  await syncOnce(a, b)
  await server.app.close()
  t.match(await why('AT'), {
    has: 'acknowledged',
    proof: /could not be asked.*but it took everything up to/,
    reasons: [],
  })
  t.match(await why('DE'), { has: 'acknowledged', proof: /the version here came from b$/, reasons: [] })
})

t.test(
  'where nothing stands in the way and the record is not there all the same, that is said, with the mend',
  async (t) => {
    const { a, b, task, why } = await pair(t)
    await task()
    await a.sql(`insert into country (id, name) values ('AT', 'Austria')`)
    await syncOnce(a, b)
    await b.sql('alter table country disable trigger all; delete from country; delete from syncline.record')
    const reach = await why('AT')
    t.match(reach, {
      has: 'none',
      reasons: [{ reason: 'unexplained', fact: /`syncline verify b country --repair` offers it again$/ }],
    })
  },
)

t.test('what came from a peer is not sent back to it, which is told when it has another version since', async (t) => {
  const { a, b, task, why } = await pair(t)
  await task()
  await b.sql(`insert into country (id, name) values ('DE', 'Germany')`)
  await syncOnce(a, b)
  await b.sql(`update country set name = 'Deutschland'`)
  const reach = await why('DE')
  t.equal(reach.has, 'other')
  t.match(names(reach), ['came from there there', 'checkpoint here'])
  t.match(factOf(reach, 'checkpoint'), /^the last batch from b was taken at 20.*comes with the next run$/)
})

t.test('an id that is too long to travel, a trigger that is missing, and a row that no trigger saw', async (t) => {
  const { a, task, why } = await pair(t)
  await task()
  const long = 'x'.repeat(600)
  await a.sql(`insert into country (id, name) values ('${long}', 'long')`)
  t.match(factOf(await why(long), 'id too long'), /^the record id has 600 bytes; ids of up to 512 travel$/)
  await a.sql(
    `alter table country disable trigger zz_syncline_insert; insert into country (id, name) values ('AT', 'Austria')`,
  )
  t.match(
    factOf(await why('AT'), 'trigger missing'),
    /^changes of country are not captured: .*zz_syncline_insert is disabled; to mend: syncline resource attach public.country --key id$/,
  )
  await a.sql(`alter table country enable always trigger zz_syncline_insert`)
  t.match(factOf(await why('AT'), 'not captured'), /written while no trigger saw it/)
})

t.test('the life of a record: each version with origin, path, run and rule, what changed, and what lost', async (t) => {
  const { a, b } = await pair(t)
  const c = await sites.make('c', DDL, ['country', 'city'])
  await introduce(c, b)
  const run = async (task = {}) => {
    const { id } = await startRun(a.store.db, { peer: peerOf(a, b), cause: 'hand' })
    const { applyPull, readCheckpoint, serveChanges } = await import('../../src/store/index.ts')
    const { linkOf, LIMITS, TASK } = await import('../support/sites.ts')
    for (const each of await loadResources(a.store.db)) {
      const after = (await readCheckpoint(a.store.db, peerOf(a, b).id, each.id, 'pull')) ?? undefined
      const batch = await serveChanges(b.store, linkOf(b, a), { resource: each.name, after }, LIMITS)
      await applyPull(a.store, linkOf(a, b), { task: { ...TASK, ...task }, batch, runId: id }, LIMITS)
    }
    await finishRun(a.store.db, id, { result: 'success' })
    return id
  }
  await c.sql(`insert into country (id, name, size) values ('AT', 'first', 1)`)
  await syncOnce(c, b)
  const one = await run()
  await a.sql(`update country set name = 'ours'`)
  await b.sql(`update country set name = 'theirs', size = 2`)
  const two = await run({ onConflict: 'mine' })
  await a.sql(`update country set name = 'ours again'`)
  await b.sql(`update country set name = 'last'`)
  const three = await run({ onConflict: 'theirs' })
  const country = await findResource(a.store.db, 'country')
  const { life, state } = await readLife(a.store.db, country, 'AT')
  t.equal(state, 'here')
  t.same(
    life.map(({ kind, site, via, runId, ended }) => [
      kind,
      site,
      via,
      runId,
      ended?.how ?? null,
      ended?.runId ?? null,
      ended?.rule ?? null,
    ]),
    [
      ['lost', 'b', 'b', two, 'lost a conflict', two, 'mine'],
      ['past', 'a', null, null, 'replaced', three, 'theirs'],
      ['present', 'a', null, three, null, null, null],
    ],
  )
  t.match(life[0]?.changed, { name: { was: 'ours again', is: 'theirs' } }, 'the loser against what is there after it')
  t.same(life[2]?.changed, { name: { was: 'ours again', is: 'last' }, size: { was: 1, is: 2 } })
  await b.sql(`insert into country (id, name) values ('DE', 'from b')`)
  const four = await run()
  await b.sql(`delete from country where id = 'DE'`)
  const five = await run()
  const gone = await readLife(a.store.db, country, 'DE')
  t.match(gone, {
    state: 'deleted',
    life: [
      { kind: 'past', site: 'b', via: 'b', runId: four, ended: { how: 'deleted', runId: five } },
      { kind: 'present', deleted: true, runId: five },
    ],
  })
  t.not(one, two)
  t.match(await readLife(a.store.db, country, 'nowhere'), { state: 'unknown', life: [] })
})

t.test('what belongs to a record is told with it: quarantine, parked fields, references that wait', async (t) => {
  const a = await sites.make('a', 'create table node (id text primary key, next text references node, name text)')
  const b = await sites.make(
    'b',
    'create table node (id text primary key, next text references node, name text, extra text)',
  )
  for (const site of [a, b]) await attach(site.store, [{ table: 'node' }])
  await introduce(a, b)
  await b.sql(`insert into node values ('n1', null, 'one', 'kept'), ('n2', 'n1', 'two', null)`)
  await setGrant(b.store.db, { peerId: peerOf(b, a).id, resource: 'node', direction: 'pull', filter: `id = 'n2'` })
  await pullAll(a, b)
  const node = await findResource(a.store.db, 'node')
  const life = await readLife(a.store.db, node, 'n2')
  t.match(life, {
    state: 'here',
    pending: [{ column: 'next', resource: 'node', id: 'n1' }],
    parked: { extra: null },
    quarantine: [],
    conflicts: [],
  })
  t.same(life.life[0]?.data, { id: 'n2', next: 'n1', name: 'two' })
})

t.test('a document that is null, no document, and a tombstone that was purged are told apart', async (t) => {
  const a = await sites.make('documents', 'create table country (id text primary key, doc jsonb, raw json)', [
    'country',
  ])
  await a.sql(`insert into country values ('AT', 'null', null), ('DE', null, 'null'), ('CH', '{"$json":1}', '[]')`)
  const resource = await findResource(a.store.db, 'country')
  const data = async (id: string) => (await readLife(a.store.db, resource, id)).life.at(-1)?.data
  t.same(await data('AT'), { id: 'AT', doc: { $json: null }, raw: null })
  t.same(await data('DE'), { id: 'DE', doc: null, raw: { $json: null } })
  t.same(await data('CH'), { id: 'CH', doc: { $json: { $json: 1 } }, raw: [] })
  t.match(await readLife(a.store.db, resource, 'XX'), { state: 'unknown', life: [] })
  await a.sql(`insert into syncline.purged (id_hash, clock, xact, resource_id, origin)
    select hashtextextended('XX', 0), 1, '1', r.id, s.id from syncline.resource r, syncline.site s limit 1`)
  t.match(await readLife(a.store.db, resource, 'XX'), { state: 'purged', life: [] })
})
