import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

// A script that any Node reads, and the compiler does not.
const { failuresIn, tellFailures } = await import(new URL('../../scripts/failures.js', import.meta.url).href)

const RESULT = `TAP version 14
# Subtest: the outer test
    ok 1 - fine
    # Subtest: the inner test
        not ok 1 - should be equal
          ---
          diff: |
            -1
            +2
          ...

        ok 2 - fine
        not ok 3 - no words
        1..3
    not ok 2 - the inner test # time=5ms
      ---
      at: here
      ...

    1..2
not ok 1 - the outer test # time=6ms

# Subtest: another test
    1..0
not ok 2 - timeout! # time=180000ms
  ---
  expired: test/a.test.ts
  ...

1..2
`

t.test('every failure is told once, with where it stands and what is said of it', async (t) => {
  const folder = t.testdir()
  mkdirSync(join(folder, 'test'))
  writeFileSync(join(folder, 'test/a.test.ts.tap'), RESULT)
  writeFileSync(join(folder, 'test/b.test.ts.tap'), 'TAP version 14\nok 1 - fine\n1..1\n')
  t.strictSame(failuresIn(folder), [
    [
      'test/a.test.ts > the outer test > the inner test > should be equal',
      '          diff: |',
      '            -1',
      '            +2',
    ].join('\n'),
    'test/a.test.ts > the outer test > the inner test > no words',
    'test/a.test.ts > timeout!\n  expired: test/a.test.ts',
  ])
  t.match(tellFailures(folder), /^3 failed:\n\ntest\/a/)
  t.strictSame(failuresIn(join(folder, 'nowhere')), [])
})
