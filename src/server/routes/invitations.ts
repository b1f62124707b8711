import { Type } from 'typebox'
import {
  createInvitation,
  type GrantOffer,
  keyFingerprint,
  listInvitations,
  readSelf,
  removeInvitation,
} from '../../store/index.ts'
import { encodePairingCode } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { checkRules, offerView } from '../link-check.ts'
import {
  answer,
  closed,
  linkRules,
  linkRulesRead,
  nullable,
  pageOf,
  pageQuery,
  resourceName,
  text,
  time,
} from '../schemas.ts'

const HOUR = 3_600
const TTL_SECONDS_MAX = 30 * 24 * HOUR

const offered = Type.Array(
  closed(
    { resource: resourceName, ...linkRulesRead },
    { title: 'GrantOffer', description: 'What a peer may do with a resource.' },
  ),
)
const invitation = closed(
  {
    id: Type.Integer(),
    name: text('That the joining site gets here.'),
    pull: offered,
    push: offered,
    createdAt: time('When it was made.'),
    expiresAt: time('Until when it can be redeemed.'),
    redeemedAt: nullable(time('When it was redeemed.')),
    redeemedBy: nullable(Type.String(), { description: 'UUID of the site that did.' }),
  },
  { title: 'Invitation', description: 'A pairing code that was given out. Its secret is not kept.' },
)

const offers = Type.Array(
  Type.Union([resourceName, closed({ resource: resourceName, ...linkRules })], {
    description: 'A resource, or a resource with the rules of its grant.',
  }),
  { default: [], maxItems: 1000 },
)

/** /api/v1/invitations: pairing codes. */
export const invitationRoutes =
  ({ store, publicUrl }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listInvitations',
      tags: ['invitations'],
      summary: 'List invitations',
      querystring: closed(pageQuery),
      response: { 200: answer(pageOf(invitation, 'InvitationPage')) },
    }
    app.get('/invitations', { schema: list, config: { access: 'viewer' } }, async (request) => {
      const { cursor, limit } = request.query
      const { items, next } = await listInvitations(store.db, { before: cursor, limit })
      return {
        items: items.map((each) => ({ ...each, pull: each.pull.map(offerView), push: each.push.map(offerView) })),
        next,
      }
    })

    const invite = {
      operationId: 'invitePeer',
      tags: ['invitations'],
      summary: 'Make a pairing code',
      description:
        'The code carries where this site is, who it is and a secret; with it one command at the other site registers both. It is shown once, works once, and expires.',
      body: closed({
        name: Type.String({
          minLength: 1,
          maxLength: 63,
          description: 'That the joining site gets here.',
          examples: ['field-laptop'],
        }),
        pull: Type.Optional(offers),
        push: Type.Optional(offers),
        ttlSeconds: Type.Optional(
          Type.Integer({
            minimum: 60,
            maximum: TTL_SECONDS_MAX,
            default: HOUR,
            description: 'How long the code is good.',
          }),
        ),
      }),
      response: {
        201: answer(
          closed(
            {
              id: Type.Integer(),
              name: text('That the joining site gets here.'),
              code: text('One line.'),
              expiresAt: time('Until when it is good.'),
            },
            { title: 'PairingCode', description: 'A pairing code, shown once.' },
          ),
        ),
      },
    }
    app.post('/invitations', { schema: invite, config: { access: 'administrator' } }, async (request, reply) => {
      const { name, pull = [], push = [], ttlSeconds = HOUR } = request.body
      const offer = { name, pull: pull.map(rules), push: push.map(rules) }
      for (const each of [...offer.pull, ...offer.push]) await checkRules(store, each.resource, each, 'here')
      const expiresAt = new Date(Date.now() + ttlSeconds * 1000).toISOString()
      const { id, secret } = await createInvitation(store.db, { ...offer, expiresAt })
      const self = await readSelf(store.db)
      const code = encodePairingCode({
        url: publicUrl(),
        uuid: self.uuid,
        name: self.name,
        key: keyFingerprint(self.publicKey),
        secret,
        expires: expiresAt,
      })
      return reply.code(201).send({ id, name, code, expiresAt })
    })

    const remove = {
      operationId: 'withdrawInvitation',
      tags: ['invitations'],
      summary: 'Withdraw an invitation',
      description: 'A peer that was registered with it stays.',
      params: closed({ invitation: Type.String({ minLength: 1, maxLength: 63, description: 'Its id or name.' }) }),
      'x-answers': { 204: { description: 'Withdrawn.' } },
    }
    app.delete(
      '/invitations/:invitation',
      { schema: remove, config: { access: 'administrator' } },
      async (request, reply) => {
        await removeInvitation(store.db, request.params.invitation)
        return reply.code(204).send()
      },
    )
  }

function rules(offer: string | GrantOffer): GrantOffer {
  return typeof offer === 'string' ? { resource: offer } : offer
}
