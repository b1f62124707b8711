import { type Job, scheduleJob } from 'node-schedule'
import { lastDue, offsetOf, parseSchedule, type Schedule } from './schedule.ts'

/** A task as far as its schedule is concerned. */
export type ScheduledTask = {
  readonly taskId: number
  readonly peerId: number
  readonly peer: string
  readonly resource: string
  readonly schedule: string
}

/** Tasks with one peer that are due together. `key` is the same in every process that finds them due. */
export type DueTasks = {
  readonly key: string
  readonly peerId: number
  readonly peer: string
  readonly resources: readonly string[]
  readonly dueAt: string
}

export type SchedulerDeps = {
  /** Tells this site from others that share a hub with it. */
  readonly siteUuid: string
  /** Every enabled task with a schedule whose peer is not paused. */
  readonly tasks: () => Promise<readonly ScheduledTask[]>
  readonly onDue: (due: DueTasks) => void
  readonly onError: (error: unknown) => void
}

export type Scheduler = {
  /** Reads the tasks again: soon after a change, and from time to time for changes that another process made. */
  readonly refresh: () => Promise<void>
  /** When each task is due next; live tasks are not in it. */
  readonly nextRuns: () => readonly { readonly taskId: number; readonly at: string }[]
  readonly stop: () => void
}

/** How often changes that other processes made are looked for. */
const REFRESH_MS = 5_000

/** Tasks of one peer with the same schedule: they become one run. */
type Group = { tasks: readonly ScheduledTask[]; timer: Timer }
type Timer = { readonly next: () => Date | null; readonly cancel: () => void }

const INERT: Timer = { next: () => null, cancel: () => {} }

/**
 * Turns schedules into due times, in UTC: a rule with local times would skip or repeat an hour twice a year. An interval that passed while no
 * process ran is due at once; a time of a cron rule that passed is not. Live tasks are none of its business.
 */
export function startScheduler(deps: SchedulerDeps): Scheduler {
  const groups = new Map<string, Group>()
  let stopped = false

  const announce = (key: string, due: Date) => {
    const group = groups.get(key)
    const [first] = group?.tasks ?? []
    if (stopped || group === undefined || first === undefined) return
    const dueAt = due.toISOString()
    const resources = group.tasks.map(({ resource }) => resource).sort()
    deps.onDue({ key: `${key} ${dueAt}`, peerId: first.peerId, peer: first.peer, resources, dueAt })
  }

  const arm = (key: string, schedule: Schedule): Timer => {
    if (schedule.kind === 'live') return INERT
    if (schedule.kind === 'cron') return cronTimer(schedule.rule, (due) => announce(key, due))
    const offsetMs = offsetOf(`${deps.siteUuid} ${key}`, schedule.seconds * 1000)
    return intervalTimer(schedule.seconds, offsetMs, (due) => announce(key, due))
  }

  const refresh = async () => {
    const tasks = await deps.tasks()
    if (stopped) return
    const wanted = new Map<string, ScheduledTask[]>()
    for (const task of tasks) {
      const key = `${task.peerId} ${task.schedule}`
      wanted.set(key, [...(wanted.get(key) ?? []), task])
    }
    for (const [key, group] of groups) {
      if (wanted.has(key)) continue
      group.timer.cancel()
      groups.delete(key)
    }
    for (const [key, together] of wanted) {
      const known = groups.get(key)
      if (known !== undefined) known.tasks = together
      else begin(key, together)
    }
  }

  const begin = (key: string, tasks: readonly ScheduledTask[]) => {
    // There before its timer: an interval that is overdue announces itself at once. One that cannot be kept stays without, and is told of once.
    const group: Group = { tasks, timer: INERT }
    groups.set(key, group)
    try {
      group.timer = arm(key, parseSchedule(tasks[0]?.schedule ?? ''))
    } catch (error) {
      deps.onError(error)
    }
  }

  const safely = () => refresh().catch(deps.onError)
  const polling = setInterval(() => void safely(), REFRESH_MS)
  return {
    refresh: safely,
    nextRuns: () =>
      [...groups.values()].flatMap(({ tasks, timer }) => {
        const at = timer.next()?.toISOString()
        return at === undefined ? [] : tasks.map(({ taskId }) => ({ taskId, at }))
      }),
    stop: () => {
      stopped = true
      clearInterval(polling)
      for (const { timer } of groups.values()) timer.cancel()
      groups.clear()
    },
  }
}

function cronTimer(rule: string, due: (at: Date) => void): Timer {
  const job: Job | null = scheduleJob({ rule, tz: 'Etc/UTC' }, due)
  if (job === null) throw new Error(`the library behind cannot keep the cron rule ${rule}`)
  const next = () => {
    const at = job.nextInvocation() as Date | null
    return at === null ? null : new Date(at.getTime())
  }
  return { next, cancel: () => job.cancel() }
}

/** A timer may fire a little before its time. */
const EARLY_MS = 50

function intervalTimer(seconds: number, offsetMs: number, due: (at: Date) => void): Timer {
  let job: Job | null = null
  let next = 0
  const arm = () => {
    const last = lastDue(seconds, offsetMs, Date.now() + EARLY_MS)
    next = last + seconds * 1000
    job = scheduleJob(new Date(next), () => arm())
    // The place on the raster is due now; a queue that has seen it before refuses it.
    due(new Date(last))
  }
  arm()
  return { next: () => new Date(next), cancel: () => job?.cancel() }
}
