import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { type Static, Type } from 'typebox'
import {
  compileFilter,
  findResource,
  listHistory,
  type RecordQuery,
  type ResourceInfo,
  readRecord,
  readRecords,
  readSelf,
  redrive,
  writeByHand,
} from '../../store/index.ts'
import {
  type Change,
  changesOfLines,
  codecForAccept,
  ERRORS,
  type ErrorCode,
  isJsonObject,
  type LineBatch,
  parseJson,
  SynclineError,
  writeChange,
} from '../../sync/index.ts'
import { readBody } from '../body.ts'
import type { ServerDeps } from '../deps.ts'
import type { Routes } from '../exchange.ts'
import { batchesOf, recordsIn, withoutVersions } from '../records-in.ts'
import { exportRecords } from '../records-out.ts'
import {
  answer,
  anyJson,
  batchReport,
  change,
  closed,
  columnList,
  columnsOf,
  filterText,
  nullable,
  pageOf,
  pageQuery,
  recordId,
  reference,
  resourceName,
  text,
  time,
} from '../schemas.ts'
import { pulledAs, pushedAs } from '../wire.ts'

const LIST_LIMIT = 100
const params = closed({ resource: resourceName })
const oneParams = closed({ resource: resourceName, id: recordId })
const query = closed({
  ...pageQuery,
  filter: Type.Optional(filterText),
  columns: Type.Optional(columnList),
  deleted: Type.Optional(Type.Boolean({ default: false, description: 'Deleted records too.' })),
  all: Type.Optional(
    Type.Boolean({ default: false, description: 'With JSON: everything in one document, as in the other formats.' }),
  ),
})
const history = closed(
  {
    id: Type.String(),
    at: time('When it ended.'),
    reason: text('replaced, deleted, lost a conflict, left, discarded.'),
    runId: nullable(Type.String(), { description: 'Run that did it.' }),
    version: closed({ origin: Type.String(), clock: Type.Integer() }),
    deleted: Type.Boolean(),
    data: anyJson('Values; null for a deletion.'),
  },
  { title: 'HistoryEntry', description: 'What a record was before, or would have been.' },
)
const write = closed(
  {
    data: Type.Optional(
      Type.Record(Type.String(), anyJson('Value'), {
        description: 'Values by column; absent columns stay as they are.',
      }),
    ),
    refs: Type.Optional(Type.Record(Type.String(), nullable(reference), { description: 'References by column.' })),
  },
  {
    title: 'RecordWrite',
    description: 'New values of a record.',
    examples: [{ data: { name: 'Graz' }, refs: { country: { resource: 'country', id: 'AT' } } }],
  },
)

/** /api/v1/records: records by hand. What is written here is this site's own, now. */
export const recordRoutes =
  (deps: ServerDeps): Routes =>
  async (app) => {
    const { store, limits } = deps
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: limits.bodyBytesMax }, (_request, body, done) =>
      done(null, body),
    )

    const list = {
      operationId: 'listRecords',
      tags: ['records'],
      summary: 'List or export records',
      description:
        'A page in JSON, newest first. In NDJSON or S3XML, or with `all=true`, everything in the order of record ids, as it is when it is read.',
      params,
      querystring: query,
      'x-answers': {
        200: {
          description: 'Records with their versions.',
          content: {
            'application/json': Type.Union([pageOf(change, 'RecordPage'), pulledAs['application/json']], {
              title: 'Records',
            }),
            'application/x-ndjson': pulledAs['application/x-ndjson'],
            'application/xml': pulledAs['application/xml'],
          },
        },
      },
    }
    app.get(
      '/records/:resource',
      { schema: list, config: { access: 'viewer', endless: true } },
      async (request, reply) => {
        const resource = await findResource(store.db, request.params.resource)
        const { cursor, limit = LIST_LIMIT, filter, columns, deleted = false, all = false } = request.query
        const accept = request.headers.accept
        const format = accept === undefined || /\*\/\*/.test(accept) ? 'json' : codecForAccept(accept).name
        const asked = {
          resource,
          columns: columnsOf(columns),
          filter: filter === undefined ? undefined : await compileFilter(store, resource, filter),
          deleted,
        }
        if (format !== 'json' || all) return sendAll(reply, format, asked)
        const bounds = { rowsMax: limit, bytesMax: limits.batchBytesMax }
        const { batch, next } = await readRecords(store.db, { ...asked, ...bounds, order: 'newest', after: cursor })
        const items = changesOfLines(batch).map(writeChange)
        return reply.type('application/json').send(`{"items":[${items.join(',')}],"next":${JSON.stringify(next)}}`)
      },
    )

    function sendAll(
      reply: FastifyReply,
      format: string,
      asked: Pick<RecordQuery, 'resource' | 'columns' | 'filter' | 'deleted'>,
    ) {
      const page = (after: string | undefined) =>
        readRecords(store.db, {
          ...asked,
          order: 'id',
          after,
          rowsMax: limits.batchRowsMax,
          bytesMax: limits.batchBytesMax,
        })
      const { mediaType, chunks } = exportRecords(format, page)
      return reply.type(mediaType).send(Readable.from(chunks, { objectMode: false }))
    }

    const load = {
      operationId: 'importRecords',
      tags: ['records'],
      summary: 'Import records',
      description:
        'Writes records in any format, all in one transaction. They are this site’s own writes of now: versions that they bring do not count. What the database refuses is refused, record by record.',
      params,
      'x-body': pushedAs,
      response: { 200: answer(batchReport) },
    }
    app.post(
      '/records/:resource',
      { schema: load, config: { access: 'operator' }, bodyLimit: limits.bodyBytesMax },
      async (request) => {
        const resource = await findResource(store.db, request.params.resource)
        const bytes = await readBody(request, limits.bodyBytesMax)
        const { batches } = recordsIn(bytes, request.headers['content-type'], resource, limits)
        return writeAll(resource, withoutVersions(batches))
      },
    )

    const read = {
      operationId: 'readRecord',
      tags: ['records'],
      summary: 'Read a record',
      description: 'With its version, also when it was deleted.',
      params: oneParams,
      response: { 200: answer(change) },
    }
    app.get('/records/:resource/:id', { schema: read, config: { access: 'viewer' } }, async (request, reply) => {
      const resource = await findResource(store.db, request.params.resource)
      return sendOne(reply, resource, request.params.id)
    })

    const put = {
      operationId: 'writeRecord',
      tags: ['records'],
      summary: 'Write a record',
      description: 'Makes or changes a record. Columns that are absent stay as they are.',
      params: oneParams,
      'x-body': { 'application/json': write },
      response: { 200: answer(change) },
    }
    app.put('/records/:resource/:id', { schema: put, config: { access: 'operator' } }, async (request, reply) => {
      const resource = await findResource(store.db, request.params.resource)
      const { id } = request.params
      const bytes = await readBody(request, limits.recordBytesMax)
      const text = JSON.stringify({ changes: [{ id, ...readWrite(bytes, limits.depthMax) }] })
      const { batches } = recordsIn(Buffer.from(text), 'application/json', resource, limits)
      await writeOne(resource, batches)
      return sendOne(reply, resource, id)
    })

    const remove = {
      operationId: 'deleteRecord',
      tags: ['records'],
      summary: 'Delete a record',
      params: oneParams,
      'x-answers': { 204: { description: 'Deleted.' } },
    }
    app.delete('/records/:resource/:id', { schema: remove, config: { access: 'operator' } }, async (request, reply) => {
      const resource = await findResource(store.db, request.params.resource)
      const { id, kind } = await oneChange(resource, request.params.id)
      if (kind === 'delete') throw noRecord(resource, request.params.id)
      await writeOne(resource, batchesOf(resource, { kind: 'delete', id }))
      return reply.code(204).send()
    })

    const past = {
      operationId: 'listRecordHistory',
      tags: ['records'],
      summary: 'List what a record was before',
      description: 'Values that were overwritten or lost a conflict, as long as they are kept.',
      params: oneParams,
      querystring: closed(pageQuery),
      response: { 200: answer(pageOf(history, 'HistoryPage')) },
    }
    app.get('/records/:resource/:id/history', { schema: past, config: { access: 'viewer' } }, async (request) => {
      const resource = await findResource(store.db, request.params.resource)
      const { cursor, limit } = request.query
      return listHistory(store.db, resource, request.params.id, { before: cursor, limit })
    })

    async function writeAll(
      resource: ResourceInfo,
      batches: readonly LineBatch[],
    ): Promise<Static<typeof batchReport>> {
      const self = await readSelf(store.db)
      const report = await writeByHand(store, self, resource.name, batches, limits)
      if (report.counts.applied > 0) await redrive(store, self, null, limits)
      return { ...report, rejections: [...report.rejections] }
    }

    /** What is refused of one record is the failure of the request. */
    async function writeOne(resource: ResourceInfo, batches: readonly LineBatch[]): Promise<void> {
      const { rejections } = await writeAll(resource, batches)
      const refusal = rejections.find(({ outcome }) => outcome === 'refused' || outcome === 'quarantined')
      if (refusal === undefined) return
      const known = refusal.code !== undefined && Object.hasOwn(ERRORS, refusal.code)
      throw new SynclineError(known ? (refusal.code as ErrorCode) : 'SYNC_RECORD_INVALID', refusal.reason)
    }

    async function oneChange(resource: ResourceInfo, id: string): Promise<Change> {
      const batch = await readRecord(store.db, resource, id)
      const found = batch === null ? undefined : changesOfLines(batch)[0]
      if (found === undefined) throw noRecord(resource, id)
      return found
    }

    async function sendOne(reply: FastifyReply, resource: ResourceInfo, id: string) {
      const found = await oneChange(resource, id)
      reply.header('etag', `"${found.version?.origin}.${found.version?.clock}"`)
      return reply.type('application/json').send(writeChange(found))
    }
  }

function noRecord(resource: ResourceInfo, id: string): SynclineError {
  return new SynclineError('SYNC_REQUEST_NOT_FOUND', `resource "${resource.name}" has no record "${id.slice(0, 80)}"`)
}

function readWrite(bytes: Buffer, depthMax: number): Record<string, unknown> {
  const fault = (why: string, cause?: unknown) => new SynclineError('SYNC_FORMAT_INVALID', why, { cause })
  let value: unknown
  try {
    value = parseJson(bytes.toString(), depthMax)
  } catch (cause) {
    throw fault(`the body is no JSON that is taken here: ${(cause as Error).message}`, cause)
  }
  if (!isJsonObject(value)) throw fault('the body is an object with data, refs or both')
  const unknown = Object.keys(value).filter((member) => member !== 'data' && member !== 'refs')
  if (unknown.length > 0) throw fault(`unknown member ${unknown.join(', ')}; the body has data and refs`)
  return value
}
