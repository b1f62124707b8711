import type { Readable } from 'node:stream'
import { Readable as Stream } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { appendLog, isEdenRegistered, receivedRun } from '../../store/index.ts'
import { s3jsonWriter, s3xmlWriter } from '../../sync/index.ts'
import { peerOf } from '../access.ts'
import type { ServerDeps } from '../deps.ts'
import { linkOf, needsPerson, type Routes } from '../exchange.ts'
import { toSynclineError } from '../problem.ts'
import { type EdenAsked, edenTables, grantedTable, ownRepository, readAsked } from './asked.ts'
import { describedRoute } from './described.ts'
import { publicRoutes } from './public.ts'
import { edenDocument } from './pull.ts'
import { receiveEden } from './push.ts'
import { register } from './register.ts'
import { fieldsXml } from './structure.ts'
import type { NotTaken, Received } from './tally.ts'
import { answerEden, answerFailure, failed } from './words.ts'

const MIXED = 'Mixed resource synchronization not supported'
const UNSUPPORTED = 'Unsupported method!'
const HTML = 'text/html'

/**
 * What Sahana Eden's clients call: registration, pull, push, plain export and import, under its own addresses and with its own words. It is a
 * protocol of others, so it stands beside the API that this site describes.
 */
export const edenRoutes =
  (deps: ServerDeps): Routes =>
  async (app) => {
    readAnything(app as unknown as FastifyInstance)
    app.setErrorHandler((error, request, reply) => answerFailure(error, request, reply))
    app.setNotFoundHandler((_request, reply) => failed(reply, 404, 'Not Found'))

    const plainApp = app as unknown as FastifyInstance
    publicRoutes(plainApp, deps)

    const registration = {
      operationId: 'registerAsEden',
      summary: 'Register as a repository',
      description: 'An Eden site tells its UUID, as {"uuid", "name", "apitype"}, and hears that of this site.',
      gives: ['application/json'],
    }
    describedRoute(
      plainApp,
      { url: '/sync/repository/register.json', access: 'peer', post: registration },
      (request, reply) =>
        request.method === 'POST' || request.method === 'PUT'
          ? register(deps, request, reply)
          : failed(reply, 405, UNSUPPORTED),
    )

    const file = 'What is asked for and its format, such as sync.xml.'
    const synced = {
      get: {
        operationId: 'pullAsEden',
        summary: 'Pull a table as Eden does',
        description:
          'The address that the synchronization of Eden asks for every table: `resource`, `repository`, `msince`, and filters such as `[~]~.name__like=A*`.',
        gives: ['text/xml'],
      },
      post: {
        operationId: 'pushAsEden',
        summary: 'Push a table as Eden does',
        description:
          'A document of S3XML, whatever its Content-Type says. Anything that was not taken makes it 400 or above.',
        gives: ['text/html'],
      },
    }
    describedRoute<{ file: string }>(
      plainApp,
      { url: '/sync/:file', access: 'peer', params: { file }, endless: true, ...synced },
      (request, reply) => synchronize(request, reply, request.params.file),
    )

    const table = {
      prefix: 'Module of the table, such as org.',
      file: 'Name of the table and format, such as office.xml.',
    }
    const whole = {
      get: {
        operationId: 'exportAsEden',
        summary: 'Export a table as Eden does',
        description: 'Plain S3XML (.xml) or S3JSON (.s3json), with `start`, `limit` and filters.',
        gives: ['text/xml', 'application/json'],
      },
      post: {
        operationId: 'importAsEden',
        summary: 'Import into a table as Eden does',
        description: 'A document of S3XML (.xml) or S3JSON (.s3json), as the own write of the peer.',
        gives: ['text/html', 'application/json'],
      },
    }
    describedRoute<{ prefix: string; file: string }>(
      plainApp,
      { url: '/:prefix/:file', access: 'peer', params: table, endless: true, ...whole },
      (request, reply) => {
        const { prefix, file } = request.params
        const [name = '', kind = ''] = split(file)
        return plain(request, reply, `${prefix}_${name}`, kind)
      },
    )

    const direct = {
      get: {
        operationId: 'describeAsEden',
        summary: 'Pull or describe one table as Eden does',
        description: 'sync.xml as above, with `start` and `limit`; fields.xml for the fields of the table.',
        gives: ['text/xml'],
      },
      post: {
        operationId: 'pushTableAsEden',
        summary: 'Push or import one table as Eden does',
        description: 'sync.xml or create.xml with a document of S3XML.',
        gives: ['text/html', 'application/json'],
      },
    }
    const named = { prefix: table.prefix, name: 'Name of the table behind that, such as office.', file }
    describedRoute<{ prefix: string; name: string; file: string }>(
      plainApp,
      { url: '/:prefix/:name/:file', access: 'peer', params: named, endless: true, ...direct },
      (request, reply) => {
        const { prefix, name, file } = request.params
        const table = `${prefix}_${name}`
        const [what, kind] = split(file)
        if (what === 'sync' && kind === 'xml') return exchanged(request, reply, readAsked(request, table, 'direct'))
        if (what === 'fields' && kind === 'xml' && request.method === 'GET') return describe(request, reply, table)
        if (what === 'create' && request.method !== 'GET') return plain(request, reply, table, kind ?? '')
        return failed(reply, 405, UNSUPPORTED)
      },
    )

    async function synchronize(request: FastifyRequest, reply: FastifyReply, file: string): Promise<FastifyReply> {
      const [what, kind] = split(file)
      if (what !== 'sync') return failed(reply, 404, 'Not Found')
      if (kind === undefined)
        return reply.code(303).header('location', '/eden/sync/index').type(`${HTML}; charset=UTF-8`).send('')
      if (kind !== 'xml' && kind !== 's3json') return failed(reply, 405, UNSUPPORTED)
      if (request.method === 'DELETE') return failed(reply, 405, UNSUPPORTED)
      const table = new URLSearchParams(request.url.split('?')[1] ?? '').get('resource')
      // Eden answers this with 200; its client takes what is no error for records.
      if (table === null || table === 'mixed') return failed(reply, 400, MIXED)
      if (!table.includes('_')) return reply.code(400).type(`${HTML}; charset=UTF-8`).send('Invalid request')
      const asked = readAsked(request, table, 'sync')
      return exchanged(request, reply, kind === 's3json' ? { ...asked, includeDeleted: false } : asked)
    }

    async function exchanged(request: FastifyRequest, reply: FastifyReply, asked: EdenAsked): Promise<FastifyReply> {
      if (request.method === 'GET') return pull(request, reply, asked, 'xml')
      if (request.method === 'DELETE') return failed(reply, 405, UNSUPPORTED)
      return push(request, reply, asked)
    }

    async function plain(
      request: FastifyRequest,
      reply: FastifyReply,
      table: string,
      kind: string,
    ): Promise<FastifyReply> {
      if (kind !== 'xml' && kind !== 's3json') return failed(reply, 405, UNSUPPORTED)
      if (request.method === 'DELETE') return failed(reply, 405, UNSUPPORTED)
      const asked = readAsked(request, table, 'plain')
      return request.method === 'GET' ? pull(request, reply, asked, kind) : importPlain(request, reply, asked, kind)
    }

    async function pull(
      request: FastifyRequest,
      reply: FastifyReply,
      asked: EdenAsked,
      kind: 'xml' | 's3json',
    ): Promise<FastifyReply> {
      const link = { self: await deps.self(), peer: peerOf(request) }
      const writer = kind === 'xml' ? s3xmlWriter() : s3jsonWriter()
      const document = await edenDocument(deps, link, asked, await edenTables(deps.store), writer)
      // However long it takes altogether: who stops taking it loses the connection.
      reply.raw.setTimeout(deps.limits.requestTimeoutMs, () => reply.raw.destroy())
      return reply.type(document.mediaType).send(Stream.from(document.pieces, { objectMode: false }))
    }

    async function push(request: FastifyRequest, reply: FastifyReply, asked: EdenAsked): Promise<FastifyReply> {
      const peer = peerOf(request)
      const registered = await isEdenRegistered(deps.store.db, peer.id)
      if (!ownRepository(asked, peer, registered)) return failed(reply, 403, 'Registration required')
      return take(request, reply, asked, true, HTML)
    }

    function importPlain(
      request: FastifyRequest,
      reply: FastifyReply,
      asked: EdenAsked,
      kind: string,
    ): Promise<FastifyReply> {
      return take(request, reply, asked, false, kind === 'xml' ? HTML : 'application/json')
    }

    async function take(
      request: FastifyRequest,
      reply: FastifyReply,
      asked: EdenAsked,
      shown: boolean,
      type: string,
    ): Promise<FastifyReply> {
      const began = performance.now()
      const link = await linkOf(deps, request)
      const tables = await edenTables(deps.store)
      const entry = { peer: { id: link.peer.id, name: link.peer.name }, resource: asked.table } as const
      const words = { mode: 'push', direction: 'incoming', action: 'receive' } as const
      const run = { ...(await receivedRun(deps.store.db, link.peer, null)), wrote: false }
      try {
        await grantedTable(deps.store, tables, link.peer, asked.table, 'push')
        const receiving = { table: asked.table, tables, shown, run }
        const received = await receiveEden(deps, link, request.body as Readable, receiving)
        const { counts, records, notTakenCount } = received
        const durationMs = Math.round(performance.now() - began)
        const message = notTakenCount === 0 ? takenSentence(received) : sentenceOf(received)
        await appendLog(deps.store.db, {
          ...{ ...entry, ...words, message, remote: notTakenCount > 0, durationMs, runId: run.wrote ? run.id : null },
          result:
            notTakenCount > 0
              ? 'error'
              : needsPerson({ counts, rejections: [], truncated: false })
                ? 'warning'
                : 'success',
          ...{ changes: records, applied: counts.applied + counts.merged, conflicts: counts.conflict },
          ...{ quarantined: counts.quarantined, refused: counts.refused },
        })
        deps.observe.events.pushServed({ peer: link.peer.name, resource: asked.table, counts, bytes: 0, durationMs })
        if (notTakenCount > 0) return failed(reply, 400, message, treeOf(received.notTaken))
        return answerEden(reply, 200, { status: 'success', statuscode: '200', records }, type)
      } catch (error) {
        const known = toSynclineError(error)
        const message =
          known === undefined ? `internal error, request ${request.id}` : `${known.code}: ${known.message}`
        await appendLog(deps.store.db, {
          ...{ ...entry, ...words, result: 'error', remote: known !== undefined, message },
          runId: run.wrote ? run.id : null,
        }).catch(() => {})
        throw error
      }
    }

    async function describe(request: FastifyRequest, reply: FastifyReply, table: string): Promise<FastifyReply> {
      const tables = await edenTables(deps.store)
      const { shape, resource } = await grantedTable(deps.store, tables, peerOf(request), table, 'pull')
      const whole = resource.columns.filter(({ baseType }) => /^int[248]$/.test(baseType)).map(({ name }) => name)
      return reply.type('text/xml').send(fieldsXml(shape, tables.shapes, new Set(whole)))
    }
  }

/** The same address under `/eden`, whatever a repository URL has in front of that. */
export function edenAddress(url: string): string {
  if (!url.includes('/eden/') || /^\/(?:eden|api|docs)\/|^\/sync\/v1\//.test(url)) return url
  return /^\/[^?]*?(\/eden\/[^/?]+\/[^?]*)/.test(url) ? url.slice(url.indexOf('/eden/')) : url
}

/** A body is read as what it is, piece by piece, whatever its Content-Type says. */
function readAnything(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
  // Without a Content-Type there is a body all the same.
  app.addHook('preHandler', async (request) => {
    request.body ??= request.raw
  })
}

function split(file: string): readonly [name: string, kind: string | undefined] {
  const dot = file.lastIndexOf('.')
  return dot === -1 ? [file, undefined] : [file.slice(0, dot), file.slice(dot + 1)]
}

function takenSentence({ records, files }: Received): string {
  const named = files === 0 ? '' : `; ${files} files that they name come where this site calls that Eden`
  return `Data received from peer (${records} records)${named}`
}

function sentenceOf({ notTaken, notTakenCount, records }: Received): string {
  const some = notTaken.slice(0, 5).map(({ table, id, reason }) => `(UID: ${id}) ${table}: ${reason}`)
  return `${notTakenCount} of the records were not taken, ${records} were: ${some.join('; ')}`
}

/** The records that failed, as Eden shows them. */
function treeOf(notTaken: readonly NotTaken[]): Record<string, unknown> {
  const byTable = Map.groupBy(notTaken, ({ table }) => `$_${table}`)
  return Object.fromEntries(
    [...byTable].map(([table, some]) => [table, some.map(({ id, reason }) => ({ '@uuid': id, '@error': reason }))]),
  )
}
