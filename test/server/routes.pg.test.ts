import { randomBytes, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  applyJobs,
  beginJobStep,
  findPeer,
  keyFingerprint,
  noteFolderFile,
  recordVerdicts,
  requestRun,
  saveJobStep,
  secretHash,
  takeLeases,
  verifySignature,
} from '../../src/store/index.ts'
import { decodePairingCode, encodePairingCode, pairingProof, parseCheckpoint } from '../../src/sync/index.ts'
import { siteFactory } from '../support/sites.ts'
import { addPeer, basic, PUBLIC_URL, type Question, serve } from './served.ts'

const DDL = `
  create table country (id text primary key, name text not null);
  create table city (
    id uuid primary key default gen_random_uuid(), name text not null check (name <> ''), population int8 check (population >= 0),
    area numeric, country text references country, facts jsonb);
  create table hospital (id uuid primary key, name text);
  create table ward (number serial primary key, name text);
  create table broken (name text);
  insert into ward (name) select 'ward ' || n from generate_series(1, 20) n;
  create view cities as select * from city;
`
const sites = await siteFactory(t)
const site = await sites.make('hub', DDL, ['country', 'city'])
const hub = await serve(t, site)
const { administrator, operator, viewer } = hub.tokens
const laptop = await addPeer(hub, { name: 'field-laptop', uuid: randomUUID() }, ['country', 'city'])

const admin = (t: Test, question: string, body?: unknown, headers: Question['headers'] = {}) =>
  hub.ask(t, question, { token: administrator, body, headers })
const anyRevision = { 'if-match': '*' }
const example = (name: string) => readFileSync(join(import.meta.dirname, '../../openapi/examples', name), 'utf8')
const sample = (name: string) => JSON.parse(example(`${name}.json`)) as Record<string, unknown>
const city = (n: number) => `6f1c2a3e-0000-4000-8000-00000000000${n}`

t.test(
  'what everybody may see: a page that says what this is, the document and its browser, and that the process lives',
  async (t) => {
    const home = await hub.ask(t, 'GET /')
    t.match(home.text, /Syncline site, version 1\.2\.3.*href="\/docs"/s)
    t.equal((await hub.ask(t, 'GET /health/live')).json.status, 'ok')
    t.equal((await hub.ask(t, 'GET /openapi.json')).json.openapi, '3.1.0')
    const docs = await hub.ask(t, 'GET /docs')
    t.equal(docs.status, 200)
    t.notMatch(
      docs.headers['content-security-policy'],
      /upgrade-insecure-requests/,
      'a site on plain HTTP keeps its pages',
    )
    t.equal((await hub.ask(t, 'GET /docs/static/swagger-ui-bundle.js')).status, 200)
  },
)

t.test('how the site is: ready, and as numbers', async (t) => {
  const ready = await hub.ask(t, 'GET /health/ready')
  t.match(ready.json, {
    ready: true,
    checks: [
      { name: 'database', ok: true },
      { name: 'order', ok: true },
      { name: 'capture', ok: true },
      { name: 'proof', ok: true, detail: 'nothing was compared with a peer yet' },
    ],
  })
  await site.sql('alter table city disable trigger zz_syncline_update')
  const broken = await hub.ask(t, 'GET /health/ready')
  t.equal(broken.status, 503)
  t.match(broken.json.checks[2], { ok: false, detail: /disabled.*city/ })
  t.match((await admin(t, 'GET /api/v1/resources/city/check')).json.faults, [/disabled/])
  t.match(
    (await admin(t, 'GET /api/v1/checks')).json.items.find((each: { resource: string }) => each.resource === 'city')
      .faults,
    [/disabled/],
  )
  t.ok(hub.lines.some((line) => line.event === 'capture.broken'))
  await site.sql('alter table city enable always trigger zz_syncline_update')
  const metrics = await hub.ask(t, 'GET /metrics')
  t.match(metrics.text, /^syncline_http_request_seconds_count\{.*route="\/health\/ready"/m)
  t.match(metrics.text, /^syncline_conflicts_open 0$/m)
  t.match(metrics.text, /^syncline_horizon_age_seconds 0$/m)
})

t.test('the site says who it is, and keeps the name that it is given', async (t) => {
  const { json, headers } = await admin(t, 'GET /api/v1/site')
  t.match(json, {
    uuid: site.self.uuid,
    name: 'hub',
    url: PUBLIC_URL,
    version: '1.2.3',
    database: { kind: 'postgresql', version: /^15/ },
    waiting: { conflicts: 0, quarantine: 0 },
  })
  t.equal(json.fingerprint, keyFingerprint(site.self.publicKey))
  t.equal(
    (await admin(t, 'PATCH /api/v1/site', { name: 'Hub Vienna' })).json.code,
    'SYNC_REQUEST_INVALID',
    'If-Match is required',
  )
  t.equal((await admin(t, 'PATCH /api/v1/site', { name: 'Hub Vienna' }, { 'if-match': '"old"' })).status, 412)
  const renamed = await admin(t, 'PATCH /api/v1/site', { name: 'Hub Vienna' }, { 'if-match': String(headers.etag) })
  t.equal(renamed.json.name, 'Hub Vienna')
})

t.test(
  'records are written by hand, listed, exported in every format and deleted, each with its version',
  async (t) => {
    const loaded = await hub.ask(t, 'POST /api/v1/records/country', {
      token: operator,
      body: example('importRecords.csv'),
      headers: { 'content-type': 'text/csv' },
    })
    t.match(loaded.json, { counts: { applied: 2, refused: 0 }, rejections: [], truncated: false })
    const id = city(9)
    const put = await hub.ask(t, `PUT /api/v1/records/city/${id}`, { token: operator, body: sample('writeRecord') })
    t.match(put.json, {
      id,
      version: { origin: site.self.uuid },
      data: { name: 'Klagenfurt', population: '104333' },
      refs: { country: { resource: 'country', id: 'AT' } },
    })
    t.match(put.headers.etag, /^"[0-9a-f-]{36}\.\d{16}"$/)
    const exact = await hub.ask(t, `PUT /api/v1/records/city/${id}`, {
      token: operator,
      body: '{"data":{"area":120.1100000000000000000001,"facts":{"a":[1.0,1e3]}}}',
      headers: { 'content-type': 'application/json' },
    })
    t.match(
      exact.json,
      { data: { name: 'Klagenfurt', population: '104333', area: '120.1100000000000000000001' } },
      'absent columns stay, digits too',
    )

    const one = await hub.ask(t, `GET /api/v1/records/city/${id.toUpperCase()}`, { token: viewer })
    t.same(one.json, exact.json)
    const list = await hub.ask(t, 'GET /api/v1/records/country?limit=1', { token: viewer })
    t.equal(list.json.items[0].id, 'SI', 'newest first')
    const rest = await hub.ask(t, `GET /api/v1/records/country?limit=1&cursor=${list.json.next}`, { token: viewer })
    t.match(rest.json, { items: [{ id: 'AT' }], next: null })
    const found = await hub.ask(
      t,
      `GET /api/v1/records/city?filter=${encodeURIComponent("country.name = 'Austria'")}&columns=name`,
      { token: viewer },
    )
    t.match(found.json.items, [{ id, data: { name: 'Klagenfurt' } }])
    t.notOk('population' in found.json.items[0].data)
    t.equal(
      (await hub.ask(t, 'GET /api/v1/records/city?filter=nothing%20%3D%201', { token: viewer })).json.code,
      'SYNC_FILTER_INVALID',
    )
    t.equal(
      (await hub.ask(t, 'GET /api/v1/records/city?cursor=xyz', { token: viewer })).json.code,
      'SYNC_REQUEST_INVALID',
    )

    const lines = await hub.ask(t, 'GET /api/v1/records/country', {
      token: viewer,
      headers: { accept: 'application/x-ndjson' },
    })
    t.same(
      lines.text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line).id ?? JSON.parse(line)),
      ['AT', 'SI', { count: 2 }],
    )
    const whole = await hub.ask(t, 'GET /api/v1/records/country?all=true', {
      token: viewer,
      headers: { accept: 'application/json' },
    })
    t.equal(whole.json.changes.length, 2)
    const xml = await hub.ask(t, 'GET /api/v1/records/country', {
      token: viewer,
      headers: { accept: 'application/xml' },
    })
    t.match(xml.text, /^<\?xml.*<s3xml>\n<resource name="country" uuid="AT".*<\/s3xml>\n$/s)
    t.equal(
      (await hub.ask(t, 'GET /api/v1/records/country', { token: viewer, headers: { accept: 'text/csv' } })).status,
      406,
    )
    for (const [type, body] of [
      ['application/x-ndjson', lines.text],
      ['application/json', whole.text],
      ['application/xml', xml.text],
    ] as const) {
      const again = await hub.ask(t, 'POST /api/v1/records/country', {
        token: operator,
        body,
        headers: { 'content-type': type },
      })
      t.match(
        again.json.counts,
        { known: 2, applied: 0 },
        `what was exported as ${type} is imported again, and changes nothing`,
      )
    }

    t.equal((await hub.ask(t, `DELETE /api/v1/records/city/${id}`, { token: operator })).status, 204)
    t.match((await hub.ask(t, `GET /api/v1/records/city/${id}`, { token: viewer })).json, { id, deleted: true })
    t.equal((await hub.ask(t, `DELETE /api/v1/records/city/${id}`, { token: operator })).status, 404)
    t.equal((await hub.ask(t, `GET /api/v1/records/city/${city(8)}`, { token: viewer })).status, 404)
    t.match((await hub.ask(t, 'GET /api/v1/records/city?deleted=true', { token: viewer })).json.items, [
      { id, deleted: true },
    ])
    const past = await hub.ask(t, `GET /api/v1/records/city/${id}/history`, { token: viewer })
    t.match(past.json.items, [
      { reason: 'deleted', data: { name: 'Klagenfurt' } },
      { reason: 'replaced', data: { area: null } },
    ])
  },
)

t.test(
  'what the database refuses of one record is the failure of the request, and what is refused of many is told of each',
  async (t) => {
    const at = `PUT /api/v1/records/city/${city(7)}`
    const refused = async (body: unknown, code: string, status = 422) => {
      const answer = await hub.ask(t, at, { token: operator, body })
      t.match(answer, { status, json: { code } })
    }
    await refused({ data: { name: '' } }, 'SYNC_RECORD_CONSTRAINT')
    await refused({ data: { name: 'A', population: 'many' } }, 'SYNC_RECORD_CONSTRAINT')
    await refused({ data: { name: 'A', mayor: 'B' } }, 'SYNC_RECORD_FIELD_UNKNOWN')
    await refused({ data: { name: 'A', country: 'XX' } }, 'SYNC_RECORD_PARENT_MISSING')
    await refused({ data: { name: 'A' }, id: 'B' }, 'SYNC_FORMAT_INVALID', 400)
    await refused({}, 'SYNC_FORMAT_INVALID', 400)
    await refused('[', 'SYNC_FORMAT_INVALID', 400)
    const many = await hub.ask(t, 'POST /api/v1/records/city', {
      token: operator,
      body: 'id,name\n6f1c2a3e-0000-4000-8000-000000000006,Good\n6f1c2a3e-0000-4000-8000-000000000007,""\n',
      headers: { 'content-type': 'text/csv' },
    })
    t.match(many.json, {
      counts: { applied: 1 },
      rejections: [{ id: city(7), outcome: 'refused', code: 'SYNC_RECORD_CONSTRAINT' }],
    })
  },
)

t.test('tables are attached at once, in the background or with a line for each step, and detached', async (t) => {
  const background = await admin(t, 'POST /api/v1/resources', sample('attachResources'))
  t.equal(background.status, 202)
  const where = `GET ${background.headers.location}`
  let operation = await admin(t, where)
  for (let n = 0; n < 1_000 && operation.json.state === 'running'; n++) {
    await sleep(50)
    operation = await admin(t, where)
  }
  t.match(operation.json, { state: 'done', resources: ['hospital', 'hospital_ward'], code: null })
  const ward = await admin(t, 'GET /api/v1/resources/hospital_ward')
  t.match(ward.json, { table: 'public.ward', key: 'uuid', addedUuid: true, managed: false, ready: true })
  t.same(
    ward.json.columns.map(({ name, sent }: { name: string; sent: boolean }) => [name, sent]),
    [
      ['number', false],
      ['name', true],
      ['uuid', false],
    ],
  )

  t.equal((await admin(t, 'DELETE /api/v1/resources/hospital_ward', undefined, { 'if-match': '"1-old"' })).status, 412)
  t.equal(
    (await admin(t, 'DELETE /api/v1/resources/hospital_ward', undefined, { 'if-match': String(ward.headers.etag) }))
      .status,
    204,
  )
  t.equal(
    (await site.sql("select from information_schema.columns where table_name = 'ward' and column_name = 'uuid'"))
      .length,
    0,
    'the table is as it was',
  )

  const steps = await admin(
    t,
    'POST /api/v1/resources',
    { tables: [{ table: 'ward', addUuid: true }] },
    { accept: 'application/x-ndjson' },
  )
  const said = steps.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.match(said[0], { resource: 'ward', doing: 'giving rows a uuid', done: 20 })
  t.match(said.at(-1), { resources: [{ name: 'ward', ready: true }] })
  const bad = await admin(
    t,
    'POST /api/v1/resources',
    { tables: [{ table: 'cities' }] },
    { accept: 'application/x-ndjson' },
  )
  t.match(JSON.parse(bad.text), { problem: { code: 'SYNC_RESOURCE_UNSUITABLE', detail: /view/ } })
  const waited = await admin(t, 'POST /api/v1/resources', { tables: [{ table: 'hospital' }] }, { prefer: 'wait' })
  t.match(
    waited,
    { status: 201, json: { resources: [{ name: 'hospital' }] } },
    'attaching again goes on where it stopped',
  )
  t.match((await admin(t, 'POST /api/v1/resources', { tables: [{ table: 'broken' }] }, { prefer: 'wait' })).json, {
    code: 'SYNC_RESOURCE_UNSUITABLE',
    detail: /identity|primary key/,
  })
  const failing = await admin(t, 'POST /api/v1/resources', { tables: [{ table: 'broken' }] })
  operation = await admin(t, `GET ${failing.headers.location}`)
  for (let n = 0; n < 2_000 && operation.json.state === 'running'; n++) {
    await sleep(20)
    operation = await admin(t, `GET ${failing.headers.location}`)
  }
  t.match(operation.json, { state: 'failed', code: 'SYNC_RESOURCE_UNSUITABLE', resources: [] })
  t.equal((await admin(t, 'GET /api/v1/operations/99999')).status, 404)
})

t.test('a site without an application database makes its tables from JSON Schemas', async (t) => {
  const made = await admin(t, 'POST /api/v1/resources/managed', sample('createResource'))
  t.match(made, { status: 201, json: { name: 'survey', managed: true, key: 'id' } })
  t.equal(made.json.columns.find(({ name }: { name: string }) => name === 'city').refersTo, 'city')
  t.equal((await admin(t, 'POST /api/v1/resources/managed', sample('createResource'))).json.code, 'SYNC_REQUEST_EXISTS')
  const wrong = await admin(t, 'POST /api/v1/resources/managed', { name: 'odd', schema: { type: 'array', items: {} } })
  t.match(wrong.json, { code: 'SYNC_REQUEST_INVALID', detail: /must describe an object.*"items" has no meaning here/ })
  const page = await admin(t, 'GET /api/v1/resources?limit=2')
  t.equal(page.json.items[0].name, 'survey', 'newest first')
  const next = await admin(t, `GET /api/v1/resources?limit=2&cursor=${page.json.next}`)
  t.ok(next.json.items[0].id < page.json.items[1].id)
  t.same(
    (await admin(t, 'GET /api/v1/resources?managed=true')).json.items.map(({ name }: { name: string }) => name),
    ['survey'],
  )
})

t.test(
  'peers are registered by hand, changed under their ETag, paused, given new tokens and removed; secrets never show',
  async (t) => {
    const made = await admin(t, 'POST /api/v1/peers', sample('addPeer'))
    t.match(made, {
      status: 201,
      headers: { etag: '"1"', location: '/api/v1/peers/ngo' },
      json: { name: 'ngo', url: null, hasToken: false },
    })
    t.equal((await admin(t, 'POST /api/v1/peers', sample('addPeer'))).json.code, 'SYNC_REQUEST_EXISTS')
    t.match((await admin(t, 'POST /api/v1/peers', { name: 'self', uuid: site.self.uuid })).json, {
      code: 'SYNC_REQUEST_INVALID',
      detail: /this site itself/,
    })
    const change = {
      url: 'https://ngo.example.org',
      token: 'what-we-show-there-0123456789',
      proxyUrl: 'http://u:secret-word@proxy:3128',
    }
    t.equal(
      (await admin(t, 'PATCH /api/v1/peers/ngo', change)).json.code,
      'SYNC_REQUEST_INVALID',
      'If-Match is required',
    )
    t.match(await admin(t, 'PATCH /api/v1/peers/ngo', change, { 'if-match': '"7"' }), {
      status: 412,
      json: { code: 'SYNC_REQUEST_CHANGED' },
    })
    t.equal((await admin(t, 'PATCH /api/v1/peers/ngo', change, { 'if-match': 'W/"1"' })).status, 412)
    const changed = await admin(t, 'PATCH /api/v1/peers/ngo', change, { 'if-match': '"1"' })
    t.match(changed.json, {
      url: 'https://ngo.example.org',
      hasToken: true,
      proxyUrl: 'http://proxy:3128',
      hasProxyCredentials: true,
      revision: 2,
    })
    t.notMatch((await admin(t, 'GET /api/v1/peers/ngo')).text, /secret-word|what-we-show/)
    t.match((await admin(t, 'GET /api/v1/peers?limit=1')).json, { items: [{ name: 'ngo' }], next: /./ })

    t.equal((await hub.ask(t, 'POST /api/v1/peers/ngo/pause', { token: operator })).json.paused, true)
    t.same(
      (await admin(t, 'GET /api/v1/peers?paused=true')).json.items.map(({ name }: { name: string }) => name),
      ['ngo'],
    )
    t.equal((await hub.ask(t, 'POST /api/v1/peers/ngo/resume', { token: operator })).json.paused, false)
    const rotated = await admin(t, 'POST /api/v1/peers/ngo/rotate', { graceSeconds: 0 })
    t.match(rotated.json.token, /^syncline_p_/)
    t.equal((await hub.ask(t, 'GET /sync/v1/site', { token: rotated.json.token })).status, 200)
    t.equal((await admin(t, 'DELETE /api/v1/peers/ngo', undefined, { 'if-match': '"1"' })).status, 412)
    t.equal((await admin(t, 'DELETE /api/v1/peers/ngo', undefined, anyRevision)).status, 204)
    t.equal((await admin(t, 'GET /api/v1/peers/ngo')).status, 404)
    t.equal(
      (await hub.ask(t, 'GET /sync/v1/site', { token: rotated.json.token })).status,
      401,
      'its token went with it',
    )
  },
)

t.test('what a peer may do is granted per resource and direction, under the ETag of the peer', async (t) => {
  await addPeer(hub, { name: 'granted', uuid: randomUUID() })
  const where = '/api/v1/peers/granted/grants'
  const set = await admin(t, `PUT ${where}/pull/city`, sample('setGrant'), { 'if-match': '"1"' })
  t.match(set, {
    status: 200,
    headers: { etag: '"2"' },
    json: { direction: 'pull', resource: 'city', columns: ['name', 'population'] },
  })
  t.equal((await admin(t, `PUT ${where}/push/city`, {}, { 'if-match': '"1"' })).status, 412)
  t.match((await admin(t, `PUT ${where}/pull/city`, { filter: 'mayor = 1' }, anyRevision)).json, {
    code: 'SYNC_FILTER_INVALID',
    detail: /mayor/,
  })
  t.match((await admin(t, `PUT ${where}/pull/city`, { columns: ['mayor', 'id'] }, anyRevision)).json, {
    code: 'SYNC_REQUEST_INVALID',
    detail: /"mayor", "id"/,
  })
  t.equal((await admin(t, `PUT ${where}/pull/nothing`, {}, anyRevision)).status, 404)
  t.equal((await admin(t, `PUT ${where}/sideways/city`, {}, anyRevision)).json.code, 'SYNC_REQUEST_INVALID')
  t.equal((await admin(t, `GET ${where}`)).json.items.length, 1)
  t.equal((await admin(t, `DELETE ${where}/pull/city`, undefined, anyRevision)).status, 204)
  t.equal((await admin(t, `DELETE ${where}/pull/city`, undefined, anyRevision)).status, 404)
})

t.test('a pairing code registers a site once, with what was offered, and the answer proves who made it', async (t) => {
  await admin(t, 'DELETE /api/v1/peers/field-laptop', undefined, anyRevision)
  const invited = await admin(t, 'POST /api/v1/invitations', sample('invitePeer'))
  t.match(invited, { status: 201, json: { name: 'field-laptop', code: /^syncline1\.[\w-]+$/ } })
  const code = decodePairingCode(invited.json.code)
  t.match(code, {
    url: PUBLIC_URL,
    uuid: site.self.uuid,
    name: 'Hub Vienna',
    key: keyFingerprint(site.self.publicKey),
    expires: invited.json.expiresAt,
  })
  t.match((await admin(t, 'GET /api/v1/invitations')).json.items[0], {
    name: 'field-laptop',
    redeemedAt: null,
    push: [{ resource: 'city', onConflict: 'ask' }],
  })
  t.notMatch((await admin(t, 'GET /api/v1/invitations')).text, new RegExp(code.secret))
  t.equal((await admin(t, 'POST /api/v1/invitations', sample('invitePeer'))).json.code, 'SYNC_REQUEST_EXISTS')
  t.equal((await admin(t, 'POST /api/v1/invitations', { name: 'x', pull: ['nothing'] })).status, 404)
  t.equal(
    (await admin(t, 'POST /api/v1/invitations', { name: 'x', pull: [{ resource: 'city', filter: '(' }] })).json.code,
    'SYNC_FILTER_INVALID',
  )

  const wrong = await hub.ask(t, 'POST /sync/v1/pairings', { body: sample('redeemPairingCode') })
  t.match(wrong, { status: 403, json: { code: 'SYNC_AUTH_PAIRING_INVALID', retry: 'after-fix' } })
  const joiner = {
    secret: code.secret,
    uuid: randomUUID(),
    name: 'Laptop',
    nonce: randomBytes(16).toString('base64url'),
    url: 'https://laptop.example.org',
    token: 'shown-at-the-laptop-0123456789',
  }
  t.match((await hub.ask(t, 'POST /sync/v1/pairings', { body: { ...joiner, uuid: site.self.uuid } })).json, {
    code: 'SYNC_REQUEST_INVALID',
    detail: /this site itself/,
  })
  const taken = await addPeer(hub, { name: 'other-name', uuid: randomUUID() })
  t.match((await hub.ask(t, 'POST /sync/v1/pairings', { body: { ...joiner, uuid: taken.peer.uuid } })).json, {
    code: 'SYNC_REQUEST_EXISTS',
    detail: /other-name/,
  })

  const both = [joiner, { ...joiner, uuid: randomUUID() }]
  const answers = await Promise.all(both.map((body) => hub.ask(t, 'POST /sync/v1/pairings', { body })))
  t.same(
    answers.map(({ status }) => status).sort(),
    [201, 403],
    'of two at once one gets in; what failed before used nothing up',
  )
  const winner = answers.findIndex(({ status }) => status === 201)
  const answer = answers[winner]
  t.match(answer?.json, {
    uuid: site.self.uuid,
    name: 'Hub Vienna',
    peer: 'field-laptop',
    logId: site.self.logId,
    grants: {
      pull: [{ resource: 'country' }, { resource: 'city', filter: 'population > 10000' }],
      push: [{ resource: 'city', onConflict: 'ask' }],
    },
  })
  const proof = pairingProof({
    nonce: joiner.nonce,
    inviter: site.self.uuid,
    joiner: both[winner]?.uuid ?? '',
    tokenHash: secretHash(answer?.json.token).toString('base64url'),
  })
  t.ok(verifySignature(answer?.json.publicKey, proof, answer?.json.signature))
  t.equal(keyFingerprint(answer?.json.publicKey), code.key)
  const peer = await findPeer(site.store.db, 'field-laptop')
  t.match(peer, { url: 'https://laptop.example.org', hasToken: true })
  const greeted = await hub.ask(t, 'GET /sync/v1/site', { token: answer?.json.token })
  t.match(greeted.json.resources, [
    { name: 'country', pull: true, push: false },
    { name: 'city', pull: true, push: true },
  ])
  t.match((await admin(t, 'GET /api/v1/invitations')).json.items[0], { redeemedBy: peer.uuid })
  t.ok(hub.lines.some((line) => line.event === 'peer.paired' && line.by === 'invitation'))
  t.equal((await admin(t, 'DELETE /api/v1/invitations/field-laptop')).status, 204)
  t.equal((await admin(t, 'DELETE /api/v1/invitations/field-laptop')).status, 404)
  t.equal(
    (await hub.ask(t, 'POST /sync/v1/pairings', { body: { ...joiner, more: 1 } })).json.code,
    'SYNC_REQUEST_INVALID',
  )

  const joined = await admin(t, 'POST /api/v1/peers/join', { code: encodePairingCode(code), name: 'upstream' })
  t.match(joined, { status: 201, json: { name: 'upstream' } })
  t.ok(hub.asked.some((line) => line.startsWith('joinPeer')))
})

t.test('tasks are made, changed under their ETag and removed, and what is due is listed', async (t) => {
  const before = hub.asked.length
  const made = await admin(t, 'POST /api/v1/tasks', sample('addTask'))
  t.match(made, {
    status: 201,
    headers: { etag: '"1"' },
    json: {
      peer: 'field-laptop',
      resource: 'city',
      mode: 'both',
      schedule: 'every:300',
      enabled: true,
      onLeft: 'keep',
    },
  })
  const where = `/api/v1/tasks/${made.json.id}`
  t.same(hub.asked.slice(before), ['scheduleChanged'])
  t.equal((await admin(t, 'POST /api/v1/tasks', sample('addTask'))).json.code, 'SYNC_REQUEST_EXISTS')
  t.match((await admin(t, `PATCH ${where}`, { schedule: 'never' }, anyRevision)).json, {
    code: 'SYNC_REQUEST_INVALID',
    detail: /no schedule/,
  })
  t.equal((await admin(t, `PATCH ${where}`, { enabled: false }, { 'if-match': '"9"' })).status, 412)
  t.match((await admin(t, `PATCH ${where}`, { columns: ['name', 'mayor'] }, anyRevision)).json, {
    code: 'SYNC_REQUEST_INVALID',
    detail: /"mayor"/,
  })
  t.equal(
    (await admin(t, `PATCH ${where}`, { mode: 'pull', columns: ['name', 'mayor'] }, { 'if-match': '"1"' })).json
      .revision,
    2,
    'the peer may have columns that we have not',
  )
  t.equal((await admin(t, `PATCH ${where}`, { mode: 'both' }, anyRevision)).status, 400, 'but then we cannot send them')
  t.equal((await admin(t, `GET ${where}`)).headers.etag, '"2"')
  t.equal(
    (await admin(t, 'GET /api/v1/tasks?peer=field-laptop&mode=pull&enabled=true&resource=city')).json.items.length,
    1,
  )
  t.equal((await admin(t, 'GET /api/v1/tasks?mode=push')).json.items.length, 0)
  t.match((await admin(t, 'GET /api/v1/schedules')).json, {
    items: [{ taskId: made.json.id, schedule: 'every:300', at: '2030-01-01T00:00:00.000Z' }],
    next: null,
  })
  t.equal((await admin(t, `DELETE ${where}`, undefined, { 'if-match': '"1"' })).status, 412)
  t.equal((await admin(t, `DELETE ${where}`, undefined, anyRevision)).status, 204)
  t.equal((await admin(t, `GET ${where}`)).status, 404)
})

t.test('a sync is started now, a comparison asked for, and what was done can be read', async (t) => {
  const started = await hub.ask(t, 'POST /api/v1/sync', { token: operator, body: sample('syncNow') })
  t.match(started, { status: 202, json: { runs: [{ peer: 'field-laptop', runId: '1' }] } })
  t.equal(hub.asked.at(-1), 'syncNow {"peer":"field-laptop","resources":["city"],"cause":"hand"}')
  t.equal((await hub.ask(t, 'POST /api/v1/sync', { token: operator, body: { peer: 'nobody' } })).status, 404)
  t.equal((await hub.ask(t, 'POST /api/v1/sync', { token: operator, body: { resources: ['nothing'] } })).status, 404)
  const verified = await hub.ask(t, 'POST /api/v1/peers/field-laptop/verify', {
    token: operator,
    body: sample('verifyPeer'),
  })
  t.match(verified.json, { peer: 'field-laptop', resources: [{ resource: 'city', equal: true }] })
  const runs = await hub.ask(t, 'GET /api/v1/runs?limit=1', { token: viewer })
  t.match(runs.json.items, [{ cause: 'attach', result: 'error', code: 'SYNC_RESOURCE_UNSUITABLE' }])
  t.same((await hub.ask(t, `GET /api/v1/runs/${runs.json.items[0].id}`, { token: viewer })).json, runs.json.items[0])
  t.equal((await hub.ask(t, 'GET /api/v1/runs?result=success', { token: viewer })).json.items.length, 1)
  t.equal((await hub.ask(t, 'GET /api/v1/runs/0', { token: viewer })).json.code, 'SYNC_REQUEST_INVALID')
  const { id } = runs.json.items[0]
  const undo = (body: object, token = operator) => hub.ask(t, `POST /api/v1/runs/${id}/undo`, { token, body })
  t.equal((await undo({}, viewer)).status, 403, 'whoever only looks takes nothing back')
  t.match((await undo({ preview: true })).json, { runId: id, undoRunId: null, preview: true, counts: { removed: 0 } })
  t.equal((await undo({ force: ['city'] })).json.code, 'SYNC_REQUEST_INVALID')
  t.equal((await undo({ force: ['city/nowhere'] })).json.code, 'SYNC_REQUEST_NOT_FOUND')
  const explain = (query: string) => hub.ask(t, `GET /api/v1/explain?resource=country&${query}`, { token: viewer })
  t.match((await explain('id=nowhere')).json, { id: 'nowhere', state: 'unknown', life: [], peer: null })
  t.match((await explain('id=nowhere&peer=field-laptop')).json.peer, { name: 'field-laptop', has: 'none', reasons: [] })
  t.equal(hub.asked.at(-1), 'askRecord {"peer":"field-laptop","resource":"country","id":"nowhere"}')
})

t.test('a peer pushes in every format and pulls back what others wrote; both are in the log', async (t) => {
  const ngo = await addPeer(hub, { name: 'curl', uuid: randomUUID() }, ['country', 'city'])
  const push = (type: string, body: string | Buffer, headers: Question['headers'] = {}) =>
    hub.ask(t, 'POST /sync/v1/changes?resource=city', {
      body,
      headers: { authorization: basic('curl', ngo.token), 'content-type': type, ...headers },
    })
  t.match((await push('application/json', example('pushChanges.json'))).json, {
    counts: { applied: 2 },
    rejections: [],
  })
  t.match((await push('application/x-ndjson', example('pushChanges.ndjson'))).json.counts, { applied: 2 })
  t.match((await push('text/csv; charset=utf-8', example('pushChanges.csv'))).json.counts, { applied: 2 })
  t.match((await push('application/xml', example('pushChanges.xml'))).json.counts, { applied: 2 })
  t.match(
    (await push('application/xml', example('pushChanges.xml'))).json.counts,
    { applied: 0, known: 2 },
    'repeated, it changes nothing',
  )
  const names = await site.sql('select name, population from city order by name')
  t.same(names, [
    { name: 'Good', population: null },
    { name: 'Graz', population: '298479' },
    { name: 'Wels & Umgebung', population: '65482' },
  ])

  const log = await hub.ask(t, 'GET /api/v1/log?peer=curl&resource=city', { token: viewer })
  t.match(log.json.items[0], {
    mode: 'push',
    direction: 'incoming',
    action: 'apply',
    result: 'success',
    changes: 2,
    applied: 0,
    message: '2 changes received: 2 known',
  })
  t.equal(log.json.items.length, 5)
  t.equal((await hub.ask(t, 'GET /api/v1/log?result=error', { token: viewer })).json.items.length, 0)

  const pull = (query: string, accept?: string) =>
    hub.ask(t, `GET /sync/v1/changes?resource=city${query}`, {
      token: ngo.token,
      headers: accept === undefined ? {} : { accept },
    })
  const plain = await pull('')
  t.equal(plain.headers['content-type'], 'application/x-ndjson')
  const lines = plain.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(
    lines
      .slice(0, -1)
      .map(({ id, deleted }) => [id, deleted ?? false])
      .sort(),
    [
      [city(6), false],
      [city(9), true],
    ],
    'its own pushes do not come back',
  )
  t.match(lines.at(-1), { count: 2, more: false, checkpoint: plain.headers['syncline-checkpoint'] })
  t.equal(plain.headers['syncline-more'], 'false')
  t.match(plain.headers.vary, /Accept, Accept-Encoding/)
  t.equal(JSON.parse((await pull('', 'application/json')).text).changes.length, 2)
  t.match((await pull('', 'application/xml')).text, /<resource name="city"/)
  t.match((await pull('', 'application/vnd.syncline.lines')).text, /^\{"syncline":1,"resource":"city"/)
  const asRows = (query: string, accept: string) =>
    hub.ask(t, `GET /sync/v1/changes?resource=country${query}`, { token: ngo.token, headers: { accept } })
  const both = 'application/vnd.syncline.rows, application/vnd.syncline.lines'
  const rows = await asRows('&limit=1', both)
  t.equal(rows.headers['content-type'], 'application/vnd.syncline.rows')
  t.match(rows.text, /^\{"syncline":1,"resource":"country","keyType":"text","columns":\["name"\],"types":\["text"\]/)
  const filtered = await asRows(`&filter=${encodeURIComponent("name = 'Good'")}`, both)
  t.equal(filtered.headers['content-type'], 'application/vnd.syncline.lines')
  t.match(await asRows('', 'application/vnd.syncline.rows'), { status: 406, json: { code: 'SYNC_FORMAT_UNSUPPORTED' } })
  t.match(await pull('', 'text/csv'), { status: 406, json: { code: 'SYNC_FORMAT_UNSUPPORTED' } })
  const after = await pull(`&after=${plain.headers['syncline-checkpoint']}`)
  t.match(JSON.parse(after.text), { count: 0, more: false })
  t.equal((await pull('&after=abc')).json.code, 'SYNC_CHECKPOINT_INVALID')
  t.equal((await pull('&limit=1')).headers['syncline-more'], 'true')
  t.match(
    JSON.parse((await pull(`&filter=${encodeURIComponent("name = 'Good'")}&columns=name`)).text.split('\n')[0] ?? ''),
    { data: { name: 'Good' } },
  )
  t.match((await hub.ask(t, 'GET /api/v1/log?peer=curl', { token: viewer })).json.items[0], {
    mode: 'pull',
    direction: 'incoming',
    action: 'send',
    changes: 1,
  })

  const checkpoint = String(plain.headers['syncline-checkpoint'])
  t.match((await hub.ask(t, 'GET /sync/v1/checkpoints/city', { token: ngo.token })).json, {
    resource: 'city',
    checkpoint: null,
  })
  t.equal((await hub.ask(t, 'PUT /sync/v1/checkpoints/city', { token: ngo.token, body: { checkpoint } })).status, 204)
  t.equal((await hub.ask(t, 'GET /sync/v1/checkpoints/city', { token: ngo.token })).json.checkpoint, checkpoint)
  t.equal(parseCheckpoint(checkpoint).logId, site.self.logId)
  const foreign = Buffer.from(`1 otherlog 5 x`).toString('base64url')
  t.match(await hub.ask(t, 'PUT /sync/v1/checkpoints/city', { token: ngo.token, body: { checkpoint: foreign } }), {
    status: 410,
    json: { code: 'SYNC_CHECKPOINT_GONE' },
  })
  t.equal((await pull(`&after=${foreign}`)).status, 410)

  const digest = await hub.ask(t, 'GET /sync/v1/digests/city?buckets=2', { token: ngo.token })
  t.equal(digest.json.ranges.length, 2)
  t.equal(digest.json.ranges[0].count + digest.json.ranges[1].count, 3, 'deleted records are not counted')
  const single = await hub.ask(t, `GET /sync/v1/digests/city?records=true&to=${digest.json.ranges[0].to}`, {
    token: ngo.token,
  })
  t.equal(
    String(single.json.records.reduce((sum: bigint, { hash }: { hash: string }) => sum + BigInt(hash), 0n)),
    digest.json.ranges[0].sum,
  )
  const living = await hub.ask(
    t,
    `GET /sync/v1/digests/city?filter=${encodeURIComponent("country.name = 'Austria'")}`,
    { token: ngo.token },
  )
  t.equal(living.json.ranges[0].count, 2)

  const [whole] = (await hub.ask(t, 'GET /sync/v1/digests/city', { token: ngo.token })).json.ranges
  const tell = (body: object) => hub.ask(t, 'POST /sync/v1/digests/city', { token: ngo.token, body })
  t.match((await tell({ records: whole.count, sum: whole.sum })).json, {
    ...{ verdict: 'equal', reason: null, records: whole.count, sum: whole.sum, filter: null, hidden: false },
    waiting: { changes: 0, quarantine: 0, discarded: 0, conflicts: 0 },
  })
  const proved = async () => (await hub.ask(t, 'GET /api/v1/agreements?peer=curl', { token: viewer })).json
  t.match(await proved(), {
    total: 1,
    items: [{ peer: 'curl', resource: 'city', verdict: 'equal', agreedRecords: whole.count, changedSince: false }],
  })
  const nothing = { changes: 0, quarantine: 0, discarded: 0, conflicts: 0 }
  const told = async () => {
    const { checks } = (await hub.ask(t, 'GET /health/ready', { token: viewer })).json
    return checks.find(({ name }: { name: string }) => name === 'proof')?.detail
  }
  t.match(await told(), /^1 of 1 equal since .* or later, \d+ records$/)
  t.match((await tell({ records: 3, sum: '5', mode: 'both', waiting: nothing })).json, { verdict: /waiting|different/ })
  t.match(await told(), /^nothing is proved equal; city with curl: (waiting|different)$/)
  const { agreedRecords, verdict } = (await proved()).items[0]
  t.equal(agreedRecords, whole.count, 'when both were equal last is still known')
  t.not(verdict, 'equal')
  t.equal((await tell({ records: -1, sum: 'x' })).status, 400)

  const deep = await hub.ask(t, 'GET /sync/v1/digests/city?deep=true&columns=name&limit=2', { token: ngo.token })
  t.match(deep.json, { columns: [{ name: 'name', type: 'text' }], ranges: [{ from: null, count: 2, rowless: 0 }] })
  const values = await hub.ask(t, 'GET /sync/v1/digests/city?deep=true&records=true&columns=name', { token: ngo.token })
  t.equal(values.json.records.length, whole.count)
  t.match(values.json.records[0], { id: String, version: /^-?\d+$/, content: /^-?\d+$/ })
  t.same((await hub.ask(t, 'GET /sync/v1/digests/city?strays=true', { token: ngo.token })).json.strays, [])
  const { id } = values.json.records[0]
  const adopt = { token: ngo.token, body: { ids: [id], edited: [] } }
  t.same(
    (await hub.ask(t, 'POST /sync/v1/digests/city/adopt', adopt)).json,
    { inserted: 0, deleted: 0, changed: 0 },
    'what the triggers know is left alone',
  )
})

t.test(
  'a record that cannot be applied waits alone, and is retried, discarded or freed by what it waited for',
  async (t) => {
    const field = await addPeer(hub, { name: 'quarantined', uuid: randomUUID() }, ['country', 'city'])
    const push = (resource: string, changes: unknown) =>
      hub.ask(t, `POST /sync/v1/changes?resource=${resource}`, { token: field.token, body: { changes } })
    const child = { id: randomUUID(), data: { name: 'Maribor', country: 'HR' } }
    const report = await push('city', [
      child,
      { id: randomUUID(), data: { name: 'Fine' } },
      { id: randomUUID(), data: { name: '' } },
    ])
    t.match(report.json, { counts: { applied: 1, quarantined: 2 } })
    t.match(
      report.json.rejections.find(({ id }: { id: string }) => id === child.id),
      { outcome: 'quarantined', code: 'SYNC_RECORD_PARENT_MISSING' },
    )
    t.ok(hub.lines.some((line) => line.event === 'record.quarantined' && line.peer === 'quarantined'))
    const list = await hub.ask(t, 'GET /api/v1/quarantine?peer=quarantined&limit=1', { token: viewer })
    t.ok(list.json.next)
    t.equal(
      (await hub.ask(t, `GET /api/v1/quarantine?cursor=${list.json.next}&resource=city`, { token: viewer })).json.items
        .length,
      1,
    )
    const all = (await hub.ask(t, 'GET /api/v1/quarantine', { token: viewer })).json.items as {
      id: string
      recordId: string
    }[]
    const waiting = all.find(({ recordId }) => recordId === child.id)
    const invalid = all.find(({ recordId }) => recordId !== child.id)
    const one = await hub.ask(t, `GET /api/v1/quarantine/${waiting?.id}`, { token: viewer })
    t.match(one.json, {
      peer: 'quarantined',
      via: 'push',
      waitsFor: { resource: 'country', id: 'HR' },
      change: { id: child.id, data: { name: 'Maribor' }, refs: { country: { resource: 'country', id: 'HR' } } },
    })
    t.match((await hub.ask(t, `POST /api/v1/quarantine/${waiting?.id}/retry`, { token: operator })).json, {
      applied: false,
      entry: { attempts: 2 },
    })
    t.equal((await hub.ask(t, 'GET /api/v1/site', { token: viewer })).json.waiting.quarantine, 2)
    t.equal((await push('country', [{ id: 'HR', data: { name: 'Croatia' } }])).json.counts.applied, 1)
    t.equal(
      (await hub.ask(t, `GET /api/v1/quarantine/${waiting?.id}`, { token: viewer })).status,
      404,
      'it came in with its parent',
    )
    t.equal((await site.sql('select from city where country = $1', ['HR'])).length, 1)

    await site.sql('alter table city drop constraint city_name_check')
    t.match((await hub.ask(t, `POST /api/v1/quarantine/${invalid?.id}/retry`, { token: operator })).json, {
      applied: true,
      entry: null,
    })
    await push('city', [{ id: randomUUID(), data: { name: 'X', country: 'YY' } }])
    const [last] = (await hub.ask(t, 'GET /api/v1/quarantine', { token: viewer })).json.items
    const discard = `DELETE /api/v1/quarantine/${last.id}?because=entered%20twice`
    t.equal((await hub.ask(t, discard, { token: operator })).status, 204)
    t.equal((await hub.ask(t, discard, { token: operator })).status, 404)
    const [entry] = (await hub.ask(t, 'GET /api/v1/log?action=discard', { token: viewer })).json.items
    t.match(entry.message, /was given up by the operator because entered twice; it waited: country refers to/)

    // Both sides tell each other what waits.
    const told = { counts: { quarantined: 0, discarded: 0 }, quarantined: [], discarded: [], complete: false }
    const greeted = (await hub.ask(t, 'GET /sync/v1/site', { token: field.token })).json
    t.match(greeted, { waiting: { quarantined: 0, discarded: 1 }, heldMs: Number })
    t.match(greeted.resources, [{ terms: /^.{22}$/ }])
    const heard = await hub.ask(t, 'PUT /sync/v1/quarantine', { token: field.token, body: told })
    t.match(heard.json, {
      counts: { quarantined: 0, discarded: 1 },
      discarded: [{ resource: 'city', id: last.recordId, by: 'the operator', because: 'entered twice' }],
      revived: 0,
    })
    const there = { ...heard.json.discarded[0], because: null, by: 'somebody there' }
    await hub.ask(t, 'PUT /sync/v1/quarantine', { token: field.token, body: { ...told, discarded: [there] } })
    t.same(
      (await hub.ask(t, 'GET /api/v1/quarantine?side=there', { token: viewer })).json.items,
      [],
      'no record here has the version that they speak of',
    )
    const waits = {
      resource: 'city',
      id: child.id,
      version: null,
      code: 'SYNC_RECORD_CONSTRAINT',
      reason: 'its own words',
      waitsFor: null,
      dependants: 2,
      attempts: 3,
      firstAt: '2026-11-22T09:30:00.000000Z',
      lastAt: '2026-11-22T09:30:00.000000Z',
      retryAt: null,
    }
    await hub.ask(t, 'PUT /sync/v1/quarantine', { token: field.token, body: { ...told, quarantined: [waits] } })
    const [seen] = (await hub.ask(t, 'GET /api/v1/quarantine?side=there', { token: viewer })).json.items
    t.match(seen, { side: 'there', peer: 'quarantined', recordId: child.id, dependants: 2, via: null, change: null })
    t.match((await hub.ask(t, `GET /api/v1/quarantine/${seen.id}?side=there`, { token: viewer })).json, seen)
    t.equal((await hub.ask(t, 'GET /api/v1/quarantine/999?side=there', { token: viewer })).status, 404)
    t.equal(
      (await hub.ask(t, 'PUT /sync/v1/quarantine', { token: field.token, body: { ...told, more: 1 } })).json.code,
      'SYNC_REQUEST_INVALID',
    )
    const many = Array.from({ length: 1_000 }, (_, n) => ({ ...waits, id: `many ${n}`, reason: 'words '.repeat(300) }))
    const tell = (quarantined: readonly object[]) =>
      hub.ask(t, 'PUT /sync/v1/quarantine', { token: field.token, body: { ...told, quarantined } })
    t.equal((await tell(many)).status, 200)
    t.match(
      (await hub.ask(t, 'GET /metrics')).text,
      /^syncline_quarantine_there\{peer="quarantined",resource="city"\} 1000$/m,
    )
    t.equal((await tell([...many, waits])).json.code, 'SYNC_REQUEST_INVALID', 'more than a thousand are not listed')
    await hub.ask(t, 'PUT /sync/v1/quarantine', { token: field.token, body: told })

    // Records that others wait for are given by id.
    const ids = encodeURIComponent(JSON.stringify(['HR', 'nowhere']))
    const chosen = await hub.ask(t, `GET /sync/v1/changes?resource=country&ids=${ids}`, {
      token: field.token,
      headers: { accept: 'application/json' },
    })
    t.match(chosen.json, { changes: [{ id: 'HR', data: { name: 'Croatia' } }] })
    t.equal(chosen.json.checkpoint, undefined)
    t.equal(chosen.headers['syncline-checkpoint'], undefined)
    for (const wrong of ['HR', '[]', '[1]', '{}'])
      t.equal(
        (
          await hub.ask(t, `GET /sync/v1/changes?resource=country&ids=${encodeURIComponent(wrong)}`, {
            token: field.token,
          })
        ).json.code,
        'SYNC_REQUEST_INVALID',
      )
    t.equal(
      (await hub.ask(t, `GET /sync/v1/changes?resource=hospital&ids=${ids}`, { token: field.token })).json.code,
      'SYNC_AUTH_FORBIDDEN',
    )
    t.match((await hub.ask(t, `GET /api/v1/records/city/${last.recordId}/history`, { token: viewer })).json.items, [
      { reason: 'discarded' },
    ])
  },
)

t.test('alarms are listed, and tell how the site is', async (t) => {
  t.match(await hub.ask(t, 'GET /health'), { status: 200, json: { status: 'ok', alarms: [] } })
  const found = { code: 'disk-low', peer: '', resource: '/data', text: 'little room', mend: 'make some' } as const
  const record = (level: 'warning' | 'critical', at: number, verdicts = [{ ...found, level }]) =>
    recordVerdicts(site.store.db, { at, verdicts }, { calmMs: 0, channels: [], level: 'warning' })
  await record('warning', 1_000)
  t.match(await hub.ask(t, 'GET /health'), { status: 200, json: { status: 'warning', alarms: [{ code: 'disk-low' }] } })
  await record('critical', 2_000)
  t.match(await hub.ask(t, 'GET /health'), { status: 503, json: { status: 'critical' } })
  t.equal((await hub.ask(t, 'GET /health/ready')).status, 200, 'an alarm takes no site out of a load balancer')
  t.match((await hub.ask(t, 'GET /metrics')).text, /^syncline_alarm\{code="disk-low",peer="",level="critical"\} 1$/m)
  t.match((await hub.ask(t, 'GET /api/v1/alarms?open=true&code=disk-low', { token: viewer })).json.items, [
    { level: 'critical', text: 'little room', mend: 'make some', ended: null, notified: { begin: null, end: null } },
  ])
  await record('critical', 3_000, [])
  t.match((await hub.ask(t, 'GET /api/v1/alarms?open=true', { token: viewer })).json.items, [])
  t.match((await hub.ask(t, 'GET /api/v1/alarms?open=false&peer=', { token: viewer })).json.items, [{ ended: /^1970/ }])
})

t.test('a conflict is settled at the desk', async (t) => {
  const uuid = randomUUID()
  const field = await addPeer(hub, { name: 'arguing', uuid })
  const grant = (onConflict: string) =>
    admin(t, 'PUT /api/v1/peers/arguing/grants/push/city', { onConflict }, anyRevision)
  await grant('ask')
  const push = (id: string, name = 'Other') =>
    hub.ask(t, 'POST /sync/v1/changes?resource=city', {
      token: field.token,
      body: {
        changes: [{ id, version: { origin: uuid, clock: Date.now() * 1000 }, data: { name, strange: 1 } }],
      },
    })
  t.match((await push(city(1))).json, { counts: { conflict: 1 }, rejections: [{ id: city(1), outcome: 'conflict' }] })
  t.ok(hub.lines.some((line) => line.event === 'conflict.decided' && line.decision === 'open'))
  const [open] = (await hub.ask(t, 'GET /api/v1/conflicts?open=true&peer=arguing&resource=city', { token: viewer }))
    .json.items
  t.match(open, {
    recordId: city(1),
    ours: { data: { name: 'Graz' } },
    theirs: { data: { name: 'Other', strange: 1 } },
    resolvedAt: null,
  })
  t.same((await hub.ask(t, `GET /api/v1/conflicts/${open.id}`, { token: viewer })).json, open)
  t.equal(
    (await hub.ask(t, `POST /api/v1/conflicts/${open.id}/resolve`, { token: operator, body: { take: 'both' } })).json
      .code,
    'SYNC_REQUEST_INVALID',
  )
  const settled = await hub.ask(t, `POST /api/v1/conflicts/${open.id}/resolve`, {
    token: operator,
    body: sample('resolveConflict'),
  })
  t.match(settled.json, { resolution: 'ours', resolvedBy: 'the operator', comment: 'Known to be right here.' })
  t.match(
    await hub.ask(t, `POST /api/v1/conflicts/${open.id}/resolve`, { token: operator, body: { take: 'theirs' } }),
    { status: 409, json: { code: 'SYNC_REQUEST_SETTLED', detail: /by the operator: the side here won$/ } },
  )
  t.match((await hub.ask(t, `GET /api/v1/records/city/${city(1)}`, { token: viewer })).json, {
    data: { name: 'Graz' },
    version: { origin: site.self.uuid, seen: { [uuid]: open.theirs.version.clock } },
  })
  t.equal((await hub.ask(t, 'GET /api/v1/conflicts/99999', { token: viewer })).status, 404)

  const decide = (body: object, token = operator) => hub.ask(t, 'POST /api/v1/conflicts/resolve', { token, body })
  await push(city(1))
  const merged = { fields: { name: 'theirs' }, values: { population: 5 }, rule: true }
  const [again] = (await hub.ask(t, 'GET /api/v1/conflicts?open=true', { token: viewer })).json.items
  const rule = await hub.ask(t, `POST /api/v1/conflicts/${again.id}/resolve`, { token: operator, body: merged })
  t.match(rule, { status: 403, json: { code: 'SYNC_AUTH_FORBIDDEN' } }, 'who decides need not be who makes rules')
  const mixed = await admin(t, `POST /api/v1/conflicts/${again.id}/resolve`, merged)
  t.match(mixed, { status: 200, json: { resolution: 'merged' } })
  const grants = await admin(t, 'GET /api/v1/peers/arguing/grants')
  t.match(grants.json.items, [{ direction: 'push', onConflict: 'merge', fields: { name: 'theirs', '*': 'ask' } }])

  await grant('ask')
  await push(city(1), 'Again')
  t.same((await decide({ take: 'ours', peer: 'arguing', resource: 'city', preview: true })).json, {
    matched: 1,
    resolved: 0,
    failed: [],
  })
  t.same((await decide({ take: 'ours', resource: 'city', filter: "name = 'Nowhere'" })).json, {
    matched: 0,
    resolved: 0,
    failed: [],
  })
  t.same((await decide({ take: 'ours', comment: 'as counted' })).json, { matched: 1, resolved: 1, failed: [] })
  t.match((await decide({})).json, { code: 'SYNC_REQUEST_INVALID' })
})

t.test('I7: rules of fields are checked against the table, and a policy against that of the peer', async (t) => {
  for (const name of ['stubborn', 'away'])
    await addPeer(hub, { name, uuid: randomUUID(), url: `http://${name}.example.org` })
  const make = (body: object) =>
    admin(t, 'POST /api/v1/tasks', { peer: 'stubborn', resource: 'city', mode: 'both', ...body })
  for (const [fields, detail] of [
    [{ name: 'sum' }, /sum works on numbers, and field "name" is none of these/],
    [{ lost: 'newer' }, /sends no column "lost"/],
    [{ name: 'best' }, /is not one of newer/],
  ] as const) {
    t.match(await make({ onConflict: 'merge', fields }), {
      status: 400,
      json: { code: 'SYNC_REQUEST_INVALID', detail },
    })
  }
  t.match(await make({ onConflict: 'mine' }), {
    status: 409,
    json: {
      code: 'SYNC_REQUEST_CONTRADICTORY',
      detail: /of "stubborn" for "city" would never agree: mine on both sites/,
    },
  })
  const forced = await make({ onConflict: 'mine', force: true })
  t.match(forced, { status: 201, json: { onConflict: 'mine', warnings: [/mine on both sites/] } })
  const task = `/api/v1/tasks/${forced.json.id}`
  t.match((await admin(t, `PATCH ${task}`, { onConflict: 'merge', fields: { population: 'sum' } }, anyRevision)).json, {
    fields: { population: 'sum' },
    warnings: [/merge here against mine at the peer/],
  })
  t.same(
    (await admin(t, `PATCH ${task}`, { onConflict: 'theirs' }, anyRevision)).json.warnings,
    [],
    'mine there and theirs here go together',
  )
  t.same(
    (await admin(t, `PATCH ${task}`, { mode: 'pull', onConflict: 'mine' }, anyRevision)).json.warnings,
    [],
    'one direction',
  )
  await admin(t, `DELETE ${task}`, undefined, anyRevision)
  const unasked = await make({ peer: 'away', onConflict: 'mine' })
  t.match(unasked.json.warnings, [/"away" could not be asked/])
  await admin(t, `DELETE /api/v1/tasks/${unasked.json.id}`, undefined, anyRevision)

  const asking = await addPeer(hub, { name: 'asking', uuid: randomUUID() })
  const rules = { onConflict: 'merge', fields: { population: 'sum' } }
  await admin(t, 'PUT /api/v1/peers/asking/grants/push/city', rules, anyRevision)
  const told = await hub.ask(t, 'GET /sync/v1/site', { token: asking.token })
  t.match(told.json.resources, [{ name: 'city', push: true, policy: { ...rules, master: null } }], 'the peer is told')
})

t.test('tokens are issued, listed without their secret, and revoked at once', async (t) => {
  const issued = await admin(t, 'POST /api/v1/tokens', sample('issueToken'))
  t.match(issued, { status: 201, json: { token: /^syncline_v_/ } })
  t.equal((await hub.ask(t, 'GET /api/v1/runs', { token: issued.json.token })).status, 200)
  const list = await admin(t, 'GET /api/v1/tokens?role=viewer')
  t.match(list.json.items[0], { name: 'backup script', role: 'viewer', expiresAt: '2099-12-31T23:59:59.000000Z' })
  t.notMatch(list.text, new RegExp(issued.json.token))
  t.equal((await admin(t, `DELETE /api/v1/tokens/${issued.json.id}`)).status, 204)
  t.equal((await hub.ask(t, 'GET /api/v1/runs', { token: issued.json.token })).status, 401)
  t.match((await admin(t, 'POST /api/v1/tokens', { name: 'x', role: 'peer' })).json, { code: 'SYNC_REQUEST_INVALID' })
  const peers = await admin(t, 'POST /api/v1/tokens', { name: 'curl again', role: 'peer', peer: 'curl' })
  t.equal((await hub.ask(t, 'GET /sync/v1/site', { token: peers.json.token })).status, 200)
  t.equal((await admin(t, 'GET /api/v1/tokens?peer=curl')).json.items.length, 2)
  const [own] = (await admin(t, 'GET /api/v1/tokens?role=administrator')).json.items
  t.match((await admin(t, `DELETE /api/v1/tokens/${own.id}`)).json, { code: 'SYNC_REQUEST_INVALID', detail: /last/ })
})

t.test(
  'settings hold any JSON, are changed under their ETag, and what the site remembers for itself is not among them',
  async (t) => {
    const made = await admin(t, 'PUT /api/v1/settings/desk.view', sample('writeSetting'), anyRevision)
    t.match(made.json, { name: 'desk.view', value: { theme: 'dark' } })
    t.equal((await admin(t, 'PUT /api/v1/settings/desk.view', { value: 1 }, { 'if-match': '"x"' })).status, 412)
    t.equal(
      (await admin(t, 'PUT /api/v1/settings/desk.view', { value: null }, { 'if-match': String(made.headers.etag) }))
        .json.value,
      null,
    )
    t.same((await admin(t, 'GET /api/v1/settings')).json.items, [{ name: 'desk.view', value: null }])
    t.equal((await admin(t, 'GET /api/v1/settings/site:name')).json.code, 'SYNC_REQUEST_INVALID')
    const read = await admin(t, 'GET /api/v1/settings/desk.view')
    t.equal(
      (await admin(t, 'DELETE /api/v1/settings/desk.view', undefined, { 'if-match': String(read.headers.etag) }))
        .status,
      204,
    )
    t.equal((await admin(t, 'GET /api/v1/settings/desk.view')).status, 404)
  },
)

t.test('requests are refused with all their faults at once, and with what nobody here reads', async (t) => {
  const bad = await admin(t, 'POST /api/v1/tasks', { peer: 1, mode: 'sideways', extra: true })
  t.equal(bad.headers['content-type'], 'application/problem+json')
  t.match(bad.json, {
    type: 'urn:syncline:problem:SYNC_REQUEST_INVALID',
    status: 400,
    code: 'SYNC_REQUEST_INVALID',
    retry: 'never',
    instance: /^urn:syncline:request:/,
  })
  for (const fault of [/body\/peer must be string/, /'resource'/, /body\/mode.*pull, push, both/, /"extra"/])
    t.match(bad.json.detail, fault)
  t.match((await admin(t, 'GET /api/v1/runs?limit=0&what=1')).json.detail, /query .*"what"; query\/limit must be >= 1/)
  t.match((await admin(t, 'POST /api/v1/sync', '{', { 'content-type': 'application/json' })).json, {
    code: 'SYNC_FORMAT_INVALID',
    status: 400,
  })
  t.match((await admin(t, 'POST /api/v1/sync', 'a=b', { 'content-type': 'application/x-www-form-urlencoded' })).json, {
    code: 'SYNC_FORMAT_UNSUPPORTED',
    status: 415,
  })
  t.match((await admin(t, 'POST /api/v1/sync', '', { 'content-type': 'application/json' })).json, {
    code: 'SYNC_REQUEST_INVALID',
  })
  t.match(
    (await admin(t, 'POST /api/v1/sync', '['.repeat(40) + ']'.repeat(40), { 'content-type': 'application/json' })).json,
    { code: 'SYNC_FORMAT_INVALID', detail: /deeper/ },
  )
  t.match((await admin(t, 'POST /api/v1/sync', { peer: 'x'.repeat(2_000_000) })).json, {
    code: 'SYNC_REQUEST_TOO_LARGE',
    status: 413,
  })
  t.match(
    (await admin(t, 'POST /api/v1/sync', '{"__proto__":{"peer":"x"}}', { 'content-type': 'application/json' })).json,
    { code: 'SYNC_REQUEST_INVALID' },
  )
  t.match((await admin(t, 'GET /api/v1/nothing')).json, { code: 'SYNC_REQUEST_NOT_FOUND', status: 404 })
  t.match((await admin(t, 'GET /api/v1/peers/%ff')).json, { code: 'SYNC_REQUEST_INVALID', status: 400 })
})

t.test('what nobody foresaw is a bare 500, and the log has the rest under the id of the request', async (t) => {
  const broken = await serve(t, site, {
    publicUrl: () => {
      throw new Error('a secret detail')
    },
  })
  const answer = await broken.ask(t, 'GET /api/v1/site', { token: administrator })
  t.match(answer, { status: 500, json: { code: 'SYNC_INTERNAL', status: 500 } })
  t.notMatch(answer.text, /secret detail/)
  const line = broken.lines.find(({ status }) => status === 500)
  t.match(line, {
    event: 'request.served',
    level: 50,
    requestId: answer.headers['x-request-id'],
    route: '/api/v1/site',
    err: { message: 'a secret detail' },
  })
  t.equal(answer.json.instance, `urn:syncline:request:${answer.headers['x-request-id']}`)
})

t.test(
  'I10: what a peer pushes beyond its grant is stopped, shown, and released by name; a push can be tried first',
  async (t) => {
    const uuid = randomUUID()
    const braker = await addPeer(hub, { name: 'braker', uuid }, ['city'])
    const push = (query: string, body: unknown, headers: Question['headers'] = {}) =>
      hub.ask(t, `POST /sync/v1/changes?resource=city${query}`, { token: braker.token, body, headers })
    const [one, two] = [randomUUID(), randomUUID()]
    const puts = { changes: [one, two].map((id) => ({ id, data: { name: 'Braked' } })) }
    const deletes = { changes: [one, two].map((id) => ({ id, deleted: true })) }
    const tried = await push('&preview=values', puts)
    t.match(tried.json, {
      counts: { applied: 2 },
      preview: { inserts: 2, updates: 0, deletes: 0, braked: null, samples: [] },
    })
    t.equal((await hub.ask(t, `GET /api/v1/records/city/${one}`, { token: viewer })).status, 404)
    t.match((await push('', puts)).json, { counts: { applied: 2 } })

    const grant = '/api/v1/peers/braker/grants/push/city'
    t.match((await admin(t, `PUT ${grant}`, { maxDeletes: '1' }, anyRevision)).json, {
      maxDeletes: '1',
      maxChanges: null,
    })
    t.equal((await admin(t, `PUT ${grant}`, { maxDeletes: 'few' }, anyRevision)).json.code, 'SYNC_REQUEST_INVALID')
    t.match((await push('&preview=values', deletes)).json, { preview: { deletes: 2, braked: /would delete 2 of/ } })
    t.match((await push('&preview=heads', deletes)).json, {
      preview: { deletes: 2, samples: [one, two], braked: null },
    })
    t.equal((await push('&preview=yes', deletes)).status, 400)
    const stopped = await push('', deletes, { 'syncline-due': 'deletes=5' })
    t.match(stopped, {
      status: 409,
      json: { code: 'SYNC_RUN_BRAKED', retry: 'after-fix', detail: /what braker pushes of "city" would delete 2/ },
    })
    t.equal((await hub.ask(t, `GET /api/v1/records/city/${one}`, { token: viewer })).status, 200)

    const open = await hub.ask(t, 'GET /api/v1/brakes?open=true&peer=braker', { token: viewer })
    t.match(open.json.items, [
      { resource: 'city', direction: 'receive', rules: ['deletes'], facts: { deletes: 2, announced: 5 } },
    ])
    const where = `/api/v1/brakes/${open.json.items[0].token}`
    t.equal((await hub.ask(t, `POST ${where}/release`, { token: viewer, body: {} })).status, 403)
    const released = await hub.ask(t, `POST ${where}/release`, { token: operator, body: { comment: 'they closed' } })
    t.match(released.json, { comment: 'they closed', releasedAt: /^20/ })
    t.equal(
      (await hub.ask(t, `POST ${where}/release`, { token: operator, body: {} })).json.code,
      'SYNC_REQUEST_SETTLED',
    )
    t.equal((await hub.ask(t, 'POST /api/v1/brakes/nothing/release', { token: operator, body: {} })).status, 404)
    t.match((await push('', deletes)).json, { counts: { applied: 2 } })
    t.match((await hub.ask(t, `GET ${where}`, { token: viewer })).json, { usedAt: /^20/, endedAt: null })

    const pull = (query: string) => hub.ask(t, `GET /sync/v1/changes?resource=city${query}`, { token: braker.token })
    const weighed = await pull(`&limit=1&weigh=true&canary=${one}`)
    t.match(weighed.headers, {
      'syncline-empty': 'false',
      'syncline-canary': 'deleted',
      'syncline-due': /^puts=\d+, deletes=\d+$/,
    })
    t.equal((await pull(`&weigh=true&canary=${randomUUID()}`)).headers['syncline-canary'], 'missing')
    t.notOk('syncline-empty' in (await pull('&limit=1')).headers, 'nobody asked')
    const heads = JSON.parse((await pull('&heads=true&limit=1')).text.split('\n')[0] ?? '')
    t.same(heads.data ?? {}, {}, 'versions without values')

    const greet = (headers: Record<string, string>) => hub.ask(t, 'GET /sync/v1/site', { token: braker.token, headers })
    t.match(await greet({ 'syncline-site': site.self.uuid }), { status: 409, json: { code: 'SYNC_PEER_CLONED' } })
    t.match(await greet({ 'syncline-site': randomUUID() }), { status: 502, json: { code: 'SYNC_PEER_MISMATCH' } })
    t.match(await greet({ 'syncline-site': uuid, 'syncline-mark': 'first' }), {
      status: 200,
      json: { mark: /^[0-9a-z]+$/ },
    })
    await greet({ 'syncline-mark': 'second' })
    await site.sql(`update syncline.peer_mark set superseded_at = superseded_at - interval '2 minutes'`)
    t.match(await greet({ 'syncline-mark': 'first' }), {
      status: 409,
      json: { code: 'SYNC_PEER_CLONED', detail: new RegExp(uuid) },
    })
  },
)

t.test('a run and a change of a task can be previewed by whoever may run it', async (t) => {
  const ask = (body: object, token = operator) => hub.ask(t, 'POST /api/v1/sync/preview', { token, body })
  t.equal((await ask({}, viewer)).status, 403)
  t.match((await ask({ peer: 'field-laptop', resources: ['city'] })).json, {
    items: [{ peer: 'field-laptop', tasks: [] }],
  })
  t.equal(hub.asked.at(-1), 'previewSync {"peer":"field-laptop","resources":["city"]}')
  t.equal((await ask({ peer: 'nobody' })).status, 404)
  const made = await admin(t, 'POST /api/v1/tasks', {
    peer: 'field-laptop',
    resource: 'country',
    mode: 'pull',
    maxDeletes: '5%',
    canary: 'AT',
  })
  t.match(made.json, { maxDeletes: '5%', maxChanges: null, emptyGuard: true, canary: 'AT' })
  const where = `/api/v1/tasks/${made.json.id}`
  t.match(
    (await admin(t, `PATCH ${where}`, { emptyGuard: false, canary: null, maxChanges: 'none' }, anyRevision)).json,
    {
      maxDeletes: '5%',
      maxChanges: 'none',
      emptyGuard: false,
      canary: null,
    },
  )
  t.equal((await admin(t, `PATCH ${where}`, { maxDeletes: '-1' }, anyRevision)).json.code, 'SYNC_REQUEST_INVALID')
  const tried = await hub.ask(t, `POST ${where}/preview`, { token: operator, body: { filter: `name = 'x'` } })
  t.match(tried.json, { peer: 'field-laptop', newLog: false })
  t.match(hub.asked.at(-1), /"change":\{"resource":"country","settings":\{"filter":"name = 'x'"\}\}/)
  await admin(t, `DELETE ${where}`, undefined, anyRevision)
})

t.test('peers read and tell columns of what they are granted, and a task keeps its mapping', async (t) => {
  const { token } = await addPeer(hub, { name: 'columns', uuid: randomUUID() }, ['city'])
  const read = await hub.ask(t, 'GET /sync/v1/schemas/city', { token })
  t.match(read.json, {
    resource: 'city',
    fingerprint: String,
    columns: [{ name: String, type: String, nullable: Boolean }],
  })
  t.equal((await hub.ask(t, 'GET /sync/v1/schemas/country', { token })).status, 403)
  const schema = {
    fingerprint: 'abc',
    columns: [{ name: 'people', type: 'integer', nullable: true, hasDefault: false }],
  }
  t.equal((await hub.ask(t, 'PUT /sync/v1/schemas/city', { token, body: schema })).status, 204)
  t.match((await hub.ask(t, 'GET /sync/v1/site', { token })).json, { resources: [{ name: 'city', yours: 'abc' }] })
  const add = (mapping: object) =>
    admin(t, 'POST /api/v1/tasks', { peer: 'columns', resource: 'city', mode: 'pull', mapping })
  t.match((await add({ rename: { inhabitants: 'name' } })).json, {
    code: 'SYNC_REQUEST_INVALID',
    detail: /the peer has no column "inhabitants"/,
  })
  const made = await add({ rename: { people: 'name' } })
  t.same(made.json.mapping, { rename: { people: 'name' }, constant: {}, omit: [] })
  const where = `/api/v1/tasks/${made.json.id}`
  const changed = await admin(t, `PATCH ${where}`, { mapping: { constant: { people: 3 }, rename: {} } }, anyRevision)
  t.same(changed.json.mapping, { rename: {}, constant: { people: 3 }, omit: [] })
  const cleared = await admin(t, `PATCH ${where}`, { mapping: null }, anyRevision)
  t.same(cleared.json.mapping, { rename: {}, constant: {}, omit: [] })
  await admin(t, `DELETE ${where}`, undefined, anyRevision)
})

t.test('a host is trusted by the fingerprints that a person names, and forgotten again', async (t) => {
  const host = { host: 'backup01', user: 'sync' }
  const shown = await admin(t, 'POST /api/v1/transfers/hosts/scan', host)
  t.match(shown.json, { items: [{ host: 'backup01', port: 22, type: 'ssh-ed25519', trusted: false }] })
  const [{ fingerprint }] = shown.json.items
  t.notMatch(shown.text, /AAAA/)
  t.match((await admin(t, 'POST /api/v1/transfers/hosts', { host, fingerprints: ['SHA256:short'] })).json, {
    code: 'SYNC_REQUEST_INVALID',
  })
  const trusted = await admin(t, 'POST /api/v1/transfers/hosts', { host, fingerprints: [fingerprint] })
  t.match(trusted.json, { items: [{ trusted: true }] })
  t.match(hub.asked.at(-1), /^trustHost .*"by":"/)
  const list = await hub.ask(t, 'GET /api/v1/transfers/hosts', { token: viewer })
  t.match(list.json, { items: [{ host: 'backup01', port: 22, fingerprint, trustedAt: String, trustedBy: String }] })
  t.equal((await admin(t, 'DELETE /api/v1/transfers/hosts/backup01')).status, 204)
  t.equal((await admin(t, 'DELETE /api/v1/transfers/hosts/backup01')).json.code, 'SYNC_REQUEST_NOT_FOUND')
})

t.test(
  'I5: what is served is on the disk before it is told, though its application does not wait for that',
  async (t) => {
    const first = await sites.make('hasty', 'create table note (id text primary key)', ['note'])
    const name = new URL(first.url).pathname.slice(1)
    await first.sql(`alter database "${name}" set synchronous_commit = off`)
    const hasty = await sites.open('hasty', first.url, first.key)
    const served = await serve(t, hasty)
    const { token } = await addPeer(served, { name: 'field', uuid: randomUUID() }, ['note'])
    t.same(await hasty.sql('show synchronous_commit'), [{ synchronous_commit: 'off' }])
    await hasty.sql(`insert into note values ('A')`)
    const [{ committed }] = (await hasty.sql('select pg_current_wal_insert_lsn()::text as committed')) as [
      { committed: string },
    ]
    t.match(
      (await served.ask(t, 'GET /sync/v1/changes?resource=note', { token, headers: { accept: 'application/json' } }))
        .json.changes,
      [{ id: 'A' }],
    )
    t.same(await hasty.sql(`select pg_current_wal_flush_lsn() >= $1::pg_lsn as flushed`, [committed]), [
      { flushed: true },
    ])
  },
)

t.test('jobs are defined, run, stopped and removed; their runs, steps and leases are shown', async (t) => {
  const definition = { name: 'nightly', steps: [{ wait: 1 }] }
  t.match((await hub.ask(t, 'GET /api/v1/jobs/schema', { token: viewer })).json, { title: 'Job' })
  t.match((await admin(t, 'POST /api/v1/jobs/compare', { jobs: [definition] })).json, { faults: [{ path: '/0' }] })
  t.match((await admin(t, 'POST /api/v1/jobs/apply', { jobs: [definition], prune: true })).json, {
    changes: [{ name: 'nightly', does: 'keep' }],
  })
  t.equal(hub.asked.at(-1), `applyJobs ${JSON.stringify({ jobs: [definition], prune: true })}`)
  t.match((await admin(t, 'POST /api/v1/jobs/apply', { jobs: [] })).json, { code: 'SYNC_REQUEST_INVALID' })
  const { db } = site.store
  const made = { name: 'nightly', definition, enabled: true, events: [], nextDue: new Date('2030-01-01T00:00:00Z') }
  await applyJobs(db, [made], false)
  const found = await hub.ask(t, 'GET /api/v1/jobs/nightly', { token: viewer })
  t.match(found.json, { definition, nextDue: '2030-01-01T00:00:00.000000Z', underWay: 0, lastResult: null })
  t.equal(found.headers.etag, '"1"')
  t.match((await admin(t, 'PUT /api/v1/jobs/nightly', definition, { 'if-match': '"1"' })).json, { name: 'nightly' })
  t.equal((await admin(t, 'PUT /api/v1/jobs/nightly', definition, { 'if-match': '"7"' })).status, 412)
  t.equal((await admin(t, 'PUT /api/v1/jobs/other', definition, anyRevision)).json.code, 'SYNC_REQUEST_INVALID')
  t.match((await admin(t, 'GET /api/v1/jobs/nightly/plan')).json, { steps: [{ plan: { summary: 'would run' } }] })

  const asked = await admin(t, 'POST /api/v1/jobs/nightly/runs', { dryRun: false })
  t.match([asked.status, asked.json], [202, { runId: '1', does: 'begin' }])
  t.match(hub.asked.at(-1), /^runJob .*"caller":"the administrator","dryRun":false/)
  const nobody = await hub.ask(t, 'POST /api/v1/jobs/nightly/runs', { token: viewer, body: {} })
  t.equal(nobody.status, 403, 'who may look may not run')
  const run = { cause: 'hand', definition, priority: 0, peers: [] }
  const requested = await requestRun(db, 'nightly', { dryRun: () => false, decide: () => 'begin', run: () => run })
  const id = requested?.runId ?? ''
  const step = { runId: id, stage: 'steps', place: 0, name: 'wait-1', kind: 'wait', attempt: 1, host: 'here' } as const
  await saveJobStep(db, await beginJobStep(db, step), 'said\n', {
    result: 'success',
    code: null,
    message: 'm',
    counts: {},
  })
  t.match((await admin(t, 'GET /api/v1/jobs')).json, { items: [{ name: 'nightly', underWay: 1 }] })
  t.match((await admin(t, 'GET /api/v1/job-runs?job=nightly&phase=queued')).json, { items: [{ id, phase: 'queued' }] })
  t.match((await admin(t, `GET /api/v1/job-runs/${id}`)).json, { job: 'nightly', cause: 'hand' })
  t.match((await admin(t, `GET /api/v1/job-runs/${id}/steps`)).json, { items: [{ name: 'wait-1', output: 'said\n' }] })
  t.equal((await admin(t, 'GET /api/v1/job-runs/99999')).status, 404)
  t.same((await admin(t, 'POST /api/v1/jobs/nightly/stop', { run: id })).json, { runs: ['1'] })
  t.equal((await admin(t, `POST /api/v1/job-runs/${id}/dismiss`)).status, 404, 'it waits for nobody')
  await site.sql('update syncline.job_run set dead = true where id = $1', [id])
  t.match((await admin(t, `POST /api/v1/job-runs/${id}/dismiss`)).json, { id, dead: false })

  const holder = {
    token: randomUUID(),
    owner: 'nightly',
    runId: id,
    site: 'hub',
    host: 'here',
    pid: 1,
    peerId: null,
    seconds: 60,
  }
  await takeLeases(db, { hold: ['backup/disk'], freeLeases: [], freeJobs: [], runId: id }, holder)
  t.match((await admin(t, 'GET /api/v1/leases')).json, {
    items: [{ name: 'backup/disk', owner: 'nightly', runId: id }],
  })
  t.equal((await admin(t, 'DELETE /api/v1/leases/backup%2Fdisk')).status, 204)
  t.equal((await admin(t, 'DELETE /api/v1/leases/backup%2Fdisk')).json.code, 'SYNC_REQUEST_NOT_FOUND')
  t.equal((await admin(t, 'DELETE /api/v1/jobs/nightly', undefined, { 'if-match': '"1"' })).status, 204)
  t.match((await admin(t, `GET /api/v1/job-runs/${id}`)).json, { phase: 'over', message: 'the job was removed' })
})

t.test('a peer takes, renews and releases leases that are open to peers, and no others', async (t) => {
  const { token } = await addPeer(hub, { name: 'lessee', uuid: randomUUID() })
  const ask = (question: string, body?: unknown) => hub.ask(t, question, { token, body })
  const where = '/sync/v1/leases/shared%2Farchive'
  const [mine, other] = [randomUUID(), randomUUID()]
  const take = (token: string) => ask(`PUT ${where}`, { token, owner: 'copy', host: 'h', pid: 7, seconds: 60 })
  t.same((await ask(`GET ${where}`)).json, { free: true, reason: null })
  t.same((await take(mine)).json, { free: true, reason: null })
  t.match((await take(other)).json, { free: false, reason: /held by copy of lessee on h/ })
  t.match((await ask(`GET ${where}`)).json, { free: false, reason: /held by copy of lessee/ })
  t.same((await ask(`POST ${where}/renewals`, { token: mine, seconds: 60 })).json, { held: true })
  t.same((await ask(`POST ${where}/renewals`, { token: other, seconds: 60 })).json, { held: false })
  await ask(`POST ${where}/release`, { token: other })
  t.match((await admin(t, 'GET /api/v1/leases')).json, { items: [{ name: 'shared/archive', site: 'lessee' }] })
  t.equal((await ask(`POST ${where}/release`, { token: mine })).status, 204)
  t.same((await admin(t, 'GET /api/v1/leases')).json.items, [])
  t.match((await ask('GET /sync/v1/leases/backups')).json, { code: 'SYNC_AUTH_FORBIDDEN' })
  await admin(t, 'DELETE /api/v1/peers/lessee', undefined, anyRevision)
})

t.test('a Sahana Eden site is added with an account, and resources are made as it describes them', async (t) => {
  const body = { name: 'relief', url: 'http://relief.example.org/eden', username: 'sync@example.org', password: 'a:b' }
  const made = await admin(t, 'POST /api/v1/peers/eden', body)
  t.match(made, {
    status: 201,
    json: { name: 'relief', kind: 'eden', hasToken: true },
    headers: { location: '/api/v1/peers/relief' },
  })
  t.match(hub.asked.at(-1), /"token":"sync@example.org:a:b"/, 'the account is what this site shows there')
  t.notMatch(JSON.stringify(made.json), /a:b/, 'and shows to nobody')
  for (const wrong of [{ username: 'with:colon' }, { password: '' }, { more: 1 }])
    t.match(await admin(t, 'POST /api/v1/peers/eden', { ...body, name: 'other', ...wrong }), {
      status: 400,
      json: { code: 'SYNC_REQUEST_INVALID' },
    })
  const passive = await admin(t, 'POST /api/v1/peers/eden', {
    name: 'caller',
    uuid: '11111111-2222-4333-8444-888888888888',
  })
  t.match(passive, { status: 201, json: { url: null, hasToken: false } })

  for (const [given, onConflict] of [
    ['THIS', 'mine'],
    ['OTHER', 'theirs'],
    ['NEWER', 'newer'],
    ['MASTER', 'master'],
  ] as const) {
    const master = onConflict === 'master' ? made.json.uuid : null
    const task = await admin(t, 'POST /api/v1/tasks', {
      peer: 'relief',
      resource: 'city',
      mode: 'pull',
      onConflict: given,
    })
    t.match(task, { status: 201, json: { onConflict, master } }, given)
    const changed = await admin(t, `PATCH /api/v1/tasks/${task.json.id}`, { onConflict: given }, anyRevision)
    t.match(changed, { status: 200, json: { onConflict, master } })
    await admin(t, `DELETE /api/v1/tasks/${task.json.id}`, undefined, anyRevision)
    const grant = await admin(t, 'PUT /api/v1/peers/relief/grants/push/city', { onConflict: given }, anyRevision)
    t.match(grant, { status: 200, json: { onConflict, master } })
  }
  await admin(t, 'DELETE /api/v1/peers/relief/grants/push/city', undefined, anyRevision)

  const created = await admin(t, 'POST /api/v1/resources/eden', { peer: 'relief', tables: ['org_sector'] })
  t.match(created, {
    status: 201,
    json: { made: [{ resource: { name: 'org_sector', managed: true }, without: [String] }] },
  })
  t.match(await admin(t, 'POST /api/v1/resources/eden', { peer: 'nobody', tables: ['org_sector'] }), { status: 404 })
  t.match(await admin(t, 'POST /api/v1/resources/eden', { peer: 'relief', tables: [] }), { status: 400 })
})

t.test('a folder is added, changed and looked into, and its files are listed', async (t) => {
  const body = { name: 'drop', path: '/srv/exchange', read: 'in/*.xml', write: null }
  const made = await admin(t, 'POST /api/v1/peers/folder', body)
  t.match(made, { status: 201, json: { kind: 'folder', url: 'file:///srv/exchange' }, headers: { etag: '"1"' } })
  t.match(await admin(t, 'POST /api/v1/peers/folder', { ...body, name: 'x', more: 1 }), { status: 400 })
  t.match(await admin(t, 'POST /api/v1/peers/folder', { ...body, name: 'x', format: 'pdf' }), { status: 400 })
  t.match(await admin(t, 'GET /api/v1/peers/drop/folder'), {
    headers: { etag: '"1"' },
    json: { path: '/srv/exchange', format: 's3xml', read: 'in/*.xml', write: null, after: 'keep', settleSeconds: 2 },
  })
  const change = (json: object, match: string) =>
    admin(t, 'PATCH /api/v1/peers/drop/folder', json, { 'if-match': match })
  t.match(await change({ after: 'move', path: '/srv/other' }, '"1"'), { json: { after: 'move', read: 'in/*.xml' } })
  t.match(await change({ after: 'delete' }, '"1"'), { status: 412, json: { code: 'SYNC_REQUEST_CHANGED' } })
  t.match(await admin(t, 'PATCH /api/v1/peers/drop', { url: 'http://x.example.org' }, anyRevision), {
    status: 400,
    json: { detail: /is a folder/ },
  })
  t.match(await admin(t, 'GET /api/v1/peers/drop'), { json: { url: 'file:///srv/other', revision: 2 } })
  const { id } = await findPeer(hub.site.store.db, 'drop')
  await noteFolderFile(hub.site.store.db, id, { name: 'in/a.xml', bytes: 12, modified: '1700000000000000000' })
  t.match(await admin(t, 'GET /api/v1/peers/drop/folder/files?state=new'), {
    json: { items: [{ name: 'in/a.xml', bytes: 12, state: 'new', gone: false, resources: {} }] },
  })
  t.match(await admin(t, 'POST /api/v1/peers/drop/folder/dump', { resources: ['city'] }), {
    json: { files: 2, records: 30 },
  })
  t.match(await admin(t, 'POST /api/v1/peers/drop/test'), {
    json: { peer: 'drop', kind: 'folder', folder: { files: 1, some: ['in/a.xml'], writes: null } },
  })
  t.match(await admin(t, 'POST /api/v1/peers/relief/test'), { json: { kind: 'eden', clockOffsetMs: 3, folder: null } })
  for (const none of ['GET /api/v1/peers/relief/folder', 'GET /api/v1/peers/relief/folder/files'])
    t.match(await admin(t, none), { status: 400, json: { detail: /is no folder/ } })
})

t.test('tables are published together as a data set, and one of an Eden is followed', async (t) => {
  const body = { code: 'CITIES', name: 'Cities', tables: [{ resource: 'city' }] }
  t.match(await admin(t, 'POST /api/v1/datasets', body), { status: 201, json: { code: 'CITIES', archive: null } })
  t.match(await admin(t, 'GET /api/v1/datasets'), { json: { items: [{ code: 'CITIES' }] } })
  t.match(await admin(t, 'POST /api/v1/datasets/CITIES/archive'), { status: 200, json: { archive: { url: /zip$/ } } })
  t.match(await admin(t, 'DELETE /api/v1/datasets/CITIES'), { status: 204 })
  t.match(await admin(t, 'POST /api/v1/datasets', { ...body, code: '1' }), { status: 400 })
  const follow = { code: 'RELIEF', schedule: 'every:60' }
  t.match(await admin(t, 'POST /api/v1/peers/caller/datasets', follow), {
    status: 200,
    json: { name: 'Relief', made: ['city'], without: ['org_sector'] },
  })
  t.match(await admin(t, 'POST /api/v1/peers/nobody/datasets', follow), { status: 404 })
})

t.test('what Eden asks is described with its own words', async (t) => {
  const { token } = (await admin(t, 'POST /api/v1/peers/caller/rotate', {})).json
  const repository = 'urn:uuid:11111111-2222-4333-8444-888888888888'
  const registration = JSON.stringify({ uuid: repository, name: 'caller', apitype: 'eden' })
  for (const [question, status, body] of [
    ['POST /eden/sync/repository/register.json', 200, registration],
    ['GET /eden/sync/sync.xml?resource=org_sector', 403],
    [`POST /eden/sync/sync.xml?resource=org_sector&repository=${repository}`, 403, '<s3xml/>'],
    ['GET /eden/sync/sync', 303],
    ['GET /eden/org/sector.xml', 403],
    ['POST /eden/org/sector.s3json', 403, '{}'],
    ['GET /eden/org/sector/fields.xml', 403],
    ['POST /eden/org/sector/sync.html', 405, '<s3xml/>'],
    ['GET /eden/sync/dataset.xml', 200],
    ['GET /eden/sync/task.s3json', 200],
    ['GET /eden/sync/resource_filter.html', 415],
    ['GET /eden/default/download/nothing.zip', 404],
  ] as const)
    t.equal((await hub.ask(t, question, { token, ...(body !== undefined && { body }) })).status, status, question)
})

t.test('every operation of the document was asked, and is asked for by tests alone', async (t) => {
  // Endless: test/server/hostile.pg.test.ts asks for it over a real connection.
  t.same(
    hub.contract.operations.filter((id) => !hub.contract.called.has(id)),
    // The other in test/e2e/waiting.e2e.test.ts.
    ['listenForChanges', 'listenForEvents'],
  )
  t.ok(laptop.peer.id > 0)
})
