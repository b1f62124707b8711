import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ensureSelf, migrate, openStore } from '../../src/store/index.ts'
import type { Site } from '../support/sites.ts'
import { addPeer, serve } from './served.ts'

/** The embedded database has one connection: a request that asked it inside a transaction would never be answered. */
const dataDir = await mkdtemp(join(tmpdir(), 'syncline-server-'))
const store = await openStore({ dataDir })
t.teardown(async () => {
  await store.close()
  await rm(dataDir, { recursive: true, force: true })
})
await migrate(store)
const key = randomBytes(32)
const self = await ensureSelf(store.db, { name: 'laptop', key })
const site: Site = {
  ...{ name: 'laptop', url: '', store, self, key, peers: new Map() },
  sql: async () => [],
  connect: () => Promise.reject(new Error('there is one connection')),
}

t.test('a site on the embedded database serves many requests at once, and none of them waits for itself', async (t) => {
  const hub = await serve(t, site)
  const { administrator: token } = hub.tokens
  const country = {
    name: 'country',
    schema: { type: 'object', properties: { id: { type: 'string' }, name: { type: 'string' } }, required: ['name'] },
  }
  t.equal((await hub.ask(t, 'POST /api/v1/resources/managed', { token, body: country })).status, 201)
  const field = await addPeer(hub, { name: 'field', uuid: randomUUID() }, ['country'])
  const csv = `id,name\n${Array.from({ length: 500 }, (_, n) => `c${n},Country ${n}`).join('\n')}\n`
  const loaded = await hub.ask(t, 'POST /api/v1/records/country', {
    token,
    body: csv,
    headers: { 'content-type': 'text/csv' },
  })
  t.equal(loaded.json.counts.applied, 500)
  const push = (n: number) =>
    hub.ask(t, 'POST /sync/v1/changes?resource=country', {
      token: field.token,
      body: { changes: [{ id: `p${n}`, data: { name: `P${n}` } }] },
    })
  const answers = await Promise.all([
    ...Array.from({ length: 8 }, (_, n) => push(n)),
    ...[
      '/api/v1/site',
      '/health/ready',
      '/api/v1/log',
      '/api/v1/records/country?all=true',
      '/api/v1/checks',
      '/api/v1/runs',
    ].map((path) => hub.ask(t, `GET ${path}`, { token })),
    hub.ask(t, 'GET /sync/v1/changes?resource=country&wait=1', { token: field.token }),
    hub.ask(t, 'GET /sync/v1/digests/country?buckets=8', { token: field.token }),
    hub.ask(t, 'POST /api/v1/invitations', { token, body: { name: 'other', pull: ['country'] } }),
  ])
  t.same([...new Set(answers.map(({ status }) => status))].sort(), [200, 201])
  t.match((await hub.ask(t, 'GET /api/v1/site', { token })).json.database, { kind: 'embedded', version: /^\d+/ })
  const after = await hub.ask(t, 'GET /sync/v1/changes?resource=country', {
    token: field.token,
    headers: { accept: 'application/json' },
  })
  t.equal(after.json.changes.length, 500)
})
