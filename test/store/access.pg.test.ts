import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import {
  createInvitation,
  createPeer,
  ensureAdministrator,
  findToken,
  issueToken,
  listInvitations,
  listTokens,
  redeemInvitation,
  removeInvitation,
  removePeer,
  revokeToken,
  rotatePeer,
  seal,
  unseal,
} from '../../src/store/index.ts'
import { addResource, bothStores, warm } from './both-stores.ts'

const { all } = await bothStores(t)
const key = randomBytes(32)
const LATER = '2999-01-01T00:00:00Z'
const hour = () => new Date(Date.now() + 3_600_000).toISOString()

for (const ground of all) {
  t.test(`tokens, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    const hub = await createPeer(db, key, { name: 'hub', uuid: randomUUID() })

    t.test('several processes that start at once issue one administrator token', async (t) => {
      const stores = await Promise.all(Array.from({ length: 5 }, () => ground.another(store)))
      const issued = await Promise.all(stores.map((each) => ensureAdministrator(each.db, 'first')))
      t.equal(issued.filter((each) => each !== null).length, 1)
      const caller = await findToken(db, issued.find((each) => each !== null)?.token ?? '')
      t.match(caller, { name: 'first', role: 'administrator', peerId: null })
    })

    t.test('a token names its role and belongs to one caller; only its hash is kept', async (t) => {
      for (const role of ['administrator', 'operator', 'viewer', 'peer'] as const) {
        const peerId = role === 'peer' ? hub.id : null
        const { id, token } = await issueToken(db, { name: `a ${role}`, role, peerId, expiresAt: LATER })
        t.match(token, new RegExp(`^syncline_${role.charAt(0)}_[\\w-]{43}$`))
        t.same(await findToken(db, token), { id, name: `a ${role}`, role, peerId })
        const { rows } = await sql<{ hash: Buffer; text: string }>`
          select hash, t::text as text from syncline.token t where id = ${id}`.execute(db)
        t.same(rows[0]?.hash, createHash('sha256').update(token).digest())
        t.notMatch(rows[0]?.text, token.slice(-43))
      }
    })

    t.test('what is not a valid token is null, whatever is wrong with it', async (t) => {
      const { id, token } = await issueToken(db, { name: 'short', role: 'viewer', expiresAt: hour() })
      const wrong = [
        token.slice(0, -1),
        `${token} `,
        token.replace('_v_', '_a_'),
        token.toUpperCase(),
        '',
        'x'.repeat(9000),
        '\0',
      ]
      for (const text of wrong) t.equal(await findToken(db, text), null, JSON.stringify(text.slice(0, 60)))
      t.not(await findToken(db, token), null)
      await sql`update syncline.token set expires_at = clock_timestamp() where id = ${id}`.execute(db)
      t.equal(await findToken(db, token), null)
    })

    t.test('the use of a token is noted at most once a minute', async (t) => {
      const { id, token } = await issueToken(db, { name: 'busy', role: 'viewer' })
      const used = async () => (await listTokens(db)).items.find((each) => each.id === id)?.lastUsedAt
      t.equal(await used(), null)
      await findToken(db, token)
      const first = await used()
      t.match(first, /^\d{4}-.*Z$/)
      await findToken(db, token)
      t.equal(await used(), first)
      await sql`update syncline.token set last_used_at = clock_timestamp() - interval '61 seconds' where id = ${id}`.execute(
        db,
      )
      const aged = await used()
      await findToken(db, token)
      t.not(await used(), aged)
    })

    t.test('settings without meaning are refused', async (t) => {
      const wrong = [
        { name: 'x', role: 'peer' },
        { name: 'x', role: 'viewer', peerId: hub.id },
        { name: 'x', role: 'root' },
        { name: ' ', role: 'viewer' },
        { name: 'x'.repeat(101), role: 'viewer' },
        { name: 'x', role: 'viewer', expiresAt: 'tomorrow' },
        { name: 'x', role: 'viewer', expiresAt: '2020-01-01T00:00:00Z' },
      ]
      for (const settings of wrong) {
        await t.rejects(issueToken(db, settings), { code: 'SYNC_REQUEST_INVALID' }, JSON.stringify(settings))
      }
      await t.rejects(issueToken(db, { name: 'x', role: 'peer', peerId: 4711 }), { code: 'SYNC_REQUEST_NOT_FOUND' })
    })

    t.test('a revoked token is worthless at once', async (t) => {
      const { id, token } = await issueToken(db, { name: 'gone', role: 'operator' })
      await revokeToken(db, id)
      t.equal(await findToken(db, token), null)
      for (const ref of [id, 'gone', '99999999999999999999']) {
        await t.rejects(revokeToken(db, ref), { code: 'SYNC_REQUEST_NOT_FOUND' }, String(ref))
      }
    })

    t.test('of two administrators that revoke each other one stays, also at the same moment', async (t) => {
      const own = await ground.fresh()
      const [one, two] = [
        await issueToken(own.db, { name: 'a', role: 'administrator' }),
        await issueToken(own.db, { name: 'b', role: 'administrator' }),
      ]
      const expired = await issueToken(own.db, { name: 'c', role: 'administrator' })
      await sql`update syncline.token set expires_at = clock_timestamp() where id = ${expired.id}`.execute(own.db)
      const [left = own, right = own] = await warm([await ground.another(own), await ground.another(own)])
      const results = await Promise.allSettled([revokeToken(left.db, one.id), revokeToken(right.db, two.id)])
      t.same(results.map((result) => result.status).sort(), ['fulfilled', 'rejected'])
      const last = (await findToken(own.db, one.token)) ?? (await findToken(own.db, two.token))
      t.equal(last?.role, 'administrator')
      await t.rejects(revokeToken(own.db, last?.id ?? 0), { code: 'SYNC_REQUEST_INVALID', message: /last valid one/ })
      await revokeToken(own.db, expired.id)
      t.equal(await ensureAdministrator(own.db, 'unneeded'), null)
      await sql`update syncline.token set expires_at = clock_timestamp()`.execute(own.db)
      t.match(await ensureAdministrator(own.db, 'needed'), { token: /^syncline_a_/ })
    })

    t.test(
      'a peer gets a new token while its old ones end when they are told to, and loses all when it is removed',
      async (t) => {
        const own = await ground.fresh()
        const peer = await createPeer(own.db, key, { name: 'hub', uuid: randomUUID() })
        const first = await rotatePeer(own.db, peer.id)
        const second = await rotatePeer(own.db, peer.id, 600)
        t.match(await findToken(own.db, first.token), { role: 'peer', peerId: peer.id, name: 'hub' })
        t.match(await findToken(own.db, second.token), { role: 'peer', peerId: peer.id })
        const third = await rotatePeer(own.db, peer.id, 0)
        t.same([await findToken(own.db, first.token), await findToken(own.db, second.token)], [null, null])
        t.not(await findToken(own.db, third.token), null)
        t.same(
          (await listTokens(own.db, { role: 'peer' })).items.map((token) => token.peer),
          ['hub', 'hub', 'hub'],
        )
        t.same((await listTokens(own.db, { peerId: peer.id + 1 })).items, [])
        await removePeer(own.db, peer.id)
        t.equal(await findToken(own.db, third.token), null)
        await t.rejects(rotatePeer(own.db, peer.id), { code: 'SYNC_REQUEST_NOT_FOUND' })
      },
    )
  })

  t.test(`invitations, on ${ground.name}`, async (t) => {
    const store = await ground.fresh()
    const { db } = store
    await addResource(store, 'place')
    const offer = (name: string) => ({
      name,
      pull: [{ resource: 'place', filter: 'open' }],
      push: [],
      expiresAt: hour(),
    })

    t.test('it is redeemed once, for what it offers', async (t) => {
      const { id, secret } = await createInvitation(db, offer('field'))
      t.match(secret, /^[\w-]{43}$/)
      const uuid = randomUUID()
      t.same(await redeemInvitation(db, secret, uuid.toUpperCase()), {
        name: 'field',
        pull: [{ resource: 'place', filter: 'open', columns: null, onConflict: 'newer', master: null, fields: {} }],
        push: [],
      })
      await t.rejects(redeemInvitation(db, secret, uuid), { code: 'SYNC_AUTH_PAIRING_INVALID' })
      const [shown] = (await listInvitations(db)).items
      t.match(shown, { id, name: 'field', redeemedBy: uuid, redeemedAt: /Z$/ })
      t.notMatch(JSON.stringify(shown), secret)
    })

    t.test('of ten sites that redeem it at once exactly one succeeds', async (t) => {
      const { secret } = await createInvitation(db, offer('crowded'))
      const stores = await Promise.all(Array.from({ length: 5 }, () => ground.another(store)))
      const uuids = Array.from({ length: 10 }, () => randomUUID())
      const results = await Promise.allSettled(
        uuids.map((uuid, n) =>
          (stores[n % 5] ?? store).db.transaction().execute(async (trx) => {
            await redeemInvitation(trx, secret, uuid)
            await sql`select pg_sleep(0.02)`.execute(trx)
            return uuid
          }),
        ),
      )
      const winners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
      const codes = results.flatMap((result) => (result.status === 'rejected' ? [result.reason.code] : []))
      t.equal(winners.length, 1)
      t.same(new Set(codes), new Set(['SYNC_AUTH_PAIRING_INVALID']))
      t.match((await listInvitations(db, { limit: 1 })).items, [{ redeemedBy: winners[0] }])
    })

    t.test('a pairing that fails leaves it as it was', async (t) => {
      const { secret } = await createInvitation(db, offer('again'))
      const pairing = db.transaction().execute(async (trx) => {
        await redeemInvitation(trx, secret, randomUUID())
        throw new Error('the peer hung up')
      })
      await t.rejects(pairing, /hung up/)
      t.match(await redeemInvitation(db, secret, randomUUID()), { name: 'again' })
    })

    t.test('unknown, expired and withdrawn secrets are refused alike', async (t) => {
      const late = await createInvitation(db, offer('late'))
      await sql`update syncline.invitation set expires_at = clock_timestamp() where id = ${late.id}`.execute(db)
      const withdrawn = await createInvitation(db, offer('withdrawn'))
      await removeInvitation(db, withdrawn.id)
      const refusals: string[] = []
      for (const secret of [late.secret, withdrawn.secret, 'x'.repeat(43), '']) {
        await redeemInvitation(db, secret, randomUUID()).catch((error) =>
          refusals.push(`${error.code} ${error.message}`),
        )
      }
      t.equal(refusals.length, 4)
      t.equal(new Set(refusals).size, 1)
      t.match(refusals[0], /^SYNC_AUTH_PAIRING_INVALID/)
    })

    t.test('a name waits for one invitation at a time; one that is used or expired makes room', async (t) => {
      const waiting = await createInvitation(db, offer('waiting'))
      await t.rejects(createInvitation(db, offer('waiting')), { code: 'SYNC_REQUEST_EXISTS', message: /waits/ })
      await sql`update syncline.invitation set expires_at = clock_timestamp() where id = ${waiting.id}`.execute(db)
      const second = await createInvitation(db, offer('waiting'))
      await redeemInvitation(db, second.secret, randomUUID())
      await createInvitation(db, offer('waiting'))
      await removeInvitation(db, 'waiting')
      await t.rejects(removeInvitation(db, 'waiting'), { code: 'SYNC_REQUEST_NOT_FOUND' })
      await createPeer(db, key, { name: 'taken', uuid: randomUUID() })
      await t.rejects(createInvitation(db, offer('taken')), {
        code: 'SYNC_REQUEST_EXISTS',
        message: /peer named "taken"/,
      })
    })

    t.test('an offer that could not be granted is refused when it is made', async (t) => {
      const base = offer('wrong')
      const wrong: readonly [Partial<Parameters<typeof createInvitation>[1]>, string][] = [
        [{ name: 'a b' }, 'SYNC_REQUEST_INVALID'],
        [{ expiresAt: '2020-01-01T00:00:00Z' }, 'SYNC_REQUEST_INVALID'],
        [{ expiresAt: '1h' }, 'SYNC_REQUEST_INVALID'],
        [{ push: [{ resource: 'place', onConflict: 'loudest' }] }, 'SYNC_REQUEST_INVALID'],
        [{ push: [{ resource: 'place' }, { resource: 'place' }] }, 'SYNC_REQUEST_INVALID'],
        [{ push: [{ resource: 'river' }] }, 'SYNC_REQUEST_NOT_FOUND'],
      ]
      for (const [more, code] of wrong)
        await t.rejects(createInvitation(db, { ...base, ...more }), { code }, JSON.stringify(more))
      t.equal(
        (await listInvitations(db)).items.some((invitation) => invitation.name === 'wrong'),
        false,
      )
    })
  })
}

t.test('sealing', async (t) => {
  const place = { table: 'peer', column: 'token', row: 'a' }

  t.test('opens what it sealed, and never seals twice alike', async (t) => {
    for (const secret of ['', 'text with “marks”', Buffer.from([0, 255, 10])]) {
      const [one, two] = [seal(key, place, secret), seal(key, place, secret)]
      t.same(unseal(key, place, one), Buffer.from(secret))
      t.same(unseal(key, place, two), Buffer.from(secret))
      t.notSame(one, two)
    }
  })

  t.test('any altered byte, another place or another key opens nothing', async (t) => {
    const sealed = seal(key, place, 'secret')
    for (let n = 0; n < sealed.length; n++) {
      const altered = Buffer.from(sealed)
      altered[n] = (altered[n] ?? 0) ^ 1
      t.throws(() => unseal(key, place, altered), { code: 'SYNC_CONFIG_DATA_KEY_WRONG' })
    }
    for (const cut of [0, 1, 12, 28, sealed.length - 1]) {
      t.throws(() => unseal(key, place, sealed.subarray(0, cut)), { code: 'SYNC_CONFIG_DATA_KEY_WRONG' })
    }
    for (const [part, value] of Object.entries({ table: 'self', column: 'client_key', row: 'b' })) {
      t.throws(() => unseal(key, { ...place, [part]: value }, sealed), { code: 'SYNC_CONFIG_DATA_KEY_WRONG' })
    }
    t.throws(() => unseal(randomBytes(32), place, sealed), { code: 'SYNC_CONFIG_DATA_KEY_WRONG' })
    t.throws(() => unseal(randomBytes(16), place, sealed), /16 bytes/)
    t.throws(() => seal(randomBytes(33), place, 'secret'), /33 bytes/)
  })
})
