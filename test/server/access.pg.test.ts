import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { issueToken, pausePeer, readSelf, resumePeer, setGrant } from '../../src/store/index.ts'
import { siteFactory } from '../support/sites.ts'
import { addPeer, basic, LIMITS, type Served, serve } from './served.ts'

const sites = await siteFactory(t)
const site = await sites.make('hub', 'create table city (id text primary key, name text, secret text)', ['city'])
const hub = await serve(t, site)
const field = await addPeer(hub, { name: 'field', uuid: randomUUID() }, ['city'])
const { administrator, operator, viewer } = hub.tokens

/** The least role for every operation. An operation that is added must be added here: nobody gets access by mistake. */
const LEAST: Readonly<Record<string, 'public' | 'local' | 'peer' | 'viewer' | 'operator' | 'administrator'>> = {
  showHome: 'public',
  readDocument: 'public',
  isLive: 'public',
  isReady: 'local',
  readHealth: 'local',
  readMetrics: 'local',
  redeemPairingCode: 'public',
  greetSite: 'peer',
  pullChanges: 'peer',
  pushChanges: 'peer',
  acknowledgeChanges: 'peer',
  readCheckpoint: 'peer',
  readSchema: 'peer',
  tellSchema: 'peer',
  explainRecord: 'viewer',
  undoRun: 'operator',
  compareDigests: 'peer',
  compareTotals: 'peer',
  adoptRecords: 'peer',
  listenForChanges: 'peer',
  tellWaiting: 'peer',
  readSite: 'viewer',
  renameSite: 'administrator',
  listPeers: 'viewer',
  addPeer: 'administrator',
  joinPeer: 'administrator',
  addEdenPeer: 'administrator',
  createResourcesFromEden: 'administrator',
  addFolderPeer: 'administrator',
  readFolder: 'viewer',
  changeFolder: 'administrator',
  listFolderFiles: 'viewer',
  dumpFolder: 'operator',
  testPeer: 'operator',
  registerAsEden: 'peer',
  pullAsEden: 'peer',
  pushAsEden: 'peer',
  exportAsEden: 'peer',
  importAsEden: 'peer',
  describeAsEden: 'peer',
  pushTableAsEden: 'peer',
  readEdenDatasets: 'public',
  readEdenTasks: 'public',
  readEdenFilters: 'public',
  downloadEdenArchive: 'public',
  listDatasets: 'viewer',
  createDataset: 'administrator',
  removeDataset: 'administrator',
  archiveDataset: 'operator',
  followDataset: 'administrator',
  readPeer: 'viewer',
  changePeer: 'administrator',
  removePeer: 'administrator',
  pausePeer: 'operator',
  resumePeer: 'operator',
  rotatePeerToken: 'administrator',
  verifyPeer: 'operator',
  listAgreements: 'viewer',
  listGrants: 'viewer',
  setGrant: 'administrator',
  removeGrant: 'administrator',
  listInvitations: 'viewer',
  invitePeer: 'administrator',
  withdrawInvitation: 'administrator',
  listResources: 'viewer',
  attachResources: 'administrator',
  createResource: 'administrator',
  readResource: 'viewer',
  detachResource: 'administrator',
  checkResource: 'viewer',
  checkResources: 'viewer',
  readOperation: 'viewer',
  listRecords: 'viewer',
  importRecords: 'operator',
  readRecord: 'viewer',
  writeRecord: 'operator',
  deleteRecord: 'operator',
  listRecordHistory: 'viewer',
  listTasks: 'viewer',
  addTask: 'administrator',
  readTask: 'viewer',
  changeTask: 'administrator',
  removeTask: 'administrator',
  listSchedules: 'viewer',
  syncNow: 'operator',
  previewSync: 'operator',
  previewTask: 'operator',
  listBrakes: 'viewer',
  readBrake: 'viewer',
  releaseBrake: 'operator',
  listRuns: 'viewer',
  readRun: 'viewer',
  listLog: 'viewer',
  listConflicts: 'viewer',
  readConflict: 'viewer',
  resolveConflict: 'operator',
  resolveConflicts: 'operator',
  listQuarantine: 'viewer',
  readQuarantineEntry: 'viewer',
  retryQuarantineEntry: 'operator',
  discardQuarantineEntry: 'operator',
  listAlarms: 'viewer',
  listenForEvents: 'viewer',
  listTrustedHosts: 'viewer',
  scanHost: 'administrator',
  trustHost: 'administrator',
  forgetHost: 'administrator',
  lookAtLease: 'peer',
  takeLease: 'peer',
  renewLease: 'peer',
  giveLeaseBack: 'peer',
  listJobs: 'viewer',
  readJobSchema: 'viewer',
  compareJobs: 'operator',
  applyJobs: 'administrator',
  readJob: 'viewer',
  putJob: 'administrator',
  removeJob: 'administrator',
  planJob: 'operator',
  runJob: 'operator',
  stopJob: 'operator',
  listJobRuns: 'viewer',
  readJobRun: 'viewer',
  listJobSteps: 'viewer',
  dismissJobRun: 'operator',
  listLeases: 'viewer',
  releaseLease: 'operator',
  listTokens: 'administrator',
  issueToken: 'administrator',
  revokeToken: 'administrator',
  listSettings: 'viewer',
  readSetting: 'viewer',
  writeSetting: 'administrator',
  clearSetting: 'administrator',
}
const RANK = { viewer: 1, operator: 2, administrator: 3 }
const CALLERS = {
  nobody: undefined,
  peer: field.token,
  viewer,
  operator,
  administrator,
  unknown: `syncline_a_${'x'.repeat(43)}`,
}

/** What a caller is answered before anything else of the request is looked at; undefined where it is let in. */
function refusal(caller: string, least: string): number | undefined {
  if (least === 'public' || least === 'local') return undefined
  if (caller === 'nobody' || caller === 'unknown') return 401
  if (least === 'peer') return caller === 'peer' ? undefined : 403
  if (caller === 'peer') return 403
  return RANK[caller as 'viewer'] >= RANK[least as 'viewer'] ? undefined : 403
}

/** A request that is let in but can do nothing: whatever it names is not there. */
function questions(served: Served): readonly { readonly id: string; readonly question: string }[] {
  const { paths } = served.app.swagger() as unknown as {
    paths: Record<string, Record<string, { operationId: string }>>
  }
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { operationId: id }]) => {
      const url = path.replace(/\{(\w+)\}/g, (_, name) =>
        name === 'direction'
          ? 'pull'
          : ['resource', 'peer', 'invitation', 'setting'].includes(name)
            ? 'nothing'
            : '987654321',
      )
      return { id, question: `${method.toUpperCase()} ${url}` }
    }),
  )
}

t.test('every operation lets in whom its role permits, and nobody else', async (t) => {
  const endless = ['listenForChanges', 'listenForEvents']
  const all = questions(hub).filter(({ id }) => !endless.includes(id))
  t.same([...all.map(({ id }) => id), ...endless].sort(), Object.keys(LEAST).sort(), 'the table is complete')
  for (const { id, question } of all) {
    for (const [caller, token] of Object.entries(CALLERS)) {
      const expected = refusal(caller, LEAST[id] ?? '')
      const { status, json } = await hub.ask(t, question, token === undefined ? {} : { token })
      const refused =
        (status === 401 || status === 403) && !(id === 'redeemPairingCode') && !/may not/.test(json?.detail ?? '')
      t.equal(refused ? status : undefined, expected, `${id} by ${caller}: ${status}`)
    }
  }
})

t.test('a refused request says how to show a token, tells nothing about the token, and is an event', async (t) => {
  const nobody = await hub.ask(t, 'GET /sync/v1/site')
  t.match(nobody.headers['www-authenticate'], /^Bearer realm="syncline".*, Basic realm="syncline"/)
  t.match(nobody.json, { code: 'SYNC_AUTH_MISSING', status: 401, mend: /Bearer/ })
  t.notMatch((await hub.ask(t, 'GET /api/v1/site')).headers['www-authenticate'], /Basic/)
  const { token: expired, id } = await issueToken(site.store.db, {
    name: 'old',
    role: 'viewer',
    expiresAt: new Date(Date.now() + 60_000).toISOString(),
  })
  await site.sql("update syncline.token set expires_at = now() - interval '1 second' where id = $1", [id])
  const answers = await Promise.all(
    [expired, `syncline_v_${'y'.repeat(43)}`, 'x', '%00'].map((token) => hub.ask(t, 'GET /api/v1/site', { token })),
  )
  t.equal(
    new Set(answers.map(({ json }) => JSON.stringify({ ...json, instance: '' }))).size,
    1,
    'expired, unknown and malformed are told alike',
  )
  t.ok(
    hub.lines.some(
      (line) => line.event === 'auth.refused' && line.reason === 'unknown' && line.address === '127.0.0.1',
    ),
  )
  t.notMatch(JSON.stringify(hub.lines), new RegExp(expired))
  const small = await hub.ask(t, 'POST /api/v1/sync', { token: viewer, body: {} })
  t.match(small.json, { code: 'SYNC_AUTH_FORBIDDEN', detail: /role operator.*"the viewer" has the role viewer/ })
})

t.test('a peer may show its token as the password of Basic, beside its own name only', async (t) => {
  const other = await addPeer(hub, { name: 'other', uuid: randomUUID() }, ['city'])
  const as = (authorization: string) => hub.ask(t, 'GET /sync/v1/site', { headers: { authorization } })
  t.equal((await as(basic('field', field.token))).status, 200)
  t.equal((await as(basic('field', field.token).replace('Basic', 'basic'))).status, 200)
  t.equal((await as(basic('other', field.token))).status, 401, "another peer's name")
  t.equal((await as(basic('field', other.token))).status, 401, "another peer's token")
  t.equal((await as(basic('', field.token))).status, 401)
  t.equal((await as('Basic %%%')).status, 401)
  t.equal((await as('Digest x')).status, 401)
  t.equal(
    (await hub.ask(t, 'GET /api/v1/site', { headers: { authorization: basic('x', administrator) } })).status,
    401,
    'people show theirs as Bearer',
  )
})

t.test('a paused peer is told so, and let in again when it is resumed', async (t) => {
  await pausePeer(site.store.db, field.peer.id)
  t.match(await hub.ask(t, 'GET /sync/v1/changes?resource=city', { token: field.token }), {
    status: 409,
    json: { code: 'SYNC_PEER_PAUSED', retry: 'after-fix' },
  })
  await resumePeer(site.store.db, field.peer.id)
  t.equal((await hub.ask(t, 'GET /sync/v1/changes?resource=city', { token: field.token })).status, 200)
})

t.test(
  'a peer does nothing with a resource that it was not granted, and does not learn whether it is there',
  async (t) => {
    const stranger = await addPeer(hub, { name: 'stranger', uuid: randomUUID() })
    const answers = async (resource: string) => [
      await hub.ask(t, `GET /sync/v1/changes?resource=${resource}`, { token: stranger.token }),
      await hub.ask(t, `POST /sync/v1/changes?resource=${resource}`, {
        token: stranger.token,
        body: { changes: [{ id: 'x', data: { name: 'y' } }] },
      }),
      await hub.ask(t, `GET /sync/v1/checkpoints/${resource}`, { token: stranger.token }),
      await hub.ask(t, `PUT /sync/v1/checkpoints/${resource}`, { token: stranger.token, body: { checkpoint: 'x' } }),
      await hub.ask(t, `GET /sync/v1/digests/${resource}`, { token: stranger.token }),
    ]
    const [there, absent] = [await answers('city'), await answers('town')]
    for (const [n, answer] of there.entries()) {
      t.match(answer, { status: 403, json: { code: 'SYNC_AUTH_FORBIDDEN' } }, `request ${n}`)
      t.equal(answer.json.detail.replaceAll('city', 'town'), absent[n]?.json.detail, `request ${n} is answered alike`)
    }
    t.same((await hub.ask(t, 'GET /sync/v1/site', { token: stranger.token })).json.resources, [])
    t.same(await site.sql('select from city'), [])
  },
)

t.test('within a grant only its columns and records are read and written', async (t) => {
  const partial = await addPeer(hub, { name: 'partial', uuid: randomUUID() })
  const grant = { peerId: partial.peer.id, resource: 'city', filter: "name like 'A%'", columns: ['name'] }
  for (const direction of ['pull', 'push']) await setGrant(site.store.db, { ...grant, direction })
  await site.sql("insert into city values ('1', 'Aachen', 's1'), ('2', 'Bonn', 's2')")
  const pull = (query = '') => hub.ask(t, `GET /sync/v1/changes?resource=city${query}`, { token: partial.token })
  t.notMatch((await pull()).text, /Bonn|s1|secret/)
  t.match(await pull('&columns=secret'), { status: 403, json: { detail: /secret/ } })
  t.match(
    await pull(`&filter=${encodeURIComponent("secret = 's1'")}`),
    { status: 403 },
    'a filter would tell its values one question at a time',
  )
  t.match(
    await hub.ask(t, `GET /sync/v1/digests/city?filter=${encodeURIComponent("secret = 's1'")}`, {
      token: partial.token,
    }),
    { status: 403 },
  )
  const push = async (id: string, data: object) =>
    (
      await hub.ask(t, 'POST /sync/v1/changes?resource=city', {
        token: partial.token,
        body: { changes: [{ id, data }] },
      })
    ).json
  const outside = {
    counts: { refused: 1, applied: 0 },
    rejections: [{ outcome: 'refused', code: 'SYNC_RECORD_OUTSIDE_GRANT' }],
  }
  t.match(await push('3', { name: 'Chemnitz' }), outside)
  t.match(await push('2', { name: 'Aalen' }), outside, 'a record that is not in the filter cannot be drawn into it')
  t.match(await push('1', { name: 'Zwickau' }), outside, 'nor one out of it')
  t.match(await push('1', { secret: 'changed' }), outside)
  t.equal((await push('1', { name: 'Aalen' })).counts.applied, 1)
  t.same(await site.sql('select * from city order by id'), [
    { id: '1', name: 'Aalen', secret: 's1' },
    { id: '2', name: 'Bonn', secret: 's2' },
  ])
})

t.test(
  'numbers of the site are shown to this machine and to viewers, but not to what a proxy on this machine passes on',
  async (t) => {
    const from = (t: Test, headers: Record<string, string>, token?: string) =>
      hub.ask(t, 'GET /metrics', { headers, ...(token !== undefined && { token }) })
    t.equal((await from(t, {})).status, 200)
    for (const header of ['x-forwarded-for', 'forwarded', 'via', 'x-real-ip'])
      t.equal((await from(t, { [header]: '203.0.113.9' })).status, 401, header)
    t.equal((await from(t, { 'x-forwarded-for': '203.0.113.9' }, viewer)).status, 200)
    t.equal((await from(t, { 'x-forwarded-for': '203.0.113.9' }, field.token)).status, 403)
  },
)

t.test('a peer that was restored says so with its new log, and is owed everything again', async (t) => {
  const restored = await addPeer(hub, { name: 'restored', uuid: randomUUID() }, ['city'])
  const ask = (log: string) =>
    hub.ask(t, 'GET /sync/v1/changes?resource=city', {
      token: restored.token,
      headers: { 'syncline-log': log, 'syncline-time': new Date(Date.now() - 3_600_000).toISOString() },
    })
  await hub.ask(t, 'POST /sync/v1/changes?resource=city', {
    token: restored.token,
    body: { changes: [{ id: 'mine', data: { name: 'M' } }] },
  })
  t.notMatch((await ask('firstlog22')).text, /"mine"/, 'what it gave is not sent back')
  t.match((await ask('secondlog2')).text, /"mine"/, 'what it lost is')
  t.notMatch((await ask('SECOND/../x')).text, /problem/)
  const [row] = await site.sql("select log_id, clock_offset_ms from syncline.peer where name = 'restored'")
  t.match(row, { log_id: 'secondlog2' })
  t.ok(Math.abs(Number(row?.clock_offset_ms) + 3_600_000) < 60_000)
  t.ok(hub.lines.some((line) => line.event === 'clock.far' && line.peer === 'restored'))
  t.ok(await readSelf(site.store.db))
})

t.test('too many refused credentials from one address are sent away, while a good token still passes', async (t) => {
  const strict = await serve(t, site, { limits: { ...LIMITS, refusalsPerMinuteMax: 3 } })
  const bad = () => strict.ask(t, 'GET /api/v1/site', { token: 'guess' })
  t.same([(await bad()).status, (await bad()).status, (await bad()).status], [401, 401, 401])
  const sent = await bad()
  t.match(sent, {
    status: 429,
    json: { code: 'SYNC_REQUEST_TOO_MANY', retry: 'later' },
    headers: { 'retry-after': /^\d+$/ },
  })
  t.equal((await strict.ask(t, 'GET /api/v1/site', { token: viewer })).status, 200)
  const secrets = { uuid: randomUUID(), name: 'x', nonce: 'n'.repeat(22) }
  t.equal(
    (await strict.ask(t, 'POST /sync/v1/pairings', { body: { ...secrets, secret: 'guess' } })).status,
    429,
    'guessing pairing codes counts too',
  )
})

t.test('one token that asks without end is slowed down, and others are not', async (t) => {
  const slow = await serve(t, site, { limits: { ...LIMITS, requestsPerMinuteMax: 5 } })
  const ask = (token?: string) => slow.ask(t, 'GET /api/v1/tasks', token === undefined ? {} : { token })
  for (let n = 0; n < 5; n++) t.equal((await ask(viewer)).status, 200)
  t.match(await ask(viewer), {
    status: 429,
    json: { code: 'SYNC_REQUEST_TOO_MANY' },
    headers: { 'retry-after': /^\d+$/ },
  })
  t.equal((await ask(operator)).status, 200)
  for (let n = 0; n < 6; n++) await slow.ask(t, 'GET /nothing/at/all')
  t.equal((await slow.ask(t, 'GET /nothing/at/all')).status, 429, 'addresses that do not exist count too')
})
