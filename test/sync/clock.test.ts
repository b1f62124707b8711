import fc from 'fast-check'
import t from 'tap'
import { isClockAhead, nextClock } from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const NOW = 1_790_000_000_000_000
const AHEAD = 300_000_000

t.test('a clock follows the wall clock while nothing contradicts it', (t) => {
  t.equal(nextClock({ nowMicros: NOW, previousOwn: 0, seenMax: 0, aheadMaxMicros: AHEAD }), NOW)
  t.equal(nextClock({ nowMicros: NOW, previousOwn: NOW - 1, seenMax: NOW - 1, aheadMaxMicros: AHEAD }), NOW)
  t.end()
})

t.test('a write comes after everything its record has seen', (t) => {
  t.equal(nextClock({ nowMicros: NOW, previousOwn: 0, seenMax: NOW, aheadMaxMicros: AHEAD }), NOW + 1)
  t.equal(nextClock({ nowMicros: NOW, previousOwn: 0, seenMax: NOW + 7, aheadMaxMicros: AHEAD }), NOW + 8)
  t.end()
})

t.test('the own clock grows even when the wall clock is set back an hour', (t) => {
  const back = NOW - 3_600_000_000
  t.equal(nextClock({ nowMicros: back, previousOwn: NOW, seenMax: NOW, aheadMaxMicros: AHEAD }), NOW + 1)
  t.end()
})

t.test('a foreign clock pulls ours no further ahead than the limit', (t) => {
  t.equal(nextClock({ nowMicros: NOW, previousOwn: 0, seenMax: NOW + 10 * AHEAD, aheadMaxMicros: AHEAD }), NOW + AHEAD)
  t.equal(
    nextClock({ nowMicros: NOW, previousOwn: 0, seenMax: Number.MAX_SAFE_INTEGER, aheadMaxMicros: AHEAD }),
    NOW + AHEAD,
  )
  t.end()
})

t.test('a clock is always a safe integer above the previous own one and not behind the wall clock', (t) => {
  const clock = fc.integer({ min: 0, max: 2 * NOW })
  const reading = fc.record({ nowMicros: clock, previousOwn: clock, seenMax: clock, aheadMaxMicros: fc.nat(AHEAD) })
  holds(
    t,
    fc.property(reading, (given) => {
      const next = nextClock(given)
      const limit = Math.max(given.nowMicros + given.aheadMaxMicros, given.previousOwn + 1)
      return Number.isSafeInteger(next) && next > given.previousOwn && next >= given.nowMicros && next <= limit
    }),
  )
  t.end()
})

t.test('a clock past the safe integers or without a time is a bug', (t) => {
  const reading = { nowMicros: NOW, previousOwn: Number.MAX_SAFE_INTEGER, seenMax: 0, aheadMaxMicros: AHEAD }
  t.throws(() => nextClock(reading), { name: 'AssertionError' })
  t.throws(() => nextClock({ ...reading, previousOwn: 0, nowMicros: Number.NaN }), { name: 'AssertionError' })
  t.throws(() => nextClock({ ...reading, previousOwn: 0.5, nowMicros: 0 }), { name: 'AssertionError' })
  t.end()
})

t.test('a clock exactly at the limit is not ahead, one microsecond more is', (t) => {
  t.equal(isClockAhead(NOW + AHEAD, NOW, AHEAD), false)
  t.equal(isClockAhead(NOW + AHEAD + 1, NOW, AHEAD), true)
  t.end()
})
