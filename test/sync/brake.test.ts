import fc from 'fast-check'
import t from 'tap'
import {
  type BrakeDirection,
  type Brakes,
  brakesOf,
  judgeBrakes,
  judgeMark,
  limitFor,
  MARK_GRACE_MS,
  type Pass,
  parseLimit,
  surelyWithin,
  type Weight,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const USUAL = brakesOf({ maxDeletes: null, maxChanges: null, emptyGuard: true, canary: null })
const CALM: Weight = { deletes: 0, changes: 0, living: 1_000, empty: false, held: 0, canary: null }
const place = (direction: BrakeDirection) => ({ direction, peer: 'hub', resource: 'city' })
const rules = (weight: Partial<Weight>, brakes: Partial<Brakes> = {}, pass: Pass | null = null) =>
  judgeBrakes({ ...CALM, ...weight }, { ...USUAL, ...brakes }, place('pull'), pass)
    .map(({ rule }) => rule)
    .join(' ')

t.test('a limit is a number, a share, or both, of which the greater counts', async (t) => {
  t.strictSame(parseLimit('100'), { count: 100, share: 0 })
  t.strictSame(parseLimit(' 5% '), { count: 0, share: 0.05 })
  t.strictSame(parseLimit('0.5 %'), { count: 0, share: 0.005 })
  t.strictSame(parseLimit('100,10%'), { count: 100, share: 0.1 })
  t.strictSame(parseLimit('100 | 10 %'), { count: 100, share: 0.1 })
  t.equal(parseLimit('none'), null)
  t.strictSame(parseLimit('0'), { count: 0, share: 0 })
  for (const wrong of ['', '-1', '5.5', '101%', 'ten', '10%,100', '1e3', '100,', '9999999999', '%'])
    t.throws(() => parseLimit(wrong), { code: 'SYNC_REQUEST_INVALID' }, wrong)
  t.equal(limitFor(parseLimit('100,10%'), 500), 100)
  t.equal(limitFor(parseLimit('100,10%'), 5_000), 500)
  t.equal(limitFor(parseLimit('none'), 5), Number.POSITIVE_INFINITY)
  t.ok(surelyWithin(parseLimit('100,10%'), 100))
  t.notOk(surelyWithin(parseLimit('100,10%'), 101), 'it takes the number of living records to tell')
  t.notOk(surelyWithin(parseLimit('10%'), 1))
})

t.test('I10: what a run may delete or change by itself has an edge, and it is where the limit says', async (t) => {
  for (const [weight, brakes, stops] of [
    [{ deletes: 100 }, {}, ''],
    [{ deletes: 101 }, {}, 'deletes'],
    [{ deletes: 500, living: 5_000 }, {}, ''],
    [{ deletes: 501, living: 5_000 }, {}, 'deletes'],
    [{ deletes: 9, living: 9 }, {}, ''],
    [{ deletes: 1 }, { maxDeletes: parseLimit('0') }, 'deletes'],
    [{ deletes: 1_000 }, { maxDeletes: null }, ''],
    [{ deletes: 50 }, { maxDeletes: parseLimit('5%') }, ''],
    [{ deletes: 51 }, { maxDeletes: parseLimit('5%') }, 'deletes'],
    [{ changes: 10_000, living: 12_000 }, {}, ''],
    [{ changes: 10_001, living: 12_000 }, {}, 'changes'],
    [{ changes: 50_000, living: 100_000 }, {}, ''],
    [{ changes: 50_001, living: 100_000 }, {}, 'changes'],
    [{ changes: 2 }, { maxChanges: parseLimit('1') }, 'changes'],
    [{ deletes: 300, changes: 2 }, { maxChanges: parseLimit('1') }, 'deletes changes'],
    [{ changes: 0, deletes: 0, living: 0 }, { maxChanges: parseLimit('0'), maxDeletes: parseLimit('0') }, ''],
  ] as const)
    t.equal(rules(weight, brakes), stops, JSON.stringify({ weight, brakes }))
})

t.test('I10: a side that is empty where the other holds many, and a canary that is gone, stop the run', async (t) => {
  for (const [weight, brakes, stops] of [
    [{ empty: true, deletes: 10 }, {}, 'empty'],
    [{ empty: true, deletes: 9 }, {}, ''],
    [{ empty: false, deletes: 10 }, {}, ''],
    [{ empty: true, held: 10 }, {}, 'empty'],
    [{ empty: true, held: 9 }, {}, ''],
    [{ empty: true, deletes: 0, held: 0, living: 5_000 }, {}, ''],
    [{ empty: true, deletes: 1_000 }, {}, 'empty deletes'],
    [{ empty: true, deletes: 1_000 }, { emptyGuard: false }, 'deletes'],
    [{ canary: 'missing' }, { canary: 'AT' }, 'canary'],
    [{ canary: 'deleted' }, { canary: 'AT' }, 'canary'],
    [{ canary: 'living' }, { canary: 'AT' }, ''],
    [{ canary: null }, { canary: 'AT' }, ''],
    [{ canary: 'missing' }, { canary: null }, ''],
  ] as const)
    t.equal(rules(weight, brakes), stops, JSON.stringify({ weight, brakes }))
})

t.test(
  'a pass lets through what was shown and what is allowed anyway, and only for the rules that were shown',
  async (t) => {
    const pass = { rules: ['deletes'], deletes: 500, changes: 0 } as const
    t.equal(rules({ deletes: 500 }, {}, pass), '')
    t.equal(rules({ deletes: 600 }, {}, pass), '')
    t.equal(rules({ deletes: 601 }, {}, pass), 'deletes')
    t.equal(rules({ deletes: 500, empty: true }, {}, pass), 'empty')
    t.equal(rules({ deletes: 500, empty: true }, {}, { ...pass, rules: ['deletes', 'empty'] }), '')
    t.equal(rules({ deletes: 500 }, {}, { ...pass, rules: ['empty'] }), 'deletes')
    t.equal(rules({ canary: 'deleted' }, { canary: 'AT' }, pass), 'canary')
  },
)

t.test('the reason has the numbers and names who would write where', async (t) => {
  const reason = (direction: BrakeDirection, weight: Partial<Weight>, brakes: Partial<Brakes> = {}) =>
    judgeBrakes({ ...CALM, ...weight }, { ...USUAL, ...brakes }, place(direction))[0]?.reason ?? ''
  t.equal(
    reason('pull', { deletes: 5_120, living: 10_000 }),
    `pulling "city" from hub would delete 5,120 of 10,000 records (51.2 %) here; at most 100 or 10 %, whichever is more, may be deleted without a person's word`,
  )
  t.match(
    reason('push', { deletes: 512 }),
    /^pushing "city" to hub would delete 512 of 1,000 records \(51.2 %\) at hub/,
  )
  t.match(reason('receive', { deletes: 512 }), /^what hub pushes of "city" would delete 512 .* here/)
  t.match(reason('pull', { deletes: 20 }, { maxDeletes: parseLimit('1%') }), /at most 1 % \(10\)/)
  t.match(reason('pull', { empty: true, deletes: 20 }), /has no record at hub any more, and 20 would be deleted here/)
  t.match(reason('push', { empty: true, deletes: 20 }), /has no record here any more, and 20 would be deleted at hub/)
  t.match(reason('pull', { empty: true, held: 30 }), /30 that came from there are here/)
  t.match(reason('pull', { canary: 'deleted' }, { canary: 'AT' }), /canary record "AT" of "city" was deleted at hub/)
})

t.test('more of anything never lets a run pass that less had stopped', async (t) => {
  const weight = fc.record({
    deletes: fc.nat(3_000),
    changes: fc.nat(30_000),
    living: fc.nat(40_000),
    empty: fc.boolean(),
    held: fc.nat(50),
    canary: fc.constantFrom(null, 'living', 'missing', 'deleted') as fc.Arbitrary<Weight['canary']>,
  })
  const limit = fc.constantFrom('none', '0', '100', '5%', '100,10%').map(parseLimit)
  await holds(
    t,
    fc.property(weight, limit, limit, fc.nat(500), fc.nat(5_000), (less, maxDeletes, maxChanges, deletes, changes) => {
      const brakes = { ...USUAL, maxDeletes, maxChanges, canary: 'AT' }
      const more = { ...less, deletes: less.deletes + deletes, changes: less.changes + changes }
      const stopped = judgeBrakes(less, brakes, place('pull')).map(({ rule }) => rule)
      const then = judgeBrakes(more, brakes, place('pull')).map(({ rule }) => rule)
      return stopped.every((rule) => then.includes(rule))
    }),
  )
})

t.test('a former mark that comes back is told from one that was on its way', async (t) => {
  t.equal(judgeMark(null), 'new')
  t.equal(judgeMark({ current: true, supersededMsAgo: null }), 'same')
  t.equal(judgeMark({ current: false, supersededMsAgo: MARK_GRACE_MS }), 'late')
  t.equal(judgeMark({ current: false, supersededMsAgo: MARK_GRACE_MS + 1 }), 'former')
})
