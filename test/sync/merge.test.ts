import fc from 'fast-check'
import t from 'tap'
import type { Contender, FieldMark, Json, Policy, Version } from '../../src/sync/index.ts'
import {
  checkFieldKinds,
  checkFieldRules,
  compareVersions,
  decide,
  dotOrder,
  fieldsOf,
  joinSeen,
  markOf,
  mintVersion,
  sameJson,
  unionSeen,
} from '../../src/sync/index.ts'
import { holds } from './holds.ts'

type Row = Readonly<Record<string, Json>>

const RULES = {
  price: 'greatest',
  low: 'least',
  stock: 'sum',
  tags: 'union',
  owner: 'site:00000000-0000-4000-8000-00000000000b',
}
const B = '00000000-0000-4000-8000-00000000000b'
const NUMBERS = new Set(['price', 'low', 'stock'])
const merging = (here: string, rules: Record<string, string> = RULES): Policy => ({
  name: 'merge',
  here,
  merge: { rules, numbers: NUMBERS },
})
const START: Row = { name: 'n', note: 'o', price: 10, low: 10, stock: 10, tags: ['t'], owner: 'x' }

const put = (version: Version, content: Row): Contender => ({ version, deleted: false, content })

/** What the trigger of the store does when an application changes fields of a row. */
function edit(
  local: Contender,
  here: string,
  now: number,
  change: Row,
  counted: readonly string[] = ['stock'],
): Contender {
  const before = local.content as Row
  const changed = Object.keys(change).filter((column) => !sameJson(change[column] as Json, before[column] as Json))
  if (changed.length === 0) return local
  const seen = unionSeen(local.version, local.version)
  const version = mintVersion({ origin: here, seen, nowMicros: 1000 + now, aheadMaxMicros: 1000 })
  const marks = Object.keys(before).map((column): [string, FieldMark | 'own'] => {
    const mark = markOf(local.version, column)
    if (!changed.includes(column)) return [column, mark]
    if (!counted.includes(column)) return [column, 'own']
    const base = mark.base ?? (mark.values === undefined && Object.keys(mark.dots).length === 1 ? mark.dots : undefined)
    if (base === undefined) return [column, 'own']
    const delta = Number(change[column]) - Number(before[column])
    const sums = { ...mark.sums, [here]: String(Number(mark.sums?.[here] ?? 0) + delta) }
    return [column, { base, sums, dots: { ...(mark.base === undefined ? {} : mark.dots), [here]: version.clock } }]
  })
  const fields = fieldsOf(Object.fromEntries(marks), version)
  return put(fields === undefined ? version : { ...version, fields }, { ...before, ...change })
}

/** The record after a decision, as the store writes it. */
function settle(local: Contender, incoming: Contender, policy: Policy): Contender {
  const order = compareVersions(incoming.version, local.version)
  if (order === 'same' || order === 'stale') return local
  const decision = decide(local, incoming, policy)
  switch (decision.kind) {
    case 'keep':
      return { ...local, version: decision.version }
    case 'take':
      return { ...incoming, version: decision.version }
    case 'rewrite':
    case 'merge': {
      const minted = mintVersion({
        origin: decision.origin,
        seen: decision.seen,
        nowMicros: 1,
        aheadMaxMicros: 1_000_000,
      })
      if (decision.kind === 'rewrite') return { ...(decision.content === 'local' ? local : incoming), version: minted }
      const fields = fieldsOf(decision.marks, minted)
      return put(fields === undefined ? minted : { ...minted, fields }, { ...(local.content as Row), ...decision.data })
    }
    case 'ask':
      return local
  }
}

const origin = put({ origin: 'o', clock: 1 }, START)
const contentOf = (copy: Contender) => copy.content as Row

t.test('I7: what only one side changed is kept, whatever the clocks say', (t) => {
  const a = edit(origin, 'a', 1, { name: 'from a' })
  const b = edit(origin, B, 900, { note: 'from b' })
  for (const [one, two, here] of [
    [a, b, 'a'],
    [b, a, B],
  ] as const) {
    const both = settle(one, two, merging(here, {}))
    t.strictSame(contentOf(both), { ...START, name: 'from a', note: 'from b' })
    t.equal(both.version.origin, here, 'a new write of the site that merges')
    t.ok(
      compareVersions(both.version, one.version) === 'newer' && compareVersions(both.version, two.version) === 'newer',
    )
  }
  t.end()
})

t.test('an edit that was made after a merge wins against the same merge made elsewhere', (t) => {
  const a = edit(origin, 'a', 1, { name: 'from a' })
  const b = edit(origin, B, 2, { note: 'from b' })
  const [here, there] = [settle(a, b, merging('a', {})), settle(b, a, merging(B, {}))]
  const later = edit(here, 'a', 0, { note: 'after the merge' })
  t.equal(contentOf(settle(later, there, merging('a', {}))).note, 'after the merge')
  t.equal(contentOf(settle(there, later, merging(B, {}))).note, 'after the merge')
  t.end()
})

t.test('each rule settles a field that both changed', (t) => {
  const a = edit(origin, 'a', 5, { name: 'a', price: 12, low: 8, stock: 13, tags: ['t', 'a'], owner: 'a' })
  const b = edit(origin, B, 3, { name: 'b', price: 9, low: 9, stock: 15, tags: ['t', 'b'], owner: 'b' })
  const want = { ...START, name: 'a', price: 12, low: 8, stock: 18, tags: ['t', 'b', 'a'], owner: 'b' }
  t.strictSame(contentOf(settle(a, b, merging('a'))), want)
  t.strictSame(contentOf(settle(b, a, merging(B))), want)
  t.equal(contentOf(settle(a, b, merging('a', { name: 'mine' }))).name, 'a')
  t.equal(contentOf(settle(a, b, merging('a', { name: 'theirs' }))).name, 'b')
  t.strictSame(settle(a, b, merging('a', { name: 'ask' })), a, 'a field that asks leaves the record as it is')
  const other = edit(origin, B, 3, { note: 'b' })
  t.match(
    contentOf(settle(a, other, merging('a', { name: 'ask', stock: 'sum' }))),
    { name: 'a', note: 'b' },
    'only where both changed it',
  )
  t.end()
})

t.test('a new write by mine or theirs for one field supersedes both versions', (t) => {
  const a = edit(origin, 'a', 5, { name: 'a' })
  const b = edit(origin, B, 3, { name: 'b' })
  for (const rule of ['mine', 'theirs']) {
    const { version } = settle(a, b, merging('a', { name: rule }))
    t.ok(
      [a, b].every((each) => compareVersions(version, each.version) === 'newer'),
      rule,
    )
  }
  t.end()
})

t.test('greatest and least compare numbers as numbers and texts as texts, and any value beats none', (t) => {
  const pair = (one: Json, two: Json, rule: string) => {
    const row = put({ origin: 'o', clock: 1 }, { price: 'start', name: 'start' })
    const [a, b] = [edit(row, 'a', 1, { price: one, name: one }), edit(row, B, 2, { price: two, name: two })]
    const { price, name } = contentOf(settle(a, b, merging('a', { price: rule, name: rule })))
    return [price, name]
  }
  t.strictSame(pair('9', '10', 'greatest'), ['10', '9'])
  t.strictSame(pair('9', '10', 'least'), ['9', '10'])
  t.strictSame(pair('-2.50', '-2.5000001', 'least')[0], '-2.5000001')
  t.strictSame(pair(null, '3', 'least'), ['3', '3'])
  t.strictSame(pair('3', null, 'greatest'), ['3', '3'])
  t.strictSame(pair('NaN', '3', 'greatest')[0], 'NaN', 'what is no number is compared as text')
  t.end()
})

t.test('sum counts what each site added once, with all digits, and asks when there is no common base', (t) => {
  const row = put({ origin: 'o', clock: 1 }, { stock: '0.10' })
  const version = (site: string, clock: number, sum: string): Version => ({
    ...{ origin: site, clock, seen: { o: 1 } },
    fields: { stock: { base: { o: 1 }, sums: { [site]: sum }, dots: { [site]: clock } } },
  })
  const a = put(version('a', 5, '0.20'), { stock: '0.30' })
  const b = put(version('b', 3, '9007199254740993'), { stock: '9007199254740993.10' })
  const rules = merging('a', { stock: 'sum' })
  t.equal(contentOf(settle(a, b, rules)).stock, '9007199254740993.3')
  t.equal(contentOf(settle(b, a, rules)).stock, '9007199254740993.3')
  const blind = put({ origin: 'c', clock: 9, seen: { o: 1 } }, { stock: '7' })
  t.strictSame(decide(a, blind, rules), { kind: 'ask', fields: ['stock'] }, 'a site that does not keep marks wrote it')
  t.match(decide(blind, a, rules), { kind: 'ask' })
  t.strictSame(
    decide(a, put(version('c', 9, '1'), { stock: '5' }), rules),
    { kind: 'ask', fields: ['stock'] },
    'the values do not fit the sums',
  )
  t.equal(row.deleted, false)
  t.end()
})

t.test('equal content is no conflict, but equal sums of different additions are not equal content', (t) => {
  const [a, b] = [edit(origin, 'a', 5, { name: 'same' }), edit(origin, 'b', 3, { name: 'same' })]
  t.strictSame(settle(a, b, merging('a')).version.origin, 'a')
  t.strictSame(settle(b, a, merging('b')).version.origin, 'a')
  const [more, again] = [edit(origin, 'a', 5, { stock: 13 }), edit(origin, 'b', 3, { stock: 13 })]
  t.equal(contentOf(settle(more, again, merging('a'))).stock, 16)
  const hidden = edit(edit(origin, 'a', 5, { stock: 13 }), 'b', 6, { stock: 10 })
  const idle = edit(origin, 'c', 9, { name: 'c' })
  const both = settle(idle, hidden, merging('c'))
  t.equal(contentOf(settle(both, more, merging('c'))).stock, 10, 'what cancels out stays counted')
  t.end()
})

t.test('I3: equal content keeps both writes behind it, so that a third version finds the one that counts', (t) => {
  const [a, b, c] = [
    edit(origin, 'a', 1, { owner: 'q' }),
    edit(origin, B, 0, { owner: 'q' }),
    edit(origin, 'c', 9, { owner: 'p' }),
  ]
  const policy = merging('z')
  t.match(decide(a, b, policy), { kind: 'merge', data: { owner: 'q' }, origin: 'z' })
  t.equal(contentOf(settle(settle(a, b, policy), c, policy)).owner, 'q')
  t.equal(contentOf(settle(settle(b, c, policy), a, policy)).owner, 'q')
  t.match(
    decide(a, edit(origin, B, 0, { owner: 'q' }), merging('z', {})),
    { kind: 'keep', equal: true },
    'where the newer counts',
  )
  t.end()
})

t.test('a delete against an edit is decided by the rule of all fields', (t) => {
  const a = edit(origin, 'a', 5, { name: 'a' })
  const gone: Contender = { version: { origin: 'b', clock: 1009, seen: { o: 1 } }, deleted: true, content: null }
  t.match(decide(a, gone, merging('a')), { kind: 'take' }, 'the newer one')
  t.match(decide(a, gone, merging('a', { '*': 'mine' })), { kind: 'rewrite', content: 'local' })
  t.match(decide(a, gone, merging('a', { '*': 'theirs' })), { kind: 'rewrite', content: 'incoming' })
  t.match(decide(a, gone, merging('a', { '*': 'ask' })), { kind: 'ask' })
  t.match(decide(a, gone, merging('a', { '*': `site:${B}` })), { kind: 'take' }, 'neither is of the site')
  t.end()
})

t.test('the rules of fields are refused with what is wrong with them', (t) => {
  const kinds = new Map([
    ['price', 'number'],
    ['tags', 'set'],
    ['name', 'text'],
    ['at', 'other'],
  ] as const)
  const bad: readonly [Record<string, string>, RegExp][] = [
    [{ price: 'biggest' }, /"biggest" of field "price" is not one of newer, mine/],
    [{ price: 'site' }, /needs to know the site/],
    [{ price: 'site:here' }, /names no site by its UUID/],
    [{ price: 'newer:x' }, /is not one of/],
    [{ '*': 'sum' }, /name the fields/],
    [{ '': 'newer' }, /cannot be the name/],
  ]
  for (const [rules, message] of bad)
    t.throws(
      () => checkFieldRules(rules, 'merge', null),
      { code: 'SYNC_REQUEST_INVALID', message },
      JSON.stringify(rules),
    )
  t.throws(() => checkFieldRules({ price: 'sum' }, 'newer', null), {
    code: 'SYNC_REQUEST_INVALID',
    message: /use merge/,
  })
  t.strictSame(Object.keys(checkFieldRules({ tags: 'union', price: 'site' }, 'merge', B)), ['price', 'tags'])
  const unfit: readonly [Record<string, string>, RegExp][] = [
    [{ name: 'sum' }, /sum works on numbers, and field "name"/],
    [{ price: 'union' }, /union works on arrays, json and jsonb/],
    [{ tags: 'greatest', lost: 'newer' }, /field "tags" is none of these; resource "item" sends no column "lost"/],
    [{ at: 'least' }, /field "at"/],
  ]
  for (const [rules, message] of unfit)
    t.throws(
      () => checkFieldKinds(rules, kinds, 'item'),
      { code: 'SYNC_REQUEST_INVALID', message },
      JSON.stringify(rules),
    )
  t.doesNotThrow(() =>
    checkFieldKinds({ price: 'sum', tags: 'union', name: 'greatest', at: 'newer', '*': 'ask' }, kinds, 'item'),
  )
  t.end()
})

/** One record at several sites, with every write and what it knew: the truth that versions and marks only sum up. */
type Write = {
  readonly dot: Version
  readonly column: string
  readonly value: Json
  readonly delta: number
  readonly knew: ReadonlySet<string>
}
type Copy = Contender & { readonly knew: ReadonlySet<string> }

const elements = (list: readonly string[]): readonly string[] => [...new Set(list)].sort()
const nameOf = (version: Version) => `${version.origin}@${version.clock}`

class Sites {
  readonly copies: Copy[]
  readonly writes: Write[] = []
  readonly #names: readonly string[]

  constructor(names: readonly string[]) {
    this.#names = names
    this.copies = names.map(() => ({ ...origin, knew: new Set<string>() }))
  }

  write(at: number, now: number, change: Row): void {
    const local = this.copies[at] as Copy
    const next = edit(local, this.#names[at] as string, now, change)
    if (next === local) return
    for (const [column, value] of Object.entries(change)) {
      const before = contentOf(local)[column] as Json
      if (sameJson(before, value)) continue
      const delta = column === 'stock' ? Number(value) - Number(before) : 0
      this.writes.push({ dot: next.version, column, value, delta, knew: local.knew })
    }
    this.copies[at] = { ...next, knew: new Set([...local.knew, nameOf(next.version)]) }
  }

  deliver(incoming: Copy, at: number): boolean {
    const local = this.copies[at] as Copy
    const next = settle(local, incoming, merging(this.#names[at] as string))
    if (next === local) return false
    this.copies[at] = { ...next, knew: new Set([...local.knew, ...incoming.knew]) }
    return nameOf(next.version) !== nameOf(local.version)
  }

  /** A ring of one direction until nothing changes. */
  settle(): boolean {
    for (let round = 0; round < 12 * this.copies.length; round++) {
      const changed = [...this.copies].map((copy, at) => this.deliver(copy, (at + 1) % this.copies.length))
      if (!changed.includes(true)) return true
    }
    return false
  }

  agree(): boolean {
    const [first] = this.copies
    return this.copies.every(
      (copy) =>
        sameJson(contentOf(copy), contentOf(first as Copy)) && nameOf(copy.version) === nameOf((first as Copy).version),
    )
  }

  /** Writes of a field that no later write of that field knew. */
  last(column: string): readonly Write[] {
    const own = this.writes.filter((write) => write.column === column)
    return own.filter((write) => !own.some((other) => other.knew.has(nameOf(write.dot))))
  }
}

t.test('I3: three sites come to rest where a merge is what the side with the lesser version had', (t) => {
  const sites = new Sites(['a', B, 'c'])
  sites.write(1, 1, { tags: ['t', 'a'] })
  sites.write(2, 2, { tags: ['b'] })
  sites.write(0, 0, { tags: ['b'] })
  t.ok(sites.settle(), 'no site changes any more')
  t.ok(sites.agree())
  t.end()
})

const values = fc.constantFrom<Row>(
  ...['p', 'q', 'r'].flatMap((text) => [{ name: text }, { note: text }, { owner: text }]),
  ...[5, 9, 11, 20].flatMap((number) => [{ price: number }, { low: number }, { price: number, note: `n${number}` }]),
  ...[{ tags: ['t', 'a'] }, { tags: ['b'] }, { tags: [] }],
)
const adding = fc.integer({ min: -3, max: 9 }).map((stock) => ({ add: stock }))
const move = fc.oneof(
  fc.record({ kind: fc.constant('write' as const), at: fc.nat(3), now: fc.nat(30), what: fc.oneof(values, adding) }),
  fc.record({ kind: fc.constantFrom('send' as const, 'late' as const), at: fc.nat(3), from: fc.nat(3) }),
)

t.test(
  'I3: sites that merge converge in any topology, sums count once, and no rule takes what a later write replaced',
  (t) => {
    const names = ['a', B, 'c', 'd']
    holds(
      t,
      fc.property(fc.integer({ min: 2, max: 4 }), fc.array(move, { minLength: 3, maxLength: 24 }), (count, moves) => {
        const sites = new Sites(names.slice(0, count))
        const late: (readonly [Copy, number])[] = []
        for (const each of moves) {
          const at = each.at % count
          if (each.kind === 'write') {
            const stock = contentOf(sites.copies[at] as Copy).stock
            const what = 'add' in each.what ? { stock: Number(stock) + Number(each.what.add) } : (each.what as Row)
            sites.write(at, each.now, what)
          } else if (each.kind === 'send') sites.deliver(sites.copies[each.from % count] as Copy, at)
          else late.push([sites.copies[each.from % count] as Copy, at])
        }
        for (const [copy, at] of late.reverse()) sites.deliver(copy, at)
        if (!sites.settle() || !sites.agree()) return false
        const end = contentOf(sites.copies[0] as Copy)
        if (end.stock !== 10 + sites.writes.reduce((sum, { delta }) => sum + delta, 0)) return false
        return (['name', 'note', 'owner', 'price', 'low', 'tags'] as const).every((column) => {
          const last = sites.last(column)
          if (last.length === 0) return sameJson(end[column] as Json, START[column] as Json)
          const [newest] = [...last].sort((x, y) => dotOrder(y.dot, x.dot))
          const word = last.filter(({ dot }) => dot.origin === B)
          const numbers = last.map(({ value }) => Number(value))
          const want = {
            name: newest?.value,
            note: newest?.value,
            owner: (word[0] ?? newest)?.value,
            price: Math.max(...numbers),
            low: Math.min(...numbers),
            tags: elements(last.flatMap(({ value }) => value as string[])),
          }[column]
          return sameJson(column === 'tags' ? elements(end.tags as string[]) : (end[column] as Json), want as Json)
        })
      }),
      3000,
    )
    t.end()
  },
)

const three = fc.tuple(
  fc.array(values, { minLength: 1, maxLength: 3 }),
  fc.array(values, { minLength: 1, maxLength: 3 }),
  fc.array(values, { minLength: 1, maxLength: 3 }),
)

t.test(
  'I7: both sites that merge two versions come to equal content, invent no value, and merging again changes nothing',
  (t) => {
    holds(
      t,
      fc.property(three, ([one, two]) => {
        const a = one.reduce<Contender>((copy, change, n) => edit(copy, 'a', n, change), origin)
        const b = two.reduce<Contender>((copy, change, n) => edit(copy, B, n, change), origin)
        const [here, there] = [settle(a, b, merging('a')), settle(b, a, merging(B))]
        if (!sameJson(here.content, there.content)) return false
        const known = [a, b].map(contentOf)
        const invented = Object.entries(contentOf(here)).some(
          ([column, value]) => column !== 'tags' && !known.some((row) => sameJson(row[column] as Json, value)),
        )
        const joined = settle(here, there, merging('a'))
        const quiet = [a, b, there, here].every((each) =>
          sameJson(settle(joined, each, merging('a')).content, joined.content),
        )
        // Two equal merges meet without a third write.
        return !invented && quiet && [here, there].some((each) => nameOf(each.version) === nameOf(joined.version))
      }),
      2000,
    )
    t.end()
  },
)

t.test('I3: three versions give one content in whatever order they meet', (t) => {
  holds(
    t,
    fc.property(three, fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), (edits, order) => {
      const names = ['a', B, 'c']
      const copies = edits.map((list, at) =>
        list.reduce<Contender>((copy, change, n) => edit(copy, names[at] as string, n, change), origin),
      )
      const meet = (list: readonly number[]) =>
        list.map((at) => copies[at] as Contender).reduce((local, incoming) => settle(local, incoming, merging('z')))
      const [first, second] = [meet([0, 1, 2]), meet(order)]
      const sorted = (row: Row) => ({ ...row, tags: elements(row.tags as string[]) })
      return sameJson(sorted(contentOf(first)), sorted(contentOf(second)))
    }),
    2000,
  )
  t.end()
})

t.test('what a version has seen is joined as everywhere else', (t) => {
  const [a, b] = [edit(origin, 'a', 1, { name: 'a' }), edit(origin, 'b', 2, { note: 'b' })]
  const both = settle(a, b, merging('a'))
  t.strictSame(both.version.seen, joinSeen(a.version, b.version, both.version))
  t.end()
})
