import type { Fault } from '../fault.ts'

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
type Day = (typeof DAYS)[number]

/** How much a transfer may take of the line, in units of rsync: `500K` and `5M` are KiB and MiB in a second. */
export type Bandwidth = {
  readonly limit?: string
  /** Hours with a limit of their own; the first that fits counts. */
  readonly hours?: readonly Hours[]
  /** Such as `Europe/Vienna`; default that of the machine. */
  readonly timeZone?: string
}

export type Hours = {
  readonly days?: readonly Day[]
  /** `HH:MM`. */
  readonly from: string
  /** `HH:MM`, not included; before `from` it is on the next day. */
  readonly to: string
  readonly limit: string
}

/** What holds at a moment: the limit, `'0'` for none, and how long. */
export type Limit = { readonly limit: string; readonly forMs: number }

const RATE = '^(?:0|unlimited|[1-9][0-9]{0,8}(?:\\.[0-9]{1,3})?[KMG])$'
const TIME = '^(?:[01][0-9]|2[0-3]):[0-5][0-9]$'
const MINUTE_MS = 60_000
const MINUTES_OF_DAY = 1440

export const BANDWIDTH_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  description: 'How much of the line the transfer may take',
  properties: {
    limit: {
      type: 'string',
      pattern: RATE,
      description: 'KiB, MiB or GiB in a second, such as 500K or 5M, or unlimited (default)',
    },
    timeZone: {
      type: 'string',
      description: 'Time zone of the hours, such as Europe/Vienna; default that of the machine',
    },
    hours: {
      type: 'array',
      maxItems: 20,
      description: 'Hours with a limit of their own; the first that fits counts',
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['from', 'to', 'limit'],
        properties: {
          days: {
            type: 'array',
            items: { enum: DAYS },
            minItems: 1,
            description: 'Days on which the hours begin; default all',
          },
          from: { type: 'string', pattern: TIME, description: 'Begin, as HH:MM' },
          to: { type: 'string', pattern: TIME, description: 'End, as HH:MM; before the begin it is on the next day' },
          limit: { type: 'string', pattern: RATE, description: 'Limit in these hours' },
        },
      },
    },
  },
} as const

export function bandwidthFaults({ hours = [], timeZone }: Bandwidth, path: string): Fault[] {
  const faults: Fault[] = hours.flatMap(({ from, to }, index) =>
    from === to ? [{ path: `${path}/hours/${index}/to`, message: 'is when the hours begin' }] : [],
  )
  try {
    clockOf(timeZone)
  } catch {
    faults.push({ path: `${path}/timeZone`, message: `${timeZone} is not a time zone` })
  }
  return faults
}

/** The limit at a moment, and for how long it holds; at most a day is looked ahead. */
export function limitAt(bandwidth: Bandwidth, now: number): Limit {
  const clock = clockOf(bandwidth.timeZone)
  const limit = limitOf(bandwidth, clock(now))
  if (bandwidth.hours === undefined || bandwidth.hours.length === 0) return { limit, forMs: Number.POSITIVE_INFINITY }
  const minute = now - (now % MINUTE_MS)
  for (let ahead = 1; ahead <= MINUTES_OF_DAY; ahead++) {
    const then = minute + ahead * MINUTE_MS
    if (limitOf(bandwidth, clock(then)) !== limit) return { limit, forMs: then - now }
  }
  return { limit, forMs: MINUTES_OF_DAY * MINUTE_MS }
}

type Moment = { readonly day: number; readonly minute: number }

function limitOf({ limit = '0', hours = [] }: Bandwidth, at: Moment): string {
  const found = hours.find((each) => covers(each, at))?.limit ?? limit
  return found === 'unlimited' ? '0' : found
}

function covers({ days = DAYS, from, to }: Hours, { day, minute }: Moment): boolean {
  const [begin, end] = [minutes(from), minutes(to)]
  const on = (index: number) => days.includes(DAYS[(index + 7) % 7] ?? 'mon')
  if (begin < end) return on(day) && minute >= begin && minute < end
  return (on(day) && minute >= begin) || (on(day - 1) && minute < end)
}

function minutes(text: string): number {
  const [hour = '0', minute = '0'] = text.split(':')
  return Number(hour) * 60 + Number(minute)
}

function clockOf(timeZone: string | undefined): (now: number) => Moment {
  const format = new Intl.DateTimeFormat('en-GB', {
    weekday: 'short',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
    ...(timeZone !== undefined && { timeZone }),
  })
  return (now) => {
    const parts = Object.fromEntries(format.formatToParts(now).map(({ type, value }) => [type, value]))
    const day = DAYS.indexOf((parts['weekday'] ?? '').slice(0, 3).toLowerCase() as Day)
    return { day, minute: Number(parts['hour']) * 60 + Number(parts['minute']) }
  }
}
