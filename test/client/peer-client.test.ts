import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { type ClientSettings, type Connection, createPeerClient, type PeerError } from '../../src/client/index.ts'
import { type LineBatch, linesBody, mayRetryLater, SynclineError } from '../../src/sync/index.ts'
import { makeCertificates } from '../support/certificates.ts'
import { freePort } from '../support/postgres.ts'
import { startProxy } from '../support/proxy.ts'

const UUID = '11111111-2222-4333-8444-555555555555'
const SITE = { uuid: UUID, name: 'hub', logId: 'abcdefghij', protocols: [1], limits: { batchRowsMax: 500 } }
const BATCH: LineBatch = {
  resource: 'city',
  columns: ['name'],
  refs: {},
  origins: [UUID],
  text: '"a"\t5\t0\t\tp\t["Wien"]',
  count: 1,
  next: { checkpoint: 'Y2hlY2s', more: false },
}
const LINES = linesBody(BATCH).toString()
const REPORT = {
  counts: { applied: 1, known: 0, skipped: 0, merged: 0, conflict: 0, quarantined: 0, refused: 0 },
  rejections: [],
  truncated: false,
}
const SETTINGS: ClientSettings = {
  requestTimeoutMs: 2_000,
  bodyBytesMax: 1_000_000,
  depthMax: 64,
  batchRowsMax: 1000,
  noProxy: [],
  logId: () => 'ownlogidxx',
}

type Server = {
  readonly url: string
  readonly port: number
  readonly requests: IncomingMessage[]
  readonly bodies: Buffer[]
}
type Answer = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void

async function serve(t: Test, answer: Answer, tls?: ServerOptions): Promise<Server> {
  const requests: IncomingMessage[] = []
  const bodies: Buffer[] = []
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      requests.push(request)
      bodies.push(Buffer.concat(chunks))
      answer(request, response, Buffer.concat(chunks))
    })
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { url: `http${tls === undefined ? '' : 's'}://127.0.0.1:${port}`, port, requests, bodies }
}

function client(t: Test, url: string, connection: Partial<Connection> = {}, settings: Partial<ClientSettings> = {}) {
  const none = { token: 'secret', proxy: null, caPem: null, clientCertPem: null, clientKeyPem: null }
  const peer = createPeerClient({ ...none, url, ...connection }, { ...SETTINGS, ...settings })
  t.teardown(() => peer.close())
  return peer
}

const json = (response: ServerResponse, value: unknown, status = 200, headers = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
const lines = (response: ServerResponse, body: string | Buffer = LINES, headers = {}) =>
  response.writeHead(200, { 'content-type': 'application/vnd.syncline.lines', ...headers }).end(body)
const digest = (body: string | Buffer) => `sha-256=:${createHash('sha256').update(body).digest('base64')}:`

async function failure(t: Test, promise: Promise<unknown>): Promise<PeerError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof SynclineError) return error as PeerError
  t.fail(`a SynclineError was expected, not ${String(error)}`)
  throw error
}

t.test('a greeting tells who answers and how far its clock is from ours', async (t) => {
  const server = await serve(t, (_, response) => {
    const resources = [{ name: 'city', pull: true, push: false, fingerprint: 'f' }]
    json(response, { ...SITE, time: new Date(Date.now() + 60_000).toISOString(), resources })
  })
  const site = await client(t, `${server.url}/below/`).greet()
  t.match(site, { uuid: UUID, name: 'hub', logId: 'abcdefghij', limits: { batchRowsMax: 500, bodyBytesMax: null } })
  t.match(site.resources, [{ name: 'city', pull: true, push: false, fingerprint: 'f', terms: null }])
  t.ok(Math.abs(site.clockOffsetMs - 60_000) < 2_000, `${site.clockOffsetMs}`)
  const [request] = server.requests
  t.equal(request?.url, '/below/sync/v1/site')
  t.match(request?.headers, {
    authorization: 'Bearer secret',
    'syncline-log': 'ownlogidxx',
    'accept-encoding': 'identity',
  })
  t.ok(Math.abs(Date.parse(String(request?.headers['syncline-time'])) - Date.now()) < 5_000)
})

t.test('an answer of something else than a site of this protocol is refused in words', async (t) => {
  const answers: unknown[] = [
    { ...SITE, protocols: [2], time: '2026-01-01T00:00:00Z' },
    { ...SITE, time: 'soon' },
    [],
    'hello',
  ]
  const server = await serve(t, (_, response) => json(response, answers.shift()))
  const peer = client(t, server.url)
  for (const words of [/protocol \[2\]/, /time is no time/, /not an object/, /not an object/]) {
    const error = await failure(t, peer.greet())
    t.match(error, { code: 'SYNC_PEER_REFUSED', message: words, retryable: false })
  }
})

t.test('a pull asks for lines with its filter and columns and gives the batch with its checkpoint', async (t) => {
  const server = await serve(t, (_, response) => lines(response))
  const pulled = await client(t, server.url).pull({
    resource: 'city',
    after: 'abc',
    limit: 7,
    filter: "name = 'Ä & B'",
    columns: ['name', 'size'],
  })
  t.same(pulled.batches, [BATCH])
  t.match(pulled, { count: 1, checkpoint: 'Y2hlY2s', more: false, bytes: LINES.length })
  const url = new URL(server.requests[0]?.url ?? '', server.url)
  const query = { resource: 'city', after: 'abc', limit: '7', filter: "name = 'Ä & B'", columns: 'name,size' }
  t.same(Object.fromEntries(url.searchParams), query)
  t.equal(server.requests[0]?.headers.accept, 'application/vnd.syncline.lines, application/x-ndjson;q=0.5')
})

t.test('a peer that speaks only NDJSON is understood', async (t) => {
  const version = { origin: UUID, clock: 5 }
  const body = [
    { id: 'a', version, data: { name: 'Wien' }, refs: { country: { resource: 'country', id: 'AT' } } },
    { id: 'b', version, deleted: true },
    { checkpoint: 'next', more: true, count: 2 },
  ]
  const text = body.map((line) => JSON.stringify(line)).join('\n')
  const server = await serve(t, (_, response) =>
    response.writeHead(200, { 'content-type': 'application/x-ndjson' }).end(text),
  )
  const pulled = await client(t, server.url).pull({ resource: 'city', after: null, refs: { country: 'country' } })
  t.match(pulled, { count: 2, checkpoint: 'next', more: true })
  t.equal(pulled.batches[0]?.text, '"a"\t5\t0\t\tp\t["AT","Wien"]\n"b"\t5\t0\t\td\t')
})

t.test('answers in zstd and gzip are unpacked, and a digest is checked over what travelled', async (t) => {
  const packed = [zstdCompressSync(LINES), gzipSync(LINES), Buffer.from(LINES)]
  const codings = ['zstd', 'gzip', 'identity']
  let at = 0
  const server = await serve(t, (_, response) => {
    const [body, coding] = [packed[at] as Buffer, codings[at++] as string]
    lines(response, body, { 'content-encoding': coding, 'content-digest': digest(body) })
  })
  const peer = client(t, server.url)
  for (const body of packed) {
    const pulled = await peer.pull({ resource: 'city', after: null })
    t.same(pulled.batches, [BATCH])
    t.equal(pulled.bytes, body.length)
  }
})

t.test('a body that was cut or altered counts for nothing', async (t) => {
  const packed = zstdCompressSync(LINES)
  const answers: ((response: ServerResponse) => void)[] = [
    (response) => lines(response, LINES, { 'content-digest': digest(`${LINES} `) }),
    (response) => lines(response, LINES.slice(0, LINES.lastIndexOf('\n'))),
    (response) => lines(response, LINES.replace('"count":1', '"count":2')),
    (response) => lines(response, packed.subarray(0, packed.length - 3), { 'content-encoding': 'zstd' }),
    (response) => lines(response, gzipSync(LINES).subarray(0, 30), { 'content-encoding': 'gzip' }),
    (response) => lines(response, linesBody({ ...BATCH, resource: 'other' }).toString()),
  ]
  const server = await serve(t, (_, response) => answers.shift()?.(response))
  const peer = client(t, server.url)
  while (answers.length > 0) {
    const error = await failure(t, peer.pull({ resource: 'city', after: null }))
    t.equal(error.code, 'SYNC_BATCH_INCOMPLETE', error.message)
  }
})

t.test('a connection that breaks in the middle of an answer is an unreachable peer', async (t) => {
  const server = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-type': 'application/vnd.syncline.lines', 'content-length': LINES.length })
    response.write(LINES.slice(0, 20), () => response.destroy())
  })
  const error = await failure(t, client(t, server.url).pull({ resource: 'city', after: null }))
  t.match(error, { code: 'SYNC_PEER_UNREACHABLE', retryable: true, remote: false })
})

t.test('a body is bounded before and after it is unpacked', async (t) => {
  const bomb = zstdCompressSync(Buffer.alloc(5_000_000, 0x20))
  const bodies: [Buffer, string][] = [
    [bomb, 'zstd'],
    [gzipSync(Buffer.alloc(5_000_000, 0x20)), 'gzip'],
    [Buffer.alloc(1_000_001, 0x20), 'identity'],
  ]
  t.ok(bomb.length < 10_000)
  const server = await serve(t, (_, response) => {
    const [body, coding] = bodies.shift() as [Buffer, string]
    lines(response, body, { 'content-encoding': coding })
  })
  const peer = client(t, server.url)
  while (bodies.length > 0) {
    const error = await failure(t, peer.pull({ resource: 'city', after: null }))
    t.match(error, { code: 'SYNC_REQUEST_TOO_LARGE', message: /bodyBytesMax/ })
  }
})

t.test('a push carries its digest and no checkpoint, and gives the report of the peer', async (t) => {
  const rejections = [{ id: 'b', outcome: 'quarantined', code: 'SYNC_RECORD_CONSTRAINT', reason: 'too long' }]
  const server = await serve(t, (_, response) => json(response, { ...REPORT, rejections }))
  const pushed = await client(t, server.url).push(BATCH)
  t.same(pushed.report, { ...REPORT, rejections })
  const [request] = server.requests
  const body = server.bodies[0] as Buffer
  t.equal(request?.url, '/sync/v1/changes?resource=city')
  t.equal(request?.headers['content-digest'], digest(body))
  t.equal(body.toString(), LINES.replace(',"checkpoint":"Y2hlY2s","more":false', ''))
})

t.test('a large push is compressed for a peer on another machine, a small one and one next door is not', async (t) => {
  const server = await serve(t, (_, response) => json(response, REPORT))
  const text = Array.from({ length: 400 }, (_, n) => `"${n}"\t5\t0\t\tp\t["Wien"]`).join('\n')
  const large = { ...BATCH, text, count: 400 }
  await client(t, server.url).push(large)
  const proxy = await startProxy(t, 'user', 'word')
  // Through a proxy a peer is not next door, whatever its address says.
  const credentials = { username: 'user', password: 'word' }
  const far = client(t, server.url, { proxy: { url: `http://127.0.0.1:${proxy.port}`, credentials } })
  await far.push(large)
  await far.push(BATCH)
  t.same(
    server.requests.map((request) => request.headers['content-encoding']),
    [undefined, 'zstd', undefined],
  )
  const packed = server.bodies[1] as Buffer
  t.equal(zstdDecompressSync(packed).toString(), (server.bodies[0] as Buffer).toString())
  t.equal(server.requests[1]?.headers['content-digest'], digest(packed))
  t.equal(server.requests[1]?.headers['accept-encoding'], 'zstd, gzip')
})

t.test('an acknowledgement, a digest and a pairing go where the wire has them', async (t) => {
  const server = await serve(t, (request, response) =>
    request.method === 'PUT' ? response.writeHead(204).end() : json(response, { fine: true }),
  )
  const peer = client(t, server.url)
  await peer.ack('my city', 'abc')
  t.same(await peer.digests('my city', { buckets: '2', from: undefined }), { fine: true })
  t.same(await peer.pair({ secret: 'x' }), { fine: true })
  t.same(
    server.requests.map(({ method, url }) => `${method} ${url}`),
    ['PUT /sync/v1/checkpoints/my%20city', 'GET /sync/v1/digests/my%20city?buckets=2', 'POST /sync/v1/pairings'],
  )
  t.same(server.bodies.map(String), ['{"checkpoint":"abc"}', '', '{"secret":"x"}'])
})

t.test('a problem document comes back as an error in the words of the peer', async (t) => {
  const problem = (code: string, retry: string) => ({
    type: `urn:x:${code}`,
    title: 'Title',
    detail: 'why',
    code,
    retry,
  })
  type Case = [status: number, code: string, retry: string, expected: object]
  const cases: Case[] = [
    [
      403,
      'SYNC_AUTH_FORBIDDEN',
      'after-fix',
      { code: 'SYNC_PEER_REFUSED', peerCode: 'SYNC_AUTH_FORBIDDEN', retryable: false },
    ],
    [409, 'SYNC_CHECKPOINT_GONE', 'after-fix', { code: 'SYNC_CHECKPOINT_GONE' }],
    [401, 'SYNC_AUTH_MISSING', 'after-fix', { code: 'SYNC_AUTH_MISSING', retryable: false }],
    [429, 'SYNC_REQUEST_TOO_MANY', 'later', { code: 'SYNC_REQUEST_TOO_MANY', retryable: true, retryAfterMs: 7_000 }],
    [409, 'SYNC_STORE_BUSY', 'later', { code: 'SYNC_PEER_REFUSED', peerCode: 'SYNC_STORE_BUSY', retryable: true }],
    [503, 'SYNC_STORE_UNAVAILABLE', 'later', { code: 'SYNC_PEER_UNREACHABLE', retryable: true, retryAfterMs: 7_000 }],
    [
      400,
      'SYNC_SOMETHING_NEW',
      'never',
      { code: 'SYNC_PEER_REFUSED', peerCode: 'SYNC_SOMETHING_NEW', retryable: false },
    ],
  ]
  let at = 0
  const server = await serve(t, (_, response) => {
    const [status, code, retry] = cases[at++] as Case
    const headers = { 'content-type': 'application/problem+json', ...(retry === 'later' && { 'retry-after': '7' }) }
    response.writeHead(status, headers).end(JSON.stringify(problem(code, retry)))
  })
  const peer = client(t, server.url)
  for (const [status, , , expected] of cases) {
    const error = await failure(t, peer.greet())
    t.match(error, { ...expected, status, remote: true, message: /Title: why/ })
  }
})

t.test('an answer without a problem document is told by its status', async (t) => {
  const answers: ((response: ServerResponse) => void)[] = [
    (response) => response.writeHead(502).end('<html>bad gateway</html>'),
    (response) => response.writeHead(302, { location: 'https://else.where/' }).end(),
    (response) => response.writeHead(404, { 'content-type': 'application/json' }).end('{'),
  ]
  const server = await serve(t, (_, response) => answers.shift()?.(response))
  const peer = client(t, server.url)
  t.match(await failure(t, peer.greet()), { code: 'SYNC_PEER_UNREACHABLE', message: /502/, retryable: true })
  t.match(await failure(t, peer.greet()), {
    code: 'SYNC_PEER_REFUSED',
    message: /sends to https:\/\/else\.where\//,
    retryable: false,
  })
  t.match(await failure(t, peer.greet()), { code: 'SYNC_PEER_REFUSED', message: /404/, retryable: false })
})

t.test('an answer that was cut without a sign of it is asked for again, wherever it was cut', async (t) => {
  const ndjson = `{"id":"a","data":{"name":"Wien"}}\n{"checkpoint":"Y2hlY2s","more":false,"count":1}\n`
  const site = JSON.stringify(SITE)
  let [type, body] = ['', '']
  const server = await serve(t, (_, response) => response.writeHead(200, { 'content-type': type }).end(body))
  const peer = client(t, server.url)
  const cases: readonly (readonly [string, string, () => Promise<unknown>])[] = [
    ['application/vnd.syncline.lines', LINES, () => peer.pull({ resource: 'city', after: null })],
    ['application/x-ndjson', ndjson, () => peer.pull({ resource: 'city', after: null })],
    ['application/json', site, () => peer.greet()],
    ['application/json; charset=utf-8', JSON.stringify(REPORT), () => peer.push(BATCH)],
  ]
  for (const [media, whole, ask] of cases) {
    type = media
    const seen = new Set<string>()
    for (let length = 0; length < whole.trimEnd().length; length++) {
      body = whole.slice(0, length)
      const error = await failure(t, ask())
      seen.add(error.code)
      t.equal(error.retryable ?? mayRetryLater(error.code), true, `cut to ${length}`)
    }
    t.same([...seen], ['SYNC_BATCH_INCOMPLETE'], media)
  }
  type = 'text/html'
  body = '<html>please log in</html>'
  t.match(
    await failure(t, peer.greet()),
    { code: 'SYNC_PEER_REFUSED', retryable: false },
    'what is no JSON at all is another matter',
  )
})

t.test('nobody there, an unknown host and a silent peer are told apart', async (t) => {
  const nobody = client(t, `http://127.0.0.1:${await freePort()}`)
  t.match(await failure(t, nobody.greet()), { code: 'SYNC_PEER_UNREACHABLE', message: /ECONNREFUSED/, retryable: true })
  const unknown = client(t, 'http://nowhere.invalid')
  t.match(await failure(t, unknown.greet()), { code: 'SYNC_PEER_UNREACHABLE', message: /ENOTFOUND|EAI_AGAIN/ })
  const server = await serve(t, () => {})
  const silent = client(t, server.url, {}, { requestTimeoutMs: 150 })
  t.match(await failure(t, silent.greet()), { code: 'SYNC_PEER_UNREACHABLE', message: /no complete answer in time/ })
})

t.test('an abort gives its own reason, not an error of the peer', async (t) => {
  const server = await serve(t, () => {})
  const abort = new AbortController()
  const waiting = client(t, server.url).pull({ resource: 'city', after: null, signal: abort.signal })
  const reason = new Error('the site stops')
  setTimeout(() => abort.abort(reason), 50)
  await t.rejects(waiting, reason)
})

t.test('a proxy with authentication carries http and https, and only for whom it is meant', async (t) => {
  const proxy = await startProxy(t, 'us@er', 'p:w/d')
  const tls = makeCertificates(t)
  const answer: Answer = (_, response) => json(response, { ...SITE, time: new Date().toISOString() })
  const plain = await serve(t, answer)
  const secure = await serve(t, answer, { cert: tls.server.cert, key: tls.server.key })
  const url = `http://127.0.0.1:${proxy.port}`
  const credentials = { username: 'us@er', password: 'p:w/d' }

  for (const server of [plain, secure]) {
    t.equal((await client(t, server.url, { proxy: { url, credentials }, caPem: tls.ca }).greet()).uuid, UUID)
  }
  const global = { proxy: `http://us%40er:p%3Aw%2Fd@127.0.0.1:${proxy.port}` }
  t.equal((await client(t, secure.url, { caPem: tls.ca }, global).greet()).uuid, UUID)
  t.same(proxy.seen, [
    `GET ${plain.url}/sync/v1/site`,
    `CONNECT 127.0.0.1:${secure.port}`,
    `CONNECT 127.0.0.1:${secure.port}`,
  ])

  for (const server of [plain, secure]) {
    const wrong = { url, credentials: { username: 'us@er', password: 'no' } }
    const error = await failure(t, client(t, server.url, { proxy: wrong, caPem: tls.ca }).greet())
    t.match(error, { code: 'SYNC_PEER_UNREACHABLE', message: /proxy wants other credentials \(407\)/ })
  }
  const direct = { ...global, noProxy: ['example.org', '127.0.0.1'] }
  t.equal((await client(t, plain.url, {}, direct).greet()).uuid, UUID)
  t.equal(proxy.seen.length, 3, 'NO_PROXY goes around the proxy of the site')
  t.equal((await client(t, plain.url, { proxy: { url, credentials } }, direct).greet()).uuid, UUID)
  t.equal(proxy.seen.length, 4, 'but not around the proxy of the peer')
  const dead = { url: `http://127.0.0.1:${await freePort()}`, credentials: null }
  t.match(await failure(t, client(t, plain.url, { proxy: dead }).greet()), { message: /ECONNREFUSED/ })
})

t.test('a private authority and a client certificate open a peer that is closed to others', async (t) => {
  const tls = makeCertificates(t)
  const answer: Answer = (_, response) => json(response, { ...SITE, time: new Date().toISOString() })
  const options = {
    cert: tls.server.cert,
    key: tls.server.key,
    ca: tls.ca,
    requestCert: true,
    rejectUnauthorized: true,
  }
  const server = await serve(t, answer, options)
  const own = { clientCertPem: tls.client.cert, clientKeyPem: tls.client.key }

  t.equal((await client(t, server.url, { caPem: tls.ca, ...own }).greet()).uuid, UUID)
  t.equal((await client(t, server.url, own, { caPem: tls.ca }).greet()).uuid, UUID, 'the authority of the site')
  const stranger = await failure(t, client(t, server.url, own).greet())
  t.match(stranger, { code: 'SYNC_PEER_UNREACHABLE', message: /certificate: .*(self-signed|issuer|verify)/ })
  const closed = await failure(t, client(t, server.url, { caPem: tls.ca }).greet())
  t.match(closed, { code: 'SYNC_PEER_UNREACHABLE', message: /certificate/ })
  const other = await failure(
    t,
    client(t, server.url.replace('127.0.0.1', '127.0.0.2'), { caPem: tls.ca, ...own }).greet(),
  )
  t.match(other.message, /ECONNREFUSED|certificate/)
})

t.test('events are read as they come until the signal ends them', async (t) => {
  const server = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(': open\n\nevent: changes\ndata: {"resource"')
    setTimeout(() => response.write(':"city"}\n\n'), 20)
  })
  const abort = new AbortController()
  const seen: string[] = []
  const reading = async () => {
    for await (const data of client(t, server.url).events(abort.signal)) {
      seen.push(data)
      if (seen.length === 2) abort.abort(new Error('enough'))
    }
  }
  await t.rejects(reading(), { message: 'enough' })
  t.same(seen, ['', '{"resource":"city"}'])
})
