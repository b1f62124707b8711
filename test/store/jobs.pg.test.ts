import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import {
  applyJobs,
  beginJobRun,
  breakLease,
  changedJobRuns,
  compareJobs,
  finishJobRun,
  jobPulse,
  type LeaseHolder,
  type LeaseWish,
  listJobRuns,
  listLeases,
  pruneJobRuns,
  readJobRun,
  releaseLeases,
  renewLeases,
  requestRun,
  type Store,
  takeLeases,
  takeRuns,
} from '../../src/store/index.ts'
import { bothStores } from './both-stores.ts'

const grounds = await bothStores(t)

const holder = (owner: string, seconds = 60): LeaseHolder => ({
  ...{ token: randomUUID(), owner, runId: null, site: 'here', host: 'h', pid: 1, peerId: null, seconds },
})
const wish = (hold: readonly string[], free: Partial<LeaseWish> = {}): LeaseWish => ({
  ...{ hold, freeLeases: [], freeJobs: [], runId: null, ...free },
})
const RULES = { limits: { job: 1, peer: null, site: null }, history: { runs: 3, days: 90 } }
const job = (name: string) => ({
  ...{ name, definition: { name, steps: [] }, enabled: true, events: [], nextDue: null },
})

for (const ground of grounds.all) {
  t.test(`on ${ground.name}`, async (t) => {
    t.test('leases are taken all or none, and only their token renews and releases them', async (t) => {
      const { db } = await ground.fresh()
      const [one, two] = [holder('one'), holder('two')]
      t.equal(await takeLeases(db, wish(['b', 'a']), one), null)
      t.match(await takeLeases(db, wish(['c', 'b']), two), {
        kind: 'lease',
        name: 'b',
        reason: /held by one on h since/,
      })
      t.same(
        (await listLeases(db)).map(({ name }) => name),
        ['a', 'b'],
        'nothing of the second was taken',
      )
      t.match(
        await takeLeases(db, wish(['c'], { freeLeases: ['a'] }), two),
        { name: 'a' },
        'a gate is looked at in the same step',
      )
      t.equal(await takeLeases(db, wish(['a', 'b']), one), null, 'the own token takes again')
      t.same([...(await renewLeases(db, one.token, 60))].sort(), ['a', 'b'])
      t.same(await renewLeases(db, two.token, 60), [])
      await releaseLeases(db, two.token)
      await releaseLeases(db, one.token, 'a')
      t.same(
        (await listLeases(db)).map(({ name }) => name),
        ['b'],
      )
      await breakLease(db, 'b')
      await t.rejects(breakLease(db, 'b'), { code: 'SYNC_REQUEST_NOT_FOUND' })
    })

    t.test('a lease ends by the clock of the database when nobody renews it', async (t) => {
      const { db } = await ground.fresh()
      const [gone, next] = [holder('gone', 0), holder('next')]
      t.equal(await takeLeases(db, wish(['a']), gone), null)
      t.same(await listLeases(db), [])
      t.equal(await takeLeases(db, wish(['a']), next), null)
      t.same(await renewLeases(db, gone.token, 60), [], 'who was away too long has it no more')
      t.match(await listLeases(db), [{ owner: 'next' }])
    })

    t.test('of many who want one lease at once, one gets it', async (t) => {
      const store = await ground.fresh()
      const others = await Promise.all([1, 2, 3].map(() => ground.another(store)))
      for (let round = 0; round < 5; round++) {
        const name = `round-${round}`
        const takers = [store, ...others].flatMap(({ db }) =>
          [1, 2, 3].map(() => takeLeases(db, wish([name]), holder('x'))),
        )
        t.equal((await Promise.all(takers)).filter((block) => block === null).length, 1)
      }
    })

    t.test('definitions are compared as JSON, and applied in one commit', async (t) => {
      const { db } = await ground.fresh()
      const does = async (...args: Parameters<typeof compareJobs>) =>
        (await compareJobs(...args)).map((each) => `${each.does} ${each.name}`)
      t.same(await does(db, [job('a'), job('b')], false), ['add a', 'add b'])
      await applyJobs(db, [job('a'), job('b')], false)
      const turned = { ...job('a'), definition: { steps: [], name: 'a' } }
      t.same(await does(db, [turned], true), ['keep a', 'remove b'], 'the order of members says nothing')
      const changed = { ...job('a'), definition: { name: 'a', steps: [1] } }
      t.same(await does(db, [changed], false), ['change a'])
      await t.rejects(
        applyJobs(
          db,
          [
            changed,
            { ...job('c'), name: 'x'.repeat(9), events: [null as unknown as string], nextDue: new Date(Number.NaN) },
          ],
          false,
        ),
      )
      t.same(await does(db, [job('a')], false), ['keep a'], 'nothing of a change that failed is left')
    })

    t.test('a run is taken once, and only its worker writes it', async (t) => {
      const store = await ground.fresh()
      const { db } = store
      const ask = () =>
        requestRun(db, 'a', {
          ...{
            dryRun: () => false,
            decide: (_job, { begun, queued }) => (begun + queued === 0 ? 'begin' : 'coalesce'),
          },
          run: () => ({ cause: 'hand', definition: RULES, priority: 0, peers: [] }),
        })
      await applyJobs(db, [job('a')], false)
      const first = await ask()
      t.match(await ask(), { does: 'coalesce', runId: first?.runId })
      t.match(await jobPulse(db), { due: false, runnable: true })
      const [x, y] = [randomUUID(), randomUUID()]
      const take = (id: string, from: Store = store) =>
        takeRuns(from.db, { id, host: 'h', pid: 1 }, { free: 5, aliveSeconds: 60, admit: () => null })
      const taken = await Promise.all([take(x), take(y, await ground.another(store))])
      t.same(taken.map((runs) => runs.length).sort(), [0, 1])
      const [mine, other] = taken[0]?.length === 1 ? [x, y] : [y, x]
      const run = { id: first?.runId ?? '', state: {}, jobId: null, dryRun: false }
      const end = { result: 'success', code: null, message: '', counts: {}, dead: false } as const
      t.equal(await beginJobRun(db, { ...run, worker: other }, wish(['a']), holder('a')), 'lost')
      t.same(await listLeases(db), [], 'and holds nothing')
      const own = holder('a')
      t.equal(await beginJobRun(db, { ...run, worker: mine }, wish(['a']), own), 'begun')
      t.equal(await finishJobRun(db, { ...run, worker: other }, end), false)
      await sql`update syncline.job_run set alive_until = clock_timestamp() - interval '1 s'`.execute(db)
      t.match(await take(other), [{ standing: 'lost' }], 'until it was silent for too long')
      t.equal(await finishJobRun(db, { ...run, worker: mine }, end), false, 'then it comes too late')
      t.equal(await finishJobRun(db, { ...run, worker: other }, end), true)
      const { runs, at } = await changedJobRuns(db, '2020-01-01T00:00:00Z')
      t.match(runs, [{ phase: 'over', result: 'success', coalesced: 1 }])
      t.same((await changedJobRuns(db, at)).runs, [])
    })

    t.test(
      'of several that could go on the one with the most priority is taken, as far as it is admitted',
      async (t) => {
        const { db } = await ground.fresh()
        for (const [name, priority] of [
          ['a', 0],
          ['b', 9],
          ['c', 5],
        ] as const) {
          await applyJobs(db, [job(name)], false)
          const run = () => ({ cause: 'hand', definition: RULES, priority, peers: [] })
          await requestRun(db, name, { dryRun: () => false, decide: () => 'begin', run })
        }
        const admit = ({ job }: { readonly job: string }) => (job === 'b' ? 'not now' : null)
        const worker = { id: randomUUID(), host: 'h', pid: 1 }
        t.match(await takeRuns(db, worker, { free: 1, aliveSeconds: 60, admit }), [{ job: 'c' }])
        t.match((await listJobRuns(db, { job: 'b' })).items, [{ reason: 'not now' }], 'and what is not says why')
        t.match(await takeRuns(db, worker, { free: 5, aliveSeconds: 60, admit: () => null }), [
          { job: 'b' },
          { job: 'a' },
        ])
      },
    )

    t.test('as much of the history is kept as the job says, and what waits for a person besides', async (t) => {
      const { db } = await ground.fresh()
      await sql`insert into syncline.job_run (job_name, cause, definition, phase, result, finished_at, dead)
        select 'a', 'hand', ${JSON.stringify(RULES)}::jsonb, 'over', 'error', now() - n * interval '1 hour', n = 9 from generate_series(10, 1, -1) n`.execute(
        db,
      )
      t.equal(await pruneJobRuns(db), 6)
      const { items } = await listJobRuns(db, { job: 'a' })
      t.equal(items.length, 4)
      t.equal(items.at(-1)?.dead, true)
      t.match(await readJobRun(db, items[0]?.id ?? ''), { job: 'a' })
    })
  })
}
