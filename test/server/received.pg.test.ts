/** What a peer pushes is a run of the site that takes it: listed, explained, taken back. */
import t from 'tap'
import { listLog, listRuns, setGrant } from '../../src/store/index.ts'
import { type Site, siteFactory } from '../support/sites.ts'
import { addPeer, serve } from './served.ts'

const sites = await siteFactory(t)
const DDL = 'create table place (id text primary key, name text, n int check (n < 100))'
const rows = (site: Site) => site.sql('select id, name from place order by id')

t.test('what a peer pushes in one run is one run here, which can be taken back', async (t) => {
  const hub = await sites.make('hub', DDL, ['place'])
  await hub.sql(`insert into place values ('old', 'as it was'), ('gone', 'x'), ('mine', 'x')`)
  const served = await serve(t, hub)
  const { token, peer } = await addPeer(served, { name: 'field', uuid: '0198c0de-0000-7000-8000-000000000077' }, [
    'place',
  ])
  const before = await rows(hub)
  const push = (changes: readonly object[], run?: string) =>
    served.ask(t, 'POST /sync/v1/changes?resource=place', {
      token,
      body: { changes },
      headers: run === undefined ? {} : { 'syncline-run': run },
    })
  const operator = { token: served.tokens.operator }
  await push(
    [
      { id: 'a', data: { name: '1' } },
      { id: 'old', data: { name: 'other' } },
    ],
    'log/7',
  )
  await push(
    [
      { id: 'b', data: { name: '2' } },
      { id: 'gone', deleted: true },
      { id: 'bad', data: { n: 100 } },
    ],
    'log/7',
  )
  await push([{ id: 'c', data: { name: '3' } }], 'log/8')
  await push([{ id: 'c', data: { name: '3' } }], 'log/9')
  await push([{ id: 'd', data: { name: 'by hand' } }])
  await push([{ id: 'e', data: { name: 'by hand' } }])
  const { items: runs } = await listRuns(hub.store.db)
  t.match(
    runs.map(({ received, counts: { applied }, result }) => [received, applied, result]),
    [
      [null, 1, 'success'],
      [null, 1, 'success'],
      ['log/8', 1, 'success'],
      ['log/7', 4, 'warning'],
    ],
    'a run for each of the peer, for each push that names none, and none for what changed nothing',
  )
  t.match(runs[3], {
    kind: 'received',
    cause: 'received',
    peer: 'field',
    state: 'finished',
    counts: { quarantined: 1 },
  })
  const id = runs[3]?.id ?? ''
  t.match((await listLog(hub.store.db, { runId: id })).items, [{ action: 'apply' }, { action: 'apply' }])
  t.match((await served.ask(t, 'GET /api/v1/runs?kind=received&peer=field', operator)).json.items, { length: 4 })
  t.same((await served.ask(t, 'GET /api/v1/runs?kind=sync', operator)).json.items, [])
  const life = await served.ask(t, 'GET /api/v1/explain?resource=place&id=old', operator)
  t.match(JSON.stringify(life.json), `"runId":"${id}"`, 'explained by its run')
  const undone = await served.ask(t, `POST /api/v1/runs/${id}/undo`, { ...operator, body: {} })
  t.match(undone.json, { counts: { removed: 2, restored: 1, replaced: 1 } })
  t.same(
    await rows(hub),
    [...before, ...['c', 'd', 'e'].map((id) => ({ id, name: id === 'c' ? '3' : 'by hand' }))].sort((a, b) =>
      String(a.id) < String(b.id) ? -1 : 1,
    ),
  )
  const odd = await push([{ id: 'z', data: {} }], 'two words')
  t.match(odd, { status: 400, json: { code: 'SYNC_REQUEST_INVALID' } })
  t.equal(peer.name, 'field')
})

t.test('I10: what the grant lets a peer delete in an hour holds over its batches and its runs', async (t) => {
  const hub = await sites.make('braked', DDL, ['place'])
  await hub.sql(`insert into place select n::text, 'x' from generate_series(1, 200) n`)
  const served = await serve(t, hub)
  const { token, peer } = await addPeer(served, { name: 'field', uuid: '0198c0de-0000-7000-8000-000000000078' }, [
    'place',
  ])
  await setGrant(hub.store.db, { peerId: peer.id, resource: 'place', direction: 'push', maxDeletes: '30' })
  const push = (from: number, run: string) =>
    served.ask(t, 'POST /sync/v1/changes?resource=place', {
      token,
      body: { changes: Array.from({ length: 20 }, (_, n) => ({ id: String(from + n), deleted: true })) },
      headers: { 'syncline-run': run },
    })
  t.equal((await push(1, 'log/1')).status, 200)
  t.match(await push(21, 'log/1'), { json: { code: 'SYNC_RUN_BRAKED' } }, 'another batch of the same run')
  t.match(await push(41, 'log/2'), { json: { code: 'SYNC_RUN_BRAKED' } }, 'another run')
  t.same(await hub.sql('select count(*)::int as n from place'), [{ n: 180 }])
  t.match(await listRuns(hub.store.db), { items: [{ received: 'log/1', counts: { applied: 20 } }] })
})
