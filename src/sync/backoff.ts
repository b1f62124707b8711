import assert from 'node:assert/strict'

/** Longest time that a Retry-After can make us wait: one hour. A site that says more is asked again after that. */
export const RETRY_AFTER_MAX_MS = 3_600_000

export type Backoff = {
  /** 1 for the first retry. */
  readonly attempt: number
  /** A random number from 0 to 1. */
  readonly random: number
  /** Longest delay of the first retry; each further one doubles it. */
  readonly baseMs: number
  readonly maxMs: number
  /** What the other side asked for; a floor, bounded by RETRY_AFTER_MAX_MS. */
  readonly retryAfterMs?: number | undefined
}

/**
 * How long to wait before a retry, in whole milliseconds: full jitter, so anything from nothing to a limit that doubles
 * with each attempt. It comes on top of a Retry-After: those who were sent away together do not come back together.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function retryDelayMs(backoff: Backoff): number {
  const { attempt, random, baseMs, maxMs, retryAfterMs = 0 } = backoff
  assert(Number.isSafeInteger(attempt) && attempt >= 1, `attempt ${attempt} is not a count from 1`)
  assert(random >= 0 && random <= 1, `random ${random} is not between 0 and 1`)
  // Past fifty doublings only the limit counts; bounded, or a base of 0 would meet infinity.
  const ceiling = Math.min(maxMs, baseMs * 2 ** Math.min(attempt - 1, 50))
  const floor = Math.min(Math.max(0, retryAfterMs), RETRY_AFTER_MAX_MS)
  return Math.round(floor + random * ceiling)
}

const DAY = '(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?'
/** The three forms of RFC 9110 section 5.6.7: IMF-fixdate, RFC 850 and asctime, which is in GMT without saying so. */
const HTTP_DATE = new RegExp(
  `^${DAY},? (?:\\d\\d[ -]\\w{3}[ -]\\d{2,4} [\\d:]{8} GMT|\\w{3} [ \\d]\\d [\\d:]{8} \\d{4})$`,
)

/**
 * Milliseconds that a Retry-After header asks for (RFC 9110 section 10.2.3: seconds or a date).
 * Undefined when there is none or it cannot be read.
 */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  const text = header?.trim() ?? ''
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  if (!HTTP_DATE.test(text)) return undefined
  const at = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`)
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs)
}
