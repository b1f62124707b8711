import { SynclineError } from '../sync/index.ts'

/** When a task is due: by a cron rule in UTC, at even intervals, or as soon as there is something to move. */
export type Schedule =
  | { readonly kind: 'cron'; readonly rule: string }
  | { readonly kind: 'every'; readonly seconds: number }
  | { readonly kind: 'live' }

/** The longest interval: a week. Rarer than that is for a calendar. */
const EVERY_MAX_SECONDS = 7 * 86_400
/** The shortest one: what wants more is `live`. */
const EVERY_MIN_SECONDS = 5

/** Reads `cron:<5 or 6 fields>`, `every:<seconds>` or `live`. Throws SYNC_REQUEST_INVALID with what is wrong. */
export function parseSchedule(text: string): Schedule {
  const plain = text.trim()
  if (plain === 'live') return { kind: 'live' }
  const [, kind, rest = ''] = /^(cron|every):(.*)$/s.exec(plain) ?? []
  if (kind === 'cron') return { kind, rule: cronRule(rest) }
  if (kind === 'every') return { kind, seconds: seconds(rest.trim()) }
  throw invalid(text, 'it must be cron:<minute hour day month weekday>, every:<seconds> or live')
}

/** The one spelling of a schedule. Throws SYNC_REQUEST_INVALID. */
export function checkSchedule(text: string): string {
  const schedule = parseSchedule(text)
  if (schedule.kind === 'live') return 'live'
  return schedule.kind === 'cron' ? `cron:${schedule.rule}` : `every:${schedule.seconds}`
}

/**
 * The last time at or before `nowMs` at which an interval was due. Times lie on one raster for all processes of a site, moved by `offsetMs` so
 * that sites which share a hub do not all come at once.
 */
export function lastDue(everySeconds: number, offsetMs: number, nowMs: number): number {
  const step = everySeconds * 1000
  return Math.floor((nowMs - offsetMs) / step) * step + offsetMs
}

/** A number from 0 up to `belowMs` that is the same for the same text (FNV-1a). */
export function offsetOf(text: string, belowMs: number): number {
  let hash = 0x811c9dc5
  for (const character of text) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193) >>> 0
  return hash % belowMs
}

function seconds(text: string): number {
  const [, digits, unit = 's'] = /^(\d{1,9})(s|m|h|d)?$/.exec(text) ?? []
  const count = Number(digits) * { s: 1, m: 60, h: 3600, d: 86_400 }[unit as 's' | 'm' | 'h' | 'd']
  if (digits === undefined || count < EVERY_MIN_SECONDS || count > EVERY_MAX_SECONDS) {
    throw invalid(
      `every:${text}`,
      `the interval must be ${EVERY_MIN_SECONDS} to ${EVERY_MAX_SECONDS} seconds, also as 5m, 2h or 1d`,
    )
  }
  return count
}

type Field = { readonly name: string; readonly min: number; readonly max: number; readonly words?: readonly string[] }

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
const SECOND: Field = { name: 'second', min: 0, max: 59 }
const FIELDS: readonly Field[] = [
  { name: 'minute', min: 0, max: 59 },
  { name: 'hour', min: 0, max: 23 },
  { name: 'day of month', min: 1, max: 31 },
  { name: 'month', min: 1, max: 12, words: MONTHS },
  { name: 'day of week', min: 0, max: 7, words: DAYS },
]

/** The library behind takes four fields as "every minute" and an unreadable rule in silence, so every field is read here. */
function cronRule(text: string): string {
  const parts = text.trim().toLowerCase().split(/\s+/)
  const fields = parts.length === 6 ? [SECOND, ...FIELDS] : FIELDS
  if (parts.length !== fields.length) {
    throw invalid(
      `cron:${text}`,
      `it has ${parts[0] === '' ? 0 : parts.length} fields; there must be 5 (minute, hour, day, month, weekday), or 6 with seconds first`,
    )
  }
  for (const [at, field] of fields.entries()) {
    const why = fieldFault(field, parts[at] as string)
    if (why !== null) throw invalid(`cron:${text}`, `${field.name} "${parts[at]}": ${why}`)
  }
  const rule = parts.join(' ')
  if (!canHappen(parts.at(-3) as string, parts.at(-2) as string, parts.at(-1) as string))
    throw invalid(`cron:${text}`, 'there is no such day')
  return rule
}

/** A list of `*`, a value or a range, each with an optional step. Null when it can be kept. */
function fieldFault(field: Field, text: string): string | null {
  for (const part of text.split(',')) {
    const [, range = '', step] = /^([^/]+)(?:\/(.+))?$/.exec(part) ?? []
    if (step !== undefined && !(/^\d{1,3}$/.test(step) && Number(step) >= 1 && Number(step) <= field.max)) {
      return `a step must be 1 to ${field.max}`
    }
    if (range === '*') continue
    const ends = range.split('-').map((end) => numberOf(field, end))
    if (ends.length > 2 || ends.some((end) => end === null))
      return `it must be ${field.min} to ${field.max}, *, a range, a list or a step`
    if (ends.length === 2 && (ends[0] as number) > (ends[1] as number)) return 'a range must go upwards'
  }
  return null
}

function numberOf({ min, max, words }: Field, text: string): number | null {
  const word = words?.indexOf(text) ?? -1
  if (word >= 0) return word + min
  const value = /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN
  return value >= min && value <= max ? value : null
}

/** False for dates such as 31 February, which a rule without weekdays would wait for in vain. */
function canHappen(day: string, month: string, weekday: string): boolean {
  if (!/^\d+$/.test(day) || weekday !== '*' || month === '*') return true
  const longest = (name: string) =>
    [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][(numberOf(FIELDS[3] as Field, name) ?? 1) - 1] ?? 31
  return month.split(',').some((part) => !/^\w+$/.test(part) || longest(part) >= Number(day))
}

function invalid(text: string, why: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_INVALID', `the schedule "${text.slice(0, 100)}" cannot be kept: ${why}`)
}
