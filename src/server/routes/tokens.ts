import { Type } from 'typebox'
import { findPeer, issueToken, listTokens, ROLES, revokeToken } from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, nullable, pageOf, pageQuery, peerRef, rowId, text, time, words } from '../schemas.ts'

const role = words(ROLES, {
  description:
    'administrator (everything), operator (runs, records, conflicts, quarantine), viewer (reads), peer (the exchange only).',
})
const token = closed(
  {
    id: Type.Integer(),
    name: text('What it is for.'),
    role,
    peer: nullable(Type.String(), { description: 'Name of the peer, for tokens of peers.' }),
    createdAt: time('When it was issued.'),
    expiresAt: nullable(time('Until when it is good.')),
    lastUsedAt: nullable(time('Exact to a minute.')),
  },
  { title: 'Token', description: 'A token. Only its hash is kept.' },
)

/** /api/v1/tokens: who may use this interface. */
export const tokenRoutes =
  ({ store }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listTokens',
      tags: ['tokens'],
      summary: 'List tokens',
      querystring: closed({ ...pageQuery, role: Type.Optional(role), peer: Type.Optional(peerRef) }),
      response: { 200: answer(pageOf(token, 'TokenPage')) },
    }
    app.get('/tokens', { schema: list, config: { access: 'administrator' } }, async (request) => {
      const { cursor, limit, role, peer } = request.query
      const peerId = peer === undefined ? undefined : (await findPeer(store.db, peer)).id
      const { items, next } = await listTokens(store.db, { limit, role, peerId, before: cursor })
      return { items: items.map(({ peerId: _, ...each }) => each), next }
    })

    const issue = {
      operationId: 'issueToken',
      tags: ['tokens'],
      summary: 'Issue a token',
      description: 'It is shown once. The role peer needs the name of the peer.',
      body: closed({
        name: Type.String({
          minLength: 1,
          maxLength: 100,
          description: 'What it is for.',
          examples: ['backup script'],
        }),
        role,
        peer: Type.Optional(peerRef),
        expiresAt: Type.Optional(nullable(time('Until when it is good; absent for ever.'))),
      }),
      response: {
        201: answer(
          closed(
            { id: Type.Integer(), token: text('Shown once.') },
            { title: 'IssuedToken', description: 'A token as it is shown, once.' },
          ),
        ),
      },
    }
    app.post('/tokens', { schema: issue, config: { access: 'administrator' } }, async (request, reply) => {
      const { peer, ...settings } = request.body
      const peerId = peer === undefined ? null : (await findPeer(store.db, peer)).id
      return reply.code(201).send(await issueToken(store.db, { ...settings, peerId }))
    })

    const revoke = {
      operationId: 'revokeToken',
      tags: ['tokens'],
      summary: 'Revoke a token',
      description: 'It is worthless at once. The last administrator token stays.',
      params: closed({ token: rowId('Id of the token.') }),
      'x-answers': { 204: { description: 'Revoked.' } },
    }
    app.delete('/tokens/:token', { schema: revoke, config: { access: 'administrator' } }, async (request, reply) => {
      await revokeToken(store.db, request.params.token)
      return reply.code(204).send()
    })
  }
