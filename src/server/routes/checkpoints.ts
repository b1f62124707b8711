import { Type } from 'typebox'
import { findGrant, findResource, readCheckpoint, readSelf, writeCheckpoint } from '../../store/index.ts'
import { parseCheckpoint, SynclineError } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import { type ExchangeDeps, notGranted, type Routes } from '../exchange.ts'
import { answer, closed, nullable, resourceName } from '../schemas.ts'

const params = closed({ resource: resourceName })
const held = closed(
  {
    resource: resourceName,
    checkpoint: nullable(Type.String(), {
      description: 'Up to where the peer has everything; null when it never said.',
    }),
  },
  { title: 'Checkpoint', description: 'How far a peer has come with a resource.' },
)

/** /sync/v1/checkpoints/{resource}: up to where a peer has everything. Deletions are kept until every peer that pulls has them. */
export const checkpointRoutes =
  ({ store }: ExchangeDeps): Routes =>
  async (app) => {
    const put = {
      operationId: 'acknowledgeChanges',
      tags: ['sync'],
      summary: 'Acknowledge what was applied',
      description: 'Says that the peer has everything up to a checkpoint. May be repeated.',
      params,
      body: closed({
        checkpoint: Type.String({ minLength: 1, maxLength: 1024, description: 'As this site gave it.' }),
      }),
      'x-answers': { 204: { description: 'Noted.' } },
    }
    app.put('/checkpoints/:resource', { schema: put, config: { access: 'peer' } }, async (request, reply) => {
      const { id, resource } = await granted(request)
      const { checkpoint } = request.body
      const [logId] = parseCheckpoint(checkpoint).logId.split('.')
      const self = await readSelf(store.db)
      if (logId !== self.logId) {
        const detail = `the checkpoint belongs to log ${logId}; this site now writes log ${self.logId}`
        throw new SynclineError('SYNC_CHECKPOINT_GONE', detail)
      }
      await writeCheckpoint(store.db, id, resource.id, 'ack', checkpoint)
      return reply.code(204).send()
    })

    const get = {
      operationId: 'readCheckpoint',
      tags: ['sync'],
      summary: 'Read what was acknowledged',
      params,
      response: { 200: answer(held) },
    }
    app.get('/checkpoints/:resource', { schema: get, config: { access: 'peer' } }, async (request) => {
      const { id, resource } = await granted(request)
      return { resource: resource.name, checkpoint: await readCheckpoint(store.db, id, resource.id, 'ack') }
    })

    async function granted(request: Parameters<typeof peerOf>[0] & { params: { resource: string } }) {
      const { id, name } = peerOf(request)
      const grant = await findGrant(store.db, id, request.params.resource, 'pull')
      if (grant === null) throw notGranted(name, 'pull', request.params.resource)
      return { id, resource: await findResource(store.db, grant.resource) }
    }
  }
