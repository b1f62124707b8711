import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { attach, checkResources, readSelf } from '../../src/store/index.ts'
import { changesOfLines, linesOfChanges } from '../../src/sync/index.ts'
import {
  chance,
  introduce,
  pullAll,
  recordOf,
  type Site,
  serveAll,
  siteFactory,
  syncOnce,
  versionsOf,
} from '../support/sites.ts'

const sites = await siteFactory(t)

const DDL = `
  create table item (id uuid primary key default gen_random_uuid(), name text, n int, amount numeric, span interval, temperature float8)`

let serial = 0

/** Two sites with the same tables that know each other. */
async function pair(ddl = DDL, tables: readonly string[] = ['item']): Promise<readonly [Site, Site]> {
  serial++
  const a = await sites.make(`a${serial}`, ddl, tables)
  const b = await sites.make(`b${serial}`, ddl, tables)
  await introduce(a, b)
  return [a, b]
}

/** Ids that the peer hears of after `action`, and the feed's place behind them. */
async function heard(a: Site, b: Site, resource: string, action: () => Promise<unknown>): Promise<readonly string[]> {
  const { checkpoint } = await serveAll(a, b, resource)
  await action()
  const { batches } = await serveAll(a, b, resource, { after: checkpoint })
  return batches
    .flatMap((batch) => changesOfLines(batch))
    .map((change) => `${change.kind} ${change.id}`)
    .sort()
}

const id = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`

t.test('I1: a transaction that commits late is never skipped', async (t) => {
  const [a, b] = await pair()
  const early = await a.connect()
  await early.query('begin')
  await early.query(`insert into item (id, name) values ('${id(1)}', 'early')`)
  await a.sql(`insert into item (id, name) values ('${id(2)}', 'late')`)
  const meanwhile = await serveAll(a, b, 'item')
  t.same(meanwhile.ids, [], 'what was written behind an open transaction waits for it')
  await early.query('commit')
  const then = await serveAll(a, b, 'item', { after: meanwhile.checkpoint })
  t.same([...then.ids].sort(), [id(1), id(2)])

  await t.test('also when it began before what was served already', async (t) => {
    await early.query('begin')
    await early.query(`select pg_current_xact_id()`)
    await a.sql(`insert into item (id, name) values ('${id(3)}', 'other')`)
    const between = await serveAll(a, b, 'item', { after: then.checkpoint })
    await early.query(`insert into item (id, name) values ('${id(4)}', 'late')`)
    await early.query(`update item set n = 7 where id = '${id(3)}'`)
    await early.query('commit')
    const all = await serveAll(a, b, 'item', { after: between.checkpoint })
    t.same([...between.ids, ...all.ids].sort(), [id(3), id(4)])
  })
})

t.test('I1: nothing is lost with twenty writers at once and a reader that pulls meanwhile', async (t) => {
  const [a, b] = await pair()
  const random = chance(42)
  const writers = Array.from({ length: 20 }, async () => {
    const client = await a.connect()
    for (let n = 0; n < 40; n++) {
      const target = id(random(60))
      const statement = [
        `insert into item (id, name) values ('${target}', 'w${random(99)}') on conflict (id) do update set name = excluded.name`,
        `update item set n = ${random(99)} where id = '${target}'`,
        `delete from item where id = '${target}'`,
        `update item set id = '${id(random(60) + 100)}' where id = '${target}'`,
      ][random(4)] as string
      await client.query('begin')
      try {
        await client.query(statement)
        // Written once and never again: no later change would make good for it.
        await client.query(`insert into item (name) values ('once')`)
        if (random(3) === 0) await sleep(random(30))
        await client.query(random(8) === 0 ? 'rollback' : 'commit')
      } catch (error) {
        // Two writers chose the same new identity, or waited for each other: the application's own affair.
        if (!['23505', '40P01'].includes((error as { code: string }).code)) throw error
        await client.query('rollback')
      }
    }
  })
  let writing = true
  const reader = (async () => {
    let pulled = 0
    while (writing) pulled += (await pullAll(b, a, { limits: { batchRowsMax: 200 } })).lines
    return pulled
  })()
  await Promise.all(writers)
  writing = false
  t.ok((await reader) > 0, 'the reader read while the writers wrote')
  await pullAll(b, a)
  const rows = 'select id, name, n from item order by id'
  t.same(await b.sql(rows), await a.sql(rows))
  t.same(await versionsOf(b), await versionsOf(a))
  t.same(await b.sql('select * from syncline.quarantine'), [])
})

t.test('an update that changes nothing is no change', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name, n) select gen_random_uuid(), 'x', n from generate_series(1, 3) n`)
  t.same(await heard(a, b, 'item', () => a.sql(`update item set name = name, n = n + 0`)), [])
  t.same(await heard(a, b, 'item', () => a.sql(`update item set name = 'y' where false`)), [])
  t.equal((await heard(a, b, 'item', () => a.sql(`update item set n = 2`))).length, 2, 'only the rows that change')
})

t.test('I1: a value that is equal but not the same is a change', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, amount, span, temperature) values ('${id(1)}', 1.0, '30 days', 0)`)
  for (const change of [`amount = 1.00`, `span = '1 mon'`, `temperature = '-0'`]) {
    t.same(await heard(a, b, 'item', () => a.sql(`update item set ${change}`)), [`put ${id(1)}`], change)
    await syncOnce(b, a)
    const text = 'select item::text from item'
    t.same(await b.sql(text), await a.sql(text), change)
  }
})

t.test('a changed identity is a deletion and a new record', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'one'), ('${id(2)}', 'two')`)
  await syncOnce(b, a)
  t.same(await heard(a, b, 'item', () => a.sql(`update item set id = '${id(3)}' where id = '${id(1)}'`)), [
    `delete ${id(1)}`,
    `put ${id(3)}`,
  ])
  t.equal((await recordOf(a, id(1)))?.deleted, true)
  await syncOnce(b, a)
  t.same(await b.sql('select id, name from item order by name'), await a.sql('select id, name from item order by name'))
  await t.test('and back again brings it back to life', async (t) => {
    await a.sql(`update item set id = '${id(1)}' where id = '${id(3)}'`)
    await syncOnce(b, a)
    t.same(await b.sql('select id from item order by id'), [{ id: id(1) }, { id: id(2) }])
    t.equal((await recordOf(b, id(1)))?.deleted, false)
  })
})

t.test('I1: an identity that one row of a statement leaves and another takes lives on', async (t) => {
  const [a, b] = await pair('create table item (id text primary key, name text)')
  await a.sql(`insert into item values ('b', 'two'), ('a', 'one')`)
  await syncOnce(b, a)
  const all = 'select id, name from item order by id'
  const change = () => a.sql(`update item set id = case id when 'b' then 'c' else 'b' end`)
  t.same(await heard(a, b, 'item', change), ['delete a', 'put b', 'put c'])
  await syncOnce(b, a)
  t.same(await b.sql(all), await a.sql(all))
})

t.test('I1: who refers by number to a row whose identity changes is a changed record', async (t) => {
  const ddl = `
    create table node (id serial primary key, uuid uuid not null unique, up int references node);
    create table leaf (id text primary key, node_id int references node)`
  const [a, b] = await pair(ddl, ['node', 'leaf'])
  await a.sql(`insert into node (uuid) values ('${id(1)}'), ('${id(2)}')`)
  await a.sql(`insert into node (uuid, up) values ('${id(3)}', 1), ('${id(4)}', 2)`)
  await a.sql(`insert into leaf values ('on 1', 1), ('on 2', 2), ('on none', null)`)
  await syncOnce(b, a)
  const rename = () => a.sql(`update node set uuid = '${id(9)}' where id = 1`)
  t.same(await heard(a, b, 'leaf', rename), ['put on 1'])
  t.same(await heard(a, b, 'node', () => a.sql(`update node set uuid = '${id(1)}' where id = 1`)), [
    `delete ${id(9)}`,
    `put ${id(1)}`,
    `put ${id(3)}`,
  ])
  await rename()
  for (let n = 0; n < 3; n++) await syncOnce(b, a)
  const graph = `select n.uuid, u.uuid as up, (select string_agg(l.id, ',' order by l.id) from leaf l where l.node_id = n.id) as leaves
    from node n left join node u on u.id = n.up order by 1`
  t.same(await b.sql(graph), await a.sql(graph))
  t.same(await versionsOf(b), await versionsOf(a))
})

t.test('TRUNCATE deletes every record, COPY and MERGE make records', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'one'), ('${id(2)}', 'two')`)
  await a.sql(`delete from item where id = '${id(2)}'`)
  const tomb = await recordOf(a, id(2))
  t.same(await heard(a, b, 'item', () => a.sql('truncate item')), [`delete ${id(1)}`])
  t.same(await recordOf(a, id(2)), tomb, 'what was deleted before is left alone')
  const csv = `${id(5)},five\n${id(6)},six\n`
  const copy = () =>
    sites.cluster.run(
      'psql',
      ['-q', '-d', a.url, '-c', 'copy item (id, name) from stdin (format csv)'],
      Buffer.from(csv),
    )
  t.same(await heard(a, b, 'item', copy), [`put ${id(5)}`, `put ${id(6)}`])
  if (sites.cluster.version < 15) return
  const merge = `
    merge into item t using (values ('${id(5)}'::uuid, 'V'), ('${id(6)}', null), ('${id(7)}', 'VII')) s (id, name) on s.id = t.id
     when matched and s.name is null then delete when matched then update set name = s.name
     when not matched then insert (id, name) values (s.id, s.name)`
  t.same(await heard(a, b, 'item', () => a.sql(merge)), [`delete ${id(6)}`, `put ${id(5)}`, `put ${id(7)}`])
})

t.test('INSERT … ON CONFLICT DO UPDATE is captured as what it does', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'one')`)
  const upsert = (name: string) => () =>
    a.sql(
      `insert into item (id, name) values ('${id(1)}', '${name}'), ('${id(2)}', 'two') on conflict (id) do update set name = excluded.name`,
    )
  t.same(await heard(a, b, 'item', upsert('uno')), [`put ${id(1)}`, `put ${id(2)}`])
  t.same(await heard(a, b, 'item', upsert('uno')), [], 'the same again changes nothing')
})

t.test('a rolled-back savepoint leaves no change behind, its transaction does', async (t) => {
  const [a, b] = await pair()
  const client = await a.connect()
  const action = async () => {
    await client.query('begin')
    await client.query(`insert into item (id) values ('${id(1)}')`)
    await client.query('savepoint s')
    await client.query(`insert into item (id) values ('${id(2)}')`)
    await client.query(`delete from item where id = '${id(1)}'`)
    await client.query('rollback to savepoint s')
    await client.query(`insert into item (id) values ('${id(3)}')`)
    await client.query('commit')
  }
  t.same(await heard(a, b, 'item', action), [`put ${id(1)}`, `put ${id(3)}`])
})

t.test('what a foreign key does to other tables is captured there', async (t) => {
  const ddl = `
    create table parent (id uuid primary key, code text);
    create table child (id uuid primary key, parent_id uuid references parent on delete cascade on update cascade);
    create table mention (id uuid primary key, parent_id uuid references parent on delete set null on update cascade)`
  const [a, b] = await pair(ddl, ['parent', 'child', 'mention'])
  await a.sql(`insert into parent values ('${id(1)}', 'p')`)
  await a.sql(`insert into child values ('${id(2)}', '${id(1)}')`)
  await a.sql(`insert into mention values ('${id(3)}', '${id(1)}')`)
  await syncOnce(b, a)
  const children = await heard(a, b, 'child', () => a.sql(`update parent set id = '${id(9)}'`))
  t.same(children, [`put ${id(2)}`])
  await syncOnce(b, a)
  await syncOnce(b, a)
  for (const table of ['parent', 'child', 'mention']) {
    t.same(await b.sql(`select * from ${table}`), await a.sql(`select * from ${table}`), table)
  }
  t.same(await heard(a, b, 'mention', () => a.sql(`delete from parent`)), [`put ${id(3)}`])
  t.equal((await recordOf(a, id(2)))?.deleted, true)
  await syncOnce(b, a)
  await syncOnce(b, a)
  t.same(await b.sql(`select * from mention`), [{ id: id(3), parent_id: null }])
  t.same(
    await b.sql(`select (select count(*)::int from parent) as parents, (select count(*)::int from child) as children`),
    [{ parents: 0, children: 0 }],
  )
  t.same(await versionsOf(b), await versionsOf(a))
})

t.test('writes of a session in the role of a replica are captured', async (t) => {
  const [a, b] = await pair()
  const client = await a.connect()
  await client.query(`set session_replication_role = replica`)
  t.same(await heard(a, b, 'item', () => client.query(`insert into item (id) values ('${id(1)}')`)), [`put ${id(1)}`])
  t.same(await heard(a, b, 'item', () => client.query(`truncate item`)), [`delete ${id(1)}`])
})

t.test('I1: writes in one transaction and within one microsecond each get a later clock', async (t) => {
  const [a] = await pair()
  const [{ clocks } = {}] = await a
    .sql(`
    create function pg_temp.race() returns int8[] language plpgsql as $$
    declare clocks int8[] := '{}';
    begin
      insert into item (id, n) values ('${id(1)}', 0);
      for i in 1..50 loop
        update item set n = i where id = '${id(1)}';
        clocks := clocks || (select clock from syncline.record where record_id = '${id(1)}');
      end loop;
      return clocks;
    end $$;
    select 1`)
    .then(() => a.sql(`select pg_temp.race()::text[] as clocks`))
  const numbers = (clocks as string[]).map(Number)
  t.equal(new Set(numbers).size, 50)
  t.same(
    numbers,
    numbers.toSorted((x, y) => x - y),
  )
})

t.test('I1: a clock set back an hour loses no write and reuses no clock', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'from the future'), ('${id(2)}', 'now')`)
  // The same as setting the clock back now: what is written already is an hour ahead.
  await a.sql(`update syncline.record set clock = clock + 3600000000`)
  await pullAll(b, a, { limits: { clockAheadMaxMs: 7_200_000 } })
  const before = Number((await recordOf(a, id(1)))?.clock)
  await a.sql(`update item set name = 'after' where id = '${id(1)}'`)
  t.equal(Number((await recordOf(a, id(1)))?.clock), before + 1)
  await a.sql(`delete from item where id = '${id(2)}'`)
  await a.sql(`insert into item (id, name) values ('${id(2)}', 'again')`)
  await pullAll(b, a, { limits: { clockAheadMaxMs: 7_200_000 } })
  t.same(await b.sql('select name from item order by id'), [{ name: 'after' }, { name: 'again' }])

  await t.test('and the clock of another site pulls ours ahead by five minutes at most', async (t) => {
    await b.sql(`update item set name = 'edited at b' where id = '${id(1)}'`)
    const [{ ahead } = {}] = await b.sql(
      `select clock - extract(epoch from clock_timestamp()) * 1000000 as ahead from syncline.record where record_id = '${id(1)}'`,
    )
    t.ok(Number(ahead) > 299_000_000 && Number(ahead) <= 300_000_000, String(ahead))
    await syncOnce(a, b)
    t.same(await a.sql(`select name from item where id = '${id(1)}'`), [{ name: 'edited at b' }], 'cause beats clock')
  })
})

t.test('I6: a database restored from a dump begins a new log, and its peers go on', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'kept'), ('${id(2)}', 'kept')`)
  await syncOnce(b, a)
  const dump = await sites.cluster.dump(new URL(a.url).pathname.slice(1))
  const old = await serveAll(a, b, 'item')
  await a.sql(`update item set name = 'lost here, kept by the peer' where id = '${id(1)}'`)
  await syncOnce(b, a)
  const copy = await sites.cluster.createDatabase()
  await sites.cluster.restore(copy.name, dump)
  const again = await sites.open(a.name, copy.url, a.key)
  for (const [name, peer] of a.peers) again.peers.set(name, peer)
  t.equal(again.self.log, 'renewed')
  t.not((await readSelf(again.store.db)).logId, a.self.logId)
  t.same(await checkResources(again.store.db), [{ resource: 'item', faults: [] }])
  await t.rejects(serveAll(again, b, 'item', { after: old.checkpoint }), { code: 'SYNC_CHECKPOINT_GONE' })
  await again.sql(`update item set name = 'written after the restore' where id = '${id(2)}'`)
  t.equal((await recordOf(again, id(2)))?.origin, `${a.self.uuid}/${again.self.logId}`)
  await b.sql('delete from syncline.checkpoint')
  await syncOnce(b, again)
  const names = 'select name from item order by id'
  t.same(await b.sql(names), [{ name: 'lost here, kept by the peer' }, { name: 'written after the restore' }])
  await again.sql(`update syncline.record set source = null`)
  await b.sql('delete from syncline.checkpoint')
  await b.sql(`update syncline.record set source = null`)
  await syncOnce(b, again)
  t.same(await again.sql(names), await b.sql(names), 'what was lost comes back from the peer')
})

t.test('an application role without any right on schema syncline can still write its tables', async (t) => {
  const [a, b] = await pair()
  const role = await sites.cluster.createRole()
  await a.sql(`grant select, insert, update, delete, truncate on item to ${role}`)
  const client = await a.connect()
  await client.query(`set session authorization ${role}`)
  await t.rejects(client.query('select * from syncline.record'), { code: '42501' })
  const action = async () => {
    await client.query(`insert into item (id) values ('${id(1)}'), ('${id(2)}')`)
    await client.query(`update item set n = 1 where id = '${id(1)}'`)
    await client.query(`delete from item where id = '${id(2)}'`)
    await client.query('create temp table record (resource_id int)')
    await client.query(`update item set id = '${id(3)}' where id = '${id(1)}'`)
  }
  t.same(await heard(a, b, 'item', action), [`delete ${id(1)}`, `delete ${id(2)}`, `put ${id(3)}`])
  t.same(await heard(a, b, 'item', () => client.query('truncate item')), [`delete ${id(3)}`])
})

t.test('a site whose role is no superuser works', async (t) => {
  const role = await sites.cluster.createRole()
  const owned = { owner: role }
  const [a, b] = [await sites.make('plain-a', DDL, ['item'], owned), await sites.make('plain-b', DDL, ['item'], owned)]
  await introduce(a, b)
  await a.sql(`insert into item (id, name) values ('${id(1)}', 'one')`)
  await syncOnce(b, a)
  t.same(await b.sql('select name from item'), [{ name: 'one' }])
  t.same(await checkResources(a.store.db), [{ resource: 'item', faults: [] }])
})

t.test('a partitioned table is captured by its root and by every partition', async (t) => {
  const ddl = `
    create table reading (id text primary key, v int) partition by list (id);
    create table reading_a partition of reading for values in ('a1', 'a2', 'a3');
    create table reading_b partition of reading for values in ('b1', 'b2', 'b3')`
  const [a, b] = await pair(ddl, ['reading'])
  const all = () => a.sql(`insert into reading values ('a1', 1), ('b1', 1)`)
  t.same(await heard(a, b, 'reading', all), ['put a1', 'put b1'])
  t.same(await heard(a, b, 'reading', () => a.sql(`insert into reading_a values ('a2', 1)`)), ['put a2'])
  t.same(await heard(a, b, 'reading', () => a.sql(`update reading set v = 2`)), ['put a1', 'put a2', 'put b1'])
  t.same(await heard(a, b, 'reading', () => a.sql(`delete from reading_a where id = 'a2'`)), ['delete a2'])
  t.same(
    await heard(a, b, 'reading', () => a.sql(`update reading set id = 'b2' where id = 'a1'`)),
    ['delete a1', 'put b2'],
    'a row that moves to another partition',
  )
  await a.sql(`insert into reading values ('a3', 1)`)
  t.same(
    await heard(a, b, 'reading', () => a.sql(`truncate reading_a`)),
    ['delete a3'],
    'what lies in other partitions lives on',
  )
  await syncOnce(b, a)
  t.same(await b.sql('select * from reading order by id'), [
    { id: 'b1', v: 2 },
    { id: 'b2', v: 2 },
  ])
  t.same(await heard(a, b, 'reading', () => a.sql(`truncate reading`)), ['delete b1', 'delete b2'])
})

t.test('generated and identity columns stay on their site', async (t) => {
  const ddl = `
    create table line (
      id int generated always as identity primary key, uuid uuid not null unique default gen_random_uuid(),
      price numeric, pieces int, total numeric generated always as (price * pieces) stored, ticket int generated by default as identity)`
  const [a, b] = await pair(ddl, ['line'])
  await b.sql('insert into line (price, pieces) values (1, 1), (2, 2)')
  await b.sql('delete from line')
  await a.sql(`insert into line (uuid, price, pieces) values ('${id(1)}', 2.50, 4)`)
  await syncOnce(b, a)
  const [line] = await b.sql('select * from line')
  t.match(line, { id: 3, uuid: id(1), price: '2.50', pieces: 4, total: '10.00' })
  await b.sql('update line set pieces = 5')
  await syncOnce(b, a)
  t.match((await a.sql('select * from line'))[0], { id: 1, total: '12.50' })
})

t.test('odd names and odd ids travel unharmed', async (t) => {
  const ddl = `
    create schema "Odd ""schema""";
    create table "Odd ""schema"""."Odd Name's" ("sel""ect" text primary key, "from" int, "Größe \\ $1" text, "a.b" text);
    create table plain (id varchar(200) primary key, "order" text)`
  const [a, b] = await pair(ddl, ['plain'])
  for (const site of [a, b]) {
    await attach(site.store, [{ table: `Odd "schema".Odd Name's`, name: 'odd' }])
    for (const [name, peer] of site.peers) {
      await site.sql(
        `insert into syncline.peer_grant (peer_id, resource_id, direction) select $1, id, d from syncline.resource, unnest(array['pull', 'push']) d where name = 'odd'`,
        [peer.id],
      )
      t.ok(name)
    }
  }
  const ids = [
    'a\tb',
    'back\\slash',
    `quo'te"s`,
    'new\nline',
    'ünïcödé',
    '😀',
    ' blank ',
    '\u007f\u0001',
    '$1',
    '%s',
    '[]',
    '"',
    '\u{10ffff}',
    '\ufffd',
    'null',
    '\\t',
    '\\u0041',
  ]
  for (const [n, odd] of ids.entries()) {
    await a.sql(`insert into "Odd ""schema"""."Odd Name's" values ($1, $2, $3, $4)`, [odd, n, odd, odd])
    await a.sql(`insert into plain values ($1, $2)`, [odd, odd])
  }
  const same = async (message: string) => {
    for (const query of [
      `select * from "Odd ""schema"""."Odd Name's" order by "from"`,
      `select * from plain order by id collate "C"`,
    ]) {
      const rows = await a.sql(query)
      t.same(await b.sql(query), rows, message)
      t.equal(rows.length, ids.length)
    }
  }
  await syncOnce(b, a)
  await same('inserted')
  await b.sql(`update "Odd ""schema"""."Odd Name's" set "a.b" = "a.b" || E'\\t'`)
  await b.sql(`update plain set "order" = "order" || E'\\n'`)
  await syncOnce(b, a, { limits: { batchRowsMax: 2 } })
  await same('edited')
  t.same(await versionsOf(b), await versionsOf(a))
  t.same(await checkResources(a.store.db), [
    { resource: 'odd', faults: [] },
    { resource: 'plain', faults: [] },
  ])
})

/** Values of every type that a column may have, as SQL. What stands first is the type. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  bool: ['true', 'false', 'null'],
  int2: ['-32768', '32767'],
  int4: ['-2147483648', '2147483647'],
  int8: ['-9223372036854775808', '9223372036854775807', '9007199254740993'],
  numeric: [
    `'123456789012345678901234567890.123456789012345678901234567890'`,
    `'NaN'`,
    `'-0.00'`,
    `'1.500'`,
    `power(10::numeric, 300)`,
  ],
  'numeric(12,3)': ['1.5', '-999999999.999'],
  float4: [`'NaN'`, `'Infinity'`, `'-Infinity'`, '0.1', '3.4028235e38', `'1e-45'`, `'-0'`],
  float8: [`'NaN'`, `'-Infinity'`, '0.1', '1.7976931348623157e308', `'5e-324'`, `'-0'`, '123456789.12345678'],
  text: [
    `''`,
    `E'\\t\\n\\r\\b\\f\\x01\\x1f\\x7f'`,
    `'{"a":[1]}'`,
    `'ünïcödé 😀 ' || chr(57344) || chr(1114111)`,
    `E'\\\\u0000 \\\\ " '' / <>&'`,
    `'null'`,
    `repeat('x', 20000)`,
  ],
  'char(5)': [`'ab'`, `''`],
  'varchar(5)': [`'abcde'`, `' a '`],
  bytea: [`''`, `'\\x00ff5c0a09'`],
  json: [`'{"b": 1,\n\t"a" :  [1.0, 1e2, null], "b":2}'`, `'"\\u00e4\\t"'`, `'[12345678901234567890.123456789]'`],
  jsonb: [
    `'{"a": {"b": [null, {"c": null}]}, "n": 123456789012345678901234567890, "f": 1.0}'`,
    `'[]'`,
    `'"text"'`,
    `'true'`,
    `'0'`,
  ],
  'int4[]': [`'{}'`, `'{1,null,3}'`, `'{{1,2},{3,4}}'`, `'[0:2]={1,2,3}'`],
  'int8[]': [`'{9007199254740993,-9223372036854775808,null}'`],
  'numeric[]': [`'{1.10,NaN,123456789012345678901234567890.5}'`],
  'text[]': [`array['a,b', '"q"', '{}', null, 'NULL', '', E'\\t\\n\\\\']`, `'{}'`],
  'float8[]': [`'{NaN,Infinity,0.1}'`],
  'bool[]': [`'{t,f,null}'`],
  'timestamptz[]': [`'{"2026-02-03 04:05:06.000001+00",infinity}'`],
  'jsonb[]': [`array['{"a": null}', '[1]']::jsonb[]`],
  'json[]': [`array['{"a":\n1}', '[1.0]']::json[]`],
  'bytea[]': [`array['\\x00', '\\x5c']::bytea[]`],
  mood: [`'so so'`, `'it''s'`],
  'mood[]': [`'{"so so",null}'`],
  email: [`'a@b'`],
  short_list: [`'{1,2}'`],
  note: [`'{"a":\n 1}'`],
  pair: [`row(1, 'a "b", (c)')`, `row(null, '')`],
  'pair[]': [`array[row(1, 'a'), row(2, null)]::pair[]`],
  inet: [`'192.168.0.1/24'`, `'::1'`],
  cidr: [`'10.0.0.0/8'`],
  macaddr: [`'08:00:2b:01:02:03'`],
  date: [`'infinity'`, `'-infinity'`, `'0044-03-15 BC'`, `'5874897-12-31'`, `'2026-02-03'`],
  time: [`'24:00'`, `'00:00:00.000001'`],
  timetz: [`'12:00:00.5+05:30'`],
  timestamp: [`'infinity'`, `'0044-03-15 12:00 BC'`, `'294276-12-31 23:59:59.999999'`, `'2026-02-03 04:05:06.000001'`],
  timestamptz: [
    `'-infinity'`,
    `'4713-01-01 00:00 BC'`,
    `'294276-12-31 23:59:59.999999+00'`,
    `'2026-02-03 04:05:06.7+05:30'`,
  ],
  interval: [`'1 mon'`, `'30 days'`, `'-1 year +2 days -00:00:00.000001'`, `'178000000 years'`],
  uuid: [`'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'`],
  int4range: [`'[1,5)'`, `'empty'`, `'(,)'`],
  tstzrange: [`'[2026-01-01 00:00+00,infinity)'`],
  numrange: [`'[1.50,2.0]'`],
  'bit(3)': [`'101'`],
  varbit: [`'10101'`, `''`],
  xml: [`'<a b="c">&amp;\n</a>'`],
  point: [`'(1.5,-0)'`],
  polygon: [`'((0,0),(1,1),(1,0))'`],
  box: [`'((1,1),(0,0))'`],
  circle: [`'<(0,0),1>'`],
  tsvector: [`'a:1 b:2,3'`],
  '"char"': [`'x'`],
  name: [`'a name'`],
  jsonpath: [`'$.a[*] ? (@ > 1)'`],
}

const TYPES = `
  create type mood as enum ('so so', 'it''s');
  create type pair as (a int, b text);
  create domain email as text check (value like '%@%');
  create domain short_list as int8[] check (array_length(value, 1) < 4);
  create domain note as json`

t.test('a value of every type arrives exactly', async (t) => {
  const types = Object.keys(VALUES)
  const columns = types.map((type, n) => `c${n} ${type}`).join(', ')
  const [a, b] = await pair(`${TYPES}; create table thing (id text primary key, n int, ${columns})`, ['thing'])
  let n = 0
  for (const [at, type] of types.entries()) {
    for (const value of VALUES[type] ?? []) {
      n++
      await a.sql(`insert into thing (id, n, c${at}) values ('${String(n).padStart(4, '0')}', 0, (${value})::${type})`)
    }
  }
  const arrived = async (message: string) => {
    for (const [at, type] of types.entries()) {
      // Between the tokens of a json text a blank takes the place of a line break.
      const text =
        type.startsWith('json') || type === 'note' ? `translate(c${at}::text, e'\\n\\t', '  ')` : `c${at}::text`
      const query = `select id, ${text} as value from thing where c${at} is not null order by id`
      t.same(await b.sql(query), await a.sql(query), `${type} ${message}`)
    }
    t.same(await b.sql('select id, code, reason from syncline.quarantine'), [])
  }
  await syncOnce(b, a)
  await arrived('in lines')
  t.equal((await b.sql('select count(*)::int as n from thing'))[0]?.n, n)

  await t.test('and as an update', async () => {
    await a.sql('update thing set n = 1')
    await syncOnce(b, a)
    await arrived('updated')
  })

  await t.test('and by way of the formats that people read', async (t) => {
    const [c, d] = await pair(`${TYPES}; create table thing (id text primary key, n int, ${columns})`, ['thing'])
    const { batches } = await serveAll(a, b, 'thing', { limits: { batchRowsMax: 50 } })
    for (const batch of batches) {
      const again = linesOfChanges('thing', changesOfLines(batch), {})
      t.equal(again.length, 1)
      const { receiveChanges } = await import('../../src/store/index.ts')
      const peer = c.peers.get(d.name)
      if (peer === undefined) return t.fail('no peer')
      await receiveChanges(
        c.store,
        { self: c.self, peer },
        { resource: 'thing', batches: again, byHand: false, runId: null },
        { batchRowsMax: 100, batchBytesMax: 1 << 22, recordBytesMax: 1 << 20, clockAheadMaxMs: 300_000 },
      )
    }
    for (const [at, type] of types.entries()) {
      // Formats other than lines read json as values, so that only its meaning stays.
      const cast =
        type === 'json' || type === 'note' ? '::jsonb::text' : type === 'json[]' ? '::text::jsonb[]::text' : '::text'
      const query = `select id, c${at}${cast} as value from thing where c${at} is not null order by id`
      t.same(await c.sql(query), await a.sql(query), type)
    }
  })
})

t.test('a change of any type is noticed', async (t) => {
  const types = Object.keys(VALUES)
  const [a, b] = await pair(
    `${TYPES}; create table thing (id text primary key, ${types.map((type, n) => `c${n} ${type}`).join(', ')})`,
    ['thing'],
  )
  await a.sql(`insert into thing (id) values ('x')`)
  for (const [at, type] of types.entries()) {
    for (const value of VALUES[type] ?? []) {
      const set = () => a.sql(`update thing set c${at} = (${value})::${type}`)
      t.same(await heard(a, b, 'thing', set), ['put x'], `${type}: ${value}`)
      t.same(await heard(a, b, 'thing', set), [], `${type}: ${value} again`)
    }
  }
})

t.test('a column that the application drops, renames or adds never makes its own statements fail', async (t) => {
  const [a, b] = await pair()
  await a.sql(`insert into item (id, name, n) values ('${id(1)}', 'one', 1)`)
  const changes = [
    `alter table item drop column n`,
    `alter table item rename column name to title`,
    `alter table item add column extra text`,
    `alter table item alter column amount type text`,
  ]
  for (const [n, change] of changes.entries()) {
    await a.sql(change)
    await a.sql(`update item set span = '${n + 1} days'`)
    await a.sql(`insert into item (id) values ('${id(n + 10)}')`)
    await a.sql(`delete from item where id = '${id(n + 10)}'`)
    const [check] = await checkResources(a.store.db)
    t.ok((check?.faults.length ?? 0) > 0, change)
  }
  await t.rejects(serveAll(a, b, 'item'), { code: 'SYNC_RESOURCE_OUTDATED' }, 'the peer is told why it gets nothing')
  await attach(a.store, [{ table: 'item' }])
  t.match(await checkResources(a.store.db), [{ resource: 'item', faults: [] }])
  t.ok((await serveAll(a, b, 'item')).ids.includes(id(1)))
})
