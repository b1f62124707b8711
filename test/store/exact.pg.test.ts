/** Columns that keep less than what arrives: nothing is rounded or cut without a word. */
import t from 'tap'
import { listQuarantine, receiveChanges, redrive, refreshAltered } from '../../src/store/index.ts'
import { linesOfChanges } from '../../src/sync/index.ts'
import { introduce, LIMITS, linkOf, pullAll, type Site, siteFactory, syncOnce, totalOf } from '../support/sites.ts'

const sites = await siteFactory(t)
let serial = 0

async function pair(there: string, here: string): Promise<readonly [Site, Site]> {
  serial++
  const table = (columns: string) =>
    columns
      .split('|')
      .map((text, n, all) => (n < all.length - 1 ? `${text};` : `create table place (id text primary key, ${text})`))
      .join(' ')
  const hub = await sites.make(`hub${serial}`, table(there), ['place'])
  const field = await sites.make(`field${serial}`, table(here), ['place'])
  await introduce(hub, field)
  return [hub, field]
}

const values = async (site: Site) =>
  Object.fromEntries((await site.sql('select id, v::text from place order by id')).map(({ id, v }) => [id, v]))
const waiting = async (site: Site) =>
  Object.fromEntries((await listQuarantine(site.store.db, { limit: 50 })).map((each) => [each.recordId, each]))

/** Types at the sender and here, values that fit, values that do not, the reason, and a type that takes them all. */
type Case = readonly [string, string, fits: string[], lost: string[], reason: RegExp, wide: string]

const CASES: readonly Case[] = [
  [
    'numeric(8,2)',
    'numeric(6,1)',
    ['9.80', '-3', 'NaN'],
    ['9.87'],
    /"?v"? is numeric\(6,1\) here: 9\.87 has 2 digits after the point, and 1 would be kept/,
    'numeric(8,2)',
  ],
  [
    'numeric',
    'numeric(6,-2)',
    ['1200'],
    ['1234'],
    /1234 has 0 digits after the point, and -2 would be kept/,
    'numeric',
  ],
  [
    'float8',
    'float4',
    ['0.1', '16777216', '-0', 'NaN', 'Infinity'],
    ['0.123456789012', '16777217'],
    /0\.123456789012 would become 0\.12345679/,
    'float8',
  ],
  [
    'numeric',
    'float8',
    ['0.1', '100000000000000000000'],
    ['0.12345678901234567890'],
    /would become 0\.123456789012345\d*/,
    'numeric',
  ],
  [
    'timestamptz',
    'timestamptz(0)',
    ['2026-01-02 03:04:05+00'],
    ['2026-01-02 03:04:05.678+00'],
    /timestamp\(0\) with time zone here: 2026-01-02T03:04:05\.678\S* would become 2026-01-02/,
    'timestamptz',
  ],
  [
    'timestamp',
    'date',
    ['2026-01-02'],
    ['2026-01-02 03:04'],
    /is date here: 2026-01-02T03:04:00 would become 2026-01-02/,
    'timestamp',
  ],
  [
    'timestamp',
    'time',
    [],
    ['2026-01-02 03:04'],
    /2026-01-02T03:04:00 has a date or a zone, which would be dropped/,
    "timestamp using timestamp '2000-01-01' + v",
  ],
  ['time', 'time(1)', ['01:02:03.4'], ['01:02:03.45'], /would become 01:02:03\.[45]/, 'time'],
  ['interval', 'interval day', ['3 days'], ['1 day 02:00'], /P1DT2H would become P1D/, 'interval'],
  ['text', 'varchar(4)', ['abcd', 'ab  '], ['abcd  '], /2 blanks at the end would be cut off/, 'text'],
  ['text', 'place_short', ['abcd'], ['abcdef', 'abcd '], /is place_short here: abcd\S*\s+would become abcd/, 'text'],
  ['numeric', 'place_price', ['1.5'], ['1.55'], /is place_price here: 1\.55 would become 1\.[56]/, 'numeric'],
  ['text', '"char"', ['a'], ['ab'], /ab would become a/, 'text'],
  [
    'numeric(8,2)[]',
    'numeric(6,1)[]',
    ['{1.5,NULL}', '{{1.10},{2.0}}', '[0:1]={1.5,2}'],
    ['{1.5,9.87}', '{{1},{9.87}}', '[0:1]={1,9.87}'],
    /9\.87 has 2 digits/,
    'numeric[]',
  ],
  ['text[]', 'varchar(2)[]', ['{ab,NULL}'], ['{ab,"cd  "}'], /2 blanks/, 'text[]'],
]

for (const [there, here, fits, lost, reason, wide] of CASES)
  t.test(
    `I1: ${there} that ${here} would not keep waits with its reason, and is written when the column is wide enough`,
    async (t) => {
      const domains = 'create domain place_short as varchar(4)|create domain place_price as numeric(6,1)|'
      const [hub, field] = await pair(`v ${there}, note text`, `${domains}v ${here}, note text`)
      const given = [...fits, ...lost]
      for (const [n, value] of given.entries())
        await hub.sql('insert into place values ($1, $2, $3)', [`r${n}`, value, 'x'])
      t.equal(totalOf(await pullAll(field, hub)).quarantined, lost.length)
      const held = await waiting(field)
      t.same(Object.keys(held).sort(), given.flatMap((value, n) => (lost.includes(value) ? [`r${n}`] : [])).sort())
      for (const each of Object.values(held)) t.equal(each.code, 'SYNC_RECORD_INEXACT')
      t.match(
        Object.values(held)
          .map((each) => each.reason)
          .join('\n'),
        reason,
      )
      t.equal((await field.sql('select from place')).length, fits.length, 'everything else flows')
      // The usual way, over rows that are there.
      await hub.sql(`update place set note = 'y'`)
      await pullAll(field, hub)
      t.equal((await field.sql(`select from place where note = 'y'`)).length, fits.length)
      await field.sql(`alter table place alter column v type ${wide}`)
      t.match(await refreshAltered(field.store), [{ resource: 'place', problem: null }])
      await redrive(field.store, field.self, null, LIMITS)
      t.same(await waiting(field), {}, 'it was due at once')
      t.equal((await field.sql(`select from place where note = 'y'`)).length, given.length)
      const same = (text: string) => text.replace(/::text$/, '')
      const [theirs, ours] = [
        await hub.sql(`select id, v::${same(wide).split(' using')[0]}::text as v from place order by id`),
        await values(field),
      ]
      for (const [n, value] of given.entries())
        if (lost.includes(value)) t.equal(ours[`r${n}`], theirs.find(({ id }) => id === `r${n}`)?.v)
    },
  )

t.test(
  'I1: in a batch of nothing but new records, and beside a missing parent, one value that does not fit waits alone',
  async (t) => {
    const ddl = (v: string) =>
      `create table kind (id text primary key); create table place (id text primary key, kind text references kind, v ${v})`
    const hub = await sites.make('hub-many', ddl('numeric'), ['kind', 'place'])
    const field = await sites.make('field-many', ddl('numeric(6,1)'), ['kind', 'place'])
    await introduce(hub, field)
    await hub.sql(
      `insert into kind values ('k'); insert into place select n::text, 'k', case n when 77 then 0.55 else n / 2.0 end from generate_series(1, 300) n`,
    )
    await pullAll(field, hub)
    t.same(Object.keys(await waiting(field)), ['77'])
    t.equal((await field.sql('select from place')).length, 299)
    await hub.sql(
      `insert into kind values ('late'); insert into place values ('x1', 'late', 1), ('x2', 'k', 1.25), ('x3', 'k', 1.5)`,
    )
    await pullAll(field, hub, { resources: ['place'] })
    t.match(await waiting(field), {
      x1: { code: 'SYNC_RECORD_PARENT_MISSING' },
      x2: { code: 'SYNC_RECORD_INEXACT' },
      77: {},
    })
  },
)

t.test(
  'I7: a value that would only look equal when it is rounded is no equal content, and an edit by hand is refused',
  async (t) => {
    const [hub, field] = await pair('v float8', 'v float4')
    await hub.sql(`insert into place values ('a', 0.5)`)
    await syncOnce(field, hub)
    await hub.sql(`update place set v = 0.123456789012`)
    await field.sql(`update place set v = 0.12345679`)
    await pullAll(field, hub)
    t.match(await waiting(field), { a: { code: 'SYNC_RECORD_INEXACT' } })
    t.match(await field.sql('select clock from syncline.record'), [{}])
    const [batch] = linesOfChanges(
      'place',
      [
        { kind: 'put', id: 'a', data: { v: 0.3333333333333333 } },
        { kind: 'put', id: 'b', data: { v: 0.25 } },
      ],
      {},
    )
    const link = linkOf(field, hub)
    const report = await receiveChanges(
      field.store,
      link,
      { resource: 'place', batches: batch === undefined ? [] : [batch], byHand: true, runId: null },
      LIMITS,
    )
    t.match(report.rejections, [{ id: 'a', code: 'SYNC_RECORD_INEXACT' }])
    t.equal((await values(field)).b, '0.25')
  },
)

t.test('I1: a column that is narrowed while nobody looks rounds nothing either', async (t) => {
  const [hub, field] = await pair('v numeric(8,2)', 'v numeric(8,2)')
  await hub.sql(`insert into place values ('a', 1.5)`)
  await pullAll(field, hub)
  await field.sql('alter table place alter column v type int')
  await hub.sql(`insert into place values ('b', 9.87), ('c', 3.00)`)
  await pullAll(field, hub)
  t.notOk((await values(field)).b, 'not known to be another type yet')
  await refreshAltered(field.store)
  await redrive(field.store, field.self, null, LIMITS)
  t.match(await waiting(field), { b: {} })
})

t.test('a table that is being altered is waited for, and then is said to be in use', async (t) => {
  const [hub, field] = await pair('v numeric', 'v numeric(6,1)')
  await hub.sql(`insert into place values ('a', 1.5)`)
  const other = await field.connect()
  await other.query('begin; alter table place add column late text')
  await t.rejects(pullAll(field, hub), { code: 'SYNC_STORE_BUSY' })
  await other.query('rollback')
  await pullAll(field, hub)
  t.same(await values(field), { a: '1.5' })
})
