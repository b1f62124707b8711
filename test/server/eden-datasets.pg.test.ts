import t, { type Test } from 'tap'
import { readZip, s3xmlReader, zipContent } from '../../src/sync/index.ts'
import { EDEN_DDL, EDEN_TABLES } from '../fixtures/eden/schema.ts'
import { siteFactory } from '../support/sites.ts'
import { addPeer, basic, PUBLIC_URL, type Served, serve } from './served.ts'

const sites = await siteFactory(t)

const SEED = `
  insert into gis_location (uuid, name) values ('urn:uuid:l1', 'Harbour'), ('urn:uuid:l2', 'Hill');
  insert into org_sector values ('urn:uuid:s1', 'Shelter', 'S');
  insert into org_organisation (uuid, name, year) values ('urn:uuid:o1', 'Alpha', 1999), ('urn:uuid:o2', 'Beta', 2000);
  insert into org_office (uuid, name, organisation_id, location_id) values ('urn:uuid:f1', 'HQ', 'urn:uuid:o1', 'urn:uuid:l1');
  insert into org_sector_organisation values ('urn:uuid:x1', 'urn:uuid:o1', 'urn:uuid:s1');`

function elementsIn(body: string | Buffer) {
  const reader = s3xmlReader({ elementsMax: 1e6, recordBytesMax: 1e6, depthMax: 32, bytesMax: 1e9 })
  return [...reader.write(Buffer.from(body)), ...reader.end()]
}

/** The documents of an archive, by name. */
async function unpacked(archive: Buffer): Promise<Map<string, ReturnType<typeof elementsIn>>> {
  const read = async (at: number, length: number) => archive.subarray(at, at + length)
  const found = new Map<string, ReturnType<typeof elementsIn>>()
  for (const member of await readZip(read, archive.length, { membersMax: 100, bytesMax: 1e9, ratioMax: 1_000 })) {
    const parts: Buffer[] = []
    for await (const part of zipContent(read, member)) parts.push(part)
    found.set(member.name, elementsIn(Buffer.concat(parts)))
  }
  return found
}

async function publicly(hub: Served, url: string, method = 'GET') {
  const answer = await hub.app.inject({ method: method as 'GET', url })
  return {
    status: answer.statusCode,
    type: String(answer.headers['content-type']),
    body: answer.body,
    raw: answer.rawPayload,
  }
}

async function hubWith(t: Test, name: string): Promise<Served> {
  const hub = await serve(t, await sites.make(name, EDEN_DDL, EDEN_TABLES))
  await hub.site.sql(SEED)
  return hub
}

t.test('a data set is published, read without an account, archived, and removed', async (t) => {
  const hub = await hubWith(t, 'published')
  const { administrator, operator, viewer } = hub.tokens
  const body = {
    code: 'RELIEF-2026',
    name: 'Relief & more',
    tables: [
      { resource: 'org_organisation', filter: '~.name__like=A*' },
      { resource: 'org_office' },
      { resource: 'gis_location' },
    ],
  }
  const made = await hub.ask(t, 'POST /api/v1/datasets', { token: administrator, body })
  t.equal(made.status, 201, made.text)
  t.equal((await hub.ask(t, 'POST /api/v1/datasets', { token: operator, body })).status, 403)
  t.match((await hub.ask(t, 'POST /api/v1/datasets', { token: administrator, body })).json, {
    code: 'SYNC_REQUEST_EXISTS',
  })
  for (const [wrong, code] of [
    [{ tables: [{ resource: 'nowhere' }] }, 'SYNC_REQUEST_NOT_FOUND'],
    [{ tables: [{ resource: 'org_office', filter: '~.nowhere=1' }] }, 'SYNC_FILTER_INVALID'],
    [{ tables: [{ resource: 'org_organisation', filter: 'office.code=A' }] }, 'SYNC_FILTER_INVALID'],
  ] as const) {
    const refused = await hub.ask(t, 'POST /api/v1/datasets', {
      token: administrator,
      body: { ...body, code: 'X', ...wrong },
    })
    t.match(refused.json, { code })
  }

  const before = elementsIn((await publicly(hub, '/eden/sync/dataset.xml?~.code=RELIEF-2026&mcomponents=None')).body)
  t.match(before, [{ table: 'sync_dataset', attributes: { uuid: `urn:uuid:${made.json.uuid}` } }])
  const archived = await hub.ask(t, 'POST /api/v1/datasets/RELIEF-2026/archive', { token: operator })
  t.equal(archived.status, 200, archived.text)
  const url = String(archived.json.archive.url)
  t.ok(url.startsWith(`${PUBLIC_URL}/eden/default/download/`))
  const [told] = elementsIn((await publicly(hub, '/any/path/eden/sync/dataset.xml?~.code=RELIEF-2026')).body)
  const fields = Object.fromEntries(
    (told?.fields ?? []).map(({ field, attributes }) => [field, JSON.parse(attributes.value ?? '')]),
  )
  t.same(fields, { code: 'RELIEF-2026', name: 'Relief & more', archive_url: url, use_archive: true })

  const tasks = elementsIn((await publicly(hub, '/eden/sync/task.xml?~.dataset_id$code=OTHER,RELIEF-2026')).body)
  t.same(
    tasks.map(({ fields }) => fields.find(({ field }) => field === 'resource_name')?.attributes.value),
    ['"org_organisation"', '"org_office"', '"gis_location"'],
  )
  const [filter, ...none] = elementsIn((await publicly(hub, '/eden/sync/resource_filter.xml')).body)
  t.same(none, [])
  t.match(filter?.fields, [
    { field: 'tablename' },
    { field: 'filter_string', attributes: { value: '"~.name__like=A*"' } },
    { field: 'task_id', attributes: { resource: 'sync_task', uuid: tasks[0]?.attributes.uuid } },
  ])

  const download = await publicly(hub, url.slice(PUBLIC_URL.length))
  t.match(download, { status: 200, type: 'application/zip' })
  t.equal(archived.json.archive.bytes, download.raw.length)
  const members = await unpacked(download.raw)
  t.same([...members.keys()].sort(), tasks.map(({ attributes }) => `${attributes.uuid}.xml`).sort())
  const organisations = members.get(`${tasks[0]?.attributes.uuid}.xml`) ?? []
  t.same(
    organisations.map(({ table, attributes }) => `${table} ${attributes.uuid}`),
    ['org_organisation urn:uuid:o1', 'gis_location urn:uuid:l1'],
    'what matches its filter, and what that refers to',
  )
  t.same(
    organisations[0]?.components.map(({ table }) => table),
    ['org_office'],
    'I10: with what is published inside of it, and nothing else',
  )

  for (const [question, status] of [
    ['GET /eden/sync/dataset.json', 415],
    ['GET /eden/sync/task.html', 415],
    ['GET /eden/sync/resource_filter', 415],
    ['POST /eden/sync/dataset.xml', 405],
    ['DELETE /eden/sync/task.xml', 405],
    ['GET /eden/sync/dataset.xml?~.nowhere=1', 400],
    ['GET /eden/default/download/sync_dataset_archive.archive.0000.zip', 404],
    ['DELETE /eden/default/download/x.zip', 405],
    ['GET /eden/sync/sync.xml?resource=org_office', 401],
  ] as const) {
    const [method = '', path = ''] = question.split(' ')
    t.equal((await publicly(hub, path, method)).status, status, question)
  }
  const s3json = await publicly(hub, '/eden/sync/dataset.s3json')
  t.match(JSON.parse(s3json.body), { $_sync_dataset: [{ code: { '@value': 'RELIEF-2026' } }] })
  t.match((await publicly(hub, '/eden/sync/dataset.xml?~.code=OTHER')).body, /success="false" results="0"/)

  t.match((await hub.ask(t, 'GET /api/v1/datasets', { token: viewer })).json, { items: [{ code: 'RELIEF-2026' }] })
  t.equal((await hub.ask(t, 'DELETE /api/v1/datasets/RELIEF-2026', { token: administrator })).status, 204)
  t.equal((await hub.ask(t, 'DELETE /api/v1/datasets/RELIEF-2026', { token: administrator })).status, 404)
  t.same((await hub.ask(t, 'GET /api/v1/datasets', { token: viewer })).json, { items: [] })
  t.equal((await publicly(hub, url.slice(PUBLIC_URL.length))).status, 404)
  t.same(elementsIn((await publicly(hub, '/eden/sync/task.xml')).body), [])
  t.match(
    elementsIn((await publicly(hub, '/eden/sync/task.xml?include_deleted=True')).body).map(
      ({ attributes }) => attributes.deleted,
    ),
    ['True', 'True', 'True'],
    'who follows it hears that it has gone',
  )
  t.equal(
    (await hub.ask(t, 'POST /api/v1/datasets', { token: administrator, body })).status,
    201,
    'and its code is free',
  )
})

t.test('an archive says nothing of who made a record, and a failed one leaves the one before', async (t) => {
  const hub = await hubWith(t, 'private')
  const { administrator } = hub.tokens
  const eden = await addPeer(hub, { name: 'eden', uuid: crypto.randomUUID(), kind: 'eden' }, EDEN_TABLES)
  const asEden = basic('eden', eden.token)
  const document = `<s3xml><resource name="org_sector" uuid="urn:uuid:s9" mci="1" created_on="2026-03-01T08:00:00" modified_on="2026-03-02T09:30:00" created_by="ada@example.org"><data field="name">Water</data><data field="unknown_here">beside</data></resource></s3xml>`
  const register = {
    method: 'POST',
    url: '/eden/sync/repository/register.json',
    headers: { authorization: asEden },
  } as const
  await hub.app.inject({ ...register, payload: `{"uuid":"urn:uuid:${eden.peer.uuid}","name":"x","apitype":"eden"}` })
  const push = `/eden/sync/sync.xml?resource=org_sector&repository=urn:uuid:${eden.peer.uuid}`
  const sent = await hub.app.inject({
    method: 'POST',
    url: push,
    headers: { authorization: asEden },
    payload: document,
  })
  t.equal(sent.statusCode, 200, sent.body)
  const body = { code: 'SECTORS', name: 'Sectors', tables: [{ resource: 'org_sector' }] }
  await hub.ask(t, 'POST /api/v1/datasets', { token: administrator, body })
  const archive = () => hub.ask(t, 'POST /api/v1/datasets/SECTORS/archive', { token: administrator })
  const { json } = await archive()
  t.equal(json.archive.records, 2)
  const url = String(json.archive.url).slice(PUBLIC_URL.length)
  const [text] = [...(await unpacked((await publicly(hub, url)).raw)).values()].map((each) => JSON.stringify(each))
  t.match(text, /Water/)
  t.notMatch(text, /ada@|beside/)

  await hub.site.sql(`insert into org_sector values ('urn:uuid:bad' || chr(1), 'No name for XML', 'B')`)
  t.equal((await archive()).status, 400)
  t.equal((await publicly(hub, url)).status, 200, 'the one before is still there')
  t.same(await hub.site.sql('select count(*)::int as n from syncline.eden_archive'), [{ n: 1 }])
})
