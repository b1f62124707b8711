import t from 'tap'
import type { Contest, Member, Rival, Scenario, System } from '../../bench/faults/contest.ts'
import { type Contents, type Evidence, isClean, judge, Oracle, type State } from '../../bench/faults/judge.ts'
import { runScenario } from '../../bench/faults/run.ts'
import { SCENARIOS } from '../../bench/faults/scenarios/index.ts'

const holds = (...sites: readonly Readonly<Record<string, State>>[]): Evidence['sites'] =>
  sites.map((contents, n) => ({ name: 'abc'[n] ?? '', contents: new Map(Object.entries(contents)) }))

const evidence = (sites: Evidence['sites'], more: Partial<Evidence> = {}): Evidence => ({
  sites,
  waiting: new Map(),
  kept: new Map(),
  ...more,
})

const counts = (oracle: Oracle, seen: Evidence) => {
  const { lost, revived, diverged, stuck } = judge(oracle, seen)
  return { lost, revived, diverged, stuck }
}
const NONE = { lost: 0, revived: 0, diverged: 0, stuck: 0 }

const oracleOf = (tell: (oracle: Oracle) => void) => {
  const oracle = new Oracle()
  tell(oracle)
  return oracle
}

t.test('sites that hold exactly what was confirmed are clean', async (t) => {
  const oracle = oracleOf((o) => {
    o.wrote('item/1', { name: 'first', note: null })
    o.wrote('item/1', { name: 'second', note: null })
    o.wrote('item/2', { name: 'to go' })
    o.removed('item/2')
  })
  const held = { 'item/1': { note: null, name: 'second' } }
  t.same(judge(oracle, evidence(holds(held, held))), { ...NONE, notes: [] })
  t.ok(isClean(judge(oracle, evidence(holds(held, held)))))
})

t.test('a confirmed write that is in effect nowhere is lost', async (t) => {
  const oracle = oracleOf((o) => o.wrote('item/1', { name: 'second' }))
  t.same(counts(oracle, evidence(holds({}, {}))), { ...NONE, lost: 1 }, 'not there')
  const old = { 'item/1': { name: 'first' } }
  t.same(counts(oracle, evidence(holds(old, old))), { ...NONE, lost: 1 }, 'an older value is back')
  t.same(counts(oracle, evidence(holds(old, {}))), { ...NONE, lost: 1 }, 'different, and wrong everywhere')
  const emptied = { 'item/1': { name: '' } }
  const unknown = oracleOf((o) => o.wrote('item/1', { name: null }))
  t.same(counts(unknown, evidence(holds(emptied, emptied))), { ...NONE, lost: 1 }, 'an empty text is not NULL')
  t.notOk(isClean(judge(oracle, evidence(holds({}, {})))))
})

t.test('the side of a conflict that gives way is lost unless the system kept it', async (t) => {
  const mine = { name: 'word of a', qty: '1' }
  const theirs = { name: 'word of b', qty: '2' }
  const oracle = oracleOf((o) =>
    o.raced('item/1', [
      { state: mine, mark: 'word of a' },
      { state: theirs, mark: 'word of b' },
    ]),
  )
  const held = holds({ 'item/1': mine }, { 'item/1': mine })
  t.same(counts(oracle, evidence(held)), { ...NONE, lost: 1 })
  const kept = new Map([['item/1', '{"name":"word of b"}']])
  t.same(counts(oracle, evidence(held, { kept })), NONE)
  const merged = { name: 'word of a', qty: '2' }
  t.same(
    counts(oracle, evidence(holds({ 'item/1': merged }, { 'item/1': merged }), { kept })),
    NONE,
    'merged by column',
  )
  const invented = { name: 'word of c', qty: '2' }
  const strange = holds({ 'item/1': invented }, { 'item/1': invented })
  t.same(counts(oracle, evidence(strange, { kept })), { ...NONE, lost: 1 }, 'neither of them')
})

t.test('a deletion against an edit may end either way, and an edit that gives way must be kept', async (t) => {
  const oracle = oracleOf((o) => o.raced('item/1', [{ state: null }, { state: { name: 'edited' }, mark: 'edited' }]))
  const edited = { 'item/1': { name: 'edited' } }
  t.same(counts(oracle, evidence(holds(edited, edited))), NONE)
  t.same(counts(oracle, evidence(holds({}, {}))), { ...NONE, lost: 1 })
  t.same(counts(oracle, evidence(holds({}, {}), { kept: new Map([['item/1', 'edited']]) })), NONE)
})

t.test('a deleted record that is here again is revived', async (t) => {
  const oracle = oracleOf((o) => {
    o.wrote('item/1', { name: 'first' })
    o.removed('item/1')
  })
  const risen = { 'item/1': { name: 'first' } }
  t.same(counts(oracle, evidence(holds(risen, risen))), { ...NONE, revived: 1 })
  t.same(counts(oracle, evidence(holds(risen, {}))), { ...NONE, diverged: 1 }, 'at one site only: they differ')
})

t.test('sites that hold different things without a word of it have diverged', async (t) => {
  const oracle = oracleOf((o) => o.wrote('item/1', { name: 'second' }))
  const [right, wrong] = [{ 'item/1': { name: 'second' } }, { 'item/1': { name: 'first' } }]
  t.same(counts(oracle, evidence(holds(right, wrong))), { ...NONE, diverged: 1 })
  t.same(counts(oracle, evidence(holds(right, {}))), { ...NONE, diverged: 1 })
  t.same(counts(oracle, evidence(holds(right, right, wrong))), { ...NONE, diverged: 1 }, 'the third site counts')
  const invented = { ...right, 'item/9': { name: 'nobody wrote this' } }
  t.same(counts(oracle, evidence(holds(invented, invented))), { ...NONE, diverged: 1 })
  const extra = { 'item/1': { name: 'second', extra: null } }
  t.same(counts(oracle, evidence(holds(right, extra))), { ...NONE, diverged: 1 }, 'a column more is a difference')
})

t.test('a record that the system names as waiting is stuck, and so is one that had to flow', async (t) => {
  const oracle = oracleOf((o) => o.wrote('item/1', { name: 'second' }))
  const right = { 'item/1': { name: 'second' } }
  const waiting = new Map([['item/1', 'a constraint']])
  t.same(counts(oracle, evidence(holds(right, {}), { waiting })), { ...NONE, stuck: 1 })
  t.same(counts(oracle, evidence(holds(right, right), { waiting })), { ...NONE, stuck: 1 }, 'it still says so')
  oracle.saw('stuck', 'a bystander did not pass')
  t.same(counts(oracle, evidence(holds(right, right))), { ...NONE, stuck: 1 })
})

t.test('a comparison of its own that says what is not so counts against a system', async (t) => {
  const oracle = oracleOf((o) => o.wrote('item/1', { name: 'second' }))
  const [right, wrong] = [{ 'item/1': { name: 'second' } }, { 'item/1': { name: 'first' } }]
  t.same(counts(oracle, evidence(holds(right, right), { saysEqual: true })), NONE)
  t.same(counts(oracle, evidence(holds(right, right), { saysEqual: false })), { ...NONE, diverged: 1 }, 'a false alarm')
  t.same(counts(oracle, evidence(holds(right, wrong), { saysEqual: false })), { ...NONE, diverged: 1 }, 'it told')
  t.same(
    counts(oracle, evidence(holds(right, wrong), { saysEqual: true })),
    { ...NONE, diverged: 2 },
    'a green light that lies',
  )
  const waiting = new Map([['item/1', 'a parent']])
  t.same(counts(oracle, evidence(holds(right, wrong), { saysEqual: true, waiting })), {
    ...NONE,
    stuck: 1,
    diverged: 1,
  })
})

/** A system in memory whose exchange does what is asked of it, or something wrong. */
function fake(round: (a: Map<string, State>, b: Map<string, State>) => void): Rival {
  const open = async (): Promise<System> => {
    const stores = [new Map<string, State>(), new Map<string, State>()] as const
    const nothing = async () => {}
    const member = (n: 0 | 1): Member => ({
      name: 'ab'[n] ?? '',
      put: async (table, id, values) => {
        const texts = Object.entries(values).map(([name, value]) => [name, value === null ? null : String(value)])
        stores[n].set(`${table}/${id}`, { ...stores[n].get(`${table}/${id}`), ...Object.fromEntries(texts) })
      },
      remove: async (table, id) => void stores[n].delete(`${table}/${id}`),
      contents: async (): Promise<Contents> => new Map(stores[n]),
      sql: async () => [],
      connect: async () => ({ sql: async () => [], end: nothing }),
      alter: nothing,
    })
    return {
      members: [member(0), member(1)],
      quietRounds: 2,
      round: async () => {
        round(...stores)
        return true
      },
      part: nothing,
      join: nothing,
      waiting: async () => new Map(),
      saysEqual: async () => undefined,
      kept: async () => '',
      resume: nothing,
      kill: nothing,
      revive: nothing,
      backUp: async () => nothing,
      setClock: nothing,
      duplicate: nothing,
      replay: nothing,
      raiseLimits: nothing,
      close: nothing,
    }
  }
  return {
    name: 'fake',
    without: { clock: 'no clock' },
    install: async () => ({ version: '1' }),
    open,
    end: async () => {},
  }
}

const scenario = (act: (contest: Contest) => Promise<void>, more: Partial<Scenario> = {}): Scenario => ({
  name: 'sample',
  group: 'fault',
  about: 'a sample',
  shape: { ddl: '', tables: ['item'], sites: 2, needs: [] },
  act,
  ...more,
})

const copy = (a: Map<string, State>, b: Map<string, State>) => {
  for (const [key, state] of a) b.set(key, state)
}

t.test('a run tells a system that exchanges from one that only says so', async (t) => {
  const sample = scenario(async ({ put, a, settle }) => {
    await put(a, 'item', '1', { name: 'first' })
    await settle()
    await put(a, 'item', '1', { name: 'second' })
  })
  const run = async (round: Parameters<typeof fake>[0], played = sample) => {
    const outcome = await runScenario(fake(round), played)
    return outcome.kind === 'verdict' ? { ...outcome.verdict, notes: undefined } : outcome
  }
  t.match(await run(copy), NONE)
  t.match(await run(() => {}), { ...NONE, diverged: 1 })
  t.match(await run((a, b) => [a, b].map((each) => each.clear())), { ...NONE, lost: 1 })
  const removal = scenario(async ({ put, remove, a, settle }) => {
    await put(a, 'item', '1', { name: 'first' })
    await settle()
    await remove(a, 'item', '1')
  })
  const union = (a: Map<string, State>, b: Map<string, State>) => {
    copy(a, b)
    copy(b, a)
  }
  t.match(await run(union, removal), { ...NONE, revived: 1 })
  const bystander = scenario(async ({ put, a, mustFlow }) => {
    await put(a, 'item', '1', { name: 'first' })
    await mustFlow('item/1')
  })
  t.match(await run(copy, bystander), { ...NONE, stuck: 1 }, 'nothing was exchanged before it had to be there')
})

t.test('what a system has no notion of is not held against it, and one that breaks down is not clean', async (t) => {
  const shape = { ddl: '', tables: ['item'], sites: 2, needs: ['clock'] } as const
  const clock = scenario(async () => {}, { shape })
  t.match(await runScenario(fake(copy), clock), { kind: 'none', reason: 'no clock' })
  const broken = scenario(async () => Promise.reject(new Error('the server is gone')))
  t.match(await runScenario(fake(copy), broken), { kind: 'broken', reason: 'the server is gone' })
})

t.test('the contest has ten faults and fifteen situations, each with a name of its own', async (t) => {
  const names = (group: string) => SCENARIOS.filter((each) => each.group === group).map(({ name }) => name)
  t.equal(names('fault').length, 10)
  t.equal(names('situation').length, 15)
  t.equal(new Set(SCENARIOS.map(({ name }) => name)).size, 25)
  t.ok(SCENARIOS.every(({ about }) => about.length > 20))
})
