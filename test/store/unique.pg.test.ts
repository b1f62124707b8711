import t from 'tap'
import { introduce, pullAll, type Site, siteFactory, totalOf } from '../support/sites.ts'

const sites = await siteFactory(t)

const DDL = `
  create table place (id uuid primary key, code varchar(5) not null unique, rank int not null unique deferrable initially immediate,
    seat int not null unique, zone text, row_no int not null, unique (zone, row_no), born date not null unique, token uuid not null unique)`

let serial = 0
async function pair(ddl = DDL): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, ddl, ['place'])
  const b = await sites.make(`b${serial}`, ddl, ['place'])
  await introduce(a, b)
  await a.sql(`
    insert into place select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'c' || n, n, n, 'z', n, date '2026-01-01' + n, gen_random_uuid()
      from generate_series(1, 12) n`)
  await pullAll(b, a)
  await b.sql('delete from syncline.history')
  return [a, b]
}

const content = (site: Site) => site.sql('select * from place order by id')
const row = (n: number) => `(select p from place p where id = '00000000-0000-4000-8000-${String(n).padStart(12, '0')}')`

/** Gives the rows `ns` the value of `column` of the next of them, in one transaction of the application. */
const rotate = (column: string, type: string, ns: readonly number[], spare: string) => `
  create temporary table had as select id, ${column} as value, row_number() over (order by id) as at from place
   where id::text like '00000000-%' and right(id::text, 12)::int in (${ns.join(',')});
  update place set ${column} = ${spare} where id in (select id from had);
  update place p set ${column} = next.value::${type} from had h join had next on next.at = h.at % ${ns.length} + 1 where p.id = h.id;
  drop table had`

const SPARES: readonly (readonly [string, string, string])[] = [
  ['code', 'varchar', `'x' || right(id::text, 2)`],
  ['rank', 'int', `-right(id::text, 12)::int`],
  ['seat', 'int', `-right(id::text, 12)::int`],
  ['row_no', 'int', `-right(id::text, 12)::int`],
  ['born', 'date', `date '1999-01-01' + right(id::text, 12)::int`],
  ['token', 'uuid', 'gen_random_uuid()'],
]

for (const [column, type, spare] of SPARES) {
  t.test(`I3: records that hand values of ${column} to one another arrive together`, async (t) => {
    const [a, b] = await pair()
    const before = await b.sql(`select to_jsonb(p) as p from place p`)
    await a.sql(rotate(column, type, [1, 2], spare))
    await a.sql(rotate(column, type, [3, 5, 9], spare))
    await a.sql(`update place set zone = 'y' where row_no = 7`)
    t.match(totalOf(await pullAll(b, a)), { quarantined: 0 })
    t.same(await content(b), await content(a))
    const images = await b.sql(
      `select data -> '${column}' as was from syncline.history where reason = 'replaced' order by record_id`,
    )
    for (const { was } of images)
      t.ok(
        JSON.stringify(before).includes(`"${column}":${JSON.stringify(was)}`),
        'history keeps what was there, not what stood in between',
      )
  })
}

t.test('several indexes at once, with new and deleted records among them', async (t) => {
  const [a, b] = await pair()
  for (const [column, type, spare] of SPARES) await a.sql(rotate(column, type, [2, 4, 6, 8], spare))
  await a.sql(`delete from place where row_no = 12 or id = ((${row(11)}).id)`)
  await a.sql(`update place set code = 'c11', seat = 11 where id = ((${row(10)}).id)`)
  await a.sql(`insert into place values (gen_random_uuid(), 'c10', 110, 10, 'z', 110, '2030-01-01', gen_random_uuid())`)
  t.match(totalOf(await pullAll(b, a)), { quarantined: 0 })
  t.same(await content(b), await content(a))
})

t.test('I8: a value that another record keeps is refused alone, and the swap beside it arrives', async (t) => {
  const [a, b] = await pair()
  await b.sql(
    `insert into place values (gen_random_uuid(), 'taken', 200, 200, 'z', 200, '2031-01-01', gen_random_uuid())`,
  )
  await a.sql(rotate('code', 'varchar', [1, 2], SPARES[0]?.[2] ?? ''))
  await pullAll(b, a)
  await a.sql(`update place set code = 'taken' where id = ((${row(3)}).id)`)
  await a.sql(`update place set zone = 'other' where id = ((${row(4)}).id)`)
  t.match(totalOf(await pullAll(b, a)), { applied: 1, quarantined: 1 })
  t.same(await b.sql(`select code from place where id in ((${row(1)}).id, (${row(2)}).id) order by id`), [
    { code: 'c2' },
    { code: 'c1' },
  ])
  t.match(await b.sql('select code, reason from syncline.quarantine'), [
    { code: 'SYNC_RECORD_CONSTRAINT', reason: /place_code_key/ },
  ])
})

t.test('what cannot be given up for a moment waits, as ever, with the words of the database', async (t) => {
  const [a, b] = await pair()
  await b.sql('alter table place add check (seat > 0)')
  await a.sql(rotate('seat', 'int', [1, 2], SPARES[2]?.[2] ?? ''))
  t.match(totalOf(await pullAll(b, a)), { quarantined: 2 })
  t.match(await b.sql('select code from syncline.quarantine'), [
    { code: 'SYNC_RECORD_CONSTRAINT' },
    { code: 'SYNC_RECORD_CONSTRAINT' },
  ])
})
