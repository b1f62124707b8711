import { scheduleJob } from 'node-schedule'
import {
  type Alarm,
  dueNotices,
  type Notice,
  type NoticeChannel,
  noteNoticeFailed,
  noteNoticeSent,
  pruneAlarms,
  recordVerdicts,
  type Store,
  takeSnapshot,
  withLease,
} from '../store/index.ts'
import {
  type AlarmLevel,
  type DiskState,
  type Episode,
  judge,
  retryDelayMs,
  type StallThresholds,
} from '../sync/index.ts'
import { isActive } from './runs.ts'
import { parseSchedule } from './schedule.ts'

/** Tells one alarm to one party. Throws when it could not. */
export type SendNotice = (notice: { readonly moment: 'begin' | 'end'; readonly alarm: Alarm }) => Promise<void>

export type DetectorDeps = {
  readonly store: Store
  readonly alarms: {
    readonly everySeconds: number
    readonly calmSeconds: number
    /** Least level that is told to others. */
    readonly level: AlarmLevel
    readonly thresholds: StallThresholds
    readonly channels: Readonly<Partial<Record<NoticeChannel, SendNotice>>>
    /** Free space of the folders that this site needs. */
    readonly disks: () => Promise<readonly DiskState[]>
  }
  readonly events: {
    readonly alarmBegun: (alarm: Episode) => void
    readonly alarmEnded: (alarm: Episode) => void
    readonly noticeFailed: (event: {
      readonly channel: string
      readonly alarm: string
      readonly reason: string
    }) => void
  }
  readonly onError: (error: unknown) => void
}

/** Ended alarms are kept this long. */
const KEPT_DAYS = 400
/** Notices in one round, and when one that could not be sent is given up. */
const NOTICES_MAX = 50
const ATTEMPTS_MAX = 30
const RETRY = { baseMs: 15_000, maxMs: 3_600_000 }
/** A task that runs as soon as something moves is late after minutes. */
const LIVE_INTERVAL_MS = 60_000

/** Looks at this site again and again, in one of the processes that share the database. Gives what ends it. */
export function startDetector(deps: DetectorDeps): () => Promise<void> {
  const floor = Date.now()
  let underWay: Promise<void> | null = null
  const round = async () => {
    try {
      await withLease(deps.store, 'alarms', () => detect(deps, { at: Date.now(), floor }))
    } catch (error) {
      if (!isActive(error)) deps.onError(error)
    }
  }
  const timer = setInterval(() => {
    underWay ??= round().finally(() => {
      underWay = null
    })
  }, deps.alarms.everySeconds * 1000)
  return async () => {
    clearInterval(timer)
    await underWay
  }
}

/** One look: snapshot, rules, episodes, and what is to be told of them. */
export async function detect(
  deps: Omit<DetectorDeps, 'onError'>,
  { at, floor }: { readonly at: number; readonly floor: number },
): Promise<void> {
  const { db } = deps.store
  const { thresholds, calmSeconds, level, channels, disks } = deps.alarms
  const [snapshot, free] = await Promise.all([takeSnapshot(db, at, { intervalOf, floor }), disks()])
  const verdicts = judge({ ...snapshot, disks: free }, thresholds)
  const names = Object.keys(channels) as NoticeChannel[]
  const { begun, ended } = await recordVerdicts(
    db,
    { at, verdicts },
    { calmMs: calmSeconds * 1000, channels: names, level },
  )
  for (const alarm of begun) deps.events.alarmBegun(alarm)
  for (const alarm of ended) deps.events.alarmEnded(alarm)
  await tell(deps)
  if (ended.length > 0) await pruneAlarms(db, KEPT_DAYS)
}

/** Sends what is due. One channel that fails does not hold the other back. */
async function tell({ store, alarms, events }: Omit<DetectorDeps, 'onError'>): Promise<void> {
  const notices = await dueNotices(store.db, NOTICES_MAX)
  for (const notice of notices) {
    const send = alarms.channels[notice.channel]
    // Of a channel that was taken out of the settings: kept for when it comes back.
    if (send === undefined) continue
    try {
      await send({ moment: notice.moment, alarm: notice.alarm })
      await noteNoticeSent(store.db, notice.id)
    } catch (error) {
      await noteFailure(store, notice, (error as Error).message)
      events.noticeFailed({ channel: notice.channel, alarm: notice.alarm.code, reason: (error as Error).message })
    }
  }
}

async function noteFailure(store: Store, notice: Notice, reason: string): Promise<void> {
  const attempt = notice.attempts + 1
  const retryMs = attempt >= ATTEMPTS_MAX ? null : retryDelayMs({ attempt, random: Math.random(), ...RETRY })
  await noteNoticeFailed(store.db, notice.id, reason, retryMs)
}

/** Milliseconds between two runs of a schedule; null for one that never comes again. */
export function intervalOf(text: string): number | null {
  const schedule = parseSchedule(text)
  if (schedule.kind === 'live') return LIVE_INTERVAL_MS
  if (schedule.kind === 'every') return schedule.seconds * 1000
  return cronGap(schedule.rule)
}

/** The longest pause between runs of the near future: from Friday to Monday nothing is late. */
const CRON_LOOKED_AT = 10

function cronGap(rule: string): number | null {
  const times: number[] = []
  const job = scheduleJob({ rule, tz: 'Etc/UTC' }, () => {})
  try {
    // The library tells only the next time; asked for a start behind it, it tells the one after.
    for (let next = job?.nextInvocation(); next != null && times.length < CRON_LOOKED_AT; ) {
      times.push(next.getTime())
      const start = new Date(next.getTime() + 1000)
      const after = scheduleJob({ rule, start, tz: 'Etc/UTC' }, () => {})
      next = after?.nextInvocation()
      after?.cancel()
    }
  } finally {
    job?.cancel()
  }
  const gaps = times.slice(1).map((time, n) => time - (times[n] as number))
  return gaps.length === 0 ? null : Math.max(...gaps)
}
