import { Type } from 'typebox'
import { countPeerLeases, listLeases, releaseLeases, renewLeases, takeLeases } from '../../store/index.ts'
import { SynclineError } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import type { ExchangeDeps, Routes } from '../exchange.ts'
import { answer, closed, flag, nullable, text, uuid } from '../schemas.ts'

/** Only leases of this kind are open to peers: the others are this site's own business. */
const SHARED = 'shared/'
/** One peer cannot fill the table. */
const PER_PEER_MAX = 100

const params = closed({
  lease: Type.String({
    pattern: '^[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}$',
    description: `Name of the lease; it begins with ${SHARED}`,
    examples: ['shared/archive'],
  }),
})
const token = uuid('Whoever shows it may take again, renew and release.')
const seconds = Type.Integer({
  minimum: 10,
  maximum: 900,
  description: 'Without a renewal for so long the lease ends.',
})
const seen = closed(
  {
    free: flag('Nobody holds it, or the holder of the token.'),
    reason: nullable(Type.String(), { description: 'Who holds it, and since when.' }),
  },
  { title: 'SeenLease', description: 'Whether a lease is free.' },
)

/** /sync/v1/leases: what runs of jobs at peers hold here, so that jobs of several sites keep out of each other's way. */
export const peerLeaseRoutes =
  ({ store }: ExchangeDeps): Routes =>
  async (app) => {
    const look = {
      operationId: 'lookAtLease',
      tags: ['sync'],
      summary: 'Look whether a lease is free',
      params,
      response: { 200: answer(seen) },
    }
    app.get('/leases/:lease', { schema: look, config: { access: 'peer' } }, async (request) => {
      const name = shared(request.params.lease)
      const held = (await listLeases(store.db)).find((each) => each.name === name)
      if (held === undefined) return { free: true, reason: null }
      return { free: false, reason: `lease ${name} is held by ${held.owner} on ${held.host} since ${held.takenAt}` }
    })

    const take = {
      operationId: 'takeLease',
      tags: ['sync'],
      summary: 'Take a lease',
      description: 'Its own token takes it again. When it is held by another one, the answer says by whom.',
      params,
      body: closed({
        token,
        owner: text('Job that wants it.', { minLength: 1, maxLength: 100 }),
        host: text('Where it runs.', { minLength: 1, maxLength: 255 }),
        pid: Type.Integer({ minimum: 0 }),
        seconds,
      }),
      response: { 200: answer(seen) },
    }
    app.put('/leases/:lease', { schema: take, config: { access: 'peer' } }, async (request) => {
      const name = shared(request.params.lease)
      const peer = peerOf(request)
      if ((await countPeerLeases(store.db, peer.id)) >= PER_PEER_MAX)
        throw new SynclineError(
          'SYNC_REQUEST_TOO_MANY',
          `peer "${peer.name}" holds ${PER_PEER_MAX} leases here already`,
        )
      const { owner, ...rest } = request.body
      const holder = { ...rest, owner: `${owner} of ${peer.name}`, runId: null, site: peer.name, peerId: peer.id }
      const wish = { hold: [name], freeLeases: [], freeJobs: [], runId: null }
      const block = await takeLeases(store.db, wish, holder)
      return { free: block === null, reason: block?.reason ?? null }
    })

    const renew = {
      operationId: 'renewLease',
      tags: ['sync'],
      summary: 'Renew a lease',
      params,
      body: closed({ token, seconds }),
      response: {
        200: answer(
          closed(
            { held: flag('It is still held by this token.') },
            { title: 'RenewedLease', description: 'Whether the lease goes on.' },
          ),
        ),
      },
    }
    app.post('/leases/:lease/renewals', { schema: renew, config: { access: 'peer' } }, async (request) => {
      const name = shared(request.params.lease)
      return { held: (await renewLeases(store.db, request.body.token, request.body.seconds, name)).includes(name) }
    })

    const release = {
      operationId: 'giveLeaseBack',
      tags: ['sync'],
      summary: 'Release a lease',
      description: 'Only what the token holds; nothing happens when it holds nothing.',
      params,
      body: closed({ token }),
      'x-answers': { 204: { description: 'The token does not hold it.' } },
    }
    app.post('/leases/:lease/release', { schema: release, config: { access: 'peer' } }, async (request, reply) => {
      await releaseLeases(store.db, request.body.token, shared(request.params.lease))
      return reply.code(204).send()
    })
  }

/** Errors: SYNC_AUTH_FORBIDDEN for a lease that is no peer's business. */
function shared(name: string): string {
  if (name.startsWith(SHARED)) return name
  throw new SynclineError(
    'SYNC_AUTH_FORBIDDEN',
    `peers may not take the lease "${name}": only those that begin with ${SHARED}`,
  )
}
