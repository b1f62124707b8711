import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { attach, previewPull, previewReceive, rolledBack, serveChanges, weighReceived } from '../../src/store/index.ts'
import { introduce, LIMITS, linkOf, openEmbedded, pullAll, type Site, siteFactory, TASK } from '../support/sites.ts'

t.setTimeout(600_000)
const DDL = `
  create table country (id text primary key, name text not null);
  create table city (id text primary key, country text references country, name text not null);
  create table audit (city text, at timestamptz default now());
  create function note() returns trigger language plpgsql as $$ begin insert into audit (city) values (new.id); return new; end $$;
  create trigger note after insert or update on city for each row execute function note();`

const sites = await siteFactory(t)
const folder = await mkdtemp(join(tmpdir(), 'syncline-preview-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))

/** Every row of every table that a site keeps, its own and those of the application. */
async function everything(site: Site): Promise<unknown> {
  const tables = await site.sql(`
    select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname in ('syncline', 'public') order by 1`)
  const rows: unknown[] = []
  for (const { name } of tables)
    rows.push([name, await site.sql(`select to_jsonb(x) as row from ${name} x order by 1`)])
  return rows
}

async function batchesFor(there: Site, here: Site, resource: string, limits = LIMITS) {
  const batches = []
  for (let after: string | undefined; ; ) {
    const batch = await serveChanges(there.store, linkOf(there, here), { resource, after, quiet: true }, limits)
    batches.push(batch)
    after = batch.next?.checkpoint
    if (!batch.next?.more) return batches
  }
}

for (const kind of ['PostgreSQL', 'the embedded database'] as const) {
  t.test(`on ${kind}, a preview applies all that was fetched in one transaction and leaves no trace`, async (t) => {
    const hub = await sites.make(`hub ${kind}`.replaceAll(' ', '-'), DDL, ['country', 'city'])
    const field =
      kind === 'PostgreSQL'
        ? await sites.make('field', DDL, ['country', 'city'])
        : await openEmbedded('field', folder, Buffer.alloc(32, 3))
    if (kind !== 'PostgreSQL') {
      for (const statement of DDL.split(/;\n/)) await field.sql(statement)
      await attach(field.store, [{ table: 'country' }, { table: 'city' }])
    }
    await introduce(hub, field)
    await hub.sql(
      `insert into country values ('AT', 'Austria'); insert into city values ('W', 'AT', 'Wien'), ('G', 'AT', 'Graz')`,
    )
    await pullAll(field, hub)
    await hub.sql(
      `insert into country values ('SI', 'Slovenia'); insert into city values ('L', 'SI', 'Ljubljana'); update city set name = 'Vienna' where id = 'W'; delete from city where id = 'G'`,
    )
    const before = await everything(field)
    const pulls = []
    for (const resource of ['country', 'city'])
      pulls.push({
        resource,
        task: TASK,
        batches: await batchesFor(hub, field, resource, { ...LIMITS, batchRowsMax: 2 }),
      })
    const [countries, cities] = await previewPull(
      field.store,
      linkOf(field, hub),
      pulls,
      LIMITS,
      performance.now() + 60_000,
    )
    t.match(countries, { writes: { inserts: 1, updates: 0, deletes: 0 }, report: { counts: { applied: 1, known: 1 } } })
    t.match(
      cities,
      { writes: { inserts: 1, updates: 1, deletes: 1 }, report: { counts: { applied: 3, quarantined: 0 } } },
      'parents of the same preview are there',
    )
    t.ok((cities?.batches ?? 0) > 1, 'in several batches')
    t.same(cities?.samples.find(({ id }) => id === 'W')?.fields, [{ field: 'name', before: 'Wien', after: 'Vienna' }])
    t.same(await everything(field), before, 'nothing stays: not even what triggers wrote')

    const late = await previewPull(field.store, linkOf(field, hub), pulls, LIMITS, 0)
    t.same(
      late.map(({ batches }) => batches),
      [1, 1],
      'at the end of its time it stops after a batch',
    )

    const there = await everything(hub)
    await field.sql(`insert into city values ('S', 'AT', 'Salzburg')`)
    const push = { resource: 'city', byHand: false, batches: await batchesFor(field, hub, 'city') }
    t.match(await previewReceive(hub.store, linkOf(hub, field), push, LIMITS), { writes: { inserts: 1 }, braked: null })
    const heads = await serveChanges(field.store, linkOf(field, hub), { resource: 'city', heads: true }, LIMITS)
    t.match(heads.text, /\t\[\]$/, 'no values')
    t.match(await weighReceived(hub.store, linkOf(hub, field), { resource: 'city', batches: [heads] }), {
      inserts: 1,
      deletes: 0,
      changes: 0,
    })
    t.same(await everything(hub), there)
    if (kind !== 'PostgreSQL') await field.store.close()
  })
}

t.test('what fails inside of a preview is thrown as it is, and rolled back too', async (t) => {
  const site = await sites.make('alone', DDL)
  const failing = rolledBack(site.store, async (trx) => {
    await trx.updateTable('syncline.self').set({ name: 'other' }).execute()
    throw new Error('on purpose')
  })
  await t.rejects(failing, /on purpose/)
  t.same(await site.sql('select name from syncline.self'), [{ name: 'alone' }])
  t.equal(await rolledBack(site.store, async () => 'found'), 'found')
})
