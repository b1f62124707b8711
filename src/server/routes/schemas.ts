import { Type } from 'typebox'
import { findResource, listGrants, notePeerSchema, toldSchema } from '../../store/index.ts'
import { peerOf } from '../access.ts'
import { type ExchangeDeps, notGranted, type Routes } from '../exchange.ts'
import { answer, closed, flag, resourceName } from '../schemas.ts'

/** No table has more columns in PostgreSQL. */
const COLUMNS_MAX = 1_600

const column = closed(
  {
    name: Type.String({ minLength: 1, maxLength: 63 }),
    type: Type.String({
      minLength: 1,
      maxLength: 300,
      description: 'As PostgreSQL writes it.',
      examples: ['numeric(12,2)'],
    }),
    nullable: flag('It may be empty.'),
    hasDefault: flag('The database fills it in where nothing is sent.'),
  },
  { title: 'SchemaColumn', description: 'A column that travels.' },
)
const members = {
  fingerprint: Type.String({ minLength: 1, maxLength: 64, description: 'As in the greeting.' }),
  columns: Type.Array(column, { maxItems: COLUMNS_MAX }),
}
const told = closed(
  { resource: resourceName, ...members },
  { title: 'ToldSchema', description: 'A resource as a peer has it.' },
)
const params = closed({ resource: resourceName })

/** /sync/v1/schemas/{resource}: sites tell each other their columns, once after each change, so that both can say how they differ. */
export const schemaRoutes =
  ({ store }: ExchangeDeps): Routes =>
  async (app) => {
    const get = {
      operationId: 'readSchema',
      tags: ['sync'],
      summary: 'Read the columns of a resource',
      description: 'What travels and the peer may see. To be read again when the fingerprint in the greeting changes.',
      params,
      response: { 200: answer(told) },
    }
    app.get('/schemas/:resource', { schema: get, config: { access: 'peer' } }, async (request) => {
      const { only, resource } = await granted(request)
      return { resource: resource.name, fingerprint: resource.fingerprint, columns: toldSchema(resource, only) }
    })

    const put = {
      operationId: 'tellSchema',
      tags: ['sync'],
      summary: 'Tell the columns of a resource',
      description: 'How the peer has the resource, in the place of what it told before.',
      params,
      body: closed(members),
      'x-answers': { 204: { description: 'Noted.' } },
    }
    app.put('/schemas/:resource', { schema: put, config: { access: 'peer' } }, async (request, reply) => {
      const { resource } = await granted(request)
      await notePeerSchema(store.db, peerOf(request).id, resource.name, request.body)
      return reply.code(204).send()
    })

    async function granted(request: Parameters<typeof peerOf>[0] & { params: { resource: string } }) {
      const { id, name } = peerOf(request)
      const grants = (await listGrants(store.db, id)).filter(({ resource }) => resource === request.params.resource)
      if (grants.length === 0) throw notGranted(name, 'pull', request.params.resource)
      const lists = grants.map(({ columns }) => columns)
      const only = lists.some((columns) => columns === null) ? null : lists.flatMap((columns) => columns ?? [])
      return { only, resource: await findResource(store.db, request.params.resource) }
    }
  }
