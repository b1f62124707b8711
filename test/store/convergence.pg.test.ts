import t from 'tap'
import { setGrant } from '../../src/store/index.ts'
import {
  chance,
  introduce,
  peerOf,
  type Site,
  type SyncOptions,
  siteFactory,
  syncOnce,
  versionsOf,
} from '../support/sites.ts'

const sites = await siteFactory(t)

/** Local numbers, a reference to another table, one to the same table, text identities that several sites make at once. */
const DDL = `
  create table country (id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text);
  create table person (
    id serial primary key, uuid uuid not null unique default gen_random_uuid(), name text not null, amount numeric,
    country_id int references country on delete set null, boss_id int references person on delete set null, doc jsonb);
  create table tag (id text primary key, label text, at timestamptz)`
const TABLES = ['country', 'person', 'tag']

/** What each site must hold alike; local numbers are read as what they stand for. */
const CONTENTS = [
  'select uuid, name from country order by uuid',
  `select p.uuid, p.name, p.amount::text, c.uuid as country, b.uuid as boss, p.doc from person p
     left join country c on c.id = p.country_id left join person b on b.id = p.boss_id order by p.uuid`,
  'select id, label, at::text from tag order by id',
]

const pick = (table: string, random: (below: number) => number) =>
  `(select id from ${table} order by md5(id::text || '${random(1_000_000)}') limit 1)`

function operation(site: Site, random: (below: number) => number): string {
  const word = `${site.name}-${random(1_000)}`
  const tag = `t${random(6)}`
  const operations = [
    `insert into country (name) values ('${word}')`,
    `update country set name = '${word}' where id = ${pick('country', random)}`,
    `delete from country where id = ${pick('country', random)} and ${random(3) === 0}`,
    `insert into person (name, country_id, boss_id) values ('${word}', ${pick('country', random)}, ${pick('person', random)})`,
    `insert into person (name, amount) select '${word} ' || n, n from generate_series(1, ${1 + random(4)}) n`,
    `update person set name = '${word}' where id = ${pick('person', random)}`,
    `update person set amount = ${random(9)}.${random(9)}0, doc = '{"by": "${word}"}' where id % 3 = ${random(3)}`,
    `update person set boss_id = ${pick('person', random)} where id = ${pick('person', random)}`,
    `update person set boss_id = null, country_id = ${pick('country', random)} where id = ${pick('person', random)}`,
    `delete from person where id = ${pick('person', random)}`,
    `update person set uuid = gen_random_uuid() where id = ${pick('person', random)} and ${random(4) === 0}`,
    `insert into tag values ('${tag}', '${word}') on conflict (id) do update set label = excluded.label`,
    `update tag set label = '${word}', at = now() where id = '${tag}'`,
    `update tag set id = 't${random(6) + 6}' where id = '${tag}'`,
    `delete from tag where id = '${tag}'`,
    `begin; update tag set label = 'lost'; delete from person; rollback`,
    ...(random(20) === 0 ? ['truncate tag'] : []),
  ]
  return operations[random(operations.length)] as string
}

type Link = readonly [Site, Site]

async function contentsOf(site: Site) {
  const contents = []
  for (const query of CONTENTS) contents.push(await site.sql(query))
  return contents
}

const TOPOLOGIES: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  chain: [
    [0, 1],
    [1, 2],
  ],
  ring: [
    [0, 1],
    [1, 2],
    [2, 0],
  ],
  star: [
    [0, 1],
    [2, 1],
  ],
}

for (const [topology, edges] of Object.entries(TOPOLOGIES)) {
  t.test(
    `I3: three sites in a ${topology} end alike after any changes and any order of exchange, and I4: then nothing is sent`,
    async (t) => {
      const made: Site[] = []
      for (const name of ['x', 'y', 'z']) made.push(await sites.make(`${topology}-${name}`, DDL, TABLES))
      const links = edges.map(([here, there]) => [made[here], made[there]] as unknown as Link)
      for (const link of links) await introduce(...link)
      for (const seed of [1, 2, 3, 4, 5]) {
        const random = chance(seed * 7_919)
        // The same policy everywhere: newest, or the word of one site.
        const task =
          seed % 3 === 0
            ? { onConflict: 'master', master: made[random(3)]?.self.uuid ?? null }
            : { onConflict: 'newer' }
        for (const [here, there] of links) {
          for (const resource of TABLES)
            await setGrant(there.store.db, { peerId: peerOf(there, here).id, resource, direction: 'push', ...task })
        }
        const options = (): SyncOptions => ({ task, twice: random(4) === 0, limits: { batchRowsMax: 1 + random(12) } })
        for (let step = 0; step < 40; step++) {
          if (random(4) > 0) {
            const site = made[random(3)] as Site
            await site.sql(operation(site, random)).catch((error: { code?: string }) => {
              // The application chose an identity that is taken.
              if (error.code !== '23505') throw error
            })
          } else await syncOnce(...(links[random(links.length)] as Link), options())
        }
        let lines = 1
        for (let round = 0; round < 12 && lines > 0; round++) {
          lines = 0
          for (let n = 0; n < links.length; n++) {
            for (const site of made) await site.sql('update syncline.quarantine set retry_at = now()')
            lines += (await syncOnce(...(links[(n + seed) % links.length] as Link), { task })).lines
          }
        }
        const what = `${topology}, seed ${seed}`
        t.equal(lines, 0, `${what}: a quiet round sends nothing`)
        const [first] = made
        if (first === undefined) return
        const [contents, versions] = [await contentsOf(first), await versionsOf(first)]
        t.ok(versions.length > 5, `${what}: ${versions.length} records`)
        for (const site of made) {
          t.same(
            await site.sql('select record_id, code, reason from syncline.quarantine'),
            [],
            `${what}: nothing waits at ${site.name}`,
          )
          t.same(await contentsOf(site), contents, `${what}: ${site.name} holds what ${first.name} holds`)
          t.same(await versionsOf(site), versions, `${what}: in the same versions`)
          const strays = TABLES.map((table) => {
            const key = table === 'tag' ? 'id' : 'uuid::text'
            return `select '${table}' from (select ${key} as id from ${table}) l full join (select record_id from syncline.record c
            join syncline.resource r on r.id = c.resource_id where r.name = '${table}' and not c.deleted) v on v.record_id = l.id where l.id is null or v.record_id is null`
          })
          t.same(
            await site.sql(strays.join(' union all ')),
            [],
            `${what}: every living row of ${site.name} has a living record`,
          )
        }
      }
    },
  )
}
