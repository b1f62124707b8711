import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { createObserve, type LogOptions, type Measurement, type RunFinished } from '../../src/observe/index.ts'
import { SynclineError } from '../../src/sync/index.ts'

type Line = Record<string, unknown>

function observe(options: Partial<LogOptions> = {}) {
  const written: string[] = []
  const observed = createObserve({
    level: 'trace',
    destination: { write: (line) => void written.push(line) },
    ...options,
  })
  const lines = () => written.map((line) => JSON.parse(line) as Line)
  /** The sample lines of our own metrics, without help and type. */
  const samples = async () => {
    const page = await observed.metrics.text()
    return page.split('\n').filter((line) => line.startsWith('syncline_'))
  }
  return { ...observed, written, lines, last: () => lines().at(-1), samples }
}

const run: RunFinished = {
  runId: '17',
  peer: 'site-a',
  result: 'success',
  pulled: 1,
  applied: 1,
  conflicts: 0,
  rejected: 0,
  pushed: 0,
  lagMs: 840,
  durationMs: 63,
}

t.test('a line is one JSON object with its level and its time in UTC', async (t) => {
  const { log, lines, written } = observe()
  const before = new Date().toISOString()
  log.info({ a: 1 }, 'said\nso')
  t.match(lines(), [{ level: 30, a: 1, msg: 'said\nso' }])
  t.same(Object.keys(lines()[0] ?? {}), ['level', 'time', 'a', 'msg'])
  t.ok(String(lines()[0]?.['time']) >= before)
  t.match(written[0], /^\{[^\n]*\}\n$/)
})

t.test('lines below the level are not written, and the level may change while it runs', async (t) => {
  const { log, lines } = observe({ level: 'warn' })
  log.info('no')
  log.level = 'info'
  log.info('yes')
  t.match(lines(), [{ msg: 'yes' }])
  t.equal(lines().length, 1)
})

t.test('secrets are hidden by their keys, in any spelling and at any depth', async (t) => {
  const { log, written, last } = observe()
  const secret = 'hunter2'
  log.info({
    token: secret,
    databaseUrl: secret,
    DATABASE_URL: secret,
    adminToken: secret,
    'Proxy-Authorization': [secret],
    headers: { authorization: `Bearer ${secret}`, cookie: secret, accept: 'text/plain' },
    peers: [{ name: 'hub', settings: { deep: { password: secret, private_key: Buffer.from(secret) } } }],
    proxy: { url: secret },
  })
  t.notMatch(written.join(''), secret)
  t.match(last(), { token: '***', headers: { authorization: '***', accept: 'text/plain' }, peers: [{ name: 'hub' }] })
})

t.test('what only looks like a secret is shown', async (t) => {
  const { log, last } = observe()
  const shown = {
    tokenId: 7,
    noProxy: ['a'],
    password: null,
    token: true,
    keys: 3,
    authorizationKind: 'basic',
    at: new Date(0),
  }
  log.info(shown)
  t.match(last(), { ...shown, at: '1970-01-01T00:00:00.000Z' })
})

t.test('secrets are hidden in the fields of children and of errors, too', async (t) => {
  const { log, written, lines } = observe()
  const child = log.child({ runId: '1', token: 'hunter2' }).child({ peer: 'hub', login: { secret: 'hunter2' } })
  child.setBindings({ password: 'hunter2' })
  child.info('run')
  const cause = Object.assign(new Error('inner'), { authorization: 'hunter2' })
  log.error({ err: Object.assign(new SynclineError('SYNC_INTERNAL', 'outer', { cause }), { token: 'hunter2' }) })
  log.error(cause)
  t.notMatch(written.join(''), 'hunter2')
  t.match(lines()[0], { runId: '1', peer: 'hub', token: '***', login: { secret: '***' }, msg: 'run' })
  t.match(lines()[1], { err: { type: 'SynclineError', code: 'SYNC_INTERNAL', message: /outer/, stack: /inner/ } })
  t.match(lines()[2], { err: { message: 'inner' }, msg: 'inner' })
})

t.test('objects that know how to show themselves are left to it, cycles and depth do no harm', async (t) => {
  const { log, lines } = observe()
  class Opaque {
    toJSON() {
      return 'opaque'
    }
  }
  const ring: Record<string, unknown> = { name: 'ring' }
  ring['self'] = ring
  let deep: unknown = { token: 'hunter2' }
  for (let level = 0; level < 50; level++) deep = { deep }
  log.info({ opaque: new Opaque(), ring, deep, bytes: Buffer.alloc(9), big: 10n ** 20n })
  t.match(lines(), [{ opaque: 'opaque', ring: { name: 'ring', self: { name: 'ring' } }, bytes: '9 bytes' }])
  t.notMatch(JSON.stringify(lines()), 'hunter2')
})

t.test('at a terminal a line is for people, and text from outside cannot steer the terminal', async (t) => {
  const { log, events, written } = observe({ pretty: true })
  events.runFinished({ ...run, message: 'two words' })
  log.warn({ name: 'a\x1b[2Jb\u202e', list: [1, { x: 'y' }], empty: '' }, 'careful\r\nnow')
  log.error({ err: new Error('broken') }, 'it failed')
  const [first = '', second = '', third = ''] = written
  t.match(first, /^\d\d:\d\d:\d\d\.\d{3} info {2}run\.finished runId=17 peer=site-a .*message="two words"\n$/)
  t.match(
    second,
    /WARN {2}careful\\u\{d\}\\u\{a\}now name="a\\u001b\[2Jb\\u\{202e\}" list=\[1,\{"x":"y"\}\] empty=""\n$/,
  )
  t.match(third, /ERROR it failed\n {4}Error: broken\n {8}at /)
  t.notMatch(written.join(''), '\x1b')
})

t.test(
  'without a terminal the lines of a process go to standard output as JSON, the last one before exit included',
  async (t) => {
    const index = JSON.stringify(new URL('../../src/observe/index.ts', import.meta.url).href)
    const program = `
    const { createObserve } = await import(${index})
    const { log } = createObserve({ level: 'info' })
    for (let n = 1; n <= 2000; n++) log.info({ n, filler: 'x'.repeat(100) })
    process.exit(0)`
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [output] = await Promise.all([text(child.stdout), once(child, 'exit')])
    const lines = output.trimEnd().split('\n')
    t.equal(lines.length, 2000)
    t.match(JSON.parse(lines.at(-1) ?? ''), { level: 30, n: 2000 })
  },
)

t.test('a finished run is one line and its metrics', async (t) => {
  const { events, lines, samples } = observe()
  events.runFinished(run)
  t.match(lines(), [{ level: 30, event: 'run.finished', ...run }])
  const page = await samples()
  t.ok(page.includes('syncline_runs_total{peer="site-a",result="success"} 1'))
  t.ok(page.includes('syncline_run_seconds_sum{peer="site-a",result="success"} 0.063'))
})

t.test('a run that is tried again warns, one that needs a person is an error', async (t) => {
  const { events, lines } = observe()
  events.runFinished({ ...run, result: 'warning' })
  events.runFinished({ ...run, result: 'error', code: 'SYNC_PEER_UNREACHABLE', retryAt: '2026-01-01T00:00:00.000Z' })
  events.runFinished({ ...run, result: 'error', code: 'SYNC_PEER_REFUSED' })
  events.runFinished({ ...run, result: 'fatal' })
  t.same(
    lines().map((line) => line['level']),
    [40, 40, 50, 50],
  )
})

t.test('a request is counted by its route and its level follows its status', async (t) => {
  const { events, lines, samples } = observe()
  const request = { requestId: 'r1', method: 'GET', route: '/sync/v1/changes', durationMs: 20 }
  for (const status of [200, 404, 500, 503]) events.requestServed({ ...request, status })
  events.requestServed({ ...request, route: '/health/live', status: 200 })
  events.requestServed({ ...request, route: '/metrics', status: 200 })
  events.requestServed({ ...request, route: '/healthy-things', status: 200 })
  t.same(
    lines().map((line) => line['level']),
    [30, 30, 50, 40, 20, 20, 30],
  )
  const page = await samples()
  t.ok(page.includes('syncline_http_request_seconds_count{method="GET",route="/sync/v1/changes",status="200"} 1'))
  t.ok(
    page.includes(
      'syncline_http_request_seconds_bucket{le="0.025",method="GET",route="/sync/v1/changes",status="503"} 1',
    ),
  )
})

t.test('changes and bytes are counted by peer, resource, direction and outcome', async (t) => {
  const { events, samples } = observe()
  const counts = { applied: 3, known: 2, skipped: 0, merged: 0, conflict: 1, quarantined: 0, refused: 0 }
  const batch = { peer: 'hub', resource: 'city', counts, bytes: 100, durationMs: 1 }
  events.pushServed(batch)
  events.batchPulled({ ...batch, runId: '1' })
  events.batchPushed(batch)
  events.pullServed({ peer: 'hub', resource: 'city', changes: 9, bytes: 50, more: false, durationMs: 1 })
  const page = (await samples()).filter((line) => /^syncline_(changes|bytes)/.test(line))
  const change = (direction: string, outcome: string) =>
    `syncline_changes_total{peer="hub",resource="city",direction="${direction}",outcome="${outcome}"}`
  t.same(
    page.sort(),
    [
      'syncline_bytes_total{peer="hub",direction="incoming"} 200',
      'syncline_bytes_total{peer="hub",direction="outgoing"} 150',
      `${change('incoming', 'applied')} 6`,
      `${change('incoming', 'known')} 4`,
      `${change('incoming', 'conflict')} 2`,
      `${change('outgoing', 'applied')} 3`,
      `${change('outgoing', 'known')} 2`,
      `${change('outgoing', 'conflict')} 1`,
      `${change('outgoing', 'sent')} 9`,
    ].sort(),
  )
})

t.test('every event is one line of its own name, at the level that says who has to act', async (t) => {
  const { events, lines, samples } = observe()
  const site = {
    uuid: 'u',
    name: 'hub',
    version: '1.2.3',
    database: 'server',
    roles: ['serve'],
    durationMs: 5,
  } as const
  const record = { peer: 'hub', resource: 'city', recordId: '7' }
  events.siteStarted({ ...site, address: 'http://127.0.0.1:8420' })
  events.siteStopping({ cause: 'SIGTERM' })
  events.siteStopped({ durationMs: 5 })
  events.databaseMigrated({ applied: ['one'], durationMs: 5 })
  events.logRenewed({ from: 'a', to: 'b', cause: 'restored' })
  events.runStarted({ runId: '1', peer: 'hub', cause: 'schedule' })
  events.recordQuarantined({ ...record, code: 'SYNC_RECORD_CONSTRAINT', reason: 'check' })
  events.conflictDecided({ ...record, policy: 'newer', decision: 'ours' })
  events.conflictDecided({ ...record, policy: 'ask', decision: 'open' })
  events.jobScheduled({ job: 'sync hub', cause: 'now', dueAt: 'x' })
  events.authRefused({ requestId: 'r', method: 'GET', route: '/x', reason: 'expired', address: '::1' })
  events.peerPaired({ peer: 'hub', uuid: 'u', by: 'joining' })
  events.peerUnreachable({ peer: 'hub', reason: 'ECONNREFUSED', failures: 2 })
  events.clockCompared({ peer: 'hub', offsetMs: 10 })
  events.clockFar({ peer: 'hub', offsetMs: -600_000, limitMs: 300_000 })
  events.horizonOld({ ageMs: 60_000 })
  events.resourceAttached({ resource: 'city', table: 'public.city', rows: 1, durationMs: 5 })
  events.resourceDetached({ resource: 'city', table: 'public.city' })
  events.captureBroken({ resource: 'city', problem: 'trigger is missing' })
  events.tombstonesPurged({ resource: 'city', count: 3 })
  events.internalError({ where: 'server', err: new Error('bug') })
  t.same(
    lines().map((line) => `${line['event']} ${line['level']}`),
    [
      'site.started 30',
      'site.stopping 30',
      'site.stopped 30',
      'database.migrated 30',
      'log.renewed 40',
      'run.started 20',
      'record.quarantined 40',
      'conflict.decided 20',
      'conflict.decided 40',
      'job.scheduled 20',
      'auth.refused 40',
      'peer.paired 30',
      'peer.unreachable 40',
      'clock.far 40',
      'horizon.old 40',
      'resource.attached 30',
      'resource.detached 30',
      'capture.broken 50',
      'tombstones.purged 30',
      'internal.error 50',
    ],
  )
  const page = await samples()
  for (const sample of [
    'syncline_info{version="1.2.3",name="hub"} 1',
    'syncline_quarantined_total{peer="hub",resource="city",code="SYNC_RECORD_CONSTRAINT"} 1',
    'syncline_conflicts_total{peer="hub",resource="city",policy="ask"} 1',
    'syncline_jobs_scheduled_total{cause="now"} 1',
    'syncline_auth_refused_total{reason="expired"} 1',
    'syncline_peer_unreachable_total{peer="hub"} 1',
    'syncline_clock_offset_seconds{peer="hub"} -600',
    'syncline_capture_broken_total{resource="city"} 1',
    'syncline_internal_errors_total{where="server"} 1',
  ]) {
    t.ok(page.includes(sample), sample)
  }
})

t.test('states are measured when somebody asks, and what is gone disappears', async (t) => {
  const { metrics, samples } = observe()
  const gauges = async () =>
    (await samples()).filter((line) => /^syncline_(quarantine\{|conflicts_open|horizon|checkpoint)/.test(line))
  let now: Measurement = {
    quarantine: [
      { peer: 'hub', resource: 'city', count: 3 },
      { peer: 'hub', resource: 'road', count: 1 },
    ],
    conflictsOpen: 2,
    horizonAgeMs: 1500,
    checkpoints: [{ peer: 'hub', resource: 'city', ageMs: 250 }],
  }
  metrics.measureWith(async () => now)
  t.same(await gauges(), [
    'syncline_quarantine{peer="hub",resource="city"} 3',
    'syncline_quarantine{peer="hub",resource="road"} 1',
    'syncline_conflicts_open 2',
    'syncline_horizon_age_seconds 1.5',
    'syncline_checkpoint_age_seconds{peer="hub",resource="city"} 0.25',
  ])
  now = { quarantine: [{ peer: 'hub', resource: 'road', count: 1 }], conflictsOpen: 0 }
  t.same(await gauges(), ['syncline_quarantine{peer="hub",resource="road"} 1', 'syncline_conflicts_open 0'])
})

t.test('a measurement that fails leaves its numbers out and the page whole', async (t) => {
  const { metrics, samples } = observe()
  metrics.measureWith(async () => ({ conflictsOpen: 2 }))
  t.ok((await samples()).includes('syncline_conflicts_open 2'))
  metrics.measureWith(async () => {
    throw new Error('no database')
  })
  const page = await samples()
  t.ok(page.includes('syncline_measure_failures_total 1'))
  t.notOk(page.some((line) => line.startsWith('syncline_conflicts_open')))
})

t.test('scrapes that come at once share one measurement', async (t) => {
  const { metrics } = observe()
  let measured = 0
  metrics.measureWith(async () => {
    await new Promise((resolve) => setTimeout(resolve, 20))
    return { conflictsOpen: ++measured }
  })
  const pages = await Promise.all([metrics.text(), metrics.text(), metrics.text()])
  for (const page of pages) t.match(page, /^syncline_conflicts_open 1$/m)
  t.match(await metrics.text(), /^syncline_conflicts_open 2$/m)
})

t.test('two sites in one process keep their numbers apart, and both show the process', async (t) => {
  const [one, two] = [observe(), observe()]
  one.events.runFinished(run)
  t.match(await one.samples(), [/./])
  t.notOk((await two.samples()).some((line) => line.startsWith('syncline_runs_total')))
  for (const { metrics } of [one, two]) {
    t.match(await metrics.text(), /^process_resident_memory_bytes \d+/m)
    t.match(metrics.contentType, /^text\/plain; version=0\.0\.4/)
  }
})

t.test(
  'dashboards made for RsyncDirector go on: its names, labels and buckets, and what each means here',
  async (t) => {
    const { events, metrics } = observe()
    const old = async () => (await metrics.text()).split('\n').filter((line) => line.startsWith('rsyncdirector_'))
    const job = { job: 'copy', runId: '7' }
    const step = { ...job, kind: 'transfer', attempt: 1, message: '', durationMs: 20, counts: {}, threw: false }
    const failed = { ...step, result: 'error' }
    const over = { ...job, dryRun: false, durationMs: 700, blockedMs: 0, leases: 0 }
    const value = async (name: string) =>
      (await old())
        .find((line) => line.startsWith(`rsyncdirector_${name} `))
        ?.split(' ')
        .at(-1)

    events.siteStarted({ uuid: 'u', name: 'farm', version: '1', database: 'server', roles: ['work'], durationMs: 5 })
    events.jobBlocked({ ...job, reason: 'lease door is held' })
    events.jobBlocked({ ...job, reason: 'lease door is held' })
    t.equal(await value('blocked_total{job_id="copy"}'), '2')
    events.jobStarted({ ...job, cause: 'schedule', resumed: false, leases: 2, lateMs: 5 })
    t.equal(await value('lock_files{job_id="copy"}'), '2')
    events.jobStepEnded({ ...failed, step: 'tried-again', retryMs: 1_000 })
    events.jobStepEnded({ ...failed, step: 'dump', code: 'SYNC_JOB_FAILED' })
    events.jobStepEnded({ ...failed, step: 'lost', code: 'SYNC_JOB_INTERRUPTED' })
    events.jobStepEnded({ ...failed, step: 'odd', threw: true })
    events.jobStepEnded({ ...step, step: 'fine', result: 'success' })
    t.same(
      (await old()).filter((line) => line.includes('aborted')),
      [
        'rsyncdirector_job_aborted_for_failed_process_err_total{job_id="copy",action_id="lost"} 1',
        'rsyncdirector_job_aborted_for_failed_action_err_total{job_id="copy",action_id="dump"} 1',
        'rsyncdirector_job_aborted_for_exception_err_total{job_id="copy",action_id="odd"} 1',
      ],
      'what failed for good, by the way in which it did',
    )
    events.jobFinished({ ...over, result: 'error', blockedMs: 45_000, leases: 2 })
    t.equal(await value('lock_files{job_id="copy"}'), '0')
    t.equal(await value('job_duration_seconds_count{job_id="copy"}'), '1')
    t.equal(await value('job_duration_seconds_bucket{le="0.5",job_id="copy"}'), '0')
    t.equal(await value('job_duration_seconds_bucket{le="1",job_id="copy"}'), '1')
    t.equal(await value('blocked_seconds_bucket{le="60",job_id="copy"}'), '1')
    t.match(
      (await old()).filter((line) => line.includes('runs_completed')),
      ['rsyncdirector_runs_completed_total{rsync_id="farm"} 1'],
    )
    events.jobFinished({ ...over, result: 'skipped', code: 'SYNC_JOB_BLOCKED', blockedMs: 1_000 })
    t.equal(await value('job_skipped_for_block_timeout_total{job_id="copy"}'), '1')
    t.equal(await value('job_duration_seconds_count{job_id="copy"}'), '1', 'a run that was left out took no time')
    events.jobFinished({ ...over, result: 'success', dryRun: true })
    t.equal(await value('job_duration_seconds_count{job_id="copy"}'), '1', 'nor does one that only tells')
    const les = [...(await metrics.text()).matchAll(/^rsyncdirector_job_duration_seconds_bucket\{le="([^"]+)"/gm)]
    t.same(
      les.map(([, le]) => le),
      [
        '0.01',
        '0.1',
        '0.5',
        '1',
        '10',
        '30',
        '60',
        '300',
        '600',
        '1800',
        '3600',
        '7200',
        '14400',
        '28800',
        '86400',
        '172800',
        '604800',
        '1209600',
        '+Inf',
      ],
      'its own buckets',
    )
  },
)
