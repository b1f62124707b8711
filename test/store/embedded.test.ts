import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { applyPull, attach, checkResources, detach, findPeer, serveChanges } from '../../src/store/index.ts'
import { changesOfLines } from '../../src/sync/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  openEmbedded,
  pullAll,
  recordOf,
  type Site,
  serveAll,
  siteFactory,
  syncOnce,
  TASK,
  totalOf,
  versionsOf,
} from '../support/sites.ts'

/** The embedded database beside a PostgreSQL server: the same store code, another version, one connection. */
const DDL = `
  create table place (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text not null, up int references place);
  create table visit (id text primary key, place_id int references place on delete cascade, at timestamptz, amount numeric, marks text[], doc jsonb, raw json, span interval, n int check (n < 100))`
const TABLES = ['place', 'visit']

const dataDir = await mkdtemp(join(tmpdir(), 'syncline-embedded-'))
const key = randomBytes(32)
const sites = await siteFactory(t)
const server = await sites.make('server', DDL, TABLES)
const open = () => openEmbedded('field', dataDir, key)
let field: Site = await open()
t.teardown(async () => {
  await field.store.close()
  await rm(dataDir, { recursive: true, force: true })
})
await field.sql(DDL)
await attach(
  field.store,
  TABLES.map((table) => ({ table })),
)
await introduce(field, server)

const kinds = async (resource: string, action: () => Promise<unknown>) => {
  const { checkpoint } = await serveAll(field, server, resource)
  await action()
  const { batches } = await serveAll(field, server, resource, { after: checkpoint })
  return batches
    .flatMap((batch) => changesOfLines(batch))
    .map((change) => `${change.kind} ${change.id}`)
    .sort()
}

const CONTENTS = `select v.id, p.uuid, p.name, u.uuid as up, v.at::text, v.amount::text, v.marks, v.doc, v.raw::text, v.span::text, v.n
  from visit v full join place p on p.id = v.place_id left join place u on u.id = p.up order by 1, 2`

const alike = async (t: Test, what: string) => {
  t.same(
    await field.sql(CONTENTS),
    await server.sql(`set intervalstyle = iso_8601; set timezone = utc`).then(() => server.sql(CONTENTS)),
    what,
  )
  t.same(await versionsOf(field), await versionsOf(server), `${what}: in the same versions`)
}

t.test('embedded: what an application does is captured', async (t) => {
  const visit = (ids: string) => () => field.sql(`insert into visit (id, n) values ${ids}`)
  t.same(await kinds('visit', visit(`('a', 1), ('b', 2)`)), ['put a', 'put b'])
  t.same(await kinds('visit', () => field.sql('update visit set n = n')), [])
  t.same(await kinds('visit', () => field.sql(`update visit set amount = 1.0`)), ['put a', 'put b'])
  t.same(await kinds('visit', () => field.sql(`update visit set amount = 1.00 where id = 'a'`)), ['put a'])
  t.same(await kinds('visit', () => field.sql(`update visit set id = 'c' where id = 'b'`)), ['delete b', 'put c'])
  const partly = () =>
    field.sql(`begin; insert into visit (id) values ('d'); savepoint s; delete from visit; rollback to s; commit`)
  t.same(await kinds('visit', partly), ['put d'])
  const merge = `merge into visit t using (values ('a'), ('e')) s (id) on s.id = t.id when matched then delete when not matched then insert (id) values (s.id)`
  t.same(await kinds('visit', () => field.sql(merge)), ['delete a', 'put e'])
  t.same(await kinds('visit', () => field.sql('truncate visit')), ['delete c', 'delete d', 'delete e'])
  await field.sql(`insert into place (name) values ('gone'); insert into visit (id, place_id) values ('f', 1)`)
  t.same(await kinds('visit', () => field.sql('delete from place')), ['delete f'])
})

t.test('embedded: records go both ways and arrive exactly', async (t) => {
  await field.sql(
    `insert into place (name) select 'field ' || n from generate_series(1, 5) n; update place set up = id + 1 where name <> 'field 5'`,
  )
  await server.sql(
    `insert into place (name) select 'server ' || n from generate_series(1, 5) n; update place set up = 6 - id`,
  )
  for (const site of [field, server]) {
    await site.sql(`insert into visit values ('${site.name} 1' || E'\\t\\\\"', (select min(id) from place), '2026-02-03 04:05:06.000007+02', 1.50, array['a,b', null, '"'], '{"a": [null, 1.0]}', '{"b" :  1, "a":2}', '30 days', 5),
      ('${site.name} 2', null, 'infinity', 'NaN', '{}', null, null, '1 mon', null)`)
  }
  await syncOnce(field, server, { twice: true, limits: { batchRowsMax: 3 } })
  await syncOnce(field, server)
  await alike(t, 'both ways')
  t.equal((await syncOnce(field, server)).lines, 0, 'I4: a quiet round sends nothing')
  t.same(await checkResources(field.store.db), [
    { resource: 'place', faults: [] },
    { resource: 'visit', faults: [] },
  ])
})

t.test('embedded: conflicts, bad records and missing parents end as they do on a server', async (t) => {
  await field.sql(`update visit set n = 7 where id = 'server 2'`)
  await sleep(2)
  await server.sql(`update visit set n = 8 where id = 'server 2'; update visit set n = 200 where false`)
  await server.sql(`alter table visit drop constraint visit_n_check; update visit set n = 200 where id = 'field 2'`)
  await server.sql(
    `insert into place (name) values ('new'); insert into visit (id, place_id) select 'at new', id from place where name = 'new'`,
  )
  const report = totalOf(await pullAll(field, server, { resources: ['visit'] }))
  t.match(report, { merged: 1, quarantined: 2, applied: 0 })
  t.match(await field.sql('select record_id, code from syncline.quarantine order by 1'), [
    { record_id: 'at new', code: 'SYNC_RECORD_PARENT_MISSING' },
    { record_id: 'field 2', code: 'SYNC_RECORD_CONSTRAINT' },
  ])
  await syncOnce(field, server)
  t.equal((await field.sql('select * from syncline.quarantine')).length, 1)
  await server.sql(`update visit set n = 20 where id = 'field 2'`)
  await syncOnce(field, server)
  await syncOnce(field, server)
  t.same(await field.sql('select * from syncline.quarantine'), [])
  await alike(t, 'settled')
  await server.sql('delete from place')
  await syncOnce(field, server)
  await syncOnce(field, server)
  await alike(t, 'deleted')
})

t.test('embedded, I5: rows and checkpoint commit together or not at all', async (t) => {
  await server.sql(`insert into visit (id) values ('atomic')`)
  await pullAll(field, server, { resources: ['place'] })
  const places = () => field.sql('select value from syncline.checkpoint order by 1')
  const before = await places()
  const batch = await serveChanges(server.store, linkOf(server, field), { resource: 'visit' }, LIMITS)
  const alongside = async () => {
    throw new Error('the process dies here')
  }
  await t.rejects(
    applyPull(field.store, linkOf(field, server), { task: TASK, batch, runId: null, alongside }, LIMITS),
    { message: /dies/ },
  )
  t.same(await places(), before)
  t.equal(await recordOf(field, 'atomic'), undefined)
  await applyPull(field.store, linkOf(field, server), { task: TASK, batch, runId: null }, LIMITS)
  t.match(await recordOf(field, 'atomic'), { deleted: false })
})

t.test('embedded: a table with rows gets an identity, is attached, and left as it was', async (t) => {
  await field.sql(
    `create table legacy (id serial primary key, name text); insert into legacy (name) select 'row ' || n from generate_series(1, 300) n`,
  )
  const shape = () =>
    field.sql(`select a.attname, a.atttypid::regtype::text, a.attnotnull, (select array_agg(tgname order by 1) from pg_trigger where tgrelid = attrelid) as triggers,
      (select array_agg(indexrelid::regclass::text) from pg_index where indrelid = attrelid) as indexes from pg_attribute a where attrelid = 'legacy'::regclass and attnum > 0 and not attisdropped`)
  const before = await shape()
  const [legacy] = await attach(field.store, [{ table: 'legacy', addUuid: true }])
  t.match(legacy, { keyColumn: 'uuid', ready: true })
  t.match(await field.sql(`select count(*)::int as n from syncline.record where resource_id = ${legacy?.id}`), [
    { n: 300 },
  ])
  await detach(field.store, 'legacy')
  t.same(await shape(), before)
})

t.test('embedded: commits that were confirmed are there after kill -9, with their records', async (t) => {
  await field.store.close()
  const program = `
    import { CompiledQuery } from 'kysely'
    import { openStore } from ${JSON.stringify(new URL('../../src/store/index.ts', import.meta.url).href)}
    const { db } = await openStore({ dataDir: process.argv[1] })
    for (let n = 1; ; n++) {
      await db.executeQuery(CompiledQuery.raw("insert into visit (id, n) values ('" + process.argv[2] + " " + n + "', 1); update visit set n = 2 where id = '" + process.argv[2] + " " + n + "'"))
      process.stdout.write(n + '\\n')
    }`
  const confirmed: number[] = []
  for (const round of ['first', 'second']) {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, dataDir, round], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let last = 0
    for await (const line of createInterface(child.stdout)) {
      last = Number(line)
      if (last >= 40) break
    }
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('exit', resolve))
    confirmed.push(last)
    field = await open()
    const [{ kept } = {}] = await field.sql(
      `select count(*)::int as kept from visit where id like '${round} %' and n = 2 and split_part(id, ' ', 2)::int <= ${last}`,
    )
    t.equal(kept, last, `${round}: every confirmed write is there`)
    const strays = `select coalesce(l.id, v.record_id) as id from visit l full join (select record_id from syncline.record c join syncline.resource r on r.id = c.resource_id
      where r.name = 'visit' and not c.deleted) v on v.record_id = l.id where l.id is null or v.record_id is null`
    t.same(await field.sql(strays), [], `${round}: rows and records agree`)
    if (round === 'first') await field.store.close()
  }
  t.ok(confirmed.every((last) => last >= 40))
  field.peers.set('server', await findPeer(field.store.db, 'server'))
  await syncOnce(field, server)
  await alike(t, 'the site goes on where it was')
})
