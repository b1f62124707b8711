import fc from 'fast-check'
import t from 'tap'
import { judgeTotals, NOTHING_WAITS, sameTotal, type Total, type Waiting } from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const total = (records: number, sum: string): Total => ({ records, sum })
const judged = (
  here: Total,
  there: Total,
  more: { here?: Partial<Waiting>; there?: Partial<Waiting>; mode?: 'pull' | 'push' | 'both' } = {},
) =>
  judgeTotals({
    ...{ here, there, mode: more.mode ?? 'both' },
    waitingHere: { ...NOTHING_WAITS, ...more.here },
    waitingThere: { ...NOTHING_WAITS, ...more.there },
  })

t.test('equal totals are equal whatever waits, and however they are spelled', async (t) => {
  t.same(judged(total(3, '12'), total(3, '012'), { here: { changes: 5 } }), { verdict: 'equal', reason: null })
  t.notOk(sameTotal(total(3, '12'), total(4, '12')), 'the count decides as well')
  t.notOk(sameTotal(total(3, '12'), total(3, '-12')))
})

t.test('a difference is explained by what waits on either side, and said where nothing does', async (t) => {
  const [a, b] = [total(10, '1'), total(7, '2')]
  t.same(judged(a, b), { verdict: 'different', reason: '10 records here, 7 at the peer' })
  t.same(judged(a, total(10, '2')), { verdict: 'different', reason: 'other versions of some records' })
  t.same(judged(a, b, { here: { changes: 1 }, there: { quarantine: 2, conflicts: 1 } }), {
    verdict: 'waiting',
    reason: '1 change waits here; 2 records in quarantine at the peer; 1 conflict open at the peer',
  })
  t.same(judged(a, b, { here: { discarded: 1 }, there: { discarded: 2, quarantine: 1 } }), {
    verdict: 'waiting',
    reason: '1 record given up here; 1 record in quarantine at the peer; 2 records given up at the peer',
  })
  t.match(judged(a, b, { there: { changes: 1_000 } }), { reason: '1,000 or more changes wait at the peer' })
})

t.test('a link in one direction is not called different, nor equal', async (t) => {
  t.match(judged(total(1, '1'), total(2, '2'), { mode: 'push' }), { verdict: 'unknown', reason: /only pushes/ })
  t.match(judged(total(1, '1'), total(2, '2'), { mode: 'pull' }), { verdict: 'unknown', reason: /only pulls/ })
})

t.test('I9: sums of differences never cancel where XOR would', async (t) => {
  // Hashes of records that one side lacks, each twice: their XOR is nothing, their sum and count are not.
  const hash = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).filter((each) => each !== 0n)
  holds(
    t,
    fc.property(fc.array(hash, { maxLength: 20 }), hash, (common, extra) => {
      const sum = (list: readonly bigint[]) => total(list.length, String(list.reduce((a, b) => a + b, 0n)))
      return !sameTotal(sum(common), sum([...common, extra, extra]))
    }),
    500,
  )
})
