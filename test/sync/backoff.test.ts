import fc from 'fast-check'
import t from 'tap'
import { parseRetryAfter, RETRY_AFTER_MAX_MS, retryDelayMs } from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const given = { attempt: 1, random: 1, baseMs: 500, maxMs: 60_000 }

t.test('the limit of the delay doubles with each attempt up to the maximum', (t) => {
  const limits = [1, 2, 3, 7, 8, 9, 100, 100_000].map((attempt) => retryDelayMs({ ...given, attempt }))
  t.strictSame(limits, [500, 1000, 2000, 32_000, 60_000, 60_000, 60_000, 60_000])
  t.equal(retryDelayMs({ ...given, attempt: 100_000, baseMs: 0 }), 0)
  t.end()
})

t.test('the delay is anything from nothing to its limit', (t) => {
  t.equal(retryDelayMs({ ...given, random: 0 }), 0)
  t.equal(retryDelayMs({ ...given, attempt: 3, random: 0.25 }), 500)
  t.end()
})

t.test('a Retry-After is a floor with jitter on top, and has a limit of its own', (t) => {
  t.equal(retryDelayMs({ ...given, random: 0, retryAfterMs: 7000 }), 7000)
  t.equal(retryDelayMs({ ...given, random: 0.5, retryAfterMs: 7000 }), 7250)
  t.equal(retryDelayMs({ ...given, random: 0, retryAfterMs: 120_000 }), 120_000, 'longer than the own maximum')
  t.equal(retryDelayMs({ ...given, random: 0, retryAfterMs: 1e12 }), RETRY_AFTER_MAX_MS)
  t.equal(retryDelayMs({ ...given, random: 0, retryAfterMs: -5 }), 0)
  t.equal(retryDelayMs({ ...given, random: 0, retryAfterMs: undefined }), 0)
  t.end()
})

t.test('every delay is a whole number between its floor and its limit', (t) => {
  const input = fc.record({
    attempt: fc.integer({ min: 1, max: 2000 }),
    random: fc.double({ min: 0, max: 1, noNaN: true }),
    baseMs: fc.nat(10_000),
    maxMs: fc.nat(900_000),
    retryAfterMs: fc.option(fc.nat(10_000_000), { nil: undefined }),
  })
  holds(
    t,
    fc.property(input, (each) => {
      const delay = retryDelayMs(each)
      const floor = Math.min(each.retryAfterMs ?? 0, RETRY_AFTER_MAX_MS)
      return Number.isSafeInteger(delay) && delay >= floor && delay <= floor + each.maxMs
    }),
  )
  t.end()
})

t.test('an attempt that is no count and chance that is no chance are bugs', (t) => {
  for (const wrong of [{ attempt: 0 }, { attempt: 1.5 }, { random: -0.1 }, { random: 1.1 }, { random: Number.NaN }]) {
    t.throws(() => retryDelayMs({ ...given, ...wrong }), { name: 'AssertionError' }, JSON.stringify(wrong))
  }
  t.end()
})

t.test('a Retry-After is seconds or one of the three forms of a date', (t) => {
  const now = Date.UTC(2026, 10, 22, 8, 49, 30)
  const readable: Record<string, number> = {
    '0': 0,
    '120': 120_000,
    ' 5 ': 5000,
    '999999999': 999_999_999_000,
    'Sun, 22 Nov 2026 08:49:37 GMT': 7000,
    'Sunday, 22-Nov-26 08:49:37 GMT': 7000,
    'Sun Nov 22 08:49:37 2026': 7000,
    'Tue Nov  3 08:49:37 2026': 0,
    'Sun, 06 Nov 1994 08:49:37 GMT': 0,
  }
  for (const [header, expected] of Object.entries(readable)) t.equal(parseRetryAfter(header, now), expected, header)
  t.end()
})

t.test('a date ahead in asctime form is read as GMT wherever this runs', (t) => {
  const here = process.env['TZ']
  t.teardown(() => {
    if (here === undefined) delete process.env['TZ']
    else process.env['TZ'] = here
  })
  process.env['TZ'] = 'Asia/Tokyo'
  const now = Date.UTC(2026, 10, 2, 8, 49, 30)
  t.equal(new Date(now).getHours(), 17, 'this runs elsewhere')
  t.equal(parseRetryAfter('Tue Nov  3 08:49:30 2026', now), 86_400_000)
  t.end()
})

t.test('a Retry-After that cannot be read says nothing', (t) => {
  const unreadable = [undefined, '', '-1', '1.5', '1e3', 'soon', '2026-11-22T08:49:37Z', '22 Nov 2026', '1'.repeat(10)]
  const almost = ['Sun, 22 Nov 2026 08:49:37 CET', 'Sun, 22 Nov 2026 8:49 GMT', 'Sun, 22 Xyz 2026 08:49:37 GMT']
  for (const header of [...unreadable, ...almost]) t.equal(parseRetryAfter(header, 0), undefined, String(header))
  t.end()
})
