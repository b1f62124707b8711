import { Readable as Stream } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type Dataset, readArchive, readDatasets } from '../../store/index.ts'
import {
  chosenEntries,
  type DatasetEntry,
  type DatasetNoun,
  datasetElement,
  emptyS3xml,
  s3jsonWriter,
  s3xmlWriter,
} from '../../sync/index.ts'
import type { ServerDeps } from '../deps.ts'
import { describedRoute } from './described.ts'
import { namedFile } from './files.ts'
import { failed } from './words.ts'

const NOUNS: readonly (readonly [DatasetNoun, string])[] = [
  ['dataset', 'readEdenDatasets'],
  ['task', 'readEdenTasks'],
  ['resource_filter', 'readEdenFilters'],
]
/** Pull, in Eden's numbers of modes. */
const PULL = 1

/** What an Eden may read without an account: which data sets there are, and their archives. */
export function publicRoutes(app: FastifyInstance, deps: ServerDeps): void {
  for (const [noun, operationId] of NOUNS) {
    const handler = (request: FastifyRequest<{ Params: { format?: string } }>, reply: FastifyReply) =>
      tell(deps, request, reply, noun, request.params.format ?? '')
    const get = {
      operationId,
      summary: 'Read of data sets',
      description: `Entries of Eden's table sync_${noun}, as far as they belong to data sets of this site.`,
      gives: ['text/xml', 'application/json'],
    }
    describedRoute(app, { url: `/sync/${noun}`, access: 'public' }, handler)
    const params = { format: 'xml or s3json.' }
    describedRoute(app, { url: `/sync/${noun}.:format`, access: 'public', params, get }, handler)
  }

  const get = {
    operationId: 'downloadEdenArchive',
    summary: 'Download an archive or a file',
    description:
      'All of a data set as it was, in one zip file; or a file of a record, under the name that a document told, which is the permission for it.',
    gives: ['application/zip', 'application/octet-stream'],
  }
  describedRoute<{ file: string }>(
    app,
    { url: '/default/download/:file', access: 'public', params: { file: 'Name of the archive.' }, endless: true, get },
    async (request, reply) => {
      if (request.method !== 'GET') return failed(reply, 405, 'Unsupported method!')
      const file = await namedFile(deps, request.params.file)
      if (file !== null) return reply.type(file.mediaType).send(file.bytes)
      const archive = await readArchive(deps.store.db, request.params.file.replace(PREFIX, ''))
      if (archive === null) return failed(reply, 404, 'Not Found')
      // However long it takes altogether: who stops taking it loses the connection.
      reply.raw.setTimeout(deps.limits.requestTimeoutMs, () => reply.raw.destroy())
      return reply
        .type('application/zip')
        .headers({ 'content-length': archive.bytes, 'last-modified': new Date(archive.madeAt).toUTCString() })
        .send(Stream.from(archive.pieces(), { objectMode: false }))
    },
  )
}

/** As Eden names what was uploaded to a field. */
const PREFIX = /^sync_dataset_archive\.archive\./

async function tell(
  deps: ServerDeps,
  request: FastifyRequest,
  reply: FastifyReply,
  noun: DatasetNoun,
  format: string,
): Promise<FastifyReply> {
  if (request.method !== 'GET') return failed(reply, 405, 'Unsupported method!')
  if (format !== 'xml' && format !== 's3json') return failed(reply, 415, 'Unsupported format: only xml and s3json')
  const datasets = await readDatasets(deps.store.db, { removed: true })
  const base = deps.publicUrl()
  const entries = datasets.flatMap((dataset) => entriesOf(dataset, base)).filter((entry) => entry.noun === noun)
  const variables = [...new URLSearchParams(request.url.split('?').slice(1).join('?'))]
  const chosen = chosenEntries(entries, variables)
  const writer = format === 'xml' ? s3xmlWriter() : s3jsonWriter()
  const root = { success: String(chosen.length > 0), results: String(chosen.length), url: `${base}/eden` }
  if (chosen.length === 0 && format === 'xml') return reply.type('text/xml').send(emptyS3xml(root))
  const elements = chosen.map(datasetElement)
  return reply
    .type(writer.mediaType)
    .send([writer.open(root), ...elements.map(writer.element), writer.close()].join(''))
}

/** What tells of a data set at Eden. */
function entriesOf(dataset: Dataset, base: string): DatasetEntry[] {
  const { code, archive } = dataset
  const common = {
    createdOn: dataset.createdAt.slice(0, 19),
    modifiedOn: dataset.modifiedAt.slice(0, 19),
    deleted: dataset.removedAt !== null,
  }
  const self = { noun: 'dataset', uuid: `urn:uuid:${dataset.uuid}` } as const
  const url = archive === null ? null : `${base}/eden/default/download/sync_dataset_archive.archive.${archive.name}`
  const fields = { code, name: dataset.name, archive_url: url, use_archive: archive !== null }
  const entries: DatasetEntry[] = [
    { ...common, ...self, fields: { ...fields, comments: dataset.comments }, references: {}, seen: {} },
  ]
  for (const table of dataset.tables) {
    const task = { noun: 'task', uuid: `urn:uuid:${table.uuid}` } as const
    entries.push({
      ...{ ...common, ...task },
      fields: { resource_name: table.resource, mode: PULL, components: false },
      references: { dataset_id: self },
      seen: { dataset_id$code: code, dataset_id$uuid: self.uuid },
    })
    if (table.filter === null) continue
    entries.push({
      ...{ ...common, noun: 'resource_filter', uuid: `urn:uuid:${table.filterUuid}` },
      fields: { tablename: table.resource, filter_string: table.filter },
      references: { task_id: task },
      seen: { task_id$uuid: task.uuid, task_id$dataset_id$code: code, task_id$resource_name: table.resource },
    })
  }
  return entries
}
