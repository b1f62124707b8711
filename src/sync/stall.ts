import { spell } from './spell.ts'
import { type JobState, jobVerdicts } from './stall-jobs.ts'

/**
 * The stall detector: rules over what a site knows of itself. A snapshot goes in, verdicts come out; a verdict that stays is an episode, which
 * begins once and ends once. A sync that looks healthy and makes no progress is an alarm.
 */

export const ALARM_LEVELS = ['info', 'warning', 'critical'] as const
export type AlarmLevel = (typeof ALARM_LEVELS)[number]

export const ALARM_CODES = [
  'no-progress',
  'no-success',
  'quarantine-old',
  'quarantine-large',
  'quarantine-growing',
  'quarantine-there',
  'checkpoint-old',
  'horizon-held',
  'clock-off',
  'capture-broken',
  'verify-old',
  'disk-low',
  'peer-failing',
  'peer-paused',
  'job-failed',
  'job-overdue',
  'job-waiting',
] as const
export type AlarmCode = (typeof ALARM_CODES)[number]

/** What a rule found. `peer` and `resource` are empty where the site itself is meant; a rule of jobs has the job in place of the resource. */
export type StallFinding = {
  readonly code: AlarmCode
  readonly level: AlarmLevel
  readonly peer: string
  readonly resource: string
  /** What is the matter, in one sentence with figures. */
  readonly text: string
  /** What to do about it. */
  readonly mend: string
}

/** What a site knows of itself at one moment. Times are milliseconds since 1970; null is never, or unknown. */
export type StallSnapshot = {
  readonly at: number
  readonly peers: readonly PeerState[]
  readonly tasks: readonly TaskState[]
  /** Peers that pull from this site. */
  readonly pullers: readonly PullerState[]
  readonly quarantine: readonly QuarantineState[]
  /** Of what this site sent: what waits at peers. */
  readonly elsewhere: readonly QuarantineState[]
  readonly horizon: HorizonState | null
  readonly broken: readonly { readonly resource: string; readonly problem: string; readonly mend: string }[]
  readonly disks: readonly DiskState[]
  readonly jobs: readonly JobState[]
}

export type PeerState = {
  readonly peer: string
  readonly pausedAt: number | null
  readonly failures: number
  readonly lastSeenAt: number | null
  /** Clock of the peer minus ours. */
  readonly clockOffsetMs: number | null
}

export type TaskState = {
  readonly peer: string
  readonly resource: string
  /** Between two runs; null for a task that only runs by hand. */
  readonly intervalMs: number | null
  readonly createdAt: number
  /** Since when changes of this site wait to be sent, and none was; null when there are none. */
  readonly pendingSince: number | null
  /** End of the last run that succeeded for this task, or when this was first looked for; null when neither is known. */
  readonly succeededAt: number | null
  /** When both sites were last found equal. */
  readonly agreedAt: number | null
  /** False of a peer that cannot prove anything, as a folder cannot. */
  readonly proves?: false
}

export type PullerState = {
  readonly peer: string
  readonly resource: string
  /** Since when there is something that the peer has not fetched, and it fetched nothing; null when it has everything. */
  readonly behindSince: number | null
}

export type QuarantineState = {
  readonly peer: string
  readonly resource: string
  readonly count: number
  readonly oldestAt: number
  /** Of these, since an hour ago. */
  readonly lately: number
}

/** The oldest open write transaction of the database server. */
export type HorizonState = {
  readonly ageMs: number
  readonly pid: number
  readonly application: string
  readonly state: string
  readonly query: string
}

export type DiskState = { readonly path: string; readonly freeBytes: number }

/** When a rule holds. Every one is a setting. */
export type StallThresholds = {
  /** Intervals of a task without progress. */
  readonly intervals: number
  readonly quarantineHours: number
  readonly quarantineMax: number
  readonly quarantinePerHour: number
  readonly checkpointHours: number
  readonly horizonSeconds: number
  readonly clockSeconds: number
  readonly verifyHours: number
  readonly diskMegabytes: number
  readonly failures: number
  readonly pausedHours: number
  readonly jobMinutes: number
}

const SECOND = 1_000
const HOUR = 3_600_000
const MEGABYTE = 1024 ** 2
/** So many times a threshold is critical, where the rule is not critical at once. */
const WORSE = 4
/** Two runs that follow each other closely may both take a while. */
const INTERVAL_MIN_MS = 60_000

/** Every rule over one snapshot. */
export function judge(now: StallSnapshot, limits: StallThresholds): readonly StallFinding[] {
  const paused = new Set(now.peers.filter(({ pausedAt }) => pausedAt !== null).map(({ peer }) => peer))
  return [
    ...now.tasks.filter(({ peer }) => !paused.has(peer)).flatMap((task) => taskVerdicts(task, now.at, limits)),
    ...noSuccess(now, limits, paused),
    ...now.peers.flatMap((peer) => peerVerdicts(peer, now.at, limits)),
    ...now.pullers.filter(({ peer }) => !paused.has(peer)).flatMap((puller) => pullerVerdicts(puller, now.at, limits)),
    ...now.quarantine.flatMap((each) => quarantineVerdicts(each, now.at, limits)),
    ...now.elsewhere.flatMap((each) => elsewhereVerdicts(each, now.at, limits)),
    ...horizonVerdicts(now.horizon, limits),
    ...now.broken.map(captureVerdict),
    ...now.disks.flatMap((disk) => diskVerdicts(disk, limits)),
    ...now.jobs.flatMap((job) => jobVerdicts(job, now.at, limits)),
  ]
}

function taskVerdicts(task: TaskState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const { peer, resource, intervalMs, pendingSince, createdAt, agreedAt } = task
  const found: StallFinding[] = []
  const still = at - (pendingSince ?? at)
  if (intervalMs !== null && still > limits.intervals * Math.max(intervalMs, INTERVAL_MIN_MS))
    found.push({
      ...verdict('no-progress', 'critical', peer, resource),
      text: `changes of ${resource} wait to be sent to ${peer}, and none went for ${spell(still)}`,
      mend: `See the last runs with \`syncline log --peer ${peer}\`, then \`syncline sync ${peer} ${resource}\`.`,
    })
  const unproved = at - Math.max(agreedAt ?? 0, createdAt)
  if (task.proves !== false && unproved > limits.verifyHours * HOUR)
    found.push({
      ...verdict('verify-old', 'warning', peer, resource),
      text:
        agreedAt === null
          ? `${resource} was never proved equal with ${peer}, for ${spell(unproved)}`
          : `${resource} was last proved equal with ${peer} ${spell(unproved)} ago`,
      mend: `Run \`syncline verify ${peer} ${resource}\`; it names the records that differ.`,
    })
  return found
}

/** One for a peer whose tasks all wait, as they run together; else one for each of its tasks that do. */
function noSuccess(now: StallSnapshot, limits: StallThresholds, paused: ReadonlySet<string>): readonly StallFinding[] {
  const byPeer = Map.groupBy(
    now.tasks.filter(({ peer, intervalMs }) => intervalMs !== null && !paused.has(peer)),
    ({ peer }) => peer,
  )
  return [...byPeer].flatMap(([peer, tasks]) => {
    const interval = Math.max(
      Math.min(...tasks.map(({ intervalMs }) => intervalMs ?? Number.POSITIVE_INFINITY)),
      INTERVAL_MIN_MS,
    )
    const since = Math.max(
      ...tasks.map(({ succeededAt }) => succeededAt ?? 0),
      Math.min(...tasks.map(({ createdAt }) => createdAt)),
    )
    const still = now.at - since
    if (still <= limits.intervals * interval) return tasks.flatMap((task) => taskWithoutSuccess(task, now.at, limits))
    return [
      {
        ...verdict('no-success', still > WORSE * limits.intervals * interval ? 'critical' : 'warning', peer, ''),
        text: `no run with ${peer} has succeeded for ${spell(still)}; one is due every ${spell(interval)}`,
        mend: `See why with \`syncline log --peer ${peer}\` and \`syncline doctor\`.`,
      },
    ]
  })
}

function taskWithoutSuccess(task: TaskState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const { peer, resource, intervalMs, succeededAt, createdAt } = task
  const interval = Math.max(intervalMs ?? Number.POSITIVE_INFINITY, INTERVAL_MIN_MS)
  const still = at - Math.max(succeededAt ?? 0, createdAt)
  if (still <= limits.intervals * interval) return []
  return [
    {
      ...verdict('no-success', still > WORSE * limits.intervals * interval ? 'critical' : 'warning', peer, resource),
      text: `no run has synced ${resource} with ${peer} for ${spell(still)}; one is due every ${spell(interval)}`,
      mend: `\`syncline status\` says why, and \`syncline log --peer ${peer} --resource ${resource}\` since when.`,
    },
  ]
}

function peerVerdicts(state: PeerState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const { peer, pausedAt, failures, lastSeenAt, clockOffsetMs } = state
  const found: StallFinding[] = []
  if (pausedAt !== null) {
    const long = at - pausedAt
    if (long > limits.pausedHours * HOUR)
      found.push({
        ...verdict('peer-paused', 'warning', peer, ''),
        text: `${peer} has been paused for ${spell(long)}: nothing is exchanged with it`,
        mend: `\`syncline peer resume ${peer}\`, or \`syncline peer remove ${peer}\` when it will not come back.`,
      })
  } else if (failures >= limits.failures) {
    const seen = lastSeenAt === null ? 'it was never seen' : `it was last seen ${spell(at - lastSeenAt)} ago`
    found.push({
      ...verdict('peer-failing', failures >= WORSE * limits.failures ? 'critical' : 'warning', peer, ''),
      text: `${failures} runs with ${peer} in a row have failed; ${seen}`,
      mend: `\`syncline doctor\` says what is wrong; \`syncline sync ${peer}\` tries again at once.`,
    })
  }
  const off = Math.abs(clockOffsetMs ?? 0)
  if (off > limits.clockSeconds * SECOND)
    found.push({
      ...verdict('clock-off', off > WORSE * limits.clockSeconds * SECOND ? 'critical' : 'warning', peer, ''),
      text: `the clock of ${peer} is ${spell(off)} ${(clockOffsetMs ?? 0) > 0 ? 'ahead of' : 'behind'} the clock of this site`,
      mend: 'Keep both clocks right, by NTP: changes stamped too far ahead wait in quarantine.',
    })
  return found
}

function pullerVerdicts({ peer, resource, behindSince }: PullerState, at: number, limits: StallThresholds) {
  const age = at - (behindSince ?? at)
  if (age <= limits.checkpointHours * HOUR) return []
  return [
    {
      ...verdict('checkpoint-old', 'warning', peer, resource),
      text: `${peer} has fetched nothing of ${resource} for ${spell(age)}, though there is something`,
      mend: `Look at ${peer}: does it run, and can it reach this site? When it will not come back: \`syncline peer remove ${peer}\`.`,
    },
  ]
}

function quarantineVerdicts(state: QuarantineState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const { peer, resource, count, oldestAt, lately } = state
  const mend = `\`syncline quarantine list --peer ${peer} --resource ${resource}\` says why each of them waits.`
  const found: StallFinding[] = []
  if (count > limits.quarantineMax)
    found.push({
      ...verdict('quarantine-large', 'critical', peer, resource),
      text: `${count} records of ${resource} from ${peer} are in quarantine, more than ${limits.quarantineMax}`,
      mend,
    })
  if (lately > limits.quarantinePerHour)
    found.push({
      ...verdict('quarantine-growing', 'critical', peer, resource),
      text: `${lately} records of ${resource} from ${peer} went into quarantine within an hour, more than ${limits.quarantinePerHour}`,
      mend,
    })
  if (at - oldestAt > limits.quarantineHours * HOUR)
    found.push({
      ...verdict('quarantine-old', 'warning', peer, resource),
      text: `${count} records of ${resource} from ${peer} are in quarantine, the oldest for ${spell(at - oldestAt)}`,
      mend,
    })
  return found
}

function elsewhereVerdicts(state: QuarantineState, at: number, limits: StallThresholds): readonly StallFinding[] {
  const { peer, resource, count, oldestAt } = state
  if (at - oldestAt <= limits.quarantineHours * HOUR) return []
  return [
    {
      ...verdict('quarantine-there', 'warning', peer, resource),
      text: `${count} records of ${resource} that this site sent wait at ${peer}, the oldest for ${spell(at - oldestAt)}`,
      mend: `\`syncline quarantine list --side there --peer ${peer}\` says why; correct the records here, or mend it at ${peer}.`,
    },
  ]
}

function horizonVerdicts(horizon: HorizonState | null, limits: StallThresholds): readonly StallFinding[] {
  if (horizon === null || horizon.ageMs <= limits.horizonSeconds * SECOND) return []
  const { ageMs, pid, application, state, query } = horizon
  const level = ageMs > WORSE * limits.horizonSeconds * SECOND ? 'critical' : 'warning'
  const who = `process ${pid} (${application === '' ? 'no application name' : application}, ${state})`
  return [
    {
      ...verdict('horizon-held', level, '', ''),
      text: `nothing that was written in the last ${spell(ageMs)} can be sent: ${who} keeps a transaction open${query === '' ? '' : `; its last query: ${query}`}`,
      mend: `End that transaction in the application, or by \`select pg_terminate_backend(${pid})\`.`,
    },
  ]
}

function captureVerdict({ resource, problem, mend }: StallSnapshot['broken'][number]): StallFinding {
  return {
    ...verdict('capture-broken', 'critical', '', resource),
    text: `changes of ${resource} go unseen: ${problem}`,
    mend: `Attach the table again: \`${mend}\`. Where the role of Syncline does not own the table, \`syncline resource check\` names what its owner has to run.`,
  }
}

function diskVerdicts({ path, freeBytes }: DiskState, limits: StallThresholds): readonly StallFinding[] {
  const least = limits.diskMegabytes * MEGABYTE
  if (freeBytes >= least) return []
  return [
    {
      ...verdict('disk-low', freeBytes < least / 10 ? 'critical' : 'warning', '', path),
      text: `${Math.floor(freeBytes / MEGABYTE)} MB are free on the disk of ${path}, less than ${limits.diskMegabytes} MB`,
      mend: 'Make room on this disk: a full one stops the site.',
    },
  ]
}

function verdict(code: AlarmCode, level: AlarmLevel, peer: string, resource: string) {
  return { code, level, peer, resource }
}

/** A verdict that stays. */
export type Episode = StallFinding & { readonly since: number; readonly last: number }

/** The open episodes after the snapshot of `at`, the newest that was looked at. */
export type Episodes = { readonly at: number; readonly open: readonly Episode[] }

/** What a snapshot changed. `ended` have not been seen for as long as the detector waits for a relapse. */
export type Followed = {
  readonly episodes: Episodes
  readonly begun: readonly Episode[]
  readonly ended: readonly Episode[]
}

/**
 * Goes on from the open episodes with the verdicts of a snapshot. An episode ends when its rule has not held for `calmMs`, so that what comes and
 * goes is told once. A snapshot that is not newer than the last one changes nothing, in whatever order they come.
 */
export function follow(before: Episodes, at: number, verdicts: readonly StallFinding[], calmMs: number): Followed {
  if (at <= before.at) return { episodes: before, begun: [], ended: [] }
  const holds = new Map(verdicts.map((each) => [keyOf(each), each]))
  const known = new Set(before.open.map(keyOf))
  const still: Episode[] = []
  const ended: Episode[] = []
  for (const episode of before.open) {
    const now = holds.get(keyOf(episode))
    if (now !== undefined) still.push({ ...now, since: episode.since, last: at })
    else if (at - episode.last >= calmMs) ended.push(episode)
    else still.push(episode)
  }
  const begun = [...holds].flatMap(([key, now]) => (known.has(key) ? [] : [{ ...now, since: at, last: at }]))
  return { episodes: { at, open: [...still, ...begun] }, begun, ended }
}

/** What makes two verdicts the same episode. */
export function keyOf({ code, peer, resource }: Pick<StallFinding, 'code' | 'peer' | 'resource'>): string {
  return JSON.stringify([code, peer, resource])
}
