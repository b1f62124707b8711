import { PassThrough, Readable } from 'node:stream'
import t from 'tap'
import {
  captureFindings,
  dataDirFinding,
  nodeFinding,
  peerFindings,
  rightsFindings,
  siteFindings,
  toolFinding,
} from '../../src/cli/doctor-checks.ts'
import { type JobView, jobFindings, jobLights, jobLightsText } from '../../src/cli/job-lights.ts'
import { createOutput } from '../../src/cli/output.ts'
import type { SiteInfo } from '../../src/cli/status.ts'
import { linkKey, type StatusFacts, statusRows } from '../../src/cli/status-lights.ts'
import type { Agreement, Alarm, JobRunEntry, Peer, RunEntry, Task } from '../../src/store/index.ts'

const NOW = Date.parse('2026-11-22T12:00:00Z')
const HOUR = 3_600_000
const before = (ms: number) => new Date(NOW - ms).toISOString()

const peer: Peer = {
  id: 1,
  name: 'hub',
  kind: 'syncline',
  uuid: '0198c0de-0000-7000-8000-000000000001',
  siteId: 2,
  url: 'http://hub.example',
  hasToken: true,
  proxyUrl: null,
  hasProxyCredentials: false,
  caPem: null,
  clientCertPem: null,
  hasClientKey: false,
  paused: false,
  logId: 'log',
  clockOffsetMs: 20,
  lastSeenAt: before(60_000),
  failures: 0,
  retryAt: null,
  revision: 1,
  createdAt: before(HOUR),
}
const task: Task = {
  id: 1,
  peerId: 1,
  peer: 'hub',
  resource: 'city',
  mode: 'both',
  filter: null,
  columns: null,
  onConflict: 'newer',
  master: null,
  fields: {},
  onLeft: 'keep',
  mapping: { rename: {}, constant: {}, omit: [] },
  maxDeletes: null,
  maxChanges: null,
  emptyGuard: true,
  canary: null,
  schedule: 'every:300',
  enabled: true,
  lastRun: {
    runId: '7',
    at: before(60_000),
    succeededAt: before(59_000),
    result: 'success',
    code: null,
    message: null,
  },
  revision: 1,
  createdAt: before(HOUR),
}
const run: RunEntry = {
  id: '7',
  kind: 'sync',
  received: null,
  peerId: 1,
  peer: 'hub',
  cause: 'schedule',
  state: 'finished',
  startedAt: before(60_000),
  finishedAt: before(59_000),
  result: 'success',
  code: null,
  message: null,
  counts: {},
}
const agreement: Agreement = {
  peer: 'hub',
  resource: 'city',
  verdict: 'equal',
  reason: null,
  comparedAt: before(HOUR),
  records: 171_075,
  differing: null,
  agreedAt: before(HOUR),
  agreedRecords: 171_075,
  changedSince: false,
}

type Change = Partial<Omit<StatusFacts, 'peers' | 'tasks'>> & {
  readonly peer?: Partial<Peer>
  readonly task?: Partial<Task> | null
  readonly run?: Partial<RunEntry> | null
  readonly proof?: Partial<Agreement> | null
}

/** A link that is well, except for what is given. */
function row(change: Change = {}) {
  const { peer: peerChange, task: taskChange, run: runChange, proof: proofChange, ...facts } = change
  const key = linkKey('hub', 'city')
  const rows = statusRows({
    peers: [{ ...peer, ...peerChange }],
    tasks: taskChange === null ? [] : [{ ...task, ...taskChange }],
    lastRuns: new Map(runChange === null ? [] : [['hub', { ...run, ...runChange }]]),
    agreements: new Map(proofChange === null ? [] : [[key, { ...agreement, ...proofChange }]]),
    checks: [{ resource: 'city', faults: [] }],
    conflicts: new Map(),
    quarantine: new Map(),
    stopped: new Set(),
    now: NOW,
    ...facts,
  })
  t.equal(rows.length, 1)
  const [{ light, why }] = rows as [(typeof rows)[0]]
  return { light, why: why.join('; ') }
}

t.test('green means that the last run succeeded and a comparison found both sides equal', async (t) => {
  t.match(row(), { light: 'green', why: /^equal at \d\d:00:00, 171,075 records$/ })
  t.match(row({ task: null }), { light: 'green', why: /^equal at/ }, 'also where the peer does all the comparing')
  t.match(row({ run: { result: 'warning' } }), { light: 'green' }, 'what waits is counted by itself')
})

t.test('what is not proved is amber, and says how to prove it', async (t) => {
  t.match(row({ proof: null }), { light: 'amber', why: 'never compared: syncline verify hub city' })
  const old = before(25 * HOUR)
  t.match(row({ proof: { comparedAt: old, agreedAt: old } }), {
    light: 'amber',
    why: /last equal at 2026-11-2\d \d\d:00:00, 171,075 records, which is too long ago: syncline verify hub city/,
  })
  t.match(row({ proof: { changedSince: true } }), {
    light: 'amber',
    why: /changes wait for the next run; last equal at/,
  })
  t.match(row({ proof: { verdict: 'waiting', reason: '2 changes wait here' } }), {
    light: 'amber',
    why: /^differs: 2 changes wait here; last equal at/,
  })
  t.match(row({ proof: { verdict: 'unknown', reason: 'comparing takes longer than 15 s', agreedAt: null } }), {
    light: 'amber',
    why: 'could not be proved: comparing takes longer than 15 s; not equal yet',
  })
  t.match(row({ run: null, task: { lastRun: null } }), { light: 'amber', why: 'has not run yet' })
  t.match(row({ task: { enabled: false } }), { light: 'amber', why: /disabled/ })
  t.match(row({ peer: { paused: true, failures: 3 } }), { light: 'amber', why: 'the peer is paused' })
  t.match(row({ peer: { clockOffsetMs: -120_000 } }), { light: 'amber', why: 'its clock is 2 min off' })
  t.match(row({ conflicts: new Map([[linkKey('hub', 'city'), 2]]) }), { light: 'amber', why: '2 conflicts to decide' })
  t.match(row({ task: null, proof: null }), {
    light: 'amber',
    why: /no task here; it was last seen 1 min ago/,
  })
})

t.test('a failure, a quarantine, a difference or a broken trigger is red', async (t) => {
  const failed = { result: 'error', message: 'connect ECONNREFUSED' } as const
  t.match(row({ run: failed, peer: { failures: 4, retryAt: before(-90_000) } }), {
    light: 'red',
    why: 'last run failed: connect ECONNREFUSED (4 times in a row, again in 1 min)',
  })
  t.match(row({ peer: { failures: 1 } }), { light: 'red', why: 'the peer fails' })
  t.match(row({ proof: { verdict: 'different', differing: 3, reason: '10 records here, 7 at the peer' } }), {
    light: 'red',
    why: /^3 records differ: 10 records here, 7 at the peer; last equal at .*; to mend: syncline verify hub city --repair$/,
  })
  const mends = ['syncline resource attach public.city --key id']
  t.match(row({ checks: [{ resource: 'city', faults: ['trigger is missing', 'another too'], mends }] }), {
    light: 'red',
    why: `capture: trigger is missing (and 1 more: syncline resource check city); to mend: ${mends[0]}`,
  })
  const quarantine = new Map([[linkKey('hub', 'city'), 1]])
  t.match(row({ quarantine, proof: null }), { light: 'red', why: /^1 record in quarantine; never compared/ })
  t.match(
    row({ quarantine, task: null, proof: null }),
    { light: 'red', why: /^1 record in quarantine/ },
    'also of a peer without a task here',
  )
  t.match(
    row({ quarantine: new Map([[linkKey('hub2', 'city'), 1]]), task: null, proof: null }),
    { light: 'amber' },
    'not of another peer',
  )
})

t.test('a run that failed in one resource is told there, and the others keep their light', async (t) => {
  const words = 'GET /changes at hub: SYNC_AUTH_FORBIDDEN: Not permitted'
  const failedRun = { result: 'fatal', code: 'SYNC_PEER_REFUSED', message: words } as const
  const lastRun = { runId: '7', at: before(60_000), succeededAt: null, ...failedRun }
  t.match(row({ run: failedRun }), { light: 'green' }, 'of another resource')
  t.match(row({ run: failedRun, task: { lastRun } }), { light: 'red', why: `last run failed: ${words}` })
  t.match(row({ run: { id: '8' }, task: { lastRun } }), { light: 'red' }, 'also when a later run left it out')
  t.match(
    row({ run: { result: 'error', state: 'interrupted', message: 'its process ended' } }),
    { light: 'red', why: 'last run failed: its process ended' },
    'nobody knows how far a run came whose process ended',
  )
  t.match(
    row({ run: failedRun, peer: { failures: 1 }, task: { lastRun } }),
    { light: 'red', why: `last run failed: ${words}` },
    'what concerns the whole peer is said once',
  )
})

t.test('what a brake stopped is said once, and by whom', async (t) => {
  const at = { runId: '7', at: before(60_000), succeededAt: null, result: 'fatal', code: 'SYNC_RUN_BRAKED' } as const
  const own = { ...at, message: 'it would delete 500. If it is meant: syncline sync --release 7k2m9qxd' }
  t.match(
    row({ task: { lastRun: own }, stopped: new Set([linkKey('hub', 'city')]) }),
    { light: 'green' },
    'see withBrakes',
  )
  t.match(row({ task: { lastRun: own } }), {
    light: 'amber',
    why: 'what a brake had stopped goes on with the next run',
  })
  const theirs = { ...at, message: 'POST /changes at hub: an administrator of this site can let it pass' }
  t.match(row({ task: { lastRun: theirs } }), { light: 'red', why: /^stopped: POST .changes at hub: an administrator/ })
})

const site: SiteInfo = {
  uuid: peer.uuid,
  name: 'field',
  logId: 'log',
  version: '1.2.3',
  url: 'http://127.0.0.1:8420',
  time: before(0),
  database: { kind: 'postgresql', version: '15.4' },
  horizon: { ageMs: 0, holder: null },
  waiting: { conflicts: 0, quarantine: 0 },
}

/** What is not ok, each with its state; every one must say how to mend it. */
function troubles(findings: readonly { about: string; state: string; mend?: string }[]) {
  const found = findings.filter(({ state }) => state !== 'ok')
  for (const { about, mend } of found) t.ok(mend, `${about} can be mended`)
  return found.map(({ about, state }) => `${about} ${state}`)
}

t.test('the doctor finds nothing wrong with a site that is well', async (t) => {
  const findings = [
    nodeFinding('24.1.0'),
    dataDirFinding('/data', { mode: 0o40700, freeBytes: 2 ** 40 }),
    toolFinding('rsync', 'rsync 3', 'files'),
    ...siteFindings(site, '1.2.3', 10, NOW),
    ...rightsFindings({ version: '15', role: 'app', rights: [] }),
    ...captureFindings([{ resource: 'city', faults: [] }]),
    ...peerFindings(peer, NOW),
  ]
  t.same(troubles(findings), [])
})

t.test('the doctor names each trouble, how bad it is, and how to mend it', async (t) => {
  t.same(troubles([nodeFinding('22.9.0')]), ['node fail'])
  t.same(troubles([dataDirFinding('/data', { mode: 0o40755, freeBytes: 2 ** 40 })]), ['data folder fail'])
  t.same(troubles([dataDirFinding('/data', { mode: 0o40700, freeBytes: 5e8 })]), ['data folder warn'])
  t.same(troubles([dataDirFinding('/data', { mode: 0o40700, freeBytes: 5e6 })]), ['data folder fail'])
  t.same(troubles([toolFinding('rsync', undefined, 'files')]), ['rsync warn'])
  const odd = {
    ...site,
    time: before(90_000),
    horizon: { ageMs: HOUR, holder: 'process 7' },
    waiting: { conflicts: 1, quarantine: 0 },
  }
  t.same(troubles(siteFindings(odd, '1.2.4', 10, NOW)), [
    'site warn',
    'horizon warn',
    'clock of the site warn',
    'waiting warn',
  ])
  const late = { ...site, time: before(HOUR) }
  t.same(troubles(siteFindings(late, '1.2.3', 10, NOW)), ['clock of the site fail'])
  const rights = [
    { missing: 'temporary tables', grant: 'grant temporary', needed: true },
    { missing: 'statistics', grant: 'grant pg_read_all_stats', needed: false },
  ]
  t.same(troubles(rightsFindings({ version: '15', role: 'app', rights })), ['rights fail', 'rights warn'])
  t.same(troubles(captureFindings([])), ['triggers warn'])
  const checks = [
    {
      resource: 'city',
      faults: ['trigger is missing', 'column "x" is gone'],
      mends: ['syncline resource attach city'],
    },
    { resource: 'country', faults: [] },
  ]
  t.same(troubles(captureFindings(checks)), ['triggers fail', 'triggers fail'])
  t.same(troubles(peerFindings({ ...peer, paused: true }, NOW)), ['peer hub warn'])
  t.same(troubles(peerFindings({ ...peer, failures: 2, clockOffsetMs: 400_000 }, NOW)), [
    'peer hub fail',
    'peer hub, clock fail',
  ])
  t.same(troubles(peerFindings({ ...peer, lastSeenAt: null, clockOffsetMs: null }, NOW)), ['peer hub warn'])
})

const JOB: JobView = {
  name: 'copy',
  definition: {},
  enabled: true,
  nextDue: new Date(NOW + HOUR).toISOString(),
  underWay: 0,
  waitsFor: null,
  lastResult: 'success',
  lastFinishedAt: before(HOUR),
  lastSuccessAt: before(HOUR),
}
const DEAD = { id: '12', job: 'copy', message: 'step dump: ended with 1', code: 'SYNC_JOB_FAILED' } as JobRunEntry
const WAITING = {
  code: 'job-waiting',
  level: 'warning',
  peer: '',
  resource: 'copy',
  text: 'run 13 of job copy has waited to begin for 2 h',
  mend: 'free what it waits for',
} as Alarm

t.test('a job is red when it failed for good, amber when something keeps it from its work, else green', async (t) => {
  const light = (job: Partial<JobView>, more: { dead?: JobRunEntry[]; alarms?: Alarm[] } = {}) => {
    const [row] = jobLights({ jobs: [{ ...JOB, ...job }], dead: [], alarms: [], now: NOW, ...more })
    return `${row?.light}: ${row?.why.join('; ')}`
  }
  t.equal(light({}), 'green: succeeded 1 h ago')
  t.equal(light({ underWay: 1 }), 'green: succeeded 1 h ago; 1 run under way')
  t.equal(light({ nextDue: null, lastResult: null, lastSuccessAt: null }), 'green: runs when somebody asks')
  t.match(
    light({ lastResult: 'error' }, { dead: [DEAD] }),
    /^red: run 12 failed: step dump: ended with 1; to mend: syncline job show copy --run 12; then .* syncline job dismiss 12$/,
  )
  t.match(
    light({ lastResult: 'error' }),
    /^amber: its last run failed: syncline job show copy$/,
    'somebody has seen it',
  )
  t.match(light({ lastResult: 'warning' }), /^amber: its last run ended with a warning/)
  t.match(light({ lastResult: 'stopped' }), /^amber: its last run was stopped/)
  t.match(light({ lastResult: null }), /^amber: has not run yet/)
  t.match(light({ enabled: false }), /^amber: is disabled/)
  t.match(light({ nextDue: before(2 * HOUR) }), /^amber: was due 2 h ago, and nothing has taken that up/)
  t.match(
    light({ waitsFor: 'lease door is held by holder' }, { alarms: [WAITING] }),
    /^amber: run 13 .* to mend: free what it waits for; waits: lease door is held by holder/,
  )
  t.match(light({ waitsFor: 'x' }, { alarms: [{ ...WAITING, level: 'critical' }] }), /^red: run 13 /)
  t.equal(light({}, { alarms: [{ ...WAITING, resource: 'other' }] }), 'green: succeeded 1 h ago')
})

t.test('of many jobs those are shown that are not green, and the doctor says how to mend each', async (t) => {
  const jobs = ['one', 'two', 'three'].map((name) => ({ ...JOB, name }))
  const now = NOW
  const rows = jobLights({ jobs: [...jobs, JOB], dead: [DEAD], alarms: [], now })
  const stdout = new PassThrough()
  const out = createOutput({ stdin: Readable.from([]), stdout, stderr: stdout }, false)
  const text = (await jobLightsText(out, rows)).join('\n')
  t.match(text, /^jobs: 3 green, 1 red$/m)
  t.match(text, /^red +copy .*run 12 failed/m)
  t.notMatch(text, /one|two|three/)
  t.same(await jobLightsText(out, []), [])
  t.match(jobFindings(rows), [
    {
      about: 'job copy',
      state: 'fail',
      text: 'run 12 failed: step dump: ended with 1',
      mend: /syncline job dismiss 12/,
    },
  ])
  t.match(jobFindings(jobLights({ jobs, dead: [], alarms: [], now })), [{ about: 'jobs', state: 'ok' }])
  t.same(jobFindings([]), [])
})
