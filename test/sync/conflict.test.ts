import fc from 'fast-check'
import t from 'tap'
import type { Contender, Decision, Policy, PolicyName, Version } from '../../src/sync/index.ts'
import {
  compareVersions,
  decide,
  makeVersion,
  mintVersion,
  POLICIES,
  sameJson,
  unionSeen,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const v = (origin: string, clock: number, seen?: Record<string, number>): Version =>
  seen === undefined ? { origin, clock } : { origin, clock, seen }
const put = (version: Version, content: string): Contender => ({ version, deleted: false, content: { name: content } })
const gone = (version: Version): Contender => ({ version, deleted: true, content: null })
const policy = (name: PolicyName, here = 'a', master = 'm'): Policy => ({ name, here, master })

const taken = (version: Version, equal = false) => ({ kind: 'take', version, equal })
const kept = (version: Version, equal = false) => ({ kind: 'keep', version, equal })

const origin = fc.constantFrom('a', 'b', 'm', 'm/log2')
const clock = fc.integer({ min: 1, max: 5 })
const contender: fc.Arbitrary<Contender> = fc
  .record({
    origin,
    clock,
    seen: fc.dictionary(origin, clock),
    deleted: fc.boolean(),
    content: fc.constantFrom('x', 'y'),
  })
  .map(({ origin, clock, seen, deleted, content }) => {
    const others = Object.fromEntries(Object.entries(seen).filter(([other]) => other !== origin))
    const version = makeVersion({ origin, clock }, others)
    return deleted ? gone(version) : put(version, content)
  })
/** Policies that both sites compute alike. */
const alike = fc.constantFrom(policy('newer'), policy('master'), policy('master', 'a', 'nobody'))

/** The record after a decision. A rewrite mints with a time far below the clocks, so only logic moves them. */
function after(local: Contender, incoming: Contender, decision: Decision): Contender {
  switch (decision.kind) {
    case 'take':
      return { ...incoming, version: decision.version }
    case 'keep':
      return { ...local, version: decision.version }
    case 'rewrite': {
      const { origin, seen, content } = decision
      const version = mintVersion({ origin, seen, nowMicros: 1, aheadMaxMicros: 1_000_000 })
      return { ...(content === 'local' ? local : incoming), version }
    }
    case 'merge': {
      const { origin, seen, data } = decision
      const version = mintVersion({ origin, seen, nowMicros: 1, aheadMaxMicros: 1_000_000 })
      return { ...local, content: data, version }
    }
    case 'ask':
      return local
  }
}

t.test('newer: the greater clock wins on both sides, between equal clocks the greater origin', (t) => {
  const [a5, b3, b5] = [put(v('a', 5), 'A'), put(v('b', 3), 'B'), put(v('b', 5), 'B')]
  t.strictSame(decide(a5, b3, policy('newer')), kept(v('a', 5, { b: 3 })))
  t.strictSame(decide(b3, a5, policy('newer', 'b')), taken(v('a', 5, { b: 3 })))
  t.strictSame(decide(a5, b5, policy('newer')), taken(v('b', 5, { a: 5 })))
  t.strictSame(decide(b5, a5, policy('newer', 'b')), kept(v('b', 5, { a: 5 })))
  t.end()
})

t.test('master: its version wins on both sides whatever the clocks say', (t) => {
  const [master, other] = [put(v('m', 1), 'M'), put(v('b', 9), 'B')]
  t.strictSame(decide(master, other, policy('master')), kept(v('m', 1, { b: 9 })))
  t.strictSame(decide(other, master, policy('master')), taken(v('m', 1, { b: 9 })))
  t.strictSame(decide(other, put(v('m/log2', 1), 'M'), policy('master')), taken(v('m/log2', 1, { b: 9 })), 'restored')
  t.end()
})

t.test('master: between two versions that know the same of the master, the newer wins', (t) => {
  const [a5, b3] = [put(v('a', 5), 'A'), put(v('b', 3), 'B')]
  t.strictSame(decide(a5, b3, policy('master')), kept(v('a', 5, { b: 3 })), 'neither knows it')
  t.strictSame(decide(b3, a5, policy('master')), taken(v('a', 5, { b: 3 })), 'neither knows it, mirrored')
  const [old, restored] = [put(v('m', 3), 'A'), put(v('m/log2', 5), 'B')]
  t.strictSame(decide(old, restored, policy('master')), taken(v('m/log2', 5, { m: 3 })), 'both are the master')
  const [a6, b4] = [put(v('a', 6, { m: 2 }), 'A'), put(v('b', 4, { m: 2 }), 'B')]
  t.strictSame(
    decide(b4, a6, policy('master')),
    taken(v('a', 6, { b: 4, m: 2 })),
    'both are built on the same version of it',
  )
  t.end()
})

t.test('master: an edit of the version of the master stands for it', (t) => {
  const edit = put(v('a', 3, { m: 2 }), 'A')
  const ignorant = put(v('b', 9), 'B')
  t.strictSame(decide(ignorant, edit, policy('master')), taken(v('a', 3, { b: 9, m: 2 })))
  t.strictSame(decide(edit, ignorant, policy('master')), kept(v('a', 3, { b: 9, m: 2 })))
  t.end()
})

t.test('master: without knowing who is the master a person is asked', (t) => {
  const nobody: Policy[] = [
    { name: 'master', here: 'a' },
    { name: 'master', here: 'a', master: null },
  ]
  for (const each of nobody) t.strictSame(decide(put(v('a', 5), 'A'), put(v('b', 3), 'B'), each), { kind: 'ask' })
  t.end()
})

t.test('mine and theirs are new writes of this site that have seen both', (t) => {
  const [local, incoming] = [put(v('a', 5, { c: 1 }), 'A'), put(v('b', 3, { c: 2 }), 'B')]
  const seen = { a: 5, b: 3, c: 2 }
  t.strictSame(decide(local, incoming, policy('mine')), { kind: 'rewrite', content: 'local', origin: 'a', seen })
  t.strictSame(decide(local, incoming, policy('theirs')), { kind: 'rewrite', content: 'incoming', origin: 'a', seen })
  t.end()
})

t.test('ask leaves the record alone', (t) => {
  t.strictSame(decide(put(v('a', 5), 'A'), put(v('b', 3), 'B'), policy('ask')), { kind: 'ask' })
  t.end()
})

t.test('a delete against an edit is decided like any other conflict', (t) => {
  const [edit, remove] = [put(v('a', 5), 'A'), gone(v('b', 9))]
  t.strictSame(decide(edit, remove, policy('newer')), taken(v('b', 9, { a: 5 })))
  t.strictSame(decide(remove, edit, policy('newer')), kept(v('b', 9, { a: 5 })))
  t.match(decide(edit, remove, policy('mine')), { kind: 'rewrite', content: 'local' })
  t.match(decide(edit, remove, policy('theirs')), { kind: 'rewrite', content: 'incoming' })
  t.match(
    decide({ ...edit, content: null }, remove, policy('ask')),
    { kind: 'ask' },
    'a record of nothing is not a deleted one',
  )
  t.end()
})

t.test('concurrent versions with equal content are no conflict under any policy', (t) => {
  for (const name of POLICIES) {
    t.strictSame(decide(put(v('a', 5), 'X'), put(v('b', 3), 'X'), policy(name)), kept(v('a', 5, { b: 3 }), true), name)
    t.strictSame(decide(put(v('b', 3), 'X'), put(v('a', 5), 'X'), policy(name)), taken(v('a', 5, { b: 3 }), true), name)
    t.strictSame(
      decide(gone(v('a', 5)), gone(v('b', 3)), policy(name)),
      kept(v('a', 5, { b: 3 }), true),
      `${name}, both deleted`,
    )
  }
  const [master, other] = [put(v('m', 1), 'X'), put(v('b', 9), 'X')]
  t.strictSame(
    decide(other, master, policy('master')),
    taken(v('m', 1, { b: 9 }), true),
    'under master its dot stands for both',
  )
  t.end()
})

t.test('two settlements that have each seen the other are a conflict again, and the policy settles it', (t) => {
  const [one, two] = [put(v('a', 5, { b: 3 }), 'A'), put(v('b', 3, { a: 5 }), 'B')]
  t.strictSame(decide(two, one, policy('newer')), taken(v('a', 5, { b: 3 })))
  t.strictSame(decide(one, two, policy('newer')), kept(v('a', 5, { b: 3 })))
  t.strictSame(decide(one, two, policy('ask')), { kind: 'ask' })
  t.end()
})

t.test('what is not concurrent is never decided by a policy', (t) => {
  const cases = fc.tuple(contender, contender, fc.constantFrom(...POLICIES)).filter(([local, incoming]) => {
    return compareVersions(incoming.version, local.version) !== 'concurrent'
  })
  holds(
    t,
    fc.property(cases, ([local, incoming, name]) => {
      const newer = compareVersions(incoming.version, local.version) === 'newer'
      const decision = decide(local, incoming, policy(name))
      if (decision.kind !== (newer ? 'take' : 'keep')) return false
      return compareVersions(decision.version, newer ? incoming.version : local.version) === 'same'
    }),
  )
  t.end()
})

t.test('I7: both sites decide one pair alike: same content, same dot, same seen', (t) => {
  holds(
    t,
    fc.property(contender, contender, alike, (a, b, how) => {
      // One dot names one content, wherever it is found.
      fc.pre(compareVersions(a.version, b.version) !== 'same')
      const [here, there] = [after(a, b, decide(a, b, how)), after(b, a, decide(b, a, how))]
      return JSON.stringify(here) === JSON.stringify(there)
    }),
    2000,
  )
  t.end()
})

t.test('I2: deciding again with what was decided already changes nothing', (t) => {
  holds(
    t,
    fc.property(contender, contender, alike, (a, b, how) => {
      fc.pre(compareVersions(a.version, b.version) !== 'same')
      const once = after(a, b, decide(a, b, how))
      return [a, b, once].every(
        (each) => JSON.stringify(after(once, each, decide(once, each, how))) === JSON.stringify(once),
      )
    }),
    2000,
  )
  t.end()
})

t.test('a new write by mine or theirs supersedes both versions', (t) => {
  holds(
    t,
    fc.property(contender, contender, fc.constantFrom('mine', 'theirs' as const), (a, b, name) => {
      const decision = decide(a, b, policy(name, 'here'))
      fc.pre(decision.kind === 'rewrite')
      const { version } = after(a, b, decision)
      return [a, b].every((each) => compareVersions(version, each.version) === 'newer')
    }),
  )
  t.end()
})

t.test('contents are equal whatever the order of their members', (t) => {
  t.ok(sameJson({ a: 1, b: [null, { c: 'x', d: true }] }, { b: [null, { d: true, c: 'x' }], a: 1 }))
  const different: readonly [unknown, unknown][] = [
    [{ a: 1 }, { a: 1, b: null }],
    [{ a: null }, { b: null }],
    [{ a: '1' }, { a: 1 }],
    [
      [1, 2],
      [2, 1],
    ],
    [[], {}],
    [null, {}],
    ['x', 'y'],
  ]
  for (const [a, b] of different) {
    t.notOk(sameJson(a as never, b as never), `${JSON.stringify(a)} ${JSON.stringify(b)}`)
    t.notOk(sameJson(b as never, a as never), `${JSON.stringify(b)} ${JSON.stringify(a)}`)
  }
  holds(
    t,
    fc.property(fc.jsonValue(), (value) => sameJson(value as never, JSON.parse(JSON.stringify(value)))),
  )
  t.end()
})

/** One record at several sites. `history` is the truth that versions only sum up: every write that led to this one. */
type Copy = Contender & { readonly history: ReadonlySet<string> }

class Sites {
  readonly copies: (Copy | null)[]
  readonly writes: Copy[] = []
  readonly #policies: readonly Policy[]

  constructor(policies: readonly Policy[]) {
    this.#policies = policies
    this.copies = policies.map(() => null)
  }

  write(at: number, now: number, content: string | null): void {
    const local = this.copies[at] ?? null
    const seen = local === null ? {} : unionSeen(local.version, local.version)
    const version = mintVersion({ origin: this.#here(at).here, seen, nowMicros: 1000 + now, aheadMaxMicros: 1000 })
    const history = new Set([...(local?.history ?? []), name(version)])
    const copy = { ...(content === null ? gone(version) : put(version, content)), history }
    this.copies[at] = copy
    this.writes.push(copy)
  }

  /** What the store does: known and stale versions are left alone, all others are decided. True when something changed. */
  deliver(incoming: Copy | null, at: number, how: Policy = this.#here(at)): boolean {
    const local = this.copies[at] ?? null
    if (incoming === null) return false
    if (local === null) {
      this.copies[at] = incoming
      return true
    }
    const order = compareVersions(incoming.version, local.version)
    if (order === 'same' || order === 'stale') return false
    const next = after(local, incoming, decide(local, incoming, how))
    this.copies[at] = { ...next, history: new Set([...local.history, ...incoming.history, name(next.version)]) }
    return JSON.stringify(next.version) !== JSON.stringify(local.version)
  }

  /** Each site pulls from the one before it, in a ring of one direction, until nothing changes. False when that never comes. */
  settle(): boolean {
    for (let round = 0; round < 10 * this.copies.length; round++) {
      const before = [...this.copies]
      const changed = before.map((copy, at) => this.deliver(copy, (at + 1) % before.length))
      if (!changed.includes(true)) return true
    }
    return false
  }

  /** All hold the same content under the same dot. */
  alike(): boolean {
    const [first = null] = this.copies
    return this.copies.every((copy) => {
      if (copy === null || first === null) return copy === first
      return name(copy.version) === name(first.version) && sameContent(copy, first)
    })
  }

  /** All hold the same content under the same dot, and it is not one that a later write had replaced. */
  agree(): boolean {
    const [first] = this.copies
    if (first === null || first === undefined) return this.copies.every((copy) => copy === null)
    const alike = this.copies.every((copy) => {
      return copy !== null && name(copy.version) === name(first.version) && sameContent(copy, first)
    })
    const dot = name(first.version)
    return alike && this.writes.every((write) => name(write.version) === dot || !write.history.has(dot))
  }

  #here(at: number): Policy {
    return this.#policies[at] ?? policy('ask')
  }
}

const name = (version: Version) => `${version.origin}@${version.clock}`
const sameContent = (a: Contender, b: Contender) =>
  a.deleted === b.deleted && (a.deleted || sameJson(a.content, b.content))

const CONTENTS = ['x', 'y', null] as const
const content = fc.constantFrom(...CONTENTS)
type Move =
  | { readonly kind: 'write'; readonly at: number; readonly now: number; readonly content: string | null }
  | { readonly kind: 'send' | 'delay'; readonly at: number; readonly from: number }
const move: fc.Arbitrary<Move> = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), at: fc.nat(4), now: fc.nat(30), content }),
  fc.record({ kind: fc.constant('send' as const), at: fc.nat(4), from: fc.nat(4) }),
  fc.record({ kind: fc.constant('delay' as const), at: fc.nat(4), from: fc.nat(4) }),
)

/** Writes, deliveries and messages that arrive long after they were sent, then rounds until quiet. */
function play(policies: readonly Policy[], moves: readonly Move[]): boolean {
  const sites = new Sites(policies)
  const late: { readonly copy: Copy | null; readonly at: number }[] = []
  for (const each of moves) {
    const at = each.at % policies.length
    if (each.kind === 'write') sites.write(at, each.now, each.content)
    else if (each.kind === 'send') sites.deliver(sites.copies[each.from % policies.length] ?? null, at)
    else late.push({ copy: sites.copies[each.from % policies.length] ?? null, at })
  }
  for (const { copy, at } of late.reverse()) sites.deliver(copy, at)
  return sites.settle() && sites.agree()
}

for (const rule of ['newer', 'master'] as const) {
  t.test(`I3: sites under ${rule} converge on one write that none replaced, whatever arrives when`, (t) => {
    const origins = ['a', 'b', 'c', 'd', 'e']
    const moves = fc.array(move, { minLength: 3, maxLength: 24 })
    holds(
      t,
      fc.property(fc.integer({ min: 2, max: 5 }), fc.constantFrom(...origins), moves, (count, master, given) => {
        return play(
          origins.slice(0, count).map((here) => policy(rule, here, master)),
          given,
        )
      }),
      4000,
    )
    t.end()
  })
}

t.test('I3: three to five concurrent versions meet in any order at any site with one outcome', (t) => {
  const versions = fc.uniqueArray(fc.tuple(fc.constantFrom('a', 'b', 'c', 'd', 'e'), clock, content), {
    selector: ([origin]) => origin,
    minLength: 3,
    maxLength: 5,
  })
  const orders = versions.chain((list) => {
    const copies = list.map(([from, at, what]) => (what === null ? gone(v(from, at)) : put(v(from, at), what)))
    const order = fc.shuffledSubarray(copies, { minLength: copies.length })
    return fc.tuple(fc.constantFrom(policy('newer'), policy('master', 'a', 'c')), order, order)
  })
  holds(
    t,
    fc.property(orders, ([how, one, two]) => {
      const meet = (list: readonly Contender[]) =>
        list.reduce((local, incoming) => after(local, incoming, decide(local, incoming, how)))
      return JSON.stringify(meet(one)) === JSON.stringify(meet(two))
    }),
  )
  t.end()
})

t.test('a pair of mine and theirs ends with the content of mine, whoever runs when', (t) => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), at: fc.nat(1), now: fc.nat(30), content }),
    fc.record({ kind: fc.constantFrom('pull' as const, 'both' as const), at: fc.nat(1) }),
  )
  holds(
    t,
    fc.property(fc.array(step, { maxLength: 16 }), fc.boolean(), (steps, together) => {
      const sites = new Sites([policy('mine', 'a'), policy('theirs', 'b')])
      const run = (at: number) => {
        sites.deliver(sites.copies[1 - at] ?? null, at)
        sites.deliver(sites.copies[at] ?? null, 1 - at)
      }
      const cross = () => {
        const [a = null, b = null] = sites.copies
        sites.deliver(a, 1)
        sites.deliver(b, 0)
      }
      for (const each of steps) {
        if (each.kind === 'write') sites.write(each.at, each.now, each.content)
        else if (each.kind === 'pull') sites.deliver(sites.copies[1 - each.at] ?? null, each.at)
        else run(each.at)
      }
      const [mine = null, theirs = null] = sites.copies
      const clash = mine !== null && theirs !== null && compareVersions(theirs.version, mine.version) === 'concurrent'
      for (let round = 0; round < 3; round++) together ? cross() : run(round % 2)
      const [one = null, two = null] = sites.copies
      if (one === null || two === null) return one === two
      return name(one.version) === name(two.version) && sameContent(one, two) && (!clash || sameContent(one, mine))
    }),
    2000,
  )
  t.end()
})

/** A number generator that gives the same histories every time: a share of failures is asserted, not a law. */
function chance(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

t.test('I3: links with different policies that exchange both ways end alike', (t) => {
  const random = chance(7)
  const names = ['a', 'b', 'c', 'd']
  for (const shape of ['chain', 'ring'] as const) {
    let apart = 0
    for (let history = 0; history < 1000; history++) {
      const count = 3 + random(2)
      const sites = new Sites(names.slice(0, count).map((here) => policy('newer', here)))
      const links = Array.from({ length: count - (shape === 'chain' ? 1 : 0) }, (_, one) => ({
        ends: [one, (one + 1) % count] as const,
        how: random(2) === 0 ? policy('newer') : policy('master', 'a', names[random(count)]),
      }))
      const exchange = ({ ends: [one, two], how }: (typeof links)[number]) => {
        const there = sites.deliver(sites.copies[one] ?? null, two, { ...how, here: names[two] as string })
        return sites.deliver(sites.copies[two] ?? null, one, { ...how, here: names[one] as string }) || there
      }
      for (let step = 0; step < 4 + random(20); step++) {
        if (random(2) === 0) sites.write(random(count), random(30), random(9) === 0 ? null : `${step}`)
        else exchange(links[random(links.length)] as (typeof links)[number])
      }
      let rounds = 0
      while (links.map(exchange).includes(true) && rounds < 60) rounds++
      if (rounds === 60 || !sites.alike()) apart++
    }
    t.equal(apart, 0, shape)
  }
  t.end()
})
