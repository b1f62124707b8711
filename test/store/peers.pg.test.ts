import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import t from 'tap'
import {
  createPeer,
  ensureSelf,
  everyItem,
  findPeer,
  listPeers,
  type NewPeer,
  notePeerFailure,
  notePeerSeen,
  notePeerSuccess,
  originsOf,
  pausePeer,
  peerConnection,
  peerLogChanged,
  removePeer,
  resumePeer,
  updatePeer,
} from '../../src/store/index.ts'
import { addRecord, addResource, bothStores, checkpoint, checkpoints, records, refused, warm } from './both-stores.ts'
import { CLIENT_CERTIFICATE, CLIENT_KEY } from './certificate.ts'

const { all } = await bothStores(t)
const key = randomBytes(32)

const aPeer = (name: string, more: Partial<NewPeer> = {}): NewPeer => ({ name, uuid: randomUUID(), ...more })

for (const ground of all) {
  t.test(`peers, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const self = await ensureSelf(db, { name: 'field', key })

    t.test('a peer is found by name, UUID and id', async (t) => {
      const made = await createPeer(db, key, aPeer('hub', { url: 'https://hub.example/sync/', logId: 'abc' }))
      t.match(made, { name: 'hub', kind: 'syncline', url: 'https://hub.example/sync', hasToken: false, paused: false })
      t.match(made, { logId: 'abc', revision: 1, failures: 0, lastSeenAt: null })
      t.same(await originsOf(db, [made.siteId]), [made.uuid])
      for (const ref of ['hub', made.uuid, made.uuid.toUpperCase(), made.id, String(made.id)]) {
        t.same(await findPeer(db, ref), made)
      }
      for (const ref of ['nobody', randomUUID(), 4711, '99999999999999999999', '']) {
        await t.rejects(findPeer(db, ref), { code: 'SYNC_REQUEST_NOT_FOUND' }, String(ref))
      }
    })

    t.test('a name or a UUID is given once, and never this site’s own UUID', async (t) => {
      const made = await createPeer(db, key, aPeer('north'))
      await refused(t, 'SYNC_REQUEST_EXISTS', /north/, [
        () => createPeer(db, key, aPeer('north')),
        () => createPeer(db, key, aPeer('other', { uuid: made.uuid })),
      ])
      const south = await createPeer(db, key, aPeer('south'))
      await refused(t, 'SYNC_REQUEST_EXISTS', /name/, [() => updatePeer(db, key, south.id, { name: 'north' })])
      await refused(t, 'SYNC_REQUEST_INVALID', /itself/, [() => createPeer(db, key, aPeer('me', { uuid: self.uuid }))])
    })

    t.test('a change for another revision than the one there is refused, and changes nothing', async (t) => {
      const made = await createPeer(db, key, aPeer('east'))
      const renamed = await updatePeer(db, key, made.id, { name: 'east-2', url: 'http://10.0.0.1:8420' }, 1)
      t.match(renamed, { name: 'east-2', url: 'http://10.0.0.1:8420', revision: 2 })
      await refused(t, 'SYNC_REQUEST_CHANGED', /revision 2.*revision 1/, [
        () => updatePeer(db, key, made.id, { name: 'east-3' }, 1),
        () => pausePeer(db, made.id, 1),
        () => removePeer(db, made.id, 1),
      ])
      t.same(await findPeer(db, made.id), renamed)
      await removePeer(db, made.id, 2)
      await refused(t, 'SYNC_REQUEST_NOT_FOUND', /no peer/, [
        () => findPeer(db, made.id),
        () => removePeer(db, made.id),
        () => updatePeer(db, key, made.id, {}),
        () => peerConnection(db, key, made.id),
        () => notePeerSeen(db, made.id, {}),
        () => notePeerFailure(db, made.id, null),
        () => peerLogChanged(db, made.id, 'x'),
      ])
    })

    t.test('of several changes for one revision exactly one is made', async (t) => {
      const made = await createPeer(db, key, aPeer('west'))
      const stores = await warm(await Promise.all(Array.from({ length: 4 }, () => ground.another(store))))
      for (let revision = 1; revision <= 5; revision++) {
        const attempts = stores.map((each, n) => updatePeer(each.db, key, made.id, { name: `west-${n}` }, revision))
        const results = await Promise.allSettled(attempts)
        const codes = results.map((result) => (result.status === 'rejected' ? result.reason.code : 'made'))
        t.same(codes.sort(), ['SYNC_REQUEST_CHANGED', 'SYNC_REQUEST_CHANGED', 'SYNC_REQUEST_CHANGED', 'made'])
        t.equal((await findPeer(db, made.id)).revision, revision + 1)
      }
    })

    t.test('secrets are kept sealed and come back only for the connection', async (t) => {
      const made = await createPeer(
        db,
        key,
        aPeer('sealed', {
          url: 'https://sealed.example',
          token: 'syncline_p_secret-one',
          proxyUrl: 'http://carol:pass%20word@proxy.example:3128/',
          caPem: CLIENT_CERTIFICATE,
          clientCertPem: CLIENT_CERTIFICATE,
          clientKeyPem: CLIENT_KEY,
        }),
      )
      t.match(made, {
        hasToken: true,
        proxyUrl: 'http://proxy.example:3128',
        hasProxyCredentials: true,
        hasClientKey: true,
      })
      const { rows } = await sql<{ text: string }>`
        select p::text || encode(token, 'escape') || encode(proxy_secret, 'escape') || encode(client_key, 'escape') as text
          from syncline.peer p where id = ${made.id}`.execute(db)
      for (const shown of [rows[0]?.text ?? '', JSON.stringify(made)]) {
        t.notMatch(shown, /secret-one|pass word|pass%20word|carol|PRIVATE KEY/)
      }
      t.match(rows[0]?.text, /BEGIN CERTIFICATE/)
      t.same(await peerConnection(db, key, made.id), {
        url: 'https://sealed.example',
        token: 'syncline_p_secret-one',
        proxy: { url: 'http://proxy.example:3128', credentials: { username: 'carol', password: 'pass word' } },
        caPem: CLIENT_CERTIFICATE,
        clientCertPem: CLIENT_CERTIFICATE,
        clientKeyPem: CLIENT_KEY,
      })
      await t.rejects(peerConnection(db, randomBytes(32), made.id), { code: 'SYNC_CONFIG_DATA_KEY_WRONG' })
    })

    t.test('a sealed secret opens only in the row and column it was sealed for', async (t) => {
      const one = await createPeer(db, key, aPeer('row-1', { url: 'http://one.example', token: 'token-1' }))
      const two = await createPeer(db, key, aPeer('row-2', { url: 'http://two.example', token: 'token-2' }))
      await sql`update syncline.peer set token = (select token from syncline.peer where id = ${two.id}) where id = ${one.id}`.execute(
        db,
      )
      await t.rejects(peerConnection(db, key, one.id), { code: 'SYNC_CONFIG_DATA_KEY_WRONG', message: /peer\.token/ })
      await sql`update syncline.peer set client_key = token where id = ${two.id}`.execute(db)
      await t.rejects(peerConnection(db, key, two.id), { code: 'SYNC_CONFIG_DATA_KEY_WRONG', message: /client_key/ })
      t.equal((await updatePeer(db, key, one.id, { name: 'row-1-renamed', token: 'token-3' })).name, 'row-1-renamed')
      t.equal((await peerConnection(db, key, one.id)).token, 'token-3')
    })

    t.test('an absent setting stays, null takes it away', async (t) => {
      const { id } = await createPeer(
        db,
        key,
        aPeer('partial', { url: 'http://a.example', token: 'old', proxyUrl: 'http://u:p@proxy.example' }),
      )
      await updatePeer(db, key, id, { url: 'http://b.example' })
      t.match(await peerConnection(db, key, id), {
        url: 'http://b.example',
        token: 'old',
        proxy: { credentials: { username: 'u' } },
      })
      await updatePeer(db, key, id, { proxyUrl: 'http://proxy-2.example' })
      t.match(await peerConnection(db, key, id), {
        proxy: { url: 'http://proxy-2.example', credentials: { password: 'p' } },
      })
      await updatePeer(db, key, id, { proxyCredentials: null })
      t.match(await peerConnection(db, key, id), { proxy: { url: 'http://proxy-2.example', credentials: null } })
      await updatePeer(db, key, id, { proxyCredentials: { username: 'v', password: 'q' } })
      t.match(await peerConnection(db, key, id), { proxy: { credentials: { username: 'v', password: 'q' } } })
      const bare = await updatePeer(db, key, id, { proxyUrl: null, token: null })
      t.match(bare, { proxyUrl: null, hasProxyCredentials: false, hasToken: false })
      t.match(await peerConnection(db, key, id), { token: null, proxy: null })
      await updatePeer(db, key, id, { url: null })
      await t.rejects(peerConnection(db, key, id), { code: 'SYNC_REQUEST_INVALID', message: /no address/ })
    })

    t.test('settings that cannot work are refused with the reason, without their secrets', async (t) => {
      const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
      const otherKey = other.export({ format: 'pem', type: 'pkcs8' }) as string
      const wrong: readonly [Partial<NewPeer>, RegExp][] = [
        [{ name: '' }, /name of a peer/],
        [{ name: '12' }, /digits alone/],
        [{ name: randomUUID() }, /UUID/],
        [{ name: 'a:b' }, /name of a peer/],
        [{ uuid: 'x' }, /not a UUID/],
        [{ url: 'ftp://hub' }, /http or https/],
        [{ url: 'http://u:p@hub' }, /user name/],
        [{ url: 'http://hub/?token=1' }, /query/],
        [{ proxyUrl: 'socks5://u:hidden@proxy' }, /http or https/],
        [{ proxyCredentials: { username: 'u', password: 'hidden' } }, /need the address/],
        [{ token: 'a\nb' }, /control characters/],
        [{ caPem: 'nonsense' }, /no certificate/],
        [{ caPem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----' }, /certificate 1 .* cannot be read/],
        [{ clientCertPem: CLIENT_CERTIFICATE }, /together/],
        [{ clientKeyPem: CLIENT_KEY }, /together/],
        [{ clientCertPem: CLIENT_CERTIFICATE, clientKeyPem: 'x' }, /cannot be read/],
        [{ clientCertPem: CLIENT_CERTIFICATE, clientKeyPem: otherKey }, /does not belong/],
      ]
      for (const [more, message] of wrong) {
        const attempt = createPeer(db, key, aPeer('wrong', more)).catch((error: Error) => error)
        t.match(await attempt, { code: 'SYNC_REQUEST_INVALID', message })
        t.notMatch(((await attempt) as Error).message, /hidden/)
      }
    })

    t.test('pause and resume; failures count up to the next success', async (t) => {
      const { id } = await createPeer(db, key, aPeer('shaky'))
      t.equal(await notePeerFailure(db, id, '2030-01-01T00:00:00Z'), 1)
      t.equal(await notePeerFailure(db, id, '2030-01-01T00:10:00.5Z'), 2)
      t.match(await findPeer(db, id), { failures: 2, retryAt: '2030-01-01T00:10:00.500000Z', revision: 1 })
      await notePeerSuccess(db, id)
      t.match(await findPeer(db, id), { failures: 0, retryAt: null, revision: 1 })
      await notePeerFailure(db, id, null)
      t.match(await pausePeer(db, id), { paused: true, revision: 2 })
      t.same(
        (await listPeers(db, { paused: true })).items.map((peer) => peer.id),
        [id],
      )
      t.match(await resumePeer(db, id, 2), { paused: false, failures: 0, revision: 3 })
    })

    t.test('peers are listed newest first, page by page', async (t) => {
      const first = await listPeers(db, { limit: 2 })
      const rest = await everyItem((query) => listPeers(db, query))
      t.equal(first.items.length, 2)
      t.same(rest.slice(0, 2), first.items)
      const second = await listPeers(db, { limit: 2, before: first.next ?? '' })
      t.same(second.items, rest.slice(2, 4))
      t.same(
        rest.map((peer) => peer.id),
        rest.map((peer) => peer.id).toSorted((a, b) => b - a),
      )
      t.equal((await listPeers(db, { limit: rest.length })).next, null)
      for (const query of [
        { limit: 0 },
        { limit: 1001 },
        { limit: 1.5 },
        { before: '-1' },
        { before: '9223372036854775808' },
      ]) {
        await t.rejects(listPeers(db, query), { code: 'SYNC_REQUEST_INVALID' }, JSON.stringify(query))
      }
      t.same((await listPeers(db, { before: '9223372036854775807', limit: 1 })).items, rest.slice(0, 1))
    })
  })

  t.test(`peers that begin a new log, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const self = await ensureSelf(db, { name: 'field', key })
    const place = await addResource(store, 'place')
    const hub = await createPeer(db, key, aPeer('hub'))
    const other = await createPeer(db, key, aPeer('other'))
    await addRecord(store, { resourceId: place, id: 'ours', origin: self.siteId })
    await addRecord(store, { resourceId: place, id: 'hubs', origin: hub.siteId, source: hub.siteId })
    await addRecord(store, { resourceId: place, id: 'relayed', origin: other.siteId, source: hub.siteId })
    await addRecord(store, { resourceId: place, id: 'others', origin: hub.siteId, source: other.siteId })

    t.test('the first logId is kept, another one is reported and changes nothing', async (t) => {
      t.same(await notePeerSeen(db, hub.id, { clockOffsetMs: -1.6 }), { logChanged: false })
      t.match(await findPeer(db, hub.id), { logId: null, clockOffsetMs: -2, lastSeenAt: /^\d{4}-.*Z$/ })
      t.same(await notePeerSeen(db, hub.id, { logId: 'log1' }), { logChanged: false })
      t.same(await notePeerSeen(db, hub.id, { logId: 'log2', clockOffsetMs: 1e12 }), { logChanged: true })
      t.match(await findPeer(db, hub.id), { logId: 'log1', clockOffsetMs: 2_147_483_647, revision: 1 })
    })

    t.test('following it forgets every checkpoint with that peer and offers again what came from it', async (t) => {
      await checkpoint(db, hub, place)
      await checkpoint(db, other, place)
      await peerLogChanged(db, hub.id, 'log2')
      const after = await records(store)
      t.same(after, [
        `hubs ${hub.siteId} - 1700000000000000 served`,
        `others ${hub.siteId} ${other.siteId} 1700000000000000 old`,
        `ours ${self.siteId} - 1700000000000000 old`,
        `relayed ${other.siteId} - 1700000000000000 served`,
      ])
      t.same(await checkpoints(db, hub), [])
      t.same(await checkpoints(db, other), ['ack', 'pull', 'push'])
      t.same(await notePeerSeen(db, hub.id, { logId: 'log2' }), { logChanged: false })
    })

    t.test('doing so again changes nothing', async (t) => {
      await checkpoint(db, hub, place)
      await sql`update syncline.record set source = ${hub.siteId}, xact = '99999999999' where record_id = 'hubs'`.execute(
        db,
      )
      await peerLogChanged(db, hub.id, 'log2')
      t.match((await records(store))[0], / old$/)
      t.same(await checkpoints(db, hub), ['ack', 'pull', 'push'])
    })

    t.test('a peer that was removed and comes back is owed what it once gave', async (t) => {
      await removePeer(db, hub.id)
      t.match((await records(store))[0], `hubs ${hub.siteId} ${hub.siteId} `)
      const again = await createPeer(db, key, aPeer('hub', { uuid: hub.uuid }))
      t.equal(again.siteId, hub.siteId)
      t.match((await records(store))[0], `hubs ${hub.siteId} - `)
    })
  })
}

t.test(
  'an application that writes records while a peer begins a new log is never cancelled as a deadlock',
  async (t) => {
    const [server] = all
    if (server === undefined) throw new Error('no server')
    const store = await server.fresh()
    const writer = await server.another(store)
    await ensureSelf(store.db, { name: 'field', key })
    const place = await addResource(store, 'place')
    const hub = await createPeer(store.db, key, aPeer('hub', { logId: 'log0' }))
    // Stored in descending order, so that a scan of the table locks in the order opposite to the application's.
    await sql`insert into syncline.record (xact, clock, resource_id, origin, source, record_id)
    select pg_current_xact_id(), 1, ${place}, ${hub.siteId}, ${hub.siteId}, lpad(n::text, 6, '0') from generate_series(4000, 1, -1) n`.execute(
      store.db,
    )
    let running = true
    let written = 0
    const write = async () => {
      while (running) {
        await writer.db.transaction().execute(async (trx) => {
          for (const id of ['000001', '002000', '004000']) {
            await sql`update syncline.record set source = ${hub.siteId} where resource_id = ${place} and record_id = ${id}`.execute(
              trx,
            )
          }
        })
        written++
      }
    }
    const writing = Promise.all([write(), write()])
    while (written === 0) await sleep(1)
    for (let n = 1; n <= 8; n++) await peerLogChanged(store.db, hub.id, `log${n}`)
    running = false
    await t.resolves(writing)
    t.ok(written > 0)
    t.equal((await findPeer(store.db, hub.id)).logId, 'log8')
  },
)
