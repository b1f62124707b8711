import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { setGrant, undoRun } from '../../src/store/index.ts'
import { type EdenElement, s3xmlReader } from '../../src/sync/index.ts'
import { EDEN, EXCHANGES, type Exchange } from '../fixtures/eden/exchanges.ts'
import { EDEN_DDL, EDEN_TABLES } from '../fixtures/eden/schema.ts'
import { siteFactory } from '../support/sites.ts'
import { addPeer, basic, LIMITS, type Served, type ServedPeer, serve } from './served.ts'

const sites = await siteFactory(t)

type Answer = {
  readonly status: number
  readonly type: string
  readonly body: string
  readonly headers: Record<string, unknown>
}

async function ask(
  hub: Served,
  authorization: string | undefined,
  question: string,
  body?: string,
  headers = {},
): Promise<Answer> {
  const [method = '', url = ''] = question.split(/ (.*)/s)
  const response = await hub.app.inject({
    method: method as 'GET',
    url,
    headers: { ...(authorization !== undefined && { authorization }), ...headers },
    ...(body !== undefined && { payload: body }),
  })
  return {
    status: response.statusCode,
    type: String(response.headers['content-type'] ?? ''),
    body: response.body,
    headers: response.headers,
  }
}

function read(body: string): {
  readonly root: Readonly<Record<string, string>>
  readonly elements: readonly EdenElement[]
} {
  const reader = s3xmlReader({ elementsMax: 1e6, recordBytesMax: 1e6, depthMax: 32, bytesMax: 1e9 })
  const elements = [...reader.write(Buffer.from(body)), ...reader.end()]
  return { root: reader.root(), elements }
}

const uuids = (elements: readonly EdenElement[]) => elements.map(({ attributes }) => attributes.uuid)

/** A site with the tables of Eden, and an Eden site that may pull and push them all. */
async function edenSite(t: Test, name: string): Promise<{ hub: Served; eden: ServedPeer; asEden: string }> {
  const hub = await serve(t, await sites.make(name, EDEN_DDL, EDEN_TABLES))
  const eden = await addPeer(hub, { name: 'eden', uuid: randomUUID(), kind: 'eden' }, EDEN_TABLES)
  return { hub, eden, asEden: basic('eden', eden.token) }
}

t.test('every exchange that Eden’s clients rely on has its status, type and meaning', async (t) => {
  const { hub, asEden } = await edenSite(t, 'replay')
  const accounts = {
    eden: asEden,
    wrong: basic('eden', 'not-the-token'),
    none: undefined,
    viewer: basic('viewer', hub.tokens.viewer),
  }
  for (const exchange of EXCHANGES) {
    await t.test(exchange.name, async (t) => {
      const answer = await ask(hub, accounts[exchange.account ?? 'eden'], exchange.ask, exchange.body, exchange.headers)
      hold(t, exchange, answer)
      for (const [sql, value] of exchange.then ?? []) {
        const [row = {}] = await hub.site.sql(sql)
        t.same(Object.values(row)[0], value, sql)
      }
    })
  }
  const log = await hub.site.sql('select mode, direction, action, result, message from syncline.log order by id')
  t.match(log[0], { mode: 'register', direction: 'incoming', result: 'success', message: 'Registration successful' })
  t.ok(
    log.some(
      ({ mode, action, result, message }) =>
        mode === 'pull' && action === 'send' && result === 'warning' && message === 'No data to send',
    ),
  )
  t.ok(
    log.some(
      ({ mode, action, message }) =>
        mode === 'push' && action === 'receive' && message === 'Data received from peer (1 records)',
    ),
  )
})

function hold(t: Test, { status, type, json, text, root, records }: Exchange, answer: Answer): void {
  t.equal(answer.status, status, answer.body.slice(0, 300))
  t.match(answer.type, type)
  if (status === 401) t.equal(answer.headers['www-authenticate'], 'Basic realm="eden"')
  if (json !== undefined) t.match(JSON.parse(answer.body), json)
  if (text !== undefined) t.match(answer.body, text)
  if (root === undefined) return
  const document = read(answer.body)
  t.match(document.root, root)
  if (records !== undefined) t.same(uuids(document.elements), records)
}

t.test('I1: what a puller of Eden is told follows the order of this site, not the times of records', async (t) => {
  const { hub, eden, asEden } = await edenSite(t, 'cursor')
  const { sql } = hub.site
  await register(t, hub, asEden)
  const pull = async (msince?: string, resource = 'org_organisation') => {
    const cursor = msince === undefined ? '' : `&msince=${msince}`
    const answer = await ask(
      hub,
      asEden,
      `GET /eden/sync/sync.xml?resource=${resource}&repository=${EDEN}${cursor}&include_deleted=True`,
    )
    t.equal(answer.status, 200, answer.body.slice(0, 300))
    return read(answer.body).elements
  }
  const cursorOf = (elements: readonly EdenElement[]) => {
    const times = elements
      .filter(({ table }) => table === 'org_organisation')
      .map(({ attributes }) => attributes.modified_on ?? '')
    return after(times.sort().at(-1) ?? '')
  }
  const insert = (...names: string[]) =>
    sql(`insert into org_organisation (uuid, name) select 'urn:uuid:' || n, n from unnest($1::text[]) n`, [names])

  await insert('a', 'b')
  const first = await pull()
  t.same(uuids(first), ['urn:uuid:a', 'urn:uuid:b'])
  t.same(
    uuids(await pull()),
    ['urn:uuid:a', 'urn:uuid:b'],
    'it asks from the beginning again: nothing of that was taken',
  )
  const cursor = cursorOf(first)
  t.same(uuids(await pull(cursor)), [], 'nothing is told twice without need')

  await push(t, hub, 'arrived late', 'old', [['urn:uuid:late', '2019-01-01T00:00:00']])
  t.same(
    uuids(await pull(cursor)),
    ['urn:uuid:late'],
    'a record with an old time is told, though it is older than what Eden asked for',
  )
  t.same(uuids(await pull(cursor)), ['urn:uuid:late'], 'an answer that was lost is told again')
  t.equal(
    (await sql(`select count(*)::int as n from syncline.checkpoint where direction = 'ack'`))[0]?.n,
    1,
    'I6: tombstones wait for it as for any peer',
  )
  const back = '2019-01-01T00:00:01'
  t.same(uuids(await pull(back)), [], 'its time set the clock of Eden back, and still nothing is told twice')
  await push(t, hub, 'arrived later', 'older', [['urn:uuid:c', '2020-02-02T00:00:00']])
  const third = await pull(back)
  t.same(uuids(third), ['urn:uuid:c'])
  t.same(
    uuids(await pull(cursor)),
    ['urn:uuid:late', 'urn:uuid:c'],
    'an Eden that was put back hears again what it had heard since',
  )
  t.same(uuids(await pull(cursorOf(third))), [])
  t.equal((await pull('2001-01-01T00:00:00')).length, 4, 'a time that it never had from here: everything')

  await sql(`delete from org_organisation where uuid = 'urn:uuid:a'`)
  const [gone] = await pull(cursorOf(third))
  t.match(gone, { attributes: { uuid: 'urn:uuid:a', deleted: 'True' }, fields: [] })
  t.same(Object.keys(gone?.attributes ?? {}), ['uuid', 'deleted', 'modified_on'])

  await setGrant(hub.site.store.db, {
    peerId: eden.peer.id,
    resource: 'org_sector',
    direction: 'pull',
    filter: "abrv = 'S'",
  })
  await sql(`insert into org_sector values ('urn:uuid:s1', 'Shelter', 'S'), ('urn:uuid:s2', 'Water', 'W')`)
  t.same(uuids(await pull(undefined, 'org_sector')), ['urn:uuid:s1'], 'I10: only what it was granted')
})

t.test('I4: what Eden sends back of ours is no write, and what it made of it is one', async (t) => {
  const { hub, asEden } = await edenSite(t, 'echo')
  const { sql } = hub.site
  await register(t, hub, asEden)
  await sql(`insert into org_organisation (uuid, name, year) values ('urn:uuid:x', 'Ours', 1990)`)
  const version = () => sql(`select clock, origin, seen from syncline.record where record_id = 'urn:uuid:x'`)
  const before = await version()
  const answer = await ask(
    hub,
    asEden,
    `GET /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}&include_deleted=True`,
  )
  const [told] = read(answer.body).elements
  const time = told?.attributes.modified_on ?? ''
  const echo = (name: string, at: string) =>
    `<s3xml><resource name="org_organisation" uuid="urn:uuid:x" mci="2" created_on="${at}" modified_on="${at}"><data field="name">${name}</data></resource></s3xml>`
  const send = async (document: string) => {
    const sent = await ask(
      hub,
      asEden,
      `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`,
      document,
    )
    t.equal(sent.status, 200, sent.body)
  }
  await send(echo('Ours', time))
  t.same(await version(), before, 'the very version, though Eden knows only its second and dropped a field')
  await sql(`update org_organisation set year = 1991 where uuid = 'urn:uuid:x'`)
  await send(echo('Ours', time))
  t.same(
    await sql(`select name, year from org_organisation`),
    [{ name: 'Ours', year: 1991 }],
    'an echo of an older state changes nothing',
  )
  t.same(await sql('select * from syncline.conflict'), [])
  await send(echo('Theirs', after(time, 60)))
  t.match(await sql(`select name, year from org_organisation`), [{ name: 'Theirs' }], 'a later write of Eden')
  const kept = await sql(`select data ->> 'name' as name from syncline.history where record_id = 'urn:uuid:x'`)
  t.ok(
    kept.some(({ name }) => name === 'Ours'),
    'and what it replaced is kept',
  )
})

t.test('what Eden is told of a record is never older than what it showed of it', async (t) => {
  const { hub, asEden } = await edenSite(t, 'stamps')
  await register(t, hub, asEden)
  const path = `/eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`
  const send = async (at: string) => {
    const document = `<s3xml><resource name="org_organisation" uuid="urn:uuid:z" mci="1" modified_on="${at}"><data field="name">Same</data></resource></s3xml>`
    t.equal((await ask(hub, asEden, `POST ${path}`, document)).status, 200)
  }
  await send('2026-01-02T03:04:05')
  // The same once more, under a time that this site's own clock has not come to.
  const ahead = after(new Date().toISOString().slice(0, 19), 600)
  await send(ahead)
  await hub.site.sql(`update org_organisation set name = 'Changed'`)
  const [told] = read((await ask(hub, asEden, `GET ${path}`)).body).elements
  t.equal(told?.attributes.modified_on, ahead, 'or Eden, which takes what is as new as its own, would refuse it')
})

t.test('a change inside a record travels with it, and what this site has not goes on to other Edens', async (t) => {
  const { hub, asEden } = await edenSite(t, 'inside')
  const other = await addPeer(hub, { name: 'second', uuid: randomUUID(), kind: 'eden' }, EDEN_TABLES)
  const asSecond = basic('second', other.token)
  const second = 'urn:uuid:e0e0e0e0-0000-4000-8000-000000000002'
  await register(t, hub, asEden)
  await register(t, hub, asSecond, second)
  const office = 'urn:uuid:c0000000-0000-4000-8000-000000000009'
  const whole = 'mci="1" created_on="2026-03-01T08:00:00" modified_on="2026-03-02T09:30:00"'
  const document = `<s3xml><resource name="org_organisation" uuid="urn:uuid:m" ${whole} created_by="ada@example.org" approved="false"><data field="name">M</data><data field="unknown_here" value="[1, 2]"/><resource name="org_office" uuid="${office}" ${whole}><data field="name">O</data></resource><resource name="pr_role" uuid="urn:uuid:role" ${whole}><data field="role">Sites</data></resource></resource></s3xml>`
  const sent = await ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`, document)
  t.equal(sent.status, 200, sent.body)
  const pull = async (msince = '') => {
    const answer = await ask(
      hub,
      asSecond,
      `GET /eden/sync/sync.xml?resource=org_organisation&repository=${second}${msince}&include_deleted=True`,
    )
    return read(answer.body).elements
  }
  const [master] = await pull()
  t.match(
    master?.attributes,
    {
      mci: '2',
      created_on: '2026-03-01T08:00:00',
      modified_on: '2026-03-02T09:30:00',
      created_by: 'ada@example.org',
      approved: 'false',
    },
    'one hop further, with its true times and people',
  )
  t.ok(
    master?.fields.some(({ field, attributes }) => field === 'unknown_here' && attributes.value === '[1,2]'),
    'I11: a field without a column',
  )
  t.same(
    master?.components.map(({ table }) => table),
    ['org_office', 'pr_role'],
    'I11: a component without a table',
  )
  t.same(
    master?.components[0]?.fields.map(({ field }) => field),
    ['name'],
    'a component does not name the record around it',
  )
  const msince = '&msince=2026-03-02T09:30:01'
  t.same(await pull(msince), [])
  await hub.site.sql(`update org_office set name = 'moved'`)
  const [again] = await pull(msince)
  t.equal(again?.attributes.uuid, 'urn:uuid:m', 'its master comes, which did not change')
  t.match(again?.components[0]?.fields, [{ field: 'name', attributes: { value: '"moved"' } }])

  const since = `&msince=${after(again?.attributes.modified_on ?? '')}`
  await hub.site.sql(`delete from org_office`)
  const [without, ...others] = await pull(since)
  t.same(others, [])
  t.match(
    without,
    { attributes: { uuid: 'urn:uuid:m' } },
    'I6: a component that was deleted by itself is told inside its master',
  )
  t.match(without?.components.map(({ attributes }) => [attributes.uuid, attributes.deleted]).sort(), [
    [office, 'True'],
    ['urn:uuid:role', undefined],
  ])
  await hub.site.sql(
    `insert into org_office (uuid, name, organisation_id) values ('urn:uuid:late', 'Late', 'urn:uuid:m')`,
  )
  await pull(since)
  await hub.site.sql(`delete from org_office; update org_organisation set name = 'M2'`)
  const [changed] = await pull(since)
  const both = await pull(`&msince=${after(changed?.attributes.modified_on ?? '')}`)
  t.ok(
    both.some(({ components }) =>
      components.some(({ attributes }) => attributes.uuid === 'urn:uuid:late' && attributes.deleted === 'True'),
    ),
    'also where its master changed',
  )
})

t.test(
  'references to places carry where they are, and filters look into lists, below records and into rectangles',
  async (t) => {
    const { hub, eden, asEden } = await edenSite(t, 'places')
    const { sql } = hub.site
    await sql(`insert into gis_location (uuid, name, lat, lon, parent) values ('urn:uuid:c', 'Country', null, null, null),
    ('urn:uuid:t', 'Town', 18.53921, -72.335, 'urn:uuid:c'), ('urn:uuid:v', 'Village', 40, 10, 'urn:uuid:t'), ('urn:uuid:e', 'Elsewhere', -1, 2, null)`)
    await sql(
      `insert into org_office (uuid, name, location_id) select 'urn:uuid:f' || n, n, 'urn:uuid:' || n from unnest(array['c', 't', 'v', 'e']) n`,
    )
    await sql(
      `insert into org_organisation (uuid, name, tags) values ('urn:uuid:o1', 'One', '{water,food}'), ('urn:uuid:o2', 'Two', '{food}'), ('urn:uuid:o3', 'Three', null)`,
    )
    const pull = async (path: string) => read((await ask(hub, asEden, `GET /eden/${path}`)).body).elements
    const located = (elements: readonly EdenElement[]) =>
      elements
        .filter(({ table }) => table === 'org_office')
        .map(({ attributes, fields }) => [
          attributes.uuid,
          fields.find(({ field }) => field === 'location_id')?.attributes.lat,
        ])
    t.same(located(await pull('org/office.xml')), [
      ['urn:uuid:fc', undefined],
      ['urn:uuid:fe', '-1.0000'],
      ['urn:uuid:ft', '18.5392'],
      ['urn:uuid:fv', '40.0000'],
    ])
    const offices = async (filter: string) => located(await pull(`org/office.xml?${filter}`)).map(([uuid]) => uuid)
    t.same(await offices('~.location_id__typeof=urn:uuid:c'), ['urn:uuid:fc', 'urn:uuid:ft', 'urn:uuid:fv'])
    const box = 'POLYGON((-80 10, 10 10, 10 40, -80 40, -80 10))'
    t.same(await offices(`~.location_id$the_geom__intersects=${encodeURIComponent(box)}`), [
      'urn:uuid:ft',
      'urn:uuid:fv',
    ])
    t.same(uuids(await pull('org/organisation.xml?~.tags__contains=food,water')), ['urn:uuid:o1'])
    t.same(uuids(await pull('org/organisation.xml?~.tags__anyof=water,food')), ['urn:uuid:o1', 'urn:uuid:o2'])
    await sql(
      `insert into gis_location (uuid, parent) select 'urn:uuid:many' || n, 'urn:uuid:e' from generate_series(1, 81) n`,
    )
    t.match(await ask(hub, asEden, 'GET /eden/org/office.xml?~.location_id__typeof=urn:uuid:e'), {
      status: 400,
      body: /more than 80 records/,
    })

    await setGrant(hub.site.store.db, {
      peerId: eden.peer.id,
      resource: 'gis_location',
      direction: 'pull',
      columns: ['name'],
    })
    t.same(
      located(await pull('org/office.xml')).map(([, lat]) => lat),
      [undefined, undefined, undefined, undefined],
      'I10: not to whom the coordinates are not told',
    )
    const below = await ask(hub, asEden, 'GET /eden/org/office.xml?~.location_id__typeof=urn:uuid:c')
    t.match(below, { status: 400, body: /may not pull/ }, 'I10: nor what stands below what')
  },
)

t.test(
  'a file is not taken from an address that a push names, and one of this site is told by a name that is the permission',
  async (t) => {
    const { hub, eden, asEden } = await edenSite(t, 'files')
    const granted = { peerId: eden.peer.id, resource: 'org_organisation', direction: 'pull' }
    await register(t, hub, asEden)
    const document = `<s3xml><resource name="org_organisation" uuid="urn:uuid:m" modified_on="2026-03-02T09:30:00"><data field="name">M</data><data field="logo" url="http://169.254.169.254/secret" filename="a.png"/></resource></s3xml>`
    const sent = await ask(
      hub,
      asEden,
      `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`,
      document,
    )
    t.equal(sent.status, 200, sent.body)
    t.same(await hub.site.sql('select name, logo from org_organisation'), [{ name: 'M', logo: null }])
    const [entry] = await hub.site.sql('select message from syncline.log order by id desc limit 1')
    t.match(entry, { message: /1 files that they name come where this site calls/ })
    await hub.site.sql(`update org_organisation set logo = '\\x89504e470d0a', name = 'N'`)
    const pull = `GET /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`
    const [told] = read((await ask(hub, asEden, pull)).body).elements
    const file = told?.fields.find(({ field }) => field === 'logo')?.attributes
    t.match(file, { filename: 'logo.png' }, 'a file here is named in the document, for Eden to fetch')
    const name = String(file?.url).replace('https://hub.example.org', '')
    const fetched = await hub.app.inject({ method: 'GET', url: name })
    t.match(
      [fetched.statusCode, fetched.headers['content-type'], fetched.rawPayload.toString('hex')],
      [200, 'image/png', '89504e470d0a'],
    )

    const version = () => hub.site.sql(`select clock, origin, seen from syncline.record where record_id = 'urn:uuid:m'`)
    const before = await version()
    const echo = `<s3xml><resource name="org_organisation" uuid="urn:uuid:m" mci="2" modified_on="${told?.attributes.modified_on}"><data field="name">N</data><data field="logo" url="http://eden.example.org/default/download/own.png" filename="own.png"/></resource></s3xml>`
    for (let time = 1; time <= 2; time++)
      t.equal(
        (await ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`, echo)).status,
        200,
      )
    t.same(await version(), before, 'I4: under its own address it is no write')

    const wrong = name.replace(
      /\.([0-9a-f])([0-9a-f]{63})\.png/,
      (_, first, rest) => `.${first === '0' ? '1' : '0'}${rest}.png`,
    )
    const status = async (url: string) => (await hub.app.inject({ method: 'GET', url })).statusCode
    t.equal(await status(wrong), 404, 'I10: a name that was made up')
    t.equal(await status(name.replace(/file\.\d+/, 'file.999')), 404)
    await setGrant(hub.site.store.db, { ...granted, columns: ['name'] })
    t.equal(await status(name), 404, 'I10: where the peer may have it no longer')
    await setGrant(hub.site.store.db, granted)
    t.equal(await status(name), 200)
    await hub.site.sql(`update org_organisation set logo = 'another'`)
    t.equal(await status(name), 404, 'the name is for this content alone')
  },
)

t.test(
  'a file that a push names is fetched from the Eden that this site can call, and one that is not there keeps nothing back',
  async (t) => {
    const hub = await serve(t, await sites.make('fetched', EDEN_DDL, EDEN_TABLES))
    const account = { url: 'http://eden.example.org/eden', token: 'sync@example.org:password' }
    const eden = await addPeer(
      hub,
      { name: 'eden', uuid: EDEN.replace('urn:uuid:', ''), kind: 'eden', ...account },
      EDEN_TABLES,
    )
    const asEden = basic('eden', eden.token)
    await register(t, hub, asEden)
    const place = 'http://eden.example.org/eden/default/download'
    const document = `<s3xml>${['here', 'missing'].map((name) => `<resource name="org_organisation" uuid="urn:uuid:${name}" modified_on="2026-03-02T09:30:00"><data field="name">${name}</data><data field="logo" url="${place}/${name}.png" filename="${name}.png"/></resource>`).join('')}</s3xml>`
    const send = () =>
      ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`, document)
    t.equal((await send()).status, 200)
    t.same(await hub.site.sql(`select name, convert_from(logo, 'UTF8') as logo from org_organisation order by name`), [
      { name: 'here', logo: `at ${place}/here.png` },
      { name: 'missing', logo: null },
    ])
    const [entry] = await hub.site.sql(
      `select message from syncline.log where action = 'receive' order by id desc limit 1`,
    )
    t.match(entry, { message: /; 1 files that they name/ })
    const asked = hub.asked.length
    t.equal((await send()).status, 200)
    t.equal(hub.asked.length, asked, 'what was here before is not fetched again')
  },
)

t.test('I10: who may see some columns is not told what stands beside them', async (t) => {
  const { hub, asEden } = await edenSite(t, 'columns')
  await register(t, hub, asEden)
  const document = `<s3xml><resource name="org_organisation" uuid="urn:uuid:m" modified_on="2026-03-02T09:30:00"><data field="name">M</data><data field="comments">secret</data><data field="unknown_here">also</data><resource name="pr_role" uuid="urn:uuid:role"><data field="role">Sites</data></resource></resource></s3xml>`
  await ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`, document)
  const other = await addPeer(hub, { name: 'narrow', uuid: randomUUID(), kind: 'eden' }, [])
  await setGrant(hub.site.store.db, {
    peerId: other.peer.id,
    resource: 'org_organisation',
    direction: 'pull',
    columns: ['name'],
  })
  const answer = await ask(hub, basic('narrow', other.token), 'GET /eden/sync/sync.xml?resource=org_organisation')
  const [told] = read(answer.body).elements
  t.same(
    told?.fields.map(({ field }) => field),
    ['name'],
  )
  t.same(told?.components, [])
})

t.test('a push of many records with what they refer to at its end is taken whole', async (t) => {
  const { hub, asEden } = await edenSite(t, 'many')
  await register(t, hub, asEden)
  const stamp = 'mci="1" created_on="2026-03-01T08:00:00" modified_on="2026-03-02T09:30:00"'
  const organisations = Array.from(
    { length: 2_500 },
    (_, n) =>
      `<resource name="org_organisation" uuid="urn:uuid:o${n}" ${stamp}><data field="name">O ${n}</data><resource name="org_office" uuid="urn:uuid:f${n}" ${stamp}><data field="name">F</data><reference field="location_id" resource="gis_location" uuid="urn:uuid:l${n % 10}"/></resource></resource>`,
  )
  const locations = Array.from(
    { length: 10 },
    (_, n) =>
      `<resource name="gis_location" uuid="urn:uuid:l${n}" ${stamp}><data field="name">L ${n}</data></resource>`,
  )
  const document = `<s3xml>${organisations.join('')}${locations.join('')}</s3xml>`
  const send = () => ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`, document)
  const first = await send()
  t.equal(first.status, 200, first.body.slice(0, 500))
  t.match(JSON.parse(first.body), { records: 2_500 })
  t.same(
    await hub.site.sql(
      'select (select count(*)::int from org_office where location_id is not null) as offices, (select count(*)::int from syncline.quarantine) as waiting',
    ),
    [{ offices: 2_500, waiting: 0 }],
  )
  const again = await send()
  t.equal(again.status, 200, 'I2: and once more, as Eden sends its whole table each time')
  t.same(await hub.site.sql('select count(*)::int as changes from syncline.history'), [{ changes: 0 }])
})

t.test('a record that waits is an error for Eden each time, until it is in', async (t) => {
  const { hub, asEden } = await edenSite(t, 'waits')
  await register(t, hub, asEden)
  const office = `<s3xml><resource name="org_office" uuid="urn:uuid:f" modified_on="2026-03-02T09:30:00"><data field="name">F</data><reference field="location_id" resource="gis_location" uuid="urn:uuid:nowhere"/></resource></s3xml>`
  const send = (table: string, body: string) =>
    ask(hub, asEden, `POST /eden/sync/sync.xml?resource=${table}&repository=${EDEN}`, body)
  for (const time of ['first', 'second']) {
    const answer = await send('org_office', office)
    t.equal(answer.status, 400, `the ${time} time`)
    t.match(JSON.parse(answer.body), { status: 'failed', message: /urn:uuid:f.*gis_location/s })
  }
  const location =
    '<s3xml><resource name="gis_location" uuid="urn:uuid:nowhere" modified_on="2026-03-02T09:30:00"><data field="name">L</data></resource></s3xml>'
  t.equal((await send('gis_location', location)).status, 200)
  t.same(
    await hub.site.sql('select location_id from org_office'),
    [{ location_id: 'urn:uuid:nowhere' }],
    'it went in by itself',
  )
  t.equal((await send('org_office', office)).status, 200)
})

t.test('what Eden merges is merged here: references follow, and the loser goes', async (t) => {
  const { hub, asEden } = await edenSite(t, 'merges')
  await register(t, hub, asEden)
  const stamp = (n: number) => `mci="1" modified_on="2026-03-0${n}T09:30:00"`
  const send = (body: string) =>
    ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`, `<s3xml>${body}</s3xml>`)
  const two = ['winner', 'loser'].map(
    (name) =>
      `<resource name="org_organisation" uuid="urn:uuid:${name}" ${stamp(1)}><data field="name">${name}</data><resource name="org_office" uuid="urn:uuid:of-${name}" ${stamp(1)}><data field="name">O</data></resource></resource>`,
  )
  t.equal((await send(two.join(''))).status, 200)
  const merged = await send(
    `<resource name="org_organisation" uuid="urn:uuid:loser" deleted="True" modified_on="2026-03-02T09:30:00" replaced_by="urn:uuid:winner"/>`,
  )
  t.equal(merged.status, 200, merged.body)
  t.same(await hub.site.sql('select uuid from org_organisation'), [{ uuid: 'urn:uuid:winner' }])
  t.same(await hub.site.sql('select distinct organisation_id from org_office'), [
    { organisation_id: 'urn:uuid:winner' },
  ])
})

t.test('I8: a record whose name XML cannot carry stays behind alone, and is named', async (t) => {
  const { hub, asEden } = await edenSite(t, 'unsaid')
  await register(t, hub, asEden)
  await hub.site.sql(
    `insert into org_sector (uuid, name) values ('urn:uuid:a', 'A'), ('urn:uuid:' || chr(1), 'No name for XML'), ('urn:uuid:z', 'Z')`,
  )
  const answer = await ask(hub, asEden, `GET /eden/sync/sync.xml?resource=org_sector&repository=${EDEN}`)
  t.same(uuids(read(answer.body).elements), ['urn:uuid:a', 'urn:uuid:z'])
  const [entry] = await hub.site.sql('select result, message from syncline.log order by id desc limit 1')
  t.match(entry, { result: 'warning', message: /1 cannot be written, such as "urn:uuid:\\u0001"/ })
})

t.test('a push of Eden is one run here: listed, taken back, and held by the brakes of the grant', async (t) => {
  const { hub, eden, asEden } = await edenSite(t, 'run')
  await register(t, hub, asEden)
  const { sql, store, self } = hub.site
  const organisations = (name: string, second: number, more = '') =>
    Array.from(
      { length: 1_100 },
      (_, n) =>
        `<resource name="org_organisation" uuid="urn:uuid:o${n}" modified_on="2026-03-02T09:30:0${second}"${more}><data field="name">${name} ${n}</data></resource>`,
    ).join('')
  const send = (elements: string) =>
    ask(
      hub,
      asEden,
      `POST /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`,
      `<s3xml>${elements}</s3xml>`,
    )
  t.equal((await send(organisations('first', 1))).status, 200)
  t.equal((await send(organisations('second', 2))).status, 200)
  t.equal((await send(organisations('second', 2))).status, 200, 'what is there leaves no run')
  const runs = await sql(
    `select id, cause, peer_name, state, result, (counts ->> 'applied')::int as applied from syncline.run order by id`,
  )
  const run = { cause: 'received', peer_name: 'eden', state: 'finished', result: 'success', applied: 1_100 }
  t.match(runs, [run, run], 'portions of a document are one run')
  t.equal(runs.length, 2)
  t.same(
    await sql(`select run_id from syncline.log where action = 'receive' order by id`),
    [...runs.map(({ id }) => ({ run_id: id })), { run_id: null }],
    'its entry in the log names it',
  )
  const undone = await undoRun(
    store,
    self,
    { runId: String(runs[1]?.id), preview: false, force: [], partial: false, by: 'a test' },
    LIMITS,
  )
  t.equal(undone.counts.replaced, 1_100)
  const first = await sql(`select count(*)::int as n from org_organisation where name like 'first %'`)
  t.same(first, [{ n: 1_100 }])
  t.equal((await send(organisations('second', 2))).status, 200)
  t.same(
    await sql(`select count(*)::int as n from org_organisation where name like 'first %'`),
    [{ n: 1_100 }],
    'what Eden shows as before brings nothing back',
  )

  await setGrant(store.db, { peerId: eden.peer.id, resource: 'org_sector', direction: 'push', maxDeletes: '10' })
  const sectors = (second: number, more: string, inside: string) =>
    Array.from(
      { length: 20 },
      (_, n) =>
        `<resource name="org_sector" uuid="urn:uuid:s${n}" modified_on="2026-03-02T09:30:0${second}"${more}>${inside}</resource>`,
    ).join('')
  const sendSectors = (elements: string) =>
    ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_sector&repository=${EDEN}`, `<s3xml>${elements}</s3xml>`)
  t.equal((await sendSectors(sectors(1, '', '<data field="name">S</data>'))).status, 200)
  const stopped = await sendSectors(sectors(2, ' deleted="True"', ''))
  t.equal(stopped.status, 409)
  t.match(JSON.parse(stopped.body), { status: 'failed', message: /syncline brake list --peer eden/ })
  t.same(
    await sql('select count(*)::int as n from org_sector'),
    [{ n: 20 }],
    'I10: nothing is deleted before it was allowed',
  )
})

t.test('bodies that lie, stop or never end leave nothing half said, and the site goes on', async (t) => {
  const { hub, asEden } = await edenSite(t, 'hostile')
  await register(t, hub, asEden)
  const url = await hub.app.listen({ port: 0, host: '127.0.0.1' })
  const path = `/eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`
  const post = (body: string | Buffer) => ask(hub, asEden, `POST ${path}`, body as string)
  const inside = (field: string) =>
    `<s3xml><resource name="org_organisation" uuid="urn:uuid:h" modified_on="2026-03-02T09:30:00"><data field="name">${field}</data></resource></s3xml>`
  for (const [body, pattern] of [
    ['', /no document/],
    ['   ', /root element/],
    ['not xml', /line 1/],
    [`<!DOCTYPE s3xml [<!ENTITY a "b">]>${inside('&a;')}`, /DOCTYPE/],
    [`<?xml version="1.0" encoding="iso-8859-1"?>${inside('x')}`, /iso-8859-1/],
    [Buffer.from(inside('\xe9'), 'latin1'), /UTF-8/],
    ['--xyz\r\nContent-Disposition: form-data; name="a.xml"\r\n\r\n<s3xml/>', /form in the body has no end/],
    [`${'-'.repeat(20_000)}`, /begins with no document/],
    [inside('x'.repeat(2_000_000)), /at most 1048576/],
  ] as const) {
    const answer = await post(body)
    t.ok(answer.status >= 400 && answer.status < 500, `${answer.status} ${answer.body.slice(0, 200)}`)
    t.match(JSON.parse(answer.body), { status: 'failed', message: pattern })
  }
  t.equal((await post(inside('&amp;lt;b&amp;gt; ü𝄞'))).status, 200)
  t.same(await hub.site.sql('select name from org_organisation'), [{ name: '&lt;b&gt; ü𝄞' }], 'no entity is read twice')

  const hungUp = new AbortController()
  const half = new ReadableStream({
    start: (controller) => controller.enqueue(Buffer.from(inside('half').slice(0, -20))),
  })
  const sending = fetch(`${url}${path}`, {
    method: 'POST',
    headers: { authorization: asEden },
    body: half,
    duplex: 'half',
    signal: hungUp.signal,
  } as RequestInit)
  setTimeout(() => hungUp.abort(), 300)
  await t.rejects(sending)
  await hub.site.sql(
    `insert into org_organisation (uuid, name) select 'urn:uuid:n' || n, repeat('x', 1000) from generate_series(1, 20000) n`,
  )
  const gone = new AbortController()
  const taking = await fetch(`${url}${path}&include_deleted=True`, {
    headers: { authorization: asEden },
    signal: gone.signal,
  })
  await taking.body?.getReader().read()
  gone.abort()
  const whole = await fetch(`${url}${path}&include_deleted=True`, { headers: { authorization: asEden } })
  t.equal(read(await whole.text()).elements.length, 20_000, 'an answer that was not taken to its end is told again')
  t.ok(
    (await hub.site.sql(`select message from syncline.log where result = 'error' and remote`)).some(({ message }) =>
      /hung up/.test(String(message)),
    ),
  )
  t.same(await hub.site.sql(`select name from org_organisation where uuid = 'urn:uuid:h'`), [{ name: '&lt;b&gt; ü𝄞' }])
})

t.test('without a grant nothing is told and nothing is taken', async (t) => {
  const hub = await serve(t, await sites.make('ungranted', EDEN_DDL, EDEN_TABLES))
  const eden = await addPeer(hub, { name: 'eden', uuid: randomUUID(), kind: 'eden' }, ['org_sector'])
  const asEden = basic('eden', eden.token)
  await register(t, hub, asEden)
  const pulled = await ask(hub, asEden, `GET /eden/sync/sync.xml?resource=org_organisation&repository=${EDEN}`)
  t.equal(pulled.status, 403)
  t.match(pulled.body, /^Insufficient Privileges: peer "eden" may not pull "org_organisation"/)
  const document =
    '<s3xml><resource name="org_sector" uuid="urn:uuid:s"><data field="name">S</data></resource><resource name="gis_location" uuid="urn:uuid:l"><data field="name">L</data></resource></s3xml>'
  const pushed = await ask(hub, asEden, `POST /eden/sync/sync.xml?resource=org_sector&repository=${EDEN}`, document)
  t.equal(pushed.status, 400, 'a record beside the table that it may not push')
  t.match(JSON.parse(pushed.body), { message: /may not push "gis_location"/ })
  t.same(
    await hub.site.sql(
      'select (select count(*)::int from org_sector) as taken, (select count(*)::int from gis_location) as refused',
    ),
    [{ taken: 1, refused: 0 }],
  )
  const stranger = await addPeer(hub, { name: 'stranger', uuid: randomUUID(), kind: 'eden' }, [])
  const claimed = await ask(
    hub,
    basic('stranger', stranger.token),
    'POST /eden/sync/repository/register.json',
    `{"uuid":"${EDEN}","name":"x"}`,
  )
  t.equal(claimed.status, 403, 'a UUID that another peer registered with')
})

async function register(t: Test, hub: Served, authorization: string, uuid = EDEN): Promise<void> {
  const answer = await ask(
    hub,
    authorization,
    'POST /eden/sync/repository/register.json',
    JSON.stringify({ uuid, name: 'eden', apitype: 'eden' }),
  )
  t.match(JSON.parse(answer.body), { status: 'success', sender: `urn:uuid:${hub.site.self.uuid}` })
}

/** Records that reach this site by another Eden. */
async function push(
  t: Test,
  hub: Served,
  name: string,
  peer: string,
  records: readonly (readonly [string, string])[],
): Promise<void> {
  const uuid = `urn:uuid:${randomUUID()}`
  const other = await addPeer(hub, { name: peer, uuid: randomUUID(), kind: 'eden' }, EDEN_TABLES)
  const authorization = basic(peer, other.token)
  await register(t, hub, authorization, uuid)
  const elements = records.map(
    ([id, at]) =>
      `<resource name="org_organisation" uuid="${id}" modified_on="${at}"><data field="name">${name}</data></resource>`,
  )
  const answer = await ask(
    hub,
    authorization,
    `POST /eden/sync/sync.xml?resource=org_organisation&repository=${uuid}`,
    `<s3xml>${elements.join('')}</s3xml>`,
  )
  t.equal(answer.status, 200, answer.body)
}

/** The time some seconds later, as Eden writes times. */
function after(time: string, seconds = 1): string {
  return new Date(Date.parse(`${time}Z`) + seconds * 1_000).toISOString().slice(0, 19)
}
