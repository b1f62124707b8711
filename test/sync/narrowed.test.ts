import t from 'tap'
import { narrowedColumns } from '../../src/sync/index.ts'

const altered = (before: string, after: string) => {
  const column = (type: string) => ({ name: 'price', type, nullable: true, hasDefault: false })
  return narrowedColumns([column(before)], [column(after)])
}

t.test('a column that keeps all there was is not named', async (t) => {
  for (const [before, after] of [
    ['numeric(6,1)', 'numeric(8,2)'],
    ['numeric(8,2)', 'numeric(6,2)'],
    ['numeric(8,2)', 'numeric'],
    ['integer', 'bigint'],
    ['smallint', 'numeric'],
    ['real', 'double precision'],
    ['character varying(5)', 'character varying(9)'],
    ['character varying(5)', 'text'],
    ['timestamp(0) with time zone', 'timestamp with time zone'],
    ['text', 'text'],
  ] as const)
    t.same(altered(before, after), [], `${before} to ${after}`)
  t.same(narrowedColumns([{ name: 'gone', type: 'text', nullable: true, hasDefault: false }], []), [])
})

t.test('a column that may have lost something is named with both types', async (t) => {
  t.same(altered('numeric(8,2)', 'numeric(6,1)'), ['column price was numeric(8,2) and is numeric(6,1)'])
  for (const [before, after] of [
    ['numeric', 'numeric(8,2)'],
    ['numeric', 'double precision'],
    ['bigint', 'integer'],
    ['text', 'character varying(9)'],
    ['character varying(9)', 'character varying(5)'],
    ['timestamp with time zone', 'timestamp(0) with time zone'],
    ['timestamp without time zone', 'timestamp with time zone'],
    ['timestamp without time zone', 'date'],
    ['text', 'integer'],
    ['interval', 'interval day'],
  ] as const)
    t.equal(altered(before, after).length, 1, `${before} to ${after}`)
})
