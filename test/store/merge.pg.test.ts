import t from 'tap'
import { createTask, findGrant, loadResources, removePeer, removeTask, setGrant } from '../../src/store/index.ts'
import {
  chance,
  introduce,
  peerOf,
  type Row,
  recordOf,
  type Site,
  type SyncOptions,
  siteFactory,
  syncOnce,
  totalOf,
  versionsOf,
} from '../support/sites.ts'

// Many sites, one after the other.
t.setTimeout(600_000)

const sites = await siteFactory(t)

const DDL = `create table item (
  id text primary key, name text, note text, price numeric(10,2), stock int, big int8, tags jsonb, words text[], seen timestamptz)`
const FIELDS = { price: 'greatest', stock: 'sum', big: 'sum', tags: 'union', words: 'union', seen: 'least' }
const TASK: NonNullable<SyncOptions['task']> = { onConflict: 'merge', fields: FIELDS }

let count = 0
/** Sites that merge with each other along the edges, as tasks and grants say it. */
async function merging(
  edges: readonly (readonly [number, number])[],
  fields: Record<string, string> = FIELDS,
): Promise<Site[]> {
  const made: Site[] = []
  count++
  for (let n = 0; n <= Math.max(...edges.flat()); n++) made.push(await sites.make(`m${count}x${n}`, DDL, ['item']))
  for (const [one, two] of edges) {
    const [here, there] = [made[one], made[two]] as [Site, Site]
    await introduce(here, there)
    await createTask(here.store.db, {
      peerId: peerOf(here, there).id,
      resource: 'item',
      mode: 'both',
      onConflict: 'merge',
      fields,
    })
    await setGrant(there.store.db, {
      peerId: peerOf(there, here).id,
      resource: 'item',
      direction: 'push',
      onConflict: 'merge',
      fields,
    })
  }
  return made
}

const rowsOf = (site: Site) =>
  site.sql(`select id, name, note, price::text, stock, big::text, tags, words, seen::text from item order by id`)

/** Runs over all edges until nothing is sent. */
async function quiet(
  made: readonly Site[],
  edges: readonly (readonly [number, number])[],
  task = TASK,
): Promise<number> {
  for (let round = 0; round < 12; round++) {
    let lines = 0
    for (const [one, two] of edges) lines += (await syncOnce(made[one] as Site, made[two] as Site, { task })).lines
    if (lines === 0) return round
  }
  return -1
}

async function seeded(edges: readonly (readonly [number, number])[] = [[0, 1]]): Promise<Site[]> {
  const made = await merging(edges)
  await made[0]?.sql(`insert into item values ('x', 'name', 'note', 10, 10, 10, '["t"]', '{w}', '2026-01-01Z')`)
  await quiet(made, edges)
  return made
}

t.test(
  'I7: fields that only one side changed are both kept, whatever the clocks say, and both sites end alike',
  async (t) => {
    const [a, b] = (await seeded()) as [Site, Site]
    await a.sql(`update item set name = 'from a'`)
    await b.sql(`update item set note = 'from b', price = 11`)
    const first = await syncOnce(a, b, { task: TASK })
    t.equal(totalOf(first).merged, 1)
    t.equal(totalOf(first).conflict, 0)
    t.ok((await quiet([a, b], [[0, 1]])) >= 0, 'it comes to rest')
    for (const site of [a, b])
      t.match(await rowsOf(site), [{ name: 'from a', note: 'from b', price: '11.00' }], site.name)
    t.same(await versionsOf(a), await versionsOf(b))
    t.equal(
      (await a.sql(`select from syncline.history where reason = 'lost a conflict'`)).length,
      1,
      'what came is kept',
    )
  },
)

t.test('I3: fields that both changed follow their rules at both sites, at once or one after the other', async (t) => {
  for (const together of [true, false]) {
    const [a, b] = (await seeded()) as [Site, Site]
    await a.sql(
      `update item set price = 12, stock = stock + 3, big = big - 4, tags = '["t", "a"]', words = '{w,a}', seen = '2026-01-03Z'`,
    )
    await a.sql(`update item set stock = stock + 1`)
    await b.sql(
      `update item set price = 9, stock = stock + 5, big = big + 9007199254740993, tags = '["b"]', words = '{}', seen = '2026-01-02Z'`,
    )
    if (together) await Promise.all([syncOnce(a, b, { task: TASK })])
    t.ok((await quiet([a, b], [[0, 1]])) >= 0)
    for (const site of [a, b]) {
      const [row] = await rowsOf(site)
      t.match(
        row,
        { price: '12.00', stock: 19, big: '9007199254740999', words: ['w', 'a'], seen: '2026-01-02 00:00:00+00' },
        site.name,
      )
      t.same([...((row?.tags ?? []) as string[])].sort(), ['a', 'b', 't'])
    }
    t.same(await versionsOf(a), await versionsOf(b))
    await a.sql('update item set stock = stock - 1')
    await b.sql('update item set stock = stock - 2')
    await quiet([a, b], [[0, 1]])
    for (const site of [a, b]) t.match(await rowsOf(site), [{ stock: 16 }], 'counting goes on after a merge')
  }
})

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
}
for (const [topology, edges] of Object.entries(TOPOLOGIES)) {
  t.test(
    `I3: three sites in a ${topology} that merge end alike, count each addition once, and then send nothing (I4)`,
    async (t) => {
      for (const seed of [1, 2, 3]) {
        const random = chance(seed * 6_007)
        const made = await seeded(edges)
        let added = 0
        for (let step = 0; step < 30; step++) {
          const site = made[random(3)] as Site
          const n = random(5)
          if (n === 0) await site.sql(`update item set name = '${site.name} ${step}'`)
          else if (n === 1) await site.sql(`update item set note = '${site.name} ${step}', price = ${random(99)}`)
          else if (n === 2) {
            const delta = random(9) - 3
            added += delta
            await site.sql(`update item set stock = stock + ${delta}`)
          } else {
            const [one, two] = edges[random(edges.length)] as readonly [number, number]
            await syncOnce(made[one] as Site, made[two] as Site, { task: TASK, twice: random(3) === 0 })
          }
        }
        t.ok((await quiet(made, edges)) >= 0, `seed ${seed}: comes to rest`)
        const [first] = made as [Site]
        t.equal((await rowsOf(first))[0]?.stock, 10 + added, `seed ${seed}: every addition counts once`)
        for (const site of made) {
          t.same(await rowsOf(site), await rowsOf(first), `seed ${seed}: ${site.name}`)
          t.same(await versionsOf(site), await versionsOf(first))
          t.same(await site.sql('select from syncline.conflict'), [])
        }
      }
    },
  )
}

t.test('I3: what both sites wrote alike is no conflict, and a third write meets both of them', async (t) => {
  const edges = [
    [0, 1],
    [1, 2],
  ] as const
  const made = (await seeded(edges)) as [Site, Site, Site]
  const [a, b, c] = made
  await a.sql(`update item set price = 20`)
  await b.sql(`update item set price = 20`)
  await syncOnce(b, c, { task: TASK })
  const first = totalOf(await syncOnce(a, b, { task: TASK }))
  t.match(first, { merged: 1, conflict: 0 })
  t.same(await a.sql(`select from syncline.history where reason = 'lost a conflict'`), [], 'nothing is lost')
  // This replaces the write of b alone: c has never seen the other.
  await c.sql(`update item set price = 15, note = 'later'`)
  t.ok((await quiet(made, edges)) >= 0, 'it comes to rest')
  for (const site of made) t.match(await rowsOf(site), [{ price: '20.00', note: 'later' }], site.name)
  t.same(await versionsOf(a), await versionsOf(c))
})

t.test('marks are kept only where something merges, and travel through a site that does not', async (t) => {
  const edges = [
    [0, 1],
    [1, 2],
  ] as const
  const made = await merging(edges)
  const [a, hub, c] = made as [Site, Site, Site]
  // The hub keeps no marks of its own, and settles by the newer record.
  for (const peer of [a, c])
    for (const task of await hub.sql('select id, peer_id from syncline.task'))
      if (task.peer_id === peerOf(hub, peer).id) await removeTask(hub.store.db, task.id as number)
  await setGrant(hub.store.db, { peerId: peerOf(hub, a).id, resource: 'item', direction: 'push' })
  t.same(
    (await loadResources(hub.store.db)).map(({ marks }) => marks),
    [null],
  )
  t.same(
    (await loadResources(a.store.db)).map(({ marks }) => marks),
    [{ counted: ['stock', 'big'] }],
  )
  await a.sql(`insert into item (id, name, stock) values ('x', 'n', 1)`)
  t.equal(await fieldsOf(a), null, 'a new record needs none')
  await a.sql(`update item set name = 'edited', stock = 3`)
  const marked = (await fieldsOf(a)) as Row
  t.same(Object.keys(marked).sort(), ['*', 'name', 'stock'])
  t.match(marked.stock, { sums: {} })
  await syncOnce(a, hub, { task: TASK })
  await syncOnce(hub, c, {})
  const named = async (site: Site) => {
    const ids = Object.fromEntries(
      (await site.sql('select id, origin from syncline.site')).map((row) => [row.id, row.origin]),
    )
    return JSON.parse(JSON.stringify(await fieldsOf(site)).replaceAll(/"(\d+)":/g, (_, id) => `"${ids[id]}":`))
  }
  t.same(await named(hub), await named(a), 'relayed as it came')
  t.same(await named(c), await named(a))
  await hub.sql(`update item set note = 'at the hub'`)
  t.equal(await fieldsOf(hub), null, 'a site without marks claims to have written all')
})

const fieldsOf = async (site: Site, id = 'x') =>
  (await site.sql(`select fields from syncline.record where record_id = '${id}'`))[0]?.fields

t.test('the trigger keeps marks as the core counts them', async (t) => {
  const [a] = (await merging([[0, 1]])) as [Site]
  const mark = async (column: string) => {
    const fields = (await fieldsOf(a)) as Record<string, unknown>
    return (fields[column] ?? fields['*']) as Record<string, Record<string, unknown>>
  }
  await a.sql(`insert into item (id, name, stock, price) values ('x', 'n', 5, 1.10)`)
  const born = (await recordOf(a, 'x')) as Row
  await a.sql(`update item set stock = 7`)
  t.match(await mark('stock'), { base: { 1: Number(born.clock) }, sums: { 1: '2' } })
  t.match(await mark('name'), { dots: { 1: Number(born.clock) } })
  await a.sql(`update item set stock = 4, name = 'again'`)
  const last = Number((await recordOf(a, 'x'))?.clock)
  t.match(await mark('stock'), { dots: { 1: last }, base: { 1: Number(born.clock) }, sums: { 1: '-1' } })
  t.match(await mark('name'), { dots: { 1: last } })
  await a.sql(`update item set stock = null`)
  t.notOk((await mark('stock')).base, 'without a number nothing is counted')
  const still = await recordOf(a, 'x')
  await a.sql(`update item set price = 1.1`)
  t.same(await recordOf(a, 'x'), still, 'the same value is no change')
  await a.sql(`update item set id = 'y'`)
  t.equal(await fieldsOf(a, 'y'), null, 'under another identity it is a new record')
  t.equal(await fieldsOf(a, 'x'), null)
  await a.sql(`delete from item`)
  t.equal(await fieldsOf(a, 'y'), null)
  await a.sql(
    `alter table item drop column note; insert into item (id, name) values ('z', 'n'); update item set name = 'm' where id = 'z'`,
  )
  t.ok(await fieldsOf(a, 'z'), 'a dropped column stops nothing')
})

t.test('the rules of fields belong to tasks and grants, and the trigger follows them', async (t) => {
  const a = await sites.make(`rules${count++}`, DDL, ['item'])
  const b = await sites.make(`rules${count++}`, DDL, ['item'])
  await introduce(a, b)
  const peerId = peerOf(a, b).id
  const marks = async () => (await loadResources(a.store.db))[0]?.marks
  t.equal(await marks(), null)
  const task = await createTask(a.store.db, {
    peerId,
    resource: 'item',
    mode: 'both',
    onConflict: 'merge',
    fields: { stock: 'sum' },
  })
  t.same(task.fields, { stock: 'sum' })
  t.same(await marks(), { counted: ['stock'] })
  await setGrant(a.store.db, {
    peerId,
    resource: 'item',
    direction: 'pull',
    onConflict: 'merge',
    fields: { big: 'sum', '*': 'ask' },
  })
  t.same((await findGrant(a.store.db, peerId, 'item', 'pull'))?.fields, { '*': 'ask', big: 'sum' })
  t.same(await marks(), { counted: ['stock', 'big'] })
  await removeTask(a.store.db, task.id)
  t.same(await marks(), { counted: ['big'] })
  await setGrant(a.store.db, { peerId, resource: 'item', direction: 'pull' })
  t.equal(await marks(), null)
  await setGrant(a.store.db, { peerId, resource: 'item', direction: 'push', onConflict: 'ask' })
  t.same(await marks(), { counted: [] }, 'what a person is asked needs a base')
  const bad = createTask(a.store.db, {
    peerId,
    resource: 'item',
    mode: 'both',
    onConflict: 'newer',
    fields: { stock: 'sum' },
  })
  await t.rejects(bad, { code: 'SYNC_REQUEST_INVALID', message: /use merge/ })
  await removePeer(a.store.db, peerId)
  t.equal(await marks(), null, 'tasks and grants go with the peer')
})

t.test('a large update after a small one takes as long as its rows, not their square', async (t) => {
  const [a] = (await merging([[0, 1]])) as [Site]
  await a.sql(`insert into item (id, name, stock) select 'r' || n, 'n', n from generate_series(1, 4000) n`)
  // The plan of a statement is kept for the session after its first runs.
  for (let n = 1; n <= 8; n++) await a.sql(`update item set stock = stock + 1 where id = 'r${n}'`)
  const begin = performance.now()
  await a.sql(`update item set stock = stock + 1, name = 'm'`)
  const many = performance.now() - begin
  t.ok(many < 6_000, `${Math.round(many)} ms for 4,000 rows`)
  t.same(
    await a.sql(
      `select count(*)::int as n, count(*) filter (where fields -> 'stock' ? 'sums')::int as counted from syncline.record`,
    ),
    [{ n: 4000, counted: 4000 }],
  )
})
