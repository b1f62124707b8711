import t from 'tap'
import {
  applyPull,
  checkResources,
  createTask,
  findConflict,
  findGrant,
  findTaskFor,
  listConflicts,
  resolveConflict,
  resolveMatching,
  serveChosen,
  setGrant,
} from '../../src/store/index.ts'
import {
  introduce,
  LIMITS,
  linkOf,
  peerOf,
  pullAll,
  type Site,
  siteFactory,
  syncOnce,
  TASK,
  totalOf,
  versionsOf,
} from '../support/sites.ts'

// Many sites, one after the other.
t.setTimeout(600_000)

const sites = await siteFactory(t)
const DDL = `create table item (id text primary key, name text, note text, price numeric, tags jsonb)`
const ASK = { task: { onConflict: 'ask' } }
type Edge = readonly [number, number]

let count = 0
/** Sites whose tasks and grants ask a person, along the edges, with two records that all have. */
async function asking(edges: readonly Edge[] = [[0, 1]], policy = 'ask'): Promise<Site[]> {
  const made: Site[] = []
  count++
  for (let n = 0; n <= Math.max(...edges.flat()); n++) made.push(await sites.make(`c${count}x${n}`, DDL, ['item']))
  for (const [one, two] of edges) {
    const [here, there] = [made[one], made[two]] as [Site, Site]
    await introduce(here, there)
    await createTask(here.store.db, {
      peerId: peerOf(here, there).id,
      resource: 'item',
      mode: 'both',
      onConflict: policy,
    })
    await setGrant(there.store.db, {
      peerId: peerOf(there, here).id,
      resource: 'item',
      direction: 'push',
      onConflict: policy,
    })
  }
  await made[0]?.sql(`insert into item values ('x', 'base', 'note', 1.50, '["t"]'), ('y', 'other', null, 2, null)`)
  await rounds(made, edges)
  return made
}

async function rounds(made: readonly Site[], edges: readonly Edge[], policy = ASK): Promise<number> {
  for (let round = 0; round < 8; round++) {
    let lines = 0
    for (const [one, two] of edges) lines += (await syncOnce(made[one] as Site, made[two] as Site, policy)).lines
    if (lines === 0) return round
  }
  return -1
}

const open = async (site: Site) => (await listConflicts(site.store.db, { open: true })).items
const only = async (site: Site) => {
  const [conflict, ...rest] = await open(site)
  if (conflict === undefined || rest.length > 0)
    throw new Error(`${site.name} has ${rest.length + (conflict ? 1 : 0)} conflicts`)
  return conflict
}
const rowOf = async (site: Site, id = 'x') =>
  (await site.sql(`select name, note, price::text, tags from item where id = $1`, [id]))[0]
const resolve = (site: Site, id: string, choice: object) =>
  resolveConflict(site.store, site.self, { id, by: 'Ada', ...choice }, LIMITS)
/** One record of a peer, whatever else is due. */
async function pullOnly(here: Site, there: Site, id: string): Promise<void> {
  const { next: _, ...batch } = await serveChosen(
    there.store,
    linkOf(there, here),
    { resource: 'item', ids: [id] },
    LIMITS,
  )
  await applyPull(here.store, linkOf(here, there), { task: { ...TASK, ...ASK.task }, batch, runId: null }, LIMITS)
}
const bulk = (site: Site, query: object) =>
  resolveMatching(site.store, site.self, { by: 'Ada', preview: false, ...query }, LIMITS)

t.test('I7: a conflict shows what both sides had, who wrote what and when, and holds up no other record', async (t) => {
  const [a, b] = (await asking()) as [Site, Site]
  await a.sql(`update item set name = 'from a' where id = 'x'`)
  await b.sql(
    `update item set name = 'from b', note = 'b too' where id = 'x'; update item set name = 'passes' where id = 'y'`,
  )
  t.match(totalOf(await syncOnce(a, b, ASK)), { conflict: 2, applied: 1 })
  t.equal((await rowOf(a, 'y'))?.name, 'passes')
  t.match(await only(a), {
    peer: b.name,
    resource: 'item',
    recordId: 'x',
    fields: null,
    base: { data: { name: 'base', note: 'note', price: 1.5 }, site: a.name, version: { origin: a.self.origin } },
    ours: { data: { name: 'from a' }, site: a.name, version: { origin: a.self.origin }, at: /^\d{4}-.*Z$/ },
    theirs: { data: { name: 'from b', note: 'b too' }, site: b.name, version: { origin: b.self.origin } },
  })
  t.match(await only(b), {
    base: { data: { name: 'base' } },
    ours: { data: { name: 'from b' } },
    theirs: { data: { name: 'from a' } },
  })
})

t.test('a deletion against an edit shows both, and either can be chosen', async (t) => {
  for (const [choice, want] of [
    ['ours', undefined],
    ['theirs', { name: 'edit' }],
    ['field', { name: 'edit', note: 'set' }],
  ] as const) {
    const [a, b] = (await asking()) as [Site, Site]
    await a.sql(`delete from item where id = 'x'`)
    await b.sql(`update item set name = 'edit' where id = 'x'`)
    await syncOnce(a, b, ASK)
    const conflict = await only(a)
    t.match(conflict, { ours: { data: null }, theirs: { data: { name: 'edit' } }, base: { data: { name: 'base' } } })
    t.match(await only(b), { ours: { data: { name: 'edit' } }, theirs: { data: null } })
    await t.rejects(resolve(a, conflict.id, { fields: { name: 'ours' } }), {
      code: 'SYNC_REQUEST_INVALID',
      message: /is deleted/,
    })
    await resolve(a, conflict.id, choice === 'field' ? { values: { note: 'set' } } : { choice })
    t.ok((await rounds([a, b], [[0, 1]])) >= 0)
    for (const site of [a, b]) {
      if (want === undefined) t.equal(await rowOf(site), undefined, choice)
      else t.match(await rowOf(site), want, `${choice} at ${site.name}`)
      t.same(await open(site), [], `${choice}: settled at ${site.name}`)
    }
  }
})

t.test('a conflict that is open follows what either side writes', async (t) => {
  const [a, b, c] = (await asking([
    [0, 1],
    [0, 2],
  ])) as [Site, Site, Site]
  for (const [site, name] of [
    [a, 'a1'],
    [b, 'b1'],
  ] as const)
    await site.sql(`update item set name = '${name}' where id = 'x'`)
  await syncOnce(a, b, ASK)
  const first = await only(a)

  await b.sql(`update item set name = 'b2' where id = 'x'`)
  await syncOnce(a, b, ASK)
  t.match(
    await only(a),
    { id: first.id, theirs: { data: { name: 'b2' } }, ours: { data: { name: 'a1' } } },
    'the same peer',
  )

  await a.sql(`update item set name = 'a2' where id = 'x'`)
  const now = await only(a)
  t.match(now, { id: first.id, ours: { data: { name: 'a2' } }, theirs: { data: { name: 'b2' } } }, 'a local edit')
  t.ok(now.updatedAt > first.updatedAt)
  await syncOnce(a, b, ASK)
  t.match(await only(b), { ours: { data: { name: 'b2' } }, theirs: { data: { name: 'a2' } } }, 'and at the other site')

  await c.sql(`update item set name = 'c1' where id = 'x'`)
  await syncOnce(a, c, ASK)
  t.same(
    (await open(a)).map(({ theirs, peer }) => [peer, theirs.data?.name]),
    [
      [c.name, 'c1'],
      [b.name, 'b2'],
    ],
    'another peer is an entry of its own',
  )
  await syncOnce(a, b, ASK)
  await syncOnce(a, c, ASK)
  t.equal((await open(a)).length, 2, 'nothing is asked twice')
  t.equal((await a.sql('select from syncline.conflict')).length, 2)

  for (const conflict of await open(a)) await resolve(a, conflict.id, { choice: 'theirs' })
  await rounds(
    [a, b, c],
    [
      [0, 1],
      [0, 2],
    ],
  )
  for (const site of [a, b, c]) {
    t.match(await rowOf(site), { name: 'b2' }, site.name)
    t.same(await open(site), [], site.name)
  }
})

for (const [topology, edges] of [
  [
    'chain',
    [
      [0, 1],
      [1, 2],
    ],
  ],
  [
    'ring',
    [
      [0, 1],
      [1, 2],
      [2, 0],
    ],
  ],
] as const) {
  t.test(`I3: a decision ends the conflict at every site of a ${topology}`, async (t) => {
    const made = (await asking(edges)) as [Site, Site, Site]
    for (const site of made)
      await site.sql(`update item set name = '${site.name}', note = '${site.name}' where id = 'x'`)
    await rounds(made, edges)
    t.ok((await open(made[1])).length > 0)
    for (let tries = 0; tries < 6; tries++) {
      const [conflict] = await open(made[1])
      if (conflict === undefined) break
      await resolve(made[1], conflict.id, {
        fields: { name: 'theirs' },
        values: { price: '7.25', tags: ['a', 'b'] },
        comment: 'counted',
      })
      await rounds(made, edges)
    }
    const want = await rowOf(made[1])
    t.match(want, { price: '7.25', tags: ['a', 'b'] })
    for (const site of made) {
      t.same(await rowOf(site), want, site.name)
      t.same(await open(site), [], `nothing waits at ${site.name}`)
    }
  })
}

t.test('a decision can mix sides and values, and says so when it names what is not there', async (t) => {
  const [a, b] = (await asking()) as [Site, Site]
  await a.sql(`update item set name = 'a', note = 'a' where id = 'x'`)
  await b.sql(`update item set name = 'b', note = 'b' where id = 'x'`)
  await syncOnce(a, b, ASK)
  const { id } = await only(a)
  const refused: readonly [object, RegExp][] = [
    [{}, /say which side wins/],
    [{ fields: { lost: 'ours' } }, /sends no column "lost"/],
    [{ fields: { name: 'ours' }, values: { name: 'x' } }, /chosen and set/],
    [{ values: { name: 'x' }, rule: true }, /no rule/],
  ]
  for (const [choice, message] of refused)
    await t.rejects(resolve(a, id, choice), { code: 'SYNC_REQUEST_INVALID', message })
  t.match(await rowOf(a), { name: 'a', note: 'a' }, 'nothing of it was written')
  t.match(await resolve(a, id, { choice: 'theirs', fields: { note: 'ours' }, values: { price: 3 } }), {
    resolution: 'merged',
    resolvedBy: 'Ada',
  })
  t.match(await rowOf(a), { name: 'b', note: 'a', price: '3' })
  await t.rejects(resolve(a, id, { choice: 'ours' }), {
    code: 'SYNC_REQUEST_SETTLED',
    message: new RegExp(`^conflict ${id} was settled at 20\\S+Z by Ada: with what was chosen of both$`),
  })
  t.ok((await rounds([a, b], [[0, 1]])) >= 0)
  t.match(await rowOf(b), { name: 'b', note: 'a', price: '3' })
  t.same(await open(b), [])
})

t.test('values that read like those of one side are written as a choice of their own', async (t) => {
  const [a, b] = (await asking()) as [Site, Site]
  await a.sql(`update item set price = 5 where id = 'x'`)
  await b.sql(`update item set price = 6 where id = 'x'`)
  await syncOnce(a, b, ASK)
  await resolve(a, (await only(a)).id, { values: { price: '5' } })
  t.match(
    await (
      await a.sql(
        `select o.origin from syncline.record r join syncline.site o on o.id = r.origin where record_id = 'x'`,
      )
    )[0],
    { origin: a.self.origin },
  )
  await rounds([a, b], [[0, 1]])
  t.match(await rowOf(b), { price: '5' })
  t.same([...(await open(a)), ...(await open(b))], [])
})

t.test('many conflicts are decided at once by peer, resource and filter, after they were counted', async (t) => {
  const [a, b] = (await asking()) as [Site, Site]
  await a.sql(`insert into item (id, name, price) select 'n' || n, 'n', n from generate_series(1, 12) n`)
  await rounds([a, b], [[0, 1]])
  await a.sql(`update item set note = 'a' where id like 'n%'`)
  await b.sql(`update item set note = 'b' where id like 'n%'`)
  await syncOnce(a, b, ASK)
  t.equal((await open(a)).length, 12)
  t.same(await bulk(a, { choice: 'theirs', peer: b.name, preview: true }), { matched: 12, resolved: 0, failed: [] })
  t.same(await bulk(a, { choice: 'theirs', peer: 'nobody', preview: true }), { matched: 0, resolved: 0, failed: [] })
  await t.rejects(bulk(a, { choice: 'theirs', filter: 'price > 3' }), {
    code: 'SYNC_REQUEST_INVALID',
    message: /needs a resource/,
  })
  await t.rejects(bulk(a, {}), { code: 'SYNC_REQUEST_INVALID' })
  t.match(await bulk(a, { choice: 'theirs', resource: 'item', filter: 'price > 4', comment: 'b counted' }), {
    matched: 8,
    resolved: 8,
  })
  t.same((await open(a)).map(({ recordId }) => recordId).sort(), ['n1', 'n2', 'n3', 'n4'])
  await a.sql(`alter table item add constraint short check (length(note) < 2 and note <> 'b') not valid`)
  const stuck = await bulk(a, { choice: 'theirs' })
  t.match(stuck, { matched: 4, resolved: 0, failed: [{ recordId: 'n1', code: 'SYNC_RECORD_CONSTRAINT' }, {}, {}, {}] })
  await a.sql('alter table item drop constraint short')
  t.match(await bulk(a, { choice: 'ours' }), { resolved: 4 })
  await rounds([a, b], [[0, 1]])
  t.same(await b.sql(`select note, count(*)::int from item where id like 'n%' group by 1 order by 1`), [
    { note: 'a', count: 4 },
    { note: 'b', count: 8 },
  ])
  t.same(await open(b), [])
})

t.test('a choice can become the rule of the task, or of the grant of a peer that pushes', async (t) => {
  const [a, b] = (await asking()) as [Site, Site]
  await a.sql(`update item set name = 'a', note = 'a' where id = 'x'`)
  await b.sql(`update item set name = 'b', note = 'b' where id = 'x'`)
  await syncOnce(a, b, ASK)
  const elsewhere = await only(b)
  await resolve(a, (await only(a)).id, { fields: { name: 'theirs' }, rule: true })
  t.match(await findTaskFor(a.store.db, peerOf(a, b).id, 'item'), {
    onConflict: 'merge',
    fields: { name: 'theirs', '*': 'ask' },
  })
  await resolve(b, elsewhere.id, { choice: 'theirs', rule: true })
  t.match(await findGrant(b.store.db, peerOf(b, a).id, 'item', 'push'), { onConflict: 'theirs', fields: {} })
})

t.test('a field that asks holds the record until a person decided it, and names itself', async (t) => {
  const [a, b] = (await asking()) as [Site, Site]
  const task = { onConflict: 'merge', fields: { price: 'ask' } }
  for (const [here, there] of [
    [a, b],
    [b, a],
  ] as const)
    await setGrant(here.store.db, { peerId: peerOf(here, there).id, resource: 'item', direction: 'push', ...task })
  await a.sql(`update item set price = 5, name = 'a' where id = 'x'`)
  await b.sql(`update item set price = 6, note = 'b' where id = 'x'`)
  await syncOnce(a, b, { task })
  t.match(await only(a), { fields: ['price'], base: { data: { price: 1.5 } } })
  await resolve(a, (await only(a)).id, { choice: 'ours', fields: { note: 'theirs' } })
  await rounds([a, b], [[0, 1]], { task })
  for (const site of [a, b]) t.match(await rowOf(site), { price: '5', name: 'a', note: 'b' }, site.name)
  t.equal(
    (await findConflict(b.store.db, (await listConflicts(b.store.db)).items[0]?.id ?? '')).resolution,
    'elsewhere',
  )
})

t.test('a trigger that may change what peers send is told by the check of the resource', async (t) => {
  const [a] = (await asking()) as [Site]
  const told = async () =>
    (await checkResources(a.store.db, 'item'))[0]?.warnings?.filter((text) => /runs before/.test(text)) ?? []
  t.same(await told(), [])
  await a.sql(
    `create function shout() returns trigger language plpgsql as 'begin new.name := upper(new.name); return new; end'`,
  )
  await a.sql('create trigger loud before insert or update on item for each row execute function shout()')
  await a.sql('create trigger after_it after update on item for each row execute function shout()')
  t.match(await told(), [/^trigger "loud" runs before rows are written/])
  await a.sql('alter table item disable trigger loud')
  t.same(await told(), [])
})

t.test('a version that knows two open entries takes the place of both', async (t) => {
  const edges = [
    [0, 1],
    [0, 2],
    [2, 1],
  ] as const
  const [a, b, c] = (await asking(edges)) as [Site, Site, Site]
  for (const site of [a, b, c]) await site.sql(`update item set name = '${site.name}' where id = 'x'`)
  await syncOnce(a, b, ASK)
  await syncOnce(a, c, ASK)
  const before = await open(a)
  t.equal(before.length, 2)
  await syncOnce(c, b, ASK)
  const there = (await open(c)).find(({ theirs }) => theirs.data?.name === b.name)
  await resolve(c, there?.id ?? '', { values: { name: 'of both' } })
  await syncOnce(a, c, ASK)
  t.match(await only(a), { id: before.at(-1)?.id, theirs: { data: { name: 'of both' } } })
  t.match(await findConflict(a.store.db, before[0]?.id ?? ''), { resolution: 'superseded', resolvedBy: null })
  await resolve(a, (await only(a)).id, { choice: 'theirs' })
  t.ok((await rounds([a, b, c], edges)) >= 0)
  for (const site of [a, b, c]) {
    t.match(await rowOf(site), { name: 'of both' }, site.name)
    t.same(await open(site), [], site.name)
  }
})

t.test(
  'I7: a decision that the database refuses stands in the open conflict, so that a decision there ends the matter',
  async (t) => {
    for (const choice of ['ours', 'merged', 'theirs'] as const) {
      const [a, b] = (await asking()) as [Site, Site]
      for (const site of [a, b]) await site.sql('alter table item add unique (note)')
      await b.sql(`insert into item (id, note) values ('taker', 'slot')`)
      await a.sql(`update item set name = 'from a' where id = 'x'`)
      await b.sql(`update item set name = 'from b' where id = 'x'`)
      await pullAll(b, a, ASK)
      await pullOnly(a, b, 'x')
      const { id } = await only(a)
      await resolve(a, id, { choice: 'ours', values: { name: 'decided at a', note: 'slot' } })
      await pullAll(b, a, ASK)
      t.match(await b.sql('select code from syncline.quarantine'), [{ code: 'SYNC_RECORD_CONSTRAINT' }])
      const shown = await only(b)
      t.match(shown.theirs, { data: { name: 'decided at a', note: 'slot' } }, 'the newest word of the other side')
      await t.rejects(
        resolve(b, shown.id, { choice: 'theirs' }),
        { code: 'SYNC_RECORD_CONSTRAINT' },
        'the database still refuses it',
      )
      if (choice === 'theirs') await b.sql(`update item set note = 'other slot' where id = 'taker'`)
      await resolve(b, shown.id, choice === 'merged' ? { choice: 'theirs', values: { note: 'free' } } : { choice })
      t.same(await open(b), [])
      t.same(await b.sql('select from syncline.quarantine'), [], 'and nothing waits for it any more')
      await rounds([a, b], [[0, 1]])
      t.same([await open(a), await open(b)], [[], []], `${choice}: nobody is asked again`)
      t.match(
        await rowOf(a),
        choice === 'ours'
          ? { name: 'from b', note: 'note' }
          : { name: 'decided at a', note: choice === 'merged' ? 'free' : 'slot' },
      )
      t.same(await rowOf(a), await rowOf(b))
      t.same(await versionsOf(a), await versionsOf(b))
    }
  },
)
