import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t from 'tap'
import { parse } from 'yaml'
import { startPostgres } from '../support/postgres.ts'
import { type SiteProcess, startSiteProcess } from '../support/site-process.ts'

/** Three processes of one site on one PostgreSQL, each with server, scheduler and workers. */
const cluster = await startPostgres(t)
const database = await cluster.createDatabase()
const pool = new pg.Pool({ connectionString: database.url, max: 2 })
pool.on('error', () => {})
t.teardown(() => pool.end())
const folder = await mkdtemp(join(tmpdir(), 'syncline-jobs-'))
await chmod(folder, 0o777)
t.teardown(() => rm(folder, { recursive: true, force: true }))

/** A mail server that nobody asks: jobs that would use it are only checked. */
const MAIL = {
  SYNCLINE_SMTP_URL: 'smtp://127.0.0.1:9',
  SYNCLINE_MAIL_FROM: 'site@example.org',
  SYNCLINE_MAIL_TO: 'operator@example.org',
}
const first = await startSiteProcess(t, { name: 'farm', databaseUrl: database.url, env: MAIL })
const another = () =>
  startSiteProcess(t, {
    name: 'farm',
    databaseUrl: database.url,
    env: { ...MAIL, SYNCLINE_KEY_FILE: join(first.dataDir, 'site.key') },
    tokenFile: join(first.dataDir, 'admin.token'),
  })
const processes: SiteProcess[] = [first, await another(), await another()]

type Run = {
  readonly id: string
  readonly job: string
  readonly phase: string
  readonly result: string | null
  readonly code: string | null
  readonly message: string | null
  readonly reason: string | null
  readonly dueAt: string | null
  readonly coalesced: number
  readonly dead: boolean
}
type Step = { readonly name: string; readonly attempt: number; readonly result: string; readonly output: string }

let turn = 0
/** The next process: nothing may depend on which one is asked. */
const any = () => processes[turn++ % processes.length] as SiteProcess
const apply = (...jobs: readonly object[]) => any().api('POST', '/jobs/apply', { jobs })
const run = (job: string, body: object = {}) =>
  any().api<{ runId: string; does: string }>('POST', `/jobs/${job}/runs`, body)
const readRun = (id: string) => any().api<Run>('GET', `/job-runs/${id}`)
const runsOf = async (job: string) => (await any().api<{ items: Run[] }>('GET', `/job-runs?job=${job}`)).items
const stepsOf = async (id: string) => (await any().api<{ items: Step[] }>('GET', `/job-runs/${id}/steps`)).items
const sh = (script: string, more: object = {}) => ({
  command: { argv: ['/bin/sh', '-c', script], grace: '300ms', ...more },
})
const file = (name: string) => join(folder, name)

async function until<T>(look: () => Promise<T | undefined | false> | T | undefined | false): Promise<T> {
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    await sleep(20)
  }
}
const over = (id: string) =>
  until(async () => {
    const found = await readRun(id)
    return found.phase === 'over' && found
  })
const began = (id: string) => until(async () => (await readRun(id)).phase === 'running')
/** No process of the group is left that is not a zombie. */
const groupIsGone = async (pid: number) => {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat === '' || /\) Z /.test(stat)
}
const textOf = (name: string) => readFile(file(name), 'utf8').catch(() => '')

t.test('the definitions of the guide are sound', async (t) => {
  const guide = await readFile(join(import.meta.dirname, '../../docs/guides/jobs.md'), 'utf8')
  const blocks = [...guide.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map(([, block = '']) => parse(block))
  const jobs = blocks.flatMap((block) => (Array.isArray(block) ? block : (block.jobs ?? [block])))
  t.same(await any().api('POST', '/jobs/compare', { jobs }), {
    faults: [],
    changes: ['nightly-copy', 'publish', 'with-mail', 'thumbnails'].map((name) => ({ name, does: 'add' })),
  })
})

t.test('each due time is run once, by whichever process', async (t) => {
  const tick = {
    name: 'tick',
    schedule: { cron: '* * * * * *' },
    // Otherwise a second that comes while a run is under way is that run's.
    overlap: 'parallel',
    steps: [sh(`echo $JOB_RUN >> ${file('ticks')}`)],
  }
  await apply(tick)
  // A look that comes late.
  await pool.query(
    `update syncline.job_definition set next_due = date_trunc('second', clock_timestamp()) - interval '10 seconds' where name = 'tick'`,
  )
  await until(async () => (await runsOf('tick')).filter(({ phase }) => phase === 'over').length >= 14)
  await apply({ ...tick, enabled: false })
  const runs = await until(async () => {
    const found = await runsOf('tick')
    return found.every(({ phase }) => phase === 'over') && found
  })
  const dues = runs.map(({ dueAt }) => Date.parse(dueAt ?? '')).sort()
  t.same(
    dues.slice(1).map((due, n) => due - (dues[n] ?? 0)),
    dues.slice(1).map(() => 1000),
    'no second is missing, none is there twice',
  )
  t.ok(runs.every(({ result }) => result === 'success'))
  const written = (await textOf('ticks')).trim().split('\n')
  t.same(written.toSorted(), runs.map(({ id }) => id).toSorted(), 'and each run did its work once')
})

t.test('a lease excludes, whoever takes it in whatever order, and nobody waits for ever', async (t) => {
  const script = `mkdir ${file('inside')} || exit 9; sleep 0.03; rmdir ${file('inside')}`
  const guard = (lease: string) => ({ lease, every: '100ms' })
  const names = ['l0', 'l1', 'l2', 'l3', 'l4', 'l5']
  await apply(
    ...names.map((name, n) => ({
      name,
      // Two each, in both orders, with one in common.
      leases: n % 2 === 0 ? [guard('common'), guard('other')] : [guard('other'), guard('common')],
      steps: [sh(script)],
    })),
  )
  const asked = await Promise.all(names.map((name) => run(name)))
  const ended = await Promise.all(asked.map(({ runId }) => over(runId)))
  t.same(
    ended.map(({ result }) => result),
    names.map(() => 'success'),
  )
  t.same((await any().api<{ items: unknown[] }>('GET', '/leases')).items, [], 'nothing is left held')
})

t.test('two jobs that wait for each other never run together, and both run', async (t) => {
  const script = `mkdir ${file('pair')} || exit 9; sleep 0.1; rmdir ${file('pair')}`
  const side = (own: string, other: string) => ({
    name: own,
    gates: [
      { lease: other, every: '100ms' },
      { job: other, every: '100ms' },
    ],
    leases: [{ lease: own }],
    steps: [sh(script)],
  })
  await apply(side('left', 'right'), side('right', 'left'))
  for (let round = 0; round < 3; round++) {
    const both = await Promise.all([run('left'), run('right')])
    const ended = await Promise.all(both.map(({ runId }) => over(runId)))
    t.same(
      ended.map(({ result, message }) => `${result} ${message}`),
      ['success ended with 0', 'success ended with 0'],
    )
  }
})

t.test('what waits says why, and after its time is left out or fails', async (t) => {
  await apply(
    { name: 'holder', leases: [{ lease: 'door' }], steps: [{ wait: 60 }] },
    { name: 'patient', gates: [{ lease: 'door', every: '100ms' }], steps: [{ wait: 0 }] },
    { name: 'brief', gates: [{ lease: 'door', every: '100ms', timeLimit: '300ms' }], steps: [{ wait: 0 }] },
    { name: 'next', schedule: { event: 'job brief' }, steps: [{ wait: 0 }] },
    { name: 'happy', schedule: { event: 'job brief success' }, steps: [{ wait: 0 }] },
    { name: 'strict', gates: [{ job: 'holder', timeLimit: 0, onTimeout: 'fail' }], steps: [{ wait: 0 }] },
  )
  const holder = await run('holder')
  await began(holder.runId)
  const patient = await run('patient')
  const waiting = await until(async () => {
    const found = await readRun(patient.runId)
    return found.phase === 'waiting' && found
  })
  t.match(waiting.reason, /^lease door is held by holder, run \d+ on \S+ since 20/)
  t.match(await over((await run('brief')).runId), {
    result: 'skipped',
    code: 'SYNC_JOB_BLOCKED',
    message: /not free within 0.3 s/,
  })
  const next = await until(async () => (await runsOf('next'))[0])
  t.match(await over(next.id), { result: 'success', cause: 'event' }, 'what comes after it is not left out too')
  t.same(await runsOf('happy'), [])
  t.match(await over((await run('strict')).runId), { result: 'error', code: 'SYNC_JOB_BLOCKED', dead: true })
  const metrics = (await Promise.all(processes.map(async ({ url }) => (await fetch(`${url}/metrics`)).text()))).join(
    '\n',
  )
  t.match(metrics, /^rsyncdirector_job_skipped_for_block_timeout_total\{job_id="brief"\} 1$/m)
  t.match(metrics, /^rsyncdirector_lock_files\{job_id="holder"\} 1$/m)
  t.match(metrics, /^syncline_job_queue\{phase="running"\} 1$/m)
  t.match(metrics, /^syncline_job_dead\{job="strict"\} 1$/m)
  // A person takes the lease away: who had it ends, who waits begins.
  await any().api('DELETE', '/leases/door')
  t.match(await over(holder.runId), { result: 'error', code: 'SYNC_JOB_LEASE_LOST' })
  t.match(await over(patient.runId), { result: 'success' })
})

t.test('wishes during a run become one run after it, and each is told so; so does the signal', async (t) => {
  await apply({
    name: 'slow',
    schedule: { signal: true },
    steps: [sh(`while [ ! -e ${file('go')} ]; do sleep 0.05; done`)],
  })
  const one = await run('slow')
  t.equal(one.does, 'begin')
  await began(one.runId)
  const wishes = [await run('slow'), await run('slow')]
  t.match(wishes, [{ does: 'after' }, { does: 'coalesce', runId: wishes[0]?.runId }])
  first.signal('SIGHUP')
  const second = wishes[0]?.runId ?? ''
  t.match(
    await until(async () => {
      const r = await readRun(second)
      return r.coalesced === 2 && r
    }),
    { phase: 'queued', reason: /a run of this job is under way/ },
  )
  await writeFile(file('go'), '')
  t.match([await over(one.runId), await over(second)], [{ result: 'success' }, { result: 'success' }])
  t.equal((await runsOf('slow')).length, 2)
})

t.test('a stopped job ends with everything it started, in bounded time, and what is always done is done', async (t) => {
  await apply({
    name: 'stubborn',
    steps: [
      sh(
        `trap '' TERM; (trap '' TERM; echo $$ > ${file('stubborn')}; while :; do sleep 0.2; done) & wait; while :; do sleep 0.2; done`,
      ),
      { wait: 0 },
    ],
    always: [sh(`echo after > ${file('after')}`)],
  })
  const { runId } = await run('stubborn')
  const pid = Number(await until(async () => (await textOf('stubborn')).trim() || undefined))
  const askedAt = Date.now()
  await any().api('POST', '/jobs/stubborn/stop', { run: runId })
  t.match(await over(runId), { result: 'stopped', code: 'SYNC_JOB_STOPPED', message: 'stopped by administrator' })
  t.ok(Date.now() - askedAt < 25_000, 'a beat and the grace, not the patience with a step that does not heed')
  t.ok(await groupIsGone(pid))
  t.equal(await textOf('after'), 'after\n')
  t.same(
    (await stepsOf(runId)).map(({ name }) => name),
    ['command-1', 'always-command-1'],
  )
})

t.test('stopped again, all of what is always done ends too', async (t) => {
  const last = (name: string) => ({ name, ...sh(`echo ${name} >> ${file('lasts')}; sleep 60`) })
  await apply({ name: 'twice', steps: [{ wait: 60 }], always: [last('one'), last('two'), last('three')] })
  const { runId } = await run('twice')
  await began(runId)
  await any().api('POST', '/jobs/twice/stop', {})
  await until(async () => (await textOf('lasts')) !== '')
  await any().api('POST', '/jobs/twice/stop', {})
  t.match(await over(runId), { result: 'stopped', code: 'SYNC_JOB_STOPPED' })
  t.equal(await textOf('lasts'), 'one\n')
})

t.test('jobs that would set each other off for ever are refused', async (t) => {
  const job = (name: string, event?: string) => ({
    ...{ name, steps: [{ wait: 0 }] },
    ...(event !== undefined && { schedule: { event } }),
  })
  const compare = (...jobs: object[]) => any().api('POST', '/jobs/compare', { jobs })
  const fault = (at: number, names: string) => ({
    path: `/${at}/schedule`,
    message: `a job must not set itself off: ${names}`,
  })
  t.match(await compare(job('self', 'job self failure')), { faults: [fault(0, 'self → self')] })
  t.match(await compare(job('a', 'job c success'), job('b', 'job a'), job('c', 'job b')), {
    faults: [fault(0, 'a → b → c → a'), fault(1, 'b → c → a → b'), fault(2, 'c → a → b → c')],
  })
  t.match(await compare(job('a'), job('b', 'job a'), job('c', 'job a success')), { faults: [] })
  await apply(job('here', 'job later'))
  t.match(
    await compare(job('later', 'job here')),
    { faults: [fault(0, 'later → here → later')] },
    'also by one that is there',
  )
})

t.test('limits of time end a step and a run', async (t) => {
  await apply(
    { name: 'long-step', steps: [{ ...sh('sleep 60'), timeLimit: '200ms' }] },
    { name: 'long-run', timeLimit: '300ms', steps: [{ wait: 60 }], always: [{ wait: 0 }] },
  )
  await apply({ name: 'patient-run', timeLimit: '300d', steps: [{ ...sh('true'), timeLimit: '300d' }] })
  t.match(await over((await run('patient-run')).runId), { result: 'success' }, 'however long the limit is')
  const ended = await Promise.all(['long-step', 'long-run'].map(async (name) => over((await run(name)).runId)))
  t.match(ended, [{ code: 'SYNC_JOB_TIME_LIMIT' }, { code: 'SYNC_JOB_TIME_LIMIT' }])
})

t.test(
  'one job sets off another when it has succeeded, and a later success ends what waits for a person',
  async (t) => {
    await apply(
      { name: 'cause', steps: [sh(`test -e ${file('fine')}`)] },
      { name: 'effect', schedule: { event: 'job cause success' }, steps: [{ wait: 0 }] },
    )
    const bad = await over((await run('cause')).runId)
    t.match(bad, { result: 'error', code: 'SYNC_JOB_FAILED', dead: true })
    await writeFile(file('fine'), '')
    await over((await run('cause')).runId)
    const effect = await until(async () => (await runsOf('effect'))[0])
    t.match(await over(effect.id), { result: 'success', cause: 'event' })
    t.equal((await runsOf('effect')).length, 1, 'the failure set off nothing')
    t.equal((await readRun(bad.id)).dead, false)
  },
)

t.test('times that passed while nothing ran are made up for as the job says', async (t) => {
  const job = (name: string, missed: string) => ({
    ...{ name, missed, schedule: { cron: '0 * * * *' }, overlap: 'parallel' },
    steps: [{ wait: 0 }],
  })
  await apply(job('missed-once', 'once'), job('missed-skip', 'skip'), job('missed-all', 'all'))
  await pool.query(
    `update syncline.job_definition set next_due = date_trunc('hour', now()) - interval '4 hours' where name like 'missed-%'`,
  )
  const found = async (name: string) => {
    const runs = await until(async () => {
      const all = await runsOf(name)
      return all.length >= 5 && all.every(({ phase }) => phase === 'over') && all
    })
    return runs.map(({ result }) => result).sort()
  }
  const skipped = (count: number) => Array.from({ length: count }, () => 'skipped')
  t.same(await found('missed-once'), [...skipped(4), 'success'])
  t.same(await found('missed-skip'), skipped(5))
  t.same(
    await found('missed-all'),
    Array.from({ length: 5 }, () => 'success'),
  )
})

t.test('a lease at a peer keeps jobs of two sites apart', async (t) => {
  const own = await cluster.createDatabase()
  const branch = await startSiteProcess(t, { name: 'branch', databaseUrl: own.url })
  const { code } = await first.api<{ code: string }>('POST', '/invitations', { name: 'branch' })
  await branch.api('POST', '/peers/join', { code, name: 'farm' })
  const script = `mkdir ${file('archive')} || exit 9; sleep 0.15; rmdir ${file('archive')}`
  const there = { peer: { peer: 'farm', lease: 'shared/archive' }, every: '100ms' }
  await branch.api('POST', '/jobs/apply', {
    jobs: [
      { name: 'fetch', leases: [there], steps: [sh(script)] },
      { name: 'look', gates: [{ ...there, timeLimit: 0 }], steps: [{ wait: 0 }] },
    ],
  })
  const here = { lease: 'shared/archive', every: '100ms' }
  await apply(
    { name: 'pack', leases: [here], steps: [sh(script)] },
    { name: 'keep', leases: [here], steps: [{ wait: 60 }] },
  )
  const ask = async (name: string) => (await branch.api<{ runId: string }>('POST', `/jobs/${name}/runs`, {})).runId
  const reaches = (id: string, phase: string) =>
    until(async () => {
      const found = await branch.api<Run>('GET', `/job-runs/${id}`)
      return found.phase === phase && found
    })
  const fetched = async () => reaches(await ask('fetch'), 'over')
  const packed = async () => over((await run('pack')).runId)
  t.match(await Promise.all([packed(), fetched()]), [{ result: 'success' }, { result: 'success' }])

  const keep = await run('keep')
  await began(keep.runId)
  const waiting = await ask('fetch')
  t.match((await reaches(waiting, 'waiting')).reason, /^at farm: lease shared\/archive is held by keep, run \d+ on /)
  t.match(await reaches(await ask('look'), 'over'), { result: 'skipped' })
  await any().api('POST', '/jobs/keep/stop', {})
  t.match(await reaches(waiting, 'over'), { result: 'success' })
  t.same((await any().api<{ items: unknown[] }>('GET', '/leases')).items, [])
  await branch.stop()
  await any().api('DELETE', '/peers/branch', undefined, { 'if-match': '*' })
})

t.test('work that was done while the database was away is not done again', async (t) => {
  await apply({
    name: 'outage',
    steps: [sh(`echo work >> ${file('outage')}; while [ -e ${file('away')} ]; do sleep 0.05; done`), { wait: 0 }],
  })
  await writeFile(file('away'), '')
  const { runId } = await run('outage')
  await until(async () => (await textOf('outage')) !== '')
  await cluster.halt('immediate')
  await rm(file('away'))
  await sleep(1_000)
  await cluster.resume()
  const ended = await until(async () => {
    const found = await readRun(runId).catch(() => undefined)
    return found?.phase === 'over' && found
  })
  t.match(ended, { result: 'success' })
  t.equal(await textOf('outage'), 'work\n')
})

t.test(
  'what a process leaves when it is told to end goes on elsewhere at once; when it is killed, once it has been silent',
  async (t) => {
    const script = (name: string) => `echo $$ >> ${file(name)}; [ $JOB_ATTEMPT -gt 1 ] || sleep 100`
    const job = (name: string, repeatable: boolean) => ({
      ...{ name, leases: [{ lease: name }], steps: [{ name: 'work', ...sh(script(name), { repeatable }) }] },
      always: [{ name: 'last', ...sh('true') }],
    })
    const holderOf = async (name: string) => {
      const { items } = await any().api<{ items: { name: string; pid: number }[] }>('GET', '/leases')
      return items.find((lease) => lease.name === name)?.pid
    }
    await apply(job('gentle', true), job('again', true), job('never', false), job('ended', false))
    const gentle = await run('gentle')
    await until(async () => (await textOf('gentle')) !== '')
    const asked = await holderOf('gentle')
    t.ok(asked)
    const everyone = [...processes]
    process.kill(asked ?? 0, 'SIGTERM')
    // Whoever was asked to end answers no more.
    const alive = await until(async () => {
      const answers = await Promise.all(
        processes.map((each) =>
          fetch(`${each.url}/health/live`).then(
            () => true,
            () => false,
          ),
        ),
      )
      return answers.filter(Boolean).length === 2 && processes.filter((_, n) => answers[n])
    })
    processes.splice(0, processes.length, ...alive)
    t.match(await over(gentle.runId), { result: 'success' })
    const said = everyone.flatMap(({ lines }) => lines.filter((line) => line.includes('"event":"job.adopted"')))
    t.match(
      said.map((line) => JSON.parse(line)).filter(({ job }) => job === 'gentle'),
      [{ runId: gentle.runId, standing: 'handedBack' }],
      'nobody waited for its silence',
    )
    t.same(
      (await stepsOf(gentle.runId)).map(({ name, attempt }) => `${name} ${attempt}`),
      ['work 1', 'work 2', 'last 1'],
    )

    const [again, never, ended] = [await run('again'), await run('never'), await run('ended')]
    await until(async () => (await Promise.all(['again', 'never', 'ended'].map(textOf))).every((text) => text !== ''))
    const pids = [Number((await textOf('again')).trim()), Number((await textOf('never')).trim())]
    const killed = new Set([await holderOf('again'), await holderOf('never'), await holderOf('ended')])
    processes.push(await another())
    for (const pid of killed) process.kill(pid ?? 0, 'SIGKILL')
    await until(async () => (await Promise.all(pids.map(groupIsGone))).every(Boolean))
    t.ok(true, 'kill -9 of the site ends what it had started too')
    const last = processes.at(-1) as SiteProcess
    processes.splice(0, processes.length, last)
    t.match([await readRun(again.runId), await readRun(never.runId)], [{ phase: 'running' }, { phase: 'running' }])
    // As when the process dies between the end of a step and what comes next.
    await pool.query(
      `update syncline.job_step set finished_at = clock_timestamp(), result = 'success', message = 'ended with 0' where run_id = ${ended.runId} and finished_at is null`,
    )
    // The seconds of silence pass at once, to keep the test short.
    await pool.query(`update syncline.job_run set alive_until = clock_timestamp() where phase = 'running'`)
    t.match(await over(again.runId), { result: 'success' })
    t.match(await over(never.runId), { result: 'error', code: 'SYNC_JOB_INTERRUPTED' })
    t.match(await over(ended.runId), { result: 'success' })
    t.equal((await textOf('ended')).trim().split('\n').length, 1, 'what had ended is not done again')
    t.match(await stepsOf(again.runId), [
      { attempt: 1, result: 'error' },
      { attempt: 2, result: 'success' },
      { name: 'last' },
    ])
    t.match(await stepsOf(never.runId), [
      { attempt: 1, result: 'error' },
      { name: 'last', result: 'success' },
    ])
    t.same((await any().api<{ items: unknown[] }>('GET', '/leases')).items, [])
    t.ok(existsSync(file('again')))
  },
)
