import './hooks.ts'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MUTANTS } from './mutants.ts'
import { createOracle, type Held, type NewWrite } from './oracle.ts'
import type { Shape } from './plan.ts'
import { mutate } from './plant.ts'

const { startDatabases } = await import('./cluster.ts')
const { simulate } = await import('./simulate.ts')
const { shrink } = await import('./shrink.ts')

t.setTimeout(170_000)
const ROOT = join(import.meta.dirname, '..', '..')
const databases = await startDatabases(t)

/** Few sites and short plans, that reach much: every policy and topology, crashes, restores, clocks, late commits, a new column. */
const SEEDS = ['102', '104', '3', '16', '44', '101', '62', '65', '132', '22', '111', '152']
/** On a machine that is busy with other things the rest is left for another time. */
const BUDGET_MS = 60_000
const FEWEST = 4
const KEPT = JSON.parse(readFileSync(join(import.meta.dirname, 'seeds.json'), 'utf8')) as readonly {
  readonly seed: string
  readonly found: string
  readonly policy?: Shape['policy']
}[]

t.test(
  'I1 to I9: sites that went through everything come to rest equal, and what was written is there',
  { timeout: 150_000 },
  async (t) => {
    const began = performance.now()
    for (const [n, seed] of SEEDS.entries()) {
      if (n >= FEWEST && performance.now() - began > BUDGET_MS) break
      const { failure, trace } = await simulate(databases, seed)
      t.equal(failure, null, trace.slice(0, 1).join())
      if (failure !== null) t.comment(trace.join('\n'))
    }
  },
)

t.test('what a seed once found is not there any more', { timeout: 150_000 }, async (t) => {
  t.ok(Array.isArray(KEPT))
  for (const { seed, found, policy } of KEPT) {
    const { failure, trace } = await simulate(databases, seed, { ...(policy && { policy }) })
    t.equal(failure, null, `seed ${seed}: ${found}`)
    if (failure !== null) t.comment(trace.join('\n'))
  }
})

t.test('the same seed gives the same events', async (t) => {
  const once = await simulate(databases, 'again', { actions: 40 })
  const twice = await simulate(databases, 'again', { actions: 40 })
  t.equal(once.failure, null)
  t.ok(once.trace.length > 60, `${once.trace.length} lines`)
  t.same(twice.trace, once.trace)
  t.equal(twice.steps, once.steps)
})

t.test('every planted bug has its place in the source', async (t) => {
  for (const { name, edits } of MUTANTS) {
    const texts = new Map<string, string>()
    for (const edit of edits) {
      const text = texts.get(edit.file) ?? readFileSync(join(ROOT, edit.file), 'utf8')
      t.doesNotThrow(() => texts.set(edit.file, mutate(text, edit, name)), name)
    }
  }
  const gone = { file: 'src/sync/run.ts', find: 'this stands nowhere', put: '' }
  t.throws(() => mutate('some text', gone, 'one'), /adapt test\/sim\/mutants.ts/)
})

t.test('a failure is shown by the fewest actions that still cause it', async (t) => {
  const shape = (kept: readonly number[]) => ({ actions: kept.map((n) => ({ n })) }) as unknown as Shape
  const verdict = (kept: readonly number[]) => ({
    failure: kept.includes(3) && kept.includes(17) ? 'lost: x' : null,
    shape: shape(kept),
  })
  const all = Array.from({ length: 30 }, (_, n) => n)
  const tried = async (kept: readonly number[]) => verdict(kept) as never
  const short = await shrink(tried, verdict(all) as never, Number.POSITIVE_INFINITY)
  t.same(
    short.shape.actions.map(({ n }) => n),
    [3, 17],
  )
})

t.test('the oracle notices what is lost, what rose from the dead and what nobody wrote', async (t) => {
  const held = (label: string | null, clock: string): Held => {
    return { resource: 'tag', id: 't1', origin: 'a', clock, deleted: label === null, label }
  }
  const write = (label: string | null, clock: string, before?: Held): NewWrite => ({
    ...held(label, clock),
    site: 'a',
    before,
  })
  const after = (records: readonly Held[], kept: readonly Held[] = [], newest = false) => {
    const oracle = createOracle()
    oracle.add(write('one', '1'))
    oracle.add(write('two', '2', held('one', '1')))
    oracle.add({ ...write('three', '3', held('one', '1')), origin: 'b' })
    return oracle.judge([{ site: 'a', records, kept }], newest).join()
  }
  const three = { ...held('three', '3'), origin: 'b' }
  t.equal(after([held('two', '2')], [three]), '')
  t.equal(after([three], [held('two', '2')]), '')
  t.equal(after([three], [held('two', '2')], true), '')
  t.match(after([held('two', '2')], [three], true), /^not the newest: tag t1 is two/)
  t.match(after([held('two', '2')]), /^lost: a's three of tag t1/)
  t.match(
    after([held('one', '1')], [held('two', '2'), three]),
    /^revived: tag t1 is one although a's two of tag t1, a's three/,
  )
  t.match(after([held('four', '4')], [held('two', '2'), three]), /which nobody wrote/)
  t.match(after([], [held('two', '2'), three]), /not there, which nobody wrote/)
})
