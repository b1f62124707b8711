import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { attach, checkResources, createTask, detach, loadResources } from '../../src/store/index.ts'
import { grantAll, introduce, type Site, serveAll, siteFactory, syncOnce } from '../support/sites.ts'

const sites = await siteFactory(t)
const { cluster } = sites

let serial = 0
const make = (ddl: string, tables: readonly string[] = []) => sites.make(`s${++serial}`, ddl, tables)

const databaseOf = (site: Site) => new URL(site.url).pathname.slice(1)

/** What pg_dump says of one table: its definition, constraints, indexes and triggers. */
async function dumpOf(site: Site, table: string): Promise<string> {
  const out = await cluster.run('pg_dump', ['--schema-only', '--no-owner', '-t', table, databaseOf(site)])
  return out.toString().replaceAll(/^\\(un)?restrict .*$/gm, '')
}

const keyOf = async (site: Site, name: string) =>
  (await loadResources(site.store.db)).find((resource) => resource.name === name)?.keyColumn

t.test('the identity is the uuid or text primary key, else a unique uuid column, else what --key names', async (t) => {
  const a = await make(`
    create table by_uuid (id uuid primary key, other uuid not null unique);
    create table by_text (code varchar(20) primary key, other uuid not null unique);
    create table by_char (code char(8) primary key);
    create table by_column (id serial primary key, nullable uuid unique, ref uuid not null unique);
    create table by_index (id bigint primary key, ref uuid not null); create unique index on by_index (ref);
    create domain ident as uuid; create table by_domain (id ident primary key);
    create table by_choice (id uuid primary key, code text not null unique);
    create table by_number (id int primary key, code text)`)
  const tables = ['by_uuid', 'by_text', 'by_char', 'by_column', 'by_index', 'by_domain'].map((table) => ({ table }))
  const attached = await attach(a.store, [
    ...tables,
    { table: 'public.by_choice', key: 'code', name: 'chosen' },
    { table: 'by_number', key: 'id' },
  ])
  t.same(
    attached.map((resource) => `${resource.name} ${resource.keyColumn} ${resource.ready}`),
    [
      'by_uuid id true',
      'by_text code true',
      'by_char code true',
      'by_column ref true',
      'by_index ref true',
      'by_domain id true',
      'chosen code true',
      'by_number id true',
    ],
  )
  t.same(
    attached
      .find((resource) => resource.name === 'by_number')
      ?.columns.map((column) => `${column.name} ${column.sent}`),
    ['id false', 'code true'],
    'the identity travels once',
  )
})

t.test('what a table cannot be attached for is said in words, and leaves no trace', async (t) => {
  const a = await make(`
    create table no_key (v int);
    create table serial_only (id serial primary key, near uuid);
    create table partial (id serial primary key, ref uuid not null); create unique index on partial (ref) where id > 5;
    create table composite (a uuid, b uuid, primary key (a, b));
    create table deferred (ref uuid not null unique deferrable initially deferred);
    create view seen as select * from no_key; create materialized view kept as select * from no_key;
    create foreign data wrapper none; create server files foreign data wrapper none;
    create foreign table far (id uuid) server files;
    create table parted (id uuid primary key) partition by hash (id); create table part_0 partition of parted for values with (modulus 1, remainder 0);
    create table numbered_parts (id serial primary key) partition by range (id);
    create table base (id uuid primary key); create table derived (extra int, primary key (id)) inherits (base);
    create domain place_in_memory as oid;
    create table odd_types (id uuid primary key, a oid, b regclass[], c place_in_memory, d money, e xid, f pg_lsn, ok text);
    create table target (id serial primary key, ref uuid not null unique);
    create table pointer (id uuid primary key, target_id int not null references target, other_id int references target);
    create table by_time (at timestamptz primary key, id int not null unique);
    create table always (id int generated always as identity primary key, n int generated always as (1) stored not null unique);
    create table guarded (id uuid primary key); alter table guarded enable row level security;
    create table first (id uuid primary key); create table second (id uuid primary key);
    create schema elsewhere; create table elsewhere.first (id uuid primary key); create table elsewhere.target (id serial primary key)`)
  await attach(a.store, [{ table: 'first' }])
  const unsuitable = async (options: { table: string; key?: string; addUuid?: boolean }, message: RegExp) =>
    t.rejects(attach(a.store, [options]), { code: 'SYNC_RESOURCE_UNSUITABLE', message }, String(message))
  await unsuitable({ table: 'nowhere' }, /there is no table nowhere/)
  await unsuitable(
    { table: 'no_key' },
    /no uuid or text primary key and no unique uuid column; use --key, or --add-uuid/,
  )
  await unsuitable({ table: 'serial_only' }, /\(column "near" would do if it were unique and not null\)/)
  await unsuitable({ table: 'partial' }, /\(column "ref" would do/)
  await unsuitable({ table: 'composite' }, /no uuid or text primary key/)
  await unsuitable({ table: 'deferred' }, /no uuid or text primary key/)
  await unsuitable({ table: 'serial_only', key: 'near' }, /column "near" is not both unique on its own and not null/)
  await unsuitable({ table: 'serial_only', key: 'nothing' }, /column "nothing" is not both/)
  await unsuitable(
    { table: 'by_time', key: 'at' },
    /column "at" has type timestamptz; an identity is a uuid, a text or an integer/,
  )
  await unsuitable({ table: 'always', key: 'id' }, /always filled in by the database/)
  await unsuitable({ table: 'always', key: 'n' }, /always filled in by the database/)
  await unsuitable({ table: 'seen' }, /it is a view; attach the tables it reads/)
  await unsuitable({ table: 'kept' }, /it is a view; attach the tables it reads/)
  await unsuitable({ table: 'far' }, /it is a foreign table/)
  await unsuitable({ table: 'part_0' }, /it is a partition of parted; attach parted/)
  await unsuitable({ table: 'numbered_parts', addUuid: true }, /no unique uuid column on a partitioned table/)
  await unsuitable({ table: 'base' }, /other tables inherit from it/)
  await unsuitable({ table: 'derived' }, /it inherits from another table/)
  await unsuitable({ table: 'syncline.peer' }, /it belongs to Syncline itself/)
  for (const column of ['a', 'b', 'c', 'd', 'e', 'f']) {
    await unsuitable({ table: 'odd_types' }, new RegExp(`column "${column}" has type`))
  }
  await unsuitable(
    { table: 'pointer' },
    /"other_id" refers to public.target; "target_id" refers to public.target: numbers of a table/,
  )
  await t.rejects(
    attach(a.store, [{ table: 'pointer' }, { table: 'elsewhere.target', key: 'id', name: 'other' }]),
    { message: /refers to public.target/ },
    'a table of the same name in another schema does not help',
  )
  await t.rejects(attach(a.store, [{ table: 'elsewhere.first' }]), {
    code: 'SYNC_REQUEST_EXISTS',
    message: /already public.first; give another --name/,
  })
  await t.rejects(attach(a.store, [{ table: 'second', name: 'no good' }]), { code: 'SYNC_REQUEST_INVALID' })
  await t.rejects(attach(a.store, [{ table: 'first', name: 'again' }]), {
    message: /it is attached already as "first"/,
  })
  const role = await cluster.createRole()
  await a.sql(`alter database "${databaseOf(a)}" owner to ${role}; alter schema syncline owner to ${role};
    do $$ declare t regclass; begin for t in select oid::regclass from pg_class where relnamespace = 'syncline'::regnamespace and relkind = 'r' loop
      execute format('alter table %s owner to ${role}', t); end loop; end $$;
    grant all on guarded, second to ${role}; grant usage, create on schema public to ${role}`)
  const plain = await sites.open('plain', cluster.url(databaseOf(a), role), a.key)
  await t.rejects(attach(plain.store, [{ table: 'guarded' }]), { message: /row security hides rows/ })
  await a.sql(`revoke trigger on second from ${role}`)
  await t.rejects(attach(plain.store, [{ table: 'second' }]), { code: 'SYNC_STORE_RIGHTS' })
  t.same(
    (await loadResources(a.store.db)).map((resource) => resource.name),
    ['first'],
  )
  t.same(
    await a.sql(`select tgrelid::regclass::text as t from pg_trigger where tgname like 'zz_syncline%' group by 1`),
    [{ t: 'first' }],
  )

  await t.test(
    'with the right to make triggers only, sessions in the role of a replica go unseen and check says so',
    async (t) => {
      await a.sql(`grant trigger on second to ${role}`)
      await attach(plain.store, [{ table: 'second' }])
      const faults = async () => (await checkResources(plain.store.db, 'second'))[0]?.faults
      const [check] = await checkResources(plain.store.db, 'second')
      t.same(check?.faults, [], 'which is no fault: everything else is captured')
      await a.sql('alter table second disable trigger zz_syncline_insert')
      t.match((await checkResources(plain.store.db, 'second'))[0], {
        faults: [/zz_syncline_insert is disabled/],
        mends: [
          'the owner of the table runs: alter table public.second enable always trigger zz_syncline_insert; then: syncline resource attach public.second --key id',
        ],
      })
      await a.sql('alter table second enable trigger zz_syncline_insert')
      t.match(check?.warnings, [/go unseen until the owner/])
      t.equal(
        check?.warnings?.[0]?.match(/alter table public.second enable always trigger zz_syncline_\w+;/g)?.length,
        4,
      )
      await attach(plain.store, [{ table: 'second' }])
      await attach(a.store, [{ table: 'second' }]).catch(() => {})
      t.same(await faults(), [])
      t.notOk((await checkResources(plain.store.db, 'second'))[0]?.warnings, 'the owner attaches it again')
    },
  )
})

t.test('tables that refer to each other are attached together, and numbers stay local', async (t) => {
  const ddl = `
    create table country (id serial primary key, uuid uuid not null unique default gen_random_uuid(), iso int unique);
    create table city (id uuid primary key default gen_random_uuid(), number serial unique, country_id int not null references country, parent uuid references city,
      iso int references country (iso));
    create table code (n int primary key, uuid uuid not null unique default gen_random_uuid())`
  const a = await make(ddl)
  const [city, country, code] = await attach(a.store, [{ table: 'city' }, { table: 'country' }, { table: 'code' }])
  const names = (await loadResources(a.store.db)).map((resource) => resource.name)
  t.ok(names.indexOf('country') < names.indexOf('city'), 'parents come first')
  const sent = (resource: typeof city) => resource?.columns.filter((column) => column.sent).map((column) => column.name)
  t.same(sent(country), ['iso'], 'a number that the application gives travels')
  t.same(sent(city), ['country_id', 'parent', 'iso'], 'a number that the database gives does not')
  t.same(sent(code), ['n'])
  t.same(
    city?.references.map((each) => `${each.column.name} ${each.resource} ${each.direct} ${each.cyclic}`),
    ['country_id country false false', 'parent city true true', 'iso country false false'],
  )
})

t.test('--add-uuid gives a table with rows an identity, and detach takes it away again', async (t) => {
  const ddl = `create table legacy (id serial primary key, name text); insert into legacy (name) select 'row ' || n from generate_series(1, 12000) n`
  const a = await make(ddl)
  const before = await dumpOf(a, 'legacy')
  const steps: string[] = []
  const [legacy] = await attach(a.store, [{ table: 'legacy', addUuid: true }], (step) =>
    steps.push(`${step.doing} ${step.done}`),
  )
  t.match(legacy, { keyColumn: 'uuid', addedUuid: true, ready: true })
  t.same(steps, [
    'giving rows a uuid 5000',
    'giving rows a uuid 10000',
    'giving rows a uuid 12000',
    'giving rows a uuid 12000',
    'registering rows 5000',
    'registering rows 10000',
    'registering rows 12000',
  ])
  await a.sql(`insert into legacy (name) values ('new')`)
  t.same(await a.sql(`select count(*)::int as n, count(distinct uuid)::int as u from legacy`), [
    { n: 12_001, u: 12_001 },
  ])
  t.same(await a.sql(`select count(*)::int as n from syncline.record`), [{ n: 12_001 }])
  t.same(await checkResources(a.store.db), [{ resource: 'legacy', faults: [] }])
  await detach(a.store, 'legacy')
  t.equal(await dumpOf(a, 'legacy'), before)

  await t.test('a column called uuid that is something else is left alone', async (t) => {
    await a.sql('alter table legacy add column uuid text')
    const with_uuid = await dumpOf(a, 'legacy')
    await attach(a.store, [{ table: 'legacy', addUuid: true }])
    t.equal(await keyOf(a, 'legacy'), 'syncline_uuid')
    await detach(a.store, 'legacy')
    t.equal(await dumpOf(a, 'legacy'), with_uuid)
  })

  await t.test('where there is an identity already none is added', async (t) => {
    const b = await make('create table fine (id uuid primary key)')
    const fine = await dumpOf(b, 'fine')
    const [resource] = await attach(b.store, [{ table: 'fine', addUuid: true }])
    t.equal(resource?.addedUuid, false)
    await detach(b.store, 'fine')
    t.equal(await dumpOf(b, 'fine'), fine)
  })

  await t.test('nothing is added to a table that is refused for another reason', async (t) => {
    const b = await make('create table costly (id serial primary key, price money)')
    const costly = await dumpOf(b, 'costly')
    await t.rejects(attach(b.store, [{ table: 'costly', addUuid: true }]), { code: 'SYNC_RESOURCE_UNSUITABLE' })
    t.equal(await dumpOf(b, 'costly'), costly)
  })

  await t.test('an interrupted one goes on with the same column', async (t) => {
    const b = await make(ddl)
    const clean = await dumpOf(b, 'legacy')
    for (const stop of ['giving rows a uuid 5000', 'registering rows 5000']) {
      const attempt = attach(b.store, [{ table: 'legacy', addUuid: true }], (step) => {
        if (`${step.doing} ${step.done}` === stop) throw new Error('interrupted')
      })
      await t.rejects(attempt, { message: 'interrupted' })
    }
    const [check] = await checkResources(b.store.db)
    t.match(check?.faults, [/not all registered/])
    const [resource] = await attach(b.store, [{ table: 'legacy', addUuid: true }])
    t.match(resource, { keyColumn: 'uuid', addedUuid: true, ready: true })
    t.same(await b.sql(`select count(*)::int as n from syncline.record`), [{ n: 12_000 }])
    await detach(b.store, 'legacy')
    t.equal(await dumpOf(b, 'legacy'), clean)
  })
})

t.test(
  'rows are registered in bounded steps while writers keep writing, and none of their changes is lost',
  async (t) => {
    const ddl = `create table big (id uuid primary key default gen_random_uuid(), n int not null);
    insert into big select gen_random_uuid(), n from generate_series(1, 60000) n`
    const a = await make(ddl)
    let writing = true
    let slowest = 0
    let writes = 0
    const writers = Array.from({ length: 4 }, async (_, which) => {
      const client = await a.connect()
      while (writing) {
        const began = performance.now()
        if (which === 0) await client.query(`insert into big (n) values (-1)`)
        else if (which === 1)
          await client.query(
            `update big set n = n + 100000 where id = (select id from big where n > 0 order by random() limit 1)`,
          )
        else if (which === 2)
          await client.query(`delete from big where id = (select id from big where n > 0 order by random() limit 1)`)
        else {
          await client.query('begin')
          await client.query(`update big set n = -2 where id = (select id from big where n > 0 limit 1)`)
          await sleep(40)
          await client.query('commit')
        }
        slowest = Math.max(slowest, performance.now() - began)
        writes++
      }
    })
    await sleep(50)
    const steps: number[] = []
    await attach(a.store, [{ table: 'big' }], (step) => steps.push(step.done))
    writing = false
    await Promise.all(writers)
    t.ok(steps.length >= 12, `${steps.length} steps`)
    t.ok(writes > 20, `${writes} writes`)
    t.ok(slowest < 10_000, `the slowest write took ${slowest.toFixed(0)} ms`)
    t.same(
      await a
        .sql(`select (select count(*) from big) as living, (select count(*) from big left join syncline.record r on r.record_id = big.id::text and not r.deleted where r.record_id is null) as missing,
      (select count(*) from syncline.record r left join big on big.id::text = r.record_id where not r.deleted and big.id is null) as dead`)
        .then(([row]) => [row?.missing, row?.dead]),
      ['0', '0'],
    )
  },
)

t.test('a long transaction on the table delays attach, never the writers behind it', async (t) => {
  const a = await make(`create table busy (id uuid primary key default gen_random_uuid(), n int)`)
  const holder = await a.connect()
  await holder.query('begin')
  await holder.query('insert into busy (n) values (1)')
  const attaching = attach(a.store, [{ table: 'busy' }])
  let slowest = 0
  let writes = 0
  for (; writes < 500 && slowest <= 100; writes++) {
    const began = performance.now()
    await a.sql('insert into busy (n) values (2)')
    slowest = Math.max(slowest, performance.now() - began)
    await sleep(10)
  }
  t.ok(slowest > 100, 'attach stood in the way for a moment')
  t.ok(slowest < 10_000, `the slowest write took ${slowest.toFixed(0)} ms, and did not wait for the other one's end`)
  await holder.query('commit')
  await attaching
  t.same(await a.sql('select count(*)::int as n from syncline.record'), [{ n: writes + 1 }])
})

t.test('an interrupted attach goes on where it stopped; meanwhile nothing is exchanged', async (t) => {
  const ddl = `create table big (id text primary key); insert into big select 'row ' || n from generate_series(1, 11000) n`
  const [a, b] = [await make(ddl), await make('create table big (id text primary key)', ['big'])]
  const interrupted = attach(a.store, [{ table: 'big' }], (step) => {
    if (step.done === 10_000) throw new Error('interrupted')
  })
  await t.rejects(interrupted, { message: 'interrupted' })
  await introduce(a, b)
  await t.rejects(serveAll(a, b, 'big'), { code: 'SYNC_RESOURCE_OUTDATED' })
  await a.sql(`delete from big where id in ('row 1', 'row 9999')`)
  const steps: number[] = []
  await attach(a.store, [{ table: 'big' }], (step) => steps.push(step.done))
  t.same(steps, [999], 'only what was left, without the row that is gone')
  await syncOnce(b, a)
  t.same(await b.sql('select count(*)::int as n from big'), [{ n: 10_998 }])
})

/** What a command line would make of `syncline resource attach …`. */
function attachOptions(command: string) {
  const words = [...command.matchAll(/'((?:[^']|'\\'')*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '')
  const [program, noun, does, table = ''] = words
  if (`${program} ${noun} ${does}` !== 'syncline resource attach') throw new Error(`no command: ${command}`)
  const flag = (name: string) => (words.includes(name) ? words[words.indexOf(name) + 1] : undefined)
  return { table, name: flag('--name'), key: flag('--key') }
}

t.test('check finds what is wrong with triggers and columns, and the command that it names mends it', async (t) => {
  const ddl = `create table item (id uuid primary key, name text, n int); create table other (id uuid primary key)`
  const a = await make(ddl, ['item', 'other'])
  const faults = async () => (await checkResources(a.store.db, 'item'))[0]?.faults ?? []
  const mends = async () => (await checkResources(a.store.db, 'item'))[0]?.mends
  const mended = async (message: string) => {
    const [command = '', ...more] = (await mends()) ?? []
    t.same(more, [], 'all that is wrong with it is mended by one command')
    await attach(a.store, [attachOptions(command)])
    t.same(await faults(), [], message)
    t.equal(await mends(), undefined)
  }
  const cases: readonly (readonly [string, RegExp])[] = [
    ['drop trigger zz_syncline_update on item', /zz_syncline_update is missing/],
    ['alter table item disable trigger zz_syncline_insert', /zz_syncline_insert is disabled/],
    ['alter table item enable replica trigger zz_syncline_insert', /zz_syncline_insert is disabled/],
    [
      'alter table item enable trigger zz_syncline_delete',
      /zz_syncline_delete does not see sessions in the role of a replica/,
    ],
    [
      'drop trigger zz_syncline_truncate on item; create trigger zz_syncline_truncate after truncate on item for each statement execute function syncline.capture_2()',
      /zz_syncline_truncate calls another function/,
    ],
    [
      'create or replace function syncline.capture_1() returns trigger language plpgsql as $$ begin return null; end $$',
      /made by another version/,
    ],
    ['update syncline.resource set capture_version = 0', /made by another version/],
    ['alter table item add column extra text', /column "extra" is new and not synced yet/],
    ['alter table item drop column extra', /column "extra" is gone/],
    ['alter table item alter column n type text', /column "n" was int4 and is text/],
    ['alter table item alter column name set not null', /column "name" changed its rules/],
    ['alter table item disable trigger all', /is disabled/],
  ]
  for (const [statement, fault] of cases) {
    await a.sql(statement)
    t.match((await faults()).join('\n'), fault)
    await mended(statement)
  }
  await a.sql('alter table item rename to thing')
  t.match((await faults()).join(), /public.item is no table any more; the table that was attached is public.thing now/)
  t.same(await mends(), ['syncline resource attach public.thing --name item --key id'])
  await a.sql(`truncate thing`)
  await mended('under its new name')
  await a.sql('drop table thing')
  t.match((await faults()).join(), /no longer exists/)
  t.match(await mends(), [
    /^make the table again, then: syncline resource attach .*; or let go of it: syncline resource detach item$/,
  ])
  await detach(a.store, 'item')

  await t.test('a new partition without triggers is reported', async (t) => {
    await a.sql(
      `create table parted (id text primary key) partition by list (id); create table part_a partition of parted for values in ('a')`,
    )
    await attach(a.store, [{ table: 'parted' }])
    await a.sql(`create table part_b partition of parted for values in ('b')`)
    const of = async () => (await checkResources(a.store.db, 'parted'))[0]?.faults
    t.match(await of(), Array(4).fill(/part_b: trigger zz_syncline_\w+ is missing/))
    await attach(a.store, [{ table: 'parted' }])
    t.same(await of(), [])
  })
})

t.test('what was written into a new column before it was attached travels when it is', async (t) => {
  const ddl = `create table item (id text primary key, name text); insert into item values ('1', 'a'), ('2', 'a'), ('3', 'a')`
  const [a, b] = [await make(ddl, ['item']), await make('create table item (id text primary key, name text)', ['item'])]
  await introduce(a, b)
  await syncOnce(b, a)
  for (const site of [a, b]) {
    await site.sql(`alter table item add extra text default 'none', add at timestamptz, add facts json`)
  }
  await a.sql(`update item set extra = 'early' where id = '1'; update item set facts = '{}' where id = '2'`)
  await b.sql(`update item set name = 'b' where id = '3'`)
  await syncOnce(b, a)
  for (const site of [a, b]) await attach(site.store, [{ table: 'item' }])
  t.same(await a.sql(`select record_id from syncline.record where source is null order by 1`), [
    { record_id: '1' },
    { record_id: '2' },
  ])
  await syncOnce(b, a)
  const rows = await b.sql('select * from item order by id')
  t.same(rows, await a.sql('select * from item order by id'))
  t.match(rows, [{ extra: 'early' }, { extra: 'none', facts: {} }, { name: 'b', extra: 'none', facts: null }])
})

t.test('records whose identity the wire has no room for stay, are counted, and stop nobody', async (t) => {
  const ddl = 'create table word (id text primary key)'
  const [a, b] = [await make(ddl, ['word']), await make(ddl, ['word'])]
  await introduce(a, b)
  const long = 'ü'.repeat(400)
  await a.sql(`insert into word values ('')`)
  for (const id of [`${long}b`, `${long}a`, 'z', 'x'.repeat(600), 'y'.repeat(512)])
    await a.sql('insert into word values ($1)', [id])
  await a.sql(`delete from word where id = '${long}a'`)
  await syncOnce(b, a, { limits: { batchRowsMax: 1 } })
  t.same(await b.sql('select id from word order by id'), [{ id: 'y'.repeat(512) }, { id: 'z' }])
  t.match((await checkResources(a.store.db))[0]?.faults, [/^3 record\(s\) cannot travel/])
  await a.sql(`insert into word values ('later')`)
  await syncOnce(b, a, { limits: { batchRowsMax: 1 } })
  t.same(await b.sql(`select id from word where id = 'later'`), [{ id: 'later' }])
})

t.test('detach leaves the table as it was, and attaching again starts anew', async (t) => {
  const ddl = `
    create table parent (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text check (name <> ''));
    create table child (id uuid primary key default gen_random_uuid(), parent_id int references parent on delete cascade);
    create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger app before update on parent for each row execute function touch();
    create table parted (id text primary key) partition by list (id); create table part_a partition of parted for values in ('a')`
  const a = await make(ddl)
  const tables = ['parent', 'child', 'parted', 'part_a']
  const before = await Promise.all(tables.map((table) => dumpOf(a, table)))
  await attach(a.store, [{ table: 'child' }, { table: 'parent' }, { table: 'parted' }])
  t.not(await dumpOf(a, 'parent'), before[0])
  await a.sql(`insert into parent (name) values ('p')`)
  const peer = await make(ddl)
  await introduce(a, peer)
  await grantAll(a, peer, 'parent')
  const [known] = a.peers.values()
  const task = { peerId: known?.id ?? 0, resource: 'parent', mode: 'pull' }
  await createTask(a.store.db, task)
  await t.rejects(detach(a.store, 'parent'), { code: 'SYNC_REQUEST_INVALID', message: /still in 1 task/ })
  await a.sql('delete from syncline.task')
  for (const name of ['child', 'parent', 'parted']) await detach(a.store, name)
  t.same(await Promise.all(tables.map((table) => dumpOf(a, table))), before)
  t.same(await a.sql(`select proname from pg_proc where proname like 'capture%'`), [])
  t.same(await a.sql(`select * from syncline.record`), [])
  await t.rejects(detach(a.store, 'parent'), { code: 'SYNC_REQUEST_NOT_FOUND' })
  await a.sql(`insert into parent (name) values ('unseen')`)
  await attach(a.store, [{ table: 'child' }, { table: 'parent' }])
  t.same(await a.sql('select count(*)::int as n from syncline.record'), [{ n: 2 }])
})
