import t from 'tap'
import {
  applyPull,
  attach,
  createTask,
  discardQuarantined,
  listQuarantine,
  receiveChanges,
  redrive,
  retryNow,
  serveChanges,
  setGrant,
} from '../../src/store/index.ts'
import { type Change, type LineBatch, linesOfChanges } from '../../src/sync/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  peerOf,
  pullAll,
  type Row,
  recordOf,
  type Site,
  siteFactory,
  syncOnce,
  TASK,
  totalOf,
  versionsOf,
} from '../support/sites.ts'

const sites = await siteFactory(t)

let serial = 0

/** Two sites whose tables may differ in what they allow: `strict` is run at the second one. */
async function pair(ddl: string, tables: readonly string[], strict = ''): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, ddl, tables)
  const b = await sites.make(`b${serial}`, `${ddl}; ${strict}`, tables)
  await introduce(a, b)
  return [a, b]
}

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
const numberOf = (text: unknown) => Number(String(text).slice(-12))

const ITEM = 'create table item (id uuid primary key default gen_random_uuid(), name text, code text, n int)'
const fill = (rows: number) =>
  `insert into item (id, name, code, n) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'thing ' || n, 'c' || n, n from generate_series(1, ${rows}) n`

const waiting = (site: Site): Promise<Row[]> =>
  site.sql(`select r.name as resource, q.record_id, q.code, q.reason, q.attempts, q.waits_record_id from syncline.quarantine q
    join syncline.resource r on r.id = q.resource_id order by r.name, q.record_id`)

const due = (site: Site) => site.sql('update syncline.quarantine set retry_at = now()')

/** A rule of the second site, the change that breaks it, how it is mended, and the words of the database. */
type Case = { readonly rule: string; readonly bad: string; readonly mend: string; readonly words: RegExp }

const trigger = (action: string) => `
  create function item_no() returns trigger language plpgsql as $$ begin if new.n = 77 then ${action}; end if; return new; end $$;
  create trigger no before insert or update on item for each row execute function item_no()`
const untrigger = 'drop trigger no on item'

const CASES: Readonly<Record<string, Case>> = {
  'a check': {
    rule: 'alter table item add constraint small check (n <> 77)',
    bad: 'n = 77',
    mend: 'alter table item drop constraint small',
    words: /violates check constraint "small"; Failing row contains/,
  },
  'not null': {
    rule: 'alter table item alter name set not null',
    bad: 'name = null',
    mend: 'alter table item alter name drop not null',
    words: /null value in column "name"/,
  },
  'a unique value': {
    rule: `alter table item add unique (code); insert into item (code) values ('taken')`,
    bad: `code = 'taken'`,
    mend: `delete from item where name is null`,
    words: /duplicate key.*; Key \(code\)=\(taken\) already exists/,
  },
  'a length': {
    rule: 'alter table item alter name type varchar(10)',
    bad: `name = 'longer than ten'`,
    mend: 'alter table item alter name type varchar(20)',
    words: /value too long for type character varying\(10\)/,
  },
  'a type': {
    rule: 'alter table item alter name type int using null',
    bad: `name = 'no number'`,
    mend: 'alter table item alter name type text',
    words: /invalid input syntax for type integer: "no number"/,
  },
  'a range of a type': {
    rule: 'alter table item alter n type int2',
    bad: 'n = 40000',
    mend: 'alter table item alter n type int',
    words: /value "40000" is out of range for type smallint/,
  },
  'a domain': {
    rule: `create domain item_kind as text check (value <> 'bad'); alter table item alter code type item_kind`,
    bad: `code = 'bad'`,
    mend: 'alter table item alter code type text',
    words: /value for domain \w+ violates check constraint/,
  },
  'an exclusion': {
    rule: `alter table item add constraint item_apart exclude (code with =); insert into item (code) values ('taken')`,
    bad: `code = 'taken'`,
    mend: `delete from item where name is null`,
    words: /conflicting key value violates exclusion constraint/,
  },
  'a constraint that is checked at commit': {
    rule: 'alter table item add constraint item_late unique (n) deferrable initially deferred; insert into item (n) values (77)',
    bad: 'n = 77',
    mend: 'delete from item where name is null',
    words: /duplicate key value violates unique constraint "\w+_late"/,
  },
  'an exception of a trigger': {
    rule: trigger(`raise exception 'not % here', new.n`),
    bad: 'n = 77',
    mend: untrigger,
    words: /not 77 here/,
  },
  'a trigger that raises a code of its own': {
    rule: trigger(`raise exception using errcode = '55000', message = 'closed'`),
    bad: 'n = 77',
    mend: untrigger,
    words: /closed/,
  },
  'a trigger that is broken': {
    rule: trigger('insert into missing values (1)'),
    bad: 'n = 77',
    mend: untrigger,
    words: /relation "missing" does not exist/,
  },
  'a trigger that drops the row without a word': {
    rule: trigger('return null'),
    bad: 'n = 77',
    mend: untrigger,
    words: /the row was not (inserted|changed), without an error/,
  },
}

t.test(
  'I8: one bad record waits alone with the words of the database, and is applied when the cause is mended',
  async (t) => {
    // A table for each case, all of them in one pair of sites; the cases speak of "item".
    const tables = Object.entries(CASES).flatMap(([what, each], n) =>
      ['inserted', 'updated'].map((how) => {
        const table = `${how}_${n}`
        const here = (text: string) => text.replaceAll('item', table)
        return { what: `${what}, ${how}`, table, how, here, ...each }
      }),
    )
    const names = tables.map(({ table }) => table)
    const [a, b] = await pair(tables.map(({ here }) => here(ITEM)).join(';'), names)
    for (const { here, how } of tables) if (how === 'updated') await a.sql(here(fill(20)))
    await pullAll(b, a)
    for (const { here, how, rule, bad, what } of tables) {
      if (how === 'inserted') await a.sql(here(fill(20)))
      await b.sql(here(rule))
      await a.sql(here(`update item set code = 'd' || n, name = ${what.startsWith('a type') ? 'n' : `'i' || n`}`))
      await a.sql(here(`update item set ${bad} where id = '${id(7)}'`))
    }
    const reattach = () =>
      attach(
        b.store,
        names.map((table) => ({ table })),
      )
    await reattach()
    await pullAll(b, a)
    const held = async (table: string) => (await waiting(b)).filter((row) => row.resource === table)
    for (const { here, table, words, what } of tables) {
      const entries = await held(table)
      t.match(entries, [{ record_id: id(7), code: 'SYNC_RECORD_CONSTRAINT', reason: words, attempts: 1 }], what)
      t.equal(entries.length, 1, `${what}: it waits alone`)
      const others = here(
        `select id, code::text, n::int from item where id < '${id(100)}' and id <> '${id(7)}' order by id`,
      )
      t.same(await b.sql(others), await a.sql(others), `${what}: the rest is here`)
    }
    await due(b)
    await pullAll(b, a)
    for (const { table, what } of tables) t.match(await held(table), [{ attempts: 2 }], `${what}: tried again in vain`)
    for (const { here, mend } of tables) await b.sql(here(mend))
    await reattach()
    await due(b)
    await pullAll(b, a)
    t.same(await waiting(b), [], 'mended')
    for (const { here, what } of tables) {
      const row = here(`select name::text, code::text, n::int from item where id = '${id(7)}'`)
      t.same(await b.sql(row), await a.sql(row), `${what}: it arrived`)
    }
    const versions = `select r.name, c.clock from syncline.record c join syncline.resource r on r.id = c.resource_id where record_id = '${id(7)}' order by 1`
    t.same(await b.sql(versions), await a.sql(versions))
  },
)

t.test('I8: many bad records among many good ones are all found', async (t) => {
  const [a, b] = await pair(ITEM, ['item'], 'alter table item add check (n % 7 <> 0)')
  await a.sql(fill(300))
  const began = performance.now()
  t.match(totalOf(await pullAll(b, a)), { applied: 300 - 42, quarantined: 42 })
  const took = performance.now() - began
  t.ok(took < 8_000, `${Math.round(took)} ms`)
  t.same(
    (await waiting(b)).map((row) => numberOf(row.record_id) % 7),
    Array(42).fill(0),
  )
  const report = await serveChanges(a.store, linkOf(a, b), { resource: 'item' }, LIMITS)
  const pushed = await receiveChanges(
    b.store,
    linkOf(b, a),
    { resource: 'item', batches: [report], byHand: false, runId: null },
    LIMITS,
  )
  t.match(pushed.counts, { known: 258, quarantined: 42 })
  t.equal(pushed.rejections.length, 42)
  t.match(pushed.rejections[0], { outcome: 'quarantined', code: 'SYNC_RECORD_CONSTRAINT', reason: /check/ })
})

t.test('I8: a deletion that a trigger prevents waits instead of being believed', async (t) => {
  const [a, b] = await pair(
    ITEM,
    ['item'],
    `create function keep() returns trigger language plpgsql as $$ begin return null; end $$;
    create trigger keep before delete on item for each row when (old.n = 2) execute function keep()`,
  )
  await a.sql(fill(3))
  await pullAll(b, a)
  await a.sql('delete from item')
  await pullAll(b, a)
  t.match(await waiting(b), [{ record_id: id(2), reason: /the row was not deleted/ }])
  t.equal((await recordOf(b, id(2)))?.deleted, false)
  await b.sql('drop trigger keep on item')
  await due(b)
  await pullAll(b, a)
  t.same(await b.sql('select * from item'), [])
  t.same(await versionsOf(b), await versionsOf(a))
})

t.test(
  'I8: lines that PostgreSQL cannot read wait alone, also where they are concurrent or refer to nothing',
  async (t) => {
    const ddl = `create table parent (id serial primary key, uuid uuid not null unique); create table item (id uuid primary key, name text, n int, doc jsonb, parent_id int references parent)`
    const [a, b] = await pair(ddl, ['parent', 'item'])
    await a.sql(
      `insert into item (id, name, n) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'x', n from generate_series(1, 12) n`,
    )
    await pullAll(b, a)
    await a.sql(`update item set name = 'y'`)
    await b.sql(`update item set name = 'z' where n in (4, 5)`)
    const good = await serveChanges(a.store, linkOf(a, b), { resource: 'item', after: undefined }, LIMITS)
    const spoil: Readonly<Record<number, (line: string) => string>> = {
      2: (line) => line.replace('"y"', '"y\\u0000"'),
      3: (line) => line.replace('"y"', '"\\ud800"'),
      4: (line) => line.replace('"y", 4', '"y", "four"'),
      6: (line) => line.replace('null]', '"no uuid"]'),
      7: (line) => line.replace(id(7), 'no uuid at all'),
      8: (line) => line.replace('"y", 8', '"y", 1e400000'),
      9: (line) => line.replace('"y", 9', '"y", 9e12'),
      10: (line) => line.replace(/\[.*\]$/, '[1,'),
    }
    const text = good.text
      .split('\n')
      .map((line, n) => (spoil[n + 1] ?? String)(line))
      .join('\n')
    const batch: LineBatch = { ...good, text }
    const report = await applyPull(
      b.store,
      linkOf(b, a),
      { task: { ...TASK, onConflict: 'theirs' }, batch, runId: null },
      LIMITS,
    )
    t.match(report.counts, { quarantined: 8, applied: 3, merged: 1 })
    const held = await waiting(b)
    t.same(
      held.map((row) => (row.record_id === 'no uuid at all' ? 7 : numberOf(row.record_id))).sort((x, y) => x - y),
      [2, 3, 4, 6, 7, 8, 9, 10],
    )
    t.match(
      held.find((row) => row.record_id === id(6)),
      { code: 'SYNC_RECORD_INVALID', reason: /invalid input syntax for type uuid: "no uuid"/ },
    )
    t.same(
      await b.sql(`select n from item where name = 'y' order by n`),
      [1, 5, 11, 12].map((n) => ({ n })),
    )
    await due(b)
    t.match((await redrive(b.store, b.self, null, LIMITS)).counts, { quarantined: 8 }, 'tried again they wait on')
    t.equal((await waiting(b)).length, 8)
  },
)

t.test('I8: a record that is too large waits alone', async (t) => {
  const [a, b] = await pair(ITEM, ['item'])
  await a.sql(fill(3))
  await a.sql(`update item set name = repeat('x', 5000) where n = 2`)
  t.match(totalOf(await pullAll(b, a, { limits: { recordBytesMax: 4_000 } })), { applied: 2, quarantined: 1 })
  t.match(await waiting(b), [
    { record_id: id(2), code: 'SYNC_RECORD_TOO_LARGE', reason: /has 50\d\d bytes; this site accepts 4000/ },
  ])
  await due(b)
  t.match(totalOf(await pullAll(b, a)), { applied: 1, quarantined: 0 })
})

const TREE = `
  create table country (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text);
  create table city (id serial primary key, uuid uuid not null unique default gen_random_uuid(), country_id int not null references country, name text);
  create table street (uuid uuid primary key default gen_random_uuid(), city uuid not null references city (uuid), name text)`
const TREE_TABLES = ['country', 'city', 'street']

const counted = async (site: Site, tables = TREE_TABLES) =>
  (await site.sql(`select ${tables.map((table) => `(select count(*)::int from ${table}) as ${table}`).join(', ')}`))[0]

t.test(
  'a missing parent keeps its dependants waiting, and its arrival releases all of them in the same run',
  async (t) => {
    const [a, b] = await pair(TREE, TREE_TABLES, 'alter table country add check (name <> $$bad$$)')
    await a.sql(`insert into country (name) values ('good'), ('bad')`)
    await a.sql(`insert into city (country_id, name) select id, 'in ' || name from country, generate_series(1, 3)`)
    await a.sql(`insert into street (city, name) select uuid, name from city, generate_series(1, 4)`)
    await pullAll(b, a)
    t.match(await counted(b), { country: 1, city: 3, street: 12 })
    const held = await waiting(b)
    t.same(
      held.map((row) => `${row.resource} ${row.code}`).filter((text, n, all) => all.indexOf(text) === n),
      ['city SYNC_RECORD_PARENT_MISSING', 'country SYNC_RECORD_CONSTRAINT', 'street SYNC_RECORD_PARENT_MISSING'],
    )
    t.match(held[0], { reason: /country_id refers to country .*, which is not here yet/ })
    t.equal(
      (await listQuarantine(b.store.db, { limit: 100 })).filter((entry) => entry.waitsFor?.resource === 'city').length,
      12,
    )
    t.match(totalOf(await pullAll(b, a)), { applied: 0 }, 'while it is missing nothing is tried in vain')
    t.same(
      (await waiting(b)).map((row) => row.attempts),
      Array(16).fill(1),
    )
    await a.sql(`update country set name = 'good again' where name = 'bad'`)
    t.match(totalOf(await pullAll(b, a)), { applied: 16 })
    t.same(await waiting(b), [])
    t.match(await counted(b), { country: 2, city: 6, street: 24 })
    const joined = `select s.uuid, s.name, c.uuid as city, k.uuid as country, k.name as of from street s join city c on c.uuid = s.city join country k on k.id = c.country_id order by 1`
    t.same(await b.sql(joined), await a.sql(joined))
    t.same(await versionsOf(b), await versionsOf(a))

    await t.test('deletions arrive parents first and end with nothing left', async (t) => {
      await a.sql('delete from street; delete from city; delete from country')
      await pullAll(b, a)
      t.same(await waiting(b), [])
      t.match(await counted(b), { country: 0, city: 0, street: 0 })
      t.same(await versionsOf(b), await versionsOf(a))
    })
  },
)

t.test('a deleted parent waits while records that only this site has still refer to it', async (t) => {
  const cascading = TREE.replaceAll('references country', 'references country on delete cascade').replaceAll(
    'references city (uuid)',
    'references city (uuid) on delete cascade',
  )
  const [a, b] = await pair(cascading, TREE_TABLES)
  await a.sql(`insert into country (name) values ('one')`)
  await syncOnce(b, a)
  await b.sql(`insert into city (country_id, name) select id, 'only at b' from country`)
  await a.sql('delete from country')
  await pullAll(b, a)
  t.match(await counted(b), { country: 1, city: 1 }, 'no cascade deletes what the peer has never seen')
  t.match(await waiting(b), [
    {
      resource: 'country',
      code: 'SYNC_RECORD_STILL_REFERENCED',
      reason: /rows of public.city still refer to it by country_id/,
    },
  ])
  await b.sql('delete from city')
  await pullAll(b, a)
  t.match(await counted(b), { country: 0, city: 0 })
  t.same(await waiting(b), [])

  await t.test('also by a key of several columns', async (t) => {
    const wide = `create table area (id uuid primary key, x int, y int, unique (x, y)); create table spot (id uuid primary key, ax text, x int, y int, foreign key (x, y) references area (x, y) on delete cascade)`
    const [c, d] = await pair(wide, ['area', 'spot'])
    await c.sql(`insert into area values ('${id(1)}', 1, 2)`)
    await syncOnce(d, c)
    await d.sql(`insert into spot values ('${id(2)}', '', 1, 2)`)
    await c.sql('delete from area')
    await pullAll(d, c)
    t.match(await counted(d, ['area', 'spot']), { area: 1, spot: 1 })
    t.match(await waiting(d), [{ code: 'SYNC_RECORD_STILL_REFERENCED', reason: /by x, y/ }])
  })
})

t.test('references to themselves and in circles arrive in any order, with local numbers', async (t) => {
  const ddl = `
    create table person (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text, boss_id int references person, team_id int);
    create table team (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text, lead_id int not null references person);
    alter table person add foreign key (team_id) references team`
  const [a, b] = await pair(ddl, ['person', 'team'])
  await b.sql(`insert into person (name) values ('x'), ('y'); delete from person`)
  await a.sql(`insert into person (name) select 'p' || n from generate_series(1, 9) n`)
  await a.sql(`insert into team (name, lead_id) select 't' || id, id from person where id <= 3`)
  await a.sql(`update person set boss_id = 1 + id % 9, team_id = 1 + id % 3`)
  const graph = `select p.name, b.name as boss, t.name as team, l.name as lead from person p left join person b on b.id = p.boss_id left join team t on t.id = p.team_id left join person l on l.id = t.lead_id order by 1`
  await syncOnce(b, a, { limits: { batchRowsMax: 2 } })
  t.same(await b.sql(graph), await a.sql(graph))
  t.same(await versionsOf(b), await versionsOf(a), 'filling in a late reference is no change')
  t.same(await b.sql('select * from syncline.pending_ref'), [])
  t.same(await waiting(b), [])
  await b.sql(
    `update person set boss_id = (select id from person where name = 'p5') where name = 'p1'; update person set boss_id = null where name = 'p2'`,
  )
  await syncOnce(b, a)
  t.same(await a.sql(graph), await b.sql(graph))
  await a.sql(
    `update person set boss_id = null, team_id = null; delete from team; delete from person where name > 'p4'`,
  )
  await syncOnce(b, a)
  await syncOnce(b, a)
  t.same(await b.sql(graph), await a.sql(graph))
  t.same(await versionsOf(b), await versionsOf(a))

  await t.test(
    'a reference whose target is still missing travels on, and what the application chose meanwhile stays',
    async (t) => {
      const chain = await Promise.all(
        ['u', 'v', 'w'].map((name) => sites.make(`${name}${++serial}`, ddl, ['person', 'team'])),
      )
      const [u, v, w] = chain as [Site, Site, Site]
      await introduce(u, v)
      await introduce(v, w)
      await u.sql(
        `insert into person (uuid, name) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'p' || n from generate_series(1, 4) n`,
      )
      await u.sql(
        `update person set boss_id = (select id from person where name = 'p4') where name in ('p1', 'p2', 'p3')`,
      )
      await v.sql(`alter table person add constraint not_yet check (name <> 'p4')`)
      await pullAll(v, u)
      t.same(
        await v.sql('select name, boss_id from person order by 1'),
        ['p1', 'p2', 'p3'].map((name) => ({ name, boss_id: null })),
      )
      await v.sql(`update person set name = 'P2' where name = 'p2'`)
      await v.sql(`update person set boss_id = (select id from person where name = 'p1') where name = 'p3'`)
      await pullAll(w, v)
      t.same(
        await w.sql('select target_record_id from syncline.pending_ref order by record_id'),
        [id(4), id(4)].map((target_record_id) => ({ target_record_id })),
      )
      await v.sql('alter table person drop constraint not_yet')
      await due(v)
      for (let n = 0; n < 2; n++) {
        await syncOnce(v, u)
        await syncOnce(w, v)
      }
      const bosses = `select p.name, b.name as boss from person p left join person b on b.id = p.boss_id order by 1`
      const expected = [
        { name: 'P2', boss: 'p4' },
        { name: 'p1', boss: 'p4' },
        { name: 'p3', boss: 'p1' },
        { name: 'p4', boss: null },
      ]
      for (const site of [u, v, w])
        t.same(await site.sql(`${bosses.replace('order by 1', 'order by p.name collate "C"')}`), expected)
    },
  )
})

t.test('unique values that move from record to record arrive in one batch', async (t) => {
  const ddl = 'create table item (id uuid primary key, name text, code text unique, n int)'
  const [a, b] = await pair(ddl, ['item'])
  await a.sql(fill(8))
  await syncOnce(b, a)
  await a.sql(`delete from item where n = 1; insert into item (id, code) values ('${id(20)}', 'c1')`)
  await a.sql(
    `update item set code = 'free' where n = 8; update item set code = 'c8' where n = 7; update item set code = 'c7' where n = 6; update item set code = 'c6' where n = 5`,
  )
  await a.sql(
    `update item set code = 'z' where n = 2; update item set code = 'c2' where n = 3; update item set code = 'c3' where n = 4`,
  )
  await pullAll(b, a)
  t.same(await waiting(b), [])
  t.same(await b.sql('select * from item order by id'), await a.sql('select * from item order by id'))
})

t.test('a conflict whose other version misses its parent is not taken for the same', async (t) => {
  const ddl = `create table parent (id serial primary key, uuid uuid not null unique, ok bool); create table item (id uuid primary key, parent_id int references parent)`
  const [a, b] = await pair(ddl, ['parent', 'item'], 'alter table parent add check (ok)')
  await a.sql(`insert into item values ('${id(1)}')`)
  await syncOnce(b, a)
  await b.sql(`insert into parent (uuid, ok) values ('${id(8)}', true)`)
  await b.sql(`update item set parent_id = 1; update item set parent_id = null`)
  await a.sql(`insert into parent (uuid, ok) values ('${id(9)}', false)`)
  await a.sql(`update item set parent_id = 1`)
  await pullAll(b, a)
  t.same(
    (await waiting(b)).map((row) => row.code),
    ['SYNC_RECORD_PARENT_MISSING', 'SYNC_RECORD_CONSTRAINT'],
  )
  await a.sql('update parent set ok = true')
  await due(b)
  await syncOnce(b, a)
  await syncOnce(b, a)
  const parents = 'select p.uuid from item left join parent p on p.id = item.parent_id'
  t.same(await b.sql(parents), [{ uuid: id(9) }])
  t.same(await a.sql(parents), [{ uuid: id(9) }])
  t.same(await versionsOf(b), await versionsOf(a))
})

t.test(
  'a conflict that was settled but could not be written is not forgotten when the record changes here',
  async (t) => {
    const [a, b] = await pair(ITEM, ['item'], 'alter table item add constraint small check (n < 50)')
    await a.sql(fill(2))
    await syncOnce(b, a)
    await b.sql(`update item set name = 'b' where n = 1`)
    await a.sql(`update item set name = 'a', n = 99 where n = 1`)
    const task = { onConflict: 'theirs' }
    await pullAll(b, a, { task })
    t.match(await waiting(b), [{ record_id: id(1), code: 'SYNC_RECORD_CONSTRAINT' }])
    await b.sql(`update item set name = 'b again' where n = 1`)
    await a.sql(`update item set name = 'other' where n = 2`)
    await pullAll(b, a, { task })
    const again = await serveChanges(a.store, linkOf(a, b), { resource: 'item' }, LIMITS)
    await applyPull(b.store, linkOf(b, a), { task: { ...TASK, ...task }, batch: again, runId: null }, LIMITS)
    t.match(await waiting(b), [{ record_id: id(1) }], 'it waits on')
    await b.sql('alter table item drop constraint small')
    await due(b)
    await pullAll(b, a, { task })
    t.same(await waiting(b), [])
    t.match(
      await b.sql(`select count(*)::int as n from syncline.history where data ->> 'name' in ('a', 'b again')`),
      [{ n: 1 }],
      'one of the two is here, the other in history',
    )
  },
)

t.test(
  'a waiting record is replaced by what its peer says later, released by a deletion, or by leaving the filter',
  async (t) => {
    const [a, b] = await pair(ITEM, ['item'], 'alter table item add check (n < 50)')
    await a.sql(fill(4))
    await a.sql('update item set n = 60 + n')
    await pullAll(b, a)
    t.equal((await waiting(b)).length, 4)
    await a.sql(
      `update item set n = 70 where id = '${id(1)}'; update item set n = 2 where id = '${id(2)}'; delete from item where id = '${id(3)}'`,
    )
    await pullAll(b, a)
    t.match(await waiting(b), [
      { record_id: id(1), attempts: 2 },
      { record_id: id(4), attempts: 1 },
    ])
    t.equal((await recordOf(b, id(3)))?.deleted, true)
    await pullAll(b, a, { filter: 'n < 70' })
    await a.sql(`update item set n = 80 where id = '${id(4)}'`)
    await pullAll(b, a, { filter: 'n < 70' })
    t.match(await waiting(b), [{ record_id: id(1) }])
    const [entry] = await listQuarantine(b.store.db, { limit: 10 })
    t.equal(await retryNow(b.store.db, entry?.id ?? ''), true)
    t.equal(await discardQuarantined(b.store.db, entry?.id ?? '', { by: 'a person' }), true)
    t.equal(await discardQuarantined(b.store.db, entry?.id ?? '', { by: 'a person' }), false)
    t.match(
      await b.sql(`select reason, data -> 'line' is not null as kept from syncline.history where reason = 'discarded'`),
      [{ kept: true }],
    )
  },
)

t.test('a record that waited and then met a conflict for a person waits there only', async (t) => {
  const [a, b] = await pair(ITEM, ['item'], `alter table item add constraint small check (n < 50)`)
  await a.sql(fill(1))
  await syncOnce(b, a)
  await a.sql(`update item set n = 99`)
  const task = { onConflict: 'ask' }
  const { createTask } = await import('../../src/store/index.ts')
  await createTask(b.store.db, { peerId: peerOf(b, a).id, resource: 'item', mode: 'pull', onConflict: 'ask' })
  await pullAll(b, a, { task })
  t.equal((await waiting(b)).length, 1)
  await b.sql(`update item set name = 'meanwhile'`)
  await due(b)
  await pullAll(b, a, { task })
  t.same(await waiting(b), [])
  t.equal((await b.sql('select * from syncline.conflict where resolved_at is null')).length, 1)
})

t.test('I11: fields that the table has not are kept with the record when a site sends them', async (t) => {
  const ddl = 'create table item (id uuid primary key, name text'
  serial++
  const a = await sites.make(`a${serial}`, `${ddl}, extra text, more jsonb)`, ['item'])
  const b = await sites.make(`b${serial}`, `${ddl})`, ['item'])
  await introduce(a, b)
  await a.sql(`insert into item values ('${id(1)}', 'one', 'kept', '{"a": null}'), ('${id(2)}', 'two', null, null)`)
  t.match(totalOf(await pullAll(b, a)), { applied: 2 })
  t.same(await b.sql('select id, name from item order by 1'), await a.sql('select id, name from item order by 1'))
  t.same(await b.sql('select record_id, fields from syncline.parked order by 1'), [
    { record_id: id(1), fields: { extra: 'kept', more: { a: null } } },
    { record_id: id(2), fields: { extra: null, more: null } },
  ])
  await a.sql(`update item set extra = 'newer' where id = '${id(1)}'`)
  await pullAll(b, a)
  t.match(await b.sql('select fields from syncline.parked order by record_id'), [{ fields: { extra: 'newer' } }, {}])

  await t.test('and fill the column when the table gets it', async (t) => {
    const before = await versionsOf(b)
    await b.sql('alter table item add extra int')
    await t.rejects(attach(b.store, [{ table: 'item' }]), {
      code: 'SYNC_RESOURCE_UNSUITABLE',
      message: /"extra" does not fit it: .*newer/,
    })
    await b.sql('alter table item alter extra type text; alter table item add more jsonb')
    await attach(b.store, [{ table: 'item' }])
    t.same(await b.sql('select * from item order by 1'), await a.sql('select * from item order by 1'))
    t.same(await b.sql('select * from syncline.parked'), [])
    t.match(await versionsOf(b), before, 'no row is a new change by that')
    await b.sql(`update item set name = 'from b' where id = '${id(1)}'`)
    await syncOnce(b, a)
    t.match(await a.sql(`select name, extra from item where id = '${id(1)}'`), [{ name: 'from b', extra: 'newer' }])
  })
})

t.test('I10: what waited is retried within the grant of now; without one it waits on', async (t) => {
  const [a, b] = await pair(TREE, TREE_TABLES)
  const changes: readonly Change[] = [
    { kind: 'put', id: id(2), data: { name: 'early' }, refs: { country_id: { resource: 'country', id: id(1) } } },
  ]
  const batches = linesOfChanges('city', changes, { country_id: 'country' })
  const push = () =>
    receiveChanges(b.store, linkOf(b, a), { resource: 'city', batches, byHand: true, runId: null }, LIMITS)
  t.match((await push()).counts, { quarantined: 1 })
  await b.sql(`insert into country (uuid, name) values ('${id(1)}', 'late')`)
  await b.sql(`delete from syncline.peer_grant where direction = 'push'`)
  t.match((await redrive(b.store, b.self, null, LIMITS)).counts, { applied: 0 })
  t.equal((await waiting(b)).length, 1)
  await setGrant(b.store.db, { peerId: peerOf(b, a).id, resource: 'city', direction: 'push' })
  t.match((await redrive(b.store, b.self, null, LIMITS)).counts, { applied: 1 })
  t.same(await b.sql('select name from city'), [{ name: 'early' }])
})

t.test(
  'I8: a record with writes behind its fields that cannot be waits alone, and comes when its site sends it anew',
  async (t) => {
    const [a, b] = await pair('create table place (id text primary key, name text, note text)', ['place'])
    for (const site of [a, b])
      await createTask(site.store.db, {
        peerId: peerOf(site, site === a ? b : a).id,
        resource: 'place',
        mode: 'both',
        onConflict: 'merge',
      })
    await a.sql(`insert into place values ('bad', '1', 'x'), ('good', '1', 'x')`)
    await a.sql(`update place set name = '2'`)
    const served = await serveChanges(a.store, linkOf(a, b), { resource: 'place' }, LIMITS)
    t.match(served.text, /"fields"/)
    // What a faulty program made of it.
    const broken = served.text.replace(/("bad"\t.*?"name": \{"dots": \{"0": )\d+/, '$19007199254740990')
    t.not(broken, served.text)
    const report = await applyPull(
      b.store,
      linkOf(b, a),
      { task: TASK, batch: { ...served, text: broken }, runId: null },
      LIMITS,
    )
    t.match(report.counts, { applied: 1, quarantined: 1 })
    t.match(await waiting(b), [
      { record_id: 'bad', code: 'SYNC_RECORD_INVALID', reason: /names a write of "0" that the version has not seen/ },
    ])
    await due(b)
    await redrive(b.store, b.self, null, LIMITS)
    t.match(await waiting(b), [{ record_id: 'bad' }], 'trying again makes it no better')
    t.same(await b.sql('select id from place'), [{ id: 'good' }])
    // The same fault in its own database is never sent: the write stands for the last one that its version has seen.
    await a.sql(
      `update syncline.record set fields = jsonb_set(fields, '{name,dots}', (select jsonb_build_object(origin::text, 9007199254740990))) where record_id = 'bad'`,
    )
    await a.sql(`update syncline.record set xact = pg_current_xact_id() where record_id = 'bad'`)
    await pullAll(b, a)
    t.same(await waiting(b), [])
    t.same(await b.sql('select * from place order by id'), await a.sql('select * from place order by id'))
    await b.sql(`update place set note = 'of b' where id = 'bad'`)
    await a.sql(`update place set name = 'of a' where id = 'bad'`)
    await syncOnce(b, a, { task: { onConflict: 'merge' } })
    await syncOnce(b, a, { task: { onConflict: 'merge' } })
    for (const site of [a, b])
      t.match(await site.sql(`select name, note from place where id = 'bad'`), [{ name: 'of a', note: 'of b' }])
  },
)
