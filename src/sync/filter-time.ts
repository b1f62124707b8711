export type TimeKind = 'date' | 'timestamp' | 'timestamptz' | 'time'

/** A place on the time line of its kind: days for a date, microseconds for the others; infinities are numbers. */
export type TimeValue = number | bigint

const MOMENT =
  /^(\d{4,6})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?\s?(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?)?(\sBC)?$/i
const CLOCK = /^(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?$/
const DAY_MICROS = 86_400_000_000

/** Reads what PostgreSQL writes for a column of this kind, and ISO 8601 in general; undefined for anything else. A moment without a zone is UTC. */
export function timeValue(kind: TimeKind, text: string): TimeValue | undefined {
  if (kind === 'time') return clockMicros(text.trim().match(CLOCK)?.slice(1) ?? [])
  const special = text.trim().toLowerCase()
  if (special === 'infinity') return Infinity
  if (special === '-infinity') return -Infinity
  const parts = MOMENT.exec(text.trim())
  if (parts === null) return undefined
  const [, year = '', month = '', day = '', hours, minutes, seconds, fraction, zone, before] = parts
  const days = dayNumber(before === undefined ? Number(year) : 1 - Number(year), Number(month), Number(day))
  const micros = hours === undefined ? 0 : clockMicros([hours, minutes, seconds, fraction])
  if (Number(year) === 0 || days === undefined || micros === undefined) return undefined
  // PostgreSQL takes the day of a moment for a date, and overlooks the zone for a timestamp without one.
  if (kind === 'date') return days
  const offset = kind === 'timestamptz' && zone !== undefined ? zoneMicros(zone) : 0
  return BigInt(days) * BigInt(DAY_MICROS) + BigInt(micros - offset)
}

const STRICT: Readonly<Record<TimeKind, { readonly pattern: RegExp; readonly example: string }>> = {
  date: { pattern: /^\d{4}-\d\d-\d\d$/, example: "'2024-12-31'" },
  timestamp: {
    pattern: /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$/,
    example: "'2024-12-31T23:59:59.5', without a zone",
  },
  timestamptz: {
    pattern: /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?)?)?$/,
    example: "'2024-12-31T23:59:59.5Z' or '2024-12-31T23:59+05:30'; without a zone it is UTC",
  },
  time: { pattern: /^\d\d:\d\d(:\d\d(\.\d{1,6})?)?$/, example: "'23:59:59.5'" },
}

/**
 * Reads a constant of a filter, in which nothing may be overlooked: ISO 8601 only, years 0001 to 9999, microseconds at most.
 * `text` means the same to PostgreSQL whatever the session's settings are. A string is the fault, in words.
 */
export function timeLiteral(
  kind: TimeKind,
  text: string,
): { readonly value: TimeValue; readonly text: string } | string {
  const { pattern, example } = STRICT[kind]
  const infinite = kind !== 'time' && (text === 'infinity' || text === '-infinity')
  const value = infinite || pattern.test(text) ? timeValue(kind, text) : undefined
  if (value === undefined) return `write it like ${example}`
  if (infinite || kind !== 'timestamptz' || /(Z|[+-]\d\d:?\d?\d?)$/.test(text.slice(10))) return { value, text }
  return { value, text: text.length === 10 ? `${text}T00:00Z` : `${text}Z` }
}

/** Microseconds since midnight. Midnight at the end of the day is 24:00:00, a leap second counts into the next minute. */
function clockMicros(parts: readonly (string | undefined)[]): number | undefined {
  const [hours, minutes, seconds, fraction] = parts
  if (hours === undefined) return undefined
  const whole = (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds ?? 0)) * 1_000_000
  const micros = whole + Math.round(Number(`0.${fraction ?? 0}`) * 1_000_000)
  return Number(minutes) < 60 && Number(seconds ?? 0) <= 60 && micros <= DAY_MICROS ? micros : undefined
}

function zoneMicros(zone: string): number {
  if (zone.toUpperCase() === 'Z') return 0
  const digits = zone.slice(1).replaceAll(':', '').padEnd(6, '0')
  const seconds = Number(digits.slice(0, 2)) * 3600 + Number(digits.slice(2, 4)) * 60 + Number(digits.slice(4))
  return (zone.startsWith('-') ? -seconds : seconds) * 1_000_000
}

/** Days since 1970-01-01 in the Gregorian calendar, year 0 being 1 BC; undefined when there is no such day. */
function dayNumber(year: number, month: number, day: number): number | undefined {
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const length = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
  if (length === undefined || day < 1 || day > length) return undefined
  // Years begin in March here, so that the leap day is the last of its year.
  const shifted = month <= 2 ? year - 1 : year
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  const leapDays = Math.floor(shifted / 4) - Math.floor(shifted / 100) + Math.floor(shifted / 400)
  return shifted * 365 + leapDays + dayOfYear - 719_468
}
