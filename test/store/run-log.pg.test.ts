import { randomBytes, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import {
  appendLog,
  createPeer,
  finishRun,
  listLog,
  listRuns,
  markInterruptedRuns,
  type NewLogEntry,
  pruneLog,
  readRun,
  removePeer,
  type Store,
  setRunState,
  startRun,
  updatePeer,
} from '../../src/store/index.ts'
import { bothStores } from './both-stores.ts'

const { all } = await bothStores(t)
const key = randomBytes(32)
const PULLED = { mode: 'pull', direction: 'incoming', action: 'apply', result: 'success', message: 'pulled' } as const

const peerOf = (store: Store, name: string) => createPeer(store.db, key, { name, uuid: randomUUID() })

for (const ground of all) {
  t.test(`runs, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const [hub, north] = [await peerOf(store, 'hub'), await peerOf(store, 'north')]

    t.test('a run goes from state to state and ends once', async (t) => {
      const run = await startRun(db, { peer: hub, cause: 'schedule' })
      t.match(run, {
        peerId: hub.id,
        peer: 'hub',
        cause: 'schedule',
        state: 'running',
        finishedAt: null,
        result: null,
        counts: {},
      })
      await setRunState(db, run.id, 'pulling', { pulled: 3 })
      t.match(await readRun(db, run.id), { state: 'pulling', counts: { pulled: 3 }, finishedAt: null })
      await setRunState(db, run.id, 'pushing')
      t.match(await readRun(db, run.id), { state: 'pushing', counts: { pulled: 3 } })
      await finishRun(db, run.id, {
        result: 'warning',
        code: 'SYNC_PEER_REFUSED',
        message: 'said no\0',
        counts: { pulled: 3, pushed: 1 },
      })
      const ended = await readRun(db, run.id)
      t.match(ended, {
        state: 'finished',
        result: 'warning',
        code: 'SYNC_PEER_REFUSED',
        message: 'said no\uFFFD',
        counts: { pulled: 3, pushed: 1 },
      })
      t.match(ended.finishedAt, /Z$/)
      t.ok(ended.finishedAt !== null && ended.finishedAt >= ended.startedAt)
      await finishRun(db, run.id, { result: 'success' })
      await setRunState(db, run.id, 'pulling')
      t.same(await readRun(db, run.id), ended)
      for (const id of ['4711', 'x', '', '99999999999999999999']) {
        await t.rejects(readRun(db, id), { code: 'SYNC_REQUEST_NOT_FOUND' }, id)
      }
    })

    t.test('runs that a dead process left are closed; a run that turns out to live goes on', async (t) => {
      const dead = await startRun(db, { peer: hub, cause: 'schedule' })
      const alive = await startRun(db, { peer: north, cause: 'hand' })
      await sql`update syncline.run set alive_at = clock_timestamp() - interval '1 hour' where id in (${dead.id}, ${alive.id})`.execute(
        db,
      )
      await setRunState(db, alive.id, 'running')
      t.same(await markInterruptedRuns(db, { silentSeconds: 60 }), [dead.id])
      t.match(await readRun(db, dead.id), {
        state: 'interrupted',
        result: 'error',
        message: /ended in the middle/,
        finishedAt: /Z$/,
      })
      t.match(await readRun(db, alive.id), { state: 'running', result: null })
      t.same(await markInterruptedRuns(db, { peerId: hub.id }), [])
      t.same(await markInterruptedRuns(db, { peerId: north.id }), [alive.id])
      await setRunState(db, alive.id, 'pushing')
      t.match(await readRun(db, alive.id), { state: 'pushing', result: null, finishedAt: null, message: null })
      t.same(await markInterruptedRuns(db), [alive.id])
      await finishRun(db, alive.id, { result: 'success' })
      t.match(await readRun(db, alive.id), { state: 'finished', result: 'success', message: null })
      t.same(await markInterruptedRuns(db), [])
    })

    t.test('runs are listed newest first by peer, state and result', async (t) => {
      const open = await startRun(db, { cause: 'signal', state: 'waiting' })
      const everything = (await listRuns(db)).items
      t.equal(everything[0]?.id, open.id)
      t.equal(everything[0]?.peer, null)
      t.same(
        everything.map((run) => Number(run.id)),
        everything.map((run) => Number(run.id)).toSorted((a, b) => b - a),
      )
      t.same(
        (await listRuns(db, { state: 'waiting' })).items.map((run) => run.id),
        [open.id],
      )
      t.same(
        (await listRuns(db, { peer: 'north' })).items.map((run) => run.result),
        ['success'],
      )
      t.same(
        (await listRuns(db, { peer: 'hub', result: 'error' })).items.map((run) => run.state),
        ['interrupted'],
      )
      const page = await listRuns(db, { limit: 1 })
      t.same((await listRuns(db, { limit: 1, before: page.next ?? '' })).items, everything.slice(1, 2))
    })
  })

  t.test(`the log, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const [hub, north] = [await peerOf(store, 'hub'), await peerOf(store, 'north')]
    const run = await startRun(db, { peer: hub, cause: 'hand' })

    t.test('an entry comes back with all it said', async (t) => {
      const counts = {
        changes: 9,
        applied: 5,
        conflicts: 1,
        quarantined: 2,
        refused: 1,
        bytes: 5_000_000_000,
        durationMs: 12.6,
      }
      const entry: NewLogEntry = {
        ...PULLED,
        ...counts,
        peer: hub,
        runId: run.id,
        resource: 'place',
        remote: true,
        result: 'error',
        message: 'a\0b',
      }
      const id = await appendLog(db, entry)
      const [shown] = (await listLog(db)).items
      t.match(shown?.at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
      t.same(shown, {
        ...PULLED,
        ...counts,
        durationMs: 13,
        id,
        at: shown?.at,
        runId: run.id,
        peerId: hub.id,
        peer: 'hub',
        resource: 'place',
        remote: true,
        result: 'error',
        message: 'a\uFFFDb',
      })
    })

    t.test('what belongs to a transaction that is rolled back is not logged', async (t) => {
      const work = db.transaction().execute(async (trx) => {
        await appendLog(trx, { ...PULLED, message: 'never' })
        throw new Error('no')
      })
      await t.rejects(work, /no/)
      t.equal(
        (await listLog(db)).items.some((entry) => entry.message === 'never'),
        false,
      )
    })

    t.test('the whole of a long list is read page by page, newest first, while more is written', async (t) => {
      for (let n = 0; n < 25; n++)
        await appendLog(db, { ...PULLED, peer: north, resource: n % 2 ? 'road' : 'place', message: `entry ${n}` })
      const messages: string[] = []
      let before: string | undefined
      do {
        const page = await listLog(db, { peer: 'north', limit: 7, before })
        t.ok(page.items.length <= 7)
        messages.push(...page.items.map((entry) => entry.message))
        before = page.next ?? undefined
        await appendLog(db, { ...PULLED, peer: north, message: 'meanwhile' })
      } while (before !== undefined)
      t.same(
        messages,
        Array.from({ length: 25 }, (_, n) => `entry ${24 - n}`),
      )
    })

    t.test('it is filtered by peer, resource, result, action and run', async (t) => {
      const messages = async (query: Parameters<typeof listLog>[1]) =>
        (await listLog(db, query)).items.map((entry) => entry.message)
      await appendLog(db, {
        ...PULLED,
        peer: hub,
        resource: 'road',
        result: 'warning',
        runId: run.id,
        message: 'hub road',
      })
      t.same(await messages({ peer: 'hub', resource: 'road' }), ['hub road'])
      t.same(await messages({ result: 'warning' }), ['hub road'])
      t.same(await messages({ runId: run.id }), ['hub road', 'a\uFFFDb'])
      t.same(await messages({ runId: 'x' }), [])
      t.equal((await messages({ action: PULLED.action, resource: 'road', peer: 'hub' })).length, 1)
      t.same(await messages({ action: 'verify' }), [])
      t.equal((await messages({ resource: 'road', peer: 'north' })).length, 12)
      t.same(await messages({ peer: 'nobody' }), [])
    })

    t.test(
      'entries of a peer are found by its new name after it was renamed, and by its last name after it was removed',
      async (t) => {
        await updatePeer(db, key, hub.id, { name: 'hub-2' })
        t.equal((await listLog(db, { peer: 'hub-2' })).items.length, 2)
        t.equal((await listLog(db, { peer: 'hub' })).items.length, 0)
        await removePeer(db, north.id)
        const left = (await listLog(db, { peer: 'north', limit: 1 })).items
        t.match(left, [{ peer: 'north', peerId: null }])
      },
    )

    t.test('what is older than its time is pruned, open runs never', async (t) => {
      const old = await startRun(db, { cause: 'old' })
      await finishRun(db, old.id, { result: 'success' })
      await sql`update syncline.run set started_at = now() - interval '31 days', finished_at = finished_at - interval '31 days'`.execute(
        db,
      )
      await sql`update syncline.log set at = now() - interval '29 days'`.execute(db)
      await sql`update syncline.log set at = now() - interval '31 days' where message = 'hub road'`.execute(db)
      const before = (await listLog(db, { limit: 1000 })).items.length
      t.same(await pruneLog(db, 30), { entries: 1, runs: 1 })
      t.equal((await listLog(db, { limit: 1000 })).items.length, before - 1)
      t.same(
        (await listRuns(db)).items.map((each) => each.id),
        [run.id],
      )
      for (const days of [0, -1, 1.5, Number.NaN]) await t.rejects(pruneLog(db, days), { code: 'SYNC_REQUEST_INVALID' })
    })
  })
}
