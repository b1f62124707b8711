import { Type } from 'typebox'
import { findPeer } from '../../store/index.ts'
import type { ServerDeps } from '../deps.ts'
import { revisionTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import { answer, closed, nullable, resourceName, text, uuid } from '../schemas.ts'
import { peer, peerView } from './peers.ts'
import { resource, resourceView } from './resources.ts'

const made = closed(
  {
    resource,
    without: Type.Array(Type.String(), {
      description: 'Fields without a column, with their types at Eden: their values are kept beside the record.',
    }),
  },
  { title: 'ResourceFromEden', description: 'A resource made from the description of a Sahana Eden site.' },
)

/** Sahana Eden sites that this site calls. */
export const edenPeerRoutes =
  ({ store, actions, observe }: ServerDeps): Routes =>
  async (app) => {
    const add = {
      operationId: 'addEdenPeer',
      tags: ['peers'],
      summary: 'Register a Sahana Eden site',
      description:
        'With an address, this site introduces itself there and learns the UUID of that Eden. Without one the Eden does the connecting, and gets a token by POST /peers/{peer}/rotate.',
      body: closed({
        name: Type.String({ minLength: 1, maxLength: 63, description: 'Name of the peer here.', examples: ['relief'] }),
        url: Type.Optional(
          nullable(Type.String({ maxLength: 2000 }), {
            description: 'Of the application, such as http://relief.example.org/eden.',
          }),
        ),
        username: Type.Optional(
          Type.String({
            minLength: 1,
            maxLength: 200,
            pattern: '^[^:\\u0000-\\u001f]+$',
            description: 'Account there, which may synchronize.',
          }),
        ),
        password: Type.Optional(Type.String({ minLength: 1, maxLength: 200, description: 'Kept sealed.' })),
        uuid: Type.Optional(uuid('Refuses another site at that address.')),
        proxyUrl: Type.Optional(nullable(Type.String({ maxLength: 2000 }))),
        caPem: Type.Optional(nullable(Type.String())),
        clientCertPem: Type.Optional(nullable(Type.String())),
        clientKeyPem: Type.Optional(nullable(Type.String(), { description: 'Kept sealed.' })),
      }),
      response: { 201: answer(peer) },
    }
    app.post('/peers/eden', { schema: add, config: { access: 'administrator' } }, async (request, reply) => {
      const { username, password, ...rest } = request.body
      const token = username === undefined ? undefined : `${username}:${password ?? ''}`
      const added = await actions.addEdenPeer({ ...rest, token })
      observe.events.peerPaired({ peer: added.name, uuid: added.uuid, by: 'hand' })
      reply.code(201).headers({ etag: revisionTag(added), location: `/api/v1/peers/${added.name}` })
      return peerView(added)
    })

    const create = {
      operationId: 'createResourcesFromEden',
      tags: ['resources'],
      summary: 'Make resources as a Sahana Eden site describes them',
      description: 'Tables that refer to each other are best made together, those that are referred to come first.',
      body: closed({
        peer: text('Name of the Eden site.'),
        tables: Type.Array(resourceName, { minItems: 1, maxItems: 100, description: 'Such as org_organisation.' }),
      }),
      response: {
        201: answer(closed({ made: Type.Array(made) }, { title: 'ResourcesFromEden', description: 'What was made.' })),
      },
    }
    app.post('/resources/eden', { schema: create, config: { access: 'administrator' } }, async (request, reply) => {
      const found = await findPeer(store.db, request.body.peer)
      const all = await actions.createFromEden({ peer: found, tables: request.body.tables })
      reply.code(201)
      return {
        made: all.map(({ resource: each, without }) => ({ resource: resourceView(each), without: [...without] })),
      }
    })
  }
