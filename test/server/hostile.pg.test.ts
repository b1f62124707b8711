import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { siteFactory } from '../support/sites.ts'
import { addPeer, LIMITS, type Reply, serve } from './served.ts'

const DDL = `
  create table other (id text primary key);
  create table city (id text primary key, name text, population int4, facts jsonb, founded date, owner text references other);
`
const sites = await siteFactory(t)
const site = await sites.make('hub', DDL, ['city', 'other'])
const hub = await serve(t, site)
const field = await addPeer(hub, { name: 'field', uuid: randomUUID() }, ['city'])

type Push = { readonly type?: string; readonly headers?: Record<string, string>; readonly resource?: string }
const push = (
  t: Test,
  body: string | Buffer,
  { type = 'application/json', headers = {}, resource = 'city' }: Push = {},
): Promise<Reply> =>
  hub.ask(t, `POST /sync/v1/changes?resource=${resource}`, {
    token: field.token,
    body,
    headers: { 'content-type': type, ...headers },
  })
const digest = (body: string | Buffer) => `sha-256=:${createHash('sha256').update(body).digest('base64')}:`
const changes = (...list: unknown[]) => JSON.stringify({ changes: list })
const LINES = 'application/vnd.syncline.lines'
const origin = randomUUID()

/** What the site holds; a push that was refused as a whole leaves no trace. */
async function traces(): Promise<unknown> {
  const [row] =
    await site.sql(`select (select count(*) from city) as rows, (select count(*) from syncline.record) as records,
    (select count(*) from syncline.quarantine) as waiting, (select count(*) from syncline.site) as origins`)
  return row
}

const good = { id: 'good', data: { name: 'Good' } }
const line = (id: string, payload: string, more = '\t\t\tp') => `${JSON.stringify(id)}\t${more}\t${payload}`
const lines = (body: string[], count = body.length, header: object = {}) =>
  [
    JSON.stringify({ syncline: 1, resource: 'city', columns: ['name'], refs: {}, origins: [origin], ...header }),
    ...body,
    JSON.stringify({ count }),
  ].join('\n')
const xml = (inner: string, before = '') => `<?xml version="1.0"?>${before}<s3xml>${inner}</s3xml>`
const bomb = `<!DOCTYPE s3xml [<!ENTITY a "aaaaaaaaaa">${Array.from({ length: 9 }, (_, n) => `<!ENTITY ${'bcdefghij'[n]} "${`&${'abcdefghi'[n]};`.repeat(10)}">`).join('')}]>`
const deep = (n: number) => `${'['.repeat(n)}1${']'.repeat(n)}`
const ten = 'x'.repeat(10_000_000)

/** Pushes that count for nothing, the code they are refused with, and what the problem names. */
const HOSTILE: readonly (readonly [what: string, body: string | Buffer, push: Push, code: string, names: RegExp])[] = [
  [
    'an entity bomb',
    xml('<resource name="city" uuid="1"><data field="name">&j;</data></resource>', bomb),
    { type: 'application/xml' },
    'SYNC_FORMAT_INVALID',
    /DOCTYPE/,
  ],
  [
    'an external entity',
    xml(
      '<resource name="city" uuid="1"><data field="name">&x;</data></resource>',
      '<!DOCTYPE s3xml [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ),
    { type: 'application/xml' },
    'SYNC_FORMAT_INVALID',
    /DOCTYPE/,
  ],
  [
    'crossed tags',
    '<s3xml><resource name="city" uuid="1"></s3xml></resource>',
    { type: 'application/xml' },
    'SYNC_FORMAT_INVALID',
    /line 1/,
  ],
  ['two roots', `${xml('')}<s3xml/>`, { type: 'application/xml' }, 'SYNC_FORMAT_INVALID', /line 1/],
  [
    'resources inside each other without end',
    xml('<resource name="city" uuid="1">'.repeat(5_000)),
    { type: 'application/xml' },
    'SYNC_FORMAT_INVALID',
    /deeper/,
  ],
  [
    'a resource nobody asked for',
    xml('<resource name="other" uuid="1"/>'),
    { type: 'application/xml' },
    'SYNC_REQUEST_INVALID',
    /"other"/,
  ],
  [
    'deep nesting',
    changes({ id: '1', data: { facts: 'X' } }).replace('"X"', deep(100_000)),
    {},
    'SYNC_FORMAT_INVALID',
    /deeper/,
  ],
  ['deep nesting in lines', lines([line('1', deep(40))]), { type: LINES }, 'SYNC_FORMAT_INVALID', /deeper/],
  [
    'deep nesting in NDJSON',
    `{"id":"1","data":{"facts":${deep(40)}}}`,
    { type: 'application/x-ndjson' },
    'SYNC_FORMAT_INVALID',
    /line 1.*deeper/,
  ],
  [
    'a field of ten megabytes',
    changes(good, { id: '1', data: { name: ten.slice(0, 5_000_000) } }),
    {},
    'SYNC_RECORD_TOO_LARGE',
    /record 2.*1048576/,
  ],
  ['a body beyond the limit', changes({ id: '1', data: { name: ten } }), {}, 'SYNC_REQUEST_TOO_LARGE', /larger/],
  [
    'a field of ten megabytes in CSV',
    `id,name\n1,"${ten.slice(0, 5_000_000)}"\n`,
    { type: 'text/csv' },
    'SYNC_RECORD_TOO_LARGE',
    /1048576/,
  ],
  [
    'an unknown member',
    changes(good, { id: '1', data: {}, color: 'red' }),
    {},
    'SYNC_FORMAT_INVALID',
    /record 2.*"color"/,
  ],
  [
    'an unknown member of the document',
    '{"changes":[],"more_changes":[]}',
    {},
    'SYNC_FORMAT_INVALID',
    /"more_changes"/,
  ],
  [
    'an unknown attribute',
    xml('<resource name="city" uuid="1" color="red"/>'),
    { type: 'application/xml' },
    'SYNC_FORMAT_INVALID',
    /"color"/,
  ],
  ['a record without an id', changes(good, { data: { name: 'x' } }), {}, 'SYNC_FORMAT_INVALID', /record 2.*id/],
  ['an id with a NUL', changes({ id: 'a\0b', data: {} }), {}, 'SYNC_FORMAT_INVALID', /record 1/],
  [
    'a version that is none',
    changes({ id: '1', version: { origin, clock: -1 }, data: {} }),
    {},
    'SYNC_FORMAT_INVALID',
    /record 1.*clock/,
  ],
  [
    'an origin that is none',
    changes({ id: '1', version: { origin: 'me', clock: 5 }, data: {} }),
    {},
    'SYNC_FORMAT_INVALID',
    /"me"/,
  ],
  ['no JSON at all', '{"changes":[{]}', {}, 'SYNC_FORMAT_INVALID', /body/],
  ['a list instead of a document', '[]', {}, 'SYNC_FORMAT_INVALID', /object/],
  ['bytes that are no UTF-8', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), {}, 'SYNC_FORMAT_INVALID', /UTF-8/],
  [
    'another character set',
    changes(good),
    { type: 'application/json; charset=utf-16' },
    'SYNC_FORMAT_UNSUPPORTED',
    /utf-16/,
  ],
  [
    'a type that nobody reads',
    changes(good),
    { type: 'application/x-www-form-urlencoded' },
    'SYNC_FORMAT_UNSUPPORTED',
    /x-www-form/,
  ],
  ['a body without a type', changes(good), { type: '' }, 'SYNC_FORMAT_UNSUPPORTED', /no Content-Type/],
  ['ragged CSV', 'id,name\n1,A\n2,B,C\n', { type: 'text/csv' }, 'SYNC_FORMAT_INVALID', /record 2 \(line 3\).*3 cells/],
  ['CSV without an id', 'name\nA\n', { type: 'text/csv' }, 'SYNC_FORMAT_INVALID', /"id"/],
  [
    'a batch cut before its trailer says so',
    `${JSON.stringify(good)}\n{"count":2}`,
    { type: 'application/x-ndjson' },
    'SYNC_BATCH_INCOMPLETE',
    /counts 2.*has 1/,
  ],
  [
    'a line after the trailer',
    `{"count":0}\n${JSON.stringify(good)}`,
    { type: 'application/x-ndjson' },
    'SYNC_FORMAT_INVALID',
    /last line/,
  ],
  [
    'lines cut in the middle',
    lines([line('1', '["a"]'), line('2', '["b"]')]).slice(0, -15),
    { type: LINES },
    'SYNC_BATCH_INCOMPLETE',
    /trailer/,
  ],
  ['lines with another count', lines([line('1', '["a"]')], 2), { type: LINES }, 'SYNC_BATCH_INCOMPLETE', /counts 2/],
  ['a line with a TAB too many', lines([line('1', '["a"]\t')]), { type: LINES }, 'SYNC_FORMAT_INVALID', /record 1/],
  [
    'a line that closes another batch',
    lines([line('1', '["a"]'), '\\.']),
    { type: LINES },
    'SYNC_FORMAT_INVALID',
    /record 2/,
  ],
  [
    'a line with a control character',
    lines([line('1', '["a\u0001"]')]),
    { type: LINES },
    'SYNC_FORMAT_INVALID',
    /control/,
  ],
  [
    'lines of another resource',
    lines([line('1', '["a"]')], 1, { resource: 'other' }),
    { type: LINES },
    'SYNC_REQUEST_INVALID',
    /"other"/,
  ],
  [
    'an origin out of range',
    lines([line('1', '["a"]', '5\t7\t\tp')]),
    { type: LINES },
    'SYNC_FORMAT_INVALID',
    /origin 7/,
  ],
  ['a later form of lines', lines([], 0, { syncline: 2 }), { type: LINES }, 'SYNC_FORMAT_UNSUPPORTED', /form 2/],
  [
    'one record twice',
    lines([line('1', '["a"]'), line('1', '["b"]')]),
    { type: LINES },
    'SYNC_FORMAT_INVALID',
    /twice/,
  ],
  [
    'a gzip bomb',
    gzipSync(Buffer.alloc(200_000_000)),
    { headers: { 'content-encoding': 'gzip' } },
    'SYNC_REQUEST_TOO_LARGE',
    /unpacked/,
  ],
  [
    'a zstd bomb',
    zstdCompressSync(Buffer.alloc(200_000_000)),
    { headers: { 'content-encoding': 'zstd' } },
    'SYNC_REQUEST_TOO_LARGE',
    /unpacked/,
  ],
  [
    'a coding that nobody reads',
    changes(good),
    { headers: { 'content-encoding': 'br' } },
    'SYNC_FORMAT_UNSUPPORTED',
    /br.*zstd, gzip/,
  ],
  [
    'a body that is not in its coding',
    changes(good),
    { headers: { 'content-encoding': 'zstd' } },
    'SYNC_BATCH_INCOMPLETE',
    /zstd/,
  ],
  [
    'a packed body that was cut',
    gzipSync(changes(good)).subarray(0, -9),
    { headers: { 'content-encoding': 'gzip' } },
    'SYNC_BATCH_INCOMPLETE',
    /gzip/,
  ],
  [
    'a body that was altered',
    changes(good),
    { headers: { 'content-digest': digest(`${changes(good)} `) } },
    'SYNC_BATCH_INCOMPLETE',
    /sha-256/,
  ],
  [
    'a body that one of two digests denies',
    changes(good),
    { headers: { 'content-digest': `${digest(changes(good))}, sha-512=:AAAA:` } },
    'SYNC_BATCH_INCOMPLETE',
    /sha-512/,
  ],
  ["someone else's resource", changes({ id: '1', data: {} }), { resource: 'other' }, 'SYNC_AUTH_FORBIDDEN', /"other"/],
  [
    'two resources at once',
    changes({ id: '1', data: {} }),
    { resource: 'city&resource=other' },
    'SYNC_REQUEST_INVALID',
    /resource/,
  ],
  [
    'one record a thousand times',
    changes(...Array.from({ length: 1_000 }, (_, n) => ({ id: 'again', data: { name: `${n}` } }))),
    {},
    'SYNC_REQUEST_TOO_LARGE',
    /1000 steps.*many times/,
  ],
  [
    'more columns than any table has',
    `id,${Array.from({ length: 100_000 }, (_, n) => `c${n}`).join()}\n`,
    { type: 'text/csv' },
    'SYNC_REQUEST_TOO_LARGE',
    /100001 columns/,
  ],
  [
    'more columns than any table has, in lines',
    lines([], 0, { columns: Array.from({ length: 2_000 }, (_, n) => `c${n}`) }),
    { type: LINES },
    'SYNC_REQUEST_TOO_LARGE',
    /2000 columns/,
  ],
  [
    'a resource that is none',
    changes({ id: '1', data: {} }),
    { resource: "city'--" },
    'SYNC_AUTH_FORBIDDEN',
    /may not push/,
  ],
]

for (const [what, body, settings, code, names] of HOSTILE) {
  t.test(`a push counts for nothing: ${what}`, async (t) => {
    const before = await traces()
    const answer = await push(t, body, settings)
    t.equal(answer.headers['content-type'], 'application/problem+json')
    t.match(answer.json, { code, detail: names, mend: /./, instance: /^urn:syncline:request:/ })
    t.same(await traces(), before)
  })
}

t.test('one bad record of a push waits or is refused alone, and the rest counts', async (t) => {
  const one = async (change: object, expected: object, settings: Push = {}) => {
    const report = (await push(t, changes({ id: 'neighbour', data: { name: randomUUID() } }, change), settings)).json
    t.match(report.counts, { applied: 1 }, 'the neighbour counts')
    t.match(report.rejections, [expected])
  }
  await one(
    { id: 'a', data: { population: 'many' } },
    { id: 'a', outcome: 'quarantined', code: 'SYNC_RECORD_CONSTRAINT', reason: /integer/ },
  )
  await one({ id: 'b', data: { population: 1e12 } }, { id: 'b', outcome: 'quarantined', reason: /range/ })
  await one({ id: 'c', data: { founded: '2024-02-30' } }, { id: 'c', outcome: 'quarantined', reason: /2024-02-30/ })
  await one(
    { id: 'd', data: { owner: 'nobody' } },
    { id: 'd', outcome: 'quarantined', code: 'SYNC_RECORD_PARENT_MISSING' },
  )
  await one(
    { id: 'e', data: { name: 'x', mayor: 'y' } },
    { id: 'e', outcome: 'refused', code: 'SYNC_RECORD_FIELD_UNKNOWN', reason: /"mayor"/ },
  )
  await one(
    { id: 'f', version: { origin: field.peer.uuid, clock: (Date.now() + 86_400_000) * 1000 }, data: { name: 'x' } },
    { id: 'f', outcome: 'quarantined', code: 'SYNC_RECORD_CLOCK_AHEAD' },
  )
  await one(
    {
      id: 'g',
      version: {
        origin: field.peer.uuid,
        clock: Date.now() * 1000,
        seen: { [site.self.uuid]: Number.MAX_SAFE_INTEGER },
      },
      data: { name: 'x' },
    },
    { id: 'g', outcome: 'quarantined', code: 'SYNC_RECORD_CLOCK_AHEAD' },
  )
  t.notOk((await site.sql("select from city where id in ('a', 'b', 'c', 'e', 'f', 'g')")).length)
})

t.test(
  'a line that only the database can tell to be unreadable waits alone, and can be looked at and given up',
  async (t) => {
    const report = await push(t, lines([line('fine', '["a"]'), line('odd', '["a","b",]')]), { type: LINES })
    t.match(report.json, { counts: { applied: 1, quarantined: 1 }, rejections: [{ id: 'odd' }] })
    const { json } = await hub.ask(t, 'GET /api/v1/quarantine', { token: hub.tokens.operator })
    const entry = json.items.find(({ recordId }: { recordId: string }) => recordId === 'odd')
    t.equal(entry.change, null)
    t.equal((await hub.ask(t, `DELETE /api/v1/quarantine/${entry.id}`, { token: hub.tokens.operator })).status, 204)
  },
)

t.test("a peer's unknown field is kept with its record, a script's is refused by name", async (t) => {
  const versioned = {
    id: 'parked',
    version: { origin: field.peer.uuid, clock: Date.now() * 1000 },
    data: { name: 'P', mayor: 'Q' },
  }
  t.equal((await push(t, changes(versioned))).json.counts.applied, 1)
  t.same(await site.sql('select fields from syncline.parked'), [{ fields: { mayor: 'Q' } }])
  const inLines = await push(t, lines([line('parked2', '["R","S"]')], 1, { columns: ['name', 'mayor'] }), {
    type: LINES,
  })
  t.equal(inLines.json.counts.applied, 1)
})

t.test('what is whole and good is taken in every coding, with its digest', async (t) => {
  const plain = changes({ id: 'coded', data: { name: 'C' } })
  for (const [coding, body] of [
    ['gzip', gzipSync(plain)],
    ['zstd', zstdCompressSync(plain)],
    ['identity', Buffer.from(plain)],
  ] as const) {
    const answer = await push(t, body, {
      headers: { 'content-encoding': coding, 'content-digest': `${digest(body)}, md5=:AAAA:` },
    })
    t.equal(answer.status, 200, coding)
  }
  t.equal((await push(t, '{"changes":[]}')).json.counts.applied, 0)
})

t.test('an answer is packed as the peer asks, and its digest is that of the bytes sent', async (t) => {
  await site.sql(
    "insert into city (id, name) select 'many-' || n, repeat('Long name ', 10) from generate_series(1, 50) n",
  )
  const pull = (coding: string) =>
    hub.ask(t, 'GET /sync/v1/changes?resource=city', { token: field.token, headers: { 'accept-encoding': coding } })
  const codings = [
    ['gzip, zstd', 'zstd'],
    ['gzip', 'gzip'],
    ['zstd;q=0.2, gzip;q=0.9', 'gzip'],
    ['zstd;q=0', undefined],
    ['br, identity', undefined],
  ] as const
  for (const [asked, given] of codings) {
    const answer = await pull(asked)
    t.equal(answer.headers['content-encoding'], given, asked)
    t.equal(answer.headers['content-digest'], digest(answer.bytes), asked)
  }
})

t.test('a failed push is in the log, as the fault of whose it was', async (t) => {
  await push(t, '{')
  const { json } = await hub.ask(t, 'GET /api/v1/log?peer=field&resource=city&limit=1', { token: hub.tokens.viewer })
  t.match(json.items, [
    { result: 'error', remote: true, mode: 'push', direction: 'incoming', message: /^SYNC_FORMAT_INVALID: / },
  ])
})

t.test('a body that ends before it was all sent counts for nothing', async (t) => {
  const strict = await serve(t, site, { limits: { ...LIMITS, requestTimeoutMs: 700 } })
  await strict.app.listen({ port: 0, host: '127.0.0.1' })
  const before = await traces()
  const body = `${JSON.stringify({ id: 'cut1', data: { name: 'a' } })}\n${JSON.stringify({ id: 'cut2', data: { name: 'b' } })}\n`
  const head = (length: number) =>
    `POST /sync/v1/changes?resource=city HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${field.token}\r\nContent-Type: application/x-ndjson\r\nContent-Length: ${length}\r\n\r\n`
  const socket = connect(port(strict), '127.0.0.1')
  socket.end(head(body.length * 2) + body)
  t.match(await received(socket), /^$|400|408/)

  await t.test('and one that trickles in is not waited for', async (t) => {
    const slow = connect(port(strict), '127.0.0.1')
    slow.write(head(100_000))
    const trickle = setInterval(() => slow.writable && slow.write('x'), 50)
    const began = Date.now()
    const answer = await received(slow)
    clearInterval(trickle)
    t.match(answer, /^HTTP\/1\.1 408 /)
    t.ok(Date.now() - began < 60_000)
  })

  await t.test('nor are headers that never end', async (t) => {
    const slow = connect(port(strict), '127.0.0.1')
    slow.write('GET /sync/v1/site HTTP/1.1\r\nHost: x\r\n')
    const trickle = setInterval(() => slow.writable && slow.write('X-A: b\r\n'), 50)
    const answer = await received(slow)
    clearInterval(trickle)
    t.match(answer, /^HTTP\/1\.1 408 .*application\/problem\+json/s)
  })

  await t.test('and what is no HTTP, or has endless headers, is sent away', async (t) => {
    const noise = connect(port(strict), '127.0.0.1')
    noise.end('\x16\x03\x01 hello\r\n\r\n')
    t.match(await received(noise), /^HTTP\/1\.1 400 /)
    const large = connect(port(strict), '127.0.0.1')
    large.write(`GET / HTTP/1.1\r\nHost: x\r\nX-Large: ${'y'.repeat(100_000)}\r\n\r\n`)
    t.match(await received(large), /^HTTP\/1\.1 431 /)
  })
  t.same(await traces(), before)
})

t.test('who does not take an answer loses the connection', async (t) => {
  const wide = await serve(t, site, {
    limits: { ...LIMITS, requestTimeoutMs: 600, batchBytesMax: 100_000_000, recordBytesMax: 100_000_000 },
  })
  await site.sql(
    "insert into city (id, name) select 'wide-' || n, repeat(md5(n::text), 100000) from generate_series(1, 12) n",
  )
  await wide.app.listen({ port: 0, host: '127.0.0.1' })
  const connected = once(wide.app.server, 'connection')
  const lazy = connect(port(wide), '127.0.0.1')
  lazy.pause()
  lazy.write(`GET /sync/v1/changes?resource=city HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${field.token}\r\n\r\n`)
  const connections = () =>
    new Promise<number>((resolve) => wide.app.server.getConnections((_, count) => resolve(count)))
  await connected
  for (let n = 0; n < 1_200 && (await connections()) > 0; n++) await sleep(50)
  t.equal(await connections(), 0)
  lazy.destroy()
  await site.sql("delete from city where id like 'wide-%'")
})

t.test(
  'a peer that waits is answered as soon as there is something, and at the latest when its time is over',
  async (t) => {
    const live = await serve(t, site, { limits: { ...LIMITS, waitersPerPeerMax: 2 } })
    const waiter = await addPeer(live, { name: 'waiter', uuid: randomUUID() }, ['city'])
    await live.app.listen({ port: 0, host: '127.0.0.1' })
    const base = `http://127.0.0.1:${port(live)}/sync/v1`
    const headers = { authorization: `Bearer ${waiter.token}` }
    const pull = (query: string) => fetch(`${base}/changes?resource=city${query}`, { headers })
    const first = await pull('')
    const after = first.headers.get('syncline-checkpoint')

    const began = Date.now()
    const waiting = pull(`&after=${after}&wait=30`)
    await sleep(400)
    await site.sql("insert into city (id, name) values ('awaited', 'A')")
    t.match(await (await waiting).text(), /"awaited"/)
    t.ok(Date.now() - began < 25_000)

    const empty = await pull(`&after=${first.headers.get('syncline-checkpoint')}&wait=0`)
    const last = empty.headers.get('syncline-checkpoint')
    const idle = Date.now()
    const nothing = await pull(`&after=${last}&wait=1`)
    t.match(JSON.parse((await nothing.text()).trim()), { count: 0, more: false })
    t.ok(Date.now() - idle >= 950)
    t.equal((await pull('&wait=61')).status, 400)

    await t.test('listening tells the name of the resource, and goes on', async (t) => {
      const listening = await fetch(`${base}/events`, { headers })
      t.equal(listening.headers.get('content-type'), 'text/event-stream')
      const events = reader(listening)
      t.equal(await events.next(), ': here')
      t.equal(await events.next(), 'event: changes\ndata: {"resource":"city"}', 'it never said how far it has come')
      await site.sql("insert into city (id, name) values ('announced', 'A')")
      t.equal(await events.next(), 'event: changes\ndata: {"resource":"city"}')
      const second = await fetch(`${base}/events`, { headers })
      const third = await fetch(`${base}/events`, { headers })
      t.equal(third.status, 429, 'places are bounded')
      t.match(third.headers.get('retry-after'), /^\d+$/)
      const degraded = await pull(`&after=${last}&wait=5`)
      t.equal(degraded.status, 200, 'a pull without a place is answered at once')
      await second.body?.cancel()
      await events.cancel()
      const status = async () => {
        const again = await fetch(`${base}/events`, { headers })
        await again.body?.cancel()
        return again.status
      }
      for (let n = 0; n < 600 && (await status()) === 429; n++) await sleep(50)
      t.equal(await status(), 200, 'who hangs up leaves its place')
    })

    await t.test('and a server that stops lets nobody wait', async (t) => {
      const head = (await pull('')).headers.get('syncline-checkpoint')
      const pulled = pull(`&after=${head}&wait=60`)
      const listened = await fetch(`${base}/events`, { headers })
      await sleep(300)
      const began = Date.now()
      await live.app.close()
      t.equal((await pulled).status, 200)
      await listened.text().catch(() => '')
      t.ok(Date.now() - began < 40_000)
    })
  },
)

t.test('a site that cannot keep up sends requests away, and says how it is all the same', async (t) => {
  const busy = await serve(t, site, { limits: { ...LIMITS, eventLoopDelayMaxMs: 20 } })
  // For three seconds it counts as starting.
  for (let n = 0; n < 16; n++) {
    const until = Date.now() + 250
    while (Date.now() < until);
    await sleep(5)
  }
  const answer = await busy.ask(t, 'GET /api/v1/tasks', { token: busy.tokens.viewer })
  t.match(answer, {
    status: 503,
    json: { code: 'SYNC_REQUEST_OVERLOADED', retry: 'later' },
    headers: { 'retry-after': '10' },
  })
  t.equal((await busy.ask(t, 'GET /health/live')).status, 200)
})

t.test('a site without its database says so, and the log keeps the reason', async (t) => {
  await sites.cluster.halt('immediate')
  const answer = await push(t, changes(good))
  t.match(answer, {
    status: 503,
    json: { code: 'SYNC_STORE_UNAVAILABLE', retry: 'later' },
    headers: { 'retry-after': /^\d+$/ },
  })
  t.match(await hub.ask(t, 'GET /health/ready'), {
    status: 503,
    json: { ready: false, checks: [{ name: 'database', ok: false }] },
  })
  t.equal((await hub.ask(t, 'GET /metrics')).status, 200)
  t.equal((await hub.ask(t, 'GET /health/live')).status, 200)
  await sites.cluster.resume()
  t.equal((await push(t, changes(good))).status, 200, 'and works again by itself')
})

function port({ app }: { app: { server: { address: () => unknown } } }): number {
  return (app.server.address() as { port: number }).port
}

async function received(socket: ReturnType<typeof connect>): Promise<string> {
  let text = ''
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    text += chunk.toString()
  })
  await new Promise<void>((resolve) => socket.once('close', () => resolve()))
  return text
}

/** Events of a stream one by one, without the blank lines between them and without bare heart-beats. */
function reader(response: Response) {
  const stream = response.body?.getReader()
  let text = ''
  return {
    async next(): Promise<string> {
      for (;;) {
        const end = text.indexOf('\n\n')
        if (end >= 0) {
          const event = text.slice(0, end)
          text = text.slice(end + 2)
          if (event !== ':') return event
          continue
        }
        const { value, done } = (await stream?.read()) ?? { done: true }
        if (done === true) throw new Error(`the stream ended after ${JSON.stringify(text)}`)
        text += Buffer.from(value).toString()
      }
    },
    cancel: () => stream?.cancel(),
  }
}
