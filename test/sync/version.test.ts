import fc from 'fast-check'
import t from 'tap'
import type { Order, Version } from '../../src/sync/index.ts'
import {
  compareVersions,
  dotOrder,
  isVersionAhead,
  joinSeen,
  makeVersion,
  mintVersion,
  seenOf,
  seenOfSite,
  siteOf,
  unionSeen,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const v = (origin: string, clock: number, seen?: Record<string, number>): Version =>
  seen === undefined ? { origin, clock } : { origin, clock, seen }

const origin = fc.constantFrom('a', 'b', 'c', 'd')
const clock = fc.integer({ min: 1, max: 6 })
const version: fc.Arbitrary<Version> = fc.tuple(origin, clock, fc.dictionary(origin, clock)).map(([name, at, seen]) => {
  const others = Object.entries(seen).filter(([other]) => other !== name)
  return makeVersion({ origin: name, clock: at }, Object.fromEntries(others))
})

const isWithin = (part: ReadonlySet<string>, whole: ReadonlySet<string>) => [...part].every((each) => whole.has(each))

t.test('the order of two versions is read from one look-up each, and mirrored at the other site', (t) => {
  const mirror: Record<Order, Order> = { same: 'same', newer: 'stale', stale: 'newer', concurrent: 'concurrent' }
  const cases: readonly [string, Version, Version, Order][] = [
    ['the same dot', v('a', 5), v('a', 5), 'same'],
    ['the same dot that has seen more', v('a', 5, { b: 2 }), v('a', 5), 'same'],
    ['a later write of one site', v('a', 6), v('a', 5), 'newer'],
    ['a write that has seen exactly the other', v('a', 5, { b: 3 }), v('b', 3), 'newer'],
    ['a write that has seen a later one of that site', v('a', 5, { b: 4 }), v('b', 3), 'newer'],
    ['a write that has seen only an earlier one of that site', v('a', 5, { b: 2 }), v('b', 3), 'concurrent'],
    ['writes that know nothing of each other', v('a', 5), v('b', 3), 'concurrent'],
    ['a lower clock that has seen the higher', v('a', 1, { b: 9 }), v('b', 9), 'newer'],
    ['one clock at two sites', v('a', 5), v('b', 5), 'concurrent'],
    ['two settlements that each have seen the other', v('a', 5, { b: 3 }), v('b', 3, { a: 5 }), 'concurrent'],
    ['a restored site, which is another origin', v('a/log2', 5, { a: 4 }), v('a', 4), 'newer'],
  ]
  for (const [what, incoming, local, expected] of cases) {
    t.equal(compareVersions(incoming, local), expected, what)
    t.equal(compareVersions(local, incoming), mirror[expected], `${what}, mirrored`)
  }
  t.end()
})

t.test('the order of any two versions is mirrored at the other site', (t) => {
  const mirror: Record<Order, Order> = { same: 'same', newer: 'stale', stale: 'newer', concurrent: 'concurrent' }
  holds(
    t,
    fc.property(version, version, (a, b) => compareVersions(a, b) === mirror[compareVersions(b, a)]),
  )
  t.end()
})

t.test('the order by dots is the order of what really led to each write', (t) => {
  type Copy = { readonly version: Version; readonly history: ReadonlySet<string> }
  const sites = ['a', 'b', 'c'] as const
  const move = fc.record({ at: fc.constantFrom(...sites), from: fc.option(fc.constantFrom(...sites)), now: fc.nat(20) })
  holds(
    t,
    fc.property(fc.array(move, { maxLength: 14 }), (moves) => {
      const here = new Map<string, Copy>()
      const all: Copy[] = []
      for (const { at, from, now } of moves) {
        const local = here.get(at)
        if (from === null) {
          const seen = local === undefined ? {} : unionSeen(local.version, local.version)
          const written = mintVersion({ origin: at, seen, nowMicros: now + 1, aheadMaxMicros: 1000 })
          const copy = { version: written, history: new Set([...(local?.history ?? []), `${at}${written.clock}`]) }
          here.set(at, copy)
          all.push(copy)
        } else {
          const incoming = here.get(from)
          if (incoming === undefined) continue
          if (local === undefined || compareVersions(incoming.version, local.version) === 'newer')
            here.set(at, incoming)
        }
      }
      const truth = (a: Copy, b: Copy): Order => {
        if (a === b) return 'same'
        const [after, before] = [isWithin(b.history, a.history), isWithin(a.history, b.history)]
        return after ? 'newer' : before ? 'stale' : 'concurrent'
      }
      return all.every((a) => all.every((b) => compareVersions(a.version, b.version) === truth(a, b)))
    }),
    1000,
  )
  t.end()
})

t.test('what a version has seen includes its own dot and nothing by inheritance', (t) => {
  const given = v('a', 5, { b: 3 })
  t.equal(seenOf(given, 'a'), 5)
  t.equal(seenOf(given, 'b'), 3)
  t.equal(seenOf(given, 'c'), 0)
  t.equal(seenOf(given, '__proto__'), 0)
  t.equal(seenOf(given, 'constructor'), 0)
  t.equal(seenOf(v('a', 5, { a: 9 }), 'a'), 5, 'the dot speaks for its own origin')
  t.end()
})

t.test('dots have one total order: clock first, then origin', (t) => {
  t.ok(dotOrder(v('z', 1), v('a', 2)) < 0)
  t.ok(dotOrder(v('b', 2), v('a', 2)) > 0)
  t.equal(dotOrder(v('a', 2, { b: 1 }), v('a', 2)), 0)
  holds(
    t,
    fc.property(version, version, (a, b) => Math.sign(dotOrder(a, b)) + Math.sign(dotOrder(b, a)) === 0),
  )
  holds(
    t,
    fc.property(version, version, version, (a, b, c) => {
      const [x, y, z] = [a, b, c].sort(dotOrder)
      return x !== undefined && y !== undefined && z !== undefined && dotOrder(x, y) <= 0 && dotOrder(x, z) <= 0
    }),
  )
  t.end()
})

t.test('the union has seen everything that either version has seen, and no more', (t) => {
  t.same(unionSeen(v('b', 3, { a: 1 }), v('a', 5, { c: 2 })), { a: 5, b: 3, c: 2 })
  t.same(
    Object.keys(unionSeen(v('b', 3), v('a', 5))),
    ['a', 'b'],
    'in order of origin, so both sites write the same text',
  )
  const hostile = unionSeen(v('__proto__', 3), v('a', 5))
  t.equal(Object.getPrototypeOf(hostile), Object.prototype)
  t.equal(Object.getOwnPropertyDescriptor(hostile, '__proto__')?.value, 3)
  holds(
    t,
    fc.property(version, version, origin, (a, b, name) => {
      return (unionSeen(a, b)[name] ?? 0) === Math.max(seenOf(a, name), seenOf(b, name))
    }),
  )
  t.end()
})

t.test('a joined version has seen both, keeps its dot and never lists its own origin', (t) => {
  t.same(joinSeen(v('a', 5, { c: 1 }), v('b', 3, { c: 2 }), v('a', 5)), { b: 3, c: 2 })
  t.same(joinSeen(v('a', 5), v('b', 3, { a: 9 }), v('a', 5)), { b: 3 })
  holds(
    t,
    fc.property(version, version, (a, b) => {
      const joined = makeVersion(a, joinSeen(a, b, a))
      const again = makeVersion(a, joinSeen(joined, b, a))
      return (
        compareVersions(joined, a) === 'same' &&
        seenOf(joined, b.origin) >= (a.origin === b.origin ? 0 : b.clock) &&
        !Object.hasOwn(joined.seen ?? {}, a.origin) &&
        JSON.stringify(joined) === JSON.stringify(again) &&
        JSON.stringify(joinSeen(a, b, a)) === JSON.stringify(joinSeen(b, a, a))
      )
    }),
  )
  t.end()
})

t.test('a version that has seen nothing but itself has no seen', (t) => {
  t.strictSame(makeVersion(v('a', 5, { b: 1 }), {}), { origin: 'a', clock: 5 })
  t.strictSame(makeVersion(v('a', 5), { b: 1 }), { origin: 'a', clock: 5, seen: { b: 1 } })
  t.end()
})

t.test('a new write supersedes everything that it has seen and orders after it', (t) => {
  t.strictSame(mintVersion({ origin: 'a', seen: {}, nowMicros: 7, aheadMaxMicros: 10 }), { origin: 'a', clock: 7 })
  const written = mintVersion({ origin: 'a', seen: { a: 8, b: 9 }, nowMicros: 7, aheadMaxMicros: 10 })
  t.strictSame(written, { origin: 'a', clock: 10, seen: { b: 9 } })
  const minted = fc.record({ origin, nowMicros: clock, aheadMaxMicros: fc.constant(100) })
  holds(
    t,
    fc.property(version, version, minted, (a, b, how) => {
      const next = mintVersion({ ...how, seen: unionSeen(a, b) })
      return [a, b].every((each) => compareVersions(next, each) === 'newer' && dotOrder(next, each) > 0)
    }),
  )
  t.end()
})

t.test(
  'a new write comes after the own last one even when the wall clock is set back further than others may push',
  (t) => {
    const seen = { a: 5000, b: 9000 }
    t.strictSame(mintVersion({ origin: 'a', seen, nowMicros: 100, aheadMaxMicros: 10 }), v('a', 5001, { b: 9000 }))
    t.end()
  },
)

t.test('a restored site is still the same site', (t) => {
  t.equal(siteOf('7e1f'), '7e1f')
  t.equal(siteOf('7e1f/log2'), '7e1f')
  t.equal(seenOfSite(v('m', 5, { 'm/log2': 9, mm: 20 }), 'm'), 9)
  t.equal(seenOfSite(v('m/log2', 5, { m: 3 }), 'm'), 5)
  t.equal(seenOfSite(v('a', 5), 'm'), 0)
  t.end()
})

t.test('a version is ahead when its clock or a claim about what it has seen is', (t) => {
  t.equal(isVersionAhead(v('a', 110, { b: 110 }), 100, 10), false)
  t.equal(isVersionAhead(v('a', 111), 100, 10), true)
  t.equal(isVersionAhead(v('a', 50, { b: 111 }), 100, 10), true)
  t.end()
})
