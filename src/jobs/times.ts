import { scheduleJob } from 'node-schedule'
import { SynclineError } from '../sync/index.ts'
import { secondsOf, type Trigger } from './definition.ts'
import { lastDue, offsetOf, parseSchedule } from './schedule.ts'

/** When jobs are due. Cron rules and calendar words keep the clock of their time zone, intervals lie on a raster. */

type Read = { readonly trigger: Trigger } | { readonly path: string; readonly fault: string }

const KINDS = ['cron', 'every', 'calendar', 'event', 'manual', 'signal'] as const
const DAYS = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday'] as const
/** Times that are made up for, at most, for `missed: all`. */
export const MISSED_MAX = 24

/** Reads one trigger that fits the schema. */
export function readTrigger(given: Readonly<Record<string, unknown>>): Read {
  const named = KINDS.filter((kind) => given[kind] !== undefined)
  const [kind, ...others] = named
  if (kind === undefined || others.length > 0)
    return {
      path: '',
      fault: `must have exactly one of ${KINDS.join(', ')}${named.length === 0 ? '' : `, not ${named.join(' and ')}`}`,
    }
  const timeZone = (given.timeZone as string | undefined) ?? 'UTC'
  if (given.timeZone !== undefined && kind !== 'cron' && kind !== 'calendar')
    return { path: '/timeZone', fault: `has no meaning beside ${kind}` }
  if (!isTimeZone(timeZone)) return { path: '/timeZone', fault: `"${timeZone}" is no time zone that is known here` }
  try {
    if (kind === 'cron') return { trigger: { kind, rule: cronRule(given.cron as string), timeZone } }
    if (kind === 'calendar')
      return { trigger: { kind: 'cron', rule: calendarRule(given.calendar as string), timeZone } }
    if (kind === 'every') {
      const seconds = secondsOf(given.every as string | number)
      const schedule = parseSchedule(`every:${seconds}s`)
      return { trigger: { kind, seconds: schedule.kind === 'every' ? schedule.seconds : seconds } }
    }
  } catch (error) {
    if (error instanceof SynclineError) return { path: `/${kind}`, fault: error.message }
    throw error
  }
  return { trigger: kind === 'event' ? { kind, event: given.event as string } : { kind } }
}

/**
 * The first time after `afterMs` at which one of the triggers is due; null when none ever is. `offsetSeed` moves the raster of intervals, alike in
 * all processes of a site.
 */
export function nextDue(triggers: readonly Trigger[], offsetSeed: string, afterMs: number): number | null {
  const times = triggers.flatMap((trigger) => {
    if (trigger.kind === 'cron') return nextCron(trigger.rule, trigger.timeZone, afterMs) ?? []
    if (trigger.kind === 'every') return nextOnRaster(trigger.seconds, offsetSeed, afterMs)
    return []
  })
  return times.length === 0 ? null : Math.min(...times)
}

/** Times after `fromMs` up to `toMs`: the last ones, at most MISSED_MAX. Looks at a bounded number of times only. */
export function duesBetween(
  triggers: readonly Trigger[],
  offsetSeed: string,
  fromMs: number,
  toMs: number,
): readonly number[] {
  const LOOKED_AT_MAX = 2000
  const found: number[] = []
  let looked = 0
  for (let at = nextDue(triggers, offsetSeed, fromMs); at !== null && at <= toMs && looked < LOOKED_AT_MAX; looked++) {
    found.push(at)
    if (found.length > MISSED_MAX) found.shift()
    at = nextDue(triggers, offsetSeed, at)
  }
  return found
}

function nextOnRaster(seconds: number, seed: string, afterMs: number): number {
  return lastDue(seconds, offsetOf(seed, seconds * 1000), afterMs) + seconds * 1000
}

/** The calendar repeats its days of the week after 28 years (until 2099), and zones keep their present rules for the future. */
const CYCLE_MS = 10_227 * 86_400_000

/**
 * The library tells only times that are still to come: for one after a time that has passed it is asked a cycle of the calendar later.
 * A local time that does not exist (an hour is skipped) is an hour later, one that exists twice is due once.
 */
function nextCron(rule: string, tz: string, afterMs: number): number | null {
  const past = afterMs < Date.now()
  const start = new Date(past ? afterMs + CYCLE_MS : afterMs)
  const job = scheduleJob({ rule, tz, start }, () => {})
  const next = job?.nextInvocation() as Date | null | undefined
  job?.cancel()
  return next == null ? null : next.getTime() - (past ? CYCLE_MS : 0)
}

function cronRule(text: string): string {
  const schedule = parseSchedule(`cron:${text}`)
  return schedule.kind === 'cron' ? schedule.rule : text
}

/** `daily at 02:30` and the like as a cron rule. Throws SYNC_REQUEST_INVALID. */
function calendarRule(text: string): string {
  const plain = text.trim().toLowerCase().replace(/\s+/g, ' ')
  if (plain === 'hourly') return '0 * * * *'
  const [, days = '', hour = '', minute = ''] = /^(.+?)(?: at (\d{1,2}):(\d\d))?$/.exec(plain) ?? []
  const at = hour === '' ? '0 0' : `${Number(minute)} ${Number(hour)}`
  if (Number(hour) > 23 || Number(minute) > 59) throw unreadable(text, `there is no time of day ${hour}:${minute}`)
  if (days === 'daily') return `${at} * * *`
  if (days === 'weekdays') return `${at} * * 1-5`
  if (days === 'weekends') return `${at} * * 0,6`
  const monthly = /^monthly(?: on (.+))?$/.exec(days)
  if (monthly !== null) return `${at} ${daysOfMonth(text, monthly[1] ?? '1')} * *`
  const named = days.split(/, ?| and /).map((word) => DAYS.findIndex((day) => day === word || `${day}s` === word))
  if (named.includes(-1))
    throw unreadable(
      text,
      'write hourly, or daily, weekdays, weekends, days of the week, or monthly on days, and at HH:MM',
    )
  return `${at} * * ${named.sort().join(',')}`
}

function daysOfMonth(text: string, list: string): string {
  const days = list.split(/, ?| and /)
  // The library takes the last day only alone.
  if (days.length === 1 && days[0] === 'last') return 'L'
  const numbers = days.map((day) => (/^\d{1,2}$/.test(day) ? Number(day) : 0))
  if (numbers.some((day) => day < 1 || day > 31)) throw unreadable(text, 'days of the month are 1 to 31, or last alone')
  return numbers.join(',')
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    return false
  }
}

function unreadable(text: string, why: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', `"${text.slice(0, 100)}" cannot be read: ${why}`)
}
