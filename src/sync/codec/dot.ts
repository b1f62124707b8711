import { fault, quoted } from './format.ts'

/** UTF-16 units of an origin that are taken at most. */
const ORIGIN_LENGTH_MAX = 200

/** An origin as it may stand in a version. */
export function readOrigin(value: unknown, what = 'origin'): string {
  if (typeof value !== 'string' || value === '')
    return fault(`${what} must be a text that is not empty, not ${quoted(value)}`)
  if (value.length > ORIGIN_LENGTH_MAX) fault(`${what} is longer than ${ORIGIN_LENGTH_MAX} characters`)
  if (/\p{Cc}/u.test(value) || !value.isWellFormed()) fault(`${what} holds a control character: ${quoted(value)}`)
  return value
}

/** A clock: microseconds, a whole number from 1 up to 2^53 - 1. */
export function readClock(value: unknown, what = 'clock'): number {
  if (!Number.isSafeInteger(value) || (value as number) < 1)
    fault(`${what} must be a whole number of microseconds, not ${quoted(value)}`)
  return value as number
}
