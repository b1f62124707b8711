import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { keepHouse } from '../../src/jobs/housekeeping.ts'
import { type Jobs, type JobsDeps, type RunOutcome, startJobs } from '../../src/jobs/index.ts'
import {
  appendLog,
  attach,
  closeLeases,
  createPeer,
  createTask,
  ensureSelf,
  listLog,
  notePeerFailure,
  openQueue,
  type Peer,
  readRun,
  type Self,
  type Store,
  startRun,
  updateTask,
  withPeerLease,
} from '../../src/store/index.ts'
import { SynclineError } from '../../src/sync/index.ts'
import { bothStores } from '../store/both-stores.ts'

const KEY = Buffer.alloc(32, 7)
const UUID = '11111111-2222-4333-8444-555555555555'
const LIMITS = { batchRowsMax: 100, batchBytesMax: 100_000, recordBytesMax: 10_000, clockAheadMaxMs: 300_000 }
const ACTIVE = { name: 'SynclineError', code: 'SYNC_RUN_ACTIVE' }

const grounds = await bothStores(t)

/** Waits for something that another part of the program does; a test that waits too long fails by tap's own limit. */
async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await done())) await sleep(20)
}

for (const ground of grounds.all) {
  t.test(`on ${ground.name}`, async (t) => {
    const fresh = async (t: Test) => {
      const store = await ground.fresh()
      t.teardown(() => closeLeases(store))
      return store
    }

    t.test('one lease for a peer at a time, in this process and among processes', async (t) => {
      const store = await fresh(t)
      const other = await ground.another(store)
      t.teardown(() => closeLeases(other))
      const taken = Promise.withResolvers<void>()
      const held = Promise.withResolvers<void>()
      const running = withPeerLease(store, 1, () => {
        taken.resolve()
        return held.promise
      })
      await taken.promise
      await t.rejects(
        withPeerLease(store, 1, async () => 'never'),
        ACTIVE,
      )
      await t.rejects(
        withPeerLease(other, 1, async () => 'never'),
        ACTIVE,
      )
      t.equal(await withPeerLease(other, 2, async () => 'another peer'), 'another peer')
      held.resolve()
      await running
      t.equal(await withPeerLease(other, 1, async () => 'now'), 'now')
      await t.rejects(
        withPeerLease(store, 1, async () => Promise.reject(new Error('trouble'))),
        { message: 'trouble' },
      )
      t.equal(await withPeerLease(other, 1, async () => 'freed by a failure too'), 'freed by a failure too')
    })

    t.test('a due job is done once, however many find it due, and only once it is time', async (t) => {
      const store = await fresh(t)
      const other = await ground.another(store)
      const errors: Error[] = []
      const queues = [await openQueue<{ n: number }>(store, (e) => errors.push(e))]
      if (other !== store) queues.push(await openQueue<{ n: number }>(other, (e) => errors.push(e)))
      t.teardown(() => Promise.all(queues.map((queue) => queue.stop(1_000))))
      const done: number[] = []
      const times: number[] = []
      for (const queue of queues) {
        await queue.work(async ({ n }) => {
          done.push(n)
          times.push(Date.now())
        })
      }
      const began = Date.now()
      const sent = await Promise.all(
        [1, 2, 3].flatMap((n) => queues.map((queue) => queue.send({ key: `k${n}`, data: { n } }))),
      )
      t.equal(sent.filter(Boolean).length, 3)
      await queues[0]?.send({ key: 'later', data: { n: 4 }, startAfter: new Date(began + 1_500) })
      await until(() => done.length === 4)
      t.same(done.toSorted(), [1, 2, 3, 4])
      t.ok((times[done.indexOf(4)] ?? 0) >= began + 1_500)
      t.equal(await queues[0]?.send({ key: 'k1', data: { n: 1 } }), false, 'a key that was done stays done')
      t.same(errors, [])
    })
  })
}

t.test('a lease ends with the session that holds it, and whoever held it hears so', async (t) => {
  const [ground] = grounds.all
  const store = (await ground?.fresh()) as Store
  t.teardown(() => closeLeases(store))
  const lost = withPeerLease(store, 1, async (signal) => {
    await sleep(50)
    await store.pool.query(
      `select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.database = (select oid from pg_database where datname = current_database())`,
    )
    await until(() => signal.aborted)
    return signal.reason as SynclineError
  })
  t.match(await lost, { code: 'SYNC_STORE_UNAVAILABLE' })
  t.equal(await withPeerLease(store, 1, async () => 'again'), 'again', 'the next lease opens a new session')
})

type Ran = { readonly peer: string; readonly resources: readonly string[] | undefined; readonly cause: string }

/** Rules of the stall detector; it looks only once an hour here. */
const THRESHOLDS = {
  intervals: 3,
  quarantineHours: 24,
  quarantineMax: 1_000,
  quarantinePerHour: 100,
  checkpointHours: 24,
  horizonSeconds: 300,
  clockSeconds: 60,
  verifyHours: 48,
  diskMegabytes: 1,
  failures: 5,
  pausedHours: 24,
  jobMinutes: 60,
}

/** A store with one peer and two attached tables, and jobs whose runs only note that they ran. */
async function setUp(t: Test, run: (ran: Ran, signal: AbortSignal) => Promise<Partial<RunOutcome>> = async () => ({})) {
  const [ground] = grounds.all
  const store = (await ground?.fresh()) as Store
  const self = await ensureSelf(store.db, { name: 'here', key: KEY })
  await store.pool.query('create table city (id uuid primary key); create table area (id uuid primary key)')
  await attach(store, [{ table: 'city' }, { table: 'area' }])
  const peer = await createPeer(store.db, KEY, { name: 'hub', uuid: UUID, url: 'http://127.0.0.1:1' })
  const ran: Ran[] = []
  const errors: unknown[] = []
  const announced = Promise.withResolvers<void>()
  let runs = 0
  const deps = (over: Partial<JobsDeps> = {}): JobsDeps => ({
    store,
    self: async (): Promise<Self> => self,
    limits: LIMITS,
    logDays: 90,
    historyDays: 90,
    tombstoneDays: 90,
    schedule: true,
    work: true,
    runPeer: async (peer, { resources, cause, signal, onStarted }) => {
      const entry = { peer: peer.name, resources, cause }
      const runId = String(++runs)
      onStarted?.(runId)
      ran.push(entry)
      return { runId, result: 'success', cancelled: false, code: null, retryAt: null, ...(await run(entry, signal)) }
    },
    listen: async function* (_peer, signal) {
      yield ''
      await announced.promise
      yield '{"resource":"city"}'
      await sleep(60_000, undefined, { signal })
    },
    alarms: {
      everySeconds: 3600,
      calmSeconds: 0,
      level: 'warning',
      thresholds: THRESHOLDS,
      channels: {},
      disks: async () => [],
    },
    events: {
      jobScheduled: () => {},
      internalError: ({ err }) => errors.push(err),
      horizonOld: () => {},
      captureBroken: () => {},
      tombstonesPurged: () => {},
      alarmBegun: () => {},
      alarmEnded: () => {},
      noticeFailed: () => {},
      jobQueued: () => {},
      jobAdopted: () => {},
      jobBlocked: () => {},
      jobStarted: () => {},
      jobStepEnded: () => {},
      jobFinished: () => {},
      jobGivenBack: () => {},
      jobProgressed: () => {},
    },
    parts: {
      host: 'here',
      environment: {},
      notify: {},
      previewSync: async () => ({ summary: '' }),
      steps: [],
      leases: [],
    },
    ...over,
  })
  const start = async (over: Partial<JobsDeps> = {}): Promise<Jobs> => {
    const jobs = await startJobs(deps(over))
    t.teardown(async () => {
      await jobs.stop(2_000)
      await closeLeases(over.store ?? store)
    })
    return jobs
  }
  const task = (resource: string, schedule: string | null) =>
    createTask(store.db, { peerId: peer.id, resource, mode: 'both', schedule })
  return { store, peer, ran, errors, start, task, announced }
}

t.test('two processes with the same schedule run each due time once', async (t) => {
  const { store, ran, errors, start, task } = await setUp(t)
  await task('city', 'every:5')
  await task('area', 'every:5')
  const another = await grounds.all[0]?.another(store)
  await start()
  await start({ store: another as Store })
  await until(() => ran.length >= 2)
  await sleep(300)
  t.same(ran[0], { peer: 'hub', resources: ['area', 'city'], cause: 'schedule' })
  t.equal(ran.length, 2, 'the place on the raster that had passed, and the next one')
  t.same(errors, [])
})

t.test('a change of the tasks changes the due times', async (t) => {
  const { store, start, task } = await setUp(t)
  const jobs = await start()
  const { id } = await task('city', 'cron:0 3 * * *')
  jobs.scheduleChanged()
  await until(() => jobs.nextRuns().length === 1)
  t.match(jobs.nextRuns(), [{ taskId: id, at: /T03:00:00/ }])
  await updateTask(store.db, id, { enabled: false })
  jobs.scheduleChanged()
  await until(() => jobs.nextRuns().length === 0)
  t.same(jobs.nextRuns(), [])
})

t.test('a failed peer is left alone by every schedule until its time has come, then tried again', async (t) => {
  let retryAt = ''
  const times: number[] = []
  const { store, peer, ran, start, task } = await setUp(t, async () => {
    times.push(Date.now())
    if (times.length > 1) return {}
    retryAt = new Date(Date.now() + 3_500).toISOString()
    await notePeerFailure(store.db, peer.id, retryAt)
    return { result: 'error', retryAt }
  })
  await task('city', 'every:604800')
  const jobs = await start()
  await until(() => ran.length === 1)
  await task('area', 'cron:* * * * * *')
  jobs.scheduleChanged()
  await until(
    () => ran.some(({ cause }) => cause === 'retry') && ran.some(({ resources }) => resources?.[0] === 'area'),
  )
  t.same(ran[0], { peer: 'hub', resources: ['city'], cause: 'schedule' })
  t.ok(
    times.slice(1).every((time) => time >= Date.parse(retryAt) - 1_000),
    'nothing ran before',
  )
  t.same(
    ran.filter(({ cause }) => cause === 'retry').map(({ resources }) => resources),
    [['city']],
  )
})

t.test('a run by hand starts at once, gives its id, and waits a little for one that is under way', async (t) => {
  let active = 2
  const { ran, start, task } = await setUp(t)
  const jobs = await start({ schedule: false, work: false })
  await t.rejects(jobs.syncNow({ cause: 'hand' }), { code: 'SYNC_REQUEST_NOT_FOUND' })
  await task('city', null)
  t.same(await jobs.syncNow({ cause: 'hand' }), { runs: [{ peer: 'hub', runId: '1' }] })
  t.same(await jobs.syncNow({ peer: 'hub', resources: ['city'], cause: 'hand' }), {
    runs: [{ peer: 'hub', runId: '2' }],
  })
  t.same(ran.at(-1), { peer: 'hub', resources: ['city'], cause: 'hand' })
  await t.rejects(jobs.syncNow({ peer: 'nobody', cause: 'hand' }), { code: 'SYNC_REQUEST_NOT_FOUND' })

  const busy = await start({
    schedule: false,
    work: false,
    runPeer: async (_peer: Peer, { onStarted }) => {
      if (active-- > 0) throw new SynclineError('SYNC_RUN_ACTIVE', 'busy')
      onStarted?.('9')
      return { runId: '9', result: 'success', cancelled: false, code: null, retryAt: null }
    },
  })
  t.same(await busy.syncNow({ peer: 'hub', cause: 'hand' }), { runs: [{ peer: 'hub', runId: '9' }] })
})

t.test(
  'a live task runs when it begins, when the peer announces something and when something changes here',
  async (t) => {
    const { store, ran, errors, start, task, announced } = await setUp(t)
    await task('city', 'live')
    await start()
    const settled = async () => {
      let before = -1
      await until(async () => {
        const same = before === ran.length
        before = ran.length
        if (!same) await sleep(700)
        return same
      })
      return ran.length
    }
    t.ok((await settled()) >= 1)
    const first = ran.length
    announced.resolve()
    await until(() => ran.length > first)
    const second = await settled()
    await store.pool.query('insert into city values (gen_random_uuid())')
    await until(() => ran.length > second)
    t.same(ran.at(-1), { peer: 'hub', resources: ['city'], cause: 'live' })
    const third = await settled()
    await store.pool.query('insert into area values (gen_random_uuid())')
    await sleep(700)
    t.equal(ran.length, third, 'what no live task covers sets nothing off')
    t.same(errors, [])
  },
)

t.test('stopping cancels what runs, waits for its safe point, and lets nothing begin', async (t) => {
  const began = Promise.withResolvers<void>()
  let safe = false
  const { start, task } = await setUp(t, async (_, signal) => {
    began.resolve()
    await until(() => signal.aborted)
    await sleep(200)
    safe = true
    return { cancelled: true, result: 'error' }
  })
  await task('city', null)
  const jobs = await start()
  await jobs.syncNow({ cause: 'hand' })
  await began.promise
  await jobs.stop(5_000)
  t.ok(safe)
  await t.rejects(jobs.syncNow({ cause: 'hand' }), { message: 'the site stops' })
})

t.test('a round of housekeeping closes dead runs, tells of what would go unseen and forgets what is old', async (t) => {
  const { store, peer } = await setUp(t)
  const self = await ensureSelf(store.db, { name: 'here', key: KEY })
  const dead = await startRun(store.db, { peer, cause: 'schedule' })
  const alive = await startRun(store.db, { peer, cause: 'schedule' })
  await store.pool.query(`update syncline.run set alive_at = now() - interval '2 minutes' where id = ${dead.id}`)
  const old = await appendLog(store.db, {
    mode: 'pull',
    direction: 'none',
    action: 'x',
    result: 'success',
    message: '',
  })
  await store.pool.query(`update syncline.log set at = now() - interval '91 days' where id = ${old}`)
  await store.pool.query('drop trigger zz_syncline_insert on city')
  const told: object[] = []
  const tell = (event: object) => told.push(event)
  const events = { horizonOld: tell, captureBroken: tell, tombstonesPurged: tell }
  const deps = {
    store,
    self: async () => self,
    limits: LIMITS,
    logDays: 90,
    historyDays: 90,
    tombstoneDays: 90,
    events,
  }

  const writer = await store.pool.connect()
  await writer.query('begin; insert into area values (gen_random_uuid())')
  await sleep(50)
  await keepHouse(deps, { prune: false, horizonOldSeconds: 0.01 })
  await writer.query('rollback')
  writer.release()
  t.match(told, [
    { ageMs: Number, holder: /process \d+ \(syncline, idle in transaction\)/ },
    { resource: 'city', problem: /trigger/ },
  ])
  t.equal((await readRun(store.db, dead.id)).state, 'interrupted')
  t.equal((await readRun(store.db, alive.id)).state, 'running')
  t.equal((await listLog(store.db)).items.length, 1, 'nothing is forgotten before it is time')
  await store.pool.query('insert into area values (gen_random_uuid()); delete from area')
  told.length = 0
  await keepHouse(deps, { prune: true, horizonOldSeconds: 300 })
  t.match(
    told,
    [{ resource: 'city' }, { resource: 'area', count: Number }],
    'a deletion that no peer waits for is purged',
  )
  t.equal((await listLog(store.db)).items.length, 0)
})
