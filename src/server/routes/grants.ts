import type { Static } from 'typebox'
import {
  changeGrant,
  DIRECTIONS,
  findGrant,
  findPeer,
  type Grant,
  listGrants,
  readSelf,
  redrive,
} from '../../store/index.ts'
import { policyInOurWords, SynclineError } from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { matchedRevision, revisionTag } from '../etag.ts'
import type { Routes } from '../exchange.ts'
import { checkRules } from '../link-check.ts'
import {
  answer,
  brakeLimits,
  brakeLimitsRead,
  closed,
  ifMatch,
  linkRulesGiven,
  linkRulesRead,
  pageOf,
  peerRef,
  resourceName,
  words,
} from '../schemas.ts'

const direction = words(DIRECTIONS, { description: 'What the peer does: it pulls from this site, or pushes to it.' })
const grant = closed(
  { direction, resource: resourceName, ...linkRulesRead, ...brakeLimitsRead },
  { title: 'Grant', description: 'What a peer may ask of this site for one resource. Without a grant it may nothing.' },
)
const params = closed({ peer: peerRef, direction, resource: resourceName })

/** /api/v1/peers/{peer}/grants: what a peer may pull and push. A grant is a setting of its peer and changes under the peer's ETag. */
export const grantRoutes =
  ({ store, key, limits }: ServerDeps): Routes =>
  async (app) => {
    const list = {
      operationId: 'listGrants',
      tags: ['peers'],
      summary: 'List grants of a peer',
      params: closed({ peer: peerRef }),
      response: { 200: answer(pageOf(grant, 'GrantPage')) },
    }
    app.get('/peers/:peer/grants', { schema: list, config: { access: 'viewer' } }, async (request, reply) => {
      const peer = await findPeer(store.db, request.params.peer)
      reply.header('etag', revisionTag(peer))
      return { items: (await listGrants(store.db, peer.id)).map(view), next: null }
    })

    const set = {
      operationId: 'setGrant',
      tags: ['peers'],
      summary: 'Grant a resource to a peer',
      description: 'Makes or replaces a grant as a whole. If-Match is the ETag of the peer.',
      params,
      headers: ifMatch,
      body: closed({ ...linkRulesGiven, ...brakeLimits }),
      response: { 200: answer(grant) },
    }
    app.put(
      '/peers/:peer/grants/:direction/:resource',
      { schema: set, config: { access: 'administrator' } },
      async (request, reply) => {
        const { direction, resource } = request.params
        const { id: peerId, uuid } = await findPeer(store.db, request.params.peer)
        const rules = policyInOurWords(request.body, uuid)
        await checkRules(store, resource, rules, 'here')
        const ifMatch = matchedRevision(request.headers['if-match'])
        const peer = await changeGrant(store.db, key, { peerId, resource, direction, ifMatch }, rules)
        reply.header('etag', revisionTag(peer))
        // What waited for the permission.
        await redrive(store, await readSelf(store.db), null, limits)
        const made = await findGrant(store.db, peerId, resource, direction)
        if (made === null) throw new SynclineError('SYNC_REQUEST_CHANGED', 'the grant was taken back in the meantime')
        return view(made)
      },
    )

    const remove = {
      operationId: 'removeGrant',
      tags: ['peers'],
      summary: 'Take a grant back',
      description: 'If-Match is the ETag of the peer.',
      params,
      headers: ifMatch,
      'x-answers': { 204: { description: 'Taken back.' } },
    }
    app.delete(
      '/peers/:peer/grants/:direction/:resource',
      { schema: remove, config: { access: 'administrator' } },
      async (request, reply) => {
        const { direction, resource } = request.params
        const { id: peerId } = await findPeer(store.db, request.params.peer)
        const ifMatch = matchedRevision(request.headers['if-match'])
        const peer = await changeGrant(store.db, key, { peerId, resource, direction, ifMatch }, null)
        return reply.code(204).header('etag', revisionTag(peer)).send()
      },
    )
  }

function view({ peerId: _, columns, ...rest }: Grant): Static<typeof grant> {
  return { ...rest, columns: columns === null ? null : [...columns] }
}
