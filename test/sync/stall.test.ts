import fc from 'fast-check'
import t from 'tap'
import {
  ALARM_CODES,
  type AlarmCode,
  type Episodes,
  follow,
  judge,
  keyOf,
  type StallSnapshot,
  type StallThresholds,
  spell,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const NOW = Date.UTC(2026, 10, 22, 9, 30)
const MINUTE = 60_000
const HOUR = 60 * MINUTE

const LIMITS: StallThresholds = {
  intervals: 3,
  quarantineHours: 24,
  quarantineMax: 1_000,
  quarantinePerHour: 100,
  checkpointHours: 24,
  horizonSeconds: 300,
  clockSeconds: 60,
  verifyHours: 48,
  diskMegabytes: 1_024,
  failures: 5,
  pausedHours: 24,
  jobMinutes: 60,
}

const PEER = { peer: 'hub', pausedAt: null, failures: 0, lastSeenAt: NOW - MINUTE, clockOffsetMs: 20 }
const TASK = {
  peer: 'hub',
  resource: 'city',
  intervalMs: 5 * MINUTE,
  createdAt: NOW - 100 * HOUR,
  pendingSince: null,
  succeededAt: NOW - MINUTE,
  agreedAt: NOW - MINUTE,
}
const WAITING = { peer: 'hub', resource: 'city', count: 1, oldestAt: NOW - HOUR, lately: 1 }
const HORIZON = { ageMs: 1_000, pid: 4711, application: 'etl', state: 'idle in transaction', query: 'insert into big' }
const JOB: StallSnapshot['jobs'][number] = {
  job: 'copy',
  intervalMs: HOUR,
  dueAt: NOW + MINUTE,
  changedAt: NOW - 100 * HOUR,
  succeededAt: NOW - HOUR,
  failures: 0,
  failed: null,
  dead: 0,
  waiting: null,
  running: null,
}
const FAILED = { failures: 1, failed: { runId: '12', message: 'step dump: ended with 1' } }
const WELL: StallSnapshot = {
  at: NOW,
  peers: [PEER],
  tasks: [TASK],
  pullers: [{ peer: 'laptop', resource: 'city', behindSince: null }],
  quarantine: [],
  elsewhere: [],
  horizon: null,
  broken: [],
  disks: [{ path: '/data', freeBytes: 50 * 1024 ** 3 }],
  jobs: [JOB],
}

t.test('a resource that no run has synced is told by itself while others of the peer are', async (t) => {
  const late = { ...TASK, resource: 'town', succeededAt: NOW - 16 * MINUTE, createdAt: NOW - 24 * HOUR }
  const said = (tasks: readonly StallSnapshot['tasks'][number][]) =>
    judge({ ...WELL, tasks }, LIMITS).filter(({ code }) => code === 'no-success')
  t.match(said([TASK, late]), [
    {
      peer: 'hub',
      resource: 'town',
      level: 'warning',
      text: /no run has synced town with hub for 16 min; one is due every 5 min/,
    },
  ])
  t.match(said([TASK, { ...late, succeededAt: NOW - 61 * MINUTE }]), [{ resource: 'town', level: 'critical' }])
  t.same(said([TASK, { ...late, succeededAt: NOW - 15 * MINUTE }]), [])
  t.match(
    said([{ ...TASK, succeededAt: NOW - 16 * MINUTE }, late]),
    [{ peer: 'hub', resource: '' }],
    'all of them at once are said once',
  )
  t.same(said([TASK, { ...late, createdAt: NOW - MINUTE, succeededAt: null }]), [], 'a new task is given its time')
})

/** For each rule a state in which it does not hold by a hair, one in which it does, and what is said of it. */
const RULES: Readonly<
  Record<
    AlarmCode,
    {
      readonly before: Partial<StallSnapshot>
      readonly held: Partial<StallSnapshot>
      readonly says: RegExp
      readonly level: string
    }
  >
> = {
  'no-progress': {
    before: { tasks: [{ ...TASK, pendingSince: NOW - 15 * MINUTE }] },
    held: { tasks: [{ ...TASK, pendingSince: NOW - 16 * MINUTE }] },
    says: /changes of city wait to be sent to hub, and none went for 16 min/,
    level: 'critical',
  },
  'no-success': {
    before: { tasks: [{ ...TASK, succeededAt: NOW - 15 * MINUTE }] },
    held: { tasks: [{ ...TASK, succeededAt: NOW - 16 * MINUTE }] },
    says: /no run with hub has succeeded for 16 min; one is due every 5 min/,
    level: 'warning',
  },
  'quarantine-old': {
    before: { quarantine: [{ ...WAITING, oldestAt: NOW - 24 * HOUR }] },
    held: { quarantine: [{ ...WAITING, oldestAt: NOW - 25 * HOUR }] },
    says: /1 records of city from hub are in quarantine, the oldest for 1 d 1 h/,
    level: 'warning',
  },
  'quarantine-large': {
    before: { quarantine: [{ ...WAITING, count: 1_000 }] },
    held: { quarantine: [{ ...WAITING, count: 1_001 }] },
    says: /1001 records of city from hub are in quarantine, more than 1000/,
    level: 'critical',
  },
  'quarantine-growing': {
    before: { quarantine: [{ ...WAITING, lately: 100 }] },
    held: { quarantine: [{ ...WAITING, lately: 101 }] },
    says: /101 records of city from hub went into quarantine within an hour/,
    level: 'critical',
  },
  'quarantine-there': {
    before: { elsewhere: [{ ...WAITING, oldestAt: NOW - 24 * HOUR }] },
    held: { elsewhere: [{ ...WAITING, oldestAt: NOW - 25 * HOUR }] },
    says: /1 records of city that this site sent wait at hub/,
    level: 'warning',
  },
  'checkpoint-old': {
    before: { pullers: [{ peer: 'laptop', resource: 'city', behindSince: NOW - 24 * HOUR }] },
    held: { pullers: [{ peer: 'laptop', resource: 'city', behindSince: NOW - 25 * HOUR }] },
    says: /laptop has fetched nothing of city for 1 d 1 h/,
    level: 'warning',
  },
  'horizon-held': {
    before: { horizon: { ...HORIZON, ageMs: 300_000 } },
    held: { horizon: { ...HORIZON, ageMs: 301_000 } },
    says: /process 4711 \(etl, idle in transaction\) keeps a transaction open; its last query: insert into big/,
    level: 'warning',
  },
  'clock-off': {
    before: { peers: [{ ...PEER, clockOffsetMs: -60_000 }] },
    held: { peers: [{ ...PEER, clockOffsetMs: -61_000 }] },
    says: /the clock of hub is 1 min 1 s behind the clock of this site/,
    level: 'warning',
  },
  'capture-broken': {
    before: { broken: [] },
    held: {
      broken: [
        {
          resource: 'city',
          problem: 'its table lacks a working trigger',
          mend: 'syncline resource attach public.city --key id',
        },
      ],
    },
    says: /changes of city go unseen: its table lacks a working trigger/,
    level: 'critical',
  },
  'verify-old': {
    before: { tasks: [{ ...TASK, agreedAt: NOW - 48 * HOUR }] },
    held: { tasks: [{ ...TASK, agreedAt: NOW - 49 * HOUR }] },
    says: /city was last proved equal with hub 2 d 1 h ago/,
    level: 'warning',
  },
  'disk-low': {
    before: { disks: [{ path: '/data', freeBytes: 1024 ** 3 }] },
    held: { disks: [{ path: '/data', freeBytes: 1024 ** 3 - 1 }] },
    says: /1023 MB are free on the disk of \/data/,
    level: 'warning',
  },
  'peer-failing': {
    before: { peers: [{ ...PEER, failures: 4 }] },
    held: { peers: [{ ...PEER, failures: 5 }] },
    says: /5 runs with hub in a row have failed; it was last seen 1 min ago/,
    level: 'warning',
  },
  'peer-paused': {
    before: { peers: [{ ...PEER, pausedAt: NOW - 24 * HOUR }] },
    held: { peers: [{ ...PEER, pausedAt: NOW - 25 * HOUR }] },
    says: /hub has been paused for 1 d 1 h/,
    level: 'warning',
  },
  'job-failed': {
    before: { jobs: [{ ...JOB, ...FAILED, dead: 0 }] },
    held: { jobs: [{ ...JOB, ...FAILED, dead: 1 }] },
    says: /the last run of job copy has failed: step dump: ended with 1/,
    level: 'warning',
  },
  'job-overdue': {
    before: { jobs: [{ ...JOB, succeededAt: NOW - 3 * HOUR }] },
    held: { jobs: [{ ...JOB, succeededAt: NOW - 4 * HOUR }] },
    says: /no run of job copy has succeeded for 4 h; one is due every 1 h/,
    level: 'warning',
  },
  'job-waiting': {
    before: { jobs: [{ ...JOB, waiting: { runId: '12', since: NOW - HOUR, reason: 'lease door is held by holder' } }] },
    held: {
      jobs: [{ ...JOB, waiting: { runId: '12', since: NOW - 61 * MINUTE, reason: 'lease door is held by holder' } }],
    },
    says: /run 12 of job copy has waited to begin for 1 h 1 min: lease door is held by holder/,
    level: 'warning',
  },
}

t.test('a site that is well has no alarm', async (t) => {
  t.same(judge(WELL, LIMITS), [])
})

t.test('every rule holds beyond its threshold and not before, names what it found and how to mend it', async (t) => {
  t.same(Object.keys(RULES).sort(), [...ALARM_CODES].sort())
  for (const [code, { before, held, says, level }] of Object.entries(RULES)) {
    t.same(judge({ ...WELL, ...before }, LIMITS), [], `${code} does not hold yet`)
    const found = judge({ ...WELL, ...held }, LIMITS)
    t.match(found, [{ code, level, text: says, mend: /\w/ }], code)
    t.equal(found.length, 1, `${code} alone`)
  }
})

t.test('of a job the cause is told, once, and what nobody takes up or fails often is critical', async (t) => {
  const said = (job: Partial<typeof JOB>) =>
    judge({ ...WELL, jobs: [{ ...JOB, ...job }] }, LIMITS).map(({ code, level, text, peer, resource }) => {
      t.same({ peer, resource }, { peer: '', resource: 'copy' })
      return `${code} ${level} ${text}`
    })
  const long = { succeededAt: NOW - 100 * HOUR }
  const waiting = { runId: '12', since: NOW - 5 * HOUR, reason: null }
  t.match(said({ ...long }), [/^job-overdue critical/])
  t.match(said({ ...long, ...FAILED, dead: 1 }), [/^job-failed warning/], 'it fails, so it does not succeed')
  t.match(said({ ...long, waiting }), [/^job-waiting critical .*no process has taken it up/])
  t.match(said({ ...FAILED, failures: 5, dead: 5 }), [/^job-failed critical the last 5 runs/])
  t.same(said({ ...FAILED, failures: 4, dead: null }), [], 'one that has nobody wait is told when it fails often')
  t.match(said({ ...FAILED, failures: 5, dead: null }), [/^job-failed warning/])
  t.same(said({ dueAt: NOW - HOUR }), [])
  t.match(said({ dueAt: NOW - 61 * MINUTE }), [/^job-overdue critical job copy was due 1 h 1 min ago/])
  t.same(said({ ...long, intervalMs: null, dueAt: null }), [], 'one that only people set off is never late')
  const running = { runId: '12', since: NOW - 90 * MINUTE }
  t.match(said({ ...long, running }), [/one is due every 1 h, and run 12 has been under way for 1 h 30 min/])
  t.same(said({ ...long, changedAt: NOW - HOUR }), [], 'nor is one that was made or changed just now')
})

t.test('what lasts four times as long is critical', async (t) => {
  const worse: Partial<StallSnapshot>[] = [
    { tasks: [{ ...TASK, succeededAt: NOW - 61 * MINUTE }] },
    { peers: [{ ...PEER, failures: 20 }] },
    { peers: [{ ...PEER, clockOffsetMs: 241_000 }] },
    { horizon: { ...HORIZON, ageMs: 1_201_000 } },
    { disks: [{ path: '/data', freeBytes: 100 * 1024 ** 2 }] },
  ]
  for (const state of worse) t.match(judge({ ...WELL, ...state }, LIMITS), [{ level: 'critical' }])
})

t.test('a paused peer is not told of for what the pause causes', async (t) => {
  const found = judge(
    {
      ...WELL,
      peers: [{ ...PEER, pausedAt: NOW - HOUR, failures: 50 }],
      tasks: [{ ...TASK, succeededAt: null, pendingSince: 0, agreedAt: null }],
      pullers: [{ peer: 'hub', resource: 'city', behindSince: 0 }],
    },
    LIMITS,
  )
  t.same(found, [])
})

t.test('a task without a schedule is not late, and a new one is not yet', async (t) => {
  const byHand = { ...TASK, intervalMs: null, succeededAt: null, pendingSince: NOW - 40 * HOUR }
  t.same(judge({ ...WELL, tasks: [byHand] }, LIMITS), [])
  t.same(
    judge({ ...WELL, tasks: [{ ...TASK, createdAt: NOW - MINUTE, succeededAt: null, agreedAt: null }] }, LIMITS),
    [],
  )
  t.match(judge({ ...WELL, tasks: [{ ...TASK, agreedAt: null }] }, LIMITS), [{ text: /never proved equal/ }])
  const folder = { ...TASK, agreedAt: null, proves: false as const }
  t.same(judge({ ...WELL, tasks: [folder] }, LIMITS), [], 'what can prove nothing is not asked for a proof')
})

t.test('durations are told in their two largest units', async (t) => {
  for (const [ms, text] of [
    [0, '0 s'],
    [59_400, '59 s'],
    [90_000, '1 min 30 s'],
    [HOUR, '1 h'],
    [49 * HOUR + 5, '2 d 1 h'],
    [-5, '0 s'],
  ] as const)
    t.equal(spell(ms), text)
})

const CALM = 3 * MINUTE
const START: Episodes = { at: 0, open: [] }

t.test('each rule begins one episode and ends it once, however often it is looked at', async (t) => {
  for (const [code, { held }] of Object.entries(RULES)) {
    let episodes = START
    const begun: string[] = []
    const ended: string[] = []
    for (let minute = 0; minute < 30; minute++) {
      const at = NOW + minute * MINUTE
      // Holds from the fifth to the fourteenth minute, with a gap that is shorter than the calm.
      const isHeld = minute >= 5 && minute < 15 && minute !== 10
      const verdicts = isHeld ? judge({ ...WELL, ...held }, LIMITS) : []
      const next = follow(episodes, at, verdicts, CALM)
      episodes = next.episodes
      begun.push(...next.begun.map((each) => `${minute} ${each.code}`))
      ended.push(...next.ended.map((each) => `${minute} ${each.code}`))
    }
    t.same(begun, [`5 ${code}`])
    t.same(ended, [`17 ${code}`])
  }
})

t.test('an episode keeps its begin and takes level and words of now', async (t) => {
  const at = (freeBytes: number) => judge({ ...WELL, disks: [{ path: '/data', freeBytes }] }, LIMITS)
  const first = follow(START, NOW, at(500 * 1024 ** 2), CALM)
  const second = follow(first.episodes, NOW + MINUTE, at(50 * 1024 ** 2), CALM)
  t.match(second, {
    begun: [],
    ended: [],
    episodes: { open: [{ since: NOW, last: NOW + MINUTE, level: 'critical', text: /^50 MB/ }] },
  })
})

t.test('snapshots in any order, and any of them again, never tell anything twice', async (t) => {
  const codes = fc.uniqueArray(fc.constantFrom(...ALARM_CODES), { maxLength: 4 })
  const snapshots = fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), codes), { minLength: 1, maxLength: 25 })
  const calm = fc.integer({ min: 0, max: 5 })
  const told = (order: readonly (readonly [number, readonly AlarmCode[]])[], calmMs: number) => {
    let episodes: Episodes = START
    const said: string[] = []
    for (const [at, some] of order) {
      const found = some.map((code) => ({
        code,
        level: 'warning' as const,
        peer: '',
        resource: '',
        text: code,
        mend: '',
      }))
      const next = follow(episodes, at, found, calmMs)
      episodes = next.episodes
      said.push(
        ...next.begun.map((each) => `${keyOf(each)} begins at ${each.since}`),
        ...next.ended.map((each) => `${keyOf(each)} of ${each.since} ends`),
      )
    }
    return { said, episodes }
  }
  const seen = fc.property(snapshots, fc.infiniteStream(fc.nat()), calm, (list, random, calmMs) => {
    const shuffled = [...list, ...list]
      .map((each) => [random.next().value as number, each] as const)
      .toSorted((a, b) => a[0] - b[0])
      .map(([, each]) => each)
    const { said, episodes } = told(shuffled, calmMs)
    if (new Set(said).size !== said.length) return false
    const begins = said.filter((each) => each.includes('begins')).length
    const ends = said.filter((each) => each.endsWith('ends')).length
    return begins - ends === episodes.open.length && new Set(episodes.open.map(keyOf)).size === episodes.open.length
  })
  holds(t, seen)
})
