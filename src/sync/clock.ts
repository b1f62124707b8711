import assert from 'node:assert/strict'

export type ClockReading = {
  /** Time of this site in microseconds since 1970. */
  readonly nowMicros: number
  /** Highest clock that this origin gave the record before; 0 when none. */
  readonly previousOwn: number
  /** Highest clock of any origin that the record has seen; 0 when none. */
  readonly seenMax: number
  /** How far others may pull our clock ahead of our time; five minutes unless a setting says otherwise. */
  readonly aheadMaxMicros: number
}

/**
 * The clock of a new write to one record: a hybrid logical clock in microseconds, below 2^53.
 * It follows the wall clock, and logic where the wall clock would contradict it:
 * - above everything the record has seen, so that "newer" agrees with cause and effect,
 * - but what others stamped never pulls it further ahead of our own time than `aheadMaxMicros`,
 * - and always above our own last write, whatever the wall clock does: two writes never share a dot.
 */
export function nextClock(reading: ClockReading): number {
  const { nowMicros, previousOwn, seenMax, aheadMaxMicros } = reading
  const afterSeen = Math.min(seenMax + 1, nowMicros + aheadMaxMicros)
  const clock = Math.max(nowMicros, afterSeen, previousOwn + 1)
  assert(Number.isSafeInteger(clock) && clock > 0, `clock ${clock} is not a positive safe integer`)
  return clock
}

/** True for a clock so far ahead of our own time that the record has to wait (SYNC_RECORD_CLOCK_AHEAD). */
export function isClockAhead(clock: number, nowMicros: number, aheadMaxMicros: number): boolean {
  return clock > nowMicros + aheadMaxMicros
}
