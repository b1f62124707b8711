import fc from 'fast-check'
import t from 'tap'
import { FIELD_RULES, type LinkPolicy, POLICIES, quarrelsOf } from '../../src/sync/index.ts'
import { holds } from './holds.ts'

const [A, B] = ['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b']
const policy = (text: string, fields: Record<string, string> = {}): LinkPolicy => {
  const [onConflict = '', master = null] = text.split(' ')
  return { onConflict: onConflict as LinkPolicy['onConflict'], master, fields }
}
const kindsOf = (here: LinkPolicy, there: LinkPolicy) => quarrelsOf(here, there).map(({ kind }) => kind)

t.test('I7: policies of a pair that contradict each other are named', (t) => {
  const pairs: readonly [string, string, string][] = [
    ['newer', 'newer', ''],
    [`master ${A}`, `master ${A}`, ''],
    ['mine', 'theirs', ''],
    ['ask', 'ask', ''],
    ['merge', 'merge', ''],
    ['mine', 'mine', 'impossible'],
    ['theirs', 'theirs', 'impossible'],
    [`master ${A}`, `master ${B}`, 'impossible'],
    ['newer', `master ${A}`, 'impossible'],
    ['merge', 'newer', 'doubtful'],
    ['merge', `master ${A}`, 'doubtful'],
    ['newer', 'mine', 'doubtful'],
    ['ask', 'newer', 'doubtful'],
  ]
  for (const [here, there, want] of pairs) {
    t.same(kindsOf(policy(here), policy(there)), want === '' ? [] : [want], `${here} and ${there}`)
    t.same(kindsOf(policy(there), policy(here)), want === '' ? [] : [want], `${there} and ${here}`)
  }
  t.match(quarrelsOf(policy('ask'), policy('newer')), [{ text: /the peer decides before a person here does/ }])
  t.match(quarrelsOf(policy('newer'), policy('ask')), [{ text: /this site decides before a person at the peer does/ }])
  t.end()
})

t.test('I7: rules of single fields are compared with those of the peer, by name', (t) => {
  const merge = (fields: Record<string, string>, master = '') => policy(`merge ${master}`.trim(), fields)
  t.same(quarrelsOf(merge({ stock: 'sum', note: 'newer' }), merge({ stock: 'sum' })), [], 'newer is what is not named')
  t.match(quarrelsOf(merge({ stock: 'sum' }), merge({ stock: 'greatest' })), [
    { kind: 'impossible', text: /field "stock": sum here against greatest/ },
  ])
  t.match(kindsOf(merge({ owner: `site:${A}` }), merge({ owner: `site:${B}` })), ['impossible'])
  t.same(
    kindsOf(merge({ owner: 'site' }, A), merge({ owner: `site:${A}` })),
    [],
    'the site of the task is the one that is named',
  )
  t.same(kindsOf(merge({ a: 'mine', b: 'ask' }), merge({ a: 'theirs', b: 'newer' })), ['doubtful'])
  t.same(kindsOf(merge({ a: 'mine' }), merge({ a: 'mine' })), ['impossible'])
  t.end()
})

t.test(
  'what is wrong with a pair does not depend on which end looks at it, and two alike are never impossible but for mine and theirs',
  (t) => {
    const fields = fc.dictionary(
      fc.constantFrom('a', 'b', '*'),
      fc.constantFrom(...FIELD_RULES.filter((rule) => rule !== 'site')),
    )
    const link = fc.record({ onConflict: fc.constantFrom(...POLICIES), master: fc.constantFrom(A, B), fields })
    holds(
      t,
      fc.property(link, link, (one, two) => {
        const [here, there] = [kindsOf(one, two), kindsOf(two, one)]
        const selfish = ['mine', 'theirs']
        const alike =
          selfish.includes(one.onConflict) || Object.values(one.fields).some((rule) => selfish.includes(rule))
        return JSON.stringify(here) === JSON.stringify(there) && (alike || kindsOf(one, one).length === 0)
      }),
    )
    t.end()
  },
)
