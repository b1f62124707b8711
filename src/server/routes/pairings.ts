import { Type } from 'typebox'
import { pairPeer, readSelf, secretHash } from '../../store/index.ts'
import { pairingProof, SynclineError } from '../../sync/index.ts'
import type { ExchangeDeps, Routes } from '../exchange.ts'
import { offerView } from '../link-check.ts'
import { answer, closed, linkRulesRead, resourceName, text, time, uuid } from '../schemas.ts'

const body = closed({
  secret: Type.String({ minLength: 1, maxLength: 200, description: 'From the pairing code.' }),
  uuid: uuid('Of the joining site.'),
  name: Type.String({ minLength: 1, maxLength: 200, description: 'What the joining site calls itself.' }),
  nonce: Type.String({
    minLength: 16,
    maxLength: 200,
    pattern: '^[A-Za-z0-9_-]+$',
    description: 'Chance; the answer is signed with it.',
  }),
  url: Type.Optional(
    Type.String({ maxLength: 2000, description: 'Where this site can reach the joining one, if it can.' }),
  ),
  token: Type.Optional(Type.String({ minLength: 20, maxLength: 500, description: 'What this site shows there.' })),
})

const offers = Type.Array(
  closed(
    { resource: resourceName, ...linkRulesRead },
    { title: 'GrantOffer', description: 'What a peer may do with a resource.' },
  ),
)

const paired = closed(
  {
    uuid: uuid('Of this site.'),
    name: text('Of this site.'),
    peer: text('Name that the joining site got here.'),
    logId: text('Log of this site.'),
    time: time('Clock of this site.'),
    publicKey: text('Ed25519, 32 bytes in base64url. Its SHA-256 must be the key in the pairing code.'),
    token: text('What the joining site shows here from now on.'),
    signature: text('Ed25519, base64url, over nonce, both UUIDs and the hash of the token: see docs/protocol.md.'),
    grants: closed(
      { pull: offers, push: offers },
      { title: 'Offer', description: 'What the joining site may pull from and push to this site.' },
    ),
  },
  { title: 'Pairing', description: 'Two sites that know each other.' },
)

/** POST /sync/v1/pairings: redeems a pairing code, once. The peer, its grants and its token come to be in one commit. */
export const pairingRoutes =
  (deps: ExchangeDeps): Routes =>
  async (app) => {
    const { store, key, self, observe } = deps
    const schema = {
      operationId: 'redeemPairingCode',
      tags: ['sync'],
      summary: 'Redeem a pairing code',
      description: 'Registers the joining site as a peer and gives it a token. A code works once.',
      body,
      response: { 201: answer(paired) },
    }
    app.post('/pairings', { schema, config: { access: 'public' } }, async (request, reply) => {
      const joiner = request.body
      const { peer, token, offer } = await pairPeer(store.db, key, joiner).catch(async (error: unknown) => {
        if (error instanceof SynclineError && error.code === 'SYNC_AUTH_PAIRING_INVALID') {
          const { method, id: requestId, ip: address } = request
          observe.events.authRefused({ requestId, method, route: '/sync/v1/pairings', reason: 'pairing', address })
          await app.countFailure(request)
        }
        throw error
      })
      observe.events.peerPaired({ peer: peer.name, uuid: peer.uuid, by: 'invitation' })
      const here = await readSelf(store.db)
      const proof = pairingProof({
        nonce: joiner.nonce,
        inviter: here.uuid,
        joiner: peer.uuid,
        tokenHash: secretHash(token).toString('base64url'),
      })
      return reply.code(201).send({
        uuid: here.uuid,
        name: here.name,
        peer: peer.name,
        logId: here.logId,
        time: new Date().toISOString(),
        publicKey: here.publicKey,
        token,
        signature: (await self()).sign(proof),
        grants: { pull: offer.pull.map(offerView), push: offer.push.map(offerView) },
      })
    })
  }
